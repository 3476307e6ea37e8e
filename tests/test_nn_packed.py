"""Sequences of several lengths: padded, packed, and in recurrent layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import quern as qn
from quern import nn
from quern.compiler.errors import QuernError, ShapeError, UsageError
from quern.nn.utils import rnn

X = np.random.default_rng(0).standard_normal((3, 6, 4)).astype(np.float32)  # (B, T, I)
LENGTHS = [2, 5, 3]


def step_by_step(layer: Any, x: Any, length: int) -> tuple[Any, Any]:
    """One sequence (T, I), cut where it ends."""
    return layer(np.ascontiguousarray(x[:length]))


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("known", [True, False])
def test_each_sequence_is_as_if_it_were_alone(kind: str, known: bool) -> None:
    layer = getattr(nn, kind)(4, 5, num_layers=2, bidirectional=True, batch_first=True)

    def network(x: Any, lengths: Any) -> Any:
        lengths = LENGTHS if known else lengths
        packed = rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y, last = layer(packed)
        padded, found = rnn.pad_packed_sequence(y, batch_first=True, padding_value=7)
        return padded, found, last[0] if kind == "LSTM" else last

    lengths = np.array(LENGTHS)
    y, found, h = qn.compile(network, qn.spec(X), qn.spec(lengths))(X, lengths)
    assert y.shape == (3, 5 if known else 6, 10)
    np.testing.assert_array_equal(found, LENGTHS)
    for b, n in enumerate(LENGTHS):
        alone, last = step_by_step(layer, X[b], n)
        np.testing.assert_allclose(y[b, :n], alone, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(y[b, n:], 7)
        last = last[0] if kind == "LSTM" else last
        np.testing.assert_allclose(h[:, b], last, rtol=1e-4, atol=1e-6)


def test_padding_of_truths_is_a_value_like_any_other() -> None:
    packed = rnn.pack_padded_sequence(X[:, :5, 0] > 0, LENGTHS, True, enforce_sorted=False)
    padded, _ = rnn.pad_packed_sequence(packed, batch_first=True, padding_value=1)
    behind = np.arange(5) >= np.array(LENGTHS)[:, None]
    np.testing.assert_array_equal(padded, behind | (X[:, :5, 0] > 0))


def test_outside_of_a_network_they_are_arrays() -> None:
    packed = rnn.pack_sequence([X[0, :2], X[1, :5], X[2, :3]], enforce_sorted=False)
    assert packed.padded.shape == (5, 3, 4)
    for part, b in zip(rnn.unpack_sequence(packed), range(3), strict=True):
        np.testing.assert_array_equal(part, X[b, : LENGTHS[b]])
    output, _ = nn.GRU(4, 5)(packed)
    assert isinstance(output, rnn.PackedSequence)
    y, lengths = rnn.pad_packed_sequence(output, total_length=6)
    assert y.shape == (6, 3, 5)
    assert not y[3:, 2].any()
    np.testing.assert_array_equal(lengths, LENGTHS)


def test_padding() -> None:
    parts = [np.arange(n) for n in (3, 1)]
    np.testing.assert_array_equal(rnn.pad_sequence(parts, True, -1), [[0, 1, 2], [0, -1, -1]])
    left = rnn.pad_sequence(parts, True, padding_side="left")
    np.testing.assert_array_equal(left, [[0, 1, 2], [0, 0, 0]])
    np.testing.assert_array_equal(rnn.pad_sequence(parts), [[0, 0], [1, 0], [2, 0]])


def test_no_gradient_comes_from_padding() -> None:
    lstm = nn.LSTM(4, 5, batch_first=True)

    def loss(x: Any) -> Any:
        packed = rnn.pack_padded_sequence(x, [5, 3, 2], batch_first=True)
        y, _ = rnn.pad_packed_sequence(lstm(packed)[0], batch_first=True)
        return qn.autograd.grad(y.square().sum(), x)[0]

    g = qn.compile(loss, qn.spec(X))(X)
    for b, n in enumerate((5, 3, 2)):
        assert g[b, :n].all()
        assert not g[b, n:].any()


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (lambda: rnn.pack_padded_sequence(X, LENGTHS, True), UsageError, "enforce_sorted=False"),
        (lambda: rnn.pack_padded_sequence(X, [2, 0, 0], True), UsageError, "from 1, got 0"),
        (lambda: rnn.pack_padded_sequence(X, [7, 2, 1], True), ShapeError, "7, the sequences"),
        (lambda: rnn.pack_padded_sequence(X, [3, 2], True), ShapeError, "one a sequence"),
        (lambda: rnn.pack_sequence([X[0]])[0], UsageError, "ignore_index"),
        (lambda: rnn.pack_sequence([X[0]]).data, AttributeError, "pad_packed_sequence"),
        (
            lambda: rnn.pad_packed_sequence(rnn.pack_sequence([X[0]]), total_length=3),
            ShapeError,
            "total_length 3 is below the 6 steps",
        ),
        (lambda: nn.GRU(4, 5)(rnn.pack_sequence([X[0]]), None, [6]), UsageError, "of its own"),
        (lambda: nn.GRU(3, 5)(rnn.pack_sequence([X[0]])), ShapeError, "I = 3"),
    ],
)
def test_what_does_not_fit(action: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        action()


def test_the_same_as_in_pytorch() -> None:
    torch = pytest.importorskip("torch")
    theirs = torch.nn.LSTM(4, 5, num_layers=2, bidirectional=True, batch_first=True)
    ours = nn.LSTM(4, 5, num_layers=2, bidirectional=True, batch_first=True)
    ours.load_state_dict(theirs.state_dict())

    def run(layer: Any, there: Any, x: Any) -> Any:
        packed = there.pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
        y, (h, c) = layer(packed)
        return (*there.pad_packed_sequence(y, batch_first=True, padding_value=-1.0), h, c)

    expected = run(theirs, torch.nn.utils.rnn, torch.tensor(X))
    for found, wanted in zip(run(ours, rnn, X), expected, strict=True):
        np.testing.assert_allclose(found, wanted.detach().numpy(), rtol=1e-4, atol=1e-6)
    parts = [X[0, :2], X[1, :5]]
    there = [torch.tensor(p) for p in parts]
    for options in ({}, {"batch_first": True, "padding_value": 3.0}, {"padding_side": "left"}):
        np.testing.assert_array_equal(
            rnn.pad_sequence(parts, **options),
            torch.nn.utils.rnn.pad_sequence(there, **options).numpy(),
        )


def test_a_module_of_pytorch_that_packs_says_what_to_write() -> None:
    torch = pytest.importorskip("torch")

    class Packing(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = torch.nn.GRU(4, 5)

        def forward(self, x: Any) -> Any:
            lengths = torch.tensor([3, 2])
            return self.rnn(torch.nn.utils.rnn.pack_padded_sequence(x, lengths))[1]

    with pytest.raises(QuernError, match="load_state_dict"):
        qn.trace(qn.from_torch(Packing()), qn.spec(3, 2, 4))
