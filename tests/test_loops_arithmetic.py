"""Single operations as the interpreter computes them: correctly rounded, special values, casts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from interpreting import at, run
from loop_kernels import (
    F32,
    I64,
    SERIAL,
    VECTOR,
    number,
    v,
)

from quern.compiler.loops.interpreter import InterpreterError
from quern.compiler.loops.ir import (
    Binary,
    BinaryOp,
    Buffer,
    Call,
    Cast,
    Expr,
    For,
    Function,
    Kernel,
    LoopKind,
    Select,
    Store,
)
from quern.compiler.types import Array, DType


def compute(value: Expr, dtype: DType, *inputs: Array, kind: LoopKind = VECTOR) -> Array:
    """`value` of loads at v from x and perhaps z."""
    extent = len(inputs[0])
    names = "xz"
    buffers = [Buffer(n, (extent,), DType.of(a.dtype)) for n, a in zip(names, inputs, strict=False)]
    y = Buffer("y", (extent,), dtype)
    body = (For(v, extent, (Store(y, (v,), value),), kind, 4),)
    return run(Kernel("op", (*buffers, y), body), *inputs)


SPECIAL = np.array([0.0, -0.0, 1.5, -2.5, 3.0, np.inf, -np.inf, np.nan, 1e-40, 0.3])
INTEGERS = np.array([0, 1, -1, 7, -7, 100, -128, 127, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63)])
BOTH = pytest.mark.parametrize("kind", [VECTOR, SERIAL], ids=["lanes", "scalars"])


def pairs(values: Array, dtype: DType) -> tuple[Array, Array]:
    """All pairs of values, wrapped to a dtype."""
    narrow = values.astype(dtype.numpy)
    a, b = np.meshgrid(narrow, narrow)
    return a.ravel(), b.ravel()


@BOTH
@pytest.mark.parametrize("dtype", [F32, DType.FLOAT64], ids=str)
@pytest.mark.parametrize(
    ("op", "numpy"),
    [
        (BinaryOp.ADD, np.add),
        (BinaryOp.SUB, np.subtract),
        (BinaryOp.MUL, np.multiply),
        (BinaryOp.DIV, np.divide),
        (BinaryOp.FLOORDIV, np.floor_divide),
        (BinaryOp.MOD, np.remainder),
        (BinaryOp.MIN, np.minimum),
        (BinaryOp.MAX, np.maximum),
    ],
    ids=str,
)
def test_float_arithmetic(op: BinaryOp, numpy: np.ufunc, dtype: DType, kind: LoopKind) -> None:
    """NaN stays, infinities come up, and float32 is rounded after each operation."""
    a, b = pairs(SPECIAL, dtype)
    value = Binary(op, at("x", a.size, dtype), at("z", a.size, dtype))
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(compute(value, dtype, a, b, kind=kind), numpy(a, b))


@BOTH
@pytest.mark.parametrize("dtype", [DType.INT32, I64, DType.UINT8], ids=str)
@pytest.mark.parametrize("op", [BinaryOp.ADD, BinaryOp.SUB, BinaryOp.MUL, BinaryOp.FLOORDIV,
                                BinaryOp.MOD, BinaryOp.MIN, BinaryOp.MAX, BinaryOp.AND,
                                BinaryOp.OR, BinaryOp.XOR])  # fmt: skip
def test_integer_arithmetic(op: BinaryOp, dtype: DType, kind: LoopKind) -> None:
    """Exact in Python's integers, then wrapped; division by zero is zero."""
    a, b = pairs(INTEGERS, dtype)
    value = Binary(op, at("x", a.size, dtype), at("z", a.size, dtype))
    exact = {
        "+": lambda p, q: p + q,
        "-": lambda p, q: p - q,
        "*": lambda p, q: p * q,
        "//": lambda p, q: p // q if q else 0,
        "%": lambda p, q: p % q if q else 0,
        "min": min,
        "max": max,
        "&": lambda p, q: p & q,
        "|": lambda p, q: p | q,
        "^": lambda p, q: p ^ q,
    }[op.value]
    bits = 8 * dtype.size
    numbers = [exact(int(p), int(q)) % (1 << bits) for p, q in zip(a, b, strict=True)]
    expected = np.array(numbers, f"uint{bits}").view(dtype.numpy)
    np.testing.assert_array_equal(compute(value, dtype, a, b, kind=kind), expected)


@BOTH
@pytest.mark.parametrize("dtype", [DType.INT32, I64, DType.UINT8], ids=str)
def test_shifts_move_bits(dtype: DType, kind: LoopKind) -> None:
    bits = 8 * dtype.size
    a = INTEGERS.astype(dtype.numpy)
    amounts = (np.arange(a.size) * 5 % bits).astype(dtype.numpy)
    x, z = at("x", a.size, dtype), at("z", a.size, dtype)
    unsigned = [int(p) % (1 << bits) for p in a]
    for op, numbers in (
        (BinaryOp.SHL, [p << int(q) for p, q in zip(unsigned, amounts, strict=True)]),
        (BinaryOp.SHR, [p >> int(q) for p, q in zip(unsigned, amounts, strict=True)]),
    ):
        expected = np.array([n % (1 << bits) for n in numbers], f"uint{bits}").view(dtype.numpy)
        result = compute(Binary(op, x, z), dtype, a, amounts, kind=kind)
        np.testing.assert_array_equal(result, expected)
    with pytest.raises(InterpreterError, match="shifted by"):
        compute(Binary(BinaryOp.SHL, x, x), dtype, np.full_like(a, bits), kind=kind)


@BOTH
@pytest.mark.parametrize(
    ("function", "numpy"),
    [
        (Function.NEG, np.negative),
        (Function.ABS, np.abs),
        (Function.SIGN, np.sign),
        (Function.EXP, np.exp),
        (Function.EXPM1, np.expm1),
        (Function.LOG, np.log),
        (Function.LOG1P, np.log1p),
        (Function.SQRT, np.sqrt),
        (Function.SIN, np.sin),
        (Function.COS, np.cos),
        (Function.TANH, np.tanh),
        (Function.SIGMOID, lambda x: 1 / (1 + np.exp(-x))),
        (Function.ERF, np.vectorize(math.erf, otypes=[np.float64])),
        (Function.FLOOR, np.floor),
        (Function.CEIL, np.ceil),
        (Function.ROUND, np.rint),
    ],
    ids=lambda f: getattr(f, "value", ""),
)
def test_functions_are_correctly_rounded(
    function: Function, numpy: np.ufunc, kind: LoopKind
) -> None:
    x = SPECIAL.astype(np.float32)
    result = compute(Call(function, at("x", x.size, F32)), F32, x, kind=kind)
    with np.errstate(all="ignore"):
        expected = numpy(x.astype(np.float64)).astype(np.float32)
    np.testing.assert_array_equal(result, expected)


@BOTH
def test_powers_and_what_is_not_a_number(kind: LoopKind) -> None:
    a, b = pairs(SPECIAL, F32)
    power = Binary(BinaryOp.POW, at("x", a.size, F32), at("z", a.size, F32))
    with np.errstate(all="ignore"):
        expected = np.power(a.astype(np.float64), b).astype(np.float32)
    np.testing.assert_array_equal(compute(power, F32, a, b, kind=kind), expected)
    nan = Call(Function.ISNAN, at("x", a.size, F32))
    np.testing.assert_array_equal(compute(nan, DType.BOOL, a, kind=kind), np.isnan(a))


@BOTH
@pytest.mark.parametrize("source", list(DType), ids=str)
@pytest.mark.parametrize("to", list(DType), ids=str)
def test_casts(source: DType, to: DType, kind: LoopKind) -> None:
    """Towards zero, wrapped, or compared with zero."""
    values = np.array([0, 1, 2.75, 100.5, 127, 3, 99.9])
    if source in (F32, DType.FLOAT64, DType.INT32, I64) and to is not DType.UINT8:
        values = np.append(values, [-1, -2.75, -100])
    x = values.astype(source.numpy)
    result = compute(Cast(at("x", x.size, source), to), to, x, kind=kind)
    expected = (x != 0) if to is DType.BOOL else x.astype(to.numpy)
    np.testing.assert_array_equal(result, expected)


@BOTH
def test_wide_integers_lose_their_high_bits(kind: LoopKind) -> None:
    x = INTEGERS
    result = compute(Cast(at("x", x.size, I64), DType.INT32), DType.INT32, x, kind=kind)
    np.testing.assert_array_equal(result, x.astype(np.int32))


@BOTH
def test_comparisons_and_selections(kind: LoopKind) -> None:
    a, b = pairs(SPECIAL, F32)
    x, z = at("x", a.size, F32), at("z", a.size, F32)
    for op, numpy in (
        (BinaryOp.LT, np.less),
        (BinaryOp.LE, np.less_equal),
        (BinaryOp.EQ, np.equal),
        (BinaryOp.NE, np.not_equal),
    ):
        expected = numpy(a, b)
        result = compute(Binary(op, x, z), DType.BOOL, a, b, kind=kind)
        np.testing.assert_array_equal(result, expected)
        chosen = compute(Select(Binary(op, x, z), x, z), F32, a, b, kind=kind)
        np.testing.assert_array_equal(chosen, np.where(expected, a, b))


@BOTH
def test_booleans(kind: LoopKind) -> None:
    a = np.array([False, False, True, True])
    b = np.array([False, True, False, True])
    x, z = at("x", 4, DType.BOOL), at("z", 4, DType.BOOL)
    for op, expected in ((BinaryOp.AND, a & b), (BinaryOp.OR, a | b), (BinaryOp.XOR, a ^ b)):
        result = compute(Binary(op, x, z), DType.BOOL, a, b, kind=kind)
        np.testing.assert_array_equal(result, expected)
    inverted = compute(Call(Function.NOT, x), DType.BOOL, a, kind=kind)
    np.testing.assert_array_equal(inverted, ~a)


def test_float32_is_computed_in_float32() -> None:
    """1e8 + 1 - 1e8 is 0 where float64 would give 1."""
    x = np.array([1e8], np.float32)
    value = Binary(BinaryOp.ADD, at("x", 1, F32), number(1.0))
    value = Binary(BinaryOp.SUB, value, at("x", 1, F32))
    assert compute(value, F32, x, kind=SERIAL)[0] == 0.0
