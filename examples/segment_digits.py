"""Teaches a small fully convolutional network which pixel belongs to which digit.

    python examples/segment_digits.py [--epochs 15] [--seed 0]

The network is FCN's idea in small (Long et al., 2015): convolutions and pooling down to a quarter,
scores there, scores of the layer before added on the way up, transposed convolutions to full size.
"""

from __future__ import annotations

import time

import digit_canvases
import numpy as np
from digit_canvases import CLASSES, Array

import quern as qn
from quern import nn, optim
from quern.compiler.tensor import Tensor


def convolutions(inputs: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    )


class SmallFCN(nn.Module):
    """image (N, 1, H, W) -> scores (N, CLASSES + 1, H, W)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        scores = CLASSES + 1
        self.stage1 = convolutions(1, width)
        self.stage2 = convolutions(width, 2 * width)
        self.stage3 = convolutions(2 * width, 4 * width)
        self.pool = nn.MaxPool2d(2)
        self.score1 = nn.Conv2d(width, scores, 1)
        self.score2 = nn.Conv2d(2 * width, scores, 1)
        self.score3 = nn.Conv2d(4 * width, scores, 1)
        self.up3 = nn.ConvTranspose2d(scores, scores, 4, stride=2, padding=1)
        self.up2 = nn.ConvTranspose2d(scores, scores, 4, stride=2, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        fine = self.stage1(image)
        middle = self.stage2(self.pool(fine))
        coarse = self.stage3(self.pool(middle))
        x = self.up3(self.score3(coarse)) + self.score2(middle)
        return self.up2(x) + self.score1(fine)


def intersection_over_union(guessed: Array, labels: Array) -> Array:
    """For each class, pixels that are rightly it, over those that are it or are taken for it."""
    return np.array(
        [
            np.sum((guessed == k) & (labels == k)) / max(np.sum((guessed == k) | (labels == k)), 1)
            for k in range(CLASSES + 1)
        ]
    )


def main() -> None:
    options = digit_canvases.arguments("Segment handwritten digits.")

    begin = time.perf_counter()
    train = digit_canvases.make(options.canvases, seed=options.seed)
    test = digit_canvases.make(500, held_out=True, seed=options.seed + 1)
    batch_size = 50
    qn.manual_seed(options.seed)
    model = SmallFCN()
    steps = options.epochs * (len(train) // batch_size)
    optimizer = optim.Adam(5e-3, schedule=optim.OneCycleLR(steps))
    trainer = qn.Trainer(model, loss="cross_entropy", optimizer=optimizer, seed=options.seed)
    trainer.fit((train.images, train.labels), epochs=options.epochs, batch_size=batch_size)

    network = qn.compile(model.eval(), qn.spec(len(test), 1, *test.labels.shape[1:]))
    guessed = network(test.images).argmax(1)
    overlap = intersection_over_union(guessed, test.labels)
    digits = test.labels < CLASSES
    print(f"pixels right {np.mean(guessed == test.labels):.2%}, ", end="")
    print(f"pixels of digits right {np.mean((guessed == test.labels)[digits]):.2%}")
    print(
        f"mean intersection over union {overlap.mean():.3f} (digits {overlap[:CLASSES].mean():.3f})"
    )
    print(f"{time.perf_counter() - begin:.1f} s in all")


if __name__ == "__main__":
    main()
