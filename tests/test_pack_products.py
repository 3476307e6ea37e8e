"""Parameters that are multiplied by some rows, or whose products are gates, are packed once."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pytest
from passes import same, transformed

import quern as qn
from quern import nn
from quern.compiler.driver import standard_passes
from quern.compiler.evaluate import evaluate
from quern.compiler.graph import Graph
from quern.compiler.llvm.target import Target
from quern.compiler.ops.leaf import Input
from quern.compiler.ops.linear import PackedMatMul
from quern.compiler.passes.pack_products import PackProducts
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array


def numbers(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def packed(graph: Graph) -> list[int]:
    """The columns of the packed products."""
    ops = [node.op for node in graph.nodes()]
    return [op.columns for op in ops if isinstance(op, PackedMatMul)]


def named(graph: Graph, feeds: Iterable[Array]) -> dict[str, Array]:
    """What the inputs of a graph are given, in order."""
    return {leaf.name: x for leaf, x in zip(graph.leaves(Input), feeds, strict=True)}


def passed(forward: Callable[..., Tensor], *feeds: Array) -> Graph:
    """The network behind all passes but those that choose layouts; it computes the same."""
    declared = qn.trace(forward, *map(qn.spec, feeds))
    graph = transformed(declared, standard_passes(target=Target.named("avx2")))
    same(declared, graph, named(declared, feeds), rtol=1e-5)
    return graph


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize(("steps", "batch"), [(1, 1), (3, 5)])
def test_a_step_that_is_unrolled_is_one_kernel_behind_its_input_product(
    cell: type[nn.LSTM] | type[nn.GRU], steps: int, batch: int
) -> None:
    net = cell(24, 32).eval()
    x = numbers(steps, batch, 24)
    states = [numbers(1, batch, 32) for _ in "hc"[: 2 if cell is nn.LSTM else 1]]

    def forward(x: Tensor, *states: Tensor) -> Tensor:
        return net(x, states if len(states) > 1 else states[0])[0]

    passed(forward, x, *states)
    exe = qn.compile(forward, *map(qn.spec, (x, *states)), threads=1)
    products = [k for k in exe.program.kernels if "product" in k.note]
    assert len(products) == steps + 1
    assert all("packed before" in k.note for k in products[1:])
    graph = qn.trace(forward, *map(qn.spec, (x, *states)))
    (expected,) = evaluate(graph, named(graph, (x, *states))).outputs.values()
    np.testing.assert_allclose(exe(x, *states), expected, 1e-5, 1e-6)


def test_gated_linear_units_are_packed() -> None:
    inside = nn.Linear(40, 64)

    def forward(x: Tensor) -> Tensor:
        z = inside(x)
        return z[:, :32] * z[:, 32:].sigmoid()

    assert packed(passed(forward, numbers(3, 40))) == [64]


def test_parts_that_are_not_combined_element_by_element_are_left() -> None:
    inside = nn.Linear(40, 64)

    def forward(x: Tensor) -> Tensor:
        z = inside(x)
        return z[:, :32] @ z[:, 32:].transpose()

    assert packed(passed(forward, numbers(3, 40))) == []


@pytest.mark.parametrize(
    ("rows", "is_packed"), [(1, False), (6, False), (7, True), (256, True), (2000, True)]
)
def test_parameters_are_packed_for_some_rows(rows: int, is_packed: bool) -> None:
    assert bool(packed(passed(nn.Linear(40, 64).eval(), numbers(rows, 40)))) == is_packed


def test_matrices_that_are_given_are_not_packed() -> None:
    assert packed(passed(lambda x, w: x @ w, numbers(64, 40), numbers(40, 64))) == []


def test_parameters_that_are_learned_are_not_packed() -> None:
    graph = qn.trace(nn.LSTM(24, 32), qn.spec(2, 5, 24))
    (name, *_) = graph.data
    state = graph.tensor(graph.outputs_of(name)[0])
    graph.updates = {name: (state * 0.5).value}
    assert PackProducts(Target.host()).apply(graph) is graph
