"""Look-ups, scatters, one-hot codes, arguments of extrema, and cutting and joining."""

from __future__ import annotations

import numpy as np
import pytest
from gradcheck import run, run_gradients
from hypothesis import given
from hypothesis import strategies as st
from op_cases import cases, spread, value_of

from quern.compiler.errors import DTypeError, ShapeError
from quern.compiler.graph import Graph
from quern.compiler.ops import indexing as ix
from quern.compiler.ops.base import Op
from quern.compiler.types import Array, DType, TensorType

X = spread((3, 4, 2))
ROWS = np.array([[2, 0, -1], [1, 1, 2]])
ALONG = np.array([[[0, 3], [1, -1], [1, 0]], [[2, 2], [-4, 1], [0, 0]]])


def scattered(indices: Array, updates: Array) -> Array:
    y = np.zeros((3, 4, 2))
    for at in np.ndindex(*indices.shape):
        y[indices[at]] += updates[at]
    return y


def scattered_along(indices: Array, updates: Array) -> Array:
    y = np.zeros((3, 4, 2))
    for i, j, k in np.ndindex(*indices.shape):
        y[i, indices[i, j, k], k] += updates[i, j, k]
    return y


CASES = [
    cases(ix.Take(0), lambda x, i: x[i], X, ROWS, constant=(1,)),
    cases(ix.Take(1), lambda x, i: x[:, i], X, ROWS[0].astype(np.int32), constant=(1,)),
    cases(ix.Take(2), lambda x, i: x[:, :, i], X, np.array(-1), constant=(1,)),
    cases(ix.Take(0), lambda x, i: x[i] > 0, X > 0, ROWS, rounds=0),
    cases(ix.ScatterAdd((3, 4, 2), 0), scattered, ROWS, spread((2, 3, 4, 2)), constant=(0,)),
    cases(
        ix.ScatterAdd((2, 3), 1),
        lambda i, u: np.stack([u[:, 1], 0 * u[:, 0], u[:, 0] + u[:, 2]], 1),
        np.array([2, 0, 2]), spread((2, 3)), constant=(0,),
    ),
    cases(
        ix.TakeAlongAxis(1), lambda x, i: np.take_along_axis(x[:2], i % 4, 1), X, ALONG,
        constant=(1,),
    ),
    cases(
        ix.ScatterAddAlongAxis((3, 4, 2), 1), scattered_along, ALONG, spread((2, 3, 2)),
        constant=(0,),
    ),
    cases(ix.OneHot(4), lambda i: np.eye(4)[i], np.array([[0, 3], [1, 1]]), rounds=0),
    cases(
        ix.OneHot(3, axis=0, dtype=DType.INT64), lambda i: np.eye(3, dtype=int)[i].T,
        np.array([2, 0], np.uint8), rounds=0,
    ),
    cases(ix.ArgMax(1), lambda x: x.argmax(1), X, rounds=0),
    cases(ix.ArgMax(0, keepdims=True), lambda x: x.argmax(0, keepdims=True), X, rounds=0),
    cases(ix.ArgMin(2), lambda x: x.argmin(2), X, rounds=0),
    cases(ix.ArgMin(0), lambda x: x.argmin(0), ROWS, rounds=0),
]  # fmt: skip


def test_indices_outside_are_clamped_to_the_nearer_end() -> None:
    x, outside = np.array([10.0, 20.0, 30.0]), np.array([3, 99, -3, -4, -99])
    np.testing.assert_array_equal(value_of(ix.Take(0), x, outside), [30, 30, 10, 10, 10])
    np.testing.assert_array_equal(value_of(ix.TakeAlongAxis(0), x, outside), [30, 30, 10, 10, 10])
    for op in (ix.ScatterAdd((3,), 0), ix.ScatterAddAlongAxis((3,), 0)):
        np.testing.assert_array_equal(value_of(op, outside, np.ones(5)), [3, 0, 2])


def test_updates_are_added_in_order() -> None:
    updates = np.array([1e16, 1.0, -1e16, 1.0])
    np.testing.assert_array_equal(
        value_of(ix.ScatterAdd((1,), 0), np.zeros(4, int), updates),
        [((1e16 + 1.0) - 1e16) + 1.0],
    )


def test_nothing_may_be_looked_up_in_nothing() -> None:
    none = np.zeros((0,), int)
    assert value_of(ix.Take(0), np.zeros((0, 3)), none).shape == (0, 3)
    assert value_of(ix.ScatterAdd((0, 3), 0), none, np.zeros((0, 3))).shape == (0, 3)
    with pytest.raises(ShapeError, match="empty axis 0"):
        value_of(ix.Take(0), np.zeros((0, 3)), np.zeros((1,), int))


def test_an_index_that_names_no_class_gives_zeros() -> None:
    y = value_of(ix.OneHot(2), np.array([-1, 0, 2]))
    np.testing.assert_array_equal(y, [[0, 0], [1, 0], [0, 0]])


@given(
    values=st.lists(st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0]), min_size=1,
                    max_size=6),
)  # fmt: skip
def test_arguments_of_extrema_are_numpy_s(values: list[float]) -> None:
    x = np.array(values)
    assert value_of(ix.ArgMax(0), x) == np.argmax(x)
    assert value_of(ix.ArgMin(0), x) == np.argmin(x)
    assert value_of(ix.ArgMax(0), x).dtype == np.int64


WRONG: list[tuple[Op, tuple[Array, ...], type[Exception], str]] = [
    (ix.Take(0), (X, ROWS.astype(float)), DTypeError, "int32 or int64"),
    (ix.Take(3), (X, ROWS), ShapeError, "no axis 3"),
    (ix.ScatterAdd((3, 4), 0), (ROWS[0], X), ShapeError, "updates"),
    (ix.ScatterAdd((3,), 0), (ROWS[0], ROWS[0] > 0), DTypeError, "adds numbers"),
    (ix.TakeAlongAxis(0), (X, ROWS), ShapeError, "another axis"),
    (ix.TakeAlongAxis(1), (X, np.zeros((4, 1, 1), int)), ShapeError, "another axis"),
    (ix.OneHot(3), (X,), DTypeError, "integers"),
    (ix.OneHot(3, axis=4), (ROWS,), ShapeError, "axis 4"),
    (ix.ArgMax(3), (X,), ShapeError, "no axis 3"),
    (ix.ArgMax(0), (np.zeros((0, 2)),), ShapeError, "empty axis 0"),
]


@pytest.mark.parametrize(("op", "inputs", "kind", "message"), WRONG)
def test_what_does_not_fit_is_refused(
    op: Op, inputs: tuple[Array, ...], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        value_of(op, *inputs)


@given(extent=st.integers(0, 9), size=st.integers(1, 10), chunks=st.integers(1, 10))
def test_split_and_chunk_cut_everything_in_order(extent: int, size: int, chunks: int) -> None:
    x = np.arange(2.0 * extent).reshape(2, extent)
    for parts in (
        run(lambda t: ix.split(t, size, 1), x),
        run(lambda t: ix.chunk(t, chunks, -1), x),
    ):
        np.testing.assert_array_equal(np.concatenate(parts, 1), x)
        assert len({p.shape for p in parts[:-1]}) <= 1
    assert len(run(lambda t: ix.chunk(t, chunks, 1), x)) <= chunks
    torch = pytest.importorskip("torch")
    expected = [tuple(p.shape) for p in torch.tensor(x).split(size, 1)]
    assert [p.shape for p in run(lambda t: ix.split(t, size, 1), x)] == expected


def test_split_by_sizes_and_stack() -> None:
    x = np.arange(12.0).reshape(6, 2)
    parts = run(lambda t: ix.split(t, [1, 0, 5]), x)
    assert [p.shape for p in parts] == [(1, 2), (0, 2), (5, 2)]
    (y,) = run(lambda t: ix.stack([t, t * 2.0], -1), x)
    np.testing.assert_array_equal(y, np.stack([x, x * 2], -1))
    (dx,) = run_gradients(lambda t: ix.stack([t, t * 2.0]), np.ones((2, 6, 2)), x)
    assert dx is not None
    np.testing.assert_array_equal(dx, np.full((6, 2), 3.0))


def test_parts_that_do_not_add_up_are_refused() -> None:
    graph = Graph()
    x, y = graph.input(TensorType((4,))), graph.input(TensorType((3,)))
    with pytest.raises(ShapeError, match=r"\(1, 2\) do not add up"):
        ix.split(x, [1, 2])
    with pytest.raises(ShapeError, match="extent 0"):
        ix.split(x, 0)
    with pytest.raises(ShapeError, match="0 chunks"):
        ix.chunk(x, 0)
    with pytest.raises(ShapeError, match="one shape"):
        ix.stack([x, y])
