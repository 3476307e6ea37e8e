"""Bags of embeddings, adaptive softmax, noise that keeps mean and variance, triplets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import quern as qn
from quern import nn
from quern.compiler.errors import QuernError, ShapeError, UsageError
from quern.nn import functional as F

RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((7, 3)).astype(np.float32)
WORDS = np.array([4, 0, 1, 1, 6, 2])
BEGINS = np.array([0, 2, 2, 5])


@pytest.mark.parametrize(("mode", "join"), [("sum", np.sum), ("mean", np.mean), ("max", np.max)])
def test_bags_of_several_sizes(mode: str, join: Any) -> None:
    bags = np.split(WORDS, BEGINS[1:])
    expected = [join(WEIGHT[b], axis=0) if len(b) else np.zeros(3) for b in bags]
    found = F.embedding_bag(WORDS, WEIGHT, BEGINS, mode=mode)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    layer = nn.EmbeddingBag(7, 3, mode=mode)
    layer.weight.copy_(WEIGHT)
    np.testing.assert_allclose(layer(WORDS, BEGINS), expected, rtol=1e-5)
    rows = WORDS.reshape(2, 3)
    np.testing.assert_allclose(layer(rows), join(WEIGHT[rows], axis=1), rtol=1e-5)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_what_is_in_one_bag_reaches_no_other(mode: str) -> None:
    weight = WEIGHT.copy()
    weight[4] = np.inf  # of the first bag
    found = F.embedding_bag(WORDS, weight, BEGINS, mode=mode)
    np.testing.assert_array_equal(found[0], np.inf)
    np.testing.assert_array_equal(found[1:], F.embedding_bag(WORDS, WEIGHT, BEGINS, mode=mode)[1:])


def test_rows_before_the_first_bag_are_in_none() -> None:
    found = F.embedding_bag(WORDS, WEIGHT, BEGINS[1:] + 1, mode="mean")
    whole = F.embedding_bag(WORDS, WEIGHT, np.append(0, BEGINS[1:] + 1), mode="mean")
    np.testing.assert_array_equal(found, whole[1:])


def test_rows_of_bags_have_weights_and_gradients() -> None:
    share = np.arange(6, dtype=np.float32)

    def network(weight: Any, share: Any) -> Any:
        words, begins = qn.tensor(WORDS), qn.tensor(BEGINS)
        bags = F.embedding_bag(words, weight, begins, mode="sum", per_sample_weights=share)
        return bags, *qn.autograd.grad(bags.square().sum(), [weight, share])

    y, by_weight, by_share = qn.compile(network, qn.spec(WEIGHT), qn.spec(share))(WEIGHT, share)
    bag = np.searchsorted(BEGINS, np.arange(6), "right") - 1
    own = np.zeros((4, 3))
    np.add.at(own, bag, WEIGHT[WORDS] * share[:, None])
    np.testing.assert_allclose(y, own, rtol=1e-5, atol=1e-6)
    slope = np.zeros((7, 3))
    np.add.at(slope, WORDS, 2 * own[bag] * share[:, None])
    np.testing.assert_allclose(by_weight, slope, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(by_share, (2 * own[bag] * WEIGHT[WORDS]).sum(1), rtol=1e-4)


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (lambda: F.embedding_bag(WORDS, WEIGHT), ShapeError, "with offsets"),
        (lambda: F.embedding_bag(WORDS, WEIGHT, BEGINS, mode="min"), UsageError, "mean, sum or"),
        (
            lambda: F.embedding_bag(
                WORDS, WEIGHT, BEGINS, per_sample_weights=np.ones(6, np.float32)
            ),
            UsageError,
            "for mode 'sum'",
        ),
        (lambda: nn.AdaptiveLogSoftmaxWithLoss(4, 9, [5, 3]), UsageError, "increase"),
        (lambda: F.alpha_dropout(WEIGHT, 1.5), UsageError, "from 0 to 1"),
    ],
)
def test_what_does_not_fit(action: Any, error: type[QuernError], message: str) -> None:
    with pytest.raises(error, match=message):
        action()


def test_adaptive_log_probabilities_sum_to_one() -> None:
    layer = nn.AdaptiveLogSoftmaxWithLoss(16, 20, [4, 10], div_value=2.0, head_bias=True)
    x = RNG.standard_normal((5, 16)).astype(np.float32)
    target = np.array([1, 4, 9, 10, 19])
    p = qn.compile(layer.log_prob, qn.spec(x))(x)
    assert p.shape == (5, 20)
    np.testing.assert_allclose(np.exp(p).sum(1), np.ones(5), rtol=1e-5)
    output, loss = layer(x, target)
    np.testing.assert_allclose(output, p[np.arange(5), target], rtol=1e-5)
    np.testing.assert_allclose(loss, -output.mean(), rtol=1e-5)
    assert layer.tail[1][0].weight.shape == (4, 16)


def test_adaptive_softmax_is_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    options = {"cutoffs": [4, 10], "div_value": 2.0}
    theirs = torch.nn.AdaptiveLogSoftmaxWithLoss(16, 20, **options)
    ours = nn.AdaptiveLogSoftmaxWithLoss(16, 20, **options)
    ours.load_state_dict(theirs.state_dict())
    x = RNG.standard_normal((5, 16)).astype(np.float32)
    target = np.array([1, 4, 9, 10, 19])
    expected = theirs(torch.tensor(x), torch.tensor(target))
    for found, wanted in zip(ours(x, target), expected, strict=True):
        np.testing.assert_allclose(found, wanted.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_alpha_dropout_keeps_mean_and_variance() -> None:
    x = RNG.standard_normal((500, 40)).astype(np.float32)
    qn.manual_seed(0)
    y = nn.AlphaDropout(0.3)(x)
    assert abs(y.mean()) < 0.03
    assert abs(y.std() - 1) < 0.03
    values, counts = np.unique(y, return_counts=True)
    assert abs(counts.max() / y.size - 0.3) < 0.01  # the one value of what is dropped
    assert values[counts.argmax()] < -1
    channels = nn.FeatureAlphaDropout(0.5)(np.ones((9, 8, 2, 3), np.float32))
    assert (channels == channels[:, :, :1, :1]).all()
    assert len(np.unique(channels)) == 2
    np.testing.assert_array_equal(nn.AlphaDropout(0.3).eval()(x), x)


def test_slopes_are_drawn_in_training_alone() -> None:
    layer = nn.RReLU(0.1, 0.3)
    x = np.linspace(-1, 1, 200, dtype=np.float32)
    slope = layer(x)[:100] / x[:100]
    assert 0.1 <= slope.min() < 0.13 < 0.27 < slope.max() <= 0.3
    np.testing.assert_array_equal(layer(x)[100:], x[100:])
    np.testing.assert_allclose(layer.eval()(x), np.where(x < 0, 0.2 * x, x), rtol=1e-6)


def test_triplets_by_any_distance() -> None:
    a, p, n = RNG.standard_normal((3, 6, 4)).astype(np.float32)

    def manhattan(x: Any, y: Any) -> Any:
        return abs(x - y).sum(-1)

    for options in ({}, {"margin": 2.0, "swap": True, "reduction": "sum"}, {"reduction": "none"}):
        far = manhattan(a, n)
        if "swap" in options:
            far = np.minimum(far, manhattan(p, n))
        losses = np.maximum(manhattan(a, p) - far + options.get("margin", 1.0), 0)
        how: Any = {"sum": np.sum, "none": np.array}.get(str(options.get("reduction")), np.mean)
        loss = nn.TripletMarginWithDistanceLoss(distance_function=manhattan, **options)
        np.testing.assert_allclose(loss(a, p, n), how(losses), rtol=1e-5)
    plain = F.triplet_margin_loss(a, p, n)
    np.testing.assert_allclose(F.triplet_margin_with_distance_loss(a, p, n), plain, rtol=1e-5)
