"""Indices of maxima, and putting elements back where they point."""

from __future__ import annotations

import math

import numpy as np
import pytest
from gradcheck import check_gradients, run_gradients, run_op
from hypothesis import assume, given
from hypothesis import strategies as st
from pooling import Index, distinct, geometries, gradient_of, of, windows

from quern.compiler.ops.base import apply
from quern.compiler.ops.pool import (
    MaxPool,
    MaxPoolGradient,
    MaxPoolIndices,
    MaxUnpool,
)
from quern.compiler.ops.window import Window

# -- indices and unpooling ------------------------------------------------------------------------


@given(geometry=geometries(), seed=st.integers(0, 99))
def test_indices_point_at_the_maxima(geometry: tuple[Index, Window], seed: int) -> None:
    spatial, w = geometry
    assume(all(places for _, places in windows(spatial, w)))
    x = distinct((2, 2, *spatial), seed)
    y, position = run_op(of(MaxPool, w), x)
    (indices,) = run_op(gradient_of(MaxPoolIndices, spatial, w), position)
    assert indices.dtype == np.int64
    planes = x.reshape(2, 2, -1)
    for at in np.ndindex(*y.shape):
        assert planes[at[0], at[1], indices[at]] == y[at]


def test_unpooling_puts_maxima_back() -> None:
    x = distinct((2, 3, 4, 6))
    w = Window((2, 3), (2, 3), ((0, 0),) * 2, (1, 1))
    y, position = run_op(of(MaxPool, w), x)
    (indices,) = run_op(gradient_of(MaxPoolIndices, (4, 6), w), position)
    (back,) = run_op(MaxUnpool((4, 6)), y, indices)
    (expected,) = run_op(gradient_of(MaxPoolGradient, (4, 6), w), y, position)
    np.testing.assert_array_equal(back, expected)


def test_of_elements_for_the_same_place_the_last_stays_and_wrong_indices_are_clamped() -> None:
    x = np.array([[[1.0, 2.0, 3.0, 4.0]]], np.float32)
    (y,) = run_op(MaxUnpool((5,)), x, np.array([[[2, 2, 99, -99]]]))
    np.testing.assert_array_equal(y, [[[4.0, 0.0, 2.0, 0.0, 3.0]]])
    (y,) = run_op(MaxUnpool((5,)), x, np.array([[[0, 1, 2, -1]]]))
    np.testing.assert_array_equal(y, [[[1.0, 2.0, 3.0, 0.0, 4.0]]])


def test_the_gradient_of_unpooling_goes_to_each_of_them() -> None:
    x, indices = np.ones((1, 1, 3)), np.array([[[2, 2, 0]]])
    weights = np.array([[[5.0, 6.0, 7.0]]])
    to_x, *_ = run_gradients(lambda x, i: apply(MaxUnpool((3,)), x, i), weights, x, indices)
    np.testing.assert_array_equal(to_x, [[[7.0, 7.0, 5.0]]])


@pytest.mark.parametrize("spatial", [(7,), (2, 4), (2, 2, 2)])
def test_gradients_of_unpooling(spatial: Index, rng: np.random.Generator) -> None:
    shape = (2, 2, 2, *(1,) * (len(spatial) - 1))
    places = [rng.permutation(math.prod(spatial))[:2] for _ in range(4)]
    indices = np.array(places, np.int64).reshape(shape)
    check_gradients(
        lambda x, i: apply(MaxUnpool(spatial), x, i), rng.standard_normal(shape), indices
    )


# -- parity ---------------------------------------------------------------------------------------


def test_parity_of_unpooling_with_pytorch(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    x, dy = rng.standard_normal((2, 3, 2, 2)), rng.standard_normal((2, 3, 4, 4))
    indices = np.stack([rng.permutation(16)[:4] for _ in range(6)]).reshape(x.shape)
    held = torch.tensor(x, requires_grad=True)
    expected = torch.nn.functional.max_unpool2d(held, torch.tensor(indices), 2)
    (dx,) = torch.autograd.grad(expected, held, torch.tensor(dy))
    (y,) = run_op(MaxUnpool((4, 4)), x, indices)
    np.testing.assert_array_equal(y, expected.detach().numpy())
    to_x, *_ = run_gradients(lambda x, i: apply(MaxUnpool((4, 4)), x, i), dy, x, indices)
    np.testing.assert_array_equal(to_x, dx.numpy())
