"""Convolutions, products, norms, activations with parameters, pools, dropout, attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ....compiler.ops.base import apply
from ....compiler.ops.einsum import Einsum
from ....compiler.ops.linear import matmul
from ....compiler.tensor import Tensor
from ...nn.functional import (
    activation,
    attention,
    convolution,
    dropout,
    embedding,
    normalization,
    pooling,
    sampling,
    shape,
)
from ..table import OPERATORS, dtype_of, operator, refuse_unless

_SAME: dict[str, Callable[..., Any]] = {
    "linear.default": convolution.linear,
    "matmul.default": matmul,
    "mm.default": matmul,
    "bmm.default": matmul,
    "celu.default": activation.elu,
    "channel_shuffle.default": shape.channel_shuffle,
    "elu.default": activation.elu,
    "hardsigmoid.default": activation.hardsigmoid,
    "hardswish.default": activation.hardswish,
    "hardtanh.default": activation.hardtanh,
    "leaky_relu.default": activation.leaky_relu,
    "log_sigmoid.default": activation.logsigmoid,
    "mish.default": activation.mish,
    "pixel_shuffle.default": shape.pixel_shuffle,
    "pixel_unshuffle.default": shape.pixel_unshuffle,
    "prelu.default": activation.prelu,
    "relu.default": activation.relu,
    "relu6.default": activation.relu6,
    "selu.default": activation.selu,
    "silu.default": activation.silu,
    "softplus.default": activation.softplus,
    "max_pool1d.default": pooling.max_pool1d,
    "max_pool2d.default": pooling.max_pool2d,
    "max_pool3d.default": pooling.max_pool3d,
    "avg_pool1d.default": pooling.avg_pool1d,
    "avg_pool2d.default": pooling.avg_pool2d,
    "avg_pool3d.default": pooling.avg_pool3d,
    "adaptive_avg_pool1d.default": pooling.adaptive_avg_pool1d,
    "adaptive_avg_pool2d.default": pooling.adaptive_avg_pool2d,
    "adaptive_avg_pool3d.default": pooling.adaptive_avg_pool3d,
    "_adaptive_avg_pool2d.default": pooling.adaptive_avg_pool2d,
    "_adaptive_avg_pool3d.default": pooling.adaptive_avg_pool3d,
}
OPERATORS.update({f"aten.{name}": function for name, function in _SAME.items()})

Sizes = Sequence[int]


# -- convolutions and products --------------------------------------------------------------------


@operator("conv1d.default", "conv2d.default", "conv3d.default")
@operator("conv1d.padding", "conv2d.padding", "conv3d.padding")
def _conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = (1,),
    padding: Sizes | str = (0,),
    dilation: Sizes = (1,),
    groups: int = 1,
) -> Tensor:
    rank = weight.rank - 2
    return convolution.conv(
        rank, input, weight, bias, _each(stride, rank), _each(padding, rank),
        _each(dilation, rank), groups,
    )  # fmt: skip


@operator("conv_transpose1d.default", "conv_transpose2d.input", "conv_transpose3d.input")
def _conv_transpose(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = (1,),
    padding: Sizes = (0,),
    output_padding: Sizes = (0,),
    groups: int = 1,
    dilation: Sizes = (1,),
) -> Tensor:
    rank = weight.rank - 2
    return convolution.conv_transpose(
        rank, input, weight, bias, _each(stride, rank), _each(padding, rank),
        _each(output_padding, rank), groups, _each(dilation, rank),
    )  # fmt: skip


def _each(value: Any, rank: int) -> Any:
    """One number stands for all axes; a text for itself."""
    return value if isinstance(value, str) else tuple(value) * (rank if len(value) == 1 else 1)


@operator("addmm.default", "baddbmm.default")
def _addmm(bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    product = matmul(a, b)
    return bias * beta + product * alpha if (beta, alpha) != (1, 1) else bias + product


@operator("_trilinear.default")
def _bilinear(
    a: Tensor,
    weight: Tensor,
    b: Tensor,
    expand1: Sizes,
    expand2: Sizes,
    expand3: Sizes,
    sumdim: Sizes,
    unroll_dim: int = 1,
) -> Tensor:
    known = [*map(list, (expand1, expand2, expand3, sumdim))] == [[1, 3], [0], [1, 2], [2, 3]]
    refuse_unless(known, "a product of three tensors that is not nn.Bilinear's")
    return convolution.bilinear(a, b, weight)


@operator("einsum.default")
def _einsum(equation: str, operands: Sequence[Tensor], path: Any = None) -> Tensor:
    return apply(Einsum(equation), *operands)


@operator("scaled_dot_product_attention.default")
def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    refuse_unless(not enable_gqa, "attention of grouped queries")
    return attention.scaled_dot_product_attention(
        query, key, value, attn_mask, dropout_p, is_causal, scale
    )


@operator("_embedding_bag.default", "_embedding_bag_forward_only.default")
def _embedding_bag(
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int = -1,
) -> tuple[Any, ...]:
    refuse_unless(not include_last_offset, "embedding_bag with include_last_offset")
    refuse_unless(padding_idx == -1, "embedding_bag with padding_idx")
    joined = ("sum", "mean", "max")[mode]
    bags = embedding.embedding_bag(
        indices, weight, offsets, mode=joined, per_sample_weights=per_sample_weights
    )
    return bags, None, None, None


# -- norms ----------------------------------------------------------------------------------------


@operator("_native_batch_norm_legit_no_training.default")
def _batch_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    var: Tensor,
    momentum: float,
    eps: float,
) -> tuple[Any, ...]:
    return normalization.batch_norm(input, mean, var, weight, bias, eps=eps), None, None


@operator("_native_batch_norm_legit_functional.default")
def _batch_norm_training(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    var: Tensor,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Any, ...]:
    if not training:
        output = normalization.batch_norm(input, mean, var, weight, bias, eps=eps)
        return output, None, None, mean, var
    result = normalization.batch_norm_training(input, mean, var, weight, bias, momentum, eps)
    return result.output, None, None, result.running_mean, result.running_var


@operator("_native_batch_norm_legit.no_stats")
def _batch_norm_alone(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Any, ...]:
    output = normalization.batch_norm(input, None, None, weight, bias, training=True, eps=eps)
    return output, None, None


@operator("layer_norm.default")
def _layer_norm(
    input: Tensor,
    normalized_shape: Sizes,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    return normalization.layer_norm(input, tuple(normalized_shape), weight, bias, eps)


@operator("rms_norm.default")
def _rms_norm(
    input: Tensor, normalized_shape: Sizes, weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    return normalization.rms_norm(input, tuple(normalized_shape), weight, eps)


@operator("group_norm.default")
def _group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    return normalization.group_norm(input, num_groups, weight, bias, eps)


# -- activations ----------------------------------------------------------------------------------


@operator("gelu.default")
def _gelu(input: Tensor, *, approximate: str = "none") -> Tensor:
    return activation.gelu(input, approximate)


@operator("glu.default")
def _glu(input: Tensor, dim: int = -1) -> Tensor:
    value, gate = shape.chunk(input, 2, dim)
    return value * gate.sigmoid()


@operator("softmax.int", "_safe_softmax.default")
def _softmax(input: Tensor, dim: int, dtype: Any = None) -> Tensor:
    return activation.softmax(input if dtype is None else input.cast(dtype_of(dtype)), dim)


@operator("_softmax.default")
def _core_softmax(input: Tensor, dim: int, half_to_float: bool) -> Tensor:
    return activation.softmax(input, dim)


@operator("log_softmax.int")
def _log_softmax(input: Tensor, dim: int, dtype: Any = None) -> Tensor:
    return activation.log_softmax(input if dtype is None else input.cast(dtype_of(dtype)), dim)


@operator("_log_softmax.default")
def _core_log_softmax(input: Tensor, dim: int, half_to_float: bool) -> Tensor:
    return activation.log_softmax(input, dim)


@operator("native_dropout.default")
def _dropout(input: Tensor, p: float, train: bool | None) -> tuple[Tensor, None]:
    return dropout.dropout(input, p, bool(train)), None


# -- pools and resizing ---------------------------------------------------------------------------


@operator("max_pool2d_with_indices.default", "max_pool3d_with_indices.default")
def _max_pool_with_indices(
    input: Tensor,
    kernel_size: Sizes,
    stride: Sizes = (),
    padding: Sizes = (0,),
    dilation: Sizes = (1,),
    ceil_mode: bool = False,
) -> Any:
    rank = input.rank - 2
    return pooling.max_pool(
        rank, input, _each(kernel_size, rank), _each(stride or kernel_size, rank),
        _each(padding, rank), _each(dilation, rank), ceil_mode, True,
    )  # fmt: skip


@operator("adaptive_max_pool1d.default", "adaptive_max_pool2d.default")
@operator("adaptive_max_pool3d.default")
def _adaptive_max_pool(input: Tensor, output_size: Sizes) -> tuple[Tensor, None]:
    pools = (pooling.adaptive_max_pool1d, pooling.adaptive_max_pool2d, pooling.adaptive_max_pool3d)
    return pools[len(output_size) - 1](input, tuple(output_size)), None


@operator("upsample_nearest1d.vec", "upsample_nearest2d.vec", "upsample_nearest3d.vec")
def _nearest(input: Tensor, size: Sizes | None, scale: Sequence[float] | None) -> Tensor:
    return shape.interpolate(input, size and tuple(size), scale and tuple(scale), "nearest")


@operator("upsample_linear1d.vec", "upsample_bilinear2d.vec", "upsample_trilinear3d.vec")
def _linear(
    input: Tensor, size: Sizes | None, align_corners: bool, scale: Sequence[float] | None
) -> Tensor:
    mode = {3: "linear", 4: "bilinear", 5: "trilinear"}[input.rank]
    extents, factors = size and tuple(size), scale and tuple(scale)
    return shape.interpolate(input, extents, factors, mode, align_corners)


@operator("upsample_bicubic2d.vec")
def _cubic(
    input: Tensor, size: Sizes | None, align_corners: bool, scale: Sequence[float] | None
) -> Tensor:
    return shape.interpolate(
        input, size and tuple(size), scale and tuple(scale), "bicubic", align_corners
    )


@operator("_upsample_nearest_exact1d.vec", "_upsample_nearest_exact2d.vec")
@operator("_upsample_nearest_exact3d.vec")
def _nearest_exact(input: Tensor, size: Sizes | None, scale: Sequence[float] | None) -> Tensor:
    return shape.interpolate(input, size and tuple(size), scale and tuple(scale), "nearest-exact")


def _antialiased(mode: str) -> Callable[..., Tensor]:
    def resized(input: Tensor, size: Any, align_corners: bool, scale: Any) -> Tensor:
        extents, factors = size and tuple(size), scale and tuple(scale)
        return shape.interpolate(input, extents, factors, mode, align_corners, antialias=True)

    return resized


OPERATORS["aten._upsample_bilinear2d_aa.vec"] = _antialiased("bilinear")
OPERATORS["aten._upsample_bicubic2d_aa.vec"] = _antialiased("bicubic")


@operator("grid_sampler_2d.default", "grid_sampler_3d.default")
def _grid_sample(
    input: Tensor, grid: Tensor, mode: int, padding_mode: int, align_corners: bool
) -> Tensor:
    modes, borders = ("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection")
    return sampling.grid_sample(input, grid, modes[mode], borders[padding_mode], align_corners)


@operator("col2im.default")
def _fold(
    input: Tensor, output_size: Sizes, kernel: Sizes, dilation: Sizes, padding: Sizes, stride: Sizes
) -> Tensor:
    return sampling.fold(input, output_size, kernel, dilation, padding, stride)
