"""Kernels of every kind of statement and expression, as machine code against NumPy."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import host, run_kernel
from loop_kernels import regular_kernels, serial

from quern.compiler.errors import CompileError
from quern.compiler.llvm.codegen import assembly, compile_to_object
from quern.compiler.llvm.emit import emit, fingerprint, phases_of
from quern.compiler.llvm.target import Target
from quern.compiler.loops.bounds import prove
from quern.compiler.loops.canonical import canonical_key
from quern.compiler.loops.independence import prove_race_free
from quern.compiler.loops.interpreter import interpret
from quern.compiler.loops.ir import (
    COMPARISONS,
    Accumulate,
    Alloc,
    Binary,
    BinaryOp,
    Block,
    Buffer,
    Call,
    Cast,
    Const,
    Expr,
    For,
    Function,
    If,
    Kernel,
    Let,
    Load,
    LoopKind,
    Prefetch,
    ReduceOp,
    Select,
    Space,
    Store,
    Var,
    binary,
    clamp,
    index,
    loop_nest,
    maximum,
    minimum,
)
from quern.compiler.loops.printer import print_kernel
from quern.compiler.types import Array, DType

F32, F64, I32, I64, U8, BOOL = (
    DType.FLOAT32,
    DType.FLOAT64,
    DType.INT32,
    DType.INT64,
    DType.UINT8,
    DType.BOOL,
)
SERIAL, PARALLEL, UNROLLED, VECTOR = LoopKind
ADD, MUL, MIN, MAX = ReduceOp
i, j, k, r, c = (Var(name) for name in "ijkrc")
GOLDEN = Path(__file__).parent / "golden"

# Narrower vectors run here too; the widest only if the machine has them.
RUNNABLE = [t for t in map(Target.named, ("sse", "avx2", "avx512")) if not t.missing]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def normal(*shape: int, dtype: type = np.float32, seed: int = 0) -> Array:
    return rng(seed).standard_normal(shape).astype(dtype)


def vector(var: Var, extent: int, *body: object, lanes: int = 8) -> For:
    return For(var, extent, body, VECTOR, lanes)  # type: ignore[arg-type]


def pointwise(expr: Expr, buffers: tuple[Buffer, ...], lanes: int) -> Kernel:
    """out[i] = expr for all i."""
    n = buffers[0].shape[0]
    out = Buffer("out", (n,), expr.dtype)
    store = Store(out, (i,), expr)
    return Kernel("pointwise", (*buffers, out), (For(i, n, (store,), VECTOR, lanes),))


def evaluate(expr: Expr, arrays: dict[str, Array], lanes: int) -> Array:
    buffers = tuple(Buffer(n, a.shape, DType.of(a.dtype)) for n, a in arrays.items())
    return run_kernel(pointwise(expr, buffers, lanes), [*arrays.values(), None])[-1]


# ------------------------------------------------------------------------------ expressions

FLOATS = np.array(
    [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, -1.5, 2.5, 3.0, -3.0, 7.25, 1e-40, -1e-40, 3e38, -3e38,
     math.inf, -math.inf, math.nan, 1e-3, 100.0, -7.75, 2.0, -2.0]
)  # fmt: skip
INTEGERS = {
    I32: np.array([0, 1, -1, 2, -2, 3, -3, 7, -7, 31, 32, 33, 100, -100, 2**31 - 1, -(2**31)]),
    I64: np.array([0, 1, -1, 2, -2, 3, -3, 7, -7, 63, 64, 65, 1000, -1000, 2**63 - 1, -(2**63)]),
    U8: np.array([0, 1, 2, 3, 5, 7, 8, 9, 31, 100, 127, 128, 200, 254, 255]),
    BOOL: np.array([False, True]),
}


def samples(dtype: DType) -> Array:
    values = FLOATS if dtype.is_float else INTEGERS[dtype]
    return values.astype(dtype.numpy)


def pairs(dtype: DType) -> tuple[Array, Array]:
    values = samples(dtype)
    a, b = np.meshgrid(values, values)
    return a.ravel(), b.ravel()


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


COMPARED = [op for op in BinaryOp if op in COMPARISONS]  # in an order of their own
OF_FLOAT = [BinaryOp.ADD, BinaryOp.SUB, BinaryOp.MUL, BinaryOp.DIV, BinaryOp.FLOORDIV, BinaryOp.MOD,
            BinaryOp.MIN, BinaryOp.MAX, BinaryOp.POW, *COMPARED]  # fmt: skip
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
    Function.NOT: np.invert,
}  # fmt: skip
EXACT = (Function.NEG, Function.ABS, Function.SIGN, Function.FLOOR, Function.CEIL, Function.ROUND,
         Function.ISNAN, Function.NOT, Function.SQRT)  # fmt: skip


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("function", [f for f in Function if f is not Function.NOT])
def test_functions_of_floats(function: Function, dtype: DType) -> None:
    a = samples(dtype)
    got = evaluate(Call(function, Load(Buffer("a", a.shape, dtype), (i,))), {"a": a}, 8)
    with np.errstate(all="ignore"):
        want = NUMPY_FUNCTIONS[function](a.astype(np.float64)).astype(got.dtype)
    if function in EXACT:
        np.testing.assert_array_equal(got, want)
    else:
        np.testing.assert_allclose(got, want, rtol=5e-7 if dtype is F32 else 1e-14)


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


# ------------------------------------------------------------------------------ lanes and addresses


@pytest.mark.parametrize("target", RUNNABLE, ids=lambda t: t.level)
@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 9, 15, 16, 17, 33, 64, 100])
def test_any_extent_in_any_number_of_lanes(n: int, target: Target) -> None:
    a, b = normal(n), normal(n, seed=1)
    x, y, out = Buffer("a", (n,)), Buffer("b", (n,)), Buffer("out", (n,))
    for lanes in (4, 8, 16):
        body = Store(out, (i,), Binary(BinaryOp.MUL, Load(x, (i,)), Load(y, (i,))))
        kernel = Kernel("product", (x, y, out), (vector(i, n, body, lanes=lanes),))
        np.testing.assert_array_equal(run_kernel(kernel, [a, b, None], target)[2], a * b)


@pytest.mark.parametrize("step", [-3, -2, -1, 0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("n", [1, 3, 8, 13, 16, 21])
@pytest.mark.parametrize("dtype", [F32, F64, U8, BOOL, I64])
def test_strided_loads_and_stores(step: int, n: int, dtype: DType) -> None:
    span = abs(step) * (n - 1) + 1
    start = 0 if step >= 0 else span - 1
    data = (rng().random(span) * 200).astype(dtype.numpy)
    source, packed = Buffer("source", (span,), dtype), Buffer("packed", (n,), dtype)
    load = vector(i, n, Store(packed, (i,), Load(source, (i * step + start,))))
    got = run_kernel(Kernel("load", (source, packed), (load,)), [data, None])[1]
    want = data[[start + step * p for p in range(n)]]
    np.testing.assert_array_equal(got, want)
    if step == 0:
        return
    spread = Buffer("spread", (span,), dtype)
    store = vector(i, n, Store(spread, (i * step + start,), Load(packed, (i,))))
    before = np.zeros(span, dtype.numpy)
    got = run_kernel(Kernel("store", (packed, spread), (store,)), [want, before])[1]
    before[[start + step * p for p in range(n)]] = want
    np.testing.assert_array_equal(got, before)


@pytest.mark.parametrize("lanes", [4, 8])
def test_offsets_that_are_not_linear_in_the_lane(lanes: int) -> None:
    n, m = 45, 7
    a = normal(m)
    x = Buffer("a", (m,))
    for position, want in [
        (i % m, np.arange(n) % m),
        ((i * 3 + 1) // 4 % m, (np.arange(n) * 3 + 1) // 4 % m),
        (clamp(i - 20, 0, m - 1), np.clip(np.arange(n) - 20, 0, m - 1)),
        (i * i % m, np.arange(n) ** 2 % m),
        ((i - 50) % m, (np.arange(n) - 50) % m),
        ((i - 50) // 13 + 4, (np.arange(n) - 50) // 13 + 4),
        (Select(i < index(9), index(2), i % m), np.where(np.arange(n) < 9, 2, np.arange(n) % m)),
    ]:
        out = Buffer("out", (n,))
        kernel = Kernel(
            "k", (x, out), (vector(i, n, Store(out, (i,), Load(x, (position,))), lanes=lanes),)
        )
        np.testing.assert_array_equal(run_kernel(kernel, [a, None])[1], a[want])


def test_division_that_keeps_within_a_block_needs_no_lanes() -> None:
    """A flat loop over rows of 32: the row is the same for eight neighbours, the column a ramp."""
    n = 160
    x, bias, out = Buffer("x", (5, 32)), Buffer("bias", (5,)), Buffer("out", (32, 5))
    flat = Load(x, (i // 32, i % 32))
    body = Store(out, (i % 32, i // 32), Binary(BinaryOp.ADD, flat, Load(bias, (i // 32,))))
    kernel = Kernel("k", (x, bias, out), (vector(i, n, body),))
    a, b = normal(5, 32), normal(5, seed=1)
    np.testing.assert_array_equal(run_kernel(kernel, [a, b, None])[2], (a + b[:, None]).T)
    assert "div <8" not in emit(kernel, host()).ir
    assert "rem <8" not in emit(kernel, host()).ir


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_index_arithmetic_is_that_of_python(data: st.DataObject) -> None:
    n, m = 19, 5

    def expression(depth: int) -> tuple[Expr, object]:
        leaf = data.draw(st.integers(0, 2))
        if depth == 0 or leaf == 0:
            pick = data.draw(st.integers(0, 2))
            if pick == 0:
                return i, lambda p, q: p
            if pick == 1:
                return j, lambda p, q: q
            value = data.draw(st.integers(-20, 20))
            return index(value), lambda p, q: value
        a, f = expression(depth - 1)
        op = data.draw(st.sampled_from("+-*/%<>"))
        if op in "*/%":
            by = data.draw(st.integers(1, 9) if op != "*" else st.integers(-4, 4))
            table = {
                "*": (a * by, lambda p, q: f(p, q) * by),
                "/": (a // by, lambda p, q: f(p, q) // by),
                "%": (a % by, lambda p, q: f(p, q) % by),
            }
            return table[op]
        b, g = expression(depth - 1)
        pairs = {
            "+": (a + b, lambda p, q: f(p, q) + g(p, q)),
            "-": (a - b, lambda p, q: f(p, q) - g(p, q)),
            "<": (minimum(a, b), lambda p, q: min(f(p, q), g(p, q))),
            ">": (maximum(a, b), lambda p, q: max(f(p, q), g(p, q))),
        }
        return pairs[op]

    expr, meaning = expression(3)
    out = Buffer("out", (m, n), I64)
    kernel = Kernel("k", (out,), (For(j, m, (vector(i, n, Store(out, (j, i), expr), lanes=4),)),))
    want = [[meaning(p, q) for p in range(n)] for q in range(m)]  # type: ignore[operator]
    np.testing.assert_array_equal(run_kernel(kernel, [None])[0], want)


def test_int64_data_wraps_around() -> None:
    a = samples(I64)
    x = Load(Buffer("a", a.shape, I64), (i,))
    got = evaluate(x * 6364136223846793005 + 1442695040888963407, {"a": a}, 4)
    with np.errstate(over="ignore"):
        want = a * np.int64(6364136223846793005) + np.int64(1442695040888963407)
    np.testing.assert_array_equal(got, want)


def test_names_are_seen_through() -> None:
    n = 24
    x, out = Buffer("x", (2 * n,)), Buffer("out", (n,))
    twice, value = Var("twice"), Var("value", F32)
    body = (
        Let(twice, i * 2),
        Let(value, Load(x, (twice + 1,))),
        Store(out, (i,), Binary(BinaryOp.ADD, value, value)),
    )
    kernel = Kernel("k", (x, out), (vector(i, n, *body),))
    a = normal(2 * n)
    np.testing.assert_array_equal(run_kernel(kernel, [a, None])[1], 2 * a[1::2])
    assert "extractelement" not in emit(kernel, host()).ir


# ------------------------------------------------------------------------------ reductions


@pytest.mark.parametrize("op", list(ReduceOp))
@pytest.mark.parametrize("n", [0, 1, 3, 8, 15, 31, 64, 77, 300])
@pytest.mark.parametrize("dtype", [F32, F64, I32, U8, BOOL])
def test_reductions_into_one_place(op: ReduceOp, n: int, dtype: DType) -> None:
    functions = {ADD: np.add, MUL: np.multiply, MIN: np.minimum, MAX: np.maximum}
    data = rng().uniform(0.9, 1.1, n) if dtype.is_float else rng().integers(0, 100, n)
    a = data.astype(dtype.numpy)
    x, out = Buffer("x", (n,), dtype), Buffer("out", (), dtype)
    kernel = Kernel("k", (x, out), (vector(i, n, Accumulate(out, (), op, Load(x, (i,)))),))
    start = np.ones((), dtype.numpy)
    got = run_kernel(kernel, [a, start])[1]
    want = functions[op].reduce(a, initial=start[()], dtype=dtype.numpy)
    np.testing.assert_allclose(got, want, rtol=1e-5 if dtype is F32 else 1e-12)


@pytest.mark.parametrize("op", [MIN, MAX])
@pytest.mark.parametrize("position", [0, 5, 31, 63, 70, 74])
def test_one_nan_shows_in_extremes(op: ReduceOp, position: int) -> None:
    a = normal(75)
    a[position] = math.nan
    x, out = Buffer("x", (75,)), Buffer("out", ())
    kernel = Kernel("k", (x, out), (vector(i, 75, Accumulate(out, (), op, Load(x, (i,)))),))
    assert np.isnan(run_kernel(kernel, [a, np.float32(0)])[1])


def test_reduction_into_places_that_change_inside_the_vector_loop() -> None:
    n, m = 21, 5
    x, out = Buffer("x", (m, n)), Buffer("out", (m,))
    body = vector(i, n, For(j, m, (Accumulate(out, (j,), ADD, Load(x, (j, i))),)))
    a = normal(m, n)
    got = run_kernel(Kernel("k", (x, out), (body,)), [a, np.zeros(m, np.float32)])[1]
    np.testing.assert_allclose(got, a.sum(1), rtol=1e-5, atol=1e-6)


def test_reduction_into_many_places_and_into_more_than_fit_the_stack() -> None:
    n = 11
    for m in (100, 5000):
        x, out = Buffer("x", (m, n)), Buffer("out", (m,))
        body = vector(i, n, For(j, m, (Accumulate(out, (j,), ADD, Load(x, (j, i))),)))
        a = normal(m, n)
        got = run_kernel(Kernel("k", (x, out), (body,)), [a, np.ones(m, np.float32)])[1]
        np.testing.assert_allclose(got, 1 + a.sum(1), rtol=1e-5, atol=1e-5)


def test_reduction_of_what_is_the_same_in_all_lanes() -> None:
    x, out = Buffer("x", (1,)), Buffer("out", ())
    body = vector(i, 21, Accumulate(out, (), ADD, Load(x, (index(0),))))
    got = run_kernel(Kernel("k", (x, out), (body,)), [np.ones(1, np.float32), np.float32(0)])[1]
    assert got == 21


def test_scatter_adds_lane_after_lane() -> None:
    n = 29
    positions = rng().integers(0, 6, n)
    x, where, out = Buffer("x", (n,)), Buffer("where", (n,), I64), Buffer("out", (6,))
    body = Accumulate(out, (clamp(Load(where, (i,)), 0, 5),), ADD, Load(x, (i,)))
    a = normal(n)
    kernel = Kernel("k", (x, where, out), (vector(i, n, body),))
    got = run_kernel(kernel, [a, positions, np.zeros(6, np.float32)])[2]
    want = np.zeros(6, np.float32)
    np.add.at(want, positions, a)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_accumulation_along_the_lanes() -> None:
    n, m = 19, 6
    x, out = Buffer("x", (m, n)), Buffer("out", (n,))
    body = For(j, m, (vector(i, n, Accumulate(out, (i,), ADD, Load(x, (j, i)))),))
    a = normal(m, n)
    got = run_kernel(Kernel("k", (x, out), (body,)), [a, np.zeros(n, np.float32)])[1]
    np.testing.assert_allclose(got, a.sum(0), rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------------------ statements


def test_vector_loop_around_serial_loops_with_a_buffer_for_each_lane() -> None:
    """Column maxima and the sums of exponentials, all of a column in one lane."""
    m, n = 9, 21
    x, out = Buffer("x", (m, n)), Buffer("out", (n,))
    top, total = Buffer("top", (), space=Space.REGISTER), Buffer("t", (), space=Space.REGISTER)
    column = Buffer("column", (m,), space=Space.STACK)
    peak = Var("peak", F32)
    body: Block = (
        Alloc(top),
        Alloc(total),
        Alloc(column),
        Store(top, (), Const(-math.inf, F32)),
        Store(total, (), Const(0.0, F32)),
        For(j, m, (Accumulate(top, (), MAX, Load(x, (j, i))),)),
        Let(peak, Load(top, ())),
        For(
            j, m,
            (Store(column, (j,), Call(Function.EXP, Binary(BinaryOp.SUB, Load(x, (j, i)), peak))),),
        ),
        For(j, m, (Accumulate(total, (), ADD, Load(column, (j,))),)),
        Store(out, (i,), Load(total, ())),
    )  # fmt: skip
    a = normal(m, n)
    got = run_kernel(Kernel("k", (x, out), (vector(i, n, *body),)), [a, None])[1]
    np.testing.assert_allclose(got, np.exp(a - a.max(0)).sum(0), rtol=1e-6)


@pytest.mark.parametrize("dtype", [F32, BOOL, I64, U8])
def test_private_buffers_indexed_by_the_lane(dtype: DType) -> None:
    m, n = 6, 13
    x, out = Buffer("x", (n, m), dtype), Buffer("out", (n,), dtype)
    row = Buffer("row", (m,), dtype, Space.STACK)
    body: Block = (
        Alloc(row),
        For(j, m, (Store(row, (j,), Load(x, (i, j))),)),
        Store(row, (i % 2,), Load(x, (i, index(5)))),
        Store(out, (i,), Load(row, (i % m,))),
    )
    a = (rng().random((n, m)) * 200).astype(dtype.numpy)
    got = run_kernel(Kernel("k", (x, out), (vector(i, n, *body, lanes=4),)), [a, None])[1]
    want = a.copy()
    want[np.arange(n), np.arange(n) % 2] = a[:, 5]
    np.testing.assert_array_equal(got, want[np.arange(n), np.arange(n) % m])


def test_branches() -> None:
    n, m = 11, 6
    x, out = Buffer("x", (m, n)), Buffer("out", (m, n))
    first_rows = Store(out, (j, i), Load(x, (j, i)))
    negative = Load(x, (j, index(0))) < Const(0.0, F32)
    others = If(negative, (Store(out, (j, i), Const(-1.0, F32)),))
    body = vector(i, n, If(j < index(2), (first_rows,), (others,)), lanes=4)
    a = normal(m, n)
    want = np.full((m, n), 5, np.float32)
    want[:2] = a[:2]
    want[2:][a[2:, 0] < 0] = -1
    got = run_kernel(
        Kernel("k", (x, out), (For(j, m, (body,)),)), [a, np.full((m, n), 5, np.float32)]
    )
    np.testing.assert_array_equal(got[1], want)


def test_conditions_that_are_known_leave_no_branch() -> None:
    out = Buffer("out", (8,))
    body = If(
        j < index(4), (Store(out, (j,), Const(1.0, F32)),), (Store(out, (j,), Const(2.0, F32)),)
    )
    kernel = Kernel("k", (out,), (For(j, 8, (body,), UNROLLED),))
    assert "br " not in emit(kernel, host()).ir
    np.testing.assert_array_equal(run_kernel(kernel, [None])[0], [1] * 4 + [2] * 4)


def test_names_end_with_their_block() -> None:
    out = Buffer("out", (3,), I64)
    v = Var("v")
    body: Block = (
        Let(v, index(1)),
        For(j, 2, (Let(v, j + 10), Store(out, (j,), v))),
        Store(out, (index(2),), v),
    )
    np.testing.assert_array_equal(run_kernel(Kernel("k", (out,), body), [None])[0], [10, 11, 1])


def test_zero_extents_do_nothing() -> None:
    x, out = Buffer("x", (0, 4)), Buffer("out", (4,))
    for kind in LoopKind:
        body = For(j, 0, (Store(out, (index(0),), Load(x, (j, index(0)))),), kind, 4)
        kernel = Kernel("k", (x, out), (body,))
        assert phases_of(kernel) == ()
        got = run_kernel(kernel, [np.zeros((0, 4), np.float32), np.ones(4, np.float32)])[1]
        np.testing.assert_array_equal(got, 1)
    around = Kernel(
        "k", (x, out), loop_nest(((i, 3), (j, 0)), (Store(out, (i,), Const(0.0, F32)),), PARALLEL)
    )
    assert phases_of(around) == ()


def test_scalars_and_bools_in_memory() -> None:
    flag, out = Buffer("flag", (), BOOL), Buffer("out", (5,), BOOL)
    body = vector(
        i, 5, Store(out, (i,), Binary(BinaryOp.AND, Load(flag, ()), i < index(3))), lanes=4
    )
    got = run_kernel(Kernel("k", (flag, out), (body,)), [np.True_, None])[1]
    np.testing.assert_array_equal(got.view(np.uint8), [1, 1, 1, 0, 0])


@settings(max_examples=40, deadline=None)
@given(regular_kernels(), st.integers(2, 4))
def test_machine_code_does_what_the_interpreter_does(kernel: Kernel, lanes: int) -> None:
    def with_lanes(block: Block) -> Block:
        loops = (s for s in block if isinstance(s, For))
        inside = {id(s): replace(s, body=with_lanes(s.body), lanes=lanes) for s in loops}
        return tuple(inside.get(id(s), s) for s in block)

    arrays = list(rng().integers(0, 100, (2, 256)))
    want = [array.copy() for array in arrays]
    # Locals do not reach from one phase into another: such kernels run in order.
    shared = isinstance(kernel.body[0], Alloc)
    if shared or prove_race_free(kernel):
        kernel = serial(kernel)
    else:
        kernel = replace(kernel, body=with_lanes(kernel.body))
    interpret(kernel, want)
    np.testing.assert_array_equal(run_kernel(kernel, arrays), want)


# ------------------------------------------------------------------------------ phases


def two_phases(n: int, m: int) -> Kernel:
    """Row sums into scratch, then their total, then every element over it."""
    x, out = Buffer("x", (n, m)), Buffer("out", (n, m))
    sums, total = Buffer("sums", (n,), space=Space.SCRATCH), Buffer("t", (), space=Space.SCRATCH)
    return Kernel(
        "normalize",
        (x, out),
        (
            For(
                i, n,
                (Store(sums, (i,), Const(0.0, F32)),
                 vector(j, m, Accumulate(sums, (i,), ADD, Load(x, (i, j))))),
                PARALLEL,
            ),
            Store(total, (), Const(0.0, F32)),
            vector(i, n, Accumulate(total, (), ADD, Load(sums, (i,)))),
            *loop_nest(
                ((i, n), (j, m)),
                (Store(out, (i, j), Binary(BinaryOp.DIV, Load(x, (i, j)), Load(total, ()))),),
                PARALLEL,
            ),
        ),
        (sums, total),
    )  # fmt: skip


def test_phases_of_a_kernel() -> None:
    phases = phases_of(two_phases(5, 7))
    assert [(p.extent, p.parallel) for p in phases] == [(5, True), (1, False), (35, True)]
    emitted = emit(two_phases(5, 7), host())
    assert emitted.phases == phases
    assert [p.symbol for p in phases] == [f"{emitted.symbol}.{n}" for n in range(3)]


@pytest.mark.parametrize("pieces", [1, 2, 3, 50])
def test_any_split_of_the_iterations_gives_the_same_bits(pieces: int) -> None:
    a = rng().random((5, 7)).astype(np.float32)
    got = run_kernel(two_phases(5, 7), [a, None], pieces=pieces)[1]
    np.testing.assert_allclose(got, a / a.sum(), rtol=1e-6)
    np.testing.assert_array_equal(got, run_kernel(two_phases(5, 7), [a, None])[1])


def test_nested_parallel_loops_are_one_loop() -> None:
    extents = (3, 4, 5)
    out = Buffer("out", extents, I64)
    body = Store(out, (i, j, k), i * 100 + j * 10 + k)
    kernel = Kernel(
        "k", (out,), loop_nest(tuple(zip((i, j, k), extents, strict=True)), (body,), PARALLEL)
    )
    assert [(p.extent, p.parallel) for p in phases_of(kernel)] == [(60, True)]
    p, q, s = np.indices(extents)
    np.testing.assert_array_equal(run_kernel(kernel, [None], pieces=7)[0], 100 * p + 10 * q + s)


def test_top_level_names_reach_into_phases() -> None:
    x, out = Buffer("x", (1,)), Buffer("out", (4,))
    v = Var("v", F32)
    fill = For(i, 4, (Store(out, (i,), v),), PARALLEL)
    kernel = Kernel("k", (x, out), (Let(v, Load(x, (index(0),))), fill))
    np.testing.assert_array_equal(run_kernel(kernel, [np.float32([3]), None])[1], 3)
    changed = Kernel("k", (x, out), (*kernel.body[:1], Store(x, (index(0),), v), fill))
    with pytest.raises(CompileError, match="reads x in an earlier phase"):
        emit(changed, host())


def test_local_buffers_stay_in_their_phase() -> None:
    local, out = Buffer("local", (4,), space=Space.STACK), Buffer("out", (4,))
    fill = For(i, 4, (Store(out, (i,), Load(local, (i,))),), PARALLEL)
    with pytest.raises(CompileError, match="make it scratch"):
        emit(Kernel("k", (out,), (Alloc(local), fill)), host())


def test_too_much_stack_is_refused() -> None:
    big, out = Buffer("big", (300_000,), space=Space.STACK), Buffer("out", ())
    body = (
        Alloc(big),
        Store(big, (index(0),), Const(0.0, F32)),
        Store(out, (), Load(big, (index(0),))),
    )
    with pytest.raises(CompileError, match="1200000 bytes with big"):
        emit(Kernel("k", (out,), body), host())


# ------------------------------------------------------------------------------ keys


def renamed(prefix: str, extent: int = 8, lanes: int = 8) -> Kernel:
    v, x, y = Var(f"{prefix}i"), Buffer(f"{prefix}x", (extent,)), Buffer(f"{prefix}y", (extent,))
    twice = Binary(BinaryOp.ADD, Load(x, (v,)), Load(x, (v,)))
    body = vector(v, extent, Store(y, (v,), twice), lanes=lanes)
    return Kernel(f"{prefix}layer", (x, y), (body,), note=prefix)


def test_keys_do_not_see_names() -> None:
    assert canonical_key(renamed("a")) == canonical_key(renamed("b"))
    assert emit(renamed("a"), host()) == emit(renamed("b"), host())


def test_fingerprint_is_that_of_the_emitter() -> None:
    assert fingerprint() == fingerprint()
    assert len(bytes.fromhex(fingerprint())) == 32


def test_keys_see_everything_else() -> None:
    out = Buffer("out", (8,))
    other = Buffer("other", (8,))
    value = Const(0.0, F32)
    bodies: list[Block] = [
        (For(i, 8, (Store(out, (i,), value),)),),
        (For(i, 7, (Store(out, (i,), value),)),),
        (For(i, 8, (Store(out, (i,), value),), PARALLEL),),
        (For(i, 8, (Store(out, (i,), value),), VECTOR, 4),),
        (For(i, 8, (Store(out, (i,), value),), VECTOR, 8),),
        (For(i, 8, (Store(other, (i,), value),)),),
        (For(i, 8, (Store(out, (i,), Const(-0.0, F32)),)),),
        (For(i, 8, (Accumulate(out, (i,), ADD, value),)),),
        (For(i, 8, (Accumulate(out, (i,), MAX, value),)),),
        (For(i, 8, (For(j, 8, (Store(out, (i,), value),)),)),),
        (For(i, 8, (For(j, 8, (Store(out, (j,), value),)),)),),
        (For(i, 8, (If(i < index(3), (Store(out, (i,), value),)),)),),
        (For(i, 8, (If(i < index(3), (), (Store(out, (i,), value),)),)),),
        (For(i, 8, (Store(out, (i,), Load(other, (i,))),)),),
        (For(i, 8, (Store(out, (i,), Call(Function.EXP, Load(other, (i,)))),)),),
    ]
    kernels = [Kernel("k", (out, other), body) for body in bodies]
    kernels.append(Kernel("k", (out,), bodies[0], (other,)))
    kernels.append(Kernel("k", (out, Buffer("other", (8,), F64)), bodies[0]))
    keys = [canonical_key(kernel) for kernel in kernels]
    assert len(set(keys)) == len(keys)


def test_keys_of_shared_expressions_take_no_time() -> None:
    out = Buffer("out", (8,))
    value: Expr = Load(out, (i,))
    for _ in range(200):
        value = Binary(BinaryOp.MUL, value, value)
    kernel = Kernel("k", (out,), (vector(i, 8, Store(out, (i,), value)),))
    np.testing.assert_array_equal(run_kernel(kernel, [np.ones(8, np.float32)])[0], 1)


# ------------------------------------------------------------------------------ code


def matmul_tile(rows: int, columns: int, depth: int, lanes: int) -> Kernel:
    """One register tile of C = A B; the columns of a tile are the columns of B."""
    a, b, out = (
        Buffer("a", (rows, depth)),
        Buffer("b", (depth, columns)),
        Buffer("c", (rows, columns)),
    )
    tile = Buffer("tile", (rows, columns), space=Space.REGISTER)
    product = Binary(BinaryOp.MUL, Load(a, (r, k)), Load(b, (k, c)))

    def each(body: Accumulate | Store) -> For:
        return For(r, rows, (vector(c, columns, body, lanes=lanes),), UNROLLED)

    body: Block = (
        Alloc(tile),
        each(Store(tile, (r, c), Const(0.0, F32))),
        For(k, depth, (each(Accumulate(tile, (r, c), ADD, product)),)),
        each(Store(out, (r, c), Load(tile, (r, c)))),
    )
    return Kernel("tile", (a, b, out), body)


@pytest.mark.parametrize("target", RUNNABLE, ids=lambda t: t.level)
def test_matmul_in_register_tiles(target: Target) -> None:
    a, b = normal(6, 40), normal(40, 16, seed=1)
    kernel = matmul_tile(6, 16, 40, target.lanes(F32))
    got = run_kernel(kernel, [a, b, None], target)[2]
    np.testing.assert_allclose(got, a @ b, rtol=1e-4, atol=1e-5)


def inner_loop(text: str) -> list[str]:
    """The instructions of the first innermost loop of an assembly listing."""
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    places = {line[:-1]: n for n, line in enumerate(lines) if line.startswith(".LBB")}
    for n, line in enumerate(lines):
        opcode, _, label = line.partition("\t")
        if opcode.startswith("j") and places.get(label, n) < n:
            return [line for line in lines[places[label] + 1 : n] if line]
    raise AssertionError("no loop")


@pytest.mark.parametrize(
    ("level", "rows", "columns", "register"),
    [("avx2", 6, 16, "ymm"), ("avx512", 14, 32, "zmm")],
)
def test_register_tiles_stay_in_registers(
    level: str, rows: int, columns: int, register: str
) -> None:
    target = Target.named(level)
    lanes = target.lanes(F32)
    text = assembly(emit(matmul_tile(rows, columns, 64, lanes), target).ir, target)
    loop = inner_loop(text)
    assert sum("vfmadd" in line and register in line for line in loop) == rows * columns // lanes
    assert sum("vbroadcastss" in line for line in loop) == rows
    assert not any("rsp" in line or "rbp" in line for line in loop)


def test_wide_vectors_are_wide() -> None:
    for level, register in (("sse", "xmm"), ("avx2", "ymm"), ("avx512", "zmm")):
        target = Target.named(level)
        kernel = renamed("x", 4 * target.lanes(F32), target.lanes(F32))
        assert f"%{register}0" in assembly(emit(kernel, target).ir, target)


@pytest.mark.parametrize("level", ["sse", "avx2", "avx512"])
@pytest.mark.parametrize("dtype", [F32, F64])
def test_every_function_compiles_for_every_target(level: str, dtype: DType) -> None:
    """Also those that this machine cannot run; with a tail of every kind."""
    target = Target.named(level)
    x = Buffer("x", (100,), dtype)
    value: Expr = Load(x, (i,))
    stores = []
    for function in Function:
        if function not in (Function.NOT, Function.ISNAN):
            stores.append(Store(x, (i,), Call(function, value)))
    stores += [Store(x, (i,), Binary(op, value, value)) for op in OF_FLOAT if op not in COMPARISONS]
    stores.append(Store(x, (i,), Select(Call(Function.ISNAN, value), value, Load(x, (i // 3,)))))
    lanes = target.lanes(dtype)
    loops = tuple(vector(i, 3 * lanes + 3, stmt, lanes=lanes) for stmt in stores)
    assert compile_to_object(emit(Kernel("k", (x,), loops), target).ir, target)


def test_products_in_sums_are_fused() -> None:
    x, out = Buffer("x", (64,)), Buffer("out", ())
    body = vector(
        i, 64, Accumulate(out, (), ADD, Binary(BinaryOp.MUL, Load(x, (i,)), Load(x, (i,))))
    )
    target = Target.named("avx2")
    text = assembly(emit(Kernel("k", (x, out), (body,)), target).ir, target)
    assert len({line.split()[-1] for line in inner_loop(text) if "vfmadd" in line}) == 4


@pytest.mark.parametrize("target", RUNNABLE, ids=lambda t: t.level)
def test_a_prefetch_changes_nothing_and_may_leave_the_buffer(target: Target) -> None:
    x, out = Buffer("x", (8,)), Buffer("out", (8,))
    ask = Prefetch(x, (i * 1000 - 500,))
    kernel = Kernel("k", (x, out), (For(i, 8, (ask, Store(out, (i,), Load(x, (i,))))),))
    prove(kernel)
    given_x = np.arange(8, dtype=np.float32)
    arrays = [given_x, np.zeros(8, np.float32)]
    interpret(kernel, arrays)
    np.testing.assert_array_equal(arrays[1], given_x)
    np.testing.assert_array_equal(run_kernel(kernel, [given_x, None], target)[1], given_x)
    assert "prefetch x[i * 1000 - 500]" in print_kernel(kernel)
    assert "prefetcht1" in assembly(emit(kernel, target).ir, target)
    without = replace(kernel, body=(For(i, 8, (Store(out, (i,), Load(x, (i,))),)),))
    assert canonical_key(kernel) != canonical_key(without)


def row_maximum() -> Kernel:
    x, out = Buffer("x", (3, 21)), Buffer("out", (3,))
    start = Store(out, (i,), Const(-math.inf, F32))
    reduce = vector(j, 21, Accumulate(out, (i,), MAX, Load(x, (i, j))))
    return Kernel("row_maximum", (x, out), (For(i, 3, (start, reduce), PARALLEL),))


GOLDEN_KERNELS = {"row_maximum": row_maximum(), "tile": matmul_tile(1, 8, 3, 8)}


@pytest.mark.parametrize("name", GOLDEN_KERNELS)
def test_golden_text(name: str) -> None:
    """After a change on purpose: write the new text with `python tests/test_emit.py`."""
    ir = emit(GOLDEN_KERNELS[name], Target.named("avx2")).ir
    assert ir == (GOLDEN / f"{name}.ll").read_text()


if __name__ == "__main__":
    for name, kernel in GOLDEN_KERNELS.items():
        (GOLDEN / f"{name}.ll").write_text(emit(kernel, Target.named("avx2")).ir)
