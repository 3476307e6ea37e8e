"""Activation functions."""

from __future__ import annotations

import math

from ....compiler.ops import activation as act
from ..writer import Draft, Outputs, Ref, writes


@writes(act.LeakyRelu)
def _leaky_relu(draft: Draft, op: act.LeakyRelu, x: Ref) -> Outputs:
    return draft.node("LeakyRelu", x, alpha=op.slope)


@writes(act.PRelu)
def _prelu(draft: Draft, op: act.PRelu, x: Ref, weight: Ref) -> Outputs:
    channels = weight.shape if weight.type.size > 1 else (1,)
    shape = channels + (1,) * max(x.rank - 2, 0) if x.rank > 1 else weight.shape
    return draft.node(
        "PRelu", x, draft.reshaped(weight, shape) if shape != weight.shape else weight
    )


@writes(act.Clip, act.HardTanh)
def _clip(draft: Draft, op: act.Bounded, x: Ref) -> Outputs:
    low, high = (None if v is None else draft.like(v, x) for v in (op.low, op.high))
    return draft.node("Clip", x, low, high)


@writes(act.HardSigmoid)
def _hard_sigmoid(draft: Draft, op: act.HardSigmoid, x: Ref) -> Outputs:
    return draft.node("HardSigmoid", x, alpha=1.0 / 6.0, beta=0.5)


@writes(act.HardSwish)
def _hard_swish(draft: Draft, op: act.HardSwish, x: Ref) -> Outputs:
    return draft.node("HardSwish", x)


@writes(act.Elu)
def _elu(draft: Draft, op: act.Elu, x: Ref) -> Outputs:
    return draft.node("Elu", x, alpha=op.alpha)


@writes(act.Selu)
def _selu(draft: Draft, op: act.Selu, x: Ref) -> Outputs:
    return draft.node("Selu", x)


@writes(act.Softplus)
def _softplus(draft: Draft, op: act.Softplus, x: Ref) -> Outputs:
    """Beyond a threshold of 20 the function is the identity to all digits of float32."""
    if op.threshold < 20.0:
        return None
    if op.beta == 1.0:
        return draft.node("Softplus", x)
    soft = draft.node("Softplus", draft.node("Mul", x, draft.like(op.beta, x)))
    return draft.node("Div", soft, draft.like(op.beta, x))


@writes(act.Gelu)
def _gelu(draft: Draft, op: act.Gelu, x: Ref) -> Outputs:
    return draft.node("Gelu", x, approximate=op.approximate.value)


@writes(act.Silu)
def _silu(draft: Draft, op: act.Silu, x: Ref) -> Outputs:
    return draft.node("Mul", x, draft.node("Sigmoid", x))


@writes(act.Mish)
def _mish(draft: Draft, op: act.Mish, x: Ref) -> Outputs:
    return draft.node("Mish", x)


@writes(act.Softsign)
def _softsign(draft: Draft, op: act.Softsign, x: Ref) -> Outputs:
    return draft.node("Softsign", x)


@writes(act.Softmax, act.LogSoftmax)
def _softmax(draft: Draft, op: act.AlongAxis, x: Ref) -> Outputs:
    if math.prod(x.shape) == 0:
        return None
    return draft.node(op.name, x, axis=op.axis)
