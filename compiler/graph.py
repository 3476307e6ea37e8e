"""The DAG: typed nodes over a `networkx.MultiDiGraph`, with named outputs and state updates.

A graph is built by `add` alone, and a node can only read nodes that are there: the order of
insertion is a topological order, and a cycle cannot be written down. Passes never change a graph,
they build another one (`rewrite.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from .errors import DTypeError, GraphError, QuernError
from .node import Node, Origin, Phase, Scope, Use, Value, merge_origins
from .ops.base import Op
from .ops.leaf import Buffer, Constant, Input, Leaf, Parameter, State
from .source import user_location
from .types import Array, DType, TensorType

if TYPE_CHECKING:
    from networkx import MultiDiGraph

    from .tensor import Tensor

__all__ = [
    "Graph",
    "Node",
    "Origin",
    "Phase",
    "Scope",
    "Value",
    "merge_origins",
    "user_location",
]


@dataclass(eq=False)
class Graph:
    """A network, or a whole training step, as a DAG.

    Attributes:
        name: of the network.
        outputs: name -> value.
        updates: name of a state node -> the value that replaces it after a run.
        data: contents of constants, and initial contents of parameters and buffers, by node name.
    """

    name: str = "graph"
    outputs: dict[str, Value] = field(default_factory=dict)
    updates: dict[str, Value] = field(default_factory=dict)
    data: dict[str, Array] = field(default_factory=dict)
    _nodes: dict[str, Node] = field(default_factory=dict, repr=False)
    _inputs: dict[str, tuple[Value, ...]] = field(default_factory=dict, repr=False)
    _outputs: dict[str, tuple[Value, ...]] = field(default_factory=dict, repr=False)
    _uses: dict[str, list[Use]] = field(default_factory=dict, repr=False)
    _nx: MultiDiGraph[str] | None = field(default=None, repr=False)
    _scope: Scope = field(default_factory=Scope, repr=False)
    _counters: dict[str, int] = field(default_factory=dict, repr=False)
    _reserved: set[str] = field(default_factory=set, repr=False)
    # Of a body while it is built: the graph around it, and what brings values from there.
    _around: tuple[Graph, Callable[[Tensor], Tensor]] | None = field(default=None, repr=False)

    # -- building ---------------------------------------------------------------------------------

    def add(self, op: Op, *inputs: Value, name: str | None = None) -> tuple[Value, ...]:
        """A new node.

        Arguments:
            op: what it computes.
            inputs: what it reads, in order.
            name: made unique by a number when taken; the operation's short name by default.

        Returns:
            Its outputs.

        Raises:
            ShapeError, DTypeError: what clashes, with the node's name and the user's line.
            GraphError: an input that is no value of this graph.
        """
        scope = self._scope
        unique = self.unique_name(name or op.short_name, scope.prefix)
        origins = scope.origins or (Origin(unique, user_location()),)
        try:
            op.check_arity(len(inputs))
            types = op.infer(*(self.type_of(v) for v in inputs))
        except QuernError as error:
            raise error.at(unique, origins[0].source) from None
        return self.add_node(Node(unique, op, types, origins, scope.phase), inputs)

    def add_node(self, node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...]:
        """A node as it is, its types taken on trust; its name must be free."""
        name = node.name
        if name in self._nodes:
            raise GraphError(f"there already is a node called {name}")
        for value in inputs:
            self.type_of(value)
        self._nodes[name] = node
        self._inputs[name] = tuple(inputs)
        self._uses[name] = []
        for port, value in enumerate(inputs):
            self._uses[value.node].append(Use(value.port, name, port))
        if self._nx is not None:
            self._draw(self._nx, node)
        results = tuple([Value(name, port) for port in range(len(node.types))])
        self._outputs[name] = results
        return results

    def replace_node(self, node: Node) -> None:
        """Another record, of other origins, for the node of that name."""
        self._nodes[node.name] = node
        if self._nx is not None:
            self._nx.nodes[node.name]["node"] = node

    def apply(self, op: Op, *inputs: Tensor, name: str | None = None) -> tuple[Tensor, ...]:
        """`add` for symbolic tensors of this graph; where some are of a body in it that is being
        built, they meet there.
        """
        if any(t.graph is not self for t in inputs):
            inner = next((t.graph for t in inputs if t.graph._lies_in(self)), None)
            if inner is not None:
                return inner.apply(op, *inputs, name=name)
            inputs = tuple(self.own(t) for t in inputs)
        values = self.add(op, *(t.value for t in inputs), name=name)
        results = tuple(self.tensor(v) for v in values)
        if not (self._scope.detached and op.differentiable):
            return results
        return tuple(t.detach() if t.dtype.is_float else t for t in results)

    def own(self, tensor: Tensor) -> Tensor:
        """The tensor itself, or what stands for it in the body that this is.

        Raises:
            GraphError: it is of a graph that is not around this one.
        """
        if tensor.graph is self:
            return tensor
        if self._around is None:
            raise GraphError(
                f"{tensor.value} of the graph {tensor.graph.name} is read in {self.name}; what a "
                "step or a function computes leaves it as one of its results"
            )
        around, bring = self._around
        return bring(around.own(tensor))

    def _lies_in(self, other: Graph) -> bool:
        """Whether it is a body in another graph that is being built."""
        around = self._around and self._around[0]
        return around is not None and (around is other or around._lies_in(other))

    def tensor(self, value: Value) -> Tensor:
        """The value as a symbolic tensor, on which arithmetic builds nodes."""
        from .tensor import Tensor

        return Tensor(self, value)

    def input(self, type: TensorType, name: str = "input") -> Tensor:
        """A new input node."""
        return self.tensor(self.add(Input(type), name=name)[0])

    def parameter(
        self, value: Array | TensorType, name: str = "parameter", trainable: bool = True
    ) -> Tensor:
        """A new parameter; an array gives its initial contents."""
        return self._state(Parameter(_type_of_data(value), trainable), value, name)

    def buffer(self, value: Array | TensorType, name: str = "buffer") -> Tensor:
        """A new buffer; an array gives its initial contents."""
        return self._state(Buffer(_type_of_data(value)), value, name)

    def constant(self, value: object, dtype: DType | None = None, name: str = "constant") -> Tensor:
        """A new constant from anything NumPy takes as an array; the contents are copied."""
        try:
            array = np.array(value, dtype=dtype.numpy if dtype else None)
        except (OverflowError, ValueError) as error:  # 256 in bytes, infinity in integers
            raise DTypeError(f"{value!r} is no {dtype}: {error}; cast the tensor first") from None
        return self._state(Constant(_type_of_data(array)), array, name)

    def _state(self, op: Leaf, value: Array | TensorType, name: str) -> Tensor:
        (result,) = self.add(op, name=name)
        if not isinstance(value, TensorType):
            self.data[result.node] = value
        return self.tensor(result)

    @contextmanager
    def scope(
        self,
        prefix: str | None = None,
        origins: tuple[Origin, ...] | None = None,
        phase: Phase | None = None,
        detached: bool | None = None,
    ) -> Iterator[None]:
        """Nodes added inside get this name prefix, these origins and this phase; no gradient flows
        through tensors that are made inside of a detached scope.
        """
        outer = self._scope
        self._scope = Scope(
            outer.prefix if prefix is None else prefix,
            outer.origins if origins is None else origins,
            outer.phase if phase is None else phase,
            outer.detached if detached is None else detached,
        )
        try:
            yield
        finally:
            self._scope = outer

    def unique_name(self, name: str, prefix: str = "") -> str:
        """`prefix.name`, with a number behind it when that is taken or reserved."""
        base = f"{prefix}.{name}" if prefix else name
        unique = base
        while unique in self._nodes or unique in self._reserved:
            self._counters[base] = self._counters.get(base, 0) + 1
            unique = f"{base}_{self._counters[base]}"
        return unique

    # -- reading ----------------------------------------------------------------------------------

    @property
    def nx(self) -> MultiDiGraph[str]:
        """The graph as a `networkx.MultiDiGraph`, made when it is first asked for: a node's
        attribute `node` is its Node, an edge has `output_port` and `input_port`.
        """
        if self._nx is None:
            from networkx import MultiDiGraph

            self._nx = MultiDiGraph()
            for node in self.nodes():
                self._draw(self._nx, node)
        return self._nx

    def _draw(self, picture: MultiDiGraph[str], node: Node) -> None:
        picture.add_node(node.name, node=node)
        for port, value in enumerate(self._inputs[node.name]):
            picture.add_edge(value.node, node.name, output_port=value.port, input_port=port)

    def __contains__(self, what: object) -> bool:
        """Whether there is a node of that name, or that value."""
        if isinstance(what, Value):
            return what.node in self._nodes and 0 <= what.port < len(self.node(what.node).types)
        return what in self._nodes

    def __len__(self) -> int:
        return len(self._nodes)

    def node(self, name: str) -> Node:
        """
        Raises:
            GraphError: when there is no node of that name.
        """
        try:
            return self._nodes[name]
        except KeyError:
            raise GraphError(f"there is no node called {name!r} in graph {self.name}") from None

    def nodes(self) -> Iterator[Node]:
        """All nodes, each after the nodes it reads."""
        yield from self._nodes.values()

    def newest(self, count: int) -> list[Node]:
        """The nodes that were added last, in order."""
        return list(islice(reversed(self._nodes.values()), count))[::-1]

    def inputs_of(self, name: str) -> tuple[Value, ...]:
        """What a node reads, in order."""
        return self._inputs[name]

    def outputs_of(self, name: str) -> tuple[Value, ...]:
        """The values a node gives.

        Raises:
            GraphError: when there is no node of that name.
        """
        self.node(name)
        return self._outputs[name]

    def users_of(self, name: str) -> list[str]:
        """Names of the nodes that read any output of `name`, in order, each once."""
        return list(dict.fromkeys([use.user for use in self._uses[name]]))

    def uses_of(self, value: Value) -> list[tuple[str, int]]:
        """(node, input port) of every use of one output."""
        return [(u.user, u.input_port) for u in self._uses[value.node] if u.port == value.port]

    def producer(self, value: Value) -> Node:
        """The node that gives `value`."""
        return self.node(value.node)

    def type_of(self, value: Value) -> TensorType:
        """
        Raises:
            GraphError: when the value does not exist.
        """
        types = self.node(value.node).types
        if not 0 <= value.port < len(types):
            raise GraphError(f"{value.node} has {len(types)} outputs, there is no {value}")
        return types[value.port]

    def leaves(self, kind: type[Leaf]) -> list[Node]:
        """The nodes of one kind: Input, Parameter, Buffer, State, Constant."""
        return [n for n in self.nodes() if isinstance(n.op, kind)]

    def live(self) -> set[str]:
        """Names of the nodes that outputs or updates depend on, and of updated states."""
        roots = [v.node for v in (*self.outputs.values(), *self.updates.values())]
        roots += self.updates
        found: set[str] = set()
        while roots:
            name = roots.pop()
            if name not in found:
                found.add(name)
                roots.extend(v.node for v in self._inputs[name])
        return found

    def verify(self) -> Graph:
        """The graph itself, when it is well formed.

        Raises:
            GraphError: what is wrong, with the node.
            ShapeError, DTypeError: an operation does not take what it reads.
        """
        seen: set[str] = set()
        for node in self.nodes():
            self._verify_node(node, seen)
            seen.add(node.name)
        for name, value in self.outputs.items():
            if value not in self:
                raise GraphError(f"output {name} is {value}, which does not exist")
        for name, value in self.updates.items():
            if not isinstance(self.node(name).op, State):
                raise GraphError(f"{name} is updated, but is neither parameter nor buffer")
            if self.type_of(value) != self.node(name).types[0]:
                raise GraphError(
                    f"{name} is {self.node(name).types[0]}, its update is {self.type_of(value)}"
                )
        for name, array in self.data.items():
            if not isinstance(self.node(name).op, State | Constant):
                raise GraphError(f"{name} has contents, but is neither state nor constant")
            self._check_contents(name, array)
        return self

    def _verify_node(self, node: Node, seen: set[str]) -> None:
        inputs = self._inputs[node.name]
        late = [v.node for v in inputs if v.node not in seen]
        if late:
            raise GraphError(f"{node.name} reads {late[0]}, which comes after it")
        edges = self._nx.in_edges(node.name, data=True) if self._nx is not None else None
        if edges is not None and sorted(
            (e["input_port"], Value(u, e["output_port"])) for u, _, e in edges
        ) != list(enumerate(inputs)):
            raise GraphError(f"the edges into {node.name} were changed; build a new graph instead")
        try:
            node.op.check_arity(len(inputs))
            inferred = node.op.infer(*(self.type_of(v) for v in inputs))
        except QuernError as error:
            raise error.at(node.name, node.source) from None
        if inferred != node.types:
            told, right = ([str(t) for t in ts] for ts in (node.types, inferred))
            raise GraphError(f"{node.name} claims types {told}, {node.op} gives {right}")
        if isinstance(node.op, Constant) and node.name not in self.data:
            raise GraphError(f"constant {node.name} has no contents")

    def _check_contents(self, name: str, array: Array) -> None:
        expected = self.node(name).types[0]
        if _type_of_data(array) != expected:
            raise GraphError(f"{name} is {expected}, the contents are {_type_of_data(array)}")

    def copy(self) -> Graph:
        """The same nodes in a graph of its own; contents are shared."""
        other = Graph(self.name, data=dict(self.data))
        for node in self.nodes():
            other.add_node(node, self._inputs[node.name])
        other.outputs = dict(self.outputs)
        other.updates = dict(self.updates)
        other._counters = dict(self._counters)
        return other

    def with_data(self, data: Mapping[str, Array]) -> Graph:
        """A copy whose parameters and buffers start from `data`, by node name.

        Raises:
            GraphError: a name is no parameter or buffer, or its contents are of another type.
        """
        other = self.copy()
        for name, array in data.items():
            if not isinstance(other.node(name).op, State):
                raise GraphError(f"{name} takes no contents: it is neither parameter nor buffer")
            other._check_contents(name, array)
            other.data[name] = array
        return other

    def __str__(self) -> str:
        from .printer import print_graph

        return print_graph(self)


def _type_of_data(value: Array | TensorType) -> TensorType:
    if isinstance(value, TensorType):
        return value
    return TensorType(tuple(value.shape), DType.of(value.dtype))
