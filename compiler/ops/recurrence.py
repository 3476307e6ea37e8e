"""Recurrences: a graph that is computed step after step, with what it keeps in between.

The body reads (states, one slice of each sequence, invariants) and gives (next states, results):

    s[t+1], y[t] = body(s[t], x[t], w)        t = 0, 1, …, steps - 1, or backwards

The invariants are the same in every step: that is how weights are tied in time. (ONNX: Scan.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeVar

import numpy as np

from ..body import Body, inline
from ..errors import GraphError, QuernError, ShapeError
from ..types import Array, TensorType
from .base import Op, apply
from .movement import Concat
from .pointwise import Gradients, Signals, Tensors

if TYPE_CHECKING:
    from ..graph import Graph
    from ..tensor import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Recurrence(Op):
    """A body computed `steps` times.

    Inputs are the initial states, then the sequences (steps, *), then the invariants; outputs are
    the final states, then the results of all steps, each stacked as (steps, *).

    Arguments:
        body: reads states, slices (*) of the sequences, and invariants, in the same order; gives
            the next states, of the same types, then the results of the step.
        steps: how often it is computed.
        states: number of states.
        sequences: number of sequences.
        reverse: the last slice comes first. Results lie where the slices lay that they came with.
    """

    body: Body
    steps: int
    states: int
    sequences: int = 0
    reverse: bool = False
    arity: ClassVar[tuple[int, int | None]] = (1, None)

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        wanted, given = self.body.inputs, self.body.outputs
        if self.steps < 0 or self.states < 0 or self.sequences < 0:
            raise ShapeError(
                f"{self.steps} steps of {self.states} states and {self.sequences} sequences: "
                "give numbers from 0"
            )
        if len(inputs) != len(wanted) or len(wanted) < self.states + self.sequences:
            raise ShapeError(
                f"the body {self.body} reads {len(wanted)} values, the recurrence is given "
                f"{len(inputs)}, of which {self.states} are states and {self.sequences} sequences"
            )
        if len(given) < self.states:
            raise ShapeError(
                f"the body {self.body} gives {len(given)} values for {self.states} states; its "
                "first outputs are the next states"
            )
        for i, (x, inside) in enumerate(zip(inputs, wanted, strict=True)):
            self._check_input(i, x, inside)
        for i, (before, after) in enumerate(zip(wanted, given[: self.states], strict=False)):
            if before != after:
                raise ShapeError(
                    f"state {self.body.input_names[i]} of the body {self.body} is {before} before "
                    f"a step and {after} after it; it must stay what it is"
                )
        stacked = (self.stacked(t) for t in given[self.states :])
        return (*given[: self.states], *stacked)

    def _check_input(self, i: int, x: TensorType, inside: TensorType) -> None:
        is_sequence = self.states <= i < self.states + self.sequences
        if x == (self.stacked(inside) if is_sequence else inside):
            return
        kind = "state" if i < self.states else "sequence" if is_sequence else "invariant"
        expected = f"{self.stacked(inside)}: {self.steps} steps of it" if is_sequence else "that"
        raise ShapeError(
            f"the body {self.body} reads {self.body.input_names[i]} as {inside}, the {kind} it is "
            f"given is {x}; give {expected}"
        )

    def stacked(self, type: TensorType) -> TensorType:
        """The type of what has one such slice a step."""
        return type.with_shape((self.steps, *type.shape))

    @property
    def order(self) -> range:
        """The places of the slices in the order in which they are met."""
        return range(self.steps)[:: -1 if self.reverse else 1]

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        from ..evaluate import evaluate

        states, sequences, invariants = self.split(inputs)
        results = [np.empty(self.stacked(t).shape, t.dtype.numpy) for t in self.results]
        for t in self.order:
            given = (*states, *(x[t] for x in sequences), *invariants)
            feeds = dict(zip(self.body.input_names, given, strict=True))
            found = list(evaluate(self.body.graph, feeds).outputs.values())
            states = found[: self.states]
            for result, part in zip(results, found[self.states :], strict=True):
                result[t] = part
        return (*states, *results)

    def split(self, inputs: Sequence[T]) -> tuple[Sequence[T], Sequence[T], Sequence[T]]:
        """Inputs as states, sequences and invariants."""
        end = self.states + self.sequences
        return inputs[: self.states], inputs[self.states : end], inputs[end:]

    @property
    def results(self) -> tuple[TensorType, ...]:
        """The types of what each step gives beside the next states."""
        return self.body.outputs[self.states :]

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The recurrence unrolled in time: copies of the body that share the invariants."""
        graph = inputs[0].graph
        prefix = graph._scope.prefix
        states, sequences, invariants = self.split(inputs)
        results: dict[int, list[Tensor]] = {}
        for t in self.order:
            with graph.scope(prefix=f"{prefix}.t{t}" if prefix else f"t{t}"):
                slices = [at_step(x, t) for x in sequences]
                found = inline(self.body.graph, graph, [*states, *slices, *invariants])
            states, results[t] = found[: self.states], found[self.states :]
        stacks = (
            stack_steps(graph, [results[t][i] for t in range(self.steps)], self.stacked(type))
            for i, type in enumerate(self.results)
        )
        return (*states, *stacks)

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        from .recurrence_gradient import backward

        return backward(self, inputs, outputs, signals)


def at_step(x: Tensor, t: int) -> Tensor:
    """Slice t of a sequence; of one that was stacked step by step, what was stacked."""
    producer = x.graph.producer(x.value)
    if producer.op == Concat(0) and len(x.graph.inputs_of(producer.name)) == x.shape[0]:
        part = x.graph.tensor(x.graph.inputs_of(producer.name)[t])
        if part.shape[0] == 1:
            return part.reshape(x.shape[1:])
    return x.slice_axis(0, t, 1).reshape(x.shape[1:])


def stack_steps(graph: Graph, parts: Sequence[Tensor], type: TensorType) -> Tensor:
    """One value of a type from its slices."""
    if not parts:
        return graph.constant(np.empty(type.shape, type.dtype.numpy), name="empty")
    rows = [p.reshape((1, *p.shape)) for p in parts]
    return apply(Concat(0), *rows) if len(rows) > 1 else rows[0]


Step = Callable[..., "tuple[Iterable[Tensor], Iterable[Tensor]]"]


def build_body(name: str, inputs: Sequence[tuple[str, TensorType]], step: Step) -> tuple[Body, int]:
    """The body that a function of tensors describes.

    Arguments:
        name: of the body.
        inputs: name and type of what it reads.
        step: takes these as tensors; returns the next states and the results.

    Returns:
        The body and the number of its states.
    """
    from ..graph import Graph

    graph = Graph(name)
    states, results = (list(ts) for ts in step(*(graph.input(t, n) for n, t in inputs)))
    for i, tensor in enumerate((*states, *results)):
        if tensor.graph is not graph:
            raise GraphError(f"the body {name} gives {tensor}, which is no value of its own")
        kind = f"state{i}" if i < len(states) else f"result{i - len(states)}"
        graph.outputs[kind] = tensor.value
    return Body.of(graph), len(states)


def recur(
    step: Step,
    states: Sequence[Tensor],
    sequences: Sequence[Tensor] = (),
    invariants: Sequence[Tensor] = (),
    steps: int | None = None,
    reverse: bool = False,
    names: Sequence[str] = (),
    name: str = "recurrence",
    captured: Sequence[Tensor] = (),
    sliced: Sequence[int] = (),
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """A Recurrence whose body is what a function describes.

    Arguments:
        step: takes the states, a slice of each sequence, and the invariants; returns the next
            states and the results of the step. It is called once, on symbolic tensors.
        states: initial ones.
        sequences: (steps, *).
        invariants: the same in every step.
        steps: needed where there is no sequence.
        reverse: from the last slice to the first.
        names: of the body's inputs.
        name: of the node.
        captured: further invariants, which `step` finds out about: for each of them it has added an
            input to the graph of what it is given, in order, when it returns.
        sliced: numbers of those that are no invariants but further sequences.

    Returns:
        The final states, and the stacked results (steps, *).

    Raises:
        ShapeError: what does not fit each other.
    """
    inputs = (*states, *sequences, *invariants)
    if not inputs:
        raise ShapeError("a recurrence needs a state or a sequence")
    flat = [x for x in sequences if not x.rank]
    if flat:
        raise ShapeError(f"a sequence has its steps along axis 0, {flat[0].type} has no axes")
    count = sequences[0].shape[0] if sequences and steps is None else steps
    if count is None:
        raise ShapeError("a recurrence without a sequence needs to know its steps")
    labels = [*names, *(f"x{i}" for i in range(len(names), len(inputs)))]
    end = len(states) + len(sequences)
    types = [
        x.type.with_shape(x.shape[1:]) if len(states) <= i < end else x.type
        for i, x in enumerate(inputs)
    ]
    try:
        body, given = build_body(name, list(zip(labels, types, strict=True)), step)
    except QuernError as error:
        raise error.unlocated() from None
    if given != len(states):
        raise ShapeError(f"a step takes {len(states)} states and returns {given}")
    every = (*inputs, *captured)
    if sliced:
        moved = [len(inputs) + i for i in sliced]
        first, rest = range(end), range(end, len(every))
        order = [*first, *moved, *(i for i in rest if i not in moved)]
        body, every = body.reordered(order), tuple(every[i] for i in order)
    op = Recurrence(body, count, len(states), len(sequences) + len(sliced), reverse)
    results = inputs[0].graph.apply(op, *every, name=name)
    return results[: len(states)], results[len(states) :]
