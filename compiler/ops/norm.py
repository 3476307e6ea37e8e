"""Normalisation. Names, arguments and meaning are PyTorch's.

Statistics keep their axes. The variance is the mean of squared deviations, in two passes; over a
batch of many values it takes one.
Gradients build the statistics anew by the same helpers, hence by the same nodes:
common-subexpression elimination lets them share what the forward pass has computed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..errors import ShapeError
from ..types import Array, Shape
from .base import apply
from .composite import Composite
from .conv import Conv
from .movement import Pad
from .pointwise import Gradients, Signals, Tensors, require_float

if TYPE_CHECKING:
    from ..tensor import Tensor


# Samples among which one is little, and of whose squares enough digits are left; and how many
# values are worth a kernel of its own for the first sample.
_FEWEST, _MOST = 4, 256
_MANY = 4096


@dataclass(frozen=True)
class Moments:
    """Statistics of a value over some axes, which stay with extent 1.

    Arguments:
        axes: the axes.
        mean: their mean, None where it is not subtracted.
        centered: the value minus its mean.
        variance: mean of the squares of `centered`.
        inverse: 1 / sqrt(variance + eps).
    """

    axes: tuple[int, ...]
    mean: Tensor | None
    centered: Tensor
    variance: Tensor
    inverse: Tensor

    @staticmethod
    def of(x: Tensor, axes: tuple[int, ...], eps: float, subtract_mean: bool = True) -> Moments:
        """The statistics of `x`; without its mean subtracted, the variance is the mean square."""
        mean = x.mean(axes, keepdims=True) if subtract_mean else None
        centered = x if mean is None else x - mean
        variance = (centered * centered).mean(axes, keepdims=True)
        return Moments(axes, mean, centered, variance, 1.0 / (variance + eps).sqrt())

    @staticmethod
    def over_samples(x: Tensor, axes: tuple[int, ...], eps: float) -> Moments:
        """The statistics of `x` (N, …) over axes of which the first is one, in one pass.

        With shifted values s = x - shift, the variance is mean(s²) - mean(s)² (T. Chan, G. Golub
        and R. LeVeque, Algorithms for Computing the Sample Variance, 1983, section 3). The shift is
        the mean of the first sample: its distance from the mean is at most sqrt(N) times the
        standard deviation, so that no more than a factor of N of the precision is lost, whatever
        the values are.
        """
        if not _FEWEST <= x.shape[0] <= _MOST or _count(x, axes) < _MANY:
            return Moments.of(x, axes, eps)
        shift = x[:1].mean(axes, keepdims=True)
        shifted = x - shift
        offset = shifted.mean(axes, keepdims=True)
        variance = (shifted * shifted).mean(axes, keepdims=True) - offset * offset
        mean = shift + offset
        return Moments(axes, mean, x - mean, variance, 1.0 / (variance + eps).sqrt())

    def gradient(self, signal: Tensor, scale: Tensor) -> Tensor:
        """The gradient by x of `centered * inverse`.

        Arguments:
            signal: d loss / d (centered * inverse), but for a factor constant over the axes.
            scale: `inverse` times that factor.
        """
        along = (signal * self.centered).mean(self.axes, keepdims=True)
        removed = self.centered * (along * self.inverse * self.inverse)
        if self.mean is not None:
            removed = removed + signal.mean(self.axes, keepdims=True)
        return scale * (signal - removed)


# -- over the batch -------------------------------------------------------------------------------


@dataclass(frozen=True)
class BatchNorm(Composite):
    """Batch normalisation in training (Ioffe and Szegedy, 2015; torch.nn.BatchNorm).

    Inputs are x (N, C, *), weight (C,) and bias (C,) where `affine`, running_mean (C,) and
    running_var (C,); outputs are y = (x - mean) / sqrt(var + eps) * weight + bias with the biased
    variance of each channel, and the next running_mean and running_var, the latter of the unbiased
    variance.

    Arguments:
        momentum: share of this batch in the next running statistics.
        eps: added to the variance.
        affine: whether weight and bias are given.
    """

    momentum: float = 0.1
    eps: float = 1e-5
    affine: bool = True
    arity: ClassVar[tuple[int, int | None]] = (3, 5)

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        x, *parameters = inputs
        _check_channels(self, x, parameters, expected=4 if self.affine else 2)
        moments, scale = self._normalizer(x, parameters)
        y = moments.centered * scale
        if self.affine:
            y = y + _per_channel(parameters[1], x)
        assert moments.mean is not None
        count = _count(x, moments.axes)
        new = moments.mean, moments.variance * (count / (count - 1))
        return y, *(
            old * (1.0 - self.momentum) + value.reshape(old.shape) * self.momentum
            for old, value in zip(parameters[-2:], new, strict=True)
        )

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        x, *parameters = inputs
        moments, scale = self._normalizer(x, parameters)
        signal, *running = signals
        dx: Tensor | None = None
        affine: list[Tensor | None] = [None] * (len(parameters) - 2)
        if signal is not None:
            dx = moments.gradient(signal, scale)
            if self.affine:
                affine = _affine_gradient(signal, moments, parameters[0].shape)
        for part in self._through_statistics(moments, running):
            dx = part if dx is None else dx + part
        kept = [s * (1.0 - self.momentum) if s is not None else None for s in running]
        return dx, *affine, *kept

    def _normalizer(self, x: Tensor, parameters: list[Tensor]) -> tuple[Moments, Tensor]:
        moments = Moments.over_samples(x, _all_but_channels(x), self.eps)
        if not self.affine:
            return moments, moments.inverse
        return moments, _per_channel(parameters[0], x) * moments.inverse

    def _through_statistics(self, moments: Moments, signals: list[Tensor | None]) -> list[Tensor]:
        """What reaches x by the running statistics; nothing in a network that only keeps them."""
        x = moments.centered
        count = _count(x, moments.axes)
        to_mean, to_variance = signals
        parts = []
        if to_mean is not None:
            part = _per_channel(to_mean, x) * (self.momentum / count)
            parts.append(part.broadcast_to(x.shape))
        if to_variance is not None:
            parts.append(x * (_per_channel(to_variance, x) * (2.0 * self.momentum / (count - 1))))
        return parts


@dataclass(frozen=True)
class BatchNormInference(Composite):
    """Batch normalisation by known statistics (ONNX: BatchNormalization).

    Inputs are x (N, C, *), mean (C,), var (C,) and, where `affine`, weight (C,) and bias (C,); the
    output is (x - mean) / sqrt(var + eps) * weight + bias.

    Arguments:
        eps: added to the variance.
        affine: whether weight and bias are given.
    """

    eps: float = 1e-5
    affine: bool = True
    arity: ClassVar[tuple[int, int | None]] = (3, 5)

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        x, *parameters = inputs
        _check_channels(self, x, parameters, expected=4 if self.affine else 2)
        mean, variance, *affine = (_per_channel(p, x) for p in parameters)
        scale = 1.0 / (variance + self.eps).sqrt()
        if not affine:
            return ((x - mean) * scale,)
        weight, bias = affine
        return ((x - mean) * (weight * scale) + bias,)


def _check_channels(op: Composite, x: Tensor, parameters: list[Tensor], expected: int) -> None:
    require_float(op, x, *parameters)
    if x.rank < 2:
        raise ShapeError(f"{op.name} takes x of (N, C, *), got {x.type}")
    if len(parameters) != expected:
        raise ShapeError(f"{op} takes x and {expected} values a channel, got {len(parameters)}")
    for p in parameters:
        if p.shape != (x.shape[1],):
            raise ShapeError(f"{op.name} of {x.type} takes values of {(x.shape[1],)}, got {p.type}")
    if isinstance(op, BatchNorm) and _count(x, _all_but_channels(x)) < 2:
        raise ShapeError(
            f"BatchNorm in training takes at least 2 values a channel, {x.type} has "
            f"{_count(x, _all_but_channels(x))}; use a larger batch or inference statistics"
        )


def _all_but_channels(x: Tensor) -> tuple[int, ...]:
    return (0, *range(2, x.rank))


def _count(x: Tensor, axes: tuple[int, ...]) -> int:
    return math.prod(x.shape[d] for d in axes)


def _per_channel(parameter: Tensor, x: Tensor) -> Tensor:
    """(C,) as (1, C, 1, …) in the rank of x."""
    return parameter.reshape((1, *parameter.shape) + (1,) * (x.rank - 2))


def _affine_gradient(signal: Tensor, moments: Moments, shape: Shape) -> list[Tensor | None]:
    """The gradients by weight and bias when both are constant over the axes of the statistics."""
    along = (signal * moments.centered).sum(moments.axes, keepdims=True)
    total = signal.sum(moments.axes, keepdims=True)
    return [(along * moments.inverse).reshape(shape), total.reshape(shape)]


# -- over each sample -----------------------------------------------------------------------------


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


# -- over neighbours ------------------------------------------------------------------------------


@dataclass(frozen=True)
class LocalResponseNorm(Composite):
    """x / (k + alpha / size * sum of squares over `size` neighbouring channels) ** beta.

    x is (N, C, *). Krizhevsky et al., ImageNet classification with deep convolutional neural
    networks, 2012, section 3.3, with alpha divided by size as in PyTorch and ONNX (LRN).

    Arguments:
        size: channels of the window, size // 2 of them before the channel itself.
        alpha, beta, k: as in the formula.
    """

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        (x,) = inputs
        require_float(self, x)
        if x.rank < 2 or self.size < 1:
            raise ShapeError(f"{self} takes x of (N, C, *) and a size from 1, got {x.type}")
        return (x * self._divisor(x) ** -self.beta,)

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (signal,), (x,) = signals, inputs
        if signal is None:
            return (None,)
        divisor = self._divisor(x)
        users = signal * outputs[0] / divisor
        shared = _sum_of_neighbours(users, (self.size - 1) // 2, self.size // 2)
        direct = signal * divisor**-self.beta
        return (direct - (2.0 * self.alpha * self.beta / self.size) * (x * shared),)

    def _divisor(self, x: Tensor) -> Tensor:
        total = _sum_of_neighbours(x * x, self.size // 2, (self.size - 1) // 2)
        return total * (self.alpha / self.size) + self.k


def _sum_of_neighbours(x: Tensor, before: int, after: int) -> Tensor:
    """The sum over the channels from `before` ahead of each one to `after` behind it."""
    padding = tuple((before, after) if d == 1 else (0, 0) for d in range(x.rank))
    padded = apply(Pad(padding), x)
    total = padded.slice_axis(1, 0, x.shape[1])
    for start in range(1, before + after + 1):
        total = total + padded.slice_axis(1, start, x.shape[1])
    return total


@dataclass(frozen=True)
class LocalContrastNorm(Composite):
    """Contrast normalisation by a Gaussian window over pixels and all channels; x is (N, C, *).

    Jarrett et al., What is the best multi-stage architecture for object recognition?, 2009, section
    2.1: v = x - mean(x) and y = v / max(mean(s), s) with s = sqrt(mean(v²)). The means of x and v²
    weigh a window, that of s goes over the pixels of a sample. At borders, the weights that lie
    inside are scaled to the sum 1; s is at least `threshold`, so that a constant image gives zeros.

    Arguments:
        kernel_size: extent of the window along each spatial axis, odd.
        sigma: standard deviation of the window in pixels.
        threshold: least standard deviation that is divided by.
    """

    kernel_size: int = 9
    sigma: float = 1.591
    threshold: float = 1e-4

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        (x,) = inputs
        require_float(self, x)
        if not 3 <= x.rank <= 5 or self.kernel_size % 2 != 1 or self.sigma <= 0:
            raise ShapeError(
                f"{self} takes x of (N, C, *) with 1 to 3 spatial axes, an odd kernel_size and a "
                f"positive sigma, got {x.type}"
            )
        v = x - self._window_mean(x)
        deviation = self._window_mean(v * v).maximum(self.threshold**2).sqrt()
        usual = deviation.mean(tuple(range(1, x.rank)), keepdims=True)
        return (v / deviation.maximum(usual),)

    def _window_mean(self, x: Tensor) -> Tensor:
        """Weighted mean over the window, (N, 1, *)."""
        spatial = x.rank - 2
        line = _gaussian(self.kernel_size, self.sigma)
        weights = _outer([line] * spatial) / x.shape[1]
        # Along each axis, how much of the window lies inside.
        inside = [np.convolve(np.ones(n), line, mode="full") for n in x.shape[2:]]
        half = self.kernel_size // 2
        coverage = _outer([c[half : half + n] for c, n in zip(inside, x.shape[2:], strict=True)])
        kernel = np.broadcast_to(weights, (1, x.shape[1], *weights.shape))
        conv = Conv((1,) * spatial, ((half, half),) * spatial, (1,) * spatial)
        total = apply(conv, x, x.graph.constant(kernel, x.dtype, "window"))
        return total * x.graph.constant((1.0 / coverage)[None, None], x.dtype, "coverage")


def _gaussian(size: int, sigma: float) -> Array:
    """A Gaussian of `size` places around the middle one, of sum 1."""
    places = np.arange(size) - size // 2
    values = np.exp(-0.5 * (places / sigma) ** 2)
    return np.asarray(values / values.sum())


def _outer(lines: list[Array]) -> Array:
    """The product of one line an axis."""
    result = np.ones(())
    for line in lines:
        result = np.multiply.outer(result, line)
    return result
