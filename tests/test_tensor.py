"""Methods of tensors mean what NumPy's functions, and PyTorch's methods of the same name, mean."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import quern as qn
from quern.compiler.errors import QuernError, ShapeError, UsageError
from quern.compiler.types import Array

Method = Callable[..., Any]

X = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
Y = np.random.default_rng(1).standard_normal((2, 3, 4)).astype(np.float32)
POSITIVE = np.abs(X) + 0.5
UNIT = np.tanh(X) * 0.9
SQUARE = X[:, :, :3]
NUMBERS = np.array([[3, -7, 0, 2], [5, 5, -1, 8]])
TRUTHS = X > 0
PLACES = np.array([2, 0, 2])
ALONG = np.array([[[0, 1, 1, 0]], [[1, 1, 0, 0]]])


def erf(x: Array) -> Array:
    return np.vectorize(math.erf)(x)


def scattered(x: Array, index: Array, source: Array) -> Array:
    """Along axis 1."""
    y = x.copy()
    np.put_along_axis(y, index, source, 1)
    return y


# What is called, the same expression for Quern's tensors and PyTorch's; by NumPy; its arguments.
CASES: dict[str, tuple[Method, Method, tuple[Array, ...]]] = {
    "abs": (lambda x: x.abs(), np.abs, (X,)),
    "acos": (lambda x: x.acos(), np.arccos, (UNIT,)),
    "asinh": (lambda x: x.asinh(), np.arcsinh, (X,)),
    "atan": (lambda x: x.atan(), np.arctan, (X,)),
    "ceil": (lambda x: x.ceil(), np.ceil, (X,)),
    "cos": (lambda x: x.cos(), np.cos, (X,)),
    "erf": (lambda x: x.erf(), erf, (X,)),
    "exp of integers": (lambda x: x.exp(), lambda x: np.exp(x.astype("f")), (NUMBERS,)),
    "expm1": (lambda x: x.expm1(), np.expm1, (X,)),
    "floor": (lambda x: x.floor(), np.floor, (X,)),
    "isfinite": (lambda x: (x / 0.0).isfinite(), lambda x: np.zeros(x.shape, bool), (POSITIVE,)),
    "isinf": (lambda x: (x / 0.0).isinf(), lambda x: np.ones(x.shape, bool), (POSITIVE,)),
    "log": (lambda x: x.log(), np.log, (POSITIVE,)),
    "log10": (lambda x: x.log10(), np.log10, (POSITIVE,)),
    "log1p": (lambda x: x.log1p(), np.log1p, (POSITIVE,)),
    "log2": (lambda x: x.log2(), np.log2, (POSITIVE,)),
    "all of none": (lambda x: x.all(1), lambda x: x.all(1), (np.ones((2, 0), bool),)),
    "cumsum of bytes": (
        lambda x: x.cumsum(0), lambda x: x.cumsum(0, np.int64), (np.full(3, 200, np.uint8),)
    ),
    "floor of integers": (lambda x: x.floor(), lambda x: x, (NUMBERS,)),
    "max of truths": (lambda x: x.amax(1), lambda x: x.max(1), (TRUTHS,)),
    "isnan of integers": (lambda x: x.isnan(), np.isnan, (NUMBERS,)),
    "narrow from the end": (lambda x: x.narrow(2, -3, 2), lambda x: x[:, :, 1:3], (X,)),
    "a double beside floats": (lambda x, s: x * s, lambda x, s: x * np.float32(s),
        (X, np.array(1.5))),
    "powers of integers": (lambda x: x**2, lambda x: x**2, (NUMBERS,)),
    "powers of 2": (lambda x: 2**x, lambda x: 2**x, (np.arange(5),)),
    "product of bytes": (
        lambda x: x.prod(), lambda x: x.prod(dtype=np.int64), (np.full(3, 200, np.uint8),)
    ),
    "scatter with more than there are indices for": (
        lambda x, i, y: x.scatter(1, i, y), lambda x, i, y: scattered(x, i, y[:, :1]),
        (X, ALONG, Y),
    ),
    "scatter of truths": (
        lambda x, i, y: x.scatter(1, i, y), scattered, (TRUTHS, ALONG, TRUTHS[:, 1:2])
    ),
    "sum of a scalar": (lambda x: x.sum(0), lambda x: x, (np.array(2.5),)),
    "sum of bytes": (
        lambda x: x.sum(), lambda x: x.sum(dtype=np.int64), (np.full(3, 200, np.uint8),)
    ),
    "sum of integers": (
        lambda x: x.sum(1), lambda x: x.sum(1, dtype=np.int64), (NUMBERS.astype(np.int32),)
    ),
    "sum of truths": (lambda x: x.sum(1), lambda x: x.sum(1), (TRUTHS,)),
    "tile of the last axis": (lambda x: x.tile(2), lambda x: np.tile(x, 2), (X,)),
    "where, of truths": (
        lambda x, c, y: x.where(c, y), lambda x, c, y: np.where(c, x, y), (TRUTHS, ~TRUTHS, Y > 0)
    ),
    "neg": (lambda x: x.neg(), np.negative, (X,)),
    "reciprocal": (lambda x: x.reciprocal(), np.reciprocal, (POSITIVE,)),
    "round": (lambda x: (x * 4).round(), lambda x: np.round(x * 4), (X,)),
    "rsqrt": (lambda x: x.rsqrt(), lambda x: 1 / np.sqrt(x), (POSITIVE,)),
    "sign": (lambda x: x.sign(), np.sign, (X,)),
    "sin": (lambda x: x.sin(), np.sin, (X,)),
    "square": (lambda x: x.square(), np.square, (X,)),
    "tan": (lambda x: x.tan(), np.tan, (X,)),
    "trunc": (lambda x: (x * 3).trunc(), lambda x: np.trunc(x * 3), (X,)),
    "add": (lambda x, y: x.add(y, alpha=2), lambda x, y: x + 2 * y, (X, Y)),
    "sub": (lambda x, y: x.sub(y, alpha=3), lambda x, y: x - 3 * y, (X, Y)),
    "mul": (lambda x, y: x.mul(y), np.multiply, (X, Y)),
    "div": (lambda x, y: x.div(y), np.divide, (X, POSITIVE)),
    "div down": (
        lambda x, y: x.div(y, rounding_mode="floor"), np.floor_divide, (X, POSITIVE),
    ),
    "div to 0": (
        lambda x, y: x.div(y, rounding_mode="trunc"), lambda x, y: np.trunc(x / y), (X, POSITIVE),
    ),
    "pow 2": (lambda x: x.pow(2), lambda x: x**2, (X,)),
    "pow 3": (lambda x: x.pow(3), lambda x: x**3, (X,)),
    "pow half": (lambda x: x.pow(0.5), np.sqrt, (POSITIVE,)),
    "pow tensor": (lambda x, y: x.pow(y), np.power, (POSITIVE, Y)),
    "==": (lambda x: x == 5, lambda x: x == 5, (NUMBERS,)),
    "!=": (lambda x: x != 5, lambda x: x != 5, (NUMBERS,)),
    "how many agree": (
        lambda x, y: (x.argmax(1) == y.argmax(1)).float().mean(),
        lambda x, y: (x.argmax(1) == y.argmax(1)).mean(dtype=np.float32), (X, Y),
    ),
    "ge": (lambda x, y: x.ge(y), np.greater_equal, (X, Y)),
    "//": (lambda x: 7 // x, lambda x: 7 // x, (np.array([2, 3, 4]),)),
    "logical": (
        lambda x, y: x.logical_and(y).logical_or(x.logical_xor(y)).logical_not(),
        lambda x, y: ~((x & y) | (x ^ y)), (TRUTHS, Y > 0),
    ),
    "bitwise": (
        lambda x: x.bitwise_and(6).bitwise_xor(3), lambda x: (x & 6) ^ 3, (NUMBERS,),
    ),
    "numbers of NumPy": (
        lambda x: np.float32(2) * x + np.int64(3), lambda x: 2 * x + 3, (X,),
    ),
    "lerp": (lambda x, y: x.lerp(y, 0.25), lambda x, y: x + 0.25 * (y - x), (X, Y)),
    "lerp beyond": (lambda x, y: x.lerp(y, -3), lambda x, y: x - 3 * (y - x), (X, Y)),
    "lerp by tensors": (lambda x, y: x.lerp(y, x), lambda x, y: x + x * (y - x), (X, Y)),
    "lerp to the end": (lambda x, y: (x * 1e9).lerp(y, 1), lambda x, y: y, (X, Y)),
    "addcmul": (
        lambda x, y: x.addcmul(y, y, value=0.5), lambda x, y: x + 0.5 * y * y, (X, Y),
    ),
    "clamp": (lambda x: x.clamp(-0.5, 0.5), lambda x: np.clip(x, -0.5, 0.5), (X,)),
    "clamp above": (lambda x: x.clamp(min=0.1), lambda x: np.maximum(x, 0.1), (X,)),
    "masked_fill": (
        lambda x, m: x.masked_fill(m, 9.0), lambda x, m: np.where(m, 9, x), (X, TRUTHS),
    ),
    "nan_to_num": (
        lambda x: x.log().nan_to_num(nan=-1.0, neginf=-2.0),
        lambda x: np.array([-1, -2, 0], "f"), (np.array([-1, 0, 1], "f"),),
    ),
    "sum": (
        lambda x: x.sum(dim=(0, 2), keepdim=True), lambda x: x.sum((0, 2), keepdims=True), (X,),
    ),
    "mean": (lambda x: x.mean(1), lambda x: x.mean(1), (X,)),
    "max of all": (lambda x: x.max(), np.max, (X,)),
    "max along": (lambda x: x.max(1), lambda x: (x.max(1), x.argmax(1)), (X,)),
    "max of two": (lambda x, y: x.max(y), np.maximum, (X, Y)),
    "min along": (
        lambda x: x.min(dim=-1, keepdim=True),
        lambda x: (x.min(-1, keepdims=True), x.argmin(-1, keepdims=True)), (X,),
    ),
    "argmin": (lambda x: x.argmin(), np.argmin, (X,)),
    "any": (lambda x: x.any(1), lambda x: x.any(1), (TRUTHS,)),
    "all": (lambda x: x.all(dim=2), lambda x: x.all(2), (TRUTHS,)),
    "count_nonzero": (lambda x: x.count_nonzero(1), lambda x: (x != 0).sum(1), (NUMBERS,)),
    "var": (lambda x: x.var(1), lambda x: x.var(1, ddof=1), (X,)),
    "std": (lambda x: x.std(dim=2, correction=0), lambda x: x.std(2), (X,)),
    "norm": (lambda x: x.norm(), lambda x: np.sqrt((x * x).sum()), (X,)),
    "norm of 1": (lambda x: x.norm(1, 2), lambda x: np.abs(x).sum(2), (X,)),
    "norm of 3": (lambda x: x.norm(3, 1), lambda x: (np.abs(x) ** 3).sum(1) ** (1 / 3), (X,)),
    "largest": (lambda x: x.norm(float("inf"), 1), lambda x: np.abs(x).max(1), (X,)),
    "logsumexp": (
        lambda x: (x + 1000).logsumexp(1),
        lambda x: np.log(np.exp(x.astype("d")).sum(1)) + 1000, (X,),
    ),
    "softmax": (
        lambda x: x.softmax(-1), lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True), (X,),
    ),
    "log_softmax": (
        lambda x: x.log_softmax(1), lambda x: x - np.log(np.exp(x).sum(1, keepdims=True)), (X,),
    ),
    "cumsum": (lambda x: x.cumsum(1), lambda x: x.cumsum(1), (X,)),
    "cumprod": (lambda x: x.cumprod(2), lambda x: x.cumprod(2), (X,)),
    "topk": (
        lambda x: x.topk(2), lambda x: (-np.sort(-x)[..., :2], np.argsort(-x)[..., :2]), (X,),
    ),
    "sort": (lambda x: x.sort(1), lambda x: (np.sort(x, 1), np.argsort(x, 1)), (X,)),
    "argsort": (lambda x: x.argsort(1, descending=True), lambda x: np.argsort(-x, 1), (X,)),
    "median": (lambda x: x.median(), lambda x: np.sort(x.ravel())[11], (X,)),
    "view": (lambda x: x.view(3, -1), lambda x: x.reshape(3, -1), (X,)),
    "view_as": (lambda x, y: x.view_as(y.t()), lambda x, y: x.reshape(4, 3), (X[0], Y[0])),
    "unflatten": (lambda x: x.unflatten(2, (-1, 2)), lambda x: x.reshape(2, 3, 2, 2), (X,)),
    "T": (lambda x: x.T, np.transpose, (X[0],)),
    "mT": (lambda x: x.mT, lambda x: x.swapaxes(1, 2), (X,)),
    "movedim": (
        lambda x: x.movedim((0, 1), (2, 0)), lambda x: np.moveaxis(x, (0, 1), (2, 0)), (X,),
    ),
    "expand": (
        lambda x: x.expand(5, -1, 4), lambda x: np.broadcast_to(x, (5, 3, 4)), (X[0, :, :1],),
    ),
    "repeat": (lambda x: x.repeat(2, 1, 3), lambda x: np.tile(x, (2, 1, 3)), (X[0],)),
    "repeat_interleave": (
        lambda x: x.repeat_interleave(2, 1), lambda x: np.repeat(x, 2, 1), (X,),
    ),
    "split": (lambda x: x.split(3, 2), lambda x: (x[..., :3], x[..., 3:]), (X,)),
    "chunk": (lambda x: x.chunk(2, -1), lambda x: (x[..., :2], x[..., 2:]), (X,)),
    "unbind": (lambda x: x.unbind(1), lambda x: tuple(x.swapaxes(0, 1)), (X,)),
    "narrow": (lambda x: x.narrow(2, 1, 2), lambda x: x[..., 1:3], (X,)),
    "select": (lambda x: x.select(1, -1), lambda x: x[:, -1], (X,)),
    "unfold": (
        lambda x: x.unfold(2, 2, 1),
        lambda x: np.lib.stride_tricks.sliding_window_view(x, 2, 2), (X,),
    ),
    "flip": (lambda x: x.flip(0, 2), lambda x: np.flip(x, (0, 2)), (X,)),
    "roll": (lambda x: x.roll((1, -2), (1, 2)), lambda x: np.roll(x, (1, -2), (1, 2)), (X,)),
    "roll of all": (lambda x: x.roll(5), lambda x: np.roll(x, 5), (X,)),
    "tril": (lambda x: x.tril(-1), lambda x: np.tril(x, -1), (X,)),
    "triu": (lambda x: x.triu(1), lambda x: np.triu(x, 1), (X,)),
    "diagonal": (
        lambda x: x.diagonal(1, 2, 1), lambda x: np.diagonal(x, 1, 2, 1), (X,),
    ),
    "gather": (lambda x, i: x.gather(1, i), lambda x, i: np.take_along_axis(x, i, 1), (X, ALONG)),
    "index_select": (lambda x, i: x.index_select(1, i), lambda x, i: x[:, i], (X, PLACES)),
    "[tensor]": (lambda x, i: x[:, i, 1:], lambda x, i: x[:, i, 1:], (X, PLACES)),
    "[None, 1, tensor]": (
        lambda x, i: x[None, 1, ..., i], lambda x, i: x[1][:, i][None], (X, PLACES),
    ),
    "[list]": (lambda x: x[..., [3, 0]], lambda x: x[..., [3, 0]], (X,)),
    "[rows, classes]": (
        lambda x, i, j: x[i, j], lambda x, i, j: x[i, j],
        (X[0], np.array([0, 1, 2]), PLACES),
    ),
    "[:, rows, columns]": (
        lambda x, i, j: x[:, i, j], lambda x, i, j: x[:, i, j],
        (X, np.array([[0], [2]]), PLACES),
    ),
    "scatter": (lambda x, i, y: x.scatter(1, i, y), scattered, (X, ALONG, Y[:, :1])),
    "index_add": (
        lambda x, i, y: x.index_add(1, i, y),
        lambda x, i, y: x + np.stack([y[:, 1], 0 * y[:, 1], y[:, 0] + y[:, 2]], 1),
        (X, PLACES, Y),
    ),
    "bmm": (lambda x, y: x.bmm(y), np.matmul, (X, Y.swapaxes(1, 2).copy())),
    "mv": (lambda x, y: x.mv(y), np.matmul, (X[0], Y[0, 0])),
    "dot": (lambda x, y: x.dot(y), np.dot, (X[0, 0], Y[0, 0])),
    "long": (lambda x: (x * 3).long(), lambda x: (x * 3).astype("l"), (X,)),
    "bool": (lambda x: x.bool(), lambda x: x != 0, (NUMBERS,)),
    "double": (lambda x: x.double(), lambda x: x.astype("d"), (X,)),
    "type_as": (lambda x, y: x.type_as(y), lambda x, y: x.astype("f"), (NUMBERS, X)),
}  # fmt: skip


def each(results: Any) -> list[Array]:
    return [np.asarray(y) for y in (results if isinstance(results, tuple) else (results,))]


def by_quern(method: Method, arrays: tuple[Array, ...]) -> list[Array]:
    graph = qn.trace(lambda *xs: method(*xs), *map(qn.spec, arrays))
    return each(qn.interpret(graph, *arrays))


@pytest.mark.parametrize("name", CASES)
def test_methods_mean_what_numpy_means(name: str) -> None:
    ours, by_numpy, arrays = CASES[name]
    found, expected = by_quern(ours, arrays), each(by_numpy(*arrays))
    assert len(found) == len(expected)
    for y, z in zip(found, expected, strict=True):
        assert y.dtype.kind == z.dtype.kind
        np.testing.assert_allclose(y, z, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_methods_mean_what_pytorch_means(name: str) -> None:
    torch = pytest.importorskip("torch")
    method, _, arrays = CASES[name]
    found = by_quern(method, arrays)
    results = method(*map(torch.from_numpy, arrays))
    expected = each(results if isinstance(results, torch.Tensor) else tuple(results))
    for y, z in zip(found, expected, strict=True):
        assert y.dtype == z.dtype
        np.testing.assert_allclose(y, z, rtol=1e-5, atol=1e-6)


def test_methods_compile_and_train() -> None:
    def loss(x: Any) -> Any:
        return (x.softmax(-1).cumsum(1).flip(2).roll(1, 1).norm(3, 2) * x.sin()[..., 0]).sum()

    graph = qn.trace(loss, qn.spec(X))
    np.testing.assert_allclose(qn.compile(graph)(X), qn.interpret(graph, X), rtol=1e-5)
    qn.check_gradients(graph)


def refused(method: Method, *arrays: Array) -> str:
    with pytest.raises(QuernError) as error:
        qn.trace(lambda *xs: method(*xs), *map(qn.spec, arrays))
    return str(error.value)


def test_what_depends_on_data_is_refused_with_a_way_out() -> None:
    assert "where(mask, a, b)" in refused(lambda x: x[x > 0], X)
    assert "not known before the network runs" in refused(lambda x: x * x.sum().item(), X)
    assert "use where" in refused(lambda x: x if x.sum() > 0 else -x, X)


def test_clashing_numbers_are_told() -> None:
    assert "256 is no uint8" in refused(lambda x: x < 256, PLACES.astype(np.uint8))
    assert "-inf is no int64" in refused(lambda x: x.masked_fill(x > 0, -math.inf), NUMBERS)
    assert "index 3 leaves axis 1" in refused(lambda x: x[:, 3], X)
    assert "at most one Ellipsis" in refused(lambda x: x[..., 0, ...], X)
    assert "4 indices" in refused(lambda x: x[0, 0, 0, 0], X)
    assert "neighbours" in refused(lambda x, i: x[i, :, i], X, PLACES % 2)
    assert "leave axis 2" in refused(lambda x: x.narrow(2, 3, 2), X)
    assert "no windows of 5" in refused(lambda x: x.unfold(2, 5, 1), X)
    assert "expand takes 3 extents or more" in refused(lambda x: x.expand(2, 3), X)
    assert "repeat takes 3 numbers or more" in refused(lambda x: x.repeat(2), X)


def test_errors_have_their_kinds() -> None:
    with pytest.raises(UsageError):
        qn.trace(lambda x: x.item(), qn.spec(X))
    with pytest.raises(ShapeError):
        qn.trace(lambda x: x[x > 0], qn.spec(X))
