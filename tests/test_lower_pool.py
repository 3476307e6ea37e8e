"""Pooling and its gradients as kernels: NumPy, the interpreter and machine code agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from oracles import check, check_kernels, trained

from quern.compiler.errors import ShapeError
from quern.compiler.ops.base import apply, apply_all
from quern.compiler.ops.pool import (
    AvgPool,
    MaxPool,
    MaxPoolGather,
    MaxPoolGradient,
    SumPool,
    SumPoolGradient,
)
from quern.compiler.ops.window import Window
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array, DType, Shape, TensorType

IMAGE = (2, 3, 9, 11)
# kernel, stride, padding, dilation of windows over IMAGE
WINDOWS = {
    "2x2": Window((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)),
    "3x3 overlapping": Window((3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1)),
    "3x3 everywhere": Window((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    "uneven": Window((3, 2), (1, 3), ((1, 0), (0, 1)), (2, 1)),
    "5x5, mostly border": Window((5, 5), (1, 1), ((2, 2), (2, 2)), (1, 1)),
    "all of it": Window((9, 11), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    "1x1": Window((1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    "gaps": Window((1, 1), (3, 4), ((0, 0), (0, 0)), (1, 1)),
}


def numbers(shape: Shape, dtype: Any = np.float32, seed: int = 0) -> Array:
    return np.asarray(np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def fields(window: Window) -> tuple[Any, ...]:
    return window.kernel, window.stride, window.padding, window.dilation


def in_blocks(flat: Window) -> Window:
    """The same window where the last axis holds the channels of a block."""
    return Window(
        (*flat.kernel, 1), (*flat.stride, 1), (*flat.padding, (0, 0)), (*flat.dilation, 1)
    )


def all_of(window: Window, spatial: Shape) -> Any:
    """The values of every operation for one window, of x and of a signal dy."""

    def function(x: Tensor, dy: Tensor) -> list[Tensor]:
        y, position = apply_all(MaxPool(*fields(window)), x)
        return [
            y,
            position,
            apply(SumPool(*fields(window)), x),
            apply(MaxPoolGather(*fields(window)), x, position),
            apply(MaxPoolGradient(spatial, *fields(window)), dy, position),
            apply(SumPoolGradient(spatial, *fields(window)), dy),
        ]

    return function


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", WINDOWS)
def test_windows_over_an_image(name: str, dtype: Any) -> None:
    window = WINDOWS[name]
    dy = numbers((*IMAGE[:2], *window.outputs(IMAGE[2:])), dtype, 1)
    check(all_of(window, IMAGE[2:]), numbers(IMAGE, dtype), dy, atol=1e-5)


@pytest.mark.parametrize("name", WINDOWS)
def test_windows_over_blocks_of_channels(name: str) -> None:
    """The last axis holds the channels of a block."""
    window = in_blocks(WINDOWS[name])
    shape = (2, 3, *IMAGE[2:], 8)
    dy = numbers((*shape[:2], *window.outputs(shape[2:])), seed=1)
    check(all_of(window, shape[2:]), numbers(shape), dy, atol=1e-5, whole=False)


@st.composite
def windows(draw: Any) -> tuple[Shape, Window]:
    """A shape (N, C, *spatial) and a window over it."""
    rank = draw(st.integers(1, 3))

    def each(low: int, high: int) -> Shape:
        return tuple(draw(st.integers(low, high)) for _ in range(rank))

    shape = (draw(st.integers(0, 3)), draw(st.integers(1, 2)), *each(1, 9))
    padding = tuple(zip(each(0, 3), each(0, 3), strict=True))
    return shape, Window(each(1, 4), each(1, 3), padding, each(1, 2))


@given(windows())
@example(((1, 1, 40), Window((20,), (1,), ((0, 0),), (1,))))
@example(((1, 2, 3, 40), Window((1, 17), (1, 2), ((0, 0), (8, 8)), (1, 1))))
def test_windows_over_anything(case: tuple[Shape, Window]) -> None:
    shape, window = case
    try:
        (pooled, _) = MaxPool(*fields(window)).infer(TensorType(shape))
    except ShapeError:
        assume(False)
    check(
        all_of(window, shape[2:]), numbers(shape), numbers(pooled.shape, seed=1),
        atol=1e-5, whole=False,
    )  # fmt: skip


@given(windows())
def test_sums_of_windows_that_may_be_padding_alone(case: tuple[Shape, Window]) -> None:
    shape, window = case
    try:
        (pooled,) = SumPool(*fields(window)).infer(TensorType(shape))
    except ShapeError:
        assume(False)
    spread = SumPoolGradient(shape[2:], *fields(window))
    check(
        lambda x, dy: (apply(SumPool(*fields(window)), x), apply(spread, dy)),
        numbers(shape), numbers(pooled.shape, seed=1), atol=1e-5, whole=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["2x2", "3x3 overlapping", "5x5, mostly border", "all of it"])
def test_the_first_maximum_and_the_first_nan_win(name: str) -> None:
    op = MaxPool(*fields(WINDOWS[name]))
    x = np.round(numbers(IMAGE))
    x[0, 0, 2, 2], x[0, 1, 3, 3], x[1, 2, 0, :4], x[1, 2, 8, 10] = np.nan, np.inf, np.nan, np.nan
    x[0, 2], x[1, 1], x[1, 0] = 0.0, -np.inf, np.inf
    x[0, 2, ::2, ::3] = -0.0
    check(lambda x: apply_all(op, x), x)
    check(lambda x: apply_all(op, x)[0], x)
    check(lambda x: apply_all(op, x)[1], x)


@pytest.mark.parametrize("name", ["2x2", "3x3 overlapping", "3x3 everywhere", "uneven"])
def test_a_nan_in_a_block_of_channels_wins(name: str) -> None:
    window = in_blocks(WINDOWS[name])
    x = np.round(numbers((1, 2, *IMAGE[2:], 8)))
    x[0, 0, 2, 2, :3], x[0, 1, 3:5, 3, 5], x[0, :, 8, 10, 7] = np.nan, np.nan, np.nan
    x[0, 1, :, :, 0] = -np.inf
    check(lambda x: apply_all(MaxPool(*fields(window)), x)[0], x)


@pytest.mark.parametrize("shape", [(2, 6, 9, 11), (5, 1, 6, 21), (1, 3, 4, 3)])
def test_planes_are_walked_side_by_side(shape: Shape, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of them, and those that are left."""
    for module in ("planes", "pool_rows"):
        monkeypatch.setattr(f"quern.compiler.lower.{module}.L2_BYTES", 0)
    window = WINDOWS["3x3 overlapping"]
    pools = [MaxPool(*fields(window)), AvgPool((2, 2), (2, 2), ((0, 0), (0, 0)))]
    check(lambda x: [apply_all(op, x)[0] for op in pools], numbers(shape), atol=1e-6)


@pytest.mark.parametrize("name", ["2x2", "3x3 overlapping", "3x3 everywhere", "uneven"])
def test_rows_of_large_gradients_wait_until_they_are_written(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of planes, of blocks of channels, and of what has a single spatial axis."""
    monkeypatch.setattr("quern.compiler.lower.pool_places.L2_BYTES", 0)
    flat = WINDOWS[name]
    row = Window(*(each[1:] for each in fields(flat)))
    cases = [((1, 2, 8, 21), flat), ((1, 2, 9, 11, 8), in_blocks(flat)), ((2, 3, 40), row)]
    for shape, window in cases:
        pooled = MaxPool(*fields(window)).infer(TensorType(shape))[0].shape
        dy = numbers(pooled, seed=1)
        check(all_of(window, shape[2:]), numbers(shape), dy, atol=1e-5, whole=False)


@pytest.mark.parametrize("name", WINDOWS)
def test_positions_that_no_pooling_gives_are_clamped(name: str) -> None:
    window = WINDOWS[name]
    shape = (*IMAGE[:2], *window.outputs(IMAGE[2:]))
    op = MaxPool(*fields(window))
    wrong = np.random.default_rng(3).integers(0, 256, shape).astype(op.position_dtype.numpy)
    check(
        lambda x, dy, p: (
            apply(MaxPoolGather(*fields(window)), x, p),
            apply(MaxPoolGradient(IMAGE[2:], *fields(window)), dy, p),
        ),
        numbers(IMAGE), numbers(shape, seed=1), wrong, atol=1e-5,
    )  # fmt: skip


def test_windows_of_many_places_have_wide_positions() -> None:
    op = MaxPool((17, 17), (1, 2), ((3, 3), (0, 0)), (1, 1))
    assert op.position_dtype is DType.INT32
    check(lambda x: apply_all(op, x), numbers((1, 2, 18, 21)))


def test_what_follows_a_sum_is_in_the_same_kernel() -> None:
    op = SumPool((2, 2), (2, 2), ((0, 0), (1, 1)), (1, 1))
    bias = numbers((3, 1, 1))
    groups = check(lambda x, b: (apply(op, x) * 0.25 + b).relu(), numbers(IMAGE), bias)
    assert len(groups) == 1


def test_averages_forward_and_backward() -> None:
    for include in (True, False):
        op = AvgPool((3, 3), (2, 2), ((1, 1), (1, 1)), ceil_mode=True, count_include_pad=include)
        graph, feeds = trained(lambda x, op=op: apply(op, x), 1, numbers(IMAGE, np.float64))
        check_kernels(graph, feeds, rtol=1e-12, atol=1e-12)


def test_a_signal_of_infinity_and_nan_goes_where_the_maximum_was() -> None:
    window = WINDOWS["3x3 overlapping"]
    dy = numbers((2, 3, 5, 6))
    dy[0, 0, 1, 1], dy[0, 1, 2, 2], dy[1, 0, 3, 3] = np.nan, np.inf, -np.inf
    check(all_of(window, IMAGE[2:]), numbers(IMAGE), dy, atol=1e-5)
