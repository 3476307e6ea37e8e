"""Activations that leave out what is small, and gates: formulas, gradients, mistakes."""

from __future__ import annotations

import numpy as np
import pytest
from op_cases import cases, spread, value_of

from quern.compiler.errors import DTypeError, ShapeError
from quern.compiler.ops import shrink

X = spread((2, 3, 4), high=3.3)

CASES = [
    cases(shrink.Threshold(0.7, -2.0), lambda x: np.where(x > 0.7, x, -2), X),
    cases(shrink.HardShrink(), lambda x: np.where(np.abs(x) > 0.5, x, 0), X),
    cases(shrink.SoftShrink(0.8), lambda x: np.sign(x) * np.maximum(np.abs(x) - 0.8, 0), X),
    cases(shrink.TanhShrink(), lambda x: x - np.tanh(x), X),
    cases(shrink.Celu(), lambda x: np.where(x > 0, x, np.exp(x) - 1), X),
    cases(shrink.Celu(0.6), lambda x: np.where(x > 0, x, 0.6 * (np.exp(x / 0.6) - 1)), X),
    cases(shrink.Glu(0), lambda x: x[:1] / (1 + np.exp(-x[1:])), X),
    cases(shrink.Glu(2), lambda x: x[..., :2] / (1 + np.exp(-x[..., 2:])), X),
]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ShapeError, match="axis of even extent, got float64\\[2, 3, 4\\]"):
        value_of(shrink.Glu(1), X)
    with pytest.raises(ShapeError, match="axis of even extent"):
        value_of(shrink.Glu(3), X)
    with pytest.raises(DTypeError):
        value_of(shrink.Celu(), X.astype(int))
