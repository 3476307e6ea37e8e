"""Networks declared as bare networkx graphs, and back.

    net = nx.DiGraph(name="perceptron")
    net.add_node("x", op="input", shape=(1, 3))
    net.add_node("w", op="parameter", shape=(3, 1))
    net.add_node("y", op="matmul")
    net.add_edge("x", "y")
    net.add_edge("w", "y")
    graph = from_networkx(net)

A node's `op` is an operation's name (`LogSoftmax`, `log_softmax`), the other attributes are the
operation's own. Leaves take `shape`, `dtype` and `value`, parameters `trainable`. An attribute
`name` overrules the node's key; `output=True`, or `output="logits"`, makes an output, and where no
node is marked, those that nothing reads are outputs.

An edge may say which output of its tail (`output_port`, default 0) goes into which input of its
head (`input_port`; a tuple where one value is read several times). Edges that do not say take the
inputs that are left, in the order they were added. The graph's own attributes may give `outputs`
and `updates`, mappings to a node or to (node, port).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from difflib import get_close_matches
from enum import Enum
from typing import Any, TypeAlias, get_args, get_origin

import networkx as nx
import numpy as np

from ..compiler.errors import GraphError, SourceLocation
from ..compiler.graph import Graph, Node, Origin, Phase, Value
from ..compiler.ops.base import Op, field_types, op_classes, op_from_json, op_to_json, short_name
from ..compiler.ops.leaf import Constant, Input, Leaf, State
from ..compiler.ops.movement import Pad
from ..compiler.types import Array, DType, TensorType

Key: TypeAlias = Hashable
DiGraph: TypeAlias = "nx.DiGraph[Any]"

# Attributes of nodes that are not the operation's.
_OWN = frozenset({"op", "name", "output", "value", "phase", "origins"})
# Attributes with one entry a spatial axis: a single number stands for all of them.
_SPATIAL = frozenset({"kernel", "stride", "padding", "dilation", "output_padding", "output_size"})


def from_networkx(source: DiGraph, name: str | None = None) -> Graph:
    """The graph that a networkx graph declares.

    Arguments:
        source: a DiGraph or MultiDiGraph; stays as it is.
        name: of the graph; by default the source's own attribute `name`.

    Raises:
        GraphError: an unknown operation or attribute, a missing shape, a cycle, clashing ports.
        ShapeError, DTypeError: an operation does not take what it reads; the node is named.
    """
    graph = Graph(name or str(source.graph.get("name") or "graph"))
    names = _names(source)
    values: dict[Key, tuple[Value, ...]] = {}
    for key in _in_order(source, names):
        inputs = [_port(values[k], port, names[k]) for k, port in _inputs(source, key, names)]
        values[key] = _add(graph, names[key], source.nodes[key], inputs)
    graph.outputs = _outputs(source, names, values)
    for state, target in _mapping(source, "updates").items():
        (updated,) = _find(state, values, "updates")[:1]
        graph.updates[updated.node] = _target(target, values, "updates")
    return graph.verify()


def to_networkx(graph: Graph) -> DiGraph:
    """A DiGraph that `from_networkx` makes the same graph of, contents and provenance included."""
    result: DiGraph = nx.DiGraph(
        name=graph.name,
        outputs={name: (v.node, v.port) for name, v in graph.outputs.items()},
        updates={name: (v.node, v.port) for name, v in graph.updates.items()},
    )
    for node in graph.nodes():
        result.add_node(node.name, **_attributes_of(graph, node))
        ports: dict[str, list[tuple[int, int]]] = {}
        for port, value in enumerate(graph.inputs_of(node.name)):
            ports.setdefault(value.node, []).append((value.port, port))
        for tail, pairs in ports.items():
            outputs, inputs = zip(*pairs, strict=True)
            single = len(pairs) == 1
            result.add_edge(
                tail,
                node.name,
                output_port=outputs[0] if single else outputs,
                input_port=inputs[0] if single else inputs,
            )
    return result


# -- the source's shape ---------------------------------------------------------------------------


def _names(source: DiGraph) -> dict[Key, str]:
    """Each node's name in the graph."""
    names = {key: str(attributes.get("name", key)) for key, attributes in source.nodes(data=True)}
    seen: dict[str, Key] = {}
    for key, name in names.items():
        if name in seen:
            raise GraphError(f"nodes {seen[name]!r} and {key!r} are both called {name}")
        seen[name] = key
    return names


def _in_order(source: DiGraph, names: Mapping[Key, str]) -> list[Key]:
    """All nodes, each after those it reads, otherwise as they were added."""
    position = {key: i for i, key in enumerate(source)}
    try:
        return list(nx.lexicographical_topological_sort(source, key=position.__getitem__))
    except nx.NetworkXUnfeasible:
        cycle = [names[tail] for tail, *_ in nx.find_cycle(source)]
        raise GraphError(
            f"the nodes {' -> '.join([*cycle, cycle[0]])} form a cycle; a network is acyclic, "
            "unroll it over its steps"
        ) from None


def _inputs(source: DiGraph, key: Key, names: Mapping[Key, str]) -> list[tuple[Key, int]]:
    """What a node reads, as (node, output port), by input port."""
    taken: dict[int, tuple[Key, int]] = {}
    waiting: list[tuple[Key, int]] = []
    for tail, _, edge in source.in_edges(key, data=True):
        where = f"the edge {names[tail]} -> {names[key]}"
        outputs = _ports(edge.get("output_port", 0), f"output_port of {where}")
        if edge.get("input_port") is None:
            waiting += [(tail, port) for port in outputs]
            continue
        inputs = _ports(edge["input_port"], f"input_port of {where}")
        if len(outputs) == 1:
            outputs *= len(inputs)
        if len(outputs) != len(inputs):
            raise GraphError(f"{where} has {len(outputs)} output ports, {len(inputs)} input ports")
        for output, port in zip(outputs, inputs, strict=True):
            if port in taken:
                raise GraphError(
                    f"{names[taken[port][0]]} and {names[tail]} both go into input {port} of "
                    f"{names[key]}; give their edges different input_port"
                )
            taken[port] = (tail, output)
    free = (port for port in range(len(taken) + len(waiting)) if port not in taken)
    taken |= dict(zip(free, waiting, strict=False))
    missing = set(range(len(taken))) - set(taken)
    if missing:
        raise GraphError(f"nothing goes into input {min(missing)} of {names[key]}")
    return [taken[port] for port in range(len(taken))]


def _ports(given: object, where: str) -> tuple[int, ...]:
    ports = given if isinstance(given, tuple | list) else (given,)
    if not ports or any(type(p) is not int or p < 0 for p in ports):
        raise GraphError(f"{where} is {given!r}; a port is a number from 0")
    return tuple(ports)


def _port(values: tuple[Value, ...], port: int, name: str) -> Value:
    if port >= len(values):
        raise GraphError(f"{name} has {len(values)} outputs, there is no output {port}")
    return values[port]


# -- outputs and updates --------------------------------------------------------------------------


def _outputs(
    source: DiGraph, names: Mapping[Key, str], values: Mapping[Key, tuple[Value, ...]]
) -> dict[str, Value]:
    declared = {
        str(name): _target(target, values, "outputs")
        for name, target in _mapping(source, "outputs").items()
    }
    for key, attributes in source.nodes(data=True):
        mark = attributes.get("output")
        if mark is not None and mark is not False:
            declared[names[key] if mark is True else str(mark)] = _port(values[key], 0, names[key])
    if declared or "outputs" in source.graph:
        return declared
    return {str(v): v for key in source if source.out_degree(key) == 0 for v in values[key]}


def _mapping(source: DiGraph, what: str) -> Mapping[Any, Any]:
    found = source.graph.get(what, {})
    if not isinstance(found, Mapping):
        raise GraphError(f"the graph's attribute {what} is {found!r}; a mapping was expected")
    return found


def _target(target: Any, values: Mapping[Key, tuple[Value, ...]], what: str) -> Value:
    """The value that a node's key, or (key, port), stands for."""
    pair = isinstance(target, tuple | list) and len(target) == 2
    if pair and not (isinstance(target, Hashable) and target in values):
        (port,) = _ports(target[1], f"port in {what}")
        return _port(_find(target[0], values, what), port, str(target[0]))
    return _port(_find(target, values, what), 0, str(target))


def _find(key: Any, values: Mapping[Key, tuple[Value, ...]], what: str) -> tuple[Value, ...]:
    try:
        return values[key]
    except (KeyError, TypeError):
        raise GraphError(f"{what} names the node {key!r}, which does not exist") from None


# -- nodes ----------------------------------------------------------------------------------------


def _add(
    graph: Graph, name: str, attributes: Mapping[str, Any], inputs: list[Value]
) -> tuple[Value, ...]:
    cls = _op_class(attributes.get("op"), name)
    plain = {k: _plain(v) for k, v in attributes.items() if k not in _OWN}
    data = _contents(cls, attributes, plain, name)
    fields = _fields(cls, plain, name, [graph.type_of(v).rank for v in inputs])
    try:
        op = op_from_json({"op": cls.__name__} | fields)
    except GraphError as error:
        raise error.at(name, None) from None
    origins, phase = _provenance(attributes, name)
    with graph.scope("", origins, phase):
        result = graph.add(op, *inputs, name=name)
    if data is not None:
        graph.data[name] = data
    return result


def _op_class(op: object, name: str) -> type[Op]:
    if op is None:
        raise GraphError(f"{name} has no attribute op; say what it computes, or op='input'")
    classes = {short_name(n): cls for n, cls in op_classes().items()}
    wanted = short_name(str(op))
    for name_of, cls in classes.items():
        if name_of.replace("_", "") == wanted.replace("_", ""):
            return cls
    near = get_close_matches(wanted, classes, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise GraphError(f"{name}: there is no operation called {str(op)!r}{hint}")


def _fields(cls: type[Op], given: dict[str, Any], name: str, ranks: list[int]) -> dict[str, Any]:
    """The attributes as `op_from_json` takes them: shorthands written out."""
    types = field_types(cls)
    given = dict(given)
    if types.get("type") is TensorType:
        given["type"] = _type(given, name)
    for key in given:
        if key not in types:
            near = get_close_matches(key, types, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise GraphError(f"{name}: {cls.__name__} has no attribute {key!r}{hint}")
    rank = max(ranks[0] - (0 if issubclass(cls, Pad) else 2), 1) if ranks else 1
    for key, default in (("stride", given.get("kernel", 1)), ("padding", 0), ("dilation", 1)):
        if key in types and not hasattr(cls, key):
            given.setdefault(key, default)
    return {k: _spread(v, types[k], rank if k in _SPATIAL else 1) for k, v in given.items()}


def _type(given: dict[str, Any], name: str) -> list[Any]:
    shape = given.pop("shape", None)
    if shape is None:
        raise GraphError(f"{name} has neither shape nor value; give shape=(…), () for a scalar")
    dtype = DType.of(given.pop("dtype", "float32"))
    return [shape if isinstance(shape, list) else [shape], dtype.value]


def _spread(value: Any, hint: Any, rank: int) -> Any:
    """A number where a tuple is declared is every entry of it; in a pair, both sides."""
    if get_origin(hint) is not tuple:
        return value
    inner = get_args(hint)[0]
    entries = value if isinstance(value, list) else [value] * rank
    if get_origin(inner) is tuple:
        return [e if isinstance(e, list) else [e, e] for e in entries]
    return entries


def _contents(
    cls: type[Op], attributes: Mapping[str, Any], plain: dict[str, Any], name: str
) -> Array | None:
    """The contents of a leaf, whose shape and dtype they then give."""
    if "value" not in attributes:
        if issubclass(cls, Constant):
            raise GraphError(f"{name} is a constant without value; give value=…")
        return None
    if not issubclass(cls, State | Constant):
        raise GraphError(f"{name}: {cls.__name__} takes no value; only state and constants do")
    value = attributes["value"]
    # Python's own numbers are of the network's usual type, arrays keep theirs.
    dtype = plain.get("dtype") or ("float32" if not hasattr(value, "dtype") else value.dtype)
    data = np.array(value, dtype=DType.of(dtype).numpy)
    plain["dtype"] = DType.of(dtype).value
    if plain.setdefault("shape", list(data.shape)) != list(data.shape):
        raise GraphError(f"{name} has shape {tuple(plain['shape'])}, its value {data.shape}")
    return data


def _provenance(
    attributes: Mapping[str, Any], name: str
) -> tuple[tuple[Origin, ...] | None, Phase | None]:
    try:
        phase = Phase(attributes["phase"]) if "phase" in attributes else None
        origins = tuple(
            Origin(str(n), SourceLocation(*place) if place else None)
            for n, *place in attributes.get("origins", ())
        )
    except (TypeError, ValueError):
        raise GraphError(f"{name}: phase or origins are not as to_networkx writes them") from None
    return origins or None, phase


def _attributes_of(graph: Graph, node: Node) -> dict[str, Any]:
    fields = op_to_json(node.op)
    if "type" in fields:
        shape, dtype = fields.pop("type")
        fields |= {"shape": tuple(shape), "dtype": dtype}
    if isinstance(node.op, Leaf) and not isinstance(node.op, Input) and node.name in graph.data:
        fields["value"] = graph.data[node.name]
    return fields | {
        "phase": node.phase.value,
        "origins": tuple(
            (o.name, o.source.file, o.source.line) if o.source else (o.name,) for o in node.origins
        ),
    }


def _plain(value: Any) -> Any:
    """NumPy's and Python's numbers, tuples and enums as JSON has them."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, DType | Enum):
        return value.value
    if isinstance(value, type) and issubclass(value, np.generic):
        return DType.of(value).value
    if isinstance(value, np.dtype):
        return DType.of(value).value
    if isinstance(value, Iterable) and not isinstance(value, str | Mapping):
        return [_plain(v) for v in value]
    return value
