"""Arithmetic, comparison, logic: element by element."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Any

import numpy as np

from ....compiler.errors import OnnxError
from ....compiler.ops import pointwise as pw
from ....compiler.ops import trigonometry as trig
from ....compiler.ops.activation import Clip
from ....compiler.ops.base import Op, apply
from ....compiler.ops.cumulative import CumProd, CumSum
from ....compiler.tensor import Tensor
from ....compiler.types import Array, DType, normalize_axis
from ..call import Call, Operand, Result, operator
from ..proto import dtype_of, element_type, numpy_dtype

_SAME: dict[str, Op] = {
    "Abs": pw.Abs(),
    "Acos": trig.Acos(),
    "Acosh": trig.Acosh(),
    "Add": pw.Add(),
    "And": pw.And(),
    "Asin": trig.Asin(),
    "Asinh": trig.Asinh(),
    "Atan": trig.Atan(),
    "Atanh": trig.Atanh(),
    "BitwiseAnd": pw.And(),
    "BitwiseNot": pw.Not(),
    "BitwiseOr": pw.Or(),
    "BitwiseXor": pw.Xor(),
    "Ceil": pw.Ceil(),
    "Cos": pw.Cos(),
    "Cosh": trig.Cosh(),
    "Equal": pw.Equal(),
    "Erf": pw.Erf(),
    "Exp": pw.Exp(),
    "Floor": pw.Floor(),
    "Greater": pw.Greater(),
    "GreaterOrEqual": pw.GreaterEqual(),
    "IsNaN": pw.IsNaN(),
    "Less": pw.Less(),
    "LessOrEqual": pw.LessEqual(),
    "Log": pw.Log(),
    "Mul": pw.Multiply(),
    "Neg": pw.Negate(),
    "Not": pw.Not(),
    "Or": pw.Or(),
    "Round": pw.Round(),
    "Sigmoid": pw.Sigmoid(),
    "Sign": pw.Sign(),
    "Sin": pw.Sin(),
    "Sinh": trig.Sinh(),
    "Sqrt": pw.Sqrt(),
    "Sub": pw.Subtract(),
    "Tan": trig.Tan(),
    "Tanh": pw.Tanh(),
    "Where": pw.Where(),
    "Xor": pw.Xor(),
}


@operator(*_SAME)
def _same(call: Call) -> Result:
    inputs = call.all()
    if call.version < 7 and len(inputs) == 2:
        inputs[1] = _aligned(call, inputs)
    return call.apply(_SAME[call.operator], *inputs)


def _aligned(call: Call, inputs: list[Tensor]) -> Tensor:
    """The second operand where operator sets before 7 put it: from `axis` of the first on."""
    a, b = inputs
    axis = call.integer("axis", a.rank - b.rank)
    return b.reshape(b.shape + (1,) * (a.rank - axis - b.rank))


@operator("Div")
def _divide(call: Call) -> Result:
    a, b = call.all()
    if call.version < 7:
        b = _aligned(call, [a, b])
    if a.dtype.is_float:
        return apply(pw.Divide(), a, b)
    if a.dtype is DType.UINT8:
        return a // b
    # Integers are cut towards 0.
    quotient = a.abs() // b.abs()
    return ((a < 0) ^ (b < 0)).where(-quotient, quotient)


@operator("Mod")
def _mod(call: Call) -> Result:
    a, b = call.all()
    if not call.flag("fmod"):
        return a % b
    if a.dtype is DType.UINT8:
        return a % b
    rest = a.abs() % b.abs()  # the sign of the dividend
    return (a < 0).where(-rest, rest)


@operator("Pow")
def _power(call: Call) -> Result:
    a, b = call.all()
    if a.dtype.is_float:
        return a ** b.cast(a.dtype)
    return (a.cast(DType.FLOAT64) ** b.cast(DType.FLOAT64)).cast(a.dtype)


@operator("Reciprocal")
def _reciprocal(call: Call) -> Result:
    return 1.0 / call.x()


@operator("Sum")
def _sum(call: Call) -> Result:
    return reduce(Tensor.__add__, call.all())


@operator("Mean")
def _mean(call: Call) -> Result:
    return reduce(Tensor.__add__, call.all()) / float(len(call.inputs))


@operator("Max")
def _max(call: Call) -> Result:
    return reduce(Tensor.maximum, call.all())


@operator("Min")
def _min(call: Call) -> Result:
    return reduce(Tensor.minimum, call.all())


@operator("Clip")
def _clip(call: Call) -> Result:
    x = call.x()
    try:
        low, high = call.given_number("min", 1), call.given_number("max", 2)
    except OnnxError:
        x = x.maximum(call.x(1)) if call.has(1) else x
        return x.minimum(call.x(2)) if call.has(2) else x
    if low is not None and high is not None and low > high:
        low = high  # then every element is `max`
    if x.dtype.is_float:
        return call.apply(Clip(low, high), x)
    x = x if low is None else x.maximum(int(low))
    return x if high is None else x.minimum(int(high))


@operator("IsInf")
def _is_infinite(call: Call) -> Result:
    x = call.x()
    result = x.graph.constant(np.zeros(x.shape, bool)) if not x.type.size else None
    if result is not None:
        return result
    wanted = []
    if call.flag("detect_positive", True):
        wanted.append(x.equal(float("inf")))
    if call.flag("detect_negative", True):
        wanted.append(x.equal(float("-inf")))
    return reduce(or_, wanted) if wanted else call.filled(x.shape, False, DType.BOOL)


@operator("BitShift")
def _bit_shift(call: Call) -> Result:
    x, amount = call.all()
    left = call.text("direction") == "LEFT"
    width = 8 * x.dtype.size
    beyond = amount >= width
    if x.dtype is not DType.UINT8:
        beyond = beyond | (amount < 0)
    empty = x.constant(0)
    if not left and x.dtype is not DType.UINT8:  # the sign moves in
        empty = (x < 0).where(x.constant(-1), empty)
    shifted = x
    # By 1, 2, 4, … as the bits of the amount say; so no power of two overflows.
    for step in (1 << bit for bit in range(width.bit_length() - 1)):
        moved = shifted * (1 << step) if left else shifted // (1 << step)
        shifted = ((amount // step) % 2).equal(1).where(moved, shifted)
    return beyond.where(empty, shifted)


@operator("CumSum", "CumProd")
def _cumulative(call: Call) -> Result:
    x = call.x()
    axis = normalize_axis(int(call.known(1).reshape(-1)[0]), x.rank)
    kind = CumSum if call.operator == "CumSum" else CumProd
    return call.apply(kind(axis, call.flag("exclusive"), call.flag("reverse")), x)


# -- types -----------------------------------------------------------------------------------------


@operator("Identity")
def _identity(call: Call) -> Result:
    return call.operand(0)


@operator("Cast")
def _cast(call: Call) -> Result:
    return _converted(call, call.integer("to"))


@operator("CastLike")
def _cast_like(call: Call) -> Result:
    return _converted(call, element_type(call.dtype(1)))


def _converted(call: Call, element: int) -> Operand:
    value = call.operand(0)
    if isinstance(value, np.ndarray):
        return _cast_array(value, numpy_dtype(element))
    x, dtype = call.x(), dtype_of(element)
    if x.dtype.is_float and dtype is DType.UINT8:
        return x.cast(DType.INT32).cast(dtype)
    return x.cast(dtype)


def _cast_array(x: Array, dtype: np.dtype[Any]) -> Array:
    with np.errstate(all="ignore"):
        return x.astype(dtype)
