"""Data sets in memory: rows, classes, parts; and those found by name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from data_files import array, same
from hypothesis import given
from hypothesis import strategies as st

from quern.compiler.errors import DataError, QuernError
from quern.runtime.data import (
    Dataset,
    digits,
    from_arrays,
    hold_out,
    load_splits,
)

# Files as other programs write them ------------------------------------------


def numbered(rows: int, classes: int = 3) -> Dataset:
    """Row i is the number i, its label i % classes."""
    return from_arrays(np.arange(rows, dtype=np.float32)[:, None], np.arange(rows) % classes)


# Data sets -------------------------------------------------------------------


def test_a_dataset_knows_its_rows_classes_and_names() -> None:
    data = from_arrays(np.zeros((4, 2)), np.array([0, 2, 1, 2], np.int32), ["a", "b", "c"])
    assert (len(data), data.class_count, data.class_names) == (4, 3, ("a", "b", "c"))
    assert data.targets.dtype == np.int64
    assert from_arrays(np.zeros((4, 2)), [0, 2, 1, 5]).class_count == 6
    regression = from_arrays({"x": np.zeros((4, 2)), "y": np.zeros(4)}, np.zeros((4, 1)))
    assert regression.class_count is None
    assert not regression.has_labels


def test_a_dataset_cannot_be_changed_and_leaves_the_arrays_of_the_caller_alone() -> None:
    mine = np.zeros((3, 2))
    data = from_arrays(mine, [0, 1, 0])
    with pytest.raises(ValueError, match="read-only"):
        array(data.inputs)[0] = 1
    mine[0] = 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: from_arrays(np.zeros((3, 2)), [0, 1]), r"found 3 in inputs and 2 in targets"),
        (lambda: from_arrays({"a": np.zeros((3, 2))}, [0, 1]), r"found 3 in input 'a' and 2"),
        (lambda: from_arrays({}, [0, 1]), r"at least one input array, found none"),
        (lambda: from_arrays([1, 2], {"y": [0, 1]}, ["a", "b"]), r"2 classes needs integer labels"),
        (lambda: from_arrays(["a", "b"], [0, 1]), r"expected numbers in inputs, found <U1"),
        (lambda: from_arrays([[1], [2, 3]], [0, 1]), r"inputs: expected an array of numbers"),
        (lambda: from_arrays(3.0, [0]), r"expected rows in inputs, found a single number"),
        (lambda: from_arrays([1, 2], [0, -1]), r"labels from 0 to 0, found -1 in row 1"),
        (lambda: from_arrays([1, 2], [0, 2], ["a", "b"]), r"from 0 to 1, found 2 in row 1"),
        (lambda: Dataset(np.zeros(2), np.zeros(2), 4), r"integer labels \(N,\).*found float64"),
        (lambda: from_arrays([1], [0]).split(0.5), r"rows in both parts, found 0.5 of 1 rows"),
        (lambda: numbered(9).split(1.5), r"found 1.5 of 9 rows"),
        (lambda: numbered(9).split(0.5, seed=-1), r"seed: expected 0 <= seed"),
        (lambda: numbered(9).take([3, 9]), r"row numbers below 9, found 3 to 9"),
        (lambda: numbered(9).take(10), r"take 0 to 9 rows, found 10"),
        (lambda: from_arrays([1.0], [1.0]).split(0.5, stratified=True), r"needs integer labels"),
    ],
)
def test_mistakes_are_one_clear_line(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, QuernError)


def test_take_gives_the_first_rows_a_slice_or_the_rows_asked_for() -> None:
    data = numbered(6)
    assert array(data.take(2).inputs).ravel().tolist() == [0, 1]
    assert array(data.take(slice(4, None)).inputs).ravel().tolist() == [4, 5]
    chosen = data.take([5, 0, 5])
    assert array(chosen.inputs).ravel().tolist() == [5, 0, 5]
    assert chosen.targets.tolist() == [2, 0, 2]
    assert chosen.class_count == 3
    assert len(data.take([])) == 0


@given(
    labels=st.lists(st.integers(0, 4), min_size=2, max_size=60),
    fraction=st.floats(0.05, 0.95),
    seed=st.integers(0, 2**64 - 1),
)
def test_a_stratified_split_shares_every_row_and_every_class(
    labels: list[int], fraction: float, seed: int
) -> None:
    data = from_arrays(np.arange(len(labels)), labels)
    if not 0 < round(fraction * len(labels)) < len(labels):
        with pytest.raises(DataError):
            data.split(fraction, seed)
        return
    for stratified in (False, True):
        first, second = data.split(fraction, seed, stratified)
        rows = [*array(first.inputs).tolist(), *array(second.inputs).tolist()]
        assert sorted(rows) == list(range(len(labels)))
        assert len(first) == round(fraction * len(labels))
        assert first.targets.tolist() == [labels[i] for i in array(first.inputs)]
        again = data.split(fraction, seed, stratified)
        assert same(first, again[0])
        assert same(second, again[1])
    for label in set(labels):
        share = labels.count(label) * fraction
        assert abs(np.count_nonzero(first.targets == label) - share) < 1 + 1e-9


def test_another_seed_splits_otherwise() -> None:
    assert not same(numbered(100).split(0.5, 0)[0], numbered(100).split(0.5, 1)[0])


def test_astype_converts_floating_arrays_and_leaves_integers() -> None:
    data = from_arrays({"x": np.zeros((2, 3)), "n": np.zeros(2, np.int32)}, np.zeros(2))
    half = data.astype(np.float32)
    assert isinstance(half.inputs, dict)
    assert [a.dtype.name for a in half.inputs.values()] == ["float32", "int32"]
    assert half.targets.dtype == np.float32


# scikit-learn's digits -------------------------------------------------------


def test_digits_are_1797_real_images_with_a_fixed_stratified_test_part() -> None:
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    data = digits()
    images = array(data.inputs)
    assert images.shape == (1797, 1, 8, 8)
    assert (images.dtype, data.targets.dtype) == (np.float32, np.int64)
    assert (images.min(), images.max()) == (0, 1)
    bunch = sklearn_datasets.load_digits()
    np.testing.assert_array_equal(images[:, 0] * 16, bunch.images)
    np.testing.assert_array_equal(data.targets, bunch.target)
    train, test = hold_out(data)
    assert (len(train), len(test)) == (1438, 359)
    assert np.bincount(test.targets).tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]
    # The same rows on every machine, and for ever: published accuracies rest on them.
    assert same(test, load_splits("digits").test)
    assert test.targets[:16].tolist() == DIGITS_TEST_LABELS


DIGITS_TEST_LABELS = [6, 7, 4, 8, 3, 7, 9, 8, 4, 1, 5, 2, 7, 3, 6, 6]


def test_without_scikit_learn_digits_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"pip install 'quern\[examples\]'"):
        digits()
