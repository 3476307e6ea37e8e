"""The loops of one stage of a kernel of point nodes and reductions, and of what they are made.

A stage walks the reduced axes at one place on the kept ones: it sums up the reductions whose
operands are known by then, and stores the full-size results that are.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from ..cost_model import L2_BYTES
from ..graph import Graph, Value
from ..loops import ir
from ..loops.ir import Buffer, Expr, LoopKind, ReduceOp, Space
from ..ops import reduce as rd
from .binding import Binding
from .elements import Elements
from .index import Index, broadcast_index
from .space import Axis
from .stages import Stages

Place: TypeAlias = dict[int, Expr]
Loops: TypeAlias = list[tuple[ir.Var, int]]

# Columns that a thread takes at once where these are reduced.
COLUMN_CHUNK = 64
_CHAINS = 4
_REDUCE_OPS: dict[type[rd.Reduction], ReduceOp] = {
    rd.Sum: ReduceOp.ADD,
    rd.Product: ReduceOp.MUL,
    rd.Max: ReduceOp.MAX,
    rd.Min: ReduceOp.MIN,
}


@dataclass(frozen=True)
class Row:
    """What a stage is done with at one place on the kept axes.

    Arguments:
        elements: what is known there.
        place: on the kept axes.
        accumulators: of the reductions.
        keep: values that later stages need, and where they are kept.
    """

    elements: Elements
    place: Place
    accumulators: Mapping[Value, Buffer]
    keep: Sequence[tuple[Value, Buffer]] = ()


@dataclass
class Nest(ABC):
    """The loops of one group.

    Attributes:
        binding: buffers and names.
        stages: what is computed when.
        axes: of the iteration space.
    """

    binding: Binding
    stages: Stages
    axes: list[Axis]

    @abstractmethod
    def body(self) -> ir.Block:
        """All stages of all rows."""

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
    def together(self) -> int:
        """Rows side by side: while one waits for what its lanes have together, others go on."""
        return 1

    @property
    def independent(self) -> int:
        """Rows, or columns side by side, that are something to do for a thread."""
        outer = self.kept[:-1] if self.by_columns else self.kept
        count = math.prod(self.axes[d].extent for d in outer)
        if self.by_columns and self.kept:
            count *= -(-self.axes[self.kept[-1]].extent // COLUMN_CHUNK)
        return count

    def row_level(self, elements: Elements, place: Place, level: int) -> ir.Block:
        """What has one element a row: named once, and stored if it is asked for."""
        for value in self.stages.row_values(level):
            elements.at(value, self.index(value, place))
        body = elements.take_block()
        for value in self.stages.row_outputs(level):
            index = self.index(value, place)
            x = elements.at(value, index)
            body += (*elements.take_block(), ir.Store(self.binding.outputs[value], index, x))
        return body

    def walk(
        self,
        rows: Sequence[Row],
        stage: int,
        limits: Mapping[int, tuple[Expr, int]] | None = None,
    ) -> ir.Block:
        """The loops over the reduced axes, which some rows share; `limits` gives (start, length)
        where that is not all.
        """
        loops: Loops = []
        place: Place = {}
        starts: dict[int, Expr] = {}
        for d in self.reduced:
            start, length = (limits or {}).get(d, (ir.index(0), self.axes[d].extent))
            var = self.binding.var("r")
            loops.append((var, length))
            place[d], starts[d] = start + var, start

        def steps(place: Place, chain: Index) -> ir.Block:
            return tuple(s for row in rows for s in self._step(row, place, stage, chain))

        if self._chained is None or not any(row.accumulators for row in rows):
            body = steps(place, ())
            return self._reduced_loops(loops, body) if body else ()
        number = self.reduced.index(self._chained)
        (var, length), chain = loops[number], self.binding.var("m")
        count, rest = divmod(length, _CHAINS)
        body = ()
        for lead, many in ((var * _CHAINS, _CHAINS), (ir.index(count * _CHAINS), rest)):
            here = {**place, self._chained: starts[self._chained] + lead + chain}
            step = steps(here, (chain,))
            unrolled = (ir.For(chain, many, step, LoopKind.UNROLLED),) if many else ()
            inner = self._reduced_loops(loops[number + 1 :], unrolled) if many else ()
            body += (ir.For(var, count, inner),) if many == _CHAINS else inner
        return ir.loop_nest(tuple(loops[:number]), body)

    def _step(self, row: Row, reduced: Place, stage: int, chain: Index) -> ir.Block:
        """What is done at one place of the reduced axes."""
        inner, place = row.elements.inner(), {**row.place, **reduced}
        body = self._ask_ahead(place, stage)
        for value, buffer in row.keep:
            x = inner.at(value, self.index(value, place))
            row_index = tuple(
                ir.index(0) if n == 1 else i
                for i, n in zip(self.index(value, place), buffer.shape, strict=True)
            )
            body += (*inner.take_block(), ir.Store(buffer, row_index, x))
        for value, accumulator in row.accumulators.items():
            operand = self.stages.operand(value)
            x = inner.at(operand, self.index(operand, place))
            op = reduce_op(self.binding.graph, value)
            body += (*inner.take_block(), ir.Accumulate(accumulator, chain, op, x))
        for value in self.stages.stored_in(stage):
            index = self.index(value, place)
            x = inner.at(value, index)
            body += (*inner.take_block(), ir.Store(self.binding.outputs[value], index, x))
        return body

    def _ask_ahead(self, place: Place, stage: int) -> ir.Block:
        """Asks for this place of a row that is next, and for where later results of this one go.

        A stage that computes much waits for neither, and others that do nothing but wait find them
        near.
        """
        if self.by_columns or not self.kept or not self.stages.computes_much(stage):
            return ()
        following = {**place, self.kept[-1]: place[self.kept[-1]] + self.together}
        whole = tuple(axis.extent for axis in self.axes)
        asked = [
            (buffer, self.index(value, following))
            for value, buffer in self.binding.inputs.items()
            if self.binding.shape(value) == whole  # not one that moves bring into that shape
        ]
        asked += [
            (self.binding.outputs[value], self.index(value, place))
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

    def accumulators(self, stage: int) -> dict[Value, Buffer]:
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

    def total(self, value: Value, accumulator: Buffer) -> ir.Block:
        """Sums side by side as one, the first."""
        body: ir.Block = ()
        op, many = reduce_op(self.binding.graph, value), accumulator.size
        while many > 1:
            many //= 2
            for i in range(many):
                x = ir.Load(accumulator, (ir.index(i + many),))
                body += (ir.Accumulate(accumulator, (ir.index(i),), op, x),)
        return body

    def index(self, value: Value, place: Place) -> Index:
        """Where the loops stand in a value."""
        whole = tuple(place.get(d, ir.index(0)) for d in range(len(self.axes)))
        return broadcast_index(whole, self.binding.shape(value))


def reduce_op(graph: Graph, value: Value) -> ReduceOp:
    """How a reduction's result accumulates."""
    op = graph.producer(value).op
    assert isinstance(op, rd.Reduction)
    return _REDUCE_OPS[type(op)]


def cleared(accumulators: Mapping[Value, Buffer], graph: Graph) -> ir.Block:
    """Accumulators, holding the identity of their reduction."""
    body: ir.Block = ()
    for value, buffer in accumulators.items():
        start = reduce_op(graph, value).identity(buffer.dtype)
        places = [(ir.index(i),) for i in range(buffer.size)] if buffer.shape else [()]
        zero = ir.Const(start, buffer.dtype)
        body += (ir.Alloc(buffer), *(ir.Store(buffer, place, zero) for place in places))
    return body


def first_place(accumulator: Buffer) -> Index:
    """The place of the first of the sums side by side, or of the only one."""
    return (ir.index(0),) if accumulator.shape else ()


def first_of(accumulator: Buffer) -> Expr:
    """The first of the sums side by side, or the only one."""
    return ir.Load(accumulator, first_place(accumulator))
