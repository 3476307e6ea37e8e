"""Recurrent layers, with PyTorch's arguments, initial contents and state-dict keys."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from ...compiler.errors import ShapeError, UsageError
from ...compiler.tensor import Tensor
from ...compiler.types import DType
from . import init
from .context import require_trace, snake_case
from .functional.recurrent import (
    Cell,
    Direction,
    Elman,
    Gated,
    LongShortTerm,
    Weights,
    run_layers,
    valid_steps,
)
from .linear import empty
from .module import Layer
from .packed import PackedSequence
from .state import Parameter

States = tuple[Tensor, ...]
Lengths: TypeAlias = Tensor | Sequence[int]


class Recurrent(Layer):
    """Base of what has the parameters of recurrent cells."""

    def __init__(self, cell: Cell, input_size: int, bias: bool) -> None:
        super().__init__()
        if cell.hidden_size < 1 or input_size < 0:
            raise UsageError(
                f"{type(self).__name__} of input_size {input_size} and hidden_size "
                f"{cell.hidden_size}: give a hidden_size from 1"
            )
        if not 0 <= cell.proj_size < max(cell.hidden_size, 1):
            raise UsageError(
                f"proj_size {cell.proj_size} is from 0 to below hidden_size {cell.hidden_size}"
            )
        self.cell = cell
        self.input_size = input_size
        self.hidden_size = cell.hidden_size
        self.proj_size = cell.proj_size
        self.bias = bias

    def _add_cell(self, input_size: int, suffix: str = "") -> None:
        for name, shape in self.cell.shapes(input_size, self.bias).items():
            self.register_parameter(name + suffix, Parameter(empty(*shape)))

    def _weights(self, suffix: str = "") -> Weights:
        names = self.cell.shapes(self.input_size, self.bias)
        return {name: getattr(self, name + suffix) for name in names}

    def reset_parameters(self) -> None:
        """New random contents, uniform in ±1 / sqrt(hidden_size)."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def _as_states(self, given: object, like: Tensor, lead: tuple[int, ...]) -> States:
        """Initial states (*lead, size), zeros where none are given.

        Raises:
            ShapeError: what is given has other shapes.
        """
        sizes, names = self.cell.state_sizes, self.cell.state_names
        if given is None:
            return tuple(like.constant(0).broadcast_to((*lead, n)) for n in sizes)
        states = (given,) if isinstance(given, Tensor) else given
        if not isinstance(states, Sequence) or len(states) != len(names):
            wanted = " and ".join(f"{n}_0" for n in names)
            got = len(states) if isinstance(states, Sequence) else type(given).__name__
            raise ShapeError(f"{type(self).__name__} takes the initial states {wanted}, got {got}")
        for state, name, size in zip(states, names, sizes, strict=True):
            if state.shape != (*lead, size):
                raise ShapeError(
                    f"{name}_0 is {state.type}, it must have the shape {(*lead, size)}"
                )
        return tuple(states)

    def _check_input(self, x: Tensor, *axes: str) -> None:
        """
        Raises:
            ShapeError: the input has neither these axes nor all but B, or another number of
                features.
        """
        if x.rank not in (len(axes), len(axes) - 1) or x.shape[-1] != self.input_size:
            raise ShapeError(
                f"{type(self).__name__} takes ({', '.join(axes)}), or without B, "
                f"with I = {self.input_size}, got {x.type}"
            )


class RecurrentLayers(Recurrent):
    """Base of the recurrent layers: cells over sequences, several layers, one or two directions.

    The input is (T, B, I), (B, T, I) with `batch_first`, or (T, I) for one sequence. Initial states
    are (layers * directions, B, size), zeros by default. The output is (T, B, directions * size),
    that of the last layer, beside the final states. `lengths` (B,), a tensor or numbers, tells how
    many steps each sequence has: what comes after them changes nothing, and gives 0. A
    PackedSequence, which has its own, gives another one.

    Parameters are weight_ih_l0 (gates * H, I), weight_hh_l0 (gates * H, size), bias_ih_l0 and
    bias_hh_l0 (gates * H,), and the same for each layer, l1, …, and direction, l0_reverse.
    """

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
    ) -> None:
        super().__init__(cell, input_size, bias)
        if num_layers < 1:
            raise UsageError(f"num_layers is from 1, got {num_layers}")
        if not 0.0 <= dropout <= 1.0:
            raise UsageError(f"dropout is a probability from 0 to 1, got {dropout}")
        self.num_layers = num_layers
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        for place, suffix in enumerate(self._suffixes()):
            first = place < self.num_directions
            before = input_size if first else cell.output_size * self.num_directions
            self._add_cell(before, suffix)
        self.reset_parameters()

    @property
    def num_directions(self) -> int:
        """2 for bidirectional layers, else 1."""
        return 2 if self.bidirectional else 1

    @property
    def all_weights(self) -> list[list[Parameter]]:
        """The parameters of each layer and direction."""
        names = self.cell.shapes(self.input_size, self.bias)
        return [[getattr(self, name + suffix) for name in names] for suffix in self._suffixes()]

    def flatten_parameters(self) -> None:
        """Nothing: compiled networks keep weights as their kernels read them."""

    def _suffixes(self) -> list[str]:
        """Of the parameters of each layer and direction."""
        directions = ("", "_reverse")[: self.num_directions]
        return [f"_l{layer}{d}" for layer in range(self.num_layers) for d in directions]

    def _run(
        self, x: Tensor | PackedSequence, given: object, lengths: Lengths | None
    ) -> tuple[Any, States]:
        """The output, of the kind and in the axes of the input, and the final states."""
        if isinstance(x, PackedSequence):
            if lengths is not None:
                raise UsageError("a PackedSequence has lengths of its own; leave the others out")
            self._check_input(x.padded, *"TBI")
            output, last = self._over_time(x.padded, given, x.lengths)
            return PackedSequence(output, x.lengths), last
        self._check_input(x, *("BTI" if self.batch_first else "TBI"))
        if x.rank == 2:
            return self._run_one(x, given, lengths)
        if not self.batch_first:
            return self._over_time(x, given, lengths)
        output, last = self._over_time(x.transpose(0, 1), given, lengths)
        return output.transpose(0, 1), last

    def _over_time(
        self, x: Tensor, given: object, lengths: Lengths | None
    ) -> tuple[Tensor, States]:
        """The output (T, B, *) and the final states of all layers."""
        steps, batch, _ = x.shape
        count = self.num_layers * self.num_directions
        if given is None:
            initial = [self._as_states(None, x, (batch,))] * count
        else:
            states = self._as_states(given, x, (count, batch))
            initial = [tuple(s[place] for s in states) for place in range(count)]
        if lengths is not None and not isinstance(lengths, Tensor):
            if max(lengths, default=0) > steps:
                raise ShapeError(f"a length is {max(lengths)}, the sequences have {steps} steps")
            lengths = x.graph.constant(lengths, DType.INT64)
        mask = None if lengths is None else valid_steps(lengths, steps, batch)
        if mask is not None:
            x = mask.where(x, 0.0)  # were it not a number, the gradients would be none either
        layers, suffixes = [], self._suffixes()
        for number in range(self.num_layers):
            places = range(number * self.num_directions, (number + 1) * self.num_directions)
            layers.append([self._direction(suffixes[i], initial[i]) for i in places])
        prefix = x.graph._scope.prefix
        if count == 1:  # the only one there is has the name of the module
            prefix, _, name = (require_trace("").take_name() or snake_case(self)).rpartition(".")
            layers = [[replace(layers[0][0], name=name)]]
        dropout = self.dropout if self.training else 0.0
        with x.graph.scope(prefix=prefix):
            return run_layers(self.cell, x, layers, mask, dropout)

    def _direction(self, suffix: str, states: States) -> Direction:
        """One direction of one layer, that of a suffix."""
        name, weights = suffix.removeprefix("_"), self._weights(suffix)
        return Direction(name, states, weights, suffix.endswith("_reverse"))

    def _run_one(self, x: Tensor, given: object, lengths: Lengths | None) -> tuple[Tensor, States]:
        """One sequence without a batch axis."""
        if lengths is not None:
            raise UsageError("lengths are for batches; cut the one sequence where it ends")
        axis = 0 if self.batch_first else 1
        if given is not None:
            states = self._as_states(given, x, (self.num_layers * self.num_directions,))
            given = tuple(s.unsqueeze(1) for s in states)
        output, finals = self._run(x.unsqueeze(axis), given, None)
        return output.squeeze(axis), tuple(s.squeeze(1) for s in finals)

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        defaults = {
            "proj_size": 0,
            "num_layers": 1,
            "bias": True,
            "batch_first": False,
            "dropout": 0.0,
            "bidirectional": False,
        }
        given = ((name, getattr(self, name), usual) for name, usual in defaults.items())
        return text + "".join(f", {name}={value}" for name, value, usual in given if value != usual)


class RNN(RecurrentLayers):
    """h[t] = tanh(x[t] W_ihᵀ + b_ih + h[t-1] W_hhᵀ + b_hh), or relu (Elman, 1990).

    Arguments:
        input_size: I.
        hidden_size: H.
        num_layers: each reads the output of the one before.
        nonlinearity: "tanh" or "relu".
        bias: whether there are b_ih and b_hh.
        batch_first: input and output are (B, T, *).
        dropout: of the output of every layer but the last, in training.
        bidirectional: a second cell runs backwards, its output stands behind that of the first.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
    ) -> None:
        cell = Elman(hidden_size, nonlinearity=nonlinearity)
        super().__init__(cell, input_size, num_layers, bias, batch_first, dropout, bidirectional)
        self.nonlinearity = nonlinearity

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Tensor | None = None,
        lengths: Lengths | None = None,
    ) -> tuple[Any, Tensor]:
        output, (h,) = self._run(input, hx, lengths)
        return output, h


def long_short_term(size: int, projected: int, peepholes: bool, coupled: bool) -> LongShortTerm:
    """The cell of an LSTM that is described by these."""
    gates = 3 if coupled else 4
    return LongShortTerm(size, projected, gates, peepholes=peepholes, coupled=coupled)


class LSTM(RecurrentLayers):
    """i, f, o = σ(…), g = tanh(…), c[t] = f c[t-1] + i g, h[t] = o tanh(c[t]) (Hochreiter and
    Schmidhuber, 1997; Gers, Schmidhuber and Cummins, 2000).

    Rows of the weights are those of i, f, g and o. Initial and final states are (h, c).

    Arguments:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional: as of RNN.
        proj_size: h is projected to so many elements; 0 leaves it as it is (Sak et al., 2014).
        peepholes: i and f also see c[t-1], and o sees c[t], through the rows i, f, o of
            weight_peephole_l0 (3, H), … (Gers and Schmidhuber, 2000).
        coupled: f = 1 - i; the rows of f are left out (Greff et al., 2017).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        peepholes: bool = False,
        coupled: bool = False,
    ) -> None:
        cell = long_short_term(hidden_size, proj_size, peepholes, coupled)
        super().__init__(cell, input_size, num_layers, bias, batch_first, dropout, bidirectional)

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: tuple[Tensor, Tensor] | None = None,
        lengths: Lengths | None = None,
    ) -> tuple[Any, tuple[Tensor, Tensor]]:
        output, (h, c) = self._run(input, hx, lengths)
        return output, (h, c)


class GRU(RecurrentLayers):
    """r, z = σ(…), n = tanh(x W_inᵀ + b_in + r (h W_hnᵀ + b_hn)), h' = (1 - z) n + z h
    (Cho et al., 2014).

    Rows of the weights are those of r, z and n. Arguments are those of RNN.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
    ) -> None:
        cell = Gated(hidden_size)
        super().__init__(cell, input_size, num_layers, bias, batch_first, dropout, bidirectional)

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Tensor | None = None,
        lengths: Lengths | None = None,
    ) -> tuple[Any, Tensor]:
        output, (h,) = self._run(input, hx, lengths)
        return output, h
