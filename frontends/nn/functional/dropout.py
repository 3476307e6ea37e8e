"""Dropout, and other noise of layers. Which elements fall is a function of the graph's `rng.seed`
and `rng.step` and of the order in which its dropouts were traced.
"""

from __future__ import annotations

from ....compiler.errors import UsageError
from ....compiler.ops.activation import LeakyRelu
from ....compiler.ops.random import Dropout
from ....compiler.tensor import Tensor
from ..context import emit, require_trace
from .create import rand

_SELU_FLOOR = -1.7580993408473766  # what SELU gives for minus infinity


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


def alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Elements are what SELU gives for minus infinity with probability p, then all are scaled and
    shifted, so that mean 0 and variance 1 stay (Klambauer et al., 2017).
    """
    return _drop_alpha(input, p, training, input.shape)


def feature_alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """`alpha_dropout` of whole channels of (N, C, *)."""
    return _drop_alpha(input, p, training, (*input.shape[:2], *(1 for _ in input.shape[2:])))


def _drop_alpha(x: Tensor, p: float, training: bool, shape: tuple[int, ...]) -> Tensor:
    _check_probability(p)
    if not training or p == 0.0:
        return x
    scale = ((1 + p * _SELU_FLOOR**2) * (1 - p)) ** -0.5 if p < 1 else 0.0
    kept: Tensor = rand(shape, dtype=x.dtype) >= p
    return kept.where(x, _SELU_FLOOR) * scale - scale * p * _SELU_FLOOR


def rrelu(
    input: Tensor,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Tensor:
    """max(x, 0) + slope * min(x, 0): in training each element has a random slope between two, else
    all have their mean (Xu et al., 2015).
    """
    if not training:
        return emit(LeakyRelu((lower + upper) / 2), input)
    slope: Tensor = rand(input.shape, dtype=input.dtype) * (upper - lower) + lower
    return (input >= 0).where(input, input * slope)


def _check_probability(p: float) -> None:
    if not 0.0 <= p <= 1.0:
        raise UsageError(f"the p of dropout is a probability from 0 to 1, got {p}")


def _drop(input: Tensor, p: float, training: bool, shared: tuple[int, ...]) -> Tensor:
    _check_probability(p)
    if not training or p == 0.0:
        return input
    stream, seed, step = require_trace("dropout").random()
    axes = tuple(input.rank + d for d in shared)
    return emit(Dropout(float(p), stream, axes), input, seed, step)


__all__ = [
    "alpha_dropout",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "feature_alpha_dropout",
    "rrelu",
]
