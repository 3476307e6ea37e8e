"""Loops over the windows of pooling, and over the places of a window.

Along an axis, window `i` reads the places `i * stride - low + j * dilation` for j < kernel. Places
in the padding are left out by `If`, whose condition must be the same for all lanes: so windows
that touch the padding of the innermost axis are run one by one, and only those between them in
lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..loops import ir
from ..loops.ir import Expr, LoopKind
from ..ops.window import Window
from ..types import Shape
from .binding import Binding
from .index import Index
from .tile import Span

UNROLLED = 16


@dataclass(frozen=True)
class WindowAxis:
    """The windows along one spatial axis.

    Arguments:
        windows: number of windows.
        extent: of the input.
        kernel, stride, low, dilation: of the window; low is the padding before the input.
    """

    windows: int
    extent: int
    kernel: int
    stride: int
    low: int
    dilation: int

    def place(self, window: Expr, part: Expr) -> Expr:
        """Which input place part `part` of a window reads."""
        return window * self.stride + part * self.dilation - self.low

    @property
    def interior(self) -> tuple[int, int]:
        """The first window that does not touch padding, and the one behind the last."""
        start = min(-(-self.low // self.stride), self.windows)
        room = self.extent + self.low - (self.kernel - 1) * self.dilation - 1
        stop = min(room // self.stride + 1, self.windows)
        return start, max(start, stop)

    @property
    def is_trivial(self) -> bool:
        """Whether each window is a place of its own."""
        return (self.kernel, self.stride, self.low, self.windows) == (1, 1, 0, self.extent)

    @property
    def has_padding(self) -> bool:
        """Whether some window touches padding."""
        return self.interior != (0, self.windows)

    @property
    def spans(self) -> list[tuple[Span, bool]]:
        """The windows before, in and behind the interior, and whether they touch padding."""
        start, stop = self.interior
        found = [
            (Span(0, start), True),
            (Span(start, stop - start), False),
            (Span(stop, self.windows - stop), True),
        ]
        return [(span, touches) for span, touches in found if span.length]

    @property
    def reaches(self) -> bool:
        """Whether every window that touches padding also has the input's nearest place."""
        ends = self.low < self.kernel and (self.windows - 1) * self.stride - self.low < self.extent
        return not self.has_padding or (self.dilation == 1 and ends)

    def nearest(self, window: Expr, last: int, part: int) -> Expr:
        """The place of the input that is nearest to what a part of a window reads.

        Arguments:
            window: the window.
            last: the largest number that it may have.
            part: how many places behind the window's first one; it may be in another window.
        """
        place = window * self.stride + (part - self.low)
        if part < self.low:
            place = ir.maximum(place, 0)
        if last * self.stride + part - self.low >= self.extent:
            place = ir.minimum(place, self.extent - 1)
        return place

    def inside(self, place: Expr) -> Expr:
        """Whether a place is no padding."""
        return (place >= 0) & (place < self.extent)

    def first(self, window: Expr) -> Expr:
        """The first part of a window that is no padding."""
        missing = self.low - window * self.stride
        return ir.maximum((missing + (self.dilation - 1)) // self.dilation, 0)

    def covered(self, part: int) -> Span:
        """The windows whose part `part` is no padding."""
        return self._within(part * self.dilation, self.stride, self.windows)

    def parts(self, window: int) -> Span:
        """The parts of a window that are no padding."""
        return self._within(window * self.stride, self.dilation, self.kernel)

    def _within(self, offset: int, step: int, count: int) -> Span:
        """The numbers i < count for which `offset + i * step - low` is inside of the input."""
        start = max(-((offset - self.low) // step), 0)
        stop = min((self.extent - 1 + self.low - offset) // step + 1, count)
        return Span(start, max(stop - start, 0))


def window_axes(window: Window, spatial: Shape) -> tuple[WindowAxis, ...]:
    """The axes of a window that slides over a value of extents `spatial`."""
    return tuple(
        WindowAxis(n, extent, kernel, stride, low, dilation)
        for n, extent, kernel, stride, (low, _), dilation in zip(
            window.outputs(spatial),
            spatial,
            window.kernel,
            window.stride,
            window.padding,
            window.dilation,
            strict=True,
        )
    )


def guarded(conditions: Sequence[Expr], body: ir.Block) -> ir.Block:
    """The body where all conditions hold."""
    for condition in reversed(conditions):
        body = (ir.If(condition, body),)
    return body


def interior(axes: Sequence[WindowAxis], windows: Index) -> Expr | None:
    """Whether windows touch no padding along the first axes; None if none ever does."""
    condition: Expr | None = None
    for axis, window in zip(axes, windows, strict=False):
        if axis.has_padding:
            inside = (window >= axis.interior[0]) & (window < axis.interior[1])
            condition = inside if condition is None else condition & inside
    return condition


def in_vectors(
    binding: Binding, span: Span, lanes: int, body: Callable[[Expr], ir.Block]
) -> ir.Block:
    """Neighbours in whole vectors: the last one begins earlier if it must, and does some again.

    Arguments:
        binding: the group.
        span: the neighbours.
        lanes: of a vector.
        body: what is done with one of them.
    """
    while lanes > span.length:
        lanes //= 2
    rest = span.length % lanes if lanes else 0
    result: ir.Block = ()
    for part in (Span(0, span.length - rest), Span(span.length - lanes, lanes if rest else 0)):
        if part.length:
            var = binding.var("c")
            inside = body(var + (span.start + part.start))
            result += (ir.For(var, part.length, inside, LoopKind.VECTOR, lanes),)
    return result


def over_parts(
    axes: Sequence[WindowAxis],
    parts: Sequence[ir.Var],
    windows: Index,
    touches: Sequence[bool],
    body: ir.Block,
) -> ir.Block:
    """`body` for every part of a window that is no padding, in row-major order.

    Arguments:
        axes: the axes.
        parts: loop variables, one an axis.
        windows: number of the window along each axis.
        touches: whether the window may touch padding along each axis.
        body: what is done.
    """
    size = 1
    for axis in axes:
        size *= axis.kernel
    kind = LoopKind.UNROLLED if size <= UNROLLED else LoopKind.SERIAL
    for axis, part, window, test in reversed(list(zip(axes, parts, windows, touches, strict=True))):
        conditions = [axis.inside(axis.place(window, part))] if test else []
        body = (ir.For(part, axis.kernel, guarded(conditions, body), kind),)
    return body


def part_number(axes: Sequence[WindowAxis], parts: Index) -> Expr:
    """Row-major number of a part in its window."""
    number: Expr = ir.index(0)
    for axis, part in zip(axes, parts, strict=True):
        number = number * axis.kernel + part
    return number


def parts_of(axes: Sequence[WindowAxis], number: Expr) -> Index:
    """The part along each axis of row-major number `number`, which is below the window's size."""
    found: list[Expr] = []
    for axis in reversed(axes[1:]):
        found.append(number % axis.kernel)
        number = number // axis.kernel
    return (number, *reversed(found))
