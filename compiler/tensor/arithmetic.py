"""Further methods of tensors that work element by element, made of those of `pointwise.py`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..ops import trigonometry as trig
from ..ops.base import apply
from . import pointwise, reduction
from .pointwise import Other
from .promotion import Scalar, as_float, as_tensor, promote

if TYPE_CHECKING:
    from .handle import Tensor


def _both(a: Tensor, b: Other) -> tuple[Tensor, Tensor]:
    """Two operands as floats of one dtype."""
    first, second = promote(a, b if isinstance(b, Scalar) else as_tensor(b, a))
    return as_float(first), as_float(second)


# -- two operands ---------------------------------------------------------------------------------


def atan2(self: Tensor, other: Other) -> Tensor:
    """The angle of the point (other, self) in radians, from -π to π."""
    y, x = _both(self, other)
    return apply(trig.Atan2(), y, x)


def copysign(self: Tensor, other: Other) -> Tensor:
    """The absolute value with the sign of the other one; that of -0 counts."""
    x, y = _both(self, other)
    return signbit(y).where(-x.abs(), x.abs())


def fmod(self: Tensor, other: Other) -> Tensor:
    """The remainder of a division that is rounded to 0: it has the sign of the dividend."""
    x, y = promote(self, other if isinstance(other, Scalar) else as_tensor(other, self))
    rest = x.abs() % y.abs()
    return (x < 0).where(-rest, rest)


def fmax(self: Tensor, other: Other) -> Tensor:
    """The larger one of each two elements; NaN only where both are."""
    a, b = _both(self, other)
    return ((a >= b) | b.isnan()).where(a, b)


def fmin(self: Tensor, other: Other) -> Tensor:
    """The smaller one of each two elements; NaN only where both are."""
    a, b = _both(self, other)
    return ((a <= b) | b.isnan()).where(a, b)


def heaviside(self: Tensor, values: Other) -> Tensor:
    """0 below 0, 1 above, and `values` at 0."""
    x, at_zero = _both(self, values)
    step = (x > 0).where(1.0, (x < 0).where(0.0, at_zero))
    return x.isnan().where(x, step)


def hypot(self: Tensor, other: Other) -> Tensor:
    """The square root of the sum of both squares, also where these would be infinite."""
    a, b = _both(self, other)
    top = a.abs().maximum(b.abs()).detach()
    scale = ((top > 0) & top.isfinite()).where(top, 1.0)
    total = (a / scale).square() + (b / scale).square()
    return reduction.root(total) * scale


def isclose(
    self: Tensor, other: Other, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Tensor:
    """Whether |self - other| <= atol + rtol |other|."""
    a, b = _both(self, other)
    close = ((a - b).abs() <= atol + rtol * b.abs()) & b.isfinite() | a.equal(b)
    return close | (a.isnan() & b.isnan()) if equal_nan else close


def allclose(
    self: Tensor, other: Other, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Tensor:
    """Whether all elements are close."""
    return isclose(self, other, rtol, atol, equal_nan).all()


def logaddexp(self: Tensor, other: Other) -> Tensor:
    """log(exp(self) + exp(other)), also where these would be infinite."""
    a, b = _both(self, other)
    top = a.maximum(b).detach()
    top = top.isfinite().where(top, 0.0)
    return ((a - top).exp() + (b - top).exp()).log() + top


def logaddexp2(self: Tensor, other: Other) -> Tensor:
    """log2(2 ** self + 2 ** other), also where these would be infinite."""
    a, b = _both(self, other)
    return logaddexp(a * math.log(2), b * math.log(2)) * (1 / math.log(2))


def xlogy(self: Tensor, other: Other) -> Tensor:
    """The product self * log(other), 0 where self is 0."""
    x, y = _both(self, other)
    zero = x.equal(0) & y.isnan().logical_not()
    return zero.where(0.0, x * zero.where(1.0, y).log())


# -- one operand ----------------------------------------------------------------------------------


def deg2rad(self: Tensor) -> Tensor:
    """Degrees as radians."""
    return as_float(self) * (math.pi / 180)


def rad2deg(self: Tensor) -> Tensor:
    """Radians as degrees."""
    return as_float(self) * (180 / math.pi)


def exp2(self: Tensor) -> Tensor:
    """2 ** x"""
    return 2.0 ** as_float(self)


def frac(self: Tensor) -> Tensor:
    """What is behind the point: x - trunc(x)."""
    return self - pointwise.trunc(self)


def isneginf(self: Tensor) -> Tensor:
    """Whether it is minus infinity."""
    return as_float(self).equal(-math.inf)


def isposinf(self: Tensor) -> Tensor:
    """Whether it is plus infinity."""
    return as_float(self).equal(math.inf)


def logit(self: Tensor, eps: float | None = None) -> Tensor:
    """log(x / (1 - x)), the inverse of the sigmoid.

    Arguments:
        eps: x is clamped to eps … 1 - eps first.
    """
    x = as_float(self)
    x = x if eps is None else x.clamp(eps, 1 - eps)
    return (x / (1 - x)).log()


def signbit(self: Tensor) -> Tensor:
    """Whether it is below 0; -0 is."""
    if not self.dtype.is_float:
        return self < 0
    return (self < 0) | (self.equal(0) & (1 / self < 0))


def sinc(self: Tensor) -> Tensor:
    """sin(π x) / (π x), 1 at 0."""
    zero = self.equal(0)
    angle = zero.where(1.0, as_float(self) * math.pi)
    return zero.where(1.0, angle.sin() / angle)


def is_floating_point(self: Tensor) -> bool:
    """Whether it is of floats."""
    return self.dtype.is_float


def requires_grad_(self: Tensor, requires_grad: bool = True) -> Tensor:
    """Itself: gradients by any tensor of a network can be asked for.

    Raises:
        UsageError: to stop gradients, `detach()` gives another tensor.
    """
    if not requires_grad:
        raise UsageError("tensors do not change; write x = x.detach()")
    return self
