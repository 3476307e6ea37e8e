"""A convolution and the depthwise one behind it in one kernel, with nothing stored between them.

NumPy, the interpreter and machine code agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import host, run_kernel
from oracles import check, graph_of

from quern.compiler.graph import Value
from quern.compiler.llvm.target import Target
from quern.compiler.loops.bounds import prove
from quern.compiler.loops.independence import possible_races
from quern.compiler.lower.lower import lower
from quern.compiler.lower.pointwise_depthwise import ring_of
from quern.compiler.lower.windows import WindowAxis
from quern.compiler.ops.base import apply
from quern.compiler.ops.blocked import BlockedConv, blocked, blocked_shape
from quern.compiler.ops.conv import Conv
from quern.compiler.ops.pointwise import Relu
from quern.compiler.passes.partition import partition
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array, Shape


@pytest.fixture(autouse=True, scope="module")
def nothing_is_small() -> Iterator[None]:
    """What comes out of any convolution counts as too large for a cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("quern.compiler.joining._LARGE", 0)
        yield


def numbers(shape: Shape, seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


@dataclass(frozen=True)
class Pair:
    """A convolution to `channels`, and a depthwise one of them.

    Arguments:
        first: kernel and stride of the first convolution, which keeps its extents but for strides.
        kernel, stride, padding, dilation: of the depthwise one.
        block, panel: channels in a block, and side by side in the first one's packed weight.
        whole: whether what is between has an operand of its own shape.
    """

    batch: int
    inputs: int
    channels: int
    spatial: Shape
    first: tuple[int, int] = (1, 1)
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    dilation: int = 1
    block: int = 8
    panel: int = 16
    whole: bool = False

    def network(self) -> tuple[Any, list[Array]]:
        """Convolution + bias + ReLU + depthwise + bias + residual, as a function of its arrays."""
        rank = len(self.spatial)
        size, step = self.first
        one = Conv((step,) * rank, ((size // 2,) * 2,) * rank, (1,) * rank, 1)
        low = ((self.padding,) * 2,) * rank
        two = Conv((self.stride,) * rank, low, (self.dilation,) * rank, self.channels)
        weights = (
            (self.channels, self.inputs, *(size,) * rank),
            (self.channels, 1, *(self.kernel,) * rank),
        )
        a, b = (BlockedConv(op, w, self.block) for op, w in zip((one, two), weights, strict=True))
        between = one.window(weights[0][2:]).outputs(self.spatial)
        after = two.window(weights[1][2:]).outputs(between)
        packed = [
            op.packing(n).evaluate(numbers(op.weight, i))[0]
            for i, (op, n) in enumerate(((a, self.panel), (b, 8)))
        ]
        block = self.block if self.inputs % self.block == 0 else 1
        bias = (1, self.channels, *(1,) * rank)
        inner = (self.batch, self.channels, *between) if self.whole else bias
        arrays = [
            blocked(numbers((self.batch, self.inputs, *self.spatial), 2), block),
            packed[0],
            blocked(numbers(inner, 3), self.block),
            packed[1],
            blocked(numbers(bias, 4), self.block),
            numbers(blocked_shape((self.batch, self.channels, *after), self.block), 5),
        ]

        def function(
            x: Tensor, w: Tensor, bias: Tensor, v: Tensor, shift: Tensor, residual: Tensor
        ) -> Tensor:
            return apply(b, apply(Relu(), apply(a, x, w) + bias), v) + shift + residual

        return function, arrays

    def check(self) -> None:
        function, arrays = self.network()
        groups = check(function, *arrays, whole=False, rtol=0.0, atol=1e-4)
        assert len(groups) == 1
        assert groups[0].pool is not None


PAIRS = {
    "1x1": Pair(2, 16, 32, (9, 20)),
    "1x1, then strided": Pair(1, 24, 40, (14, 14), stride=2),
    "1x1, then 5x5": Pair(1, 8, 8, (30, 31), kernel=5, stride=2, padding=2, panel=8),
    "1x1, then 7x7": Pair(1, 16, 24, (7, 7), kernel=7, padding=3, panel=24),
    "rows left over": Pair(9, 8, 40, (11, 7)),
    "no padding": Pair(1, 8, 8, (12, 13), padding=0, panel=8),
    "much padding": Pair(1, 8, 8, (6, 5), padding=4, panel=8),
    "far taps": Pair(1, 8, 16, (15, 12), padding=3, dilation=3),
    "stride beyond the kernel": Pair(1, 8, 16, (15, 12), kernel=2, stride=3, padding=0),
    "blocks of 4": Pair(1, 12, 20, (10, 9), block=4),
    "an operand for each pixel": Pair(1, 8, 16, (10, 9), whole=True),
    "from plain channels, strided": Pair(2, 3, 16, (17, 19), (3, 2)),
    "3x3": Pair(1, 8, 24, (10, 30), (3, 1), stride=2),
    "one row": Pair(1, 8, 8, (1, 40), panel=8),
    "1-D": Pair(1, 8, 16, (40,), panel=8),
    "3-D": Pair(1, 8, 8, (4, 5, 6), panel=8),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_one_kernel(name: str) -> None:
    PAIRS[name].check()


@settings(max_examples=8)
@given(st.data())
def test_any_geometry(data: Any) -> None:
    def whole(low: int, high: int) -> int:
        return int(data.draw(st.integers(low, high)))

    kernel, dilation, padding = whole(1, 5), whole(1, 2), whole(0, 3)
    least = max(1, (kernel - 1) * dilation + 1 - 2 * padding)
    Pair(
        whole(1, 2), 8 * whole(1, 2), 8 * whole(1, 4), (whole(least, 17), whole(least, 17)),
        kernel=kernel, stride=whole(1, 3), padding=padding, dilation=dilation,
        panel=data.draw(st.sampled_from([8, 16, 24])),
    ).check()  # fmt: skip


@given(st.data())
def test_a_ring_holds_every_row_that_is_read(data: Any) -> None:
    """Each result is computed once, when its rows are there and not yet written over."""

    def whole(low: int, high: int) -> int:
        return int(data.draw(st.integers(low, high)))

    kernel, stride, low, dilation = whole(1, 7), whole(1, 4), whole(0, 6), whole(1, 3)
    extent = max(1, (kernel - 1) * dilation + 1 - low) + whole(0, 20)
    windows = (extent + low - (kernel - 1) * dilation - 1) // stride + 1
    axis = WindowAxis(windows, extent, kernel, stride, low, dilation)
    ring = ring_of(axis, whole(1, windows), whole(1, 5))
    done: list[int] = []
    for band in range(ring.bands):
        held: dict[int, int] = {}
        for number in range(ring.rounds):
            now = band * (ring.height // ring.results) + number - ring.before
            for row in range(max(now, 0) * ring.rows, min((now + 1) * ring.rows, extent)):
                held[row % (ring.slots * ring.rows)] = row
            first = now * ring.results - ring.delay
            for result in range(first, first + ring.results):
                if not band * ring.height <= result < min((band + 1) * ring.height, windows):
                    continue
                done.append(result)
                for tap in range(kernel):
                    row = result * stride - low + tap * dilation
                    if 0 <= row < extent:
                        assert held[row % (ring.slots * ring.rows)] == row
    assert sorted(done) == list(range(windows))


@pytest.mark.parametrize("name", ["1x1", "1x1, then strided", "3x3"])
def test_iterations_are_independent(name: str) -> None:
    function, arrays = PAIRS[name].network()
    graph, feeds = graph_of(function, *arrays)
    (group,) = partition(graph)
    lowered = lower(graph, group, host())
    kernel = lowered.kernel
    assert possible_races(kernel) == []
    given = [
        feeds[value.node].reshape(buffer.shape) if value.node in feeds else None
        for value, buffer in zip(lowered.arguments, kernel.parameters, strict=True)
    ]
    runs = [run_kernel(kernel, given, pieces=n)[-1] for n in (1, 2, 3)]
    assert all(np.array_equal(run, runs[0]) for run in runs)


@pytest.mark.parametrize("target", ["sse", "avx512"])
def test_other_targets(target: str) -> None:
    for name in ("1x1", "1x1, then strided", "3x3"):
        function, arrays = PAIRS[name].network()
        graph, _ = graph_of(function, *arrays)
        for group in partition(graph):
            prove(lower(graph, group, Target.named(target)).kernel)


def test_what_something_else_reads_is_stored() -> None:
    function, arrays = PAIRS["1x1"].network()

    def both(x: Tensor, w: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        y = function(x, w, *rest)
        (between,) = (n for n in x.graph.nodes() if n.op.name == "Relu")
        return y, x.graph.tensor(Value(between.name)) * 2

    groups = check(both, *arrays, whole=False, rtol=0.0, atol=1e-4)
    assert all(group.pool is None for group in groups)
