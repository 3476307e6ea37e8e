"""One piece of memory for values that are alive at different times.

Offsets are given to the largest first, each at the lowest place where nothing alive at the same
time is in the way (Pisarchyk and Lee, Efficient memory management for deep neural net inference,
2020: greedy by size).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

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
    order = sorted(blocks, key=lambda b: (-b.nbytes, b.first, b.name))
    # Offset, end, first and last kernel of those that have been placed, by offset.
    table = np.zeros((4, len(order)), np.int64)
    for count, block in enumerate(order):
        size = aligned(block.nbytes)
        offsets, ends, firsts, lasts = table[:, :count]
        rivals = (firsts <= block.last) & (lasts >= block.first)
        taken = np.maximum.accumulate(np.append(0, ends[rivals]))
        gaps = np.flatnonzero(taken[:-1] + size <= offsets[rivals])
        block.offset = int(taken[gaps[0] if gaps.size else -1])
        at = np.searchsorted(offsets, block.offset)
        table[:, at + 1 : count + 1] = table[:, at:count].copy()
        table[:, at] = block.offset, block.offset + size, block.first, block.last
    return int(table[1].max(initial=0))


def overlay(blocks: Iterable[tuple[int, int, int]]) -> tuple[list[int], int]:
    """Offsets of blocks (bytes, first kernel, last kernel) in one piece of memory, and its size."""
    placed = [Block(str(i), *block) for i, block in enumerate(blocks)]
    total = place(placed)
    return [block.offset for block in placed], total


def aligned(nbytes: int) -> int:
    """Bytes that a value takes of the arena."""
    return -(-nbytes // _ALIGN) * _ALIGN
