"""Expansion, folding, sharing, simplification, and reshapes that move."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from networks import lenet
from oracles import graph_of
from passes import F, kinds, live, results, same, transformed

from quern.compiler.autodiff import differentiate
from quern.compiler.graph import Graph, Phase, Value
from quern.compiler.ops import movement as mv
from quern.compiler.ops import pointwise as pw
from quern.compiler.ops import reduce as rd
from quern.compiler.ops.base import apply, apply_all
from quern.compiler.ops.leaf import Leaf, State
from quern.compiler.ops.pool import MaxPool, MaxPoolGradient
from quern.compiler.ops.random import Dropout
from quern.compiler.ops.stop_gradient import StopGradient
from quern.compiler.passes.base import Pass
from quern.compiler.passes.cse import ShareCommonSubexpressions
from quern.compiler.passes.expand import Expand
from quern.compiler.passes.fold import FoldConstants
from quern.compiler.passes.partition import partition
from quern.compiler.passes.reshape import SinkReshapes
from quern.compiler.passes.simplify import Simplify
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array, DType, TensorType

ODD = np.array([1.5, -2.0, 0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, 3e38], F)


def applied(step: Pass, function: Callable[..., Any], *arrays: Array) -> Graph:
    """The graph of a function of tensors after a pass that has kept its meaning."""
    graph, feeds = graph_of(function, *arrays)
    after = step.apply(graph.verify())
    same(graph, after, feeds)
    return after


# -- expansion -------------------------------------------------------------------------------------


def test_expansion_leaves_primitives() -> None:
    graph = Expand().apply(differentiate(lenet(), "loss"))
    for node in graph.verify().nodes():
        if not isinstance(node.op, Leaf):
            inputs = [graph.tensor(v) for v in graph.inputs_of(node.name)]
            assert node.op.expand(*inputs) is None, node


def test_expansion_for_gradients_keeps_what_has_a_chain_rule() -> None:
    expanded = Expand(for_gradient=True).apply(lenet())
    assert "Linear" in kinds(expanded)
    assert all(op.has_gradient or not op.differentiable for op in live(expanded))


def test_what_means_nothing_leaves_nothing() -> None:
    def function(x: Tensor) -> Tensor:
        zero = x.graph.constant(0, DType.INT64)
        return apply(Dropout(0.0), apply(StopGradient(), x), zero, zero).relu()

    assert kinds(applied(Expand(), function, ODD)) == ["Relu"]


# -- constants -------------------------------------------------------------------------------------


def test_constants_are_folded_up_to_a_size() -> None:
    def function(x: Tensor) -> Tensor:
        return x + (x.graph.constant(F(2.0)) * 3.0).broadcast_to(x.shape)

    wide = np.ones((8, 8), F)
    assert kinds(applied(FoldConstants(), function, wide)) == ["Add"]
    assert kinds(applied(FoldConstants(most=63), function, wide)) == ["Broadcast", "Add"]


def test_results_no_larger_than_their_operands_are_folded_whatever_their_size() -> None:
    def function(x: Tensor) -> Tensor:
        return x + x.graph.constant(np.ones((8, 8), F)).exp()

    assert kinds(applied(FoldConstants(most=1), function, np.ones((8, 8), F))) == ["Add"]


def test_folding_overflows_in_silence() -> None:
    def function(x: Tensor) -> Tensor:
        return x + x.graph.constant(F(3e38)) * x.graph.constant(F(10.0)) / 0.0

    after = applied(FoldConstants(), function, np.ones(3, F))
    assert kinds(after) == ["Add"]
    assert results(after, {"x0": np.ones(3, F)})["y0"][0] == np.inf


def test_nodes_of_several_outputs_are_folded() -> None:
    def function(x: Tensor) -> list[Tensor]:
        c = x.graph.constant(np.arange(8, dtype=F).reshape(1, 1, 8))
        pooled, position = apply_all(MaxPool((2,), (2,), ((0, 0),), (1,)), c)
        return [x + pooled.sum(), position]

    assert kinds(applied(FoldConstants(), function, np.ones(3, F))) == ["Add"]


# -- common subexpressions -------------------------------------------------------------------------


def test_the_first_of_equal_nodes_stays() -> None:
    graph = Graph()
    x = graph.input(TensorType((4,)), "x")
    (a,) = graph.apply(pw.Exp(), x, name="first")
    with graph.scope(phase=Phase.BACKWARD):
        (b,) = graph.apply(pw.Exp(), x, name="second")
        (c,) = graph.apply(pw.Add(), a, b, name="sum")
    graph.outputs["y"] = c.value
    after = ShareCommonSubexpressions().apply(graph)
    same(graph, after, {"x": ODD[:4]})
    assert kinds(after) == ["Exp", "Add"]
    node = after.node("first")
    assert node.phase is Phase.FORWARD
    assert [o.name for o in node.origins] == ["first", "second"]
    assert after.inputs_of("sum") == (Value("first"), Value("first"))


def test_chains_are_shared_from_end_to_end() -> None:
    after = applied(
        ShareCommonSubexpressions(),
        lambda x: (x.exp() + 1.0).sqrt() * (x.exp() + 1.0).sqrt(),
        np.ones(3, F),
    )
    assert kinds(after) == ["Exp", "Add", "Sqrt", "Multiply"]


DIFFERENT: dict[str, Callable[[Tensor], list[Tensor]]] = {
    "axes": lambda x: [x.sum(0, keepdims=True), x.sum(1, keepdims=True)],
    "operations": lambda x: [x.exp(), x.sqrt()],
    "order of operands": lambda x: [x - x.exp(), x.exp() - x],
    "sign of a zero": lambda x: [apply(mv.Pad(((1, 0), (0, 0)), value=z), x) for z in (0.0, -0.0)],
    "numbers": lambda x: [x + 1.0, x + 2.0],
    "sign of a constant zero": lambda x: [x * 0.0, x * -0.0],
    "dtypes of equal constants": lambda x: [
        x.graph.constant(0, dtype) for dtype in (DType.FLOAT32, DType.INT32)
    ],
    "shapes of equal constants": lambda x: [
        x.graph.constant(np.zeros(shape, F)) for shape in ((1, 2), (2, 1))
    ],
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_differs_is_not_shared(name: str) -> None:
    graph, feeds = graph_of(DIFFERENT[name], np.ones((2, 2), F))
    after = ShareCommonSubexpressions().apply(graph)
    assert after.outputs["y0"] != after.outputs["y1"]
    for before, now in zip(
        results(graph, feeds).values(), results(after, feeds).values(), strict=True
    ):
        assert before.tobytes() == now.tobytes()


def test_states_and_inputs_of_equal_contents_stay_apart() -> None:
    graph = Graph()
    a, b = (graph.parameter(np.ones(2, F), name) for name in "ab")
    graph.outputs["y"] = (a + b).value
    after = ShareCommonSubexpressions().apply(graph)
    assert [n.name for n in after.leaves(State)] == ["a", "b"]


# -- simplification --------------------------------------------------------------------------------


def twice_negated(x: Tensor) -> Tensor:
    y = -x
    return -y


SIMPLE: dict[str, tuple[Callable[[Tensor], Tensor], list[str]]] = {
    "x + 0": (lambda x: x + 0.0, []),
    "0 + x": (lambda x: 0.0 + x, []),
    "x - 0": (lambda x: x - 0.0, []),
    "x * 1": (lambda x: x * 1.0, []),
    "1 * x": (lambda x: 1.0 * x, []),
    "x / 1": (lambda x: x / 1.0, []),
    "x / 2^k": (lambda x: x / 8.0, ["Multiply"]),
    "x / -2^-k": (lambda x: x / -0.25, ["Multiply"]),
    "x / 2^120 is not a product": (lambda x: x / 2.0**120, ["Divide"]),
    "x / 3 is not a product": (lambda x: x / 3.0, ["Divide"]),
    "x / 0 stays": (lambda x: x / 0.0, ["Divide"]),
    "x / inf stays": (lambda x: x / np.inf, ["Divide"]),
    "x * 0 stays": (lambda x: x * 0.0, ["Multiply"]),
    "0 - x stays": (lambda x: 0.0 - x, ["Subtract"]),
    "x - x stays": (lambda x: x - x, ["Subtract"]),
    "x ** 1": (lambda x: x**1.0, []),
    "x ** 2": (lambda x: x**2.0, ["Multiply"]),
    "x ** -1": (lambda x: x**-1.0, ["Divide"]),
    "x ** 0.5 stays": (lambda x: x**0.5, ["Power"]),
    "-(-x)": (twice_negated, []),
    "not not x": (lambda x: (~~(x > 0.0)).where(x, -x), ["Greater", "Negate", "Where"]),
    "relu(relu(x))": (lambda x: x.relu().relu(), ["Relu"]),
    "cast to its own dtype": (lambda x: apply(pw.Cast(DType.FLOAT32), x), []),
    "cast there and back stays": (
        lambda x: apply(pw.Cast(DType.FLOAT32), apply(pw.Cast(DType.FLOAT64), x)),
        ["Cast", "Cast"],
    ),
    "where(true, x, y)": (lambda x: x.graph.constant(True).where(x, -x), []),
    "where(false, x, y)": (lambda x: x.graph.constant(np.zeros(9, bool)).where(x, -x), ["Negate"]),
    "reshape of a reshape": (lambda x: x.reshape(3, 3).reshape(1, 9), ["Reshape"]),
    "reshape there and back": (lambda x: x.reshape(3, 3).reshape(9), []),
    "transposes that undo each other": (
        lambda x: x.reshape(1, 3, 3).permute(2, 0, 1).permute(1, 2, 0), ["Reshape"],
    ),
    "transpose of a transpose": (
        lambda x: x.reshape(1, 3, 3).permute(2, 0, 1).permute(2, 0, 1), ["Reshape", "Transpose"],
    ),
    "broadcast of a broadcast": (
        lambda x: x.broadcast_to(2, 9).broadcast_to(3, 2, 9), ["Broadcast"],
    ),
    "broadcast to its own shape": (lambda x: apply(mv.Broadcast((9,)), x), []),
    "operands broadcast by themselves": (
        lambda x: x.reshape(9, 1) * x.broadcast_to(9, 9), ["Reshape", "Multiply"],
    ),
    "one operand gives the shape": (
        lambda x: x.broadcast_to(4, 9) + (-x).broadcast_to(4, 9), ["Broadcast", "Negate", "Add"],
    ),
    "slice of everything": (lambda x: x[:], []),
    "slice in reverse stays": (lambda x: x[::-1], ["Slice"]),
    "padding by nothing": (lambda x: apply(mv.Pad(((0, 0),)), x), []),
    "concatenation of one": (lambda x: apply(mv.Concat(0), x), []),
    "concatenation with nothing": (
        lambda x: apply(mv.Concat(0), x[:0], x, -x), ["Negate", "Concat"],
    ),
    "reductions of one element": (lambda x: x.reshape(9, 1).amax(1).reshape(9), []),
    "reductions over no axes": (lambda x: apply(rd.Sum(()), x), []),
}  # fmt: skip


@pytest.mark.parametrize("name", SIMPLE)
def test_simplification(name: str) -> None:
    """The nodes that are left; NaN, infinities and subnormal numbers come out as before."""
    function, left = SIMPLE[name]
    assert kinds(applied(Simplify(), function, ODD)) == left


def test_cubes_are_products() -> None:
    graph, feeds = graph_of(lambda x: x**3.0, ODD)
    after = Simplify().apply(graph)
    assert kinds(after) == ["Multiply", "Multiply"]
    same(graph, after, feeds, rtol=3e-7)


def test_negative_zeros_stay_negative_where_nothing_is_computed() -> None:
    zeros = np.array([0.0, -0.0], F)
    for function in (lambda x: x * 1.0, lambda x: x - 0.0, twice_negated, lambda x: x / 1.0):
        after = applied(Simplify(), function, zeros)
        assert results(after, {"x0": zeros})["y0"].tobytes() == zeros.tobytes()


@pytest.mark.parametrize(
    "function",
    [
        lambda x, c: x + c * 0.0,
        lambda x, c: x * (c * 0.0 + 1.0),
        lambda x, c: x / (c * 0.0 + 2.0),
        lambda x, c: x / (c * 0.0 + 1.0),
        lambda x, c: (c > 0.0).where(x, 0.0),
    ],
)
def test_a_constant_that_broadcasts_still_does(function: Callable[..., Tensor]) -> None:
    """Three times the number 2 divides as 2 does, but the result has three rows."""

    def of_constant(x: Tensor) -> Tensor:
        return function(x, x.graph.constant(np.ones((3, 1), F)))

    graph, feeds = graph_of(of_constant, np.float32([1, 2, 3, 4]))
    after = transformed(graph, (FoldConstants(), Simplify()))
    same(graph, after, feeds)
    assert after.type_of(after.outputs["y0"]).shape == (3, 4)


def test_sums_of_integers_and_booleans() -> None:
    numbers = np.array([3, -4, 0])
    assert kinds(applied(Simplify(), lambda x: (x + 0) * 1 - 0, numbers)) == []
    flags = np.array([True, False])
    assert kinds(applied(Simplify(), lambda x: ~~x, flags)) == []


def test_outputs_keep_their_names_when_their_nodes_go() -> None:
    after = applied(Simplify(), lambda x: [x + 0.0, x.relu() * 1.0], ODD)
    assert after.outputs == {"y0": Value("x0"), "y1": Value("relu")}


# -- ReLU and max-pool -----------------------------------------------------------------------------


WINDOWS = {
    "apart": MaxPool((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)),
    "overlapping": MaxPool((3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1)),
    "dilated": MaxPool((2, 2), (1, 1), ((0, 0), (0, 0)), (2, 2)),
}


def pooled(y: Tensor, pool: MaxPool) -> tuple[Tensor, Tensor]:
    """The maxima, and a random signal that has come back through them."""
    p, position = apply_all(pool, y)
    signal = np.random.default_rng(4).standard_normal(p.shape).astype(F)
    back = MaxPoolGradient(y.shape[2:], **pool.attributes())
    return p, apply(back, y.graph.constant(signal), position)


def images() -> Array:
    """Ties, NaN and infinities among small numbers of either sign."""
    y = np.random.default_rng(5).integers(-3, 4, (2, 3, 6, 6)).astype(F)
    y[0, 0, :4, :4] = np.nan
    y[1, 0, 0], y[1, 1, 2] = np.inf, -np.inf
    return y


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("rectified", [True, False])
def test_the_mask_of_a_relu_comes_from_the_pooled_value(name: str, rectified: bool) -> None:
    """Where(y > 0, what came back through the pool, 0) is what comes back where p > 0."""

    def backward(x: Tensor) -> Tensor:
        y = x.relu() if rectified else x
        _, signal = pooled(y, WINDOWS[name])
        return apply(pw.Where(), y > 0.0, signal, y.constant(0.0))

    after = applied(Simplify(), backward, images())
    last = ["MaxPool", "Greater", "Where", "MaxPoolGradient"]
    assert kinds(after) == (["Relu"] if rectified else []) + last
    assert after.inputs_of(after.outputs["y0"].node)[1] == Value("max_pool", 1)


MASKS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "of something else": lambda y, p, signal: (-y > 0.0).where(signal, 0.0),
    "against another bound": lambda y, p, signal: (y > 1.0).where(signal, 0.0),
    "with something else than 0": lambda y, p, signal: (y > 0.0).where(signal, 1.0),
    "the other way round": lambda y, p, signal: (y < 0.0).where(signal, 0.0),
    "turned round": lambda y, p, signal: (y > 0.0).where(0.0, signal),
}


@pytest.mark.parametrize("name", MASKS)
def test_other_masks_stay(name: str) -> None:
    def backward(y: Tensor) -> Tensor:
        return MASKS[name](y, *pooled(y, WINDOWS["apart"]))

    assert kinds(applied(Simplify(), backward, images()))[-1] == "Where"


# -- reshapes --------------------------------------------------------------------------------------


def test_point_nodes_take_the_shape_of_the_sum_they_follow() -> None:
    """What updates a bias is computed in the shape of its gradient."""

    def function(x: Tensor, bias: Tensor, momentum: Tensor) -> list[Tensor]:
        gradient = x.sum((0, 2), keepdims=True).reshape(3)
        momentum = momentum * 0.9 + gradient
        return [momentum, bias - momentum * 0.1]

    graph, _ = graph_of(function, np.ones((2, 3, 4), F), np.ones(3, F), np.ones(3, F))
    feeds = {"x0": images()[:, :, 0, :4], "x1": F([1, 2, 3]), "x2": F([4, 5, 6])}
    after = SinkReshapes().apply(graph)
    same(graph, after, feeds)
    for value in after.outputs.values():
        assert isinstance(after.producer(value).op, mv.Reshape)
    shapes = {n.types[0].shape for n in after.nodes() if isinstance(n.op, pw.Add | pw.Subtract)}
    assert shapes == {(1, 3, 1)}
    assert len(partition(Simplify().apply(after))) == 1
    assert len(partition(graph)) > 1


STAYING: dict[str, Callable[[Tensor], Tensor]] = {
    "another order of elements": lambda x: (
        x.sum(0, keepdims=True).reshape(4, 1).reshape(2, 2) + 1.0
    ),
    "only views of leaves": lambda x: x.reshape(3, 4, 1) + 1.0,
    "an operand that is computed elsewhere": lambda x: (
        x.sum(0) + x.sum(1, keepdims=True).sum() * x[0]
    ),
    "a result that broadcasts": lambda x: x.sum(0) + x,
}


@pytest.mark.parametrize("name", STAYING)
def test_other_reshapes_stay(name: str) -> None:
    graph, feeds = graph_of(STAYING[name], np.arange(12.0).reshape(3, 4))
    after = SinkReshapes().apply(graph)
    same(graph, after, feeds)
    assert not isinstance(after.producer(after.outputs["y0"]).op, mv.Reshape)
