"""Norms and systems of equations, against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import quern as qn
from quern.compiler.check import check_gradients
from quern.compiler.errors import ShapeError, UsageError
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array


def random(*shape: int) -> Array:
    return np.random.default_rng(len(shape)).standard_normal(shape)


def definite(*shape: int) -> Array:
    """Symmetric positive definite matrices."""
    x = random(*shape)
    return x @ x.swapaxes(-1, -2) + np.eye(shape[-1])


@pytest.mark.parametrize("shape", [(1, 1), (5, 5), (9, 9), (2, 3, 4, 4)])
@pytest.mark.parametrize("name", ["inv", "det", "cholesky"])
def test_square_matrices(name: str, shape: tuple[int, ...]) -> None:
    """By NumPy's evaluation and compiled; gradients by central differences."""
    x = definite(*shape) if name == "cholesky" else random(*shape)
    own, expected = getattr(qn.linalg, name), getattr(np.linalg, name)(x)
    np.testing.assert_allclose(own(x), expected, rtol=1e-9, atol=1e-12)
    if len(shape) == 2 and shape[0] > 1:
        graph = qn.trace(own, qn.spec(x.astype(np.float32)))
        found = qn.compile(graph)(x.astype(np.float32))
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-4)
        if name != "cholesky":
            assert check_gradients(graph, {"A": x}, samples=5).error < 1e-5


def test_gradient_of_a_factor() -> None:
    """Of a symmetric matrix, both halves of which change together."""

    def network(x: Tensor) -> Tensor:
        return qn.linalg.cholesky(x @ x.mT + qn.eye(4))

    assert check_gradients(qn.trace(network, qn.spec(4, 4)), samples=8).error < 1e-6


@pytest.mark.parametrize(
    ("a", "b"),
    [((4, 4), (4, 2)), ((4, 4), (4,)), ((3, 4, 4), (3, 4, 2)), ((3, 4, 4), (3, 4))],
)
def test_solutions(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    x, y = random(*a), random(*b)
    right = y if len(b) == len(a) or len(b) == 1 else y[..., None]
    expected = np.linalg.solve(x, right)
    expected = expected if right is y else expected[..., 0]
    np.testing.assert_allclose(qn.linalg.solve(x, y), expected, rtol=1e-9)


def test_rows_are_exchanged() -> None:
    """A zero where the first pivot would be."""
    x = np.array([[0.0, 2.0, 0.0], [3.0, 0.0, 0.0], [0.0, 0.0, 5.0]])
    np.testing.assert_allclose(qn.linalg.inv(x) @ x, np.eye(3), atol=1e-15)
    assert qn.linalg.det(x) == pytest.approx(-30)
    assert qn.linalg.det(np.ones((2, 2))) == 0


@pytest.mark.parametrize(
    "norm",
    [
        lambda m, x: m.norm(x),
        lambda m, x: m.norm(x, ord="fro"),
        lambda m, x: m.norm(x, 1),
        lambda m, x: m.norm(x, -np.inf),
        lambda m, x: m.norm(x[0], 3),
        lambda m, x: m.norm(x, np.inf, 1),
        lambda m, x: m.norm(x, 2, 0),
        lambda m, x: m.norm(x, 1, (1, 0)),
        lambda m, x: m.multi_dot([x, x.T, x]),
    ],
)
def test_norms(norm: Callable[[Any, Array], Any]) -> None:
    x = random(3, 5)
    np.testing.assert_allclose(norm(qn.linalg, x), norm(np.linalg, x), rtol=1e-12)


def test_norms_of_many() -> None:
    x = random(2, 3, 5)
    found = qn.linalg.matrix_norm(x, np.inf, keepdim=True)
    np.testing.assert_allclose(found, np.abs(x).sum(-1, keepdims=True).max(-2, keepdims=True))
    np.testing.assert_allclose(qn.linalg.vector_norm(x, 1), np.abs(x).sum())


def test_what_there_is_not() -> None:
    with pytest.raises(UsageError, match="singular values"):
        qn.linalg.norm(random(3, 3), 2)
    with pytest.raises(ShapeError, match="square matrices"):
        qn.linalg.inv(random(3, 4))
    with pytest.raises(ShapeError, match="takes 3 rows"):
        qn.linalg.solve(random(3, 3), random(4, 2))
