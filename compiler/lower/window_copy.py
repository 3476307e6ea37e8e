"""Copies of what some windows read, dense and with zeros for the padding, on the stack.

A block of outputs along a spatial axis reads a run of places, or, where its taps are further apart
than that, for each tap the places of its outputs. The loops that read the copy need no conditions,
and walk through memory that lies together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from ..loops import ir
from ..loops.ir import Expr
from .slide import Slide


@dataclass(frozen=True)
class Run:
    """Neighbouring places of a copy and where they come from.

    Arguments:
        start: the first place in the copy.
        length: number of places.
        source: what the first one is a copy of.
        step: distance between the sources of neighbours.
    """

    start: Expr
    length: int
    source: Expr
    step: int

    def place(self, number: Expr) -> tuple[Expr, Expr]:
        """Place `number` of the run, in the copy and in the source."""
        return self.start + number, self.source + number * self.step

    def part(self, start: int, length: int) -> Run:
        """Some of its places."""
        return Run(self.start + start, length, self.source + start * self.step, self.step)


@dataclass(frozen=True)
class Reach:
    """What a block of outputs reads along a spatial axis.

    Arguments:
        slide: of the windows.
        extent: of what is read.
        length: number of outputs.
    """

    slide: Slide
    extent: int
    length: int

    @cached_property
    def _first_to_last(self) -> int:
        low, high = self.slide.reads(self.length)
        return high - low

    @cached_property
    def _first(self) -> int:
        """The first place that output 0 reads; that of tap 0 unless taps go backwards."""
        return self.slide.first + min(0, (self.slide.taps - 1) * self.slide.dilation)

    @property
    def by_taps(self) -> bool:
        """Whether the copy holds the places of each tap, not all between the first and the last."""
        return self.slide.taps * self.length < self._first_to_last

    @property
    def size(self) -> int:
        """Number of places in the copy."""
        return self.slide.taps * self.length if self.by_taps else self._first_to_last

    @property
    def is_inside(self) -> bool:
        """Whether no output of the axis reads beyond the extent."""
        low, high = self.slide.reads(self.slide.count)
        return low >= 0 and high <= self.extent

    def place(self, output: Expr, tap: Expr) -> Expr:
        """Where the copy has what a tap of an output reads."""
        if self.by_taps:
            return tap * self.length + output
        slide = self.slide
        return output * slide.stride + tap * slide.dilation + (slide.first - self._first)

    def runs(self, start: Expr) -> list[Run]:
        """The copy for the outputs from `start` on."""
        if not self.by_taps:
            source = start * self.slide.stride + self._first
            return [Run(ir.index(0), self._first_to_last, source, 1)]
        first = start * self.slide.stride + self.slide.first
        stride, dilation = self.slide.stride, self.slide.dilation
        return [
            Run(ir.index(t * self.length), self.length, first + t * dilation, stride)
            for t in range(self.slide.taps)
        ]

    def inside(self, place: Expr) -> Expr:
        """Whether a place is no padding."""
        return (place >= 0) & (place < self.extent)


@dataclass(frozen=True)
class WindowCopy:
    """Writes a copy.

    Arguments:
        reaches: one a spatial axis.
        copy: writes a run along the last axis, given its places along the others: (place in the
            copy, place in the source) each.
        clear: writes zeros there instead.
        var: makes a loop variable.
    """

    reaches: Sequence[Reach]
    copy: Callable[[Sequence[tuple[Expr, Expr]], Run], ir.Block]
    clear: Callable[[Sequence[tuple[Expr, Expr]], Run], ir.Block]
    var: Callable[[str], ir.Var]

    def write(self, starts: Sequence[Expr]) -> ir.Block:
        """The copy for blocks of outputs that start there."""
        body: ir.Block = ()
        outer = [r.runs(s) for r, s in zip(self.reaches[:-1], starts[:-1], strict=True)]
        for runs in product(*outer):
            numbers = [self.var("row") for _ in runs]
            rows = [run.place(i) for run, i in zip(runs, numbers, strict=True)]
            whole = self._columns(rows, starts[-1])
            checks = [
                reach.inside(source)
                for reach, (_, source) in zip(self.reaches, rows, strict=False)
                if not reach.is_inside
            ]
            for check in checks:
                whole = (ir.If(check, whole, self._cleared(rows, starts[-1])),)
            loops = [(i, run.length) for i, run in zip(numbers, runs, strict=True)]
            body += ir.loop_nest(tuple(loops), whole)
        return body

    def _cleared(self, rows: Sequence[tuple[Expr, Expr]], start: Expr) -> ir.Block:
        return sum((self.clear(rows, run) for run in self.reaches[-1].runs(start)), ())

    def _columns(self, rows: Sequence[tuple[Expr, Expr]], start: Expr) -> ir.Block:
        """All runs along the last axis."""
        reach = self.reaches[-1]
        body: ir.Block = ()
        for run in reach.runs(start):
            if reach.is_inside:
                body += self.copy(rows, run)
            elif isinstance(run.source, ir.Const):
                for part, inside in _split(run, int(run.source.value), reach.extent):
                    body += self.copy(rows, part) if inside else self.clear(rows, part)
            else:
                body += self._checked(rows, run, reach)
        return body

    def _checked(self, rows: Sequence[tuple[Expr, Expr]], run: Run, reach: Reach) -> ir.Block:
        """A run that may touch padding: as a whole if it does not, else place by place."""
        last = run.source + (run.length - 1) * run.step
        whole = (run.source >= 0) & (last < reach.extent)
        number = self.var("i")
        place, source = run.place(number)
        one = Run(place, 1, source, run.step)
        check = ir.If(reach.inside(source), self.copy(rows, one), self.clear(rows, one))
        return (ir.If(whole, self.copy(rows, run), (ir.For(number, run.length, (check,)),)),)


def _split(run: Run, source: int, extent: int) -> Iterator[tuple[Run, bool]]:
    """The parts of a run before, in and behind the extent, and whether they are inside."""
    start = min(max(-(source // run.step), 0), run.length)
    stop = max(min((extent - 1 - source) // run.step + 1, run.length), start)
    for low, high, inside in ((0, start, False), (start, stop, True), (stop, run.length, False)):
        if high > low:
            yield run.part(low, high - low), inside
