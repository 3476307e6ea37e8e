"""Pooling over 1 to 3 spatial axes: x is (N, C, *spatial) or (C, *spatial)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ....compiler.errors import ShapeError
from ....compiler.ops.adaptive import AdaptiveAvgPool, AdaptiveMaxPool
from ....compiler.ops.base import Op, apply
from ....compiler.ops.pool import AvgPool, MaxPool, MaxPoolIndices, MaxUnpool, max_pool_padding
from ....compiler.tensor import Tensor
from ....compiler.tensor.reduction import root
from ....compiler.types import Shape
from ..context import emit, emit_all
from .arguments import Size, per_axis, symmetric, with_batch

OptionalSize = int | None | Sequence[int | None]


def max_pool1d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Maximum over windows of (N, C, L); with `return_indices` also where they stand (int64)."""
    return max_pool(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Maximum over windows of (N, C, H, W); with `return_indices` also where they stand (int64)."""
    return max_pool(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Maximum over windows of (N, C, D, H, W); with `return_indices` also where they stand."""
    return max_pool(3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool(
    rank: int,
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Maximum over windows of `rank` spatial axes."""
    kernel = per_axis(kernel_size, rank, "kernel_size")
    steps = _steps(stride, kernel)
    pad = _half_kernel_at_most(per_axis(padding, rank, "padding"), kernel)
    spread = per_axis(dilation, rank, "dilation")

    def pooled(x: Tensor) -> Any:
        spatial = x.shape[2:]
        pairs = symmetric(pad)
        if len(spatial) == rank:
            pairs = max_pool_padding(spatial, kernel, steps, pairs, spread, ceil_mode)
        y, position = emit_all(MaxPool(kernel, steps, pairs, spread), x)
        if not return_indices:
            return y
        return y, apply(MaxPoolIndices(spatial, kernel, steps, pairs, spread), position)

    return with_batch(input, rank, pooled)


def avg_pool1d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """Average over windows of (N, C, L)."""
    return avg_pool(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad)


def avg_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Average over windows of (N, C, H, W)."""
    return avg_pool(
        2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


def avg_pool3d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Average over windows of (N, C, D, H, W)."""
    return avg_pool(
        3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


def avg_pool(
    rank: int,
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Average over windows of `rank` spatial axes."""
    kernel = per_axis(kernel_size, rank, "kernel_size")
    steps = _steps(stride, kernel)
    pad = _half_kernel_at_most(per_axis(padding, rank, "padding"), kernel)
    op = AvgPool(kernel, steps, symmetric(pad), ceil_mode, count_include_pad, divisor_override)
    return _of_one(op, rank, input)


def lp_pool1d(
    input: Tensor,
    norm_type: float,
    kernel_size: Size,
    stride: Size | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """The p-th root of the sum of x ** p over windows of (N, C, L), for p = `norm_type`."""
    return lp_pool(1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(
    input: Tensor,
    norm_type: float,
    kernel_size: Size,
    stride: Size | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """The p-th root of the sum of x ** p over windows of (N, C, H, W), for p = `norm_type`."""
    return lp_pool(2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(
    input: Tensor,
    norm_type: float,
    kernel_size: Size,
    stride: Size | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """The p-th root of the sum of x ** p over windows of (N, C, D, H, W), for p = `norm_type`."""
    return lp_pool(3, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool(
    rank: int,
    input: Tensor,
    norm_type: float,
    kernel_size: Size,
    stride: Size | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """The p-th root of the sum of x ** p over windows of `rank` spatial axes."""
    count = math.prod(per_axis(kernel_size, rank, "kernel_size"))
    mean = avg_pool(rank, input.pow(norm_type), kernel_size, stride, 0, ceil_mode)
    return root(mean * count, norm_type)


def adaptive_avg_pool1d(input: Tensor, output_size: OptionalSize) -> Tensor:
    """Averages that bring (N, C, L) to `output_size`; None keeps an extent."""
    return _of_one(AdaptiveAvgPool(_sizes(output_size, 1)), 1, input)


def adaptive_avg_pool2d(input: Tensor, output_size: OptionalSize) -> Tensor:
    """Averages that bring (N, C, H, W) to `output_size`; None keeps an extent."""
    return _of_one(AdaptiveAvgPool(_sizes(output_size, 2)), 2, input)


def adaptive_avg_pool3d(input: Tensor, output_size: OptionalSize) -> Tensor:
    """Averages that bring (N, C, D, H, W) to `output_size`; None keeps an extent."""
    return _of_one(AdaptiveAvgPool(_sizes(output_size, 3)), 3, input)


def adaptive_max_pool1d(input: Tensor, output_size: OptionalSize) -> Tensor:
    """Maxima that bring (N, C, L) to `output_size`; None keeps an extent."""
    return _of_one(AdaptiveMaxPool(_sizes(output_size, 1)), 1, input)


def adaptive_max_pool2d(input: Tensor, output_size: OptionalSize) -> Tensor:
    """Maxima that bring (N, C, H, W) to `output_size`; None keeps an extent."""
    return _of_one(AdaptiveMaxPool(_sizes(output_size, 2)), 2, input)


def adaptive_max_pool3d(input: Tensor, output_size: OptionalSize) -> Tensor:
    """Maxima that bring (N, C, D, H, W) to `output_size`; None keeps an extent."""
    return _of_one(AdaptiveMaxPool(_sizes(output_size, 3)), 3, input)


def max_unpool1d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Elements of (N, C, L) put back to where max_pool1d found them, zero elsewhere."""
    return max_unpool(1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Elements of (N, C, H, W) put back to where max_pool2d found them, zero elsewhere."""
    return max_unpool(2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Elements of (N, C, D, H, W) put back to where max_pool3d found them, zero elsewhere."""
    return max_unpool(3, input, indices, kernel_size, stride, padding, output_size)


def max_unpool(
    rank: int,
    input: Tensor,
    indices: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Unpooling over `rank` spatial axes.

    Arguments:
        output_size: of the result, with or without (N, C); by default the smallest there can be.
    """
    kernel = per_axis(kernel_size, rank, "kernel_size")
    steps = _steps(stride, kernel)
    pad = per_axis(padding, rank, "padding")
    if output_size is None:
        extents = zip(input.shape[-rank:], kernel, steps, pad, strict=True)
        spatial = tuple((n - 1) * s - 2 * p + k for n, k, s, p in extents)
    else:
        spatial = tuple(int(n) for n in output_size)[-rank:]
    if input.rank == rank + 1:
        return emit(MaxUnpool(spatial), input.unsqueeze(0), indices.unsqueeze(0)).squeeze(0)
    return emit(MaxUnpool(spatial), input, indices)


def _of_one(op: Op, rank: int, input: Tensor) -> Tensor:
    result: Tensor = with_batch(input, rank, lambda x: emit(op, x))
    return result


def _sizes(output_size: OptionalSize, rank: int) -> tuple[int | None, ...]:
    if output_size is None or isinstance(output_size, int):
        return (output_size,) * rank
    return tuple(output_size)


def _steps(stride: Size | None, kernel: Shape) -> Shape:
    """The kernel's extents where there is no stride; PyTorch writes that as (), too."""
    if stride is None or (isinstance(stride, Sequence) and not stride):
        return kernel
    return per_axis(stride, len(kernel), "stride")


def _half_kernel_at_most(padding: tuple[int, ...], kernel: tuple[int, ...]) -> tuple[int, ...]:
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        raise ShapeError(f"padding {padding} is more than half of the kernel {kernel}")
    return padding


__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "max_unpool1d",
    "max_unpool2d",
    "max_unpool3d",
]
