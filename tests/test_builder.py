"""The IR builder: what it prints is what LLVM understands, and what it cannot mean it refuses."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quern.compiler.llvm.builder import (
    F32,
    F64,
    I8,
    I32,
    I64,
    PTR,
    FunctionBuilder,
    ModuleBuilder,
    Type,
    constant,
    constants,
    vector,
)
from quern.compiler.llvm.codegen import compile_to_object
from quern.compiler.llvm.jit import load
from quern.compiler.llvm.target import Target

HOST = Target.host()


def run(emit: Callable[[FunctionBuilder], None], *arrays: np.ndarray[Any, Any], n: int = 0) -> None:
    """Compiles a function of pointers %a, %b, … and i64 %n that `emit` fills, and calls it."""
    module = ModuleBuilder(has_fma=HOST.has_fma)
    names = "abcdef"[: len(arrays)]
    f = module.function("f", [*((name, PTR, "noalias") for name in names), ("n", I64)])
    emit(f)
    f.ret()
    library = load([compile_to_object(str(module), HOST)])
    prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(arrays), ctypes.c_int64)
    prototype(library.address("f"))(*(a.ctypes.data for a in arrays), n)


def same_constant(pattern: bytes, type: Type, number: int | float) -> None:
    out = np.zeros(8, np.uint8)
    run(lambda f: f.store(constant(type, number), f.arguments[0]), out)
    assert out[: len(pattern)].tobytes() == pattern


@given(st.floats(width=32, allow_nan=False))
def test_float32_constants_are_exact(number: float) -> None:
    same_constant(struct.pack("<f", number), F32, number)


@given(st.floats(allow_nan=False))
def test_float64_constants_are_exact(number: float) -> None:
    same_constant(struct.pack("<d", number), F64, number)


@given(st.integers(-(2**31), 2**32 - 1))
def test_integer_constants_wrap_to_their_width(number: int) -> None:
    same_constant((number % 2**32).to_bytes(4, "little"), I32, number)


def test_nan_constants_are_nan() -> None:
    out = np.zeros(4, np.float32)
    run(lambda f: f.store(constant(vector(4, F32), float("nan")), f.arguments[0]), out)
    assert np.isnan(out).all()


@given(st.integers(-50, 50), st.integers(1, 50))
def test_integer_arithmetic_folds_to_what_the_machine_computes(a: int, b: int) -> None:
    operations = ("add", "sub", "mul", "sdiv", "srem", "and_", "or_", "xor")

    def emit(f: FunctionBuilder) -> None:
        folded, computed, n = f.arguments
        for i, name in enumerate(operations):
            operation = getattr(f, name)
            f.store(operation(constant(I64, a), b), f.gep(I64, folded, i))
            f.store(operation(f.sub(n, 1000 - a), b), f.gep(I64, computed, i))

    results = np.zeros((2, len(operations)), np.int64)
    run(emit, results[0], results[1], n=1000)
    assert (results[0] == results[1]).all()


def test_neutral_operands_print_nothing() -> None:
    f = ModuleBuilder().function("f", [("p", PTR), ("x", I64)])
    p, x = f.arguments
    assert f.add(x, 0) == f.add(0, x) == f.mul(1, x) == f.sub(x, 0) == f.sdiv(x, 1) == x
    assert f.shl(x, 0) == f.or_(x, 0) == f.and_(-1, x) == x
    assert f.gep(F32, p, f.mul(x, 0)) == p
    f.ret()
    assert str(f).count("\n") == 3  # define, entry:, ret, }


@pytest.mark.parametrize("n", [0, 1, 7])
def test_loops_count_and_carry(n: int) -> None:
    def emit(f: FunctionBuilder) -> None:
        out, count = f.arguments
        with f.loop(0, count, carried=[constant(I64, 100)]) as outer:
            with f.loop(0, 10, step=4, carried=outer.carried) as inner:  # 0, 4, 8
                inner.update(f.add(inner.carried[0], inner.index))
            outer.update(*inner.results)
        f.store(outer.results[0], out)

    out = np.zeros(1, np.int64)
    run(emit, out, n=n)
    assert out[0] == 100 + 12 * n


def test_branches_run_when_their_condition_holds() -> None:
    def emit(f: FunctionBuilder) -> None:
        out, n = f.arguments
        for i, predicate in enumerate(("slt", "sgt")):
            f.when(
                f.icmp(predicate, n, 5),
                partial(f.store, constant(I64, 1), f.gep(I64, out, 2 * i)),
                partial(f.store, constant(I64, 2), f.gep(I64, out, 2 * i + 1)),
            )

    out = np.zeros(4, np.int64)
    run(emit, out, n=3)
    assert out.tolist() == [1, 0, 0, 2]


@pytest.mark.parametrize("lanes", [1, 3, 8])
def test_a_vector_of_one_lane_is_a_scalar(lanes: int) -> None:
    """The same emitter works for any lane count, one included."""

    def emit(f: FunctionBuilder) -> None:
        a, out, _ = f.arguments
        x = f.load(vector(lanes, F32), a)
        last = f.extract(x, lanes - 1)
        reversed_ = f.shuffle(x, None, range(lanes - 1, -1, -1))
        y = f.fadd(f.multiply_add(x, 10.0, f.splat(last, lanes)), reversed_)
        f.store(f.insert(y, f.extract(y, 0), 0), out)
        index = f.ramp(constant(I32, 0), 2, lanes)
        f.store(f.gather(F32, a, index), f.gep(F32, out, lanes))

    a = np.arange(1, 17, dtype=np.float32)
    out = np.zeros(2 * lanes, np.float32)
    run(emit, a, out)
    x = a[:lanes]
    np.testing.assert_array_equal(out[:lanes], x * 10 + x[-1] + x[::-1])
    np.testing.assert_array_equal(out[lanes:], a[: 2 * lanes : 2])


def test_conversions_to_integers_saturate() -> None:
    values = [1.9, -1.9, 3e9, -3e9, np.nan, np.inf, 0.0, -0.0]

    def emit(f: FunctionBuilder) -> None:
        x = f.load(vector(8, F32), f.arguments[0])
        f.store(f.fptosi(x, I32), f.arguments[1])

    out = np.zeros(8, np.int32)
    run(emit, np.array(values, np.float32), out)
    assert out.tolist() == [1, -1, 2**31 - 1, -(2**31), 0, 2**31 - 1, 0, 0]


def test_stack_memory_constant_arrays_and_calls() -> None:
    def emit(f: FunctionBuilder) -> None:
        table = f.module.global_constant("primes", I32, [2, 3, 5, 7])
        square = f.module.function("my square", [("x", I32)], I32, internal=True)
        square.ret(square.mul(square.arguments[0], square.arguments[0]))
        scratch = f.alloca(I32, 4)
        with f.loop(0, 4) as loop:
            x = f.load(I32, f.gep(I32, table, loop.index))
            f.store(f.call("my square", [x], I32), f.gep(I32, scratch, loop.index))
        f.store(f.load(vector(4, I32), scratch), f.arguments[0])

    out = np.zeros(4, np.int32)
    run(emit, out)
    assert out.tolist() == [4, 9, 25, 49]


def test_multiply_add_is_two_roundings_only_where_there_is_no_fma() -> None:
    for has_fma in (True, False):
        f = ModuleBuilder(has_fma=has_fma).function("f", [("x", F32)], F32)
        (x,) = f.arguments
        f.ret(f.multiply_add(x, 2.0, 1.0))
        assert ("@llvm.fma.f32" in str(f)) == has_fma


def test_flags_that_hide_nan_and_infinity_are_refused() -> None:
    f = ModuleBuilder().function("f", [("x", F32)], F32)
    (x,) = f.arguments
    f.ret(f.fadd(x, 1.0, "contract nsz"))
    assert "fadd contract nsz float %x" in str(f)
    for flags in ("fast", "nnan", "contract ninf"):
        with pytest.raises(ValueError, match="not allowed"):
            f.fadd(x, 1.0, flags)


def test_operands_of_different_types_are_refused() -> None:
    f = ModuleBuilder().function("f", [("x", F32), ("y", F64), ("v", vector(4, F32))])
    x, y, v = f.arguments
    with pytest.raises(TypeError, match=r"@f: operand types differ: float %x and double %y"):
        f.fadd(x, y)
    with pytest.raises(TypeError, match="operand types differ"):
        f.fmul(v, x)
    with pytest.raises(TypeError, match="changes the width"):
        f.bitcast(x, I64)
    with pytest.raises(TypeError, match="is not an integer"):
        constant(I8, 0.5)


def test_blocks_must_end_and_do_so_once() -> None:
    f = ModuleBuilder().function("f", [])
    with pytest.raises(ValueError, match="%entry has no terminator"):
        str(f)
    f.ret()
    with pytest.raises(ValueError, match="after the end of %entry"):
        f.ret()


def test_names_are_defined_once() -> None:
    module = ModuleBuilder()
    module.function("f", [])
    with pytest.raises(ValueError, match="defined twice"):
        module.function("f", [])
    module.declare("g", F32, [F32])
    module.declare("g", F32, [F32])
    with pytest.raises(TypeError, match="declared as declare float @g"):
        module.declare("g", F64, [F32])


def test_constant_vectors_hold_one_number_a_lane() -> None:
    out = np.zeros(3, np.int32)
    run(lambda f: f.store(constants(I32, [3, -1, 2]), f.arguments[0]), out)
    assert out.tolist() == [3, -1, 2]


def text_of(emit: Callable[[FunctionBuilder], None]) -> str:
    """The body of a function of a pointer %a and an i64 %n that `emit` fills."""
    f = ModuleBuilder().function("f", [("a", PTR), ("n", I64)])
    emit(f)
    f.ret()
    return str(f)


def test_a_pure_instruction_is_written_once_where_it_is_known() -> None:
    def emit(f: FunctionBuilder) -> None:
        a, n = f.arguments
        outer = f.mul(n, 3)
        with f.loop(0, n) as loop:
            assert f.mul(n, 3) is outer
            inner = f.mul(loop.index, 3)
            assert f.mul(loop.index, 3) is inner
            f.store(f.load(F32, f.gep(F32, a, inner)), f.gep(F32, a, inner))

    assert text_of(emit).count("mul") == 2
    assert text_of(emit).count("getelementptr") == 1


def test_what_one_branch_has_computed_is_computed_again_in_the_other_and_behind() -> None:
    def emit(f: FunctionBuilder) -> None:
        a, n = f.arguments

        def store() -> None:
            f.store(f.mul(n, 7), a)

        f.when(f.icmp("slt", n, 5), store, store)
        store()

    assert text_of(emit).count("mul i64 %n, 7") == 3


def test_what_a_loop_that_may_not_run_has_computed_is_computed_again_behind_it() -> None:
    def emit(f: FunctionBuilder) -> None:
        a, n = f.arguments
        with f.loop(0, n):
            f.store(f.mul(n, 7), a)
        f.store(f.mul(n, 7), a)
        with f.loop(0, 4):  # runs for certain
            f.store(f.mul(n, 9), a)
        f.store(f.mul(n, 9), a)

    assert text_of(emit).count("mul i64 %n, 7") == 2
    assert text_of(emit).count("mul i64 %n, 9") == 1


def test_loads_are_never_taken_for_each_other() -> None:
    def emit(f: FunctionBuilder) -> None:
        for _ in range(2):
            f.store(f.fadd(f.load(F32, f.arguments[0]), 1.0), f.arguments[0])

    assert text_of(emit).count("load float") == 2
    out = np.zeros(1, np.float32)
    run(emit, out)
    assert out == 2


def test_a_branch_to_a_block_that_was_entered_too_early_is_refused() -> None:
    f = ModuleBuilder().function("f", [("a", PTR), ("n", I64)])
    then, after = f.new_block("then"), f.new_block("after")
    f.branch_if(f.icmp("slt", f.arguments[1], 5), then, after)
    f.enter(after)
    f.ret()
    f.enter(then)
    with pytest.raises(ValueError, match="entered before a branch to it"):
        f.branch(after)
