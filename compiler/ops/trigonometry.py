"""Trigonometric and hyperbolic functions beyond the primitives, accurate to a few ULP."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from .activation import Sloped
from .base import apply
from .composite import Composite
from .pointwise import Cos, Expm1, Gradients, Log1p, Signals, Sin, Tensors, require_float

if TYPE_CHECKING:
    from ..tensor import Tensor

# atan(t) / t as a polynomial in t² for |t| <= sqrt(2) - 1: the minimax fit, relative error 1.3e-18.
_ATAN = (
    1.0,
    -0.3333333333333312,
    0.19999999999940868,
    -0.14285714279248055,
    0.11111110744810647,
    -0.09090896805912162,
    0.07692045274291998,
    -0.06662951162727927,
    0.05846873503411509,
    -0.05035080589113427,
    0.03796469507021349,
    -0.01780477396050943,
)
_LARGE = 1e8  # whose square is so large that 1 more is not seen


def _signed(x: Tensor, magnitude: Tensor) -> Tensor:
    """The value of an odd function from that of |x|."""
    return (x < 0.0).where(-magnitude, magnitude)


@dataclass(frozen=True)
class Tan(Sloped):
    """Tangent of radians."""

    def formula(self, x: Tensor) -> Tensor:
        return apply(Sin(), x) / apply(Cos(), x)

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        return 1.0 + y * y


@dataclass(frozen=True)
class Atan(Sloped):
    """Arc tangent, in radians from -pi/2 to pi/2."""

    def formula(self, x: Tensor) -> Tensor:
        a = x.abs()
        steep = a > 1.0
        t = steep.where(1.0 / a, a)  # atan(a) = pi/2 - atan(1/a)
        t = t / (1.0 + (1.0 + t * t).sqrt())  # atan(t) = 2 atan(t / (1 + sqrt(1 + t²)))
        z = t * t
        series = z * _ATAN[-1] + _ATAN[-2]
        for coefficient in reversed(_ATAN[:-2]):
            series = series * z + coefficient
        angle = 2.0 * t * series
        return _signed(x, steep.where(math.pi / 2 - angle, angle))

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        return 1.0 / (1.0 + x * x)


@dataclass(frozen=True)
class Atan2(Composite):
    """The angle of the point (x, y) from y and x, in radians from -pi to pi (numpy.arctan2)."""

    arity: ClassVar[tuple[int, int | None]] = (2, 2)

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        y, x = inputs
        require_float(self, y, x)
        a, b = y.abs(), x.abs()
        large, small = a.maximum(b), a.minimum(b)
        ratio = large.equal(small).where(1.0, small / large)  # also of two infinities
        angle = apply(Atan(), large.equal(0.0).where(0.0, ratio))
        angle = (a > b).where(math.pi / 2 - angle, angle)
        angle = x.signbit().where(math.pi - angle, angle)
        return (y.signbit().where(-angle, angle),)

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (y, x), (signal,) = inputs, signals
        if signal is None:
            return (None, None)
        size = y * y + x * x
        by_y, by_x = signal * x / size, -signal * y / size
        return by_y.sum_to(y.shape), by_x.sum_to(x.shape)


@dataclass(frozen=True)
class Asin(Sloped):
    """Arc sine, in radians from -pi/2 to pi/2; NaN outside of [-1, 1]."""

    def formula(self, x: Tensor) -> Tensor:
        return apply(Atan(), x / ((1.0 - x) * (1.0 + x)).sqrt())

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        return 1.0 / ((1.0 - x) * (1.0 + x)).sqrt()


@dataclass(frozen=True)
class Acos(Sloped):
    """Arc cosine, in radians from 0 to pi; NaN outside of [-1, 1]."""

    def formula(self, x: Tensor) -> Tensor:
        return 2.0 * apply(Atan(), ((1.0 - x) / (1.0 + x)).sqrt())

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        return -1.0 / ((1.0 - x) * (1.0 + x)).sqrt()


@dataclass(frozen=True)
class Sinh(Sloped):
    """Hyperbolic sine."""

    def formula(self, x: Tensor) -> Tensor:
        a = x.abs()
        grown = apply(Expm1(), a.minimum(20.0))
        near = 0.5 * (grown + grown / (grown + 1.0))
        half = (0.5 * a).exp()  # so that only what is too large itself overflows
        return _signed(x, (a > 20.0).where(0.5 * half * half, near))

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        return apply(Cosh(), x)


@dataclass(frozen=True)
class Cosh(Sloped):
    """Hyperbolic cosine."""

    def formula(self, x: Tensor) -> Tensor:
        half = (0.5 * x.abs()).exp()
        return 0.5 * half * half + 0.5 / half / half

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        return apply(Sinh(), x)


@dataclass(frozen=True)
class Asinh(Sloped):
    """Inverse of the hyperbolic sine."""

    def formula(self, x: Tensor) -> Tensor:
        a = x.abs()
        large = a > _LARGE
        b = large.where(0.0, a)
        near = apply(Log1p(), b + b * b / (1.0 + (1.0 + b * b).sqrt()))
        return _signed(x, large.where(a.log() + math.log(2.0), near))

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        return 1.0 / apply(Cosh(), y)


@dataclass(frozen=True)
class Acosh(Sloped):
    """Inverse of the hyperbolic cosine, from 0 on; NaN below 1."""

    def formula(self, x: Tensor) -> Tensor:
        large = x > _LARGE
        t = large.where(0.0, x - 1.0)
        near = apply(Log1p(), t + (t * (t + 2.0)).sqrt())
        inside = (t < 0.0).where(math.nan, near)  # far below, t and the root would cancel out
        return large.where(x.log() + math.log(2.0), inside)

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        return 1.0 / apply(Sinh(), y)


@dataclass(frozen=True)
class Atanh(Sloped):
    """Inverse of the hyperbolic tangent; NaN outside of [-1, 1]."""

    def formula(self, x: Tensor) -> Tensor:
        a = x.abs()
        return _signed(x, 0.5 * apply(Log1p(), 2.0 * a / (1.0 - a)))

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        return 1.0 / ((1.0 - x) * (1.0 + x))
