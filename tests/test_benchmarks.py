"""Benchmarks measure this project by its own parts: they have to go on working with them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("training")
    for name in ("training", "common"):
        sys.modules.pop(name, None)


def test_a_step_of_training_is_what_its_graph_says(training: Any) -> None:
    ours = training.Quern("lenet28", 2, threads=1)
    before = {k: v.copy() for k, v in ours.parameters().items()}
    losses = [ours.step() for _ in range(3)]
    assert np.all(np.isfinite(losses))
    assert losses[-1] < losses[0]
    assert all(np.any(v != before[k]) for k, v in ours.parameters().items())
    assert ours.planned > 1
