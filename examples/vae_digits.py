"""Learns a plane of handwritten digits, and draws digits from places in it.

    python examples/vae_digits.py [--epochs 60] [--seed 0]

A variational autoencoder (Kingma and Welling, 2014): the encoder says of each image which places
of a plane it could be at (a mean and a variance for each axis), a place is drawn, and the decoder
says from it how likely each pixel is black. What is made small is the number of nats that it takes
to tell an image in this way: those of its pixels, and those by which the places differ from
standard normal ones.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import quern as qn
from quern import nn, optim
from quern.compiler.tensor import Tensor
from quern.nn import functional as F
from quern.runtime.data import load_splits


class VAE(nn.Module):
    """Images (N, 64) to logits of their pixels (N, 64), means and log-variances (N, latent)."""

    def __init__(self, latent: int, hidden: int = 128) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, hidden), nn.ReLU())
        self.mean = nn.Linear(hidden, latent)
        self.log_variance = nn.Linear(hidden, latent)
        self.decoder = nn.Sequential(nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, 64))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.encoder(image)
        mean, log_variance = self.mean(h), self.log_variance(h)
        place = mean
        if self.training:
            place = mean + qn.exp(0.5 * log_variance) * qn.randn_like(mean)
        return self.decoder(place), mean, log_variance


def pixels(outputs: tuple[Tensor, Tensor, Tensor], image: Tensor) -> Tensor:
    """Nats of an image's pixels."""
    loss = F.binary_cross_entropy_with_logits(outputs[0], image, reduction="sum")
    return loss / image.shape[0]


def places(outputs: tuple[Tensor, Tensor, Tensor], image: Tensor) -> Tensor:
    """Nats between the places of an image and standard normal ones (their divergence)."""
    _, mean, log_variance = outputs
    return -0.5 * qn.sum(1 + log_variance - mean**2 - log_variance.exp()) / image.shape[0]


def show(image: np.ndarray) -> list[str]:
    """Lines of text that look like an image (8, 8) of numbers from 0 to 1."""
    return ["".join(" .:-=+*#%@"[int(9.99 * p)] * 2 for p in row) for row in image]


def main() -> None:
    parser = argparse.ArgumentParser(description="Learn a plane of digits.")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--latent", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    begin = time.perf_counter()
    data = load_splits("digits")
    train, test = (
        (part.inputs - part.inputs.min()).reshape(-1, 64) / np.ptp(part.inputs) for part in data
    )
    qn.manual_seed(options.seed)
    model = VAE(options.latent)
    trainer = qn.Trainer(
        model,
        loss={"pixels": pixels, "places": places},
        optimizer=optim.Adam(2e-3),
        seed=options.seed,
    )
    trainer.fit((train, train), epochs=options.epochs, batch_size=32)
    found = trainer.evaluate((test, test))
    print(
        f"of test images: {found['loss']:.2f} nats an image, "
        f"{found['pixels']:.2f} of them for pixels and {found['places']:.2f} for places"
    )

    decode = qn.compile(model.decoder, qn.spec(5, options.latent))
    for y in (1.2, 0.0, -1.2):
        row = np.zeros((5, options.latent), np.float32)
        row[:, :2] = [(x, y) for x in np.linspace(-1.5, 1.5, 5)]
        drawn = F.sigmoid(decode(row)).reshape(5, 8, 8)
        print(*("  ".join(line) for line in zip(*map(show, drawn), strict=True)), sep="\n")
    print(f"{time.perf_counter() - begin:.1f} s in all")


if __name__ == "__main__":
    main()
