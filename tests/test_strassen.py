"""Strassen's algorithm: exact algebra, small errors, and the same numbers from every oracle."""

from __future__ import annotations

import math
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
    cycles,
    strassen_blocking,
)
from quern.compiler.driver import ALGORITHMS, Options, compile_graph, optimize
from quern.compiler.errors import ShapeError
from quern.compiler.evaluate import evaluate
from quern.compiler.flops import graph_flops
from quern.compiler.graph import Graph, Value
from quern.compiler.llvm.target import Target
from quern.compiler.loops.bounds import prove
from quern.compiler.loops.interpreter import interpret
from quern.compiler.loops.ir import Prefetch, walk
from quern.compiler.lower.binding import Binding
from quern.compiler.lower.strassen import Strassen as StrassenKernel
from quern.compiler.ops.base import apply, apply_all
from quern.compiler.ops.blocked import BlockedConv, blocked, blocked_shape, plain
from quern.compiler.ops.conv import Conv
from quern.compiler.ops.pointwise import Relu
from quern.compiler.ops.pool import MaxPool
from quern.compiler.ops.strassen import (
    INPUTS,
    RESULTS,
    WEIGHTS,
    StrassenConv,
    StrassenWeight,
)
from quern.compiler.passes.hoist import hoist
from quern.compiler.passes.partition import partition
from quern.compiler.passes.strassen import Strassen
from quern.compiler.report import Report
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array, DType, Shape, TensorType
from quern.runtime.executable import Executable
from quern.runtime.image import Image

AVX2 = Target.named("avx2")


def numbers(shape: Shape, seed: int = 0, dtype: Any = np.float32) -> Array:
    return np.asarray(np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def pointwise(rank: int = 2, stride: int = 1) -> Conv:
    return Conv((stride,) * rank, ((0, 0),) * rank, (1,) * rank)


def strassen(w: Array, block: int, panel: int = 16) -> tuple[StrassenConv, Array]:
    """The operation, and the sums of the weight's quarters."""
    (u,) = StrassenWeight(panel).evaluate(w)
    return StrassenConv(pointwise(w.ndim - 2), w.shape, block), u


# -- algebra --------------------------------------------------------------------------------------


def test_seven_products_are_enough() -> None:
    """The terms of each quarter of a · b, over all products of a quarter of a and one of b."""
    for i, row in enumerate(RESULTS):
        for a in range(4):
            for b in range(4):
                factor = sum(
                    (r * x[a] * w[b] for r, x, w in zip(row, INPUTS, WEIGHTS, strict=True)),
                    Fraction(0),
                )
                is_term = (i // 2, i % 2) == (a // 2, b % 2) and a % 2 == b // 2
                assert factor == is_term


@given(
    st.integers(1, 3),
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.sampled_from([1, 3, 16]),
)
@settings(max_examples=20)
def test_it_computes_the_convolution(
    batch: int, spatial: list[int], halves: Shape, panel: int
) -> None:
    depth, channels = (2 * n for n in halves)
    x = numbers((batch, depth, *spatial), 1, np.float64)
    w = numbers((channels, depth, *(1 for _ in spatial)), 2, np.float64)
    (y,) = pointwise(len(spatial)).evaluate(x, w)
    op, u = strassen(w, 2, panel)
    np.testing.assert_allclose(plain(op.evaluate(blocked(x, 2), u)[0]), y, atol=1e-12)


def test_only_halves_and_products_of_matrices() -> None:
    x, w = TensorType((1, 2, 8, 8, 4)), TensorType((8, 8, 1, 1))
    for shape in ((7, 8, 1, 1), (8, 7, 1, 1), (8, 8, 1, 3)):
        with pytest.raises(ShapeError, match=r"halves of weights \(K, C, 1, 1\)"):
            StrassenWeight(16).infer(w.with_shape(shape))
    (u,) = StrassenWeight(16).infer(w)
    with pytest.raises(ShapeError, match="more than a product of matrices"):
        StrassenConv(pointwise(stride=2), (8, 8, 1, 1), 4).infer(x, u)
    with pytest.raises(ShapeError, match="have sums"):
        StrassenConv(pointwise(), (8, 16, 1, 1), 4).infer(x, u)


# -- kernels --------------------------------------------------------------------------------------


def relu_of_sum(op: StrassenConv) -> Any:
    def function(x: Tensor, u: Tensor, residual: Tensor, bias: Tensor) -> Tensor:
        return apply(Relu(), apply(op, x, u) + residual + bias)

    return function


def arrays_of(
    batch: int, spatial: Shape, depth: int, channels: int, panel: int = 16
) -> tuple[StrassenConv, tuple[Array, ...]]:
    w = numbers((channels, depth, *(1 for _ in spatial)), 2)
    op, u = strassen(w, 8, panel)
    x = blocked(numbers((batch, depth, *spatial), 1), 8)
    residual = numbers((batch, channels // 8, *spatial, 8), 3)
    return op, (x, u, residual, numbers((channels // 8, *(1 for _ in spatial), 8), 4))


@given(
    st.integers(1, 4),
    st.sampled_from([(1,), (5,), (3, 3), (2, 4), (2, 1, 3)]),
    st.sampled_from([(16, 16), (16, 48), (48, 32), (32, 80)]),
)
@example(1, (1, 1), (16, 16))
@example(2, (1,), (16, 16))
@settings(max_examples=6)
def test_kernels_agree(batch: int, spatial: Shape, channels: Shape) -> None:
    op, arrays = arrays_of(batch, spatial, *channels)
    check(relu_of_sum(op), *arrays, rtol=1e-4, atol=1e-5, whole=False)


def test_what_differs_along_one_axis_of_a_map_is_added_too() -> None:
    op, (x, u, *_) = arrays_of(3, (2, 3), 16, 16)
    column = numbers((1, 2, 1, 3, 8), 5)

    def function(x: Tensor, u: Tensor, column: Tensor) -> Tensor:
        return apply(op, x, u) + column

    check(function, x, u, column, rtol=1e-4, atol=1e-5, whole=False)


def test_weights_agree() -> None:
    for panel in (8, 16, 24):
        weight = StrassenWeight(panel)
        check(lambda w: apply(weight, w), numbers((40, 14, 1, 1)), rtol=1e-5, whole=False)  # noqa: B023


@pytest.mark.parametrize("blocking", BLOCKINGS)
@pytest.mark.parametrize("name", ["sse", "avx2", "avx512"])
def test_blocks_of_pairs_that_do_not_divide(blocking: Blocking, name: str) -> None:
    target = Target.named(name)
    op, arrays = arrays_of(3, (3, 4), 16, 48, 2 * target.vector_bits // 32)
    graph, feeds = graph_of(relu_of_sum(op), *arrays)
    (group,) = partition(graph)
    binding = Binding(graph, group, target)
    kernel = StrassenKernel(binding, Value(group.anchor or ""), blocking).lower().kernel
    prove(kernel)
    expected = evaluate(graph, feeds).outputs["y0"]
    results = [*feeds.values(), np.full(expected.shape, np.nan, np.float32)]
    interpret(kernel, results)
    found = [results[-1]]
    if not target.missing:
        found.append(run_kernel(kernel, [*feeds.values(), None], target, pieces=3)[-1])
    for y in found:
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def test_what_results_are_added_to_is_asked_for_while_products_are_made() -> None:
    op, arrays = arrays_of(2, (3, 4), 16, 48)
    graph, _ = graph_of(relu_of_sum(op), *arrays)
    (group,) = partition(graph)
    kernel = StrassenKernel(Binding(graph, group, AVX2), Value(group.anchor or "")).lower().kernel
    asked = [s.buffer for s in walk(kernel.body) if isinstance(s, Prefetch)]
    weight, residual, result = (kernel.parameters[i] for i in (1, 2, -1))
    assert set(asked) - set(kernel.scratch) == {weight, residual, result}
    assert asked.count(residual) == asked.count(result)


# -- networks -------------------------------------------------------------------------------------


def with_strassen(*_: object) -> Algorithm:
    return Algorithm.STRASSEN


def network(
    *shape: int, channels: int, kernel: int = 1, block: int = 8
) -> tuple[Graph, dict[str, Array]]:
    """A convolution in blocks whose weight is a parameter."""
    graph = Graph()
    x = graph.input(TensorType(blocked_shape(shape, 8)), "x")
    weight = graph.parameter(numbers((channels, shape[1], kernel, kernel), 2), "w")
    op = BlockedConv(pointwise(), weight.shape, block)
    graph.outputs = {"y": apply(op, x, apply(op.packing(16), weight)).value}
    return graph, {"x": numbers(x.shape, 1)}


def count(graph: Graph) -> int:
    """How many convolutions are done so."""
    return sum(isinstance(node.op, StrassenConv) for node in graph.nodes())


def replaced(graph: Graph) -> int:
    return count(Strassen(host(), with_strassen).apply(graph))


def compiled(graph: Graph, *passes: Strassen) -> Image:
    """For this machine, as no emulator runs whole programs."""
    return compile_graph(graph, Options(passes=passes, workers=1)).image


def test_the_pass_keeps_what_is_computed() -> None:
    graph, feeds = network(2, 32, 5, 7, channels=48)
    fast = Strassen(host(), with_strassen).apply(graph)
    assert {"StrassenConv", "StrassenWeight"} <= {node.op.name for node in fast.nodes()}
    assert not {"BlockedConv", "PackWeight"} & {node.op.name for node in fast.nodes()}
    assert graph_flops(fast) == graph_flops(graph) == 2 * 2 * 32 * 48 * 5 * 7
    expected = evaluate(graph, feeds).outputs["y"]
    np.testing.assert_allclose(evaluate(fast, feeds).outputs["y"], expected, atol=1e-4)
    check_kernels(fast, feeds, rtol=1e-4, atol=1e-5)


@given(st.sampled_from([(64, 64), (128, 256), (512, 64), (1024, 32)]), st.sampled_from([7, 14]))
@settings(max_examples=4)
def test_errors_are_near_those_of_direct_sums(channels: Shape, extent: int) -> None:
    graph, feeds = network(1, channels[0], extent, extent, channels=channels[1])
    double = (plain(feeds["x"]).astype(np.float64), graph.data["w"].astype(np.float64))
    (exact,) = pointwise().evaluate(*double)

    def error(*passes: Strassen) -> float:
        y = Executable(compiled(graph, *passes), threads=1).run(feeds)["y"]
        return float(np.sqrt(np.mean((plain(y) - exact) ** 2)))

    assert error(Strassen(Target.host(), with_strassen)) <= 3 * error()


def test_threads_do_not_change_a_bit() -> None:
    graph, feeds = network(2, 32, 15, 13, channels=64)
    image = compiled(graph, Strassen(Target.host(), with_strassen))
    assert "strassen" in "".join(kernel.note for kernel in image.program.kernels)
    one, two = (Executable(image, threads=n).run(feeds)["y"] for n in (1, 2))
    assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize("extent", [5, 6])
def test_images_know_nothing_of_each_other(extent: int) -> None:
    graph, feeds = network(3, 32, extent, extent, channels=64)
    executable = Executable(compiled(graph, Strassen(Target.host(), with_strassen)), threads=1)
    before = executable.run(feeds)["y"]
    feeds["x"][1] = np.nan
    after = executable.run(feeds)["y"]
    assert np.isnan(after[1]).all()
    np.testing.assert_array_equal(after[::2], before[::2])


def test_many_channels_are_done_so_unless_told_otherwise() -> None:
    graph = Graph()
    y = graph.input(TensorType((1, 256, 14, 14)), "x")
    for number in range(2):
        weight = graph.parameter(numbers((256, 256, 1, 1)), f"w{number}")
        y = apply(Relu(), apply(pointwise(), y, weight))
    graph.outputs = {"y": y.value}
    found = [count(optimize(graph, Options(algorithms=a), Report())) for a in ALGORITHMS]
    assert dict(zip(ALGORITHMS, found, strict=True)) == {"fastest": 1, "direct": 0}


def test_other_convolutions_stay_as_they_are() -> None:
    assert replaced(network(1, 64, 14, 14, channels=64)[0]) == 1
    assert replaced(network(1, 64, 14, 14, channels=24)[0]) == 0
    assert replaced(network(1, 24, 14, 14, channels=64)[0]) == 0
    assert replaced(network(1, 64, 14, 14, channels=64, block=1)[0]) == 0
    assert replaced(network(1, 64, 14, 14, channels=64, kernel=3)[0]) == 0


def test_weights_that_change_stay_as_they_are() -> None:
    graph, _ = network(1, 64, 14, 14, channels=64)
    graph.updates = {"w": (Tensor(graph, Value("w")) * 0.5).value}
    assert replaced(graph) == 0


@pytest.mark.parametrize("window", ["pool", "depthwise"])
def test_windows_stay_in_the_kernel_of_what_they_read(window: str) -> None:
    graph, _ = network(1, 64, 14, 14, channels=64)
    y = apply(Relu(), Tensor(graph, graph.outputs["y"]))
    if window == "pool":
        y, _ = apply_all(MaxPool((2, 2, 1), (2, 2, 1), ((0, 0),) * 3, (1, 1, 1)), y)
    else:
        each = BlockedConv(Conv((1, 1), ((1, 1),) * 2, (1, 1), groups=64), (64, 1, 3, 3), 8)
        weight = graph.parameter(numbers((64, 1, 3, 3)), "each")
        y = apply(each, y, apply(each.packing(8), weight))
    graph.outputs = {"y": y.value}
    assert replaced(graph) == 0


def test_norm_and_rectifier_before_it_need_no_pass_of_their_own() -> None:
    graph = Graph()
    x = graph.input(TensorType((3, 4, 6, 5, 8)), "x")
    scale, shift = (graph.parameter(numbers((4, 1, 1, 8), i), f"p{i}") for i in range(2))
    weight = graph.parameter(numbers((48, 32, 1, 1), 2), "w")
    op = BlockedConv(pointwise(), weight.shape, 8)
    y = apply(op, apply(Relu(), x * scale + shift), apply(op.packing(16), weight))
    graph.outputs = {"y": y.value}
    fast = Strassen(host(), with_strassen).apply(graph)
    main = hoist(fast).main
    (group,) = partition(main)
    kinds = [main.node(name).op.name for name in group.nodes]
    assert kinds == ["Multiply", "Add", "Relu", "StrassenConv"]
    check_kernels(fast, {"x": numbers(x.shape, 1)}, rtol=1e-4, atol=1e-5, whole=False)


# -- choice ---------------------------------------------------------------------------------------


def best(pixels: int, depth: int, channels: int) -> Algorithm:
    conv = SquareConvolution(1, depth, channels, pixels, 1, taps=1)
    return cheapest(AVX2, DType.FLOAT32, conv)


def test_the_model_prefers_fewer_products_of_many_channels() -> None:
    assert best(3136, 256, 128) is best(196, 1024, 512) is Algorithm.STRASSEN
    assert best(3136, 64, 64) is best(3136, 16, 512) is best(1, 512, 512) is Algorithm.DIRECT


def test_more_channels_gain_more() -> None:
    def gain(channels: int) -> float:
        conv = SquareConvolution(16, channels, channels, 196, 1, taps=1)
        direct, fewer = (
            cycles(AVX2, DType.FLOAT32, conv, a) for a in (Algorithm.DIRECT, Algorithm.STRASSEN)
        )
        return direct / fewer

    gains = [gain(n) for n in (64, 128, 256, 512)]
    assert gains == sorted(gains)
    assert gains[-1] < 8 / 7


@given(st.integers(1, 10**5), st.integers(1, 64), st.integers(1, 64))
def test_blocks_cover_all_pairs(pairs: int, depth: int, channels: int) -> None:
    weight = (16 * channels, 16 * depth, 1, 1)
    blocking = strassen_blocking(AVX2, DType.FLOAT32, pairs, weight, 16)
    assert 0 <= blocking.tiles * blocking.blocks - pairs < blocking.tiles
    assert blocking.slots * blocking.repeats >= blocking.blocks
    assert math.prod((blocking.tiles, 7, 16, 4)) <= 128 * 1024
