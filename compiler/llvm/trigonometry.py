"""Sine and cosine: see `vmath`."""

from __future__ import annotations

import math

from .approximation import Emitter, absolute, bits_of, polynomial, real_of
from .builder import F32, F64, I32, I64, FunctionBuilder, Value, constant, vector

_INF = math.inf
_NAN = math.nan
_MAGNITUDE = 2**31 - 1

# sin r = r (1 + r² S(r²)) and cos r = 1 - r²/2 + r⁴ C(r²) on ±π/4; 3.8e-9 and 1.2e-10.
_SIN = (-0.16666654537, 0.0083321560540, -0.00019514631906)
_COS = (0.041666645555, -0.0013887309865, 2.4432412452e-5)
# π/2 in two parts: the first has 33 significant bits.
_HALF_PI_HIGH = float.fromhex("0x1.921fb544p+0")
_HALF_PI_LOW = float.fromhex("0x1.0b4611a626331p-34")
_TWO_OVER_PI = 0xA2F9836E4E441529FC2757D1F534DDC0DB6295993C439041FE5163AB  # floor(2/π · 2^224)


def sine_shifted_by(offset: int) -> Emitter:
    """The sine of x + offset π/2."""

    def body(f: FunctionBuilder, x: Value) -> Value:
        r, quadrant = _reduce_pi(f, x)
        quadrant = f.add(quadrant, offset)
        u = f.fmul(r, r)
        # Rounding 1 + … and multiplying, rather than adding to r, keeps the sign of -0.
        sine = f.fmul(r, f.multiply_add(u, polynomial(f, u, _SIN), 1.0))
        cosine = f.multiply_add(u, f.multiply_add(u, polynomial(f, u, _COS), -0.5), 1.0)
        swapped = f.icmp("ne", f.and_(quadrant, 1), 0)
        value = f.select(swapped, cosine, sine)
        return real_of(f, f.xor(bits_of(f, value), f.shl(f.and_(quadrant, 2), 30)))

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
    quadrant = f.trunc(bits_of(f, shifted), I32)
    large = f.fcmp("uge", absolute(f, x), _LARGE)
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
    bits = f.and_(bits_of(f, x), _MAGNITUDE)
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
    finite = f.fcmp("olt", absolute(f, x), _INF)
    return f.select(finite, r, constant(r.type, _NAN)), quadrant


def _pi_row(exponent_field: int) -> tuple[int, int, int]:
    """The 96 bits of 2/π for float32 numbers with this exponent field, in three words."""
    shift = (exponent_field - 150) + 94
    window = (_TWO_OVER_PI << shift >> 224) & (2**96 - 1)
    return window >> 64, (window >> 32) & (2**32 - 1), window & (2**32 - 1)


_FIRST_ROW = 127 + 20
_PI_ROWS = tuple(_pi_row(field) for field in range(_FIRST_ROW, 255))
