"""Norms, and systems of linear equations: `torch.linalg`.

Elimination is a recurrence with a column a step, so that neither code nor compile time grows with
the matrix, and gradients are the recurrence's own.
"""

from __future__ import annotations

from collections.abc import Sequence

from ....compiler.errors import ShapeError, UsageError
from ....compiler.tensor import Tensor
from ....compiler.types import normalize_axis
from ..eager import on_arrays
from .create import arange, eye
from .recurrent import recurrence
from .shape import cat

Axes = int | tuple[int, ...] | None


@on_arrays
def vector_norm(x: Tensor, ord: float = 2, dim: Axes = None, keepdim: bool = False) -> Tensor:
    """(sum |x|^ord)^(1/ord) over axes, all by default; the largest or smallest |x| for infinity."""
    return x.norm(ord, dim, keepdim)


@on_arrays
def matrix_norm(
    A: Tensor, ord: float | str = "fro", dim: tuple[int, int] = (-2, -1), keepdim: bool = False
) -> Tensor:
    """A norm of matrices: "fro", or ±1 and ±infinity of sums of columns and rows.

    Raises:
        UsageError: a norm that takes singular values.
    """
    rows, columns = (normalize_axis(d, A.rank) for d in dim)
    if ord == "fro":
        return A.norm(2, (rows, columns), keepdim)
    if isinstance(ord, str) or abs(ord) not in (1, float("inf")):
        raise UsageError(
            f"matrix_norm knows 'fro', 1, -1 and infinities, not {ord!r}, which takes singular "
            "values; nn.utils.spectral_norm follows the largest one"
        )
    added, compared = (rows, columns) if abs(ord) == 1 else (columns, rows)
    sums = A.abs().sum(added, keepdim=True)
    most = sums.amax(compared, keepdim=True) if ord > 0 else sums.amin(compared, keepdim=True)
    return most if keepdim else most.squeeze((rows, columns))


@on_arrays
def norm(
    A: Tensor, ord: float | str | None = None, dim: Axes = None, keepdim: bool = False
) -> Tensor:
    """The norm of all elements where neither `ord` nor `dim` is given; else of vectors along one
    axis, or of matrices along two, as `vector_norm` and `matrix_norm` say.
    """
    pair = dim if dim is not None else tuple(range(A.rank)) if ord is not None else None
    if ord is not None and isinstance(pair, tuple) and len(pair) == 2:
        return matrix_norm(A, ord, (pair[0], pair[1]), keepdim)
    if isinstance(ord, str):
        raise UsageError(f"norm {ord!r} is of matrices, along two axes; {A.type} has dim={dim}")
    return vector_norm(A, 2 if ord is None else ord, dim, keepdim)


# -- systems of equations -------------------------------------------------------------------------


def _eliminated(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A⁻¹ B (…, n, m) by Gauss and Jordan, the pivots (n, …), and the rows that they were in,
    one-hot (n, …, n).
    """
    n = A.shape[-1]
    lead = A.shape[:-2]
    places = arange(n)

    def step(
        rows: Tensor, free: Tensor, unit: Tensor
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        column = (rows[..., :n] * unit).sum(-1)
        best = (free > 0).where(column.abs(), -1.0).argmax(-1, keepdim=True)
        chosen = best.equal(places).cast(rows.dtype)
        pivot = (column * chosen).sum(-1)
        row = (rows * chosen.unsqueeze(-1)).sum(-2) / pivot.unsqueeze(-1)
        after = rows - (column - chosen).unsqueeze(-1) * row.unsqueeze(-2)
        return (after, free - chosen), (pivot, chosen)

    rows, free = cat([A, B.broadcast_to((*lead, *B.shape[-2:]))], -1), A.new_ones(*lead, n)
    (rows, _), (pivots, chosen) = recurrence(step, [rows, free], eye(n).cast(A.dtype))
    return chosen.movedim(0, -2) @ rows[..., n:], pivots, chosen


def _check_square(name: str, A: Tensor) -> None:
    if A.rank < 2 or A.shape[-1] != A.shape[-2] or not A.shape[-1]:
        raise ShapeError(f"{name} takes square matrices (…, n, n), got {A.type}")


@on_arrays
def solve(A: Tensor, B: Tensor) -> Tensor:
    """The X of A X = B, by elimination with the largest pivot of each column.

    It has infinities or NaN where A is singular.

    Arguments:
        A: (…, n, n).
        B: (…, n, m), or (…, n).
    """
    _check_square("solve", A)
    is_vector = B.rank == 1 or B.shape == A.shape[:-1]
    right = B.unsqueeze(-1) if is_vector else B
    if right.rank < 2 or right.shape[-2] != A.shape[-1]:
        raise ShapeError(f"solve takes {A.shape[-1]} rows for {A.type}, got {B.type}")
    found = _eliminated(A, right)[0]
    return found.squeeze(-1) if is_vector else found


@on_arrays
def inv(A: Tensor) -> Tensor:
    """The inverse of matrices (…, n, n); infinities or NaN where one is singular."""
    _check_square("inv", A)
    return _eliminated(A, eye(A.shape[-1]).cast(A.dtype))[0]


@on_arrays
def det(A: Tensor) -> Tensor:
    """The determinant of matrices (…, n, n). Gradients are NaN where one is singular."""
    _check_square("det", A)
    n = A.shape[-1]
    _, pivots, chosen = _eliminated(A, A[..., :0])
    order = (chosen * arange(n)).sum(-1).movedim(0, -1)
    steps = (order.unsqueeze(-2) - order.unsqueeze(-1)).sign()
    later = arange(n).unsqueeze(0) > arange(n).unsqueeze(1)
    sign = later.where(steps, 1.0).prod(-1).prod(-1)
    determinant: Tensor = sign * pivots.prod(0)
    return determinant


@on_arrays
def cholesky(A: Tensor) -> Tensor:
    """The lower triangular L of A = L Lᵀ, (…, n, n), for symmetric positive definite matrices; NaN
    for others.
    """
    _check_square("cholesky", A)

    def step(left: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
        column = (left * unit).sum(-1)
        column = column / (column * unit).sum(-1, keepdim=True).sqrt()
        return left - column.unsqueeze(-1) * column.unsqueeze(-2), column

    _, (columns,) = recurrence(step, A, eye(A.shape[-1]).cast(A.dtype))
    return columns.movedim(0, -1).tril()


@on_arrays
def multi_dot(tensors: Sequence[Tensor]) -> Tensor:
    """The product of all matrices, from the left."""
    product, *others = tensors
    for other in others:
        product = product @ other
    return product
