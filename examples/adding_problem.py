"""The adding problem: what a plain recurrent network cannot remember, and an LSTM can.

    python examples/adding_problem.py [--length 200] [--steps 1500] [--seed 0]

A sequence has two rows: random numbers from 0 to 1, and marks, which are 0 but for two 1s. After
its last step the sum of the two marked numbers is wanted (Hochreiter and Schmidhuber, Long
short-term memory, 1997). Who always says 1 has a mean squared error of 1/6; solved is what has an
error below 0.04 for nearly every sequence, so a mean square far below 0.01.

The LSTM's gates begin open for random times up to the length of the sequence (Tallec and Ollivier,
Can recurrent neural networks warp time?, 2018).
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

import quern as qn
from quern import nn, optim
from quern.compiler.tensor import Tensor

Array = np.ndarray[Any, Any]

RIGHT = 0.04


def sequences(count: int, length: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Inputs (count, length, 2) and sums (count, 1); one mark is in either half."""
    x = np.zeros((count, length, 2), np.float32)
    x[:, :, 0] = rng.random((count, length))
    rows, half = np.arange(count), length // 2
    marks = rng.integers(0, half, count), rng.integers(half, length, count)
    for places in marks:
        x[rows, places, 1] = 1.0
    return x, (x[:, :, :1] * x[:, :, 1:]).sum(1)


class Adder(nn.Module):
    """Sequences (B, T, 2) to sums (B, 1)."""

    def __init__(self, kind: str, hidden: int) -> None:
        super().__init__()
        self.layer = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[kind](
            2, hidden, batch_first=True
        )
        self.head = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        output, _ = self.layer(x)
        sums: Tensor = self.head(output[:, -1])
        return sums


def open_gates(layer: nn.LSTM, longest: int, rng: np.random.Generator) -> None:
    """Gives each cell a time for which its gate f stays open, and i almost closed."""
    size = layer.hidden_size
    times = np.log(rng.uniform(1, longest - 1, size))
    bias = np.zeros(4 * size, np.float32)
    bias[:size], bias[size : 2 * size] = -times, times
    layer.bias_ih_l0.data = bias
    layer.bias_hh_l0.data = np.zeros_like(bias)


def train(kind: str, options: argparse.Namespace) -> float:
    """Trains one network; returns its mean squared error on sequences it has not seen."""
    qn.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    model = Adder(kind, options.hidden)
    if isinstance(model.layer, nn.LSTM):
        open_gates(model.layer, options.length, rng)
    optimizer = optim.Adam(options.learning_rate, clip_grad_norm=1.0)
    trainer = qn.Trainer(model, loss="mse_loss", optimizer=optimizer, metrics={})
    x, y = sequences(500, options.length, np.random.default_rng(options.seed + 1))
    begin = time.perf_counter()
    for step in range(1, options.steps + 1):
        trainer.step(*sequences(options.rows, options.length, rng))
        if step % max(options.steps // 10, 1) == 0 or step == options.steps:
            wrong = trainer.predict(x, 100) - y
            error, right = float(np.mean(wrong**2)), float(np.mean(np.abs(wrong) < RIGHT))
            print(
                f"{kind.upper()} after {step} steps, {time.perf_counter() - begin:.0f} s: "
                f"mean squared error {error:.4f}, {right:.1%} within {RIGHT}",
                flush=True,
            )
    return error


def main() -> None:
    parser = argparse.ArgumentParser(description="The adding problem, by an RNN and an LSTM.")
    parser.add_argument("--networks", nargs="+", default=["rnn", "lstm"], metavar="NAME")
    parser.add_argument("--length", type=int, default=200)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--rows", type=int, default=20)
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    errors = {kind: train(kind, options) for kind in options.networks}
    print(f"who always says 1: {1 / 6:.4f}")
    for kind, error in errors.items():
        print(f"{kind.upper()}: {error:.4f}")


if __name__ == "__main__":
    main()
