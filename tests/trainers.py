"""Small networks and data to train on."""

from __future__ import annotations

from typing import Any

import numpy as np

import quern as qn
from quern import nn, optim

Array = np.ndarray[Any, Any]


def spirals(rows: int = 96, seed: int = 0) -> tuple[Array, Array]:
    """Three classes of points in the plane that no line separates."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, rows)
    radius = rng.uniform(0.1, 1.0, rows)
    angle = 4 * radius + labels * 2 * np.pi / 3
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    return points.astype(np.float32), labels


def small_net(seed: int = 0) -> nn.Sequential:
    qn.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 24), nn.ReLU(), nn.Linear(24, 3))


def stateful_net(seed: int = 0) -> nn.Sequential:
    """Everything that keeps state of its own: batch norm, dropout, weights."""
    qn.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(2, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.2), nn.Linear(24, 3)
    )


def trainer(model: nn.Module | None = None, **options: Any) -> qn.Trainer:
    options = {"loss": "cross_entropy", "optimizer": optim.SGD(0.5), **options}
    return qn.Trainer(model or small_net(), **options)


def contents(module: nn.Module) -> dict[str, Array]:
    return {name: array.copy() for name, array in module.state_dict().items()}


def assert_same_bits(a: dict[str, Array], b: dict[str, Array]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].tobytes() == b[name].tobytes(), name
