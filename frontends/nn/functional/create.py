"""Tensors that are made of nothing but a shape and a number, or of random numbers."""

from __future__ import annotations

import numpy as np

from ....compiler.ops import random
from ....compiler.ops.base import apply
from ....compiler.tensor import Scalar, Tensor
from ....compiler.types import Array, DType
from ..context import require_trace


def tensor(data: object, dtype: DType | str | None = None) -> Tensor:
    """An array, or nested lists of numbers, as a constant; Python's floats become float32."""
    array = np.asarray(data)
    if dtype is None and array.dtype == np.float64 and not hasattr(data, "dtype"):
        array = array.astype(np.float32)
    return _constant(array, dtype)


def full(size: int | tuple[int, ...], fill_value: Scalar, dtype: DType | str = "float32") -> Tensor:
    """One number everywhere."""
    shape = (size,) if isinstance(size, int) else tuple(size)
    return _constant(np.asarray(fill_value), dtype).broadcast_to(shape)


def zeros(*size: int | tuple[int, ...], dtype: DType | str = "float32") -> Tensor:
    """0 everywhere; `zeros(2, 3)` and `zeros((2, 3))` mean the same."""
    return full(_shape(size), 0, dtype)


def ones(*size: int | tuple[int, ...], dtype: DType | str = "float32") -> Tensor:
    """1 everywhere."""
    return full(_shape(size), 1, dtype)


def arange(*bounds: float, dtype: DType | str | None = None) -> Tensor:
    """Numbers in even steps, as Python's range; int64 where all bounds are integers."""
    kind = np.int64 if all(isinstance(b, int) for b in bounds) else np.float32
    return _constant(np.arange(*bounds).astype(kind), dtype)


def linspace(start: float, end: float, steps: int, dtype: DType | str = "float32") -> Tensor:
    """So many numbers from start to end, both included."""
    return _constant(np.linspace(start, end, steps), dtype)


def eye(n: int, m: int | None = None, dtype: DType | str = "float32") -> Tensor:
    """A matrix with 1 on the diagonal, 0 elsewhere."""
    return _constant(np.eye(n, m), dtype)


def full_like(input: Tensor, fill_value: Scalar, dtype: DType | str | None = None) -> Tensor:
    """One number everywhere, in another tensor's shape."""
    return full(input.shape, fill_value, input.dtype if dtype is None else dtype)


def zeros_like(input: Tensor, dtype: DType | str | None = None) -> Tensor:
    """0 everywhere, in another tensor's shape."""
    return full_like(input, 0, dtype)


def ones_like(input: Tensor, dtype: DType | str | None = None) -> Tensor:
    """1 everywhere, in another tensor's shape."""
    return full_like(input, 1, dtype)


# -- random ---------------------------------------------------------------------------------------


def uniform(like: Tensor) -> Tensor:
    """New numbers from 0 to below 1 in every run, of another tensor's type."""
    stream, seed, step = require_trace("a random tensor").random()
    return random.uniform(like.type, stream, seed, step)


def rand_like(input: Tensor) -> Tensor:
    """Uniform numbers from 0 to below 1, others in every run, of another tensor's type."""
    return uniform(input)


def randn_like(input: Tensor) -> Tensor:
    """Standard normal numbers, others in every run, of another tensor's type."""
    stream, seed, step = require_trace("a random tensor").random()
    return apply(random.RandomNormal(input.type, stream), seed, step)


def bernoulli(input: Tensor) -> Tensor:
    """1 with the probability that each element is, else 0; others in every run."""
    return (uniform(input) < input).cast(input.dtype)


def _shape(size: tuple[int | tuple[int, ...], ...]) -> tuple[int, ...]:
    if len(size) == 1 and not isinstance(size[0], int):
        return tuple(size[0])
    return tuple(n for n in size if isinstance(n, int))


def _constant(array: Array, dtype: DType | str | None) -> Tensor:
    kind = DType.of(array.dtype if dtype is None else dtype)
    return require_trace("a new tensor").graph.constant(array, kind)


__all__ = [
    "arange",
    "bernoulli",
    "eye",
    "full",
    "full_like",
    "linspace",
    "ones",
    "ones_like",
    "rand_like",
    "randn_like",
    "tensor",
    "zeros",
    "zeros_like",
]
