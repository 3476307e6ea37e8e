"""Arithmetic, comparison, logic: element by element."""

from __future__ import annotations

from typing import Any

from ....compiler.tensor import Tensor, promote
from ..table import dtype_of, enter_methods, operator

Number = Tensor | float | int | bool

# Operators that are methods of the same name, by their overloads.
enter_methods(
    "default",
    "abs acos acosh asin asinh atan atan2 atanh bitwise_not ceil clamp clamp_max clamp_min cos "
    "cosh digamma erf erfc erfinv exp exp2 expm1 floor floor_divide fmax fmin heaviside hypot "
    "isfinite isinf isnan lgamma log log10 log1p log2 logaddexp logaddexp2 logical_and logical_not "
    "logical_or logical_xor logit maximum minimum nan_to_num neg reciprocal round rsqrt sigmoid "
    "sign signbit sin sinc sinh sqrt square tan tanh trunc type_as",
)
enter_methods(
    "Tensor Scalar",
    "add bitwise_and bitwise_or bitwise_xor copysign div eq fmod ge gt le lerp lt masked_fill mul "
    "ne remainder sub xlogy",
)
enter_methods("Tensor", "clamp clamp_max clamp_min")
enter_methods("default", "addcdiv addcmul addmv")
enter_methods("Tensor_Scalar Tensor_Tensor", "pow")
enter_methods("Tensor_mode Scalar_mode", "div")
enter_methods("self ScalarOther ScalarSelf Scalar", "where")


@operator("round.decimals")
def _round(x: Tensor, *, decimals: int = 0) -> Tensor:
    scale = 10.0 ** abs(decimals)
    return (x * scale).round() / scale if decimals > 0 else (x / scale).round() * scale


@operator("rsub.Tensor", "rsub.Scalar")
def _subtract_from(a: Tensor, b: Number, *, alpha: float = 1) -> Tensor:
    (first,) = promote(b, like=a) if not isinstance(b, Tensor) else (b,)
    return first.cast(a.dtype).sub(a, alpha=alpha)


@operator("pow.Scalar")
def _power_of(base: float, exponent: Tensor) -> Tensor:
    return exponent.constant(base) ** exponent


@operator("max.other")
def _maximum(a: Tensor, b: Tensor) -> Tensor:
    return a.maximum(b)


@operator("min.other")
def _minimum(a: Tensor, b: Tensor) -> Tensor:
    return a.minimum(b)


# -- types and identity ---------------------------------------------------------------------------


@operator("_to_copy.default", "to.dtype", "to.dtype_layout")
def _cast(x: Tensor, dtype: Any = None, *rest: Any, **options: Any) -> Tensor:
    return x if dtype is None else x.cast(dtype_of(dtype))


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
