"""From modules and functions to graphs: names, places in the code, types, updates, errors."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import quern as qn
from quern import nn
from quern.compiler.autodiff import differentiate
from quern.compiler.errors import DTypeError, ShapeError, UsageError
from quern.compiler.evaluate import evaluate
from quern.compiler.graph import Graph, Phase, Value
from quern.compiler.ops.random import Dropout
from quern.compiler.types import DType, TensorType
from quern.nn import functional as F


def line_of(function: Callable[..., Any], text: str) -> int:
    """The line of this file where `text` stands in a function."""
    lines, start = inspect.getsourcelines(function)
    (found,) = [i for i, line in enumerate(lines) if text in line]
    return start + found


class Block(nn.Module):
    """A layer and a function call."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Any) -> Any:
        return F.relu(self.conv(x)) + x


class Network(nn.Module):
    """Nested containers, one block that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
        self.block = Block(4)
        self.head = nn.Linear(4, 3)

    def forward(self, image: Any) -> Any:
        x = self.block(self.block(self.stem(image)))
        return self.head(x.mean((2, 3)))


def operations(graph: Graph) -> list[str]:
    """Names of what is neither leaf nor shape."""
    return [n.name for n in graph.nodes() if n.op.arity != (0, 0) and n.op.name != "Reshape"]


# -- names ----------------------------------------------------------------------------------------


def test_nodes_are_named_after_the_modules_that_make_them() -> None:
    graph = qn.trace(Network(), qn.spec(2, 1, 6, 6)).verify()
    assert graph.name == "Network"
    assert operations(graph) == [
        "stem.0",
        "stem.1",
        "block.conv",
        "block.relu",
        "block.add",
        "block.conv_1",
        "block.relu_1",
        "block.add_1",
        "sum",
        "multiply",
        "head",
    ]


def test_states_are_named_after_their_keys_and_inputs_after_arguments() -> None:
    network = Network()
    graph = qn.trace(network, qn.spec(2, 1, 6, 6))
    assert [n.name for n in graph.leaves(qn.compiler.ops.leaf.Input)] == ["image"]
    assert set(graph.data) - {"constant"} == set(network.state_dict())
    for name, array in network.state_dict().items():
        assert graph.data[name] is array


def test_a_layer_that_needs_several_nodes_gives_its_name_to_the_main_one() -> None:
    layers = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"))
    graph = qn.trace(layers, qn.spec(1, 1, 5, 5))
    assert operations(graph) == ["0.pad", "0"]
    assert graph.node("0").op.name == "Conv"


def test_a_layer_that_is_the_whole_network_is_named_after_its_operation() -> None:
    assert operations(qn.trace(nn.Linear(3, 2), qn.spec(4, 3))) == ["linear"]


def test_names_of_states_are_theirs_whatever_nodes_are_called() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu = nn.Parameter(np.ones(3, np.float32))

        def forward(self, x: Any) -> Any:
            return F.relu(x) * self.relu

    graph = qn.trace(Odd(), qn.spec(3))
    assert operations(graph) == ["relu_1", "multiply"]
    assert graph.node("relu").op.name == "Parameter"


def test_modules_made_inside_forward_are_named_after_their_class() -> None:
    class Inline(nn.Module):
        def forward(self, x: Any) -> Any:
            return nn.LeakyReLU()(x)

    graph = qn.trace(nn.Sequential(Inline()), qn.spec(3))
    assert operations(graph) == ["0.leaky_relu"]


def test_a_function_may_call_modules_and_use_parameters() -> None:
    network, loss = nn.Sequential(nn.Linear(3, 2)), nn.CrossEntropyLoss()
    scale = nn.Parameter(np.ones(1, np.float32))

    def step(x: Any, target: Any) -> Any:
        return loss(network(x) * scale, target)

    graph = qn.trace(step, qn.spec(4, 3), qn.spec(4, dtype="int64"))
    assert graph.name == "step"
    assert operations(graph) == ["0", "multiply", "cross_entropy_loss"]
    assert set(graph.data) == {"0.weight", "0.bias", "parameter"}


# -- ties -----------------------------------------------------------------------------------------


def test_a_tied_weight_is_one_node_and_its_gradients_add() -> None:
    network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    network[1].weight = network[0].weight
    network[0].weight.data[:] = 3.0
    graph = qn.trace(network, qn.spec(1, 1))
    assert list(graph.data) == ["0.weight"]
    x = np.full((1, 1), 5.0, np.float32)
    result = evaluate(differentiate(graph), {"input": x}).outputs
    assert result["output"].item() == 45.0  # w (w x)
    assert result["grad.0.weight"].item() == 30.0  # 2 w x


# -- places in the code ---------------------------------------------------------------------------


def test_nodes_remember_the_innermost_line_of_the_users_code() -> None:
    graph = qn.trace(Network(), qn.spec(2, 1, 6, 6))
    expected = {
        "stem.0": line_of(Network.forward, "self.stem"),
        "block.conv": line_of(Block.forward, "self.conv"),
        "block.relu": line_of(Block.forward, "self.conv"),
        "head": line_of(Network.forward, "self.head"),
    }
    for name, line in expected.items():
        source = graph.node(name).source
        assert source is not None
        assert (source.file, source.line) == (__file__, line)


# -- inputs ---------------------------------------------------------------------------------------


def test_spec_is_the_type_of_an_input() -> None:
    assert qn.spec(2, 3) == qn.spec((2, 3)) == qn.spec([2, np.int64(3)]) == TensorType((2, 3))
    assert qn.spec() == TensorType(())
    assert qn.spec(4, dtype="int64") == TensorType((4,), DType.INT64)
    assert qn.spec(np.zeros((2, 0), np.int32)) == TensorType((2, 0), DType.INT32)
    for bad in ((-1,), (2.5,), ("x",)):
        with pytest.raises(UsageError, match="is no shape"):
            qn.spec(*bad)  # type: ignore[arg-type]  # which is refused
    with pytest.raises(DTypeError, match="complex64"):
        qn.spec(2, dtype="complex64")


def inputs_of(graph: Graph) -> dict[str, str]:
    return {n.name: str(n.types[0]) for n in graph.nodes() if n.op.name == "Input"}


def test_arguments_may_be_structures_and_arrays_and_plain_values() -> None:
    def f(pair: Any, table: Any, factor: float, *rest: Any, flip: bool = False) -> Any:
        (a, b), result = pair, table["c"] * factor
        assert flip is True
        return a + b + result + rest[0] + rest[1]

    one = qn.spec(2)
    graph = qn.trace(f, (one, one), {"c": np.ones(2, np.float32)}, 2.0, one, one, flip=True)
    assert list(inputs_of(graph)) == ["pair.0", "pair.1", "table.c", "rest0", "rest1"]


def test_arguments_may_be_given_by_name() -> None:
    graph = qn.trace(lambda a, b=None, **more: a + more["c"], c=qn.spec(2), a=qn.spec(3, 1))
    assert inputs_of(graph) == {"a": "float32[3, 1]", "c": "float32[2]"}


# -- outputs --------------------------------------------------------------------------------------


class Pair(NamedTuple):
    """Two results."""

    first: Any
    second: Any


@pytest.mark.parametrize(
    ("result", "names"),
    [
        (lambda x: x, ["output"]),
        (lambda x: (x, x), ["output0", "output1"]),
        (lambda x: [x, None, x], ["output0", "output2"]),
        (lambda x: {"a": x, "b": x}, ["a", "b"]),
        (lambda x: Pair(x, x), ["first", "second"]),
        (lambda x: {"a": (x, x), "b": {"c": x}}, ["a.0", "a.1", "b.c"]),
        (lambda x: (x, (x, x)), ["output0", "output1.0", "output1.1"]),
    ],
)
def test_outputs_are_named_after_what_forward_returns(
    result: Callable[[Any], Any], names: list[str]
) -> None:
    assert list(qn.trace(result, qn.spec(2)).outputs) == names


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda x: None, "returns nothing"),
        (lambda x: 3.5, "returns 3.5 where a tensor is wanted"),
        (lambda x: {"a": {"b": x}, "a.b": x}, "two outputs called a.b"),
    ],
)
def test_what_cannot_be_an_output_is_refused(result: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        qn.trace(result, qn.spec(2))


# -- modes and updates ----------------------------------------------------------------------------


class Normalized(nn.Module):
    """Everything that differs between training and inference."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Dropout2d(0.25)

    def forward(self, x: Any) -> Any:
        return self.last(self.drop(self.norm(x)).reshape(2, 3, 1, 2))


def test_training_updates_statistics_and_the_random_counter() -> None:
    graph = qn.trace(Normalized(), qn.spec(4, 3)).verify()
    assert graph.updates["norm.running_mean"] == Value("norm", 1)
    assert graph.updates["norm.running_var"] == Value("norm", 2)
    assert set(graph.updates) == {
        "norm.running_mean",
        "norm.running_var",
        "norm.num_batches_tracked",
        "rng.step",
    }
    streams = [n.op.stream for n in graph.nodes() if isinstance(n.op, Dropout)]
    assert streams == [0, 1]
    assert graph.data["rng.step"] == 0
    for name in ("norm.num_batches_tracked", "rng.step"):
        assert graph.producer(graph.updates[name]).phase is Phase.UPDATE


def test_the_random_numbers_start_from_the_seed() -> None:
    qn.manual_seed(17)
    assert qn.trace(Normalized(), qn.spec(4, 3)).data["rng.seed"] == 17


def test_training_may_be_chosen_for_the_trace_alone() -> None:
    network = Normalized()
    network.drop.eval()
    graph = qn.trace(network, qn.spec(4, 3), training=False)
    assert not graph.updates
    assert operations(graph) == ["norm"]
    assert [m.training for m in network.modules()] == [True, True, False, True]
    assert "drop" in qn.trace(lambda x: network(x), qn.spec(4, 3), training=True)
    assert "drop" not in qn.trace(network, qn.spec(4, 3))
    assert [m.training for m in network.modules()] == [True, True, False, True]


def test_a_buffer_assigned_in_forward_is_an_update_and_reads_as_its_new_value() -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", np.zeros((), np.float32))

        def forward(self, x: Any) -> Any:
            self.count = self.count + 1
            return x + self.count

    counter = Counter()
    graph = qn.trace(lambda x: counter(counter(x)), qn.spec(2))
    result = evaluate(graph, {"x": np.zeros(2, np.float32)})
    assert result.outputs["output"].tolist() == [3, 3]
    assert result.updates["count"] == 2
    assert counter.count.data == 0  # tracing itself leaves the module as it was


def test_a_buffer_keeps_its_type() -> None:
    class Grown(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", np.zeros(2, np.float32))

        def forward(self, x: Any) -> Any:
            self.seen = x
            return x

    with pytest.raises(ShapeError, match=r"seen is float32\[2\], it cannot become float32\[3\]"):
        qn.trace(Grown(), qn.spec(3))


# -- errors ---------------------------------------------------------------------------------------


def test_a_clash_in_a_layer_names_the_layer_and_the_users_line() -> None:
    network = Network()
    network.head = nn.Linear(5, 3)
    line = line_of(Network.forward, "self.head")
    with pytest.raises(ShapeError, match=rf"^head \({__file__}:{line}\): .*4.*5") as caught:
        qn.trace(network, qn.spec(2, 1, 6, 6))
    assert "\n" not in str(caught.value)


class Clash(nn.Module):
    """Fails before there is a node."""

    def forward(self, x: Any) -> Any:
        return x.permute(0, 2)


def test_a_clash_outside_of_any_node_names_the_module_and_the_users_line() -> None:
    line = line_of(Clash.forward, "permute")
    with pytest.raises(ShapeError, match=rf"^0 \({__file__}:{line}\): "):
        qn.trace(nn.Sequential(Clash()), qn.spec(2, 3))


def test_arguments_that_forward_does_not_take_are_refused() -> None:
    with pytest.raises(UsageError, match="Network takes image: too many positional"):
        qn.trace(Network(), qn.spec(1), qn.spec(1))
    with pytest.raises(UsageError, match="missing a required argument: 'image'"):
        qn.trace(Network())
    with pytest.raises(UsageError, match="neither a module nor a function"):
        qn.trace(3, qn.spec(1))  # type: ignore[arg-type]  # which is refused
    with pytest.raises(UsageError, match="Module has no forward"):
        qn.trace(nn.Module(), qn.spec(1))


def test_symbolic_tensors_live_inside_a_trace_only() -> None:
    network = Network()
    with pytest.raises(UsageError, match="only inside forward; its array is"):
        network.head.weight * 2.0
    tensor = Graph().input(TensorType((2, 4)), "x")
    with pytest.raises(UsageError, match="outside of a trace"):
        network.head(tensor)
    with pytest.raises(ShapeError, match="truth"):
        qn.trace(lambda x: x if x.sum() > 0 else -x, qn.spec(2))


def test_a_failed_trace_leaves_nothing_behind() -> None:
    network = nn.Sequential(nn.Dropout(), Clash())
    with pytest.raises(ShapeError):
        qn.trace(network, qn.spec(2, 3), training=False)
    assert all(module.training for module in network.modules())
    with pytest.raises(UsageError, match="only inside forward"):
        nn.Parameter(np.ones(2)) + 1.0


def test_an_array_beside_a_tensor_is_a_constant_of_the_tensors_precision() -> None:
    scale = np.array([2.0, 3.0])
    graph = qn.trace(lambda x: {"right": x * scale, "left": scale - x}, qn.spec(3, 2))
    assert {graph.type_of(v).dtype.value for v in graph.outputs.values()} == {"float32"}
    x = np.ones((3, 2), np.float32)
    right, left = qn.interpret(graph, x)
    np.testing.assert_array_equal(right, x * scale)
    np.testing.assert_array_equal(left, scale - x)
