"""Teaches a network to find handwritten digits in larger pictures, and to tell which they are.

    python examples/detect_digits.py [--epochs 15] [--seed 0]

One heatmap a digit, a quarter as large as the picture (Tompson et al., 2014, figure 3; Zhou et al.,
Objects as points, 2019): peaks are the digits. A find is right when its digit is, and its place is
within 3 pixels of the true centre.
"""

from __future__ import annotations

import time

import digit_canvases
import numpy as np
from digit_canvases import CLASSES, SIZE, Array, Canvases

import quern as qn
from quern import nn, optim
from quern.compiler.tensor import Tensor

STEP = 4
SPREAD = 0.6
NEAR = 3


def layer(inputs: int, channels: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, channels, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    )


class Detector(nn.Module):
    """image (N, 1, SIZE, SIZE) -> heatmaps (N, CLASSES, SIZE / STEP, SIZE / STEP), as logits."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            layer(1, width),
            layer(width, 2 * width, stride=2),
            layer(2 * width, 2 * width),
            layer(2 * width, 4 * width, stride=2),
            layer(4 * width, 4 * width),
        )
        self.head = nn.Conv2d(4 * width, CLASSES, 1)

    def forward(self, image: Tensor) -> Tensor:
        heatmaps: Tensor = self.head(self.trunk(image))
        return heatmaps


def heatmaps(canvases: Canvases) -> Array:
    """What the network should give: a Gaussian at each centre."""
    extent = SIZE // STEP
    places = (np.arange(extent) + 0.5) * STEP
    maps = np.zeros((len(canvases), CLASSES, extent, extent), np.float32)
    for n, centers in enumerate(canvases.centers):
        for row, column, digit in centers:
            down = np.exp(-(((places - row) / STEP) ** 2) / (2 * SPREAD**2))
            across = np.exp(-(((places - column) / STEP) ** 2) / (2 * SPREAD**2))
            maps[n, digit] = np.maximum(maps[n, digit], np.outer(down, across))
    return maps


def focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy in which places count as much as they are wrong (Lin et al., 2017)."""
    p = nn.functional.sigmoid(logits)
    wrong = (p - targets).abs()
    entropy = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (wrong * wrong * entropy).sum() / float(logits.shape[0])


def peaks(maps: Array, threshold: float) -> list[tuple[int, int, int]]:
    """(row, column, digit) of what stands out among its neighbours in all heatmaps (CLASSES, …)."""
    best = np.pad(maps.max(0), 1)
    found = []
    for row, column in np.ndindex(*maps.shape[1:]):
        value = best[row + 1, column + 1]
        if value >= threshold and value == best[row : row + 3, column : column + 3].max():
            digit = int(maps[:, row, column].argmax())
            found.append((row * STEP + STEP // 2, column * STEP + STEP // 2, digit))
    return found


def score(maps: Array, canvases: Canvases, threshold: float) -> tuple[float, float]:
    """Share of the finds that are right, and share of the digits that are found."""
    right = finds = digits = 0
    for each, centers in zip(maps, canvases.centers, strict=True):
        left = list(centers)
        for row, column, digit in peaks(each, threshold):
            finds += 1
            for true in left:
                if digit == true[2] and max(abs(row - true[0]), abs(column - true[1])) <= NEAR:
                    right += 1
                    left.remove(true)
                    break
        digits += len(centers)
    return right / max(finds, 1), right / max(digits, 1)


def main() -> None:
    options = digit_canvases.arguments("Detect handwritten digits.")

    begin = time.perf_counter()
    train = digit_canvases.make(options.canvases, seed=options.seed)
    test = digit_canvases.make(500, held_out=True, seed=options.seed + 1)
    batch_size = 50
    qn.manual_seed(options.seed)
    model = Detector()
    steps = options.epochs * (len(train) // batch_size)
    optimizer = optim.Adam(3e-3, schedule=optim.OneCycleLR(steps))
    trainer = qn.Trainer(model, loss=focal_loss, optimizer=optimizer, seed=options.seed)
    trainer.fit((train.images, heatmaps(train)), epochs=options.epochs, batch_size=batch_size)

    network = qn.compile(model.eval(), qn.spec(len(test), 1, SIZE, SIZE))
    maps = 1 / (1 + np.exp(-network(test.images)))
    precision, recall = score(maps, test, threshold=0.3)
    print(f"of the finds {precision:.2%} are right, of the digits {recall:.2%} are found")
    print(f"{time.perf_counter() - begin:.1f} s in all")


if __name__ == "__main__":
    main()
