"""Transposed convolutions as convolutions whose channels are pixels: the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from op_cases import spread

import quern as qn
from quern import nn
from quern.compiler.evaluate import evaluate
from quern.compiler.graph import Graph
from quern.compiler.ops.conv import Conv, ConvInputGradient, ConvTranspose
from quern.compiler.passes.expand import Expand
from quern.compiler.passes.subpixel import SubPixel
from quern.compiler.types import TensorType


@st.composite
def transposed(draw: st.DrawFn) -> tuple[ConvTranspose, tuple[int, ...], tuple[int, ...]]:
    """An operation, and the shapes of x and of the weight."""
    rank, groups = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    stride = tuple(draw(st.integers(1, 4)) for _ in range(rank))
    kernel = tuple(draw(st.integers(s, 3 * s)) for s in stride)
    extra = tuple(draw(st.integers(0, s - 1)) for s in stride)
    spatial = tuple(draw(st.integers(1, 4)) for _ in range(rank))
    padding = tuple(
        (draw(st.integers(0, (k - 1) // 2)), draw(st.integers(0, (k - 1) // 2))) for k in kernel
    )
    op = ConvTranspose(stride, padding, extra, (1,) * rank, groups)
    return op, (2, 2 * groups, *spatial), (2 * groups, 3, *kernel)


@given(transposed())
def test_it_means_the_same(
    case: tuple[ConvTranspose, tuple[int, ...], tuple[int, ...]],
) -> None:
    op, x, w = case
    graph = Graph()
    inputs = [graph.input(TensorType(s), n) for s, n in ((x, "x"), (w, "w"))]
    graph.outputs["y"] = graph.apply(op, *inputs)[0].value
    before = Expand().apply(graph)
    after = SubPixel(most=0).apply(before).verify()
    assert not any(isinstance(n.op, ConvInputGradient) for n in after.nodes())
    feeds = {"x": spread(x).astype(np.float32), "w": spread(w, seed=1).astype(np.float32)}
    expected, found = (evaluate(g, feeds).outputs["y"] for g in (before, after))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_only_large_strides_are_rewritten() -> None:
    for stride, kind in ((4, ConvInputGradient), (8, Conv)):
        layer = nn.ConvTranspose2d(2, 3, 2 * stride, stride=stride)
        graph = Expand().apply(qn.trace(layer, qn.spec(1, 2, 3, 3)))
        kinds = {type(n.op) for n in SubPixel().apply(graph).nodes()}
        assert kinds.intersection({ConvInputGradient, Conv}) == {kind}


@pytest.mark.parametrize("stride", [16, 32])
def test_upsampling_of_segmentation_networks_compiles_to_few_loops(stride: int) -> None:
    layer = nn.ConvTranspose2d(3, 3, 2 * stride, stride=stride, bias=False)
    x = spread((1, 3, 3, 2)).astype(np.float32)
    executable = qn.compile(layer, qn.spec(x))
    np.testing.assert_allclose(executable(x), qn.interpret(layer, x), rtol=1e-4, atol=1e-4)
