"""Losses. Names, arguments and meaning are PyTorch's unless said otherwise.

Prediction and target have the same shape: a loss does not broadcast them against each other,
because (N, 1) against (N,) is a mistake that trains.
"""

from __future__ import annotations

from .base import Loss, Reduction, check_same_shape
from .classes import CrossEntropy, MultiLabelMargin, MultiMargin, NLLLoss
from .cosine import CosineEmbeddingLoss, CosineSimilarity
from .ctc import CTC
from .distance import L1, HalfSquaredError, HingeLoss, Huber, MeanSquaredError, SmoothL1
from .entropy import BinaryCrossEntropy, BinaryCrossEntropyWithLogits, KLDivergence
from .ranking import (
    GaussianNLL,
    HingeEmbedding,
    MarginRanking,
    PairwiseDistance,
    PoissonNLL,
    SoftMargin,
    TripletMargin,
)

__all__ = [
    "CTC",
    "L1",
    "BinaryCrossEntropy",
    "BinaryCrossEntropyWithLogits",
    "CosineEmbeddingLoss",
    "CosineSimilarity",
    "CrossEntropy",
    "GaussianNLL",
    "HalfSquaredError",
    "HingeEmbedding",
    "HingeLoss",
    "Huber",
    "KLDivergence",
    "Loss",
    "MarginRanking",
    "MeanSquaredError",
    "MultiLabelMargin",
    "MultiMargin",
    "NLLLoss",
    "PairwiseDistance",
    "PoissonNLL",
    "Reduction",
    "SmoothL1",
    "SoftMargin",
    "TripletMargin",
    "check_same_shape",
]
