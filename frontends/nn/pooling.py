"""Pooling layers over 1 to 3 spatial axes: x is (N, C, *spatial) or (C, *spatial)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from ...compiler.tensor import Tensor
from .functional import pooling
from .functional.arguments import Size, per_axis
from .functional.pooling import OptionalSize
from .module import Layer


class MaxPool(Layer):
    """Base of the maximum poolings.

    Arguments:
        kernel_size: extents of a window.
        stride: distance between windows; their extents by default.
        padding: on both sides, never chosen; at most half of the kernel.
        dilation: distance between neighbouring places of a window.
        return_indices: whether `forward` also returns where the maxima stand (int64, into the
            flattened spatial axes).
        ceil_mode: whether a last window may hang over the end.
    """

    rank: ClassVar[int]

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Any:
        return pooling.max_pool(
            self.rank,
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.ceil_mode,
            self.return_indices,
        )

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(MaxPool):
    """Maximum pooling over one spatial axis; see MaxPool."""

    rank = 1


class MaxPool2d(MaxPool):
    """Maximum pooling over two spatial axes; see MaxPool."""

    rank = 2


class MaxPool3d(MaxPool):
    """Maximum pooling over three spatial axes; see MaxPool."""

    rank = 3


class AvgPool(Layer):
    """Base of the average poolings.

    Arguments:
        kernel_size, stride, padding, ceil_mode: as of MaxPool.
        count_include_pad: whether padding counts as elements that are zero.
        divisor_override: what every sum is divided by, in place of the number of elements.
    """

    rank: ClassVar[int]

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override

    def forward(self, input: Tensor) -> Tensor:
        return pooling.avg_pool(
            self.rank,
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool1d(AvgPool):
    """Average pooling over one spatial axis; see AvgPool."""

    rank = 1

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        kernel = per_axis(kernel_size, 1, "kernel_size")
        steps = kernel if stride is None else per_axis(stride, 1, "stride")
        pad = per_axis(padding, 1, "padding")
        super().__init__(kernel, steps, pad, ceil_mode, count_include_pad)


class AvgPool2d(AvgPool):
    """Average pooling over two spatial axes; see AvgPool."""

    rank = 2


class AvgPool3d(AvgPool):
    """Average pooling over three spatial axes; see AvgPool."""

    rank = 3


class LPPool(Layer):
    """Base of the power-average pools: the p-th root of the sum of x ** p over windows.

    Arguments:
        norm_type: p; 1 gives sums, a large one nearly maxima.
        kernel_size: of the windows.
        stride: that of the kernel by default.
        ceil_mode: whether there is a window that leaves the input.
    """

    rank: ClassVar[int]

    def __init__(
        self,
        norm_type: float,
        kernel_size: Size,
        stride: Size | None = None,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.norm_type = norm_type
        self.kernel_size = kernel_size
        self.stride = stride
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Tensor:
        return pooling.lp_pool(
            self.rank, input, self.norm_type, self.kernel_size, self.stride, self.ceil_mode
        )

    def extra_repr(self) -> str:
        return (
            f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"ceil_mode={self.ceil_mode}"
        )


class LPPool1d(LPPool):
    """Power-average pooling over one spatial axis; see LPPool."""

    rank = 1


class LPPool2d(LPPool):
    """Power-average pooling over two spatial axes; see LPPool."""

    rank = 2


class LPPool3d(LPPool):
    """Power-average pooling over three spatial axes; see LPPool."""

    rank = 3


class MaxUnpool(Layer):
    """Base of the unpoolings: elements go back to where MaxPool found them, zeros elsewhere."""

    rank: ClassVar[int]

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> None:
        super().__init__()
        self.kernel_size = per_axis(kernel_size, self.rank, "kernel_size")
        self.stride = self.kernel_size if stride is None else per_axis(stride, self.rank, "stride")
        self.padding = per_axis(padding, self.rank, "padding")

    def forward(
        self, input: Tensor, indices: Tensor, output_size: Sequence[int] | None = None
    ) -> Tensor:
        return pooling.max_unpool(
            self.rank, input, indices, self.kernel_size, self.stride, self.padding, output_size
        )

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool1d(MaxUnpool):
    """Unpooling over one spatial axis; see MaxUnpool."""

    rank = 1


class MaxUnpool2d(MaxUnpool):
    """Unpooling over two spatial axes; see MaxUnpool."""

    rank = 2


class MaxUnpool3d(MaxUnpool):
    """Unpooling over three spatial axes; see MaxUnpool."""

    rank = 3


class AdaptivePool(Layer):
    """Base of the poolings that are told the extents of their result; None keeps an extent."""

    def __init__(self, output_size: OptionalSize) -> None:
        super().__init__()
        self.output_size = output_size

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(AdaptivePool):
    """Averages that bring one spatial axis to `output_size`."""

    def forward(self, input: Tensor) -> Tensor:
        return pooling.adaptive_avg_pool1d(input, self.output_size)


class AdaptiveAvgPool2d(AdaptivePool):
    """Averages that bring two spatial axes to `output_size`."""

    def forward(self, input: Tensor) -> Tensor:
        return pooling.adaptive_avg_pool2d(input, self.output_size)


class AdaptiveAvgPool3d(AdaptivePool):
    """Averages that bring three spatial axes to `output_size`."""

    def forward(self, input: Tensor) -> Tensor:
        return pooling.adaptive_avg_pool3d(input, self.output_size)


class AdaptiveMaxPool1d(AdaptivePool):
    """Maxima that bring one spatial axis to `output_size`."""

    def forward(self, input: Tensor) -> Tensor:
        return pooling.adaptive_max_pool1d(input, self.output_size)


class AdaptiveMaxPool2d(AdaptivePool):
    """Maxima that bring two spatial axes to `output_size`."""

    def forward(self, input: Tensor) -> Tensor:
        return pooling.adaptive_max_pool2d(input, self.output_size)


class AdaptiveMaxPool3d(AdaptivePool):
    """Maxima that bring three spatial axes to `output_size`."""

    def forward(self, input: Tensor) -> Tensor:
        return pooling.adaptive_max_pool3d(input, self.output_size)
