"""Planes side by side: a core gets more from memory at several places at a time than at one.

Processors read ahead of each place that a program walks from, a few lines each, so that one walk
leaves most of what memory could give unused: to read a large array from four places in turn, five
hundred to two thousand bytes at a time, is 1.5 times as fast as from its beginning to its end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..cost_model import L2_BYTES
from ..loops import ir
from ..loops.ir import Expr, LoopKind
from ..types import Shape
from .binding import Binding
from .index import Index
from .tile import panels

TOGETHER = 4  # planes


@dataclass(frozen=True)
class Planes:
    """Some planes, which have the same rows.

    Arguments:
        binding: the group.
        first: sample and channel of the first of them.
        axis: along which they lie: 0 for samples, 1 for channels.
        count: how many there are.
    """

    binding: Binding
    first: Index
    axis: int
    count: int

    def each(self, body: Callable[[Index, Expr], ir.Block]) -> ir.Block:
        """A loop over the planes.

        Arguments:
            body: from sample and channel of a plane, and its number among these.
        """
        number, loops = self.binding.loop("p", self.count)
        place = list(self.first)
        place[self.axis] = place[self.axis] + number
        return ir.loop_nest(loops, body(tuple(place), number))


def over_planes(
    binding: Binding,
    planes: Shape,
    nbytes: int,
    rows: ir.Loops,
    body: Callable[[Planes], ir.Block],
) -> ir.Block:
    """Parallel loops over the rows of all planes, some planes at a time.

    Arguments:
        binding: the group.
        planes: numbers of samples and of channels.
        nbytes: that all of them have; if they fit a cache, planes are walked one by one.
        rows: loops over the rows of a plane.
        body: what is done with a row of some planes.
    """
    axis = 1 if planes[1] > 1 else 0
    result: ir.Block = ()
    for span in panels(planes[axis], TOGETHER if nbytes > L2_BYTES else 1):
        place: list[Expr] = []
        loops: ir.Loops = ()
        for number, extent in enumerate(planes):
            var = binding.var("nc"[number])
            along = number == axis
            loops += ((var, span.count if along else extent),)
            place.append(var * span.length + span.start if along else var)
        inside = body(Planes(binding, tuple(place), axis, span.length))
        result += ir.loop_nest((*loops, *rows), inside, LoopKind.PARALLEL)
    return result
