"""The graphs of training: a whole step, the network alone, and what is measured of its outputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...compiler.errors import QuernError, UsageError
from ...compiler.graph import Graph, user_location
from ...compiler.guard import build_guarded_step
from ...compiler.tensor import Tensor
from ...compiler.training import Optimizer
from ...compiler.types import Array, TensorType
from ...runtime.data import Inputs, Targets, named_targets
from ..nn.context import Trace
from ..nn.module import Module
from ..nn.structure import map_structure
from ..nn.trace import Traced, spec, trace_call
from .objective import Objective

TARGET = "target"


@dataclass(frozen=True)
class Signature:
    """What a network takes, but for the number of rows.

    Arguments:
        inputs: shape and dtype of a row of each input, by name.
        single: whether the network is given its one input by place.
    """

    inputs: tuple[tuple[str, TensorType], ...]
    single: bool

    @staticmethod
    def of(model: Module, inputs: Inputs) -> Signature:
        """What the data is for a model; one array is its first argument."""
        names = list(inspect.signature(model.forward).parameters)
        if isinstance(inputs, Mapping):
            # In the order of the arguments, which is that of a traced call's inputs.
            order = sorted(inputs, key=lambda k: names.index(k) if k in names else len(names))
            return Signature(tuple((k, row_of(inputs[k])) for k in order), False)
        return Signature(((names[0] if names else "input", row_of(inputs)),), True)

    def arrays(self, inputs: Inputs) -> list[Array]:
        """Arrays in the order of `inputs`."""
        if isinstance(inputs, Mapping):
            return [inputs[name] for name, _ in self.inputs]
        return [inputs]

    def call(self, model: Module, tensors: Mapping[str, Tensor]) -> Any:
        """The network's outputs.

        Raises:
            UsageError: the inputs do not fit `forward`.
        """
        args, kwargs = ((*tensors.values(),), {}) if self.single else ((), tensors)
        try:
            inspect.signature(model.forward).bind(*args, **kwargs)
        except TypeError as error:
            raise UsageError(
                f"{type(model).__name__} does not take the inputs {', '.join(tensors)}: {error}"
            ) from None
        return model(*args, **kwargs)


def row_of(array: Array) -> TensorType:
    """The type of one row of an array."""
    type = spec(array)
    return type.with_shape(type.shape[1:])


def batched(row: TensorType, rows: int) -> TensorType:
    """The type of so many rows."""
    return row.with_shape((rows, *row.shape))


@dataclass(frozen=True)
class Traces:
    """Traces one model with one objective.

    Arguments:
        model: the network.
        objective: losses and metrics.
        signature: what the network takes.
        targets: an example of the targets, (rows, …), as they are given to losses.
        seed: where dropout's random numbers start from.
    """

    model: Module
    objective: Objective
    signature: Signature
    targets: Targets
    seed: int

    def training_step(self, rows: int, optimizer: Optimizer, watch_gradients: bool) -> Traced:
        """Forward, backward and update; the outputs are what is measured, and `finite`."""

        def build(graph: Graph) -> tuple[tuple[str, ...], Any]:
            names, tensors = self._inputs(graph, rows)
            targets, target = self._targets(graph, rows)
            outputs = self.signature.call(self.model, tensors)
            values = self.objective.measure(outputs, target)
            graph.outputs.update({name: t.value for name, t in values.items()})
            return (*names, *targets), tuple(values)

        traced = self._trace("training", True, build)
        step = build_guarded_step(traced.graph, "loss", optimizer, watch_gradients)
        return Traced(step, traced.inputs, traced.result, traced.states)

    def measure(self, rows: int, network: Traced, full: int) -> Traced:
        """Loss and metrics of `rows` rows of the outputs of a network that is traced for `full`."""

        def build(graph: Graph) -> tuple[tuple[str, ...], Any]:
            inputs = []

            def declare(_: str, output: str | None) -> Tensor | None:
                if output is None:
                    return None
                type = network.graph.type_of(network.graph.outputs[output])
                if type.shape[:1] == (full,):
                    type = type.with_shape((rows, *type.shape[1:]))
                tensor = graph.input(type, output)
                inputs.append(tensor.value.node)
                return tensor

            outputs = map_structure(network.result, declare)
            targets, target = self._targets(graph, rows)
            values = self.objective.measure(outputs, target)
            graph.outputs.update({name: t.value for name, t in values.items()})
            return (*inputs, *targets), tuple(values)

        return without_updates(self._trace("measure", False, build))

    def _inputs(self, graph: Graph, rows: int) -> tuple[list[str], dict[str, Tensor]]:
        tensors = {
            name: graph.input(batched(type, rows), name) for name, type in self.signature.inputs
        }
        return [t.value.node for t in tensors.values()], tensors

    def _targets(self, graph: Graph, rows: int) -> tuple[list[str], Any]:
        """Inputs for the targets in the order of `named_targets`, and what a loss gets of them."""
        inputs = {
            name: graph.input(batched(row_of(array), rows), f"{TARGET}.{name}" if name else TARGET)
            for name, array in named_targets(self.targets).items()
        }
        target = map_structure(self.targets, lambda name, _: inputs[name])
        return [t.value.node for t in inputs.values()], target

    def _trace(
        self, title: str, training: bool, build: Callable[[Graph], tuple[tuple[str, ...], Any]]
    ) -> Traced:
        graph = Graph(f"{type(self.model).__name__}.{title}")
        trace = Trace(graph, training, self.seed)
        with trace.running():
            trace.register(self.model, "")
            try:
                inputs, result = build(graph)
            except QuernError as error:
                place = type(self.model).__name__
                raise error.at(place, user_location(error.__traceback__)) from None
        return Traced(graph, inputs, result, trace.nodes)


def network(model: Module, signature: Signature, rows: int) -> Traced:
    """The network alone, in inference mode."""
    types = {name: batched(type, rows) for name, type in signature.inputs}
    by_place, by_name = (tuple(types.values()), {}) if signature.single else ((), types)
    return without_updates(trace_call(model, by_place, by_name, training=False))


def without_updates(traced: Traced) -> Traced:
    """Evaluation changes no state."""
    graph = traced.graph.copy()
    graph.updates = {}
    return Traced(graph, traced.inputs, traced.result, traced.states)
