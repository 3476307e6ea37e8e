"""Operations counted and bytes moved."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from loop_kernels import (
    F32,
    WRITTEN,
    add,
    convolution,
    gather,
    i,
    j,
    k,
    matmul,
    mul,
    number,
    pointwise,
    random_kernels,
    serial,
    softmax,
)

from quern.compiler.loops.cost import Cost, cost
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
    ReduceOp,
    Select,
    Space,
    Store,
    Var,
    index,
    loop_nest,
)
from quern.compiler.types import DType


def of(value: Expr, *buffers: Buffer, loops: tuple[tuple[Var, int], ...] = ((i, 4),)) -> Cost:
    """The cost of storing a value once an iteration."""
    y = Buffer("y", (4,), value.dtype)
    return cost(Kernel("one", (*buffers, y), loop_nest(loops, (Store(y, (i,), value),))))


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        (pointwise(3, 10), Cost(60, 0, 30, 30, {"x": 120}, {"y": 120})),
        # max; subtract, exp, add; subtract, exp, divide. Registers cost nothing.
        (softmax(3, 10), Cost(150, 60, 90, 30, {"x": 120}, {"y": 120})),
        (matmul(5, 16, 7), Cost(1120, 0, 1120, 80, {"a": 140, "b": 448}, {"y": 320})),
        (convolution(12, 3), Cost(72, 0, 72, 12, {"x": 48, "w": 12}, {"y": 48})),
        (gather(5, 7), Cost(0, 0, 14, 7, {"x": 20, "indices": 56}, {"y": 28})),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_kernels(kernel: Kernel, expected: Cost) -> None:
    assert cost(kernel) == expected


def test_totals_and_intensity() -> None:
    result = cost(matmul(5, 16, 7))
    assert (result.bytes_read, result.bytes_written) == (588, 320)
    assert result.intensity == 1120 / 908
    assert cost(Kernel("idle", (), ())).intensity == math.inf


X = Buffer("x", (8,))
x = Load(X, (i,))


@pytest.mark.parametrize(
    ("value", "flops", "calls"),
    [
        (number(1.0), 0, 0),
        (add(x, x), 1, 0),
        (Binary(BinaryOp.MAX, x, number(0.0)), 1, 0),
        (Binary(BinaryOp.DIV, x, number(3.0)), 1, 0),
        (Binary(BinaryOp.POW, x, number(3.0)), 0, 1),
        (Call(Function.SQRT, x), 1, 0),
        (Call(Function.TANH, x), 0, 1),
        (Select(i < 2, x, number(0.0)), 0, 0),
        (Select(Binary(BinaryOp.LT, x, number(0.0)), x, number(0.0)), 1, 0),
        (i * 3 + 1, 0, 0),
        (Binary(BinaryOp.MUL, Const(2, DType.INT32), Const(3, DType.INT32)), 0, 0),
    ],
)
def test_what_counts_as_an_operation(value: Expr, flops: int, calls: int) -> None:
    result = of(value, X)
    assert (result.flops, result.calls) == (4 * flops, 4 * calls)


def test_a_shared_or_named_expression_is_computed_once() -> None:
    y, e = Buffer("y", (4,)), Var("e", F32)
    square = mul(x, x)
    assert of(mul(square, square), X).flops == 8
    body = (Let(e, square), Store(y, (i,), add(e, e)))
    assert cost(Kernel("named", (X, y), (For(i, 4, body),))).flops == 8


def test_the_costlier_branch_counts() -> None:
    y = Buffer("y", (4,))
    cheap, dear = Store(y, (i,), number(0.0)), Store(y, (i,), mul(add(x, x), x))
    for branch in (If(i < 2, (cheap,), (dear,)), If(i < 2, (dear,), (cheap,))):
        result = cost(Kernel("if", (X, y), (For(i, 4, (branch,)),)))
        assert (result.flops, result.loads) == (8, 4)


def test_loops_that_do_not_run_cost_nothing() -> None:
    empty = Kernel("empty", (X, Buffer("y", (0,))), (For(i, 0, (Store(X, (i,), x),)),))
    assert cost(empty) == Cost(0, 0, 0, 0)


@pytest.mark.parametrize(
    ("place", "elements"),
    [
        (i, 4),
        (i * 2, 4),
        (i * 2 + j, 9),
        (i // 2, 2),
        (i % 2, 2),
        (index(3), 1),
        (i + j, 6),
    ],
    ids=repr,
)
def test_every_byte_is_moved_once(place: Expr, elements: int) -> None:
    """x[place] for i < 4, j < 3 touches no more than that, however often it is loaded."""
    load = Load(Buffer("x", (16,)), (place,))
    result = of(load, load.buffer, loops=((i, 4), (j, 3), (k, 5)))
    assert result.loads == 60
    assert result.read == {"x": 4 * elements}


def test_overlapping_windows_count_once() -> None:
    window = add(add(x, Load(X, (i + 1,))), Load(X, (i + 2,)))
    assert of(window, X).read == {"x": 4 * 6}


def test_apart_pieces_do_not_count_what_is_between() -> None:
    large = Buffer("x", (1000,))
    ends = add(Load(large, (i,)), Load(large, (i + 990,)))
    assert of(ends, large).read == {"x": 4 * 8}


def test_scratch_is_no_traffic_but_work() -> None:
    scratch, y = Buffer("s", (4,), F32, Space.SCRATCH), Buffer("y", (4,))
    stack = Buffer("t", (4,), F32, Space.STACK)
    body = (
        Alloc(stack),
        Store(scratch, (i,), number(1.0)),
        Store(stack, (i,), Load(scratch, (i,))),
        Accumulate(y, (i,), ReduceOp.ADD, Load(stack, (i,))),
    )
    result = cost(Kernel("local", (y,), (For(i, 4, body),), (scratch,)))
    assert result == Cost(4, 0, 12, 12, {"y": 16}, {"y": 16})


@given(random_kernels())
def test_no_more_is_written_than_counted(kernel: Kernel) -> None:
    fill = 1 << 60
    arrays = [np.full(b.shape, fill if b in WRITTEN else 2) for b in kernel.parameters]
    try:
        interpret(serial(kernel), arrays)
    except InterpreterError:
        return
    written = cost(kernel).written
    for buffer, array in zip(kernel.parameters, arrays, strict=True):
        if buffer in WRITTEN:
            assert 8 * np.count_nonzero(array != fill) <= written.get(buffer.name, 0)
