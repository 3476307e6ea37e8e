"""Losses whose targets are numbers of classes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...errors import DTypeError, ShapeError
from ...types import DType
from ..activation import LogSoftmax, Softmax
from ..base import apply
from ..indexing import OneHot, own_indices
from ..pointwise import Gradients, Signals, Tensors, require_float

if TYPE_CHECKING:
    from ...tensor import Tensor
from .base import Loss, Reduction, check_same_shape


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
class MultiLabelMargin(Loss):
    """sum over a sample's classes c and all others o of max(0, 1 - x[c] + x[o]), divided by C.

    Inputs are scores x (N, C) or (C,), and classes of the same shape: those before the first
    negative one of a row count.
    """

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        x, target = inputs
        require_float(self, x)
        check_same_shape(self, x, target)
        classes = x.shape[-1]
        known = (target < 0).cumsum(-1).equal(0)
        score = x.gather(-1, target.maximum(0)).unsqueeze(-1)
        own = own_indices(x.unsqueeze(-2), x.rank, classes, target.dtype)
        named = known.unsqueeze(-1) & target.unsqueeze(-1).equal(own)
        others = known.unsqueeze(-1) & ~named.any(-2).unsqueeze(-2)
        short = others.where((1.0 - score + x.unsqueeze(-2)).relu(), 0.0)
        return (self.reduced(short.sum((-2, -1)) / float(max(classes, 1)), x),)


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
