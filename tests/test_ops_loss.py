"""Losses: formulas by NumPy, PyTorch where it is installed, gradients, huge logits, bad targets."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gradcheck import run_gradients, type_of
from op_cases import cases, positive, spread, value_of

from quern.compiler.errors import DTypeError, ShapeError
from quern.compiler.ops import indexing, loss
from quern.compiler.ops.base import Op, apply
from quern.compiler.ops.composite import expansion
from quern.compiler.passes.expand import Expand
from quern.compiler.types import Array

R = loss.Reduction
X = spread((3, 4))
T = spread((3, 4), seed=1, low=0.35, high=2.1)
MAPS = spread((2, 3, 2), seed=2)  # (N, C, pixels)
CLASSES = np.array([2, 0, 3])
SEVERAL = np.array([[2, 0, -1, 1], [-1, 0, 1, 2], [3, 1, 0, 2]])
PIXELS = np.array([[2, 0], [-100, 1]])
WEIGHTS = np.array([0.5, 1.0, 2.0, 3.0])
P = positive((3, 4), low=0.1, high=0.9)
Q = positive((3, 4), seed=1, low=0.1, high=0.9)
SIGNS = np.array([[1.0, -1, 1, 1], [-1, 1, -1, 1], [1, 1, -1, -1]])


def log_softmax(x: Array) -> Array:
    return np.asarray(x - np.log(np.exp(x).sum(1, keepdims=True)))


def negative_log_likelihood(
    log_p: Array, target: Array, weight: Array | None = None, ignored: int | None = -100
) -> tuple[Array, Array]:
    """The loss of each sample and its weight, in a loop."""
    losses, weights = np.zeros(target.shape), np.zeros(target.shape)
    for at in np.ndindex(*target.shape):
        c = int(target[at])
        if c != ignored:
            weights[at] = 1.0 if weight is None else weight[c]
            losses[at] = -weights[at] * log_p[(at[0], c, *at[1:])]
    return losses, weights


def mean_nll(log_p: Array, target: Array, weight: Array | None = None, **kw: Any) -> Any:
    losses, weights = negative_log_likelihood(log_p, target, weight, **kw)
    return losses.sum() / weights.sum()


def smoothed(x: Array, target: Array, weight: Array, smoothing: float) -> Any:
    log_p = log_softmax(x)
    hard, weights = negative_log_likelihood(log_p, target, weight)
    soft = -(log_p * weight).sum(1) / x.shape[1]
    return ((1 - smoothing) * hard + smoothing * soft).sum() / weights.sum()


def huber(d: Array, delta: float) -> Array:
    return np.where(np.abs(d) < delta, d * d / 2, delta * (np.abs(d) - delta / 2))


def entropy(x: Array, t: Array) -> Array:
    return -(t * np.log(x) + (1 - t) * np.log(1 - x))


def entropy_of_logits(x: Array, t: Array, w: Any = 1.0, pw: Any = 1.0) -> Array:
    s = 1 / (1 + np.exp(-x))
    return w * -(pw * t * np.log(s) + (1 - t) * np.log(1 - s))


def cosine(a: Array, b: Array, axis: int) -> Array:
    return (a * b).sum(axis) / np.sqrt((a * a).sum(axis) * (b * b).sum(axis))


def margins(x: Array, t: Array, p: int, margin: float, w: Any = None) -> Array:
    result = np.zeros(len(x))
    for n, c in enumerate(t):
        others = [i for i in range(x.shape[1]) if i != c]
        short = sum(max(0, margin - x[n, c] + x[n, i]) ** p for i in others)
        result[n] = short * (1 if w is None else w[c]) / x.shape[1]
    return result


def label_margin(x: Array, t: Array) -> Any:
    own = t[: int(np.argmax(np.append(t, -1) < 0))]
    others = [i for i in range(len(x)) if i not in own]
    return sum(max(0, 1 - x[c] + x[i]) for c in own for i in others) / len(x)


def embedded(a: Array, b: Array, y: Array, margin: float) -> Array:
    c = cosine(a, b, -1)
    return np.where(y == 1, 1 - c, np.maximum(0, c - margin))


COUNTS = np.arange(12.0).reshape(3, 4) + 0.5


def distance(a: Array, b: Array, p: float = 2, eps: float = 1e-6) -> Array:
    d: Array = (np.abs(a - b + eps) ** p).sum(-1) ** (1 / p)
    return d


CASES = [
    cases(loss.MeanSquaredError(), lambda x, t: ((x - t) ** 2).mean(), X, T),
    cases(loss.MeanSquaredError(R.SUM), lambda x, t: ((x - t) ** 2).sum(), X, T),
    cases(loss.MeanSquaredError(R.NONE), lambda x, t: (x - t) ** 2, X, T),
    cases(loss.MeanSquaredError(R.BATCH_MEAN), lambda x, t: ((x - t) ** 2).sum() / 3, X, T),
    cases(loss.HalfSquaredError(), lambda x, t: ((x - t) ** 2).sum() / 6, X, T),
    cases(loss.HalfSquaredError(R.NONE), lambda x, t: ((x - t) ** 2).sum((1, 2)) / 2, MAPS,
          MAPS[::-1] + 1),
    cases(loss.HalfSquaredError(R.SUM), lambda x, t: ((x - t) ** 2).sum() / 2, X[0], T[0]),
    cases(loss.L1(), lambda x, t: np.abs(x - t).mean(), X, T),
    cases(loss.Huber(delta=0.7), lambda x, t: huber(x - t, 0.7).mean(), X, T),
    cases(loss.SmoothL1(R.SUM), lambda x, t: huber(x - t, 1.0).sum(), X, T),
    cases(loss.SmoothL1(R.NONE, beta=0.3), lambda x, t: huber(x - t, 0.3) / 0.3, X, T),
    cases(loss.SmoothL1(beta=0.0), lambda x, t: np.abs(x - t).mean(), X, T),
    cases(loss.HingeLoss(), lambda x, t: np.maximum(0, 1 - x * t).mean(), X, SIGNS),
    cases(loss.BinaryCrossEntropy(), lambda x, t: entropy(x, t).mean(), P, Q),
    cases(
        loss.BinaryCrossEntropy(R.SUM), lambda x, t, w: (w * entropy(x, t)).sum(), P, Q, WEIGHTS,
        rounds=1,
    ),
    cases(loss.BinaryCrossEntropy(R.NONE), entropy, P, Q, rounds=1),
    cases(loss.BinaryCrossEntropyWithLogits(), lambda *a: entropy_of_logits(*a).mean(), X, Q),
    cases(
        loss.BinaryCrossEntropyWithLogits(R.NONE, weighted=True), entropy_of_logits, X, Q, WEIGHTS,
    ),
    cases(
        loss.BinaryCrossEntropyWithLogits(R.SUM, pos_weighted=True),
        lambda x, t, pw: entropy_of_logits(x, t, 1.0, pw).sum(), X, Q, WEIGHTS,
    ),
    cases(
        loss.BinaryCrossEntropyWithLogits(weighted=True, pos_weighted=True),
        lambda *a: entropy_of_logits(*a).mean(), X, Q, P[:, :1], WEIGHTS, rounds=1,
    ),
    cases(loss.KLDivergence(), lambda x, t: (t * (np.log(t) - x)).mean(), X, Q),
    cases(loss.KLDivergence(R.BATCH_MEAN), lambda x, t: (t * (np.log(t) - x)).sum() / 3, X, Q),
    cases(
        loss.KLDivergence(R.NONE, log_target=True), lambda x, t: np.exp(t) * (t - x), X, np.log(Q),
    ),
    cases(loss.NLLLoss(), mean_nll, log_softmax(X), CLASSES, constant=(1,)),
    cases(loss.NLLLoss(), mean_nll, MAPS, PIXELS, constant=(1,)),
    cases(loss.NLLLoss(), mean_nll, X, CLASSES.astype(np.int32), WEIGHTS, constant=(1, 2)),
    cases(
        loss.NLLLoss(R.NONE, ignore_index=0),
        lambda *a: negative_log_likelihood(*a, ignored=0)[0], X, CLASSES, WEIGHTS, constant=(1, 2),
    ),
    cases(loss.CrossEntropy(), lambda x, t: mean_nll(log_softmax(x), t), X, CLASSES,
          constant=(1,)),
    cases(
        loss.CrossEntropy(ignore_index=None), lambda x, t: mean_nll(log_softmax(x), t), X, CLASSES,
        constant=(1,),
    ),
    cases(loss.CrossEntropy(), lambda x, t: mean_nll(log_softmax(x), t), MAPS, PIXELS,
          constant=(1,)),
    cases(loss.CrossEntropy(R.SUM), lambda x, t: -log_softmax(x[None])[0, t], X[0],
          np.array(1), constant=(1,)),
    cases(
        loss.CrossEntropy(R.NONE), lambda x, t: negative_log_likelihood(log_softmax(x), t)[0],
        MAPS, PIXELS, constant=(1,),
    ),
    cases(
        loss.CrossEntropy(R.BATCH_MEAN, label_smoothing=0.3),
        lambda x, t: smoothed(x, t, np.ones(4), 0.3), X, CLASSES, constant=(1,),
    ),
    cases(
        loss.CrossEntropy(label_smoothing=0.2), lambda x, t, w: smoothed(x, t, w, 0.2),
        X, CLASSES, WEIGHTS, constant=(1, 2),
    ),
    cases(loss.CrossEntropy(), lambda x, t: -(t * log_softmax(x)).sum() / 3, X, Q),
    cases(
        loss.CrossEntropy(R.NONE, label_smoothing=0.2),
        lambda x, t, w: -((0.8 * t + 0.05) * w * log_softmax(x)).sum(1), X, Q, WEIGHTS,
        constant=(2,),
    ),
    cases(
        loss.MultiLabelMargin(R.NONE),
        lambda x, t: np.array([label_margin(*row) for row in zip(x, t, strict=True)]),
        X, SEVERAL,
    ),
    cases(loss.MultiMargin(), lambda x, t: margins(x, t, 1, 1.0).mean(), X, CLASSES,
          constant=(1,)),
    cases(
        loss.MultiMargin(R.SUM, power=2, margin=0.7),
        lambda x, t, w: margins(x, t, 2, 0.7, w).sum(), X, CLASSES, WEIGHTS, constant=(1, 2),
    ),
    cases(loss.CosineSimilarity(1), lambda a, b: cosine(a, b, 1), MAPS, MAPS[:1] + 0.5),
    cases(loss.CosineSimilarity(0), lambda a, b: cosine(a, b, 0), X[0], T[0]),
    cases(
        loss.CosineEmbeddingLoss(R.NONE, margin=-0.9), lambda a, b, y: embedded(a, b, y, -0.9),
        X, T, np.array([1, -1, -1]), constant=(2,),
    ),
    cases(
        loss.CosineEmbeddingLoss(), lambda a, b, y: embedded(a, b, y, 0.0).mean(), X, T,
        np.array([1.0, -1.0, 1.0]), constant=(2,),
    ),
    cases(loss.PairwiseDistance(), lambda a, b: distance(a, b), X, T),
    cases(loss.PairwiseDistance(3.0, 0.1, True), lambda a, b: distance(a, b, 3, 0.1)[:, None],
          X, T),
    cases(
        loss.MarginRanking(margin=0.4), lambda a, b, y: np.maximum(0, 0.4 - y * (a - b)).mean(),
        X, T, SIGNS, constant=(2,),
    ),
    cases(
        loss.TripletMargin(R.NONE, 0.8),
        lambda a, b, c: np.maximum(0, distance(a, b) - distance(a, c) + 0.8), X, T, X[::-1] + 1,
    ),
    cases(
        loss.TripletMargin(margin=3.0, p=3.0, swap=True),
        lambda a, b, c: np.maximum(
            0, distance(a, b, 3) - np.minimum(distance(a, c, 3), distance(b, c, 3)) + 3
        ).mean(), X, T, X[::-1] + 1,
    ),
    cases(
        loss.HingeEmbedding(R.SUM, 1.3),
        lambda x, y: np.where(y == 1, x, np.maximum(0, 1.3 - x)).sum(), X, SIGNS, constant=(1,),
    ),
    cases(loss.SoftMargin(), lambda x, y: np.log1p(np.exp(-y * x)).mean(), X, SIGNS),
    cases(loss.PoissonNLL(), lambda x, t: (np.exp(x) - t * x).mean(), X, T),
    cases(
        loss.PoissonNLL(R.SUM, log_input=False, full=True),
        lambda x, t: (
            x - t * np.log(x + 1e-8)
            + np.where(t > 1, t * np.log(t) - t + np.log(2 * np.pi * t) / 2, 0)
        ).sum(), P, COUNTS, constant=(1,),
    ),
    cases(
        loss.GaussianNLL(), lambda x, t, v: (np.log(v) + (x - t) ** 2 / v).mean() / 2,
        X, T, P + 0.1,
    ),
    cases(
        loss.GaussianNLL(R.NONE, full=True),
        lambda x, t, v: (np.log(2 * np.pi * v) + (x - t) ** 2 / v) / 2, X, T, P[:, :1] + 0.1,
    ),
]  # fmt: skip


def torch_functions(f: Any, reduction: loss.Reduction) -> list[tuple[Op, Callable[..., Any], Any]]:
    r = {"reduction": reduction.value}
    return [
        (loss.MeanSquaredError(reduction), lambda *a: f.mse_loss(*a, **r), (X, T)),
        (loss.L1(reduction), lambda *a: f.l1_loss(*a, **r), (X, X * (T > 0))),
        (loss.Huber(reduction, 0.7), lambda *a: f.huber_loss(*a, **r, delta=0.7), (X, T)),
        (loss.SmoothL1(reduction, 0.3), lambda *a: f.smooth_l1_loss(*a, **r, beta=0.3), (X, T)),
        (loss.BinaryCrossEntropy(reduction), lambda *a: f.binary_cross_entropy(*a, **r),
         (np.array([0.0, 0.0, 1.0, 1.0, 0.3]), np.array([0.0, 1.0, 0.0, 1.0, 0.6]))),
        (loss.BinaryCrossEntropyWithLogits(reduction, False, True),
         lambda x, t, w: f.binary_cross_entropy_with_logits(x, t, pos_weight=w.detach(), **r),
         (X * 50, Q, WEIGHTS)),
        (loss.KLDivergence(reduction), lambda *a: f.kl_div(*a, **r), (X, Q * (T > 0))),
        (loss.KLDivergence(reduction, True), lambda *a: f.kl_div(*a, **r, log_target=True), (X, T)),
        (loss.NLLLoss(reduction), lambda *a: f.nll_loss(*a, **r), (MAPS, PIXELS)),
        (loss.CrossEntropy(reduction), lambda *a: f.cross_entropy(*a, **r), (MAPS, PIXELS)),
        (loss.CrossEntropy(reduction, 0, 0.3),
         lambda x, t, w: f.cross_entropy(x, t, w.detach(), None, 0, label_smoothing=0.3, **r),
         (X, CLASSES, WEIGHTS)),
        (loss.CrossEntropy(reduction, label_smoothing=0.3),
         lambda x, t, w: f.cross_entropy(x, t, w.detach(), label_smoothing=0.3, **r),
         (X, Q, WEIGHTS)),
        (loss.MultiMargin(reduction, power=2),
         lambda x, t, w: f.multi_margin_loss(x, t, 2, weight=w.detach(), **r),
         (X, CLASSES, WEIGHTS)),
        (loss.TripletMargin(reduction, 2.0, 3.0, swap=True),
         lambda *a: f.triplet_margin_loss(*a, 2.0, 3.0, swap=True, **r), (X, T, X[::-1] + 1)),
        (loss.MarginRanking(reduction, 0.3),
         lambda *a: f.margin_ranking_loss(*a, 0.3, **r), (X, T, SIGNS)),
        (loss.HingeEmbedding(reduction, 0.7),
         lambda *a: f.hinge_embedding_loss(*a, 0.7, **r), (X, SIGNS)),
        (loss.SoftMargin(reduction), lambda x, t: f.soft_margin_loss(x, t.detach(), **r),
         (X, SIGNS)),
        (loss.PoissonNLL(reduction, False, True),
         lambda x, t: f.poisson_nll_loss(x, t.detach(), False, True, **r), (P, 4 * Q)),
        (loss.GaussianNLL(reduction, True),
         lambda *a: f.gaussian_nll_loss(*a, full=True, **r), (X, T, P * 1e-5)),
        (loss.CosineEmbeddingLoss(reduction, 0.2),
         lambda *a: f.cosine_embedding_loss(*a, margin=0.2, **r), (X, T, np.array([1, -1, -1]))),
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
@pytest.mark.parametrize("reduction", [R.MEAN, R.SUM, R.NONE], ids=str)
def test_values_and_gradients_are_pytorch_s(reduction: loss.Reduction) -> None:
    torch = pytest.importorskip("torch")
    for op, function, inputs in torch_functions(torch.nn.functional, reduction):
        tensors = [torch.tensor(x, requires_grad=x.dtype == float) for x in inputs]
        y = function(*tensors)
        signal = np.random.default_rng(0).standard_normal(y.shape)
        y.backward(torch.tensor(signal))
        np.testing.assert_allclose(
            value_of(op, *inputs), y.detach().numpy(), rtol=1e-9, atol=1e-12, err_msg=str(op)
        )
        (dx, *_) = run_gradients(lambda t, *rest, op=op: apply(op, t, *rest), signal, *inputs)
        np.testing.assert_allclose(
            dx, tensors[0].grad.numpy(), rtol=1e-8, atol=1e-12, err_msg=str(op)
        )


def test_huge_logits_give_exact_losses_and_gradients() -> None:
    x = np.array([[1e4, 0.0, -1e4], [-3e38, 0.0, 3e38]], np.float32)
    target = np.array([2, 2])
    op = loss.CrossEntropy(R.NONE)
    np.testing.assert_array_equal(value_of(op, x, target), np.array([2e4, 0.0], np.float32))
    (dx,) = run_gradients(
        lambda t: apply(op, t, t.graph.constant(target)), np.ones(2, np.float32), x
    )
    np.testing.assert_array_equal(dx, [[1, 0, -1], [0, 0, 0]])
    op = loss.BinaryCrossEntropyWithLogits(R.NONE)
    ends = np.array([1e30, -1e30, 1e30, -1e30], np.float32)
    classes = np.array([1, 0, 0, 1], np.float32)
    np.testing.assert_array_equal(
        value_of(op, ends, classes), np.array([0, 0, 1e30, 1e30], np.float32)
    )


def test_a_class_of_probability_zero_costs_infinitely_much_and_others_nothing() -> None:
    x = np.array([[-math.inf, 0.0], [-math.inf, 0.0]])
    y = value_of(loss.CrossEntropy(R.NONE), x, np.array([0, 1]))
    np.testing.assert_array_equal(y, [math.inf, 0])


@pytest.mark.parametrize("target", [-1, 4, 99, -(2**40)])
@pytest.mark.parametrize("op", [loss.CrossEntropy(), loss.NLLLoss(), loss.MultiMargin()], ids=str)
def test_a_target_that_is_no_class_gives_nan(op: Op, target: int) -> None:
    assert math.isnan(value_of(op, X, np.array([0, target, 1])))


def test_ignored_samples_count_for_nothing() -> None:
    op = loss.CrossEntropy(ignore_index=1)
    target = np.array([1, 0, 1])
    expected = value_of(op, X[1:2], target[1:2])
    np.testing.assert_allclose(value_of(op, X, target), expected)
    (dx,) = run_gradients(lambda t: apply(op, t, t.graph.constant(target)), np.ones(()), X)
    assert dx is not None
    np.testing.assert_array_equal(dx[[0, 2]], 0)
    assert math.isnan(value_of(op, X, np.array([1, 1, 1])))


def test_cosine_of_a_zero_vector_is_zero_with_finite_gradient() -> None:
    zero = np.zeros((1, 4))
    assert value_of(loss.CosineSimilarity(), zero, X[:1]) == 0
    found = run_gradients(
        lambda a, b: apply(loss.CosineSimilarity(), a, b), np.ones(1), zero, X[:1]
    )
    assert all(np.all(np.isfinite(g)) for g in found if g is not None)


def test_cross_entropy_gathers_nothing() -> None:
    graph = expansion(loss.CrossEntropy(), (type_of(X), type_of(CLASSES)))
    assert not [n for n in Expand().apply(graph).nodes() if isinstance(n.op, indexing.Indexed)]


WRONG: list[tuple[Op, tuple[Array, ...], type[Exception], str]] = [
    (loss.MeanSquaredError(), (X, T[:, :1]), ShapeError, "one shape"),
    (loss.MeanSquaredError(), (X, T.astype(int)), DTypeError, "takes floats"),
    (loss.CrossEntropy(), (X, CLASSES[:2]), ShapeError, r"classes of \(3,\), got int64\[2\]"),
    (loss.CrossEntropy(), (X, CLASSES.astype(np.uint8)), DTypeError, "int32 or int64"),
    (loss.CrossEntropy(), (X, T[:, :2]), ShapeError, "one shape"),
    (loss.CrossEntropy(), (X, CLASSES, WEIGHTS[:2]), ShapeError, "takes 4 weights"),
    (loss.CrossEntropy(label_smoothing=1.5), (X, CLASSES), ShapeError, "label_smoothing"),
    (loss.NLLLoss(), (X, T), DTypeError, "int32 or int64"),
    (loss.BinaryCrossEntropyWithLogits(), (X, Q, WEIGHTS), ShapeError, "got 1 weights"),
    (loss.BinaryCrossEntropy(), (P[0], Q[0], P), ShapeError, "does not broadcast"),
    (loss.Huber(delta=0.0), (X, T), ShapeError, "positive"),
    (loss.SmoothL1(beta=-1.0), (X, T), ShapeError, "not negative"),
    (loss.MultiMargin(power=3), (X, CLASSES), ShapeError, "1 or 2"),
    (loss.CosineSimilarity(2), (X, T), ShapeError, "no axis 2"),
    (loss.TripletMargin(), (X, T, T[:2]), ShapeError, "one shape"),
    (loss.MarginRanking(), (X, T, SIGNS[:1]), ShapeError, "one shape"),
    (loss.GaussianNLL(), (X, T, P[:, :2]), ShapeError, "takes no variances"),
    (loss.CosineEmbeddingLoss(), (X, T, SIGNS), ShapeError, r"targets of \(3,\)"),
]


@pytest.mark.parametrize(("op", "inputs", "kind", "message"), WRONG)
def test_what_does_not_fit_is_refused(
    op: Op, inputs: tuple[Array, ...], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        value_of(op, *inputs)
