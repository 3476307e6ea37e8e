"""Convolution and its transposes as kernels: NumPy, the interpreter and machine code agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from kernels import host, run_kernel
from oracles import check, check_kernels, graph_of

from quern.compiler.errors import ShapeError
from quern.compiler.evaluate import evaluate
from quern.compiler.graph import Graph
from quern.compiler.joining import fits_stack
from quern.compiler.llvm.target import Target
from quern.compiler.loops.bounds import prove
from quern.compiler.loops.independence import possible_races
from quern.compiler.lower.lower import lower
from quern.compiler.ops.base import apply, apply_all
from quern.compiler.ops.conv import Conv, ConvInputGradient, ConvWeightGradient
from quern.compiler.ops.pointwise import Relu
from quern.compiler.ops.pool import MaxPool
from quern.compiler.ops.window import Window
from quern.compiler.passes.expand import Expand
from quern.compiler.passes.partition import partition
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array, Shape, TensorType

TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}
NO_PADDING = ((0, 0), (0, 0))


def numbers(shape: Shape, dtype: Any = np.float32, seed: int = 0) -> Array:
    return np.asarray(np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


@dataclass(frozen=True)
class Case:
    """A convolution of (batch, groups * inputs, *spatial) to groups * outputs channels."""

    batch: int
    inputs: int
    outputs: int
    spatial: Shape
    window: Window
    groups: int = 1

    @property
    def fields(self) -> tuple[Any, ...]:
        return self.window.stride, self.window.padding, self.window.dilation, self.groups

    @property
    def shapes(self) -> tuple[Shape, Shape, Shape]:
        """Of x, w and y."""
        k, c = self.groups * self.outputs, self.groups * self.inputs
        windows = self.window.outputs(self.spatial)
        return (
            (self.batch, c, *self.spatial),
            (k, self.inputs, *self.window.kernel),
            (self.batch, k, *windows),
        )

    def arrays(self, dtype: Any = np.float32) -> tuple[Array, Array, Array]:
        x, w, y = self.shapes
        return numbers(x, dtype), numbers(w, dtype, 1), numbers(y, dtype, 2)

    def all_three(self, x: Tensor, w: Tensor, dy: Tensor) -> list[Tensor]:
        """The convolution and its transposes, each with an epilogue that tells its places apart."""
        y = apply(Conv(*self.fields), x, w)
        dx = apply(ConvInputGradient(self.spatial, *self.fields), dy, w)
        dw = apply(ConvWeightGradient(self.window.kernel, *self.fields), x, dy)
        return [apply(Relu(), y + dy), dx * 2 + x, dw + w]


def square(kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> Window:
    return Window((kernel,) * 2, (stride,) * 2, ((padding,) * 2,) * 2, (dilation,) * 2)


CASES = {
    "3x3, as wide as a tile": Case(1, 4, 16, (8, 16), square(3, padding=1)),
    "odd everything": Case(3, 5, 19, (7, 13), square(3, padding=1)),
    "1x1": Case(2, 20, 33, (5, 5), square(1)),
    "the first of LeNet": Case(2, 1, 6, (12, 12), square(5, padding=2)),
    "a large kernel, strided": Case(1, 3, 16, (19, 31), square(7, stride=3, padding=2)),
    "depthwise": Case(2, 1, 1, (9, 20), square(3, padding=1), groups=10),
    "depthwise, stride 2": Case(2, 1, 2, (9, 20), square(3, stride=2, padding=1), groups=5),
    "groups": Case(2, 3, 9, (6, 7), square(3, padding=1), groups=4),
    "stride over dilation": Case(1, 2, 9, (14, 15), square(3, stride=4, padding=3, dilation=6)),
    "stride beyond the kernel": Case(2, 3, 9, (13, 14), square(2, stride=5)),
    "padding beyond the kernel": Case(2, 3, 9, (4, 5), square(2, padding=3)),
    "maps of one pixel": Case(9, 7, 18, (1, 1), square(1)),
    "maps of one pixel in zeros": Case(9, 7, 18, (1, 1), square(3, padding=1)),
    "maps of 4x4": Case(8, 5, 17, (4, 4), square(3, padding=1)),
    "no samples": Case(0, 3, 9, (6, 7), square(3, padding=1)),
    "nothing but padding": Case(2, 3, 9, (0, 4), square(3, padding=2)),
    "uneven": Case(2, 3, 8, (9, 10), Window((3, 2), (1, 3), ((2, 0), (0, 1)), (2, 1))),
    "1-D": Case(2, 3, 10, (37,), Window((5,), (2,), ((2, 1),), (1,))),
    "3-D": Case(2, 2, 9, (4, 5, 6), Window((3, 2, 3), (1, 2, 1), ((1, 1),) * 3, (1, 1, 1))),
}


@pytest.mark.parametrize("name", CASES)
def test_convolution_and_its_transposes(name: str) -> None:
    case = CASES[name]
    groups = check(case.all_three, *case.arrays(), whole=False, **TOLERANCE)
    assert len(groups) == 3, "each with its epilogue in one kernel"


@pytest.mark.parametrize("name", ["groups", "1-D"])
def test_double_precision(name: str) -> None:
    case = CASES[name]
    check(case.all_three, *case.arrays(np.float64), whole=False, rtol=1e-12, atol=1e-13)


def test_compiled_as_a_whole() -> None:
    case = CASES["1-D"]
    check(case.all_three, *case.arrays(), **TOLERANCE)


@st.composite
def cases(draw: Any) -> Case:
    rank = draw(st.integers(1, 3))

    def each(low: int, high: int) -> Shape:
        return tuple(draw(st.integers(low, high)) for _ in range(rank))

    padding = tuple(zip(each(0, 3), each(0, 3), strict=True))
    window = Window(each(1, 4), each(1, 4), padding, each(1, 3))
    spatial = each(1, {1: 40, 2: 16, 3: 7}[rank])
    case = Case(
        draw(st.integers(0, 4)),
        draw(st.integers(1, 3)),
        draw(st.sampled_from([1, 2, 3, 7, 8, 9, 16, 17, 20, 33])),
        spatial,
        window,
        draw(st.sampled_from([1, 1, 2, 3])),
    )
    try:
        window.outputs(spatial)
    except ShapeError:
        assume(False)
    return case


@settings(max_examples=6)
@given(cases())
def test_any_geometry(case: Case) -> None:
    check(case.all_three, *case.arrays(), whole=False, **TOLERANCE)


@pytest.mark.parametrize("name", ["sse", "avx512"])
def test_other_targets(name: str) -> None:
    """Their kernels, interpreted at least: the machine at hand may not be able to run them."""
    for case in (CASES["uneven"], CASES["depthwise, stride 2"]):
        graph, feeds = graph_of(case.all_three, *case.arrays())
        check_kernels(graph, feeds, 1e-4, 1e-4, Target.named(name), whole=False)


def test_infinities_and_nans_stay_where_they_belong() -> None:
    case = Case(2, 2, 3, (6, 11), square(3, stride=2))
    x, w, dy = case.arrays()
    x[0, 0, 2, 3], x[1, 1, 4, 4] = np.inf, np.nan
    x[:, :, 5, :], x[:, 0, 0, 10] = np.nan, np.inf  # the last row is read by no window
    check(case.all_three, x, w, dy, whole=False, **TOLERANCE)


def test_few_results_of_many_pixels_are_summed_in_parts() -> None:
    case = Case(12, 1, 3, (30, 64), square(5, padding=2))
    x, _, dy = case.arrays()
    op = ConvWeightGradient(case.window.kernel, *case.fields)

    def gradient(x: Tensor, dy: Tensor) -> Tensor:
        return apply(op, x, dy)

    graph, feeds = graph_of(gradient, x, dy)
    (group,) = partition(graph)
    kernel = lower(graph, group, host()).kernel
    prove(kernel)
    assert any(b.name == "partial" and b.shape[0] > 1 for b in kernel.scratch)
    expected = evaluate(graph, feeds).outputs["y0"]
    for pieces in (1, 3):
        *_, found = run_kernel(kernel, [x, dy, None], pieces=pieces)
        np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ["odd everything", "depthwise, stride 2", "3-D"])
def test_iterations_are_independent(name: str) -> None:
    case = CASES[name]
    graph, _ = graph_of(case.all_three, *case.arrays())
    for group in partition(graph):
        assert possible_races(lower(graph, group, host()).kernel) == []


# -- with max-pooling -----------------------------------------------------------------------------


def pooled(case: Case, pool: Window) -> Callable[..., Any]:
    """Convolution + bias + ReLU + max-pool, and the positions."""
    op = MaxPool(pool.kernel, pool.stride, pool.padding, pool.dilation)

    def function(x: Tensor, w: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        y, position = apply_all(op, apply(Relu(), apply(Conv(*case.fields), x, w) + bias))
        return y * 2 - 1, position

    return function


def bias(case: Case) -> Array:
    return numbers((1, case.shapes[1][0], *(1,) * len(case.spatial)), seed=3)


POOLS = {
    "2x2": (CASES["the first of LeNet"], square(2, stride=2)),
    "2x2, channels": (Case(2, 3, 20, (10, 10), square(3)), square(2, stride=2)),
    "3x3 overlapping": (Case(1, 2, 17, (21, 12), square(3, padding=1)), square(3, 2, 1)),
    "everywhere": (Case(1, 2, 3, (9, 20), square(3, padding=1)), square(3, 1, 1)),
    "rest unread": (Case(1, 3, 9, (11, 9), square(2)), square(3, stride=4)),
    "dilated": (Case(2, 2, 9, (12, 13), square(3, padding=1)), square(2, 2, 1, dilation=3)),
    "groups": (Case(2, 2, 3, (8, 9), square(3, padding=1), groups=3), square(2, stride=2)),
    "all of it": (Case(3, 4, 10, (5, 6), square(3, padding=1)), Window(
        (5, 6), (1, 1), NO_PADDING, (1, 1)
    )),
    "1-D": (Case(2, 3, 9, (50,), Window((5,), (1,), ((2, 2),), (1,))), Window(
        (3,), (2,), ((1, 1),), (1,)
    )),
    "3-D": (CASES["3-D"], Window((2, 2, 2), (1, 2, 1), ((1, 0), (0, 0), (0, 1)), (1, 1, 1))),
}  # fmt: skip


@pytest.mark.parametrize("name", POOLS)
def test_convolution_and_pooling_in_one_kernel(name: str) -> None:
    case, pool = POOLS[name]
    x, w, _ = case.arrays()
    (group,) = check(pooled(case, pool), x, w, bias(case), whole=False, **TOLERANCE)
    assert group.pool is not None
    assert all(value.node != group.anchor for value in group.outputs)


@pytest.mark.parametrize("name", ["2x2", "3x3 overlapping"])
def test_the_first_maximum_and_the_first_nan_win(name: str) -> None:
    case, pool = POOLS[name]
    x, w, _ = case.arrays()
    x, w = np.round(x), np.round(w)
    x[0, 0, 3, 3] = np.nan
    check(pooled(case, pool), x, w, np.round(bias(case)) - 1, whole=False, **TOLERANCE)


@settings(max_examples=8)
@given(cases(), st.data())
@example(*POOLS["everywhere"])
def test_any_geometry_pooled(case: Case, data: Any) -> None:
    if isinstance(data, Window):
        pool = data
    else:
        pool = data.draw(windows_over(case.shapes[2][2:]))
    x, w, _ = case.arrays()
    (group,) = check(pooled(case, pool), x, w, bias(case), whole=False, **TOLERANCE)
    assert group.pool is not None


@st.composite
def windows_over(draw: Any, spatial: Shape) -> Window:
    """A window that holds more than padding wherever it lies."""
    rank = len(spatial)

    def each(low: int, high: int) -> Shape:
        return tuple(draw(st.integers(low, high)) for _ in range(rank))

    padding = tuple(zip(each(0, 2), each(0, 2), strict=True))
    window = Window(each(1, 3), each(1, 3), padding, each(1, 2))
    op = MaxPool(window.kernel, window.stride, window.padding, window.dilation)
    try:
        op.infer(TensorType((1, 1, *spatial)))
    except ShapeError:
        assume(False)
    return window


def test_rows_too_long_for_the_stack_are_pooled_from_memory() -> None:
    pool = Window((2, 2), (2, 2), NO_PADDING, (1, 1))
    assert fits_stack(pool, (224, 224))
    assert not fits_stack(pool, (224, 2240))
    case = Case(1, 1, 1, (2, 2240), square(1))
    x, w, _ = case.arrays()
    groups = check(pooled(case, pool), x, w, bias(case), whole=False, **TOLERANCE)
    assert all(group.pool is None for group in groups)


def test_what_is_asked_for_itself_is_not_only_pooled() -> None:
    case, pool = POOLS["2x2"]
    op = MaxPool(pool.kernel, pool.stride, pool.padding, pool.dilation)

    def function(x: Tensor, w: Tensor) -> list[Tensor]:
        y = apply(Conv(*case.fields), x, w)
        return [y, *apply_all(op, y)]

    x, w, _ = case.arrays()
    groups = check(function, x, w, whole=False, **TOLERANCE)
    assert all(group.pool is None for group in groups)


def test_expand_leaves_primitives() -> None:
    """A bias is an epilogue: convolution with one is a single kernel."""
    case = CASES["odd everything"]
    x, w, _ = case.arrays()
    graph, _ = graph_of(
        lambda x, w, b: apply(Conv(*case.fields), x, w, b), x, w, numbers((w.shape[0],))
    )
    assert len(partition(Expand().apply(graph))) == 1


@pytest.mark.parametrize(("channels", "tile"), [(1, "6x16"), (3, "3x24")])
def test_few_channels_share_the_vectors_that_they_read(channels: int, tile: str) -> None:
    graph = Graph()
    x = graph.input(TensorType((1, 8, 48, 48)), "x")
    w = graph.input(TensorType((channels, 8, 3, 3)), "w")
    (y,) = graph.apply(Conv((1, 1), ((1, 1),) * 2, (1, 1), 1), x, w)
    graph.outputs = {"y": y.value}
    (group,) = partition(graph)
    assert tile in lower(graph, group, Target.named("avx2")).kernel.note
