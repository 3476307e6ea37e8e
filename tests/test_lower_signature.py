"""Groups that have one signature have one kernel, and no others do."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from networks import lenet, residual
from random_graphs import graphs

from quern.compiler.autodiff import differentiate
from quern.compiler.driver import Options, lower_groups, optimize
from quern.compiler.graph import Graph
from quern.compiler.llvm.phases import symbol_of
from quern.compiler.llvm.target import Target
from quern.compiler.lower.lower import lower
from quern.compiler.lower.signature import Signature
from quern.compiler.ops.movement import Pad
from quern.compiler.passes.expand import Expand
from quern.compiler.passes.partition import partition
from quern.compiler.report import Report
from quern.compiler.tensor import Tensor
from quern.compiler.types import TensorType

Make = Callable[[Tensor], Tensor]
OPTIONS = Options(Target.named("avx2"))


def check_shared(graph: Graph) -> tuple[int, int]:
    """Each group's kernel and arguments are those that it would get alone.

    Returns:
        Numbers of kernels and of different ones.
    """
    placed = lower_groups(graph, OPTIONS, Report()).kernels
    for item in placed:
        assert item.group is not None
        alone = lower(graph, item.group, OPTIONS.target)
        assert item.routine.symbol == symbol_of(alone.kernel)
        assert item.lowered.arguments == alone.arguments
    return len(placed), len({item.routine for item in placed})


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("network", [lenet, residual])
def test_a_shared_kernel_is_the_group_s_own(network: Callable[[], Graph], training: bool) -> None:
    graph = network()
    graph = differentiate(graph, next(iter(graph.outputs))) if training else graph
    check_shared(optimize(graph, OPTIONS, Report()))


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(graphs())
def test_kernels_of_random_graphs_are_their_own(case: tuple[Graph, object]) -> None:
    check_shared(Expand().apply(case[0]))


def test_equal_blocks_are_lowered_once() -> None:
    kernels, different = check_shared(optimize(residual(6), OPTIONS, Report()))
    assert kernels - different >= 2 * 5


def signature(of: Make) -> Hashable:
    """The key of the only group of a graph of x, of (4, 6), and what `of` makes of it."""
    graph = Graph()
    x = graph.input(TensorType((4, 6)), "x")
    graph.outputs["y"] = of(x).value
    (group,) = partition(graph)
    return Signature.of(graph, group).key


def padded(value: float, name: str = "pad") -> Make:
    def pad(x: Tensor) -> Tensor:
        (result,) = x.graph.apply(Pad(((1, 1), (0, 0)), value=value), x, name=name)
        return result + 1.0

    return pad


def test_names_make_no_difference() -> None:
    assert signature(padded(0.0, "one")) == signature(padded(0.0, "another"))


def test_the_sign_of_a_zero_does() -> None:
    assert signature(padded(0.0)) != signature(padded(-0.0))


def test_numbers_in_the_code_make_a_difference_and_arrays_in_memory_do_not() -> None:
    assert signature(lambda x: x * 2.0) == signature(lambda x: x * 2.0)
    assert signature(lambda x: x * 2.0) != signature(lambda x: x * 3.0)
    one, other = np.arange(6, dtype=np.float32), np.ones(6, np.float32)
    assert signature(lambda x: x * one) == signature(lambda x: x * other)


def test_the_order_of_operands_makes_a_difference() -> None:
    def root(x: Tensor) -> Tensor:
        return x.exp()

    assert signature(lambda x: root(x) - x) != signature(lambda x: x - root(x))
