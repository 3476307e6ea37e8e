"""Recurrent layers."""

from __future__ import annotations

from collections.abc import Sequence

from ....compiler.ops.base import apply
from ....compiler.ops.movement import Concat
from ....compiler.tensor import Tensor
from ...nn.functional import shape
from ...nn.functional.dropout import dropout as drop
from ...nn.functional.recurrent import Cell, Elman, Gated, LongShortTerm, run_layer
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
    x = x.transpose(0, 1) if batch_first else x
    finals: list[tuple[Tensor, ...]] = []
    for layer in range(num_layers):
        outputs = []
        for suffix in ("", "_reverse")[: 2 if bidirectional else 1]:
            own = [state[len(finals)] for state in states]
            given = {name: next(weights) for name in names}
            output, final = run_layer(
                cell, x, own, given, reverse=bool(suffix), name=f"l{layer}{suffix}"
            )
            outputs.append(output)
            finals.append(final)
        x = apply(Concat(2), *outputs) if len(outputs) > 1 else outputs[0]
        if layer < num_layers - 1 and dropout:
            x = drop(x, dropout)
    last = (shape.stack(parts) for parts in zip(*finals, strict=True))
    return x.transpose(0, 1) if batch_first else x, *last
