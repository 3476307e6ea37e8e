"""Convolutions in many small groups: NumPy, the interpreter and machine code agree."""

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
from oracles import check, graph_of

from quern.compiler.llvm.emit import emit
from quern.compiler.llvm.target import Target
from quern.compiler.loops.independence import possible_races
from quern.compiler.loops.ir import Buffer, For, Kernel, Load, LoopKind, Store, Var
from quern.compiler.lower.lower import lower
from quern.compiler.ops.base import apply
from quern.compiler.ops.blocked import BlockedConv, blocked
from quern.compiler.ops.conv import Conv, ConvInputGradient
from quern.compiler.ops.pointwise import Relu
from quern.compiler.ops.window import Window
from quern.compiler.passes.partition import partition
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array, DType, Shape

SMALL = [(2, 8), (4, 4), (4, 6), (8, 3)]
"""Channels of a group, and how many groups: several in a vector, or one."""


@dataclass(frozen=True)
class Case:
    """A convolution of `groups` groups of `size` channels each."""

    batch: int
    size: int
    groups: int
    spatial: Shape
    window: Window
    block: int = 8
    panel: int = 8

    @property
    def channels(self) -> int:
        return self.size * self.groups

    @property
    def weight(self) -> Shape:
        return (self.channels, self.size, *self.window.kernel)

    def ways(self) -> list[tuple[BlockedConv, Shape, Shape]]:
        """The convolution and its transpose by x, with the shapes of what they read and give."""
        w, groups = self.window, self.groups
        x = (self.batch, self.channels, *self.spatial)
        y = (self.batch, self.channels, *w.outputs(self.spatial))
        forward = Conv(w.stride, w.padding, w.dilation, groups)
        backward = ConvInputGradient(self.spatial, w.stride, w.padding, w.dilation, groups)
        return [
            (BlockedConv(forward, self.weight, self.block), x, y),
            (BlockedConv(backward, self.weight, self.block), y, x),
        ]

    def network(
        self, op: BlockedConv, source: Shape, result: Shape, dtype: Any
    ) -> tuple[Any, list[Array]]:
        (packed,) = op.packing(self.panel).evaluate(numbers(self.weight, 1, dtype))
        residual = blocked(numbers(result, 3, dtype), self.block)
        x = blocked(numbers(source, 2, dtype), self.block)

        def function(x: Tensor, w: Tensor, residual: Tensor) -> Tensor:
            return apply(Relu(), apply(op, x, w) + residual)

        return function, [x, packed, residual]

    def check(self, dtype: Any = np.float32) -> None:
        """Both ways, with a residual and a ReLU behind it in one kernel, against float64.

        The largest error is 1e-6 of the largest result, times the root of the number of products.
        """
        error = 1e-6 if dtype is np.float32 else 1e-14
        for way in self.ways():
            function, arrays = self.network(*way, dtype)
            bound = error * math.sqrt(self.size * self.window.size)
            groups = check(function, *arrays, whole=False, rtol=0.0, atol=4 * bound)
            assert len(groups) == 1

    def notes(self) -> list[str]:
        """How the kernels work."""
        found = []
        for way in self.ways():
            function, arrays = self.network(*way, np.float32)
            graph, _ = graph_of(function, *arrays)
            (group,) = partition(graph)
            found.append(lower(graph, group, host()).kernel.note)
        return found


CASES = {
    "3x3": Case(2, 4, 8, (9, 30), square(3, 1, 1)),
    "3x3 of pairs": Case(1, 2, 8, (7, 9), square(3, 1, 1)),
    "3x3 of eight": Case(2, 8, 3, (9, 30), square(3, 1, 1)),
    "strided": Case(2, 4, 4, (11, 30), square(3, 2, 1)),
    "strided, of eight": Case(1, 8, 2, (10, 21), square(3, 2, 1)),
    "1x1": Case(2, 4, 4, (7, 9), square(1)),
    "1x1, strided": Case(2, 4, 4, (7, 9), square(1, 2)),
    "7x7": Case(1, 4, 4, (11, 20), square(7, 1, 3)),
    "wide panels": Case(1, 4, 8, (5, 17), square(3, 1, 1), 8, 16),
    "narrow blocks": Case(1, 4, 4, (5, 17), square(3, 1, 1), 4, 8),
    "long taps": Case(1, 4, 2, (40,), Window((11,), (1,), ((5, 5),), (1,))),
    "3-D": Case(1, 4, 4, (4, 5, 9), Window((3, 2, 3), (2, 1, 1), ((1, 1),) * 3, (1,) * 3)),
    "small maps": Case(3, 4, 4, (2, 1), square(3, 1, 1)),
    "no samples": Case(0, 4, 4, (6, 7), square(3, 1, 1)),
}


@pytest.mark.parametrize("name", CASES)
def test_both_ways(name: str) -> None:
    CASES[name].check()


def test_double_precision() -> None:
    replace(CASES["3x3"], block=4, panel=4).check(np.float64)


@pytest.mark.skipif(host().vector_bits < 256, reason="vectors of 4 lanes")
def test_results_of_a_row_share_the_columns_that_they_read() -> None:
    pixels = {16: 10, 32: 21}[host().registers]
    assert CASES["3x3"].notes() == [f"groups, {pixels} pixels, channels"] * 2


@st.composite
def cases(draw: Any) -> Case:
    spatial, window = draw(geometries({1: 60, 2: 13, 3: 5}))
    size, groups = draw(st.sampled_from(SMALL))
    return Case(draw(st.integers(1, 2)), size, groups, spatial, window)


@settings(max_examples=15)
@given(cases())
def test_any_geometry(case: Case) -> None:
    case.check()


@pytest.mark.parametrize("level", ["sse", "avx512"])
@pytest.mark.parametrize("name", ["3x3", "strided", "3-D"])
def test_other_targets_and_threads(name: str, level: str) -> None:
    """Code is made for any target; iterations of parallel loops do not meet."""
    for way in CASES[name].ways():
        function, arrays = CASES[name].network(*way, np.float32)
        graph, _ = graph_of(function, *arrays)
        (group,) = partition(graph)
        kernel = lower(graph, group, Target.named(level)).kernel
        assert possible_races(kernel) == []
        assert "shufflevector" in emit(kernel, Target.named(level)).ir


# -- vectors whose lanes share elements -----------------------------------------------------------


def shared(extent: int, lanes: int, size: int, member: int, dtype: DType) -> Kernel:
    """out[r, lane] = x[r, lane // size * size + member]"""
    x, out = Buffer("x", (3, extent), dtype), Buffer("out", (3, extent), dtype)
    row, lane = Var("r"), Var("v")
    store = Store(out, (row, lane), Load(x, (row, lane // size * size + member)))
    body = (For(lane, extent, (store,), LoopKind.VECTOR, lanes),)
    return Kernel("shared", (x, out), (For(row, 3, body),))


@pytest.mark.parametrize("dtype", [DType.FLOAT32, DType.FLOAT64, DType.INT64])
@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("lanes", [4, 8])
def test_lanes_that_share_elements(lanes: int, size: int, dtype: DType) -> None:
    for extent in (12, 24):
        x = (10 * numbers((3, extent), 1)).astype(dtype.numpy)
        for member in range(size):
            got = run_kernel(shared(extent, lanes, size, member, dtype), [x, None])[1]
            np.testing.assert_array_equal(got, x[:, np.arange(extent) // size * size + member])


def test_one_vector_is_loaded_and_permuted_if_it_lies_in_a_row() -> None:
    target = Target.named("avx2")
    inside = emit(shared(8, 8, 4, 3, DType.FLOAT32), target).ir
    assert "<i32 3, i32 3, i32 3, i32 3, i32 7, i32 7, i32 7, i32 7>" in inside
    assert "insertelement" not in inside
    assert "insertelement" in emit(shared(12, 8, 4, 3, DType.FLOAT32), target).ir
