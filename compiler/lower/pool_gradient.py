"""The transposes of pooling.

Where the lanes of vectors are channels of a block, each place adds up what the windows that it is
in have for it (`_gathered`). Else a plane of zeros gets what the windows have for its places.

Planes are independent, hence parallel; inside of one the order is fixed, so that the sums are the
same for any number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from ..graph import Graph, Value
from ..group import Group
from ..llvm.target import Target
from ..loops import ir
from ..loops.ir import BinaryOp, Const, Expr, LoopKind, ReduceOp, Space
from ..ops.pool import MaxPoolGradient, SumPoolGradient
from ..types import DType
from .anchored import Anchored
from .binding import Binding, Lowered
from .index import Index
from .pool import clamped_position
from .slide import Slide, transposed_slides
from .tile import Span, panels
from .windows import WindowAxis, guarded, part_number, parts_of, window_axes

# Places of a window up to which each place asks for all windows that it may be in.
_GATHERED = 25
# Neighbouring places of a row that share windows.
_TOGETHER = 4


def lower_pool_gradient(graph: Graph, group: Group, target: Target) -> Lowered:
    """The kernel of MaxPoolGradient or SumPoolGradient."""
    assert group.anchor is not None
    op = graph.node(group.anchor).op
    assert isinstance(op, MaxPoolGradient | SumPoolGradient)
    return Unpooling(Binding(graph, group, target), Value(group.anchor), op).lower()


@dataclass
class Unpooling(Anchored):
    """Builds the loops of one transpose.

    Arguments:
        op: what it computes.
    """

    op: MaxPoolGradient | SumPoolGradient

    @cached_property
    def axes(self) -> tuple[WindowAxis, ...]:
        return window_axes(self.op.window, self.op.spatial)

    @property
    def lanes(self) -> int:
        return self.binding.lanes(*self.binding.dtypes)

    def lower(self) -> Lowered:
        plane = (self.binding.var("n"), self.binding.var("c"))
        loops = tuple(zip(plane, self.shape, strict=False))
        if self._in_channels:
            body = ir.loop_nest(loops, self._gathered(plane), LoopKind.PARALLEL)
            return self.binding.finish(body, "places gather from windows")
        add = self._picked if isinstance(self.op, MaxPoolGradient) else self._spread
        body = ir.loop_nest(loops, self._zeros(plane) + add(plane), LoopKind.PARALLEL)
        return self.binding.finish(body, "windows added to planes")

    # -- places that gather -----------------------------------------------------------------------

    @property
    def _in_channels(self) -> bool:
        """Whether the last axis is not pooled, and the windows are small."""
        *outer, last = self.axes
        return bool(outer) and last.is_trivial and math.prod(a.kernel for a in outer) <= _GATHERED

    def _gathered(self, plane: Index, chosen: Sequence[tuple[Slide, Expr, bool]] = ()) -> ir.Block:
        """Loops over the places along the axes that are left.

        Arguments:
            plane: sample and channel.
            chosen: of the axes before: a slide, the number of its place, and whether windows that
                are read there may not exist.
        """
        axis = len(chosen)
        slides = transposed_slides(self.op.window, self.op.spatial)[axis]
        if axis == len(self.axes) - 2:
            return self._row(plane, chosen, slides)
        body: ir.Block = ()
        for slide in slides:
            for span, checked in self._spans(slide, self.axes[axis].windows):
                var = self.binding.var("i")
                inside = self._gathered(plane, [*chosen, (slide, var + span.start, checked)])
                body += (ir.For(var, span.length, inside),)
        return body

    def _spans(self, slide: Slide, windows: int) -> list[tuple[Span, bool]]:
        """The places of a slide, and whether some of their windows do not exist."""
        low, high = slide.reads(1)
        start = min(max(-low, 0), slide.count)
        stop = max(min(windows - high + 1, slide.count), start) if slide.taps else slide.count
        found = [
            (Span(0, start), True),
            (Span(start, stop - start), False),
            (Span(stop, slide.count - stop), True),
        ]
        return [(span, checked) for span, checked in found if span.length]

    def _row(
        self, plane: Index, chosen: Sequence[tuple[Slide, Expr, bool]], slides: Sequence[Slide]
    ) -> ir.Block:
        """All places of a row: most are neighbours whose windows exist."""
        windows = self.axes[-2].windows
        whole = [
            next((span for span, checked in self._spans(s, windows) if not checked), Span(0, 0))
            for s in slides
        ]
        start = max(span.start for span in whole)
        stop = max(min(span.start + span.length for span in whole), start)
        if any(checked for _, _, checked in chosen):
            start = stop = 0
        body: ir.Block = ()
        most = _TOGETHER if any(slide.taps > 1 for slide in slides) else 1
        for group in panels(stop - start, most):
            number, loops = self.binding.loop("j", group.count)
            first = number * group.length + (start + group.start)
            body += ir.loop_nest(loops, self._group(plane, chosen, slides, first, group.length))
        for slide in slides:
            for span in (Span(0, min(start, slide.count)), Span(stop, slide.count - stop)):
                if span.length > 0:
                    var = self.binding.var("j")
                    inside = self._place(plane, [*chosen, (slide, var + span.start, True)])
                    body += (ir.For(var, span.length, inside),)
        return body

    def _group(
        self,
        plane: Index,
        chosen: Sequence[tuple[Slide, Expr, bool]],
        slides: Sequence[Slide],
        first: Expr,
        count: int,
    ) -> ir.Block:
        """Neighbouring places of all slides of a row, which share the windows that they are in."""
        lane, elements = self.binding.var("v"), self.binding.elements()
        result = self.binding.outputs[self.result]
        windows: dict[tuple[tuple[int, ...], int], tuple[Expr, Expr]] = {}
        rows = list(product(*(range(slide.taps) for slide, _, _ in chosen)))
        outer = tuple(slide.output_place(number) for slide, number, _ in chosen)
        body: ir.Block = ()

        def window(taps: tuple[int, ...], offset: int) -> tuple[Expr, Expr]:
            """What a window has, and where it goes."""
            if (taps, offset) not in windows:
                places = (
                    s.input_place(n, ir.index(t)) for (s, n, _), t in zip(chosen, taps, strict=True)
                )
                index = (*plane, *places, first + offset, lane)
                value = position = elements.at(self.inputs[0], index)
                if isinstance(self.op, MaxPoolGradient):
                    position = elements.at(self.inputs[1], index)
                    if position.dtype is not DType.INT32:
                        position = elements.name(ir.Cast(position, DType.INT32), "part")
                windows[taps, offset] = value, position
            return windows[taps, offset]

        for number, slide in product(range(count), slides):
            total: Expr = Const(0.0, result.dtype)
            for taps, tap in product(rows, range(slide.taps)):
                value, position = window(taps, number + tap * slide.dilation + slide.first)
                parts = [
                    s.kernel_place(ir.index(t)) for (s, _, _), t in zip(chosen, taps, strict=True)
                ]
                parts += [slide.kernel_place(ir.index(tap)), ir.index(0)]
                part = part_number(self.axes, tuple(parts))
                assert isinstance(part, Const)
                if isinstance(self.op, MaxPoolGradient):
                    value = self._where_picked(position, int(part.value), value)
                first_one = isinstance(total, Const)
                total = elements.name(value if first_one else total + value, "total")
            place = (*plane, *outer, slide.output_place(first + number), lane)
            body += (*elements.take_block(), ir.Store(result, place, total))
        return (ir.For(lane, self.shape[-1], body, LoopKind.VECTOR, self.lanes),)

    def _place(self, plane: Index, chosen: Sequence[tuple[Slide, Expr, bool]]) -> ir.Block:
        """A place of all channels of a block."""
        lane = self.binding.var("v")
        dtype = self.binding.outputs[self.result].dtype
        total = self.binding.local("total", (), dtype, Space.REGISTER)
        zero = Const(0.0, dtype)
        body: ir.Block = (ir.Alloc(total), ir.Store(total, (), zero))
        for taps in product(*(range(slide.taps) for slide, _, _ in chosen)):
            each = list(zip(chosen, taps, self.axes, strict=False))
            windows = tuple(
                slide.input_place(place, ir.index(t)) for (slide, place, _), t, _ in each
            )
            conditions = [
                (window >= 0) & (window < axis.windows)
                for window, ((_, _, checked), _, axis) in zip(windows, each, strict=True)
                if checked
            ]
            parts = tuple(slide.kernel_place(ir.index(t)) for (slide, _, _), t, _ in each)
            number = part_number(self.axes, (*parts, ir.index(0)))
            elements = self.binding.elements()
            index = (*plane, *windows, lane)
            value = elements.at(self.inputs[0], index)
            if isinstance(self.op, MaxPoolGradient):
                assert isinstance(number, Const)
                position = elements.at(self.inputs[1], index)
                value = self._where_picked(position, int(number.value), value)
            add = ir.Accumulate(total, (), ReduceOp.ADD, value)
            body += guarded(conditions, (*elements.take_block(), add))
        place = tuple(slide.output_place(number) for slide, number, _ in chosen)
        result = self.binding.outputs[self.result]
        body += (ir.Store(result, (*plane, *place, lane), ir.Load(total, ())),)
        return (ir.For(lane, self.shape[-1], body, LoopKind.VECTOR, self.lanes),)

    def _where_picked(self, position: Expr, part: int, value: Expr) -> Expr:
        """The value where the position, which is kept inside of a window, is a part."""
        last = self.op.window.size - 1
        if not last:
            return value
        number = Const(part, position.dtype)
        if part == 0:
            here = ir.Binary(BinaryOp.LE, position, number)
        elif part == last:
            here = ir.Binary(BinaryOp.LE, number, position)
        else:
            here = ir.Binary(BinaryOp.EQ, position, number)
        return ir.Select(here, value, Const(0.0, value.dtype))

    # -- windows that add -------------------------------------------------------------------------

    def _zeros(self, plane: Index) -> ir.Block:
        *outer, column = (self.binding.var("i") for _ in self.axes)
        dtype = self.binding.outputs[self.result].dtype
        zero = ir.Store(
            self.binding.outputs[self.result], (*plane, *outer, column), Const(0.0, dtype)
        )
        row = ir.For(column, self.shape[-1], (zero,), LoopKind.VECTOR, self.lanes)
        return ir.loop_nest(tuple(zip(outer, self.shape[2:-1], strict=True)), (row,))

    def _add(self, plane: Index, places: Index, value: Expr) -> ir.Stmt:
        return ir.Accumulate(
            self.binding.outputs[self.result], (*plane, *places), ReduceOp.ADD, value
        )

    def _picked(self, plane: Index) -> ir.Block:
        """Each window's element to the place that its position names."""
        windows = tuple(self.binding.var("w") for _ in self.axes)
        dy, position = self.inputs
        elements = self.binding.elements()
        number = elements.name(
            clamped_position(elements.at(position, (*plane, *windows)), self.op), "part"
        )
        value = elements.at(dy, (*plane, *windows))
        places = tuple(
            elements.name(axis.place(window, part), "place")
            for axis, window, part in zip(
                self.axes, windows, parts_of(self.axes, number), strict=True
            )
        )
        inside = [a.inside(p) for a, p in zip(self.axes, places, strict=True) if a.has_padding]
        body = elements.take_block() + guarded(inside, (self._add(plane, places, value),))
        extents = (axis.windows for axis in self.axes)
        return ir.loop_nest(tuple(zip(windows, extents, strict=True)), body)

    def _spread(self, plane: Index) -> ir.Block:
        """Each window's element to all its places."""
        outer_axes = self.axes[:-1]
        windows = [self.binding.var("w") for _ in outer_axes]
        parts = [self.binding.var("k") for _ in outer_axes]
        places = [a.place(w, k) for a, w, k in zip(outer_axes, windows, parts, strict=True)]
        body = self._spread_row(plane, tuple(windows), tuple(places))
        inside = [a.inside(p) for a, p in zip(outer_axes, places, strict=True) if a.has_padding]
        loops = [(w, a.windows) for w, a in zip(windows, outer_axes, strict=True)]
        loops += [(k, a.kernel) for k, a in zip(parts, outer_axes, strict=True)]
        return ir.loop_nest(tuple(loops), guarded(inside, body))

    def _spread_row(self, plane: Index, windows: Index, places: Index) -> ir.Block:
        """A row of windows to a row of places: of windows and parts, the more are in lanes."""
        axis = self.axes[-1]
        windows_in_lanes = axis.windows >= axis.kernel
        body: ir.Block = ()
        for fixed in range(min(axis.windows, axis.kernel)):
            lane = self.binding.var("v")
            span = axis.covered(fixed) if windows_in_lanes else axis.parts(fixed)
            one: tuple[Expr, Expr] = (lane + span.start, ir.index(fixed))
            window, part = one if windows_in_lanes else one[::-1]
            elements = self.binding.elements()
            value = elements.at(self.inputs[0], (*plane, *windows, window))
            add = self._add(plane, (*places, axis.place(window, part)), value)
            block = (*elements.take_block(), add)
            body += (ir.For(lane, span.length, block, LoopKind.VECTOR, self.lanes),)
        return body
