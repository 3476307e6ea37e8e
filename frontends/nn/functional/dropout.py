"""Dropout. Which elements fall is a function of the graph's `rng.seed` and `rng.step` and of the
order in which its dropouts were traced.
"""

from __future__ import annotations

from ....compiler.errors import UsageError
from ....compiler.ops.random import Dropout
from ....compiler.tensor import Tensor
from ..context import emit, require_trace


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Elements are 0 with probability p, else divided by 1 - p; in inference nothing happens."""
    return _drop(input, p, training, ())


def dropout1d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Whole channels of (N, C, L) or (C, L) are 0 with probability p, else divided by 1 - p."""
    return _drop(input, p, training, (-1,))


def dropout2d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Whole channels of (N, C, H, W) are 0 with probability p, else divided by 1 - p."""
    return _drop(input, p, training, (-2, -1))


def dropout3d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Whole channels of (N, C, D, H, W) are 0 with probability p, else divided by 1 - p."""
    return _drop(input, p, training, (-3, -2, -1))


def _drop(input: Tensor, p: float, training: bool, shared: tuple[int, ...]) -> Tensor:
    if not 0.0 <= p <= 1.0:
        raise UsageError(f"the p of dropout is a probability from 0 to 1, got {p}")
    if not training or p == 0.0:
        return input
    stream, seed, step = require_trace("dropout").random()
    axes = tuple(input.rank + d for d in shared)
    return emit(Dropout(float(p), stream, axes), input, seed, step)


__all__ = ["dropout", "dropout1d", "dropout2d", "dropout3d"]
