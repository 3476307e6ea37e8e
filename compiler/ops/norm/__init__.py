"""Normalisation. Names, arguments and meaning are PyTorch's.

Statistics keep their axes. The variance is the mean of squared deviations, in two passes; over a
batch of many values it takes one.
Gradients build the statistics anew by the same helpers, hence by the same nodes:
common-subexpression elimination lets them share what the forward pass has computed.
"""

from __future__ import annotations

from .batch import BatchNorm, BatchNormInference
from .local import LocalContrastNorm, LocalResponseNorm
from .moments import Moments
from .sample import GroupNorm, InstanceNorm, LayerNorm, RMSNorm, SampleNorm, View

__all__ = [
    "BatchNorm",
    "BatchNormInference",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "LocalContrastNorm",
    "LocalResponseNorm",
    "Moments",
    "RMSNorm",
    "SampleNorm",
    "View",
]
