"""Probes: zeros added to the states of recurrences, whose gradient is that of the states."""

from __future__ import annotations

from collections.abc import Sequence

from .graph import Graph, Node
from .ops.recurrence import Recurrence
from .ops.recurrence_builder import INVARIANT, SEQUENCE, STATE, LoopBuilder
from .rewrite import Rewriter, rewrite
from .tensor import Tensor


def with_probes(graph: Graph) -> tuple[Graph, dict[str, str]]:
    """A graph that reads a probe for each float state of each recurrence.

    Arguments:
        graph: of a forward pass.

    Returns:
        The graph, and the names of its new inputs by the names of the states, `lstm.l0.h`. A probe
        (steps, *) is added to its state before each step.
    """
    probes: dict[str, str] = {}

    def rule(rewriter: Rewriter, node: Node) -> Sequence[Tensor] | None:
        op = node.op
        if not isinstance(op, Recurrence):
            return None
        body, names = op.body.graph, op.body.input_names
        own = [v for n in names for v in body.outputs_of(n)]
        loop = LoopBuilder(Graph(body.name))
        inside, outside = op.split(own), op.split(rewriter.inputs(node))
        for kind in (STATE, SEQUENCE):
            for value, x in zip(inside[kind], outside[kind], strict=True):
                loop.read(value, x, kind)
        with rewriter.new.scope(prefix=""):
            for state in inside[STATE]:
                type = body.type_of(state)
                if type.dtype.is_float:
                    name = f"{node.name}.{state}"
                    probe = rewriter.new.input(op.stacked(type), f"{name}.probe")
                    probes[name] = probe.value.node
                    added = loop.inside(state) + loop.declare(f"{state}.probe", probe, SEQUENCE)
                    loop.values[state] = added.value
            for value, x in zip(inside[INVARIANT], outside[INVARIANT], strict=True):
                loop.read(value, x, INVARIANT)
            loop.copy(body, list(body.nodes()))
            for name, value in body.outputs.items():
                loop.give(name, value, body.type_of(value))
            return loop.run(op.steps, op.reverse, node.name)

    return rewrite(graph, rule), probes
