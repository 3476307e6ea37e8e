"""Machine code of expressions: arithmetic, functions, casts and choices are those of NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from emitting import (
    BOOL,
    COMPARED,
    F32,
    F64,
    I32,
    I64,
    OF_FLOAT,
    U8,
    evaluate,
    i,
    j,
    normal,
    pairs,
    pointwise,
    samples,
)
from kernels import host

from quern.compiler.errors import CompileError
from quern.compiler.llvm.emit import emit
from quern.compiler.loops.ir import (
    Binary,
    BinaryOp,
    Buffer,
    Call,
    Cast,
    Const,
    For,
    Function,
    Kernel,
    Load,
    Select,
    Store,
    binary,
    index,
)
from quern.compiler.types import Array, DType


def numpy_shift(shift: np.ufunc, a: Array, b: Array) -> Array:
    """Shifts fill with zeros and give zero for amounts that are not below the width."""
    bits = 8 * a.dtype.itemsize
    unsigned = np.dtype(f"u{a.dtype.itemsize}")
    amount = np.where((b >= 0) & (b < bits), b, 0).astype(unsigned)
    shifted = shift(a.view(unsigned), amount)
    return np.where((b >= 0) & (b < bits), shifted, 0).astype(unsigned).view(a.dtype)


def numpy_binary(op: BinaryOp, a: Array, b: Array) -> Array:
    table = {
        BinaryOp.ADD: np.add, BinaryOp.SUB: np.subtract, BinaryOp.MUL: np.multiply,
        BinaryOp.DIV: np.divide, BinaryOp.FLOORDIV: np.floor_divide, BinaryOp.MOD: np.remainder,
        BinaryOp.MIN: np.minimum, BinaryOp.MAX: np.maximum, BinaryOp.POW: np.power,
        BinaryOp.AND: np.bitwise_and, BinaryOp.OR: np.bitwise_or, BinaryOp.XOR: np.bitwise_xor,
        BinaryOp.LT: np.less, BinaryOp.LE: np.less_equal, BinaryOp.EQ: np.equal,
        BinaryOp.NE: np.not_equal,
    }  # fmt: skip
    with np.errstate(all="ignore"):
        if op is BinaryOp.SHL:
            return numpy_shift(np.left_shift, a, b)
        if op is BinaryOp.SHR:
            return numpy_shift(np.right_shift, a, b)
        return np.asarray(table[op](a, b))


OF_INTEGER = [op for op in BinaryOp if op not in (BinaryOp.DIV, BinaryOp.POW)]
OF_BOOL = [BinaryOp.AND, BinaryOp.OR, BinaryOp.XOR, BinaryOp.ADD, BinaryOp.MUL, BinaryOp.MIN,
           BinaryOp.MAX, *COMPARED]  # fmt: skip
BINARIES = [
    *((op, dtype) for dtype in (F32, F64) for op in OF_FLOAT),
    *((op, dtype) for dtype in (I32, I64, U8) for op in OF_INTEGER),
    *((op, BOOL) for op in OF_BOOL),
]


@pytest.mark.parametrize(("op", "dtype"), BINARIES, ids=lambda p: getattr(p, "name", str(p)))
def test_binary_operations_are_numpys(op: BinaryOp, dtype: DType) -> None:
    a, b = pairs(dtype)
    x, y = Buffer("a", a.shape, dtype), Buffer("b", b.shape, dtype)
    got = evaluate(Binary(op, Load(x, (i,)), Load(y, (i,))), {"a": a, "b": b}, 8)
    want = numpy_binary(op, a, b)
    if op is BinaryOp.POW:
        np.testing.assert_allclose(got, want, rtol=1e-6 if dtype is F32 else 1e-14)
    else:
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("op", [BinaryOp.MIN, BinaryOp.MAX])
@pytest.mark.parametrize("bound", [0.0, math.nan, math.inf])
@pytest.mark.parametrize("first", [True, False])
def test_extremes_with_a_constant_keep_nan(op: BinaryOp, bound: float, first: bool) -> None:
    a = samples(F32)
    x, limit = Load(Buffer("a", a.shape), (i,)), Const(bound, F32)
    got = evaluate(Binary(op, limit, x) if first else Binary(op, x, limit), {"a": a}, 8)
    np.testing.assert_array_equal(got, numpy_binary(op, a, np.float32(bound)))


@pytest.mark.parametrize(
    ("divisor", "dtype"),
    [(n, dtype) for n in (1, 2, 7, 8, 0, 100) for dtype in (I32, I64, U8)]
    + [(n, dtype) for n in (-3, -1) for dtype in (I32, I64)],
)
def test_integer_division_by_constants(divisor: int, dtype: DType) -> None:
    a = samples(dtype)
    x, by = Load(Buffer("a", a.shape, dtype), (i,)), Const(divisor, dtype)
    for op in (BinaryOp.FLOORDIV, BinaryOp.MOD):
        got = evaluate(Binary(op, x, by), {"a": a}, 8)
        np.testing.assert_array_equal(got, numpy_binary(op, a, dtype.numpy.type(divisor)))


def sigmoid(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-x)))


NUMPY_FUNCTIONS = {
    Function.NEG: np.negative, Function.ABS: np.abs, Function.SIGN: np.sign,
    Function.EXP: np.exp, Function.EXPM1: np.expm1, Function.LOG: np.log, Function.LOG1P: np.log1p,
    Function.SQRT: np.sqrt, Function.SIN: np.sin, Function.COS: np.cos, Function.TANH: np.tanh,
    Function.SIGMOID: sigmoid, Function.ERF: np.vectorize(math.erf), Function.FLOOR: np.floor,
    Function.CEIL: np.ceil, Function.ROUND: np.round, Function.ISNAN: np.isnan,
    Function.NOT: np.invert, Function.DECAY: np.exp,
}  # fmt: skip
EXACT = (Function.NEG, Function.ABS, Function.SIGN, Function.FLOOR, Function.CEIL, Function.ROUND,
         Function.ISNAN, Function.NOT, Function.SQRT)  # fmt: skip


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("function", [f for f in Function if f is not Function.NOT])
def test_functions_of_floats(function: Function, dtype: DType) -> None:
    a = -np.abs(samples(dtype)) if function is Function.DECAY else samples(dtype)
    got = evaluate(Call(function, Load(Buffer("a", a.shape, dtype), (i,))), {"a": a}, 8)
    with np.errstate(all="ignore"):
        want = NUMPY_FUNCTIONS[function](a.astype(np.float64)).astype(got.dtype)
    if function in EXACT:
        np.testing.assert_array_equal(got, want)
    else:
        least = 2.0**-126 if function is Function.DECAY else 0
        np.testing.assert_allclose(got, want, rtol=5e-7 if dtype is F32 else 1e-14, atol=least)


OF_WHOLE = (Function.NEG, Function.ABS, Function.SIGN, Function.NOT)


@pytest.mark.parametrize(
    ("function", "dtype"),
    [(function, dtype) for function in OF_WHOLE for dtype in (I32, I64, U8)]
    + [(Function.NOT, BOOL)],
)
def test_functions_of_integers(function: Function, dtype: DType) -> None:
    a = samples(dtype)
    got = evaluate(Call(function, Load(Buffer("a", a.shape, dtype), (i,))), {"a": a}, 8)
    np.testing.assert_array_equal(got, NUMPY_FUNCTIONS[function](a))


@pytest.mark.parametrize("to", list(DType))
@pytest.mark.parametrize("source", list(DType))
def test_casts_are_numpys(source: DType, to: DType) -> None:
    a = samples(source)
    got = evaluate(Cast(Load(Buffer("a", a.shape, source), (i,)), to), {"a": a}, 8)
    with np.errstate(all="ignore"):
        want = a.astype(to.numpy)
    if source.is_float and to.is_integer:
        # What does not fit: the smallest integer; to uint8 by way of int32.
        via = np.dtype(np.int32) if to is U8 else to.numpy
        with np.errstate(all="ignore"):
            fits = np.abs(a.astype(np.float64)) < 2.0 ** (8 * via.itemsize - 1)
            want = np.where(fits, np.where(fits, a, 0).astype(via), np.iinfo(via).min)
            want = want.astype(to.numpy)
    np.testing.assert_array_equal(got, want)


def test_operations_without_meaning_are_refused() -> None:
    flags, counts = Buffer("a", (4,), BOOL), Buffer("a", (4,), I32)
    flag, count = Load(flags, (i,)), Load(counts, (i,))
    for expr, buffer in [
        (Binary(BinaryOp.SUB, flag, flag), flags),
        (Binary(BinaryOp.DIV, count, count), counts),
        (Call(Function.EXP, count), counts),
        (Call(Function.NEG, flag), flags),
    ]:
        with pytest.raises(CompileError, match=r"kernel pointwise: \w+ is not defined for"):
            emit(pointwise(expr, (buffer,), 4), host())


def test_mixed_dtypes_are_refused() -> None:
    x, counts, out = Buffer("x", (4,)), Buffer("n", (4,), I32), Buffer("out", (4,))
    for stmt, message in [
        (Store(out, (i,), Load(counts, (i,))), "int32 is written to buffer out of float32"),
        (Store(out, (Load(counts, (i,)),), Load(x, (i,))), "out is indexed by int32"),
        (Store(out, (i,), Binary(BinaryOp.ADD, Load(x, (i,)), Load(counts, (i,)))), "ADD of"),
        (Store(out, (i, i), Load(x, (i,))), "out, indexed by 2 numbers, has shape"),
        (Store(out, (j,), Load(x, (i,))), "variable j is not in scope"),
    ]:
        with pytest.raises(CompileError, match=message):
            emit(Kernel("k", (x, counts, out), (For(i, 4, (stmt,)),)), host())


def test_lane_numbers_as_values() -> None:
    n = 21
    a = normal(n)
    x = Load(Buffer("a", (n,)), (i,))
    numbers = np.arange(n)
    for expr, want in [
        (Cast(i * 3 - 7, F32), (numbers * 3 - 7).astype(np.float32)),
        (Cast(i * 2, U8), (numbers * 2).astype(np.uint8)),
        (Cast(i * (1 << 40), F64), (numbers * 2.0**40)),
        (Cast(i, BOOL), numbers != 0),
        (Select(i < index(11), x, Const(0.0, F32)), np.where(numbers < 11, a, 0)),
        (Select(binary(BinaryOp.EQ, i, 5), x, Const(0.0, F32)), np.where(numbers == 5, a, 0)),
        (Select(i * 2 <= i + 9, x, Const(0.0, F32)), np.where(numbers <= 9, a, 0)),
    ]:
        np.testing.assert_array_equal(evaluate(expr, {"a": a}, 8), want)


def test_selection_by_lane_and_by_scalar() -> None:
    a, b = normal(37), normal(37, seed=1)
    x, y = Load(Buffer("a", (37,)), (i,)), Load(Buffer("b", (37,)), (i,))
    got = evaluate(Select(x < y, x, Const(7.0, F32)), {"a": a, "b": b}, 8)
    np.testing.assert_array_equal(got, np.where(a < b, a, np.float32(7)))
    first = Load(Buffer("a", (37,)), (index(0),))
    got = evaluate(Select(first < y, x, y), {"a": a, "b": b}, 8)
    np.testing.assert_array_equal(got, np.where(a[0] < b, a, b))
    got = evaluate(Select(first < first, x, y), {"a": a, "b": b}, 8)
    np.testing.assert_array_equal(got, b)
