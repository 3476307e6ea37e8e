"""Functions of several tensors, and of none."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations as combined

import numpy as np

from ....compiler.errors import ShapeError, UsageError
from ....compiler.ops.indexing import stack
from ....compiler.tensor import Tensor
from ....compiler.tensor.products import multi_dot
from ....compiler.types import Array, broadcast_shapes
from ..eager import on_arrays
from .shape import cat


def _several(tensors: tuple[Tensor | Sequence[Tensor], ...]) -> list[Tensor]:
    """`f(a, b)` and `f([a, b])` mean the same."""
    flat: list[Tensor] = []
    for t in tensors:
        flat.extend([t] if isinstance(t, Tensor) else t)
    if not flat:
        raise ShapeError("there is no tensor")
    return flat


def atleast_1d(input: Tensor) -> Tensor:
    """With an axis where there is none."""
    return input if input.rank else input.reshape(1)


def atleast_2d(input: Tensor) -> Tensor:
    """With axes in front of others, to have 2."""
    return input.reshape((1,) * (2 - input.rank) + input.shape)


def atleast_3d(input: Tensor) -> Tensor:
    """With axes around others, to have 3: (H, W) is (H, W, 1)."""
    x = atleast_2d(input)
    return x.unsqueeze(-1) if x.rank == 2 else x


def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Side by side: along axis 1, or that of vectors."""
    parts = [atleast_1d(t) for t in tensors]
    return cat(parts, 0 if parts and parts[0].rank == 1 else 1)


def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """Below each other: along axis 0, vectors as rows."""
    return cat([atleast_2d(t) for t in tensors], 0)


row_stack = vstack


def dstack(tensors: Sequence[Tensor]) -> Tensor:
    """Behind each other: along axis 2."""
    return cat([atleast_3d(t) for t in tensors], 2)


def column_stack(tensors: Sequence[Tensor]) -> Tensor:
    """Side by side, vectors as columns."""
    return hstack([t.reshape((-1, 1)) if t.rank < 2 else t for t in tensors])


def block_diag(*tensors: Tensor) -> Tensor:
    """Matrices along the diagonal of a larger one."""
    parts = [atleast_2d(t) for t in _several(tensors)]
    width, before, rows = sum(p.shape[1] for p in parts), 0, []
    for part in parts:
        height, own = part.shape
        zeros = part.constant(0)
        left, right = zeros.broadcast_to(height, before), width - before - own
        rows.append(cat([left, part, zeros.broadcast_to(height, right)], 1))
        before += own
    return cat(rows, 0)


def broadcast_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
    """All of them in the shape that they have together."""
    parts = _several(tensors)
    common = broadcast_shapes(*(t.shape for t in parts))
    return tuple(t.broadcast_to(common) for t in parts)


def meshgrid(*tensors: Tensor, indexing: str = "ij") -> tuple[Tensor, ...]:
    """Coordinates of all points of a grid, from those along each axis.

    Arguments:
        indexing: "ij", or "xy" for the first two axes exchanged.
    """
    if indexing not in ("ij", "xy"):
        raise UsageError(f"indexing is 'ij' or 'xy', not {indexing!r}")
    parts = [t.reshape(-1) for t in _several(tensors)]
    extents = tuple(t.shape[0] for t in parts)
    grids = [
        t.reshape(tuple(-1 if d == i else 1 for d in range(len(parts)))).broadcast_to(extents)
        for i, t in enumerate(parts)
    ]
    swapped = indexing == "xy" and len(parts) > 1
    return tuple(g.transpose(0, 1) if swapped else g for g in grids)


def cartesian_prod(*tensors: Tensor) -> Tensor:
    """All tuples of an element of each vector: (N, vectors)."""
    parts = _several(tensors)
    if len(parts) == 1:
        return parts[0]
    return stack([g.reshape(-1) for g in meshgrid(*parts)], 1)


def combinations(input: Tensor, r: int = 2) -> Tensor:
    """All choices of r elements of a vector in their order: (N, r)."""
    places = np.array(list(combined(range(input.shape[0]), r)), np.int64).reshape(-1, r)
    return input[places]


def chain_matmul(*matrices: Tensor) -> Tensor:
    """The product of several matrices."""
    return multi_dot(_several(matrices))


def tril_indices(row: int, col: int, offset: int = 0) -> Array:
    """Rows and columns of the lower triangle of a matrix: an array (2, N), int64."""
    return np.array(np.tril_indices(row, offset, col), np.int64)


def triu_indices(row: int, col: int, offset: int = 0) -> Array:
    """Rows and columns of the upper triangle of a matrix: an array (2, N), int64."""
    return np.array(np.triu_indices(row, offset, col), np.int64)


__all__ = [
    "atleast_1d",
    "atleast_2d",
    "atleast_3d",
    "block_diag",
    "broadcast_tensors",
    "cartesian_prod",
    "chain_matmul",
    "column_stack",
    "combinations",
    "dstack",
    "hstack",
    "meshgrid",
    "row_stack",
    "tril_indices",
    "triu_indices",
    "vstack",
]

# On arrays they run at once.
for _name in set(__all__) - {"tril_indices", "triu_indices"}:
    globals()[_name] = on_arrays(globals()[_name])
