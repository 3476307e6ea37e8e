"""Functions and methods of tensors by NumPy's and PyTorch's words, each against both."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import pytest
from op_cases import spread

import quern as qn
from quern.compiler.errors import QuernError

X = spread((3, 4)).astype(np.float32)
Y = spread((3, 4), seed=1).astype(np.float32)
V, W = X[0], Y[1]
P = (np.abs(X) / 3).astype(np.float32)
K = np.array([[2, 0, 2, 3], [1, 1, 0, 5], [7, 2, 2, 2]])
TIES = np.array([[1, 3, 3, 2, 3], [2, 1, 2, 1, 2]], np.float32)
ODD = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 2.5, -1.5], np.float32)
BATCH = spread((2, 3, 4), seed=2).astype(np.float32)
SQUARE = spread((4, 4), seed=3).astype(np.float32)


@dataclass(frozen=True)
class Word:
    """A function of several names: what it is given, and NumPy's answer.

    Arguments:
        name: in quern and in torch.
        given: its arguments; arrays are tensors of the network.
        expected: by NumPy alone, from the same.
        options: arguments by name.
        slope: whether its gradients are compared with PyTorch's, too.
    """

    name: str
    given: tuple[Any, ...]
    expected: Callable[..., Any]
    options: tuple[tuple[str, Any], ...] = ()
    slope: bool = True

    def __str__(self) -> str:
        return "-".join([self.name, *(f"{k}={v}" for k, v in self.options)]).replace(" ", "")


def word(name: str, expected: Callable[..., Any], *given: Any, **options: Any) -> Word:
    slope = options.pop("slope", True)
    return Word(name, given, expected, tuple(options.items()), slope)


def places(index: Any, source: Any) -> Any:
    found = X.copy()
    found[:, index] = source
    return found


def bins(x: Any, n: int, low: float, high: float) -> Any:
    return np.histogram(x, n, (low, high))[0].astype(np.float32)


def joined(x: Any, dim: int, index: Any, src: Any, how: Any, include_self: bool = True) -> Any:
    """Element by element, along axis 1."""
    found = x.copy()
    for i in range(x.shape[0]):
        for place in range(x.shape[1]):
            hits = [src[i, j] for j in range(index.shape[1]) if index[i, j] == place]
            if hits:
                found[i, place] = how([x[i, place], *hits] if include_self else hits)
    return found


def latest(x: Any, best: Any) -> Any:
    """Where the running extremum along axis 1 stands."""
    running = best.accumulate(x, 1)
    own = np.where(x == running, np.arange(x.shape[1]), 0)
    return running, np.maximum.accumulate(own, 1)


WORDS = [
    # element by element
    word("atan2", np.arctan2, X, Y),
    word("atan2", np.arctan2, ODD, ODD[::-1].copy(), slope=False),
    word("copysign", np.copysign, X, Y),
    word("copysign", np.copysign, ODD[:4], np.array([-0.0, 0.0, -1.0, 2.0], np.float32)),
    word("fmod", np.fmod, X, Y, slope=False),
    word("fmod", np.fmod, 3 * X, 0.7),
    word("fmax", np.fmax, ODD, ODD[::-1].copy(), slope=False),
    word("fmin", np.fmin, ODD, ODD[::-1].copy(), slope=False),
    word("fmax", np.fmax, X, Y),
    word("heaviside", np.heaviside, ODD[:4], np.full(4, 0.5, np.float32), slope=False),
    word("hypot", np.hypot, X, Y),
    word("hypot", np.hypot, np.float32([3e30, 0, np.inf]), np.float32([4e30, 0, 1]), slope=False),
    word("isclose", np.isclose, X, (X + 1e-6).astype(np.float32)),
    word("isclose", lambda a, b, **_: np.isclose(a, b, equal_nan=True), ODD, ODD, equal_nan=True),
    word("isclose", np.isclose, ODD, np.full(7, np.inf, np.float32)),
    word("allclose", np.allclose, X, X),
    word("allclose", np.allclose, X, Y),
    word("logaddexp", np.logaddexp, 50 * X, 50 * Y),
    word("logaddexp2", np.logaddexp2, X, Y),
    word("logaddexp", np.logaddexp, ODD, ODD[::-1].copy(), slope=False),
    word("xlogy", lambda x, y: np.where(x == 0, 0, x * np.log(np.where(x == 0, 1, y))), X, P),
    word(
        "xlogy", lambda x, y: np.zeros(2), np.zeros(2, np.float32), np.float32([0, 2]), slope=False
    ),
    word("deg2rad", np.deg2rad, 90 * X),
    word("rad2deg", np.rad2deg, X),
    word("exp2", np.exp2, X),
    word("frac", lambda x: x - np.trunc(x), X),
    word("isneginf", np.isneginf, ODD),
    word("isposinf", np.isposinf, ODD),
    word("logit", lambda x: np.log(x / (1 - x)), P),
    word(
        "logit",
        lambda x, eps: np.log(np.clip(x, eps, 1 - eps) / (1 - np.clip(x, eps, 1 - eps))),
        P,
        eps=0.2,
    ),
    word("signbit", np.signbit, ODD[:4]),
    word("sinc", np.sinc, X),
    word("sinc", np.sinc, np.zeros(1, np.float32)),
    word("fix", np.fix, X),
    word("true_divide", np.true_divide, X, Y),
    # along axes
    word("aminmax", lambda x, dim: (x.min(dim), x.max(dim)), X, dim=1),
    word("cummax", lambda x, dim: latest(x, np.maximum), TIES, dim=1),
    word("cummin", lambda x, dim: latest(x, np.minimum), TIES, dim=1),
    word("cummax", lambda x, dim: latest(x, np.maximum), K, dim=1),
    word("logcumsumexp", lambda x, dim: np.log(np.cumsum(np.exp(x), dim)), X, dim=1),
    word("diff", np.diff, X),
    word("diff", lambda x, n, dim: np.diff(x, n, dim), X, n=2, dim=0),
    word("kthvalue", lambda x, k: (np.sort(x)[:, k - 1], np.argsort(x)[:, k - 1]), X, 2),
    word("median", lambda x, dim: (np.sort(x)[:, 1], np.argsort(x)[:, 1]), X, dim=1),
    word("median", lambda x: np.median(ODD), ODD, slope=False),
    word(
        "median",
        lambda x, dim: (ODD[[5, 4]], [0, 1]),
        ODD[[[5, 6, 2], [1, 4, 5]]],
        dim=1,
        slope=False,
    ),
    word("msort", lambda x: np.sort(x, 0), X),
    word("quantile", np.quantile, X, 0.3),
    word("quantile", lambda x, q, dim: np.quantile(x, q, dim), X, [0.1, 0.5, 1.0], dim=1),
    word(
        "quantile",
        lambda x, q, dim, keepdim: np.quantile(x, q, dim, keepdims=True),
        X,
        [0.25, 0.5],
        dim=0,
        keepdim=True,
    ),
    *(
        word(
            "quantile",
            lambda x, q, interpolation: np.quantile(x, q, method=interpolation),
            X,
            0.3,
            interpolation=how,
        )
        for how in ("lower", "higher", "midpoint", "nearest")
    ),
    word("bincount", lambda x, minlength: np.bincount(x, minlength=8), K.reshape(-1), minlength=8),
    word(
        "bincount",
        lambda x, w, minlength: np.bincount(x, w, minlength=8),
        K.reshape(-1),
        P.reshape(-1),
        minlength=8,
        slope=False,
    ),
    word("histc", bins, X, 5, -1.5, 1.5, slope=False),
    word("histc", lambda x, bins: np.histogram(x, 4)[0], X, bins=4, slope=False),
    word("searchsorted", np.searchsorted, np.float32([1, 2, 2, 3]), np.float32([[0, 2], [3, 4]])),
    word("searchsorted", np.searchsorted, np.float32([1, 2]), np.float32([np.inf, np.nan])),
    word(
        "searchsorted",
        lambda a, v, right: np.stack(
            [np.searchsorted(r, x, "right") for r, x in zip(a, v, strict=True)]
        ),
        np.sort(X),
        Y,
        right=True,
    ),
    word("bucketize", lambda x, b: np.searchsorted(b, x), X, np.float32([-1, 0, 1])),
    word("isin", np.isin, K, np.array([2, 5])),
    word("nansum", np.nansum, np.where(X > 1, np.nan, X).astype(np.float32)),
    word(
        "nanmean",
        lambda x, dim: np.nanmean(x, dim),
        np.where(X > 1.5, np.nan, X).astype(np.float32),
        dim=1,
    ),
    word("std_mean", lambda x, dim: (x.std(dim, ddof=1), x.mean(dim)), X, dim=1),
    word("var_mean", lambda x, dim: (x.var(dim, ddof=1), x.mean(dim)), X, dim=1),
    word("cov", np.cov, X),
    word("cov", lambda x, correction: np.cov(x, ddof=correction), V, correction=0),
    word("cov", np.cov, X[:1]),
    word("corrcoef", np.corrcoef, X, slope=False),
    word("corrcoef", np.corrcoef, X[:1], slope=False),
    # products
    word(
        "addmm",
        lambda a, b, c, beta, alpha: beta * a + alpha * b @ c,
        SQUARE[:3],
        X,
        SQUARE,
        beta=0.5,
        alpha=2,
    ),
    word("addmv", lambda a, b, c: a + b @ c, V[:3], X, W),
    word("baddbmm", lambda a, b, c: a + b @ c, BATCH[:, :, :3], BATCH, BATCH.transpose(0, 2, 1)),
    word("addbmm", lambda a, b, c: a + (b @ c).sum(0), X[:, :3], BATCH, BATCH.transpose(0, 2, 1)),
    word("addr", lambda a, b, c: a + np.outer(b, c), X, W[:3], V),
    word("outer", np.outer, V, W),
    word("inner", np.inner, X, Y),
    word("kron", np.kron, X, SQUARE[:2]),
    word("kron", np.kron, X, V),
    word(
        "tensordot",
        lambda a, b, dims: np.tensordot(a, b, ([1, 2], [0, 1])),
        BATCH,
        X,
        dims=([1, 2], [0, 1]),
    ),
    word("tensordot", lambda a, b, dims: np.tensordot(a, b, 1), BATCH, SQUARE, dims=1),
    word("cross", lambda a, b, dim: np.cross(a, b), SQUARE[:, :3], SQUARE[:, 1:], dim=-1),
    word("cross", lambda a, b, dim: np.cross(a, b, axis=0), X, Y, dim=0),
    word("cross", lambda a, b: np.cross(a, b, axis=0), SQUARE[:3, :3], SQUARE[1:, 1:]),
    word("matrix_power", np.linalg.matrix_power, SQUARE, 5),
    word("matrix_power", np.linalg.matrix_power, SQUARE, 0, slope=False),
    word("vdot", np.vdot, V, W),
    word("chain_matmul", lambda *ms: reduce(np.matmul, ms), X, SQUARE, Y.T.copy()),
    # distances
    word("cdist", lambda a, b: np.linalg.norm(a[:, None] - b, axis=-1), X, SQUARE),
    word("cdist", lambda a, b, p: np.abs(a[:, None] - b).sum(-1), X, SQUARE, p=1.0),
    word("cdist", lambda a, b, p: (np.abs(a[:, None] - b) ** 3).sum(-1) ** (1 / 3), X, Y, p=3.0),
    word("cdist", lambda a, b: np.linalg.norm(a[:, None] - b, axis=-1), X, X),
    word("pdist", lambda a: np.linalg.norm(a[:, None] - a, axis=-1)[np.triu_indices(3, 1)], X),
    word("dist", lambda a, b, p: np.abs(a - b).max(), X, Y, p=math.inf),
    word("norm", lambda x: np.linalg.norm(x), np.zeros((2, 3), np.float32)),
    # shapes and places
    word("diag", np.diag, V),
    word("diag", np.diag, X, 1),
    word("diagflat", np.diagflat, X[:2, :2].copy(), -1),
    word("diag_embed", lambda x: np.stack([np.diag(r) for r in x]), X),
    word("fliplr", np.fliplr, X),
    word("flipud", np.flipud, X),
    word("rot90", np.rot90, X),
    *(
        word("rot90", lambda x, k, dims: np.rot90(x, k, dims), BATCH, k, dims=(1, 2))
        for k in (-1, 2, 4)
    ),
    word("ravel", np.ravel, X),
    word("tensor_split", lambda x, n, dim: tuple(np.array_split(x, n, dim)), X, 3, dim=1),
    word("tensor_split", lambda x, n: tuple(np.array_split(x, n)), BATCH.reshape(6, 4), [1, 4]),
    word("hsplit", lambda x, n: tuple(np.hsplit(x, n)), X, 2),
    word("vsplit", lambda x, n: tuple(np.vsplit(x, n)), SQUARE, [1]),
    word("take", np.take, X, np.array([[0, 5], [11, 5]])),
    word("take_along_dim", lambda x, i, dim: np.take_along_axis(x, i, dim), X, K[:, :2] % 4, dim=1),
    word("take_along_dim", lambda x, i: np.take(x, i), X, np.array([3, 11])),
    word("index_fill", lambda x, d, i, v: places(i, v), X, 1, np.array([3, 0]), 7.0),
    word("index_fill", lambda x, d, i, v: np.arange(4) < 2, V.max() < V, 0, np.arange(2), True),
    word("index_copy", lambda x, d, i, s: places(i, s), X, 1, np.array([3, 0]), Y[:, :2]),
    word("select_scatter", lambda x, s, dim, index: places(2, s), X, V[:3], dim=1, index=2),
    word(
        "slice_scatter",
        lambda x, s, **_: places(slice(1, 4, 2), s),
        X,
        Y[:, :2],
        dim=1,
        start=1,
        end=4,
        step=2,
    ),
    *(
        word(
            "scatter_reduce",
            lambda x, d, i, s, r, f=f, include_self=True: joined(x, d, i, s, f, include_self),
            X,
            1,
            K % 3,
            Y,
            r,
            slope=r == "sum",
            **options,
        )
        for options in ({}, {"include_self": False})
        for r, f in (
            ("sum", sum),
            ("prod", math.prod),
            ("mean", np.mean),
            ("amax", max),
            ("amin", min),
        )
    ),
    *(
        word(
            "scatter_reduce",
            lambda x, d, i, s, r, f=f: joined(x, d, i, s, f),
            x,
            1,
            K % 3,
            updates,
            "mean",
            slope=False,
        )
        for x, updates, f in (
            (np.where(np.arange(4) < 3, X, np.float32(np.inf)), Y, np.mean),
            (K, K[::-1] - 4, lambda values: sum(values) // len(values)),
        )
    ),
    # several tensors
    word("hstack", lambda *xs: np.hstack(xs), [X, Y]),
    word("hstack", lambda *xs: np.hstack(xs), [V, W]),
    word("vstack", lambda *xs: np.vstack(xs), [V, X]),
    word("dstack", lambda *xs: np.dstack(xs), [X, Y]),
    word("column_stack", lambda *xs: np.column_stack(xs), [V[:3], X]),
    word("atleast_2d", np.atleast_2d, V),
    word("atleast_3d", np.atleast_3d, X),
    word("broadcast_tensors", lambda *xs: tuple(np.broadcast_arrays(*xs)), V, X),
    word(
        "meshgrid",
        lambda *xs, indexing: tuple(np.meshgrid(*xs, indexing="ij")),
        V,
        W[:3],
        indexing="ij",
    ),
    word("meshgrid", lambda *xs, indexing: tuple(np.meshgrid(*xs)), V, W[:3], indexing="xy"),
    word("cartesian_prod", lambda a, b: np.array([(x, y) for x in a for y in b]), V, W[:2]),
    word("combinations", lambda x: x[np.stack(np.triu_indices(4, 1), 1)], V),
    word(
        "block_diag",
        lambda a, b: np.block([[a, np.zeros((3, 1))], [np.zeros((1, 4)), b]]),
        X,
        X[:1, :1],
    ),
]


def flat(result: Any) -> list[Any]:
    return list(result) if isinstance(result, tuple) else [result]


def arrays_of(given: tuple[Any, ...]) -> list[Any]:
    listed = [a for g in given for a in (g if isinstance(g, list) else [g])]
    return [a for a in listed if isinstance(a, np.ndarray)]


def call(function: Any, given: tuple[Any, ...], tensors: Any, options: Any) -> Any:
    """The function with tensors in place of its arrays, in their order."""
    rest = iter(tensors)

    def put(g: Any) -> Any:
        if isinstance(g, list) and isinstance(g[0], np.ndarray):
            return [next(rest) for _ in g]
        return next(rest) if isinstance(g, np.ndarray) else g

    return function(*(put(g) for g in given), **dict(options))


@pytest.mark.parametrize("case", WORDS, ids=str)
def test_each_is_numpys(case: Word) -> None:
    function, arrays = getattr(qn, case.name), arrays_of(case.given)
    given = arrays if isinstance(case.given[0], list) else case.given
    with np.errstate(all="ignore"):
        expected = flat(case.expected(*given, **dict(case.options)))
    graph = qn.trace(lambda *ts: call(function, case.given, ts, case.options), *arrays)
    found = flat(qn.interpret(graph, *arrays))
    for y, e in zip(found, expected, strict=True):
        assert y.shape == np.shape(e)
        np.testing.assert_allclose(y, e, rtol=2e-5, atol=2e-6)
    eager = flat(call(function, case.given, arrays, case.options))
    for y, e in zip(eager, found, strict=True):
        np.testing.assert_array_equal(y, e)


@pytest.mark.parametrize("case", WORDS, ids=str)
def test_each_is_pytorchs(case: Word) -> None:
    torch = pytest.importorskip("torch")
    arrays = arrays_of(case.given)
    there = [torch.tensor(a, requires_grad=case.slope and a.dtype.kind == "f") for a in arrays]
    others = {"chain_matmul": lambda *ts: torch.linalg.multi_dot(ts)}
    others["quantile"] = lambda x, q, **options: torch.quantile(x, torch.tensor(q), **options)
    others["allclose"] = lambda a, b: torch.tensor(torch.allclose(a, b))
    others["cross"] = lambda a, b, dim=0: torch.cross(a, b, dim=dim)  # warns without a dim
    theirs = others.get(case.name) or getattr(torch, case.name)
    expected = flat(tuple_of(call(theirs, case.given, there, case.options)))
    ours = getattr(qn, case.name)

    def network(*tensors: Any) -> Any:
        results = flat(tuple_of(call(ours, case.given, tensors, case.options)))
        floats = [y for y in results if y.dtype.is_float]
        wrt = [t for t in tensors if t.dtype.is_float]
        if not case.slope or not floats or not wrt:
            return tuple(results)
        loss = sum((y * y.cos()).sum() for y in floats)
        slopes = qn.autograd.grad(loss, wrt, allow_unused=True)
        return (*results, *(t * 0 if s is None else s for t, s in zip(wrt, slopes, strict=True)))

    found = flat(tuple_of(qn.interpret(qn.trace(network, *arrays), *arrays)))
    results, slopes = found[: len(expected)], found[len(expected) :]
    for y, e in zip(results, expected, strict=True):
        assert str(y.dtype) == str(e.dtype).removeprefix("torch.")
        np.testing.assert_allclose(y, e.detach().numpy(), rtol=2e-5, atol=2e-6)
    floats = [y for y in expected if y.is_floating_point() and y.requires_grad]
    if slopes and floats:
        sum((y * y.cos()).sum() for y in floats).backward()
        by = [t.grad for t in there if t.is_floating_point()]
        for slope, wanted in zip(slopes, by, strict=True):
            wanted = np.zeros_like(slope) if wanted is None else wanted.numpy()
            np.testing.assert_allclose(slope, wanted, rtol=1e-4, atol=1e-5)


def tuple_of(result: Any) -> Any:
    return tuple(result) if isinstance(result, tuple | list) else result


def test_what_shapes_depend_on_is_refused() -> None:
    with pytest.raises(QuernError, match="minlength, the number of classes"):
        qn.bincount(K.reshape(-1))
    with pytest.raises(AttributeError, match=r"autograd\.grad"):
        qn.trace(lambda x: x.register_hook(print), qn.spec(3))


def test_new_ones_are_of_the_same_type() -> None:
    def network(x: Any) -> Any:
        empty = x.new_empty(3) * 0
        filled = x.new_zeros(2, 3), x.new_ones((2,)), x.new_full((1, 2), 3), x.new_tensor([1, 2])
        return empty, *filled

    found = qn.compile(network, qn.spec(1, dtype="int64"))(np.zeros(1, np.int64))
    for y, e in zip(found, ([0] * 3, [[0] * 3] * 2, [1, 1], [[3, 3]], [1, 2]), strict=True):
        assert y.dtype == np.int64
        np.testing.assert_array_equal(y, e)


def test_drawn_classes_are_as_likely_as_their_weights() -> None:
    qn.manual_seed(0)
    weights = np.tile(np.float32([1, 0, 3]), (4000, 1))
    for replacement in (True, False):
        drawn = qn.multinomial(weights, 2, replacement)
        assert drawn.shape == (4000, 2)
        share = [(drawn[:, 0] == c).mean() for c in range(3)]
        np.testing.assert_allclose(share, [0.25, 0, 0.75], atol=0.03)
        assert replacement == (drawn[:, 0] == drawn[:, 1]).any()

    def network(p: Any) -> Any:
        return qn.multinomial(p, 1), qn.randperm(50), qn.normal(p * 0 + 5, 2.0)

    run = qn.compile(network, qn.spec(weights))
    drawn, order, normal = run(weights)
    assert (drawn != 1).all()
    np.testing.assert_array_equal(np.sort(order), np.arange(50))
    assert abs(normal.mean() - 5) < 0.1 < 1.9 < normal.std() < 2.1
    assert (run(weights)[0] != drawn).any()
    np.testing.assert_array_equal(np.sort(qn.randperm(9)), np.arange(9))
    assert set(np.unique(qn.randint_like(np.zeros(99), 3, 5))) == {3, 4}
    assert qn.normal(0.0, 1.0, (2, 3)).shape == (2, 3)
    np.testing.assert_allclose(qn.logspace(0, 2, 3), [1, 10, 100])
    np.testing.assert_array_equal(qn.tril_indices(2, 3), np.tril_indices(2, 0, 3))
