"""Distances between a prediction and a target of the same shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import ShapeError
from ..activation import HardTanh
from ..base import apply

if TYPE_CHECKING:
    from ...tensor import Tensor
from .base import Loss


@dataclass(frozen=True)
class MeanSquaredError(Loss):
    """(x - target)²"""

    def formula(self, x: Tensor, target: Tensor) -> Tensor:
        d = x - target
        return d * d


@dataclass(frozen=True)
class HalfSquaredError(Loss):
    """Half the squared Euclidean distance: 0.5 * sum((x - target)²) over all axes but the first.

    The mean goes over the samples.
    """

    def formula(self, x: Tensor, target: Tensor) -> Tensor:
        d = x - target
        return (d * d).sum(tuple(range(1, x.rank))) * 0.5


@dataclass(frozen=True)
class L1(Loss):
    """|x - target|"""

    def formula(self, x: Tensor, target: Tensor) -> Tensor:
        return (x - target).abs()


@dataclass(frozen=True)
class Huber(Loss):
    """d² / 2 where |d| < delta, else delta * (|d| - delta / 2), with d = x - target (Huber, 1964).

    Arguments:
        delta: positive.
    """

    delta: float = 1.0

    def formula(self, x: Tensor, target: Tensor) -> Tensor:
        if not self.delta > 0.0:
            raise ShapeError(f"the delta of Huber is positive, got {self.delta}")
        return _capped_square(x - target, self.delta)


@dataclass(frozen=True)
class SmoothL1(Loss):
    """d² / (2 * beta) where |d| < beta, else |d| - beta / 2 (Girshick, Fast R-CNN, 2015).

    Arguments:
        beta: not negative; with 0 it is L1.
    """

    beta: float = 1.0

    def formula(self, x: Tensor, target: Tensor) -> Tensor:
        if self.beta < 0.0:
            raise ShapeError(f"the beta of SmoothL1 is not negative, got {self.beta}")
        d = x - target
        return _capped_square(d, self.beta) * (1.0 / self.beta) if self.beta else d.abs()


def _capped_square(d: Tensor, limit: float) -> Tensor:
    """d² / 2 continued by its tangents beyond the limit; the derivative is the clipped d."""
    clipped = apply(HardTanh(-limit, limit), d)
    return clipped * (d - 0.5 * clipped)


@dataclass(frozen=True)
class HingeLoss(Loss):
    """max(0, 1 - target * x) for targets of -1 and 1, a linear support vector machine's loss."""

    def formula(self, x: Tensor, target: Tensor) -> Tensor:
        return (1.0 - target * x).relu()
