"""Exponentials and logarithms, and what is made of them: see `vmath`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .approximation import (
    absolute,
    at_least,
    at_most,
    bits_of,
    libm,
    polynomial,
    real_of,
    sign,
    with_sign,
)
from .builder import F32, F64, I32, FunctionBuilder, Value, constant

_INF = math.inf
_NAN = math.nan
_MIN_NORMAL = 2.0**-126

# ln 2 in two parts: the first has 15 significant bits, so its product with an exponent is exact.
_LN2_HIGH = float.fromhex("0x1.62e4p-1")
_LN2_LOW = float.fromhex("0x1.7f7d1cp-20")
# exp: e^r = 1 + r + r² Q(r) on ±ln 2, 1.4e-8.
_EXP = (0.50000034543, 0.16666614307, 0.041661278596, 0.0083360975052, 0.0014104263006,
        0.00019611852620)  # fmt: skip
# The same on ±½ ln 2: 1 + r P(r), 9.2e-8.
_DECAY = (0.9999997070137902, 0.4999914919145009, 0.16667636582030823, 0.0418979755622552,
          0.008290306227435117)  # fmt: skip
# expm1: e^r - 1 = r + r² Q(r) on ±ln 2, 1.3e-9.
_EXPM1 = (0.50000000267, 0.16666672180, 0.041666621144, 0.0083326290460, 0.0013890432568,
          0.00020095689736, 2.4780123609e-5)  # fmt: skip
# log: ln(1 + f) = f - f²/2 + f³ P(f) for 1 + f in [√½, √2], 3.1e-8.
_LOG = (0.33333910737, -0.25001337038, 0.19963063840, -0.16577584641, 0.14914767424,
        -0.14267487229, 0.087004377174)  # fmt: skip
_SQRT_HALF = 0x3F3504F3  # the bits of √½ in float32 …
_SQRT_HALF_64 = 0x3FE6A09E667F3BCD  # … and in float64

# tanh: (e^2r - 1)/2 = r + r² P(r) on ±¼ ln 2, 1.3e-8.
_TANH = (0.99999996324, 0.66666172749, 0.33333753896, 0.13386526596, 0.044426702903)
# erf x = x P(x²) on ±0.92, 1.5e-8; erfc x = T(x)^8 on [0.92, 4], 2.6e-8 absolute.
_ERF = (1.1283791499623, -0.37612496460, 0.11281845950, -0.026767719765, 0.0049948300031,
        -0.00059994040640)  # fmt: skip
_ERFC = (1.0006568475948, -0.14436217958, -0.062543727294, -0.010442103238, 0.012499513713,
         -0.0023682001929, 0.00014002662439)  # fmt: skip

# log2(m) = s L(s²), s = (m - 1)/(m + 1), for m in [√½, √2]; 4.2e-12 (float64).
_LOG2 = (2.8853900817900926, 0.9617966733333144, 0.577083586681305, 0.41167261061286287,
         0.34073220551244726)  # fmt: skip
# 2^g = 1 + g E(g) on ±½, 2.6e-9 (float64).
_EXP2 = (0.69314721509836, 0.24022652790786303, 0.055503102977576275, 0.009617691867268645,
         0.0013406736069819212, 0.0001559492380480627)  # fmt: skip


# ---------------------------------------------------------------------------------- exp and its kin


def _reduce_exp(f: FunctionBuilder, x: Value) -> tuple[Value, Value]:
    """Splits x = 2k ln 2 + r with |r| <= ln 2 and gives r and s = 2^k: e^x = e^r · s · s.

    An even number of doublings keeps s and e^r s normal for every x in [-104, 89], whose results go
    from 0 to infinity: only the last product rounds to a subnormal or overflows. 1.5 · 2^23 + 127
    in the sum rounds k to an integer and leaves k + 127, an exponent field, in the lowest bits.
    """
    magic = 1.5 * 2**23 + 127
    shifted = f.multiply_add(x, 0.5 / math.log(2), magic)
    k = f.fsub(shifted, magic)
    r = f.multiply_add(k, -2 * _LN2_HIGH, x)
    r = f.multiply_add(k, -2 * _LN2_LOW, r)
    return r, real_of(f, f.shl(bits_of(f, shifted), 23))


def _exponential(f: FunctionBuilder, r: Value, coefficients: Sequence[float]) -> Value:
    """The sum r + r² Q(r), about e^r - 1, to the last place."""
    return f.multiply_add(f.fmul(r, r), polynomial(f, r, coefficients), r)


def exp(f: FunctionBuilder, x: Value) -> Value:
    """The exponential."""
    r, s = _reduce_exp(f, at_least(f, at_most(f, x, 89.0), -104.0))
    q = _exponential(f, r, _EXP)
    return f.fmul(f.multiply_add(s, q, s), s)


def decay(f: FunctionBuilder, x: Value) -> Value:
    """e^x for x <= 1 or NaN; zero where that is below 2^-126."""
    # From -88 downwards k is -127, whose exponent field is that of zero.
    return _scaled_decay(f, at_least(f, x, -88.0), 0)


def _scaled_decay(f: FunctionBuilder, x: Value, scale: int) -> Value:
    """2^scale e^x for x <= 1 or NaN, if that is no subnormal.

    x = k ln 2 + r with |r| <= ½ ln 2, so that a shorter polynomial will do. `magic` is as in
    `_reduce_exp`.
    """
    magic = 1.5 * 2**23 + 127 + scale
    shifted = f.multiply_add(x, 1 / math.log(2), magic)
    k = f.fsub(shifted, magic)
    r = f.multiply_add(k, -_LN2_HIGH, x)
    r = f.multiply_add(k, -_LN2_LOW, r)
    power = real_of(f, f.shl(bits_of(f, shifted), 23))
    return f.fmul(polynomial(f, r, (1.0, *_DECAY)), power)


def expm1(f: FunctionBuilder, x: Value) -> Value:
    """e^x - 1, exact where x is small."""
    # s² (q + 1) - 1 = s (s q + (s - 1/s)) with q = e^r - 1: nothing cancels and nothing overflows
    # before its time.
    r, s = _reduce_exp(f, at_least(f, at_most(f, x, 89.0), -20.0))
    q = _exponential(f, r, _EXPM1)
    inverse = real_of(f, f.sub(254 << 23, bits_of(f, s)))
    result = f.fmul(f.multiply_add(s, q, f.fsub(s, inverse)), s)
    return with_sign(f, result, sign(f, x))  # for -0


def sigmoid(f: FunctionBuilder, x: Value) -> Value:
    """1 / (1 + e^-x)."""
    # From e^-|x|, which cannot overflow, so that results keep their bits down to the subnormals:
    # float32 has numerator and denominator times 2^24, so that they are none.
    below = f.fneg(absolute(f, x))
    if x.type.element == "double":
        one, e = 1.0, libm("exp")(f, below)
    else:
        one, e = 2.0**24, _scaled_decay(f, at_least(f, below, -104.0), 24)
    negative = f.icmp("slt", bits_of(f, x), 0)  # the sign as it is: comparing takes an instruction
    return f.fdiv(f.select(negative, e, one), f.fadd(e, one))


# --------------------------------------------------------------------------------------- logarithms


def _log_of(f: FunctionBuilder, fraction: Value, exponent: Value) -> Value:
    """ln((1 + fraction) 2^exponent)."""
    p = polynomial(f, fraction, (-0.5, *_LOG))
    y = f.fmul(f.fmul(fraction, fraction), p)
    y = f.fadd(f.multiply_add(exponent, _LN2_LOW, y), fraction)
    return f.multiply_add(exponent, _LN2_HIGH, y)


def log(f: FunctionBuilder, x: Value) -> Value:
    """The natural logarithm."""
    subnormal = f.fcmp("olt", x, _MIN_NORMAL)
    bits = bits_of(f, f.select(subnormal, f.fmul(x, 2.0**23), x))
    # Counted from √½, the exponent field is that of x = m 2^e with m in [√½, √2).
    above = f.sub(bits, _SQRT_HALF)
    mantissa = real_of(f, f.sub(bits, f.and_(above, -(2**23))))
    exponent = f.sitofp(f.ashr(above, 23), F32)
    exponent = f.fadd(exponent, f.select(subnormal, constant(x.type, -23.0), 0.0))
    y = _log_of(f, f.fsub(mantissa, 1.0), exponent)
    return _log_limits(f, y, x, pole=0.0)


def _log_limits(f: FunctionBuilder, y: Value, x: Value, pole: float) -> Value:
    """Replaces a logarithm y at infinity, at the pole (-infinity) and below it (NaN)."""
    y = f.select(f.fcmp("oeq", x, _INF), x, y)
    outside = f.select(f.fcmp("oeq", x, pole), constant(x.type, -_INF), _NAN)
    return f.select(f.fcmp("ogt", x, pole), y, outside)


def log1p(f: FunctionBuilder, x: Value) -> Value:
    """ln(1 + x), exact where x is small."""
    u = f.fadd(x, 1.0)
    above = f.sub(bits_of(f, u), _SQRT_HALF)
    # Only the exponent e is read off the rounded sum: (1 + x) 2^-e - 1 = x 2^-e + (2^-e - 1), where
    # all but the last addition is exact. 2^-e may be subnormal, hence in two steps.
    shift = f.sub((127 + 2) << 23, f.and_(above, -(2**23)))
    scale = f.fmul(real_of(f, shift), 0.25)
    fraction = f.multiply_add(x, scale, f.fsub(scale, 1.0))
    y = _log_of(f, fraction, f.sitofp(f.ashr(above, 23), F32))
    y = with_sign(f, y, sign(f, x))  # for -0
    return _log_limits(f, y, x, pole=-1.0)


# ------------------------------------------------------------------------------------- tanh and erf

# Rationals x P(x²)/Q(x²) would be shorter, but their rounding errors add up to 5 ULP near ±1 and
# carry results past it.


def tanh(f: FunctionBuilder, x: Value) -> Value:
    """The hyperbolic tangent."""
    # With h = (e^2|x| - 1)/2, tanh |x| = h/(h + 1). From |x| = n ln 2/2 + r it is, for E = 2^n,
    # h = E (e^2r - 1)/2 + (E - 1)/2. `magic` as in `_reduce_exp`; ln 2 needs no second part, since
    # h/(h + 1) depends the less on r the larger n is.
    magic = 1.5 * 2**23 + 127
    a = at_most(f, absolute(f, x), 10.0)
    shifted = f.multiply_add(a, 2 / math.log(2), magic)
    n = f.fsub(shifted, magic)
    r = f.multiply_add(n, -math.log(2) / 2, a)
    q = _exponential(f, r, _TANH)
    power = real_of(f, f.shl(bits_of(f, shifted), 23))
    h = f.multiply_add(power, q, f.multiply_add(power, 0.5, -0.5))
    return with_sign(f, f.fdiv(h, f.fadd(h, 1.0)), sign(f, x))


def erf(f: FunctionBuilder, x: Value) -> Value:
    """The error function."""
    a = absolute(f, x)
    inner = f.fmul(x, polynomial(f, f.fmul(x, x), _ERF))
    root = polynomial(f, at_most(f, a, 4.0), _ERFC)  # a smooth function, unlike erfc itself
    square = f.fmul(root, root)
    fourth = f.fmul(square, square)
    tail = f.fsub(1.0, f.fmul(fourth, fourth))
    return f.select(f.fcmp("olt", a, 0.92), inner, with_sign(f, tail, sign(f, x)))


# ---------------------------------------------------------------------------------------------- pow


def pow_body(f: FunctionBuilder, x: Value, y: Value) -> Value:
    """|x|^y = 2^(y log2 |x|) in float64, then the sign and the cases of IEEE 754 (9.2.1).

    float64 holds the product to far more bits than float32 results need, has no subnormals here,
    and rounds once at the end, into the subnormals or to infinity as it may be.
    """
    magnitude = absolute(f, x)
    z = f.fmul(_clamped(f, f.fpext(y, F64), 2.0**40), _log2_64(f, f.fpext(magnitude, F64)))
    power = f.fptrunc(_exp2_64(f, _clamped(f, z, 200.0)), F32)

    # Every float32 from 2^24 on is an even integer, as are the infinities for this purpose; NaN is
    # in the power already.
    whole = f.select(f.fcmp("olt", absolute(f, y), 2.0**24), y, 0.0)
    integer = f.fptosi(whole, I32, saturate=False)
    fractional = f.fcmp("one", f.sitofp(integer, F32), whole)
    odd = f.select(fractional, constant(integer.type, 0), f.shl(integer, 31))
    power = with_sign(f, power, f.and_(odd, bits_of(f, x)))

    negative = f.and_(f.fcmp("olt", x, 0.0), f.fcmp("one", x, -_INF))
    power = f.select(f.and_(negative, fractional), constant(x.type, _NAN), power)
    one = f.or_(f.fcmp("oeq", x, 1.0), f.fcmp("oeq", y, 0.0))
    return f.select(one, constant(x.type, 1.0), power)


def _clamped(f: FunctionBuilder, x: Value, bound: float) -> Value:
    return at_least(f, at_most(f, x, bound), -bound)


def _log2_64(f: FunctionBuilder, x: Value) -> Value:
    """The binary logarithm of float64 x >= 0 that is no subnormal; of 0 -infinity."""
    one = 1023 << 52
    above = f.add(bits_of(f, x), one - _SQRT_HALF_64)
    mantissa = real_of(f, f.add(f.and_(above, 2**52 - 1), _SQRT_HALF_64))
    # The exponent field in the lowest bits of 2^52 is that number added to it: a conversion that
    # every target has.
    biased = f.or_(f.lshr(above, 52), (1023 + 52) << 52)
    exponent = f.fsub(real_of(f, biased), 2.0**52 + 1023)
    s = f.fdiv(f.fsub(mantissa, 1.0), f.fadd(mantissa, 1.0))
    y = f.multiply_add(s, polynomial(f, f.fmul(s, s), _LOG2), exponent)
    y = f.select(f.fcmp("oeq", x, 0.0), constant(x.type, -_INF), y)
    return f.select(f.fcmp("olt", x, _INF), y, x)


def _exp2_64(f: FunctionBuilder, x: Value) -> Value:
    """2^x for float64 |x| <= 1000 or NaN, to 28 bits."""
    magic = 1.5 * 2**52 + 1023
    shifted = f.fadd(x, magic)
    g = f.fsub(x, f.fsub(shifted, magic))
    p = polynomial(f, g, (1.0, *_EXP2))
    return f.fmul(p, real_of(f, f.shl(bits_of(f, shifted), 52)))
