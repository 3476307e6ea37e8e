"""A graph inside an operation: the body of a recurrence, as an attribute like any other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

from .errors import GraphError
from .ops.base import Structured

if TYPE_CHECKING:
    from .graph import Graph, Node
    from .tensor import Tensor
    from .types import TensorType


@dataclass(frozen=True)
class Body(Structured):
    """A frozen graph: equal and hashed by what it computes and how its nodes are called.

    It has inputs and constants as leaves, and no state: what it keeps is handed in and out. Where
    its nodes were declared is not part of it, the node that has it knows.

    Arguments:
        text: the graph as JSON in its one canonical form; use `Body.of`.
    """

    text: str

    @classmethod
    def of(cls, graph: Graph) -> Self:
        """The body that computes what a graph does; inputs and outputs keep their order.

        Raises:
            GraphError: the graph has parameters, buffers or updates.
        """
        from .graph import Phase
        from .ops.leaf import State
        from .rewrite import rewrite
        from .serialize import graph_to_json

        states = [n.name for n in graph.leaves(State)]
        if states or graph.updates:
            raise GraphError(
                f"the body {graph.name} has the state {', '.join(states or graph.updates)}; "
                "hand it in as an input"
            )
        live = rewrite(graph)
        plain = type(graph)(graph.name, outputs=live.outputs, data=live.data)
        for node in live.nodes():
            bare = replace(node, origins=(), phase=Phase.FORWARD)
            plain.add_node(bare, live.inputs_of(node.name))
        return cls(json.dumps(graph_to_json(plain), separators=(",", ":")))

    @property
    def graph(self) -> Graph:
        """The graph, shared: not to be changed."""
        return _graph_of(self.text)

    @property
    def inputs(self) -> tuple[TensorType, ...]:
        """The types of what it reads, in order."""
        from .ops.leaf import Input

        return tuple(n.types[0] for n in self.graph.leaves(Input))

    @property
    def outputs(self) -> tuple[TensorType, ...]:
        """The types of what it gives, in order."""
        return tuple(self.graph.type_of(v) for v in self.graph.outputs.values())

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of what it reads, in order."""
        from .ops.leaf import Input

        return tuple(n.name for n in self.graph.leaves(Input))

    def reordered(self, order: Sequence[int]) -> Self:
        """The same, with its inputs in another order: first the one of number `order[0]`, …."""
        graph = type(self.graph)(self.graph.name)
        given = {i: graph.input(self.inputs[i], self.input_names[i]) for i in order}
        found = inline(self.graph, graph, [given[i] for i in range(len(order))])
        graph.outputs = {name: t.value for name, t in zip(self.graph.outputs, found, strict=True)}
        return self.of(graph)

    def to_json(self) -> Any:
        return json.loads(self.text)

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """
        Raises:
            GraphError: it is no graph, or one that cannot be a body.
        """
        from .serialize import graph_from_json

        return cls.of(graph_from_json(data))

    def __str__(self) -> str:
        return self.graph.name


@lru_cache(maxsize=1024)
def _graph_of(text: str) -> Graph:
    from .serialize import graph_from_json

    return graph_from_json(json.loads(text))


def inline(body: Graph, graph: Graph, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Copies what a body computes into a graph, under the names and the scope that hold there.

    Arguments:
        body: has inputs and constants as leaves.
        graph: is added to.
        inputs: what stands for the body's inputs, in order.

    Returns:
        The body's outputs.
    """
    from .graph import Value
    from .ops.leaf import Constant, Input

    given = iter(inputs)
    values: dict[Value, Tensor] = {}
    for node in body.nodes():
        if isinstance(node.op, Input):
            values[Value(node.name)] = next(given)
            continue
        results = inline_node(node, graph, [values[v] for v in body.inputs_of(node.name)])
        values.update(zip(body.outputs_of(node.name), results, strict=True))
        if isinstance(node.op, Constant):
            graph.data[results[0].value.node] = body.data[node.name]
    return [values[v] for v in body.outputs.values()]


def inline_node(node: Node, graph: Graph, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Copies one node of a body into a graph, without the contents of constants."""
    from .graph import Origin, user_location

    scope = graph._scope
    name = graph.unique_name(node.name, scope.prefix)
    origins = scope.origins or (Origin(name, user_location()),)
    copy = replace(node, name=name, origins=origins, phase=scope.phase)
    return [graph.tensor(v) for v in graph.add_node(copy, tuple(x.value for x in inputs))]
