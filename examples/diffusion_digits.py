"""Draws handwritten digits out of noise, in a hundred small steps.

    python examples/diffusion_digits.py [--epochs 200] [--seed 0]

A denoising diffusion model (Ho et al., 2020): images are mixed with noise, more and more of it in
each of T steps, and a network learns to tell the noise in a mixture when it is told the step and
the digit. From noise alone it then goes back step by step; what it takes for noise is taken away,
and a little new noise is added. It draws with a moving average of its weights. A classifier that
has only seen real digits says of how many drawn ones it is sure that they are what was asked for.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from vae_digits import show

import quern as qn
from quern import nn, optim
from quern.compiler.tensor import Tensor
from quern.nn import functional as F
from quern.runtime.data import load_splits

T = 100
BETA = np.linspace(1e-3, 0.1, T).astype(np.float32)  # share of new noise in each step
KEPT = np.cumprod(1 - BETA)  # share of the image's own variance after each step


class Denoiser(nn.Module):
    """Mixtures (N, 64), steps (N,) and digits (N,) to the noise in them (N, 64)."""

    def __init__(self, hidden: int = 256) -> None:
        super().__init__()
        self.step, self.digit = nn.Embedding(T, hidden), nn.Embedding(10, hidden)
        self.inward = nn.Linear(64, hidden)
        self.layers = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(3))
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(3))
        self.outward = nn.Linear(hidden, 64)

    def forward(self, x: Tensor, step: Tensor, digit: Tensor) -> Tensor:
        h = self.inward(x)
        told = self.step(step) + self.digit(digit)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            h = h + layer(F.silu(norm(h + told)))
        noise: Tensor = self.outward(h)
        return noise


class Mixing(nn.Module):
    """Images (N, 64) and digits (N,) to how wrong the denoiser is at steps drawn at random."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.register_buffer("kept", KEPT)

    def forward(self, image: Tensor, digit: Tensor) -> Tensor:
        step = qn.randint(0, T, (image.shape[0],))
        kept, noise = self.kept[step].unsqueeze(1), qn.randn_like(image)
        mixture = kept.sqrt() * image + (1 - kept).sqrt() * noise
        return F.mse_loss(self.denoiser(mixture, step, digit), noise)


def draw(denoiser: Denoiser, digit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An image (N, 64) from -1 to 1 for each digit (N,)."""
    x = rng.standard_normal((len(digit), 64)).astype(np.float32)
    steps = qn.spec(digit)
    denoise = qn.compile(denoiser.eval(), qn.spec(x), steps, steps)
    for t in reversed(range(T)):
        noise = denoise(x, np.full(len(digit), t), digit)
        x = (x - BETA[t] / np.sqrt(1 - KEPT[t]) * noise) / np.sqrt(1 - BETA[t])
        if t:
            x += np.sqrt(BETA[t]) * rng.standard_normal(x.shape).astype(np.float32)
    return x.clip(-1, 1)


def sure(judge: qn.Trainer, images: np.ndarray, digit: np.ndarray) -> float:
    """The share of images to whose digits the judge gives a probability of 0.9 at least."""
    logits = judge.predict(images).astype(np.float64)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return float((p[range(len(digit)), digit] >= 0.9).mean())


def as_rows(images: Any) -> np.ndarray:
    """Images as rows of 64 numbers from -1 to 1."""
    return (images - images.min()).reshape(-1, 64) * (2 / np.ptp(images)) - 1


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw digits out of noise.")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    begin = time.perf_counter()
    train, test = load_splits("digits")
    real, digits = as_rows(train.inputs), train.targets
    qn.manual_seed(options.seed)
    model = Mixing(Denoiser())
    trainer = qn.Trainer(
        model,
        loss=lambda loss, _: loss,
        optimizer=optim.Adam(1e-3),
        metrics={},
        average=0.999,
        seed=options.seed,
    )
    trainer.fit(((real, digits), digits), epochs=options.epochs, batch_size=64)
    model.load_state_dict(trainer.averaged_state_dict())

    digit = np.tile(np.arange(10), 50)
    images = draw(model.denoiser, digit, np.random.default_rng(options.seed))
    for row in images[:10].reshape(2, 5, 8, 8):
        pictures = map(show, (row + 1) / 2)
        print(*("  ".join(line) for line in zip(*pictures, strict=True)), sep="\n")

    network = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    judge = qn.Trainer(network, loss="cross_entropy", optimizer=optim.Adam(1e-3))
    judge.fit((real, digits), epochs=30, batch_size=32, quiet=True)
    print(
        f"the judge is sure of {sure(judge, images, digit):.1%} of {len(digit)} drawn digits, of "
        f"{sure(judge, as_rows(test.inputs), test.targets):.1%} of the real test digits"
    )
    print(f"{time.perf_counter() - begin:.1f} s in all")


if __name__ == "__main__":
    main()
