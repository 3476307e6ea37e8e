"""Concatenations of what is computed: parts of one shape in one loop, with what else they give."""

from __future__ import annotations

import numpy as np
import pytest
from oracles import check, check_kernels, graph_of

from quern.compiler.llvm.target import Target
from quern.compiler.loops import ir
from quern.compiler.lower.lower import lower
from quern.compiler.ops.base import apply
from quern.compiler.ops.movement import Concat
from quern.compiler.passes.partition import partition
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array


def numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def gates(axis: int, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Three parts that have the square in common, and one more value of their shape."""
    square = a * a
    return apply(Concat(axis), square * b, square - b, b * 2.0), square + b


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_parts_that_are_computed_share_a_loop(axis: int) -> None:
    arrays = numbers(3, 5, 19), numbers(3, 5, 19, seed=1)
    graph, feeds = graph_of(lambda a, b: gates(axis, a, b), *arrays)
    check_kernels(graph, feeds)
    (group,) = partition(graph)
    assert len(group.outputs) == 2
    kernel = lower(graph, group, Target.host()).kernel
    assert len([s for s in kernel.body if isinstance(s, ir.For)]) == 1


def test_parts_of_several_shapes_or_from_memory() -> None:
    a, b = numbers(4, 6), numbers(4, 9, seed=1)
    check(lambda a, b: (apply(Concat(1), a * 2.0, b + 1.0, a), (a * 2.0).tanh()), a, b)
    check(lambda a, b: (apply(Concat(1), a, a * 2.0), b, a + 1.0), a, b)


def test_what_reads_the_concatenation_has_a_kernel_of_its_own() -> None:
    def function(a: Tensor) -> tuple[Tensor, Tensor]:
        both = apply(Concat(0), a * 2.0, a + 1.0)
        return both, (both[2:] * a).tanh()

    check(function, numbers(2, 8))
