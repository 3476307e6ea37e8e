"""Tensors that are made of nothing, and random ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import quern as qn
from quern.nn import functional as F

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def made(function: Any) -> Any:
    return qn.interpret(qn.trace(function, qn.spec(X)), X)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: qn.zeros(2, 3) + x, X),
        (lambda x: qn.ones((2, 3)) * x, X),
        (lambda x: qn.full(3, 7) + 0 * x, np.full((2, 3), 7, np.float32)),
        (lambda x: qn.eye(2) @ x, X),
        (lambda x: qn.arange(3) + x.long(), X.astype(int) + np.arange(3)),
        (lambda x: qn.arange(0, 1, 0.5), np.array([0, 0.5], np.float32)),
        (lambda x: qn.linspace(0, 1, 5), np.linspace(0, 1, 5, dtype=np.float32)),
        (lambda x: qn.tensor([[1.5], [2.0]]) * x, X * np.float32([[1.5], [2]])),
        (lambda x: qn.zeros_like(x) + 2, np.full((2, 3), 2, np.float32)),
        (lambda x: qn.ones_like(x, "int64"), np.ones((2, 3), int)),
        (lambda x: qn.full_like(x, 4.5), np.full((2, 3), 4.5, np.float32)),
        (lambda x: qn.cat([x, qn.stack([x[0], x[1]])], 1), np.hstack([X, X])),
        (lambda x: qn.where(x > 2, x, 0.0), np.where(X > 2, X, 0)),
        (lambda x: qn.einsum("ij,kj->ik", x, x), X @ X.T),
    ],
)
def test_they_are_numpys(function: Any, expected: Any) -> None:
    y = made(function)
    assert y.dtype == expected.dtype
    np.testing.assert_array_equal(y, expected)


def test_random_numbers_have_their_moments_and_differ_between_runs() -> None:
    def function(x: Any) -> Any:
        big = x.sum() + qn.zeros(100, 100)
        return qn.rand_like(big), qn.randn_like(big), qn.bernoulli(0.3 * qn.ones_like(big))

    executable = qn.compile(qn.trace(function, qn.spec(X)))
    (uniform, normal, coins), again = executable(X), executable(X)
    assert 0 <= uniform.min() < 0.01 < 0.99 < uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 0.02
    assert abs(normal.mean()) < 0.04
    assert abs(normal.std() - 1) < 0.04
    assert set(np.unique(coins)) == {0, 1}
    assert abs(coins.mean() - 0.3) < 0.02
    assert all((a != b).any() for a, b in zip((uniform, normal, coins), again, strict=True))


def test_gumbels_choices_are_as_frequent_as_softmax_says() -> None:
    logits = np.tile(np.log(np.float32([0.5, 0.3, 0.2])), (5000, 1))
    y = qn.compile(qn.trace(lambda x: F.gumbel_softmax(x, hard=True), qn.spec(logits)))(logits)
    np.testing.assert_allclose(y.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(y.mean(0), [0.5, 0.3, 0.2], atol=0.03)
