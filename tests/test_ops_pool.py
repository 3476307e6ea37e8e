"""Pooling: maxima with their positions, sums and averages, their gradients, as in PyTorch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gradcheck import check_gradients, run_op
from hypothesis import assume, given
from hypothesis import strategies as st
from pooling import AVERAGES, NAMED, Index, distinct, geometries, gradient_of, of, windows

from quern.compiler.ops.base import apply, apply_all
from quern.compiler.ops.composite import expansion
from quern.compiler.ops.pool import (
    AvgPool,
    MaxPool,
    MaxPoolGather,
    MaxPoolGradient,
    MaxPoolIndices,
    SumPool,
    SumPoolGradient,
    max_pool_padding,
)
from quern.compiler.ops.window import Window
from quern.compiler.types import Array, TensorType


def pooled(x: Array, w: Window, pick: Callable[[list[int], list[Any]], Any]) -> Array:
    """`pick` of the numbers and elements of the places of each window."""
    found = dict(windows(x.shape[2:], w))
    y = np.zeros((*x.shape[:2], *(m + 1 for m in max(found))))
    for n, c in np.ndindex(*x.shape[:2]):
        for at, places in found.items():
            elements = [x[(n, c, *place)] for _, place in places]
            y[(n, c, *at)] = pick([number for number, _ in places], elements)
    return y


def first_maximum(numbers: list[int], elements: list[Any]) -> int:
    """Number of the first place that holds the maximum; a NaN is larger than everything."""
    best = 0
    for i, element in enumerate(elements):
        if math.isnan(elements[best]):
            break
        if math.isnan(element) or element > elements[best]:
            best = i
    return numbers[best]


# -- maximum --------------------------------------------------------------------------------------


@given(
    geometry=geometries(), seed=st.integers(0, 99), dtype=st.sampled_from([np.float32, np.float64])
)
def test_maximum_and_its_first_position(
    geometry: tuple[Index, Window], seed: int, dtype: Any
) -> None:
    spatial, w = geometry
    assume(all(places for _, places in windows(spatial, w)))
    choices = [-np.inf, -1.0, -0.0, 0.0, 0.5, 2.0, np.inf, np.nan]
    x = np.random.default_rng(seed).choice(choices, size=(2, 2, *spatial)).astype(dtype)
    y, position = run_op(of(MaxPool, w), x)
    assert y.dtype == dtype
    assert position.dtype == np.uint8
    np.testing.assert_array_equal(position, pooled(x, w, first_maximum))

    def element(numbers: list[int], elements: list[Any]) -> Any:
        return elements[numbers.index(first_maximum(numbers, elements))]

    expected = pooled(x, w, element)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(np.signbit(y), np.signbit(expected))


def test_padding_is_never_chosen() -> None:
    x = np.full((1, 1, 2), -np.inf, np.float32)
    y, position = run_op(MaxPool((2,), (1,), ((1, 1),), (1,)), x)
    np.testing.assert_array_equal(y, np.full((1, 1, 3), -np.inf))
    np.testing.assert_array_equal(position[0, 0], [1, 0, 0])


@pytest.mark.parametrize(
    ("kernel", "dtype"), [((16, 16), np.uint8), ((257, 1), np.int32), ((1, 256), np.uint8)]
)
def test_positions_take_one_byte_where_they_fit(kernel: Index, dtype: Any) -> None:
    x = np.arange(math.prod(kernel), dtype=np.float32).reshape(1, 1, *kernel)
    _, position = run_op(MaxPool(kernel, kernel, ((0, 0),) * 2, (1, 1)), x)
    assert position.dtype == dtype
    assert position.item() == math.prod(kernel) - 1


named = pytest.mark.parametrize(("spatial", "w"), NAMED.values(), ids=NAMED)


@named
def test_gradients_of_max_pooling(spatial: Index, w: Window) -> None:
    check_gradients(lambda x: apply_all(of(MaxPool, w), x)[0], distinct((2, 1, *spatial)))


@named
def test_gradients_of_picking_and_putting_back(spatial: Index, w: Window) -> None:
    x = distinct((1, 2, *spatial))
    y, position = run_op(of(MaxPool, w), x)
    check_gradients(lambda x, p: apply(of(MaxPoolGather, w), x, p), x, position)
    back = gradient_of(MaxPoolGradient, spatial, w)
    check_gradients(lambda dy, p: apply(back, dy, p), y, position)


@given(geometry=geometries(), seed=st.integers(0, 99))
def test_picking_and_putting_back_are_transposes(geometry: tuple[Index, Window], seed: int) -> None:
    spatial, w = geometry
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, 2, *spatial))
    shape = (2, 2, *w.outputs(spatial))
    dy, position = rng.standard_normal(shape), rng.integers(0, w.size, shape).astype(np.uint8)
    (picked,) = run_op(of(MaxPoolGather, w), x, position)
    (put,) = run_op(gradient_of(MaxPoolGradient, spatial, w), dy, position)
    assert np.vdot(picked, dy) == pytest.approx(np.vdot(x, put), rel=1e-9, abs=1e-9)
    expected = np.zeros_like(x)
    for n, c in np.ndindex(2, 2):
        for at, places in windows(spatial, w):
            for number, place in places:
                if number == position[(n, c, *at)]:
                    expected[(n, c, *place)] += dy[(n, c, *at)]
    np.testing.assert_allclose(put, expected, rtol=1e-12, atol=1e-12)


def test_what_was_picked_is_the_maximum() -> None:
    spatial, w = NAMED["overlapping, lopsided"]
    x = distinct((2, 3, *spatial))
    y, position = run_op(of(MaxPool, w), x)
    np.testing.assert_array_equal(run_op(of(MaxPoolGather, w), x, position)[0], y)


def test_positions_beyond_the_window_are_clamped_to_its_last_place() -> None:
    op = MaxPoolGather((2,), (2,), ((0, 0),), (1,))
    x = np.array([[[1.0, 2.0, 3.0, 4.0]]])
    (y,) = run_op(op, x, np.array([[[0, 200]]], np.uint8))
    np.testing.assert_array_equal(y, [[[1.0, 4.0]]])


# -- sum and average ------------------------------------------------------------------------------


@given(
    geometry=geometries(), seed=st.integers(0, 99), dtype=st.sampled_from([np.float32, np.float64])
)
def test_sum_and_its_transpose(geometry: tuple[Index, Window], seed: int, dtype: Any) -> None:
    spatial, w = geometry
    x = np.random.default_rng(seed).standard_normal((2, 2, *spatial)).astype(dtype)
    (y,) = run_op(of(SumPool, w), x)
    assert y.dtype == dtype
    expected = pooled(x.astype(np.float64), w, lambda _, elements: sum(elements))
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)
    dy = np.random.default_rng(seed + 1).standard_normal((2, 2, *w.outputs(spatial)))
    (back,) = run_op(gradient_of(SumPoolGradient, spatial, w), dy)
    form = np.vdot(x.astype(np.float64), back)
    assert np.vdot(expected, dy) == pytest.approx(form, rel=1e-9, abs=1e-9)


@named
def test_gradients_of_sums(spatial: Index, w: Window, rng: np.random.Generator) -> None:
    x = rng.standard_normal((1, 2, *spatial))
    check_gradients(lambda x: apply(of(SumPool, w), x), x)
    back = gradient_of(SumPoolGradient, spatial, w)
    dy = rng.standard_normal((1, 2, *w.outputs(spatial)))
    check_gradients(lambda dy: apply(back, dy), dy)


def average(x: Array, op: AvgPool) -> Array:
    """Averages over windows, an axis of every window cut at the padded end of the input."""
    spatial = x.shape[2:]
    along = []
    for n, k, s, (low, high) in zip(spatial, op.kernel, op.stride, op.padding, strict=True):
        count = 0
        while count * s + k <= low + n + high:
            count += 1
        if op.ceil_mode and count * s < low + n and (count - 1) * s + k < low + n + high:
            count += 1
        while op.ceil_mode and count > 1 and (count - 1) * s >= low + n:
            count -= 1
        starts = [i * s - low for i in range(count)]
        along.append([range(start, min(start + k, n + high)) for start in starts])
    y = np.zeros((*x.shape[:2], *map(len, along)))
    for n, c, *at in np.ndindex(*y.shape):
        window = list(itertools.product(*(a[i] for a, i in zip(along, at, strict=True))))
        inside = [p for p in window if all(0 <= a < m for a, m in zip(p, spatial, strict=True))]
        total = sum(float(x[(n, c, *place)]) for place in inside)
        count = op.divisor_override or len(window if op.count_include_pad else inside)
        y[(n, c, *at)] = total / count if inside else 0.0
    return y


@given(
    geometry=geometries(ceil=True), ceil=st.booleans(), include=st.booleans(),
    divisor=st.sampled_from([None, None, 3, -2]), seed=st.integers(0, 99),
)  # fmt: skip
def test_average(
    geometry: tuple[Index, Window], ceil: bool, include: bool, divisor: int | None, seed: int
) -> None:
    spatial, w = geometry
    op = AvgPool(w.kernel, w.stride, w.padding, ceil, include, divisor)
    x = np.random.default_rng(seed).standard_normal((2, 1, *spatial))
    (y,) = run_op(op, x)
    np.testing.assert_allclose(y, average(x, op), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("spatial", "op"), AVERAGES.values(), ids=AVERAGES)
def test_named_averages_and_their_gradients(
    spatial: Index, op: AvgPool, rng: np.random.Generator
) -> None:
    x = rng.standard_normal((1, 2, *spatial))
    np.testing.assert_allclose(run_op(op, x)[0], average(x, op), rtol=1e-12, atol=1e-15)
    check_gradients(lambda x: apply(op, x), x)


def test_an_average_without_uneven_windows_needs_one_number() -> None:
    graph = expansion(AvgPool((2, 2), (2, 2), ((0, 0),) * 2), (TensorType((1, 3, 8, 8)),))
    assert [array.shape for array in graph.data.values()] == [()]


@given(geometry=geometries(ceil=True))
def test_ceil_mode_gives_the_number_of_windows_that_pytorch_documents(
    geometry: tuple[Index, Window],
) -> None:
    spatial, w = geometry
    rounded = max_pool_padding(spatial, w.kernel, w.stride, w.padding, w.dilation, True)
    got = Window(w.kernel, w.stride, rounded, w.dilation).outputs(spatial)
    for n, k, s, (low, high), count in zip(
        spatial, w.kernel, w.stride, w.padding, got, strict=True
    ):
        expected = math.ceil((n + low + high - k) / s) + 1
        while expected > 1 and (expected - 1) * s >= n + low:
            expected -= 1
        assert count == expected
    unchanged = max_pool_padding(spatial, w.kernel, w.stride, w.padding, w.dilation, False)
    assert unchanged == w.padding


# -- parity ---------------------------------------------------------------------------------------


PARITY = [
    ((7,), (3,), (2,), (1,)),
    ((6, 7), (2, 3), (3, 2), (1, 1)),
    ((5, 4), (3, 2), (1, 2), (0, 1)),
    ((4, 5, 4), (2, 2, 3), (2, 3, 2), (1, 0, 1)),
]


@pytest.mark.parametrize(("spatial", "kernel", "stride", "padding"), PARITY)
@pytest.mark.parametrize("ceil", [False, True])
def test_parity_with_pytorch(
    spatial: Index, kernel: Index, stride: Index, padding: Index, ceil: bool
) -> None:
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    rank = len(spatial)
    rng = np.random.default_rng(rank)
    # Few different numbers, so that there are ties, and a NaN.
    x = rng.integers(0, 4, (2, 2, *spatial)).astype(np.float64)
    x.flat[-3] = np.nan
    max_pool = (f.max_pool1d, f.max_pool2d, f.max_pool3d)[rank - 1]
    avg_pool = (f.avg_pool1d, f.avg_pool2d, f.avg_pool3d)[rank - 1]

    pairs, ones = tuple((p, p) for p in padding), (1,) * rank
    rounded = max_pool_padding(spatial, kernel, stride, pairs, ones, ceil)
    y, position = run_op(MaxPool(kernel, stride, rounded, ones), x)
    expected, places = max_pool(
        torch.tensor(x), kernel, stride, padding, ceil_mode=ceil, return_indices=True
    )
    np.testing.assert_array_equal(y, expected.numpy())
    op = MaxPoolIndices(spatial, kernel, stride, rounded, ones)
    (indices,) = run_op(op, position)
    clear = ~np.isnan(y)  # PyTorch counts the last NaN of a window, here it is the first
    np.testing.assert_array_equal(indices[clear], places.numpy()[clear])

    for include in (False, True):
        (y,) = run_op(AvgPool(kernel, stride, pairs, ceil, include), x)
        expected = avg_pool(torch.tensor(x), kernel, stride, padding, ceil, include)
        np.testing.assert_allclose(y, expected.numpy(), rtol=1e-12)
