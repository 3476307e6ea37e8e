"""Arithmetic, comparison, logic: element by element."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ....compiler.ops import pointwise as pw
from ....compiler.ops import trigonometry as trig
from ....compiler.ops.base import Op, apply
from ....compiler.tensor import Tensor, promote
from ....compiler.types import DType
from ..table import OPERATORS, dtype_of, operator, refuse_unless

Number = Tensor | float | int | bool

_UNARY: dict[str, Op] = {
    "abs": pw.Abs(),
    "acos": trig.Acos(),
    "acosh": trig.Acosh(),
    "asin": trig.Asin(),
    "asinh": trig.Asinh(),
    "atan": trig.Atan(),
    "atanh": trig.Atanh(),
    "bitwise_not": pw.Not(),
    "ceil": pw.Ceil(),
    "cos": pw.Cos(),
    "cosh": trig.Cosh(),
    "erf": pw.Erf(),
    "exp": pw.Exp(),
    "expm1": pw.Expm1(),
    "floor": pw.Floor(),
    "isnan": pw.IsNaN(),
    "log": pw.Log(),
    "log1p": pw.Log1p(),
    "neg": pw.Negate(),
    "round": pw.Round(),
    "sigmoid": pw.Sigmoid(),
    "sign": pw.Sign(),
    "sin": pw.Sin(),
    "sinh": trig.Sinh(),
    "sqrt": pw.Sqrt(),
    "tan": trig.Tan(),
    "tanh": pw.Tanh(),
}

_BINARY: dict[str, Callable[[Tensor, Number], Tensor]] = {
    "bitwise_and": Tensor.__and__,
    "bitwise_or": Tensor.__or__,
    "bitwise_xor": Tensor.__xor__,
    "eq": Tensor.equal,
    "ge": Tensor.__ge__,
    "gt": Tensor.__gt__,
    "le": Tensor.__le__,
    "lt": Tensor.__lt__,
    "mul": Tensor.__mul__,
    "ne": Tensor.not_equal,
    "remainder": Tensor.__mod__,
}


def _unary(op: Op) -> Callable[[Tensor], Tensor]:
    return lambda x: apply(op, x)


OPERATORS.update({f"aten.{name}.default": _unary(op) for name, op in _UNARY.items()})
OPERATORS.update(
    {
        f"aten.{name}.{kind}": function
        for name, function in _BINARY.items()
        for kind in ("Tensor", "Scalar")
    }
)


@operator("add.Tensor", "add.Scalar")
def _add(a: Tensor, b: Number, *, alpha: float = 1) -> Tensor:
    return a + (b if alpha == 1 else b * alpha)


@operator("sub.Tensor", "sub.Scalar")
def _subtract(a: Tensor, b: Number, *, alpha: float = 1) -> Tensor:
    return a - (b if alpha == 1 else b * alpha)


@operator("rsub.Tensor", "rsub.Scalar")
def _subtract_from(a: Tensor, b: Number, *, alpha: float = 1) -> Tensor:
    (first,) = promote(b, like=a) if not isinstance(b, Tensor) else (b,)
    return first.cast(a.dtype) - (a if alpha == 1 else a * alpha)


@operator("div.Tensor", "div.Scalar")
def _divide(a: Tensor, b: Number) -> Tensor:
    return _as_float(a) / (_as_float(b) if isinstance(b, Tensor) else float(b))


@operator("div.Tensor_mode", "div.Scalar_mode")
def _divide_rounded(a: Tensor, b: Number, *, rounding_mode: str | None) -> Tensor:
    if rounding_mode is None:
        return _divide(a, b)
    refuse_unless(rounding_mode == "floor", f"division rounded by {rounding_mode!r}")
    return a // b


@operator("floor_divide.default")
def _floor_divide(a: Tensor, b: Number) -> Tensor:
    return a // b


def _as_float(x: Tensor) -> Tensor:
    return x if x.dtype.is_float else x.cast(DType.FLOAT32)


@operator("pow.Tensor_Scalar", "pow.Tensor_Tensor")
def _power(x: Tensor, exponent: Number) -> Tensor:
    """By products where the exponent is a small whole number."""
    if isinstance(exponent, int | float) and exponent in (1, 2, 3):
        return math.prod([x] * int(exponent - 1), start=x)
    if isinstance(exponent, int | float) and exponent == 0.5:
        return x.sqrt()
    return x**exponent


@operator("pow.Scalar")
def _power_of(base: float, exponent: Tensor) -> Tensor:
    return exponent.constant(base) ** exponent


@operator("square.default")
def _square(x: Tensor) -> Tensor:
    return x * x


@operator("rsqrt.default")
def _reciprocal_root(x: Tensor) -> Tensor:
    return 1.0 / x.sqrt()


@operator("reciprocal.default")
def _reciprocal(x: Tensor) -> Tensor:
    return 1.0 / x


@operator("clamp.default", "clamp.Tensor", "clamp_min.default", "clamp_min.Tensor")
def _clamp(x: Tensor, min: Number | None = None, max: Number | None = None) -> Tensor:
    x = x if min is None else x.maximum(min)
    return x if max is None else x.minimum(max)


@operator("clamp_max.default", "clamp_max.Tensor")
def _clamp_max(x: Tensor, max: Number) -> Tensor:
    return x.minimum(max)


@operator("maximum.default", "max.other")
def _maximum(a: Tensor, b: Tensor) -> Tensor:
    return a.maximum(b)


@operator("minimum.default", "min.other")
def _minimum(a: Tensor, b: Tensor) -> Tensor:
    return a.minimum(b)


@operator("where.self", "where.ScalarOther", "where.ScalarSelf", "where.Scalar")
def _where(condition: Tensor, a: Number, b: Number) -> Tensor:
    return condition.where(a, b)


@operator("masked_fill.Scalar", "masked_fill.Tensor")
def _masked_fill(x: Tensor, mask: Tensor, value: Number) -> Tensor:
    return mask.where(value, x)


@operator("logical_not.default")
def _not(x: Tensor) -> Tensor:
    return ~_truth(x)


@operator("logical_and.default")
def _and(a: Tensor, b: Tensor) -> Tensor:
    return _truth(a) & _truth(b)


@operator("logical_or.default")
def _or(a: Tensor, b: Tensor) -> Tensor:
    return _truth(a) | _truth(b)


def _truth(x: Tensor) -> Tensor:
    return x if x.dtype is DType.BOOL else x.not_equal(0)


@operator("addcmul.default")
def _add_product(x: Tensor, a: Tensor, b: Tensor, *, value: float = 1) -> Tensor:
    return x + a * b * value


@operator("addcdiv.default")
def _add_quotient(x: Tensor, a: Tensor, b: Tensor, *, value: float = 1) -> Tensor:
    return x + a / b * value


@operator("lerp.Scalar", "lerp.Tensor")
def _interpolate(a: Tensor, b: Tensor, weight: Number) -> Tensor:
    return a + (b - a) * weight


# -- types and identity ---------------------------------------------------------------------------


@operator("_to_copy.default", "to.dtype", "to.dtype_layout")
def _cast(x: Tensor, dtype: Any = None, *rest: Any, **options: Any) -> Tensor:
    return x if dtype is None else x.cast(dtype_of(dtype))


@operator("type_as.default")
def _cast_like(x: Tensor, other: Tensor) -> Tensor:
    return x.cast(other.dtype)


@operator("clone.default", "contiguous.default", "alias.default", "lift_fresh_copy.default")
@operator("to.device", "positive.default")
def _identity(x: Tensor, *rest: Any, **options: Any) -> Tensor:
    return x


@operator("detach.default", "detach_.default")
def _detach(x: Tensor) -> Tensor:
    return x.detach()


@operator("_assert_tensor_metadata.default")
def _nothing(*arguments: Any, **options: Any) -> None:
    """What PyTorch checks as it runs has been checked by types here."""
