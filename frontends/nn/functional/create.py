"""Tensors that are made of nothing but a shape and a number, or of random numbers.

Inside of `forward` they are tensors of the graph; elsewhere, as in `__init__`, NumPy arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from ....compiler.errors import UsageError
from ....compiler.ops import random
from ....compiler.ops.base import apply
from ....compiler.tensor import Scalar, Tensor
from ....compiler.types import Array, DType, TensorType
from .. import init
from ..context import current_trace

Size: TypeAlias = int | Sequence[int]
Like: TypeAlias = Tensor | Array


def tensor(data: object, dtype: DType | str | None = None, device: object = None) -> Any:
    """An array, or nested lists of numbers, as a constant; Python's floats become float32."""
    array = np.asarray(data)
    if dtype is None and array.dtype == np.float64 and not hasattr(data, "dtype"):
        array = array.astype(np.float32)
    return _made(array, dtype, device)


def full(
    size: int | tuple[int, ...],
    fill_value: Scalar,
    dtype: DType | str = "float32",
    device: object = None,
) -> Any:
    """One number everywhere."""
    shape = (size,) if isinstance(size, int) else tuple(size)
    number = _made(np.asarray(fill_value), dtype, device)
    return number.broadcast_to(shape) if current_trace() else np.full(shape, number)


def zeros(*size: Size, dtype: DType | str = "float32", device: object = None) -> Any:
    """0 everywhere; `zeros(2, 3)` and `zeros((2, 3))` mean the same."""
    return full(_shape(size), 0, dtype, device)


empty = zeros


def ones(*size: Size, dtype: DType | str = "float32", device: object = None) -> Any:
    """1 everywhere."""
    return full(_shape(size), 1, dtype, device)


def arange(*bounds: float, dtype: DType | str | None = None, device: object = None) -> Any:
    """Numbers in even steps, as Python's range; int64 where all bounds are integers."""
    own = DType.INT64 if all(isinstance(b, int) for b in bounds) else DType.FLOAT32
    return _made(np.arange(*bounds), own if dtype is None else dtype, device)


def linspace(
    start: float, end: float, steps: int, dtype: DType | str = "float32", device: object = None
) -> Any:
    """So many numbers from start to end, both included."""
    return _made(np.linspace(start, end, steps), dtype, device)


def eye(n: int, m: int | None = None, dtype: DType | str = "float32", device: object = None) -> Any:
    """A matrix with 1 on the diagonal, 0 elsewhere."""
    return _made(np.eye(n, m), dtype, device)


def full_like(input: Like, fill_value: Scalar, dtype: DType | str | None = None) -> Any:
    """One number everywhere, in another tensor's shape."""
    return full(input.shape, fill_value, DType.of(input.dtype if dtype is None else dtype))


def zeros_like(input: Like, dtype: DType | str | None = None) -> Any:
    """0 everywhere, in another tensor's shape."""
    return full_like(input, 0, dtype)


empty_like = zeros_like


def ones_like(input: Like, dtype: DType | str | None = None) -> Any:
    """1 everywhere, in another tensor's shape."""
    return full_like(input, 1, dtype)


# -- random ---------------------------------------------------------------------------------------


def uniform(like: Tensor) -> Tensor:
    """New numbers from 0 to below 1 in every run, of another tensor's type."""
    result: Tensor = rand(like.shape, dtype=like.dtype)
    return result


def rand(*size: Size, dtype: DType | str = "float32", device: object = None) -> Any:
    """Uniform numbers from 0 to below 1, in a graph others in every run."""
    type, trace = _type(size, dtype, device), current_trace()
    if trace is None:
        return init.uniform_(np.empty(type.shape, type.dtype.numpy))
    stream, seed, step = trace.random()
    return random.uniform(type, stream, seed, step)


def randn(*size: Size, dtype: DType | str = "float32", device: object = None) -> Any:
    """Standard normal numbers, in a graph others in every run."""
    type, trace = _type(size, dtype, device), current_trace()
    if trace is None:
        return init.normal_(np.empty(type.shape, type.dtype.numpy))
    stream, seed, step = trace.random()
    return apply(random.RandomNormal(type, stream), seed, step)


def randint(
    low: int,
    high: int | Sequence[int],
    size: Sequence[int] | None = None,
    dtype: DType | str = "int64",
    device: object = None,
) -> Any:
    """Whole numbers from low (0 when it is not given) to below high, in a graph others in every
    run: `randint(high, size)` or `randint(low, high, size)`.
    """
    first, last, shape = (0, low, high) if isinstance(high, Sequence) else (low, high, size or ())
    kind, count = DType.of(dtype), last - first
    drawn = rand(tuple(shape), dtype="float64", device=device) * count
    if current_trace() is None:
        return (first + np.floor(drawn)).astype(kind.numpy)
    return (drawn.floor().minimum(count - 1) + first).cast(kind)


def rand_like(input: Like) -> Any:
    """Uniform numbers from 0 to below 1, in a graph others in every run, of another's type."""
    return rand(input.shape, dtype=DType.of(input.dtype))


def randn_like(input: Like) -> Any:
    """Standard normal numbers, in a graph others in every run, of another tensor's type."""
    return randn(input.shape, dtype=DType.of(input.dtype))


def bernoulli(input: Like) -> Any:
    """1 with the probability that each element is, else 0; in a graph others in every run."""
    hits = rand_like(input) < input
    return hits.cast(input.dtype) if isinstance(hits, Tensor) else hits.astype(input.dtype)


def _shape(size: tuple[Size, ...]) -> tuple[int, ...]:
    if len(size) == 1 and not isinstance(size[0], int):
        return tuple(size[0])
    return tuple(n for n in size if isinstance(n, int))


def _type(size: tuple[Size, ...], dtype: DType | str, device: object) -> TensorType:
    _require_cpu(device)
    return TensorType(_shape(size), DType.of(dtype))


def _made(array: Array, dtype: DType | str | None, device: object) -> Any:
    _require_cpu(device)
    kind, trace = DType.of(array.dtype if dtype is None else dtype), current_trace()
    if trace is None:
        return np.array(array, dtype=kind.numpy)
    return trace.graph.constant(array, kind)


def _require_cpu(device: object) -> None:
    if device is not None and str(device) != "cpu":
        raise UsageError(f"there is no device {device!s}; networks run on the CPU")


__all__ = [
    "arange",
    "bernoulli",
    "empty",
    "empty_like",
    "eye",
    "full",
    "full_like",
    "linspace",
    "ones",
    "ones_like",
    "rand",
    "rand_like",
    "randint",
    "randn",
    "randn_like",
    "tensor",
    "zeros",
    "zeros_like",
]
