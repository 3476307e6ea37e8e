"""Normalisation over the batch, over each sample, or over neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ....compiler.errors import ShapeError, UsageError
from ....compiler.ops import norm as ops
from ....compiler.ops.base import apply
from ....compiler.ops.reduce import Sum
from ....compiler.tensor import Tensor
from ....compiler.types import Shape
from ..context import emit, emit_all
from .arguments import with_batch


class Normalized(NamedTuple):
    """What batch normalisation gives in training."""

    output: Tensor
    running_mean: Tensor
    running_var: Tensor


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalises (N, C, *) by the statistics of the batch (`training`) or by running ones.

    Tensors are values, not places: nothing is written to the running statistics. What they are
    after a training step is what `batch_norm_training` gives.
    """
    if training:
        return batch_norm_training(
            input, running_mean, running_var, weight, bias, momentum, eps
        ).output
    if running_mean is None or running_var is None:
        raise UsageError("batch_norm needs running_mean and running_var, or training=True")
    affine = _affine(input, weight, bias)
    return emit(
        ops.BatchNormInference(eps, bool(affine)), input, running_mean, running_var, *affine
    )


def batch_norm_training(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Normalized:
    """Normalises (N, C, *) by its own statistics, and moves the running ones towards them."""
    affine = _affine(input, weight, bias)
    mean = _channels(input, 0.0) if running_mean is None else running_mean
    var = _channels(input, 1.0) if running_var is None else running_var
    op = ops.BatchNorm(momentum, eps, bool(affine))
    return Normalized(*emit_all(op, input, *affine, mean, var))


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalises each sample over its last axes, which have the extents `normalized_shape`."""
    shape = _normalized(input, normalized_shape)
    if weight is None and bias is not None:
        weight = input.graph.constant(1.0, input.dtype).broadcast_to(shape)
    return emit(ops.LayerNorm(len(shape), eps), input, *_present(weight, bias))


def rms_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """Divides each sample by its root mean square over its last axes."""
    shape = _normalized(input, normalized_shape)
    return emit(ops.RMSNorm(len(shape), eps), input, *_present(weight))


def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalises each sample of (N, C, *) over groups of channels."""
    return emit(ops.GroupNorm(num_groups, eps), input, *_affine(input, weight, bias))


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalises each channel of each sample of (N, C, *spatial), or by running statistics."""
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, eps=eps)
    return emit(ops.InstanceNorm(eps), input, *_affine(input, weight, bias))


def instance_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance of each channel of (N, C, *spatial), averaged over samples."""
    pixels = tuple(range(2, x.rank))
    count = x.type.size // (x.shape[0] * x.shape[1])
    centered = x - x.mean(pixels, keepdims=True)
    variance = apply(Sum(pixels), centered * centered) * (1.0 / (count - 1))
    return x.mean((0, *pixels)), variance.reshape(x.shape[:2]).mean(0)


def local_response_norm(
    input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """Divides by (k + alpha / size * the sum of squares over `size` channels) ** beta."""
    op = ops.LocalResponseNorm(size, float(alpha), float(beta), float(k))
    result: Tensor = emit(op, input)
    return result


def local_contrast_norm(
    input: Tensor, kernel_size: int = 9, sigma: float = 1.591, threshold: float = 1e-4
) -> Tensor:
    """Subtracts the mean of a Gaussian window of all channels, and divides by its deviation."""
    op = ops.LocalContrastNorm(kernel_size, float(sigma), float(threshold))
    result: Tensor = with_batch(
        input, input.rank if input.rank < 3 else input.rank - 2, lambda x: emit(op, x)
    )
    return result


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """Divides by the p-norm along `dim`, or by eps where that is larger."""
    if p == 2.0:
        norm = (input * input).sum(dim, keepdims=True).sqrt()
    elif p == 1.0:
        norm = input.abs().sum(dim, keepdims=True)
    else:
        norm = (input.abs() ** p).sum(dim, keepdims=True) ** (1.0 / p)
    return input / norm.maximum(eps)


def _present(*tensors: Tensor | None) -> tuple[Tensor, ...]:
    return tuple(t for t in tensors if t is not None)


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor, ...]:
    """Weight and bias of the channels: both or none."""
    if weight is None and bias is None:
        return ()
    return (
        _channels(x, 1.0) if weight is None else weight,
        _channels(x, 0.0) if bias is None else bias,
    )


def _channels(x: Tensor, value: float) -> Tensor:
    """The same number for each channel."""
    if x.rank < 2:
        raise ShapeError(f"normalisation of channels takes (N, C, *), got {x.type}")
    return x.graph.constant(value, x.dtype).broadcast_to(x.shape[1])


def _normalized(x: Tensor, normalized_shape: Sequence[int]) -> Shape:
    shape = tuple(int(n) for n in normalized_shape)
    if not shape or x.shape[-len(shape) :] != shape:
        raise ShapeError(f"normalized_shape {shape} is not what the shape of {x.type} ends with")
    return shape


__all__ = [
    "batch_norm",
    "batch_norm_training",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "local_contrast_norm",
    "local_response_norm",
    "normalize",
    "rms_norm",
]
