"""What tests of convolutions share: contents, windows, and random geometries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from kernels import host
from oracles import graph_of

from quern.compiler.errors import ShapeError
from quern.compiler.llvm.target import Target
from quern.compiler.loops.ir import Kernel
from quern.compiler.lower.lower import lower
from quern.compiler.ops.window import Window
from quern.compiler.passes.partition import partition
from quern.compiler.types import Array, Shape


def numbers(shape: Shape, seed: int, dtype: Any = np.float32) -> Array:
    """Normally distributed."""
    return np.asarray(np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def square(kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> Window:
    """The same along two axes."""
    return Window((kernel,) * 2, (stride,) * 2, ((padding,) * 2,) * 2, (dilation,) * 2)


def kernel_of(function: Callable[..., Any], *arrays: Array, target: Target | None = None) -> Kernel:
    """The one kernel of a function, for the host by default."""
    graph, _ = graph_of(function, *arrays)
    (group,) = partition(graph)
    return lower(graph, group, target or host()).kernel


@st.composite
def geometries(draw: Any, most: Mapping[int, int], strides: int = 3) -> tuple[Shape, Window]:
    """A spatial shape and a window that fits in it.

    Arguments:
        most: the largest extent by number of axes.
        strides: the largest stride.
    """
    rank = draw(st.sampled_from(sorted(most)))

    def each(low: int, high: int) -> Shape:
        return tuple(draw(st.integers(low, high)) for _ in range(rank))

    padding = tuple(zip(each(0, 3), each(0, 3), strict=True))
    window = Window(each(1, 4), each(1, strides), padding, each(1, 3))
    spatial = each(1, most[rank])
    try:
        window.outputs(spatial)
    except ShapeError:
        assume(False)
    return spatial, window
