"""Losses."""

from __future__ import annotations

from ....compiler.ops.activation import LogSoftmax
from ....compiler.ops.base import apply
from ....compiler.ops.loss import CrossEntropy, NLLLoss, Reduction
from ..call import Call, Result, operator


@operator("NegativeLogLikelihoodLoss")
def _nll(call: Call) -> Result:
    ignored = call.attributes.get("ignore_index")
    return call.apply(NLLLoss(Reduction(call.text("reduction", "mean")), ignored))


@operator("SoftmaxCrossEntropyLoss")
def _cross_entropy(call: Call) -> Result:
    ignored = call.attributes.get("ignore_index")
    loss = call.apply(CrossEntropy(Reduction(call.text("reduction", "mean")), ignored))
    return (loss, apply(LogSoftmax(1), call.x())) if call.wants(1) else loss
