"""Pictures with several handwritten digits in them, and where they are.

Made from scikit-learn's 8×8 digits; those of the training pictures never occur in the others.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import numpy as np

from quern.runtime.data import load_splits

Array = np.ndarray[Any, Any]

SIZE = 32
CLASSES = 10
# Less than this share of full ink is background.
INK = 0.25


@dataclass(frozen=True)
class Canvases:
    """Pictures and what is in them.

    Arguments:
        images: (N, 1, SIZE, SIZE), float32.
        labels: (N, SIZE, SIZE), int64: the digit that a pixel is part of, or CLASSES.
        centers: for each picture, (row, column, digit) of each digit.
    """

    images: Array
    labels: Array
    centers: list[list[tuple[int, int, int]]]

    def __len__(self) -> int:
        return len(self.images)


def arguments(description: str) -> argparse.Namespace:
    """The arguments of a program that learns from canvases: epochs, seed, canvases."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--canvases", type=int, default=3000)
    return parser.parse_args()


def make(count: int, held_out: bool = False, seed: int = 0, digits: int = 4) -> Canvases:
    """Canvases with up to so many digits that do not touch.

    Arguments:
        count: of canvases.
        held_out: whether the digits are those to test with.
        seed: of what is placed where.
        digits: tried on each canvas; those that would touch another one are left out.
    """
    splits = load_splits("digits")
    source = splits.test if held_out else splits.train
    rng = np.random.default_rng(seed)
    images = np.zeros((count, 1, SIZE, SIZE), np.float32)
    labels = np.full((count, SIZE, SIZE), CLASSES, np.int64)
    centers: list[list[tuple[int, int, int]]] = [[] for _ in range(count)]
    ink = source.inputs.max()
    for n in range(count):
        for pick in rng.integers(0, len(source), digits):
            row, column = rng.integers(0, SIZE - 8, 2)
            center = (int(row) + 4, int(column) + 4, int(source.targets[pick]))
            if any(max(abs(center[0] - r), abs(center[1] - c)) < 9 for r, c, _ in centers[n]):
                continue
            place = slice(row, row + 8), slice(column, column + 8)
            images[n, 0][place] = source.inputs[pick, 0] / ink
            labels[n][place][images[n, 0][place] > INK] = center[2]
            centers[n].append(center)
    return Canvases(images, labels, centers)
