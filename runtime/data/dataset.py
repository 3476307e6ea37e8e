"""`Dataset`: rows of inputs and their targets, held in memory as NumPy arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ...compiler.errors import DataError
from .randomness import Stream, permutation

Array: TypeAlias = NDArray[Any]
Inputs: TypeAlias = Array | Mapping[str, Array]
Targets: TypeAlias = Array | Mapping[str, Array] | tuple[Array, ...]
Rows: TypeAlias = int | slice | Sequence[int] | NDArray[np.integer[Any]]


def map_inputs(function: Callable[[Array], Array], inputs: Inputs) -> Inputs:
    """`function` of the one array, or of every array of the dict."""
    if isinstance(inputs, Mapping):
        return {name: function(array) for name, array in inputs.items()}
    return function(inputs)


def map_targets(function: Callable[[Array], Array], targets: Targets) -> Targets:
    """`function` of the one array, or of every array of the dict or tuple."""
    if isinstance(targets, tuple):
        return tuple(function(array) for array in targets)
    return map_inputs(function, targets)


def named_targets(targets: Targets) -> dict[str, Array]:
    """Every array of targets by its key or number, the one array by nothing."""
    if isinstance(targets, tuple):
        return {str(place): array for place, array in enumerate(targets)}
    return dict(targets) if isinstance(targets, Mapping) else {"": targets}


def row_count(targets: Targets) -> int:
    """How many rows there are."""
    return len(next(iter(named_targets(targets).values())))


def named_arrays(inputs: Inputs, targets: Targets) -> list[tuple[str, Array]]:
    """Every array with the name that messages call it by."""
    if isinstance(inputs, Mapping):
        named = [(f"input '{name}'", array) for name, array in inputs.items()]
    else:
        named = [("inputs", inputs)]
    goals = named_targets(targets).items()
    return [*named, *((f"target '{name}'" if name else "targets", array) for name, array in goals)]


# What loss functions leave out by default, as in PyTorch.
IGNORED = -100


def check_labels(labels: Array, class_count: int, where: str, ignored: int | None = None) -> None:
    """Refuse labels outside [0, class_count) other than `ignored`, naming `where`, the row and the
    label.
    """
    outside = (labels < 0) | (labels >= class_count)
    bad = np.flatnonzero(outside if ignored is None else outside & (labels != ignored))
    if bad.size:
        raise DataError(
            f"{where}: expected labels from 0 to {class_count - 1}, "
            f"found {labels[bad[0]]} in row {bad[0]} ({bad.size} of {labels.size} are out of range)"
        )


def scaled(images: Array, dtype: DTypeLike) -> Array:
    """Byte images (uint8) as `dtype`: floating types get values in [0, 1], uint8 stays as it is."""
    if np.dtype(dtype) == images.dtype or images.dtype != np.uint8:
        return images
    if not np.issubdtype(dtype, np.floating):
        raise DataError(f"dtype: expected a floating type or uint8 for images, found {dtype}")
    result: Array = np.divide(images, np.asarray(255, dtype), dtype=dtype)
    return result


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows for training or evaluation, immutable: the arrays are held as read-only views.

    `inputs` is one array (N, ...) or a dict of them by input name; `targets` is (N, ...), and for
    classification int64 labels (N,) in [0, class_count), or -100 where there is none; or it is a
    tuple or dict of such arrays, several targets for each row.
    `class_count` and `class_names` are None where they are not known, as in regression. `name` is
    what error messages call the data.
    Raises DataError when row counts disagree, a dtype is not numeric or a label is out of range.
    """

    inputs: Inputs
    targets: Targets
    class_count: int | None = None
    class_names: tuple[str, ...] | None = None
    name: str = "dataset"

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", map_inputs(_frozen, self.inputs))
        object.__setattr__(self, "targets", map_targets(_frozen, self.targets))
        if self.class_names is not None and self.class_count is None:
            object.__setattr__(self, "class_count", len(self.class_names))
        self._verify()

    def _verify(self) -> None:
        if isinstance(self.inputs, Mapping) and not self.inputs:
            raise DataError(f"{self.name}: expected at least one input array, found none")
        if not named_targets(self.targets):
            raise DataError(f"{self.name}: expected at least one target array, found none")
        for what, array in named_arrays(self.inputs, self.targets):
            if array.dtype.kind not in "biuf":
                raise DataError(f"{self.name}: expected numbers in {what}, found {array.dtype}")
            if array.ndim == 0:
                raise DataError(f"{self.name}: expected rows in {what}, found a single number")
            if len(array) != len(self):
                raise DataError(
                    f"{self.name}: expected as many rows everywhere, "
                    f"found {len(array)} in {what} and {len(self)} in targets"
                )
        if self.class_names is not None and len(self.class_names) != self.class_count:
            raise DataError(
                f"{self.name}: expected {self.class_count} class names, "
                f"found {len(self.class_names)}"
            )
        if self.class_count is not None:
            check_labels(
                self._labels(f"a data set of {self.class_count} classes"),
                self.class_count,
                self.name,
                IGNORED,
            )

    def _labels(self, purpose: str) -> Array:
        if not isinstance(self.targets, np.ndarray) or not self.has_labels:
            found = ", ".join(_describe(array) for array in named_targets(self.targets).values())
            raise DataError(
                f"{self.name}: {purpose} needs integer labels (N,) as targets, found {found}"
            )
        return self.targets

    def __len__(self) -> int:
        return row_count(self.targets)

    def __repr__(self) -> str:
        parts = ", ".join(f"{w} {_describe(a)}" for w, a in named_arrays(self.inputs, self.targets))
        classes = "" if self.class_count is None else f", {self.class_count} classes"
        return f"Dataset({self.name}: {parts}{classes})"

    @property
    def has_labels(self) -> bool:
        """Whether the targets are integers (N,): class labels rather than values."""
        return isinstance(self.targets, np.ndarray) and _are_labels(self.targets)

    def take(self, rows: Rows) -> Dataset:
        """The first `rows` rows (an int), a slice of them, or those at the given indices."""
        index: Any = slice(0, rows) if isinstance(rows, int) else rows
        if isinstance(rows, int) and not 0 <= rows <= len(self):
            raise DataError(f"{self.name}: expected to take 0 to {len(self)} rows, found {rows}")
        if not isinstance(index, slice):
            index = np.asarray(index, np.int64) if len(index) == 0 else np.asarray(index)
            if index.ndim != 1 or index.dtype.kind not in "iu":
                raise DataError(f"{self.name}: expected row numbers (N,), found {_describe(index)}")
            if index.size and not -len(self) <= index.min() <= index.max() < len(self):
                raise DataError(
                    f"{self.name}: expected row numbers below {len(self)}, "
                    f"found {index.min()} to {index.max()}"
                )
        chosen = map_inputs(lambda array: array[index], self.inputs)
        targets = map_targets(lambda array: array[index], self.targets)
        return replace(self, inputs=chosen, targets=targets)

    def split(
        self, fraction: float, seed: int = 0, stratified: bool = False
    ) -> tuple[Dataset, Dataset]:
        """Two parts, the first with round(fraction * N) random rows, each part in the old order.

        The same seed gives the same parts on every machine. With `stratified`, every class gives
        its share to both parts, to within one row (largest remainders).
        """
        rows = np.zeros(len(self), np.int64)
        groups = self._labels("a stratified split") if stratified else rows
        total = round(fraction * len(self)) if 0 < fraction < 1 else 0
        if not 0 < total < len(self):
            raise DataError(
                f"{self.name}: expected a fraction that leaves rows in both parts, "
                f"found {fraction} of {len(self)} rows"
            )
        order = permutation(len(self), seed, Stream.SPLIT)
        by_group = order[np.argsort(groups[order], kind="stable")]
        counts = np.unique(groups, return_counts=True)[1]
        share = _largest_remainders(counts * fraction, total)
        starts = np.cumsum(counts) - counts
        rank = np.arange(len(self)) - np.repeat(starts, counts)
        first = rank < np.repeat(share, counts)
        return self.take(np.sort(by_group[first])), self.take(np.sort(by_group[~first]))

    def astype(self, dtype: DTypeLike) -> Dataset:
        """The same rows with every floating array as floating `dtype`; integers stay."""
        if not np.issubdtype(dtype, np.floating):
            raise DataError(f"{self.name}: expected a floating dtype, found {dtype}")

        def convert(array: Array) -> Array:
            return array.astype(dtype, copy=False) if array.dtype.kind == "f" else array

        return replace(
            self,
            inputs=map_inputs(convert, self.inputs),
            targets=map_targets(convert, self.targets),
        )


class Splits(NamedTuple):
    """A dataset's training rows and the rows held out to test with."""

    train: Dataset
    test: Dataset


def from_arrays(
    inputs: ArrayLike | Mapping[str, ArrayLike],
    targets: ArrayLike | Mapping[str, ArrayLike] | tuple[Array, ...],
    class_names: Sequence[str] | None = None,
    name: str = "dataset",
) -> Dataset:
    """A Dataset over arrays: one (N, ...) or a dict by input name, and targets (N, ...), of which
    there may be a dict or a tuple, too.

    Integer targets (N,) are class labels: they become int64, and the class count is the number of
    `class_names` or else the largest label plus one. Arrays are not copied unless their byte order
    is foreign. Raises DataError as `Dataset` does, for negative labels other than -100, and for
    `class_names` of several targets.
    """
    if isinstance(inputs, Mapping):
        arrays: Inputs = {
            key: _array(value, f"{name}: input '{key}'") for key, value in inputs.items()
        }
    else:
        arrays = _array(inputs, f"{name}: inputs")
    names = None if class_names is None else tuple(class_names)
    if isinstance(targets, Mapping):
        goals = {k: _whole(_array(v, f"{name}: target '{k}'")) for k, v in targets.items()}
        return Dataset(arrays, goals, None, names, name)
    if isinstance(targets, tuple) and targets and all(np.ndim(t) and _is_array(t) for t in targets):
        several = (_array(t, f"{name}: target {k}") for k, t in enumerate(targets))
        return Dataset(arrays, tuple(map(_whole, several)), None, names, name)
    goal = _array(targets, f"{name}: targets")
    if not _are_labels(goal):
        return Dataset(arrays, goal, None, names, name)
    class_count = max(int(goal.max(initial=0)), 0) + 1 if names is None else len(names)
    check_labels(goal, class_count, name, IGNORED)
    return Dataset(arrays, goal.astype(np.int64), class_count, names, name)


def _array(values: ArrayLike, where: str) -> Array:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise DataError(f"{where}: expected an array of numbers, found: {error}") from error


def _is_array(value: object) -> bool:
    return hasattr(value, "dtype")


def _are_labels(array: Array) -> bool:
    return array.ndim == 1 and array.dtype.kind in "iu"


def _whole(array: Array) -> Array:
    """Labels as int64, all else as it is."""
    return array.astype(np.int64) if _are_labels(array) else array


def _frozen(array: Array) -> Array:
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    view = native.view()
    view.flags.writeable = False
    return view


def _describe(array: Array) -> str:
    return f"{array.dtype}{array.shape}"


def _largest_remainders(exact: NDArray[np.floating[Any]], total: int) -> NDArray[np.int64]:
    """Whole numbers that add up to `total`, each `exact` rounded down or up."""
    share: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    missing = total - math.fsum(share)
    most = np.argsort(share - exact, kind="stable")
    share[most[: int(missing)]] += 1
    return share
