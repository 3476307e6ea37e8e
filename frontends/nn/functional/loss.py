"""Losses. `reduction` is "mean", "sum" or "none"."""

from __future__ import annotations

from ....compiler.errors import UsageError
from ....compiler.ops import loss as ops
from ....compiler.ops.loss import Reduction
from ....compiler.tensor import Tensor
from ....compiler.types import normalize_axis
from ..context import emit


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy of softmax(input) for logits (N, C, *) or (C,).

    Arguments:
        target: classes (N, *) of an integer dtype, or probabilities of the shape of the input.
        weight: of each class, (C,).
    """
    op = ops.CrossEntropy(_reduction(reduction), ignore_index, float(label_smoothing))
    return emit(op, input, target, *_given(weight))


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Minus the log-probability (N, C, *) of each target class (N, *)."""
    return emit(ops.NLLLoss(_reduction(reduction), ignore_index), input, target, *_given(weight))


def mse_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """(input - target)²"""
    return emit(ops.MeanSquaredError(_reduction(reduction)), input, target)


def half_squared_error(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Half the squared Euclidean distance of each sample; the mean goes over samples."""
    return emit(ops.HalfSquaredError(_reduction(reduction)), input, target)


def l1_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """|input - target|"""
    return emit(ops.L1(_reduction(reduction)), input, target)


def smooth_l1_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", beta: float = 1.0
) -> Tensor:
    """d² / (2 beta) where |d| < beta, else |d| - beta / 2."""
    return emit(ops.SmoothL1(_reduction(reduction), float(beta)), input, target)


def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0
) -> Tensor:
    """d² / 2 where |d| < delta, else delta (|d| - delta / 2)."""
    return emit(ops.Huber(_reduction(reduction), float(delta)), input, target)


def hinge_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """max(0, 1 - target * input) for targets of -1 and 1."""
    return emit(ops.HingeLoss(_reduction(reduction)), input, target)


def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Sum over the other classes of max(0, margin - x[class] + x[other]) ** p, divided by C."""
    op = ops.MultiMargin(_reduction(reduction), power=p, margin=float(margin))
    return emit(op, input, target, *_given(weight))


def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """Cross-entropy of probabilities and targets from 0 to 1; logarithms end at -100."""
    return emit(ops.BinaryCrossEntropy(_reduction(reduction)), input, target, *_given(weight))


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """binary_cross_entropy(sigmoid(input), target), finite for every finite input."""
    op = ops.BinaryCrossEntropyWithLogits(
        _reduction(reduction), weight is not None, pos_weight is not None
    )
    return emit(op, input, target, *_given(weight), *_given(pos_weight))


def kl_div(
    input: Tensor, target: Tensor, reduction: str = "mean", log_target: bool = False
) -> Tensor:
    """target·(log(target) - input) for log-probabilities; "batchmean" divides by the batch."""
    return emit(ops.KLDivergence(Reduction(reduction), log_target), input, target)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """Cosine of the angle between two values along `dim`."""
    axis = normalize_axis(dim, max(x1.rank, x2.rank))
    return emit(ops.CosineSimilarity(axis, float(eps)), x1, x2)


def cosine_embedding_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """1 - cos where the target is 1, max(0, cos - margin) where it is -1."""
    op = ops.CosineEmbeddingLoss(_reduction(reduction), float(margin))
    return emit(op, input1, input2, target)


def _given(weight: Tensor | None) -> tuple[Tensor, ...]:
    return () if weight is None else (weight,)


def _reduction(name: str) -> Reduction:
    if name not in ("mean", "sum", "none"):
        raise UsageError(f"the reduction is 'mean', 'sum' or 'none', not {name!r}")
    return Reduction(name)


__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cosine_embedding_loss",
    "cosine_similarity",
    "cross_entropy",
    "half_squared_error",
    "hinge_loss",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "mse_loss",
    "multi_margin_loss",
    "nll_loss",
    "smooth_l1_loss",
]
