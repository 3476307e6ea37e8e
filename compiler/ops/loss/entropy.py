"""Cross-entropies of probabilities with probabilities."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...errors import ShapeError
from ..activation import Softplus
from ..base import apply
from ..pointwise import Gradients, Log1p, Signals, Tensors, require_float

if TYPE_CHECKING:
    from ...tensor import Tensor
from .base import Loss, check_same_shape


@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    """-(target * log(x) + (1 - target) * log(1 - x)) for probabilities x; logarithms from -100.

    Inputs are x, target and, optionally, a weight of each loss, which broadcasts.
    """

    arity: ClassVar[tuple[int, int | None]] = (2, 3)

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        x, target, *weight = inputs
        require_float(self, *inputs)
        check_same_shape(self, x, target)
        return (self.reduced(_weighted(self._losses(x, target), weight), x),)

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (x, target, *weight), (signal,) = inputs, signals
        if signal is None:
            return [None] * len(inputs)
        signal = self.spread(signal, _weighted(x, weight), x)
        to_weight = [(signal * self._losses(x, target)).sum_to(w.shape) for w in weight]
        signal = _weighted(signal, weight)
        # The product is held away from 0, as in PyTorch, so that x = 0 and 1 give finite ones.
        dx = signal * (x - target) / ((1.0 - x) * x).maximum(1e-12)
        yes, no = self._logarithms(x)
        return dx, signal * (no - yes), *to_weight

    def _losses(self, x: Tensor, target: Tensor) -> Tensor:
        yes, no = self._logarithms(x)
        return (target - 1.0) * no - target * yes

    def _logarithms(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.log().maximum(-100.0), apply(Log1p(), -x).maximum(-100.0)


@dataclass(frozen=True)
class BinaryCrossEntropyWithLogits(Loss):
    """Binary cross-entropy of sigmoid(x), finite for every finite x.

    Inputs are x, target, then weight where `weighted` and pos_weight where `pos_weighted`, both
    broadcast: weight multiplies each loss, pos_weight that of the positive class.

    Arguments:
        weighted: whether weight is given.
        pos_weighted: whether pos_weight is given.
    """

    weighted: bool = False
    pos_weighted: bool = False
    arity: ClassVar[tuple[int, int | None]] = (2, 4)

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        x, target, *others = inputs
        require_float(self, *inputs)
        check_same_shape(self, x, target)
        if len(others) != self.weighted + self.pos_weighted:
            raise ShapeError(f"{self} got {len(others)} weights")
        softplus = apply(Softplus(1.0, math.inf), -x)
        if self.pos_weighted:
            softplus = softplus * ((others[-1] - 1.0) * target + 1.0)
        losses = (1.0 - target) * x + softplus
        return (self.reduced(_weighted(losses, others[: int(self.weighted)]), x),)


def _weighted(losses: Tensor, weight: list[Tensor]) -> Tensor:
    """The losses times the weight, where there is one, in the shape of the losses."""
    for w in weight:
        product = losses * w
        if product.shape != losses.shape:
            raise ShapeError(f"the weight {w.type} does not broadcast to the losses {losses.type}")
        losses = product
    return losses


@dataclass(frozen=True)
class KLDivergence(Loss):
    """target * (log(target) - x) for log-probabilities x; 0 where the target is 0.

    The mean is over all elements, as in PyTorch; the divergence itself is Reduction.BATCH_MEAN.

    Arguments:
        log_target: whether the target is given as log-probabilities too.
    """

    log_target: bool = False

    def formula(self, x: Tensor, target: Tensor) -> Tensor:
        if self.log_target:
            return target.exp() * (target - x)
        return target * target.equal(0.0).where(1.0, target).log() - target * x
