"""Counts of sequences of numbers in longer ones."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ....compiler.errors import OnnxError
from ....compiler.ops.linear import matmul
from ....compiler.tensor import Tensor
from ....compiler.types import Array, DType
from ..call import Call, Result, operator

# Comparisons with one place of a sequence at one distance.
_MOST_COMPARED = 4096


@operator("TfIdfVectorizer")
def _tf_idf(call: Call) -> Result:
    if "pool_strings" in call.attributes:
        raise OnnxError("strings are not supported")
    x = call.x()
    indexes, mode = call.integers("ngram_indexes"), call.text("mode")
    if not indexes or min(indexes) < 0:
        raise OnnxError(f"its results cannot be at {indexes}")
    call.importer.check_made(len(indexes), max(indexes) + 1)
    counted = [_counts(call, x, pool) for pool in _pools(call)]
    total = np.zeros((len(indexes), max(indexes) + 1))
    total[np.arange(len(indexes)), indexes] = 1.0
    result: Tensor | None = None
    for counts, rows in counted:
        part = matmul(counts, call.constant(total[rows], DType.FLOAT32))
        result = part if result is None else result + part
    assert result is not None
    if mode == "IDF":
        result = result.minimum(1.0)
    if mode == "TF" or "weights" not in call.attributes:
        return result
    weights = np.zeros(total.shape[1])
    weights[list(indexes)] = call.numbers("weights")
    return result * call.constant(weights, DType.FLOAT32)


def _pools(call: Call) -> list[tuple[Array, slice]]:
    """For each length that is asked for, the sequences (P, length), and which of all they are."""
    pool = np.array(call.integers("pool_int64s"), np.int64)
    starts = (*call.integers("ngram_counts"), len(pool))
    lengths = range(call.integer("min_gram_length"), call.integer("max_gram_length") + 1)
    found, first = [], 0
    for length, (start, end) in enumerate(pairwise(starts), 1):
        sequences = pool[start:end].reshape((-1, length))
        if length in lengths:
            found.append((sequences, slice(first, first + len(sequences))))
        first += len(sequences)
    return found


def _counts(call: Call, x: Tensor, pool: tuple[Array, slice]) -> tuple[Tensor, slice]:
    """How often each sequence is in the rows of x, with up to so many numbers left out between."""
    sequences, rows = pool
    length = sequences.shape[1]
    skips = range(1 if length == 1 else call.integer("max_skip_count") + 1)
    if min(len(skips), x.shape[-1]) * length > _MOST_COMPARED:
        raise OnnxError(
            f"its sequences of {length} with up to {len(skips) - 1} left out are too many"
        )
    total = call.filled((*x.shape[:-1], len(sequences)), 0.0, DType.FLOAT32)
    for step in (s + 1 for s in skips):
        places = x.shape[-1] - (length - 1) * step
        if places < 1:
            break
        hit: Tensor | None = None
        for k in range(length):
            window = x.slice_axis(x.rank - 1, k * step, places).unsqueeze(-1)
            same = window.equal(call.constant(sequences[:, k], x.dtype))
            hit = same if hit is None else hit & same
        assert hit is not None
        total = total + hit.cast(DType.FLOAT32).sum(-2)
    return total, rows
