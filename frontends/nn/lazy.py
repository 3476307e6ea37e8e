"""Layers that take the number of their inputs from the first tensor they are given."""

from __future__ import annotations

from inspect import signature
from typing import Any, ClassVar

from ...compiler.errors import ShapeError
from ...compiler.tensor import Tensor
from . import convolution, linear, normalization
from .context import require_trace
from .module import Layer


class Lazy(Layer):
    """Base of the lazy layers. Arguments are those of the layer without its first one.

    The first call makes it the layer itself: its class, with new parameters. Before, there are
    none, so a state dict is loaded after a first call.
    """

    _layer: ClassVar[Any]
    _axis: ClassVar[int]
    _given: tuple[tuple[Any, ...], dict[str, Any]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        signature(self._layer).bind(1, *args, **kwargs)
        self._given = args, kwargs

    def forward(self, input: Tensor) -> Tensor:
        """
        Raises:
            ShapeError: the input has no axis of channels or features.
        """
        layer, axis, training = self._layer, self._axis, self.training
        if not -input.rank <= axis < input.rank:
            raise ShapeError(f"{input.type} has no axis {axis}, which {layer.__name__} counts")
        args, kwargs = self._given
        del self._given
        object.__setattr__(self, "__class__", layer)
        layer.__init__(self, input.shape[axis], *args, **kwargs)
        self.train(training)
        require_trace(self._get_name()).name_states(self)
        result: Tensor = self.forward(input)
        return result

    def extra_repr(self) -> str:
        args, kwargs = self._given
        return ", ".join([*map(repr, args), *(f"{k}={v!r}" for k, v in kwargs.items())])


class LazyLinear(Lazy):
    """Linear with as many features in as the last axis has."""

    _layer, _axis = linear.Linear, -1


class LazyConv1d(Lazy):
    """Conv1d with the channels of its input (N, C, L) or (C, L)."""

    _layer, _axis = convolution.Conv1d, -2


class LazyConv2d(Lazy):
    """Conv2d with the channels of its input (N, C, H, W) or (C, H, W)."""

    _layer, _axis = convolution.Conv2d, -3


class LazyConv3d(Lazy):
    """Conv3d with the channels of its input (N, C, D, H, W) or (C, D, H, W)."""

    _layer, _axis = convolution.Conv3d, -4


class LazyConvTranspose1d(Lazy):
    """ConvTranspose1d with the channels of its input (N, C, L) or (C, L)."""

    _layer, _axis = convolution.ConvTranspose1d, -2


class LazyConvTranspose2d(Lazy):
    """ConvTranspose2d with the channels of its input (N, C, H, W) or (C, H, W)."""

    _layer, _axis = convolution.ConvTranspose2d, -3


class LazyConvTranspose3d(Lazy):
    """ConvTranspose3d with the channels of its input (N, C, D, H, W) or (C, D, H, W)."""

    _layer, _axis = convolution.ConvTranspose3d, -4


class LazyBatchNorm1d(Lazy):
    """BatchNorm1d with the channels of its input (N, C) or (N, C, L)."""

    _layer, _axis = normalization.BatchNorm1d, 1


class LazyBatchNorm2d(Lazy):
    """BatchNorm2d with the channels of its input (N, C, H, W)."""

    _layer, _axis = normalization.BatchNorm2d, 1


class LazyBatchNorm3d(Lazy):
    """BatchNorm3d with the channels of its input (N, C, D, H, W)."""

    _layer, _axis = normalization.BatchNorm3d, 1


class LazyInstanceNorm1d(Lazy):
    """InstanceNorm1d with the channels of its input (N, C, L) or (C, L)."""

    _layer, _axis = normalization.InstanceNorm1d, -2


class LazyInstanceNorm2d(Lazy):
    """InstanceNorm2d with the channels of its input (N, C, H, W) or (C, H, W)."""

    _layer, _axis = normalization.InstanceNorm2d, -3


class LazyInstanceNorm3d(Lazy):
    """InstanceNorm3d with the channels of its input (N, C, D, H, W) or (C, D, H, W)."""

    _layer, _axis = normalization.InstanceNorm3d, -4
