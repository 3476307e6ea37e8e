"""Packed weights as kernels: NumPy, the interpreter and machine code agree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import check_kernels

from quern.compiler.graph import Graph
from quern.compiler.llvm.target import Target
from quern.compiler.loops.ir import Alloc, walk
from quern.compiler.lower.lower import lower
from quern.compiler.ops.blocked import PackWeight
from quern.compiler.passes.partition import partition
from quern.compiler.types import TensorType


def packing(op: PackWeight, shape: tuple[int, ...]) -> Graph:
    graph = Graph()
    w = graph.parameter(TensorType(shape), "w")
    graph.outputs["packed"] = graph.apply(op, w * 2.0)[0].value
    return graph


@st.composite
def weights(draw: st.DrawFn) -> tuple[PackWeight, tuple[int, ...]]:
    groups = draw(st.integers(1, 2))
    taps = draw(st.sampled_from([(), (1,), (1, 1), (3, 2), (1, 3)]))
    shape = (groups * draw(st.integers(1, 30)), draw(st.integers(1, 40)), *taps)
    return PackWeight(groups, draw(st.sampled_from([4, 8, 24])), draw(st.booleans())), shape


@given(weights())
def test_weights_of_any_shape(case: tuple[PackWeight, tuple[int, ...]]) -> None:
    op, shape = case
    w = np.random.default_rng(0).standard_normal(shape, np.float32)
    check_kernels(packing(op, shape), {"w": w}, rtol=0, atol=0, whole=False)


@pytest.mark.parametrize(("depth", "collides"), [(1024, True), (1030, False), (1039, False)])
def test_rows_that_share_places_of_the_cache_go_over_the_stack(depth: int, collides: bool) -> None:
    shape = (50, depth, 1, 1)
    graph = packing(PackWeight(1, 24), shape)
    w = np.random.default_rng(0).standard_normal(shape, np.float32)
    check_kernels(graph, {"w": w}, rtol=0, atol=0, whole=False)
    (group,) = partition(graph)
    kernel = lower(graph, group, Target.host()).kernel
    assert any(isinstance(s, Alloc) for s in walk(kernel.body)) is collides
