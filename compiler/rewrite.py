"""The one way graphs are changed: copied node by node, with some nodes replaced.

A rule looks at one node, with its inputs as they are in the new graph, and either leaves it (None)
or builds its replacement there. Names, origins and phases are carried over, dead nodes are left
behind.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from .graph import Graph, Node, Scope, Value, merge_origins
from .ops.leaf import Input, Leaf
from .tensor import Tensor


@dataclass
class Rewriter:
    """A copy in progress. Names of the old graph are kept free for the nodes that have them.

    Attributes:
        old: the graph that is copied.
        new: the graph that is built.
        values: where the values of the old graph are in the new one.
    """

    old: Graph
    new: Graph
    values: dict[Value, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.new._reserved.update([n.name for n in self.old.nodes() if n.name not in self.new])

    def inputs(self, node: Node) -> tuple[Tensor, ...]:
        """What an old node reads, in the new graph."""
        return tuple([Tensor(self.new, self.values[v]) for v in self.old.inputs_of(node.name)])

    def keep(self, node: Node) -> tuple[Value, ...]:
        """The node as it is, on its new inputs."""
        inputs = tuple([self.values[v] for v in self.old.inputs_of(node.name)])
        results = self.new.add_node(node, inputs)
        if isinstance(node.op, Leaf) and node.name in self.old.data:
            self.new.data[node.name] = self.old.data[node.name]
        return results

    def copy(self, node: Node, rule: Rule | None = None) -> None:
        """One step: the node's replacement by `rule`, or the node itself."""
        self.new._reserved.discard(node.name)
        results = None
        if rule is not None:
            outer = self.new._scope
            self.new._scope = Scope(node.name, node.origins, node.phase)
            results = rule(self, node)
            self.new._scope = outer
        if results is None:
            for value in self.keep(node):  # its name is the same
                self.values[value] = value
            return
        values = [r.value for r in results]
        for old, new in zip(self.old.outputs_of(node.name), values, strict=True):
            self.values[old] = new
        self._inherit(node, values)

    def _inherit(self, node: Node, values: Sequence[Value]) -> None:
        """A node that stands in for another one remembers that one's origins too."""
        for value in values:
            producer = self.new.node(value.node)
            if isinstance(producer.op, Leaf):
                continue
            origins = merge_origins(producer, node)
            if origins != producer.origins:
                self.new.replace_node(replace(producer, origins=origins))

    def finish(self) -> Graph:
        """The new graph, with outputs and updates."""
        self.new._reserved.clear()
        self.new.outputs = {k: self.values[v] for k, v in self.old.outputs.items()}
        self.new.updates = {k: self.values[v] for k, v in self.old.updates.items()}
        return self.new


Rule = Callable[[Rewriter, Node], Sequence[Tensor] | None]


def rewrite(graph: Graph, rule: Rule | None = None, keep: Collection[str] = ()) -> Graph:
    """A copy of the live part of a graph, with nodes replaced by `rule`. Inputs always stay.

    Arguments:
        graph: stays as it is.
        rule: gets the rewriter and the old node; returns the replacement's outputs, or None.
        keep: leaves that stay, too, though nothing reads them.
    """
    rewriter = Rewriter(graph, Graph(graph.name))
    live = graph.live()
    for node in graph.nodes():
        if node.name in live or node.name in keep or isinstance(node.op, Input):
            rewriter.copy(node, rule)
    return rewriter.finish()
