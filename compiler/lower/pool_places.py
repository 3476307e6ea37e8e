"""Places of the input of pooling: each adds up what the windows that it is in have for it.

Lanes of vectors are channels of a block, or neighbouring windows of a row. With a stride these give
every so many places; so rows wait on the stack until they are written, and so do rows of large
results, which are then written in order, without what is at their ends coming in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, TypeAlias

from ..cost_model import L2_BYTES
from ..loops import ir
from ..loops.ir import BinaryOp, Buffer, Const, Expr, LoopKind, ReduceOp, Space
from ..ops.pool import MaxPoolGradient
from ..types import DType
from .elements import Elements
from .index import Index
from .slide import Slide, transposed_slides
from .tile import Span, panels
from .windows import guarded, in_vectors, part_number

if TYPE_CHECKING:
    from .pool_gradient import Unpooling

# Neighbouring places of a row that share windows, where channels are in lanes.
_TOGETHER = 4

# A slide along an axis, the number of its place, and whether windows that are read there may not
# exist.
Chosen: TypeAlias = tuple[Slide, Expr, bool]


@dataclass
class Places:
    """Builds the loops over the places of a plane.

    Arguments:
        unpooling: what is computed.
        plane: sample and channel.
    """

    unpooling: Unpooling
    plane: Index

    @cached_property
    def slides(self) -> tuple[tuple[Slide, ...], ...]:
        op = self.unpooling.op
        return transposed_slides(op.window, op.spatial)

    @property
    def result(self) -> Buffer:
        return self.unpooling.binding.outputs[self.unpooling.result]

    @cached_property
    def in_channels(self) -> bool:
        """Whether the last axis is not pooled: then rows are along the one before."""
        *outer, last = self.unpooling.axes
        return bool(outer) and last.is_trivial

    @property
    def row_axis(self) -> int:
        return len(self.slides) - (2 if self.in_channels else 1)

    @cached_property
    def rows(self) -> Buffer | None:
        """Where rows wait, as many as the stride of the axis before; None: they need not."""
        unpooling, slides = self.unpooling, self.slides[self.row_axis]
        halves = not self.in_channels and len(slides) == 2
        if not halves and (self.result.nbytes <= L2_BYTES or not self._in_order):
            return None
        many = len(self.slides[self.row_axis - 1]) if self.row_axis else 1
        lanes = unpooling.lanes
        length = -(-slides[0].count // lanes) * lanes
        rest = (self.result.shape[-2:]) if self.in_channels else (len(slides), length)
        return unpooling.binding.local("rows", (many, *rest), self.result.dtype, Space.STACK)

    @property
    def _in_order(self) -> bool:
        """Whether all places of a row are there before any of them is written."""
        return self.in_channels or len(self.slides[self.row_axis]) == 1

    def loops(self, chosen: tuple[Chosen, ...] = ()) -> ir.Block:
        """Loops over the places along the axes that are left, behind those that are chosen."""
        axis = len(chosen)
        if axis == self.row_axis:
            return self._held((*self._row(chosen), *self._write(chosen, 1)))
        if axis + 1 == self.row_axis:
            return self._bands(chosen)
        body: ir.Block = ()
        for slide in self.slides[axis]:
            for span, checked in self._spans(slide, axis):
                var = self.unpooling.binding.var("i")
                inside = self.loops((*chosen, (slide, var + span.start, checked)))
                body += (ir.For(var, span.length, inside),)
        return body

    def _bands(self, chosen: tuple[Chosen, ...]) -> ir.Block:
        """Rows of all slides in turn, as they lie in memory."""
        body: ir.Block = ()
        slides = self.slides[len(chosen)]
        for span in (Span(0, slides[-1].count), Span(slides[-1].count, 1)):
            here = [slide for slide in slides if slide.count >= span.start + span.length]
            if not span.length or not here:
                continue
            var = self.unpooling.binding.var("i")
            places = [(slide, var + span.start) for slide in here]
            inside = tuple(s for place in places for s in self._either(chosen, *place))
            written = self._write((*chosen, (*places[0], False)), len(here))
            body += (ir.For(var, span.length, self._held((*inside, *written))),)
        return body

    def _either(self, chosen: tuple[Chosen, ...], slide: Slide, number: Expr) -> ir.Block:
        """A row whose windows exist, or do not all."""
        spans = self._spans(slide, len(chosen))
        partly = self._row((*chosen, (slide, number, True)))
        whole = next((span for span, checked in spans if not checked), None)
        if whole is None:
            return partly
        body = self._row((*chosen, (slide, number, False)))
        if whole.length == slide.count:
            return body
        inside = (number >= whole.start) & (number < whole.start + whole.length)
        return (ir.If(inside, body, partly),)

    def _spans(self, slide: Slide, axis: int) -> list[tuple[Span, bool]]:
        """The places of a slide, and whether some of their windows do not exist."""
        low, high = slide.reads(1)
        start = min(max(-low, 0), slide.count)
        stop = min(self.unpooling.axes[axis].windows - high + 1, slide.count)
        stop = max(stop, start) if slide.taps else slide.count
        found = [
            (Span(0, start), True),
            (Span(start, stop - start), False),
            (Span(stop, slide.count - stop), True),
        ]
        return [(span, checked) for span, checked in found if span.length]

    # -- rows -------------------------------------------------------------------------------------

    def _row(self, chosen: Sequence[Chosen]) -> ir.Block:
        """All places of a row: most are neighbours whose windows exist."""
        binding, slides = self.unpooling.binding, self.slides[self.row_axis]
        whole = [
            next(
                (span for span, checked in self._spans(s, self.row_axis) if not checked), Span(0, 0)
            )
            for s in slides
        ]
        start = max(span.start for span in whole)
        stop = max(min(span.start + span.length for span in whole), start)
        body = self._neighbours(chosen, Span(start, stop - start))
        for slide in slides:
            for span in (Span(0, min(start, slide.count)), Span(stop, slide.count - stop)):
                if span.length > 0:
                    var = binding.var("j")
                    inside = self._place((*chosen, (slide, var + span.start, True)))
                    body += (ir.For(var, span.length, inside),)
        return body

    def _neighbours(self, chosen: Sequence[Chosen], span: Span) -> ir.Block:
        """Places of a row whose windows along it exist."""
        binding, slides = self.unpooling.binding, self.slides[self.row_axis]
        apart = any(checked for _, _, checked in chosen)

        def one(number: Expr) -> ir.Block:
            """What is at a number in all slides."""
            if not apart:
                return self._group(chosen, number, 1, ())
            return tuple(
                s for slide in slides for s in self._place((*chosen, (slide, number, False)))
            )

        if not self.in_channels:
            return in_vectors(binding, span, self.unpooling.lanes, one) if span.length else ()
        body: ir.Block = ()
        shared = any(slide.taps > 1 for slide in slides) and not apart
        for panel in panels(span.length, _TOGETHER if shared else 1):
            number, loops = binding.loop("j", panel.count)
            first = number * panel.length + (span.start + panel.start)
            lane = binding.var("v")
            inside = (
                one(first)
                if apart
                else self._in_channels(lane, self._group(chosen, first, panel.length, (lane,)))
            )
            body += ir.loop_nest(loops, inside)
        return body

    def _in_channels(self, lane: ir.Var, body: ir.Block) -> ir.Block:
        """The same for all channels of a block."""
        extent = self.unpooling.shape[-1]
        return (ir.For(lane, extent, body, LoopKind.VECTOR, self.unpooling.lanes),)

    def _group(
        self, chosen: Sequence[Chosen], first: Expr, count: int, lane: tuple[Expr, ...]
    ) -> ir.Block:
        """Neighbouring places of all slides of a row, which share the windows that they are in.

        Arguments:
            chosen: of the other axes.
            first: the number of the first one.
            count: how many there are of each slide.
            lane: the channel, if channels are in lanes.
        """
        elements = self.unpooling.binding.elements()
        windows: dict[tuple[tuple[int, ...], int], tuple[Expr, Expr]] = {}
        rows = list(product(*(range(slide.taps) for slide, _, _ in chosen)))
        body: ir.Block = ()

        def window(taps: tuple[int, ...], offset: int) -> tuple[Expr, Expr]:
            """What a window has, and where it goes."""
            if (taps, offset) not in windows:
                places = (
                    s.input_place(n, ir.index(t)) for (s, n, _), t in zip(chosen, taps, strict=True)
                )
                index = (*self.plane, *places, first + offset, *lane)
                windows[taps, offset] = self._window(elements, index)
            return windows[taps, offset]

        for number, slide in product(range(count), self.slides[self.row_axis]):
            total: Expr = Const(0.0, self.result.dtype)
            for taps, tap in product(rows, range(slide.taps)):
                value, position = window(taps, number + tap * slide.dilation + slide.first)
                every = [
                    s.kernel_place(ir.index(t)) for (s, _, _), t in zip(chosen, taps, strict=True)
                ]
                part = self._part((*every, slide.kernel_place(ir.index(tap))))
                value = self._where_picked(position, part, value)
                first_one = isinstance(total, Const)
                total = elements.name(value if first_one else total + value, "total")
            body += elements.take_block()
            body += self._keep((*chosen, (slide, first + number, False)), lane, total)
        return body

    def _place(self, chosen: Sequence[Chosen]) -> ir.Block:
        """A place, of all channels of a block if they are in lanes."""
        binding = self.unpooling.binding
        var = binding.var("v")
        lane = (var,) if self.in_channels else ()
        total = binding.local("total", (), self.result.dtype, Space.REGISTER)
        zero = Const(0.0, self.result.dtype)
        body: ir.Block = (ir.Alloc(total), ir.Store(total, (), zero))
        for taps in product(*(range(slide.taps) for slide, _, _ in chosen)):
            each = list(zip(chosen, taps, self.unpooling.axes, strict=False))
            windows = tuple(
                slide.input_place(place, ir.index(t)) for (slide, place, _), t, _ in each
            )
            conditions = [
                (window >= 0) & (window < axis.windows)
                for window, ((_, _, checked), _, axis) in zip(windows, each, strict=True)
                if checked
            ]
            part = self._part(tuple(s.kernel_place(ir.index(t)) for (s, _, _), t, _ in each))
            elements = binding.elements()
            value, position = self._window(elements, (*self.plane, *windows, *lane))
            value = self._where_picked(position, part, value)
            add = ir.Accumulate(total, (), ReduceOp.ADD, value)
            body += guarded(conditions, (*elements.take_block(), add))
        body += self._keep(chosen, lane, ir.Load(total, ()))
        return self._in_channels(var, body) if self.in_channels else body

    # -- windows ----------------------------------------------------------------------------------

    def _window(self, elements: Elements, index: Index) -> tuple[Expr, Expr]:
        """What a window has, and the number of the part that it was picked from."""
        value = position = elements.at(self.unpooling.inputs[0], index)
        if isinstance(self.unpooling.op, MaxPoolGradient):
            position = elements.at(self.unpooling.inputs[1], index)
            if position.dtype is not DType.INT32:
                position = elements.name(ir.Cast(position, DType.INT32), "part")
        return value, position

    def _part(self, parts: Index) -> int:
        """The number of a part of a window."""
        missing = len(self.unpooling.axes) - len(parts)
        number = part_number(self.unpooling.axes, (*parts, *[ir.index(0)] * missing))
        assert isinstance(number, Const)
        return int(number.value)

    def _where_picked(self, position: Expr, part: int, value: Expr) -> Expr:
        """The value where the position, which is kept inside of a window, is a part."""
        last = self.unpooling.op.window.size - 1
        if not last or not isinstance(self.unpooling.op, MaxPoolGradient):
            return value
        number = Const(part, position.dtype)
        if part == 0:
            here = ir.Binary(BinaryOp.LE, position, number)
        elif part == last:
            here = ir.Binary(BinaryOp.LE, number, position)
        else:
            here = ir.Binary(BinaryOp.EQ, position, number)
        return ir.Select(here, value, Const(0.0, value.dtype))

    # -- results ----------------------------------------------------------------------------------

    def _keep(self, chosen: Sequence[Chosen], lane: tuple[Expr, ...], total: Expr) -> ir.Block:
        """Stores what a place has, or has it wait."""
        slide, number, _ = chosen[-1]
        if self.rows is None:
            place = (slide.output_place(number) for slide, number, _ in chosen)
            return (ir.Store(self.result, (*self.plane, *place, *lane), total),)
        row = ir.index(chosen[-2][0].output[0] if self.row_axis else 0)
        where = (slide.output_place(number), *lane) if lane else (ir.index(slide.output[0]), number)
        return (ir.Store(self.rows, (row, *where), total),)

    def _held(self, body: ir.Block) -> ir.Block:
        return body if self.rows is None else (ir.Alloc(self.rows), *body)

    def _write(self, chosen: Sequence[Chosen], count: int) -> ir.Block:
        """Writes rows that wait: some, from one on."""
        rows, unpooling = self.rows, self.unpooling
        if rows is None:
            return ()
        row, column = (unpooling.binding.var(hint) for hint in "rj")
        outer: list[Expr] = [slide.output_place(number) for slide, number, _ in chosen]
        if outer:
            outer[-1] = outer[-1] + row

        def write(*place: Expr) -> ir.Block:
            halves = rows.shape[1]
            where = place if self.in_channels else (place[0] % halves, place[0] // halves)
            x = ir.Load(rows, (row, *where))
            return (ir.Store(self.result, (*self.plane, *outer, *place), x),)

        length = self.result.shape[self.row_axis + 2]
        if self.in_channels:
            lane = unpooling.binding.var("v")
            body: ir.Block = (ir.For(column, length, self._in_channels(lane, write(column, lane))),)
        else:
            body = in_vectors(unpooling.binding, Span(0, length), unpooling.lanes, write)
        return (ir.For(row, count, body),)
