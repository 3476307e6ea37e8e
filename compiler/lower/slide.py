"""Where the windows of a convolution lie, along one spatial axis, seen from its results.

Both `Conv` and its transpose by x are sums over taps: places of the kernel, each of which reads an
input place that moves with the output. In the transpose by x, output place i gets from kernel place
t the input o with `i = o * stride - low + t * dilation`. The outputs of one remainder i % stride
share their taps, so they are a slide of their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..loops.ir import Expr
from ..ops.window import Window
from ..types import Shape


@dataclass(frozen=True)
class Slide:
    """Outputs o < count as sums over taps t < taps.

    Arguments:
        count: number of outputs.
        output: output o is at place output[0] + output[1] * o.
        stride, first, dilation: it reads input place stride * o + first + dilation * t.
        taps: number of taps.
        kernel: tap t is kernel place kernel[0] + kernel[1] * t.
    """

    count: int
    output: tuple[int, int]
    stride: int
    first: int
    dilation: int
    taps: int
    kernel: tuple[int, int]

    def output_place(self, output: Expr) -> Expr:
        return output * self.output[1] + self.output[0]

    def input_place(self, output: Expr, tap: Expr) -> Expr:
        return output * self.stride + tap * self.dilation + self.first

    def kernel_place(self, tap: Expr) -> Expr:
        return tap * self.kernel[1] + self.kernel[0]

    def reads(self, count: int) -> tuple[int, int]:
        """The first input place that `count` outputs read, and the one behind the last."""
        if self.taps == 0 or count == 0:
            return 0, 0
        ends = self.first, self.first + (self.taps - 1) * self.dilation
        return min(ends), max(ends) + (count - 1) * self.stride + 1


def forward_slides(window: Window, spatial: Shape) -> tuple[Slide, ...]:
    """The axes of a convolution over extents `spatial`."""
    return tuple(
        Slide(count, (0, 1), stride, -low, dilation, kernel, (0, 1))
        for count, kernel, stride, (low, _), dilation in zip(
            window.outputs(spatial),
            window.kernel,
            window.stride,
            window.padding,
            window.dilation,
            strict=True,
        )
    )


def transposed_slides(window: Window, spatial: Shape) -> tuple[tuple[Slide, ...], ...]:
    """The slides along each axis of the transpose of a convolution, which gives `spatial`.

    There is at least one for each axis, even if it has no outputs.
    """
    return tuple(
        tuple(
            _remainder(rest, extent, kernel, stride, low, dilation)
            for rest in range(max(1, min(stride, extent)))
        )
        for extent, kernel, stride, (low, _), dilation in zip(
            spatial, window.kernel, window.stride, window.padding, window.dilation, strict=True
        )
    )


def _remainder(rest: int, extent: int, kernel: int, stride: int, low: int, dilation: int) -> Slide:
    """The outputs i = j * stride + rest.

    t * dilation goes round modulo stride, so every `step`-th kernel place reaches them.
    """
    count = -(-(extent - rest) // stride)
    common = math.gcd(stride, dilation)
    step = stride // common
    start = next((t for t in range(step) if (rest + low - t * dilation) % stride == 0), kernel)
    taps = max(0, -(-(kernel - start) // step))
    first = (rest + low - start * dilation) // stride
    return Slide(count, (rest, stride), 1, first, -(dilation // common), taps, (start, step))
