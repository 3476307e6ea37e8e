"""The matrices of minimal filtering algorithms F(m, r): m outputs of r taps by m + r - 1
products, not m · r (S. Winograd, Arithmetic Complexity of Computations, 1980; for networks: A.
Lavin and S. Gray, Fast Algorithms for Convolutional Neural Networks, 2015, section 4).

    y = inverse @ ((filter @ g) * (data @ d))

They follow from multiplying polynomials by way of their values at m + r - 1 points (Toom-Cook). The
points decide how errors grow: 0, ±5/8, ±3/2 lose a third of what 0, ±1, ±2 lose, because their
powers stay near 1, and they are as exact in binary.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np

from ..types import Array

Matrix = tuple[tuple[Fraction, ...], ...]

# Finite points by the number of all of them; another one is infinity.
POINTS = {
    4: (Fraction(0), Fraction(1), Fraction(-1)),
    6: (Fraction(0), Fraction(5, 8), Fraction(-5, 8), Fraction(3, 2), Fraction(-3, 2)),
}
TAPS = 3


@dataclass(frozen=True)
class Transforms:
    """Exact matrices of F(m, r), with n = m + r - 1.

    Arguments:
        filter: (n, r), of the weights.
        data: (n, n), of what is read.
        inverse: (m, n), of the products.
    """

    filter: Matrix
    data: Matrix
    inverse: Matrix


@cache
def transforms(outputs: int, taps: int = TAPS) -> Transforms:
    """The matrices of F(outputs, taps): (2, 3), (4, 3) or (2, 5).

    A polynomial's value at infinity is its leading coefficient.
    """
    count = outputs + taps - 1
    points = POINTS[count]
    scales = [_at(_product(points, i), point) for i, point in enumerate(points)]
    infinite_tap = tuple(Fraction(k == taps - 1) for k in range(taps))
    filter = (
        *(tuple(p**k / s for k in range(taps)) for p, s in zip(points, scales, strict=True)),
        infinite_tap,
    )
    data = (*((*_product(points, i), Fraction(0)) for i in range(len(points))), _product(points))
    inverse = tuple((*(p**i for p in points), Fraction(i == outputs - 1)) for i in range(outputs))
    assert all(len(row) == count for row in (*data, *inverse))
    return Transforms(filter, data, inverse)


def as_array(matrix: Matrix) -> Array:
    """The matrix in float64."""
    return np.array([[float(x) for x in row] for row in matrix])


def _product(points: tuple[Fraction, ...], left_out: int | None = None) -> tuple[Fraction, ...]:
    """Coefficients of the product of (x - point) over all points but one, the constant first."""
    result = [Fraction(1)]
    for i, point in enumerate(points):
        if i != left_out:
            shifted = [Fraction(0), *result]
            result = [s - point * r for s, r in zip(shifted, [*result, Fraction(0)], strict=True)]
    return tuple(result)


def _at(polynomial: tuple[Fraction, ...], x: Fraction) -> Fraction:
    """The value of a polynomial."""
    return sum((c * x**k for k, c in enumerate(polynomial)), Fraction(0))
