"""Rows of a table, looked up and joined."""

from __future__ import annotations

import math

from ....compiler.errors import ShapeError, UsageError
from ....compiler.ops.base import apply
from ....compiler.ops.indexing import ScatterAdd, own_indices
from ....compiler.tensor import Tensor
from .shape import embedding


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    *,
    mode: str = "mean",
    per_sample_weights: Tensor | None = None,
) -> Tensor:
    """The mean, sum or largest elements of the rows of each bag of indices: (bags, D).

    Arguments:
        input: the bags (bags, N), or all of them one after the other, (N,).
        weight: (V, D).
        offsets: where each bag of (N,) begins, (bags,); an empty one gives 0.
        mode: "mean", "sum" or "max".
        per_sample_weights: by which the rows are multiplied, of the shape of the input; for "sum".
    """
    if mode not in ("mean", "sum", "max"):
        raise UsageError(f"mode is mean, sum or max, not {mode!r}")
    if per_sample_weights is not None and mode != "sum":
        raise UsageError(f"per_sample_weights are for mode 'sum', not {mode!r}")
    if input.rank != (2 if offsets is None else 1):
        raise ShapeError(
            f"bags are the rows of (bags, N), or (N,) with offsets (bags,), got {input.type}"
        )
    rows = embedding(input, weight)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.unsqueeze(-1)
    if offsets is None:
        return rows.amax(1) if mode == "max" else rows.mean(1) if mode == "mean" else rows.sum(1)
    count, bags = input.shape[0], offsets.shape[0]
    places = own_indices(rows, 0, count, offsets.dtype).reshape(-1)
    # Bags from 1 on: the last offset at or before a place is that of its bag; 0 is in none.
    bag = offsets.searchsorted(places, right=True)
    if mode == "max":
        own = bag.equal(own_indices(offsets.unsqueeze(1), 0, bags, bag.dtype) + 1)
        largest = own.unsqueeze(-1).where(rows, -math.inf).amax(1)
        return own.any(1).unsqueeze(1).where(largest, 0.0)
    total = _added(rows, bag, bags)
    if mode == "sum":
        return total
    ones = rows.constant(1.0).broadcast_to((count, 1))
    return total / _added(ones, bag, bags).maximum(1.0)


def _added(rows: Tensor, bag: Tensor, bags: int) -> Tensor:
    """The sums of the rows of each bag, which are numbered from 1 on."""
    return apply(ScatterAdd((bags + 1, rows.shape[1]), 0), bag, rows)[1:]


__all__ = ["embedding_bag"]
