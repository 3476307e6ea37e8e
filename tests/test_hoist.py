"""What follows from parameters alone is computed when they are loaded."""

from __future__ import annotations

import numpy as np
import pytest
from passes import F, kinds

from quern.compiler.driver import Options, compile_graph
from quern.compiler.evaluate import evaluate
from quern.compiler.graph import Graph, Value
from quern.compiler.ops.base import apply, apply_all
from quern.compiler.ops.leaf import State
from quern.compiler.ops.pointwise import Exp
from quern.compiler.ops.pool import MaxPool
from quern.compiler.passes.expand import Expand
from quern.compiler.passes.hoist import hoist
from quern.compiler.passes.partition import partition
from quern.compiler.types import Array, TensorType
from quern.runtime.executable import Executable


def weight_norm() -> Graph:
    """Returns x @ (v / |v|): the norm of the columns is a reduction of parameters."""
    graph = Graph("weight_norm")
    x = graph.input(TensorType((2, 3)), "x")
    v = graph.parameter(np.arange(12, dtype=F).reshape(3, 4) + 1, "v")
    graph.outputs["y"] = (x @ (v / (v * v).sum(0, keepdims=True).sqrt())).value
    return graph


def test_what_follows_from_parameters_is_computed_once() -> None:
    graph = Expand().apply(weight_norm())
    prepared = hoist(graph)
    assert prepared.preparation is not None
    assert kinds(prepared.main) == ["MatMul"]
    assert len(prepared.main) == 4, "nothing is left of what was prepared: x, v, v / |v|, product"
    assert kinds(prepared.preparation) == ["Multiply", "Sum", "Sqrt", "Divide"]
    assert list(prepared.preparation.outputs) == ["prepared.divide"]
    assert [g.name for g in partition(prepared.main)] == ["mat_mul"]


def test_loading_other_parameters_prepares_anew() -> None:
    executable = Executable(compile_graph(weight_norm(), Options(workers=1)).image, threads=1)
    x = np.float32([[1, 2, 3], [4, 5, 6]])

    def expected() -> Array:
        return evaluate(weight_norm().with_data(executable.state), {"x": x}).outputs["y"]

    first = executable(x)
    np.testing.assert_allclose(first, expected(), rtol=1e-6)
    executable.load_state({"v": np.float32(np.random.default_rng(1).random((3, 4)))})
    second = executable(x)
    np.testing.assert_allclose(second, expected(), rtol=1e-6)
    assert not np.array_equal(first, second)
    executable.state["v"][...] *= np.float32([1, 2, 3, 4])
    executable.state["v"][0] = 0
    executable.refresh()
    np.testing.assert_allclose(executable(x), expected(), rtol=1e-6)


def test_outputs_that_follow_from_parameters_alone() -> None:
    graph = Graph()
    w = graph.parameter(np.float32([3, 4]), "w")
    graph.outputs = {"norm": (w * w).sum().sqrt().value, "w": w.value}
    executable = Executable(compile_graph(graph, Options(workers=1)).image, threads=1)
    assert executable.run({})["norm"] == 5
    executable.load_state({"w": np.float32([5, 12])})
    assert executable.run({})["norm"] == 13
    np.testing.assert_array_equal(executable.run({})["w"], [5, 12])


@pytest.mark.parametrize("move", ["reshape", "transpose", "broadcast_to"])
def test_moves_of_parameters_are_not_worth_preparing(move: str) -> None:
    graph = Graph()
    x = graph.input(TensorType((4, 3)), "x")
    w = graph.parameter(np.ones((3, 4), F), "w")
    moved = {
        "reshape": lambda: w.reshape(4, 3),
        "transpose": lambda: w.transpose(),
        "broadcast_to": lambda: w.reshape(1, 12).broadcast_to(4, 12)[:, :3],
    }[move]()
    graph.outputs["y"] = (x + moved).value
    prepared = hoist(graph)
    wanted = ["Slice"] if move == "broadcast_to" else []
    part = prepared.preparation
    assert [k for k in (kinds(part) if part else []) if k == "Slice"] == wanted


def test_nothing_is_prepared_where_states_change() -> None:
    graph = weight_norm()
    graph.updates["v"] = (graph.tensor(Value("v")) * 0.5).value
    prepared = hoist(graph)
    assert prepared.preparation is None
    assert prepared.main is graph


def test_states_keep_their_order() -> None:
    graph = Graph()
    first, second = (graph.parameter(np.ones(2, np.float32), name) for name in ("first", "second"))
    graph.outputs = {"read": second.value, "prepared": apply(Exp(), first).value}
    prepared = hoist(graph)
    assert prepared.preparation is not None
    assert [n.name for n in prepared.main.leaves(State)] == ["first", "second"]


def test_of_several_results_those_are_prepared_that_are_read() -> None:
    graph = Graph()
    x = graph.parameter(np.ones((1, 1, 4), np.float32), "x")
    graph.outputs["y"] = apply_all(MaxPool((2,), (2,), ((0, 0),), (1,)), x)[0].value
    prepared = hoist(graph)
    assert prepared.preparation is not None
    assert [*prepared.preparation.outputs] == ["prepared.max_pool"]
