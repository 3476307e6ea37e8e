"""Changes the pixels of digits a little so that a network no longer knows them, and hardens one.

    python examples/fool_digits.py [--epochs 20] [--seed 0]

The fast gradient sign method (Goodfellow et al., 2015): every pixel moves by a small step in the
direction that makes the loss of the true digit larger, which is the sign of the loss's gradient by
the image. A second network of the same kind learns from such images of its own, made anew in each
step of its training: there the gradient by the image is a part of what is learned from. The same
gradient, of one logit, says which pixels an answer depends on (Simonyan et al., 2014).
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from vae_digits import show

import quern as qn
from quern import nn, optim
from quern.compiler.tensor import Tensor
from quern.nn import functional as F
from quern.runtime.data import load_splits


class Classifier(nn.Sequential):
    """Images (N, 1, 8, 8) to logits (N, 10)."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * 16, 10),
        )


class Attack(nn.Module):
    """Images (N, 1, 8, 8) from 0 to 1 and their digits (N,) to images that are harder to know."""

    def __init__(self, classifier: nn.Module, size: float) -> None:
        super().__init__()
        self.classifier, self.size = classifier, size

    def forward(self, image: Tensor, digit: Tensor) -> Tensor:
        loss = F.cross_entropy(self.classifier(image), digit)
        (slope,) = qn.autograd.grad(loss, image)
        return (image + self.size * slope.sign()).clamp(0, 1)


class Hardened(nn.Module):
    """The logits of images and of attacks on them, which the classifier is to know as well."""

    def __init__(self, classifier: nn.Module, size: float) -> None:
        super().__init__()
        self.classifier, self.attack = classifier, Attack(classifier, size)

    def forward(self, image: Tensor, digit: Tensor) -> tuple[Tensor, Tensor]:
        return self.classifier(image), self.classifier(self.attack(image, digit))


def saliency(classifier: nn.Module) -> qn.Graph:
    """The graph that gives, for an image, the slope of its largest logit by each pixel."""

    def largest(image: Tensor) -> Tensor:
        logits: Tensor = classifier(image)
        return logits.amax(1)

    return qn.grad(qn.trace(largest, qn.spec(1, 1, 8, 8)), wrt="image")


def main() -> None:
    parser = argparse.ArgumentParser(description="Fool a network that reads digits.")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--size", type=float, default=0.1, help="of the step, of 1 for black")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    begin = time.perf_counter()
    data = load_splits("digits")
    low, height = data.train.inputs.min(), np.ptp(data.train.inputs)
    train, test = ((part.inputs - low) / height for part in data)
    digits, truth = data.train.targets, data.test.targets
    qn.manual_seed(options.seed)

    plain, hardened = Classifier(), Classifier()
    trainer = qn.Trainer(plain, loss="cross_entropy", optimizer=optim.Adam(2e-3))
    trainer.fit((train, digits), epochs=options.epochs, batch_size=32)
    trainer = qn.Trainer(
        Hardened(hardened, options.size),
        loss=lambda two, digit: F.cross_entropy(two[0], digit) + F.cross_entropy(two[1], digit),
        optimizer=optim.Adam(2e-3),
        metrics={},
    )
    trainer.fit(((train, digits), digits), epochs=options.epochs, batch_size=32)

    types = qn.spec(*test.shape), qn.spec(len(test), dtype="int64")
    for name, network in (("plain", plain), ("hardened", hardened)):
        network.eval()
        read = qn.compile(network, types[0])
        fooling = qn.compile(Attack(network, options.size), *types)(test, truth)
        known, fooled = ((read(x).argmax(1) == truth).mean() for x in (test, fooling))
        print(f"{name}: knows {known:.1%} of the test digits, {fooled:.1%} after the attack")
        _, slope = qn.compile(saliency(network))(test[:1])
        importance = np.abs(slope[0, 0]) / np.abs(slope).max()
        pictures = map(show, (test[0, 0], fooling[0, 0], importance))
        print(*("    ".join(line) for line in zip(*pictures, strict=True)), sep="\n")
    print(f"{time.perf_counter() - begin:.1f} s in all")


if __name__ == "__main__":
    main()
