"""Mini-batches as a pure function of (seed, epoch, index)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...compiler.errors import DataError
from .dataset import (
    Array,
    Dataset,
    Inputs,
    Targets,
    map_inputs,
    map_targets,
    named_arrays,
    row_count,
)
from .randomness import Stream, permutation, philox

Transform: TypeAlias = Callable[[Inputs, Any, np.random.Generator], tuple[Inputs, Any]]
"""Takes inputs and targets of a batch, and random numbers; gives other ones."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows that go through the network together, always as many as the batch size.

    Only the first `count` rows are of the data set; the others repeat the last of them, because a
    compiled executable has static shapes. `epoch` and `index` say where the batch stands.
    """

    inputs: Inputs
    targets: Targets
    count: int
    epoch: int
    index: int

    def parts(self, count: int) -> Iterator[Batch]:
        """So many batches of equal size, one after the other, whose rows are all those of this."""
        rows = row_count(self.targets)
        if count < 1 or rows % count:
            raise DataError(f"a batch of {rows} rows is not cut into {count} equal parts")
        size = rows // count
        for begin in range(0, rows, size):

            def cut(array: Array, begin: int = begin) -> Array:
                return array[begin : begin + size]

            inputs, targets = map_inputs(cut, self.inputs), map_targets(cut, self.targets)
            real = min(max(self.count - begin, 0), size)
            yield Batch(inputs, targets, real, self.epoch, self.index)


@dataclass(frozen=True, eq=False)
class Batches:
    """A data set cut into batches of `batch_size` rows.

    `shuffle` draws a new order for every epoch from (seed, epoch). `drop_last` leaves out the rows
    that do not fill a batch (for training); without it the last batch is padded and its `count`
    says how many rows are real (for evaluation). `transform(inputs, targets, rng)` returns the new
    (inputs, targets) of a batch, with as many rows; its generator is drawn from (seed, epoch,
    index), so a batch has the same bits whether or not those before it were made:

        Batches(data, 64, shuffle=True, drop_last=True,
                transform=lambda x, y, rng: (random_crop(x, rng, padding=4), y))
    """

    dataset: Dataset
    batch_size: int
    shuffle: bool = False
    seed: int = 0
    drop_last: bool = False
    transform: Transform | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise DataError(f"batch_size: expected at least 1, found {self.batch_size}")
        if len(self) == 0:
            raise DataError(
                f"{self.dataset.name}: expected rows for at least one batch of {self.batch_size}"
                f"{' (drop_last=True)' if self.drop_last else ''}, found {len(self.dataset)}"
            )

    def __len__(self) -> int:
        """How many batches an epoch has."""
        rows = len(self.dataset)
        return rows // self.batch_size if self.drop_last else -(-rows // self.batch_size)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch (from 0), in order, from index `start` on."""
        if epoch < 0 or not 0 <= start <= len(self):
            raise DataError(
                f"{self.dataset.name}: expected epoch >= 0 and start from 0 to {len(self)}, "
                f"found epoch {epoch}, start {start}"
            )
        order = self._order(epoch)
        return (self._batch(order, epoch, index) for index in range(start, len(self)))

    def _order(self, epoch: int) -> NDArray[np.int64]:
        count = len(self.dataset)
        if self.shuffle:
            return permutation(count, self.seed, Stream.SHUFFLE, epoch)
        return np.arange(count)

    def _batch(self, order: NDArray[np.int64], epoch: int, index: int) -> Batch:
        rows = order[index * self.batch_size : (index + 1) * self.batch_size]
        count = len(rows)
        rows = np.pad(rows, (0, self.batch_size - count), mode="edge")
        inputs = map_inputs(lambda array: array[rows], self.dataset.inputs)
        targets = map_targets(lambda array: array[rows], self.dataset.targets)
        if self.transform is not None:
            rng = np.random.Generator(philox(self.seed, Stream.TRANSFORM, epoch, index))
            inputs, targets = self.transform(inputs, targets, rng)
            for what, array in named_arrays(inputs, targets):
                if len(array) != self.batch_size:
                    raise DataError(
                        f"{self.dataset.name}: expected transform to keep {self.batch_size} rows, "
                        f"found {len(array)} in {what}"
                    )
        return Batch(inputs, targets, count, epoch, index)
