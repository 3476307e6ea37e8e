"""Losses. Names, arguments and meaning are PyTorch's unless said otherwise.

Prediction and target have the same shape: a loss does not broadcast them against each other,
because (N, 1) against (N,) is a mistake that trains.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from ..errors import DTypeError, ShapeError
from ..types import DType
from .activation import HardTanh, LogSoftmax, Softmax, Softplus
from .base import apply
from .composite import Composite
from .indexing import OneHot
from .pointwise import Gradients, Log1p, Signals, Tensors, require_float

if TYPE_CHECKING:
    from ..tensor import Tensor


class Reduction(Enum):
    """How the losses of single elements become the result."""

    MEAN = "mean"
    SUM = "sum"
    NONE = "none"
    BATCH_MEAN = "batchmean"


@dataclass(frozen=True)
class Loss(Composite, abstract=True):
    """Base of the losses.

    Arguments:
        reduction: mean over all losses, their sum, all of them, or their sum divided by the batch.
    """

    reduction: Reduction = Reduction.MEAN
    arity: ClassVar[tuple[int, int | None]] = (2, 2)

    def formula(self, x: Tensor, target: Tensor) -> Tensor:
        """The loss of each element, or of each sample."""
        raise NotImplementedError(f"{self.name} has no formula")

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        x, target = inputs
        require_float(self, x, target)
        check_same_shape(self, x, target)
        return (self.reduced(self.formula(x, target), x),)

    def reduced(self, loss: Tensor, x: Tensor) -> Tensor:
        """The losses of a batch `x` after the reduction."""
        if self.reduction is Reduction.NONE:
            return loss
        if self.reduction is Reduction.MEAN:
            return loss.mean()
        return loss.sum() / self.divisor(loss, x)

    def spread(self, signal: Tensor, loss: Tensor, x: Tensor) -> Tensor:
        """The transpose of `reduced`: the signal of each loss."""
        if self.reduction is Reduction.NONE:
            return signal
        return (signal / self.divisor(loss, x)).broadcast_to(loss.shape)

    def divisor(self, loss: Tensor, x: Tensor) -> float:
        """What the sum of the losses is divided by."""
        if self.reduction is Reduction.SUM:
            return 1.0
        count = loss.type.size if self.reduction is Reduction.MEAN else x.shape[0] if x.rank else 1
        return float(count) if count else math.nan


def check_same_shape(op: Composite, x: Tensor, target: Tensor) -> None:
    """
    Raises:
        ShapeError: when prediction and target have different shapes.
    """
    if x.shape != target.shape:
        raise ShapeError(
            f"{op.name} compares values of one shape, got {x.type} and {target.type}; reshape one"
        )


# -- of numbers -----------------------------------------------------------------------------------


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


# -- of probabilities -----------------------------------------------------------------------------


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


# -- of classes -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class NLLLoss(Loss):
    """Minus the log-probability of each sample's class.

    Inputs are log-probabilities x (N, C, *) or (C,), classes (int32 or int64, (N, *) or ()) and,
    optionally, a weight of each class (C,). The mean is weighted by the classes' weights, which are
    constants: no gradient flows there. A target that names no class gives NaN, to be noticed.

    Arguments:
        ignore_index: samples of this class count for nothing; None ignores none.
    """

    ignore_index: int | None = -100
    arity: ClassVar[tuple[int, int | None]] = (2, 3)

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        self._check(*inputs)
        return (self._from_log_probabilities(*inputs),)

    def _from_log_probabilities(self, x: Tensor, target: Tensor, *weight: Tensor) -> Tensor:
        q = self._shares(x, target, weight)
        losses = -(q.equal(0.0).where(0.0, q * x)).sum(self._axis(x))
        if self.reduction is Reduction.MEAN:
            return losses.sum() / self._total_weight(x, target, weight)
        return self.reduced(losses, x)

    def _axis(self, x: Tensor) -> int:
        return 1 if x.rank > 1 else 0

    def _shares(self, x: Tensor, target: Tensor, weight: tuple[Tensor, ...]) -> Tensor:
        """What each class's log-probability counts in the loss of its sample."""
        share = self._probabilities(x, target)
        if weight:
            share = share * self._class_weight(x, weight[0])
        return share * self._known(x, target)

    def _probabilities(self, x: Tensor, target: Tensor) -> Tensor:
        axis = self._axis(x)
        return apply(OneHot(x.shape[axis], axis, x.dtype), target)

    def _known(self, x: Tensor, target: Tensor) -> Tensor:
        """1 for a sample that counts, 0 for an ignored one, NaN where the target is no class."""
        axis = self._axis(x)
        is_class = (target >= 0) & (target < x.shape[axis])
        known = is_class.where(x.constant(1.0), x.constant(math.nan))
        if self.ignore_index is not None:
            known = target.equal(self.ignore_index).where(0.0, known)
        return known.unsqueeze(axis)

    def _class_weight(self, x: Tensor, weight: Tensor) -> Tensor:
        shape = tuple(n if d == self._axis(x) else 1 for d, n in enumerate(x.shape))
        return weight.reshape(shape)

    def _total_weight(self, x: Tensor, target: Tensor, weight: tuple[Tensor, ...]) -> Tensor:
        """What the mean divides by: the weights of the samples' own classes."""
        known = self._known(x, target)
        if weight:
            own = NLLLoss._probabilities(self, x, target) * self._class_weight(x, weight[0])
            return (own * known).sum()
        return known.sum()

    def _check(self, x: Tensor, target: Tensor, *weight: Tensor) -> None:
        require_float(self, x, *weight)
        if not x.rank:
            raise ShapeError(f"{self.name} takes x of (N, C, *) or (C,), got {x.type}")
        axis = self._axis(x)
        if target.dtype not in (DType.INT32, DType.INT64):
            raise DTypeError(f"{self.name} takes classes of int32 or int64, got {target.type}")
        if target.shape != x.shape[:axis] + x.shape[axis + 1 :]:
            raise ShapeError(
                f"{self.name} of {x.type} takes classes of "
                f"{x.shape[:axis] + x.shape[axis + 1 :]}, got {target.type}"
            )
        self._check_weight(x, weight)

    def _check_weight(self, x: Tensor, weight: tuple[Tensor, ...]) -> None:
        classes = x.shape[self._axis(x)]
        for w in weight:
            if w.shape != (classes,):
                raise ShapeError(f"{self.name} of {x.type} takes {classes} weights, got {w.type}")


@dataclass(frozen=True)
class CrossEntropy(NLLLoss):
    """Cross-entropy of softmax(x), finite for every finite x (ONNX: SoftmaxCrossEntropyLoss).

    Inputs are logits x (N, C, *) or (C,), targets and, optionally, a weight of each class (C,).
    Targets are classes as in NLLLoss, or floats of the shape of x: probabilities, whose mean goes
    over all samples and for which ignore_index has no meaning.

    Arguments:
        label_smoothing: this share of each target is spread evenly over all classes.
    """

    label_smoothing: float = 0.0

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        x, target, *weight = inputs
        self._check(*inputs)
        log_probability = apply(LogSoftmax(self._axis(x)), x)
        return (self._from_log_probabilities(log_probability, target, *weight),)

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (x, target, *weight), (signal,) = inputs, signals
        if signal is None:
            return [None] * len(inputs)
        axis = self._axis(x)
        q = self._shares(x, target, tuple(weight))
        if self.reduction is Reduction.NONE:
            signal = signal.unsqueeze(axis)
        elif self.reduction is Reduction.MEAN:
            signal = signal / self._total_weight(x, target, tuple(weight))
        elif self.reduction is Reduction.BATCH_MEAN:
            signal = signal / self.divisor(signal, x)
        probability = apply(Softmax(axis), x)
        dx = signal * (probability * q.sum(axis, keepdims=True) - q)
        if not target.dtype.is_float:
            return dx, None, *(None for _ in weight)
        share = apply(LogSoftmax(axis), x) * (self.label_smoothing - 1.0)
        for w in weight:
            share = share * self._class_weight(x, w)
        return dx, signal * share, *(None for _ in weight)

    def _probabilities(self, x: Tensor, target: Tensor) -> Tensor:
        p = target if target.dtype.is_float else super()._probabilities(x, target)
        if not self.label_smoothing:
            return p
        return p * (1.0 - self.label_smoothing) + self.label_smoothing / x.shape[self._axis(x)]

    def _known(self, x: Tensor, target: Tensor) -> Tensor:
        return x.constant(1.0) if target.dtype.is_float else super()._known(x, target)

    def _total_weight(self, x: Tensor, target: Tensor, weight: tuple[Tensor, ...]) -> Tensor:
        if not target.dtype.is_float:
            return super()._total_weight(x, target, weight)
        samples = x.type.size // max(1, x.shape[self._axis(x)])
        return x.constant(float(samples))

    def _check(self, x: Tensor, target: Tensor, *weight: Tensor) -> None:
        if not 0.0 <= self.label_smoothing <= 1.0:
            raise ShapeError(f"label_smoothing is a share, got {self.label_smoothing}")
        if not target.dtype.is_float:
            super()._check(x, target, *weight)
            return
        require_float(self, x, target, *weight)
        check_same_shape(self, x, target)
        self._check_weight(x, weight)


@dataclass(frozen=True)
class MultiMargin(NLLLoss):
    """sum over other classes of max(0, margin - x[class] + x[other]) ** power, divided by C.

    Inputs are scores x (N, C) or (C,), classes (N,) or () and, optionally, a weight of each class,
    by which its samples' losses are multiplied. The mean goes over the samples.

    Arguments:
        power: 1 or 2.
        margin: by which the class's score should lead.
    """

    ignore_index: int | None = None
    power: int = 1
    margin: float = 1.0

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        x, target, *weight = inputs
        self._check(*inputs)
        if self.power not in (1, 2):
            raise ShapeError(f"the power of MultiMargin is 1 or 2, got {self.power}")
        axis = self._axis(x)
        own = self._probabilities(x, target).equal(1.0)
        score = own.where(x, 0.0).sum(axis, keepdims=True)
        short = own.where(0.0, self.margin - score + x).relu()
        if self.power == 2:
            short = short * short
        if weight:
            of_class = own.where(self._class_weight(x, weight[0]), 0.0)
            short = short * of_class.sum(axis, keepdims=True)
        losses = (short * self._known(x, target)).sum(axis) / float(x.shape[axis])
        return (self.reduced(losses, x),)


# -- of directions --------------------------------------------------------------------------------


@dataclass(frozen=True)
class CosineSimilarity(Composite):
    """Cosine of the angle between two values along an axis, which is dropped; they may broadcast.

    Arguments:
        axis: counted from the front of the broadcast shape.
        eps: least norm that is divided by.
    """

    axis: int = 1
    eps: float = 1e-8
    arity: ClassVar[tuple[int, int | None]] = (2, 2)

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        a, b = inputs
        require_float(self, a, b)
        product = a * b
        if not 0 <= self.axis < product.rank:
            raise ShapeError(f"CosineSimilarity has no axis {self.axis} in {product.type}")
        a, b = a.broadcast_to(product.shape), b.broadcast_to(product.shape)
        # The square is held above 0, not the root, whose derivative at 0 is infinite.
        norms = [(v * v).sum(self.axis).maximum(self.eps**2).sqrt() for v in (a, b)]
        return (product.sum(self.axis) / (norms[0] * norms[1]),)


@dataclass(frozen=True)
class CosineEmbeddingLoss(Loss):
    """1 - cos(a, b) where the target is 1, max(0, cos(a, b) - margin) where it is -1.

    Inputs are a and b (N, D) or (D,) and targets (N,) or ().

    Arguments:
        margin: from -1 to 1.
    """

    margin: float = 0.0
    arity: ClassVar[tuple[int, int | None]] = (3, 3)

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        a, b, target = inputs
        require_float(self, a, b)
        check_same_shape(self, a, b)
        if not a.rank or target.shape != a.shape[:-1]:
            raise ShapeError(
                f"{self.name} of {a.type} takes targets of {a.shape[:-1]}, got {target.type}"
            )
        cosine = apply(CosineSimilarity(a.rank - 1), a, b)
        apart = (cosine - self.margin).relu()
        return (self.reduced(target.equal(1).where(1.0 - cosine, apart), a),)
