"""Images at the places of a grid."""

from __future__ import annotations

import numpy as np
import pytest
from op_cases import cases, spread, value_of

from quern.compiler.errors import ShapeError
from quern.compiler.ops.grid import Border, GridSample
from quern.compiler.ops.resize import Interpolation
from quern.compiler.types import Array

IMAGE = spread((2, 3, 4, 5))
GRID = spread((2, 3, 2, 2), seed=1, low=0.05, high=1.3)
LINE = spread((2, 3, 6))
VOLUME = spread((1, 2, 2, 3, 2))


def bilinear(x: Array, places: Array) -> Array:
    """By the formula, place by place, with zeros outside."""
    n, c, height, width = x.shape
    y = np.zeros((n, c, *places.shape[1:-1]))
    for at in np.ndindex(*places.shape[:-1]):
        u, v = places[at]
        column, row = ((u + 1) * width - 1) / 2, ((v + 1) * height - 1) / 2
        for i, j in np.ndindex(height, width):
            weight = max(0.0, 1 - abs(row - i)) * max(0.0, 1 - abs(column - j))
            y[(at[0], slice(None), *at[1:])] += weight * x[at[0], :, i, j]
    return y


def nearest_edge(x: Array, places: Array) -> Array:
    n, _, extent = x.shape
    index = np.rint((places[..., 0] + 1) * (extent - 1) / 2).clip(0, extent - 1).astype(int)
    return np.stack([x[b][:, index[b]] for b in range(n)])


CASES = [
    cases(GridSample(), bilinear, IMAGE, GRID),
    cases(
        GridSample(Interpolation.NEAREST, Border.EDGE, True), nearest_edge,
        LINE, spread((2, 4, 1), low=0.05, high=1.3), constant=(1,),
    ),
]  # fmt: skip


@pytest.mark.parametrize("mode", Interpolation)
@pytest.mark.parametrize("border", Border)
def test_a_grid_of_the_pixels_gives_the_image_back(mode: Interpolation, border: Border) -> None:
    """In three dimensions, the coordinate of the last axis first."""
    lines = [np.linspace(-1, 1, n) for n in reversed(VOLUME.shape[2:])]
    mesh = np.meshgrid(*reversed(lines), indexing="ij")
    places = np.stack(mesh[::-1], -1)[None]
    y = value_of(GridSample(mode, border, True), VOLUME, places)
    np.testing.assert_allclose(y, VOLUME, rtol=1e-12)


def test_reflection_folds_at_the_outer_edges_of_pixels() -> None:
    x = np.arange(4.0).reshape(1, 1, 4)
    centres = np.array([-0.5, -1.5, 4.5, 11.5])  # folded: the edge, 0.5, 2.5, the other edge
    at = ((centres + 0.5) / 2 - 1).reshape(1, 4, 1)
    y = value_of(GridSample(Interpolation.LINEAR, Border.REFLECTION), x, at)
    np.testing.assert_allclose(y[0, 0], [0.0, 0.5, 2.5, 3.0], atol=1e-12)


def test_a_grid_of_another_batch_is_refused() -> None:
    with pytest.raises(ShapeError, match="GridSample takes no grid"):
        value_of(GridSample(), IMAGE, GRID[:1])
