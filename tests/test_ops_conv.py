"""Convolution and its transposes, against the terms of the trilinear form written out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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
from quern.compiler.ops.conv import Conv, ConvInputGradient, ConvTranspose, ConvWeightGradient
from quern.compiler.types import Array, DType, TensorType

Index = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """One convolution: batch, channels a group in and out, and the geometry of each axis."""

    spatial: Index
    kernel: Index
    stride: Index
    padding: tuple[tuple[int, int], ...]
    dilation: Index
    groups: int = 1
    batch: int = 1
    reads: int = 1
    gives: int = 1

    @property
    def conv(self) -> Conv:
        return Conv(self.stride, self.padding, self.dilation, self.groups)

    @property
    def to_input(self) -> ConvInputGradient:
        return ConvInputGradient(
            self.spatial, self.stride, self.padding, self.dilation, self.groups
        )

    @property
    def to_weight(self) -> ConvWeightGradient:
        return ConvWeightGradient(
            self.kernel, self.stride, self.padding, self.dilation, self.groups
        )

    @property
    def windows(self) -> Index:
        """Windows along each axis, counted one by one."""
        return tuple(
            sum(i * s + (k - 1) * d < low + n + high for i in range(low + n + high))
            for n, k, s, (low, high), d in zip(
                self.spatial, self.kernel, self.stride, self.padding, self.dilation, strict=True
            )
        )

    @property
    def x_shape(self) -> Index:
        return (self.batch, self.groups * self.reads, *self.spatial)

    @property
    def w_shape(self) -> Index:
        return (self.groups * self.gives, self.reads, *self.kernel)

    @property
    def y_shape(self) -> Index:
        return (self.batch, self.groups * self.gives, *self.windows)

    def terms(self) -> Iterator[tuple[Index, Index, Index]]:
        """Indices into x, w and y of every product in the sum over x * w * y."""
        for n, k, *window in np.ndindex(*self.y_shape):
            group = k // self.gives
            for c, *place in np.ndindex(self.reads, *self.kernel):
                at = tuple(
                    i * s - low + j * d
                    for i, s, (low, _), j, d in zip(
                        window, self.stride, self.padding, place, self.dilation, strict=True
                    )
                )
                if all(0 <= a < m for a, m in zip(at, self.spatial, strict=True)):
                    yield (n, group * self.reads + c, *at), (k, c, *place), (n, k, *window)

    def arrays(self, seed: int = 0) -> tuple[Array, Array, Array]:
        rng = np.random.default_rng(seed)
        shapes = self.x_shape, self.w_shape, self.y_shape
        x, w, y = (rng.standard_normal(shape) for shape in shapes)
        return x, w, y


@st.composite
def cases(draw: st.DrawFn) -> Case:
    rank = draw(st.integers(1, 3))
    most = (9, 5, 3)[rank - 1]

    def each(low: int, high: int) -> Index:
        return draw(st.tuples(*[st.integers(low, high)] * rank))

    kernel, stride, dilation = each(1, 3), each(1, 4), each(1, 2 if rank == 3 else 3)
    padding = tuple(zip(each(0, 4 - rank), each(0, 5 - rank), strict=True))
    spatial = tuple(
        max(n, (k - 1) * d + 1 - low - high, 1)
        for n, k, d, (low, high) in zip(each(1, most), kernel, dilation, padding, strict=True)
    )
    groups, batch, reads, gives = draw(st.tuples(*[st.integers(1, 2)] * 4))
    return Case(spatial, kernel, stride, padding, dilation, groups, batch, reads, gives)


@given(case=cases(), dtype=st.sampled_from([np.float32, np.float64]))
def test_the_three_are_the_sums_of_their_terms(case: Case, dtype: Any) -> None:
    x, w, dy = (a.astype(dtype) for a in case.arrays())
    y, dx, dw = np.zeros(case.y_shape), np.zeros(case.x_shape), np.zeros(case.w_shape)
    for i, j, k in case.terms():
        y[k] += float(x[i]) * float(w[j])
        dx[i] += float(w[j]) * float(dy[k])
        dw[j] += float(x[i]) * float(dy[k])
    tolerance = 1e-6 if dtype == np.float32 else 1e-12
    for op, inputs, expected in (
        (case.conv, (x, w), y),
        (case.to_input, (dy, w), dx),
        (case.to_weight, (x, dy), dw),
    ):
        (got,) = run_op(op, *inputs)
        assert got.dtype == dtype
        np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * 10)


@given(case=cases(), seed=st.integers(0, 99))
def test_each_is_the_transpose_of_the_others(case: Case, seed: int) -> None:
    x, w, dy = case.arrays(seed)
    form = float(np.vdot(run_op(case.conv, x, w)[0], dy))
    assert np.vdot(x, run_op(case.to_input, dy, w)[0]) == pytest.approx(form, rel=1e-9, abs=1e-9)
    assert np.vdot(w, run_op(case.to_weight, x, dy)[0]) == pytest.approx(form, rel=1e-9, abs=1e-9)


NAMED = {
    "pointwise": Case((5,), (1,), (1,), ((0, 0),), (1,), batch=2, reads=3, gives=2),
    "same, 1-D": Case((5,), (3,), (1,), ((1, 1),), (1,), batch=2, reads=2, gives=2),
    "stride beyond the kernel": Case((8,), (2,), (3,), ((0, 0),), (1,), gives=2),
    "padding beyond the kernel": Case((2,), (2,), (2,), ((3, 4),), (1,), reads=2),
    "unread remainder": Case((6, 5), (3, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)),
    "dilated, lopsided": Case((4, 5), (2, 3), (1, 2), ((2, 0), (1, 2)), (3, 2), reads=2),
    "groups": Case((3, 3), (2, 2), (1, 1), ((1, 0), (0, 1)), (1, 1), 2, 2, 2, 2),
    "depthwise": Case((3, 3), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 3, gives=2),
    "3-D": Case((2, 3, 2), (2, 2, 1), (1, 2, 1), ((0, 1), (1, 0), (0, 0)), (1, 1, 2), 1, 1, 2),
}


@pytest.mark.parametrize("case", NAMED.values(), ids=NAMED)
def test_gradients_and_theirs(case: Case) -> None:
    x, w, dy = case.arrays()
    for op, inputs in ((case.conv, (x, w)), (case.to_input, (dy, w)), (case.to_weight, (x, dy))):
        check_gradients(lambda a, b, op=op: apply(op, a, b), *inputs)


@pytest.mark.parametrize("case", NAMED.values(), ids=NAMED)
def test_with_a_bias(case: Case) -> None:
    x, w, dy = case.arrays()
    bias = np.arange(1.0, w.shape[0] + 1)
    (y,) = run_op(case.conv, x, w, bias)
    along = bias.reshape(-1, *(1,) * len(case.kernel))
    np.testing.assert_allclose(y, run_op(case.conv, x, w)[0] + along, rtol=1e-12)
    (expanded,) = run(lambda *inputs: case.conv.expand(*inputs) or (), x, w, bias)
    np.testing.assert_allclose(expanded, y, rtol=1e-12)
    _, _, to_bias = run_gradients(lambda *inputs: apply(case.conv, *inputs), dy, x, w, bias)
    np.testing.assert_allclose(to_bias, dy.sum((0, *range(2, dy.ndim))), rtol=1e-12)


def test_gradients_with_a_bias() -> None:
    case = NAMED["dilated, lopsided"]
    x, w, _ = case.arrays()
    check_gradients(lambda *inputs: apply(case.conv, *inputs), x, w, np.array([0.5]))


def test_without_a_bias_it_is_a_primitive() -> None:
    graph = Graph()
    x, w = graph.input(TensorType((1, 1, 5))), graph.input(TensorType((1, 1, 3)))
    assert NAMED["same, 1-D"].conv.expand(x, w) is None


def test_an_empty_batch() -> None:
    case = NAMED["groups"]
    x, w, dy = case.arrays()
    assert run_op(case.conv, x[:0], w)[0].shape == (0, *case.y_shape[1:])
    assert run_op(case.to_input, dy[:0], w)[0].shape == (0, *case.x_shape[1:])
    assert not run_op(case.to_weight, x[:0], dy[:0])[0].any()


def test_nan_and_infinity_reach_the_windows_that_read_them_only() -> None:
    x = np.array([[[1.0, np.nan, 1.0, 1.0, np.inf]]], np.float32)
    (y,) = run_op(Conv((1,), ((0, 0),), (1,)), x, np.ones((1, 1, 2), np.float32))
    np.testing.assert_array_equal(y[0, 0], [np.nan, np.nan, 2.0, np.inf])


# -- transposed convolution -----------------------------------------------------------------------


def stamped(x: Array, w: Array, op: ConvTranspose) -> Array:
    """A transposed convolution by its picture: each element of x stamps the kernel on y."""
    n, c, *spatial = x.shape
    per_group, kernel = w.shape[1], w.shape[2:]
    full = tuple(
        (m - 1) * s + (k - 1) * d + 1 + extra
        for m, s, k, d, extra in zip(
            spatial, op.stride, kernel, op.dilation, op.output_padding, strict=True
        )
    )
    y = np.zeros((n, per_group * op.groups, *full))
    for b, i, *at in np.ndindex(*x.shape):
        group = i // (c // op.groups)
        for j, *place in np.ndindex(*w.shape[1:]):
            target = (
                a * s + p * d for a, s, p, d in zip(at, op.stride, place, op.dilation, strict=True)
            )
            y[(b, group * per_group + j, *target)] += x[(b, i, *at)] * w[(i, j, *place)]
    crop = tuple(slice(low, m - high) for m, (low, high) in zip(full, op.padding, strict=True))
    return y[(slice(None), slice(None), *crop)]


@given(data=st.data(), rank=st.integers(1, 3), groups=st.integers(1, 2), seed=st.integers(0, 99))
def test_transposed_convolution_stamps_the_kernel(
    data: st.DataObject, rank: int, groups: int, seed: int
) -> None:
    def each(low: int, high: int) -> Index:
        return data.draw(st.tuples(*[st.integers(low, high)] * rank))

    spatial, kernel, stride, dilation = each(2, 3), each(2, 3), each(1, 3), each(1, 3)
    padding = tuple(zip(each(0, 1), each(0, 1), strict=True))
    extra = tuple(
        data.draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True)
    )
    op = ConvTranspose(stride, padding, extra, dilation, groups)
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, 2 * groups, *spatial))
    w = rng.standard_normal((2 * groups, 2, *kernel))
    (y,) = run_op(op, x, w)
    expected = stamped(x, w, op)
    np.testing.assert_allclose(y, expected, rtol=1e-10, atol=1e-12)
    bias = rng.standard_normal(2 * groups)
    (y,) = run_op(op, x, w, bias)
    along = bias.reshape(-1, *(1,) * rank)
    np.testing.assert_allclose(y, expected + along, rtol=1e-10, atol=1e-12)


TRANSPOSED = {
    "1-D": ConvTranspose((2,), ((1, 0),), (1,), (1,)),
    "output padding beyond the stride": ConvTranspose((1,), ((0, 1),), (2,), (3,)),
    "2-D, groups": ConvTranspose((2, 1), ((1, 1), (0, 1)), (1, 0), (1, 2), 2),
    "3-D": ConvTranspose((1, 2, 1), ((0, 0), (1, 1), (0, 0)), (0, 1, 0), (1, 1, 1)),
}


@pytest.mark.parametrize("op", TRANSPOSED.values(), ids=TRANSPOSED)
def test_gradients_of_transposed_convolution(op: ConvTranspose, rng: np.random.Generator) -> None:
    x = rng.standard_normal((1, 2, *(2,) * len(op.stride)))
    w = rng.standard_normal((2, 1, *(2,) * len(op.stride)))
    bias = rng.standard_normal(op.groups)
    check_gradients(lambda *inputs: apply(op, *inputs), x, w, bias)


# -- types, errors, files -------------------------------------------------------------------------


@pytest.mark.parametrize("op", TRANSPOSED.values(), ids=TRANSPOSED)
def test_what_it_says_of_its_type_is_what_it_expands_to(op: ConvTranspose) -> None:
    extents = (4,) * len(op.stride)
    types = TensorType((3, 4, *extents)), TensorType((4, 5, *extents))
    graph = expansion(op, types)
    assert op.infer(*types) == tuple(graph.type_of(v) for v in graph.outputs.values())


def test_json() -> None:
    for case in NAMED.values():
        for op in (case.conv, case.to_input, case.to_weight, *TRANSPOSED.values()):
            assert op_from_json(op_to_json(op)) == op


def plain(stride: Index = (1, 1), padding: int = 0, dilation: int = 1, groups: int = 1) -> Conv:
    return Conv(stride, ((padding, padding),) * 2, (dilation,) * 2, groups)


X = (1, 4, 8, 8)


@pytest.mark.parametrize(
    ("op", "shapes", "message"),
    [
        (plain(), [X, (6, 3, 3, 3)], r"x .* has 4 channels, weight .* groups=1 reads 3 \* 1 = 3"),
        (plain(groups=3), [X, (6, 1, 3, 3)], r"4 input channels .* groups=3; groups must divide"),
        (plain(groups=4), [X, (6, 1, 3, 3)], r"6 output channels .* groups=4; groups must divide"),
        (plain(groups=0), [X, (6, 4, 3, 3)], r"groups=0"),
        (plain(), [X, (6, 4, 3)], r"weight of rank 4 .* got .* of rank 3"),
        (plain(), [(4, 8), (6, 4)], r"\(N, C, \*spatial\) .* of rank 2; reshape it"),
        (plain(), [X, (6, 4, 3, 9)], r"over 9 places .* axis 1 of extent 8 .* pad 1 more"),
        (plain(dilation=5), [X, (6, 4, 3, 3)], r"11 places \(kernel 3, dilation 5\).*pad 3 more"),
        (plain(stride=(1,)), [X, (6, 4, 3, 3)], r"stride \(1,\) has 1 entries.* has 2 spatial"),
        (plain(stride=(0, 1)), [X, (6, 4, 3, 3)], r"stride \(0, 1\) must be at least 1"),
        (plain(padding=-1), [X, (6, 4, 3, 3)], r"padding .* is negative; slice the input"),
        (plain(), [X, (6, 4, 0, 3)], r"kernel \(0, 3\) must be at least 1"),
        (plain(), [X, (6, 4, 3, 3), (5,)], r"bias .* must have the shape \(6,\)"),
        (
            ConvInputGradient((8, 8), (1, 1), ((0, 0),) * 2, (1, 1)),
            [(1, 6, 5, 6), (6, 4, 3, 3)],
            r"dy has spatial extents \(5, 6\), but kernel \(3, 3\) over \(8, 8\) gives \(6, 6\)",
        ),
        (
            ConvInputGradient((8, 8), (1, 1), ((0, 0),) * 2, (1, 1)),
            [(1, 5, 6, 6), (6, 4, 3, 3)],
            r"dy .* has 5 channels, weight .* gives 6",
        ),
        (
            ConvWeightGradient((3, 3), (1, 1), ((0, 0),) * 2, (1, 1)),
            [X, (2, 6, 6, 6)],
            r"batch of 1, dy .* of 2",
        ),
        (
            ConvTranspose((2, 2), ((0, 0),) * 2, (2, 0), (1, 1)),
            [X, (4, 6, 3, 3)],
            r"output_padding \(2, 0\) must be .* less than the stride \(2, 2\)",
        ),
        (
            ConvTranspose((2, 2), ((9, 9),) * 2, (0, 0), (1, 1)),
            [X, (4, 6, 3, 3)],
            r"has extents \(-1, -1\); make the input larger or the padding",
        ),
        (
            ConvTranspose((2, 2), ((0, 0),) * 2, (0, 0), (1, 1)),
            [X, (6, 4, 3, 3)],
            r"x .* has 4 channels, weight .* reads 6",
        ),
        (
            ConvTranspose((2, 2), ((0, 0),) * 2, (0,), (1, 1)),
            [X, (4, 6, 3, 3)],
            r"output_padding \(0,\) has 1 entries, there are 2",
        ),
        (
            ConvTranspose((2, 2), ((0, 0),) * 2, (0, 0), (1, 1), 3),
            [X, (4, 6, 3, 3)],
            r"4 input channels cannot be cut into groups=3",
        ),
    ],
)
def test_clashes_are_named(op: Any, shapes: list[Index], message: str) -> None:
    graph = Graph()
    inputs = [graph.input(TensorType(shape)) for shape in shapes]
    with pytest.raises(ShapeError, match=rf"^conv1 \(.*\): .*{message}"):
        graph.apply(op, *inputs, name="conv1")


def test_integers_are_refused() -> None:
    graph = Graph()
    inputs = [graph.input(TensorType(s, DType.INT32)) for s in (X, (6, 4, 3, 3))]
    with pytest.raises(DTypeError, match="Conv takes float32, float64, got int32; cast first"):
        graph.apply(plain(), *inputs)


# -- parity ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", NAMED.values(), ids=NAMED)
def test_parity_with_pytorch(case: Case) -> None:
    torch = pytest.importorskip("torch")
    rank = len(case.kernel)
    convolve = (torch.conv1d, torch.conv2d, torch.conv3d)[rank - 1]
    x, w, dy = (torch.tensor(a, requires_grad=True) for a in case.arrays())
    sides = [p for pair in reversed(case.padding) for p in pair]
    padded = torch.nn.functional.pad(x, sides)
    y = convolve(padded, w, None, case.stride, 0, case.dilation, case.groups)
    dx, dw = torch.autograd.grad(y, (x, w), dy)
    arrays = case.arrays()
    own = (
        run_op(case.conv, *arrays[:2])[0],
        *run_gradients(lambda *inputs: apply(case.conv, *inputs), arrays[2], *arrays[:2]),
    )
    for got, expected in zip(own, (y, dx, dw), strict=True):
        np.testing.assert_allclose(got, expected.detach().numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("op", TRANSPOSED.values(), ids=TRANSPOSED)
def test_parity_of_transposed_convolution_with_pytorch(
    op: ConvTranspose, rng: np.random.Generator
) -> None:
    torch = pytest.importorskip("torch")
    rank = len(op.stride)
    functions = torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d
    padding = tuple(low for low, _ in op.padding)
    op = ConvTranspose(
        op.stride, tuple((p, p) for p in padding), op.output_padding, op.dilation, op.groups
    )
    x, w = rng.standard_normal((2, 4, *(5,) * rank)), rng.standard_normal((4, 3, *(3,) * rank))
    bias = rng.standard_normal(3 * op.groups)
    expected = functions[rank - 1](
        *map(torch.tensor, (x, w, bias)), op.stride, padding, op.output_padding, op.groups,
        op.dilation,
    )  # fmt: skip
    np.testing.assert_allclose(run_op(op, x, w, bias)[0], expected.numpy(), rtol=1e-10, atol=1e-12)
