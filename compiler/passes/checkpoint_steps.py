"""Recomputation through time: of a recurrence only some states are kept for the backward pass.

The recurrence is cut (`cut_recurrences.py`). What a part has computed is forgotten but for its last
states and for what the rest of the network reads; when the backward pass comes to the part, it is
computed once more from the states before it (Chen, Xu, Zhang and Guestrin, Training deep nets with
sublinear memory cost, 2016; Gruslys et al., Memory-efficient backpropagation through time, 2016).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from ..body import Body
from ..errors import UsageError
from ..graph import Graph, Node, Phase
from ..ops.leaf import Leaf
from ..ops.recurrence import Recurrence
from ..rewrite import Rewriter, rewrite
from ..tensor import Tensor
from .base import Pass
from .checkpoint import Segment, compute_again
from .cut_recurrences import CutRecurrences


@dataclass(frozen=True)
class CheckpointSteps(Pass):
    """Computes the parts of recurrences that have been cut again for the backward pass.

    To be done after all passes that simplify: they would make one node of the two again.

    Arguments:
        every: steps of a part: so many are kept at a time, beside the states between the parts.
    """

    every: int

    @staticmethod
    def of(every: int | None) -> CheckpointSteps | None:
        """The pass for what is asked for; None for None.

        Raises:
            UsageError: it makes no sense.
        """
        if every is None:
            return None
        if not isinstance(every, int) or isinstance(every, bool) or every < 1:
            raise UsageError(f"checkpoint_every={every!r}: give a number of steps from 1")
        return CheckpointSteps(every)

    @property
    def name(self) -> str:
        return "checkpoint-steps"

    @property
    def cut(self) -> CutRecurrences:
        """The pass that cuts, long before this one."""
        return CutRecurrences(self.every)

    @property
    def unrolled(self) -> int:
        """Recurrences of so many steps may be unrolled; all parts are longer."""
        return (self.every + 1) // 2 - 1

    def apply(self, graph: Graph) -> Graph:
        parts = [n for n in graph.nodes() if _is_part(n)]
        # The backward pass begins with the last part: that is still there.
        order = {node.name: i for i, node in enumerate(graph.nodes())}
        results = {v.node for v in (*graph.outputs.values(), *graph.updates.values())}
        segments = [_segment(graph, node, order, results) for node in parts[:-1]]
        return without_unread_results(compute_again(graph, segments)) if segments else graph


def _is_part(node: Node) -> bool:
    return (
        isinstance(node.op, Recurrence)
        and node.phase is Phase.FORWARD
        and re.search(r"\.steps\d+$", node.name) is not None
    )


def _segment(
    graph: Graph, node: Node, order: Mapping[str, int], results: Collection[str]
) -> Segment:
    """A part, and what is computed for it alone.

    Arguments:
        graph: all.
        node: the part.
        order: numbers of the nodes; what a node reads comes before it.
        results: nodes that are read from outside.
    """
    found = {node.name}
    read = {v.node for v in graph.inputs_of(node.name)}
    while read:
        name = max(read, key=order.__getitem__)
        read.remove(name)
        before = graph.node(name)
        if isinstance(before.op, Leaf) or before.phase is not Phase.FORWARD or name in results:
            continue
        readers = (u for u in graph.users_of(name) if graph.node(u).phase is Phase.FORWARD)
        if found.issuperset(readers):
            found.add(name)
            read.update(v.node for v in graph.inputs_of(name))
    return frozenset(found)


def without_unread_results(graph: Graph) -> Graph:
    """The graph whose recurrences compute no results that nobody reads."""
    results = {*graph.outputs.values(), *graph.updates.values()}

    def rule(rewriter: Rewriter, node: Node) -> Sequence[Tensor] | None:
        op = node.op
        if not isinstance(op, Recurrence):
            return None
        outputs = graph.outputs_of(node.name)[op.states :]
        read = [bool(graph.uses_of(v)) or v in results for v in outputs]
        if all(read):
            return None
        new = rewriter.new
        changed = replace(op, body=_without(op, read))
        with new.scope(prefix=""):
            found = new.apply(changed, *rewriter.inputs(node), name=node.name)
        left = iter(found[op.states :])
        nothing = found[0]  # of another type, but nobody looks
        return [*found[: op.states], *(next(left) if r else nothing for r in read)]

    return rewrite(graph, rule)


def _without(op: Recurrence, read: Sequence[bool]) -> Body:
    """A body that gives those results alone that are read."""
    body = op.body.graph.copy()
    kept = [True] * op.states + list(read)
    body.outputs = {
        name: value
        for (name, value), keep in zip(op.body.graph.outputs.items(), kept, strict=True)
        if keep
    }
    return Body.of(body)
