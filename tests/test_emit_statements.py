"""Machine code of statements and of phases does what the interpreter does."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from emitting import ADD, BOOL, F32, I64, MAX, PARALLEL, U8, UNROLLED, i, j, k, normal, rng, vector
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import host, run_kernel
from loop_kernels import regular_kernels, serial

from quern.compiler.errors import CompileError
from quern.compiler.llvm.emit import emit, phases_of
from quern.compiler.loops.independence import possible_races
from quern.compiler.loops.interpreter import interpret
from quern.compiler.loops.ir import (
    Accumulate,
    Alloc,
    Binary,
    BinaryOp,
    Block,
    Buffer,
    Call,
    Const,
    For,
    Function,
    If,
    Kernel,
    Let,
    Load,
    LoopKind,
    Space,
    Store,
    Var,
    index,
    loop_nest,
)
from quern.compiler.types import DType

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
    if shared or possible_races(kernel):
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
