"""Matrix products and the fully connected layer, against sums written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gradcheck import check_gradients, run, run_gradients, run_op
from hypothesis import given
from hypothesis import strategies as st

from quern.compiler.errors import DTypeError, ShapeError
from quern.compiler.graph import Graph
from quern.compiler.ops.base import apply, op_from_json, op_to_json
from quern.compiler.ops.composite import expansion
from quern.compiler.ops.linear import Linear, MatMul, matmul
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array, DType, TensorType

extents = st.integers(0, 4)


def product(a: Array, b: Array) -> Array:
    """Matrix product by its definition, batches broadcast."""
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a = np.broadcast_to(a, batch + a.shape[-2:])
    b = np.broadcast_to(b, batch + b.shape[-2:])
    y = np.zeros(batch + (a.shape[-2], b.shape[-1]), a.dtype)
    for *at, i, j in np.ndindex(*y.shape):
        for k in range(a.shape[-1]):
            y[(*at, i, j)] += a[(*at, i, k)] * b[(*at, k, j)]
    return y


def numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any = np.float64) -> Array:
    if np.dtype(dtype).kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(-9, 9, shape).astype(dtype)


@given(
    m=extents, k=extents, n=extents, batch=st.lists(st.integers(1, 3), max_size=2),
    ones=st.tuples(st.booleans(), st.booleans()), seed=st.integers(0, 99),
    dtype=st.sampled_from([np.float32, np.float64, np.int32, np.int64]),
)  # fmt: skip
def test_matmul_is_the_sum_of_products(
    m: int, k: int, n: int, batch: list[int], ones: tuple[bool, bool], seed: int, dtype: Any
) -> None:
    rng = np.random.default_rng(seed)
    first, second = ([1] * len(batch) if one else batch for one in ones)
    a, b = numbers(rng, (*first, m, k), dtype), numbers(rng, (*second, k, n), dtype)
    (y,) = run_op(MatMul(), a, b)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, product(a, b), rtol=1e-5, atol=1e-5)


def test_small_integers_wrap_as_in_numpy() -> None:
    a = np.full((2, 3), 200, np.uint8)
    (y,) = run_op(MatMul(), a, a.T.copy())
    np.testing.assert_array_equal(y, a @ a.T)


def test_nan_and_infinity_come_through() -> None:
    a = np.array([[np.nan, 1.0], [np.inf, 1.0], [np.inf, -np.inf]], np.float32)
    (y,) = run_op(MatMul(), a, np.ones((2, 1), np.float32))
    np.testing.assert_array_equal(y[:, 0], [np.nan, np.inf, np.nan])


@given(
    first=st.lists(st.integers(1, 3), max_size=3), second=st.lists(st.integers(1, 3), max_size=3),
    k=st.integers(0, 3), seed=st.integers(0, 99),
)  # fmt: skip
def test_the_function_takes_any_ranks_as_numpy_does(
    first: list[int], second: list[int], k: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    left, right = first[:-1][::-1], second[:-1][::-1]
    for i in range(min(len(left), len(right))):
        if 1 not in (left[i], right[i]):
            right[i] = left[i]
    a = numbers(rng, (*left[::-1], *first[-1:], k))
    b = numbers(rng, (*right[::-1], k, *second[-1:]))
    (y,) = run(matmul, a, b)
    np.testing.assert_allclose(y, np.matmul(a, b), rtol=1e-12, atol=1e-12)


def test_the_function_multiplies_a_batch_by_one_matrix_in_one_product() -> None:
    graph = Graph()
    x, w = graph.input(TensorType((8, 5, 3))), graph.input(TensorType((3, 4)))
    matmul(x, w)
    (node,) = [n for n in graph.nodes() if isinstance(n.op, MatMul)]
    assert node.types[0].shape == (40, 4)


def test_the_function_promotes_dtypes_and_is_the_operator() -> None:
    a, b = np.eye(2, dtype=np.int32), np.ones((2, 2), np.float32)
    (y,) = run(lambda x, w: x @ w, a, b)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((2, 3), (3, 4)),
        ((2, 1, 3), (2, 3, 1)),
        ((3, 1, 2, 2), (1, 2, 2, 3)),
        ((2, 2, 3), (1, 3, 2)),
        ((2, 0), (0, 2)),
    ],
)
def test_gradients_of_matmul(
    a: tuple[int, ...], b: tuple[int, ...], rng: np.random.Generator
) -> None:
    check_gradients(lambda x, y: apply(MatMul(), x, y), numbers(rng, a), numbers(rng, b))


@pytest.mark.parametrize(
    ("a", "b"), [((3,), (3,)), ((3,), (2, 3, 2)), ((2, 2, 3), (3,)), ((2, 2, 3), (3, 2))]
)
def test_gradients_of_the_function(
    a: tuple[int, ...], b: tuple[int, ...], rng: np.random.Generator
) -> None:
    check_gradients(matmul, numbers(rng, a), numbers(rng, b))


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (0,)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_linear_and_its_gradients(
    lead: tuple[int, ...], with_bias: bool, rng: np.random.Generator
) -> None:
    x, w, b = numbers(rng, (*lead, 4)), numbers(rng, (5, 4)), numbers(rng, (5,))
    arrays = (x, w, b) if with_bias else (x, w)
    (y,) = run_op(Linear(), *arrays)
    expected = np.einsum("...i,oi->...o", x, w) + (b if with_bias else 0.0)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    check_gradients(lambda x, *others: apply(Linear(), x, *others), *arrays)


def test_linears_own_gradient_is_that_of_its_expansion(rng: np.random.Generator) -> None:
    arrays = numbers(rng, (2, 3, 4)), numbers(rng, (5, 4)), numbers(rng, (5,))

    def expanded(*inputs: Tensor) -> Tensor:
        return Linear().expand(*inputs)[0]

    weights = numbers(rng, (2, 3, 5))
    own = run_gradients(lambda x, *others: apply(Linear(), x, *others), weights, *arrays)
    for a, b in zip(own, run_gradients(expanded, weights, *arrays), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_what_linear_says_of_its_type_is_what_it_expands_to() -> None:
    types = tuple(TensorType(s) for s in ((2, 3, 4), (5, 4), (5,)))
    graph = expansion(Linear(), types)
    assert Linear().infer(*types) == tuple(graph.type_of(v) for v in graph.outputs.values())


def test_json() -> None:
    for op in (MatMul(), Linear()):
        assert op_from_json(op_to_json(op)) == op


F32, F64, BOOL = DType.FLOAT32, DType.FLOAT64, DType.BOOL


@pytest.mark.parametrize(
    ("op", "types", "message"),
    [
        (MatMul(), [((2, 3), F32), ((4, 5), F32)], r"3 columns, float32\[4, 5\] has 4 rows"),
        (MatMul(), [((2, 3), F32), ((1, 3, 5), F32)], r"same rank.*use matmul\(a, b\)"),
        (MatMul(), [((3,), F32), ((3,), F32)], r"at least 2"),
        (MatMul(), [((2, 2, 3), F32), ((3, 3, 5), F32)], r"extents \[2, 3\] clash"),
        (MatMul(), [((2, 3), F32), ((3, 2), F64)], r"one dtype.*cast one side"),
        (MatMul(), [((2, 3), BOOL), ((3, 2), BOOL)], r"got bool; cast first"),
        (Linear(), [((2, 3), F32), ((5, 4), F32)], r"3 features.*reads 4; make in_features 3"),
        (Linear(), [((2, 3), F32), ((1, 5, 3), F32)], r"x \(…, I\) and weight \(O, I\)"),
        (Linear(), [((), F32), ((5, 3), F32)], r"x \(…, I\)"),
        (Linear(), [((2, 3), F32), ((5, 3), F32), ((3,), F32)], r"bias .* shape \(5,\)"),
        (Linear(), [((2, 3), F32)], r"takes 2 to 3 inputs, got 1"),
    ],
)
def test_clashes_are_named(op: Any, types: list[Any], message: str) -> None:
    graph = Graph()
    inputs = [graph.input(TensorType(shape, dtype)) for shape, dtype in types]
    with pytest.raises((ShapeError, DTypeError), match=message):
        graph.apply(op, *inputs, name="fc1")


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [((), (3,), "no scalars"), ((2, 3), (2,), "3 columns, .* has 2 rows"), ((3,), (2, 3), "3.*2")],
)
def test_clashes_of_the_function_are_named(
    a: tuple[int, ...], b: tuple[int, ...], message: str
) -> None:
    graph = Graph()
    with pytest.raises(ShapeError, match=message):
        matmul(graph.input(TensorType(a)), graph.input(TensorType(b)))
