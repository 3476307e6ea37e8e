"""Machine code of vector loops: any extent, strides and offsets, reductions over the lanes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from emitting import (
    ADD,
    BOOL,
    F32,
    F64,
    I32,
    I64,
    MAX,
    MIN,
    MUL,
    RUNNABLE,
    U8,
    evaluate,
    i,
    j,
    normal,
    rng,
    samples,
    vector,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import host, run_kernel

from quern.compiler.llvm.emit import emit
from quern.compiler.llvm.target import Target
from quern.compiler.loops.ir import (
    Accumulate,
    Binary,
    BinaryOp,
    Buffer,
    Expr,
    For,
    Kernel,
    Let,
    Load,
    ReduceOp,
    Select,
    Stmt,
    Store,
    Var,
    clamp,
    index,
    maximum,
    minimum,
)
from quern.compiler.types import Array, DType

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
@pytest.mark.parametrize("dtype", [F32, F64, U8, BOOL, I64])
def test_strided_loads_and_stores(step: int, dtype: DType) -> None:
    """A loop for each length, and places that stores leave alone."""
    buffers: list[Buffer] = []
    body: list[Stmt] = []
    given: list[Array] = []
    wanted: list[Array] = []
    for n in (1, 3, 8, 13, 16, 21):
        span = abs(step) * (n - 1) + 1
        start = 0 if step >= 0 else span - 1
        source, spread = (Buffer(f"{name}{n}", (span,), dtype) for name in ("source", "spread"))
        packed = Buffer(f"packed{n}", (n,), dtype)
        place = i * step + start
        body.append(vector(i, n, Store(packed, (i,), Load(source, (place,)))))
        if step:
            body.append(vector(i, n, Store(spread, (place,), Load(packed, (i,)))))
        places = [start + step * p for p in range(n)]
        data = (rng().random(span) * 200).astype(dtype.numpy)
        zeros = np.zeros(span, dtype.numpy)
        written = zeros.copy()
        written[places] = data[places] if step else 0
        buffers += source, packed, spread
        given += data, np.zeros(n, dtype.numpy), zeros
        wanted += data, data[places], written
    got = run_kernel(Kernel("strided", tuple(buffers), tuple(body)), given)
    for buffer, found, want in zip(buffers, got, wanted, strict=True):
        np.testing.assert_array_equal(found, want, err_msg=buffer.name)


@pytest.mark.parametrize("target", RUNNABLE, ids=lambda t: t.level)
@pytest.mark.parametrize("n", [2, 8, 15, 32, 47])
def test_pairs_are_taken_apart_and_put_together(n: int, target: Target) -> None:
    """Odd and even elements of rows, and elements of two rows in turn."""
    data = normal(2 * 2 * n).reshape(2, 2 * n)
    pairs, whole = Buffer("pairs", (2, 2 * n)), Buffer("whole", (2, 2 * n))
    halves = Buffer("halves", (2, 2, n))
    apart = [Store(halves, (j, index(k), i), Load(pairs, (j, i * 2 + k))) for k in (1, 0)]
    together = Store(whole, (j, i), Load(halves, (j, i % 2, i // 2)))
    body = (For(j, 2, (vector(i, n, *apart),)), For(j, 2, (vector(i, 2 * n, together),)))
    got = run_kernel(Kernel("pairs", (pairs, halves, whole), body), [data, None, None], target)
    np.testing.assert_array_equal(got[1], np.stack([data[:, ::2], data[:, 1::2]], 1))
    np.testing.assert_array_equal(got[2], data)


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

    def expression(depth: int) -> tuple[Expr, Callable[[int, int], int]]:
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
    want = [[meaning(p, q) for p in range(n)] for q in range(m)]
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
@pytest.mark.parametrize("dtype", [F32, F64, I32, U8, BOOL])
def test_reductions_into_one_place(op: ReduceOp, dtype: DType) -> None:
    """A loop for each length."""
    function = {ADD: np.add, MUL: np.multiply, MIN: np.minimum, MAX: np.maximum}[op]
    lengths = (0, 1, 3, 8, 15, 31, 64, 77, 300)
    data = rng().uniform(0.9, 1.1, 300) if dtype.is_float else rng().integers(0, 100, 300)
    a, start = data.astype(dtype.numpy), np.ones((), dtype.numpy)
    x, outs = Buffer("x", (300,), dtype), [Buffer(f"out{n}", (), dtype) for n in lengths]
    body = (
        vector(i, n, Accumulate(out, (), op, Load(x, (i,))))
        for n, out in zip(lengths, outs, strict=True)
    )
    _, *found = run_kernel(Kernel("k", (x, *outs), tuple(body)), [a, *[start] * len(outs)])
    want = [function.reduce(a[:n], initial=start[()], dtype=dtype.numpy) for n in lengths]
    np.testing.assert_allclose(found, want, rtol=1e-5 if dtype is F32 else 1e-12)


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
