"""Connectionist temporal classification against all paths, one by one, and against PyTorch."""

from __future__ import annotations

import math
from itertools import groupby, product
from typing import Any

import numpy as np
import pytest
from gradcheck import check_gradients
from op_cases import Case, value_of

import quern as qn
from quern import nn
from quern.compiler.errors import DTypeError, ShapeError
from quern.compiler.ops.base import apply
from quern.compiler.ops.loss import CTC, Reduction
from quern.compiler.types import Array

T, N, C, S = 5, 3, 4, 3
STEPS, LENGTHS = np.array([5, 4, 2]), np.array([2, 3, 0])
LABELS = np.array([[1, 1, 0], [2, 3, 1], [3, 3, 3]])


def log_probabilities(rng: np.random.Generator) -> Array:
    x = rng.standard_normal((T, N, C))
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def by_all_paths(x: Array, labels: Array, steps: Array, lengths: Array, blank: int) -> Array:
    """Minus the logarithm of the summed probability of every path that reads as the labels."""
    losses = []
    for n in range(x.shape[1]):
        wanted = list(labels[n, : lengths[n]])
        total = 0.0
        for path in product(range(x.shape[2]), repeat=int(steps[n])):
            if [c for c, _ in groupby(path) if c != blank] == wanted:
                total += math.exp(sum(x[t, n, c] for t, c in enumerate(path)))
        losses.append(-math.log(total) if total else math.inf)
    return np.array(losses)


@pytest.mark.parametrize("blank", [0, 2])
def test_it_sums_over_all_paths(blank: int, rng: np.random.Generator) -> None:
    x = log_probabilities(rng)
    labels = (LABELS - 1) % (C - 1)
    labels = labels + (labels >= blank)
    expected = by_all_paths(x, labels, STEPS, LENGTHS, blank)
    found = value_of(CTC(blank, Reduction.NONE), x, labels, STEPS, LENGTHS)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    mean = value_of(CTC(blank), x, labels, STEPS, LENGTHS)
    np.testing.assert_allclose(mean, (expected / np.maximum(LENGTHS, 1)).mean(), rtol=1e-9)


def test_its_gradient_is_the_central_difference(rng: np.random.Generator) -> None:
    others = LABELS, STEPS, LENGTHS

    def loss(x: Any) -> Any:
        return apply(CTC(0, Reduction.SUM), x, *(x.graph.constant(a) for a in others))

    check_gradients(loss, log_probabilities(rng))


def test_too_few_steps_for_the_labels(rng: np.random.Generator) -> None:
    x = log_probabilities(rng)
    few = np.array([2, 4, 2])  # two equal labels take three steps
    op = CTC(0, Reduction.NONE)
    found = value_of(op, x, LABELS, few, LENGTHS)
    assert np.isinf(found[0])
    assert np.isfinite(found[1:]).all()
    zeroed = value_of(CTC(0, Reduction.NONE, zero_infinity=True), x, LABELS, few, LENGTHS)
    np.testing.assert_array_equal(zeroed, [0, *found[1:]])


CASES = [
    Case(
        CTC(0, Reduction.NONE),
        (log_probabilities(np.random.default_rng(0)), LABELS, STEPS, LENGTHS),
        lambda *arrays: by_all_paths(*arrays, 0),
        constant=(1, 2, 3),
    )
]


def test_what_does_not_fit_is_refused(rng: np.random.Generator) -> None:
    x = log_probabilities(rng)
    with pytest.raises(ShapeError, match="two lengths"):
        value_of(CTC(), x, LABELS, STEPS[:2], LENGTHS)
    with pytest.raises(ShapeError, match="the blank 4 is no class"):
        value_of(CTC(4), x, LABELS, STEPS, LENGTHS)
    with pytest.raises(DTypeError, match="integers"):
        value_of(CTC(), x, LABELS.astype(float), STEPS, LENGTHS)


def test_a_network_learns_where_labels_are(rng: np.random.Generator) -> None:
    """Each symbol stands in the input for two or three steps, at places that nobody tells."""

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: qn.Tensor) -> Any:
            return self.layer(x).log_softmax(-1).transpose(0, 1)

    def loss(outputs: qn.Tensor, labels: qn.Tensor) -> qn.Tensor:
        rows = np.full(labels.size(0), 12), np.full(labels.size(0), 3)
        return nn.functional.ctc_loss(outputs, labels, *rows)

    labels = rng.integers(1, 4, (64, 3))
    x = np.zeros((64, 12, 4), np.float32)
    for row, symbols in zip(x, labels, strict=True):
        places = np.repeat(symbols, rng.integers(2, 4, 3))
        starts = np.flatnonzero(np.diff(places, prepend=0))
        row[np.arange(len(places)) + np.searchsorted(starts, np.arange(len(places))), places] = 1
        row[row.sum(1) == 0, 0] = 1
    qn.manual_seed(0)
    trainer = qn.Trainer(Reader(), loss=loss, optimizer=qn.optim.Adam(0.1), metrics={})
    records = trainer.fit((x, labels), epochs=30, batch_size=64, quiet=True)
    assert records[-1]["loss"] < 0.5 * records[0]["loss"]


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_values_and_gradients_are_pytorchs(reduction: str, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    x = rng.standard_normal((12, 4, 6)).astype(np.float32)
    labels = rng.integers(1, 6, (4, 4))
    steps, lengths = np.array([12, 10, 9, 12]), np.array([4, 2, 4, 3])
    weights = rng.standard_normal(4).astype(np.float32) if reduction == "none" else np.float32(1)

    def ours(x: Any, *others: Any) -> Any:
        return (nn.CTCLoss(reduction=reduction)(x.log_softmax(-1), *others) * weights).sum()

    graph = qn.trace(ours, *map(qn.spec, (x, labels, steps, lengths)))
    backward = qn.compile(qn.grad(graph, of="output", wrt=["x"]))
    value, gradient = backward(x, labels, steps, lengths)
    tensor = torch.from_numpy(x).requires_grad_()
    criterion = torch.nn.CTCLoss(reduction=reduction)
    others = map(torch.from_numpy, (labels, steps, lengths))
    expected = (criterion(tensor.log_softmax(-1), *others) * torch.as_tensor(weights)).sum()
    expected.backward()
    np.testing.assert_allclose(value, expected.item(), rtol=1e-5)
    np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-4, atol=1e-6)
