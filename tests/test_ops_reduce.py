"""Reductions over axes, against NumPy and central differences."""

from __future__ import annotations

import numpy as np
import pytest
from gradcheck import run, run_gradients
from hypothesis import given
from hypothesis import strategies as st
from op_cases import cases, spread, value_of

from quern.compiler.errors import DTypeError, ShapeError
from quern.compiler.ops import reduce as rd
from quern.compiler.ops.base import apply

X = spread((2, 3, 2))
WHOLE = np.arange(-3, 3).reshape(2, 3)

CASES = [
    cases(rd.Sum((1,)), lambda x: x.sum(1, keepdims=True), X),
    cases(rd.Sum((0, 2)), lambda x: x.sum((0, 2), keepdims=True), X),
    cases(rd.Sum((0, 1)), lambda x: x.sum(keepdims=True), WHOLE, rounds=0),
    cases(rd.Product((2,)), lambda x: x.prod(2, keepdims=True), X),
    cases(rd.Product((0, 1, 2)), lambda x: x.prod(keepdims=True), X[:, :, :2]),
    cases(rd.Max((1,)), lambda x: x.max(1, keepdims=True), X),
    cases(rd.Max((0, 2)), lambda x: x.max((0, 2), keepdims=True), X),
    cases(rd.Max((1,)), lambda x: x.max(1, keepdims=True), WHOLE, rounds=0),
    cases(rd.Min((0, 1, 2)), lambda x: x.min(keepdims=True), X),
    cases(rd.Min((0,)), lambda x: x.min(0, keepdims=True), WHOLE, rounds=0),
]
REDUCTIONS: list[tuple[type[rd.Reduction], np.ufunc]] = [
    (rd.Sum, np.add), (rd.Product, np.multiply), (rd.Max, np.maximum), (rd.Min, np.minimum),
]  # fmt: skip


@given(
    shape=st.lists(st.integers(1, 4), max_size=4), chosen=st.sets(st.integers(0, 3)),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_any_axes_of_any_shape(shape: list[int], chosen: set[int], seed: int) -> None:
    x = np.random.default_rng(seed).standard_normal(shape)
    axes = tuple(sorted(d for d in chosen if d < len(shape)))
    for op, ufunc in REDUCTIONS:
        expected = x
        for d in axes:
            expected = ufunc.reduce(expected, d, keepdims=True)
        np.testing.assert_allclose(value_of(op(axes), x), expected, rtol=1e-12, atol=1e-14)


def test_sums_of_nothing_are_zero_and_products_one() -> None:
    x = np.zeros((2, 0))
    np.testing.assert_array_equal(value_of(rd.Sum((1,)), x), np.zeros((2, 1)))
    np.testing.assert_array_equal(value_of(rd.Product((1,)), x), np.ones((2, 1)))
    assert value_of(rd.Max((0,)), x).shape == (1, 0)
    with pytest.raises(ShapeError, match="empty axis 1"):
        value_of(rd.Max((1,)), x)


def test_nan_comes_through_and_infinities_cancel_to_nan() -> None:
    x = np.array([[1.0, np.nan, 2.0], [np.inf, -np.inf, 0.0], [-np.inf, 1.0, 2.0]])
    np.testing.assert_array_equal(value_of(rd.Max((1,)), x)[:, 0], [np.nan, np.inf, 2])
    np.testing.assert_array_equal(value_of(rd.Min((1,)), x)[:, 0], [np.nan, -np.inf, -np.inf])
    np.testing.assert_array_equal(value_of(rd.Sum((1,)), x)[:, 0], [np.nan, np.nan, -np.inf])


def test_integers_keep_their_type_and_wrap() -> None:
    x = np.full((2,), 2**30, np.int32)
    y = value_of(rd.Sum((0,)), x)
    assert y.dtype == np.int32
    np.testing.assert_array_equal(y, [-(2**31)])


def test_ties_share_the_signal_evenly() -> None:
    x = np.array([[2.0, 1.0, 2.0], [3.0, 3.0, 3.0]])
    signal = np.array([[1.0], [6.0]])
    (dx,) = run_gradients(lambda t: apply(rd.Max((1,)), t), signal, x)
    np.testing.assert_allclose(dx, [[0.5, 0, 0.5], [2, 2, 2]])


def test_gradient_of_a_product_with_zeros() -> None:
    x = np.array([[2.0, 3.0, 4.0], [0.0, 3.0, 4.0], [0.0, 0.0, 4.0]])
    (dx,) = run_gradients(lambda t: apply(rd.Product((1,)), t), np.ones((3, 1)), x)
    np.testing.assert_array_equal(dx, [[12, 8, 6], [12, 0, 0], [0, 0, 0]])


@given(shape=st.lists(st.integers(0, 4), max_size=3), keepdims=st.booleans())
def test_mean_is_numpy_s(shape: list[int], keepdims: bool) -> None:
    x = np.random.default_rng(len(shape)).standard_normal(shape)
    (y,) = run(lambda t: t.mean(keepdims=keepdims), x)
    expected = x.mean(keepdims=keepdims) if x.size else np.full_like(y, np.nan)
    assert y.shape == (tuple(1 for _ in shape) if keepdims else ())
    np.testing.assert_allclose(y, expected)


def test_what_cannot_be_reduced_is_refused() -> None:
    with pytest.raises(DTypeError, match="got bool"):
        value_of(rd.Sum((0,)), np.array([True]))
    with pytest.raises(ShapeError, match="no axis 1"):
        value_of(rd.Sum((1,)), np.ones(3))
    with pytest.raises(ShapeError, match="sorted, each once"):
        value_of(rd.Sum((1, 0)), np.ones((2, 2)))
    with pytest.raises(ShapeError, match="sorted, each once"):
        value_of(rd.Max((0, 0)), np.ones((2, 2)))
