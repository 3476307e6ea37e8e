"""Mean and variance over some axes, and the gradient through both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...types import Shape

if TYPE_CHECKING:
    from ...tensor import Tensor


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
        if not _FEWEST <= x.shape[0] <= _MOST or extent_of(x, axes) < _MANY:
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


def extent_of(x: Tensor, axes: tuple[int, ...]) -> int:
    """Elements along these axes."""
    return math.prod(x.shape[d] for d in axes)


def affine_gradient(signal: Tensor, moments: Moments, shape: Shape) -> list[Tensor | None]:
    """The gradients by weight and bias when both are constant over the axes of the statistics."""
    along = (signal * moments.centered).sum(moments.axes, keepdims=True)
    total = signal.sum(moments.axes, keepdims=True)
    return [(along * moments.inverse).reshape(shape), total.reshape(shape)]
