"""Pooling, unpooling and adaptive pooling, against loops over windows and places."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from gradcheck import check_gradients, run_gradients, run_op
from hypothesis import assume, given
from hypothesis import strategies as st

from quern.compiler.errors import DTypeError, ShapeError
from quern.compiler.graph import Graph
from quern.compiler.ops.adaptive import AdaptiveAvgPool, AdaptiveMaxPool
from quern.compiler.ops.base import Op, apply, apply_all, op_from_json, op_to_json
from quern.compiler.ops.composite import Composite, expansion
from quern.compiler.ops.pool import (
    AvgPool,
    MaxPool,
    MaxPoolGather,
    MaxPoolGradient,
    MaxPoolIndices,
    MaxUnpool,
    Pool,
    SumPool,
    SumPoolGradient,
    max_pool_padding,
)
from quern.compiler.ops.window import Window
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array, DType, TensorType

Index = tuple[int, ...]
Place = tuple[int, Index]


def windows(spatial: Index, w: Window) -> Iterator[tuple[Index, list[Place]]]:
    """Every window's index, and its places inside the input: (number in the window, index)."""
    along: list[list[list[int]]] = []
    for n, k, s, (low, high), d in zip(
        spatial, w.kernel, w.stride, w.padding, w.dilation, strict=True
    ):
        starts = range(-low, n + high - (k - 1) * d, s)
        along.append([[start + j * d for j in range(k)] for start in starts])
    for at in itertools.product(*(range(len(a)) for a in along)):
        every = itertools.product(*(a[i] for a, i in zip(along, at, strict=True)))
        inside = [
            (number, place)
            for number, place in enumerate(every)
            if all(0 <= p < n for p, n in zip(place, spatial, strict=True))
        ]
        yield at, inside


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


@st.composite
def geometries(draw: st.DrawFn, ceil: bool = False) -> tuple[Index, Window]:
    """Extents of an input and windows that fit it."""
    rank = draw(st.integers(1, 3))

    def each(low: int, high: int) -> Index:
        return draw(st.tuples(*[st.integers(low, high)] * rank))

    kernel, stride = each(1, 3), each(1, 4)
    dilation = (1,) * rank if ceil else each(1, 2)
    low = each(0, 2)
    high = low if ceil else each(0, 2)
    spatial = tuple(
        max(n, (k - 1) * d + 1 - a - b, 1)
        for n, k, d, a, b in zip(
            each(1, (9, 5, 3)[rank - 1]), kernel, dilation, low, high, strict=True
        )
    )
    return spatial, Window(kernel, stride, tuple(zip(low, high, strict=True)), dilation)


def of(op: type[Pool], w: Window) -> Any:
    return op(w.kernel, w.stride, w.padding, w.dilation)


def gradient_of(op: type[Op], spatial: Index, w: Window) -> Any:
    return op(spatial, w.kernel, w.stride, w.padding, w.dilation)  # type: ignore[call-arg]


def distinct(shape: Index, seed: int = 0) -> Array:
    """Numbers that are well apart, so that a small step changes no maximum."""
    size = math.prod(shape)
    return (np.random.default_rng(seed).permutation(size) / max(size, 1) - 0.5).reshape(shape)


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


NAMED = {
    "1-D": ((5,), Window((2,), (2,), ((0, 0),), (1,))),
    "overlapping, lopsided": ((4, 5), Window((3, 2), (2, 1), ((1, 1), (0, 1)), (1, 1))),
    "dilated, stride beyond the kernel": ((6, 4), Window((2, 1), (3, 2), ((1, 0), (0, 0)), (2, 1))),
    "3-D": ((3, 2, 3), Window((2, 2, 2), (1, 1, 2), ((0, 0), (0, 0), (1, 0)), (1, 1, 1))),
}
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


AVERAGES = {
    "plain": ((6,), AvgPool((2,), (2,), ((0, 0),))),
    "without padding, ceil": (
        (4, 5),
        AvgPool((3, 2), (2, 2), ((1, 1), (0, 0)), ceil_mode=True, count_include_pad=False),
    ),
    "with padding, ceil": ((6,), AvgPool((3,), (2,), ((1, 1),), ceil_mode=True)),
    "nothing but padding": ((2,), AvgPool((2,), (1,), ((2, 2),), count_include_pad=False)),
    "divisor": ((4, 3), AvgPool((2, 2), (1, 1), ((0, 1), (1, 0)), divisor_override=7)),
    "3-D": ((3, 2, 3), AvgPool((2, 2, 2), (1, 1, 2), ((0, 0), (0, 0), (1, 0)))),
}


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


# -- types, errors, files -------------------------------------------------------------------------

ALL_OF_THEM: list[Op] = [
    *(of(kind, w) for kind in (MaxPool, MaxPoolGather, SumPool) for _, w in NAMED.values()),
    *(
        gradient_of(kind, spatial, w)
        for kind in (MaxPoolGradient, SumPoolGradient, MaxPoolIndices)
        for spatial, w in NAMED.values()
    ),
    *(op for _, op in AVERAGES.values()),
    MaxUnpool((3, 4)),
    AdaptiveAvgPool((3, None)),
    AdaptiveMaxPool((3, 4)),
]


def test_json() -> None:
    for op in ALL_OF_THEM:
        assert op_from_json(op_to_json(op)) == op


COMPOSITES: list[tuple[Composite, TensorType]] = [
    *((op, TensorType((2, 3, *spatial))) for spatial, op in AVERAGES.values()),
    *(
        (gradient_of(MaxPoolIndices, s, w), TensorType((2, 3, *w.outputs(s)), DType.UINT8))
        for s, w in NAMED.values()
    ),
    (AdaptiveAvgPool((3, None)), TensorType((2, 3, 7, 5))),
    (AdaptiveMaxPool((2, 4)), TensorType((2, 3, 7, 4))),
    (AdaptiveMaxPool((2, 2)), TensorType((2, 3, 8, 4))),
]


@pytest.mark.parametrize(("op", "type"), COMPOSITES, ids=[str(op) for op, _ in COMPOSITES])
def test_what_composites_say_of_their_type_is_what_they_expand_to(
    op: Composite, type: TensorType
) -> None:
    graph = expansion(op, (type,))
    assert op.infer(type) == tuple(graph.type_of(v) for v in graph.outputs.values())


F32, I64, U8 = DType.FLOAT32, DType.INT64, DType.UINT8
PLAIN = Window((2, 2), (2, 2), ((0, 0),) * 2, (1, 1))
X = TensorType((1, 3, 8, 8))


@pytest.mark.parametrize(
    ("op", "types", "message"),
    [
        (
            MaxPool((2,), (1,), ((3, 0),), (1,)),
            [TensorType((1, 1, 4))],
            r"window 0 along spatial axis 0 of extent 4 holds nothing but padding \(kernel 2",
        ),
        (
            MaxPool((2,), (1,), ((1, 1),), (2,)),
            [TensorType((1, 1, 1))],
            r"nothing but padding .* dilation 2\); make the padding smaller",
        ),
        (of(MaxPool, PLAIN), [TensorType((1, 1, 1, 4))], r"over 2 places .* axis 0 of extent 1"),
        (of(MaxPool, PLAIN), [TensorType((1, 1, 4))], r"over 2 spatial axes, the input .* has 1"),
        (of(MaxPool, PLAIN), [TensorType((4, 4))], r"\(N, C, \*spatial\)"),
        (of(SumPool, PLAIN), [X.with_dtype(I64)], r"got int64; cast first"),
        (
            of(MaxPoolGather, PLAIN),
            [X, TensorType((1, 3, 4, 4), I64)],
            r"positions in a kernel \(2, 2\) of 4 places are uint8, got int64",
        ),
        (
            of(MaxPoolGather, PLAIN),
            [X, TensorType((1, 3, 4, 5), U8)],
            r"positions uint8\[1, 3, 4, 5\] do not fit the windows of float32\[1, 3, 4, 4\]",
        ),
        (
            gradient_of(SumPoolGradient, (8, 8), PLAIN),
            [TensorType((1, 3, 4, 5))],
            r"extents \(4, 5\), but pooling \(8, 8\) gives \(4, 4\)",
        ),
        (AvgPool((2, 2), (2, 2), ((0, 0),) * 2, divisor_override=0), [X], r"divisor_override is 0"),
        (AvgPool((2, 2), (2,), ((0, 0),) * 2), [X], r"stride \(2,\) has 1 entries"),
        (
            gradient_of(MaxPoolIndices, (8, 8), PLAIN),
            [TensorType((1, 3, 4, 3), U8)],
            r"do not fit the windows",
        ),
        (MaxUnpool((8, 8)), [X, X], r"indices .* must be int64\[1, 3, 8, 8\]"),
        (MaxUnpool((8,)), [X, X.with_dtype(I64)], r"2 spatial axes and cannot be unpooled to"),
        (AdaptiveAvgPool((3,)), [X], r"output_size \(3,\) has 1 entries, .* has 2 spatial axes"),
        (AdaptiveMaxPool((0, 2)), [X], r"cannot be pooled to \(0, 2\)"),
    ],
)
def test_clashes_are_named(op: Any, types: list[TensorType], message: str) -> None:
    graph = Graph()
    inputs = [graph.input(type) for type in types]
    with pytest.raises((ShapeError, DTypeError), match=rf"^pool1 \(.*\): .*{message}"):
        graph.apply(op, *inputs, name="pool1")


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
