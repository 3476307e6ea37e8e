"""Results that are written past the caches: which, how, and that it changes no bit of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from emitting import PARALLEL, RUNNABLE, VECTOR, c, i, normal, r
from kernels import run_kernel
from oracles import graph_of

import quern as qn
from quern.compiler.cost_model import bypasses_caches
from quern.compiler.driver import Options, compile_graph
from quern.compiler.explain import explain
from quern.compiler.llvm.emit import emit
from quern.compiler.llvm.processors import last_cache_bytes
from quern.compiler.llvm.target import Target
from quern.compiler.loops.access import collect
from quern.compiler.loops.canonical import canonical_key
from quern.compiler.loops.ir import (
    Accumulate,
    Block,
    Buffer,
    For,
    If,
    Kernel,
    Load,
    LoopKind,
    ReduceOp,
    Store,
    Var,
)
from quern.compiler.loops.printer import print_kernel
from quern.compiler.loops.streams import streaming, swept
from quern.compiler.ops.pool import MaxPool, MaxPoolGradient
from quern.compiler.tensor import Tensor
from quern.compiler.types import DType, TensorType
from quern.runtime.executable import Executable

p = Var("p")
x, y, z = (Buffer(name, (4, 512)) for name in "xyz")
HOST = Target.host()


def rows(*body: Store | Accumulate | If, extent: int = 512, lanes: int = 8) -> Kernel:
    loop = For(i, extent, body, VECTOR, lanes)
    return Kernel("rows", (x, y, z), (For(c, 4, (loop,), PARALLEL),))


def doubled(buffer: Buffer = y, shift: int = 0) -> Store:
    return Store(buffer, (c, i + shift), Load(x, (c, i)) + Load(x, (c, i)))


# -- kernels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", RUNNABLE, ids=lambda t: t.level)
@pytest.mark.parametrize("extent", [512, 500, 37])
def test_it_is_a_hint_for_whole_vectors_of_memory_that_begins_at_a_line(
    target: Target, extent: int
) -> None:
    """Here it does not."""
    kernel = rows(doubled(), extent=extent, lanes=target.lanes(DType.FLOAT32))
    streamed = streaming(kernel, 1)
    code = emit(streamed, target).ir
    assert "!nontemporal" in code
    assert code.index("sfence") > code.rindex("!nontemporal")
    assert "!nontemporal" not in emit(kernel, target).ir
    given = normal(4, 512)
    results = [
        run_kernel(k, [given, np.zeros_like(given), None], target)[1] for k in (kernel, streamed)
    ]
    np.testing.assert_array_equal(*results)
    np.testing.assert_array_equal(results[1][:, :extent], 2 * given[:, :extent])


def test_vectors_between_lines_are_not_streamed() -> None:
    kernel = streaming(rows(doubled(shift=1), extent=511), 1)
    assert "!nontemporal" not in emit(kernel, HOST).ir


def test_it_is_seen_in_the_text_and_makes_another_kernel() -> None:
    kernel = rows(doubled())
    streamed = streaming(kernel, 1)
    assert "stream y[c, i] = " in print_kernel(streamed)
    assert "streamed" in streamed.note
    assert canonical_key(kernel) != canonical_key(streamed)


LEFT = c + 0 < 2
ONE = Load(x, (c, i))


@pytest.mark.parametrize(
    ("kernel", "number"),
    [
        (rows(doubled()), 1),
        (rows(doubled(z)), 2),
        (rows(doubled(), doubled(z)), None),
        (rows(doubled(), extent=16), None),
        (rows(doubled(), extent=40), None),
        (rows(doubled(), extent=56), 1),
        (rows(doubled(shift=1), extent=511), None),
        (rows(Store(y, (c, i), Load(y, (c, i)) + ONE)), None),
        (rows(Accumulate(y, (c, i), ReduceOp.ADD, ONE)), None),
        (rows(If(LEFT, (doubled(),))), None),
    ],
    ids=[
        "one",
        "other",
        "two",
        "short",
        "few halves of lines",
        "halves of lines",
        "apart",
        "read",
        "added to",
        "conditional",
    ],
)
def test_results_of_one_sweep_may_be_streamed(kernel: Kernel, number: int | None) -> None:
    assert swept(collect(kernel)) == number


def test_columns_are_swept_row_after_row() -> None:
    """Vectors of a block of channels, one behind the other; not so every second one."""
    shape = (4, 2, 64, 8)
    one, other = Buffer("x", shape), Buffer("y", shape)

    def kernel(step: int) -> Kernel:
        place = (c, 0 * c, r * step, i)
        inner: Block = (For(r, 64 // step, (Store(other, place, Load(one, place)),)),)
        lanes = For(i, 8, inner, LoopKind.VECTOR, 8)
        return Kernel("columns", (one, other), (For(c, 4, (lanes,), PARALLEL),))

    assert swept(collect(kernel(1))) == 1
    assert swept(collect(kernel(2))) is None


def test_statements_that_follow_each_other_write_a_run_together() -> None:
    shape = (4, 2, 64, 8)
    one, other = Buffer("x", shape), Buffer("y", shape)

    def kernel(*places: int) -> Kernel:
        stores = []
        for place in places:
            index = (p, 0 * p, r * len(places) + place, i)
            stores.append(Store(other, index, Load(one, index)))
        lanes = For(i, 8, tuple(stores), LoopKind.VECTOR, 8)
        inner = For(p, 4, (lanes,))
        return Kernel("groups", (one, other), (For(r, 64 // len(places), (inner,), PARALLEL),))

    assert swept(collect(kernel(0, 1, 2, 3))) == 1
    assert swept(collect(kernel(0, 1))) is None  # a line at a time
    assert swept(collect(kernel(0, 2, 1, 3))) is None


# -- the choice -----------------------------------------------------------------------------------

LARGE = (16, 30, 1024)


def options(cache: int) -> Options:
    return Options(target=replace(HOST, cache_bytes=cache))


def is_streamed(graph: qn.Graph, cache: int = 1 << 20) -> bool:
    program = compile_graph(graph, options(cache)).image.program
    return any("streamed" in kernel.note for kernel in program.kernels)


def centered(shape: tuple[int, ...] = LARGE) -> qn.Graph:
    def function(x: Tensor) -> list[Tensor]:
        return [(x - x.mean((0, 2), keepdims=True)).relu()]

    return graph_of(function, np.zeros(shape, np.float32))[0]


def updated(*, in_place: bool) -> qn.Graph:
    graph = qn.Graph("step")
    x = graph.input(TensorType(LARGE), "x")
    state = graph.buffer(np.zeros(LARGE, np.float32), "state")
    graph.updates["state"] = (state * 0.5 + x if in_place else x * 0.5).value
    return graph


def test_large_results_that_are_not_read_soon_are_streamed() -> None:
    assert is_streamed(centered())
    assert not is_streamed(centered(), cache=1 << 30)
    assert not is_streamed(centered((16, 3, 1024)))


def test_so_are_largest_elements_of_blocks() -> None:
    """Also of windows that touch the border of the image. Four of 128 bits are but one line."""
    lanes = HOST.lanes(DType.FLOAT32)
    pool = MaxPool((3, 3, 1), (2, 2, 1), ((1, 1), (1, 1), (0, 0)), (1, 1, 1))
    graph = qn.Graph("pool")
    x = graph.input(TensorType((8, 64 // lanes, 64, 64, lanes)), "x")
    graph.outputs["y"] = graph.apply(pool, x)[0].value
    assert is_streamed(graph) == (HOST.vector_bits > 128)


@pytest.mark.parametrize("block", [(), (8,)], ids=["plain", "in blocks"])
def test_so_are_gradients_of_pools(block: tuple[int, ...]) -> None:
    """What is at the borders of an image is written with all of its row."""
    ones, none = (1,) * len(block), ((0, 0),) * len(block)
    pool = MaxPool((3, 3, *ones), (2, 2, *ones), ((1, 1), (1, 1), *none), (1, 1, *ones))
    graph = qn.Graph("gradient")
    dy = graph.input(TensorType((4, 32, 32, 32, *block)), "dy")
    position = graph.input(TensorType((4, 32, 32, 32, *block), DType.UINT8), "position")
    op = MaxPoolGradient((64, 64, *block), **pool.attributes())
    graph.outputs["dx"] = graph.apply(op, dy, position)[0].value
    assert is_streamed(graph)


def test_what_takes_the_place_of_something_is_not() -> None:
    assert is_streamed(updated(in_place=False))
    assert not is_streamed(updated(in_place=True))


def test_the_cost_model_asks_for_size_and_time() -> None:
    target = replace(HOST, cache_bytes=8 << 20)
    assert bypasses_caches(target, 1 << 20, 8 << 20)
    assert not bypasses_caches(target, 1 << 20, 7 << 20)
    assert not bypasses_caches(target, 1 << 18, 8 << 20)


def test_explanations_show_it() -> None:
    text = explain(centered(), "relu", options(1 << 20)).text()
    assert "streamed" in text
    assert "stream relu" in text


@pytest.mark.parametrize("threads", [1, 3])
def test_the_same_bits(threads: int) -> None:
    given = normal(*LARGE)
    results = [
        Executable(compile_graph(centered(), options(cache)).image, threads)(given)
        for cache in (1 << 20, 1 << 30)
    ]
    np.testing.assert_array_equal(*results)


def test_the_size_of_the_last_cache(tmp_path: Path) -> None:
    for number, size in enumerate(("32K", "512K", "32768K", "?")):
        folder = tmp_path / f"index{number}"
        folder.mkdir()
        (folder / "size").write_text(f"{size}\n")
    assert last_cache_bytes(tmp_path) == 32 << 20
    assert last_cache_bytes(tmp_path / "nothing") == 0
