"""Rows of windows, of some planes at a time.

What windows have in a column of the input, its largest element or the sum, is computed once for all
windows that overlap there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from typing import TYPE_CHECKING

from ..cost_model import L2_BYTES
from ..loops import ir
from ..loops.ir import BinaryOp, Buffer, Const, Expr, Function, LoopKind, Space
from .bands import row_length
from .elements import Elements
from .index import Index
from .planes import TOGETHER, Planes
from .tile import Span, panels
from .windows import WindowAxis, in_vectors, interior, part_number

if TYPE_CHECKING:
    from .pool import Pooling

# Windows side by side that share columns in registers.
_TOGETHER = 4
# What waits on the stack stays in the first-level cache.
ROW_BYTES = 16 * 1024


@dataclass
class _Row:
    """A row of windows.

    Arguments:
        pooling: what is computed.
        rows: the windows along all axes but that of the row.
        planes: of which planes.
    """

    pooling: Pooling
    rows: Index
    planes: Planes

    def column(self, elements: Elements, plane: Index, column: Index) -> Expr:
        """What the windows have in a column, where they touch no padding above or below, or where
        padding is read as the nearest place.
        """
        pooling = self.pooling
        places: list[Index] = [()]
        for axis, window in zip(pooling.axes, self.rows, strict=False):
            each = (k * axis.dilation for k in range(axis.kernel))
            parts = [self.place(axis, window, axis.windows - 1, part) for part in each]
            places = [(*place, part) for place in places for part in parts]
        found = [pooling.element(elements, (*plane, *place, *column)) for place in places]
        return pooling.combined(elements, [elements.name(x, "x") for x in found])

    def place(self, axis: WindowAxis, window: Expr, last: int, part: int) -> Expr:
        """What lies so far behind the first place of a window, whose number is `last` at most; for
        padding the nearest place, if that does as well.
        """
        if self.pooling.is_repeatable:
            return axis.nearest(window, last, part)
        return axis.place(window, ir.index(0)) + part

    def interior(self) -> Expr | None:
        """Whether the windows touch no padding above or below; None if that makes no difference."""
        pooling = self.pooling
        return None if pooling.is_repeatable else interior(pooling.axes, self.rows)


class ChannelRow(_Row):
    """Channels of a block are in lanes. The same windows of all planes follow each other, so that
    memory is read at several places at a time.
    """

    @property
    def axis(self) -> WindowAxis:
        """Along which the windows lie."""
        return self.pooling.axes[-2]

    def body(self) -> ir.Block:
        """All windows."""
        inside = self.interior()
        if inside is None:
            return self._windows(False)
        return (ir.If(inside, self._windows(False), self._windows(True)),)

    def _windows(self, touched: bool) -> ir.Block:
        """All windows; touched: whether they may touch padding above or below."""
        pooling = self.pooling
        if pooling.is_repeatable:
            return self._groups(Span(0, self.axis.windows), self._together)
        body: ir.Block = ()
        for span, touches in self.axis.spans:
            if touched or touches or pooling.needs_position or not pooling.is_separable:
                flags = [touched and axis.has_padding for axis in pooling.axes[:-2]]
                body += self._groups(span, 1, (*flags, touches, False))
            else:
                body += self._groups(span, self._together)
        return body

    @property
    def _together(self) -> int:
        """Windows whose columns are shared, or whose results are written at a time."""
        return _TOGETHER if self.pooling.is_separable else 1

    def _groups(self, span: Span, many: int, touches: Sequence[bool] = ()) -> ir.Block:
        """Windows side by side, so many at a time, or single ones that may touch padding along some
        axes.
        """
        body: ir.Block = ()
        for group in panels(span.length, many):
            number, loops = self.pooling.binding.loop("w", group.count)
            start = span.start + group.start
            first = number * group.length + start
            if touches:
                some = partial(self._window, first, touches)
            else:
                last = start + (group.count - 1) * group.length
                some = partial(self._group, first, last, group.length)
            body += ir.loop_nest(loops, self.planes.each(partial(self._channels, some)))
        return body

    def _channels(self, some: Callable[[Index, Expr], ir.Block], plane: Index, _: Expr) -> ir.Block:
        """Some windows of a plane, all channels of the block."""
        pooling, lane = self.pooling, self.pooling.binding.var("v")
        channels = pooling.shape[-1]
        return (ir.For(lane, channels, some(plane, lane), LoopKind.VECTOR, pooling.lanes),)

    def _window(self, first: Expr, touches: Sequence[bool], plane: Index, lane: Expr) -> ir.Block:
        return self.pooling.window_touching((*plane, *self.rows, first, lane), touches)

    def _group(self, first: Expr, last: int, count: int, plane: Index, lane: Expr) -> ir.Block:
        """Windows side by side from one on, whose number is `last` at most."""
        axis, pooling = self.axis, self.pooling
        elements = pooling.binding.elements()
        columns: dict[int, Expr] = {}
        body: ir.Block = ()
        for number in range(count):
            parts = [number * axis.stride + k * axis.dilation for k in range(axis.kernel)]
            for part in parts:
                if part not in columns:
                    place = self.place(axis, first, last, part)
                    columns[part] = self.column(elements, plane, (place, lane))
            total = pooling.combined(elements, [columns[part] for part in parts])
            body += elements.take_block()
            body += pooling.store(total, (*plane, *self.rows, first + number, lane))
        return body


def row_bytes(pooling: Pooling) -> int:
    """What waits on the stack for a row of windows of all planes."""
    kept = 2 if pooling.needs_position else 1
    return kept * TOGETHER * _width(pooling.axes[-1]) * pooling.dtype.size


def _width(axis: WindowAxis) -> int:
    """Places from the first to the last one of all windows, padding included."""
    return (axis.windows - 1) * axis.stride + (axis.kernel - 1) * axis.dilation + 1


@dataclass
class PlainRow(_Row):
    """Neighbouring places are in lanes. What the windows have in each column waits on the stack,
    between what padding has: the largest element or the sum; and if positions are asked for, which
    part holds the largest first, were this the windows' first column. Numbers are floats, so that
    the same lanes that hold the elements hold them.
    """

    @property
    def axis(self) -> WindowAxis:
        """Along which the windows lie."""
        return self.pooling.axes[-1]

    @property
    def shift(self) -> int:
        """Where padding begins, so that the first place that is none begins a vector."""
        return -self.axis.low % self.pooling.lanes

    @cached_property
    def columns(self) -> Buffer:
        """Of all planes, each of which begins a vector."""
        return self._waiting("columns")

    @cached_property
    def numbers(self) -> Buffer | None:
        """Of the parts that hold the largest elements; None if nobody asks."""
        return self._waiting("numbers") if self.pooling.needs_position else None

    def _waiting(self, hint: str) -> Buffer:
        lanes = self.pooling.lanes
        shape = (self.planes.count, -(-(self.shift + _width(self.axis)) // lanes) * lanes)
        return self.pooling.binding.local(hint, shape, self.pooling.dtype, Space.STACK)

    def body(self) -> ir.Block:
        return (
            *(ir.Alloc(buffer) for buffer in (self.columns, self.numbers) if buffer is not None),
            *self.planes.each(self._fill),
            *self.planes.each(self._windows),
        )

    def _fill(self, plane: Index, number: Expr) -> ir.Block:
        """What the windows have in each column, and what padding has."""
        pooling, real = self.pooling, row_length(self.axis)
        body: ir.Block = ()
        behind = self.axis.low + real
        for span in (Span(0, self.axis.low), Span(behind, _width(self.axis) - behind)):
            if span.length > 0:
                var = pooling.binding.var("c")
                place = var + (span.start - self.axis.low)
                padding = self._keep(number, place, pooling.neutral, self._none)
                body += (ir.For(var, span.length, padding),)
        inside = self.interior()
        whole = self._over(real, lambda place: self._column(plane, number, place))
        if inside is None:
            return body + whole
        partly = self._over(real, lambda place: self._part_of_column(plane, number, place))
        return (*body, ir.If(inside, whole, partly))

    @property
    def _none(self) -> Const:
        """The number of no part, above all others."""
        return Const(float(self.pooling.op.window.size), self.pooling.dtype)

    def _column(self, plane: Index, number: Expr, place: Expr) -> ir.Block:
        pooling, elements = self.pooling, self.pooling.binding.elements()
        if self.numbers is None:
            total = self.column(elements, plane, (place,))
            return (*elements.take_block(), *self._keep(number, place, total, None))
        found: list[tuple[Expr, Expr]] = []
        axes = pooling.axes[:-1]
        for parts in product(*(range(axis.kernel) for axis in axes)):
            each = zip(axes, self.rows, parts, strict=True)
            places = [axis.place(window, ir.index(k)) for axis, window, k in each]
            x = pooling.element(elements, (*plane, *places, place))
            part = part_number(pooling.axes, (*map(ir.index, parts), ir.index(0)))
            assert isinstance(part, Const)
            found.append((elements.name(x, "x"), Const(float(part.value), pooling.dtype)))
        body, (best, where) = pooling.first_of(found)
        return (*elements.take_block(), *body, *self._keep(number, place, best, where))

    def _part_of_column(self, plane: Index, number: Expr, place: Expr) -> ir.Block:
        pooling = self.pooling
        axes = pooling.axes[:-1]
        touches = [axis.has_padding for axis in axes]
        index = (*plane, *self.rows)
        if self.numbers is not None:
            body, best, where = pooling.guarded_first(index, touches, (place,))
            return (*body, *self._keep(number, place, best, ir.Cast(where, pooling.dtype)))
        total = pooling.binding.local("total", (), pooling.dtype, Space.REGISTER)
        body = pooling.guarded_total(total, axes, index, touches, (place,))
        return (*body, *self._keep(number, place, ir.Load(total, ()), None))

    def _keep(self, number: Expr, place: Expr, total: Expr, part: Expr | None) -> ir.Block:
        index = (number, place + (self.shift + self.axis.low))
        body: ir.Block = (ir.Store(self.columns, index, total),)
        if self.numbers is not None and part is not None:
            body += (ir.Store(self.numbers, index, part),)
        return body

    def _windows(self, plane: Index, number: Expr) -> ir.Block:
        def window(window: Expr) -> ir.Block:
            return self._ask_ahead(plane, window) + self._window(plane, number, window)

        return self._over(self.axis.windows, window)

    def _ask_ahead(self, plane: Index, window: Expr) -> ir.Block:
        """Asks for what the next row reads and this one does not: nothing is read meanwhile."""
        source = self.pooling.binding.inputs.get(self.pooling.inputs[0])
        if source is None or source.nbytes <= L2_BYTES or len(self.rows) != 1:
            return ()
        axis, (row,) = self.pooling.axes[0], self.rows
        near = [part * axis.dilation for part in range(axis.kernel)]
        far = (axis.place(row, ir.index(0)) + axis.stride + n for n in near)
        new = (place for place, n in zip(far, near, strict=True) if n + axis.stride not in near)
        return tuple(
            ir.Prefetch(source, (*plane, place, window * self.axis.stride)) for place in new
        )

    def _window(self, plane: Index, number: Expr, window: Expr) -> ir.Block:
        pooling, axis = self.pooling, self.axis
        elements = pooling.binding.elements()
        places = [
            window * axis.stride + (self.shift + k * axis.dilation) for k in range(axis.kernel)
        ]
        parts = [elements.name(ir.Load(self.columns, (number, p)), "x") for p in places]
        total, index = pooling.combined(elements, parts), (*plane, *self.rows, window)
        if self.numbers is None:
            return elements.take_block() + pooling.store(total, index)
        first: Expr = self._none
        for k, (x, place) in enumerate(zip(parts, places, strict=True)):
            here = elements.name(ir.Load(self.numbers, (number, place)) + k, "number")
            equal, missing = ir.Binary(BinaryOp.EQ, x, total), ir.Call(Function.ISNAN, x)
            holds = ir.Binary(BinaryOp.OR, equal, missing)
            here = elements.name(ir.Select(holds, here, self._none), "number")
            first = elements.name(ir.Select(here < first, here, first), "first")
        return elements.take_block() + pooling.store_maximum(total, first, index)

    def _over(self, extent: int, body: Callable[[Expr], ir.Block]) -> ir.Block:
        pooling = self.pooling
        return in_vectors(pooling.binding, Span(0, extent), pooling.lanes, body)
