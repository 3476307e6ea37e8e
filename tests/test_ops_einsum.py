"""Einstein sums and resizing."""

from __future__ import annotations

import numpy as np
import pytest
from op_cases import Case, cases, spread, value_of

from quern.compiler.errors import ShapeError
from quern.compiler.ops import einsum
from quern.compiler.ops.resize import Coordinates, Interpolation, Nearest, Resize
from quern.compiler.types import Array

A, B, C = spread((2, 3, 4)), spread((2, 4, 5), seed=1), spread((5,), seed=2)
SQUARE = spread((3, 3, 2), seed=3)


def sums(equation: str, *inputs: Array) -> Case:
    return cases(einsum.Einsum(equation), lambda *x: np.einsum(equation, *x), *inputs)


IMAGE = spread((1, 2, 4, 6))
PIXELS = np.arange(12.0).reshape(1, 1, 3, 4)
LINEAR, CUBIC = Interpolation.LINEAR, Interpolation.CUBIC


def bilinear(x: Array, height: int, width: int) -> Array:
    """By the formula, pixel by pixel, with half-pixel centres."""
    y = np.zeros((*x.shape[:2], height, width))
    for i, j in np.ndindex(height, width):
        for axis_weights in _corners(x.shape[2], height, i):
            for other in _corners(x.shape[3], width, j):
                part = x[:, :, axis_weights[0], other[0]]
                y[:, :, i, j] += axis_weights[1] * other[1] * part
    return y


def _corners(extent: int, size: int, i: int) -> list[tuple[int, float]]:
    at = (i + 0.5) * extent / size - 0.5
    low = int(np.floor(at))
    pairs = [(low, low + 1 - at), (low + 1, at - low)]
    return [(min(max(p, 0), extent - 1), w) for p, w in pairs]


def antialiased(kind: Interpolation, sizes: tuple[int, int], scales: tuple[float, float]) -> Case:
    """Both spatial axes, by a matrix for each that is filled weight by weight (as Pillow's)."""
    op = Resize((2, 3), sizes, scales, kind, cubic=-0.5, exclude_outside=True, antialias=True)

    def expected(x: Array) -> Array:
        axes = zip(x.shape[2:], sizes, scales, strict=True)
        rows, columns = (_widened(kind, *axis) for axis in axes)
        return np.asarray(np.einsum("ah,bw,nchw->ncab", rows, columns, x))

    return cases(op, expected, IMAGE)


def _widened(kind: Interpolation, extent: int, size: int, scale: float) -> Array:
    """Weights (size, extent): a kernel as wide as the step, inside the image, of sum one."""
    matrix = np.zeros((size, extent))
    for o, i in np.ndindex(size, extent):
        d = abs(i + 0.5 - (o + 0.5) / scale) * min(scale, 1.0)
        if kind is LINEAR:
            matrix[o, i] = max(0.0, 1 - d)
        elif d < 1:
            matrix[o, i] = 1.5 * d**3 - 2.5 * d**2 + 1
        elif d < 2:
            matrix[o, i] = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    return np.asarray(matrix / matrix.sum(1, keepdims=True))


CASES = [
    sums("bij,bjk->bik", A, B),
    sums("bij,bjk,k->b", A, B, C),
    sums("iij->ij", SQUARE),
    sums("iij->j", SQUARE),
    sums("ij,jk", A[0], B[0]),
    sums("...ij,...jk->...ik", A, B[0]),
    sums("i,j->ij", C, C),
    sums("ijk->", A),
    cases(Resize((2, 3), (8, 12), (2.0, 2.0)), lambda x: x.repeat(2, 2).repeat(2, 3), IMAGE),
    cases(
        Resize((2, 3), (6, 9), (1.5, 1.5), LINEAR), lambda x: bilinear(x, 6, 9), IMAGE,
    ),
    cases(
        Resize((2, 3), (2, 3), (0.5, 0.5), LINEAR), lambda x: bilinear(x, 2, 3), IMAGE,
    ),
    cases(  # half the size, widened: every element counts by its distance
        Resize((3,), (3,), (0.5,), LINEAR, antialias=True), lambda x: _tents(x), IMAGE,
    ),
    *(
        antialiased(kind, sizes, scales)
        for kind in (LINEAR, CUBIC)
        for sizes, scales in (
            ((8, 1), (2.0, 1 / 6)),
            ((8, 1), (2.0, 0.3)),
            ((1, 9), (0.25, 1.5)),
            ((2, 3), (0.6, 0.5)),
        )
    ),
    cases(
        Resize((3,), (6,), (1.0,), CUBIC, Coordinates.ALIGN_CORNERS), lambda x: x, IMAGE,
    ),
]  # fmt: skip


def _tents(x: Array) -> Array:
    """Weights 1, 3, 3, 1 over four neighbours, at the borders over three."""
    y = np.zeros((*x.shape[:3], 3))
    for o in range(3):
        at = 2 * o + 0.5
        weights = np.maximum(0.0, 1.0 - abs(np.arange(-2, 8) - at) / 2)
        inside = x[..., np.clip(np.arange(-2, 8), 0, 5)]
        y[..., o] = (inside * weights).sum(-1) / weights.sum()
    return y


def test_a_cubic_goes_through_cubic_data_exactly() -> None:
    """Keys' kernel with a = -1/2 reproduces quadratic polynomials away from the borders."""
    x = (np.arange(12.0) ** 2)[None]
    y = value_of(Resize((1,), (24,), (2.0,), CUBIC, cubic=-0.5), x)
    places = (np.arange(24) + 0.5) / 2 - 0.5
    np.testing.assert_allclose(y[0, 4:-4], (places**2)[4:-4], rtol=1e-12)


@pytest.mark.parametrize(
    ("nearest", "expected"),
    [
        (Nearest.FLOOR, [0, 0, 1, 1, 2, 2, 3, 3]),
        (Nearest.CEIL, [0, 1, 1, 2, 2, 3, 3, 3]),
        (Nearest.ROUND_PREFER_FLOOR, [0, 0, 1, 1, 2, 2, 3, 3]),
        (Nearest.ROUND_PREFER_CEIL, [0, 1, 1, 2, 2, 3, 3, 3]),
    ],
)
def test_which_element_is_nearest(nearest: Nearest, expected: list[int]) -> None:
    op = Resize((0,), (8,), (2.0,), coordinates=Coordinates.ASYMMETRIC, nearest=nearest)
    assert value_of(op, np.arange(4)).tolist() == expected


def test_cropping_fills_what_lies_outside() -> None:
    op = Resize(
        (0,), (3,), (1.0,), LINEAR, Coordinates.CROP, roi=((0.5, 1.5),), outside=-1.0
    )  # fmt: skip
    assert value_of(op, np.arange(5.0)).tolist() == [2.0, 4.0, -1.0]


@pytest.mark.parametrize(
    ("equation", "message"),
    [
        ("ij->ij", "names 1 operands, got 2"),
        ("ijk,ij->i", "does not fit an operand of rank 2"),
        ("ij,jk->iz", "names an index twice or anew"),
        ("ij,ij->ij", "has extents 3 and 4"),
    ],
)
def test_what_does_not_fit_is_said(equation: str, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        value_of(einsum.Einsum(equation), np.zeros((3, 4)), np.zeros((4, 3)))
