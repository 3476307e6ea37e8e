"""Products with packed matrices, and what follows from groups of their columns, in one kernel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oracles import check_kernels
from passes import transformed

import quern as qn
from quern import nn
from quern.compiler.driver import Options, compile_graph, standard_passes
from quern.compiler.graph import Graph
from quern.compiler.group import Group
from quern.compiler.llvm.target import Target
from quern.compiler.loops.ir import Prefetch, walk
from quern.compiler.loops.printer import print_kernel
from quern.compiler.lower.lower import lower
from quern.compiler.ops.base import apply
from quern.compiler.ops.blocked import PackWeight
from quern.compiler.ops.linear import PackedMatMul
from quern.compiler.ops.recurrence import Recurrence
from quern.compiler.passes.partition import partition
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array, DType, TensorType

GOLDEN = Path(__file__).parent / "golden" / "loops_lstm_step.txt"


def numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def gated(
    rows: int, depth: int, columns: int, groups: int, panel: int, whole: bool = False
) -> tuple[Graph, dict[str, Array]]:
    """Groups of columns, each of which goes into the one result; perhaps the sums, too."""
    graph = Graph("gated")
    feeds = {
        "h": numbers(rows, depth, seed=1),
        "x": numbers(rows, groups * columns, seed=2),
        "c": numbers(rows, columns, seed=3),
        "w": numbers(groups * columns, depth, seed=4),
    }
    h, x, c, w = (graph.input(TensorType(a.shape, DType.FLOAT32), n) for n, a in feeds.items())
    sums = x + apply(PackedMatMul(groups * columns), h, apply(PackWeight(groups, panel), w))
    y = c
    for number in range(groups):
        y = (y * sums[:, number * columns : (number + 1) * columns].tanh()).sigmoid()
    graph.outputs = {"y": y.value} | ({"sums": sums.value} if whole else {})
    return graph, feeds


def products(graph: Graph) -> list[Group]:
    """The groups of products."""
    return [g for g in partition(graph) if g.anchor is not None]


@settings(max_examples=15)
@given(
    st.sampled_from([1, 2, 3, 4, 8, 13, 32, 61]),
    st.sampled_from([1, 3, 16, 50, 300, 700]),
    st.sampled_from([8, 16, 19, 40, 70]),
    st.integers(1, 4),
    st.booleans(),
)
@example(2, 1100, 33, 4, False)
@example(8, 1030, 24, 3, True)
@example(1, 770, 17, 1, True)
def test_groups_of_columns_are_combined_in_the_kernel_of_their_product(
    rows: int, depth: int, columns: int, groups: int, whole: bool
) -> None:
    graph, feeds = gated(rows, depth, columns, groups, 16, whole)
    check_kernels(graph, feeds, atol=1e-6 * max(depth, 10), whole=False)
    (group,) = products(graph)
    assert {str(v) for v in group.outputs} == {str(v) for v in graph.outputs.values()}


def test_panels_that_are_narrower_than_a_vector() -> None:
    check_kernels(*gated(3, 20, 10, 2, 4), atol=1e-5, whole=False)


def test_what_is_added_to_the_sums_is_asked_for() -> None:
    """Not what is as wide as a group, nor the operands."""
    graph, _ = gated(8, 64, 32, 4, 16)
    (group,) = products(graph)
    kernel = lower(graph, group, Target.named("avx2")).kernel
    asked = {s.buffer.name for s in walk(kernel.body) if isinstance(s, Prefetch)}
    assert "x" in asked
    assert not asked & {"c", "h"}


def test_columns_across_groups_are_read_from_memory() -> None:
    """What is no group of columns is computed when all of them are there."""
    graph, feeds = gated(3, 20, 16, 2, 16, True)
    sums = graph.tensor(graph.outputs["sums"])
    graph.outputs["across"] = sums[:, 8:24].relu().value
    graph.outputs["mixed"] = (sums[:, 8:24] * sums[:, :16]).value
    check_kernels(graph, feeds, atol=1e-5, whole=False)


class ByHand(nn.Module):
    """A minimal gated unit (Zhou et al., 2016), from a product of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Linear(32, 64)

    def forward(self, x: Tensor) -> Tensor:
        def step(h: Tensor, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
            gates = self.inside(h)
            f = (gates[:, :32] + x).sigmoid()
            h = (1 - f) * h + f * (gates[:, 32:] * f + x).tanh()
            return [h], [h]

        zero = x.constant(0).broadcast_to(x.shape[1:])
        return nn.functional.recurrence(step, [zero], [x])[1][0]


@pytest.mark.parametrize(
    "net",
    [
        nn.RNN(32, 32),
        nn.GRU(32, 32),
        nn.GRU(32, 32, bias=False),
        nn.LSTM(32, 32),
        nn.LSTM(32, 32, coupled=True),
        nn.LSTM(32, 32, peepholes=True),
        nn.LSTM(32, 24, bidirectional=True),
        ByHand(),
    ],
    ids=lambda net: type(net).__name__,
)
@pytest.mark.parametrize("rows", [1, 8, 19])
def test_a_step_is_one_kernel(net: nn.Module, rows: int) -> None:
    first = (lambda y: y) if isinstance(net, ByHand) else (lambda y: y[0])
    graph = qn.trace(lambda x: {"y": first(net(x))}, qn.spec(10, rows, 32))
    options = Options(passes=standard_passes(target=Target.host()), workers=1)
    program = compile_graph(graph, options).image.program
    for loop in program.loops:
        assert len({step.kernel for step in program.steps[loop.begin : loop.end]}) == 1


def test_golden_step_of_an_lstm() -> None:
    """Written anew by deleting tests/golden/loops_lstm_step.txt and running this test."""
    net = nn.LSTM(16, 32)
    graph = qn.trace(lambda x: {"y": net(x)[0]}, qn.spec(10, 8, 16))
    target = Target("x86-64", ("avx", "avx2", "fma"), 256)
    graph = transformed(graph, standard_passes(target=target))
    (node,) = (n for n in graph.nodes() if isinstance(n.op, Recurrence))
    body = node.op.body.graph
    (group,) = partition(body)
    text = print_kernel(lower(body, group, target).kernel) + "\n"
    if not GOLDEN.exists():
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")
