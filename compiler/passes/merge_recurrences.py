"""Recurrences over the same inputs that keep the same states are computed once."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

from ..body import Body, inline
from ..graph import Graph, Node, Value
from ..ops.recurrence import Recurrence
from ..rewrite import Rewriter, rewrite
from ..tensor import Tensor
from .base import Pass
from .cse import ShareCommonSubexpressions
from .expand import Expand


@dataclass(frozen=True)
class MergeRecurrences(Pass):
    """One recurrence, with the results of all, for those that differ in their results alone.

    A gradient asks for what the steps forwards have computed by such a recurrence.
    """

    @property
    def name(self) -> str:
        return "merge-recurrences"

    def apply(self, graph: Graph) -> Graph:
        alike: dict[Hashable, list[Node]] = {}
        for node in graph.nodes():
            if isinstance(node.op, Recurrence):
                kind = replace(node.op, body=Body(""))
                alike.setdefault((kind, graph.inputs_of(node.name)), []).append(node)
        merged = {n.name: m for nodes in alike.values() for m in _merge(nodes) for n in m.nodes}
        if not merged:
            return graph
        done: dict[str, tuple[Tensor, ...]] = {}

        def rule(rewriter: Rewriter, node: Node) -> Sequence[Tensor] | None:
            found = merged.get(node.name)
            if found is None:
                return None
            first = found.nodes[0].name
            if first not in done:
                with rewriter.new.scope(prefix=""):
                    inputs = rewriter.inputs(node)
                    done[first] = rewriter.new.apply(found.op, *inputs, name=first)
            return [done[first][i] for i in found.ports[found.nodes.index(node)]]

        return rewrite(graph, rule)


@dataclass(frozen=True)
class _Merged:
    """Several recurrences as one.

    Arguments:
        nodes: those that it stands for.
        op: computes them all.
        ports: for each of the nodes, which of its outputs are that node's.
    """

    nodes: tuple[Node, ...]
    op: Recurrence
    ports: tuple[tuple[int, ...], ...]


def _merge(nodes: Sequence[Node]) -> list[_Merged]:
    """Those among nodes of the same inputs that keep the same states as the first of them."""
    if len(nodes) < 2:
        return []
    ops = [n.op for n in nodes if isinstance(n.op, Recurrence)]
    first = ops[0]
    joint = Graph(first.body.graph.name)
    inputs = [
        joint.input(t, n) for t, n in zip(first.body.inputs, first.body.input_names, strict=True)
    ]
    for i, op in enumerate(ops):
        for j, y in enumerate(inline(op.body.graph, joint, inputs)):
            joint.outputs[f"{i}.{j}"] = y.value
    joint = ShareCommonSubexpressions().apply(Expand(for_gradient=True).apply(joint))
    found = [
        tuple(joint.outputs[f"{i}.{j}"] for j in range(len(op.body.outputs)))
        for i, op in enumerate(ops)
    ]
    states = found[0][: first.states]
    members = [i for i, values in enumerate(found) if values[: first.states] == states]
    if len(members) < 2:
        return []
    results: dict[Value, int] = {}
    for i in members:
        for value in found[i][first.states :]:
            results.setdefault(value, first.states + len(results))
    names = [f"state{i}" for i in range(len(states))] + [f"result{i}" for i in range(len(results))]
    joint.outputs = dict(zip(names, (*states, *results), strict=True))
    ports = tuple(
        (*range(first.states), *(results[v] for v in found[i][first.states :])) for i in members
    )
    op = replace(first, body=Body.of(joint))
    return [_Merged(tuple(nodes[i] for i in members), op, ports)]
