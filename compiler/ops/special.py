"""Error and gamma functions beyond the primitives, computed in float64 whatever they are given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..types import DType
from .activation import Activation, Sloped
from .base import apply
from .pointwise import Cos, Erf, Exp, Log, Log1p, Sin

if TYPE_CHECKING:
    from ..tensor import Tensor

# (1 + 2 x) exp(x²) erfc(x) as a polynomial in t = (x - 3.75) / (x + 3.75), for x >= 0 (Shepherd and
# Laframboise, Chebyshev approximation of (1 + 2x)exp(x²)erfc x, 1981): the interpolation at 60
# Chebyshev points, cut where what follows is below 5e-18.
_ERFC = (
    1.2375126308378275,
    -0.14024059858554697,
    0.0035854154854644293,
    0.0822767384901452,
    -0.10880393014174886,
    0.09230432116037748,
    -0.05869339858963677,
    0.028362277418956406,
    -0.009746579558029276,
    0.0017556258528952954,
    0.0002937136655913448,
    -0.0002901540805408417,
    5.164909889268241e-05,
    2.238423915508223e-05,
    -1.1444146237700524e-05,
    -9.73559896736775e-07,
    1.751637648849062e-06,
    -5.7218230603224086e-08,
    -2.5866850716155884e-07,
    2.3263508708859124e-08,
    3.8675334242222354e-08,
    -3.744210080962018e-09,
    -5.1739902140113095e-09,
    3.1114333809799254e-10,
    4.2514714447963895e-10,
)

# B(2k) / (2k (2k - 1)) and B(2k) / 2k of the Bernoulli numbers (Abramowitz and Stegun, 6.1.40 and
# 6.3.18): what log Γ(z) has beyond Stirling's formula, as powers 1, 3, … of 1 / z, and ψ(z), as
# powers 2, 4, …. From z = 8 on what follows is about 1e-15.
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)
_DIGAMMA = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12)
_SHIFT = 8


def _polynomial(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    value = x * coefficients[-1] + coefficients[-2]
    for coefficient in reversed(coefficients[:-2]):
        value = value * x + coefficient
    return value


class Wide(Activation, abstract=True):
    """Base: what is computed in float64, and cut to the type of the input."""

    def formula(self, x: Tensor) -> Tensor:
        return self.wide(x.cast(DType.FLOAT64)).cast(x.dtype)

    def wide(self, x: Tensor) -> Tensor:
        """The value from x in float64."""
        raise NotImplementedError(f"{self.name} has no formula")


@dataclass(frozen=True)
class Erfc(Wide, Sloped):
    """1 - erf(x), also where that is tiny."""

    def wide(self, x: Tensor) -> Tensor:
        a = x.abs().minimum(30.0)  # e**-900 is 0
        tail = _polynomial((a - 3.75) / (a + 3.75), _ERFC) / (1.0 + 2.0 * a)
        tail = tail * apply(Exp(), -(a * a))
        far = (x < 0.0).where(2.0 - tail, tail)
        return x.isnan().where(x, (a < 0.5).where(1.0 - apply(Erf(), x), far))

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        return (-2.0 / math.sqrt(math.pi)) * apply(Exp(), -(x * x))


@dataclass(frozen=True)
class Erfinv(Wide, Sloped):
    """The x of which erf(x) this is; infinite at -1 and 1, NaN beyond.

    Winitzki's approximation (2008), and two of Halley's steps.
    """

    def wide(self, x: Tensor) -> Tensor:
        a = x.abs()
        c = 2.0 / (math.pi * 0.147)
        log = apply(Log1p(), -a) + apply(Log1p(), a)
        half = c + 0.5 * log
        least = -log / 0.147
        y = (least / ((half * half + least).sqrt() + half)).sqrt()
        near = a < 0.5
        for _ in range(2):
            off = near.where(apply(Erf(), y) - a, (1.0 - a) - Erfc().wide(y))
            step = off * (math.sqrt(math.pi) / 2) * apply(Exp(), y * y)
            y = y - step / (1.0 + y * step)
        y = a.equal(1.0).where(math.inf, y)
        return (x < 0.0).where(-y, y)

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        return (math.sqrt(math.pi) / 2) * apply(Exp(), y * y)


def _large(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Where a series of 1 / z holds, z >= 8, and the way there from x.

    Returns:
        Whether x is left of 1/2; what it is reflected to then; π times its fraction; whether that
        has to be shifted, too; and z.
    """
    left = x < 0.5
    inside = left.where(x, 0.25)
    right = left.where(1.0 - x, x)
    small = right < float(_SHIFT)
    z = small.where(right + float(_SHIFT), right)
    return left, right, math.pi * (inside - inside.round()), small, z


@dataclass(frozen=True)
class Lgamma(Wide, Sloped):
    """log |Γ(x)|; infinite at 0, -1, -2, …. In float64 the error is that of numbers around 10."""

    def wide(self, x: Tensor) -> Tensor:
        left, x1, angle, small, z = _large(x)
        log = apply(Log(), z)
        value = (z - 0.5) * (log - 1.0) + (0.5 * math.log(2 * math.pi) - 0.5)
        value = value + _polynomial(1.0 / (z * z), _STIRLING) / z
        product = x1.minimum(float(_SHIFT))
        factors = product
        for k in range(1, _SHIFT):
            factors = factors * (product + float(k))
        value = value - small.where(apply(Log(), factors), 0.0)
        reflected = math.log(math.pi) - apply(Log(), apply(Sin(), angle).abs()) - value
        return x.isinf().where(math.inf, left.where(reflected, value))

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        return apply(Digamma(), x)


@dataclass(frozen=True)
class Digamma(Wide, Sloped):
    """ψ(x), the derivative of log Γ(x); NaN at -1, -2, …."""

    def wide(self, x: Tensor) -> Tensor:
        left, x1, angle, small, z = _large(x)
        inverse = 1.0 / (z * z)
        value = apply(Log(), z) - 0.5 / z - inverse * _polynomial(inverse, _DIGAMMA)
        terms = 1.0 / x1
        for k in range(1, _SHIFT):
            terms = terms + 1.0 / (x1 + float(k))
        value = value - small.where(terms, 0.0)
        pole = (x < 0.0) & angle.equal(0.0)
        ratio = apply(Cos(), angle) / apply(Sin(), angle)
        return pole.where(math.nan, left.where(value - math.pi * ratio, value))

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        return apply(Trigamma(), x)


@dataclass(frozen=True)
class Trigamma(Wide):
    """ψ'(x), the second derivative of log Γ(x)."""

    def wide(self, x: Tensor) -> Tensor:
        left, x1, angle, small, z = _large(x)
        inverse = 1.0 / (z * z)
        slopes = [2 * k * b for k, b in enumerate(_DIGAMMA, 1)]
        value = 1.0 / z + 0.5 * inverse + inverse / z * _polynomial(inverse, slopes)
        terms = 1.0 / (x1 * x1)
        for k in range(1, _SHIFT):
            terms = terms + 1.0 / ((x1 + float(k)) * (x1 + float(k)))
        value = value + small.where(terms, 0.0)
        slope = math.pi / apply(Sin(), angle)
        return left.where(slope * slope - value, value)
