"""Each pass on its own: valid graphs of the same meaning, and what each of them does and leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from networks import lenet
from oracles import graph_of
from random_graphs import graphs

import quern as qn
from quern import nn
from quern.compiler.autodiff import differentiate
from quern.compiler.driver import Options, compile_graph, optimize, standard_passes
from quern.compiler.evaluate import evaluate
from quern.compiler.graph import Graph, Phase, Value
from quern.compiler.ops import movement as mv
from quern.compiler.ops import pointwise as pw
from quern.compiler.ops import reduce as rd
from quern.compiler.ops.base import Op, apply, apply_all
from quern.compiler.ops.conv import Conv
from quern.compiler.ops.leaf import Constant, Input, Leaf, State
from quern.compiler.ops.norm import BatchNormInference
from quern.compiler.ops.pool import MaxPool, MaxPoolGradient
from quern.compiler.ops.random import Dropout
from quern.compiler.ops.stop_gradient import StopGradient
from quern.compiler.passes.base import Pass, Pipeline
from quern.compiler.passes.batchnorm import FoldBatchNorm
from quern.compiler.passes.cse import ShareCommonSubexpressions
from quern.compiler.passes.expand import Expand
from quern.compiler.passes.fold import FoldConstants
from quern.compiler.passes.hoist import Prepared, hoist
from quern.compiler.passes.partition import partition
from quern.compiler.passes.reshape import SinkReshapes
from quern.compiler.passes.simplify import Simplify
from quern.compiler.passes.snapshot import Snapshot
from quern.compiler.report import Report
from quern.compiler.rewrite import rewrite
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array, DType, TensorType
from quern.runtime.executable import Executable

Case = tuple[Graph, dict[str, Array]]
F = np.float32
ODD = np.array([1.5, -2.0, 0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, 3e38], F)
FEW = settings(max_examples=25, suppress_health_check=list(HealthCheck))


def results(graph: Graph, feeds: Mapping[str, Array]) -> dict[str, Array]:
    with np.errstate(all="ignore"):
        found = evaluate(graph.verify(), feeds)
    return {**found.outputs, **{f"new {k}": v for k, v in found.updates.items()}}


def same(before: Graph, after: Graph, feeds: Mapping[str, Array], rtol: float = 0.0) -> None:
    """Equal results: to the bit but for the sign of zeros, or to a relative error."""
    expected, found = results(before, feeds), results(after, feeds)
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_allclose(found[name], array, rtol, rtol, err_msg=name)


def live(graph: Graph) -> list[Op]:
    """Operations that results depend on, without the leaves, in order."""
    names = graph.live()
    return [n.op for n in graph.nodes() if n.name in names and not isinstance(n.op, Leaf)]


def kinds(graph: Graph) -> list[str]:
    return [op.name for op in live(graph)]


def applied(step: Pass, function: Callable[..., Any], *arrays: Array) -> Graph:
    """The graph of a function of tensors after a pass that has kept its meaning."""
    graph, feeds = graph_of(function, *arrays)
    after = step.apply(graph.verify())
    same(graph, after, feeds)
    return after


def of_constants(graph: Graph, feeds: Mapping[str, Array]) -> Graph:
    """The graph with constants for inputs."""

    def rule(rewriter: Any, node: Any) -> list[Tensor] | None:
        known = isinstance(node.op, Input)
        return [rewriter.new.constant(feeds[node.name])] if known else None

    return rewrite(graph, rule)


# -- what holds for every pass ---------------------------------------------------------------------

PASSES: dict[str, Pass] = {
    "expand": Expand(),
    "expand for gradients": Expand(for_gradient=True),
    "fold": FoldConstants(),
    "simplify": Simplify(),
    "sink reshapes": SinkReshapes(),
    "share": ShareCommonSubexpressions(),
    "fold batch norm": FoldBatchNorm(),
    "snapshot": Snapshot(),
    "standard": Pipeline(standard_passes()),
}


@pytest.mark.parametrize("name", PASSES)
def test_random_graphs_keep_their_meaning(name: str) -> None:
    @FEW
    @given(graphs())
    def check(case: Case) -> None:
        graph, feeds = case
        before = str(graph)
        after = PASSES[name].apply(graph.verify())
        assert str(graph) == before, "a pass changed the graph it was given"
        same(graph, after, feeds, rtol=1e-12)
        same(graph, PASSES[name].apply(after), feeds, rtol=1e-12)

    check()


@FEW
@given(graphs())
def test_random_graphs_of_constants_are_computed_at_once(case: Case) -> None:
    graph, feeds = case
    known = of_constants(graph, feeds)
    after = FoldConstants(most=1 << 20).apply(known)
    same(graph, after, feeds)
    assert kinds(after) == []


@FEW
@given(graphs())
def test_random_graphs_of_parameters_are_prepared(case: Case) -> None:
    """Half of the inputs are parameters; what follows from them alone is computed before."""
    graph, feeds = case

    def rule(rewriter: Any, node: Any) -> list[Tensor] | None:
        known = isinstance(node.op, Input) and node.name != "x0"
        return [rewriter.new.parameter(feeds[node.name], node.name)] if known else None

    with_state = rewrite(rewrite(graph, rule))
    prepared = hoist(with_state)
    main = with_contents(prepared)
    assert [n.name for n in main.leaves(State)] == [n.name for n in with_state.leaves(State)]
    same(with_state, main, feeds)


def with_contents(prepared: Prepared) -> Graph:
    """What runs, with what was prepared."""
    main = prepared.main.copy()
    if prepared.preparation is not None:
        with np.errstate(all="ignore"):
            main.data |= evaluate(prepared.preparation.verify(), {}).outputs
    return main


def test_names_of_passes_are_short() -> None:
    names = [step.name for step in standard_passes()]
    assert names[:3] == ["fold-batch-norm", "classify-before-resize", "merge-recurrences"]


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
    "reductions of one element": (lambda x: x.reshape(9, 1).max(1).reshape(9), []),
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

    step = Pipeline((FoldConstants(), Simplify()))
    after = applied(step, of_constant, np.float32([1, 2, 3, 4]))
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


# -- old contents ----------------------------------------------------------------------------------


def test_old_contents_that_are_wanted_later_are_copied() -> None:
    graph = Graph()
    a, b, still = (graph.parameter(np.full(2, i, F), n) for i, n in enumerate(("a", "b", "still")))
    graph.outputs = {"old": a.reshape(2, 1).value, "still": still.value}
    graph.updates = {"a": b.value, "b": a.value, "still": still.value}
    after = Snapshot().apply(graph)
    same(graph, after, {})
    assert kinds(after) == ["Reshape", "Slice", "Slice", "Slice"]
    assert after.outputs["still"] == after.updates["still"] == Value("still")
    assert Snapshot().apply(after) is after


# -- batch norm ------------------------------------------------------------------------------------


def layers() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """What batch normalisation is folded into, and the shape of its input."""
    return {
        "convolution": (nn.Conv2d(3, 4, 3, padding=1), (2, 3, 5, 5)),
        "without bias": (nn.Conv2d(3, 4, 3, bias=False), (2, 3, 5, 5)),
        "in groups": (nn.Conv2d(4, 6, 3, groups=2), (2, 4, 5, 5)),
        "depthwise": (nn.Conv2d(4, 4, 3, groups=4), (2, 4, 5, 5)),
        "over one axis": (nn.Conv1d(3, 4, 3), (2, 3, 7)),
        "over three axes": (nn.Conv3d(2, 3, 2), (1, 2, 3, 3, 3)),
        "transposed": (nn.ConvTranspose2d(3, 4, 3, stride=2), (2, 3, 4, 4)),
        "transposed in groups": (nn.ConvTranspose2d(4, 6, 3, groups=2, bias=False), (2, 4, 4, 4)),
        "linear": (nn.Linear(5, 4), (3, 5)),
        "linear without bias": (nn.Linear(5, 4, bias=False), (3, 5)),
    }


def norm_of(graph_channels: int, rank: int, affine: bool) -> nn.Module:
    """A batch norm with random statistics and weights, in inference."""
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[rank]
    norm = kind(graph_channels, affine=affine)
    rng = np.random.default_rng(8)
    norm.load_state_dict(
        {k: (rng.random(v.shape) + 0.5).astype(v.dtype) for k, v in norm.state_dict().items()}
    )
    return norm


def normalised(layer: nn.Module, shape: tuple[int, ...], affine: bool = True) -> Graph:
    """The graph of a layer and a batch norm behind it."""
    channels = qn.trace(layer, qn.spec(*shape))
    rank = channels.type_of(channels.outputs["output"]).rank
    count = channels.type_of(channels.outputs["output"]).shape[1]
    return qn.trace(nn.Sequential(layer, norm_of(count, rank, affine)).eval(), qn.spec(*shape))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("name", layers())
def test_batch_norm_becomes_part_of_the_layer_before(name: str, affine: bool) -> None:
    qn.manual_seed(1)
    layer, shape = layers()[name]
    graph = normalised(layer, shape, affine)
    assert "BatchNormInference" in kinds(graph)
    after = FoldBatchNorm().apply(graph)
    x = np.random.default_rng(2).standard_normal(shape).astype(F)
    (given_name,) = (n.name for n in graph.leaves(Input))
    same(graph, after, {given_name: x}, rtol=2e-5)
    assert "BatchNormInference" not in kinds(after)
    node = after.producer(after.outputs["output"])
    assert type(node.op) is type(live(graph)[0])
    assert [o.name for o in node.origins] == ["0", "1"]
    main = hoist(optimize(graph, Options(), Report())).main
    per_output = [k for k in kinds(main) if k in ("Multiply", "Divide", "Sqrt", "Subtract")]
    assert per_output == [], "what depends on parameters alone is prepared"


def test_batch_norm_over_the_rows_of_a_linear_layer_is_kept() -> None:
    """Behind (N, L, C) its channels are L; here as many as C, which must not be confused."""
    layer = nn.Linear(5, 4)
    graph = normalised(layer, (3, 4, 5))
    assert "BatchNormInference" in kinds(FoldBatchNorm().apply(graph))


def test_batch_norm_is_kept_where_something_else_reads_the_layer() -> None:
    conv, norm = nn.Conv2d(3, 4, 1), norm_of(4, 4, True)

    def both(x: Tensor) -> Tensor:
        y = conv(x)
        return norm(y) + y

    def shown(x: Tensor) -> tuple[Tensor, Tensor]:
        y = conv(x)
        return norm(y), y

    for function in (both, shown):
        graph = qn.trace(function, qn.spec(1, 3, 2, 2), training=False)
        assert "BatchNormInference" in kinds(FoldBatchNorm().apply(graph))


def test_batch_norm_is_kept_where_states_are_updated() -> None:
    graph = normalised(*layers()["convolution"])
    counter = graph.buffer(np.float32(0), "counter")
    graph.updates["counter"] = (counter + 1.0).value
    assert FoldBatchNorm().apply(graph) is graph


def test_batch_norm_with_statistics_that_are_inputs() -> None:
    """They are folded as well, but the weights are then made in every run."""
    graph = Graph()
    rng = np.random.default_rng(0)
    feeds = {"x": rng.standard_normal((2, 3, 4, 4)).astype(F)}
    x = graph.input(TensorType((2, 3, 4, 4)), "x")
    w = graph.parameter(rng.standard_normal((5, 3, 1, 1)).astype(F), "w")
    names = ("mean", "variance", "weight", "bias")
    given_values = [graph.input(TensorType((5,)), n) for n in names]
    feeds |= {n: (rng.random(5) + 0.5).astype(F) for n in names}
    y = apply(Conv((1, 1), ((0, 0), (0, 0)), (1, 1)), x, w)
    graph.outputs["y"] = apply(BatchNormInference(), y, *given_values).value
    after = FoldBatchNorm().apply(graph)
    same(graph, after, feeds, rtol=2e-5)
    prepared = hoist(Expand().apply(after))
    assert prepared.preparation is None


# -- what follows from parameters alone ------------------------------------------------------------


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


# -- provenance ------------------------------------------------------------------------------------


class Net(nn.Module):
    """LeNet with batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 6, 5, padding=2), nn.BatchNorm2d(6)
        self.relu1, self.pool1 = nn.ReLU(), nn.MaxPool2d(2)
        self.conv2, self.bn2 = nn.Conv2d(6, 16, 5), nn.BatchNorm2d(16)
        self.relu2, self.pool2 = nn.ReLU(), nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.fc1, self.relu3 = nn.Linear(400, 120), nn.ReLU()
        self.fc2 = nn.Linear(120, 10)

    def forward(self, x: Tensor) -> Tensor:
        for _, module in self.named_children():
            x = module(x)
        return x


@pytest.mark.parametrize("training", [False, True])
def test_every_layer_of_the_user_is_in_some_kernel(training: bool) -> None:
    graph = qn.trace(Net(), qn.spec(2, 1, 28, 28), training=training)
    graph = differentiate(graph) if training else graph
    optimized = hoist(optimize(graph, Options(), Report())).main
    groups = partition(optimized)
    origins = {
        o.name.split(".")[0] for g in groups for n in g.nodes for o in optimized.node(n).origins
    }
    views = {"flatten"}  # a view of memory: no kernel computes it
    layers = {name for name, _ in Net().named_children()}
    assert layers - views <= origins
    names = " ".join(g.name for g in groups)
    assert all(layer in names for layer in layers - views)
    sources = [n.source for n in optimized.nodes() if not isinstance(n.op, Leaf)]
    assert all(s is not None and s.file == __file__ for s in sources)


def test_kernels_are_named_after_layers() -> None:
    graph = qn.trace(Net().eval(), qn.spec(2, 1, 28, 28))
    optimized = hoist(optimize(graph, Options(), Report())).main
    assert [g.name for g in partition(optimized)] == [
        "conv1_bn1_relu1_pool1", "conv2_bn2_relu2_pool2", "pool2.unblock", "fc1_relu3", "fc2",
    ]  # fmt: skip


def test_leaves_survive_every_pass() -> None:
    graph = differentiate(lenet(), "loss")
    before = {k: [n.name for n in graph.leaves(k)] for k in (Input, State)}
    optimized = optimize(graph, Options(), Report()).verify()
    assert {k: [n.name for n in optimized.leaves(k)] for k in (Input, State)} == before
    assert all(n.name in optimized.data for n in optimized.leaves(Constant))
    assert optimized.outputs.keys() == graph.outputs.keys()
