"""Graphs survive JSON; damaged JSON is a GraphError and nothing else."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quern.compiler.autodiff import differentiate
from quern.compiler.errors import GraphError, SourceLocation
from quern.compiler.evaluate import evaluate
from quern.compiler.graph import Graph, Origin, Phase
from quern.compiler.ops.base import op_classes, op_from_json, op_to_json
from quern.compiler.ops.leaf import Constant
from quern.compiler.ops.movement import Pad, PadMode
from quern.compiler.ops.pointwise import Cast, Iota
from quern.compiler.serialize import VERSION, graph_from_json, graph_to_json
from quern.compiler.types import DType, TensorType


def network() -> Graph:
    """A training step with every kind of node, three phases, and constants of every dtype."""
    graph = Graph("small")
    x = graph.input(TensorType((2, 3)), "x")
    w = graph.parameter(np.float32([[1, 2, 3], [4, 5, 6]]), "layer.w")
    frozen = graph.parameter(TensorType((3,)), "layer.b", trainable=False)
    steps = graph.buffer(np.int64(7), "steps")
    odd = graph.constant([np.nan, -np.inf, -0.0], DType.FLOAT32, "odd")
    for dtype in DType:
        constant = graph.constant(np.arange(4).reshape(2, 2) % 2, dtype, f"of_{dtype}")
        graph.outputs[f"of_{dtype}"] = constant.value
    (padded,) = graph.apply(Pad(((0, 0), (1, 1)), PadMode.REFLECT), x * w + frozen)
    graph.outputs["odd"] = (odd + frozen).value
    graph.outputs["loss"] = padded.tanh().sum().value
    graph.updates["steps"] = (steps + 1).value
    graph = differentiate(graph, of="loss")
    with graph.scope("sgd", (Origin("layer.w"),), Phase.UPDATE):
        gradient = graph.tensor(graph.outputs["grad.layer.w"])
        new = graph.tensor(graph.outputs["loss"]).graph.tensor(graph.outputs_of("layer.w")[0])
        graph.updates["layer.w"] = (new - 0.5 * gradient).value
    return graph.verify()


def through_text(graph: Graph) -> Any:
    return json.loads(json.dumps(graph_to_json(graph), allow_nan=False))


def test_round_trip_keeps_everything_but_the_contents_of_state() -> None:
    graph = network()
    again = graph_from_json(through_text(graph))
    assert again.name == graph.name
    assert list(again.nodes()) == list(graph.nodes())
    for node in graph.nodes():
        assert again.inputs_of(node.name) == graph.inputs_of(node.name)
    assert list(again.outputs.items()) == list(graph.outputs.items())
    assert list(again.updates.items()) == list(graph.updates.items())
    constants = {n.name for n in graph.leaves(Constant)}
    assert set(again.data) == constants
    for name in constants:
        assert again.data[name].tobytes() == graph.data[name].tobytes()
        assert again.data[name].dtype == graph.data[name].dtype
        assert again.data[name].shape == graph.data[name].shape


def test_contents_of_state_come_separately_and_the_graph_computes_the_same() -> None:
    graph = network()
    contents = {name: graph.data[name] for name in ("layer.w", "steps")}
    again = graph_from_json(through_text(graph), contents)
    feeds = {"x": np.float32([[1, 2, 3], [-1, 0, 1]]), "layer.b": np.float32([0, 1, 2])}
    old, new = evaluate(graph, feeds), evaluate(again, feeds)
    for results, expected in ((new.outputs, old.outputs), (new.updates, old.updates)):
        assert results.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(results[name], array)


def test_origins_and_source_lines_are_kept() -> None:
    graph = network()
    again = graph_from_json(through_text(graph))
    origin = again.node("layer.w").origins[0]
    assert origin.name == "layer.w"
    assert origin.source is not None
    assert origin.source.file == __file__
    node = next(n for n in again.nodes() if n.phase is Phase.UPDATE)
    assert node.origins == (Origin("layer.w"),)


def test_big_endian_and_strided_constants_are_stored_alike() -> None:
    plain, swapped = Graph("g"), Graph("g")
    values = np.arange(12, dtype=np.float64).reshape(3, 4)
    plain.constant(values.T, name="c")
    swapped.constant(values.T, name="c")
    swapped.data["c"] = values.T.astype(">f8")
    assert graph_to_json(plain)["constants"] == graph_to_json(swapped)["constants"]


@pytest.mark.parametrize("value", [0.1, -0.0, float("inf"), float("-inf"), 1e-320])
def test_float_attributes_are_exact(value: float) -> None:
    op = Pad(((1, 1),), PadMode.CONSTANT, value)
    again = op_from_json(json.loads(json.dumps(op_to_json(op), allow_nan=False)))
    assert repr(again) == repr(op)


def test_nan_attribute() -> None:
    op = Pad(((1, 1),), PadMode.CONSTANT, float("nan"))
    again = op_from_json(json.loads(json.dumps(op_to_json(op), allow_nan=False)))
    assert isinstance(again, Pad)
    assert np.isnan(again.value)


@pytest.mark.parametrize("op", [Cast(DType.INT32), Iota(TensorType((2, 0), DType.INT64), 1)])
def test_dtypes_and_types_as_attributes(op: Any) -> None:
    assert op_from_json(json.loads(json.dumps(op_to_json(op)))) == op


def test_an_attribute_json_cannot_hold_is_refused_when_written() -> None:
    op = replace(Pad(((1, 1),)), value=np.ones(2))  # type: ignore[arg-type]  # which is refused
    with pytest.raises(TypeError, match="no JSON form"):
        op_to_json(op)


def test_base_classes_are_no_operations() -> None:
    assert not {"Op", "Leaf", "State", "Pointwise", "Unary", "Reduction"} & op_classes().keys()
    with pytest.raises(GraphError, match="no operation called 'Unary'"):
        op_from_json({"op": "Unary"})


@dataclass
class Damage:
    """A change of one place of the JSON, and what the error says."""

    path: tuple[Any, ...]
    value: Any
    message: str


DAMAGES = [
    Damage(("format",), "onnx", "no graph"),
    Damage(("version",), VERSION + 1, "version 2"),
    Damage(("nodes",), {}, "list was expected"),
    Damage(("nodes", 0, "name"), "layer.w", "already is a node called layer.w"),
    Damage(("nodes", 0, "name"), ["x"], "text was expected"),
    Damage(("nodes", 0, "op", "op"), "Convolve", "no operation called 'Convolve'"),
    Damage(("nodes", 0, "op", "color"), "red", "Input has no attribute color"),
    Damage(("nodes", 0, "op", "type"), [[2, -3], "float32"], "do not fit"),
    Damage(("nodes", 0, "op", "type"), [[2, 3], "float16"], "float16"),
    Damage(("nodes", 0, "op", "type"), [[2**40, 2**40], "float32"], "larger than any memory"),
    Damage(("nodes", 0, "op", "type"), [[2, 4], "float32"], "x is said to give"),
    Damage(("nodes", 0, "phase"), "sideways", "phase 'sideways'"),
    Damage(("nodes", 0, "origins"), [["x", "f.py", "one"]], "no origin"),
    Damage(("nodes", 0, "inputs"), [["x", 0]], "no node called 'x'"),
    Damage(("nodes", 1, "inputs"), [["x", 0]], "takes 0 inputs, got 1"),
    Damage(("outputs", "loss"), ["nowhere", 0], "output loss is nowhere"),
    Damage(("outputs", "loss"), ["x", 1], "output loss is x:1"),
    Damage(("outputs", "loss"), "x", "no value"),
    Damage(("updates", "x"), ["x", 0], "x is updated, but"),
    Damage(("updates", "steps"), ["x", 0], "steps is int64[], its update is float32[2, 3]"),
    Damage(("constants", "odd"), "AAAA", "its contents 3"),
    Damage(("constants", "odd"), "not base64!", "no base64"),
    Damage(("constants", "of_bool"), "AAECAA==", "neither 0 nor 1"),
    Damage(("constants", "x"), "AAAA", "no constant"),
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.message)
def test_damage_is_named(damage: Damage) -> None:
    data = through_text(network())
    place = data
    for key in damage.path[:-1]:
        place = place[key]
    place[damage.path[-1]] = damage.value
    with pytest.raises(GraphError) as caught:
        graph_from_json(data)
    assert damage.message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_constant_is_named() -> None:
    data = through_text(network())
    del data["constants"]["odd"]
    with pytest.raises(GraphError, match="constant odd has no contents"):
        graph_from_json(data)


def test_contents_that_do_not_fit_are_refused() -> None:
    data = through_text(network())
    with pytest.raises(GraphError, match=r"steps is int64\[\], the contents are int64\[1\]"):
        graph_from_json(data, {"steps": np.zeros(1, np.int64)})
    with pytest.raises(GraphError, match="no node called 'nowhere'"):
        graph_from_json(data, {"nowhere": np.zeros(1)})
    with pytest.raises(GraphError, match="x takes no contents"):
        graph_from_json(data, {"x": np.zeros((2, 3), np.float32)})


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.integers(-3, 3)
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from(["x", "layer.w", "odd", "float32", "nan", "Sum", "Reshape", "Concat"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to everything inside."""
    items = (
        data.items()
        if isinstance(data, dict)
        else enumerate(data)
        if isinstance(data, list)
        else ()
    )
    return [path, *(p for key, value in items for p in places(value, (*path, key)))]


ORIGINAL = through_text(network())
PLACES = places(ORIGINAL)[1:]


@given(st.data())
@settings(max_examples=300)
def test_mutations_load_or_raise_a_graph_error(data: st.DataObject) -> None:
    mutant = copy.deepcopy(ORIGINAL)
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(PLACES))
        try:
            place = mutant
            for key in path[:-1]:
                place = place[key]
            if data.draw(st.integers(0, 3)) == 0:
                del place[path[-1]]
            else:
                place[path[-1]] = data.draw(JUNK)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier mutation took this place away
    try:
        graph = graph_from_json(mutant)
    except GraphError:
        return
    written = through_text(graph.verify())
    assert through_text(graph_from_json(written)) == written


@given(JUNK)
def test_anything_else_is_a_graph_error(data: Any) -> None:
    with pytest.raises(GraphError):
        graph_from_json(data)


def test_deeply_nested_attributes_are_a_graph_error() -> None:
    data = through_text(network())
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    data["nodes"][0]["op"]["type"] = deep
    with pytest.raises(GraphError):
        graph_from_json(data)


def test_locations_of_other_systems_are_only_text() -> None:
    graph = Graph("g")
    with graph.scope(origins=(Origin("x", SourceLocation("C:\\net.py", 3)),)):
        graph.input(TensorType(()), "x")
    again = graph_from_json(through_text(graph))
    assert str(again.node("x").source) == "C:\\net.py:3"
    assert "net.py:3" in str(again)
