"""The DAG: building it, names, provenance, what is refused, and what it can be asked."""

from __future__ import annotations

import inspect
from dataclasses import replace

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quern.compiler.errors import DTypeError, GraphError, QuernError, ShapeError, SourceLocation
from quern.compiler.evaluate import evaluate
from quern.compiler.graph import Graph, Node, Origin, Phase, Value
from quern.compiler.ops.activation import Softmax
from quern.compiler.ops.conv import Conv
from quern.compiler.ops.leaf import Buffer, Constant, Input, Parameter, State
from quern.compiler.ops.pointwise import Add, Exp, Multiply, Relu
from quern.compiler.ops.pool import MaxPool
from quern.compiler.types import DType, TensorType


def here(offset: int = 0) -> str:
    """File and line of the caller, as errors name them."""
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return f"{__file__}:{frame.f_back.f_lineno + offset}"


def two_layers() -> Graph:
    graph = Graph("net")
    x = graph.input(TensorType((2, 3)), "x")
    w = graph.parameter(np.ones((3,), np.float32), "w")
    count = graph.buffer(np.int64(0), "count")
    graph.outputs["y"] = (x * w).exp().value
    graph.updates["count"] = (count + 1).value
    return graph


# -- building -------------------------------------------------------------------------------------


def test_nodes_know_their_types_and_inputs() -> None:
    graph = two_layers()
    assert [n.name for n in graph.nodes()] == [
        "x", "w", "count", "multiply", "exp", "constant", "add",
    ]  # fmt: skip
    assert graph.node("multiply").op == Multiply()
    assert graph.inputs_of("multiply") == (Value("x"), Value("w"))
    assert graph.type_of(Value("exp")) == TensorType((2, 3))
    assert graph.outputs_of("exp") == (Value("exp"),)
    assert graph.users_of("x") == ["multiply"]
    assert graph.uses_of(Value("w")) == [("multiply", 1)]
    assert "exp" in graph
    assert Value("exp") in graph
    assert Value("exp", 1) not in graph
    assert len(graph) == 7


def test_the_networkx_graph_is_there_to_be_used() -> None:
    graph = two_layers()
    assert isinstance(graph.nx, nx.MultiDiGraph)
    assert nx.has_path(graph.nx, "x", "exp")
    assert nx.shortest_path_length(graph.nx, "w", "exp") == 2
    assert graph.nx.nodes["exp"]["node"] is graph.node("exp")
    assert graph.nx.edges["w", "multiply", 0] == {"output_port": 0, "input_port": 1}


def test_a_value_read_twice_has_two_edges() -> None:
    graph = Graph()
    x = graph.input(TensorType(()), "x")
    y = x * x
    assert graph.uses_of(x.value) == [("multiply", 0), ("multiply", 1)]
    assert graph.users_of("x") == ["multiply"]
    assert graph.inputs_of(y.value.node) == (x.value, x.value)


def test_an_operation_may_have_several_outputs() -> None:
    graph = Graph()
    x = graph.input(TensorType((1, 1, 4, 4)), "x")
    pool = MaxPool((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1))
    y, position = graph.apply(pool, x, name="pool")
    assert (str(y.value), str(position.value)) == ("pool", "pool:1")
    assert position.dtype is DType.UINT8


def test_names_are_unique_and_readable() -> None:
    graph = Graph()
    x = graph.input(TensorType(()), "x")
    again = graph.input(TensorType(()), "x")
    with graph.scope("block.0"):
        inside = graph.apply(Exp(), x)[0]
        second = graph.apply(Exp(), x)[0]
        named = graph.apply(Exp(), x, name="grow")[0]
    names = [t.value.node for t in (x, again, inside, second, named)]
    assert names == ["x", "x_1", "block.0.exp", "block.0.exp_1", "block.0.grow"]


@given(st.lists(st.sampled_from(["a", "a_1", "a_2", "b", "b_1", "b_1_1"]), max_size=12))
def test_any_names_end_up_distinct_and_the_first_of_each_is_kept(names: list[str]) -> None:
    graph = Graph()
    given_names = [graph.input(TensorType(()), name).value.node for name in names]
    assert len(set(given_names)) == len(names)
    assert all(new.startswith(old) for new, old in zip(given_names, names, strict=True))
    if names:
        assert given_names[0] == names[0]


def test_scopes_nest_and_end_even_after_errors() -> None:
    graph = Graph()
    origin = (Origin("layer", SourceLocation("net.py", 3)),)
    with graph.scope("outer", origin, Phase.BACKWARD):
        with graph.scope("inner"), pytest.raises(GraphError):
            graph.add(Exp(), Value("nowhere"))
        x = graph.input(TensorType(()), "x")
    node = graph.producer(x.value)
    assert node == Node("outer.x", Input(TensorType(())), (x.type,), origin, Phase.BACKWARD)
    outside = graph.producer(graph.input(TensorType(()), "x").value)
    assert (outside.name, outside.phase) == ("x", Phase.FORWARD)


def test_constants_do_not_change_with_the_array_they_came_from() -> None:
    graph = Graph()
    array = np.ones(3, np.float32)
    c = graph.constant(array)
    array[:] = 5
    np.testing.assert_array_equal(graph.data[c.value.node], [1, 1, 1])


def test_leaves_by_kind() -> None:
    graph = two_layers()
    kinds = [Input, Parameter, Buffer, State, Constant]
    names = [[n.name for n in graph.leaves(kind)] for kind in kinds]
    assert names == [["x"], ["w"], ["count"], ["w", "count"], ["constant"]]


# -- provenance and errors ------------------------------------------------------------------------


def test_nodes_remember_the_line_they_were_declared_in() -> None:
    graph = Graph()
    x = graph.input(TensorType(()), "x")
    y, line = x.exp() * 2.0, here()
    assert str(graph.producer(y.value).source) == line
    assert graph.producer(y.value).origins[0].name == "multiply"


def test_an_error_names_the_node_the_line_and_the_shapes() -> None:
    graph = Graph()
    x = graph.input(TensorType((2, 3)), "x")
    w = graph.input(TensorType((4,)), "w")
    with pytest.raises(ShapeError) as caught, graph.scope("block"):
        graph.add(Add(), x.value, w.value, name="sum")
    line = here(-1)
    assert str(caught.value) == (
        f"block.sum ({line}): shapes (2, 3) and (4,) do not broadcast: "
        "extents [3, 4] clash; make them equal or 1"
    )
    assert "block.sum" not in graph


def test_dtypes_that_clash() -> None:
    graph = Graph()
    x = graph.input(TensorType((2,)), "x")
    n = graph.input(TensorType((2,), DType.INT64), "n")
    with pytest.raises(DTypeError, match=r"^add \(.*\): Add takes one dtype, got float32"):
        graph.add(Add(), x.value, n.value)


def test_an_error_inside_a_composite_names_the_composite() -> None:
    graph = Graph()
    x = graph.input(TensorType((2, 3)), "x")
    with pytest.raises(ShapeError) as caught:
        graph.add(Softmax(5), x.value, name="probabilities")
    assert str(caught.value).startswith(f"probabilities ({here(-1)}): ")
    assert str(caught.value).count(__file__) == 1


def test_a_convolution_that_does_not_fit_says_which_channels() -> None:
    graph = Graph()
    x = graph.input(TensorType((1, 3, 8, 8)), "x")
    w = graph.parameter(TensorType((4, 5, 3, 3)), "w")
    with pytest.raises(ShapeError, match=r"^conv \(.*has 3 channels, weight .* reads 5"):
        graph.add(Conv((1, 1), ((0, 0), (0, 0)), (1, 1)), x.value, w.value)


def test_wrong_number_of_inputs() -> None:
    graph = Graph()
    x = graph.input(TensorType(()), "x")
    with pytest.raises(QuernError, match=r"add .*: Add takes 2 inputs, got 1"):
        graph.add(Add(), x.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [(Value("y"), "no node called 'y' in graph net"), (Value("x", 1), "x has 1 outputs.*no x:1")],
)
def test_values_that_do_not_exist(value: Value, message: str) -> None:
    graph = two_layers()
    with pytest.raises(GraphError, match=message):
        graph.add(Exp(), value)


def test_values_of_another_graph() -> None:
    x = Graph("one").input(TensorType(()), "x")
    with pytest.raises(GraphError, match="x of the graph one is read in two"):
        Graph("two").apply(Exp(), x)


def test_a_name_is_taken_once() -> None:
    graph = two_layers()
    with pytest.raises(GraphError, match="already is a node called exp"):
        graph.add_node(graph.node("exp"), (Value("x"),))


# -- verification ---------------------------------------------------------------------------------


def test_a_well_formed_graph_verifies() -> None:
    graph = two_layers()
    assert graph.verify() is graph


def with_node(graph: Graph, node: Node) -> Graph:
    graph.replace_node(node)
    return graph


def test_verify_infers_types_anew() -> None:
    graph = two_layers()
    lie = replace(graph.node("exp"), types=(TensorType((9,)),))
    with pytest.raises(GraphError, match=r"exp claims types \['float32\[9\]'\], Exp gives"):
        with_node(graph, lie).verify()


def test_verify_names_the_node_that_does_not_fit() -> None:
    graph = two_layers()
    wrong = replace(graph.node("w"), op=Parameter(TensorType((4,))), types=(TensorType((4,)),))
    with pytest.raises(ShapeError, match=r"^multiply \(.*\): shapes \(2, 3\) and \(4,\)"):
        with_node(graph, wrong).verify()


def test_verify_notices_edges_that_were_changed() -> None:
    graph = two_layers()
    graph.nx.add_edge("exp", "x", output_port=0, input_port=0)
    with pytest.raises(GraphError, match="the edges into x were changed"):
        graph.verify()


def test_verify_checks_outputs_updates_and_contents() -> None:
    graph = two_layers()
    graph.outputs["z"] = Value("nowhere")
    with pytest.raises(GraphError, match="output z is nowhere, which does not exist"):
        graph.verify()
    graph = two_layers()
    graph.updates["exp"] = Value("exp")
    with pytest.raises(GraphError, match="exp is updated, but is neither parameter nor buffer"):
        graph.verify()
    graph = two_layers()
    graph.updates["w"] = Value("exp")
    with pytest.raises(GraphError, match=r"w is float32\[3\], its update is float32\[2, 3\]"):
        graph.verify()
    graph = two_layers()
    graph.data["w"] = np.ones(4, np.float32)
    with pytest.raises(GraphError, match=r"w is float32\[3\], the contents are float32\[4\]"):
        graph.verify()
    graph = two_layers()
    del graph.data["constant"]
    with pytest.raises(GraphError, match="constant constant has no contents"):
        graph.verify()


# -- order, life, copies --------------------------------------------------------------------------


@given(st.data())
def test_nodes_come_after_what_they_read(data: st.DataObject) -> None:
    graph = Graph()
    values = [graph.input(TensorType(()), "x")]
    for _ in range(data.draw(st.integers(0, 15))):
        a, b = (data.draw(st.sampled_from(values)) for _ in range(2))
        values.append(graph.apply(Add(), a, b)[0])
    order = {node.name: i for i, node in enumerate(graph.nodes())}
    assert all(order[tail] < order[head] for tail, head, _ in graph.nx.edges)
    assert nx.is_directed_acyclic_graph(graph.nx)
    graph.verify()


def test_live_is_what_outputs_and_updates_depend_on() -> None:
    graph = two_layers()
    graph.tensor(Value("x")).tanh()
    assert graph.live() == {"x", "w", "multiply", "exp", "count", "constant", "add"}
    graph.updates.clear()
    assert graph.live() == {"x", "w", "multiply", "exp"}


def test_a_state_that_is_only_written_is_live() -> None:
    graph = Graph()
    x = graph.input(TensorType(()), "x")
    graph.buffer(np.float32(0), "last")
    graph.updates["last"] = x.value
    assert graph.live() == {"x", "last"}


def test_a_copy_is_independent() -> None:
    graph = two_layers()
    other = graph.copy()
    other.outputs["z"] = other.tensor(Value("exp")).relu().value
    assert "z" not in graph.outputs
    assert [n.name for n in graph.nodes()] == [n.name for n in other.nodes()][:-1]
    assert other.add(Relu(), Value("x"))[0].node == "relu_1"


def test_with_data_replaces_contents() -> None:
    graph = two_layers()
    other = graph.with_data({"w": np.float32([0, 1, 2])})
    x = np.ones((2, 3), np.float32)
    result = evaluate(other, {"x": x}).outputs["y"]
    np.testing.assert_allclose(result, np.exp(x * [0, 1, 2]), rtol=1e-6)
    np.testing.assert_array_equal(graph.data["w"], 1)
    with pytest.raises(GraphError, match="x takes no contents"):
        graph.with_data({"x": x})
