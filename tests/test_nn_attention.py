"""Attention and transformers against NumPy, and against PyTorch's of the same names."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest

import quern as qn
from quern import nn
from quern.compiler.errors import ShapeError, UsageError
from quern.compiler.types import Array
from quern.nn import functional as F

E, HEADS, L, S, N = 12, 3, 5, 7, 2


def normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_attention_is_a_softmax_of_products(rng: np.random.Generator) -> None:
    q, k, v = normal(rng, N, L, E), normal(rng, N, S, E), normal(rng, N, S, 4)
    seen = rng.random((L, S)) < 0.7
    seen[:, 0] = True
    scores = np.where(seen, q @ k.swapaxes(1, 2) / math.sqrt(E), -np.inf)
    graph = qn.trace(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, seen), *map(qn.spec, (q, k, v))
    )
    np.testing.assert_allclose(
        qn.compile(graph)(q, k, v), softmax(scores) @ v, rtol=1e-5, atol=1e-6
    )


def test_what_comes_later_has_no_influence(rng: np.random.Generator) -> None:
    x = normal(rng, N, L, E)
    graph = qn.trace(lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True), qn.spec(x))
    changed = x.copy()
    changed[:, 3:] += 1
    run = qn.compile(graph)
    y, z = run(x), run(changed)
    np.testing.assert_array_equal(y[:, :3], z[:, :3])
    assert np.abs(y - z)[:, 3:].min() > 0


def test_each_head_attends_in_its_own_features(rng: np.random.Generator) -> None:
    qn.manual_seed(0)
    layer = nn.MultiheadAttention(E, HEADS).eval()
    q, k, v = normal(rng, L, N, E), normal(rng, S, N, E), normal(rng, S, N, E)
    state = layer.state_dict()
    assert list(state) == ["in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"]
    weights, biases = np.split(state["in_proj_weight"], 3), np.split(state["in_proj_bias"], 3)
    projected = [x @ w.T + b for x, w, b in zip((q, k, v), weights, biases, strict=True)]
    heads, shares = [], []
    for part in np.split(np.arange(E), HEADS):
        a, b, c = (x[..., part].swapaxes(0, 1) for x in projected)
        shares.append(softmax(a @ b.swapaxes(1, 2) / math.sqrt(E // HEADS)))
        heads.append(shares[-1] @ c)
    joined = np.concatenate(heads, -1).swapaxes(0, 1)
    result, share = layer(q, k, v)
    expected = joined @ state["out_proj.weight"].T + state["out_proj.bias"]
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(share, np.mean(shares, 0), rtol=1e-4, atol=1e-5)


def test_a_transformer_learns_to_turn_sequences_round(rng: np.random.Generator) -> None:
    class Reverse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.symbols = nn.Embedding(8, 32)
            self.places = nn.Parameter(normal(rng, 6, 32))
            layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2)
            self.answer = nn.Linear(32, 8)

        def forward(self, x: qn.Tensor) -> Any:
            return self.answer(self.encoder(self.symbols(x) + self.places)).transpose(1, 2)

    qn.manual_seed(0)
    x = rng.integers(0, 8, (512, 6))
    trainer = qn.Trainer(Reverse(), loss="cross_entropy", optimizer=qn.optim.Adam(3e-3), metrics={})
    records = trainer.fit((x, x[:, ::-1].copy()), epochs=30, batch_size=64, quiet=True)
    assert records[-1]["loss"] < 0.1 < records[0]["loss"]


def test_errors_say_what_clashes(rng: np.random.Generator) -> None:
    with pytest.raises(UsageError, match="5 heads do not divide 12 features"):
        nn.MultiheadAttention(12, 5)
    with pytest.raises(UsageError, match="not 'swish'"):
        nn.TransformerEncoderLayer(12, 3, activation="swish")
    with pytest.raises(ShapeError, match="batch_first=False"):
        nn.MultiheadAttention(E, HEADS)(
            normal(rng, L, N, E), normal(rng, S, 3, E), normal(rng, S, 3, E)
        )
    with pytest.raises(ShapeError, match=r"\(2, 3, 5, 6\) do not broadcast"):
        nn.MultiheadAttention(E, HEADS)(
            *[normal(rng, L, N, E)] * 3, attn_mask=np.zeros((N * HEADS, L, L + 1), np.float32)
        )


# -- PyTorch --------------------------------------------------------------------------------------


def pair(source: str) -> tuple[Any, Any]:
    """The layer in both libraries, with the same random state, in inference mode."""
    torch = pytest.importorskip("torch")
    own = eval(f"nn.{source}", {"nn": nn}).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's hints on its own speed
        other = eval(f"nn.{source}", {"nn": torch.nn}).eval()
    rng = np.random.default_rng(1)
    state = {
        key: torch.from_numpy(rng.uniform(-0.5, 0.5, value.shape).astype(np.float32))
        for key, value in other.state_dict().items()
    }
    other.load_state_dict(state)
    own.load_state_dict(state)
    assert list(own.state_dict()) == list(state)
    return own, other


def assert_same(own: Any, other: Any, *arrays: Array, **masks: Any) -> None:
    import torch

    tensors = [torch.from_numpy(x) for x in arrays]
    options = {k: torch.from_numpy(m) if isinstance(m, np.ndarray) else m for k, m in masks.items()}
    with torch.no_grad():
        expected = other(*tensors, **options)
    found = own(*arrays, **masks)
    pairs = zip(found, expected, strict=True) if isinstance(found, tuple) else [(found, expected)]
    for y, z in pairs:
        assert (y is None) == (z is None)
        if y is not None:
            np.testing.assert_allclose(y, z.numpy(), rtol=2e-4, atol=2e-5)


PADDING = np.arange(S) >= np.array([[S], [4]])
LATER = np.triu(np.ones((L, L), bool), 1)


@pytest.mark.parametrize(
    ("source", "shapes", "masks"),
    [
        ("MultiheadAttention(12, 3)", [(L, N, E), (S, N, E), (S, N, E)], {}),
        ("MultiheadAttention(12, 3, bias=False)", [(L, N, E), (S, N, E), (S, N, E)], {}),
        ("MultiheadAttention(12, 3)", [(L, E), (S, E), (S, E)], {}),
        (
            "MultiheadAttention(12, 3, batch_first=True)",
            [(N, L, E), (N, S, E), (N, S, E)],
            {"key_padding_mask": PADDING, "average_attn_weights": False},
        ),
        (
            "MultiheadAttention(12, 3, kdim=4, vdim=6)",
            [(L, N, E), (S, N, 4), (S, N, 6)],
            {"attn_mask": np.linspace(-1, 1, N * 3 * L * S, dtype=np.float32).reshape(-1, L, S)},
        ),
        (
            "MultiheadAttention(12, 3)",
            [(L, N, E)] * 3,
            {"attn_mask": LATER, "need_weights": False, "is_causal": True},
        ),
        ("TransformerEncoderLayer(12, 3, 20)", [(L, N, E)], {"src_mask": LATER}),
        (
            "TransformerEncoderLayer(12, 3, 20, activation='gelu', norm_first=True, bias=False)",
            [(L, N, E)],
            {},
        ),
        (
            "TransformerDecoderLayer(12, 3, 20, batch_first=True)",
            [(N, L, E), (N, S, E)],
            {"tgt_mask": LATER, "memory_key_padding_mask": PADDING},
        ),
        (
            "Transformer(12, 3, 2, 2, 20, batch_first=True)",
            [(N, S, E), (N, L, E)],
            {"src_key_padding_mask": PADDING, "tgt_mask": LATER},
        ),
        ("Transformer(12, 3, 1, 2, 20, norm_first=True)", [(S, N, E), (L, N, E)], {}),
    ],
)
def test_layers_compute_and_keep_what_pytorchs_do(
    source: str, shapes: list[tuple[int, ...]], masks: dict[str, Any], rng: np.random.Generator
) -> None:
    arrays = [normal(rng, *shape) for shape in shapes]
    if len(set(shapes)) == 1:
        arrays = arrays[:1] * len(arrays)
    own, other = pair(source)
    assert_same(own, other, *arrays, **masks)
    assert repr(own) == repr(other)
