"""Pooling in NumPy, window by window, and random windows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from hypothesis import strategies as st

from quern.compiler.ops.base import Op
from quern.compiler.ops.pool import (
    AvgPool,
    Pool,
)
from quern.compiler.ops.window import Window
from quern.compiler.types import Array

Index = tuple[int, ...]
Place = tuple[int, Index]


def windows(spatial: Index, w: Window) -> Iterator[tuple[Index, list[Place]]]:
    """Every window's index, and its places inside the input: (number in the window, index)."""
    along: list[list[list[int]]] = []
    for n, k, s, (low, high), d in zip(
        spatial, w.kernel, w.stride, w.padding, w.dilation, strict=True
    ):
        starts = range(-low, n + high - (k - 1) * d, s)
        along.append([[start + j * d for j in range(k)] for start in starts])
    for at in itertools.product(*(range(len(a)) for a in along)):
        every = itertools.product(*(a[i] for a, i in zip(along, at, strict=True)))
        inside = [
            (number, place)
            for number, place in enumerate(every)
            if all(0 <= p < n for p, n in zip(place, spatial, strict=True))
        ]
        yield at, inside


@st.composite
def geometries(draw: st.DrawFn, ceil: bool = False) -> tuple[Index, Window]:
    """Extents of an input and windows that fit it."""
    rank = draw(st.integers(1, 3))

    def each(low: int, high: int) -> Index:
        return draw(st.tuples(*[st.integers(low, high)] * rank))

    kernel, stride = each(1, 3), each(1, 4)
    dilation = (1,) * rank if ceil else each(1, 2)
    low = each(0, 2)
    high = low if ceil else each(0, 2)
    spatial = tuple(
        max(n, (k - 1) * d + 1 - a - b, 1)
        for n, k, d, a, b in zip(
            each(1, (9, 5, 3)[rank - 1]), kernel, dilation, low, high, strict=True
        )
    )
    return spatial, Window(kernel, stride, tuple(zip(low, high, strict=True)), dilation)


def of(op: type[Pool], w: Window) -> Any:
    return op(w.kernel, w.stride, w.padding, w.dilation)


def gradient_of(op: Callable[..., Op], spatial: Index, w: Window) -> Op:
    return op(spatial, w.kernel, w.stride, w.padding, w.dilation)


def distinct(shape: Index, seed: int = 0) -> Array:
    """Numbers that are well apart, so that a small step changes no maximum."""
    size = math.prod(shape)
    return (np.random.default_rng(seed).permutation(size) / max(size, 1) - 0.5).reshape(shape)


NAMED = {
    "1-D": ((5,), Window((2,), (2,), ((0, 0),), (1,))),
    "overlapping, lopsided": ((4, 5), Window((3, 2), (2, 1), ((1, 1), (0, 1)), (1, 1))),
    "dilated, stride beyond the kernel": ((6, 4), Window((2, 1), (3, 2), ((1, 0), (0, 0)), (2, 1))),
    "3-D": ((3, 2, 3), Window((2, 2, 2), (1, 1, 2), ((0, 0), (0, 0), (1, 0)), (1, 1, 1))),
}

AVERAGES = {
    "plain": ((6,), AvgPool((2,), (2,), ((0, 0),))),
    "without padding, ceil": (
        (4, 5),
        AvgPool((3, 2), (2, 2), ((1, 1), (0, 0)), ceil_mode=True, count_include_pad=False),
    ),
    "with padding, ceil": ((6,), AvgPool((3,), (2,), ((1, 1),), ceil_mode=True)),
    "nothing but padding": ((2,), AvgPool((2,), (1,), ((2, 2),), count_include_pad=False)),
    "divisor": ((4, 3), AvgPool((2, 2), (1, 1), ((0, 1), (1, 0)), divisor_override=7)),
    "3-D": ((3, 2, 3), AvgPool((2, 2, 2), (1, 1, 2), ((0, 0), (0, 0), (1, 0)))),
}
