"""Teaches an LSTM to write Python, one character after the other.

    python examples/char_rnn.py [--seconds 180] [--hidden 256] [--temperature 0.7] [--top 20]

It reads the standard library's own source, which is on every machine already; every twentieth file
is held out. Each stream of text goes on where the last batch ended, and so does the state;
gradients go back through one batch (truncated back-propagation through time) and are clipped by
their norm.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from standard_library import VOCABULARY, decode, encode, read_texts

import quern as qn
from quern import nn, optim
from quern.compiler.tensor import Tensor

Array = np.ndarray[Any, Any]


def read_library() -> tuple[Array, Array]:
    """The text to learn from, and the text held out."""
    learned, held_out = read_texts()
    return encode("\n".join(learned)), encode("\n".join(held_out))


def streams(text: Array, rows: int, steps: int) -> Iterator[tuple[Array, Array]]:
    """Batches (rows, steps) of characters and those that follow, for ever; each row goes on where
    it ended in the batch before.
    """
    length = (len(text) - 1) // rows // steps * steps
    x, y = (text[shift : shift + rows * length].reshape(rows, length) for shift in (0, 1))
    while True:
        for start in range(0, length, steps):
            yield x[:, start : start + steps].copy(), y[:, start : start + steps].copy()


class Network(nn.Module):
    """Characters (B, T) and a state to the logits of the next characters (B, T, V), and the state
    after them.
    """

    def __init__(self, hidden: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(VOCABULARY), 64)
        self.lstm = nn.LSTM(64, hidden, layers, batch_first=True)
        self.head = nn.Linear(hidden, len(VOCABULARY))

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, (h, c) = self.lstm(self.embedding(x), (h, c))
        return self.head(y), h, c


class Learner(nn.Module):
    """The network with a state that stays between batches."""

    def __init__(self, network: Network, rows: int) -> None:
        super().__init__()
        self.network = network
        for name in ("h", "c"):
            self.register_buffer(name, zero_state(network, rows), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        logits, self.h, self.c = self.network(x, self.h, self.c)
        return logits


def zero_state(network: Network, rows: int) -> Array:
    return np.zeros((network.lstm.num_layers, rows, network.lstm.hidden_size), np.float32)


def loss_of(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean negative log-likelihood of a character, in nats."""
    return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


class Reader:
    """The network with its state handed in and out, compiled for some rows and steps."""

    def __init__(self, network: Network, rows: int, steps: int) -> None:
        self.network, self.rows, self.steps = network, rows, steps
        self.restart()
        state = qn.spec(self.h)
        self.executable = qn.compile(network, qn.spec(rows, steps, dtype="int64"), state, state)

    def restart(self) -> None:
        self.h, self.c = zero_state(self.network, self.rows), zero_state(self.network, self.rows)

    def refresh(self) -> None:
        """Takes over what the network has learned since, and starts from nothing read."""
        self.executable.load_state(self.network.state_dict())
        self.restart()

    def __call__(self, x: Array) -> Array:
        logits, self.h, self.c = self.executable(x, self.h, self.c)
        return logits


def held_out_loss(reader: Reader, text: Array, batches: int = 40) -> float:
    """Nats a character over the first batches of a text."""
    reader.refresh()
    losses = []
    for (x, y), _ in zip(streams(text, reader.rows, reader.steps), range(batches), strict=False):
        logits = reader(x).astype(np.float64)
        logits -= logits.max(-1, keepdims=True)
        chosen = np.take_along_axis(logits, y[..., None], -1)[..., 0]
        losses.append(np.mean(np.log(np.exp(logits).sum(-1)) - chosen))
    return float(np.mean(losses))


def draw(logits: Array, rng: np.random.Generator, temperature: float, top: int) -> int:
    """One of the `top` likeliest characters; a low temperature prefers the likeliest ones more."""
    if temperature == 0:
        return int(logits.argmax())
    scaled = logits.astype(np.float64) / temperature
    scaled[scaled < np.sort(scaled)[-top:].min()] = -np.inf
    p = np.exp(scaled - scaled.max())
    return int(rng.choice(len(p), p=p / p.sum()))


def write(
    reader: Reader, beginning: str, length: int, choose: Callable[[Array], int]
) -> tuple[str, float]:
    """A text that goes on after a beginning, and the characters written in a second."""
    reader.refresh()
    numbers = list(encode(beginning))
    for number in numbers:
        logits = reader(np.array([[number]]))
    begin = time.perf_counter()
    for _ in range(length):
        numbers.append(choose(logits[0, 0]))
        logits = reader(np.array([[numbers[-1]]]))
    return decode(np.array(numbers)), length / (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description="Teach an LSTM to write Python.")
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--steps", type=int, default=50, help="characters in a batch's row")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--top", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    text, held_out = read_library()
    print(f"{len(text) / 1e6:.1f} million characters to learn from, {len(held_out):,} held out")
    qn.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    network = Network(options.hidden, options.layers)
    model = Learner(network, options.rows)
    optimizer = optim.Adam(4e-3, clip_grad_norm=1.0)
    trainer = qn.Trainer(model, loss=loss_of, optimizer=optimizer, metrics={}, seed=options.seed)
    judge, pen = Reader(network, options.rows, options.steps), Reader(network, 1, 1)

    begin, shown, smooth = time.perf_counter(), 0.0, None
    for step, (x, y) in enumerate(streams(text, options.rows, options.steps), 1):
        loss = trainer.step(x, y)["loss"]
        smooth = loss if smooth is None else 0.98 * smooth + 0.02 * loss
        elapsed = time.perf_counter() - begin
        done = elapsed > options.seconds
        if elapsed > shown + options.seconds / 6 or done:
            shown = elapsed
            judged = held_out_loss(judge, held_out)
            sample, speed = write(
                pen,
                "\ndef ",
                300,
                lambda logits: draw(logits, rng, options.temperature, options.top),
            )
            print(
                f"\n== {elapsed:.0f} s, step {step}: {smooth:.3f} nats a character, "
                f"{judged:.3f} on held-out text, writes {speed:,.0f} characters/s\n{sample}",
                flush=True,
            )
        if done:
            break


if __name__ == "__main__":
    main()
