"""Tuples of indices, scattering into data, running sums, the largest elements in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from op_cases import (
    cases,
    outputs_of,
    spread,
    value_of,
)

from quern.compiler.errors import DTypeError, ShapeError
from quern.compiler.ops import cumulative, scatter, topk
from quern.compiler.ops.scatter import ScatterMode
from quern.compiler.types import Array

X = spread((3, 4, 2))
PAIRS = np.array([[0, 3], [2, -1], [1, 0]])
BATCHED = np.array([[[1, 0]], [[3, 1]], [[-1, -2]]])
ROWS = np.array([[2], [0]])
ALONG = np.array([[[0, 3]], [[1, -1]]])


JOINED: dict[ScatterMode, Callable[[Any, Any], Any]] = {
    ScatterMode.NONE: lambda old, new: new,
    ScatterMode.ADD: np.add,
    ScatterMode.MULTIPLY: np.multiply,
    ScatterMode.MAXIMUM: np.maximum,
    ScatterMode.MINIMUM: np.minimum,
}


def written(
    x: Array, places: Sequence[Any], updates: Array, mode: ScatterMode = ScatterMode.NONE
) -> Array:
    y = x.copy()
    for place, update in zip(places, updates, strict=True):
        y[place] = JOINED[mode](y[place], update)
    return y


def along(x: Array, indices: Array, updates: Array, mode: ScatterMode = ScatterMode.NONE) -> Array:
    places = [(i, indices[i, j, k], k) for i, j, k in np.ndindex(*indices.shape)]
    return written(x, places, updates.reshape(-1), mode)


def latest(x: Array, axis: int, best: np.ufunc) -> tuple[Array, Array]:
    """The extreme one of the elements up to each one, and where it is."""
    running = best.accumulate(x, axis)
    places = np.arange(x.shape[axis]).reshape([-1 if d == axis else 1 for d in range(x.ndim)])
    return running, np.maximum.accumulate(np.where(x == running, places, 0), axis)


def pairs_of(indices: Array) -> list[tuple[int, ...]]:
    return [tuple(row) for row in indices]


CASES = [
    cases(scatter.GatherND(), lambda x, i: x[tuple(i.T)], X, PAIRS, constant=(1,)),
    cases(scatter.GatherND(), lambda x, i: x[i[:, 0]], X, ROWS, constant=(1,)),
    cases(
        scatter.GatherND(1),
        lambda x, i: np.stack([x[b][tuple(i[b].T)] for b in range(3)]),
        X, BATCHED, constant=(1,),
    ),
    cases(
        scatter.ScatterND(), lambda x, i, u: written(x, pairs_of(i), u),
        X, PAIRS, spread((3, 2), seed=1), constant=(1,),
    ),
    cases(
        scatter.ScatterElements(1), along, X, ALONG, spread((2, 1, 2), seed=1), constant=(1,),
    ),
    *(
        cases(
            scatter.ScatterND(mode),
            lambda x, i, u, mode=mode: written(x, pairs_of(i), u, mode),
            X, np.array([[0, 1, 1], [2, 0, 0], [0, 1, 1]]), spread((3,), seed=1), constant=(1,),
        )
        for mode in JOINED if mode is not ScatterMode.NONE
    ),
    *(
        cases(
            scatter.ScatterElements(1, mode), partial(along, mode=mode),
            X, np.repeat(ALONG, 2, 1), spread((2, 2, 2), seed=1), constant=(1,),
        )
        for mode in JOINED if mode is not ScatterMode.NONE
    ),
    cases(cumulative.CumSum(1), lambda x: np.cumsum(x, 1), X),
    cases(cumulative.CumSum(0, exclusive=True), lambda x: np.cumsum(x, 0) - x, X),
    cases(cumulative.CumSum(1, reverse=True), lambda x: np.cumsum(x[:, ::-1], 1)[:, ::-1], X),
    cases(cumulative.CumSum(0), np.cumsum, np.arange(5), rounds=0),
    cases(cumulative.CumMax(1), lambda x: latest(x, 1, np.maximum), X),
    cases(cumulative.CumMin(0), lambda x: latest(x, 0, np.minimum), X),
    cases(cumulative.LogCumSumExp(1), lambda x: np.log(np.cumsum(np.exp(x), 1)), X),
    cases(cumulative.CumProd(1), lambda x: np.cumprod(x, 1), X),
    cases(
        cumulative.CumProd(0, True, True),
        lambda x: np.cumprod(np.concatenate([[1.0], x[:0:-1]]))[::-1], spread((5,)),
    ),
    cases(topk.TopK(2, 1), lambda x: (-np.sort(-x, 1)[:, :2], np.argsort(-x, 1)[:, :2]), X),
    cases(
        topk.TopK(3, 0, largest=False), lambda x: (np.sort(x, 0), np.argsort(x, 0)), X,
    ),
]  # fmt: skip


def test_the_last_of_several_replacements_stays() -> None:
    updates = np.array([1.0, 2.0, 3.0])
    y = value_of(scatter.ScatterND(), np.zeros(4), np.array([[1], [2], [1]]), updates)
    assert y.tolist() == [0.0, 3.0, 2.0, 0.0]


def test_booleans_are_scattered_too() -> None:
    y = value_of(
        scatter.ScatterElements(0), np.array([True, False]), np.array([1]), np.array([True])
    )
    assert y.tolist() == [True, True]


def test_updates_of_another_dtype_are_refused() -> None:
    with pytest.raises(DTypeError, match="updates int64"):
        value_of(scatter.ScatterND(), np.zeros(4), np.array([[1]]), np.array([1]))


@given(
    st.lists(st.sampled_from([0.0, 1.0, 2.0, -1.0, np.nan]), min_size=1, max_size=9), st.booleans()
)
@settings(max_examples=40, deadline=None)
def test_top_k_is_a_stable_sort(elements: list[float], largest: bool) -> None:
    """By Python's own sort, of which NaN is the largest number."""
    keys = [(np.isnan(v), 0.0 if np.isnan(v) else v) for v in elements]
    order = sorted(range(len(keys)), key=lambda i: keys[i], reverse=largest)
    if largest:  # a reversed stable sort keeps the order of equals
        assert sorted(order) == list(range(len(keys)))
    expanded = topk.TopK(len(elements), 0, largest)
    x = np.array(elements)
    from quern.compiler.evaluate import evaluate
    from quern.compiler.ops.composite import expansion
    from quern.compiler.types import DType, TensorType

    graph = expansion(expanded, (TensorType(x.shape, DType.FLOAT64),))
    by_ranks = evaluate(graph, {"input0": x}).outputs["output1"]
    for indices in (by_ranks, outputs_of(expanded, x)[1]):
        assert indices.tolist() == order


def test_top_k_of_too_many_is_refused() -> None:
    with pytest.raises(ShapeError, match="TopK finds no 5 elements along axis 0"):
        outputs_of(topk.TopK(5, 0), np.zeros(4))
