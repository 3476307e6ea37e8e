"""Recurrent layers in NumPy, one sequence and one step at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from quern.compiler.types import Array

STEPS, BATCH, INPUT, HIDDEN = 7, 3, 4, 5
LENGTHS = np.array([4, 7, 1])
KINDS = ("RNN", "LSTM", "GRU")


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


Step = Callable[[Array, list[Array], dict[str, Array]], list[Array]]


def layers_numpy(
    step: Step,
    state: dict[str, Array],
    x: Array,
    states: list[Array],
    layers: int,
    directions: int,
    lengths: Array,
) -> tuple[Array, list[Array]]:
    """Output (T, B, *) and final states (layers * directions, B, *), all in float64."""
    finals = [s.astype(np.float64) for s in states]
    for layer in range(layers):
        outputs = []
        for direction, way in enumerate(("", "_reverse")[:directions]):
            suffix = f"_l{layer}{way}"
            w = {k: state[k + suffix].astype(np.float64) for k in ("weight_ih", "weight_hh")}
            w |= {"bias": state["bias_ih" + suffix], "bias_h": state["bias_hh" + suffix]}
            if "weight_peephole" + suffix in state:
                w["peephole"] = state["weight_peephole" + suffix]
            place = layer * directions + direction
            output = np.zeros((*x.shape[:2], finals[0].shape[-1]))
            for b, length in enumerate(lengths):
                now = [s[place, b] for s in finals]
                for t in range(length)[:: -1 if direction else 1]:
                    now = step(x[t, b].astype(np.float64), now, w)
                    output[t, b] = now[0]
                for s, new in zip(finals, now, strict=True):
                    s[place, b] = new
            outputs.append(output)
        x = np.concatenate(outputs, axis=2)
    return x, finals


def initial(kind: str, places: int) -> list[Array]:
    count = 2 if kind == "LSTM" else 1
    return [random(places, BATCH, HIDDEN, seed=10 + i) for i in range(count)]


def hx_of(states: list[Any]) -> Any:
    return tuple(states) if len(states) > 1 else states[0]


def flat(result: Any) -> list[Any]:
    """Output and final states."""
    output, last = result
    return [output, *(last if isinstance(last, tuple) else (last,))]


def assert_close(found: Array, expected: Array, what: str = "", tolerance: float = 1e-5) -> None:
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale, err_msg=what)
