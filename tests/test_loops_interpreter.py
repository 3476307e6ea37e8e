"""What kernels compute: the interpreter against NumPy, and against the letter of the loop IR."""

from __future__ import annotations

import math

import numpy as np
import pytest
from loop_kernels import (
    F32,
    I64,
    PARALLEL,
    SERIAL,
    UNROLLED,
    VECTOR,
    convolution,
    copy_at,
    gather,
    i,
    j,
    k,
    matmul,
    number,
    pointwise,
    serial,
    softmax,
    v,
)

from quern.compiler.errors import CompileError
from quern.compiler.loops.interpreter import InterpreterError, interpret
from quern.compiler.loops.ir import (
    Accumulate,
    Alloc,
    Binary,
    BinaryOp,
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
    ReduceOp,
    Select,
    Space,
    Store,
    Var,
    clamp,
    index,
)
from quern.compiler.types import Array, DType

KINDS = pytest.mark.parametrize("ordered", [False, True], ids=["at_once", "in_order"])


def run(kernel: Kernel, *inputs: Array, ordered: bool = False) -> Array:
    """The last parameter after a run; it starts full of 77."""
    last = kernel.parameters[-1]
    result = np.full(last.shape, 77, last.dtype.numpy)
    interpret(serial(kernel) if ordered else kernel, [*inputs, result])
    return result


@KINDS
def test_pointwise(rng: np.random.Generator, ordered: bool) -> None:
    x = rng.standard_normal((3, 10)).astype(np.float32)
    np.testing.assert_array_equal(run(pointwise(), x, ordered=ordered), 2 * x + 1)


@KINDS
def test_softmax(rng: np.random.Generator, ordered: bool) -> None:
    x = rng.standard_normal((3, 10)).astype(np.float32)
    e = np.exp(x.astype(np.float64))
    expected = e / e.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(run(softmax(), x, ordered=ordered), expected, rtol=1e-6)


@KINDS
def test_matrix_product(rng: np.random.Generator, ordered: bool) -> None:
    a = rng.standard_normal((5, 7)).astype(np.float32)
    b = rng.standard_normal((7, 16)).astype(np.float32)
    np.testing.assert_allclose(run(matmul(), a, b, ordered=ordered), a @ b, rtol=1e-5, atol=1e-6)


@KINDS
def test_convolution(rng: np.random.Generator, ordered: bool) -> None:
    x, w = (rng.standard_normal(n).astype(np.float32) for n in (12, 3))
    expected = np.correlate(np.pad(x, 1), w)
    result = run(convolution(), x, w, ordered=ordered)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


@KINDS
def test_gather(ordered: bool) -> None:
    x = np.arange(5, dtype=np.float32)
    indices = np.array([0, 4, -1, -5, 2, 99, -99])
    expected = [0, 4, 4, 0, 2, 4, 0]
    np.testing.assert_array_equal(run(gather(), x, indices, ordered=ordered), expected)


# -- single operations ----------------------------------------------------------------------------


def compute(value: Expr, dtype: DType, *inputs: Array, kind: LoopKind = VECTOR) -> Array:
    """`value` of loads at v from x and perhaps z."""
    extent = len(inputs[0])
    names = "xz"
    buffers = [Buffer(n, (extent,), DType.of(a.dtype)) for n, a in zip(names, inputs, strict=False)]
    y = Buffer("y", (extent,), dtype)
    body = (For(v, extent, (Store(y, (v,), value),), kind, 4),)
    return run(Kernel("op", (*buffers, y), body), *inputs)


def at(name: str, extent: int, dtype: DType) -> Expr:
    return Load(Buffer(name, (extent,), dtype), (v,))


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


# -- statements -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SERIAL, UNROLLED, VECTOR])
def test_accumulation_goes_from_left_to_right(kind: LoopKind) -> None:
    """Small numbers vanish one by one beside a large one, which no other order shows."""
    x = np.array([1e8] + [1.0] * 100 + [-1e8], np.float32)
    body = (Accumulate(Buffer("y", ()), (), ReduceOp.ADD, at("x", 102, F32)),)
    y = Buffer("y", ())
    kernel = Kernel("sum", (Buffer("x", (102,)), y), (For(v, 102, body, kind, 8),))
    result = np.zeros((), np.float32)
    interpret(kernel, [x, result])
    assert result == 0.0


@pytest.mark.parametrize("kind", [SERIAL, VECTOR])
@pytest.mark.parametrize("op", list(ReduceOp))
def test_accumulation(op: ReduceOp, kind: LoopKind) -> None:
    ufunc = {"+=": np.add, "*=": np.multiply, "min=": np.minimum, "max=": np.maximum}[op.value]
    for x in (np.array([3.0, -2, 5, 4], np.float32), np.array([1.0, np.nan, 3.0], np.float32)):
        y = Buffer("y", ())
        start = Store(y, (), number(op.identity(F32)))
        body = (Accumulate(y, (), op, at("x", x.size, F32)),)
        kernel = Kernel("all", (Buffer("x", x.shape), y), (start, For(v, x.size, body, kind, 2)))
        np.testing.assert_array_equal(run(kernel, x), ufunc.reduce(x))


def test_a_vector_loop_that_scatters_runs_in_order() -> None:
    """Two lanes that add to one place must both count."""
    places, y = Buffer("places", (6,), I64), Buffer("y", (3,))
    place = clamp(Load(places, (v,)), 0, 2)
    body = (Accumulate(y, (place,), ReduceOp.ADD, number(1.0)),)
    kernel = Kernel("count", (places, y), (For(v, 6, body, VECTOR, 4),))
    np.testing.assert_array_equal(run(kernel, np.array([0, 2, 2, 0, 2, 1])), [79, 78, 80])


def test_lanes_whose_places_look_different_may_meet() -> None:
    """max(-v, 0) is 0 in every lane, so each lane adds to the same element."""
    x, y = Buffer("x", (1,)), Buffer("y", (12,))
    place = clamp(0 - v, 0, 11)
    body = Accumulate(y, (place,), ReduceOp.ADD, Load(x, (index(0),)))
    total = np.zeros(12, np.float32)
    interpret(
        Kernel("meet", (x, y), (For(v, 2, (body,), VECTOR, 1),)), [np.ones(1, np.float32), total]
    )
    np.testing.assert_array_equal(total, [2.0] + [0.0] * 11)


def test_a_buffer_in_a_vector_loop_has_a_copy_a_lane() -> None:
    y = Buffer("y", (10,), I64)
    own = Buffer("own", (2,), I64, Space.STACK)
    body = (
        Alloc(own),
        Store(own, (index(0),), v),
        Store(own, (index(1),), v * 10),
        For(k, 3, (Accumulate(own, (k % 2,), ReduceOp.ADD, v + k),)),
        Store(y, (v,), Load(own, (index(0),)) + Load(own, (index(1),))),
    )
    kernel = Kernel("lanes", (y,), (For(v, 10, body, VECTOR, 4),))
    np.testing.assert_array_equal(run(kernel), [14 * n + 3 for n in range(10)])


@pytest.mark.parametrize("dtype", [F32, DType.FLOAT64, DType.INT32, I64, DType.UINT8], ids=str)
def test_undefined_contents_show(dtype: DType) -> None:
    local = Buffer("local", (2,), dtype, Space.STACK)
    scratch = Buffer("scratch", (2,), dtype, Space.SCRATCH)
    y = Buffer("y", (2,), dtype)
    body = (
        Alloc(local),
        Store(y, (index(0),), Load(local, (index(1),))),
        Store(y, (index(1),), Load(scratch, (index(1),))),
    )
    result = run(Kernel("undefined", (y,), body, (scratch,)))
    if dtype.is_float:
        assert np.isnan(result).all()
    else:
        assert (abs(result.astype(np.float64)) > 100).all()


def test_scratch_and_phases() -> None:
    """What one parallel loop leaves in scratch the next one finds."""
    y = Buffer("y", (4,), I64)
    scratch = Buffer("scratch", (4,), I64, Space.SCRATCH)
    first = For(i, 4, (Store(scratch, (i,), i * i),), PARALLEL)
    second = For(i, 4, (Store(y, (i,), Load(scratch, (3 - i,))),), PARALLEL)
    np.testing.assert_array_equal(
        run(Kernel("phases", (y,), (first, second), (scratch,))), [9, 4, 1, 0]
    )


def test_conditions_choose_a_branch() -> None:
    y = Buffer("y", (3, 8), I64)
    branch = If(i < 1, (Store(y, (i, v), v),), (Store(y, (i, v), 0 - v),))
    kernel = Kernel("if", (y,), (For(i, 3, (For(v, 8, (branch,), VECTOR, 4),)),))
    np.testing.assert_array_equal(run(kernel), np.outer([1, -1, -1], np.arange(8)))


def test_a_condition_may_differ_between_groups_of_lanes_but_not_within_one() -> None:
    y = Buffer("y", (8,), I64)
    for limit, fine in ((4, True), (3, False)):
        branch = If(v < limit, (Store(y, (v,), index(1)),))
        kernel = Kernel("lanes", (y,), (For(v, 8, (branch,), VECTOR, 4),))
        if fine:
            np.testing.assert_array_equal(run(kernel), [1] * 4 + [77] * 4)
        else:
            with pytest.raises(InterpreterError, match="differs between lanes"):
                run(kernel)


def test_parallel_iterations_may_take_different_branches() -> None:
    y = Buffer("y", (8,), I64)
    kernel = Kernel("if", (y,), (For(i, 8, (If(i < 3, (Store(y, (i,), index(1)),)),), PARALLEL),))
    np.testing.assert_array_equal(run(kernel), [1] * 3 + [77] * 5)


def test_deep_nests_are_no_trouble() -> None:
    """Python itself nests no more than twenty loops."""
    y = Buffer("y", (), I64)
    body: tuple[For | Accumulate, ...] = (Accumulate(y, (), ReduceOp.ADD, number(1, I64)),)
    for depth in range(24):
        body = (For(Var(f"i{depth}"), 2 if depth % 8 == 0 else 1, body),)
    assert run(Kernel("deep", (y,), body)) == 85


def test_a_value_is_that_of_when_it_was_named() -> None:
    y = Buffer("y", (2,), I64)
    t = Var("t")
    body = (
        Store(y, (index(0),), number(1, I64)),
        Let(t, Load(y, (index(0),))),
        Store(y, (index(0),), number(2, I64)),
        Store(y, (index(1),), t),
    )
    np.testing.assert_array_equal(run(Kernel("let", (y,), body)), [2, 1])


# -- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SERIAL, PARALLEL, UNROLLED])
@pytest.mark.parametrize(("place", "wrong"), [(i - 1, -1), (i + 1, 4), (i * 2, 4)], ids=repr)
def test_leaving_a_buffer_is_an_error(place: Expr, wrong: int, kind: LoopKind) -> None:
    """Negative indices too, which NumPy would count from the end."""
    kernel = copy_at(place, {"i": 4}, 4, kind)
    complaint = f"kernel copy: index {wrong} on axis 0 of buffer x is outside of its extent 4"
    with pytest.raises(InterpreterError, match=complaint):
        run(kernel, np.arange(4))


@pytest.mark.parametrize("place", [v - 1, v + 1, v * v], ids=repr)
def test_a_lane_that_leaves_a_buffer_is_an_error(place: Expr) -> None:
    x, y = Buffer("x", (8,)), Buffer("y", (8,))
    kernel = Kernel("lanes", (x, y), (For(v, 8, (Store(y, (v,), Load(x, (place,))),), VECTOR, 4),))
    with pytest.raises(InterpreterError, match="of buffer x is outside"):
        run(kernel, np.zeros(8, np.float32))


def test_an_axis_is_not_left_into_the_next_row() -> None:
    x, y = Buffer("x", (2, 3)), Buffer("y", (1,))
    body = (Store(y, (index(0),), Load(x, (index(0), j))),)
    with pytest.raises(InterpreterError, match="index 3 on axis 1"):
        run(Kernel("row", (x, y), (For(j, 4, body),)), np.zeros((2, 3), np.float32))


def test_arrays_must_be_those_of_the_parameters() -> None:
    kernel = pointwise()
    fine = np.zeros((3, 10), np.float32)
    with pytest.raises(InterpreterError, match="takes 2 arrays, got 1"):
        interpret(kernel, [fine])
    with pytest.raises(InterpreterError, match=r"x is float32\[3, 10\], got float32\[3, 9\]"):
        interpret(kernel, [np.zeros((3, 9), np.float32), fine])
    with pytest.raises(InterpreterError, match=r"got float64\[3, 10\]"):
        interpret(kernel, [fine.astype(np.float64), fine])
    with pytest.raises(InterpreterError, match="has gaps"):
        interpret(kernel, [np.zeros((10, 3), np.float32).T, fine])


@pytest.mark.parametrize(
    "value",
    [
        Binary(BinaryOp.ADD, i, number(1.0)),
        Select(i < 3, i, number(1.0)),
        Binary(BinaryOp.DIV, i, index(2)),
        Binary(BinaryOp.SHL, number(1.0), number(1.0)),
        Call(Function.EXP, i),
        Call(Function.NEG, Const(True, DType.BOOL)),
        number(1.0),
    ],
    ids=repr,
)
def test_dtypes_that_do_not_fit_are_refused(value: Expr) -> None:
    y = Buffer("y", (4,), I64)
    with pytest.raises(CompileError, match="kernel mixed: "):
        interpret(Kernel("mixed", (y,), (For(i, 4, (Store(y, (i,), value),)),)), [np.zeros(4, int)])
