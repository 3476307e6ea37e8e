"""Mini-batches that depend on their seed and place alone, and preparing them ahead of time."""

from __future__ import annotations

import gc
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quern.compiler.errors import DataError
from quern.runtime.data import Batch, Batches, Dataset, Prefetcher, from_arrays


def array(values: Any) -> np.ndarray[Any, Any]:
    """The one input of a batch."""
    assert isinstance(values, np.ndarray)
    return values


def same(left: Batch, right: Batch) -> bool:
    return (
        array(left.inputs).tobytes() == array(right.inputs).tobytes()
        and left.targets.tobytes() == right.targets.tobytes()
        and left.count == right.count
    )


def numbered(rows: int, classes: int = 3) -> Dataset:
    """Row i is the number i, its label i % classes."""
    return from_arrays(np.arange(rows, dtype=np.float32)[:, None], np.arange(rows) % classes)


# Batches ---------------------------------------------------------------------


def jitter(inputs: Any, targets: Any, rng: np.random.Generator) -> tuple[Any, Any]:
    return inputs + rng.random(inputs.shape, np.float32), targets


@given(
    rows=st.integers(1, 40),
    size=st.integers(1, 12),
    seed=st.integers(0, 2**64 - 1),
    epoch=st.integers(0, 1000),
    data=st.data(),
)
def test_batches_depend_on_seed_epoch_and_index_alone(
    rows: int, size: int, seed: int, epoch: int, data: st.DataObject
) -> None:
    batches = Batches(numbered(rows), size, shuffle=True, seed=seed, transform=jitter)
    whole = list(batches.batches(epoch))
    assert len(whole) == len(batches) == -(-rows // size)
    assert [(b.epoch, b.index) for b in whole] == [(epoch, i) for i in range(len(whole))]
    start = data.draw(st.integers(0, len(batches)))
    resumed = list(batches.batches(epoch, start))
    assert len(resumed) == len(whole) - start
    assert all(same(a, b) for a, b in zip(whole[start:], resumed, strict=True))


@given(rows=st.integers(1, 40), size=st.integers(1, 12), shuffle=st.booleans())
def test_every_row_comes_once_and_padding_is_counted(rows: int, size: int, shuffle: bool) -> None:
    data = numbered(rows)
    seen = []
    for batch in Batches(data, size, shuffle).batches(0):
        assert len(array(batch.inputs)) == len(batch.targets) == size
        seen += array(batch.inputs)[: batch.count, 0].astype(int).tolist()
        assert (array(batch.inputs)[batch.count :] == seen[-1]).all()
        assert batch.targets.tolist() == (array(batch.inputs)[:, 0].astype(int) % 3).tolist()
    assert sorted(seen) == list(range(rows))
    assert shuffle or seen == sorted(seen)


def test_drop_last_leaves_out_what_does_not_fill_a_batch() -> None:
    batches = Batches(numbered(11), 4, drop_last=True)
    assert [b.count for b in batches.batches(0)] == [4, 4]
    assert [b.count for b in Batches(numbered(11), 4).batches(0)] == [4, 4, 3]


def test_epochs_and_seeds_shuffle_differently_and_batches_are_the_callers_own() -> None:
    data = numbered(64)
    batches = Batches(data, 64, shuffle=True, seed=1)
    first, second = next(batches.batches(0)), next(batches.batches(1))
    other = next(Batches(data, 64, shuffle=True, seed=2).batches(0))
    assert not same(first, second)
    assert not same(first, other)
    array(first.inputs)[:] = -1
    assert array(data.inputs).min() == 0


def philox_words(count: int, key: tuple[int, int], counter: int) -> list[int]:
    """Philox4x64-10 in whole numbers, as Salmon et al. (SC 2011) define it."""
    words: list[int] = []
    while len(words) < count:
        counter += 1
        x = [counter >> 64 * i & 2**64 - 1 for i in range(4)]
        k0, k1 = key
        for _ in range(10):
            left, right = 0xD2E7470EE14C6C93 * x[0], 0xCA5A826395121157 * x[2]
            x = [right >> 64 ^ x[1] ^ k0, right, left >> 64 ^ x[3] ^ k1, left]
            x = [word & 2**64 - 1 for word in x]
            k0, k1 = (k0 + 0x9E3779B97F4A7C15) % 2**64, (k1 + 0xBB67AE8584CAA73B) % 2**64
        words += x
    return words[:count]


def test_the_shuffled_order_is_that_of_philox_words() -> None:
    """So a checkpoint resumes with the same rows under any version of NumPy."""
    shuffle_stream, seed, epoch = 1, 7, 3
    batch = next(Batches(numbered(10), 10, shuffle=True, seed=seed).batches(epoch))
    words = philox_words(10, (seed, shuffle_stream), epoch << 192)
    assert array(batch.inputs).ravel().tolist() == sorted(range(10), key=words.__getitem__)


def test_several_inputs_stay_together() -> None:
    x = np.arange(6)
    data = from_arrays({"a": x, "b": -x}, x.astype(float))
    for batch in Batches(data, 4, shuffle=True).batches(0):
        assert isinstance(batch.inputs, dict)
        np.testing.assert_array_equal(batch.inputs["a"], -batch.inputs["b"])
        np.testing.assert_array_equal(batch.inputs["a"], batch.targets)


def test_batches_refuse_what_cannot_be() -> None:
    with pytest.raises(DataError, match=r"at least one batch of 8 \(drop_last=True\), found 5"):
        Batches(numbered(5), 8, drop_last=True)
    with pytest.raises(DataError, match="batch_size: expected at least 1, found 0"):
        Batches(numbered(5), 0)
    with pytest.raises(DataError, match="start from 0 to 2, found epoch 0, start 3"):
        Batches(numbered(5), 4).batches(0, 3)
    halved = Batches(numbered(8), 4, transform=lambda x, y, rng: (array(x)[:2], y))
    with pytest.raises(DataError, match="transform to keep 4 rows, found 2 in inputs"):
        next(halved.batches(0))


# Prefetching -----------------------------------------------------------------


@pytest.fixture
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@given(items=st.lists(st.integers()), depth=st.integers(1, 4))
def test_prefetching_keeps_items_and_order(items: list[int], depth: int) -> None:
    assert list(Prefetcher(items, depth)) == items


def test_prefetched_batches_have_the_same_bits(no_thread_left: None) -> None:
    batches = Batches(numbered(50), 8, shuffle=True, transform=jitter)
    with Prefetcher(batches.batches(2)) as ahead:
        for plain, prefetched in zip(batches.batches(2), ahead, strict=True):
            assert same(plain, prefetched)


def faulty_source() -> Iterator[int]:
    yield 1
    raise ZeroDivisionError("row 17")


def test_an_error_in_the_source_comes_after_its_items_with_its_traceback(
    no_thread_left: None,
) -> None:
    ahead = Prefetcher(faulty_source())
    assert next(ahead) == 1
    with pytest.raises(ZeroDivisionError, match="row 17") as caught:
        next(ahead)
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert "faulty_source" in frames
    assert frames[0] == "test_an_error_in_the_source_comes_after_its_items_with_its_traceback"
    assert list(ahead) == []


class Endless:
    """Counts for ever, and remembers how far it was asked to go and whether it was closed."""

    def __init__(self) -> None:
        self.made = 0
        self.closed_by: threading.Thread | None = None

    def __iter__(self) -> Iterator[int]:
        try:
            while True:
                self.made += 1
                yield self.made
        finally:
            self.closed_by = threading.current_thread()


@pytest.mark.parametrize("reason", [KeyboardInterrupt, ValueError])
def test_leaving_the_block_stops_the_thread(
    no_thread_left: None, reason: type[BaseException]
) -> None:
    source = Endless()
    ahead = Prefetcher(source, depth=3)

    def train() -> None:
        with ahead:
            assert next(ahead) == 1
            raise reason

    with pytest.raises(reason):
        train()
    assert source.made <= 1 + 3 + 1
    assert source.closed_by not in (None, threading.current_thread())
    assert list(ahead) == []


def test_a_dropped_prefetcher_stops_its_thread(no_thread_left: None) -> None:
    source = Endless()
    for item in Prefetcher(source):
        if item == 3:
            break
    gc.collect()
    assert source.closed_by is not None


def test_ctrl_c_while_waiting_stops_the_thread(
    no_thread_left: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer, wait_for = threading.current_thread(), threading.Condition.wait_for
    waiting = threading.Event()

    def slow() -> Iterator[int]:
        waiting.wait()
        yield 1

    def interrupted(condition: threading.Condition, predicate: Callable[[], bool]) -> bool:
        if threading.current_thread() is not consumer:
            return wait_for(condition, predicate)
        waiting.set()
        raise KeyboardInterrupt

    ahead = Prefetcher(slow())
    monkeypatch.setattr(threading.Condition, "wait_for", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(ahead)
