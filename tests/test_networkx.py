"""Bare networkx graphs become graphs, and back."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest

from quern.compiler.autodiff import differentiate
from quern.compiler.errors import GraphError, QuernError, ShapeError
from quern.compiler.evaluate import evaluate
from quern.compiler.graph import Graph, Value
from quern.compiler.ops.conv import Conv
from quern.compiler.ops.pool import MaxPool
from quern.compiler.types import DType, TensorType
from quern.frontends.networkx import from_networkx, to_networkx


def perceptron() -> Any:
    net = nx.DiGraph(name="perceptron")
    net.add_node("x", op="input", shape=(1, 2))
    net.add_node("w", op="parameter", value=[[0.5], [-1.0]])
    net.add_node("b", op="parameter", value=0.25)
    net.add_node("product", op="matmul")
    net.add_node("sum", op="Add")
    net.add_node("y", op="sigmoid")
    net.add_edges_from(
        [("x", "product"), ("w", "product"), ("product", "sum"), ("b", "sum"), ("sum", "y")]
    )
    return net


def test_a_bare_graph_computes() -> None:
    graph = from_networkx(perceptron())
    assert graph.name == "perceptron"
    assert [n.name for n in graph.nodes()] == ["x", "w", "b", "product", "sum", "y"]
    assert graph.outputs == {"y": Value("y")}
    result = evaluate(graph, {"x": np.float32([[3, 2]])}).outputs["y"]
    np.testing.assert_allclose(result, 1 / (1 + np.exp(0.25)), rtol=1e-6)


def test_nodes_are_sorted_and_edges_keep_their_order() -> None:
    net = nx.DiGraph()
    net.add_node("difference", op="subtract", output="d")
    net.add_node("b", op="input", shape=())
    net.add_node("a", op="input", shape=())
    net.add_edge("a", "difference")
    net.add_edge("b", "difference")
    graph = from_networkx(net, name="minus")
    assert graph.inputs_of("difference") == (Value("a"), Value("b"))
    feeds = {"a": np.float32(5), "b": np.float32(3)}
    assert evaluate(graph, feeds).outputs["d"] == 2


def test_ports_overrule_order_and_the_others_fill_the_gaps() -> None:
    net = nx.DiGraph()
    for name in "abc":
        net.add_node(name, op="input", shape=(2,))
    net.add_node("all", op="concat", axis=0)
    net.add_edge("a", "all")
    net.add_edge("b", "all", input_port=0)
    net.add_edge("c", "all")
    assert from_networkx(net).inputs_of("all") == (Value("b"), Value("a"), Value("c"))


def test_one_value_read_twice() -> None:
    net = nx.DiGraph()
    net.add_node("x", op="input", shape=())
    net.add_node("square", op="multiply")
    net.add_edge("x", "square", input_port=(0, 1))
    assert evaluate(from_networkx(net), {"x": np.float32(3)}).outputs["square"] == 9
    multi = nx.MultiDiGraph()
    multi.add_nodes_from(net.nodes(data=True))
    multi.add_edge("x", "square")
    multi.add_edge("x", "square")
    assert evaluate(from_networkx(multi), {"x": np.float32(3)}).outputs["square"] == 9


def test_shorthands_of_spatial_attributes() -> None:
    net = nx.DiGraph()
    net.add_node("image", op="input", shape=(1, 3, 9, 9))
    net.add_node("w", op="parameter", shape=(4, 3, 3, 3))
    net.add_node("conv", op="conv", padding=1)
    net.add_node("pool", op="MaxPool", kernel=(3, 3))
    net.add_edges_from([("image", "conv"), ("w", "conv"), ("conv", "pool")])
    graph = from_networkx(net)
    assert graph.node("conv").op == Conv((1, 1), ((1, 1), (1, 1)), (1, 1))
    assert graph.node("pool").op == MaxPool((3, 3), (3, 3), ((0, 0), (0, 0)), (1, 1))
    assert graph.type_of(graph.outputs["pool"]) == TensorType((1, 4, 3, 3))


def test_keys_need_not_be_text() -> None:
    net = nx.DiGraph()
    net.add_node(0, op="input", shape=3, dtype=np.int64, name="x")
    net.add_node(1, op="negate")
    net.add_edge(0, 1)
    graph = from_networkx(net)
    assert graph.type_of(Value("x")) == TensorType((3,), DType.INT64)
    assert graph.outputs == {"1": Value("1")}


def training_step() -> Graph:
    graph = Graph("step")
    x = graph.input(TensorType((4,), DType.FLOAT64), "x")
    w = graph.parameter(np.arange(4.0), "w")
    graph.parameter(np.ones((), np.float32), "frozen", trainable=False)
    count = graph.buffer(np.int64(3), "count")
    half = graph.constant(0.5, DType.FLOAT64, "half")
    graph.outputs["loss"] = ((w * w * half + x).max()).value
    graph.updates["count"] = (count + 1).value
    graph = differentiate(graph)
    return graph.verify()


def test_round_trip() -> None:
    graph = training_step()
    net = to_networkx(graph)
    assert type(net) is nx.DiGraph
    again = from_networkx(net)
    assert list(again.nodes()) == list(graph.nodes())
    for node in graph.nodes():
        assert again.inputs_of(node.name) == graph.inputs_of(node.name)
    assert (again.name, again.outputs, again.updates) == (
        graph.name,
        graph.outputs,
        graph.updates,
    )
    assert again.data.keys() == graph.data.keys()
    for name, array in graph.data.items():
        np.testing.assert_array_equal(again.data[name], array, strict=True)


def with_change(**changes: dict[str, Any]) -> Any:
    net = perceptron()
    for node, attributes in changes.items():
        net.add_node(node, **attributes)
    return net


ERRORS = [
    (
        {"y": {"op": "sigmoit"}},
        "y: there is no operation called 'sigmoit'; did you mean 'sigmoid'?",
    ),
    ({"y": {"op": None}}, "y has no attribute op"),
    ({"x": {"shape": None}}, "x has neither shape nor value"),
    ({"x": {"shape": (1, -2)}}, "x: attributes of Input do not fit: [1, -2] is no shape"),
    ({"x": {"dtype": "float16"}}, "dtype 'float16' is not supported"),
    ({"x": {"value": 1}}, "x: Input takes no value"),
    (
        {"w": {"trainabel": False}},
        "Parameter has no attribute 'trainabel'; did you mean 'trainable'",
    ),
    ({"w": {"shape": (3, 1)}}, "w has shape (3, 1), its value (2, 1)"),
    ({"c": {"op": "constant", "shape": ()}}, "c is a constant without value"),
    ({"b": {"name": "w"}}, "nodes 'w' and 'b' are both called w"),
    ({"sum": {"phase": "sideways"}}, "sum: phase or origins"),
]


@pytest.mark.parametrize(("changes", "message"), ERRORS, ids=[m for _, m in ERRORS])
def test_mistakes_in_nodes_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(QuernError) as caught:
        from_networkx(with_change(**changes))
    assert message in str(caught.value)


def test_a_cycle_is_named_by_its_nodes() -> None:
    net = perceptron()
    net.add_edge("y", "product")
    with pytest.raises(GraphError, match="product -> sum -> y -> product form a cycle"):
        from_networkx(net)


def test_clashing_ports() -> None:
    net = perceptron()
    net.edges["x", "product"]["input_port"] = 1
    net.edges["w", "product"]["input_port"] = 1
    with pytest.raises(GraphError, match="x and w both go into input 1 of product"):
        from_networkx(net)


def test_a_port_that_nothing_goes_into() -> None:
    net = perceptron()
    net.edges["x", "product"]["input_port"] = 0
    net.edges["w", "product"]["input_port"] = 2
    with pytest.raises(GraphError, match="nothing goes into input 1 of product"):
        from_networkx(net)


@pytest.mark.parametrize("port", [-1, "left", 1.0, ()])
def test_what_is_no_port(port: object) -> None:
    net = perceptron()
    net.edges["x", "product"]["input_port"] = port
    with pytest.raises(GraphError, match="input_port of the edge x -> product"):
        from_networkx(net)


def test_an_output_port_that_does_not_exist() -> None:
    net = perceptron()
    net.edges["x", "product"]["output_port"] = 1
    with pytest.raises(GraphError, match="x has 1 outputs, there is no output 1"):
        from_networkx(net)


def test_shapes_that_clash_name_the_node_and_the_line_that_asked() -> None:
    net = perceptron()
    net.nodes["x"]["shape"] = (1, 3)
    with pytest.raises(ShapeError) as caught:
        from_networkx(net)
    assert str(caught.value).startswith(f"product ({__file__}:")


@pytest.mark.parametrize(
    ("what", "mapping", "message"),
    [
        ("outputs", {"y": "nowhere"}, "outputs names the node 'nowhere'"),
        ("outputs", {"y": ("y", 1)}, "y has 1 outputs, there is no output 1"),
        ("outputs", ["y"], "a mapping was expected"),
        ("updates", {"x": "y"}, "x is updated, but is neither parameter nor buffer"),
        ("updates", {"nowhere": "y"}, "updates names the node 'nowhere'"),
    ],
)
def test_mistakes_in_outputs_and_updates(what: str, mapping: Any, message: str) -> None:
    net = perceptron()
    net.graph[what] = mapping
    with pytest.raises(GraphError, match=message):
        from_networkx(net)
