"""What the tests of operations share: running one, and checking gradients by central differences.

The gradients are checked as they are used: of a loss that weighs every element of the result by a
weight of its own, with respect to the inputs and to those weights. The second round differentiates
the gradients once more, which tests the gradients of whatever operations the first ones consist of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from quern.compiler.autodiff import gradients
from quern.compiler.evaluate import evaluate
from quern.compiler.graph import Graph, Value
from quern.compiler.ops.base import Op, apply_all
from quern.compiler.passes.expand import Expand
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array, DType, TensorType


def type_of(array: Array) -> TensorType:
    return TensorType(array.shape, DType.of(array.dtype))


def run(function: Callable[..., Tensor | tuple[Tensor, ...]], *arrays: Array) -> tuple[Array, ...]:
    """What a function of symbolic tensors gives for these arrays, types verified."""
    graph = Graph()
    results = function(*(graph.input(type_of(x), f"x{i}") for i, x in enumerate(arrays)))
    tensors = (results,) if isinstance(results, Tensor) else results
    graph.outputs = {f"y{i}": t.value for i, t in enumerate(tensors)}
    feeds = {f"x{i}": x for i, x in enumerate(arrays)}
    return tuple(evaluate(graph.verify(), feeds).outputs.values())


def run_op(op: Op, *arrays: Array) -> tuple[Array, ...]:
    """All outputs of one operation."""
    return run(lambda first, *others: apply_all(op, first, *others), *arrays)


def run_gradients(function: Callable[..., Tensor], weights: Array, *arrays: Array) -> list[Array]:
    """The gradients of the weighted sum of the result, with respect to each float array.

    They are zeros where nothing flows.
    """
    graph, feeds = _weighted_sum(function, weights, arrays)
    names = [n for n in feeds if n != "weights" and feeds[n].dtype.kind == "f"]
    pairs = _analytic(Expand(for_gradient=True).apply(graph), feeds, names)
    return [found for _, found in pairs]


def check_gradients(
    function: Callable[..., Tensor], *arrays: Array, rounds: int = 2, step: float = 1e-5
) -> None:
    """Compare gradients with central differences.

    Arguments:
        function: of symbolic tensors; must be smooth within `step` around the arrays.
        arrays: float64 where it is differentiated; others are held.
        rounds: 2 also checks the gradients of the gradients.
        step: of the differences.
    """
    rng = np.random.default_rng(len(arrays))
    graph = Graph()
    shape = function(*(graph.input(type_of(x)) for x in arrays)).shape
    graph, feeds = _weighted_sum(function, rng.standard_normal(shape), arrays)
    names = [n for n in feeds if feeds[n].dtype.kind == "f"]
    for number in range(rounds):
        graph = Expand(for_gradient=True).apply(graph)
        forward = graph.copy()
        pairs = _analytic(graph, feeds, names)
        for name, (_, found) in zip(names, pairs, strict=True):
            expected = _differences(forward, feeds, name, step)
            scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
            np.testing.assert_allclose(
                found, expected, rtol=0, atol=1e-6 * scale, err_msg=f"round {number + 1}, {name}"
            )
        _set_loss(graph, [t for t, _ in pairs], rng)


def _weighted_sum(
    function: Callable[..., Tensor], weights: Array, arrays: Sequence[Array]
) -> tuple[Graph, dict[str, Array]]:
    graph = Graph()
    y = function(*(graph.input(type_of(x), f"x{i}") for i, x in enumerate(arrays)))
    weigh = graph.input(type_of(weights), "weights")
    graph.outputs = {"loss": (y * weigh).sum().value}
    return graph, {f"x{i}": x for i, x in enumerate(arrays)} | {"weights": weights}


def _analytic(
    graph: Graph, feeds: Mapping[str, Array], names: Sequence[str]
) -> list[tuple[Tensor | None, Array]]:
    """The gradients of the loss, as new nodes of the graph (None for no path) and as numbers."""
    loss = graph.tensor(graph.outputs["loss"])
    found = gradients(graph, [loss], [graph.tensor(Value(n)) for n in names])
    values = evaluate(graph, feeds).values
    return [
        (t, np.zeros_like(feeds[name]) if t is None else values[t.value])
        for name, t in zip(names, found, strict=True)
    ]


def _set_loss(graph: Graph, found: Sequence[Tensor | None], rng: np.random.Generator) -> None:
    """The sum of all elements of the gradients, each with a weight of its own."""
    total: Tensor | None = None
    for tensor in found:
        if tensor is not None:
            part = (tensor * graph.constant(rng.standard_normal(tensor.shape))).sum()
            total = part if total is None else total + part
    assert total is not None
    graph.outputs = {"loss": total.value}


def _differences(graph: Graph, feeds: Mapping[str, Array], name: str, step: float) -> Array:
    result = np.zeros(feeds[name].shape)
    for at in np.ndindex(*result.shape):
        sides = []
        for sign in (1, -1):
            moved = feeds[name].copy()
            moved[at] += sign * step
            sides.append(float(evaluate(graph, {**feeds, name: moved}).outputs["loss"]))
        result[at] = (sides[0] - sides[1]) / (2 * step)
    return result
