"""Code as it is emitted: register tiles, wide vectors, fused products, and the text itself."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from emitting import (
    ADD,
    F32,
    F64,
    MAX,
    OF_FLOAT,
    PARALLEL,
    RUNNABLE,
    UNROLLED,
    c,
    i,
    j,
    k,
    normal,
    r,
    renamed,
    vector,
)
from kernels import run_kernel

from quern.compiler.llvm.codegen import assembly, compile_to_object
from quern.compiler.llvm.emit import emit
from quern.compiler.llvm.target import Target
from quern.compiler.loops.bounds import prove
from quern.compiler.loops.canonical import canonical_key
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
    Const,
    Expr,
    For,
    Function,
    Kernel,
    Load,
    LoopKind,
    Prefetch,
    Select,
    Space,
    Store,
)
from quern.compiler.loops.printer import print_kernel
from quern.compiler.types import DType

GOLDEN = Path(__file__).parent / "golden"


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
def test_what_is_asked_for_need_not_be_read_in_the_same_phase(target: Target) -> None:
    x, out = Buffer("x", (8,)), Buffer("out", (8,))
    ask = For(
        i, 8, (Prefetch(x, (i,)), Store(out, (i,), Const(1.0, DType.FLOAT32))), LoopKind.PARALLEL
    )
    add = For(i, 8, (Store(out, (i,), Load(x, (i,)) + Load(out, (i,))),), LoopKind.PARALLEL)
    given_x = np.arange(8, dtype=np.float32)
    found = run_kernel(Kernel("k", (x, out), (ask, add)), [given_x, None], target)
    np.testing.assert_array_equal(found[1], given_x + 1)


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
