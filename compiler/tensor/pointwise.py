"""Methods of tensors that work element by element, with NumPy's broadcasting."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias
from typing import cast as cast_type

import numpy as np
from numpy.typing import DTypeLike

from ..errors import DTypeError
from ..ops import pointwise as pw
from ..ops import special as sp
from ..ops import trigonometry as trig
from ..ops.base import Op, apply
from ..types import DType
from .promotion import Scalar, as_float, as_tensor, constant, is_tensor, promote

if TYPE_CHECKING:
    from .handle import Tensor

Other: TypeAlias = "Tensor | Scalar"


# -- two operands ---------------------------------------------------------------------------------


def binary(op: Op, a: Other, b: Other, of_floats: bool = False) -> Tensor:
    """An operation on two operands of one dtype; NotImplemented for what is no operand."""
    if isinstance(b, np.ndarray | np.generic) and is_tensor(a):
        b = constant(np.asarray(b), a)
    elif isinstance(a, np.ndarray | np.generic) and is_tensor(b):
        a = constant(np.asarray(a), b)
    if not all(is_tensor(x) or isinstance(x, Scalar) for x in (a, b)):
        return cast_type("Tensor", NotImplemented)
    first, second = promote(a, b)
    if of_floats:
        first, second = as_float(first), as_float(second)
    return apply(op, first, second)


def operator(op: Op, of_floats: bool = False) -> Callable[[Tensor, Other], Tensor]:
    """The method of an operator with the tensor on its left."""
    return lambda self, other: binary(op, self, other, of_floats)


def reflected(op: Op, of_floats: bool = False) -> Callable[[Tensor, Other], Tensor]:
    """The method of an operator with the tensor on its right."""
    return lambda self, other: binary(op, other, self, of_floats)


def add(self: Tensor, other: Other, *, alpha: float = 1) -> Tensor:
    """The sum self + alpha * other."""
    return self + (other if alpha == 1 else other * alpha)


def subtract(self: Tensor, other: Other, *, alpha: float = 1) -> Tensor:
    """The difference self - alpha * other."""
    return self - (other if alpha == 1 else other * alpha)


def multiply(self: Tensor, other: Other) -> Tensor:
    """The product self * other."""
    return self * other


def divide(self: Tensor, other: Other, *, rounding_mode: str | None = None) -> Tensor:
    """The quotient self / other, of floats; or rounded: "floor" down, "trunc" to 0."""
    if rounding_mode == "floor":
        return self // other
    quotient = self / other
    return quotient if rounding_mode is None else trunc(quotient)


def power(self: Tensor, exponent: Other) -> Tensor:
    """The power self ** exponent; by products where that is 1, 2 or 3."""
    if isinstance(exponent, Scalar) and exponent in (1, 2, 3) and self.dtype is not DType.BOOL:
        return math.prod([self] * int(exponent - 1), start=self)
    if isinstance(exponent, Scalar) and exponent == 0.5:
        return sqrt(self)
    return self**exponent


def raised(self: Tensor, exponent: Other) -> Tensor:
    """The power self ** exponent; of integers an integer."""
    if not _is_whole(self, exponent):
        return binary(pw.Power(), self, exponent, of_floats=True)
    if isinstance(exponent, Scalar) and exponent < 0:
        raise DTypeError(
            f"{self.type} has no integers as its power {exponent}; make it float first"
        )
    base, power = promote(self, exponent)
    if isinstance(exponent, Scalar) and exponent in (1, 2, 3):
        return math.prod([base] * int(exponent - 1), start=base)
    # Exact up to 2^53; what is smaller than 1 is 0.
    result = apply(pw.Power(), base.cast(DType.FLOAT64), power.cast(DType.FLOAT64))
    return round(result).cast(base.dtype)


def raising(self: Tensor, base: Other) -> Tensor:
    """The power base ** self; of integers an integer."""
    if _is_whole(base, self):
        return raised(promote(base, self)[0], self)
    return binary(pw.Power(), base, self, of_floats=True)


def _is_whole(*operands: Other) -> bool:
    """Whether these are integers and tensors of integers."""
    return all(isinstance(x, int) or (is_tensor(x) and not x.dtype.is_float) for x in operands)


def equal(self: Tensor, other: Other) -> Tensor:
    """Element by element `==`."""
    return binary(pw.Equal(), self, other)


def not_equal(self: Tensor, other: Other) -> Tensor:
    """Element by element `!=`."""
    return binary(pw.NotEqual(), self, other)


def maximum(self: Tensor, other: Other) -> Tensor:
    """The larger one of each two elements."""
    return binary(pw.Maximum(), self, other)


def minimum(self: Tensor, other: Other) -> Tensor:
    """The smaller one of each two elements."""
    return binary(pw.Minimum(), self, other)


def logical_and(self: Tensor, other: Tensor) -> Tensor:
    """Whether both are true."""
    return truth(self) & truth(as_tensor(other, self))


def logical_or(self: Tensor, other: Tensor) -> Tensor:
    """Whether one of them is true."""
    return truth(self) | truth(as_tensor(other, self))


def logical_xor(self: Tensor, other: Tensor) -> Tensor:
    """Whether one of them is true, and the other is not."""
    return truth(self) ^ truth(as_tensor(other, self))


def lerp(self: Tensor, end: Tensor, weight: Other) -> Tensor:
    """On the line between two: self + weight * (end - self), exactly `end` at 1."""
    step = end - self
    if isinstance(weight, Scalar):
        return self + step * weight if abs(weight) < 0.5 else end - step * (1 - weight)
    share = as_tensor(weight, self)
    return choose(share.abs() < 0.5, self + step * share, end - step * (1 - share))


def addcmul(self: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    """The sum self + value * tensor1 * tensor2."""
    return self + tensor1 * tensor2 * value


def addcdiv(self: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    """The sum self + value * tensor1 / tensor2."""
    return self + tensor1 / tensor2 * value


# -- choosing -------------------------------------------------------------------------------------


def choose(condition: Tensor, a: Other, b: Other) -> Tensor:
    """Elements of a where the condition holds, else of b."""
    first, second = promote(a, b, like=condition)
    return apply(pw.Where(), condition, first, second)


def where(self: Tensor, condition: Other, other: Other) -> Tensor:
    """These elements where the condition holds, else those of another one. Of a condition itself
    `condition.where(a, b)` is what `where(condition, a, b)` is, if a is not one, too.
    """
    if is_tensor(condition) and condition.dtype is DType.BOOL:
        return choose(condition, self, other)
    return choose(self, condition, other)


def masked_fill(self: Tensor, mask: Tensor, value: Other) -> Tensor:
    """The same, with a value where the mask holds."""
    filling = self.constant(value) if isinstance(value, Scalar) else value
    return choose(mask, filling, self)


def clamp(self: Tensor, min: Other | None = None, max: Other | None = None) -> Tensor:
    """Elements between two bounds, of which one may be missing."""
    x = self if min is None else self.maximum(min)
    return x if max is None else x.minimum(max)


def clamp_min(self: Tensor, min: Other) -> Tensor:
    """The larger one of each element and a bound."""
    return self.maximum(min)


def clamp_max(self: Tensor, max: Other) -> Tensor:
    """The smaller one of each element and a bound."""
    return self.minimum(max)


def nan_to_num(
    self: Tensor, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None
) -> Tensor:
    """Numbers in place of NaN and infinities; the largest finite ones by default."""
    if not self.dtype.is_float:
        return self
    most = float(np.finfo(self.dtype.numpy).max)
    x = isnan(self).where(nan, self)
    x = x.equal(np.inf).where(most if posinf is None else posinf, x)
    return x.equal(-np.inf).where(-most if neginf is None else neginf, x)


# -- one operand ----------------------------------------------------------------------------------


def _rounded(op: Op, summary: str) -> Callable[[Tensor], Tensor]:
    """A method that gives whole numbers, and leaves integers as they are."""

    def method(self: Tensor) -> Tensor:
        return apply(op, self) if self.dtype.is_float else self

    method.__doc__ = summary
    method.__name__ = method.__qualname__ = type(op).__name__.lower()
    return method


def _unary(op: Op, summary: str, of_floats: bool = True) -> Callable[[Tensor], Tensor]:
    """A method for an operation; those of floats take integers as float32."""

    def method(self: Tensor) -> Tensor:
        return apply(op, as_float(self) if of_floats else self)

    method.__doc__ = summary
    method.__name__ = method.__qualname__ = type(op).__name__.lower()
    return method


absolute = _unary(pw.Abs(), "Absolute value.", of_floats=False)
acos = _unary(trig.Acos(), "Arc cosine, from 0 to π.")
acosh = _unary(trig.Acosh(), "Inverse of the hyperbolic cosine.")
asin = _unary(trig.Asin(), "Arc sine, from -π/2 to π/2.")
asinh = _unary(trig.Asinh(), "Inverse of the hyperbolic sine.")
atan = _unary(trig.Atan(), "Arc tangent, from -π/2 to π/2.")
atanh = _unary(trig.Atanh(), "Inverse of the hyperbolic tangent.")
bitwise_not = _unary(pw.Not(), "Whether it is not true.", of_floats=False)
ceil = _rounded(pw.Ceil(), "The next whole number above.")
cos = _unary(pw.Cos(), "Cosine of an angle in radians.")
cosh = _unary(trig.Cosh(), "Hyperbolic cosine.")
digamma = _unary(sp.Digamma(), "The derivative of log Γ(x).")
erf = _unary(pw.Erf(), "Error function.")
erfc = _unary(sp.Erfc(), "1 - erf(x), also where that is tiny.")
erfinv = _unary(sp.Erfinv(), "The number of which this is the error function.")
exp = _unary(pw.Exp(), "The exponential.")
expm1 = _unary(pw.Expm1(), "exp(x) - 1, also for small x.")
floor = _rounded(pw.Floor(), "The next whole number below.")
isnan = _unary(pw.IsNaN(), "Whether it is no number.")
lgamma = _unary(sp.Lgamma(), "log |Γ(x)|")
log = _unary(pw.Log(), "Natural logarithm.")
log1p = _unary(pw.Log1p(), "log(1 + x), also for small x.")
negative = _unary(pw.Negate(), "The number with the other sign.", of_floats=False)
relu = _unary(pw.Relu(), "max(x, 0)", of_floats=False)
round = _rounded(pw.Round(), "The nearest whole number, the even one of two.")
sigmoid = _unary(pw.Sigmoid(), "1 / (1 + exp(-x))")
sign = _unary(pw.Sign(), "-1, 0 or 1.", of_floats=False)
sin = _unary(pw.Sin(), "Sine of an angle in radians.")
sinh = _unary(trig.Sinh(), "Hyperbolic sine.")
sqrt = _unary(pw.Sqrt(), "Square root.")
tan = _unary(trig.Tan(), "Tangent of an angle in radians.")
tanh = _unary(pw.Tanh(), "Hyperbolic tangent.")


def square(self: Tensor) -> Tensor:
    """The number times itself."""
    return self * self


def rsqrt(self: Tensor) -> Tensor:
    """1 / sqrt(x)"""
    return 1.0 / sqrt(self)


def reciprocal(self: Tensor) -> Tensor:
    """1 / x"""
    return 1.0 / self


def log2(self: Tensor) -> Tensor:
    """Logarithm to the base of 2."""
    return log(self) * (1.0 / float(np.log(2.0)))


def log10(self: Tensor) -> Tensor:
    """Logarithm to the base of 10."""
    return log(self) * (1.0 / float(np.log(10.0)))


def trunc(self: Tensor) -> Tensor:
    """The next whole number on the way to 0."""
    return (self < 0).where(ceil(self), floor(self))


def logical_not(self: Tensor) -> Tensor:
    """Whether it is not true."""
    return ~truth(self)


def isinf(self: Tensor) -> Tensor:
    """Whether it is an infinity."""
    return absolute(as_float(self)).equal(float("inf"))


def isfinite(self: Tensor) -> Tensor:
    """Whether it is neither an infinity nor NaN."""
    return absolute(as_float(self)) < float("inf")


# -- types ----------------------------------------------------------------------------------------


def truth(x: Tensor) -> Tensor:
    """Whether elements are other than 0."""
    return x if x.dtype is DType.BOOL else x.not_equal(0)


def cast(self: Tensor, dtype: DType | DTypeLike) -> Tensor:
    """The same values in another dtype (itself when it has that dtype already)."""
    wanted = DType.of(dtype)
    return self if wanted is self.dtype else apply(pw.Cast(wanted), self)


def type_as(self: Tensor, other: Tensor) -> Tensor:
    """The same values in another tensor's dtype."""
    return self.cast(other.dtype)


def to(self: Tensor, dtype: DType | DTypeLike) -> Tensor:
    """The same values in another dtype; "cpu" is where all are."""
    if isinstance(dtype, str) and dtype == "cpu":
        return self
    return self.cast(dtype)


def converter(dtype: DType) -> Callable[[Tensor], Tensor]:
    """A method that gives the same values in a dtype."""
    return lambda self: self.cast(dtype)
