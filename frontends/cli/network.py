"""The graph that a command's arguments ask for: inference, gradients, or a training step."""

from __future__ import annotations

import argparse
import inspect

from ...compiler.autodiff import differentiate
from ...compiler.errors import UsageError
from ...compiler.graph import Graph
from ...compiler.guard import build_guarded_step
from ...compiler.types import DType, TensorType
from ..nn.context import Trace
from ..nn.structure import map_structure
from ..nn.trace import Traced, trace_call
from ..onnx import OnnxFile
from ..optim import optimizers
from ..optim.optimizer import Optimizer
from ..source import source_of, users_code
from ..training.objective import Objective
from .options import types_of

TARGET = "target"
_OF_CLASSES = ("cross_entropy", "nll")


def graph_of(options: argparse.Namespace, contents: bool = True) -> Graph:
    """The graph that SOURCE, --input, --backward, --training and --loss ask for.

    Arguments:
        options: of the command.
        contents: whether what its parameters hold matters.

    Raises:
        UsageError: they do not fit each other or the network.
        QuernError: what does not fit in the network.
    """
    source = source_of(options.source, contents)
    specs, named = types_of(options.input)
    if not (options.backward or options.training):
        if options.loss:
            raise UsageError("--loss goes with --backward or --training")
        return source.graph(*specs, **named)
    loss = options.loss or ("cross_entropy" if options.training else None)
    if isinstance(source.content, Graph | OnnxFile):
        graph = source.graph(*specs, **named)
        if options.training:
            return _step_of_graph(graph, options)
        if graph.updates:
            raise UsageError(
                f"{options.source} is a training step: its gradients are in it already"
            )
        return differentiate(graph, options.loss)
    target = named.pop(TARGET, None) if loss else None
    args, kwargs = source.arguments(*specs, **named)
    with users_code(source.file):
        traced = trace_call(source.content, args, kwargs, training=True)
    if loss is None:
        return differentiate(traced.graph)
    graph = _with_loss(traced, loss, target)
    if options.training:
        return build_guarded_step(graph, "loss", optimizer_of(options))
    return differentiate(graph, "loss")


def optimizer_of(options: argparse.Namespace) -> Optimizer:
    """The optimizer that the arguments ask for.

    Raises:
        UsageError: an argument that it does not take, or a number that makes no sense.
    """
    kinds = {name.lower(): kind for name, kind in vars(optimizers).items()}
    make = kinds[options.optimizer]
    given = {
        name: getattr(options, name)
        for name in ("lr", "momentum", "weight_decay")
        if getattr(options, name) is not None
    }
    for name in given:
        if name not in inspect.signature(make).parameters:
            raise UsageError(f"{options.optimizer} takes no --{name.replace('_', '-')}")
    made: Optimizer = make(**given)
    return made


def _step_of_graph(graph: Graph, options: argparse.Namespace) -> Graph:
    if graph.updates:
        return graph  # a compiled training step
    loss = options.loss or "loss"
    if loss not in graph.outputs:
        raise UsageError(
            f"--training of a graph needs an output to make small: --loss with one of "
            f"{', '.join(graph.outputs)}"
        )
    return build_guarded_step(graph, loss, optimizer_of(options))


def _with_loss(traced: Traced, loss: str, target: TensorType | None) -> Graph:
    """The network with its loss, and the accuracy where targets are classes, as its outputs.

    Arguments:
        traced: the network in training mode.
        loss: name of a loss function.
        target: type of its targets: by default classes where the loss takes them, else the type of
            the first output.
    """
    objective = Objective.of(loss)
    graph = traced.graph
    outputs = map_structure(
        traced.result, lambda _, name: name and graph.tensor(graph.outputs[name])
    )
    if target is None:
        target = graph.type_of(next(iter(graph.outputs.values())))
        if loss.removesuffix("_loss") in _OF_CLASSES:
            target = TensorType(target.shape[:1] + target.shape[2:], DType.INT64)
    with Trace(graph, training=True).running():
        values = objective.measure(outputs, graph.input(target, TARGET))
    graph.outputs = {name: tensor.value for name, tensor in values.items()}
    return graph
