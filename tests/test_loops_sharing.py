"""Which outputs may take the place of which inputs, and that nothing changes when they do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from loop_kernels import (
    F32,
    PARALLEL,
    VECTOR,
    add,
    gather,
    i,
    j,
    matmul,
    number,
    pointwise,
    regular_kernels,
    softmax,
    v,
)

from quern.compiler.loops.interpreter import interpret
from quern.compiler.loops.ir import (
    Accumulate,
    Alloc,
    Block,
    Buffer,
    Expr,
    For,
    If,
    Kernel,
    Let,
    Load,
    ReduceOp,
    Space,
    Store,
    Var,
    index,
    loop_nest,
)
from quern.compiler.loops.sharing import shareable
from quern.compiler.types import DType, Shape

SHAPE = (4, 6)
X, Y = Buffer("x", SHAPE), Buffer("y", SHAPE)


def names(kernel: Kernel) -> set[tuple[str, str]]:
    return {(x.name, y.name) for x, y in shareable(kernel)}


def over(body: Block, *parameters: Buffer, shape: Shape = SHAPE) -> Kernel:
    """A body for i, j in a shape: parallel rows of lanes."""
    rows, columns = shape
    inner = For(j, columns, body, VECTOR, 4)
    return Kernel("share", parameters or (X, Y), (For(i, rows, (inner,), PARALLEL),))


def stored(value: Expr) -> Block:
    return (Store(Y, (i, j), value),)


def check(kernel: Kernel, rng: np.random.Generator) -> None:
    """Runs a kernel of x and y with y in the place of x, and apart."""
    x, y = kernel.parameters
    data = (8 * rng.standard_normal(x.shape)).astype(x.dtype.numpy)
    apart = np.full(y.shape, 0, y.dtype.numpy)
    interpret(kernel, [data.copy(), apart])
    memory = data.copy()
    interpret(kernel, [memory, memory.reshape(y.shape)])
    np.testing.assert_array_equal(memory.reshape(y.shape), apart)


@pytest.mark.parametrize("kernel", [pointwise(), softmax()], ids=lambda k: k.name)
def test_real_kernels_in_place(kernel: Kernel, rng: np.random.Generator) -> None:
    assert names(kernel) == {("x", "y")}
    check(kernel, rng)


def test_a_name_is_a_load_at_the_place_where_it_is_given(rng: np.random.Generator) -> None:
    t = Var("t", F32)
    early = over((Let(t, Load(X, (i, j))), Store(Y, (i, j), add(t, t))))
    assert names(early) == {("x", "y")}
    check(early, rng)
    late = over((Store(Y, (i, j), number(1.0)), Let(t, Load(X, (i, j))), Store(Y, (i, j), t)))
    assert names(late) == set()


@pytest.mark.parametrize(
    "place",
    [(i, 5 - j), (3 - i, j), (i, index(0)), (index(0), j), (i, j // 2), (i, (j + 1) % 6)],
    ids=repr,
)
def test_an_element_that_another_iteration_overwrites_is_not_given_up(
    place: tuple[Expr, ...],
) -> None:
    assert names(over(stored(add(Load(X, (i, j)), Load(X, place))))) == set()


def test_transposing_is_not_done_in_place() -> None:
    square = Buffer("x", (6, 6)), Buffer("y", (6, 6))
    body = (Store(square[1], (i, j), Load(square[0], (j, i))),)
    assert names(over(body, *square, shape=(6, 6))) == set()


def test_shapes_may_differ_where_the_order_is_the_same(rng: np.random.Generator) -> None:
    y = Buffer("y", (2, 12))
    place = i * 6 + j
    kernel = over((Store(y, (place // 12, place % 12), Load(X, (i, j))),), X, y)
    assert names(kernel) == {("x", "y")}
    check(kernel, rng)


@pytest.mark.parametrize(
    "output",
    [Buffer("y", (4, 7)), Buffer("y", SHAPE, DType.INT32), Buffer("y", SHAPE, DType.FLOAT64)],
    ids=str,
)
def test_size_and_dtype_must_be_the_same(output: Buffer) -> None:
    value = number(0, output.dtype)
    kernel = over((Let(Var("t", F32), Load(X, (i, j))), Store(output, (i, j), value)), X, output)
    assert names(kernel) == set()


def test_scratch_and_what_is_read_and_written_are_not_for_sharing() -> None:
    scratch = Buffer("s", SHAPE, F32, Space.SCRATCH)
    body = (Store(scratch, (i, j), Load(X, (i, j))), *stored(Load(scratch, (i, j))))
    kernel = Kernel("s", (X, Y), over(body).body, (scratch,))
    assert names(kernel) == {("x", "y")}
    state = (Store(X, (i, j), number(1.0)), *stored(Load(X, (i, j))))
    assert names(over(state)) == set()


def test_either_operand_of_a_sum_may_be_replaced() -> None:
    z = Buffer("z", SHAPE)
    bias = Buffer("bias", (6,))
    value = add(add(Load(X, (i, j)), Load(z, (i, j))), Load(bias, (j,)))
    kernel = over((Store(Y, (i, j), value),), X, z, bias, Y)
    assert names(kernel) == {("x", "y"), ("z", "y")}


def test_pieces_of_a_loop_share_as_the_whole_does(rng: np.random.Generator) -> None:
    x, y = Buffer("x", (22,)), Buffer("y", (22,))

    def piece(count: int, length: int, base: int) -> For:
        place = (i * length + v + base,)
        body = (Store(y, place, add(Load(x, place), number(1.0))),)
        return For(i, count, (For(v, length, body, VECTOR, 4),), PARALLEL)

    kernel = Kernel("pieces", (x, y), (piece(2, 8, 0), piece(1, 6, 16)))
    assert names(kernel) == {("x", "y")}
    check(kernel, rng)
    overlapping = Kernel("pieces", (x, y), (piece(2, 8, 0), piece(1, 6, 15)))
    assert names(overlapping) == set()


def test_a_later_loop_must_not_read_what_an_earlier_one_overwrote() -> None:
    first = For(j, 6, stored(Load(X, (i, j))))
    second = For(j, 6, (Accumulate(Y, (i, j), ReduceOp.ADD, Load(X, (i, j))),))
    assert names(Kernel("later", (X, Y), (For(i, 4, (first, second)),))) == set()


def test_an_earlier_phase_may_read_everything() -> None:
    total = Buffer("s", (4,), F32, Space.SCRATCH)
    first = For(
        i, 4, (For(j, 6, (Accumulate(total, (i,), ReduceOp.ADD, Load(X, (i, j))),)),), PARALLEL
    )
    use = Load(total, (3 - i,))
    second = loop_nest(((i, 4), (j, 6)), stored(add(use, Load(X, (i, j)))), PARALLEL)
    assert names(Kernel("phases", (X, Y), (first, *second), (total,))) == {("x", "y")}


def test_what_is_named_outside_of_all_loops_is_kept() -> None:
    """Each phase that uses such a name loads it anew."""
    x, y, t = Buffer("x", (8,)), Buffer("y", (8,)), Var("t", F32)
    body = (Let(t, Load(x, (index(0),))), For(i, 8, (Store(y, (i,), t),), PARALLEL))
    assert names(Kernel("top", (x, y), body)) == set()


def test_a_scalar_may_be_replaced() -> None:
    """A counter: without phases, what is named at the top is loaded once."""
    x, y = Buffer("x", ()), Buffer("y", ())
    named = Let(Var("t", DType.FLOAT32), Load(x, ()))
    kernel = Kernel("count", (x, y), (named, Store(y, (), add(named.var, number(1.0)))))
    assert names(kernel) == {("x", "y")}
    late = Kernel("late", (x, y), (Store(y, (), number(1.0)), Store(y, (), Load(x, ()))))
    assert names(late) == set()


def test_places_read_from_data_are_not_given_up() -> None:
    kernel = gather(5, 5)
    assert names(kernel) == set()


def test_matrix_products_are_not_done_in_place() -> None:
    assert names(matmul(16, 16, 16)) == set()


def test_guards_change_nothing(rng: np.random.Generator) -> None:
    branch = If(i < 2, stored(Load(X, (i, j))), stored(number(3.0)))
    kernel = over((branch,))
    assert names(kernel) == {("x", "y")}
    check(kernel, rng)


def test_a_local_copy_of_a_row_may_go_any_way(rng: np.random.Generator) -> None:
    row = Buffer("row", (6,), F32, Space.STACK)
    body = (
        Alloc(row),
        For(j, 6, (Store(row, (j,), Load(X, (i, j))),)),
        For(j, 6, (Store(Y, (i, j), Load(row, (5 - j,))),)),
    )
    kernel = Kernel("flip", (X, Y), (For(i, 4, body, PARALLEL),))
    assert names(kernel) == {("x", "y")}
    check(kernel, rng)


@given(regular_kernels())
@settings(max_examples=100)
def test_sharing_changes_no_result(kernel: Kernel) -> None:
    if not shareable(kernel):
        return
    memory = np.arange(256) * 7 % 101
    apart = [memory.copy(), memory.copy()]
    interpret(kernel, apart)
    interpret(kernel, [memory, memory])
    np.testing.assert_array_equal(memory, apart[1])
