"""Trains a pre-activation ResNet-20 on handwritten digits.

    python examples/resnet_digits.py [--epochs 25] [--seed 0]

The network is the zoo's (He et al., Identity mappings in deep residual networks, 2016), the digits
are scikit-learn's, made 16×16 by linear interpolation, shifted and turned a little at random.
"""

from __future__ import annotations

import argparse
import time

import quern as qn
from quern import nn, optim
from quern.compiler.tensor import Tensor
from quern.frontends.zoo.resnet_arrangements import ArrangedResNet
from quern.runtime.data import load_splits


class DigitResNet(nn.Module):
    """image (N, 1, 8, 8) -> logits (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet = ArrangedResNet(3, "full_preactivation")

    def forward(self, image: Tensor) -> Tensor:
        larger = nn.functional.interpolate(image, 16, mode="bilinear")
        logits: Tensor = self.resnet(nn.functional.cat([larger] * 3, 1))
        return logits


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a ResNet-20 on handwritten digits.")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    begin = time.perf_counter()
    batch_size = 64
    data = load_splits("digits")
    steps = options.epochs * (len(data.train) // batch_size)
    qn.manual_seed(options.seed)
    schedule = optim.OneCycleLR(steps)
    optimizer = optim.SGD(0.1, momentum=0.9, weight_decay=5e-4, nesterov=True, schedule=schedule)
    trainer = qn.Trainer(
        DigitResNet(), loss="cross_entropy", optimizer=optimizer, seed=options.seed
    )
    trainer.fit(data.train, epochs=options.epochs, batch_size=batch_size)
    accuracy = trainer.evaluate(data.test, batch_size)["accuracy"]
    print(f"test accuracy {accuracy:.2%} ({round(accuracy * len(data.test))} of {len(data.test)})")
    print(f"{time.perf_counter() - begin:.1f} s in all")


if __name__ == "__main__":
    main()
