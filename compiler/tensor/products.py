"""Further products of tensors, and distances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from operator import matmul
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ShapeError, UsageError
from ..types import normalize_axis
from . import reduction
from .promotion import Scalar

if TYPE_CHECKING:
    from .handle import Tensor


def _plus(x: Tensor, product: Tensor, beta: Scalar, alpha: Scalar) -> Tensor:
    """The sum beta * x + alpha * product; x counts for nothing where beta is 0."""
    product = product if alpha == 1 else product * alpha
    return product + (x if beta == 1 else x * beta) if beta else product


def addmm(
    self: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Scalar = 1, alpha: Scalar = 1
) -> Tensor:
    """The sum beta * self + alpha * mat1 @ mat2; of batches, too."""
    return _plus(self, mat1 @ mat2, beta, alpha)


def addbmm(
    self: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Scalar = 1, alpha: Scalar = 1
) -> Tensor:
    """The sum beta * self + alpha * the sum of the products of two batches of matrices."""
    return _plus(self, (batch1 @ batch2).sum(0), beta, alpha)


def addr(
    self: Tensor, vec1: Tensor, vec2: Tensor, *, beta: Scalar = 1, alpha: Scalar = 1
) -> Tensor:
    """The sum beta * self + alpha * the outer product of two vectors."""
    return _plus(self, outer(vec1, vec2), beta, alpha)


def outer(self: Tensor, vec2: Tensor) -> Tensor:
    """All products of elements of two vectors: (N, M)."""
    if self.rank != 1 or vec2.rank != 1:
        raise ShapeError(f"outer takes two vectors, got {self.type} and {vec2.type}")
    return self.unsqueeze(1) * vec2


def inner(self: Tensor, other: Tensor) -> Tensor:
    """Products summed over the last axis of both."""
    if not self.rank or not other.rank:
        return self * other
    return tensordot(self, other, ([-1], [-1]))


def tensordot(self: Tensor, other: Tensor, dims: int | Sequence[int | Sequence[int]] = 2) -> Tensor:
    """Products summed over axes of both: the last ones of this tensor and the first ones of the
    other, so many; or those that two lists name.
    """
    if isinstance(dims, int):
        own, theirs = list(range(self.rank - dims, self.rank)), list(range(dims))
    else:
        own, theirs = (
            [normalize_axis(d, x.rank) for d in ([axes] if isinstance(axes, int) else axes)]
            for axes, x in zip(dims, (self, other), strict=True)
        )
    if [self.shape[d] for d in own] != [other.shape[d] for d in theirs]:
        raise ShapeError(f"axes {own} of {self.type} and {theirs} of {other.type} differ in extent")
    left = [d for d in range(self.rank) if d not in own]
    right = [d for d in range(other.rank) if d not in theirs]
    shape = (*(self.shape[d] for d in left), *(other.shape[d] for d in right))
    count = math.prod(self.shape[d] for d in own)
    a = self.permute((*left, *own)).reshape((math.prod(self.shape[d] for d in left), count))
    b = other.permute((*theirs, *right))
    return (a @ b.reshape((count, math.prod(other.shape[d] for d in right)))).reshape(shape)


def kron(self: Tensor, other: Tensor) -> Tensor:
    """Kronecker's product: each element of this tensor times the whole other one."""
    rank = max(self.rank, other.rank)
    a, b = (x.reshape((1,) * (rank - x.rank) + x.shape) for x in (self, other))
    pairs = zip(a.shape, b.shape, strict=True)
    spread = a.reshape(tuple(e for n in a.shape for e in (n, 1)))
    whole = spread * b.reshape(tuple(e for n in b.shape for e in (1, n)))
    return whole.reshape(tuple(n * m for n, m in pairs))


def cross(self: Tensor, other: Tensor, dim: int | None = None) -> Tensor:
    """The vector product along an axis of extent 3, the first such axis by default."""
    if dim is None:
        dim = self.shape.index(3) - self.rank if 3 in self.shape else -1
    for x in (self, other):
        if x.shape[normalize_axis(dim, x.rank)] != 3:
            raise ShapeError(f"cross takes vectors of 3 along axis {dim}, got {x.type}")
    turned = other.roll(-1, dim), other.roll(-2, dim)
    return self.roll(-1, dim) * turned[1] - self.roll(-2, dim) * turned[0]


def trace(self: Tensor) -> Tensor:
    """The sum of the diagonal of a matrix."""
    return self.diagonal().sum()


def matrix_power(self: Tensor, n: int) -> Tensor:
    """Matrices multiplied by themselves, n from 0."""
    if n < 0:
        raise UsageError(
            f"matrix_power is for exponents from 0, got {n}; matrices are not inverted"
        )
    if not n:
        eye = np.eye(self.shape[-1])
        return self.graph.constant(eye, self.dtype).broadcast_to(self.shape)
    half = matrix_power(self, n // 2) if n > 1 else None
    square = self if half is None else half @ half
    return square @ self if half is not None and n % 2 else square


def multi_dot(tensors: Sequence[Tensor]) -> Tensor:
    """The product of several matrices, from left to right."""
    return reduce(matmul, tensors)


# -- distances ------------------------------------------------------------------------------------


def dist(self: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """The p-norm of the difference of all elements."""
    return reduction.norm(self - other, p)


def cdist(self: Tensor, x2: Tensor, p: float = 2.0) -> Tensor:
    """The p-norms of the differences of each two rows: (…, P, M) and (…, R, M) give (…, P, R)."""
    if self.rank < 2 or x2.rank < 2 or self.shape[-1] != x2.shape[-1]:
        raise ShapeError(f"cdist takes rows of one extent, got {self.type} and {x2.type}")
    return reduction.norm(self.unsqueeze(-2) - x2.unsqueeze(-3), p, -1)


def pdist(self: Tensor, p: float = 2.0) -> Tensor:
    """The p-norms of the differences of each two rows of (N, M), once each: (N (N - 1) / 2,)."""
    if self.rank != 2:
        raise ShapeError(f"pdist takes rows (N, M), got {self.type}")
    first, second = np.triu_indices(self.shape[0], 1)
    rows = self.index_select(0, first), self.index_select(0, second)
    return reduction.norm(rows[0] - rows[1], p, -1)
