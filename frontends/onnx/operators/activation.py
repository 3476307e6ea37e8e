"""Activation functions."""

from __future__ import annotations

from ....compiler.ops import activation as act
from ....compiler.ops.base import apply
from ....compiler.ops.indexing import ArgMax, OneHot
from ....compiler.ops.pointwise import Expm1
from ....compiler.tensor import Tensor
from ....compiler.types import normalize_axis
from ..call import Call, Result, operator


@operator("Relu")
def _relu(call: Call) -> Result:
    return call.x().relu()


@operator("LeakyRelu")
def _leaky_relu(call: Call) -> Result:
    return call.apply(act.LeakyRelu(call.number("alpha", 0.01)))


@operator("PRelu")
def _prelu(call: Call) -> Result:
    x, slope = call.all()
    if call.version < 7 and slope.rank == 1 and slope.shape[0] > 1:
        return call.apply(act.PRelu(), x, slope)
    # A slope a channel, written to broadcast, is what PRelu takes.
    own = [d for d, n in enumerate(slope.shape, x.rank - slope.rank) if n > 1]
    if slope.type.size == 1 or (own == [1] and slope.type.size == x.shape[1]):
        return call.apply(act.PRelu(), x, slope.reshape(-1))
    return (x > 0).where(x, x * slope)


@operator("Elu")
def _elu(call: Call) -> Result:
    return call.apply(act.Elu(call.number("alpha", 1.0)))


@operator("Selu")
def _selu(call: Call) -> Result:
    alpha = call.number("alpha", 1.67326319217681884765625)
    gamma = call.number("gamma", 1.05070102214813232421875)
    return call.apply(act.Elu(alpha)) * gamma


@operator("Celu")
def _celu(call: Call) -> Result:
    alpha = call.number("alpha", 1.0)
    x = call.x()
    return (x > 0.0).where(x, alpha * apply(Expm1(), (x / alpha).minimum(0.0)))


@operator("ThresholdedRelu")
def _thresholded_relu(call: Call) -> Result:
    x = call.x()
    return (x > call.number("alpha", 1.0)).where(x, 0.0)


@operator("Shrink")
def _shrink(call: Call) -> Result:
    x, bias, edge = call.x(), call.number("bias", 0.0), call.number("lambd", 0.5)
    kind = x.dtype
    if not kind.is_float:
        x = x.cast("float32")
    y = (x < -edge).where(x + bias, (x > edge).where(x - bias, 0.0))
    return y.cast(kind)


@operator("HardSigmoid")
def _hard_sigmoid(call: Call) -> Result:
    alpha, beta = call.number("alpha", 0.2), call.number("beta", 0.5)
    return apply(act.HardTanh(0.0, 1.0), call.x() * alpha + beta)


@operator("HardSwish")
def _hard_swish(call: Call) -> Result:
    return call.apply(act.HardSwish())


@operator("Softplus")
def _softplus(call: Call) -> Result:
    return call.apply(act.Softplus(1.0, float("inf")))


@operator("Softsign")
def _softsign(call: Call) -> Result:
    return call.apply(act.Softsign())


@operator("Mish")
def _mish(call: Call) -> Result:
    return call.apply(act.Mish())


@operator("Swish")
def _swish(call: Call) -> Result:
    alpha = call.number("alpha", 1.0)
    x = call.x()
    return call.apply(act.Silu()) if alpha == 1.0 else x * (alpha * x).sigmoid()


@operator("Gelu")
def _gelu(call: Call) -> Result:
    return call.apply(act.Gelu(act.GeluForm(call.text("approximate", "none"))))


@operator("Softmax", "LogSoftmax", "Hardmax")
def _softmax(call: Call) -> Result:
    x = call.x()
    shape = x.shape
    axis = normalize_axis(call.integer("axis", 1 if call.version < 13 else -1), x.rank)
    if call.version < 13 and axis != x.rank - 1:  # over all axes from `axis` on, as one
        x = x.flatten(axis)
    if call.operator == "Hardmax":
        return _hardmax(x, axis).reshape(shape)
    kind = act.Softmax if call.operator == "Softmax" else act.LogSoftmax
    return call.apply(kind(axis), x).reshape(shape)


def _hardmax(x: Tensor, axis: int) -> Tensor:
    winner = apply(ArgMax(axis), x)
    return apply(OneHot(x.shape[axis], axis, x.dtype), winner)
