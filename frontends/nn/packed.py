"""Sequences of several lengths: `torch.nn.utils.rnn`.

Shapes are known before a network runs, lengths need not be. So sequences stay padded, and what is
packed is the padded tensor beside the lengths: recurrent layers read no step behind the last one
of a sequence, and no gradient comes from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn, TypeAlias

import numpy as np

from ...compiler.errors import ShapeError, UnknownAttributeError, UsageError
from ...compiler.ops.base import apply
from ...compiler.ops.indexing import stack
from ...compiler.ops.movement import Pad, PadMode
from ...compiler.tensor import Tensor, choose
from ...compiler.types import Array, DType
from .eager import on_arrays
from .functional.recurrent import valid_steps

Lengths: TypeAlias = "Tensor | Array | Sequence[int]"


class PackedSequence(NamedTuple):
    """Sequences of several lengths, as `pack_padded_sequence` gives them to recurrent layers.

    Attributes:
        padded: (T, B, *); what lies behind the end of a sequence counts for nothing.
        lengths: (B,), int64.
    """

    padded: Tensor
    lengths: Tensor

    def to(self, dtype: Any) -> PackedSequence:
        """The same values in another dtype; "cpu" is where all are."""
        return PackedSequence(self.padded.to(dtype), self.lengths)

    def __getitem__(self, key: object) -> NoReturn:
        """
        Raises:
            UsageError: always; steps do not lie one behind the other.
        """
        raise UsageError(_no_layout(f"[{key!r}]"))

    def __getattr__(self, name: str) -> NoReturn:
        """
        Raises:
            UnknownAttributeError: what to write in place of what PyTorch has there.
        """
        if name in ("data", "batch_sizes", "sorted_indices", "unsorted_indices"):
            raise UnknownAttributeError(_no_layout(f".{name}"))
        raise AttributeError(f"'PackedSequence' object has no attribute {name!r}")


def _no_layout(what: str) -> str:
    return (
        f"a PackedSequence has no {what}: its steps stay padded; take pad_packed_sequence(packed), "
        "or .padded (T, B, *) and .lengths (B,), and leave padding out of a loss by ignore_index"
    )


def pack_padded_sequence(
    input: Tensor, lengths: Lengths, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Padded sequences with their lengths, for recurrent layers.

    Arguments:
        input: (T, B, *), or (B, T, *) with `batch_first`.
        lengths: (B,), from 1. Numbers that are known here are checked, and end the padding with the
            longest sequence; a tensor of the network keeps T.
        enforce_sorted: lengths have to decrease, which is looked at where they are known. The order
            of the sequences stays in either case.

    Raises:
        UsageError: lengths that are known are below 1 or not sorted.
        ShapeError: they are longer than T, or not B.
    """
    if not isinstance(lengths, Tensor):
        lengths = tuple(int(n) for n in lengths)
        _check_lengths(lengths, input.shape[1 if batch_first else 0], enforce_sorted)
    return _packed(input, lengths, batch_first)


def _check_lengths(known: Sequence[int], steps: int, enforce_sorted: bool) -> None:
    if min(known, default=1) < 1:
        raise UsageError(f"lengths are from 1, got {min(known)}; leave empty sequences out")
    if max(known, default=0) > steps:
        raise ShapeError(f"a length is {max(known)}, the sequences have {steps} steps")
    if enforce_sorted and list(known) != sorted(known, reverse=True):
        raise UsageError(f"lengths {tuple(known)} do not decrease; give enforce_sorted=False")


@on_arrays
def _packed(x: Tensor, lengths: Tensor | tuple[int, ...], batch_first: bool) -> PackedSequence:
    x = x.transpose(0, 1) if batch_first else x
    if not isinstance(lengths, Tensor):
        x = x.slice_axis(0, 0, max(lengths, default=0))
        lengths = x.graph.constant(lengths, DType.INT64)
    valid_steps(lengths, *x.shape[:2])  # says what does not fit
    return PackedSequence(x, lengths.cast(DType.INT64))


@on_arrays
def pad_packed_sequence(
    sequence: PackedSequence,
    batch_first: bool = False,
    padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Sequences (T, B, *) with a value behind the end of each, and their lengths (B,).

    T is the longest length where lengths were known when they were packed, else the number of steps
    that were padded.

    Arguments:
        batch_first: gives (B, T, *).
        padding_value: what lies behind the end.
        total_length: T, from that on.
    """
    x, lengths = sequence
    steps, batch, *rest = x.shape
    total = steps if total_length is None else total_length
    if total < steps:
        raise ShapeError(f"total_length {total} is below the {steps} steps of {x.type}")
    mask = valid_steps(lengths, steps, batch).reshape((steps, batch, *(1 for _ in rest)))
    padded = _longer(choose(mask, x, padding_value), total, padding_value)
    return padded.transpose(0, 1) if batch_first else padded, lengths


def _longer(x: Tensor, steps: int, value: float, side: str = "right") -> Tensor:
    """So many steps along axis 0."""
    missing = steps - x.shape[0]
    if not missing:
        return x
    pair = (0, missing) if side == "right" else (missing, 0)
    pairs = (pair, *((0, 0) for _ in x.shape[1:]))
    return apply(Pad(pairs, PadMode.CONSTANT, float(value)), x)


@on_arrays
def pad_sequence(
    sequences: Sequence[Tensor],
    batch_first: bool = False,
    padding_value: float = 0.0,
    padding_side: str = "right",
) -> Tensor:
    """Sequences (T_i, *) of several lengths side by side: (T, B, *) for the longest T.

    Arguments:
        batch_first: gives (B, T, *).
        padding_value: what fills up the shorter ones.
        padding_side: "right", behind their end, or "left".
    """
    if padding_side not in ("right", "left"):
        raise UsageError(f"padding_side is 'right' or 'left', not {padding_side!r}")
    if not sequences:
        raise ShapeError("pad_sequence takes at least one sequence")
    steps = max(s.shape[0] for s in sequences)
    padded = [_longer(s, steps, padding_value, padding_side) for s in sequences]
    return stack(padded, 0 if batch_first else 1)


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Sequences (T_i, *) of several lengths, for recurrent layers."""
    lengths = [s.shape[0] for s in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, False, enforce_sorted)


def unpad_sequence(
    padded_sequences: Tensor, lengths: Lengths, batch_first: bool = False
) -> list[Tensor]:
    """Sequences (T_i, *) without their padding.

    Raises:
        UsageError: lengths are a tensor of the network, on which shapes would depend.
    """
    if isinstance(lengths, Tensor):
        raise UsageError(
            "lengths of the network cannot cut sequences, whose shapes are known before it runs; "
            "mask what is behind them"
        )
    axis = 0 if batch_first else 1
    cut = (slice(int(n)) for n in np.asarray(lengths))
    return [padded_sequences[(b, n) if axis == 0 else (n, b)] for b, n in enumerate(cut)]


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """Sequences (T_i, *) of what was packed, outside of a network."""
    padded, lengths = pad_packed_sequence(packed_sequences)
    return unpad_sequence(padded, lengths)


__all__ = [
    "PackedSequence",
    "pack_padded_sequence",
    "pack_sequence",
    "pad_packed_sequence",
    "pad_sequence",
    "unpack_sequence",
    "unpad_sequence",
]
