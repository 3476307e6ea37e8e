"""What the bounds proof accepts and refuses, and which loops it finds free of races."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from loop_kernels import (
    F32,
    I64,
    PARALLEL,
    SERIAL,
    VECTOR,
    convolution,
    copy_at,
    gather,
    guarded_indices,
    i,
    j,
    k,
    matmul,
    number,
    pointwise,
    random_kernels,
    regular_kernels,
    serial,
    softmax,
    store_at,
)

from quern.compiler.loops import ir
from quern.compiler.loops.access import collect
from quern.compiler.loops.bounds import BoundsError, prove
from quern.compiler.loops.facts import DEPTH
from quern.compiler.loops.independence import possible_races
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
    ReduceOp,
    Select,
    Space,
    Store,
    Var,
    index,
    maximum,
    minimum,
)
from quern.compiler.types import DType

LOOPS = {"i": 4, "j": 14, "k": 3}


@pytest.mark.parametrize(
    "kernel", [pointwise(), softmax(), matmul(), convolution(), gather()], ids=lambda k: k.name
)
def test_real_kernels_are_proved(kernel: Kernel) -> None:
    prove(kernel)
    assert possible_races(kernel) == []


@pytest.mark.parametrize(
    ("place", "extent"),
    [
        (i * 14 + j, 56),
        (i * 4 - i * 4 + 3, 4),
        ((i * 14 + j) // 14, 4),
        ((i * 14 + j) % 14, 14),
        ((i * 14 + j) // 2 % 7, 7),
        ((i * 12 + k * 4 + j // 7) // 4, 12),
        (i * 12 + k * 4 + 3 - (i * 12 + k * 4) % 4, 48),
        (j - j % 4 + k, 15),
        (j % 4 + j // 4 * 4, 14),
        (j - minimum(j, 5), 9),
        (maximum(j, 5) - j, 6),
        (minimum(i * 16, 40) + j, 54),
        (3 - i, 4),
        (Select(j < 5, j + 9, j - 5), 14),
        (Select(j < 5, j, j - 5), 9),
        (j - Select(j < 5, j, index(5)), 9),
        (Binary(BinaryOp.AND, i * 14 + j, index(7)), 8),
        (Binary(BinaryOp.SHR, i * 14 + j, index(2)), 14),
        (Binary(BinaryOp.SHL, i, index(2)) + k, 15),
        (Cast(Cast(i * 14 + j, DType.INT32), I64), 56),
        (Cast(i < 2, I64), 2),
        (Call(Function.ABS, i - 2), 3),
        ((j * 2) // 4, 7),
        (0 - (0 - j) // 2, 8),
        ((j - 20) % 14, 14),
        ((j - 1) // 14 + 1, 2),
        (i % 4, 4),
    ],
)
def test_the_smallest_extent_that_holds_an_index_is_proved(place: Expr, extent: int) -> None:
    """And none smaller: the places are those a program computes, so the proof is exact here."""
    prove(copy_at(place, LOOPS, extent))
    with pytest.raises(BoundsError):
        prove(copy_at(place, LOOPS, extent - 1))


@pytest.mark.parametrize("place", [i - 1, i + 1, i * 2, i * i, 0 - i, i - j], ids=repr)
def test_an_index_that_leaves_its_buffer_is_refused(place: Expr) -> None:
    with pytest.raises(BoundsError):
        prove(copy_at(place, LOOPS, 4))


def test_the_message_names_kernel_access_interval_and_extent() -> None:
    with pytest.raises(BoundsError) as caught:
        prove(copy_at(i * 2 - 1, LOOPS, 6))
    assert str(caught.value) == (
        "kernel copy: load x[i * 2 - 1] may be outside of x: i * 2 - 1 is in [-1, 5], "
        "the extent of axis 0 is 6; clamp the index or guard the access with an If"
    )


def guarded(condition: Expr, place: Expr, extent: int, orelse: Expr | None = None) -> Kernel:
    """x[place] where the condition holds, x[orelse] else."""
    x, y = Buffer("x", (extent,), I64), Buffer("y", (1,), I64)
    first = Store(y, (index(0),), Load(x, (place,)))
    second = () if orelse is None else (Store(y, (index(0),), Load(x, (orelse,))),)
    loops = tuple((Var(name), n) for name, n in LOOPS.items())
    return Kernel("guarded", (x, y), ir.loop_nest(loops, (If(condition, (first,), second),)))


@pytest.mark.parametrize(
    ("condition", "place", "extent"),
    [
        ((i + k >= 1) & (i + k < 4), i + k - 1, 3),
        ((j >= 3) & (j < 9), (j - 3) * 4 + i, 24),
        (j - k < 5, maximum(j - k, 0), 5),
        (i * 14 + j < 20, i * 14 + j, 20),
        (i * 14 + j < 20, (i * 14 + j) // 4, 5),
        (Binary(BinaryOp.EQ, j, index(7)), j - 7, 1),
        (Binary(BinaryOp.NE, j, index(0)), j - 1, 13),
        (Call(Function.NOT, j < 5), j - 5, 9),
        (Call(Function.NOT, Binary(BinaryOp.OR, j < 5, j > 9)), j - 5, 5),
        ((j >= 1) & (i >= 1) & (k >= 1), (j - 1) * 6 + (i - 1) * 2 + k - 1, 78),
        (Const(False, DType.BOOL), j + 100, 1),
        (i < 0, j + 100, 1),
    ],
)
def test_an_if_refines_what_it_guards(condition: Expr, place: Expr, extent: int) -> None:
    prove(guarded(condition, place, extent))
    with pytest.raises(BoundsError):
        prove(guarded(Const(True, DType.BOOL), place, extent))


def test_the_else_branch_knows_that_the_condition_fails() -> None:
    prove(guarded(j < 5, j, 9, orelse=j - 5))
    with pytest.raises(BoundsError):
        prove(guarded(j < 5, j, 8, orelse=j - 5))


def test_a_select_does_not_guard_the_loads_in_its_branches() -> None:
    x, y = Buffer("x", (4,)), Buffer("y", (5,))
    value = Select(i < 4, Load(x, (i,)), number(0.0))
    with pytest.raises(BoundsError, match=r"load x\[i\]"):
        prove(Kernel("pad", (x, y), (For(i, 5, (Store(y, (i,), value),)),)))


def test_a_name_stands_for_its_value() -> None:
    x = Buffer("x", (4,))
    t, inside = Var("t"), Var("inside", DType.BOOL)
    body = (
        Let(t, i - 2),
        Let(inside, (t >= 0) & (t < 4)),
        If(inside, (Store(x, (t,), number(0.0)),)),
    )
    prove(Kernel("named", (x,), (For(i, 10, body),)))


def test_a_name_that_is_bound_again_stands_for_its_last_value() -> None:
    x = Buffer("x", (4,))
    shared = i + 0
    first = For(i, 4, (Store(x, (shared,), number(0.0)),))
    second = For(i, 5, (Store(x, (shared,), number(0.0)),))
    prove(Kernel("twice", (x,), (first, first)))
    with pytest.raises(BoundsError):
        prove(Kernel("twice", (x,), (first, second)))


def test_data_may_be_anything_unless_it_is_clamped() -> None:
    prove(gather(clamped=True))
    with pytest.raises(BoundsError, match=r"in \[-9223372036854775803, 9223372036854775807\]"):
        prove(gather(clamped=False))


def test_what_was_tested_of_data_is_forgotten_once_it_is_overwritten() -> None:
    x, y = Buffer("x", (1,), I64), Buffer("y", (4,), I64)
    zero = (index(0),)
    here = Load(x, zero)
    use = Store(y, (Load(x, zero),), number(1, I64))
    inside = (here >= 0) & (here < 4)
    with pytest.raises(BoundsError):
        prove(Kernel("stale", (x, y), (If(inside, (Store(x, zero, number(9, I64)), use)),)))
    prove(Kernel("fresh", (x, y), (If(inside, (use,)),)))


def test_arithmetic_that_wraps_around_is_not_mistaken() -> None:
    """X + 1 >= x for all x but the largest."""
    x, y = Buffer("x", (1,), I64), Buffer("y", (2,), I64)
    big = maximum(Load(x, (index(0),)), 0)
    with pytest.raises(BoundsError):
        prove(Kernel("wrap", (x, y), (Store(y, (minimum(big + 1, 1),), number(0, I64)),)))
    prove(Kernel("wrap", (x, y), (Store(y, (minimum(minimum(big, 7) + 1, 1),), number(0, I64)),)))


@pytest.mark.parametrize("dtype", [DType.INT32, DType.UINT8, DType.BOOL, I64], ids=str)
def test_narrow_data_has_the_range_of_its_type(dtype: DType) -> None:
    bits = {DType.UINT8: 256, DType.BOOL: 2}.get(dtype)
    x = Buffer("x", (), dtype)
    y = Buffer("y", (bits or 256,))
    kernel = Kernel("wide", (x, y), (Store(y, (Cast(Load(x, ()), I64),), number(0.0)),))
    if bits is None:
        with pytest.raises(BoundsError):
            prove(kernel)
    else:
        prove(kernel)


def test_what_is_never_run_needs_no_proof() -> None:
    x = Buffer("x", (0, 3))
    prove(Kernel("empty", (x,), (For(i, 0, (Store(x, (i, index(0)), number(0.0)),)),)))
    with pytest.raises(BoundsError):
        prove(Kernel("empty", (x,), (For(i, 1, (Store(x, (i, index(0)), number(0.0)),)),)))


def malformed() -> dict[str, Kernel]:
    x = Buffer("x", (4,))
    lost = Buffer("lost", (4,), F32, Space.STACK)
    zero = number(0.0)
    return {
        "variable i is used where it has no value": Kernel("bad", (x,), (Store(x, (i,), zero),)),
        "buffer lost is neither": Kernel("bad", (x,), (Store(lost, (index(0),), zero),)),
        "has 2 indices": Kernel("bad", (x,), (Store(x, (index(0), index(0)), zero),)),
        "an index of buffer x is int32": Kernel(
            "bad", (x,), (Store(x, (Const(0, DType.INT32),), zero),)
        ),
        "negative extent": Kernel("bad", (Buffer("y", (-1,)),), ()),
        "its space is argument": Kernel("bad", (), (Alloc(x),)),
    }


@pytest.mark.parametrize("complaint", malformed())
def test_malformed_kernels_are_refused(complaint: str) -> None:
    with pytest.raises(BoundsError, match=complaint):
        prove(malformed()[complaint])


def test_names_end_with_their_block() -> None:
    x = Buffer("x", (4,))
    t = Var("t")
    inner = For(i, 4, (Let(t, i),))
    with pytest.raises(BoundsError, match="variable t"):
        prove(Kernel("scope", (x,), (inner, Store(x, (t,), number(0.0)))))


@given(random_kernels())
@settings(max_examples=150)
def test_a_proved_kernel_never_leaves_its_buffers(kernel: Kernel) -> None:
    """The interpreter checks each access as it happens: when it complains, there was no proof."""
    rng = np.random.default_rng(1)
    arrays = [rng.integers(-3, 12, b.shape) for b in kernel.parameters]
    try:
        interpret(serial(kernel), arrays)
    except InterpreterError:
        with pytest.raises(BoundsError):
            prove(kernel)


@given(guarded_indices())
@settings(max_examples=100)
def test_an_index_is_within_its_interval(kernels: tuple[Kernel, Kernel]) -> None:
    """However little or much is tried to find a small one."""
    used, written = kernels
    unset = 1 << 60
    places = np.full(written.parameters[0].shape, unset)
    interpret(serial(written), [places])
    reached = places[places != unset]
    for access in collect(used):
        for depth in range(DEPTH + 1):
            low, high = access.facts.interval(access.forms[0], depth)
            assert ((low <= reached) & (reached <= high)).all()
        return
    assert reached.size == 0


# -- races ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place",
    [
        i * 14 + j,
        j * 4 + i,
        i * 16 + j + 3,
        55 - i * 14 - j,
        (i * 14 + j) // 7 * 7 + (i * 14 + j) % 7,
        j * 8 + i * 2 + 1,
    ],
    ids=repr,
)
def test_places_in_mixed_radix_are_free_of_races(place: Expr) -> None:
    assert possible_races(store_at(place, {"i": 4, "j": 14}, 200)) == []


@pytest.mark.parametrize(
    "place", [i, j, i * 13 + j, (i * 14 + j) // 2, (i * 14 + j) % 7, index(0)], ids=repr
)
def test_places_that_iterations_share_are_doubted(place: Expr) -> None:
    doubted = possible_races(store_at(place, {"i": 4, "j": 14}, 200))
    assert doubted
    assert "kernel fill: parallel loop" in doubted[0]


def test_serial_loops_may_write_where_they_like() -> None:
    assert possible_races(store_at(index(0), {"i": 4, "j": 14}, 1, SERIAL)) == []


def test_each_axis_may_tell_iterations_apart() -> None:
    y = Buffer("y", (4, 3, 14))
    body = (For(k, 3, (Store(y, (i, k, j), number(0.0)),)),)
    nest = ir.loop_nest(((i, 4), (j, 14)), body, PARALLEL)
    assert possible_races(Kernel("axes", (y,), nest)) == []


def test_an_inner_loop_may_run_through_what_belongs_to_an_iteration() -> None:
    y = Buffer("y", (64,))
    for width, free in ((16, True), (17, False)):
        body = (For(j, width, (Store(y, (i * 16 + j,), number(0.0)),)),)
        kernel = Kernel("chunks", (y,), (For(i, 3, body, PARALLEL),))
        assert (possible_races(kernel) == []) is free


def test_reading_what_another_iteration_writes_is_doubted() -> None:
    y = Buffer("y", (9,))
    for place, free in ((i, True), (i + 1, False)):
        body = (Store(y, (i,), Load(y, (place,))),)
        kernel = Kernel("shift", (y,), (For(i, 8, body, PARALLEL),))
        assert (possible_races(kernel) == []) is free


def test_different_parts_of_a_buffer_do_not_meet() -> None:
    y = Buffer("y", (8,))
    body = (Store(y, (i,), number(0.0)), Store(y, (i + 4,), number(1.0)))
    assert possible_races(Kernel("halves", (y,), (For(i, 4, body, PARALLEL),))) == []


def test_reductions_are_for_lanes_not_for_threads() -> None:
    y = Buffer("y", ())
    body = (Accumulate(y, (), ReduceOp.ADD, number(1.0)),)
    assert possible_races(Kernel("sum", (y,), (For(i, 8, body, VECTOR, 4),))) == []
    assert possible_races(Kernel("sum", (y,), (For(i, 8, body, PARALLEL),)))
    mixed = (*body, Accumulate(y, (), ReduceOp.MAX, number(1.0)))
    assert possible_races(Kernel("sum", (y,), (For(i, 8, mixed, VECTOR, 4),)))


def test_a_buffer_of_an_iteration_is_its_own() -> None:
    y = Buffer("y", (8,))
    own = Buffer("own", (1,), F32, Space.STACK)
    use = (Store(own, (index(0),), number(1.0)), Store(y, (i,), Load(own, (index(0),))))
    inside = Kernel("own", (y,), (For(i, 8, (Alloc(own), *use), PARALLEL),))
    outside = Kernel("own", (y,), (Alloc(own), For(i, 8, use, PARALLEL)))
    assert possible_races(inside) == []
    assert possible_races(outside)


def test_places_read_from_data_are_doubted() -> None:
    y, places = Buffer("y", (8,)), Buffer("places", (8,), I64)
    place = ir.clamp(Load(places, (i,)), 0, 7)
    body = (Accumulate(y, (place,), ReduceOp.ADD, number(1.0)),)
    assert possible_races(Kernel("scatter", (y, places), (For(i, 8, body, VECTOR, 4),)))


@given(regular_kernels())
@settings(max_examples=150)
def test_what_is_free_of_races_may_run_in_any_order(kernel: Kernel) -> None:
    """Backwards, and all at once, independent loops compute what they compute in order."""
    prove(kernel)
    if possible_races(kernel):
        return
    start = np.random.default_rng(2).integers(0, 100, (2, 256))
    ordered, together, backwards = start.copy(), start.copy(), start.copy()
    interpret(serial(kernel), list(ordered))
    interpret(kernel, list(together))
    interpret(serial(reversed_kernel(kernel)), list(backwards))
    np.testing.assert_array_equal(together, ordered)
    np.testing.assert_array_equal(backwards, ordered)


def reversed_kernel(kernel: Kernel) -> Kernel:
    """The kernel with its parallel and vector loops run backwards."""

    def backwards(block: ir.Block) -> ir.Block:
        result: list[ir.Stmt] = []
        for stmt in block:
            if isinstance(stmt, For):
                body = backwards(stmt.body)
                if stmt.kind is not SERIAL:
                    forward = Var(f"{stmt.var.name}_")
                    body = (Let(stmt.var, stmt.extent - 1 - forward), *body)
                    stmt = For(forward, stmt.extent, body, stmt.kind, stmt.lanes)
                else:
                    stmt = For(stmt.var, stmt.extent, body, stmt.kind)
            result.append(stmt)
        return tuple(result)

    return Kernel(kernel.name, kernel.parameters, backwards(kernel.body))
