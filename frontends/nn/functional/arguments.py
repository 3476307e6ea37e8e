"""Arguments that PyTorch takes as one number or as one for each spatial axis."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import index
from typing import Any, TypeAlias

from ....compiler.errors import ShapeError, UsageError
from ....compiler.ops.window import Pairs
from ....compiler.tensor import Tensor
from ....compiler.types import Shape

Size: TypeAlias = int | Sequence[int]


def per_axis(value: Size, rank: int, what: str) -> Shape:
    """One number for each of `rank` axes; a single one is for all of them.

    Raises:
        ShapeError: when there are more or fewer.
        UsageError: when these are no whole numbers.
    """
    given = value if isinstance(value, Iterable) else (value,) * rank
    try:
        numbers = tuple(index(v) for v in given)
    except TypeError:
        raise UsageError(f"{what} is a whole number, or {rank} of them, not {value!r}") from None
    if len(numbers) == 1:
        numbers *= rank
    if len(numbers) != rank:
        raise ShapeError(f"{what} {numbers} has {len(numbers)} entries, there are {rank} axes")
    return numbers


def symmetric(padding: Shape) -> Pairs:
    """The same padding before and after each axis."""
    return tuple((p, p) for p in padding)


def with_batch(x: Tensor, rank: int, function: Callable[[Tensor], Any]) -> Any:
    """Calls a function of (N, C, *spatial); an x without N gets one of extent 1 for the call."""
    if x.rank != rank + 1:
        return function(x)
    result = function(x.unsqueeze(0))
    if isinstance(result, tuple):
        return tuple(r.squeeze(0) for r in result)
    return result.squeeze(0)
