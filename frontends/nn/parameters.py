"""Parameters as one vector, layers made one: the rest of `torch.nn.utils`."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any, NoReturn, TypeVar

import numpy as np

from ...compiler.errors import ShapeError, UsageError
from ...compiler.types import Array
from .context import current_trace
from .convolution import Conv, ConvTranspose
from .functional.shape import cat
from .linear import Linear
from .module import Module
from .normalization import BatchNorm
from .state import Parameter

M = TypeVar("M", bound=Module)


def parameters_to_vector(parameters: Iterable[Parameter]) -> Any:
    """All elements of parameters, one after the other: an array, in forward a tensor."""
    if current_trace() is None:
        return np.concatenate([p.data.reshape(-1) for p in parameters])
    return cat([p.reshape(-1) for p in parameters])


def vector_to_parameters(vec: Array, parameters: Iterable[Parameter]) -> None:
    """Gives parameters the elements of a vector as their contents.

    Raises:
        ShapeError: there are not as many; nothing has changed then.
    """
    listed, flat = list(parameters), np.asarray(vec).reshape(-1)
    count = sum(p.numel() for p in listed)
    if flat.size != count:
        raise ShapeError(f"the parameters have {count} elements, the vector has {flat.size}")
    ends = np.cumsum([p.numel() for p in listed])[:-1]
    for parameter, part in zip(listed, np.split(flat, ends), strict=True):
        parameter.copy_(part.reshape(parameter.shape))


def clip_grad_norm_(parameters: object, max_norm: float, *args: Any, **kwargs: Any) -> NoReturn:
    """
    Raises:
        UsageError: always; optimizers clip.
    """
    raise _of_the_step(f"clip_grad_norm={max_norm}")


def clip_grad_value_(parameters: object, clip_value: float, *args: Any, **kwargs: Any) -> NoReturn:
    """
    Raises:
        UsageError: always; optimizers clip.
    """
    raise _of_the_step(f"clip_grad_value={clip_value}")


def _of_the_step(option: str) -> UsageError:
    return UsageError(
        f"gradients are part of the step that is compiled: give the optimizer {option}, as in "
        f"optim.SGD(lr=0.1, {option})"
    )


def fuse_conv_bn_eval(conv: M, bn: BatchNorm, transpose: bool = False) -> M:
    """A convolution that gives what a batch norm in inference mode makes of another one's result.

    Compiled networks do without batch norms after convolutions anyway.

    Raises:
        UsageError: one of them is no such layer, or in training mode.
    """
    _check_eval(conv, bn, Conv | ConvTranspose)
    return _fused(conv, bn, 1 if transpose or isinstance(conv, ConvTranspose) else 0)


def fuse_linear_bn_eval(linear: M, bn: BatchNorm) -> M:
    """As `fuse_conv_bn_eval`, for a linear layer."""
    _check_eval(linear, bn, Linear)
    return _fused(linear, bn, 0)


def _check_eval(layer: Module, bn: Module, kind: Any) -> None:
    if not isinstance(layer, kind) or not isinstance(bn, BatchNorm) or bn.running_var is None:
        raise UsageError(f"{type(layer).__name__} and {type(bn).__name__} cannot be fused")
    if layer.training or bn.training:
        raise UsageError("layers are fused in inference mode; call .eval() on both first")


def _fused(layer: M, bn: BatchNorm, axis: int) -> M:
    mean, variance = np.asarray(bn.running_mean), np.asarray(bn.running_var)
    scale = (1 if bn.weight is None else bn.weight.data) / np.sqrt(variance + bn.eps)
    shift = 0 if bn.bias is None else bn.bias.data
    result = deepcopy(layer)
    old = 0 if result.bias is None else result.bias.data
    shape = [-1 if d == axis else 1 for d in range(result.weight.rank)]
    if axis and getattr(layer, "groups", 1) > 1:
        raise UsageError("transposed convolutions in groups cannot be fused")
    dtype = result.weight.data.dtype
    result.weight = Parameter((result.weight.data * scale.reshape(shape)).astype(dtype))
    result.bias = Parameter(((old - mean) * scale + shift).astype(dtype))
    return result
