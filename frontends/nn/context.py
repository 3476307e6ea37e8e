"""What is known while a network is traced: the graph that grows, and what is called what in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ...compiler.errors import ShapeError, UsageError
from ...compiler.graph import Graph, Phase, Value
from ...compiler.ops.base import Op
from ...compiler.tensor import Tensor
from ...compiler.types import TensorType

if TYPE_CHECKING:
    from .module import Module
    from .state import State

_CURRENT: ContextVar[Trace | None] = ContextVar("current_trace", default=None)


@dataclass(eq=False)
class Trace:
    """A network on its way to a graph.

    Nodes are named after the modules that make them, states after their keys in the state dict.

    Attributes:
        graph: what has been traced so far.
        training: the mode modules are put in while they are traced; None leaves them as they are.
        seed: initial contents of the graph's `rng.seed`.
        nodes: node name -> the state it stands for.
        observed: hooks to be called after the run, with module, inputs and output; None where they
            are called while it is traced.
    """

    graph: Graph
    training: bool | None = None
    seed: int = 0
    nodes: dict[str, State] = field(default_factory=dict)
    observed: list[tuple[Any, Module, Any, Any]] | None = None
    _paths: dict[Module, str] = field(default_factory=dict)
    _keys: dict[State, str] = field(default_factory=dict)
    _values: dict[State, Value] = field(default_factory=dict)
    _modes: list[tuple[Module, bool]] = field(default_factory=list)
    _rng: tuple[Tensor, Tensor] | None = None
    _streams: int = 0
    _next_name: str | None = None

    # -- its lifetime -----------------------------------------------------------------------------

    @contextmanager
    def running(self) -> Iterator[Trace]:
        """Modules called inside are traced; then updates are added and modes restored."""
        token = _CURRENT.set(self)
        try:
            yield self
            self._add_updates()
        finally:
            _CURRENT.reset(token)
            self.graph._reserved.clear()
            for module, training in self._modes:
                module.__dict__["training"] = training

    def _add_updates(self) -> None:
        for name, state in self.nodes.items():
            if self._values[state] != Value(name):
                self.graph.updates[name] = self._values[state]

    # -- modules ----------------------------------------------------------------------------------

    def register(self, module: Module, path: str) -> None:
        """Modules and states below `module` are named `path.…` from now on."""
        for name, part in module.named_modules(prefix=path):
            self._paths.setdefault(part, name)
            if self.training is not None:
                self._modes.append((part, part.training))
                part.__dict__["training"] = self.training
        self.name_states(module)

    def name_states(self, module: Module) -> None:
        """States below a registered module that have come since get their keys."""
        for key, state in module._named_states(prefix=self._paths[module]):
            if self._keys.setdefault(state, key) == key:
                self.graph._reserved.add(key)

    @contextmanager
    def inside(self, module: Module) -> Iterator[str]:
        """Nodes added inside belong to `module`; gives its path."""
        if module not in self._paths:
            self.register(module, self._path_of_stranger(module))
        path = self._paths[module]
        outer, self._next_name = self._next_name, path if module._is_layer else None
        try:
            with self.graph.scope(prefix=path):
                yield path
        finally:
            self._next_name = outer

    def _path_of_stranger(self, module: Module) -> str:
        """For a module that is part of no other: the network a function calls goes without a name,
        so that its states have the keys of its state dict.
        """
        if not self._keys and any(True for _ in module._named_states()):
            return ""
        prefix = self.graph._scope.prefix
        return f"{prefix}.{snake_case(module)}" if prefix else snake_case(module)

    def take_name(self) -> str | None:
        """The name of the main node of the layer that is running, once."""
        name, self._next_name = self._next_name, None
        return name or None

    # -- states -----------------------------------------------------------------------------------

    def value_of(self, state: State) -> Value:
        """What stands for a state: its node, or the tensor last assigned to it."""
        if state not in self._values:
            key = self._keys.get(state, state.kind)
            self.graph._reserved.discard(key)
            with self.graph.scope(prefix=""):
                value = state.declare(self.graph, key).value
            self.nodes[value.node] = state
            self._values[state] = value
        return self._values[state]

    def assign(self, state: State, tensor: Tensor) -> None:
        """The state has this value from here on, and keeps it after a run.

        Raises:
            ShapeError: when shape or dtype differ.
        """
        old = self.value_of(state)
        if tensor.type != state.type:
            raise ShapeError(f"{old.node} is {state.type}, it cannot become {tensor.type}")
        self._values[state] = tensor.value

    def random(self) -> tuple[int, Tensor, Tensor]:
        """A stream of its own for one random layer, and the graph's seed and step (int64)."""
        if self._rng is None:
            with self.graph.scope(prefix=""):
                seed = self.graph.buffer(np.array(self.seed, np.int64), "rng.seed")
                step = self.graph.buffer(np.array(0, np.int64), "rng.step")
            with self.graph.scope(prefix="rng", phase=Phase.UPDATE):
                self.graph.updates[step.value.node] = (step + 1).value
            self._rng = seed, step
        self._streams += 1
        return self._streams - 1, *self._rng


@dataclass(eq=False)
class BodyTrace(Trace):
    """A graph inside of an operation on its way: states of modules are read from outside.

    Attributes:
        outer: the trace that the operation belongs to.
        captured: what stands for the states out there, in order of the inputs added for them.
    """

    outer: Trace | None = None
    captured: list[Tensor] = field(default_factory=list)
    _brought: dict[Value, Tensor] = field(default_factory=dict)

    @contextmanager
    def running(self) -> Iterator[Trace]:
        """Modules called inside are part of the body."""
        assert self.outer is not None
        self._paths, self._keys = self.outer._paths, self.outer._keys
        token = _CURRENT.set(self)
        try:
            yield self
        finally:
            _CURRENT.reset(token)
            self.graph._reserved.clear()
            self.graph._around = None

    def value_of(self, state: State) -> Value:
        if state not in self._values:
            assert self.outer is not None
            there = self.outer.graph.tensor(self.outer.value_of(state))
            self.graph._reserved.discard(there.value.node)
            self._values[state] = self._bring(there).value
        return self._values[state]

    def _bring(self, there: Tensor) -> Tensor:
        """What stands in the body for a value from outside."""
        if there.value not in self._brought:
            self._brought[there.value] = self._capture(there, there.type)
        return self._brought[there.value]

    def _capture(self, there: Tensor, type: TensorType) -> Tensor:
        """A new input of the body, and what it is given."""
        self.captured.append(there)
        with self.graph.scope(prefix=""):
            return self.graph.input(type, there.value.node)

    def random(self) -> tuple[int, Tensor, Tensor]:
        assert self.outer is not None
        stream, seed, step = self.outer.random()
        if self._rng is None:
            self._rng = self._bring(seed), self._number(step)
        return stream, *self._rng

    def _number(self, step: Tensor) -> Tensor:
        """What tells runs of the body apart, from what tells those of the network apart."""
        return self._bring(step)


@dataclass(eq=False)
class StepTrace(BodyTrace):
    """The step of a recurrence on its way to a body. It may read whatever is around it.

    Attributes:
        steps: how many there are.
        sliced: which of what is captured are sequences, (steps, *).
    """

    steps: int = 0
    sliced: list[int] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[Trace]:
        assert self.outer is not None
        self.graph._around = self.outer.graph, self._bring
        with super().running():
            yield self

    def assign(self, state: State, tensor: Tensor) -> None:
        key = self._keys.get(state, state.kind)
        raise UsageError(
            f"{key} is assigned in the step of a recurrence; make it one of the recurrence's states"
        )

    def _number(self, step: Tensor) -> Tensor:
        graph = step.graph
        with graph.scope(prefix="rng"):
            numbers = step * self.steps + graph.constant(np.arange(self.steps), step.dtype)
        self.sliced.append(len(self.captured))
        return self._capture(numbers, step.type)


@dataclass(eq=False)
class FunctionTrace(BodyTrace):
    """An autograd.Function on its way to the bodies of its two directions."""

    def assign(self, state: State, tensor: Tensor) -> None:
        key = self._keys.get(state, state.kind)
        raise UsageError(
            f"{key} is assigned in an autograd.Function; return what it becomes, assign it where "
            "the function is applied"
        )


def current_trace() -> Trace | None:
    """The trace that is running, if any."""
    return _CURRENT.get()


def require_trace(what: str) -> Trace:
    """
    Raises:
        UsageError: when nothing is being traced.
    """
    trace = _CURRENT.get()
    if trace is None:
        raise UsageError(f"{what} has a symbolic value only inside forward; its array is `.data`")
    return trace


def emit_all(op: Op, first: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """A node for the main operation of a function; in a layer it gets the layer's own name."""
    graph, trace = first.graph, _CURRENT.get()
    name = trace.take_name() if trace and trace.graph is graph else None
    if name is None:
        return graph.apply(op, first, *others)
    with graph.scope(prefix=""):
        return graph.apply(op, first, *others, name=name)


def emit(op: Op, first: Tensor, *others: Tensor) -> Tensor:
    """`emit_all` for an operation with one output."""
    (result,) = emit_all(op, first, *others)
    return result


def snake_case(thing: object) -> str:
    """`cross_entropy_loss` for a CrossEntropyLoss, `leaky_relu` for a LeakyReLU."""
    words = r"(?<=[a-z]{2})(?=[A-Z])|(?<=[A-Za-z0-9])(?=[A-Z][a-z]{2})"
    return re.sub(words, "_", type(thing).__name__).lower()
