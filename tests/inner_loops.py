"""Loops in assembly: what their bodies are made of."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LABEL = re.compile(r"(\.?[\w$.]+):")
_JUMP = re.compile(r"\tj\w+\t(\.L\w+)")
_PRODUCT = re.compile(r"\t(v?mulps|vfn?m(add|sub)\d+ps)\t")
_SPILL = re.compile(r"-byte (Folded )?(Spill|Reload)")


@dataclass(frozen=True)
class InnerLoop:
    """The lines of a loop that has no other in it.

    Basic blocks that LLVM has put elsewhere are left out.
    """

    lines: tuple[str, ...]

    @property
    def products(self) -> int:
        """Multiplications, with an addition or without."""
        return sum(1 for line in self.lines if _PRODUCT.match(line))

    def wide_products(self, register: str) -> int:
        """Those of registers of this kind."""
        return sum(1 for line in self.lines if _PRODUCT.match(line) and f"%{register}" in line)

    @property
    def divides(self) -> bool:
        return any(re.match(r"\tv?divps\t", line) for line in self.lines)

    @property
    def spills(self) -> int:
        """Moves of vectors and addresses to and from the stack, by LLVM's own comments."""
        return sum(1 for line in self.lines if _SPILL.search(line))

    def registers(self, kind: str) -> frozenset[int]:
        """Numbers of the registers of a kind: "xmm", "ymm" or "zmm"."""
        return frozenset(int(n) for line in self.lines for n in re.findall(rf"%{kind}(\d+)", line))

    def count(self, mnemonic: str) -> int:
        """Instructions whose name begins so."""
        return sum(1 for line in self.lines if line.startswith(f"\t{mnemonic}"))


def inner_loops(assembly: str) -> list[InnerLoop]:
    """The innermost loops: from a label that a later line jumps back to, to the last such line."""
    lines = assembly.splitlines()
    labels = {m[1]: i for i, line in enumerate(lines) if (m := _LABEL.match(line))}
    ends: dict[int, int] = {}
    for i, line in enumerate(lines):
        if (jump := _JUMP.match(line)) and labels.get(jump[1], i + 1) <= i:
            ends[labels[jump[1]]] = i
    return [
        InnerLoop(tuple(lines[begin : end + 1]))
        for begin, end in sorted(ends.items())
        if not any(begin < other <= end for other in ends)
    ]
