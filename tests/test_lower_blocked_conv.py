"""Convolutions of values in blocks of channels: NumPy, the interpreter and machine code agree."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from conv_cases import geometries, numbers, square
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import host, run_kernel
from oracles import check, check_kernels, graph_of

from quern.compiler.driver import Options, compile_graph
from quern.compiler.llvm.target import Target
from quern.compiler.loops.independence import possible_races
from quern.compiler.lower.lower import lower
from quern.compiler.ops.base import apply, apply_all
from quern.compiler.ops.blocked import BlockedConv, blocked, blocked_shape
from quern.compiler.ops.conv import Conv, ConvInputGradient
from quern.compiler.ops.pointwise import Relu
from quern.compiler.ops.pool import MaxPool
from quern.compiler.ops.window import Window
from quern.compiler.passes.partition import partition
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array, Shape
from quern.runtime.executable import Executable


@dataclass(frozen=True)
class Case:
    """A convolution of groups * inputs to groups * outputs channels.

    Arguments:
        blocks: channels in a block of x and of y.
        panel: output channels side by side in the packed weight.
    """

    batch: int
    inputs: int
    outputs: int
    spatial: Shape
    window: Window
    blocks: tuple[int, int] = (8, 8)
    panel: int = 16
    groups: int = 1

    def forward(self) -> tuple[BlockedConv, Shape, Shape]:
        """The convolution, and the plain shapes of what it reads and gives."""
        window = self.window
        op = Conv(window.stride, window.padding, window.dilation, self.groups)
        return BlockedConv(op, self.weight, self.blocks[1]), self.x, self.y

    def backward(self) -> tuple[BlockedConv, Shape, Shape]:
        """Its transpose by x, and the plain shapes of what it reads and gives."""
        window = self.window
        op = ConvInputGradient(
            self.spatial, window.stride, window.padding, window.dilation, self.groups
        )
        return BlockedConv(op, self.weight, self.blocks[0]), self.y, self.x

    @property
    def x(self) -> Shape:
        return (self.batch, self.groups * self.inputs, *self.spatial)

    @property
    def y(self) -> Shape:
        return (self.batch, self.groups * self.outputs, *self.window.outputs(self.spatial))

    @property
    def weight(self) -> Shape:
        return (self.groups * self.outputs, self.inputs, *self.window.kernel)

    def check(self, dtype: Any = np.float32, **options: Any) -> None:
        """Both ways, each with a bias, a residual and a ReLU behind it in one kernel."""
        for op, source, result in (self.forward(), self.backward()):
            function, arrays = self.network(op, source, result, dtype)
            groups = check(function, *arrays, whole=False, **options)
            assert len(groups) == 1

    def network(
        self, op: BlockedConv, source: Shape, result: Shape, dtype: Any = np.float32
    ) -> tuple[Any, list[Array]]:
        """A convolution with an epilogue, as a function of its arrays."""
        block = self.blocks[0] if op.block == self.blocks[1] and source == self.x else None
        if block is None:
            block = self.blocks[0] if source == self.x else self.blocks[1]
        (packed,) = op.packing(self.panel).evaluate(numbers(self.weight, 1, dtype))
        bias = (1, result[1], *(1,) * (len(result) - 2))
        arrays = [
            blocked(numbers(source, 2, dtype), block),
            packed,
            blocked(numbers(bias, 3, dtype), op.block),
            numbers(blocked_shape(result, op.block), 4, dtype),
        ]

        def function(x: Tensor, w: Tensor, b: Tensor, residual: Tensor) -> Tensor:
            return apply(Relu(), apply(op, x, w) + b + residual)

        return function, arrays


CASES = {
    "3x3": Case(1, 16, 32, (9, 13), square(3, padding=1)),
    "one panel too narrow": Case(2, 8, 24, (7, 6), square(3, padding=1)),
    "blocks of 4, panels of 24": Case(1, 12, 48, (7, 7), square(3, padding=1), (4, 4), 24),
    "from plain channels": Case(2, 3, 16, (9, 30), square(7, 2, 3), (1, 8)),
    "to plain channels": Case(2, 16, 21, (5, 6), square(1), (8, 1), 24),
    "1x1": Case(2, 24, 32, (7, 7), square(1)),
    "1x1, strided": Case(2, 16, 16, (7, 9), square(1, stride=2)),
    "1x1 in zeros": Case(1, 8, 8, (5, 5), square(1, padding=1), panel=8),
    "depthwise": Case(2, 1, 1, (9, 20), square(3, padding=1), groups=24, panel=8),
    "depthwise, strided": Case(1, 1, 1, (9, 20), square(3, 2, 1), groups=16, panel=8),
    "depthwise 5x5": Case(1, 1, 1, (6, 31), square(5, 1, 2), groups=8, panel=8),
    "depthwise 7x7, strided": Case(1, 1, 1, (9, 40), square(7, 2, 3), groups=8, panel=8),
    "depthwise, far taps": Case(1, 1, 1, (9, 40), square(3, 1, 5, 5), groups=8, panel=8),
    "depthwise, stride 3": Case(2, 1, 1, (8, 29), square(2, 3, 1), (4, 4), 8, 12),
    "depthwise, long": Case(
        1, 1, 1, (50,), Window((12,), (1,), ((3, 8),), (1,)), panel=8, groups=8
    ),
    "depthwise, 3-D": Case(
        2, 1, 1, (4, 5, 9), Window((3, 2, 3), (2, 1, 1), ((1, 1),) * 3, (1,) * 3), panel=8, groups=8
    ),
    "two outputs a channel": Case(1, 1, 2, (6, 7), square(3, padding=1), groups=8, panel=8),
    "groups of 4": Case(2, 4, 4, (9, 8), square(3, padding=1), groups=4, panel=8),
    "groups of 12": Case(1, 12, 12, (5, 8), square(3, padding=1), groups=2, panel=16),
    "stride over dilation": Case(1, 8, 8, (14, 15), square(3, 4, 3, 6), panel=8),
    "stride beyond the kernel": Case(1, 8, 16, (13, 14), square(2, stride=5)),
    "maps of one pixel": Case(9, 8, 16, (1, 1), square(1)),
    "maps of 2x2": Case(3, 8, 16, (2, 2), square(3, padding=1)),
    "no samples": Case(0, 8, 8, (6, 7), square(3, padding=1)),
    "uneven": Case(2, 8, 8, (9, 10), Window((3, 2), (1, 3), ((2, 0), (0, 1)), (2, 1))),
    "deep": Case(1, 256, 8, (3, 7), square(3, padding=1), panel=8),
    "deep, 1x1": Case(1, 2048, 24, (1, 8), square(1)),
    "high": Case(1, 8, 8, (61, 12), square(3, padding=1), panel=8),
    "long": Case(1, 8, 24, (700,), Window((3,), (1,), ((1, 1),), (1,))),
    "1-D": Case(2, 8, 16, (37,), Window((5,), (2,), ((2, 1),), (1,))),
    "3-D": Case(2, 4, 8, (4, 5, 6), Window((3, 2, 3), (1, 2, 1), ((1, 1),) * 3, (1,) * 3), (4, 8)),
}  # fmt: skip


def tolerance(case: Case) -> dict[str, float]:
    """1e-6 of the largest result, times the square root of the number of products."""
    products = max(case.inputs, case.outputs) * case.window.size
    return {"rtol": 0.0, "atol": 1e-6 * math.sqrt(products)}


@pytest.mark.parametrize("name", CASES)
def test_both_ways(name: str) -> None:
    CASES[name].check(**tolerance(CASES[name]))


def test_double_precision() -> None:
    CASES["uneven"].check(np.float64, rtol=1e-12, atol=1e-13)


@st.composite
def cases(draw: Any) -> Case:
    spatial, window = draw(geometries({1: 40, 2: 13, 3: 5}, strides=4))
    groups = draw(st.sampled_from([1, 1, 2, 3, 8]))
    inputs, outputs = (draw(st.sampled_from([1, 2, 4, 8, 12, 17])) for _ in "xy")
    blocks = tuple(
        draw(st.sampled_from([b for b in (1, 2, 4, 8) if groups * n % b == 0]))
        for n in (inputs, outputs)
    )
    panel = draw(st.sampled_from([8, 16, 24]))
    return Case(
        draw(st.integers(1, 3)), inputs, outputs, spatial, window, blocks, panel, groups
    )  # fmt: skip


@settings(max_examples=10)
@given(cases())
def test_any_geometry(case: Case) -> None:
    case.check(**tolerance(case))


@settings(max_examples=10)
@given(cases(), st.sampled_from([(8, 8), (12, 4), (24, 8)]))
def test_any_depthwise_geometry(case: Case, channels: tuple[int, int]) -> None:
    groups, block = channels
    case = replace(case, inputs=1, outputs=1, groups=groups, blocks=(block, block))
    case.check(**tolerance(case))


# -- with max-pooling -----------------------------------------------------------------------------


def pooled(case: Case, pool: Window) -> tuple[Any, list[Array]]:
    """Convolution + bias + ReLU + max-pool over all but the last axis, and the positions."""
    op, source, result = case.forward()
    _, arrays = case.network(op, source, result)
    single = ((0, 0),)
    then = MaxPool((*pool.kernel, 1), (*pool.stride, 1), pool.padding + single, (*pool.dilation, 1))

    def function(x: Tensor, w: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        y, position = apply_all(then, apply(Relu(), apply(op, x, w) + bias))
        return y * 2 - 1, position

    return function, arrays[:3]


def deep(case: Case) -> Case:
    """The same with more input channels than are summed at a time."""
    return replace(case, inputs=512)


POOLS = {
    "2x2": (CASES["3x3"], square(2, stride=2)),
    "2x2, deep": (deep(Case(1, 8, 8, (8, 6), square(3, padding=1), panel=8)), square(2, stride=2)),
    "3x3 overlapping": (CASES["from plain channels"], square(3, 2, 1)),
    "1x1": (CASES["1x1"], square(3, 2)),
    "everywhere": (Case(1, 8, 24, (9, 20), square(3, padding=1)), square(3, 1, 1)),
    "rest unread": (Case(1, 8, 8, (11, 9), square(2), panel=8), square(3, stride=4)),
    "dilated": (Case(2, 8, 8, (12, 13), square(3, padding=1)), square(2, 2, 1, dilation=3)),
    "groups": (Case(1, 16, 16, (5, 8), square(3, padding=1), groups=2), square(2, 2)),
    "depthwise": (CASES["depthwise"], square(3, 2, 1)),
    "many rows": (Case(1, 8, 8, (61, 14), square(3, padding=1), panel=8), square(3, 2, 1)),
    "1-D": (CASES["1-D"], Window((3,), (2,), ((1, 1),), (1,))),
}  # fmt: skip


@pytest.mark.parametrize("name", POOLS)
def test_convolution_and_pooling_in_one_kernel(name: str) -> None:
    case, pool = POOLS[name]
    function, arrays = pooled(case, pool)
    (group,) = check(function, *arrays, whole=False, **tolerance(case))
    assert group.pool is not None
    assert all(value.node != group.anchor for value in group.outputs)


# -- elsewhere ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sse", "avx512"])
def test_other_targets(name: str) -> None:
    """Their kernels, interpreted at least: the machine at hand may not be able to run them."""
    for case in (CASES["uneven"], CASES["depthwise"], CASES["1x1"]):
        function, arrays = case.network(*case.forward())
        graph, feeds = graph_of(function, *arrays)
        check_kernels(graph, feeds, 1e-4, 1e-4, Target.named(name), whole=False)


@pytest.mark.parametrize(
    "name", ["3x3", "1x1", "groups of 4", "depthwise, strided", "3-D", "depthwise, 3-D"]
)
def test_iterations_are_independent(name: str) -> None:
    case = CASES[name]
    for way in (case.forward(), case.backward()):
        function, arrays = case.network(*way)
        graph, _ = graph_of(function, *arrays)
        for group in partition(graph):
            assert possible_races(lower(graph, group, host()).kernel) == []


def test_the_same_bits_however_it_is_shared_out() -> None:
    case = Case(2, 16, 64, (30, 31), square(3, padding=1))
    function, arrays = case.network(*case.forward())
    graph, _ = graph_of(function, *arrays)
    (group,) = partition(graph)
    kernel = lower(graph, group, host()).kernel
    runs = [run_kernel(kernel, [*arrays, None], pieces=n)[-1] for n in (1, 2, 3)]
    assert all(np.array_equal(run, runs[0]) for run in runs)


def test_infinities_and_nans_stay_where_they_belong() -> None:
    case = Case(1, 8, 8, (6, 11), square(3, stride=2), panel=8)
    function, arrays = case.network(*case.forward())
    arrays[0][0, 0, 2, 3, 1], arrays[0][0, 0, 4, 4, 2] = np.inf, np.nan
    arrays[0][:, :, 5] = np.nan  # the last row is read by no window
    check(function, *arrays, whole=False, rtol=1e-4, atol=1e-5)


def test_channels_of_equal_weights_are_equal() -> None:
    """Also those of the last, narrower tile: all sum their inputs in the same order."""
    x = numbers((1, 512, 13, 13), 0)
    w = np.repeat(numbers((1, 512, 1, 1), 1), 1000, 0)
    network = Conv((1, 1), ((0, 0),) * 2, (1, 1))
    graph, feeds = graph_of(lambda a, b: apply(network, a, b), x, w)
    (y,) = Executable(compile_graph(graph, Options(workers=1)).image, 1).run(feeds).values()
    np.testing.assert_array_equal(y, np.repeat(y[:, :1], 1000, 1))
