"""What is reported beside the loss, by name.

Many figures are no mean over batches: an F1 score follows from how often each class was taken for
each other one among all rows. So a `Metric` says of what it needs the mean over rows, an array, and
how the figure follows from that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ...compiler.errors import ShapeError
from ...compiler.tensor import Tensor
from ...compiler.types import Array, DType
from ..nn.functional import loss as losses
from ..nn.functional.shape import argmax, one_hot, stack

LOSSES: Mapping[str, str] = {name.removesuffix("_loss"): name for name in losses.__all__}
"""Names of losses, which are metrics too -> their functions in `nn.functional`."""


@dataclass(frozen=True)
class Metric:
    """A figure that follows from means over all rows.

    Arguments:
        means: takes the network's outputs and the targets of a batch, gives floats of any shape:
            means over its rows.
        value: the figure, for such means over all rows.
    """

    means: Callable[[Any, Tensor], Tensor]
    value: Callable[[Array], float]


def metric(name: str) -> Metric | None:
    """The metric of a name, if there is one."""
    top = re.fullmatch(r"top_?(\d+)(_accuracy)?", name)
    if top:
        return Metric(partial(_right, top=int(top[1])), _share)
    if name.removesuffix("_loss") in LOSSES:
        return Metric(getattr(losses, LOSSES[name.removesuffix("_loss")]), float)
    return METRICS.get(name)


def classes(outputs: Any, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (N, C, *), the true classes (N, *), and whether they are known (N, *) as float32.

    Targets are classes, of which those below 0 count for nothing, or one number for each class, of
    which the largest counts.

    Raises:
        ShapeError: outputs and targets do not fit each other.
    """
    logits = first(outputs)
    if logits.rank < 2 or logits.shape[1] == 1:
        raise ShapeError(
            f"classes are told by one number each (N, C, …), the outputs are {logits.type}; of one "
            "number say yourself what is a yes: metrics={NAME: function(outputs, target)}"
        )
    if target.shape == logits.shape:
        target = argmax(target, 1)
    wanted = (logits.shape[0], *logits.shape[2:])
    if target.shape != wanted:
        raise ShapeError(
            f"outputs {logits.type} are measured by classes of the shape {wanted}, "
            f"the targets are {target.type}"
        )
    return logits, target.maximum(0).cast(DType.INT64), (target >= 0).cast(DType.FLOAT32)


def first(outputs: Any, kind: type = Tensor) -> Any:
    """The tensor itself, or the first of several; or of arrays, where that is the kind."""
    while not isinstance(outputs, kind):
        values = outputs.values() if isinstance(outputs, Mapping) else outputs
        outputs = next(iter(values))
    return outputs


# -- means over the rows of a batch ---------------------------------------------------------------


def _right(outputs: Any, target: Tensor, top: int = 1) -> Tensor:
    """(2,): how many samples a row are right, and are known."""
    logits, truth, known = classes(outputs, target)
    if top == 1:
        right = argmax(logits, 1).equal(truth)
    else:
        # NaN is no answer: nothing may be called smaller than it.
        behind = (logits <= logits.gather(1, truth.unsqueeze(1))).logical_not()
        right = behind.sum(1) < top
    right = right.cast(DType.FLOAT32) * known
    return stack([right.sum(), known.sum()]) / float(logits.shape[0])


def _confusion(outputs: Any, target: Tensor) -> Tensor:
    """(C, C): how many samples a row are of one class (first axis) and taken for another."""
    logits, truth, known = classes(outputs, target)
    count = logits.shape[1]
    true = one_hot(truth.reshape(-1), count).cast(DType.FLOAT32) * known.reshape(-1, 1)
    taken = one_hot(argmax(logits, 1).reshape(-1), count).cast(DType.FLOAT32)
    return true.t() @ taken / float(logits.shape[0])


# -- figures --------------------------------------------------------------------------------------


def _share(means: Array) -> float:
    right, known = means
    return float(right / known) if known else 0.0


def _of_classes(score: Callable[[Array, Array, Array], tuple[Array, Array]]) -> Metric:
    """The mean over those classes that are there or are taken for being there.

    Arguments:
        score: dividend and divisor for each class, from the hits, the finds and the samples of it.
    """

    def value(confusion: Array) -> float:
        hits, finds, there = confusion.diagonal(), confusion.sum(0), confusion.sum(1)
        dividend, divisor = score(hits, finds, there)
        shares = np.divide(dividend, divisor, out=np.zeros(len(hits)), where=divisor > 0)
        seen = finds + there > 0
        return float(shares[seen].mean()) if seen.any() else 0.0

    return Metric(_confusion, value)


METRICS: Mapping[str, Metric] = {
    "accuracy": Metric(_right, _share),
    "precision": _of_classes(lambda hits, finds, there: (hits, finds)),
    "recall": _of_classes(lambda hits, finds, there: (hits, there)),
    "f1": _of_classes(lambda hits, finds, there: (2 * hits, finds + there)),
    "mean_iou": _of_classes(lambda hits, finds, there: (hits, finds + there - hits)),
    "mae": Metric(losses.l1_loss, float),
    "rmse": Metric(losses.mse_loss, lambda mean: float(np.sqrt(mean))),
}
