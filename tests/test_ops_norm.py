"""Normalisation: formulas by NumPy, PyTorch where it is installed, gradients, degenerate inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gradcheck import run_gradients, type_of
from hypothesis import given
from hypothesis import strategies as st
from op_cases import (
    cases,
    outputs_of,
    positive,
    spread,
    value_of,
)
from oracles import graph_of

from quern.compiler.driver import Options, compile_graph
from quern.compiler.errors import DTypeError, ShapeError
from quern.compiler.ops import norm
from quern.compiler.ops.base import Op, apply, apply_all
from quern.compiler.ops.composite import expansion
from quern.compiler.ops.movement import Reshape
from quern.compiler.types import Array
from quern.runtime.executable import Executable

X = spread((2, 4, 3))
IMAGE = spread((2, 4, 2, 3), seed=4)
W, B, M = spread((4,), seed=1), spread((4,), seed=2), spread((4,), seed=3)
V = positive((4,), seed=5)


def channels(p: Array, x: Array) -> Array:
    return p.reshape(1, -1, *(1,) * (x.ndim - 2))


def standard(x: Array, axes: Any, eps: float = 1e-5) -> Array:
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


def batch_norm(
    x: Array, w: Array, b: Array, mean: Array, var: Array, momentum: float = 0.1, eps: float = 1e-5
) -> tuple[Array, ...]:
    axes = (0, *range(2, x.ndim))
    y = standard(x, axes, eps) * channels(w, x) + channels(b, x)
    return (
        y,
        mean + momentum * (x.mean(axes) - mean),
        var + momentum * (x.var(axes, ddof=1) - var),
    )


def group_norm(x: Array, groups: int) -> Array:
    parts = x.reshape(x.shape[0], groups, -1)
    return standard(parts, -1).reshape(x.shape)


def local_response(x: Array, size: int, alpha: float, beta: float, k: float) -> Array:
    y = np.empty_like(x)
    for c in range(x.shape[1]):
        window = x[:, max(0, c - size // 2) : c + (size - 1) // 2 + 1]
        y[:, c] = x[:, c] / (k + alpha / size * (window**2).sum(1)) ** beta
    return y


def local_contrast(x: Array, size: int, sigma: float, threshold: float = 1e-4) -> Array:
    """Pixel by pixel, the weights of the pixels inside of the image scaled to sum 1."""
    spatial = x.shape[2:]

    def mean(values: Array) -> Array:
        result = np.zeros((x.shape[0], 1, *spatial))
        for at in np.ndindex(*spatial):
            total = 0.0
            for other in np.ndindex(*spatial):
                offset = np.subtract(other, at)
                if np.all(np.abs(offset) <= size // 2):
                    weight = np.exp(-np.sum(offset**2) / (2 * sigma**2))
                    total += weight
                    result[:, 0, *at] += weight * values[:, :, *other].mean(1)
            result[:, 0, *at] /= total
        return result

    v = x - mean(x)
    deviation = np.maximum(np.sqrt(mean(v**2)), threshold)
    usual = deviation.mean(tuple(range(1, x.ndim)), keepdims=True)
    return v / np.maximum(deviation, usual)


CASES = [
    cases(norm.BatchNorm(), batch_norm, X, W, B, M, V),
    cases(norm.BatchNorm(0.3, 1e-3), lambda *a: batch_norm(*a, 0.3, 1e-3), X[0], W[:3], B[:3],
          M[:3], V[:3]),
    cases(norm.BatchNorm(), batch_norm, IMAGE, W, B, M, V, rounds=1),
    cases(
        norm.BatchNorm(affine=False), lambda x, m, v: batch_norm(x, np.ones(4), 0 * W, m, v),
        X, M, V,
    ),
    cases(
        norm.BatchNormInference(),
        lambda x, m, v, w, b: channels(w / np.sqrt(v + 1e-5), x) * (x - channels(m, x))
        + channels(b, x), IMAGE, M, V, W, B, rounds=1,
    ),
    cases(
        norm.BatchNormInference(1e-2, affine=False),
        lambda x, m, v: (x - channels(m, x)) / channels(np.sqrt(v + 1e-2), x), X, M, V,
    ),
    cases(norm.LayerNorm(), lambda x: standard(x, -1), X),
    cases(norm.LayerNorm(1), lambda x, w: standard(x, -1) * w, X, W[:3]),
    cases(
        norm.LayerNorm(2, 1e-2), lambda x, w, b: standard(x, (1, 2), 1e-2) * w + b, X, X[0] + 3,
        X[1],
    ),
    cases(
        norm.RMSNorm(2, 1e-3),
        lambda x, w: x / np.sqrt((x**2).mean((1, 2), keepdims=True) + 1e-3) * w, X, X[0] + 3,
    ),
    cases(norm.RMSNorm(), lambda x: x / np.sqrt((x**2).mean(-1, keepdims=True)), X),
    cases(
        norm.GroupNorm(2), lambda x, w, b: group_norm(x, 2) * channels(w, x) + channels(b, x),
        IMAGE, W, B, rounds=1,
    ),
    cases(norm.GroupNorm(1), lambda x, w: group_norm(x, 1) * channels(w, x), X, W),
    cases(norm.GroupNorm(2), lambda x: group_norm(x, 2), X[:, :, 0]),
    cases(
        norm.InstanceNorm(), lambda x, w, b: group_norm(x, 4) * channels(w, x) + channels(b, x),
        X, W, B,
    ),
    cases(norm.InstanceNorm(1e-2), lambda x: standard(x, (2, 3), 1e-2), IMAGE, rounds=1),
    *(
        cases(
            norm.LocalResponseNorm(size, 0.7, beta, k),
            lambda x, a=(size, 0.7, beta, k): local_response(x, *a), X,
        )
        for size, beta, k in ((1, 0.75, 1.0), (2, 0.75, 2.0), (3, 0.5, 1.0), (5, 0.75, 2.0),
                              (9, 1.0, 1.0))
    ),
    cases(norm.LocalContrastNorm(3, 1.0), lambda x: local_contrast(x, 3, 1.0), X[:1]),
    cases(
        norm.LocalContrastNorm(5, 1.5), lambda x: local_contrast(x, 5, 1.5), IMAGE[:1, :2],
        rounds=1,
    ),
]  # fmt: skip


def torch_functions(f: Any) -> list[tuple[Op, tuple[Array, ...], Callable[..., Any]]]:
    return [
        (
            norm.BatchNormInference(), (IMAGE, M, V, W, B),
            lambda x, m, v, w, b: f.batch_norm(x, m.detach(), v.detach(), w, b),
        ),
        (norm.LayerNorm(2), (X, X[0], X[1]), lambda x, w, b: f.layer_norm(x, (4, 3), w, b)),
        (norm.RMSNorm(1), (X, W[:3]), lambda x, w: f.rms_norm(x, (3,), w)),
        (norm.GroupNorm(2), (IMAGE, W, B), lambda x, w, b: f.group_norm(x, 2, w, b)),
        (norm.InstanceNorm(), (X, W, B), lambda x, w, b: f.instance_norm(x, weight=w, bias=b)),
        *(
            (norm.LocalResponseNorm(n, 0.9, 0.75, 2.0), (x,),
             lambda x, n=n: f.local_response_norm(x, n, 0.9, 0.75, 2.0))
            for n in (2, 3, 5) for x in (X, IMAGE)
        ),
    ]  # fmt: skip


def test_values_and_gradients_are_pytorch_s() -> None:
    torch = pytest.importorskip("torch")
    for op, inputs, function in torch_functions(torch.nn.functional):
        tensors = [torch.tensor(x, requires_grad=True) for x in inputs]
        y = function(*tensors)
        signal = np.random.default_rng(0).standard_normal(y.shape)
        y.backward(torch.tensor(signal))
        np.testing.assert_allclose(value_of(op, *inputs), y.detach().numpy(), rtol=1e-9)
        found = run_gradients(lambda t, *rest, op=op: apply(op, t, *rest), signal, *inputs)
        for g, t in zip(found, tensors, strict=True):
            if t.grad is not None:
                np.testing.assert_allclose(g, t.grad.numpy(), rtol=1e-8, atol=1e-12)


def test_training_updates_running_statistics_as_pytorch_does() -> None:
    torch = pytest.importorskip("torch")
    layer = torch.nn.BatchNorm2d(4, momentum=0.3).double().train()
    mean, var = np.zeros(4), np.ones(4)
    for step in range(3):
        x = np.random.default_rng(step).standard_normal((3, 4, 2, 2)) * 2 + 1
        expected = layer(torch.tensor(x)).detach().numpy()
        y, mean, var = outputs_of(norm.BatchNorm(0.3), x, np.ones(4), np.zeros(4), mean, var)
        np.testing.assert_allclose(y, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(mean, layer.running_mean.numpy())
    np.testing.assert_allclose(var, layer.running_var.numpy())


@given(
    n=st.integers(1, 3), groups=st.integers(1, 3), width=st.integers(1, 3),
    pixels=st.lists(st.integers(1, 3), max_size=3),
)  # fmt: skip
def test_group_norm_of_any_shape(n: int, groups: int, width: int, pixels: list[int]) -> None:
    x = np.random.default_rng(n).standard_normal((n, groups * width, *pixels))
    np.testing.assert_allclose(
        value_of(norm.GroupNorm(groups), x), group_norm(x, groups), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize(
    "op",
    [norm.LayerNorm(2), norm.GroupNorm(2), norm.InstanceNorm(), norm.LocalContrastNorm(3, 1.0)],
    ids=str,
)
def test_a_constant_input_gives_zeros_and_a_finite_gradient(op: Op) -> None:
    x = np.full((2, 4, 3), 3.0)
    np.testing.assert_allclose(value_of(op, x), np.zeros_like(x), atol=1e-9)
    (dx,) = run_gradients(lambda t: apply(op, t), X, x)
    assert dx is not None
    assert np.all(np.isfinite(dx))


def test_the_variance_of_large_numbers_is_not_lost() -> None:
    x = (np.array([[1.0, 2.0, 3.0, 4.0]]) + 1e5).astype(np.float32)
    y = value_of(norm.LayerNorm(), x)
    np.testing.assert_allclose(y[0], [-1.3416, -0.4472, 0.4472, 1.3416], atol=1e-3)


def test_nan_stays_in_what_it_is_normalised_with() -> None:
    x = X.copy()
    x[0, 0, 0] = np.nan
    y = value_of(norm.LayerNorm(), x)
    assert np.isnan(y[0, 0]).all()
    assert not np.isnan(y[0, 1:]).any()
    assert not np.isnan(y[1]).any()


def test_an_empty_batch_is_normalised_sample_by_sample() -> None:
    for op in (norm.LayerNorm(), norm.GroupNorm(2), norm.RMSNorm(), norm.InstanceNorm()):
        assert value_of(op, X[:0]).shape == (0, 4, 3)


def test_group_norm_reshapes_its_input_only_at_both_ends() -> None:
    graph = expansion(norm.GroupNorm(2), (type_of(IMAGE), type_of(W), type_of(B)))
    reshaped = [n.types[0].size for n in graph.nodes() if isinstance(n.op, Reshape)]
    assert sorted(reshaped) == [W.size, B.size, IMAGE.size, IMAGE.size]


WRONG: list[tuple[Op, tuple[Array, ...], type[Exception], str]] = [
    (norm.BatchNorm(), (X, W, B, M, V[:3]), ShapeError, r"\(4,\), got float64\[3\]"),
    (norm.BatchNorm(), (X, M, V), ShapeError, "4 values a channel, got 2"),
    (norm.BatchNorm(), (X[:1, :, 0], W, B, M, V), ShapeError, "at least 2 values a channel"),
    (norm.BatchNorm(), (W, W, B, M, V), ShapeError, r"\(N, C, \*\)"),
    (norm.LayerNorm(), (np.ones((2, 2), int),), DTypeError, "takes floats"),
    (norm.LayerNorm(), (X, W), ShapeError, "got float64"),
    (norm.LayerNorm(2), (X, X[0].T), ShapeError, "got float64"),
    (norm.LayerNorm(4), (X,), ShapeError, "last 4 axes"),
    (norm.GroupNorm(3), (X,), ShapeError, "3 groups do not divide"),
    (norm.InstanceNorm(), (X[0],), ShapeError, "with pixels"),
    (norm.LocalResponseNorm(0), (X,), ShapeError, "size from 1"),
    (norm.LocalContrastNorm(4, 1.0), (X,), ShapeError, "odd kernel_size"),
]


@pytest.mark.parametrize(("op", "inputs", "kind", "message"), WRONG)
def test_what_does_not_fit_is_refused(
    op: Op, inputs: tuple[Array, ...], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        outputs_of(op, *inputs)


@pytest.mark.parametrize("far", ["every value", "the first sample", "one value"])
def test_batch_statistics_of_values_far_from_zero(far: str) -> None:
    """One pass over the batch loses no more digits than the values have."""
    x = np.random.default_rng(0).standard_normal((8, 3, 32, 24)).astype(np.float32)
    where = {"every value": np.s_[:], "the first sample": np.s_[0], "one value": np.s_[0, :, 0, 0]}
    x[where[far]] += 1000
    zero, one = np.zeros(3, np.float32), np.ones(3, np.float32)
    op = norm.BatchNorm(momentum=1.0, affine=False)
    graph, feeds = graph_of(lambda *a: list(apply_all(op, *a)), x, zero, one)
    image = compile_graph(graph, Options(workers=1)).image
    outputs = Executable(image, threads=1).run(feeds)
    exact = x.astype(np.float64)
    mean, var = exact.mean((0, 2, 3)), exact.var((0, 2, 3))
    y = (exact - mean[:, None, None]) / np.sqrt(var + op.eps)[:, None, None]
    np.testing.assert_allclose(outputs["y1"], mean, rtol=2e-6)
    np.testing.assert_allclose(outputs["y2"], exact.var((0, 2, 3), ddof=1), rtol=2e-5)
    np.testing.assert_allclose(outputs["y0"], y, atol=2e-4 * np.abs(y).max())
