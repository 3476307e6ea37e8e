"""The gradient by a convolution's weight, from plain values and from blocks of channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from conv_cases import kernel_of, square
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from kernels import run_kernel
from oracles import check, graph_of

from quern.compiler.evaluate import evaluate
from quern.compiler.llvm.target import Target
from quern.compiler.loops.bounds import prove
from quern.compiler.loops.independence import possible_races
from quern.compiler.loops.interpreter import interpret
from quern.compiler.loops.ir import Block, For, If, Kernel, Prefetch, walk
from quern.compiler.lower.lower import lower
from quern.compiler.lower.slide import Slide
from quern.compiler.lower.weight_form import weight_form
from quern.compiler.ops.base import apply
from quern.compiler.ops.blocked import BlockedConvWeightGradient, blocked
from quern.compiler.ops.conv import ConvWeightGradient
from quern.compiler.ops.window import Window
from quern.compiler.passes.partition import partition
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array, Shape

TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


@dataclass(frozen=True)
class Case:
    """A convolution of (batch, inputs, *spatial) to `outputs` channels.

    `blocks` are the channels in a block of x and of dy; none where they are plain.
    """

    batch: int
    inputs: int
    outputs: int
    spatial: Shape
    window: Window
    groups: int = 1
    blocks: tuple[int, int] | None = (8, 8)

    @property
    def op(self) -> BlockedConvWeightGradient | ConvWeightGradient:
        w = self.window
        op = ConvWeightGradient(w.kernel, w.stride, w.padding, w.dilation, self.groups)
        return op if self.blocks is None else BlockedConvWeightGradient(op)

    def operands(self, dtype: Any = np.float32) -> tuple[Array, Array]:
        random = np.random.default_rng(0)
        windows = self.window.outputs(self.spatial)
        x = random.standard_normal((self.batch, self.inputs, *self.spatial)).astype(dtype)
        dy = random.standard_normal((self.batch, self.outputs, *windows)).astype(dtype)
        if self.blocks is None:
            return x, dy
        return blocked(x, self.blocks[0]), blocked(dy, self.blocks[1])

    def weight(self, dtype: Any = np.float32) -> Array:
        shape = (self.outputs, self.inputs // self.groups, *self.window.kernel)
        return np.random.default_rng(1).standard_normal(shape).astype(dtype)

    def kernel(self, target: Target | None = None) -> Kernel:
        operands = self.operands()
        return kernel_of(lambda x, dy: apply(self.op, x, dy), *operands, target=target)


CASES = {
    "3x3": Case(2, 8, 16, (4, 5), square(3, padding=1)),
    "more than one task": Case(1, 24, 72, (3, 4), square(3, padding=1)),
    "many tiles": Case(2, 8, 24, (4, 3), square(5, padding=2)),
    "rows too long to be written out": Case(1, 8, 16, (5, 33), square(3, padding=1)),
    "1x1, pixels joined": Case(3, 32, 24, (5, 7), square(1)),
    "1x1, stride 2": Case(2, 16, 16, (9, 8), square(1, stride=2)),
    "1x1 with padding": Case(2, 16, 8, (4, 5), square(1, padding=1)),
    "maps of one pixel": Case(9, 16, 16, (1, 1), square(3, padding=1)),
    "first layer": Case(2, 3, 16, (15, 16), square(7, stride=2, padding=3), blocks=(1, 8)),
    "strided": Case(2, 8, 16, (13, 15), square(3, stride=2, padding=1)),
    "dilated": Case(2, 8, 8, (12, 11), square(3, padding=3, dilation=3)),
    "taps far apart": Case(1, 8, 8, (21, 20), square(3, padding=9, dilation=9)),
    "groups as wide as a vector": Case(2, 16, 32, (6, 7), square(3, padding=1), groups=4),
    "lanes of two groups": Case(2, 16, 16, (6, 7), square(3, padding=1), groups=4),
    "lanes of four groups, fewer inputs": Case(1, 8, 16, (6, 7), square(3), groups=8),
    "groups that no vector holds": Case(2, 16, 24, (6, 7), square(3, padding=1), groups=4),
    "depthwise": Case(2, 24, 24, (9, 20), square(3, padding=1), groups=24),
    "depthwise, stride 2": Case(2, 16, 16, (9, 20), square(3, stride=2, padding=1), groups=16),
    "depthwise, 5x5": Case(1, 8, 8, (12, 31), square(5, padding=2), groups=8),
    "depthwise, 7x7, strided": Case(2, 8, 8, (9, 17), square(7, 2, 3), groups=8),
    "depthwise, far taps": Case(1, 16, 16, (11, 19), square(3, 1, 4, 3), groups=16),
    "depthwise, in parts": Case(3, 8, 8, (47, 40), square(3, padding=1), groups=8),
    "depthwise, in blocks of 4": Case(2, 12, 12, (9, 7), square(3), groups=12, blocks=(4, 4)),
    "x in blocks, dy plain": Case(2, 16, 10, (6, 7), square(3, padding=1), blocks=(8, 1)),
    "dy in blocks of 4": Case(2, 8, 20, (6, 7), square(3, padding=1), blocks=(8, 4)),
    "plain": Case(3, 5, 19, (7, 13), square(3, padding=1), blocks=None),
    "plain, depthwise": Case(2, 10, 20, (9, 8), square(3, stride=2), groups=10, blocks=None),
    "uneven": Case(2, 8, 8, (9, 10), Window((3, 2), (1, 3), ((2, 0), (0, 1)), (2, 1))),
    "1-D, longer than a block": Case(2, 8, 8, (700,), Window((5,), (2,), ((2, 1),), (1,))),
    "plain 1-D": Case(2, 1, 8, (1500,), Window((9,), (2,), ((3, 4),), (1,)), blocks=None),
    "1-D, taps far apart": Case(1, 8, 8, (900,), Window((2,), (1,), ((300, 300),), (600,))),
    "3-D": Case(2, 8, 8, (4, 5, 6), Window((3, 2, 3), (1, 2, 1), ((1, 1),) * 3, (1, 1, 1))),
    "no samples": Case(0, 8, 8, (6, 7), square(3, padding=1)),
    "nothing but padding": Case(2, 8, 8, (0, 4), square(3, padding=2)),
}


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_numpy(name: str) -> None:
    case = CASES[name]
    check(lambda x, dy: [apply(case.op, x, dy)], *case.operands(), whole=False, **TOLERANCE)


@pytest.mark.parametrize("name", ["3x3", "depthwise", "lanes of two groups", "plain"])
def test_double_precision(name: str) -> None:
    case = CASES[name]
    check(
        lambda x, dy: [apply(case.op, x, dy)],
        *case.operands(np.float64),
        whole=False,
        rtol=1e-12,
        atol=1e-13,
    )


@pytest.mark.parametrize("name", ["3x3", "1x1, pixels joined", "depthwise", "plain"])
def test_an_update_is_its_epilogue(name: str) -> None:
    case = CASES[name]

    def update(x: Tensor, dy: Tensor, w: Tensor, velocity: Tensor, rate: Tensor) -> list[Tensor]:
        velocity = velocity * 0.9 + apply(case.op, x, dy)
        return [velocity, w - velocity * rate]

    w = case.weight()
    groups = check(update, *case.operands(), w, w * 2, np.float32([0.1]), whole=False, **TOLERANCE)
    assert len(groups) == 1


def test_an_epilogue_may_tell_input_channels_and_taps_apart() -> None:
    case = CASES["3x3"]
    each = np.arange(8 * 3, dtype=np.float32).reshape(1, 8, 1, 3)
    check(
        lambda x, dy, each: [apply(case.op, x, dy) * each],
        *case.operands(), each, whole=False, **TOLERANCE,
    )  # fmt: skip


def test_an_epilogue_may_read_the_operands() -> None:
    case = Case(4, 4, 4, (4, 4), square(1), blocks=None)

    def function(x: Tensor, dy: Tensor) -> list[Tensor]:
        return [apply(case.op, x, dy) + x.sum((2, 3), keepdims=True)]

    check(function, *case.operands(), whole=False, **TOLERANCE)


@pytest.mark.parametrize("name", ["sse", "avx2", "avx512"])
@pytest.mark.parametrize("case", ["3x3", "uneven", "depthwise", "lanes of two groups"])
def test_other_targets(name: str, case: str) -> None:
    """Interpreted: the machine at hand may not be able to run them."""
    graph, feeds = graph_of(lambda x, dy: apply(CASES[case].op, x, dy), *CASES[case].operands())
    expected = evaluate(graph, feeds).outputs["y0"]
    (group,) = partition(graph)
    kernel = lower(graph, group, Target.named(name)).kernel
    prove(kernel)
    arrays = [np.zeros(b.shape, np.float32) for b in kernel.parameters]
    for array, x in zip(arrays, feeds.values(), strict=False):
        array[...] = x.reshape(array.shape)
    interpret(kernel, arrays)
    np.testing.assert_allclose(arrays[-1].reshape(expected.shape), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["3x3", "depthwise, in parts", "first layer", "1x1, stride 2", "3-D"]
)
def test_iterations_are_independent(name: str) -> None:
    assert possible_races(CASES[name].kernel()) == []


def test_few_results_of_many_pixels_are_summed_in_parts() -> None:
    case = Case(3, 8, 16, (60, 64), square(3, padding=1))
    kernel = case.kernel()
    assert any(b.name == "partial" and b.shape[0] > 3 for b in kernel.scratch)
    prove(kernel)
    assert possible_races(kernel) == []
    x, dy = case.operands()
    (expected,) = case.op.evaluate(x.astype(np.float64), dy.astype(np.float64))
    results = [run_kernel(kernel, [x, dy, None], pieces=n)[-1] for n in (1, 5)]
    np.testing.assert_allclose(results[0].reshape(expected.shape), expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(results[0], results[1], "the same bits on any threads")


def test_each_line_of_the_results_is_asked_for_while_the_last_pixels_are_multiplied() -> None:
    def asked(block: Block) -> int:
        count = 0
        for each in block:
            if isinstance(each, Prefetch):
                assert each.buffer is kernel.parameters[-1]
                count += 1
            elif isinstance(each, For | If):
                count += asked(each.body) * (each.extent if isinstance(each, For) else 1)
        return count

    kernel = Case(1, 256, 128, (5, 5), square(1)).kernel()
    lines = kernel.parameters[-1].nbytes // 64
    assert lines <= asked(kernel.body) <= 1.5 * lines
    kernel = Case(4, 256, 128, (12, 12), square(1)).kernel()
    assert any(
        isinstance(each, If) and isinstance(each.body[0], Prefetch) for each in walk(kernel.body)
    )


@pytest.mark.parametrize("outputs", [64, 128, 144])
def test_what_a_tile_reads_remains_in_the_first_level_cache(outputs: int) -> None:
    """Of single pixels: those of one block of input channels and of a panel of output channels."""
    pixels = Slide(784, (0, 1), 1, 0, 1, 1, (0, 1))
    form = weight_form(outputs, 512, 1, 1, [pixels], (8, 8), lanes=8, registers=16, size=4)
    (blocks,) = {span.length for span in form.boxes(form.task_blocks, form.vectors)["c"]}
    assert 4 * form.block["p0"] * (blocks * form.inner + form.panel) <= 32 * 1024


def test_infinities_and_nans_stay_where_they_belong() -> None:
    case = Case(2, 8, 8, (6, 11), square(3, stride=2))
    x, dy = case.operands()
    x[0, 0, 2, 3, 5], x[1, 0, 4, 4, 0] = np.inf, np.nan
    x[:, :, 5] = np.nan  # the last row is read by no window
    check(lambda x, dy: [apply(case.op, x, dy)], x, dy, whole=False, **TOLERANCE)


def _window(kernel: int, stride: int, low: int, high: int, dilation: int) -> Window:
    return Window((kernel, 2), (stride, 1), ((low, high), (high, low)), (dilation, 1))


@settings(max_examples=20)
@given(
    window=st.builds(
        _window,
        st.integers(1, 4),
        st.integers(1, 3),
        st.integers(0, 3),
        st.integers(0, 3),
        st.integers(1, 3),
    ),
    batch=st.integers(1, 5),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    groups=st.sampled_from([1, 1, 2, 8]),
    spatial=st.tuples(st.integers(1, 12), st.integers(1, 20)),
    blocks=st.sampled_from([None, (8, 8), (4, 8), (8, 4), (1, 8), (8, 1)]),
)
@example(square(3, padding=1), 1, (1, 1), 1, (1, 1), (8, 8))
@example(square(1), 5, (3, 1), 2, (5, 7), None)  # tasks of some input channels of several groups
def test_random_convolutions(
    window: Window,
    batch: int,
    channels: tuple[int, int],
    groups: int,
    spatial: Shape,
    blocks: tuple[int, int] | None,
) -> None:
    """Error against double precision: of the order of rounding, not of the length of the sum."""
    reach = window.reach
    pads = [sum(pair) for pair in window.padding]
    assume(all(n + p >= r for n, p, r in zip(spatial, pads, reach, strict=True)))
    case = Case(batch, channels[0] * 8, channels[1] * 8, spatial, window, groups, blocks)
    x, dy = case.operands()
    (expected,) = case.op.evaluate(x.astype(np.float64), dy.astype(np.float64))
    kernel = case.kernel()
    prove(kernel)
    given = [a.reshape(b.shape) for a, b in zip((x, dy), kernel.parameters, strict=False)]
    *_, found = run_kernel(kernel, [*given, None])
    terms = batch * np.prod(window.outputs(spatial))
    error = np.abs(found.reshape(expected.shape) - expected).max()
    assert error <= 1e-6 * max(1.0, float(np.sqrt(terms))) * 4
