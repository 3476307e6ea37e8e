"""Pooling to a given extent."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gradcheck import check_gradients, run_gradients, run_op
from hypothesis import given
from hypothesis import strategies as st
from pooling import Index, distinct

from quern.compiler.ops.adaptive import AdaptiveAvgPool, AdaptiveMaxPool
from quern.compiler.ops.base import Op, apply
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array

# -- adaptive -------------------------------------------------------------------------------------


def adaptive(x: Array, output_size: Index, pick: Callable[[Array], Any]) -> Array:
    y = np.zeros((*x.shape[:2], *output_size))
    for n, c, *at in np.ndindex(*y.shape):
        cut = tuple(
            slice(math.floor(i * m / o), math.ceil((i + 1) * m / o))
            for i, m, o in zip(at, x.shape[2:], output_size, strict=True)
        )
        y[(n, c, *at)] = pick(x[(n, c, *cut)])
    return y


@given(data=st.data(), rank=st.integers(1, 3), seed=st.integers(0, 99))
def test_adaptive_pooling(data: st.DataObject, rank: int, seed: int) -> None:
    most = (9, 6, 4)[rank - 1]
    extents = st.tuples(*[st.integers(1, most)] * rank)
    spatial, size = data.draw(extents), data.draw(extents)
    x = np.random.default_rng(seed).standard_normal((2, 2, *spatial))
    (mean,) = run_op(AdaptiveAvgPool(size), x)
    np.testing.assert_allclose(mean, adaptive(x, size, np.mean), rtol=1e-10, atol=1e-12)
    (largest,) = run_op(AdaptiveMaxPool(size), x)
    np.testing.assert_array_equal(largest, adaptive(x, size, np.max))


def test_none_keeps_an_extent() -> None:
    x = distinct((1, 2, 6, 5))
    (y,) = run_op(AdaptiveAvgPool((3, None)), x)
    np.testing.assert_allclose(y, adaptive(x, (3, 5), np.mean), rtol=1e-12)


@pytest.mark.parametrize(
    ("spatial", "size"),
    [((5,), (3,)), ((6,), (3,)), ((4, 5), (2, 3)), ((3, 3), (1, 1)), ((2,), (3,))],
)
def test_gradients_of_adaptive_pooling(spatial: Index, size: Index) -> None:
    x = distinct((1, 2, *spatial))
    for op in (AdaptiveAvgPool(size), AdaptiveMaxPool(size)):
        check_gradients(lambda x, op=op: apply(op, x), x)


def test_of_equal_maxima_the_first_in_row_major_order_gets_the_gradient() -> None:
    x = np.array([[[[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]]])
    weights = np.array([[[[2.0, 3.0], [5.0, 7.0]]]])
    (to_x,) = run_gradients(lambda x: apply(AdaptiveMaxPool((2, 2)), x), weights, x)
    np.testing.assert_array_equal(to_x, [[[[0.0, 5.0, 0.0], [5.0, 7.0, 0.0], [0.0, 0.0, 0.0]]]])


# -- parity ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spatial", "size"), [((7,), (3,)), ((6, 5), (4, 3)), ((3, 4), (5, 2)), ((3, 4, 5), (2, 2, 3))]
)
def test_parity_of_adaptive_pooling_with_pytorch(spatial: Index, size: Index) -> None:
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    rank = len(spatial)
    rng = np.random.default_rng(rank)
    # Few different numbers, so that there are ties.
    x, dy = rng.integers(0, 3, (2, 2, *spatial)) / 1.0, rng.standard_normal((2, 2, *size))
    functions = {
        AdaptiveAvgPool(size): f"adaptive_avg_pool{rank}d",
        AdaptiveMaxPool(size): f"adaptive_max_pool{rank}d",
    }
    for op, name in functions.items():
        held = torch.tensor(x, requires_grad=True)
        expected = getattr(f, name)(held, size)
        (dx,) = torch.autograd.grad(expected, held, torch.tensor(dy))

        def pool(x: Tensor, op: Op = op) -> Tensor:
            return apply(op, x)

        np.testing.assert_allclose(run_op(op, x)[0], expected.detach().numpy(), rtol=1e-12)
        (to_x,) = run_gradients(pool, dy, x)
        np.testing.assert_allclose(to_x, dx.numpy(), rtol=1e-12, atol=1e-14)
