"""Winograd convolution: exact algebra, small errors, and the same numbers from every oracle."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kernels import BLOCKINGS, host, run_kernel
from oracles import check, check_kernels, graph_of

from quern.compiler.cost_model import (
    Algorithm,
    Blocking,
    SquareConvolution,
    cheapest,
    winograd_blocking,
    winograd_panel,
)
from quern.compiler.driver import ALGORITHMS, Options, compile_graph, optimize
from quern.compiler.errors import ShapeError, UsageError
from quern.compiler.evaluate import evaluate
from quern.compiler.flops import graph_flops
from quern.compiler.graph import Graph, Value
from quern.compiler.llvm.target import Target
from quern.compiler.loops.bounds import prove
from quern.compiler.loops.independence import possible_races
from quern.compiler.loops.interpreter import interpret
from quern.compiler.lower.binding import Binding, Lowered
from quern.compiler.lower.winograd import Winograd as WinogradKernel
from quern.compiler.ops.base import apply, apply_all
from quern.compiler.ops.blocked import BlockedConv, PackWeight, blocked, plain
from quern.compiler.ops.conv import Conv, ConvInputGradient
from quern.compiler.ops.pointwise import Relu
from quern.compiler.ops.pool import MaxPool
from quern.compiler.ops.toom_cook import Matrix, transforms
from quern.compiler.ops.winograd import WinogradConv, WinogradWeight, winograd_weight
from quern.compiler.passes.partition import partition
from quern.compiler.passes.winograd import Winograd
from quern.compiler.report import Report
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array, DType, Shape, TensorType
from quern.runtime.executable import Executable

ONES = ((1, 1), (1, 1))
# Outputs of a tile along an axis, and taps of the weight.
KINDS = [(2, 3), (4, 3), (2, 5)]
# The second convolution of AlexNet.
ALEXNET = SquareConvolution(1, 64, 192, 27, 27, taps=5)


def numbers(shape: Shape, seed: int = 0, dtype: Any = np.float32) -> Array:
    return np.asarray(np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def convolution(padding: tuple[tuple[int, int], ...] = ONES) -> Conv:
    return Conv((1, 1), padding, (1, 1))


def winograd(
    op: Conv | ConvInputGradient, w: Array, tile: int, block: int, panel: int = 16
) -> tuple[WinogradConv, Array]:
    """The operation, and the transformed weight."""
    (u,) = winograd_weight(op, tile, panel).evaluate(w)
    return WinogradConv(op, w.shape, block, tile), u


# -- algebra --------------------------------------------------------------------------------------


def times(matrix: Matrix, vector: list[Fraction]) -> list[Fraction]:
    return [sum((a * x for a, x in zip(row, vector, strict=True)), Fraction(0)) for row in matrix]


@pytest.mark.parametrize(("tile", "count"), KINDS)
@given(st.lists(st.integers(-9, 9), min_size=11, max_size=11))
def test_transforms_are_exact(tile: int, count: int, given_numbers: list[int]) -> None:
    taps = [Fraction(n, 7) for n in given_numbers[:count]]
    data = [Fraction(n, 3) for n in given_numbers[count : count + tile + count - 1]]
    matrices = transforms(tile, count)
    products = [
        a * b for a, b in zip(times(matrices.filter, taps), times(matrices.data, data), strict=True)
    ]
    direct = [sum(taps[k] * data[i + k] for k in range(count)) for i in range(tile)]
    assert times(matrices.inverse, products) == direct


@given(
    st.sampled_from(KINDS),
    st.tuples(st.integers(5, 11), st.integers(5, 11)),
    st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2),
    st.sampled_from([1, 3, 16]),
)
@settings(max_examples=20)
def test_it_computes_the_convolution_and_its_transpose(
    kind: tuple[int, int], extents: Shape, padding: tuple[tuple[int, int], ...], panel: int
) -> None:
    tile, taps = kind
    x, w = numbers((2, 4, *extents), 1, np.float64), numbers((6, 4, taps, taps), 2, np.float64)
    forward = convolution(padding)
    (y,) = forward.evaluate(x, w)
    op, u = winograd(forward, w, tile, 3, panel)
    np.testing.assert_allclose(plain(op.evaluate(blocked(x, 2), u)[0]), y, atol=1e-11)
    backward = ConvInputGradient(extents, (1, 1), padding, (1, 1))
    op, u = winograd(backward, w, tile, 4, panel)
    (dx,) = backward.evaluate(y, w)
    np.testing.assert_allclose(plain(op.evaluate(blocked(y, 2), u)[0]), dx, atol=1e-10)


def test_only_some_weights_and_stride_1() -> None:
    x, w = TensorType((1, 2, 8, 8, 4)), TensorType((8, 8, 5, 5))
    with pytest.raises(ShapeError, match=r"weights \(K, C, 3, 3\)"):
        WinogradWeight(4, 16).infer(w)
    with pytest.raises(ShapeError, match=r"weights \(K, C, 3, 3\)"):
        WinogradWeight(2, 16).infer(w.with_shape((8, 8, 3, 5)))
    (u,) = WinogradWeight(4, 16).infer(w.with_shape((8, 8, 3, 3)))
    strided = Conv((2, 2), ONES, (1, 1))
    with pytest.raises(ShapeError, match="not a convolution of stride 1"):
        WinogradConv(strided, (8, 8, 3, 3), 4, 4).infer(x, u)
    with pytest.raises(ShapeError, match="is transformed as"):
        WinogradConv(convolution(), (8, 8, 3, 3), 4, 2).infer(x, u)


# -- kernels --------------------------------------------------------------------------------------


def relu_of_sum(op: WinogradConv, residual: bool) -> Any:
    def function(x: Tensor, u: Tensor, *more: Tensor) -> Tensor:
        y = apply(op, x, u)
        return apply(Relu(), y + more[0] if residual else y)

    return function


@given(
    st.sampled_from(KINDS),
    st.tuples(st.integers(3, 7), st.integers(3, 7)),
    st.tuples(*[st.tuples(st.integers(1, 2), st.integers(1, 2))] * 2),
    st.sampled_from([(8, 8), (4, 8), (3, 2), (8, 4), (8, 1)]),
    st.sampled_from([(8, 16), (24, 8), (24, 40)]),
)
@settings(max_examples=6)
def test_kernels_agree(
    kind: tuple[int, int],
    extents: Shape,
    padding: tuple[tuple[int, int], ...],
    blocks: Shape,
    channels: Shape,
) -> None:
    tile, taps = kind
    depth, width = channels
    x, w = numbers((2, depth, *extents), 1), numbers((width, depth, taps, taps), 2)
    op, u = winograd(convolution(padding), w, tile, blocks[1])
    x = blocked(x, blocks[0]) if depth % blocks[0] == 0 else blocked(x, 1)
    (y,) = op.evaluate(x, u)
    check(relu_of_sum(op, True), x, u, numbers(y.shape, 3), rtol=1e-4, atol=1e-5, whole=False)


@pytest.mark.parametrize("position", [False, True])
@pytest.mark.parametrize(("tile", "extents"), [(2, (5, 4)), (4, (9, 6)), (4, (8, 11))])
def test_a_pool_is_done_in_the_same_kernel(tile: int, extents: Shape, position: bool) -> None:
    w = numbers((24, 16, 3, 3), 2)
    op, u = winograd(convolution(), w, tile, 8)
    pool = MaxPool((2, 2, 1), (2, 2, 1), ((0, 0),) * 3, (1, 1, 1))

    def function(x: Tensor, u: Tensor, residual: Tensor) -> tuple[Tensor, ...]:
        y, where = apply_all(pool, apply(Relu(), apply(op, x, u) + residual))
        return (y * 2.0, where) if position else (y * 2.0,)

    x, residual = numbers((2, 2, *extents, 8), 1), numbers((2, 3, *extents, 8), 3)
    (group,) = check(function, x, u, residual, rtol=1e-4, atol=1e-5, whole=False)
    assert group.pool is not None


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("tile", "taps"), KINDS)
def test_weights_agree(tile: int, taps: int, transposed: bool) -> None:
    weight = WinogradWeight(tile, 16, transposed)
    check(lambda w: apply(weight, w), numbers((20, 7, taps, taps)), rtol=1e-5, whole=False)


def lowered(graph: Graph, blocking: Blocking, target: Target) -> Lowered:
    (group,) = partition(graph)
    assert group.anchor is not None
    return WinogradKernel(Binding(graph, group, target), Value(group.anchor), blocking).lower()


@pytest.mark.parametrize("blocking", BLOCKINGS)
@pytest.mark.parametrize("name", ["sse", "avx2", "avx512"])
def test_blocks_of_tiles_that_do_not_divide(blocking: Blocking, name: str) -> None:
    target = Target.named(name)
    x, w = numbers((3, 8, 9, 6), 1), numbers((40, 8, 3, 3), 2)
    op, u = winograd(convolution(), w, 4, 8, 2 * target.vector_bits // 32)
    graph, feeds = graph_of(relu_of_sum(op, False), blocked(x, 8), u)
    kernel = lowered(graph, blocking, target).kernel
    prove(kernel)
    assert possible_races(kernel) == []
    expected = evaluate(graph, feeds).outputs["y0"]
    arrays = [*feeds.values(), np.full(expected.shape, np.nan, np.float32)]
    interpret(kernel, arrays)
    found = [arrays[-1]]
    if not target.missing:
        found.append(run_kernel(kernel, [*feeds.values(), None], target, pieces=3)[-1])
    for y in found:
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


@given(
    st.sampled_from(KINDS),
    st.integers(2, 64).map(lambda blocks: 8 * blocks),
    st.tuples(st.integers(6, 17), st.integers(6, 17)),
)
@example((4, 3), 40, (14, 14))
@example((4, 3), 272, (14, 14))
@example((2, 5), 136, (14, 14))
@settings(max_examples=6)
def test_errors_are_near_those_of_direct_sums(
    kind: tuple[int, int], depth: int, extents: Shape
) -> None:
    """Direct kernels sum many channels in parts, too: then 4x4 outputs lose five times as much."""
    tile, taps = kind
    x, w = numbers((1, depth, *extents), 1), numbers((32, depth, taps, taps), 2)
    (exact,) = convolution().evaluate(x.astype(np.float64), w.astype(np.float64))
    graph = Graph()
    inputs = graph.input(TensorType(x.shape), "x"), graph.parameter(TensorType(w.shape), "w")
    graph.outputs = {"y": apply(convolution(), *inputs).value}
    graph.data["w"] = w

    def error(algorithm: Algorithm) -> float:
        options = Options(workers=1, choose=lambda *_: algorithm)
        executable = Executable(compile_graph(graph, options).image, threads=1)
        notes = [kernel.note for kernel in executable.program.kernels]
        assert any("winograd" in note for note in notes) == bool(algorithm.tile)
        return mean_error(executable.run({"x": x})["y"], exact)

    fast = error(Algorithm.F4 if tile == 4 else Algorithm.F2)
    assert fast <= 3 * mean_error(one_by_one(x, w), exact)
    assert fast <= 6 * error(Algorithm.DIRECT)


def mean_error(y: Array, exact: Array) -> float:
    """Root of the mean square: the largest error of many is a matter of luck."""
    return float(np.sqrt(np.mean((y - exact) ** 2)))


def one_by_one(x: Array, w: Array) -> Array:
    """The convolution, one product after the other added to a sum of float32."""
    taps = w.shape[-1]
    padded = np.pad(x, ((0, 0), (0, 0), *ONES))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (taps, taps), (2, 3))
    total = np.zeros((1, len(w), *windows.shape[2:4]), np.float32)
    for c, i, j in np.ndindex(*w.shape[1:]):
        total += w[:, c, i, j, None, None] * windows[:, None, c, :, :, i, j]
    return total


def test_threads_do_not_change_a_bit() -> None:
    x, w = numbers((2, 16, 30, 30), 1), numbers((32, 16, 3, 3), 2)
    op, u = winograd(convolution(), w, 4, 8)
    graph, feeds = graph_of(relu_of_sum(op, False), blocked(x, 8), u)
    image = compile_graph(graph, Options(workers=1)).image
    one, two = (Executable(image, threads=n).run(feeds)["y0"] for n in (1, 2))
    assert one.tobytes() == two.tobytes()


# -- choice ---------------------------------------------------------------------------------------


def blocked_network(stride: int = 1) -> tuple[Graph, dict[str, Array]]:
    """A convolution in blocks, with its weight as a parameter."""
    graph = Graph()
    x = graph.input(TensorType((1, 2, 12, 12, 8)), "x")
    w = graph.parameter(TensorType((32, 16, 3, 3)), "w")
    op = BlockedConv(Conv((stride, stride), ONES, (1, 1)), (32, 16, 3, 3), 8)
    y = apply(Relu(), apply(op, x, apply(PackWeight(1, 16), w)))
    graph.outputs = {"y": y.value}
    return graph, {"x": numbers((1, 2, 12, 12, 8), 1), "w": numbers((32, 16, 3, 3), 2)}


def kinds(graph: Graph) -> set[str]:
    return {node.op.name for node in graph.nodes()}


@pytest.mark.parametrize("tile", [2, 4])
def test_the_pass_keeps_what_is_computed(tile: int) -> None:
    graph, feeds = blocked_network()
    fast = Winograd(host(), tile).apply(graph)
    assert {"WinogradConv", "WinogradWeight"} <= kinds(fast)
    assert not {"BlockedConv", "PackWeight"} & kinds(fast)
    expected = evaluate(graph, feeds).outputs["y"]
    np.testing.assert_allclose(evaluate(fast, feeds).outputs["y"], expected, atol=1e-4)
    check_kernels(fast, feeds, rtol=1e-4, atol=1e-5)


def test_the_data_gradient_too() -> None:
    graph = Graph()
    dy = graph.input(TensorType((2, 4, 9, 10, 8)), "dy")
    w = graph.parameter(TensorType((32, 16, 3, 3)), "w")
    back = ConvInputGradient((9, 11), (1, 1), ((1, 1), (0, 1)), (1, 1))
    op = BlockedConv(back, (32, 16, 3, 3), 8)
    graph.outputs = {"dx": apply(op, dy, apply(PackWeight(1, 16, True), w)).value}
    feeds = {"dy": numbers((2, 4, 9, 10, 8), 1), "w": numbers((32, 16, 3, 3), 2)}
    fast = Winograd(host(), 4).apply(graph)
    assert "WinogradConv" in kinds(fast)
    assert graph_flops(fast) == graph_flops(graph) == 2 * 2 * 32 * 9 * 10 * 16 * 9
    expected = evaluate(graph, feeds).outputs["dx"]
    np.testing.assert_allclose(evaluate(fast, feeds).outputs["dx"], expected, atol=1e-4)
    check_kernels(fast, feeds, rtol=1e-4, atol=1e-5, whole=False)


def test_direct_algorithms_on_demand() -> None:
    graph = Graph()
    x, w = TensorType((1, 64, 28, 28)), TensorType((64, 64, 3, 3))
    y = apply(convolution(), graph.input(x, "x"), graph.parameter(w, "w"))
    graph.outputs = {"y": y.value}
    kinds_of = {
        name: kinds(optimize(graph, Options(algorithms=name), Report())) for name in ALGORITHMS
    }
    assert "WinogradConv" in kinds_of["fastest"]
    assert "BlockedConv" in kinds_of["direct"]
    with pytest.raises(UsageError, match="algorithms='slow' is none of fastest, direct"):
        Options(algorithms="slow")


def test_the_pass_leaves_other_convolutions_alone() -> None:
    graph, _ = blocked_network(stride=2)
    assert "BlockedConv" in kinds(Winograd(host(), 4).apply(graph))


def test_the_model_prefers_large_tiles_on_large_maps_and_small_ones_on_small_maps() -> None:
    target = Target.named("avx2")

    def best(channels: int, extent: int, depth: int | None = None) -> Algorithm:
        conv = SquareConvolution(1, depth or channels, channels, extent, extent)
        return cheapest(target, DType.FLOAT32, conv)

    assert best(64, 224) is best(256, 56) is best(512, 28) is Algorithm.F4
    assert best(512, 7) is Algorithm.F2
    assert best(8, 64, depth=3) is Algorithm.DIRECT
    assert cheapest(target, DType.FLOAT32, ALEXNET) is Algorithm.F2


@given(
    st.sampled_from(["sse", "avx2", "avx512"]),
    st.sampled_from([2, 4]),
    st.integers(1, 64),
    st.integers(1, 1024),
    st.integers(1, 1024),
    st.integers(1, 256),
)
def test_blocks_cover_all_tiles_and_channels(
    name: str, tile: int, batch: int, depth: int, channels: int, extent: int
) -> None:
    conv = SquareConvolution(batch, depth, channels, extent, extent)
    target = Target.named(name)
    panel = winograd_panel(target, DType.FLOAT32, channels)
    blocking = winograd_blocking(target, DType.FLOAT32, conv, tile, panel)
    assert panel // target.lanes(DType.FLOAT32) in (2, 3)
    assert 0 <= blocking.tiles * blocking.blocks - conv.tiles(tile) < blocking.tiles
    assert blocking.slots * blocking.repeats >= blocking.blocks
