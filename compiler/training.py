"""A whole training step as one graph: forward, backward and update."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from .autodiff import gradients
from .errors import GradientError, GraphError
from .graph import Graph, Phase
from .ops.leaf import Parameter
from .passes.classify_before_resize import ClassifyBeforeResize
from .passes.expand import Expand
from .tensor import Tensor


@dataclass(frozen=True)
class Descent:
    """A parameter on its way down.

    Arguments:
        parameter: what it is.
        gradient: d loss / d parameter, of the same shape.
    """

    parameter: Tensor
    gradient: Tensor


class Optimizer(Protocol):
    """What a training step needs to know of an optimizer."""

    def update(self, graph: Graph, descents: Mapping[str, Descent]) -> dict[str, Tensor]:
        """The next contents of each parameter, by name, as nodes of the graph. States of the
        optimizer are buffers of the graph, and their next contents are among its updates.
        """
        ...


def build_training_step(graph: Graph, loss: str, optimizer: Optimizer) -> Graph:
    """One step of training: every run computes the outputs and moves the parameters.

    Arguments:
        graph: a forward graph, traced in training mode; stays as it is.
        loss: name of the output to be made small, a scalar.
        optimizer: says how; see `quern.optim`.

    Returns:
        A graph with the same inputs and outputs, whose updates hold the next contents of every
        trainable parameter that the loss depends on, beside those that were there.

    Raises:
        GradientError: the loss is no scalar output, or depends on no trainable parameter.
        GraphError: a parameter is updated already.
    """
    if loss not in graph.outputs:
        have = ", ".join(graph.outputs) or "none"
        raise GradientError(f"{graph.name} has no output {loss!r} to be made small, it has {have}")
    type = graph.type_of(graph.outputs[loss])
    if type.size != 1 or not type.dtype.is_float:
        source = graph.producer(graph.outputs[loss]).source
        raise GradientError(f"a loss is one float, this is {type}; take its mean").at(loss, source)
    step = Expand(for_gradient=True).apply(ClassifyBeforeResize().apply(graph))
    trainable = [
        step.tensor(value)
        for node in step.leaves(Parameter)
        if isinstance(node.op, Parameter) and node.op.trainable
        for value in step.outputs_of(node.name)
    ]
    updated = [p.value.node for p in trainable if p.value.node in step.updates]
    if updated:
        raise GraphError(f"{updated[0]} is updated already; give the graph of a network's loss")
    signals = gradients(step, [step.tensor(step.outputs[loss])], trainable)
    descents = {
        parameter.value.node: Descent(parameter, signal)
        for parameter, signal in zip(trainable, signals, strict=True)
        if signal is not None
    }
    if not descents:
        raise GradientError(f"{loss} of {graph.name} depends on no trainable parameter")
    with step.scope(phase=Phase.UPDATE):
        following = optimizer.update(step, descents)
    step.updates |= {name: tensor.value for name, tensor in following.items()}
    return step
