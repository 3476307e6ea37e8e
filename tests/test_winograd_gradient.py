"""Gradients by 3x3 and 5x5 weights by Winograd's algorithm: operation, kernel, cost model, pass."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import host, run_kernel
from oracles import check, graph_of

from quern.compiler.errors import ShapeError
from quern.compiler.evaluate import evaluate
from quern.compiler.llvm.target import Target
from quern.compiler.loops.bounds import prove
from quern.compiler.loops.independence import possible_races
from quern.compiler.loops.interpreter import interpret
from quern.compiler.loops.ir import Kernel
from quern.compiler.lower.lower import lower
from quern.compiler.ops.base import apply
from quern.compiler.ops.blocked import BlockedConvWeightGradient, blocked
from quern.compiler.ops.conv import ConvWeightGradient
from quern.compiler.ops.toom_cook import as_array, transforms
from quern.compiler.ops.winograd_gradient import WinogradConvWeightGradient
from quern.compiler.passes.partition import partition
from quern.compiler.passes.winograd import Winograd
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array, DType, Shape
from quern.compiler.weight_cost_model import best_weight_tile, weight_blocking

Padding = tuple[tuple[int, int], tuple[int, int]]
SAME: Padding = ((1, 1), (1, 1))
TOLERANCE = {"rtol": 1e-4, "atol": 2e-5}


def convolution(padding: Padding = SAME, taps: int = 3) -> ConvWeightGradient:
    return ConvWeightGradient((taps, taps), (1, 1), padding, (1, 1), 1)


def operands(
    n: int, c: int, k: int, spatial: Shape, padding: Padding = SAME, block: int = 8, taps: int = 3
) -> tuple[Array, Array]:
    random = np.random.default_rng(0)
    windows = tuple(e + sum(p) + 1 - taps for e, p in zip(spatial, padding, strict=True))
    x, dy = (random.standard_normal(s) for s in ((n, c, *spatial), (n, k, *windows)))
    return tuple(blocked(a.astype(np.float32), block) for a in (x, dy))


def kernel_of(op: WinogradConvWeightGradient, x: Array, dy: Array) -> Kernel:
    graph, _ = graph_of(lambda x, dy: apply(op, x, dy), x, dy)
    (group,) = partition(graph)
    return lower(graph, group, host()).kernel


@pytest.mark.parametrize(("tile", "taps"), [(2, 3), (4, 3), (2, 5)])
def test_is_the_transpose_of_filtering(tile: int, taps: int) -> None:
    """One axis: the gradient by g of sum(dy * y), with y as the forward algorithm gives it."""
    matrices = transforms(tile, taps)
    a, b, g = (as_array(m) for m in (matrices.inverse, matrices.data, matrices.filter))
    random = np.random.default_rng(0)
    d, dy = random.standard_normal(tile + taps - 1), random.standard_normal(tile)
    expected = [sum(dy[i] * d[i + t] for i in range(tile)) for t in range(taps)]
    np.testing.assert_allclose(g.T @ ((b @ d) * (a.T @ dy)), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize(
    "shape",
    [(2, 8, 16, (5, 6)), (1, 16, 8, (4, 4)), (3, 8, 8, (1, 9)), (1, 72, 8, (3, 3))],
    ids=str,
)
def test_agrees_with_numpy(shape: tuple[int, int, int, Shape], tile: int) -> None:
    op = WinogradConvWeightGradient(convolution(), tile)
    check(lambda x, dy: [apply(op, x, dy)], *operands(*shape), whole=False, **TOLERANCE)


@settings(max_examples=15)
@given(
    n=st.integers(1, 4),
    channels=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    spatial=st.tuples(st.integers(5, 15), st.integers(5, 15)),
    padding=st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2),
    form=st.sampled_from([(2, 3), (4, 3), (2, 5)]),
)
def test_errors_are_those_of_rounding(
    n: int,
    channels: tuple[int, int],
    spatial: Shape,
    padding: Padding,
    form: tuple[int, int],
) -> None:
    tile, taps = form
    x, dy = operands(n, 8 * channels[0], 8 * channels[1], spatial, padding, taps=taps)
    op = WinogradConvWeightGradient(convolution(padding, taps), tile)
    (expected,) = op.evaluate(x.astype(np.float64), dy.astype(np.float64))
    kernel = kernel_of(op, x, dy)
    prove(kernel)
    found = run_kernel(kernel, [x, dy, None])[-1].reshape(expected.shape)
    terms = dy.size / dy.shape[1] / dy.shape[-1]
    assert np.abs(found - expected).max() <= 1e-5 * max(1.0, float(np.sqrt(terms)))


def test_errors_are_at_most_three_times_those_of_the_direct_kernel() -> None:
    x, dy = operands(4, 32, 32, (28, 28))
    exact = convolution()
    op = WinogradConvWeightGradient(exact, 4)
    (expected,) = op.evaluate(x.astype(np.float64), dy.astype(np.float64))
    direct, _ = graph_of(lambda x, dy: apply(BlockedConvWeightGradient(exact), x, dy), x, dy)
    errors = []
    for kernel in (lower(direct, *partition(direct), host()).kernel, kernel_of(op, x, dy)):
        found = run_kernel(kernel, [x, dy, None])[-1].reshape(expected.shape)
        errors.append(float(np.sqrt(np.mean((found - expected) ** 2))))
    assert errors[1] <= 3 * errors[0]


def test_of_5x5_weights() -> None:
    padding = ((2, 2), (2, 2))
    op = WinogradConvWeightGradient(convolution(padding, 5), 2)
    x, dy = operands(2, 8, 16, (5, 6), padding, taps=5)
    check(lambda x, dy: [apply(op, x, dy)], x, dy, whole=False, **TOLERANCE)
    with pytest.raises(ShapeError, match="tiles of 4x4"):
        graph_of(lambda x, dy: apply(WinogradConvWeightGradient(op.convolution, 4), x, dy), x, dy)


def test_an_update_is_its_epilogue() -> None:
    op = WinogradConvWeightGradient(convolution(), 4)

    def update(x: Tensor, dy: Tensor, w: Tensor, velocity: Tensor) -> list[Tensor]:
        velocity = velocity * 0.9 + apply(op, x, dy)
        return [velocity, w - velocity * 0.1]

    w = np.random.default_rng(1).standard_normal((16, 8, 3, 3)).astype(np.float32)
    groups = check(update, *operands(1, 8, 16, (5, 5)), w, w * 2, whole=False, **TOLERANCE)
    assert len(groups) == 1


@pytest.mark.parametrize(("name", "block"), [("sse", 4), ("avx2", 8), ("avx512", 16)])
def test_other_targets(name: str, block: int) -> None:
    """Interpreted: the machine at hand may not be able to run them."""
    op = WinogradConvWeightGradient(convolution(), 4)
    graph, feeds = graph_of(
        lambda x, dy: apply(op, x, dy), *operands(1, 16, 16, (5, 4), block=block)
    )
    expected = evaluate(graph, feeds).outputs["y0"]
    kernel = lower(graph, *partition(graph), Target.named(name)).kernel
    prove(kernel)
    arrays = [*feeds.values(), np.zeros(kernel.parameters[-1].shape, np.float32)]
    interpret(kernel, arrays)
    np.testing.assert_allclose(arrays[-1].reshape(expected.shape), expected, rtol=1e-4, atol=1e-4)


def test_many_tiles_are_summed_in_parts() -> None:
    x, dy = operands(2, 8, 8, (60, 120))
    op = WinogradConvWeightGradient(convolution(), 4)
    kernel = kernel_of(op, x, dy)
    assert any(b.name == "partial" and b.shape[0] > 1 for b in kernel.scratch)
    assert possible_races(kernel) == []
    results = [run_kernel(kernel, [x, dy, None], pieces=n)[-1] for n in (1, 3)]
    (expected,) = op.evaluate(x.astype(np.float64), dy.astype(np.float64))
    np.testing.assert_allclose(results[0].reshape(expected.shape), expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(results[0], results[1], "the same bits on any threads")


def test_other_convolutions_are_refused() -> None:
    strided = ConvWeightGradient((3, 3), (2, 2), SAME, (1, 1), 1)
    x, dy = operands(1, 8, 8, (5, 5))
    with pytest.raises(ShapeError, match="stride 1"):
        graph_of(lambda x, dy: apply(WinogradConvWeightGradient(strided, 4), x, dy), x, dy)


def test_the_pass_takes_what_pays() -> None:
    target = Target.named("avx2")

    def tiles(c: int, k: int, op: ConvWeightGradient, tile: int | None = None) -> list[int]:
        x = np.zeros((2, c // 8, 28, 28, 8), np.float32)
        extent = (28 + 1 - 2) // op.stride[0] + 1
        dy = np.zeros((2, k // 8, extent, extent, 8), np.float32)
        graph, _ = graph_of(lambda x, dy: apply(BlockedConvWeightGradient(op), x, dy), x, dy)
        nodes = Winograd(target, tile).apply(graph).nodes()
        return [n.op.tile for n in nodes if isinstance(n.op, WinogradConvWeightGradient)]

    assert tiles(64, 64, convolution()) == [4]
    assert tiles(64, 64, convolution(), tile=2) == [2]
    assert tiles(64, 64, ConvWeightGradient((3, 3), (2, 2), SAME, (1, 1), 1)) == []
    assert tiles(64, 64, ConvWeightGradient((3, 3), (1, 1), SAME, (1, 1), 8)) == []


def test_the_cost_model_stays_direct_where_tiles_are_mostly_padding() -> None:
    target = Target.named("avx2")
    assert best_weight_tile(target, DType.FLOAT32, 16, (1, 1), (512, 512), 8) == 0
    assert best_weight_tile(target, DType.FLOAT32, 16, (56, 56), (64, 64), 8) == 4


def test_few_pixels_are_summed_directly_so_that_zeros_stay_zeros() -> None:
    target = Target.named("avx2")
    assert best_weight_tile(target, DType.FLOAT32, 1, (8, 8), (512, 512), 8) == 0


@pytest.mark.parametrize(("name", "block"), [("sse", 4), ("avx2", 8), ("avx512", 16)])
def test_blockings_fit_the_machine(name: str, block: int) -> None:
    target = Target.named(name)
    for pairs in ((block, block), (64, 192), (512, 512), (9 * block, 5 * block)):
        for tiles in (1, 7, 64, 3136):
            b = weight_blocking(target, DType.FLOAT32, (4, 3), tiles, pairs, block)
            assert b.rows * b.vectors + b.vectors + 1 <= target.registers
            assert b.parts * b.repeats * b.tiles >= tiles
            assert block % b.rows == 0 == b.depth % block == b.channels % block
