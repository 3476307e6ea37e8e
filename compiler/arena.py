"""One piece of memory for values that are alive at different times.

Offsets are given to the largest first, each at the lowest place where nothing alive at the same
time is in the way (Pisarchyk and Lee, Efficient memory management for deep neural net inference,
2020: greedy by size).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

_ALIGN = 64


@dataclass
class Block:
    """Bytes of the arena, and the kernels between which they are taken.

    A block inside of another one begins at a byte of that one, and is alive as long. It reaches
    from its first byte to its last, whatever lies in between.
    """

    name: str
    nbytes: int
    first: int
    last: int
    offset: int = 0
    inside: tuple[Block, int] | None = None


def place(blocks: Iterable[Block]) -> int:
    """Gives every block its offset; returns the size of the arena in bytes."""
    done: list[Block] = []
    total = 0
    for block in sorted(blocks, key=lambda b: (-b.nbytes, b.first, b.name)):
        size = aligned(block.nbytes)
        rivals = [b for b in done if b.first <= block.last and block.first <= b.last]
        offset = 0
        for other in sorted(rivals, key=lambda b: b.offset):
            if offset + size <= other.offset:
                break
            offset = max(offset, other.offset + aligned(other.nbytes))
        block.offset = offset
        done.append(block)
        total = max(total, offset + size)
    return total


def overlay(blocks: Iterable[tuple[int, int, int]]) -> tuple[list[int], int]:
    """Offsets of blocks (bytes, first kernel, last kernel) in one piece of memory, and its size."""
    placed = [Block(str(i), *block) for i, block in enumerate(blocks)]
    total = place(placed)
    return [block.offset for block in placed], total


def aligned(nbytes: int) -> int:
    """Bytes that a value takes of the arena."""
    return -(-nbytes // _ALIGN) * _ALIGN
