"""Random numbers that are a pure function of a seed and a place in the run.

Philox (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) is counter-based: the
key is (seed, stream) and the counter starts at (epoch, index), so any batch of any epoch can be
drawn at once, without drawing those before it.
"""

from __future__ import annotations

import enum

import numpy as np
from numpy.typing import NDArray

from ...compiler.errors import DataError


class Stream(enum.IntEnum):
    """What the numbers are for: one seed gives unrelated numbers to each purpose."""

    SPLIT = 0
    SHUFFLE = 1
    TRANSFORM = 2


def philox(seed: int, stream: Stream, epoch: int = 0, index: int = 0) -> np.random.Philox:
    """The counter-based bit generator of one place in a run; `seed` is in [0, 2**64)."""
    if not 0 <= seed < 2**64:
        raise DataError(f"seed: expected 0 <= seed < 2**64, found {seed}")
    return np.random.Philox(
        key=np.array([seed, stream], np.uint64),
        # The low words count the draws, so places never overlap before 2**128 of them.
        counter=np.array([0, 0, index, epoch], np.uint64),
    )


def permutation(count: int, seed: int, stream: Stream, epoch: int = 0) -> NDArray[np.int64]:
    """A random order of `count` rows, int64.

    Sorts raw Philox words: NumPy promises those for ever, but not `Generator.permutation`'s stream.
    """
    words = philox(seed, stream, epoch).random_raw(count)
    return np.argsort(words, kind="stable").astype(np.int64, copy=False)
