"""Recurrent cells, and layers of them over sequences.

A cell reads what the input contributes to its gates, `x W_ihᵀ + b_ih`, apart from its states: over
a sequence, that is one matrix product for all steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ....compiler.errors import DTypeError, ShapeError, UsageError
from ....compiler.ops import pointwise as pw
from ....compiler.ops.base import Op, apply
from ....compiler.ops.indexing import own_indices, split, stack
from ....compiler.ops.linear import Linear
from ....compiler.ops.movement import Concat
from ....compiler.ops.recurrence import recur
from ....compiler.tensor import Tensor, choose
from ....compiler.types import DType, Shape
from ..context import StepTrace, require_trace
from .dropout import dropout as drop

Weights: TypeAlias = Mapping[str, Tensor]

NONLINEARITIES: dict[str, type[Op]] = {"tanh": pw.Tanh, "relu": pw.Relu}


@dataclass(frozen=True)
class Cell(ABC):
    """What a recurrent layer computes in one step.

    Arguments:
        hidden_size: H, elements of the state that its gates have.
        proj_size: P, elements of a projected output; 0 for none.
    """

    hidden_size: int
    proj_size: int = 0

    gates: int = 1
    state_names: tuple[str, ...] = ("h",)

    @property
    def output_size(self) -> int:
        """Elements of h."""
        return self.proj_size or self.hidden_size

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """Elements of each state."""
        return (self.output_size, self.hidden_size)[: len(self.state_names)]

    def shapes(self, input_size: int, bias: bool) -> dict[str, Shape]:
        """The shapes of its parameters, by name."""
        rows = self.gates * self.hidden_size
        result: dict[str, Shape] = {
            "weight_ih": (rows, input_size),
            "weight_hh": (rows, self.output_size),
        }
        if bias:
            result |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        if self.proj_size:
            result["weight_hr"] = (self.proj_size, self.hidden_size)
        return result

    def contribution(self, x: Tensor, weights: Weights) -> tuple[Tensor, Weights]:
        """What the input (…, I) gives to the gates, (…, gates * H), and the weights that are left:
        those a step reads.
        """
        left = {k: w for k, w in weights.items() if k not in ("weight_ih", "bias_ih", "bias_hh")}
        bias = [weights["bias_ih"] + weights["bias_hh"]] if "bias_ih" in weights else []
        return named(Linear(), "input", x, weights["weight_ih"], *bias), left

    @abstractmethod
    def step(self, x: Tensor, states: Sequence[Tensor], weights: Weights) -> tuple[Tensor, ...]:
        """The next states; the first one is the output.

        Arguments:
            x: contribution of the input, (B, gates * H).
            states: (B, size) each.
            weights: those that `contribution` left.
        """


@dataclass(frozen=True)
class Elman(Cell):
    """h' = tanh(x W_ihᵀ + b_ih + h W_hhᵀ + b_hh), or relu (Elman, 1990)."""

    nonlinearity: str = "tanh"

    def __post_init__(self) -> None:
        if self.nonlinearity not in NONLINEARITIES:
            raise UsageError(
                f"the nonlinearity of an RNN is 'tanh' or 'relu', not {self.nonlinearity!r}"
            )

    def step(self, x: Tensor, states: Sequence[Tensor], weights: Weights) -> tuple[Tensor, ...]:
        recurrent = named(Linear(), "recurrent", states[0], weights["weight_hh"])
        gates = named(pw.Add(), "gates", x, recurrent)
        return (named(NONLINEARITIES[self.nonlinearity](), "hidden", gates),)


@dataclass(frozen=True)
class LongShortTerm(Cell):
    """The LSTM: i, f, o = σ(…), g = tanh(…); c' = f c + i g, h' = o tanh(c') (Hochreiter and
    Schmidhuber, 1997; Gers, Schmidhuber and Cummins, 2000).

    Arguments:
        peepholes: i and f also see c, o sees c', element by element (Gers and Schmidhuber, 2000).
        coupled: there is no f of its own, f = 1 - i (Greff et al., 2017).
    """

    gates: int = 4
    state_names: tuple[str, ...] = ("h", "c")
    peepholes: bool = False
    coupled: bool = False

    def shapes(self, input_size: int, bias: bool) -> dict[str, Shape]:
        result = super().shapes(input_size, bias)
        if self.peepholes:
            result["weight_peephole"] = (self.gates - 1, self.hidden_size)
        return result

    def step(self, x: Tensor, states: Sequence[Tensor], weights: Weights) -> tuple[Tensor, ...]:
        h, c = states
        gates = named(pw.Add(), "gates", x, named(Linear(), "recurrent", h, weights["weight_hh"]))
        i, *fs, g, o = split(gates, self.hidden_size, 1)
        if self.peepholes:
            seen_by = weights["weight_peephole"]
            i = i + seen_by[0] * c
            fs = [f + seen_by[1] * c for f in fs]
        i = named(pw.Sigmoid(), "input_gate", i)
        f = named(pw.Sigmoid(), "forget_gate", fs[0]) if fs else 1.0 - i
        g = named(pw.Tanh(), "candidate", g)
        c = named(pw.Add(), "cell", f * c, i * g)
        if self.peepholes:
            o = o + seen_by[-1] * c
        o = named(pw.Sigmoid(), "output_gate", o)
        h = named(pw.Multiply(), "hidden", o, c.tanh())
        if self.proj_size:
            h = named(Linear(), "projected", h, weights["weight_hr"])
        return h, c


@dataclass(frozen=True)
class Gated(Cell):
    """The GRU: r, z = σ(…), n = tanh(x W_inᵀ + b_in + r (h W_hnᵀ + b_hn)), h' = (1 - z) n + z h
    (Cho et al., 2014, with r after the product).
    """

    gates: int = 3

    def contribution(self, x: Tensor, weights: Weights) -> tuple[Tensor, Weights]:
        left = {k: w for k, w in weights.items() if k not in ("weight_ih", "bias_ih")}
        bias = [weights["bias_ih"]] if "bias_ih" in weights else []
        return named(Linear(), "input", x, weights["weight_ih"], *bias), left

    def step(self, x: Tensor, states: Sequence[Tensor], weights: Weights) -> tuple[Tensor, ...]:
        (h,) = states
        bias = [weights["bias_hh"]] if "bias_hh" in weights else []
        gates = named(Linear(), "recurrent", h, weights["weight_hh"], *bias)
        x_r, x_z, x_n = split(x, self.hidden_size, 1)
        h_r, h_z, h_n = split(gates, self.hidden_size, 1)
        r = named(pw.Sigmoid(), "reset_gate", x_r + h_r)
        z = named(pw.Sigmoid(), "update_gate", x_z + h_z)
        n = named(pw.Tanh(), "candidate", x_n + r * h_n)
        return (named(pw.Add(), "hidden", n, z * (h - n)),)


def named(op: Op, name: str, first: Tensor, *others: Tensor) -> Tensor:
    """A node with a name that says what it is in its cell."""
    (result,) = first.graph.apply(op, first, *others, name=name)
    return result


def run_cell(
    cell: Cell, x: Tensor, states: Sequence[Tensor], weights: Weights
) -> tuple[Tensor, ...]:
    """One step of a cell: x (B, I), states (B, size)."""
    given, left = cell.contribution(x, weights)
    return cell.step(given, states, left)


def run_layer(
    cell: Cell,
    x: Tensor,
    states: Sequence[Tensor],
    weights: Weights,
    mask: Tensor | None = None,
    reverse: bool = False,
    name: str = "recurrence",
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """A cell over all steps of a sequence.

    Arguments:
        cell: what is computed in a step.
        x: (T, B, I).
        states: initial ones, (B, size) each.
        weights: by the names of `Cell.shapes`.
        mask: bool (T, B, 1); where it is false, states stay as they are and the output is 0.
        reverse: from the last step to the first.
        name: of the recurrence, in the scope of the graph.

    Returns:
        The output (T, B, output_size) and the final states.
    """
    with x.graph.scope(prefix=_joined(x.graph._scope.prefix, name)):
        given, left = cell.contribution(x, weights)
    sequences = [given] if mask is None else [given, mask]
    count = len(states)

    def step(*values: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        before, (here, *masks) = values[:count], values[count : count + len(sequences)]
        invariants = dict(zip(left, values[count + len(sequences) :], strict=True))
        after = list(cell.step(here, before, invariants))
        output = after[0]
        for valid in masks:
            output = valid.where(output, 0.0)
            after = [choose(valid, new, old) for new, old in zip(after, before, strict=True)]
        return after, [output]

    names = (*cell.state_names, "x", *(("valid",) if mask is not None else ()), *left)
    finals, (output,) = recur(
        step, states, sequences, list(left.values()), reverse=reverse, names=names, name=name
    )
    return output, finals


@dataclass(frozen=True)
class Direction:
    """One direction of a layer of cells.

    Arguments:
        name: of the recurrence.
        states: initial ones, (B, size) each.
        weights: by the names of `Cell.shapes`.
        reverse: from the last step to the first.
    """

    name: str
    states: Sequence[Tensor]
    weights: Weights
    reverse: bool = False


def run_layers(
    cell: Cell,
    x: Tensor,
    layers: Sequence[Sequence[Direction]],
    mask: Tensor | None = None,
    dropout: float = 0.0,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Layers of a cell: each reads what the directions of the one before give, side by side.

    Arguments:
        cell: what is computed in a step.
        x: (T, B, I).
        layers: the directions of each.
        mask: as for `run_layer`.
        dropout: probability that an element between two layers is dropped.

    Returns:
        The output of the last layer, (T, B, directions * output_size), and the final states of all
        layers and directions, (layers * directions, B, size) each.
    """
    finals = []
    for number, directions in enumerate(layers):
        x = drop(x, dropout) if number and dropout else x
        outputs = []
        for d in directions:
            output, final = run_layer(cell, x, d.states, d.weights, mask, d.reverse, d.name)
            outputs.append(output)
            finals.append(final)
        x = apply(Concat(2), *outputs) if len(outputs) > 1 else outputs[0]
    return x, tuple(stack(parts) for parts in zip(*finals, strict=True))


def recurrence(
    step: Callable[..., tuple[Iterable[Tensor], Iterable[Tensor]]],
    states: Sequence[Tensor] | Tensor,
    sequences: Sequence[Tensor] | Tensor = (),
    invariants: Sequence[Tensor] | Tensor = (),
    steps: int | None = None,
    reverse: bool = False,
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Any step over all slices of sequences, as one node: a recurrent net built by hand.

        def step(h, x):
            h = self.cell(x, h)
            return [h], [h]

        (last,), (all_of_them,) = recurrence(step, [h0], [x])

    Arguments:
        step: is called once, with the states, a slice (*) of each sequence, and the invariants;
            returns the next states, of the same types, and the results of the step; one tensor
            stands for a list of one. It may call modules, whose parameters are the same in all
            steps, and read tensors from around it, which are, too; dropout and other random
            numbers are new in each.
        states: initial ones.
        sequences: (steps, *).
        invariants: other tensors that a step is called with, the same in all steps.
        steps: needed where there is no sequence.
        reverse: from the last slice to the first.

    Returns:
        The final states, and the results of all steps, (steps, *).

    Raises:
        ShapeError: what does not fit each other.
        UsageError: the step returns something else, or assigns buffers.
    """
    trace = require_trace("recurrence")
    states, sequences, invariants = (_several(x) for x in (states, sequences, invariants))
    count = sequences[0].shape[0] if steps is None and sequences and sequences[0].rank else steps
    captured: list[Tensor] = []
    sliced: list[int] = []

    def traced(*inputs: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        graph = inputs[0].graph
        body = StepTrace(graph, seed=trace.seed, outer=trace, captured=captured, sliced=sliced)
        body.steps = count or 0
        with body.running():
            returned = step(*inputs)
            if not isinstance(returned, tuple | list) or len(returned) != 2:
                raise UsageError(
                    "the step of a recurrence returns its next states and its results, two lists; "
                    f"got {returned!r}"
                )
            after, results = ([graph.own(x) for x in _several(part)] for part in returned)
        return after, results

    return recur(
        traced, states, sequences, invariants, count, reverse, captured=captured, sliced=sliced
    )


def _several(tensors: Iterable[Tensor] | Tensor) -> list[Tensor]:
    return [tensors] if isinstance(tensors, Tensor) else list(tensors)


def valid_steps(lengths: Tensor, steps: int, batch: int) -> Tensor:
    """Which steps of each sequence there are, bool (T, B, 1), from their lengths (B,)."""
    if lengths.dtype not in (DType.INT32, DType.INT64):
        raise DTypeError(f"lengths are int32 or int64, got {lengths.type}")
    if lengths.shape != (batch,):
        raise ShapeError(f"lengths are one a sequence, ({batch},), got {lengths.type}")
    times = own_indices(lengths.reshape(1, batch, 1), 0, steps, lengths.dtype)
    return times < lengths.reshape(1, batch, 1)


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
