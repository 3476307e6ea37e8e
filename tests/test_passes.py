"""What holds for every pass: meaning, names, the users' layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from networks import lenet
from passes import F, kinds, same, transformed
from random_graphs import graphs

import quern as qn
from quern import nn
from quern.compiler.autodiff import differentiate
from quern.compiler.driver import Options, optimize, standard_passes
from quern.compiler.evaluate import evaluate
from quern.compiler.graph import Graph, Value
from quern.compiler.llvm.target import Target
from quern.compiler.ops.leaf import Constant, Input, Leaf, State
from quern.compiler.passes.base import Pass
from quern.compiler.passes.batchnorm import FoldBatchNorm
from quern.compiler.passes.cse import ShareCommonSubexpressions
from quern.compiler.passes.expand import Expand
from quern.compiler.passes.fold import FoldConstants
from quern.compiler.passes.hoist import Prepared, hoist
from quern.compiler.passes.partition import partition
from quern.compiler.passes.reshape import SinkReshapes
from quern.compiler.passes.simplify import Simplify
from quern.compiler.passes.snapshot import Snapshot
from quern.compiler.report import Report
from quern.compiler.rewrite import rewrite
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array

Case = tuple[Graph, dict[str, Array]]
FEW = settings(max_examples=25, suppress_health_check=list(HealthCheck))


def of_constants(graph: Graph, feeds: Mapping[str, Array]) -> Graph:
    """The graph with constants for inputs."""

    def rule(rewriter: Any, node: Any) -> list[Tensor] | None:
        known = isinstance(node.op, Input)
        return [rewriter.new.constant(feeds[node.name])] if known else None

    return rewrite(graph, rule)


# -- what holds for every pass ---------------------------------------------------------------------


PASSES: dict[str, Sequence[Pass]] = {
    "expand": (Expand(),),
    "expand for gradients": (Expand(for_gradient=True),),
    "fold": (FoldConstants(),),
    "simplify": (Simplify(),),
    "sink reshapes": (SinkReshapes(),),
    "share": (ShareCommonSubexpressions(),),
    "fold batch norm": (FoldBatchNorm(),),
    "snapshot": (Snapshot(),),
    "standard": standard_passes(),
}


@pytest.mark.parametrize("name", PASSES)
def test_random_graphs_keep_their_meaning(name: str) -> None:
    @FEW
    @given(graphs())
    def check(case: Case) -> None:
        graph, feeds = case
        before = str(graph)
        after = transformed(graph.verify(), PASSES[name])
        assert str(graph) == before, "a pass changed the graph it was given"
        same(graph, after, feeds, rtol=1e-12)
        same(graph, transformed(after, PASSES[name]), feeds, rtol=1e-12)

    check()


@FEW
@given(graphs())
def test_random_graphs_of_constants_are_computed_at_once(case: Case) -> None:
    graph, feeds = case
    known = of_constants(graph, feeds)
    after = FoldConstants(most=1 << 20).apply(known)
    same(graph, after, feeds)
    assert kinds(after) == []


@FEW
@given(graphs())
def test_random_graphs_of_parameters_are_prepared(case: Case) -> None:
    """Half of the inputs are parameters; what follows from them alone is computed before."""
    graph, feeds = case

    def rule(rewriter: Any, node: Any) -> list[Tensor] | None:
        known = isinstance(node.op, Input) and node.name != "x0"
        return [rewriter.new.parameter(feeds[node.name], node.name)] if known else None

    with_state = rewrite(rewrite(graph, rule))
    prepared = hoist(with_state)
    main = with_contents(prepared)
    assert [n.name for n in main.leaves(State)] == [n.name for n in with_state.leaves(State)]
    same(with_state, main, feeds)


def with_contents(prepared: Prepared) -> Graph:
    """What runs, with what was prepared."""
    main = prepared.main.copy()
    if prepared.preparation is not None:
        with np.errstate(all="ignore"):
            main.data |= evaluate(prepared.preparation.verify(), {}).outputs
    return main


def test_names_of_passes_are_short() -> None:
    names = [step.name for step in standard_passes()]
    assert names[:3] == ["fold-batch-norm", "classify-before-resize", "merge-recurrences"]


# -- old contents ----------------------------------------------------------------------------------


def test_old_contents_that_are_wanted_later_are_copied() -> None:
    graph = Graph()
    a, b, still = (graph.parameter(np.full(2, i, F), n) for i, n in enumerate(("a", "b", "still")))
    graph.outputs = {"old": a.reshape(2, 1).value, "still": still.value}
    graph.updates = {"a": b.value, "b": a.value, "still": still.value}
    after = Snapshot().apply(graph)
    same(graph, after, {})
    assert kinds(after) == ["Reshape", "Slice", "Slice", "Slice"]
    assert after.outputs["still"] == after.updates["still"] == Value("still")
    assert Snapshot().apply(after) is after


# -- provenance ------------------------------------------------------------------------------------


class Net(nn.Module):
    """LeNet with batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 6, 5, padding=2), nn.BatchNorm2d(6)
        self.relu1, self.pool1 = nn.ReLU(), nn.MaxPool2d(2)
        self.conv2, self.bn2 = nn.Conv2d(6, 16, 5), nn.BatchNorm2d(16)
        self.relu2, self.pool2 = nn.ReLU(), nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.fc1, self.relu3 = nn.Linear(400, 120), nn.ReLU()
        self.fc2 = nn.Linear(120, 10)

    def forward(self, x: Tensor) -> Tensor:
        for _, module in self.named_children():
            x = module(x)
        return x


@pytest.mark.parametrize("training", [False, True])
def test_every_layer_of_the_user_is_in_some_kernel(training: bool) -> None:
    graph = qn.trace(Net(), qn.spec(2, 1, 28, 28), training=training)
    graph = differentiate(graph) if training else graph
    optimized = hoist(optimize(graph, Options(), Report())).main
    groups = partition(optimized)
    origins = {
        o.name.split(".")[0] for g in groups for n in g.nodes for o in optimized.node(n).origins
    }
    views = {"flatten"}  # a view of memory: no kernel computes it
    layers = {name for name, _ in Net().named_children()}
    assert layers - views <= origins
    names = " ".join(g.name for g in groups)
    assert all(layer in names for layer in layers - views)
    sources = [n.source for n in optimized.nodes() if not isinstance(n.op, Leaf)]
    assert all(s is not None and s.file == __file__ for s in sources)


def test_kernels_are_named_after_layers() -> None:
    """With eight lanes; with four, six channels are packed, their pool has a kernel of its own."""
    graph = qn.trace(Net().eval(), qn.spec(2, 1, 28, 28))
    optimized = hoist(optimize(graph, Options(Target.named("avx2")), Report())).main
    assert [g.name for g in partition(optimized)] == [
        "conv1_bn1_relu1_pool1", "conv2_bn2_relu2_pool2", "pool2.unblock", "fc1_relu3", "fc2",
    ]  # fmt: skip


def test_leaves_survive_every_pass() -> None:
    graph = differentiate(lenet(), "loss")
    before = {k: [n.name for n in graph.leaves(k)] for k in (Input, State)}
    optimized = optimize(graph, Options(), Report()).verify()
    assert {k: [n.name for n in optimized.leaves(k)] for k in (Input, State)} == before
    assert all(n.name in optimized.data for n in optimized.leaves(Constant))
    assert optimized.outputs.keys() == graph.outputs.keys()
