"""Norms, and systems of linear equations, with the names and arguments of torch.linalg."""

from __future__ import annotations

from .frontends.nn.functional.linalg import (
    cholesky,
    det,
    inv,
    matrix_norm,
    multi_dot,
    norm,
    solve,
    vector_norm,
)
from .frontends.nn.functional.methods import cross, diagonal, matrix_power

__all__ = [
    "cholesky",
    "cross",
    "det",
    "diagonal",
    "inv",
    "matrix_norm",
    "matrix_power",
    "multi_dot",
    "norm",
    "solve",
    "vector_norm",
]
