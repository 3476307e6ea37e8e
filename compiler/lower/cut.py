"""How much of a convolution a task takes, so that what it reads again and again stays in cache.

A task takes a band of rows and some panels of output channels, and sums some units of input
channels at a time. Taller bands copy and recompute less at their borders and read the weights less
often; fewer panels copy the input more often; few tasks leave threads idle. The cheapest cut by a
rough count of cycles is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

# Bytes of the input's band, and of a panel of weights, that stay in the second-level cache.
_INPUT = 128 * 1024
_WEIGHTS = 128 * 1024
# Products of a sum in parts: then a panel of weights stays in the first-level cache.
_PRODUCTS = 128
# Bytes of each local buffer; two fit on the stack.
_LOCAL = 112 * 1024
# Bytes a cycle from the third-level cache that are not hidden behind arithmetic, bytes a cycle that
# are copied, and that are added to sums in memory.
_READ = 24.0
_COPY = 12.0
_ADD = 16.0
# Cycles of a task beside its work.
_TASK = 2000.0
# Numbers of threads that tasks should be shared out among evenly.
_THREADS = (2, 4, 8, 16)


@dataclass(frozen=True)
class Cut:
    """What a task takes.

    Arguments:
        rows: of the band.
        panels: of output channels.
        units: of input channels that are summed at a time.
    """

    rows: int
    panels: int
    units: int


@dataclass(frozen=True)
class Work:
    """What is cut.

    Arguments:
        rows: there are, or blocks of them.
        panels: there are.
        units: there are; 1 if they are not to be cut.
        others: tasks for each band and panel: samples, groups.
        cycles: of arithmetic for a band of so many rows and one panel.
        input: bytes of a unit that a band of so many rows reads.
        weights: bytes of a unit and panel.
        products: of a unit in each sum.
        sums: bytes of the sums of a band of so many rows and one panel.
        copied: whether the input is copied.
        kept: whether sums are kept in memory even if all units are summed at once.
        own_input: whether each panel reads input of its own (depthwise).
        chunks: units are summed in so many parts, if that fits; None if all numbers are as good.
    """

    rows: int
    panels: int
    units: int
    others: int
    cycles: Callable[[int], float]
    input: Callable[[int], int]
    weights: int
    products: int
    sums: Callable[[int], int]
    copied: bool
    kept: bool
    own_input: bool
    chunks: int | None = None

    def cut(self) -> Cut | None:
        """The cheapest cut; None if not even a row fits."""
        found = list(self._cuts(_divisors(self.units)))
        if self.chunks is not None and self.units % self.chunks == 0:
            found = list(self._cuts([self.units // self.chunks])) or found
        cuts = [(self._cost(cut), -cut.rows, cut.panels, cut) for cut in found]
        return min(cuts, key=lambda each: each[:3])[-1] if cuts else None

    def _cuts(self, chunks: Sequence[int]) -> Iterator[Cut]:
        """The cuts that fit, with the first of these numbers of units that does."""
        for rows in _lengths(self.rows):
            for panels in _lengths(self.panels):
                for units in chunks:
                    cut = Cut(rows, panels, units)
                    if self._fits(cut):
                        yield cut
                        break

    def _sums(self, cut: Cut) -> int:
        """Bytes of sums in memory."""
        is_needed = self.kept or cut.units < self.units
        return cut.panels * self.sums(cut.rows) if is_needed else 0

    def _input(self, cut: Cut) -> int:
        """Bytes of the input at a time."""
        return self.input(cut.rows) * cut.units * (cut.panels if self.own_input else 1)

    def _fits(self, cut: Cut) -> bool:
        least = cut.rows == cut.units == 1
        if self.weights * cut.units > _WEIGHTS and cut.units > 1:
            return False
        if 1 < cut.units < self.units and self.products * cut.units > _PRODUCTS:
            return False
        if self._input(cut) > (_LOCAL if self.copied else _INPUT) and (self.copied or not least):
            return False
        return self._sums(cut) <= _LOCAL

    def _cost(self, cut: Cut) -> float:
        chunks = self.units // cut.units
        tasks = self.others * -(-self.rows // cut.rows) * -(-self.panels // cut.panels)
        read = self._input(cut) * chunks
        weights = self.weights * self.units * cut.panels
        cycles = _TASK + self.cycles(cut.rows) * cut.panels + (read + weights) / _READ
        if self.copied:
            cycles += read / _COPY
        if chunks > 1:
            cycles += chunks * self._sums(cut) / _ADD
        # Whoever is done first waits for half a task, the mean of what others still have to do.
        return cycles * sum(-(-tasks // n) * n + n / 2 for n in _THREADS) / len(_THREADS)


def _lengths(extent: int) -> list[int]:
    """Lengths that differ in how many blocks there are, the longest first."""
    return sorted({-(-extent // n) for n in range(1, max(1, extent) + 1)} or {1}, reverse=True)


def _divisors(extent: int) -> list[int]:
    """The longest first."""
    return [n for n in range(max(1, extent), 0, -1) if extent % n == 0] or [1]
