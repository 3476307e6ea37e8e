"""Recurrent layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ....compiler.tensor import Tensor
from ...nn.functional.recurrent import (
    Cell,
    Direction,
    Elman,
    Gated,
    LongShortTerm,
    run_layers,
)
from ..table import operator, refuse_unless

Tensors = Sequence[Tensor]

_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _long_short_term(states: Tensors) -> Cell:
    h, c = (state.shape[-1] for state in states)
    return LongShortTerm(c, h if h != c else 0)


# Operator -> the cell of initial states like these.
_CELLS: dict[str, Callable[[Tensors], Cell]] = {
    "lstm.input": _long_short_term,
    "gru.input": lambda states: Gated(states[0].shape[-1]),
    "rnn_tanh.input": lambda states: Elman(states[0].shape[-1], nonlinearity="tanh"),
    "rnn_relu.input": lambda states: Elman(states[0].shape[-1], nonlinearity="relu"),
}


def _enter(name: str, cell_of: Callable[[Tensors], Cell]) -> None:
    @operator(name)
    def layers(
        x: Tensor,
        hx: Tensor | Tensors,
        params: Tensors,
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> tuple[Tensor, ...]:
        """The output, and the final states of all layers and directions."""
        refuse_unless(x.rank == 3, "a recurrent layer over sequences that are packed")
        states = [hx] if isinstance(hx, Tensor) else hx
        cell = cell_of(states)
        names = _WEIGHTS[: 4 if has_biases else 2] + (("weight_hr",) if cell.proj_size else ())
        weights = iter(params)
        suffixes = ("", "_reverse")[: 2 if bidirectional else 1]
        stack = []
        for number in range(num_layers):
            directions = []
            for place, suffix in enumerate(suffixes, number * len(suffixes)):
                own = [state[place] for state in states]
                given = {name: next(weights) for name in names}
                directions.append(Direction(f"l{number}{suffix}", own, given, bool(suffix)))
            stack.append(directions)
        x = x.transpose(0, 1) if batch_first else x
        output, last = run_layers(cell, x, stack, dropout=dropout if train else 0.0)
        return output.transpose(0, 1) if batch_first else output, *last


for _name, _cell_of in _CELLS.items():
    _enter(_name, _cell_of)
