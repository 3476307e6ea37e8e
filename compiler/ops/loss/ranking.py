"""Losses that compare scores or distances with each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...errors import ShapeError
from ..base import apply
from ..composite import Composite
from ..pointwise import require_float
from .base import Loss, check_same_shape

if TYPE_CHECKING:
    from ...tensor import Tensor


@dataclass(frozen=True)
class PairwiseDistance(Composite):
    """Norm of the difference of two values along their last axis (torch.nn.PairwiseDistance).

    Arguments:
        p: of the norm.
        eps: added to the difference.
        keepdims: whether the last axis stays, with extent 1.
    """

    p: float = 2.0
    eps: float = 1e-6
    keepdims: bool = False
    arity: ClassVar[tuple[int, int | None]] = (2, 2)

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        a, b = inputs
        require_float(self, a, b)
        if not a.rank and not b.rank:
            raise ShapeError(f"{self.name} takes vectors, got {a.type} and {b.type}")
        return ((a - b + self.eps).norm(self.p, -1, self.keepdims),)


@dataclass(frozen=True)
class MarginRanking(Loss):
    """max(0, margin - target * (a - b)): with target 1 a is to be the larger one, with -1 b.

    Inputs are a, b and targets of one shape.
    """

    margin: float = 0.0
    arity: ClassVar[tuple[int, int | None]] = (3, 3)

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        a, b, target = inputs
        require_float(self, a, b)
        check_same_shape(self, a, b)
        check_same_shape(self, a, target)
        loss = (self.margin - target.cast(a.dtype) * (a - b)).relu()
        return (self.reduced(loss, a),)


@dataclass(frozen=True)
class TripletMargin(Loss):
    """max(0, d(anchor, positive) - d(anchor, negative) + margin) (Balntas et al., 2016).

    Inputs are anchor, positive and negative (N, D) or (D,).

    Arguments:
        margin: by how much the negative is to be farther.
        p: of the norm that is the distance d.
        eps: added to differences.
        swap: the negative's distance is the smaller one of those to anchor and positive.
    """

    margin: float = 1.0
    p: float = 2.0
    eps: float = 1e-6
    swap: bool = False
    arity: ClassVar[tuple[int, int | None]] = (3, 3)

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        anchor, positive, negative = inputs
        require_float(self, *inputs)
        check_same_shape(self, anchor, positive)
        check_same_shape(self, anchor, negative)
        distance = PairwiseDistance(self.p, self.eps)
        near, far = apply(distance, anchor, positive), apply(distance, anchor, negative)
        if self.swap:
            far = far.minimum(apply(distance, positive, negative))
        return (self.reduced((near - far + self.margin).relu(), anchor),)


@dataclass(frozen=True)
class HingeEmbedding(Loss):
    """x where the target is 1, max(0, margin - x) where it is -1 (torch.nn.HingeEmbeddingLoss)."""

    margin: float = 1.0

    def formula(self, x: Tensor, target: Tensor) -> Tensor:
        alike = target.equal(1.0).where(x, 0.0)
        return alike + target.equal(-1.0).where((self.margin - x).relu(), 0.0)


@dataclass(frozen=True)
class SoftMargin(Loss):
    """log(1 + exp(-target * x)) for targets of -1 and 1 (torch.nn.SoftMarginLoss)."""

    def formula(self, x: Tensor, target: Tensor) -> Tensor:
        z = target * x
        return (-z.abs()).exp().log1p() + (-z).relu()


@dataclass(frozen=True)
class PoissonNLL(Loss):
    """Minus the log-probability of counts of a Poisson distribution (torch.nn.PoissonNLLLoss).

    Arguments:
        log_input: x is the logarithm of the rate, not the rate.
        full: add Stirling's approximation of log(target!) where the target is above 1.
        eps: added to the rate in its logarithm.
    """

    log_input: bool = True
    full: bool = False
    eps: float = 1e-8

    def formula(self, x: Tensor, target: Tensor) -> Tensor:
        if self.log_input:
            loss = x.exp() - target * x
        else:
            loss = x - target * (x + self.eps).log()
        if self.full:
            t = target.maximum(1.0)
            stirling = t * t.log() - t + 0.5 * (t * 6.283185307179586).log()
            loss = loss + (target > 1.0).where(stirling, 0.0)
        return loss


@dataclass(frozen=True)
class GaussianNLL(Loss):
    """Minus the log-probability of targets of normal distributions (Nix and Weigend, 1994).

    Inputs are means and targets of one shape, and variances of that shape, or with the last extent
    missing or 1.

    Arguments:
        full: add the constant log(2 π) / 2.
        eps: the least variance, whose gradient ends there.
    """

    full: bool = False
    eps: float = 1e-6
    arity: ClassVar[tuple[int, int | None]] = (3, 3)

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        x, target, variance = inputs
        require_float(self, *inputs)
        check_same_shape(self, x, target)
        if variance.shape == x.shape[:-1]:
            variance = variance.unsqueeze(-1)
        if variance.shape not in (x.shape, (*x.shape[:-1], 1)):
            raise ShapeError(f"{self.name} of {x.type} takes no variances {variance.type}")
        # As if the variance that is divided by were its own, not the bound's.
        bound = variance + (variance.maximum(self.eps) - variance).detach()
        loss = 0.5 * (bound.log() + (x - target).square() / bound)
        if self.full:
            loss = loss + 0.9189385332046727
        return (self.reduced(loss, x),)
