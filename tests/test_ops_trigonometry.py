"""Trigonometric and hyperbolic functions: values by NumPy, also where they are large or tiny."""

from __future__ import annotations

import numpy as np
import pytest
from op_cases import cases, positive, spread, value_of

from quern.compiler.ops import trigonometry as trig
from quern.compiler.ops.base import Op

X = spread((3, 4))
INSIDE = spread((3, 4), low=0.1, high=0.9)

CASES = [
    cases(trig.Tan(), np.tan, INSIDE),
    cases(trig.Atan(), np.arctan, X),
    cases(trig.Atan2(), np.arctan2, X, spread((4,), seed=1)),
    cases(trig.Asin(), np.arcsin, INSIDE),
    cases(trig.Acos(), np.arccos, INSIDE),
    cases(trig.Sinh(), np.sinh, X),
    cases(trig.Cosh(), np.cosh, X),
    cases(trig.Asinh(), np.arcsinh, X),
    cases(trig.Acosh(), np.arccosh, positive((3, 4), low=1.2, high=3.0)),
    cases(trig.Atanh(), np.arctanh, INSIDE),
]


@pytest.mark.parametrize(
    ("op", "exact"),
    [
        (trig.Atan(), np.arctan),
        (trig.Sinh(), np.sinh),
        (trig.Cosh(), np.cosh),
        (trig.Asinh(), np.arcsinh),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_whole_range(op: Op, exact: np.ufunc, dtype: type) -> None:
    """From the smallest normal numbers to infinity, a few ULP from what float64 gives."""
    limits = np.finfo(dtype)
    top = 88.0 if isinstance(op, trig.Sinh | trig.Cosh) else float(limits.max) / 4
    magnitudes = np.geomspace(float(limits.tiny), top, 400)
    x = np.concatenate([-magnitudes, [0.0], magnitudes, [np.inf, -np.inf, np.nan]]).astype(dtype)
    expected = exact(x.astype(np.float64))
    np.testing.assert_allclose(value_of(op, x), expected, rtol=40 * float(limits.eps))


@pytest.mark.parametrize(
    ("op", "x", "expected"),
    [
        (trig.Asin(), [-1.0, 0.0, 1.0, 1.5], [-np.pi / 2, 0.0, np.pi / 2, np.nan]),
        (trig.Acos(), [-1.0, 0.0, 1.0, 1.5], [np.pi, np.pi / 2, 0.0, np.nan]),
        (
            trig.Acosh(),
            [1.0, 0.5, 1e30, np.inf, -1e30],
            [0.0, np.nan, np.arccosh(1e30), np.inf, np.nan],
        ),
        (trig.Atanh(), [-1.0, 0.0, 1.0, 1.5], [-np.inf, 0.0, np.inf, np.nan]),
    ],
    ids=str,
)
def test_ends_of_the_domain(op: Op, x: list[float], expected: list[float]) -> None:
    np.testing.assert_allclose(value_of(op, np.array(x)), expected, rtol=1e-14)
