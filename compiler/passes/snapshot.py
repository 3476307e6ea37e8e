"""Old contents of states that a run replaces are copied where they are still wanted after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..graph import Graph, Phase, Value
from ..group import storage
from ..ops import movement as mv
from ..ops.base import apply
from ..rewrite import rewrite
from .base import Pass


@dataclass(frozen=True)
class Snapshot(Pass):
    """Gives a node of its own to every result that is the memory of an updated state.

    An output that is a running mean is the mean before the run, and where two states swap their
    contents each gets the other's old ones. To be done last: the nodes do nothing but copy, and
    simplification would remove them.
    """

    def apply(self, graph: Graph) -> Graph:
        updates = {s: storage(graph, v) for s, v in graph.updates.items()}
        replaced = {state for state, value in updates.items() if value != Value(state)}
        results = (*graph.outputs.values(), *updates.values())
        if not any(storage(graph, v).node in replaced for v in results):
            return graph
        result = rewrite(graph)
        result.outputs = self._copied(result, result.outputs, replaced)
        result.updates = self._copied(result, result.updates, replaced)
        return result

    def _copied(
        self, graph: Graph, results: Mapping[str, Value], replaced: set[str]
    ) -> dict[str, Value]:
        copied = {}
        for name, value in results.items():
            state = storage(graph, value).node
            copied[name] = self._copy(graph, value, state) if state in replaced else value
        return copied

    def _copy(self, graph: Graph, value: Value, state: str) -> Value:
        x = graph.tensor(value)
        with graph.scope(prefix=state, origins=graph.node(state).origins, phase=Phase.UPDATE):
            return apply(mv.slice_of(x.shape, (slice(None),) * x.rank), x).value
