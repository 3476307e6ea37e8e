"""Recurrent layers."""

from __future__ import annotations

from collections.abc import Sequence

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


@operator("lstm.input")
def _lstm(
    x: Tensor,
    hx: Tensors,
    params: Tensors,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    hidden, projected = hx[1].shape[-1], hx[0].shape[-1]
    cell = LongShortTerm(hidden, projected if projected != hidden else 0)
    p = dropout if train else 0.0
    return _layers(cell, x, hx, params, has_biases, num_layers, p, bidirectional, batch_first)


@operator("gru.input")
def _gru(
    x: Tensor,
    hx: Tensor,
    params: Tensors,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    p = dropout if train else 0.0
    cell = Gated(hx.shape[-1])
    return _layers(cell, x, [hx], params, has_biases, num_layers, p, bidirectional, batch_first)


def _elman(nonlinearity: str) -> None:
    @operator(f"rnn_{nonlinearity}.input")
    def layers(
        x: Tensor,
        hx: Tensor,
        params: Tensors,
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> tuple[Tensor, ...]:
        p = dropout if train else 0.0
        cell = Elman(hx.shape[-1], nonlinearity=nonlinearity)
        return _layers(cell, x, [hx], params, has_biases, num_layers, p, bidirectional, batch_first)


_elman("tanh")
_elman("relu")


def _layers(
    cell: Cell,
    x: Tensor,
    states: Tensors,
    params: Tensors,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    """The output, and the final states of all layers and directions."""
    refuse_unless(x.rank == 3, "a recurrent layer over sequences that are packed")
    names = _WEIGHTS[: 4 if has_biases else 2] + (("weight_hr",) if cell.proj_size else ())
    weights = iter(params)
    suffixes = ("", "_reverse")[: 2 if bidirectional else 1]
    layers = []
    for number in range(num_layers):
        directions = []
        for place, suffix in enumerate(suffixes, number * len(suffixes)):
            own = [state[place] for state in states]
            given = {name: next(weights) for name in names}
            directions.append(Direction(f"l{number}{suffix}", own, given, bool(suffix)))
        layers.append(directions)
    x = x.transpose(0, 1) if batch_first else x
    output, last = run_layers(cell, x, layers, dropout=dropout)
    return output.transpose(0, 1) if batch_first else output, *last
