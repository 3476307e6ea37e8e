"""Losses as modules. `reduction` is "mean", "sum" or "none"."""

from __future__ import annotations

from collections.abc import Callable

from ...compiler.tensor import Tensor
from .functional import loss as functions
from .module import Layer
from .state import Buffer


class Loss(Layer):
    """Base of the losses."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction


class WeightedLoss(Loss):
    """Base of the losses that take an array of weights, kept as the buffer `weight`."""

    weight: Buffer | None

    def __init__(self, weight: object = None, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.register_buffer("weight", weight)


class CrossEntropyLoss(WeightedLoss):
    """Cross-entropy of softmax(input) for logits (N, C, *) or (C,).

    Targets are classes (N, *) or probabilities of the shape of the input.

    Arguments:
        weight: of each class, (C,).
        ignore_index: samples of this class count for nothing.
        label_smoothing: this share of each target is spread evenly over all classes.
    """

    def __init__(
        self,
        weight: object = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(weight, reduction)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return functions.cross_entropy(
            input, target, self.weight, self.ignore_index, self.reduction, self.label_smoothing
        )


class NLLLoss(WeightedLoss):
    """Minus the log-probability (N, C, *) of each target class (N, *).

    Arguments:
        weight: of each class, (C,).
        ignore_index: samples of this class count for nothing.
    """

    def __init__(
        self, weight: object = None, ignore_index: int = -100, reduction: str = "mean"
    ) -> None:
        super().__init__(weight, reduction)
        self.ignore_index = ignore_index

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return functions.nll_loss(input, target, self.weight, self.ignore_index, self.reduction)


class MSELoss(Loss):
    """(input - target)²"""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return functions.mse_loss(input, target, self.reduction)


class HalfSquaredErrorLoss(Loss):
    """Half the squared Euclidean distance of each sample; the mean goes over samples."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return functions.half_squared_error(input, target, self.reduction)


class L1Loss(Loss):
    """|input - target|"""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return functions.l1_loss(input, target, self.reduction)


class SmoothL1Loss(Loss):
    """d² / (2 beta) where |d| < beta, else |d| - beta / 2."""

    def __init__(self, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction)
        self.beta = beta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return functions.smooth_l1_loss(input, target, self.reduction, self.beta)


class HuberLoss(Loss):
    """d² / 2 where |d| < delta, else delta (|d| - delta / 2)."""

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        self.delta = delta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return functions.huber_loss(input, target, self.reduction, self.delta)


class HingeLoss(Loss):
    """max(0, 1 - target * input) for targets of -1 and 1."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return functions.hinge_loss(input, target, self.reduction)


class KLDivLoss(Loss):
    """target * (log(target) - input) for log-probabilities; "batchmean" divides by the batch."""

    def __init__(self, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(reduction)
        self.log_target = log_target

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return functions.kl_div(input, target, self.reduction, self.log_target)


class BCELoss(WeightedLoss):
    """Cross-entropy of probabilities and targets from 0 to 1; logarithms end at -100."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return functions.binary_cross_entropy(input, target, self.weight, self.reduction)


class BCEWithLogitsLoss(WeightedLoss):
    """Binary cross-entropy of sigmoid(input), finite for every finite input.

    Arguments:
        weight: of each loss; broadcasts.
        pos_weight: of the positive class; broadcasts.
    """

    pos_weight: Buffer | None

    def __init__(
        self, weight: object = None, reduction: str = "mean", pos_weight: object = None
    ) -> None:
        super().__init__(weight, reduction)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return functions.binary_cross_entropy_with_logits(
            input, target, self.weight, self.reduction, self.pos_weight
        )


class MultiLabelMarginLoss(Loss):
    """Sum over a sample's classes c and all others o of max(0, 1 - x[c] + x[o]), divided by C; the
    targets (N, C) are classes up to the first -1 of a row.
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return functions.multilabel_margin_loss(input, target, self.reduction)


class MultiMarginLoss(WeightedLoss):
    """Sum over the other classes of max(0, margin - x[class] + x[other]) ** p, divided by C."""

    def __init__(
        self, p: int = 1, margin: float = 1.0, weight: object = None, reduction: str = "mean"
    ) -> None:
        super().__init__(weight, reduction)
        self.p = p
        self.margin = margin

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return functions.multi_margin_loss(
            input, target, self.p, self.margin, self.weight, self.reduction
        )


class CosineEmbeddingLoss(Loss):
    """1 - cos where the target is 1, max(0, cos - margin) where it is -1."""

    def __init__(self, margin: float = 0.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = margin

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        return functions.cosine_embedding_loss(input1, input2, target, self.margin, self.reduction)


class CosineSimilarity(Layer):
    """Cosine of the angle between two values along `dim`."""

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        super().__init__()
        self.dim = dim
        self.eps = eps

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return functions.cosine_similarity(x1, x2, self.dim, self.eps)


class PairwiseDistance(Layer):
    """Norm of the difference of two values along the last axis."""

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> None:
        super().__init__()
        self.norm = p
        self.eps = eps
        self.keepdim = keepdim

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return functions.pairwise_distance(x1, x2, self.norm, self.eps, self.keepdim)


class MarginRankingLoss(Loss):
    """max(0, margin - target * (input1 - input2)) for targets of -1 and 1."""

    def __init__(self, margin: float = 0.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = margin

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        return functions.margin_ranking_loss(input1, input2, target, self.margin, self.reduction)


class TripletMarginLoss(Loss):
    """max(0, d(anchor, positive) - d(anchor, negative) + margin) for the distance d of norm p.

    Arguments:
        swap: the negative's distance is the smaller one of those to anchor and positive.
    """

    def __init__(
        self,
        margin: float = 1.0,
        p: float = 2.0,
        eps: float = 1e-6,
        swap: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        self.margin = margin
        self.p = p
        self.eps = eps
        self.swap = swap

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return functions.triplet_margin_loss(
            anchor, positive, negative, self.margin, self.p, self.eps, self.swap, self.reduction
        )


class TripletMarginWithDistanceLoss(Loss):
    """max(0, d(anchor, positive) - d(anchor, negative) + margin) for any distance d.

    Arguments:
        distance_function: d; that of PairwiseDistance by default.
        swap: the negative's distance is the smaller one of those to anchor and positive.
    """

    def __init__(
        self,
        *,
        distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
        margin: float = 1.0,
        swap: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        self.distance_function = distance_function
        self.margin = margin
        self.swap = swap

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return functions.triplet_margin_with_distance_loss(
            anchor,
            positive,
            negative,
            distance_function=self.distance_function,
            margin=self.margin,
            swap=self.swap,
            reduction=self.reduction,
        )


class HingeEmbeddingLoss(Loss):
    """input where the target is 1, max(0, margin - input) where it is -1."""

    def __init__(self, margin: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = margin

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return functions.hinge_embedding_loss(input, target, self.margin, self.reduction)


class SoftMarginLoss(Loss):
    """log(1 + exp(-target * input)) for targets of -1 and 1."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return functions.soft_margin_loss(input, target, self.reduction)


class MultiLabelSoftMarginLoss(WeightedLoss):
    """Binary cross-entropy of sigmoid(input), the mean over the classes of each sample (N, C)."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return functions.multilabel_soft_margin_loss(input, target, self.weight, self.reduction)


class PoissonNLLLoss(Loss):
    """exp(input) - target * input, or with log_input False input - target * log(input + eps).

    Arguments:
        full: add Stirling's approximation of log(target!).
    """

    def __init__(
        self,
        log_input: bool = True,
        full: bool = False,
        eps: float = 1e-8,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        self.log_input = log_input
        self.full = full
        self.eps = eps

    def forward(self, log_input: Tensor, target: Tensor) -> Tensor:
        return functions.poisson_nll_loss(
            log_input, target, self.log_input, self.full, self.eps, self.reduction
        )


class GaussianNLLLoss(Loss):
    """(log(var) + (input - target)² / var) / 2 for a variance of at least eps.

    Arguments:
        full: add the constant log(2 π) / 2.
    """

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.full = full
        self.eps = eps

    def forward(self, input: Tensor, target: Tensor, var: Tensor) -> Tensor:
        return functions.gaussian_nll_loss(input, target, var, self.full, self.eps, self.reduction)


class CTCLoss(Loss):
    """Minus the log-probability of labels whose places are not known (Graves et al., 2006).

    Arguments:
        blank: the class that is no label.
        reduction: "mean" divides each loss by its number of labels first.
        zero_infinity: labels for which there are too few steps count for nothing.
    """

    def __init__(
        self, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False
    ) -> None:
        super().__init__(reduction)
        self.blank = blank
        self.zero_infinity = zero_infinity

    def forward(
        self, log_probs: Tensor, targets: Tensor, input_lengths: Tensor, target_lengths: Tensor
    ) -> Tensor:
        """Log-probabilities (T, N, C), labels (N, S) and the lengths (N,) of both."""
        return functions.ctc_loss(
            log_probs,
            targets,
            input_lengths,
            target_lengths,
            self.blank,
            self.reduction,
            self.zero_infinity,
        )
