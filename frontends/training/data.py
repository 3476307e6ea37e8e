"""What can be trained on, as batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from ...compiler.errors import UsageError
from ...runtime.data import Batches, Dataset, Splits, Transform, from_arrays, load_splits

Data: TypeAlias = Dataset | Splits | Batches | tuple[Any, Any] | str
"""Rows to learn from: a Dataset, arrays (x, y), the name of data, or Batches of it. The x of a
network of several inputs is a dict of them, or a tuple in the order of its arguments."""


def as_splits(data: Data, names: Sequence[str]) -> tuple[Dataset | Batches, Dataset | None]:
    """The rows to learn from, and those held out where the data itself says which.

    Arguments:
        data: all of it.
        names: of the network's arguments.
    """
    if isinstance(data, str):
        data = load_splits(data)
    if isinstance(data, Splits):
        return data.train, data.test
    return as_rows(data, names), None


def as_rows(data: Data, names: Sequence[str]) -> Dataset | Batches:
    """All rows of it.

    Arguments:
        data: all of it.
        names: of the network's arguments.

    Raises:
        UsageError: it is something else, or there are more inputs than arguments.
        DataError: the arrays do not fit each other.
    """
    if isinstance(data, Dataset | Batches):
        return data
    if isinstance(data, tuple) and len(data) == 2 and not isinstance(data, Splits):
        x, *y = data
        return from_arrays(_by_name(x, names), *y)
    raise UsageError(
        f"cannot take rows from {type(data).__name__}; give (x, y), a Dataset or Batches"
    )


def training_batches(
    data: Dataset | Batches, size: int, seed: int, transform: Transform | None, dtype: np.dtype[Any]
) -> Batches:
    """Full batches in an order that is new in every epoch.

    Batches are taken as they are, but a last one that is not full is left out.
    """
    if isinstance(data, Batches):
        return replace(data, dataset=data.dataset.astype(dtype), drop_last=True)
    size = min(size, len(data))
    return Batches(data.astype(dtype), size, True, seed, drop_last=True, transform=transform)


def evaluation_batches(data: Dataset | Batches, size: int | None, dtype: np.dtype[Any]) -> Batches:
    """All rows in their order, at once without a size; the last batch may be padded."""
    if isinstance(data, Batches):
        return replace(data, dataset=data.dataset.astype(dtype), shuffle=False, drop_last=False)
    return Batches(data.astype(dtype), max(1, min(size or len(data), len(data))))


def rows_of(x: Any, names: Sequence[str]) -> Dataset:
    """Inputs without targets."""
    x = _by_name(x, names)
    first = next(iter(x.values())) if isinstance(x, Mapping) else x
    return from_arrays(x, np.zeros(len(np.asarray(first)), np.float32))


def _by_name(x: Any, names: Sequence[str]) -> Any:
    """A tuple of inputs by the names of the arguments that they are for."""
    if not isinstance(x, tuple):
        return x
    if len(x) > len(names):
        raise UsageError(f"{len(x)} inputs are given for the arguments {', '.join(names)}")
    return dict(zip(names, x, strict=False))
