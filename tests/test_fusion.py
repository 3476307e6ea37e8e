"""Which of a network's layers share a kernel, in inference and in training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracles import check_order, graph_of

import quern as qn
from quern import nn, optim
from quern.compiler.autodiff import differentiate
from quern.compiler.driver import Options, compile_graph, lower_groups, optimize
from quern.compiler.evaluate import evaluate
from quern.compiler.graph import Graph, Phase
from quern.compiler.group import Group
from quern.compiler.llvm.target import Target
from quern.compiler.ops.blocked import BlockedConv
from quern.compiler.ops.conv import Conv
from quern.compiler.ops.leaf import State
from quern.compiler.ops.pointwise import Power
from quern.compiler.ops.pool import MaxPool
from quern.compiler.passes.hoist import hoist
from quern.compiler.passes.partition import partition
from quern.compiler.report import Report
from quern.compiler.tensor import Tensor
from quern.compiler.training import Optimizer, build_training_step
from quern.compiler.types import DType, TensorType
from quern.nn import functional as F
from quern.runtime.executable import Executable
from quern.runtime.program import Program, SlotKind

GOLDEN = Path(__file__).parent / "golden"
AVX2 = Target.named("avx2")  # blocks of 8 channels, whatever machine this is


# -- networks --------------------------------------------------------------------------------------


class LeNet(nn.Module):
    """LeNet-5 with rectifiers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.relu1 = nn.Conv2d(1, 6, 5, padding=2), nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2, self.relu2, self.pool2 = nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.fc1, self.relu3 = nn.Linear(400, 120), nn.ReLU()
        self.fc2, self.relu4 = nn.Linear(120, 84), nn.ReLU()
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        for _, module in self.named_children():
            x = module(x)
        return x


class Block(nn.Module):
    """A residual block."""

    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, channels, 3, stride, 1, bias=False)
        self.bn1, self.relu1 = nn.BatchNorm2d(channels), nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2, self.relu2 = nn.BatchNorm2d(channels), nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1:
            conv = nn.Conv2d(before, channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(y + self.shortcut(x))


class ResNet(nn.Module):
    """A stem and two residual blocks, of which the second halves the image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm, self.relu = nn.BatchNorm2d(8), nn.ReLU()
        self.layer1, self.layer2 = Block(8, 8, 1), Block(8, 16, 2)
        self.pool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        for _, module in self.named_children():
            x = module(x)
        return x


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "lenet": (LeNet, (16, 1, 28, 28)),
    "resnet": (ResNet, (8, 3, 12, 12)),
}


def training_step(name: str, optimizer: Optimizer | None = None) -> Graph:
    """Forward, backward and update of a network with a cross-entropy loss."""
    build, shape = NETWORKS[name]
    model = build()

    def loss(image: Tensor, target: Tensor) -> dict[str, Tensor]:
        return {"loss": F.cross_entropy(model(image), target)}

    specs = qn.spec(*shape), TensorType(shape[:1], DType.INT64)
    graph = qn.trace(loss, *specs, name=name, training=True)
    return build_training_step(graph, "loss", optimizer or optim.SGD(0.1, momentum=0.9))


def optimized(graph: Graph, target: Target | None = None) -> Graph:
    """Without Winograd's algorithm, which is chosen by cost."""
    options = Options(target or Target.host(), algorithms="direct")
    return hoist(optimize(graph.verify(), options, Report()).verify()).main


def kernels(graph: Graph) -> tuple[Group, ...]:
    """The groups of an optimized graph."""
    found = partition(graph)
    check_order(graph, found)
    return found


def planned(graph: Graph) -> Program:
    return lower_groups(graph, Options(), Report()).run()


def inference(model: nn.Module, *shape: int) -> tuple[Group, ...]:
    return kernels(optimized(qn.trace(model.eval(), qn.spec(*shape))))


def of(function: Callable[..., Any], *shapes: tuple[int, ...]) -> tuple[Group, ...]:
    graph, _ = graph_of(function, *(np.zeros(s, np.float32) for s in shapes))
    return kernels(optimized(graph))


# -- convolution, ReLU and max-pool ----------------------------------------------------------------


def test_convolution_relu_and_pool_are_one_kernel_in_inference() -> None:
    found = inference(LeNet(), 16, 1, 28, 28)
    assert [g.name for g in found] == [
        "conv1_relu1_pool1", "conv2_relu2_pool2", "pool2.unblock", "fc1_relu3", "fc2_relu4", "fc3",
    ]  # fmt: skip


def test_convolution_relu_and_pool_are_one_kernel_in_training() -> None:
    """What the convolution gives is in no memory: the mask of ReLU is that of the pooled value."""
    graph = optimized(training_step("lenet"), AVX2)
    found = kernels(graph)
    forward = [g for g in found if g.phase is Phase.FORWARD and not g.name.endswith("pack_weight")]
    assert [g.name for g in forward[:2]] == ["conv1_relu1_pool1", "conv2_relu2_pool2"]
    for group in forward[:2]:
        assert group.anchor is not None
        assert isinstance(graph.node(group.anchor).op, Conv | BlockedConv)
        assert group.pool is not None
        assert isinstance(graph.node(group.pool).op, MaxPool)
        assert {v.node for v in group.outputs} == {group.pool}
    full = {graph.node(g.anchor).types[0].shape for g in forward[:2] if g.anchor}
    assert full == {(16, 6, 28, 28), (16, 2, 10, 10, 8)}
    in_forward = [v for g in forward for v in g.outputs]
    assert not [v for v in in_forward if graph.type_of(v).shape in full]
    position = graph.type_of(forward[0].outputs[1])
    assert (position.shape, position.dtype) == ((16, 6, 14, 14), DType.UINT8)


@pytest.mark.parametrize("pool", [nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2, 2), nn.MaxPool2d((2, 1))])
@pytest.mark.parametrize("act", [nn.ReLU, nn.Identity])
def test_any_window_is_read_while_it_is_in_cache(pool: nn.Module, act: type[nn.Module]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), act(), pool)
    graph = qn.trace(model, qn.spec(2, 3, 12, 12))
    graph = optimized(differentiate(graph))
    first = kernels(graph)[0]
    assert first.pool is not None
    assert {v.node for v in first.outputs} == {first.pool}


def test_an_activation_whose_slope_depends_on_the_full_size_is_stored() -> None:
    """Of tanh the backward pass reads every element, so that the pool is a kernel of its own."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.MaxPool2d(2))
    found = kernels(optimized(differentiate(qn.trace(model, qn.spec(2, 3, 12, 12)))))
    assert all(g.pool is None for g in found)
    assert [g.name for g in found[:2]] == ["0_1", "2"]


def test_a_pool_that_is_read_by_the_user_too() -> None:
    conv = nn.Conv2d(3, 4, 3)

    def model(x: Tensor) -> tuple[Tensor, Tensor]:
        y = conv(x).relu()
        return F.max_pool2d(y, 2), y

    found = kernels(optimized(qn.trace(model, qn.spec(2, 3, 12, 12))))
    assert all(g.pool is None for g in found)


# -- what becomes one kernel -----------------------------------------------------------------------

ONE: dict[str, Callable[[], tuple[Group, ...]]] = {
    "softmax": lambda: inference(nn.Softmax(1), 8, 10),
    "softmax over channels": lambda: inference(nn.Softmax(1), 2, 5, 4, 4),
    "log-softmax": lambda: inference(nn.LogSoftmax(1), 8, 10),
    "layer norm": lambda: inference(nn.LayerNorm(16), 8, 16),
    "layer norm with residual": lambda: of(
        lambda x, r, w, b: F.layer_norm(x + r, (16,), w, b), (8, 16), (8, 16), (16,), (16,)
    ),
    "group norm": lambda: inference(nn.GroupNorm(2, 4), 3, 4, 5, 5),
    "convolution, bias, ReLU, residual": lambda: of(
        lambda x, w, b, r: (F.conv2d(x, w, b, padding=1) + r).relu(),
        (2, 3, 8, 8), (4, 3, 3, 3), (4,), (2, 4, 8, 8),
    ),
    "convolution, batch norm, ReLU": lambda: inference(
        nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()), 2, 3, 8, 8
    ),
    "convolution, batch norm, ReLU, pool": lambda: inference(
        nn.Sequential(
            nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)
        ), 2, 3, 8, 8,
    ),
    "linear, bias, GELU": lambda: inference(nn.Sequential(nn.Linear(8, 6), nn.GELU()), 4, 8),
    "linear, bias, GELU by tanh": lambda: inference(
        nn.Sequential(nn.Linear(8, 6), nn.GELU("tanh")), 4, 8
    ),
    "linear of three axes": lambda: inference(nn.Sequential(nn.Linear(8, 6)), 2, 4, 8),
    "linear of one sequence": lambda: inference(nn.Sequential(nn.Linear(8, 6), nn.GELU()), 1, 4, 8),
    "linear, dropout in inference": lambda: inference(
        nn.Sequential(nn.Linear(8, 6), nn.Dropout(0.5)), 4, 8
    ),
    "product with transposes": lambda: of(
        lambda q, k: (q @ k.transpose(-1, -2)) * 0.5, (2, 4, 8), (2, 5, 8)
    ),
    "mean squared error": lambda: of(lambda a, b: F.mse_loss(a, b), (4, 8), (4, 8)),
    "average over the image": lambda: inference(
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), 2, 3, 4, 4
    ),
    "swish": lambda: of(lambda x: x * x.sigmoid(), (4, 8)),
}  # fmt: skip


@pytest.mark.parametrize("name", ONE)
def test_one_kernel(name: str) -> None:
    found = [g.name for g in ONE[name]() if not g.name.endswith(".unblock")]
    assert found[1:] == []


def test_batch_norm_in_training_is_one_kernel_each_way() -> None:
    """Statistics, result and running statistics; then all gradients. And counters."""
    norm = nn.BatchNorm2d(3)
    graph = qn.trace(nn.Sequential(norm, nn.ReLU()), qn.spec(4, 3, 5, 5), training=True)
    graph.outputs["loss"] = (graph.tensor(graph.outputs["output"]) ** 2.0).sum().value
    del graph.outputs["output"]
    graph = optimized(build_training_step(graph, "loss", optim.SGD(0.1)))
    found = kernels(graph)
    by_phase = Counter(g.phase for g in found if graph.type_of(g.outputs[0]).dtype.is_float)
    assert by_phase == {Phase.FORWARD: 2, Phase.BACKWARD: 1}  # the loss is the second one
    assert len(found) == 4
    written = {s for s in graph.updates if s.startswith("0.") and not s.endswith("tracked")}
    assert written == {"0.weight", "0.bias", "0.running_mean", "0.running_var"}


def test_attention_is_a_kernel_for_each_product_and_one_for_softmax() -> None:
    found = of(
        lambda q, k, v: F.softmax((q @ k.transpose(-1, -2)) * 0.25, -1) @ v,
        (2, 4, 8), (2, 5, 8), (2, 5, 8),
    )  # fmt: skip
    assert len(found) == 3


# -- updates ---------------------------------------------------------------------------------------

OPTIMIZERS: dict[str, Optimizer] = {
    "plain": optim.SGD(0.1),
    "momentum": optim.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adam": optim.Adam(),
    "adamw": optim.AdamW(),
    "rmsprop": optim.RMSprop(centered=True, momentum=0.5),
    "adagrad": optim.Adagrad(),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_parameters_are_updated_by_the_kernel_of_their_gradient(name: str) -> None:
    graph = optimized(training_step("lenet", OPTIMIZERS[name]))
    found = kernels(graph)
    writers = {v: g for g in found for v in g.outputs}
    for layer in ("conv1", "conv2", "fc1", "fc2", "fc3"):
        for parameter in ("weight", "bias"):
            value = graph.updates[f"{layer}.{parameter}"]
            while value not in writers:
                (value,) = graph.inputs_of(value.node)  # a reshape
            group = writers[value]
            assert group.phase is Phase.BACKWARD
            assert (group.anchor is not None) == (parameter == "weight")
            kinds = {graph.node(v.node).phase for v in group.outputs}
            assert kinds == {Phase.UPDATE}, "the gradient itself is in no memory"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_states_are_written_in_place(name: str) -> None:
    program = planned(optimized(training_step("lenet", OPTIMIZERS[name])))
    assert [k.name for k in program.kernels if k.note == "copy"] == []


def test_gradients_that_are_clipped_together_are_updated_once_each() -> None:
    graph = optimized(training_step("lenet", optim.Adam(clip_grad_norm=1.0)))
    found = kernels(graph)
    large = [g for g in found if g.phase is Phase.UPDATE and len(g.outputs) == 3 and g.space]
    assert len(large) == 10, "moments and parameter of each of ten parameters"
    powers = [g for g in found if any(isinstance(graph.node(n).op, Power) for n in g.nodes)]
    assert all(not g.space for g in powers), "the corrections of Adam are computed once"


def test_running_statistics_are_written_in_place() -> None:
    graph = optimized(training_step("resnet"))
    program = planned(graph)
    assert [k.name for k in program.kernels if k.note == "copy"] == []
    states = {s.name for s in program.slots if s.kind is SlotKind.STATE}
    assert states == {n.name for n in graph.leaves(State)}


# -- whole networks --------------------------------------------------------------------------------


def listing(graph: Graph, found: tuple[Group, ...]) -> str:
    """A line for each kernel: phase, name, how its loops go, what it writes."""
    lines = [f"{graph.name}: {len(found)} kernels", ""]
    for group in found:
        way = "points"
        if group.axes:
            way = f"reduces {group.axes}"
        elif group.anchor:
            way = graph.node(group.anchor).op.name + (" + MaxPool" if group.pool else "")
        written = ", ".join(f"{v} {graph.type_of(v)}" for v in group.outputs)
        lines.append(f"{group.phase.value:9}{group.name}: {way}, {group.space} -> {written}")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", NETWORKS)
def test_golden_kernels_of_a_training_step(name: str) -> None:
    """Written anew by deleting tests/golden/kernels_*.txt and running this test."""
    graph = optimized(training_step(name), AVX2)
    text = listing(graph, kernels(graph))
    file = GOLDEN / f"kernels_{name}.txt"
    if not file.exists():
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NETWORKS)
def test_training_steps_compute_what_numpy_does(name: str) -> None:
    """Loss, parameters, momentum and running statistics after two steps."""
    qn.manual_seed(5)
    graph = training_step(name)
    rng = np.random.default_rng(6)
    shape = NETWORKS[name][1]
    feeds = {
        "image": rng.standard_normal(shape).astype(np.float32),
        "target": rng.integers(0, 10, shape[0]),
    }
    executable = Executable(compile_graph(graph, Options(workers=1)).image, threads=2)
    states = {n.name: graph.data[n.name] for n in graph.leaves(State)}
    for _ in range(2):
        expected = evaluate(graph, {**feeds, **states})
        found = executable.run(feeds)
        np.testing.assert_allclose(found["loss"], expected.outputs["loss"], 1e-4)
        states |= expected.updates
        for state, array in expected.updates.items():
            scale = max(1e-3, float(np.abs(array).max()))
            np.testing.assert_allclose(
                executable.state[state], array, 1e-3, 1e-3 * scale, err_msg=state
            )


def test_softmax_and_its_gradient() -> None:
    """The gradient is one kernel more, which reads the result again but not the input."""

    def weighted(x: Tensor, w: Tensor) -> Tensor:
        return (F.softmax(x, 1) * w).sum()

    graph, _ = graph_of(weighted, np.zeros((8, 10), np.float32), np.zeros((8, 10), np.float32))
    found = kernels(optimized(differentiate(graph, "y0", ["x0"])))
    assert len(found) <= 3
