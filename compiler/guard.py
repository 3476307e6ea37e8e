"""A training step that keeps its state when something is not finite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import and_

from .graph import Graph, Phase
from .tensor import Tensor
from .training import Descent, Optimizer, build_training_step

FINITE = "finite"


@dataclass(frozen=True)
class _Watched:
    """An optimizer, and an output that says whether loss and gradients are finite."""

    optimizer: Optimizer
    loss: str

    def update(self, graph: Graph, descents: Mapping[str, Descent]) -> dict[str, Tensor]:
        watched = [graph.tensor(graph.outputs[self.loss])]
        watched += [d.gradient for d in descents.values() if d.gradient.type.size]
        with graph.scope(prefix=FINITE):
            # The largest magnitude is infinite or NaN where any element is.
            flags = [t.abs().max() < float("inf") for t in watched]
            graph.outputs[FINITE] = reduce(and_, flags).value
        return self.optimizer.update(graph, descents)


def build_guarded_step(graph: Graph, loss: str, optimizer: Optimizer) -> Graph:
    """`build_training_step`, whose updates keep every state as it is when the loss or an element of
    a gradient is infinite or NaN.

    Returns:
        A graph with one more output, `finite` (bool), which says whether the step was done.
    """
    step = build_training_step(graph, loss, _Watched(optimizer, loss))
    finite = step.tensor(step.outputs[FINITE])
    for name, value in step.updates.items():
        state = step.node(name)
        with step.scope(prefix="keep", origins=state.origins, phase=Phase.UPDATE):
            kept = finite.where(step.tensor(value), step.tensor(step.outputs_of(name)[0]))
        step.updates[name] = kept.value
    return step
