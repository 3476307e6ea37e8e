"""Normalisation by what lies around an element."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...errors import ShapeError
from ...types import Array
from ..base import apply
from ..composite import Composite
from ..conv import Conv
from ..movement import Pad
from ..pointwise import Gradients, Signals, Tensors, require_float

if TYPE_CHECKING:
    from ...tensor import Tensor


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
