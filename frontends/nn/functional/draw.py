"""Random numbers of other distributions than uniform and normal ones: in a graph others in every
run, elsewhere arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ....compiler.errors import ShapeError, UsageError
from ....compiler.tensor import Scalar, Tensor
from ....compiler.types import Array, DType
from .. import init
from ..context import current_trace
from ..eager import on_arrays
from .create import Like, rand, rand_like, randint, randn


def normal(
    mean: Like | Scalar = 0.0, std: Like | Scalar = 1.0, size: Sequence[int] | None = None
) -> Any:
    """Normal numbers with means and standard deviations: of a size, or of the shapes of these."""
    arrays = [x for x in (mean, std) if not isinstance(x, Scalar)]
    if size is None and not arrays:
        raise UsageError("normal needs a size where mean and std are numbers")
    shape = np.broadcast_shapes(*(tuple(x.shape) for x in arrays)) if size is None else tuple(size)
    kinds = [DType.of(x.dtype) for x in arrays]
    return mean + std * randn(shape, dtype=kinds[0] if kinds else DType.FLOAT32)


@on_arrays
def multinomial(input: Tensor, num_samples: int, replacement: bool = False) -> Tensor:
    """Drawn classes (int64): of weights (C,) or (N, C) gives (num_samples,) or (N, num_samples).

    The weights need not sum to 1. Without replacement every class is drawn at most once: those of
    the largest log(weight) + Gumbel noise (Kool, van Hoof and Welling, 2019).
    """
    if input.rank not in (1, 2):
        raise ShapeError(f"multinomial takes weights (C,) or (N, C), got {input.type}")
    if not replacement:
        if num_samples > input.shape[-1]:
            raise UsageError(
                f"{num_samples} of {input.shape[-1]} classes: give replacement=True to draw some "
                "twice"
            )
        noise = -(-rand_like(input).maximum(2.0**-25).log()).log()  # never of 0, which is infinite
        result: Tensor = (input.log() + noise).topk(num_samples).indices
        return result
    total = input.cumsum(-1)
    drawn = rand((*input.shape[:-1], num_samples), dtype=input.dtype) * total[..., -1:]
    return total.searchsorted(drawn, right=True).minimum(input.shape[-1] - 1)


def randint_like(input: Like, low: int, high: int | None = None) -> Any:
    """Whole numbers from low (0 when high is not given) to below high, of another's type."""
    first, last = (0, low) if high is None else (low, high)
    return randint(first, last, tuple(input.shape), DType.of(input.dtype))


def randperm(n: int) -> Any:
    """0 … n - 1 in random order (int64)."""
    if current_trace() is not None:
        return rand(n).argsort()
    return np.argsort(init.uniform_(np.empty(n)), kind="stable")


def logspace(start: float, end: float, steps: int, base: float = 10.0) -> Array:
    """So many powers of the base, from base ** start to base ** end: an array of float32."""
    return np.logspace(start, end, steps, base=base).astype(np.float32)


__all__ = ["logspace", "multinomial", "normal", "randint_like", "randperm"]
