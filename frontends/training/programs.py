"""The compiled graphs of one model in training, and the arrays they share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...compiler.driver import Options, compile_graph
from ...compiler.evaluate import evaluate
from ...compiler.ops.leaf import State as StateNode
from ...compiler.training import Optimizer
from ...compiler.types import Array
from ...runtime.data import Inputs, Targets, named_targets, row_count
from ...runtime.executable import Executable, aligned_copy
from ...runtime.training import check_state, restore
from ..nn.module import Module
from ..nn.state import Parameter, State
from ..nn.trace import Traced
from ..optim.accumulation import Gather, Gathered, is_gathered
from ..optim.swa_utils import Averaging, average_of
from .graphs import Signature, Traces, network
from .objective import Objective


@dataclass(frozen=True)
class Program:
    """A traced graph, and what runs it.

    Arguments:
        traced: the graph.
        executable: the graph, compiled.
        signature: what the network takes.
        rows: of a batch.
    """

    traced: Traced
    executable: Executable
    signature: Signature
    rows: int

    def run(self, arrays: Sequence[Array]) -> dict[str, Array]:
        """The outputs, for inputs in the order of the traced call."""
        return self.executable.run(self.feeds(arrays))

    def feeds(self, arrays: Sequence[Array]) -> dict[str, Array]:
        """Inputs by name."""
        return dict(zip(self.traced.inputs, arrays, strict=True))


class Programs:
    """Compiles what training needs, each graph once.

    All executables work on the same arrays, which are the module's own: the `data` of every
    parameter and buffer is one of `arrays`. Where somebody gives a parameter other contents, they
    are copied there by `sync`.

    Attributes:
        arrays: contents of all states, the optimizer's included, by name.
        dtype: the float type of the network.
    """

    def __init__(
        self,
        model: Module,
        objective: Objective,
        optimizer: Optimizer,
        threads: int | None,
        seed: int,
        learned: frozenset[Parameter] | None,
        watch_gradients: bool,
        options: Options,
        parts: int,
        average: float | None,
    ) -> None:
        self.model = model
        self.objective = objective
        self.optimizer = optimizer
        self.threads = threads
        self.seed = seed
        self.learned = learned
        self.watch_gradients = watch_gradients
        self.parts = parts
        self._moving = optimizer if average is None else Averaging(optimizer, average)
        self._options = options
        self.arrays: dict[str, Array] = {}
        self._states: dict[str, State] = {}
        self._programs: dict[Any, Program] = {}
        self._version: object = None
        self.dtype = np.dtype(np.float32)
        self.refresh()

    def step(self, inputs: Inputs, targets: Targets) -> list[Program]:
        """The training step for batches of which this is a part: a program for each part.

        The model is one that `refresh` has seen.
        """
        if self.parts == 1:
            return [self._step(inputs, targets, self._moving)]
        last = self._step(inputs, targets, Gathered(self._moving, self.parts))
        return [self._step(inputs, targets, Gather())] * (self.parts - 1) + [last]

    def _step(self, inputs: Inputs, targets: Targets, optimizer: Optimizer) -> Program:
        signature, rows = self.signature(inputs), row_count(targets)
        key = ("step", type(optimizer), _types(targets), signature)
        if key not in self._programs:
            traces = self._traces(signature, targets)
            with self._only_learned():
                traced = traces.training_step(rows, optimizer, self.watch_gradients)
            self._programs[key] = self._compile(traced, signature, rows)
            if not isinstance(optimizer, Gather):
                live = {n.name for n in traced.graph.leaves(StateNode)} | self._states.keys()
                self.arrays = {k: v for k, v in self.arrays.items() if k in live}
        return self._programs[key]

    @contextmanager
    def undone_on_error(self, program: Program) -> Iterator[None]:
        """Inside, what a part of a batch changes is taken back where something is raised.

        Arguments:
            program: of a part that is not the last.
        """
        changed = [name for name in program.traced.graph.updates if not is_gathered(name)]
        before = {name: self.arrays[name].copy() for name in changed}
        try:
            yield
        except BaseException:
            restore(self.arrays, before)
            for name, array in self.arrays.items():
                if is_gathered(name):
                    array.fill(0)
            raise

    def network(self, signature: Signature, rows: int) -> Program:
        """The network in inference mode, up to date with the states."""
        self.refresh()
        averages = self.averages()
        key = ("network", rows, signature, bool(averages))
        if key not in self._programs:
            traced = network(self.model, signature, rows)
            self._programs[key] = self._compile(traced, signature, rows, averages)
        self._programs[key].executable.refresh()
        return self._programs[key]

    def measure(
        self, net: Program, outputs: Mapping[str, Array], targets: Targets
    ) -> dict[str, Array]:
        """Loss and metrics of a network's outputs, as `Objective.measure` gives them.

        A last batch of fewer rows is measured by NumPy: what depends on the number of rows would
        have to be compiled again for so little work.
        """
        arrays = [outputs[name] for name in net.traced.graph.outputs]
        arrays += named_targets(targets).values()
        rows = row_count(targets)
        key = ("measure", net.rows, _types(targets), net.signature)
        traces = self._traces(net.signature, targets)
        if rows == net.rows:
            if key not in self._programs:
                traced = traces.measure(net.rows, net.traced, net.rows)
                self._programs[key] = self._compile(traced, net.signature, net.rows)
            return self._programs[key].run(arrays)
        traced = traces.measure(rows, net.traced, net.rows)
        feeds = dict(zip(traced.inputs, arrays, strict=True))
        return evaluate(traced.graph, {**self.arrays, **feeds}).outputs

    def averages(self) -> dict[str, Array]:
        """The moving averages of parameters, by the parameter's name."""
        names = [name for name in self._states if average_of(name) in self.arrays]
        return {name: self.arrays[average_of(name)] for name in names}

    @property
    def lasting(self) -> dict[str, Array]:
        """All states but those that are zero between two steps."""
        return {k: v for k, v in self.arrays.items() if not is_gathered(k)}

    def signature(self, inputs: Inputs) -> Signature:
        """What the network takes, from an example."""
        return Signature.of(self.model, inputs)

    # -- states -----------------------------------------------------------------------------------

    def sync(self) -> None:
        """Takes over contents that were given to parameters and buffers since the last call."""
        for name, state in self._states.items():
            if state.data is not self.arrays[name]:
                np.copyto(self.arrays[name], state.data)
                state.data = state.adopted = self.arrays[name]

    def refresh(self) -> None:
        """`sync`, and forgets what was compiled for a model that has changed since."""
        named = list(self.model._named_states())
        version = (
            Module._version,
            tuple(
                (n, s.data.shape, s.data.dtype, getattr(s, "requires_grad", None)) for n, s in named
            ),
        )
        if version != self._version:
            self._programs.clear()
            self._states = {}
            self._version = version
            floats = [s.dtype.numpy for _, s in named if s.dtype.is_float]
            self.dtype = floats[0] if floats else np.dtype(np.float32)
            for name, state in named:
                self._adopt(name, state)
        self.sync()

    def load(self, arrays: Mapping[str, Array], path: str | Path) -> None:
        """Takes all states from a checkpoint, those of an optimizer also before its first step.

        Raises:
            TrainingError: it is of another network or optimizer.
        """
        self.refresh()
        has_step = any(kind == "step" for kind, *_ in self._programs)
        known = arrays if has_step else {k: v for k, v in arrays.items() if k in self.arrays}
        check_state(self.lasting, known, path)
        restore(self.arrays, known)
        later = {k: aligned_copy(v) for k, v in arrays.items() if k not in self.arrays}
        self.arrays |= later

    @contextmanager
    def _only_learned(self) -> Iterator[None]:
        """Inside, parameters that are not to be learned are frozen."""
        named = self.model.named_parameters() if self.learned is not None else ()
        others = [p for _, p in named if p.requires_grad and p not in (self.learned or ())]
        try:
            for parameter in others:
                parameter.requires_grad = False
            yield
        finally:
            for parameter in others:
                parameter.requires_grad = True

    def _adopt(self, name: str, state: State) -> None:
        own = self.arrays.get(name)
        if own is None and state.adopted is state.data:
            self.arrays[name] = own = state.data  # shared with the programs that it is of
        elif own is None or own.shape != state.data.shape or own.dtype != state.data.dtype:
            self.arrays[name] = own = aligned_copy(state.data)
        elif own is not state.data:
            np.copyto(own, state.data)
        state.data = state.adopted = own
        self._states[name] = state

    # -- compiling --------------------------------------------------------------------------------

    def _traces(self, signature: Signature, targets: Targets) -> Traces:
        return Traces(self.model, self.objective, signature, targets, self.seed)

    def _compile(
        self,
        traced: Traced,
        signature: Signature,
        rows: int,
        instead: Mapping[str, Array] | None = None,
    ) -> Program:
        """
        Arguments:
            instead: contents of states, by name, that are not those of training.
        """
        for name, state in traced.states.items():
            if name not in self._states:
                self._adopt(name, state)
        for node in traced.graph.leaves(StateNode):
            name = node.name
            own, type = self.arrays.get(name), node.types[0]
            if own is None or own.shape != type.shape or own.dtype != type.dtype.numpy:
                self.arrays[name] = aligned_copy(np.asarray(traced.graph.data[name]))
        compiled = compile_graph(traced.graph, self._options)
        states = {**self.arrays, **(instead or {})}
        executable = Executable(compiled.image, self.threads, states, share=True)
        return Program(traced, executable, signature, rows)


def _types(targets: Targets) -> tuple[Any, ...]:
    """Names, shapes and dtypes."""
    return type(targets), *((k, a.shape, a.dtype) for k, a in named_targets(targets).items())
