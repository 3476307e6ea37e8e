"""Error and gamma functions: values by SciPy, which comes with scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from op_cases import cases, positive, spread, value_of

from quern.compiler.ops import special as sp
from quern.compiler.ops.base import Op
from quern.compiler.types import Array

exact = pytest.importorskip("scipy.special")

X = spread((3, 4))
INSIDE = spread((3, 4), low=0.1, high=0.9)
RIGHT = positive((3, 4), low=0.6, high=12.0)
LEFT = -positive((3, 4), low=0.1, high=0.4) - np.arange(3).reshape(3, 1)


def trigamma(x: Array) -> Any:
    return exact.polygamma(1, x)


CASES = [
    cases(sp.Erfc(), exact.erfc, X),
    cases(sp.Erfinv(), exact.erfinv, INSIDE),
    cases(sp.Lgamma(), exact.gammaln, RIGHT),
    cases(sp.Lgamma(), exact.gammaln, LEFT),
    cases(sp.Digamma(), exact.digamma, RIGHT),
    cases(sp.Digamma(), exact.digamma, LEFT),
    cases(sp.Trigamma(), trigamma, RIGHT, rounds=1),
]


@pytest.mark.parametrize(
    ("op", "expected", "x"),
    [
        (sp.Erfc(), exact.erfc, np.linspace(-6, 9, 301)),
        (sp.Erfinv(), exact.erfinv, np.linspace(-0.9999, 0.9999, 201)),
        (sp.Erfinv(), exact.erfinv, np.geomspace(1e-30, 1e-2, 50)),
        (sp.Lgamma(), exact.gammaln, np.linspace(-9.98, 12.02, 203)),
        (sp.Lgamma(), exact.gammaln, np.geomspace(1e-30, 1e30, 100)),
        (sp.Digamma(), exact.digamma, np.linspace(-9.98, 12.02, 203)),
        (sp.Digamma(), exact.digamma, np.geomspace(1e-10, 1e30, 100)),
        (sp.Trigamma(), trigamma, np.geomspace(1e-10, 1e10, 100)),
    ],
)
def test_whole_range(op: Op, expected: Callable[[Array], Array], x: Array) -> None:
    """In float32 to one ULP, in float64 to a few of the largest number on the way."""
    narrow = x.astype(np.float32)
    right = expected(narrow.astype(np.float64))
    np.testing.assert_allclose(value_of(op, narrow), right, rtol=1.2e-7)
    np.testing.assert_allclose(value_of(op, x), expected(x), rtol=2e-13, atol=1e-14)


@pytest.mark.parametrize(
    ("op", "x", "y"),
    [
        (sp.Erfc(), [0.0, np.inf, -np.inf, np.nan], [1.0, 0.0, 2.0, np.nan]),
        (sp.Erfinv(), [0.0, 1.0, -1.0, 1.5, np.nan], [0.0, np.inf, -np.inf, np.nan, np.nan]),
        (sp.Lgamma(), [0.0, -1.0, -7.0, np.inf, -np.inf, np.nan], [np.inf] * 5 + [np.nan]),
        (
            sp.Digamma(),
            [0.0, -1.0, -7.0, np.inf, np.nan],
            [-np.inf, np.nan, np.nan, np.inf, np.nan],
        ),
    ],
    ids=str,
)
def test_ends_of_the_domain(op: Op, x: list[float], y: list[float]) -> None:
    np.testing.assert_array_equal(value_of(op, np.array(x)), y)
