"""What depends on parameters alone is computed when they are loaded, not in every run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..graph import Graph, Node, Phase
from ..ops import movement as mv
from ..ops.leaf import Constant, Leaf, State
from ..rewrite import Rewriter, rewrite
from ..tensor import Tensor

_PREFIX = "prepared."


@dataclass(frozen=True)
class Prepared:
    """A graph in two parts.

    Arguments:
        main: what every run computes; reads what is prepared as constants without contents.
        preparation: gives these, by name, from parameters and buffers; None if there are none.
    """

    main: Graph
    preparation: Graph | None


def hoist(graph: Graph) -> Prepared:
    """Splits a graph that updates no state (others change what they would prepare).

    Reshapes and transposes alone are not worth preparing: kernels read through them.
    """
    if graph.updates:
        return Prepared(graph, None)
    fixed = known(graph)
    roots = [
        n.name
        for n in graph.nodes()
        if n.name in fixed
        and not isinstance(n.op, Leaf | mv.Reshape | mv.Transpose | mv.Broadcast)
        and _is_needed_outside(graph, n, fixed)
    ]
    if not roots:
        return Prepared(graph, None)
    preparation = graph.copy()
    preparation.outputs = {f"{_PREFIX}{v}": v for name in roots for v in graph.outputs_of(name)}
    hoisted = set(roots)

    def rule(rewriter: Rewriter, node: Node) -> Sequence[Tensor] | None:
        if node.name not in hoisted:
            return None
        with rewriter.new.scope(prefix="", phase=Phase.FORWARD):
            return [
                rewriter.new.tensor(rewriter.new.add(Constant(t), name=f"{_PREFIX}{v}")[0])
                for v, t in zip(graph.outputs_of(node.name), node.types, strict=True)
            ]

    part = _needed(preparation)
    # Once more, without what only the preparation needs; but states stay that it follows from.
    main = rewrite(rewrite(graph, rule), keep={node.name for node in part.leaves(State)})
    part.outputs = {name: value for name, value in part.outputs.items() if name in main}
    return Prepared(main, part)


def _needed(graph: Graph) -> Graph:
    """What the outputs depend on, without the inputs of the graph."""
    live = graph.live()
    part = Graph(graph.name, outputs=graph.outputs)
    for node in graph.nodes():
        if node.name in live:
            part.add_node(node, graph.inputs_of(node.name))
            if node.name in graph.data:
                part.data[node.name] = graph.data[node.name]
    return part


def known(graph: Graph) -> set[str]:
    """Nodes that depend on states and constants alone."""
    found: set[str] = set()
    for node in graph.nodes():
        inputs = graph.inputs_of(node.name)
        leaf = isinstance(node.op, State | Constant)
        if leaf or (inputs and all(v.node in found for v in inputs)):
            found.add(node.name)
    return found


def _is_needed_outside(graph: Graph, node: Node, known: set[str]) -> bool:
    """Whether something that is not known before a run reads the node, perhaps through views."""
    moves = (mv.Reshape, mv.Transpose, mv.Broadcast)
    results = {v.node for v in graph.outputs.values()}
    stack = [node.name]
    while stack:
        name = stack.pop()
        if name in results:
            return True
        for user in graph.users_of(name):
            if user not in known:
                return True
            if isinstance(graph.node(user).op, moves):
                stack.append(user)
    return False
