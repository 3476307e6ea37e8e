"""Pooling: parallel over planes and rows of windows, the windows of a row side by side in lanes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from ..graph import Graph, Value
from ..group import Group
from ..llvm.target import Target
from ..loops import ir
from ..loops.ir import BinaryOp, Const, Expr, Function, LoopKind, ReduceOp, Space
from ..ops.pool import MaxPool, MaxPoolGather, Pool
from ..types import DType
from .anchored import Anchored
from .binding import Binding, Lowered
from .elements import Elements
from .epilogue import store_results
from .index import Index
from .planes import over_planes
from .pool_rows import ROW_BYTES, ChannelRow, PlainRow, row_bytes
from .tile import Span
from .windows import (
    UNROLLED,
    WindowAxis,
    in_vectors,
    interior,
    over_parts,
    part_number,
    parts_of,
    window_axes,
)


def lower_pool(graph: Graph, group: Group, target: Target) -> Lowered:
    """The kernel of MaxPool, MaxPoolGather, or SumPool and its epilogue."""
    assert group.anchor is not None
    op = graph.node(group.anchor).op
    assert isinstance(op, Pool)
    return Pooling(Binding(graph, group, target), Value(group.anchor), op).lower()


def pooling_behind(binding: Binding) -> Pooling:
    """The max-pool behind the anchor of a group."""
    assert binding.group.pool is not None
    op = binding.graph.node(binding.group.pool).op
    assert isinstance(op, MaxPool)
    return Pooling(binding, Value(binding.group.pool), op)


@dataclass
class Pooling(Anchored):
    """Builds the loops of one pooling operation.

    Arguments:
        op: what it computes.
        read: elements of its input; None: they follow from what the group reads.
    """

    op: Pool
    read: Callable[[Index], Expr] | None = None

    @cached_property
    def axes(self) -> tuple[WindowAxis, ...]:
        return window_axes(self.op.window, self.binding.graph.type_of(self.inputs[0]).shape[2:])

    def lower(self) -> Lowered:
        outer = tuple(self.binding.var(hint) for hint in "ncdhi"[: len(self.shape) - self._inner])
        loops = tuple(zip(outer, self.shape, strict=False))
        row = ChannelRow if self._inner == 2 else PlainRow
        if row is ChannelRow or (self.is_separable and row_bytes(self) <= ROW_BYTES):
            source = self.binding.graph.type_of(self.inputs[0])
            body = over_planes(
                self.binding,
                self.shape[:2],
                source.nbytes,
                loops[2:],
                lambda planes: row(self, outer[2:], planes).body(),
            )
        else:
            body = ir.loop_nest(loops, self._row(outer), LoopKind.PARALLEL)
        windows = "x".join(map(str, self.op.kernel))
        return self.binding.finish(body, f"windows of {windows} in rows")

    def _row(self, outer: Index) -> ir.Block:
        """A row of windows, neighbours in lanes."""
        inside = interior(self.axes, outer[2:])
        if inside is None or isinstance(self.op, MaxPoolGather):
            return self._windows(outer, False)
        return (ir.If(inside, self._windows(outer, False), self._windows(outer, True)),)

    def _windows(self, outer: Index, touched: bool) -> ir.Block:
        """The windows of a row; touched: whether they may touch padding above or below."""
        if isinstance(self.op, MaxPoolGather):
            span = Span(0, self.shape[-1])
            return in_vectors(self.binding, span, self.lanes, lambda w: self._gather((*outer, w)))
        rows = [touched and axis.has_padding for axis in self.axes[:-1]]
        body: ir.Block = ()
        for span, touches in self.axes[-1].spans:

            def window(column: Expr, flags: Sequence[bool] = (*rows, touches)) -> ir.Block:
                return self.window_touching((*outer, column), flags)

            body += in_vectors(self.binding, span, 1 if touches else self.lanes, window)
        return body

    @property
    def lanes(self) -> int:
        return self.binding.lanes(*self.binding.dtypes)

    @property
    def _inner(self) -> int:
        """Axes of a row: two if the last one is not pooled, as it holds the channels of a block."""
        *outer, last = self.axes
        blocked = bool(outer) and last.is_trivial and not isinstance(self.op, MaxPoolGather)
        return 2 if blocked else 1

    @property
    def is_separable(self) -> bool:
        """Whether windows are rows of what columns are: largest or summed elements."""
        if isinstance(self.op, MaxPoolGather):
            return False
        *outer, last = self.axes
        overlaps = last.stride <= (last.kernel - 1) * last.dilation
        if self.needs_position and not overlaps:
            return False  # nothing to share, and two rows to wait
        return max(math.prod(a.kernel for a in outer), last.kernel) <= UNROLLED

    @cached_property
    def is_repeatable(self) -> bool:
        """Whether padding may be read as the nearest place, which the window has as well: that
        changes no maximum.
        """
        is_maximum = isinstance(self.op, MaxPool) and not self.needs_position
        return is_maximum and self.is_separable and all(axis.reaches for axis in self.axes)

    def window(self, index: Index, touches: bool) -> ir.Block:
        """One window; `touches`: whether it may touch padding along the innermost axis."""
        return self.window_touching(index, [a.has_padding for a in self.axes[:-1]] + [touches])

    def window_touching(self, index: Index, touches: Sequence[bool]) -> ir.Block:
        """One window that may touch padding along some axes."""
        if isinstance(self.op, MaxPool) and self.needs_position:
            return self._maximum_and_position(index, touches)
        return self._extremum_or_sum(index, touches)

    @cached_property
    def needs_position(self) -> bool:
        group, position = self.binding.group, Value(self.result.node, 1)
        readers = (self.binding.graph.inputs_of(name) for name in group.nodes)
        return position in group.outputs or any(position in values for values in readers)

    @property
    def _reduction(self) -> ReduceOp:
        return ReduceOp.MAX if isinstance(self.op, MaxPool) else ReduceOp.ADD

    @property
    def neutral(self) -> Const:
        """What changes no window: padding."""
        return Const(float(self._reduction.identity(self.dtype)), self.dtype)

    def _extremum_or_sum(self, index: Index, touches: Sequence[bool]) -> ir.Block:
        if not any(touches) and self.op.window.size <= UNROLLED:
            elements = self.binding.elements()
            parts = product(*(range(axis.kernel) for axis in self.axes))
            places = [self._places(index[2:], part) for part in parts]
            found = [self.element(elements, (*index[:2], *place)) for place in places]
            result = self.combined(elements, [elements.name(x, "x") for x in found])
            return elements.take_block() + self.store(result, index)
        total = self.binding.local("total", (), self.dtype, Space.REGISTER)
        body = self.guarded_total(total, self.axes, index, touches, ())
        return (*body, *self.store(ir.Load(total, ()), index))

    def guarded_total(
        self,
        total: ir.Buffer,
        axes: Sequence[WindowAxis],
        index: Index,
        touches: Sequence[bool],
        column: Index,
    ) -> ir.Block:
        """What windows along some axes have in a column, without padding.

        Arguments:
            total: gets it.
            axes: the axes.
            index: sample, channel, and the windows along the axes.
            touches: along which axes windows may touch padding.
            column: the place along the other axes.
        """
        parts = tuple(self.binding.var("k") for _ in axes)
        places = (a.place(w, k) for a, w, k in zip(axes, index[2:], parts, strict=True))
        elements = self.binding.elements()
        x = self.element(elements, (*index[:2], *places, *column))
        body = (*elements.take_block(), ir.Accumulate(total, (), self._reduction, x))
        return (
            ir.Alloc(total),
            ir.Store(total, (), self.neutral),
            *over_parts(axes, parts, index[2:], touches, body),
        )

    def combined(self, elements: Elements, given: Sequence[Expr]) -> Expr:
        """The largest of some elements, or their sum.

        A maximum of two that need not care for NaN is one instruction: the first element's stays,
        and whether any other is one is asked of two at a time.
        """
        total, *others = given
        if self._reduction is ReduceOp.ADD:
            for x in others:
                total = elements.name(ir.Binary(BinaryOp.ADD, total, x), "total")
            return total
        for x in others:
            total = elements.name(ir.Select(total < x, x, total), "total")
        missing = [ir.Call(Function.ISNAN, x) for x in others]
        pairs: list[Expr] = [
            ir.Binary(BinaryOp.OR, a, b) for a, b in zip(missing[::2], missing[1::2], strict=False)
        ]
        pairs += missing[len(pairs) * 2 :]
        while len(pairs) > 1:
            pairs = [*pairs[2:], ir.Binary(BinaryOp.OR, pairs[0], pairs[1])]
        nan = Const(math.nan, self.dtype)
        return elements.name(ir.Select(pairs[0], nan, total), "total") if pairs else total

    def _places(self, windows: Index, part: Sequence[int]) -> Index:
        """Where a part of a window lies."""
        each = zip(self.axes, windows, part, strict=True)
        return tuple(axis.place(window, ir.index(k)) for axis, window, k in each)

    def store(self, total: Expr, index: Index) -> ir.Block:
        """Stores what a window gives, and what follows on it."""
        return store_results(self.binding, {self.result: total}, index)

    def _maximum_and_position(self, index: Index, touches: Sequence[bool]) -> ir.Block:
        """The maximum, and the number of the first part that holds it."""
        if not any(touches) and self.op.window.size <= UNROLLED:
            return self._tournament(index)
        body, best, where = self.guarded_first(index, touches, ())
        return (*body, *self.store_maximum(best, where, index))

    def guarded_first(
        self, index: Index, touches: Sequence[bool], column: Index
    ) -> tuple[ir.Block, Expr, Expr]:
        """The largest element that windows along the first axes have in a column, without padding,
        and the number of the first part that holds it: statements that find them, and both.

        Arguments:
            index: sample, channel, and the windows along the axes.
            touches: along which axes windows may touch padding.
            column: the place along the other axes.
        """
        axes, rest = self.axes[: len(touches)], [ir.index(0)] * len(column)
        best = self.binding.local("best", (), self.dtype, Space.REGISTER)
        where = self.binding.local("where", (), DType.INT32, Space.REGISTER)
        parts = tuple(self.binding.var("k") for _ in axes)
        places = (a.place(w, k) for a, w, k in zip(axes, index[2:], parts, strict=True))
        elements = self.binding.elements()
        x = elements.name(self.element(elements, (*index[:2], *places, *column)), "x")
        now, better = ir.Load(best, ()), self._named("better", DType.BOOL)
        number = ir.Cast(part_number(self.axes, (*parts, *rest)), DType.INT32)
        body: ir.Block = (
            *elements.take_block(),
            ir.Let(better, _wins(x, now)),
            ir.Store(where, (), ir.Select(better, number, ir.Load(where, ()))),
            ir.Store(best, (), ir.Select(better, x, now)),
        )
        starts = (
            axis.first(window) if test else ir.index(0)
            for axis, window, test in zip(axes, index[2:], touches, strict=True)
        )
        body = (
            ir.Alloc(best),
            ir.Alloc(where),
            ir.Store(best, (), Const(float("-inf"), self.dtype)),
            ir.Store(where, (), ir.Cast(part_number(self.axes, (*starts, *rest)), DType.INT32)),
            *over_parts(axes, parts, index[2:], touches, body),
        )
        return body, ir.Load(best, ()), ir.Load(where, ())

    def _tournament(self, index: Index) -> ir.Block:
        """The same of a window inside of the input: first each row's, then the first of these.

        Rows need not wait for each other. Positions are floats as long as they are chosen between,
        so that the same lanes that hold the elements hold them.
        """
        length = next((a.kernel for a in reversed(self.axes) if a.kernel > 1), 1)
        parts = list(product(*(range(axis.kernel) for axis in self.axes)))
        body: ir.Block = ()
        rows: list[tuple[Expr, Expr]] = []
        for start in range(0, len(parts), length):
            row: list[tuple[Expr, Expr]] = []
            for number, part in enumerate(parts[start : start + length], start):
                places = self._places(index[2:], part)
                elements = self.binding.elements()
                x = elements.name(self.element(elements, (*index[:2], *places)), "x")
                body += elements.take_block()
                row.append((x, Const(float(number), self.dtype)))
            lets, winner = self.first_of(row)
            body += lets
            rows.append(winner)
        lets, (best, where) = self.first_of(rows)
        return (*body, *lets, *self.store_maximum(best, where, index))

    def first_of(self, given: Sequence[tuple[Expr, Expr]]) -> tuple[ir.Block, tuple[Expr, Expr]]:
        """The first of the largest (value, position), and the statements that find it."""
        (best, where), *others = given
        body: ir.Block = ()
        for x, number in others:
            better = self._named("better", DType.BOOL)
            value, place = self._named("best", self.dtype), self._named("where", self.dtype)
            body += (
                ir.Let(better, _wins(x, best)),
                ir.Let(value, ir.Select(better, x, best)),
                ir.Let(place, ir.Select(better, number, where)),
            )
            best, where = value, place
        return body, (best, where)

    def _named(self, hint: str, dtype: DType) -> ir.Var:
        return ir.Var(self.binding.var(hint).name, dtype)

    def store_maximum(self, best: Expr, where: Expr, index: Index) -> ir.Block:
        """Stores what a window gives, and where that is."""
        position = Value(self.result.node, 1)
        dtype = self.binding.graph.type_of(position).dtype
        given = {self.result: best, position: _cast(_cast(where, DType.INT32), dtype)}
        return store_results(self.binding, given, index)

    def element(self, elements: Elements, index: Index) -> Expr:
        """The element of the input at a place."""
        return elements.at(self.inputs[0], index) if self.read is None else self.read(index)

    def given(self, anchor: Value, x: Expr, index: Index) -> tuple[ir.Block, Expr]:
        """The element of the input at a place, from what the group's anchor gives there."""
        elements = self.binding.elements()
        elements.given[anchor] = elements.name(x, "result")
        element = elements.at(self.inputs[0], index)
        return elements.take_block(), element

    def _gather(self, index: Index) -> ir.Block:
        """The element at the position that the data name, zero where that is padding."""
        x, position = self.inputs
        elements = self.binding.elements()
        number = clamped_position(elements.at(position, index), self.op)
        places = [
            axis.place(window, part)
            for axis, window, part in zip(
                self.axes, index[2:], parts_of(self.axes, number), strict=True
            )
        ]
        inside = [a.inside(p) for a, p in zip(self.axes, places, strict=True) if a.has_padding]
        source = tuple(ir.clamp(p, 0, a.extent - 1) for a, p in zip(self.axes, places, strict=True))
        found = elements.at(x, (*index[:2], *source))
        for condition in inside:
            found = ir.Select(condition, found, Const(0.0, self.dtype))
        body = elements.take_block()
        return body + store_results(self.binding, {self.result: found}, index)


def clamped_position(position: Expr, op: Pool) -> Expr:
    """A position in a window that comes from data, kept inside."""
    return ir.clamp(_cast(position, ir.INDEX), 0, op.window.size - 1)


def _cast(value: Expr, dtype: DType) -> Expr:
    return value if value.dtype is dtype else ir.Cast(value, dtype)


def _wins(x: Expr, best: Expr) -> Expr:
    """Whether a later element takes the place of the best one. A NaN does; the first one stays."""
    return ir.Call(Function.NOT, x <= best) & ir.Call(Function.NOT, ir.Call(Function.ISNAN, best))
