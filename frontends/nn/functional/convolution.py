"""Linear maps: fully connected, convolutions and their transposes, matrix products."""

from __future__ import annotations

from collections.abc import Sequence

from ....compiler.errors import ShapeError
from ....compiler.ops.conv import Conv, ConvTranspose
from ....compiler.ops.einsum import Einsum
from ....compiler.ops.linear import Linear
from ....compiler.ops.linear import matmul as matmul
from ....compiler.ops.window import Pairs
from ....compiler.tensor import Tensor
from ....compiler.types import Shape
from ..context import emit
from .arguments import Size, per_axis, symmetric, with_batch


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The input (…, I) times weight (O, I) transposed, plus bias (O,): (…, O)."""
    return emit(Linear(), input, weight, *_given(bias))


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x1ᵀ W x2 + b for each output: (…, I), (…, J), weight (O, I, J), bias (O,) give (…, O)."""
    out, left, right = weight.shape
    rows1, rows2 = input1.reshape(-1, left), input2.reshape(-1, right)
    by_left = emit(Linear(), rows1, weight.permute(0, 2, 1).reshape(out * right, left))
    result = (by_left.reshape(-1, out, right) * rows2.unsqueeze(1)).sum(-1)
    if bias is not None:
        result = result + bias
    return result.reshape(input1.shape[:-1] + (out,))


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """Convolution of (N, C, L) or (C, L) with weight (K, C / groups, kernel)."""
    return conv(1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """Convolution of (N, C, H, W) or (C, H, W) with weight (K, C / groups, kernel, kernel)."""
    return conv(2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """Convolution of (N, C, D, H, W) or (C, D, H, W) with weight (K, C / groups, *kernel)."""
    return conv(3, input, weight, bias, stride, padding, dilation, groups)


def conv(
    rank: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """Convolution over `rank` spatial axes.

    Arguments:
        padding: zeros on both sides of each axis; "valid" for none, "same" for as many as keep the
            extents, the odd one at the end.
    """
    check_rank(weight, rank + 2, "weight")
    steps = per_axis(stride, rank, "stride")
    spread = per_axis(dilation, rank, "dilation")
    pairs = conv_padding(padding, weight.shape[2:], steps, spread)
    op = Conv(steps, pairs, spread, groups)
    result: Tensor = with_batch(input, rank, lambda x: emit(op, x, weight, *_given(bias)))
    return result


def conv_padding(padding: Size | str, kernel: Shape, stride: Shape, dilation: Shape) -> Pairs:
    """(low, high) of each axis from what PyTorch takes as padding."""
    if padding == "valid":
        return ((0, 0),) * len(kernel)
    if padding == "same":
        if any(s != 1 for s in stride):
            raise ShapeError(f"padding 'same' needs a stride of 1, got {stride}")
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    if isinstance(padding, str):
        raise ShapeError(f"padding is a number, 'same' or 'valid', not {padding!r}")
    return symmetric(per_axis(padding, len(kernel), "padding"))


def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Tensor:
    """Transposed convolution of (N, C, L) or (C, L) with weight (C, K / groups, kernel)."""
    return conv_transpose(1, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Tensor:
    """Transposed convolution of (N, C, H, W) with weight (C, K / groups, kernel, kernel)."""
    return conv_transpose(2, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Tensor:
    """Transposed convolution of (N, C, D, H, W) with weight (C, K / groups, *kernel)."""
    return conv_transpose(3, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose(
    rank: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Tensor:
    """Transposed convolution over `rank` spatial axes."""
    check_rank(weight, rank + 2, "weight")
    op = ConvTranspose(
        per_axis(stride, rank, "stride"),
        symmetric(per_axis(padding, rank, "padding")),
        per_axis(output_padding, rank, "output_padding"),
        per_axis(dilation, rank, "dilation"),
        groups,
    )
    result: Tensor = with_batch(input, rank, lambda x: emit(op, x, weight, *_given(bias)))
    return result


def check_rank(x: Tensor, rank: int, what: str) -> None:
    """
    Raises:
        ShapeError: when x has another rank.
    """
    if x.rank != rank:
        raise ShapeError(f"the {what} has rank {rank} here, got {x.type}")


def _given(bias: Tensor | None) -> Sequence[Tensor]:
    return () if bias is None else (bias,)


def einsum(equation: str, *operands: Tensor) -> Tensor:
    """Products and sums by the names of axes: "bij,bjk->bik" multiplies two batches of matrices."""
    return emit(Einsum(equation), *operands)


def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """Product of two batches of matrices: (B, M, K) @ (B, K, N)."""
    check_rank(input, 3, "first factor")
    check_rank(mat2, 3, "second factor")
    return matmul(input, mat2)


__all__ = [
    "bilinear",
    "bmm",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "einsum",
    "linear",
    "matmul",
]
