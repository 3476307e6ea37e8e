"""Normalisation of each sample by itself: of layers, groups, instances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ...errors import ShapeError
from ...types import Shape
from ..composite import Composite
from ..pointwise import Gradients, Signals, Tensors, require_float

if TYPE_CHECKING:
    from ...tensor import Tensor
from .moments import Moments


@dataclass(frozen=True)
class View:
    """How a normalisation looks at its input.

    Arguments:
        shape: x is reshaped to this.
        axes: the statistics go over these axes of it.
        given: weight and bias have this shape.
        parameter: they are reshaped to this, which broadcasts to `shape`.
    """

    shape: Shape
    axes: tuple[int, ...]
    given: Shape
    parameter: Shape


@dataclass(frozen=True)
class SampleNorm(Composite, abstract=True):
    """Base: y = (x - mean) / sqrt(var + eps) * weight + bias over axes of each sample.

    Inputs are x and, optionally, weight and then bias.
    """

    arity: ClassVar[tuple[int, int | None]] = (1, 3)
    subtract_mean: ClassVar[bool] = True

    def view(self, x: Tensor) -> View:
        """The axes of the statistics and the shape of the parameters."""
        raise NotImplementedError(f"{self.name} has no view")

    def added_to_variance(self, x: Tensor) -> float:
        """Eps for values of x's dtype."""
        raise NotImplementedError(f"{self.name} has no eps")

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        x, *parameters = inputs
        require_float(self, x, *parameters)
        view = self.view(x)
        for p in parameters:
            if p.shape != view.given:
                raise ShapeError(
                    f"{self.name} of {x.type} takes weight and bias of {view.given}, got {p.type}"
                )
        moments = self._moments(x, view)
        y = moments.centered * moments.inverse
        if parameters:
            y = y * parameters[0].reshape(view.parameter)
        if len(parameters) > 1:
            y = y + parameters[1].reshape(view.parameter)
        return (y.reshape(x.shape),)

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (x, *parameters), (signal,) = inputs, signals
        if signal is None:
            return [None] * len(inputs)
        view = self.view(x)
        moments = self._moments(x, view)
        signal = signal.reshape(view.shape)
        scaled = signal * parameters[0].reshape(view.parameter) if parameters else signal
        dx = moments.gradient(scaled, moments.inverse).reshape(x.shape)
        by_parameter = (signal * (moments.centered * moments.inverse), signal)
        return dx, *(
            whole.sum_to(view.parameter).reshape(p.shape)
            for p, whole in zip(parameters, by_parameter, strict=False)
        )

    def _moments(self, x: Tensor, view: View) -> Moments:
        eps = self.added_to_variance(x)
        return Moments.of(x.reshape(view.shape), view.axes, eps, self.subtract_mean)


@dataclass(frozen=True)
class LayerNorm(SampleNorm):
    """Over the last axes, whose extents weight and bias have (Ba et al., 2016; torch.nn.LayerNorm).

    Arguments:
        normalized_rank: how many axes, counted from the last.
        eps: added to the variance.
    """

    normalized_rank: int = 1
    eps: float = 1e-5

    def view(self, x: Tensor) -> View:
        return _last_axes(self.name, x, self.normalized_rank)

    def added_to_variance(self, x: Tensor) -> float:
        return self.eps


@dataclass(frozen=True)
class RMSNorm(SampleNorm):
    """x / sqrt(mean(x²) + eps) * weight over the last axes (Zhang and Sennrich, 2019).

    Arguments:
        normalized_rank: how many axes, counted from the last.
        eps: added to the mean square; None is the spacing of x's dtype at 1 (torch.nn.RMSNorm).
    """

    normalized_rank: int = 1
    eps: float | None = None
    arity: ClassVar[tuple[int, int | None]] = (1, 2)
    subtract_mean: ClassVar[bool] = False

    def view(self, x: Tensor) -> View:
        return _last_axes(self.name, x, self.normalized_rank)

    def added_to_variance(self, x: Tensor) -> float:
        return float(np.finfo(x.dtype.numpy).eps) if self.eps is None else self.eps


def _last_axes(name: str, x: Tensor, count: int) -> View:
    if not 1 <= count <= x.rank:
        raise ShapeError(f"{name} cannot normalise the last {count} axes of {x.type}")
    lead = x.rank - count
    given = x.shape[lead:]
    return View(x.shape, tuple(range(lead, x.rank)), given, (1,) * lead + given)


@dataclass(frozen=True)
class GroupNorm(SampleNorm):
    """Over groups of channels; x is (N, C, *), weight and bias (C,) (Wu and He, 2018).

    Arguments:
        groups: the channels are cut into this many groups.
        eps: added to the variance.
    """

    groups: int = 1
    eps: float = 1e-5

    def view(self, x: Tensor) -> View:
        if x.rank < 2 or self.groups < 1 or x.shape[1] % self.groups:
            raise ShapeError(f"{self.groups} groups do not divide the channels of {x.type}")
        inner = (self.groups, x.shape[1] // self.groups)
        pixels = x.shape[2:]
        return View(
            shape=(x.shape[0], *inner, *pixels),
            axes=tuple(range(2, x.rank + 1)),
            given=(x.shape[1],),
            parameter=(1, *inner) + (1,) * len(pixels),
        )

    def added_to_variance(self, x: Tensor) -> float:
        return self.eps


@dataclass(frozen=True)
class InstanceNorm(SampleNorm):
    """Over the pixels of each channel; x is (N, C, *), weight and bias (C,) (Ulyanov et al., 2016).

    Arguments:
        eps: added to the variance.
    """

    eps: float = 1e-5

    def view(self, x: Tensor) -> View:
        if x.rank < 3:
            raise ShapeError(f"InstanceNorm takes x of (N, C, *) with pixels, got {x.type}")
        channels = (x.shape[1],)
        axes = tuple(range(2, x.rank))
        return View(x.shape, axes, channels, (1, *channels) + (1,) * len(axes))

    def added_to_variance(self, x: Tensor) -> float:
        return self.eps
