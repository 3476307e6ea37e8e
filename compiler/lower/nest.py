"""Point nodes and reductions over one iteration space, in one kernel.

The axes of the space are kept or reduced. For each place on the kept axes (a *row*) the reduced
ones are walked once a *stage*: a stage computes the reductions whose operands are known by then,
and stores the full-size results that are. So softmax is three stages of one row (max, sum,
quotient), and batch-norm statistics are two stages of a channel. Values of a row are computed once
a row; full-size values are computed again in each stage that needs them, unless they are
expensive: then they stay in a row buffer.

Rows are independent, hence parallel. Where there are few rows and much to reduce, each stage is
split into chunks (by shape alone) whose partial results are combined in order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

from ..cost_model import L2_BYTES
from ..graph import Graph, Value
from ..group import Group
from ..llvm.target import Target
from ..loops import ir
from ..loops.ir import Buffer, Expr, LoopKind, ReduceOp, Space
from ..ops import reduce as rd
from .binding import Binding, Lowered
from .elements import Elements
from .index import Index, broadcast_index
from .space import Axis, Piece, aligned_values, is_rigid, merge_axes, merged_shape, pieces
from .stages import Stages

Place: TypeAlias = dict[int, Expr]
Loops: TypeAlias = list[tuple[ir.Var, int]]

_REDUCE_OPS: dict[type[rd.Reduction], ReduceOp] = {
    rd.Sum: ReduceOp.ADD,
    rd.Product: ReduceOp.MUL,
    rd.Max: ReduceOp.MAX,
    rd.Min: ReduceOp.MIN,
}
_CHAINS = 4
_ROW_BUFFER_BYTES = 32 * 1024
_POINT_CHUNK = 2048
_COLUMN_CHUNK = 64
_ENOUGH_ROWS = 64
_FEW_ROWS = 16
_LONG = 16384
_CHUNKS = 64


def lower_nest(graph: Graph, group: Group, target: Target) -> Lowered:
    """The kernel of a group of point nodes and reductions."""
    stages = Stages(graph, group)
    axes = merge_axes(graph, group)
    shapes = {
        v: merged_shape(graph, v, axes, len(group.space)) for v in aligned_values(graph, group)
    }
    if is_rigid(graph, group):
        shapes = {}
    nest = Nest(Binding(graph, group, target, shapes), stages, axes)
    body = nest.split() if nest.should_split else nest.rows()
    return nest.binding.finish(body, nest.note)


@dataclass
class Nest:
    """Builds the loops of one group.

    Attributes:
        binding: buffers and names.
        stages: what is computed when.
        axes: of the iteration space.
    """

    binding: Binding
    stages: Stages
    axes: list[Axis]

    @cached_property
    def kept(self) -> list[int]:
        return [d for d, a in enumerate(self.axes) if not a.reduced and a.extent != 1]

    @cached_property
    def reduced(self) -> list[int]:
        return [d for d, a in enumerate(self.axes) if a.reduced and a.extent != 1]

    @cached_property
    def by_columns(self) -> bool:
        """Whether the innermost axis is kept: then lanes are rows, else lanes share a row."""
        return not self.reduced or (bool(self.kept) and self.kept[-1] > self.reduced[-1])

    @cached_property
    def lanes(self) -> int:
        """Columns take two registers a value, so that a cache line is used as it comes."""
        lanes = self.binding.lanes(*self.binding.dtypes)
        return 2 * lanes if self.by_columns and self.reduced else lanes

    @property
    def note(self) -> str:
        shape = "x".join(str(a.extent) for a in self.axes) or "scalar"
        if not self.reduced:
            return f"pointwise {shape}"
        way = "split" if self.should_split else "columns" if self.by_columns else "rows"
        return f"{self.stages.count}-stage reduction {shape} by {way}"

    @cached_property
    def should_split(self) -> bool:
        """Few rows and much to reduce."""
        length = math.prod(self.axes[d].extent for d in self.reduced)
        return bool(self.reduced) and self._independent < _FEW_ROWS and length >= _LONG

    @property
    def _independent(self) -> int:
        """Rows, or columns side by side, that are something to do for a thread."""
        outer = self.kept[:-1] if self.by_columns else self.kept
        count = math.prod(self.axes[d].extent for d in outer)
        if self.by_columns and self.kept:
            count *= -(-self.axes[self.kept[-1]].extent // _COLUMN_CHUNK)
        return count

    # -- whole rows ---------------------------------------------------------------------------

    def rows(self) -> ir.Block:
        """Every row from its first stage to its last."""
        place: Place = {}
        loops: Loops = []
        for d in self.kept[:-1] if self.by_columns else self.kept:
            var = self.binding.var("ijkl"[len(loops) % 4])
            place[d] = var
            loops.append((var, self.axes[d].extent))
        if not self.by_columns or not self.kept:
            return ir.loop_nest(tuple(loops), self._row(place), LoopKind.PARALLEL)
        return self._columns(place, loops)

    def _columns(self, place: Place, loops: Loops) -> ir.Block:
        """The innermost axis in lanes, cut into parallel chunks where there are few outer rows."""
        axis = self.kept[-1]
        extent = self.axes[axis].extent
        chunk = _COLUMN_CHUNK if self.reduced else _POINT_CHUNK
        whole = math.prod(n for _, n in loops) >= _ENOUGH_ROWS or extent < 2 * chunk
        body: ir.Block = ()
        for piece in [Piece(1, extent, 0)] if whole else pieces(extent, chunk):
            lane, number = self.binding.var("v"), self.binding.var("c")
            many = piece.count > 1
            start: Expr = number * piece.length if many else ir.index(0)
            inside = self._row({**place, axis: start + lane + piece.base})
            vector = ir.For(lane, piece.length, inside, LoopKind.VECTOR, self.lanes)
            parallel = (*loops, (number, piece.count)) if many else tuple(loops)
            body += ir.loop_nest(parallel, (vector,), LoopKind.PARALLEL)
        return body

    def _row(self, place: Place) -> ir.Block:
        elements = self.binding.elements()
        body = self._row_level(elements, place, 0)
        for stage in range(self.stages.count):
            accumulators = self._accumulators(stage)
            keep = [(v, self._row_buffer(v)) for v in self._kept_for_later(stage)]
            body += tuple(ir.Alloc(buffer) for _, buffer in keep)
            body += _cleared(accumulators, self.binding.graph)
            body += self._walk(elements, place, stage, accumulators, keep)
            for value, accumulator in accumulators.items():
                body += self._total(value, accumulator)
                elements.given[value] = elements.name(_first(accumulator), "row")
            for value, buffer in keep:
                elements.hold(value, buffer)
            for value in self.stages.stored_in(stage):
                elements.hold(value, self.binding.outputs[value])
            body += elements.take_block() + self._row_level(elements, place, stage + 1)
        return body

    def _row_level(self, elements: Elements, place: Place, level: int) -> ir.Block:
        """What has one element a row: named once, and stored if it is asked for."""
        for value in self.stages.row_values(level):
            elements.at(value, self._index(value, place))
        body = elements.take_block()
        for value in self.stages.row_outputs(level):
            index = self._index(value, place)
            x = elements.at(value, index)
            body += (*elements.take_block(), ir.Store(self.binding.outputs[value], index, x))
        return body

    def _walk(
        self,
        elements: Elements,
        place: Place,
        stage: int,
        accumulators: dict[Value, Buffer],
        keep: Sequence[tuple[Value, Buffer]] = (),
        limits: Mapping[int, tuple[Expr, int]] | None = None,
    ) -> ir.Block:
        """The loops over the reduced axes; `limits` gives (start, length) where that is not all."""
        loops: Loops = []
        place = dict(place)
        starts: dict[int, Expr] = {}
        for d in self.reduced:
            start, length = (limits or {}).get(d, (ir.index(0), self.axes[d].extent))
            var = self.binding.var("r")
            loops.append((var, length))
            place[d], starts[d] = start + var, start
        if self._chained is None or not accumulators:
            body = self._step(elements, place, stage, accumulators, keep, ())
            return self._reduced_loops(loops, body) if body else ()
        number = self.reduced.index(self._chained)
        (var, length), chain = loops[number], self.binding.var("m")
        count, rest = divmod(length, _CHAINS)
        body = ()
        for lead, many in ((var * _CHAINS, _CHAINS), (ir.index(count * _CHAINS), rest)):
            here = {**place, self._chained: starts[self._chained] + lead + chain}
            step = self._step(elements, here, stage, accumulators, keep, (chain,))
            unrolled = (ir.For(chain, many, step, LoopKind.UNROLLED),) if many else ()
            inner = self._reduced_loops(loops[number + 1 :], unrolled) if many else ()
            body += (ir.For(var, count, inner),) if many == _CHAINS else inner
        return ir.loop_nest(tuple(loops[:number]), body)

    def _step(
        self,
        elements: Elements,
        place: Place,
        stage: int,
        accumulators: dict[Value, Buffer],
        keep: Sequence[tuple[Value, Buffer]],
        chain: Index,
    ) -> ir.Block:
        """What is done at one place of the reduced axes."""
        inner = elements.inner()
        body = self._ask_ahead(place, stage)
        for value, buffer in keep:
            x = inner.at(value, self._index(value, place))
            row_index = tuple(
                ir.index(0) if n == 1 else i
                for i, n in zip(self._index(value, place), buffer.shape, strict=True)
            )
            body += (*inner.take_block(), ir.Store(buffer, row_index, x))
        for value, accumulator in accumulators.items():
            operand = self.stages.operand(value)
            x = inner.at(operand, self._index(operand, place))
            op = reduce_op(self.binding.graph, value)
            body += (*inner.take_block(), ir.Accumulate(accumulator, chain, op, x))
        for value in self.stages.stored_in(stage):
            index = self._index(value, place)
            x = inner.at(value, index)
            body += (*inner.take_block(), ir.Store(self.binding.outputs[value], index, x))
        return body

    def _ask_ahead(self, place: Place, stage: int) -> ir.Block:
        """Asks for this place of the next row, and for where later results of this one go.

        A stage that computes much waits for neither, and others that do nothing but wait find them
        near.
        """
        if self.by_columns or not self.kept or not self.stages.computes_much(stage):
            return ()
        following = {**place, self.kept[-1]: place[self.kept[-1]] + 1}
        asked = [
            (buffer, self._index(value, following))
            for value, buffer in self.binding.inputs.items()
            if self.stages.is_full(value)
        ]
        asked += [
            (self.binding.outputs[value], self._index(value, place))
            for later in range(stage + 1, self.stages.count)
            for value in self.stages.stored_in(later)
        ]
        return tuple(ir.Prefetch(*each) for each in asked if each[0].nbytes > L2_BYTES)

    def _reduced_loops(self, loops: Loops, body: ir.Block) -> ir.Block:
        if self.by_columns or not loops:
            return ir.loop_nest(tuple(loops), body)
        var, extent = loops[-1]
        vector = ir.For(var, extent, body, LoopKind.VECTOR, self.lanes)
        return ir.loop_nest(tuple(loops[:-1]), (vector,))

    def _accumulators(self, stage: int) -> dict[Value, Buffer]:
        graph = self.binding.graph
        shape = () if self._chained is None else (_CHAINS,)
        return {
            v: self.binding.local("sum", shape, graph.type_of(v).dtype, Space.REGISTER)
            for v in self.stages.reduced_in(stage)
        }

    @cached_property
    def _chained(self) -> int | None:
        """The reduced axis along which there are sums side by side; None: a single sum.

        The outermost one if it can be, since memory is read faster in several places than in one
        (by a core here 31 in place of 24 GB/s). One vector of columns needs several sums in any
        case: additions would wait for each other.
        """
        lanes = self.binding.lanes(*self.binding.dtypes)
        if not self.reduced or (self.by_columns and self.axes[self.kept[-1]].extent > lanes):
            return None
        outer, inner = self.reduced[0], self.reduced[-1]
        if outer != inner and self.axes[outer].extent % _CHAINS == 0:
            return outer
        is_long = self.axes[inner].extent >= 2 * _CHAINS
        return inner if self.by_columns and is_long else None

    def _total(self, value: Value, accumulator: Buffer) -> ir.Block:
        """Sums side by side as one, the first."""
        body: ir.Block = ()
        op, many = reduce_op(self.binding.graph, value), accumulator.size
        while many > 1:
            many //= 2
            for i in range(many):
                x = ir.Load(accumulator, (ir.index(i + many),))
                body += (ir.Accumulate(accumulator, (ir.index(i),), op, x),)
        return body

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

    def _index(self, value: Value, place: Place) -> Index:
        """Where the loops stand in a value."""
        whole = tuple(place.get(d, ir.index(0)) for d in range(len(self.axes)))
        return broadcast_index(whole, self.binding.shape(value))

    # -- few rows, split into chunks ----------------------------------------------------------

    def split(self) -> ir.Block:
        """Every stage in parallel chunks, then their partial results combined in order."""
        axis = max(self.reduced, key=lambda d: self.axes[d].extent)
        extent = self.axes[axis].extent
        parts = pieces(extent, -(-extent * max(self._independent, 1) // _CHUNKS))
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
            accumulators = self._accumulators(stage)
            body = elements.take_block() + _cleared(accumulators, self.binding.graph)
            body += self._walk(elements, place, stage, accumulators, limits=limits)
            for value, buffer in partial.items():
                index = (*self._index(value, place), number + first)
                total = _first(accumulators[value])
                body += (*self._total(value, accumulators[value]), ir.Store(buffer, index, total))
            return body

        return self._over_rows(inside, [(number, piece.count)])

    def _combine(
        self, stage: int, partial: dict[Value, Buffer], results: dict[Value, Buffer]
    ) -> ir.Block:
        """The chunks' partial results as one, and what follows from them for each row."""

        def inside(place: Place) -> ir.Block:
            elements = self._resumed(place, stage, results)
            accumulators = self._accumulators(stage)
            body = elements.take_block() + _cleared(accumulators, self.binding.graph)
            for value, buffer in partial.items():
                number, index = self.binding.var("c"), self._index(value, place)
                x = ir.Load(buffer, (*index, number))
                op = reduce_op(self.binding.graph, value)
                add = ir.Accumulate(accumulators[value], _only(accumulators[value]), op, x)
                total = elements.name(_first(accumulators[value]), "row")
                body += (ir.For(number, buffer.shape[-1], (add,)), *elements.take_block())
                body += (ir.Store(results[value], index, total),)
                elements.given[value] = total
            levels = (0, 1) if stage == 0 else (stage + 1,)
            for level in levels:
                body += self._row_level(elements, place, level)
            return body

        return self._over_rows(inside, [])

    def _resumed(self, place: Place, stage: int, results: dict[Value, Buffer]) -> Elements:
        """Elements that know what earlier stages have found."""
        elements = self.binding.elements()
        for value, buffer in results.items():
            if self.stages.level[value] <= stage:
                load = ir.Load(buffer, self._index(value, place))
                elements.given[value] = elements.name(load, "row")
        for value in self.stages.row_level_up_to(stage):
            elements.at(value, self._index(value, place))
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


def reduce_op(graph: Graph, value: Value) -> ReduceOp:
    """How a reduction's result accumulates."""
    op = graph.producer(value).op
    assert isinstance(op, rd.Reduction)
    return _REDUCE_OPS[type(op)]


def _cleared(accumulators: Mapping[Value, Buffer], graph: Graph) -> ir.Block:
    """Accumulators, holding the identity of their reduction."""
    body: ir.Block = ()
    for value, buffer in accumulators.items():
        start = reduce_op(graph, value).identity(buffer.dtype)
        places = [(ir.index(i),) for i in range(buffer.size)] if buffer.shape else [()]
        zero = ir.Const(start, buffer.dtype)
        body += (ir.Alloc(buffer), *(ir.Store(buffer, place, zero) for place in places))
    return body


def _only(accumulator: Buffer) -> Index:
    """The place of the first of the sums side by side, or of the only one."""
    return (ir.index(0),) if accumulator.shape else ()


def _first(accumulator: Buffer) -> Expr:
    return ir.Load(accumulator, _only(accumulator))
