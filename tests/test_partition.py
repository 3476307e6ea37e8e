"""Which nodes share a kernel, and that every kernel finds what it reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from networks import lenet, residual
from oracles import check_kernels, check_order, graph_of, trained
from random_graphs import graphs

from quern.compiler.autodiff import differentiate
from quern.compiler.graph import Graph, Phase
from quern.compiler.group import Group
from quern.compiler.ops import activation as act
from quern.compiler.ops import loss, norm
from quern.compiler.ops.base import apply, apply_all
from quern.compiler.ops.conv import Conv
from quern.compiler.ops.movement import Concat, Pad
from quern.compiler.ops.pointwise import Exp
from quern.compiler.ops.pool import MaxPool
from quern.compiler.passes.expand import Expand
from quern.compiler.passes.partition import partition
from quern.compiler.roles import Role, role
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array


def groups_of(graph: Graph) -> tuple[Group, ...]:
    expanded = Expand().apply(graph)
    groups = partition(expanded)
    check_order(expanded, groups)
    return groups


def groups(function: Callable[..., Any], *shapes: tuple[int, ...]) -> tuple[Group, ...]:
    return groups_of(graph_of(function, *(np.zeros(s, np.float32) for s in shapes))[0])


# -- what holds for every graph -------------------------------------------------------------------


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(graphs())
def test_kernels_of_random_graphs_give_what_numpy_gives(
    case: tuple[Graph, dict[str, Array]],
) -> None:
    graph, feeds = case
    check_kernels(graph, feeds, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("network", [lenet, residual])
def test_networks_forward_and_backward(network: Callable[[], Graph]) -> None:
    """In order, nothing lost; anchors and reductions, which are not cheap, are computed once."""
    graph = network()
    of = "loss" if "loss" in graph.outputs else "logits"
    expanded = Expand().apply(differentiate(graph, of))
    found = partition(expanded)
    check_order(expanded, found)
    once = [
        n for g in found for n in g.nodes
        if role(expanded.node(n).op) in (Role.ANCHOR, Role.REDUCE)
    ]  # fmt: skip
    assert len(once) == len(set(once))
    live = expanded.live()
    anchors = {n.name for n in expanded.nodes() if role(n.op) is Role.ANCHOR and n.name in live}
    assert anchors <= set(once)


def test_names_are_unique_and_made_of_the_users_names() -> None:
    names = [g.name for g in groups_of(lenet())]
    assert names[:6] == [
        "conv1_relu1_pool1", "conv2_relu2_pool2", "fc1_relu3", "fc2_relu4", "fc3", "loss",
    ]  # fmt: skip
    names = [g.name for g in groups_of(differentiate(lenet(), "loss"))]
    assert len(set(names)) == len(names)
    assert "grad_fc1" in names


def test_kernels_keep_to_their_phase() -> None:
    graph = Expand().apply(differentiate(lenet(), "loss"))
    for group in partition(graph):
        own = {graph.node(n).phase for n in group.nodes}
        assert group.phase in (Phase.FORWARD, Phase.BACKWARD)
        assert group.phase in own


# -- what is fused --------------------------------------------------------------------------------

ONE_KERNEL: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]]]] = {
    "a chain of point nodes": (lambda x, b: ((x + b) * 2.0).tanh().relu(), [(4, 5), (5,)]),
    "branches that meet": (lambda x: (lambda y: y * y.sigmoid() + y)(x + 1.0), [(4, 5)]),
    "a reduction with what it reduces": (lambda x: (x * x).sum(1), [(4, 5)]),
    "two reductions of one value": (lambda x: (x.sum(1), x.max(1)), [(4, 5)]),
    "softmax": (lambda x: apply(act.Softmax(1), x), [(4, 5)]),
    "log-softmax": (lambda x: apply(act.LogSoftmax(1), x), [(4, 5)]),
    "layer norm": (lambda x, w, b: apply(norm.LayerNorm(), x, w, b), [(4, 5), (5,), (5,)]),
    "batch norm's result": (
        lambda x, w, b, m, v: apply_all(norm.BatchNorm(), x, w, b, m, v)[0].relu(),
        [(4, 3, 2, 2), (3,), (3,), (3,), (3,)],
    ),
    "a product, its bias and activation": (
        lambda a, b, c: (a @ b + c).relu(), [(4, 5), (5, 6), (6,)],
    ),
    "a convolution, its activation and pool": (
        lambda x, w: apply_all(
            MaxPool((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)),
            apply(Conv((1, 1), ((1, 1), (1, 1)), (1, 1)), x, w).relu(),
        )[0],
        [(1, 2, 4, 4), (3, 2, 3, 3)],
    ),
    "moves and what reads them": (
        lambda x: x.transpose(0, 1)[::-1] + 1.0, [(4, 5)],
    ),
    "what is concatenated": (
        lambda a, b: apply(Concat(1), a.relu(), b + 1.0), [(4, 5), (4, 2)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ONE_KERNEL)
def test_one_kernel(name: str) -> None:
    function, shapes = ONE_KERNEL[name]
    assert len(groups(function, *shapes)) == 1


def test_residual_add_follows_the_later_product() -> None:
    found = groups(lambda x, w: (x @ w).relu() @ w + x, (4, 4), (4, 4))
    assert [len(g.nodes) for g in found] == [2, 2]


def test_reshapes_are_other_names_of_memory() -> None:
    """They cost no kernel, but what is behind one is read in another order: a kernel of its own."""
    (first, second) = groups(lambda x: (x.relu().reshape(10, 2) * 2.0).exp(), (4, 5))
    assert first.outputs != second.inputs
    assert [str(v) for v in first.outputs] == ["relu"]
    assert [str(v) for v in second.inputs if "reshape" in v.node] == ["reshape"]


def test_cheap_values_are_computed_again_instead_of_stored() -> None:
    """The centred rows, known from x and its mean, are not stored for the second kernel."""

    def function(x: Tensor) -> list[Tensor]:
        centered = x - x.mean(1, keepdims=True)
        return [centered.exp().sum(1), (centered * centered).sum(0)]

    found = groups(function, (40, 50))
    assert [[str(v) for v in g.outputs] for g in found] == [["multiply", "sum_1"], ["sum_2"]]


def test_long_chains_are_cut() -> None:
    """Before they are too long to be computed again, and before kernels are too large."""

    def chain(x: Tensor) -> Tensor:
        for _ in range(150):
            x = x * 0.5 + 1.0
        return x

    graph, feeds = graph_of(chain, np.ones((3, 5), np.float32))
    found = check_kernels(graph, feeds)
    assert 2 <= len(found) <= 9
    moved = graph_of(lambda x: chain(x.transpose(0, 1)[::-1]), np.ones((3, 5), np.float32))
    check_kernels(*moved, whole=False)


def test_what_is_read_through_a_move_is_not_where_the_loops_stand() -> None:
    """A row of what is padded is narrower than the row that is reduced; so is what is kept."""

    def padded(x: Tensor) -> list[Tensor]:
        y = x.relu()
        return [y, apply(Pad(((0, 0), (0, 1))), y).sum(0)]

    check_kernels(*graph_of(padded, np.ones((1, 2), np.float32)))

    def shifted(x: Tensor) -> Tensor:
        e = x.exp()
        return e / e.sum(1, keepdims=True) + e[::-1]

    rows = np.arange(12.0).reshape(4, 3) / 9
    check_kernels(*graph_of(shifted, rows), rtol=1e-12)


def test_a_pooled_convolution_is_stored_when_something_else_reads_it() -> None:
    def function(x: Tensor, w: Tensor) -> list[Tensor]:
        y = apply(Conv((1, 1), ((1, 1), (1, 1)), (1, 1)), x, w)
        pooled = apply_all(MaxPool((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)), y)[0]
        return [pooled, y.sum()]

    found = groups(function, (1, 2, 4, 4), (3, 2, 3, 3))
    assert [g.pool for g in found] == [None] * len(found)
    assert len(found) == 3


def test_reductions_over_other_axes_are_kernels_of_their_own() -> None:
    assert len(groups(lambda x: (x.sum(0), x.sum(1)), (4, 5))) == 2


def test_no_cycles_between_kernels() -> None:
    """x.relu() could join the last addition, but the sum in between reads it through memory."""

    def function(x: Tensor) -> Tensor:
        y = x.exp()
        return y + (y.transpose(0, 1) @ y).sum()

    assert len(groups(function, (4, 4))) >= 2


def test_a_loss_computes_its_exponentials_once() -> None:
    classes = np.zeros(8, np.int64)
    graph, _ = trained(
        lambda x, t: apply(loss.CrossEntropy(), x, t), 1, np.zeros((8, 10), np.float32), classes
    )
    expanded = Expand().apply(graph)
    names = {n.name for n in expanded.nodes() if isinstance(n.op, Exp)}
    computed = [n for g in partition(expanded) for n in g.nodes if n in names]
    assert sorted(computed) == sorted(names)


def test_groups_do_not_wait_for_each_other() -> None:
    """A row is stored for a view of it; what it is divided from goes over the elements of the
    result, whose kernel reads that view.
    """

    def eliminated(a: Tensor, at: Tensor) -> Tensor:
        column = a[:, :1]
        row = (a * at).reshape((2,)) / (column * at).reshape((1,))
        return a - (column - at) * row.reshape((1, 2))

    assert len(groups(eliminated, (1, 2), (1, 1))) > 1
