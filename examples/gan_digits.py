"""A network draws digits, and learns it from a second one that tells them from real ones.

    python examples/gan_digits.py [--steps 3000] [--seed 0]

A conditional generative adversarial network (Goodfellow et al., 2014; Mirza and Osindero, 2014): in
turns, the discriminator learns to tell real images of a digit from drawn ones, and the generator to
draw what the discriminator takes for real; its gradients come through the discriminator, which
stays as it is meanwhile. Two trainers share the modules. A classifier that has only seen real
digits says at last how many of the drawn ones are the digit that was asked for.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from vae_digits import show

import quern as qn
from quern import nn, optim
from quern.compiler.tensor import Tensor
from quern.runtime.data import load_splits

NOISE = 16


class Generator(nn.Module):
    """Noise (N, NOISE) and digits (N,) to images (N, 64) from 0 to 1."""

    def __init__(self, hidden: int = 128) -> None:
        super().__init__()
        self.digit = nn.Embedding(10, NOISE)
        self.layers = nn.Sequential(
            nn.Linear(2 * NOISE, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, 64),
            nn.Sigmoid(),
        )

    def forward(self, noise: Tensor, digit: Tensor) -> Tensor:
        image: Tensor = self.layers(qn.cat([noise, self.digit(digit)], dim=1))
        return image


class Discriminator(nn.Module):
    """Images (N, 64) and what digit they should be (N,) to logits (N,) of being real."""

    def __init__(self, hidden: int = 128) -> None:
        super().__init__()
        self.digit = nn.Embedding(10, 16)
        self.layers = nn.Sequential(
            nn.Linear(64 + 16, hidden),
            nn.LeakyReLU(0.2),
            nn.Dropout(0.3),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(0.2),
            nn.Dropout(0.3),
            nn.Linear(hidden, 1),
        )

    def forward(self, image: Tensor, digit: Tensor) -> Tensor:
        logit: Tensor = self.layers(qn.cat([image, self.digit(digit)], dim=1))
        return logit.squeeze(1)


class Adversaries(nn.Module):
    """What the discriminator says of what the generator draws."""

    def __init__(self, generator: Generator, discriminator: Discriminator) -> None:
        super().__init__()
        self.generator, self.discriminator = generator, discriminator

    def forward(self, noise: Tensor, digit: Tensor) -> Tensor:
        logit: Tensor = self.discriminator(self.generator(noise, digit), digit)
        return logit


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw digits with an adversary's help.")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    begin = time.perf_counter()
    data = load_splits("digits").train
    real = (data.inputs - data.inputs.min()).reshape(-1, 64) / np.ptp(data.inputs)
    qn.manual_seed(options.seed)
    generator, discriminator = Generator(), Discriminator()
    optimizer, loss = optim.Adam(5e-4, betas=(0.5, 0.999)), nn.BCEWithLogitsLoss()
    critic = qn.Trainer(discriminator, loss=loss, optimizer=optimizer)
    artist = qn.Trainer(
        Adversaries(generator, discriminator),
        loss=loss,
        optimizer=optimizer,
        parameters=generator.parameters(),
    )

    n, rng = options.batch, np.random.default_rng(options.seed)
    draw = qn.compile(generator.train(), qn.spec(n, NOISE), qn.spec(n, dtype="int64"))
    for step in range(1, options.steps + 1):
        chosen = rng.integers(0, len(real), n)
        digit = data.targets[chosen]
        noise = rng.standard_normal((n, NOISE)).astype(np.float32)
        draw.load_state(generator.state_dict())
        images = np.concatenate([real[chosen], draw(noise, digit)])
        truth = np.repeat(np.float32([0.9, 0.0]), n)  # one-sided label smoothing
        told = critic.step((images, np.tile(digit, 2)), truth)["loss"]
        drawn = artist.step((noise, digit), np.ones(n, np.float32))["loss"]
        if step % (options.steps // 6) == 0:
            print(f"step {step}: discriminator {told:.3f}, generator {drawn:.3f}", flush=True)

    digit = np.tile(np.arange(10), 100)
    noise = rng.standard_normal((len(digit), NOISE)).astype(np.float32)
    generator.eval()
    images = generator(noise, digit)
    judge = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    trainer = qn.Trainer(judge, loss="cross_entropy", optimizer=optim.Adam(1e-3))
    trainer.fit((real, data.targets), epochs=30, batch_size=32, quiet=True)
    right = (trainer.predict(images).argmax(1) == digit).mean()
    pictures = map(show, images[:5].reshape(-1, 8, 8))
    print(*("  ".join(line) for line in zip(*pictures, strict=True)), sep="\n")
    print(f"{right:.1%} of 1000 drawn digits are taken for what they should be")
    print(f"{time.perf_counter() - begin:.1f} s in all")


if __name__ == "__main__":
    main()
