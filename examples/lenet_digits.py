"""Trains a LeNet on handwritten digits, writes it as a compiled file and as a picture.

    python examples/lenet_digits.py [--epochs 30] [--seed 0] [--output FOLDER]

The digits are scikit-learn's: 1,797 real 8×8 images, a fixed 20 % of them to test with. It leaves
`lenet.qn`, which `quern run` and `qn.load` take, and `lenet.svg`, the network with its gradients.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import quern as qn
from quern import nn, optim
from quern.compiler.autodiff import differentiate
from quern.compiler.graph import Graph
from quern.compiler.tensor import Tensor
from quern.runtime.data import load_splits


class LeNet(nn.Module):
    """Two convolutions with pooling and two linear layers (LeCun et al., 1998), for 8×8 images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(256, 128)
        self.relu3 = nn.ReLU()
        self.dropout = nn.Dropout(0.5)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.pool1(self.relu1(self.conv1(image)))
        x = self.pool2(self.relu2(self.conv2(x)))
        x = self.relu3(self.fc1(self.flatten(x)))
        return self.fc2(self.dropout(x))


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a LeNet on handwritten digits.")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path())
    options = parser.parse_args()

    begin = time.perf_counter()
    batch_size = 32
    data = load_splits("digits")
    steps = options.epochs * (len(data.train) // batch_size)

    qn.manual_seed(options.seed)
    model = LeNet()
    optimizer = optim.Adam(3e-3, schedule=optim.OneCycleLR(steps))
    trainer = qn.Trainer(model, loss="cross_entropy", optimizer=optimizer, seed=options.seed)
    trainer.fit(data.train, epochs=options.epochs, batch_size=batch_size)

    accuracy = trainer.evaluate(data.test, batch_size)["accuracy"]
    right = round(accuracy * len(data.test))
    print(f"test accuracy {accuracy:.2%} ({right} of {len(data.test)} images)")

    options.output.mkdir(parents=True, exist_ok=True)
    compiled = trainer.save(options.output / "lenet.qn")
    image, label = data.test.inputs[:1], data.test.targets[0]
    guess = qn.load(compiled)(image).argmax()
    print(f"wrote {compiled}, which takes the first test image, a {label}, for a {guess}")

    picture = options.output / "lenet.svg"
    qn.draw(with_gradients(model), picture)
    print(f"wrote {picture}, the network with its gradients")
    print(f"{time.perf_counter() - begin:.1f} s in all")


def with_gradients(model: nn.Module) -> Graph:
    """The forward and backward graph of a batch."""

    def network(image: Tensor, target: Tensor) -> dict[str, Tensor]:
        return {"loss": nn.functional.cross_entropy(model(image), target)}

    types = qn.spec(32, 1, 8, 8), qn.spec(32, dtype="int64")
    return differentiate(qn.trace(network, *types, training=True, name="LeNet"), "loss")


if __name__ == "__main__":
    main()
