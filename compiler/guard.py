"""A training step that keeps its state when something is not finite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_

from .graph import Graph, Node, Phase, Value
from .rewrite import Rewriter, rewrite
from .tensor import Tensor, choose
from .training import Descent, Optimizer, build_training_step

FINITE = "finite"


@dataclass(frozen=True)
class _Watched:
    """An optimizer, and an output that says whether the loss, and the gradients, are finite."""

    optimizer: Optimizer
    loss: str
    gradients: bool

    def update(self, graph: Graph, descents: Mapping[str, Descent]) -> dict[str, Tensor]:
        watched = [graph.tensor(graph.outputs[self.loss])]
        if self.gradients:
            watched += [d.gradient for d in descents.values() if d.gradient.type.size]
        with graph.scope(prefix=FINITE):
            # The largest magnitude is infinite or NaN where any element is.
            flags = [t.abs().max() < float("inf") for t in watched]
            graph.outputs[FINITE] = reduce(and_, flags).value
        return self.optimizer.update(graph, descents)


def build_guarded_step(
    graph: Graph, loss: str, optimizer: Optimizer, gradients: bool = True
) -> Graph:
    """`build_training_step`, whose updates keep every state as it is when the loss is infinite or
    NaN, or an element of a gradient.

    Arguments:
        graph: as for `build_training_step`, like `loss` and `optimizer`.
        gradients: whether to look at gradients too. They are then written to memory, where an
            update could have been part of the kernel that computes the gradient.

    Returns:
        A graph with one more output, `finite` (bool), which says whether the step was done.
    """
    step = build_training_step(graph, loss, _Watched(optimizer, loss, gradients))
    states = {value: name for name, value in step.updates.items()}

    def keep(rewriter: Rewriter, node: Node) -> Sequence[Tensor] | None:
        # What is computed from a new state is computed from the kept one: then new momentum and
        # parameter are still one chain, and one kernel. Before `finite` is known that cannot be.
        finite = rewriter.values.get(step.outputs[FINITE])
        (value, *others) = step.outputs_of(node.name)
        if finite is None or others or value not in states:
            return None
        state = rewriter.values[Value(states.pop(value))]
        new = rewriter.new
        kept = new.tensor(rewriter.keep(node)[0])
        return [choose(new.tensor(finite), kept, new.tensor(state))]

    result = rewrite(step, keep)
    finite = result.tensor(result.outputs[FINITE])
    for name in states.values():
        origins = result.node(name).origins
        with result.scope(prefix="keep", origins=origins, phase=Phase.UPDATE):
            changed, old = result.updates[name], result.outputs_of(name)[0]
            kept = choose(finite, result.tensor(changed), result.tensor(old))
        result.updates[name] = kept.value
    return result
