"""What the operations of the loop IR mean in instructions, for scalars and vectors alike.

Values are in registers: a bool is an i1, a uint8 an i8 without sign. Products that feed sums may
become one fused multiply-add (`contract`); no other freedom is given to LLVM, so that infinities,
NaN and the sign of zero come out as written.
"""

from __future__ import annotations

import math

from ..errors import CompileError
from ..loops.ir import BinaryOp, Function, ReduceOp
from ..types import DType
from . import vmath
from .builder import F32, F64, I1, I8, I32, I64, FunctionBuilder, Type, Value, constant
from .values import vector

_REGISTER = {
    DType.FLOAT32: F32,
    DType.FLOAT64: F64,
    DType.INT32: I32,
    DType.INT64: I64,
    DType.UINT8: I8,
    DType.BOOL: I1,
}

_FUSED = "contract"


def register_type(dtype: DType, lanes: int = 1) -> Type:
    """The type of values of `dtype` while they are computed with."""
    return vector(lanes, _REGISTER[dtype])


def memory_type(dtype: DType, lanes: int = 1) -> Type:
    """The type of values of `dtype` in buffers: a bool takes a byte."""
    return vector(lanes, I8 if dtype is DType.BOOL else _REGISTER[dtype])


def to_memory(f: FunctionBuilder, value: Value) -> Value:
    """A value in the form in which it is stored."""
    return f.zext(value, I8) if value.type.element == "i1" else value


def from_memory(f: FunctionBuilder, value: Value, dtype: DType) -> Value:
    """A loaded value in the form in which it is computed with."""
    return f.icmp("ne", value, 0) if dtype is DType.BOOL else value


# -------------------------------------------------------------------------------- two operands

_COMPARISONS = {
    BinaryOp.LT: ("olt", "slt", "ult"),
    BinaryOp.LE: ("ole", "sle", "ule"),
    BinaryOp.EQ: ("oeq", "eq", "eq"),
    BinaryOp.NE: ("une", "ne", "ne"),
}


def _is_unsigned(dtype: DType) -> bool:
    return dtype in (DType.UINT8, DType.BOOL)


def binary(f: FunctionBuilder, op: BinaryOp, dtype: DType, a: Value, b: Value) -> Value:
    """`a op b` of two values of `dtype` and as many lanes.

    Raises:
        CompileError: the operation has no meaning for the dtype.
    """
    if op in _COMPARISONS:
        of_float, signed, unsigned = _COMPARISONS[op]
        if dtype.is_float:
            return f.fcmp(of_float, a, b)
        return f.icmp(unsigned if _is_unsigned(dtype) else signed, a, b)
    if dtype.is_float:
        result = _binary_float(f, op, a, b)
    elif dtype is DType.BOOL:
        result = _binary_bool(f, op, a, b)
    else:
        result = _binary_integer(f, op, a, b, unsigned=dtype is DType.UINT8)
    if result is None:
        raise CompileError(f"{op.name} is not defined for {dtype}")
    return result


def _binary_float(f: FunctionBuilder, op: BinaryOp, a: Value, b: Value) -> Value | None:
    match op:
        case BinaryOp.ADD:
            return f.fadd(a, b, _FUSED)
        case BinaryOp.SUB:
            return f.fsub(a, b, _FUSED)
        case BinaryOp.MUL:
            return f.fmul(a, b, _FUSED)
        case BinaryOp.DIV:
            return f.fdiv(a, b)
        case BinaryOp.MIN:
            return _extreme(f, False, a, b)
        case BinaryOp.MAX:
            return _extreme(f, True, a, b)
        case BinaryOp.POW:
            return vmath.call(f, "pow", a, b)
        case BinaryOp.FLOORDIV:
            return _floor_divide_float(f, a, b)[0]
        case BinaryOp.MOD:
            return _floor_divide_float(f, a, b)[1]
    return None


def _extreme(f: FunctionBuilder, larger: bool, a: Value, b: Value) -> Value:
    """The smaller or larger one; NaN if either is. Which of two zeros it is, is left open.

    On x86 a vminps or vmaxps, which gives b if either is NaN; one in `a` puts ones in all bits,
    which a constant needs not.
    """
    if a.type.lanes == 1:
        name = f"llvm.{'maximum' if larger else 'minimum'}.{a.type.suffix}"
        f.module.declare(name, a.type, (a.type, a.type))
        return f.assign(a.type, f"call nsz {a.type} @{name}({a.typed}, {b.typed})")
    found = f.select(f.fcmp("ogt" if larger else "olt", a, b), a, b)
    if a.number is not None and not math.isnan(a.number):
        return found
    bits = I64 if a.type.bits == 64 else I32
    marked = f.or_(f.bitcast(found, bits), f.sext(f.fcmp("uno", a, a), bits))
    return f.bitcast(marked, a.type.scalar)


def _floor_divide_float(f: FunctionBuilder, a: Value, b: Value) -> tuple[Value, Value]:
    """Quotient rounded down, and remainder with the sign of b, as NumPy's divmod computes them.

    The remainder is exact (fmod); a quotient by zero is that of the true division.
    """
    zero = constant(a.type, 0.0)
    rest = f.frem(a, b)
    quotient = f.fdiv(f.fsub(a, rest), b)
    none = f.fcmp("oeq", rest, 0.0)
    apart = f.xor(f.fcmp("olt", b, 0.0), f.fcmp("olt", rest, 0.0))
    apart = f.and_(apart, f.fcmp("one", rest, 0.0))
    quotient = f.select(apart, f.fsub(quotient, 1.0), quotient)
    signed_zero = f.intrinsic("copysign", zero, b)
    by_zero = f.fcmp("oeq", b, 0.0)
    remainder = f.select(none, signed_zero, f.select(apart, f.fadd(rest, b), rest))
    # The quotient is an integer up to rounding.
    down = f.intrinsic("floor", quotient)
    down = f.select(f.fcmp("ogt", f.fsub(quotient, down), 0.5), f.fadd(down, 1.0), down)
    exact = f.fdiv(a, b)
    empty = f.intrinsic("copysign", zero, exact)
    down = f.select(f.fcmp("oeq", quotient, 0.0), empty, down)
    return f.select(by_zero, exact, down), remainder


def _binary_bool(f: FunctionBuilder, op: BinaryOp, a: Value, b: Value) -> Value | None:
    """NumPy's: a sum of bools is their disjunction, a product their conjunction."""
    match op:
        case BinaryOp.ADD | BinaryOp.OR | BinaryOp.MAX:
            return f.or_(a, b)
        case BinaryOp.MUL | BinaryOp.AND | BinaryOp.MIN:
            return f.and_(a, b)
        case BinaryOp.XOR:
            return f.xor(a, b)
    return None


def _binary_integer(
    f: FunctionBuilder, op: BinaryOp, a: Value, b: Value, unsigned: bool
) -> Value | None:
    match op:
        case BinaryOp.ADD:
            return f.add(a, b)
        case BinaryOp.SUB:
            return f.sub(a, b)
        case BinaryOp.MUL:
            return f.mul(a, b)
        case BinaryOp.MIN:
            return f.intrinsic("umin" if unsigned else "smin", a, b)
        case BinaryOp.MAX:
            return f.intrinsic("umax" if unsigned else "smax", a, b)
        case BinaryOp.AND:
            return f.and_(a, b)
        case BinaryOp.OR:
            return f.or_(a, b)
        case BinaryOp.XOR:
            return f.xor(a, b)
        case BinaryOp.SHL:
            return _shift(f, f.shl(a, _amount(f, b)), b)
        case BinaryOp.SHR:
            return _shift(f, f.lshr(a, _amount(f, b)), b)
        case BinaryOp.FLOORDIV:
            return floor_divide(f, a, b, unsigned)
        case BinaryOp.MOD:
            return floor_remainder(f, a, b, unsigned)
    return None


def _amount(f: FunctionBuilder, b: Value) -> Value:
    """An amount to shift by that is defined; what it gives for others is thrown away."""
    return b if _fits(b) else f.and_(b, b.type.bits - 1)


def _fits(b: Value) -> bool:
    return b.number is not None and 0 <= b.number < b.type.bits


def _shift(f: FunctionBuilder, shifted: Value, b: Value) -> Value:
    """Zero where the amount reaches the width, as NumPy has it."""
    if _fits(b):
        return shifted
    return f.select(f.icmp("ult", b, b.type.bits), shifted, 0)


def floor_divide(f: FunctionBuilder, a: Value, b: Value, unsigned: bool = False) -> Value:
    """The integer quotient rounded down; 0 for the divisor 0, and -a, wrapped, for -1."""
    if b.number is not None and b.number > 0:
        if unsigned:
            return f.udiv(a, b)
        quotient = f.sdiv(a, b)
        rest = f.sub(a, f.mul(quotient, b))
        return f.add(quotient, f.sext(f.icmp("slt", rest, 0), a.type.scalar))
    zero = f.icmp("eq", b, 0)
    if unsigned:
        return f.select(zero, 0, f.udiv(a, f.select(zero, 1, b)))
    # The processor faults on the smallest number divided by -1.
    minus = f.icmp("eq", b, -1)
    divisor = f.select(f.or_(zero, minus), 1, b)
    quotient = f.sdiv(a, divisor)
    rest = f.sub(a, f.mul(quotient, divisor))
    apart = f.and_(f.icmp("slt", f.xor(rest, divisor), 0), f.icmp("ne", rest, 0))
    quotient = f.add(quotient, f.sext(apart, a.type.scalar))
    return f.select(zero, 0, f.select(minus, f.sub(0, a), quotient))


def floor_remainder(f: FunctionBuilder, a: Value, b: Value, unsigned: bool = False) -> Value:
    """The remainder a - b * floor_divide(a, b), with the sign of b; 0 for the divisor 0."""
    if b.number is not None and b.number > 0:
        rest = f.urem(a, b) if unsigned else f.srem(a, b)
        return rest if unsigned else f.select(f.icmp("slt", rest, 0), f.add(rest, b), rest)
    zero = f.icmp("eq", b, 0)
    if unsigned:
        return f.select(zero, 0, f.urem(a, f.select(zero, 1, b)))
    # Remainders by 0 and -1 are 0, as by 1.
    trivial = f.or_(zero, f.icmp("eq", b, -1))
    divisor = f.select(trivial, 1, b)
    rest = f.srem(a, divisor)
    apart = f.and_(f.icmp("slt", f.xor(rest, divisor), 0), f.icmp("ne", rest, 0))
    return f.add(rest, f.select(apart, divisor, 0))


# -------------------------------------------------------------------------------- reductions

_COMBINE = {
    ReduceOp.ADD: BinaryOp.ADD,
    ReduceOp.MUL: BinaryOp.MUL,
    ReduceOp.MIN: BinaryOp.MIN,
    ReduceOp.MAX: BinaryOp.MAX,
}


def combine(f: FunctionBuilder, op: ReduceOp, dtype: DType, total: Value, value: Value) -> Value:
    """The accumulator `total` after `value`.

    The value goes first: then the test for a NaN in it waits for no earlier round.
    """
    return binary(f, _COMBINE[op], dtype, value, total)


def identity(op: ReduceOp, dtype: DType, lanes: int = 1) -> Value:
    """What accumulators in registers start from."""
    return constant(register_type(dtype, lanes), op.identity(dtype))


def fold_lanes(f: FunctionBuilder, op: ReduceOp, dtype: DType, value: Value) -> Value:
    """All lanes combined, halves by halves: an order that depends on their number only."""
    lanes = value.type.lanes
    while lanes > 1:
        half = lanes // 2
        low = f.shuffle(value, None, range(half))
        high = f.shuffle(value, None, range(half, 2 * half))
        folded = combine(f, op, dtype, low, high)
        if lanes % 2:
            last = f.extract(value, lanes - 1)
            first = combine(f, op, dtype, f.extract(folded, 0), last)
            folded = f.insert(folded, first, 0)
        value, lanes = folded, half
    return value


def widen(f: FunctionBuilder, op: ReduceOp, dtype: DType, value: Value, lanes: int) -> Value:
    """The value in the first of `lanes` lanes, the identity in the others."""
    given = value.type.lanes
    if given == lanes:
        return value
    neutral = identity(op, dtype, given if given > 1 else lanes)
    if given == 1:
        return f.insert(neutral, value, 0)
    return f.shuffle(value, neutral, [*range(given), *[given] * (lanes - given)])


# -------------------------------------------------------------------------------- one operand

_BY_VMATH = frozenset(
    {
        Function.EXP, Function.DECAY, Function.EXPM1, Function.LOG, Function.LOG1P, Function.SQRT,
        Function.SIN, Function.COS, Function.TANH, Function.SIGMOID, Function.ERF, Function.FLOOR,
        Function.CEIL, Function.ROUND,
    }
)  # fmt: skip


def call(f: FunctionBuilder, function: Function, dtype: DType, x: Value) -> Value:
    """A function of one value of `dtype`.

    Raises:
        CompileError: the function has no meaning for the dtype.
    """
    if dtype.is_float:
        if function in _BY_VMATH:
            return vmath.call(f, function.value, x)
        match function:
            case Function.NEG:
                return f.fneg(x)
            case Function.ABS:
                return f.intrinsic("fabs", x)
            case Function.ISNAN:
                return f.fcmp("uno", x, 0.0)
            case Function.SIGN:
                # Zeros lose their sign, a NaN stays.
                up = f.select(f.fcmp("ogt", x, 0.0), 1.0, f.select(f.fcmp("uno", x, x), x, 0.0))
                return f.select(f.fcmp("olt", x, 0.0), -1.0, up)
    else:
        match function:
            case Function.NOT:
                return f.not_(x)
            case Function.NEG if dtype is not DType.BOOL:
                return f.sub(0, x)
            case Function.ABS if dtype is not DType.BOOL:
                return x if _is_unsigned(dtype) else f.intrinsic("smax", x, f.sub(0, x))
            case Function.SIGN if dtype is not DType.BOOL:
                if _is_unsigned(dtype):
                    return f.zext(f.icmp("ne", x, 0), x.type)
                positive = f.zext(f.icmp("sgt", x, 0), x.type.scalar)
                return f.sub(positive, f.zext(f.icmp("slt", x, 0), x.type.scalar))
            case Function.ISNAN:
                return constant(register_type(DType.BOOL, x.type.lanes), 0)
    raise CompileError(f"{function.value} is not defined for {dtype}")


def cast(f: FunctionBuilder, x: Value, source: DType, to: DType) -> Value:
    """The value in another dtype.

    Floats go to int32 and int64 towards zero; NaN and what does not fit give the smallest integer,
    as in x86's instructions and NumPy on x86. To uint8 they go by way of int32, whose low bits
    remain. Integers lose their high bits. Everything but zero is True.
    """
    if source is to:
        return x
    target = register_type(to)
    if to is DType.BOOL:
        return f.fcmp("une", x, 0.0) if source.is_float else f.icmp("ne", x, 0)
    if to.is_float:
        if source.is_float:
            return f.fpext(x, target) if to is DType.FLOAT64 else f.fptrunc(x, target)
        if _is_unsigned(source):
            return f.sitofp(f.zext(x, I32), target)
        return f.sitofp(x, target)
    if source.is_float:
        if to is DType.UINT8:
            return f.trunc(_truncate(f, x, I32), I8)
        return _truncate(f, x, target)
    if target.bits < x.type.bits:
        return f.trunc(x, target)
    return f.zext(x, target) if _is_unsigned(source) else f.sext(x, target)


def _truncate(f: FunctionBuilder, x: Value, to: Type) -> Value:
    bound = float(1 << (to.bits - 1))
    fits = f.fcmp("olt", f.intrinsic("fabs", x), bound)
    return f.select(fits, f.fptosi(x, to, saturate=False), -(1 << (to.bits - 1)))
