"""Losses. `reduction` is "mean", "sum" or "none"."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ....compiler.errors import UsageError
from ....compiler.ops import loss as ops
from ....compiler.ops.loss import Reduction
from ....compiler.tensor import Tensor
from ....compiler.tensor.promotion import as_tensor
from ....compiler.types import Array, normalize_axis
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


def multilabel_margin_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Sum over a sample's classes c and all others o of max(0, 1 - x[c] + x[o]), divided by C.

    Arguments:
        input: scores (N, C) or (C,).
        target: classes, of the same shape; those before the first -1 of a row count.
    """
    return emit(ops.MultiLabelMargin(_reduction(reduction)), input, target)


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


def pairwise_distance(
    x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Tensor:
    """Norm of the difference along the last axis."""
    return emit(ops.PairwiseDistance(float(p), eps, keepdim), x1, x2)


def margin_ranking_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """max(0, margin - target * (input1 - input2)) for targets of -1 and 1."""
    return emit(ops.MarginRanking(_reduction(reduction), margin), input1, input2, target)


def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """max(0, d(anchor, positive) - d(anchor, negative) + margin) for the distance d of norm p.

    Arguments:
        swap: the negative's distance is the smaller one of those to anchor and positive.
    """
    op = ops.TripletMargin(_reduction(reduction), margin, float(p), eps, swap)
    return emit(op, anchor, positive, negative)


def hinge_embedding_loss(
    input: Tensor, target: Tensor, margin: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """Input where the target is 1, max(0, margin - input) where it is -1."""
    return emit(ops.HingeEmbedding(_reduction(reduction), margin), input, target)


def soft_margin_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """log(1 + exp(-target * input)) for targets of -1 and 1."""
    return emit(ops.SoftMargin(_reduction(reduction)), input, target)


def multilabel_soft_margin_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """Binary cross-entropy of sigmoid(input), the mean over the classes of each sample (N, C)."""
    each = binary_cross_entropy_with_logits(input, target, weight, "none").mean(-1)
    kinds = {Reduction.MEAN: each.mean, Reduction.SUM: each.sum, Reduction.NONE: each.contiguous}
    return kinds[_reduction(reduction)]()


def poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
    reduction: str = "mean",
) -> Tensor:
    """exp(input) - target * input, or with log_input False input - target * log(input + eps).

    Arguments:
        full: add Stirling's approximation of log(target!).
    """
    return emit(ops.PoissonNLL(_reduction(reduction), log_input, full, eps), input, target)


def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """(log(var) + (input - target)² / var) / 2 for a variance of at least eps.

    Arguments:
        full: add the constant log(2 π) / 2.
    """
    return emit(ops.GaussianNLL(_reduction(reduction), full, eps), input, target, var)


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Tensor | Array | Sequence[int],
    target_lengths: Tensor | Array | Sequence[int],
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """Minus the log-probability of labels whose places are not known (Graves et al., 2006).

    Arguments:
        log_probs: (T, N, C), of `log_softmax`.
        targets: labels (N, S).
        input_lengths: steps of each sequence, (N,).
        target_lengths: labels of each sequence, (N,).
        blank: the class that is no label.
        reduction: "mean" divides each loss by its number of labels first.
        zero_infinity: labels for which there are too few steps count for nothing.
    """
    lengths = [
        as_tensor(np.asarray(x) if isinstance(x, Sequence) else x, log_probs)
        for x in (input_lengths, target_lengths)
    ]
    return emit(ops.CTC(blank, _reduction(reduction), zero_infinity), log_probs, targets, *lengths)


def triplet_margin_with_distance_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """max(0, d(anchor, positive) - d(anchor, negative) + margin) for any distance d.

    Arguments:
        distance_function: d; that of `pairwise_distance` by default.
        swap: the negative's distance is the smaller one of those to anchor and positive.
    """
    distance = distance_function or pairwise_distance
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = far.minimum(distance(positive, negative))
    loss = (near - far + margin).relu()
    how = _reduction(reduction)
    if how is Reduction.NONE:
        return loss
    return loss.mean() if how is Reduction.MEAN else loss.sum()


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
    "ctc_loss",
    "gaussian_nll_loss",
    "half_squared_error",
    "hinge_embedding_loss",
    "hinge_loss",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "margin_ranking_loss",
    "mse_loss",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "nll_loss",
    "pairwise_distance",
    "poisson_nll_loss",
    "smooth_l1_loss",
    "soft_margin_loss",
    "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
]
