"""Point nodes and reductions of few rows with much to reduce, each stage split into chunks.

How many chunks there are follows from the shape alone, and their partial results are combined in
order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..graph import Value
from ..loops import ir
from ..loops.ir import Buffer, LoopKind, Space
from .elements import Elements
from .nest_stage import Loops, Nest, Place, Row, cleared, first_of, first_place, reduce_op
from .space import Piece, pieces

_CHUNKS = 64


@dataclass
class Chunks(Nest):
    """Every stage in parallel chunks, then their partial results combined."""

    def body(self) -> ir.Block:
        axis = max(self.reduced, key=lambda d: self.axes[d].extent)
        extent = self.axes[axis].extent
        parts = pieces(extent, -(-extent * max(self.independent, 1) // _CHUNKS))
        results: dict[Value, Buffer] = {}
        body: ir.Block = ()
        for stage in range(self.stages.count):
            partial = {v: self._partial(v, parts) for v in self.stages.reduced_in(stage)}
            first = 0
            for piece in parts:
                body += self._chunks(stage, axis, piece, first, partial, results)
                first += piece.count
            for value, buffer in partial.items():
                results[value] = replace(
                    buffer, name=f"{buffer.name}_total", shape=buffer.shape[:-1]
                )
                self.binding.scratch.append(results[value])
            if partial:
                body += self._combine(stage, partial, results)
        return body

    def _partial(self, value: Value, parts: Sequence[Piece]) -> Buffer:
        shape = (*self.binding.shape(value), sum(p.count for p in parts))
        dtype = self.binding.graph.type_of(value).dtype
        return self.binding.local("partial", shape, dtype, Space.SCRATCH)

    def _chunks(
        self,
        stage: int,
        axis: int,
        piece: Piece,
        first: int,
        partial: dict[Value, Buffer],
        results: dict[Value, Buffer],
    ) -> ir.Block:
        """One stage over the chunks of a piece of the longest reduced axis."""
        number = self.binding.var("c")
        limits = {axis: (number * piece.length + piece.base, piece.length)}

        def inside(place: Place) -> ir.Block:
            elements = self._resumed(place, stage, results)
            accumulators = self.accumulators(stage)
            body = elements.take_block() + cleared(accumulators, self.binding.graph)
            body += self.walk([Row(elements, place, accumulators)], stage, limits)
            for value, buffer in partial.items():
                index = (*self.index(value, place), number + first)
                total = first_of(accumulators[value])
                body += (*self.total(value, accumulators[value]), ir.Store(buffer, index, total))
            return body

        return self._over_rows(inside, [(number, piece.count)])

    def _combine(
        self, stage: int, partial: dict[Value, Buffer], results: dict[Value, Buffer]
    ) -> ir.Block:
        """The chunks' partial results as one, and what follows from them for each row."""

        def inside(place: Place) -> ir.Block:
            elements = self._resumed(place, stage, results)
            accumulators = self.accumulators(stage)
            body = elements.take_block() + cleared(accumulators, self.binding.graph)
            for value, buffer in partial.items():
                number, index = self.binding.var("c"), self.index(value, place)
                x = ir.Load(buffer, (*index, number))
                op = reduce_op(self.binding.graph, value)
                add = ir.Accumulate(accumulators[value], first_place(accumulators[value]), op, x)
                total = elements.name(first_of(accumulators[value]), "row")
                body += (ir.For(number, buffer.shape[-1], (add,)), *elements.take_block())
                body += (ir.Store(results[value], index, total),)
                elements.given[value] = total
            levels = (0, 1) if stage == 0 else (stage + 1,)
            for level in levels:
                body += self.row_level(elements, place, level)
            return body

        return self._over_rows(inside, [])

    def _resumed(self, place: Place, stage: int, results: dict[Value, Buffer]) -> Elements:
        """Elements that know what earlier stages have found."""
        elements = self.binding.elements()
        for value, buffer in results.items():
            if self.stages.level[value] <= stage:
                load = ir.Load(buffer, self.index(value, place))
                elements.given[value] = elements.name(load, "row")
        for value in self.stages.row_level_up_to(stage):
            elements.at(value, self.index(value, place))
        for earlier in range(stage):
            for value in self.stages.stored_in(earlier):
                elements.hold(value, self.binding.outputs[value])
        return elements

    def _over_rows(self, inside: Callable[[Place], ir.Block], extra: Loops) -> ir.Block:
        """Loops over the kept axes: parallel, the innermost one in lanes if it is contiguous."""
        place: Place = {}
        loops: Loops = []
        lane: ir.Var | None = None
        for d in self.kept:
            var = self.binding.var("k")
            place[d] = var
            if self.by_columns and d == self.kept[-1]:
                lane = var
            else:
                loops.append((var, self.axes[d].extent))
        body = inside(place)
        if lane is not None:
            extent = self.axes[self.kept[-1]].extent
            body = (ir.For(lane, extent, body, LoopKind.VECTOR, self.lanes),)
        return ir.loop_nest((*loops, *extra), body, LoopKind.PARALLEL)
