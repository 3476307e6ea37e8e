"""Reads handwritten digits row by row, as a sequence, and says at the end which digit it was.

    python examples/row_digits.py [--epochs 30] [--seed 0]

Many-to-one: an LSTM sees one row of 8 pixels in each of 8 steps, and what its state has become
after the last one is classified. With `--pixels` it sees one pixel in each of 64 steps.
"""

from __future__ import annotations

import argparse
import time

import quern as qn
from quern import nn, optim
from quern.compiler.tensor import Tensor
from quern.runtime.data import load_splits


class Reader(nn.Module):
    """Images (N, 1, 8, 8) to logits (N, 10)."""

    def __init__(self, hidden: int, pixels: bool) -> None:
        super().__init__()
        self.width = 1 if pixels else 8
        self.lstm = nn.LSTM(self.width, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 10)

    def forward(self, image: Tensor) -> Tensor:
        _, (h, _) = self.lstm(image.reshape(image.shape[0], -1, self.width))
        logits: Tensor = self.head(h[0])
        return logits


def main() -> None:
    parser = argparse.ArgumentParser(description="Read digits row by row.")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--hidden", type=int, default=96)
    parser.add_argument("--pixels", action="store_true", help="pixel by pixel")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    begin = time.perf_counter()
    data = load_splits("digits")
    batch_size = 32
    qn.manual_seed(options.seed)
    steps = options.epochs * (len(data.train) // batch_size)
    optimizer = optim.Adam(1e-2, schedule=optim.OneCycleLR(steps), clip_grad_norm=1.0)
    trainer = qn.Trainer(
        Reader(options.hidden, options.pixels),
        loss="cross_entropy",
        optimizer=optimizer,
        seed=options.seed,
    )
    trainer.fit(data.train, epochs=options.epochs, batch_size=batch_size)
    accuracy = trainer.evaluate(data.test)["accuracy"]
    print(f"test accuracy {accuracy:.2%} ({round(accuracy * len(data.test))} of {len(data.test)})")
    print(f"{time.perf_counter() - begin:.1f} s in all")


if __name__ == "__main__":
    main()
