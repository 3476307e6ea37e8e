"""The import of one model: its nodes in order, each by its function of the operator table.

A value is an array where it is known at import, a weight, or a tensor of the graph. What depends on
arrays alone becomes an array again, so that shape arithmetic leaves no nodes.
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...compiler.errors import OnnxError, QuernError
from ...compiler.graph import Graph, Origin, Value
from ...compiler.ops.leaf import Input
from ...compiler.tensor import Tensor
from ...compiler.types import Array, DType, TensorType
from . import operators as operators
from .call import OPERATORS, Call, Operand, Result, Weight
from .contents import Contents, DataDependentError
from .definitions import definition, without
from .naming import node_name, sanitized
from .proto import (
    MOST_BYTES,
    GraphProto,
    ModelProto,
    NodeProto,
    attribute_value,
    onnx_package,
    to_array,
)

Scope = ChainMap[str, Operand]

# Results of more elements stay nodes of the graph: arithmetic on shapes is far smaller.
_MOST_FOLDED = 1 << 16
# Guards against files made to exhaust memory: functions that call functions, loops without end.
_MOST_NODES = 50_000
_MOST_NESTED = 40
# Numbers of an array that an operator makes at import: the matrix of a transform, a range.
_MOST_MADE = 1 << 27
# NumPy dtypes that tensors of the graph have.
_HELD = frozenset(d.numpy for d in DType)


@dataclass
class Importer:
    """An import in progress.

    Attributes:
        model: what is imported.
        folder: where its external data are.
        graph: what is built.
        titles: node of the graph -> the name it gets in the end.
    """

    model: ModelProto
    folder: Path | None
    graph: Graph
    titles: dict[str, str] = field(default_factory=dict)
    _tensors: dict[int, tuple[Operand, Tensor]] = field(default_factory=dict)
    _frames: list[_Frame] = field(default_factory=list)
    _count: int = 0

    def __post_init__(self) -> None:
        self._functions = {(f.domain, f.name): f for f in self.model.functions}
        self._versions = _versions(self.model.opset_import)
        self._contents = Contents(self.graph)

    # -- graphs and nodes --------------------------------------------------------------------------

    def initializers(self, graph: GraphProto, scope: Scope) -> None:
        """Reads the initialisers of a graph into the scope."""
        if graph.sparse_initializer:
            raise OnnxError("sparse initialisers are not supported")
        for tensor in graph.initializer:
            array = to_array(tensor, self.folder)
            learned = array.dtype.kind == "f" and array.ndim > 0
            scope[tensor.name] = Weight(tensor.name, array) if learned else array

    def run(
        self,
        nodes: Iterable[NodeProto],
        scope: Scope,
        wanted: set[str],
        versions: Mapping[str, int] | None = None,
        attributes: Mapping[str, Any] | None = None,
        depth: int = 0,
    ) -> None:
        """Imports nodes in order; their results go into the scope.

        Arguments:
            nodes: each after the nodes it reads.
            scope: values by name.
            wanted: names that are outputs.
            versions: operator set of each domain; the model's by default.
            attributes: of the function whose body the nodes are.
            depth: how many graphs and functions the nodes are nested in.
        """
        if depth > _MOST_NESTED:
            raise OnnxError(f"graphs or functions are nested more than {_MOST_NESTED} deep")
        nodes = list(nodes)
        read = wanted | {name for node in nodes for name in _read_by(node)}
        for node in nodes:
            self._count += 1
            if self._count > _MOST_NODES:
                raise OnnxError(f"the model has more than {_MOST_NODES} nodes")
            frame = _Frame(scope, read, versions or self._versions, attributes or {}, depth)
            self._import(node, frame)

    def subgraph(self, call: Call, graph: GraphProto, inputs: Sequence[Operand]) -> list[Operand]:
        """The outputs of a graph that is an attribute of a node, in the scope of that node."""
        frame = self._frames[-1]
        scope = frame.scope.new_child()
        self.initializers(graph, scope)
        if len(inputs) != len(graph.input):
            raise OnnxError(f"its graph takes {len(graph.input)} inputs, not {len(inputs)}")
        scope.update(zip((v.name for v in graph.input), inputs, strict=True))
        names = [v.name for v in graph.output]
        self.run(graph.node, scope, set(names), frame.versions, frame.attributes, frame.depth + 1)
        return [_lookup(name, scope) for name in names]

    def _import(self, node: NodeProto, frame: _Frame) -> None:
        name = node_name(node)
        where = f"{name} ({node.op_type})"
        before = len(self.graph)
        self._frames.append(frame)
        try:
            call = self._call(node, name, frame)
            prefix = self.graph.unique_name(sanitized(name))
            with self.graph.scope(prefix=prefix, origins=(Origin(name),)):
                results = self._results(node, call, frame)
        except DataDependentError as error:
            raise error.within(where) from None
        except QuernError as error:
            # An error of the graph names the graph's node; one of a nested node stands as it is.
            done = isinstance(error, OnnxError) and error.located
            raise (error if done else _located(where, error)) from None
        except RecursionError:
            raise OnnxError(f"{where}: nested too deep") from None
        except MemoryError:
            raise OnnxError(f"{where}: it takes more memory than there is") from None
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise _located(where, OnnxError(f"its inputs do not fit: {error}")) from error
        finally:
            self._frames.pop()
        self._entitle(prefix, results, before)
        for output, result in zip(node.output, results, strict=False):
            if output and result is not None:
                # What NumPy computes of scalars are no arrays.
                frame.scope[output] = (
                    np.asarray(result) if isinstance(result, np.generic) else result
                )
        missing = [o for o in node.output[len(results) :] if o in frame.read]
        if missing:
            raise OnnxError(f"{where}: its output {missing[0]} is not supported")

    def _call(self, node: NodeProto, name: str, frame: _Frame) -> Call:
        version = frame.versions.get(_domain(node.domain))
        if version is None:
            raise OnnxError(f"the model imports no operator set of the domain {node.domain!r}")
        inputs = [_lookup(i, frame.scope) if i else None for i in node.input]
        while inputs and inputs[-1] is None:
            inputs.pop()
        outputs = tuple(o in frame.read for o in node.output)
        return Call(
            self, name, node.op_type, version, tuple(inputs), self._attributes(node, frame), outputs
        )

    def _attributes(self, node: NodeProto, frame: _Frame) -> dict[str, Any]:
        decoded = {}
        for attribute in node.attribute:
            if not attribute.ref_attr_name:
                decoded[attribute.name] = attribute_value(attribute, self.folder)
            elif attribute.ref_attr_name in frame.attributes:
                decoded[attribute.name] = frame.attributes[attribute.ref_attr_name]
        return decoded

    def _results(self, node: NodeProto, call: Call, frame: _Frame) -> list[Operand | None]:
        results = _as_list(self._import_by(node, call, frame))
        for result in results:
            if isinstance(result, Tensor):
                self.check_size(result.type)
        if all(isinstance(x, np.ndarray) for x in call.inputs if x is not None):
            results = [self._folded(r) for r in results]
        return results

    def _import_by(self, node: NodeProto, call: Call, frame: _Frame) -> Result:
        """The model's own function, else ours, else the definition that ONNX gives."""
        domain = _domain(node.domain)
        function = self._functions.get((node.domain, node.op_type))
        if function is not None:
            return self._inline(function, call, frame)
        imported = OPERATORS.get((domain, node.op_type))
        if imported is not None:
            return imported(call)
        body = definition(node, call, domain)
        if body is None:
            where = f" of {domain}" if domain else ""
            raise OnnxError(f"there is no operator{where} of that name here")
        return self._inline(body, call, frame)

    def _inline(self, function: Any, call: Call, frame: _Frame) -> Result:
        """The results of a function's body."""
        scope: Scope = ChainMap({})
        for name, value in zip(function.input, call.inputs, strict=False):
            if value is not None:
                scope[name] = value
        defaults = {a.name: attribute_value(a, self.folder) for a in function.attribute_proto}
        attributes = {**defaults, **call.attributes}
        versions = {**frame.versions, **_versions(function.opset_import)}
        versions.setdefault("", onnx_package().defs.onnx_opset_version())
        left_out = {n for n in function.input if n not in scope}
        nodes = [without(node, left_out) for node in function.node]
        self.run(nodes, scope, set(function.output), versions, attributes, frame.depth + 1)
        return [scope.get(name) for name in function.output]

    def _entitle(self, prefix: str, results: list[Operand | None], before: int) -> None:
        """The node that gives the first result gets the ONNX node's own name."""
        if len(self.graph) == before:
            return
        for result in results:
            if isinstance(result, Tensor) and result.value.node.startswith(f"{prefix}."):
                self.titles.setdefault(result.value.node, prefix)
                return

    # -- values ------------------------------------------------------------------------------------

    def tensor(self, operand: Operand, learned: bool = True) -> Tensor:
        """A value as a tensor of the graph."""
        if isinstance(operand, Tensor):
            return operand
        found = self._tensors.get(id(operand))
        if found is None:
            # The operand is kept, so that its id stays its own.
            found = self._tensors[id(operand)] = operand, self._leaf(operand, learned)
        return found[1]

    def _leaf(self, operand: Array | Weight, learned: bool) -> Tensor:
        array = operand.array if isinstance(operand, Weight) else operand
        if array.dtype not in _HELD:
            raise OnnxError(f"values of {array.dtype} are not supported")
        if not isinstance(operand, Weight):
            return self.graph.constant(array)
        name = sanitized(operand.name)
        with self.graph.scope(prefix="", origins=(Origin(operand.name),)):
            if learned:
                return self.graph.parameter(array, name)
            return self.graph.buffer(array, name)

    def known(self, operand: Operand, what: str) -> Array:
        """The contents of a value.

        Raises:
            DataDependentError: they depend on an input of the network.
        """
        if isinstance(operand, np.ndarray):
            return operand
        if isinstance(operand, Weight):
            return operand.array
        inputs = self._contents.inputs_of(operand.value)
        if inputs:
            raise DataDependentError(what, inputs)
        return self._contents.of(operand.value)

    def check_size(self, type: TensorType) -> None:
        """
        Raises:
            OnnxError: a value is larger than any memory.
        """
        if type.nbytes > MOST_BYTES or max(type.shape, default=0) >= 2**40:
            raise OnnxError(f"a result of {type} is larger than any memory")

    def check_made(self, *extents: int) -> None:
        """
        Raises:
            OnnxError: an array of these extents, which the import would make, is too large.
        """
        if math.prod(extents) > _MOST_MADE:
            shape = "x".join(map(str, extents))
            raise OnnxError(f"it takes {shape} numbers that are known at import, which is too much")

    def _folded(self, result: Operand | None) -> Operand | None:
        """The contents of a small result of known numbers."""
        if isinstance(result, Tensor) and result.type.size <= _MOST_FOLDED:
            if not self._contents.inputs_of(result.value):
                return self._contents.of(result.value)
        return result

    # -- the end -----------------------------------------------------------------------------------

    def finish(self, outputs: Mapping[str, Operand]) -> Graph:
        """The graph with its outputs, without dead nodes, under readable names."""
        graph = self.graph
        graph.outputs = {name: self.tensor(value).value for name, value in outputs.items()}
        live = graph.live()
        kept = [n for n in graph.nodes() if n.name in live or isinstance(n.op, Input)]
        taken = {n.name for n in kept}
        names: dict[str, str] = {}
        for node in kept:
            title = self.titles.get(node.name)
            names[node.name] = node.name if title is None or title in taken else title
            taken.add(names[node.name])
        result = Graph(graph.name)
        for node in kept:
            inputs = tuple(Value(names[v.node], v.port) for v in graph.inputs_of(node.name))
            result.add_node(replace(node, name=names[node.name]), inputs)
            if node.name in graph.data:
                result.data[names[node.name]] = graph.data[node.name]
        result.outputs = {k: Value(names[v.node], v.port) for k, v in graph.outputs.items()}
        return result


@dataclass(frozen=True)
class _Frame:
    """What the nodes of one graph or function body see."""

    scope: Scope
    read: set[str]
    versions: Mapping[str, int]
    attributes: Mapping[str, Any]
    depth: int


def _located(where: str, error: QuernError) -> OnnxError:
    result = OnnxError(f"{where}: {error.unlocated()}")
    result.located = True
    return result


def _as_list(result: Result) -> list[Operand | None]:
    if isinstance(result, Tensor | Weight | np.ndarray | np.generic):
        return [result]
    return list(result)


def _lookup(name: str, scope: Scope) -> Operand:
    if name not in scope:
        raise OnnxError(
            f"reads {name}, which no input, initialiser or node before it gives; nodes must come "
            "after what they read"
        )
    return scope[name]


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _versions(imports: Iterable[Any]) -> dict[str, int]:
    return {_domain(o.domain): int(o.version) for o in imports}


def _read_by(node: NodeProto) -> set[str]:
    """The names a node reads, its subgraphs included."""
    names = set(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                names |= _read_by(inner)
            names |= {v.name for v in graph.output}
    return names
