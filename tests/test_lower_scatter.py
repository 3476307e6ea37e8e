"""Scatters and concatenation as kernels: NumPy, the interpreter and machine code agree."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from oracles import check, check_kernels, trained

from quern.compiler.ops.base import apply
from quern.compiler.ops.indexing import ScatterAdd, ScatterAddAlongAxis, Take, TakeAlongAxis
from quern.compiler.ops.movement import Concat
from quern.compiler.ops.pool import MaxUnpool
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array, Shape

NUMBERS = (np.float32, np.float64, np.int32, np.int64)
shapes = hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=5)


def numbers(shape: Shape, dtype: Any = np.float32, seed: int = 0) -> Array:
    x = np.random.default_rng(seed).standard_normal(shape)
    return np.asarray(x * (1 if np.issubdtype(dtype, np.floating) else 9)).astype(dtype)


def indices(shape: Shape, extent: int, dtype: Any = np.int64) -> Array:
    """Many of them twice, some negative, some outside."""
    low, high = -extent - 3, extent + 3
    return np.random.default_rng(5).integers(low, high, shape).astype(dtype)


# -- scatters -------------------------------------------------------------------------------------


@given(shapes, st.data())
def test_slices_are_added_in_order(shape: Shape, data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    picked = data.draw(hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=6))
    dtype = data.draw(st.sampled_from(NUMBERS))
    where = indices(picked, shape[axis], data.draw(st.sampled_from([np.int32, np.int64])))
    updates = numbers((*shape[:axis], *picked, *shape[axis + 1 :]), dtype)
    check(lambda i, u: apply(ScatterAdd(shape, axis), i, u), where, updates, whole=False)


@pytest.mark.parametrize("shape", [(50, 200), (0, 3), (4, 0)], ids=str)
def test_rows_of_a_table(shape: Shape) -> None:
    """As the gradient of an embedding has it: wide rows, or nothing at all."""
    where = indices((30,) if math.prod(shape) else (0,), 50)
    updates = numbers((where.size, shape[1]))
    check(lambda i, u: apply(ScatterAdd(shape), i, u), where, updates)


@given(shapes, st.data())
def test_elements_are_added_in_order(shape: Shape, data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    picked = tuple(data.draw(st.integers(0, 6 if d == axis else n)) for d, n in enumerate(shape))
    updates = numbers(picked, data.draw(st.sampled_from(NUMBERS)))
    where = indices(picked, shape[axis])
    check(lambda i, u: apply(ScatterAddAlongAxis(shape, axis), i, u), where, updates, whole=False)


@given(
    st.integers(0, 3),
    st.lists(st.integers(0, 4), min_size=1, max_size=3),
    st.lists(st.integers(1, 5), min_size=3, max_size=3),
    st.sampled_from([np.float32, np.float64]),
)
def test_unpooling_keeps_the_last_element(
    batch: int, windows: list[int], spatial: list[int], dtype: Any
) -> None:
    op = MaxUnpool(tuple(spatial[: len(windows)]))
    shape = (batch, 2, *windows)
    where = indices(shape, math.prod(op.spatial))
    check(lambda x, i: apply(op, x, i), numbers(shape, dtype), where, whole=False)


def test_infinity_and_nan_are_added_where_they_belong() -> None:
    updates = numbers((6, 9))
    updates[0, 0], updates[1, 1], updates[2, 0], updates[3] = np.nan, np.inf, -np.inf, np.inf
    check(lambda i, u: apply(ScatterAdd((4, 9)), i, u), indices((6,), 4), updates)


def test_gradients_of_takes() -> None:
    x, rows = numbers((7, 5), np.float64), indices((4, 3), 7)
    for op in (Take(0), TakeAlongAxis(0)):
        where = rows if isinstance(op, Take) else indices((4, 5), 7)
        graph, feeds = trained(lambda x, i, op=op: apply(op, x, i), 1, x, where)
        check_kernels(graph, feeds, rtol=1e-12, atol=1e-12)


# -- concatenation --------------------------------------------------------------------------------


@given(shapes, st.data())
def test_values_in_memory_and_values_to_compute(shape: Shape, data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    extents = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=4))
    dtype = data.draw(st.sampled_from(NUMBERS))
    arrays = [numbers((*shape[:axis], n, *shape[axis + 1 :]), dtype) for n in extents]
    check(lambda *xs: apply(Concat(axis), *xs, xs[0]), *arrays, whole=False)

    def computed(*xs: Tensor) -> Tensor:
        flipped = xs[0].slice_axis(axis, max(extents[0] - 1, 0), extents[0], -1)
        return apply(Concat(axis), *(abs(x) * 2 for x in xs), flipped, xs[-1])

    check(computed, *arrays, whole=False)


@pytest.mark.parametrize("axis", [0, 1])
def test_long_rows_are_copied_in_chunks(axis: int) -> None:
    extents = [9000, 3, 4097]
    arrays = [numbers((n, 2) if axis == 0 else (2, n), seed=n) for n in extents]
    check(lambda *xs: apply(Concat(axis), *xs), *arrays)


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8])
def test_bytes_are_copied_too(dtype: Any) -> None:
    a, b = numbers((3, 4)) > 0, numbers((3, 5)) > 0
    check(lambda a, b: apply(Concat(1), a, b), a.astype(dtype), b.astype(dtype))


def test_what_is_concatenated_is_computed_in_its_kernel() -> None:
    groups = check(
        lambda a, b: apply(Concat(1), a.relu(), b * 2.0), numbers((3, 4)), numbers((3, 5))
    )
    assert len(groups) == 1
