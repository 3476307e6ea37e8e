"""Passes over the bodies of recurrences that stay loops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..body import Body
from ..graph import Graph, Node
from ..ops.leaf import Constant, Input
from ..ops.recurrence import Recurrence
from ..rewrite import Rewriter, rewrite
from ..tensor import Tensor
from .base import Pass


@dataclass(frozen=True)
class StepPasses(Pass):
    """Applies passes to the body of every recurrence; its larger constants become invariants.

    Arguments:
        passes: in order; they leave no composites.
    """

    passes: tuple[Pass, ...]

    @property
    def name(self) -> str:
        return "step-passes"

    def apply(self, graph: Graph) -> Graph:
        if not any(isinstance(n.op, Recurrence) for n in graph.nodes()):
            return graph
        return rewrite(graph, self._rule)

    def _rule(self, rewriter: Rewriter, node: Node) -> Sequence[Tensor] | None:
        if not isinstance(node.op, Recurrence):
            return None
        body = node.op.body.graph
        for step in self.passes:
            body = step.apply(body)
        return _with_body(rewriter, node, node.op, body)


def _with_body(rewriter: Rewriter, node: Node, op: Recurrence, body: Graph) -> Sequence[Tensor]:
    """The recurrence over another body that computes the same."""
    lifted = [n for n in body.leaves(Constant) if n.types[0].size > 1]
    constants = [rewriter.new.constant(body.data[n.name], name=n.name) for n in lifted]
    own = Graph(body.name, outputs=dict(body.outputs))
    for inside in body.leaves(Input):
        own.add_node(inside, ())
    for inside in lifted:
        own.add_node(replace(inside, op=Input(inside.types[0])), ())
    for inside in body.nodes():
        if inside.name not in own:
            own.add_node(inside, body.inputs_of(inside.name))
            if inside.name in body.data:
                own.data[inside.name] = body.data[inside.name]
    changed = replace(op, body=Body.of(own))
    with rewriter.new.scope(prefix=""):
        return rewriter.new.apply(changed, *rewriter.inputs(node), *constants, name=node.name)
