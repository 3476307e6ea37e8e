"""Rewriting: copies in which some nodes are replaced, with names, states and origins kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from quern.compiler.errors import GraphError
from quern.compiler.evaluate import evaluate
from quern.compiler.graph import Graph, Node, Phase, Value
from quern.compiler.ops.activation import Softmax
from quern.compiler.ops.composite import Composite
from quern.compiler.ops.leaf import Input
from quern.compiler.ops.pointwise import Add, Exp, Multiply, Relu
from quern.compiler.passes.expand import Expand
from quern.compiler.rewrite import Rewriter, rewrite
from quern.compiler.tensor import Tensor
from quern.compiler.types import TensorType


def network() -> Graph:
    graph = Graph("net")
    x = graph.input(TensorType((3,)), "x")
    w = graph.parameter(np.float32([1, 2, 3]), "w")
    seen = graph.buffer(np.float32([0, 0, 0]), "seen")
    graph.buffer(np.float32(0), "total")
    y = graph.apply(Multiply(), x, w, name="scale")[0]
    (y + 100.0).exp()
    graph.outputs["y"] = graph.apply(Relu(), y, name="act")[0].value
    graph.updates["seen"] = (seen + y).value
    graph.updates["total"] = y.sum().value
    return graph.verify()


FEEDS = {"x": np.float32([-1, 0.5, 2])}


def same_results(a: Graph, b: Graph) -> None:
    before, after = evaluate(a, FEEDS), evaluate(b, FEEDS)
    for old, new in ((before.outputs, after.outputs), (before.updates, after.updates)):
        assert old.keys() == new.keys()
        for name, array in old.items():
            np.testing.assert_array_equal(new[name], array)


def test_without_a_rule_the_live_part_is_copied() -> None:
    graph = network()
    names = [n.name for n in graph.nodes()]
    copy = rewrite(graph)
    dead = {"constant", "add", "exp"}
    assert [n.name for n in copy.nodes()] == [n for n in names if n not in dead]
    assert list(copy.nodes()) == [n for n in graph.nodes() if n.name not in dead]
    assert [n.name for n in graph.nodes()] == names
    assert copy.data.keys() == {"w", "seen", "total"}
    same_results(graph, copy.verify())


def test_a_state_that_is_only_written_survives() -> None:
    copy = rewrite(network())
    assert "total" in copy
    assert copy.updates["total"].node in copy


def test_inputs_stay_even_when_nothing_reads_them() -> None:
    graph = Graph()
    graph.input(TensorType(()), "unread")
    assert [n.name for n in rewrite(graph).leaves(Input)] == ["unread"]


def doubled(rewriter: Rewriter, node: Node) -> Sequence[Tensor] | None:
    """X * w as (x + x) * (w / 2)."""
    if node.op != Multiply():
        return None
    x, w = rewriter.inputs(node)
    return [(x + x) * (w * 0.5)]


def test_a_replacement_is_named_after_and_remembers_what_it_replaces() -> None:
    graph = network()
    scale = graph.node("scale")
    copy = rewrite(graph, doubled).verify()
    new = copy.producer(copy.inputs_of("act")[0])
    assert new.name == "scale.multiply_1"
    assert new.origins == scale.origins
    assert "scale" not in copy
    assert copy.node("scale.add").origins == scale.origins
    same_results(graph, copy)


def test_phases_are_carried_over() -> None:
    graph = Graph()
    x = graph.input(TensorType(()), "x")
    with graph.scope(phase=Phase.BACKWARD):
        y = x * x
    graph.outputs["y"] = y.value
    copy = rewrite(graph, doubled)
    phases = {n.name: n.phase for n in copy.nodes()}
    assert phases.pop("x") is Phase.FORWARD
    assert set(phases.values()) == {Phase.BACKWARD}


def test_an_existing_value_may_stand_in_and_inherits_the_origins() -> None:
    graph = Graph()
    x = graph.input(TensorType((2,)), "x")
    first = graph.apply(Exp(), x, name="first")[0]
    second = graph.apply(Exp(), x, name="second")[0]
    graph.outputs["y"] = (first + second).value

    def share(rewriter: Rewriter, node: Node) -> Sequence[Tensor] | None:
        return [rewriter.new.tensor(Value("first"))] if node.name == "second" else None

    copy = rewrite(graph, share).verify()
    assert copy.inputs_of("add") == (Value("first"), Value("first"))
    assert [o.name for o in copy.node("first").origins] == ["first", "second"]


def test_names_of_the_old_graph_are_kept_for_their_nodes() -> None:
    """A part may not take the name of a node, or of a state, that comes later."""
    graph = Graph()
    x = graph.input(TensorType((2,)), "x")
    y = graph.apply(Exp(), x, name="block")[0]
    taken = graph.parameter(np.float32([1, 2]), "block.multiply")
    graph.outputs["y"] = (y + taken).value
    graph.updates["block.multiply"] = y.value

    def square(rewriter: Rewriter, node: Node) -> Sequence[Tensor] | None:
        (arg,) = rewriter.inputs(node) if node.name == "block" else (None,)
        return [arg * arg] if arg is not None else None

    copy = rewrite(graph, square).verify()
    assert copy.updates == {"block.multiply": Value("block.multiply_1")}
    np.testing.assert_array_equal(copy.data["block.multiply"], [1, 2])
    result = evaluate(copy, {"x": np.float32([3, 4])})
    np.testing.assert_array_equal(result.outputs["y"], [10, 18])


def test_a_rule_must_give_every_output() -> None:
    with pytest.raises(ValueError, match="zip"):
        rewrite(network(), lambda rewriter, node: [] if node.op == Relu() else None)


def test_expand_leaves_only_primitives_of_the_same_meaning() -> None:
    graph = Graph()
    x = graph.input(TensorType((3,)), "x")
    graph.outputs["p"] = graph.apply(Softmax(0), x, name="softmax")[0].value
    flat = Expand().apply(graph).verify()
    assert not any(isinstance(n.op, Composite) for n in flat.nodes())
    parts = [n for n in flat.nodes() if n.name != "x"]
    assert all(n.name.startswith("softmax.") for n in parts)
    assert all(n.origins == graph.node("softmax").origins for n in parts)
    p = evaluate(flat, FEEDS).outputs["p"]
    expected = np.exp(FEEDS["x"]) / np.exp(FEEDS["x"]).sum()
    np.testing.assert_allclose(p, expected, rtol=1e-6)


def test_expand_is_idempotent() -> None:
    graph = network()
    once = Expand().apply(graph)
    assert list(Expand().apply(once).nodes()) == list(once.nodes())


def test_nodes_of_another_graph_are_refused() -> None:
    other = Graph("other").input(TensorType((3,)), "x")
    with pytest.raises(GraphError, match="x of the graph other is read in net"):
        rewrite(network(), lambda r, n: [r.inputs(n)[0] + other] if n.op == Add() else None)
