"""Point nodes and reductions over one iteration space, in one kernel.

The axes of the space are kept or reduced. For each place on the kept axes (a *row*) the reduced
ones are walked once a *stage*: a stage computes the reductions whose operands are known by then,
and stores the full-size results that are. So softmax is three stages of one row (max, sum,
quotient), and batch-norm statistics are two stages of a channel. Values of a row are computed once
a row; full-size values are computed again in each stage that needs them, unless they are
expensive: then they stay in a row buffer.

Rows are independent, hence parallel. Short ones go through their stages side by side: while one
waits for what its lanes have together, others go on. Where there are few rows and much to reduce,
stages are split (`nest_chunks.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ..graph import Graph, Value
from ..group import Group
from ..llvm.target import Target
from ..loops import ir
from ..loops.ir import Buffer, Expr, LoopKind, Space
from .binding import Binding, Lowered
from .nest_chunks import Chunks
from .nest_stage import COLUMN_CHUNK, Loops, Nest, Place, Row, cleared, first_of
from .space import Piece, aligned_values, is_rigid, merge_axes, merged_shape, pieces
from .stages import Stages

_ROW_BUFFER_BYTES = 32 * 1024
_POINT_CHUNK = 2048
_ENOUGH_ROWS = 64
_FEW_ROWS = 16
_LONG = 16384
# Elements of a row up to which several are done side by side.
_SHORT = 128


def lower_nest(graph: Graph, group: Group, target: Target) -> Lowered:
    """The kernel of a group of point nodes and reductions."""
    axes = merge_axes(graph, group)
    shapes = {
        v: merged_shape(graph, v, axes, len(group.space)) for v in aligned_values(graph, group)
    }
    if is_rigid(graph, group):
        shapes = {}
    parts = (Binding(graph, group, target, shapes), Stages(graph, group), axes)
    nest: Nest = WholeRows(*parts)
    if _is_split(nest):
        nest = Chunks(*parts)
    return nest.binding.finish(nest.body(), _note(nest))


def _is_split(nest: Nest) -> bool:
    """Whether there are few rows and much to reduce."""
    length = math.prod(nest.axes[d].extent for d in nest.reduced)
    return bool(nest.reduced) and nest.independent < _FEW_ROWS and length >= _LONG


def _note(nest: Nest) -> str:
    shape = "x".join(str(a.extent) for a in nest.axes) or "scalar"
    if not nest.reduced:
        return f"pointwise {shape}"
    way = "split" if isinstance(nest, Chunks) else "columns" if nest.by_columns else "rows"
    return f"{nest.stages.count}-stage reduction {shape} by {way}"


@dataclass
class WholeRows(Nest):
    """Every row from its first stage to its last."""

    def body(self) -> ir.Block:
        place: Place = {}
        loops: Loops = []
        for d in self.kept[:-1] if self.by_columns else self.kept:
            var = self.binding.var("ijkl"[len(loops) % 4])
            place[d] = var
            loops.append((var, self.axes[d].extent))
        if self.by_columns and self.kept:
            return self._columns(place, loops)
        places = [place]
        if self.together > 1:
            last, (var, extent) = self.kept[-1], loops.pop()
            loops.append((var, extent // self.together))
            places = [{**place, last: var * self.together + n} for n in range(self.together)]
        return ir.loop_nest(tuple(loops), self._rows(places), LoopKind.PARALLEL)

    @cached_property
    def together(self) -> int:
        if self.by_columns or not self.kept or self.stages.count == 1 or self._chained is not None:
            return 1
        if math.prod(self.axes[d].extent for d in self.reduced) > _SHORT:
            return 1
        many = math.prod(self.axes[d].extent for d in self.kept) // _FEW_ROWS
        last = self.axes[self.kept[-1]].extent
        return next((n for n in (4, 2) if n <= many and last % n == 0), 1)

    def _columns(self, place: Place, loops: Loops) -> ir.Block:
        """The innermost axis in lanes, cut into parallel chunks where there are few outer rows."""
        axis = self.kept[-1]
        extent = self.axes[axis].extent
        chunk = COLUMN_CHUNK if self.reduced else _POINT_CHUNK
        whole = math.prod(n for _, n in loops) >= _ENOUGH_ROWS or extent < 2 * chunk
        body: ir.Block = ()
        for piece in [Piece(1, extent, 0)] if whole else pieces(extent, chunk):
            lane, number = self.binding.var("v"), self.binding.var("c")
            many = piece.count > 1
            start: Expr = number * piece.length if many else ir.index(0)
            inside = self._rows([{**place, axis: start + lane + piece.base}])
            vector = ir.For(lane, piece.length, inside, LoopKind.VECTOR, self.lanes)
            parallel = (*loops, (number, piece.count)) if many else tuple(loops)
            body += ir.loop_nest(parallel, (vector,), LoopKind.PARALLEL)
        return body

    def _rows(self, places: Sequence[Place]) -> ir.Block:
        """Some rows, stage by stage."""
        all_elements = [self.binding.elements() for _ in places]
        each = list(zip(all_elements, places, strict=True))
        body = tuple(s for row in each for s in self.row_level(*row, 0))
        for stage in range(self.stages.count):
            rows = [Row(*row, self.accumulators(stage), self._keep(stage)) for row in each]
            for row in rows:
                body += tuple(ir.Alloc(buffer) for _, buffer in row.keep)
                body += cleared(row.accumulators, self.binding.graph)
            # What is only stored is so row after row, as it lies in memory.
            shared = [rows] if self.stages.reduced_in(stage) else [[row] for row in rows]
            body += tuple(s for some in shared for s in self.walk(some, stage))
            for row in rows:
                body += self._finish(row, stage)
        return body

    def _finish(self, row: Row, stage: int) -> ir.Block:
        """What follows for a row from a stage that is done."""
        body: ir.Block = ()
        for value, accumulator in row.accumulators.items():
            body += self.total(value, accumulator)
            row.elements.given[value] = row.elements.name(first_of(accumulator), "row")
        for value, buffer in row.keep:
            row.elements.hold(value, buffer)
        for value in self.stages.stored_in(stage):
            row.elements.hold(value, self.binding.outputs[value])
        return body + row.elements.take_block() + self.row_level(row.elements, row.place, stage + 1)

    def _keep(self, stage: int) -> list[tuple[Value, Buffer]]:
        return [(value, self._row_buffer(value)) for value in self._kept_for_later(stage)]

    def _kept_for_later(self, stage: int) -> list[Value]:
        """Expensive values that fit into a row buffer."""
        length = math.prod(self.axes[d].extent for d in self.reduced)
        length *= self.lanes if self.by_columns else 1
        dtype = self.binding.graph.type_of
        return [
            v
            for v in self.stages.kept_for_later(stage)
            if length * dtype(v).dtype.size <= _ROW_BUFFER_BYTES
        ]

    def _row_buffer(self, value: Value) -> Buffer:
        shape = self.binding.shape(value)
        lead = len(self.axes) - len(shape)
        row = tuple(n if self.axes[d + lead].reduced else 1 for d, n in enumerate(shape))
        dtype = self.binding.graph.type_of(value).dtype
        return self.binding.local("row", row, dtype, Space.STACK)
