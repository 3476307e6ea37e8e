"""Teaches a small transformer to write Python, one character after the other.

    python examples/transformer_python.py [--steps 500] [--temperature 0.7] [--seed 0]

A decoder-only language model (Vaswani et al., 2017; Radford et al., 2019): each character looks
back, by masked attention, at those before it in a window of 64, so that all of a window's
characters are predicted, and learned from, at once. It reads the standard library's own source;
every twentieth file is held out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from char_rnn import draw, loss_of, read_library
from standard_library import VOCABULARY, decode, encode

import quern as qn
from quern import nn, optim
from quern.compiler.tensor import Tensor

Array = np.ndarray[Any, Any]


class Block(nn.Module):
    """(B, T, D) to (B, T, D): each place takes what it needs from those before, then thinks."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.thinking = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        h = self.norm1(x)
        seen, _ = self.attention(h, h, h, attn_mask=mask, need_weights=False)
        x = x + seen
        return x + self.thinking(self.norm2(x))


class Transformer(nn.Module):
    """Characters (B, T) to the logits of the next ones (B, T, V)."""

    def __init__(self, window: int, width: int = 128, layers: int = 3, heads: int = 4) -> None:
        super().__init__()
        self.character, self.place = (
            nn.Embedding(len(VOCABULARY), width),
            nn.Embedding(window, width),
        )
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, len(VOCABULARY))
        for embedding in (self.character, self.place):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        time = x.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(time)
        h = self.character(x) + self.place(qn.arange(time))
        for block in self.blocks:
            h = block(h, mask)
        logits: Tensor = self.head(self.norm(h))
        return logits


def windows(text: Array, rows: int, length: int, seed: int) -> Iterator[tuple[Array, Array]]:
    """Batches (rows, length) of characters from anywhere in a text, and those that follow them."""
    rng = np.random.default_rng(seed)
    while True:
        places = rng.integers(0, len(text) - length, (rows, 1)) + np.arange(length)
        yield text[places], text[places + 1]


def write(model: Transformer, beginning: str, length: int, window: int, **how: Any) -> str:
    """A text that goes on after a beginning."""
    read = qn.compile(model.eval(), qn.spec(1, window, dtype="int64"))
    numbers = list(encode(beginning))
    for _ in range(length):
        seen = numbers[-window:]
        # What comes after the last character changes nothing: nobody looks ahead.
        logits = read(np.array([seen + [0] * (window - len(seen))]))
        numbers.append(draw(logits[0, len(seen) - 1], **how))
    return decode(np.array(numbers))


def main() -> None:
    parser = argparse.ArgumentParser(description="Teach a transformer to write Python.")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--window", type=int, default=64)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--top", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    begin = time.perf_counter()
    text, held_out = read_library()
    print(f"{len(text) / 1e6:.1f} million characters to learn from, {len(held_out):,} held out")
    qn.manual_seed(options.seed)
    model = Transformer(options.window)
    schedule = optim.OneCycleLR(options.steps, pct_start=0.1)
    trainer = qn.Trainer(
        model,
        loss=loss_of,
        optimizer=optim.AdamW(3e-3, schedule=schedule, clip_grad_norm=1.0),
        seed=options.seed,
    )
    smooth = 0.0
    batches = windows(text, options.rows, options.window, options.seed)
    for step, (x, y) in zip(range(1, options.steps + 1), batches, strict=False):
        loss = trainer.step(x, y)["loss"]
        smooth = 0.95 * smooth + 0.05 * loss
        if step % max(options.steps // 8, 1) == 0:
            mean = smooth / (1 - 0.95**step)
            print(f"step {step}: {mean:.3f} nats a character", flush=True)

    judged = next(windows(held_out, 2048, options.window, 1))
    loss = trainer.evaluate(judged, batch_size=options.rows)["loss"]
    print(f"{loss:.3f} nats a character on held-out text")
    how = {"rng": np.random.default_rng(options.seed), "top": options.top}
    print(write(model, "\ndef ", 400, options.window, temperature=options.temperature, **how))
    print(f"{time.perf_counter() - begin:.1f} s in all")


if __name__ == "__main__":
    main()
