"""Graphs as JSON, and back.

    {"format": "quern-graph", "version": 1, "name": "lenet",
     "nodes": [{"name": "relu1", "op": {"op": "Relu"}, "inputs": [["conv1", 0]],
                "types": ["float32[64, 6, 24, 24]"], "phase": "forward",
                "origins": [["relu1", "lenet.py", 12]]}, …],
     "outputs": {"logits": ["fc3", 0]}, "updates": {"bn1.running_mean": ["bn1", 1]},
     "constants": {"half": "AAAAPw=="}}

Contents of constants are base64 of their elements, little-endian, in row-major order; those of
parameters and buffers are large and kept elsewhere. What is read may come from a stranger: it is
checked in full, types are inferred anew, and whatever does not fit is a GraphError.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from .errors import GraphError, QuernError, SourceLocation
from .graph import Graph, Node, Origin, Phase, Value
from .ops.base import op_from_json, op_to_json
from .ops.leaf import Constant
from .types import Array, TensorType

FORMAT = "quern-graph"
VERSION = 1


def graph_to_json(graph: Graph) -> dict[str, Any]:
    """Plain JSON data: strings, integers, finite floats, lists and dicts.

    The contents of parameters and buffers are left out, those of constants are inside.
    """
    return {
        "format": FORMAT,
        "version": VERSION,
        "name": graph.name,
        "nodes": [_node_to_json(graph, node) for node in graph.nodes()],
        "outputs": {name: _value_to_json(v) for name, v in graph.outputs.items()},
        "updates": {name: _value_to_json(v) for name, v in graph.updates.items()},
        "constants": {n.name: _encode_data(graph.data[n.name]) for n in graph.leaves(Constant)},
    }


def graph_from_json(data: object, contents: Mapping[str, Array] | None = None) -> Graph:
    """The graph that `graph_to_json` was given.

    Arguments:
        data: what `json.loads` made of a file; it need not be trusted.
        contents: of parameters and buffers, by node name; those left out have none.

    Raises:
        GraphError: anything is missing, of the wrong kind, or does not fit together.
    """
    with _only_graph_errors():
        fields = _dict(data, "a graph")
        if fields.get("format") != FORMAT:
            raise GraphError("this is no graph: its JSON does not say so")
        if fields.get("version") != VERSION:
            raise GraphError(
                f"this graph has format version {fields.get('version')!r}, version {VERSION} is "
                "read; save it anew with this version of Quern"
            )
        graph = Graph(_str(fields.get("name"), "the graph's name"))
        constants = _dict(fields.get("constants"), "constants")
        for entry in _list(fields.get("nodes"), "nodes"):
            _add_node(graph, _dict(entry, "a node"))
        for name, text in constants.items():
            graph.data[name] = _decode_data(graph.node(name), text)
        graph.outputs = _named_values(fields.get("outputs"), "outputs")
        graph.updates = _named_values(fields.get("updates"), "updates")
        return graph.verify().with_data(contents or {})


@contextmanager
def _only_graph_errors() -> Iterator[None]:
    """Whatever goes wrong with data that are not trusted is a GraphError."""
    try:
        yield
    except GraphError:
        raise
    except QuernError as error:
        raise GraphError(str(error)) from error
    except Exception as error:  # attributes can be absurd in as many ways as there are operations
        raise GraphError(f"the graph is damaged: {type(error).__name__}: {error}") from error


# -- nodes ----------------------------------------------------------------------------------------


def _node_to_json(graph: Graph, node: Node) -> dict[str, Any]:
    return {
        "name": node.name,
        "op": op_to_json(node.op),
        "inputs": [_value_to_json(v) for v in graph.inputs_of(node.name)],
        "types": [str(t) for t in node.types],
        "phase": node.phase.value,
        "origins": [_origin_to_json(o) for o in node.origins],
    }


def _origin_to_json(origin: Origin) -> list[Any]:
    return [origin.name, *((origin.source.file, origin.source.line) if origin.source else ())]


def _add_node(graph: Graph, fields: dict[str, Any]) -> None:
    """Adds a node, its types inferred and compared with those that were written down."""
    name = _str(fields.get("name"), "a node's name")
    op = op_from_json(_dict(fields.get("op"), f"op of {name}"))
    inputs = [_value(v, f"inputs of {name}") for v in _list(fields.get("inputs"), "inputs")]
    origins = tuple(_origin(o, name) for o in _list(fields.get("origins"), "origins"))
    try:
        phase = Phase(fields.get("phase"))
    except ValueError:
        raise GraphError(f"{name} has no phase {fields.get('phase')!r}") from None
    source = next((o.source for o in origins if o.source), None)
    reads = [graph.type_of(v) for v in inputs]
    try:
        op.check_arity(len(reads))
        types = op.infer(*reads)
    except QuernError as error:
        raise error.at(name, source) from None
    told = fields.get("types")
    if told != [str(t) for t in types]:
        raise GraphError(f"{name} is said to give {told}, {op} gives {[str(t) for t in types]}")
    graph.add_node(Node(name, op, types, origins, phase), tuple(inputs))


def _origin(data: object, name: str) -> Origin:
    match data:
        case [str(origin)]:
            return Origin(origin)
        case [str(origin), str(file), int(line)] if type(line) is int and line >= 0:
            return Origin(origin, SourceLocation(file, line))
    raise GraphError(f"{data!r} is no origin of {name}")


# -- values and contents --------------------------------------------------------------------------


def _value_to_json(value: Value) -> list[Any]:
    return [value.node, value.port]


def _value(data: object, where: str) -> Value:
    match data:
        case [str(node), int(port)] if type(port) is int:
            return Value(node, port)
    raise GraphError(f"{data!r} in {where} is no value")


def _named_values(data: object, where: str) -> dict[str, Value]:
    return {_str(k, where): _value(v, where) for k, v in _dict(data, where).items()}


def _encode_data(array: Array) -> str:
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    return base64.b64encode(little.tobytes()).decode("ascii")


def _decode_data(node: Node, text: object) -> Array:
    type: TensorType = node.types[0]
    if not isinstance(node.op, Constant):
        raise GraphError(f"{node.name} has contents, but is no constant")
    try:
        raw = base64.b64decode(_str(text, f"contents of {node.name}"), validate=True)
    except (binascii.Error, ValueError):
        raise GraphError(f"the contents of {node.name} are no base64") from None
    if len(raw) != type.nbytes:
        raise GraphError(f"{node.name} is {type} of {type.nbytes} bytes, its contents {len(raw)}")
    stored = np.frombuffer(raw, type.dtype.numpy.newbyteorder("<"))
    if type.dtype.numpy.kind == "b" and bytes(raw).strip(b"\0\1"):
        raise GraphError(f"{node.name} is bool, its contents are neither 0 nor 1")
    return stored.astype(type.dtype.numpy).reshape(type.shape)


# -- what JSON may hold ---------------------------------------------------------------------------


def _dict(data: object, what: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise GraphError(f"{what}: an object was expected, not {type(data).__name__}")
    return data


def _list(data: object, what: str) -> list[Any]:
    if not isinstance(data, list):
        raise GraphError(f"{what}: a list was expected, not {type(data).__name__}")
    return data


def _str(data: object, what: str) -> str:
    if not isinstance(data, str):
        raise GraphError(f"{what}: text was expected, not {type(data).__name__}")
    return data
