"""Strided convolutions of one place a window as convolutions of a slice: the same numbers."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from op_cases import spread
from oracles import check_kernels

import quern as qn
from quern import nn
from quern.compiler.evaluate import evaluate
from quern.compiler.graph import Graph
from quern.compiler.ops.conv import Conv, ConvInputGradient
from quern.compiler.ops.movement import Slice
from quern.compiler.passes.expand import Expand
from quern.compiler.passes.subsample import Subsample
from quern.compiler.types import TensorType


@st.composite
def strided(draw: st.DrawFn) -> tuple[Conv, tuple[int, ...]]:
    """A convolution by 1x1, and the extents of what it reads."""
    rank = draw(st.integers(1, 3))
    stride = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    spatial = tuple(draw(st.integers(1, 7)) for _ in range(rank))
    return Conv(stride, ((0, 0),) * rank, (1,) * rank, draw(st.integers(1, 2))), spatial


@given(strided(), st.booleans())
def test_it_means_the_same(case: tuple[Conv, tuple[int, ...]], transposed: bool) -> None:
    op, spatial = case
    x, w = (2, 2 * op.groups, *spatial), (3 * op.groups, 2, *(1 for _ in spatial))
    kind: Conv | ConvInputGradient = op
    if transposed:
        x = (2, w[0], *op.window(w[2:]).outputs(spatial))
        kind = ConvInputGradient(spatial, op.stride, op.padding, op.dilation, op.groups)
    before = Graph()
    inputs = [before.input(TensorType(s), n) for s, n in ((x, "x"), (w, "w"))]
    before.outputs["y"] = before.apply(kind, *inputs)[0].value
    after = Subsample().apply(before).verify()
    for node in after.nodes():
        assert not isinstance(node.op, Conv | ConvInputGradient) or set(node.op.stride) == {1}
    feeds = {"x": spread(x).astype(np.float32), "w": spread(w, seed=1).astype(np.float32)}
    expected, found = (evaluate(g, feeds).outputs["y"] for g in (before, after))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_larger_windows_and_padding_stay() -> None:
    for layer in (nn.Conv2d(2, 4, 3, stride=2), nn.Conv2d(2, 4, 1, stride=2, padding=1)):
        graph = Expand().apply(qn.trace(layer, qn.spec(1, 2, 8, 8)))
        assert not any(isinstance(n.op, Slice) for n in Subsample().apply(graph).nodes())


def test_a_gradient_is_added_to_another_without_being_stored_among_zeros() -> None:
    graph = Graph()
    shapes = {"dy": (2, 16, 3, 3), "v": (16, 8, 1, 1), "dz": (2, 4, 6, 6), "w": (4, 8, 1, 1)}
    dy, v, dz, w = (graph.input(TensorType(s), n) for n, s in shapes.items())
    (a,) = graph.apply(ConvInputGradient((6, 6), (2, 2), ((0, 0), (0, 0)), (1, 1)), dy, v)
    (b,) = graph.apply(ConvInputGradient((6, 6), (1, 1), ((0, 0), (0, 0)), (1, 1)), dz, w)
    graph.outputs["dx"] = (a + b).relu().value
    feeds = {n: spread(s).astype(np.float32) for n, s in shapes.items()}
    groups = check_kernels(Subsample().apply(graph), feeds)
    assert [group.space for group in groups] == [(2, 8, 3, 3), (2, 8, 6, 6)]
