"""The interpreter of kernels: whole kernels, statements, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from interpreting import at, run
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
from quern.compiler.types import DType

KINDS = pytest.mark.parametrize("ordered", [False, True], ids=["at_once", "in_order"])


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
