"""Elementary functions as straight-line vector code, for any number of lanes.

`call(f, "exp", x)` appends code to the function that `f` is building and returns the result.
float32 functions are this module's own: at most 4 ULP over the whole float32 range, subnormal
arguments and results, ±0, infinities and NaN included. float64 functions call libm once a lane:
accuracy first. The largest errors of float32, in ULP, with FMA and without:

    exp     1.66  1.59      tanh    2.57  2.61      sin    1.96  2.01      pow   0.55  0.55
    expm1   1.42  1.35      sigmoid 3.45  3.02      cos    1.98  1.98      sqrt  0.50  0.50
    log     1.22  1.20      erf     2.93  3.01      log1p  1.75  1.75      rsqrt 1.49  1.49

(exp, sigmoid, tanh and erf over every argument from 2^-27 to 104, log with FMA over all; the others
over every 97th bit pattern or more, pow at random; sqrt is the processor's.) floor, ceil, trunc and
round, which takes halves to even, are exact.

Every lane goes through the same operations whatever the number of lanes, so a loop's scalar or odd
tail has the same bits as its body (of a NaN, neither sign nor payload is promised). Results differ
only between targets with and without FMA. No fast-math flag is used, and the processor's flags must
be the defaults: rounding to nearest, and subnormals not flushed (FTZ and DAZ of MXCSR clear).

Small functions are appended in place, because the constants then leave the loop, independent rounds
overlap and no optimisation pass has to run for that. The long ones (pow, sin, cos) are emitted
once per module and lane count as an internal function, `@quern.sin.v8f32`, and called.

How the approximations are made: arguments are reduced as in Cody and Waite, "Software Manual for
the Elementary Functions" (1980), or Payne and Hanek, "Radian reduction for trigonometric functions"
(1983); polynomials and rationals are minimax fits in relative error by Remez exchange at 60 digits,
of the form each comment gives, then rounded to the format. The error that is quoted with a fit is
that of the approximation alone: 1 ULP is 2^-24 to 2^-23 relative.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from .builder import (
    F32,
    F64,
    I32,
    I64,
    FunctionBuilder,
    Value,
    constant,
    vector,
)

Emitter = Callable[..., Value]

_INF = math.inf
_NAN = math.nan
_SIGN = -(2**31)
_MAGNITUDE = 2**31 - 1
_MIN_NORMAL = 2.0**-126

# ln 2 in two parts: the first has 15 significant bits, so its product with an exponent is exact.
_LN2_HIGH = float.fromhex("0x1.62e4p-1")
_LN2_LOW = float.fromhex("0x1.7f7d1cp-20")
# exp: e^r = 1 + r + r² Q(r) on ±ln 2, 1.4e-8.
_EXP = (0.50000034543, 0.16666614307, 0.041661278596, 0.0083360975052, 0.0014104263006,
        0.00019611852620)  # fmt: skip
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

# sin r = r (1 + r² S(r²)) and cos r = 1 - r²/2 + r⁴ C(r²) on ±π/4; 3.8e-9 and 1.2e-10.
_SIN = (-0.16666654537, 0.0083321560540, -0.00019514631906)
_COS = (0.041666645555, -0.0013887309865, 2.4432412452e-5)
# π/2 in two parts: the first has 33 significant bits.
_HALF_PI_HIGH = float.fromhex("0x1.921fb544p+0")
_HALF_PI_LOW = float.fromhex("0x1.0b4611a626331p-34")
_TWO_OVER_PI = 0xA2F9836E4E441529FC2757D1F534DDC0DB6295993C439041FE5163AB  # floor(2/π · 2^224)

# log2(m) = s L(s²), s = (m - 1)/(m + 1), for m in [√½, √2]; 4.2e-12 (float64).
_LOG2 = (2.8853900817900926, 0.9617966733333144, 0.577083586681305, 0.41167261061286287,
         0.34073220551244726)  # fmt: skip
# 2^g = 1 + g E(g) on ±½, 2.6e-9 (float64).
_EXP2 = (0.69314721509836, 0.24022652790786303, 0.055503102977576275, 0.009617691867268645,
         0.0013406736069819212, 0.0001559492380480627)  # fmt: skip


# -------------------------------------------------------------------------------- small pieces


def _polynomial(f: FunctionBuilder, x: Value, coefficients: Sequence[float]) -> Value:
    """c0 + c1 x + c2 x² + … by Horner's rule."""
    result = constant(x.type, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = f.multiply_add(result, x, coefficient)
    return result


def _at_most(f: FunctionBuilder, x: Value, bound: float) -> Value:
    """min(x, bound) that keeps a NaN: one `minps` with this order of operands."""
    limit = constant(x.type, bound)
    return f.select(f.fcmp("olt", limit, x), limit, x)


def _at_least(f: FunctionBuilder, x: Value, bound: float) -> Value:
    limit = constant(x.type, bound)
    return f.select(f.fcmp("ogt", limit, x), limit, x)


def _bits(f: FunctionBuilder, x: Value) -> Value:
    return f.bitcast(x, I32 if x.type.bits == 32 else I64)


def _real(f: FunctionBuilder, bits: Value) -> Value:
    return f.bitcast(bits, F32 if bits.type.bits == 32 else F64)


def _absolute(f: FunctionBuilder, x: Value) -> Value:
    return f.intrinsic("fabs", x)


def _sign(f: FunctionBuilder, x: Value) -> Value:
    """The sign bit of float32 x, other bits zero."""
    return f.and_(_bits(f, x), _SIGN)


def _with_sign(f: FunctionBuilder, magnitude: Value, sign: Value) -> Value:
    return _real(f, f.or_(_bits(f, magnitude), sign))


# -------------------------------------------------------------------------------- exp and its kin


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
    return r, _real(f, f.shl(_bits(f, shifted), 23))


def _exponential(f: FunctionBuilder, r: Value, coefficients: Sequence[float]) -> Value:
    """The sum r + r² Q(r), about e^r - 1, to the last place."""
    return f.multiply_add(f.fmul(r, r), _polynomial(f, r, coefficients), r)


def _exp_of(f: FunctionBuilder, x: Value) -> Value:
    """e^x for x in [-104, 89] or NaN."""
    r, s = _reduce_exp(f, x)
    q = _exponential(f, r, _EXP)
    return f.fmul(f.multiply_add(s, q, s), s)


def _exp(f: FunctionBuilder, x: Value) -> Value:
    return _exp_of(f, _at_least(f, _at_most(f, x, 89.0), -104.0))


def _expm1(f: FunctionBuilder, x: Value) -> Value:
    # s² (q + 1) - 1 = s (s q + (s - 1/s)) with q = e^r - 1: nothing cancels and nothing overflows
    # before its time.
    r, s = _reduce_exp(f, _at_least(f, _at_most(f, x, 89.0), -20.0))
    q = _exponential(f, r, _EXPM1)
    inverse = _real(f, f.sub(254 << 23, _bits(f, s)))
    result = f.fmul(f.multiply_add(s, q, f.fsub(s, inverse)), s)
    return _with_sign(f, result, _sign(f, x))  # for -0


def _sigmoid(f: FunctionBuilder, x: Value) -> Value:
    # From e^-|x|, which cannot overflow, so that results keep their bits down to the subnormals.
    if x.type.element == "double":
        e = _libm("exp")(f, f.fneg(_absolute(f, x)))
    else:
        e = _exp_of(f, _at_least(f, f.fneg(_absolute(f, x)), -104.0))
    return f.fdiv(f.select(f.fcmp("olt", x, 0.0), e, 1.0), f.fadd(e, 1.0))


# -------------------------------------------------------------------------------- logarithms


def _log_of(f: FunctionBuilder, fraction: Value, exponent: Value) -> Value:
    """ln((1 + fraction) 2^exponent)."""
    p = _polynomial(f, fraction, (-0.5, *_LOG))
    y = f.fmul(f.fmul(fraction, fraction), p)
    y = f.fadd(f.multiply_add(exponent, _LN2_LOW, y), fraction)
    return f.multiply_add(exponent, _LN2_HIGH, y)


def _log(f: FunctionBuilder, x: Value) -> Value:
    subnormal = f.fcmp("olt", x, _MIN_NORMAL)
    bits = _bits(f, f.select(subnormal, f.fmul(x, 2.0**23), x))
    # Counted from √½, the exponent field is that of x = m 2^e with m in [√½, √2).
    above = f.sub(bits, _SQRT_HALF)
    mantissa = _real(f, f.sub(bits, f.and_(above, -(2**23))))
    exponent = f.sitofp(f.ashr(above, 23), F32)
    exponent = f.fadd(exponent, f.select(subnormal, constant(x.type, -23.0), 0.0))
    y = _log_of(f, f.fsub(mantissa, 1.0), exponent)
    return _log_limits(f, y, x, pole=0.0)


def _log_limits(f: FunctionBuilder, y: Value, x: Value, pole: float) -> Value:
    """Replaces a logarithm y at infinity, at the pole (-infinity) and below it (NaN)."""
    y = f.select(f.fcmp("oeq", x, _INF), x, y)
    outside = f.select(f.fcmp("oeq", x, pole), constant(x.type, -_INF), _NAN)
    return f.select(f.fcmp("ogt", x, pole), y, outside)


def _log1p(f: FunctionBuilder, x: Value) -> Value:
    u = f.fadd(x, 1.0)
    above = f.sub(_bits(f, u), _SQRT_HALF)
    # Only the exponent e is read off the rounded sum: (1 + x) 2^-e - 1 = x 2^-e + (2^-e - 1), where
    # all but the last addition is exact. 2^-e may be subnormal, hence in two steps.
    shift = f.sub((127 + 2) << 23, f.and_(above, -(2**23)))
    scale = f.fmul(_real(f, shift), 0.25)
    fraction = f.multiply_add(x, scale, f.fsub(scale, 1.0))
    y = _log_of(f, fraction, f.sitofp(f.ashr(above, 23), F32))
    y = _with_sign(f, y, _sign(f, x))  # for -0
    return _log_limits(f, y, x, pole=-1.0)


# -------------------------------------------------------------------------------- tanh and erf

# Rationals x P(x²)/Q(x²) would be shorter, but their rounding errors add up to 5 ULP near ±1 and
# carry results past it.


def _tanh(f: FunctionBuilder, x: Value) -> Value:
    # With h = (e^2|x| - 1)/2, tanh |x| = h/(h + 1). From |x| = n ln 2/2 + r it is, for E = 2^n,
    # h = E (e^2r - 1)/2 + (E - 1)/2. `magic` as in `_reduce_exp`.
    magic = 1.5 * 2**23 + 127
    a = _at_most(f, _absolute(f, x), 10.0)
    shifted = f.multiply_add(a, 2 / math.log(2), magic)
    n = f.fsub(shifted, magic)
    r = f.multiply_add(n, -_LN2_HIGH / 2, a)
    r = f.multiply_add(n, -_LN2_LOW / 2, r)
    q = _exponential(f, r, _TANH)
    power = _real(f, f.shl(_bits(f, shifted), 23))
    h = f.multiply_add(power, q, f.multiply_add(power, 0.5, -0.5))
    return _with_sign(f, f.fdiv(h, f.fadd(h, 1.0)), _sign(f, x))


def _erf(f: FunctionBuilder, x: Value) -> Value:
    a = _absolute(f, x)
    inner = f.fmul(x, _polynomial(f, f.fmul(x, x), _ERF))
    root = _polynomial(f, _at_most(f, a, 4.0), _ERFC)  # a smooth function, unlike erfc itself
    square = f.fmul(root, root)
    fourth = f.fmul(square, square)
    tail = f.fsub(1.0, f.fmul(fourth, fourth))
    return f.select(f.fcmp("olt", a, 0.92), inner, _with_sign(f, tail, _sign(f, x)))


# -------------------------------------------------------------------------------- pow


def _pow_body(f: FunctionBuilder, x: Value, y: Value) -> Value:
    """|x|^y = 2^(y log2 |x|) in float64, then the sign and the cases of IEEE 754 (9.2.1).

    float64 holds the product to far more bits than float32 results need, has no subnormals here,
    and rounds once at the end, into the subnormals or to infinity as it may be.
    """
    magnitude = _absolute(f, x)
    z = f.fmul(_clamped(f, f.fpext(y, F64), 2.0**40), _log2_64(f, f.fpext(magnitude, F64)))
    power = f.fptrunc(_exp2_64(f, _clamped(f, z, 200.0)), F32)

    # Every float32 from 2^24 on is an even integer, as are the infinities for this purpose; NaN is
    # in the power already.
    whole = f.select(f.fcmp("olt", _absolute(f, y), 2.0**24), y, 0.0)
    integer = f.fptosi(whole, I32, saturate=False)
    fractional = f.fcmp("one", f.sitofp(integer, F32), whole)
    odd = f.select(fractional, constant(integer.type, 0), f.shl(integer, 31))
    power = _with_sign(f, power, f.and_(odd, _bits(f, x)))

    negative = f.and_(f.fcmp("olt", x, 0.0), f.fcmp("one", x, -_INF))
    power = f.select(f.and_(negative, fractional), constant(x.type, _NAN), power)
    one = f.or_(f.fcmp("oeq", x, 1.0), f.fcmp("oeq", y, 0.0))
    return f.select(one, constant(x.type, 1.0), power)


def _clamped(f: FunctionBuilder, x: Value, bound: float) -> Value:
    return _at_least(f, _at_most(f, x, bound), -bound)


def _log2_64(f: FunctionBuilder, x: Value) -> Value:
    """The binary logarithm of float64 x >= 0 that is no subnormal; of 0 -infinity."""
    one = 1023 << 52
    above = f.add(_bits(f, x), one - _SQRT_HALF_64)
    mantissa = _real(f, f.add(f.and_(above, 2**52 - 1), _SQRT_HALF_64))
    # The exponent field in the lowest bits of 2^52 is that number added to it: a conversion that
    # every target has.
    biased = f.or_(f.lshr(above, 52), (1023 + 52) << 52)
    exponent = f.fsub(_real(f, biased), 2.0**52 + 1023)
    s = f.fdiv(f.fsub(mantissa, 1.0), f.fadd(mantissa, 1.0))
    y = f.multiply_add(s, _polynomial(f, f.fmul(s, s), _LOG2), exponent)
    y = f.select(f.fcmp("oeq", x, 0.0), constant(x.type, -_INF), y)
    return f.select(f.fcmp("olt", x, _INF), y, x)


def _exp2_64(f: FunctionBuilder, x: Value) -> Value:
    """2^x for float64 |x| <= 1000 or NaN, to 28 bits."""
    magic = 1.5 * 2**52 + 1023
    shifted = f.fadd(x, magic)
    g = f.fsub(x, f.fsub(shifted, magic))
    p = _polynomial(f, g, (1.0, *_EXP2))
    return f.fmul(p, _real(f, f.shl(_bits(f, shifted), 52)))


# -------------------------------------------------------------------------------- sin and cos


def _trigonometric(offset: int) -> Emitter:
    """The sine of x + offset π/2."""

    def body(f: FunctionBuilder, x: Value) -> Value:
        r, quadrant = _reduce_pi(f, x)
        quadrant = f.add(quadrant, offset)
        u = f.fmul(r, r)
        # Rounding 1 + … and multiplying, rather than adding to r, keeps the sign of -0.
        sine = f.fmul(r, f.multiply_add(u, _polynomial(f, u, _SIN), 1.0))
        cosine = f.multiply_add(u, f.multiply_add(u, _polynomial(f, u, _COS), -0.5), 1.0)
        swapped = f.icmp("ne", f.and_(quadrant, 1), 0)
        value = f.select(swapped, cosine, sine)
        return _real(f, f.xor(_bits(f, value), f.shl(f.and_(quadrant, 2), 30)))

    return body


_LARGE = 2.0**20  # from here on, products with the first part of π/2 are not exact


def _reduce_pi(f: FunctionBuilder, x: Value) -> tuple[Value, Value]:
    """float32 r in ±π/4 and integer q with x = r + q π/2, q modulo 4.

    In float64, which leaves 2^-30, the smallest |r| of any float32, its 24 bits. The general
    reduction is a branch that is taken if any lane needs it; other lanes keep their own result.
    """
    lanes = x.type.lanes
    wide = f.fpext(x, F64)
    magic = 1.5 * 2**52
    shifted = f.multiply_add(wide, 2 / math.pi, magic)
    k = f.fsub(shifted, magic)
    r = f.multiply_add(k, -_HALF_PI_HIGH, wide)
    r = f.multiply_add(k, -_HALF_PI_LOW, r)
    quadrant = f.trunc(_bits(f, shifted), I32)
    large = f.fcmp("uge", _absolute(f, x), _LARGE)
    before, general, after = f.block, f.new_block("general"), f.new_block("reduced")
    f.branch_if(f.reduce("or", large), general, after)
    f.enter(general)
    exact, exact_quadrant = _reduce_pi_exactly(f, x)
    exact = f.select(large, exact, r)
    exact_quadrant = f.select(large, exact_quadrant, quadrant)
    f.branch(after)
    f.enter(after)
    angle = f.phi(vector(lanes, F64), {before: r, general: exact})
    quarter = f.phi(vector(lanes, I32), {before: quadrant, general: exact_quadrant})
    return f.fptrunc(angle.value, F32), quarter.value


def _reduce_pi_exactly(f: FunctionBuilder, x: Value) -> tuple[Value, Value]:
    """The same for |x| >= 2^20, in float64, after Payne and Hanek; NaN if x is not finite.

    |x| = M 2^s with a 24-bit integer M. Of 2/π only the 96 bits W from 2^(1-s) downwards matter:
    higher ones give multiples of 4, lower ones less than 2^-70. So M W 2^-94 is x·2/π modulo 4 in
    fixed point, and of that 96-bit product the upper 64 bits are enough.
    """
    bits = f.and_(_bits(f, x), _MAGNITUDE)
    row = f.smin(f.smax(f.sub(f.lshr(bits, 23), _FIRST_ROW), 0), len(_PI_ROWS) - 1)
    words = [
        f.gather(I64, f.module.global_constant(f"quern.two_over_pi.{i}", I64, column), row)
        for i, column in enumerate(zip(*_PI_ROWS, strict=True))
    ]
    integer = f.zext(f.or_(f.and_(bits, 2**23 - 1), 2**23), I64)
    high, middle, low = (f.mul(integer, word) for word in words)
    turns = f.add(f.add(f.shl(high, 32), middle), f.lshr(low, 32))
    nearest = f.lshr(f.add(turns, 1 << 61), 62)
    fraction = f.sub(turns, f.shl(nearest, 62))
    r = f.fmul(f.sitofp(fraction, F64), math.pi / 2 * 2.0**-62)
    quadrant = f.trunc(nearest, I32)
    negative = f.fcmp("olt", x, 0.0)
    r = f.select(negative, f.fneg(r), r)
    quadrant = f.select(negative, f.sub(0, quadrant), quadrant)
    finite = f.fcmp("olt", _absolute(f, x), _INF)
    return f.select(finite, r, constant(r.type, _NAN)), quadrant


def _pi_row(exponent_field: int) -> tuple[int, int, int]:
    """The 96 bits of 2/π for float32 numbers with this exponent field, in three words."""
    shift = (exponent_field - 150) + 94
    window = (_TWO_OVER_PI << shift >> 224) & (2**96 - 1)
    return window >> 64, (window >> 32) & (2**32 - 1), window & (2**32 - 1)


_FIRST_ROW = 127 + 20
_PI_ROWS = tuple(_pi_row(field) for field in range(_FIRST_ROW, 255))


# -------------------------------------------------------------------------------- the table


def _intrinsic(name: str) -> Emitter:
    return lambda f, x: f.intrinsic(name, x)


def _rsqrt(f: FunctionBuilder, x: Value) -> Value:
    return f.fdiv(constant(x.type, 1.0), f.intrinsic("sqrt", x))


def _libm(name: str) -> Emitter:
    """A float64 function of libm, called for each lane."""

    def emit(f: FunctionBuilder, *arguments: Value) -> Value:
        result = arguments[0]
        for lane in range(result.type.lanes):
            scalars = [f.extract(argument, lane) for argument in arguments]
            y = f.call(name, scalars, F64, "nounwind willreturn memory(none)")
            result = f.insert(result, y, lane)
        return result

    return emit


def _shared(name: str, body: Emitter) -> Emitter:
    """Emits the body once per module and type, as an internal function, and calls it."""

    def emit(f: FunctionBuilder, *arguments: Value) -> Value:
        type = arguments[0].type
        symbol = f"quern.{name}.{type.suffix}"
        if not f.module.has_function(symbol):
            parameters = [(f"x{i}", argument.type) for i, argument in enumerate(arguments)]
            g = f.module.function(symbol, parameters, type, internal=True)
            g.ret(body(g, *g.arguments))
        return f.call(symbol, arguments, type)

    return emit


_EITHER: Mapping[str, Emitter] = {
    "sqrt": _intrinsic("sqrt"),
    "rsqrt": _rsqrt,
    "floor": _intrinsic("floor"),
    "ceil": _intrinsic("ceil"),
    "round": _intrinsic("nearbyint"),  # halves to even, in the default rounding mode
    "trunc": _intrinsic("trunc"),
    "sigmoid": _sigmoid,
}

# Emitters by name of the function, for each element type.
FUNCTIONS: Mapping[str, Mapping[str, Emitter]] = {
    "float": {
        **_EITHER,
        "exp": _exp,
        "expm1": _expm1,
        "log": _log,
        "log1p": _log1p,
        "tanh": _tanh,
        "erf": _erf,
        "pow": _shared("pow", _pow_body),
        "sin": _shared("sin", _trigonometric(0)),
        "cos": _shared("cos", _trigonometric(1)),
    },
    "double": {
        **_EITHER,
        **{
            name: _libm(name)
            for name in ("exp", "expm1", "log", "log1p", "tanh", "erf", "pow", "sin", "cos")
        },
    },
}


def call(f: FunctionBuilder, name: str, *arguments: Value) -> Value:
    """Appends the function `name` of float32 or float64 values of one type; `pow` takes two.

    Raises:
        TypeError: there is no such function of these types.
    """
    types = {argument.type for argument in arguments}
    emitter = FUNCTIONS.get(arguments[0].type.element, {}).get(name)
    if emitter is None or len(types) != 1 or len(arguments) != (2 if name == "pow" else 1):
        listed = ", ".join(str(argument.type) for argument in arguments)
        raise TypeError(f"@{f.name}: no vector function {name}({listed})")
    return emitter(f, *arguments)
