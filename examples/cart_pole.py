"""Balances a pole on a cart, learned from falling over (proximal policy optimization).

    python examples/cart_pole.py [--rounds 160] [--seed 0]

One network says of a state how to push, left or right, another what the state is worth: -1 for
falling, less the later it comes, 0 for never. In each round 32 carts are pushed for 32 steps as the
first one says, by chance. What went better than the second one had expected is made likelier, but
not much in one round (Schulman et al., 2017; advantages as of Schulman et al., 2016).
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

import quern as qn
from quern import nn, optim
from quern.compiler.tensor import Tensor
from quern.nn import functional as F

Array = np.ndarray[Any, Any]
CARTS, STEPS, LONGEST = 32, 32, 500


def begin(count: int, rng: np.random.Generator) -> Array:
    """Carts in the middle of their tracks, poles upright but for a little."""
    return rng.uniform(-0.05, 0.05, (count, 4))


def push(state: Array, right: Array) -> tuple[Array, Array]:
    """The states after 0.02 s, and which poles have fallen or carts have left their tracks.

    Arguments:
        state: (N, 4): place and speed of the cart, angle and angular speed of the pole, in m and
            radians (Barto, Sutton and Anderson, 1983).
        right: (N,): 0 pushes to the left with 10 N, 1 to the right.
    """
    _, v, angle, spin = state.T
    cart, pole, half = 1.0, 0.1, 0.5
    sine, cosine = np.sin(angle), np.cos(angle)
    pull = (np.where(right, 10.0, -10.0) + pole * half * spin**2 * sine) / (cart + pole)
    inertia = half * (4 / 3 - pole * cosine**2 / (cart + pole))
    twist = (9.8 * sine - cosine * pull) / inertia
    speed_up = pull - pole * half * twist * cosine / (cart + pole)
    after = state + 0.02 * np.stack([v, speed_up, spin, twist], 1)
    return after, (np.abs(after[:, 0]) > 2.4) | (np.abs(after[:, 2]) > np.radians(12))


class Player(nn.Module):
    """States (N, 4) to logits of the two pushes (N, 2) and what the states are worth (N,)."""

    def __init__(self) -> None:
        super().__init__()
        self.policy, self.worth = (
            nn.Sequential(
                nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, n)
            )
            for n in (2, 1)
        )

    def forward(self, state: Tensor) -> tuple[Tensor, Tensor]:
        return self.policy(state), self.worth(state).squeeze(1)


def surprise(outputs: tuple[Tensor, Tensor], targets: tuple[Tensor, ...]) -> Tensor:
    """How much the pushes could be better, and the worths truer."""
    (logits, worth), (right, before, advantage, found) = outputs, targets
    now = F.log_softmax(logits, 1).gather(1, right.unsqueeze(1)).squeeze(1)
    ratio = (now - before).exp()
    gain = qn.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
    return F.mse_loss(worth, found) - gain.mean()


def play(
    read: Any, state: Array, rng: np.random.Generator
) -> tuple[Array, Array, tuple[Array, ...]]:
    """A round: the states after it, those in it (N, 4), and what is to be learned of them."""
    states, rights, logs, worths, falls = [], [], [], [], []
    for _ in range(STEPS):
        logits, worth = read(state.astype(np.float32))
        p = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
        right = (rng.random(CARTS) < p).astype(np.int64)
        states.append(state.astype(np.float32))
        rights.append(right)
        logs.append(np.log(np.where(right, p, 1 - p)))
        worths.append(worth)
        state, fallen = push(state, right)
        state[fallen] = begin(fallen.sum(), rng)
        falls.append(fallen)
    # Generalized advantages: a discount of 0.99, a weight of 0.95 for each further step.
    later, advantage, advantages = read(state.astype(np.float32))[1], np.zeros(CARTS), []
    for worth, fallen in zip(reversed(worths), reversed(falls), strict=True):
        better = np.where(fallen, -1.0, 0.99 * later) - worth
        advantage = better + np.where(fallen, 0.0, 0.99 * 0.95 * advantage)
        advantages.append(advantage)
        later = worth
    all_of = [np.concatenate(each) for each in (states, rights, logs, worths, advantages[::-1])]
    x, right, log, worth, advantage = all_of
    scaled = (advantage - advantage.mean()) / advantage.std()
    return state, x, (right, log, scaled, worth + advantage)


def balanced(read: Any, rng: np.random.Generator) -> float:
    """How many steps poles stand, on average, pushed as is likelier."""
    state, standing, steps = begin(CARTS, rng), np.ones(CARTS, bool), 0
    for _ in range(LONGEST):
        state, fallen = push(state, read(state.astype(np.float32))[0].argmax(1))
        standing &= ~fallen
        steps += standing.sum()
    return steps / CARTS


def main() -> None:
    parser = argparse.ArgumentParser(description="Balance a pole on a cart.")
    parser.add_argument("--rounds", type=int, default=160)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    start = time.perf_counter()
    qn.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    player = Player()
    schedule = optim.PolynomialLR(options.rounds * 10 * CARTS * STEPS // 256)
    optimizer = optim.Adam(1e-3, schedule=schedule, clip_grad_norm=0.5)
    trainer = qn.Trainer(player, loss=surprise, optimizer=optimizer, metrics={})
    read = qn.compile(player, qn.spec(CARTS, 4))
    state = begin(CARTS, rng)
    for number in range(1, options.rounds + 1):
        state, x, targets = play(read, state, rng)
        trainer.fit((x, targets), epochs=10, batch_size=256, quiet=True)
        read.load_state(player.state_dict())
        if number % max(options.rounds // 10, 1) == 0:
            stands = balanced(read, rng)
            print(f"round {number}: stands {stands:.0f} of {LONGEST} steps", flush=True)
    print(f"{time.perf_counter() - start:.1f} s in all")


if __name__ == "__main__":
    main()
