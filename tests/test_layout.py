"""Blocks of channels over a whole graph: the same meaning, and no reorders inside of chains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import host
from oracles import check_kernels, compare

from quern.compiler.autodiff import differentiate
from quern.compiler.evaluate import evaluate
from quern.compiler.graph import Graph
from quern.compiler.layout import BlockChannels
from quern.compiler.llvm.target import Target
from quern.compiler.ops import movement as mv
from quern.compiler.ops.base import apply, apply_all
from quern.compiler.ops.blocked import BlockedConv
from quern.compiler.ops.conv import Conv, ConvInputGradient
from quern.compiler.ops.indexing import Take
from quern.compiler.ops.norm import BatchNorm
from quern.compiler.ops.pool import AvgPool, MaxPool, SumPool
from quern.compiler.passes.cse import ShareCommonSubexpressions
from quern.compiler.passes.expand import Expand
from quern.compiler.passes.partition import partition
from quern.compiler.passes.simplify import Simplify
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array, DType, TensorType

AVX2 = Target.named("avx2")
AVX512 = Target.named("avx512")


def numbers(shape: tuple[int, ...], seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def in_blocks(graph: Graph, target: Target = AVX2) -> Graph:
    """The graph as the passes leave it, with the layout pass at the end."""
    for step in (
        Expand(),
        Simplify(),
        ShareCommonSubexpressions(),
        BlockChannels(target),
        Simplify(),
        ShareCommonSubexpressions(),
    ):
        graph = step.apply(graph)
    return graph.verify()


def count(graph: Graph, *names: str) -> int:
    counter = Counter(node.op.name for node in graph.nodes())
    return sum(counter[name] for name in names)


def reorders(graph: Graph) -> int:
    return count(graph, "Block", "Unblock")


def same(graph: Graph, feeds: dict[str, Array], target: Target = AVX2) -> Graph:
    """The graph in blocks, which gives what the graph gives."""
    expected = evaluate(graph, feeds)
    changed = in_blocks(graph, target)
    found = evaluate(changed, feeds)
    for name, value in expected.outputs.items():
        compare(found.outputs[name], value, 1e-9, 1e-9, name)
    return changed


@dataclass
class Net:
    """A graph of float64 convolutions and what goes with them."""

    graph: Graph = field(default_factory=Graph, repr=False)
    feeds: dict[str, Array] = field(default_factory=dict, repr=False)

    def input(self, *shape: int, name: str = "x") -> Tensor:
        x = self.graph.input(TensorType(shape, DType.FLOAT64), f"{name}{len(self.feeds)}")
        self.feeds[x.value.node] = numbers(shape, len(self.feeds))
        return x

    def weight(self, *shape: int) -> Tensor:
        return self.input(*shape, name="w")

    def conv(
        self,
        x: Tensor,
        channels: int,
        kernel: int = 3,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        bias: bool = False,
    ) -> Tensor:
        rank = x.rank - 2
        reach = dilation * (kernel - 1)
        op = Conv(
            (stride,) * rank, ((reach // 2, reach - reach // 2),) * rank, (dilation,) * rank, groups
        )
        weights = [self.weight(channels, x.shape[1] // groups, *(kernel,) * rank)]
        weights += [self.weight(channels)] if bias else []
        return apply(op, x, *weights)

    def outputs(self, *tensors: Tensor) -> tuple[Graph, dict[str, Array]]:
        self.graph.outputs = {f"y{i}": t.value for i, t in enumerate(tensors)}
        return self.graph, self.feeds

    def trained(self, y: Tensor) -> tuple[Graph, dict[str, Array]]:
        """With the gradients of a loss by all inputs."""
        self.graph.outputs["loss"] = (y * y).sum().value
        known = [name for name in self.feeds if name in self.graph.live()]
        return differentiate(self.graph, "loss", known), self.feeds


# -- chains ---------------------------------------------------------------------------------------


def test_a_chain_of_convolutions_is_reordered_at_its_edges_alone() -> None:
    net = Net()
    x = net.input(2, 3, 8, 8)
    y = net.conv(x, 16, bias=True).relu()
    y = apply_all(MaxPool((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)), y)[0]
    y = net.conv(y, 24, kernel=1).relu()
    changed = same(*net.outputs(net.conv(y, 8)))
    assert count(changed, "BlockedConv") == 3
    assert reorders(changed) == 0  # the last one writes plain values


def test_what_nothing_reads_in_blocks_is_written_plain() -> None:
    """With its epilogue."""
    net = Net()
    y = net.conv(net.input(1, 8, 4, 4), 10, bias=True).relu()
    changed = same(*net.outputs(y.flatten(1)))
    assert [n.op.block for n in changed.nodes() if isinstance(n.op, BlockedConv)] == [1]
    assert len([g for g in partition(changed) if g.anchor]) == 1
    assert {n.types[0].shape for n in changed.nodes() if n.op.name in ("Add", "Relu")} == {
        (1, 10, 4, 4, 1)
    }


def test_blocks_end_in_a_reshape_where_the_maps_have_one_pixel() -> None:
    net = Net()
    y = net.conv(net.input(2, 3, 8, 8), 16).mean((2, 3), keepdims=True)
    changed = same(*net.outputs(y.reshape((2, 16))))
    assert (count(changed, "BlockedConv"), reorders(changed)) == (1, 0)


def test_residual_blocks_with_batch_norm_are_trained_without_reorders() -> None:
    net = Net()

    def normalised(y: Tensor) -> Tensor:
        c = y.shape[1]
        found: Tensor = net.graph.apply(
            BatchNorm(), y, net.weight(c), net.weight(c), *(net.graph.buffer(numbers((c,))),) * 2
        )[0]
        return found

    y = normalised(net.conv(net.input(2, 3, 6, 6), 8)).relu()
    z = normalised(net.conv(y, 8)).relu()
    y = (normalised(net.conv(z, 8)) + y).relu()
    y = net.conv(y, 16, kernel=1, stride=2).mean((2, 3))
    graph, feeds = net.trained(y)
    graph.outputs.pop("grad.x0", None)
    changed = same(graph, feeds)
    assert count(changed, "Conv", "ConvInputGradient", "ConvWeightGradient") <= 1
    assert count(changed, "BlockedConvWeightGradient") == 4
    assert reorders(changed) == 0


def test_squeeze_and_excitation_scales_in_blocks() -> None:
    net = Net()
    y = net.conv(net.input(1, 4, 5, 5), 16).relu()
    s = net.conv(y.mean((2, 3), keepdims=True), 4, kernel=1, bias=True).relu()
    s = net.conv(s, 16, kernel=1, bias=True).sigmoid()
    changed = same(*net.outputs(net.conv(y * s, 16).sum((2, 3))))
    assert reorders(changed) == 1  # the input of four channels


def test_parts_of_a_concatenation_have_one_block() -> None:
    net = Net()
    x = net.input(1, 3, 4, 4)
    parts = [net.conv(x, channels).relu() for channels in (24, 32, 8)]
    y = apply(mv.Concat(1), *parts)
    changed = same(*net.outputs(net.conv(y, 16).sum((2, 3))), AVX512)
    assert reorders(changed) == 0
    blocks = [n.op.block for n in changed.nodes() if isinstance(n.op, BlockedConv)]
    assert blocks == [8, 8, 8, 8]


def test_gradients_of_a_pooled_concatenation_are_spread_in_blocks() -> None:
    net = Net()
    x = net.input(1, 3, 4, 4)
    y = apply(mv.Concat(1), *(net.conv(x, channels).relu() for channels in (8, 16)))
    graph, feeds = net.trained(y.mean((2, 3)))
    graph.outputs.pop(next(name for name in graph.outputs if name.endswith("x0")))
    assert reorders(same(graph, feeds)) == 0


def test_an_odd_part_of_a_concatenation_does_not_spoil_the_others() -> None:
    net = Net()
    x = net.input(1, 3, 4, 4)
    parts = [net.conv(x, channels) for channels in (16, 5)]
    y = net.conv(parts[0], 8).sum((2, 3))
    changed = same(*net.outputs(apply(mv.Concat(1), *parts), y))
    blocks = [n.op.block for n in changed.nodes() if isinstance(n.op, BlockedConv)]
    assert blocks == [4, 1, 4]


def test_layouts_can_be_read() -> None:
    net = Net()
    y = net.conv(net.conv(net.input(1, 3, 4, 4), 16).relu(), 8).sum((2, 3))
    text = in_blocks(net.outputs(y)[0]).__str__()
    assert "relu.relu = Relu(conv.blocked_conv) : float64[1, 16/4, 4, 4, 4]" in text


# -- single operations ----------------------------------------------------------------------------


def _pool(op: Any) -> Callable[[Net, Tensor], Tensor]:
    return lambda net, y: apply_all(op, y)[0]


BETWEEN: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "relu": lambda net, y: y.relu(),
    "bias": lambda net, y: y + net.weight(y.shape[1], 1, 1),
    "scale of pixels": lambda net, y: y * net.weight(1, 1, *y.shape[2:]),
    "scale of columns": lambda net, y: y * net.weight(y.shape[3]),
    "whole operand": lambda net, y: y * net.weight(*y.shape),
    "where": lambda net, y: (y > 0.0).where(y, y * 0.1),
    "max pool": _pool(MaxPool((3, 2), (2, 1), ((1, 0), (0, 1)), (1, 1))),
    "sum pool": _pool(SumPool((3, 3), (1, 2), ((1, 1), (0, 1)), (1, 1))),
    "average pool": _pool(AvgPool((2, 2), (2, 2), ((1, 1), (0, 0)), True, False)),
    "softmax of channels": lambda net, y: (y - y.amax(1, keepdim=True)).exp(),
    "mean of pixels": lambda net, y: y - y.mean((2, 3), keepdims=True),
    "slice of channels": lambda net, y: y[:, 8:],
    "slice of pixels": lambda net, y: y[:, :, 1:, ::2],
    "padding": lambda net, y: apply(mv.Pad(((0, 0), (0, 0), (1, 0), (2, 1))), y),
    "more channels": lambda net, y: apply(mv.Pad(((0, 0), (8, 8), (0, 0), (0, 0))), y),
    "reflection": lambda net, y: apply(
        mv.Pad(((0, 0), (0, 0), (1, 1), (0, 0)), mv.PadMode.REFLECT), y
    ),
    "nearest pixels": lambda net, y: apply(Take(2), y, y.graph.constant([0, 0, 1, 1, 4])),
    "concatenated rows": lambda net, y: apply(mv.Concat(2), y, y * 2.0),
    "flat pixels": lambda net, y: y.flatten(2).unsqueeze(-1) * 2.0,
    "broadcast": lambda net, y: y.mean((2, 3), keepdims=True).broadcast_to(y.shape) * y,
}


@pytest.mark.parametrize("name", BETWEEN)
def test_what_stands_between_two_convolutions_stays_in_blocks(name: str) -> None:
    net = Net()
    y = net.conv(net.input(2, 3, 7, 6), 16)
    y = BETWEEN[name](net, y)
    y = net.conv(y, 8).sum((2, 3))
    changed = same(*net.outputs(y))
    assert count(changed, "BlockedConv") == 2
    assert reorders(changed) == (name == "whole operand")


@pytest.mark.parametrize("name", BETWEEN)
def test_gradients_of_what_stands_between_two_convolutions(name: str) -> None:
    net = Net()
    y = net.conv(net.input(2, 3, 7, 6), 16)
    y = net.conv(BETWEEN[name](net, y), 8).sum((2, 3))
    same(*net.trained(y))


@pytest.mark.parametrize(
    "between",
    [
        lambda y: y[:, 3:11],
        lambda y: y.flatten(1).reshape(y.shape) * 2.0,
        lambda y: y.reshape((2, 4, 4, *y.shape[2:])).permute((0, 2, 1, 3, 4)).reshape(y.shape),
        lambda y: apply(mv.Pad(((0, 0), (1, 2), (0, 0), (0, 0))), y),
        lambda y: y.permute((0, 1, 3, 2)),
    ],
)
def test_what_crosses_blocks_reads_plain_values(between: Callable[[Tensor], Tensor]) -> None:
    net = Net()
    y = net.conv(net.input(2, 3, 5, 5), 16)
    same(*net.outputs(net.conv(between(y), 8)))


# -- convolutions ---------------------------------------------------------------------------------

CONVOLUTIONS = {
    "dense": (16, 24, 1),
    "few in": (3, 8, 1),
    "odd in": (7, 8, 1),
    "odd out": (8, 10, 1),
    "groups": (16, 32, 2),
    "narrow groups": (16, 16, 8),
    "uneven groups": (24, 48, 12),
    "odd groups": (24, 24, 8),
    "depthwise": (16, 16, 16),
    "odd depthwise": (6, 6, 6),
    "depthwise and more": (8, 16, 8),
}


@pytest.mark.parametrize("target", [AVX2, AVX512], ids=["avx2", "avx512"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_and_their_gradients(name: str, target: Target) -> None:
    inner, outer, groups = CONVOLUTIONS[name]
    net = Net()
    x = net.input(2, inner, 5, 6)
    y = net.conv(x * 1.5, outer, stride=2, groups=groups)
    same(*net.trained(y.relu()), target)


def test_groups_that_fill_vectors_together_stay_apart() -> None:
    net = Net()
    x = net.conv(net.input(1, 3, 5, 5), 64)
    changed = same(*net.outputs(net.conv(x, 64, groups=32).sum((2, 3))))
    ops = [n.op for n in changed.nodes() if isinstance(n.op, BlockedConv)]
    assert [op.convolution.groups for op in ops] == [1, 32]
    assert [(op.block, op.joins_groups(4)) for op in ops] == [(4, False), (4, True)]
    assert reorders(changed) == 0


def test_narrow_groups_are_merged_until_they_fill_vectors() -> None:
    net = Net()
    x = net.conv(net.input(1, 3, 5, 5), 64)
    y = net.conv(x, 128, groups=32)
    changed = same(*net.outputs(y.sum((2, 3))))
    groups = [n.op.convolution.groups for n in changed.nodes() if isinstance(n.op, BlockedConv)]
    assert groups == [1, 16]
    assert reorders(changed) == 0


def test_convolutions_of_hardly_any_channels_stay_plain() -> None:
    net = Net()
    changed = same(*net.outputs(net.conv(net.input(1, 3, 5, 5), 3)))
    assert (count(changed, "Conv"), count(changed, "BlockedConv"), reorders(changed)) == (1, 0, 0)


@pytest.mark.parametrize("rank", [1, 3])
def test_one_and_three_spatial_axes(rank: int) -> None:
    net = Net()
    y = net.conv(net.input(2, 4, *(5, 4, 6)[:rank]), 8).relu()
    op = MaxPool((2,) * rank, (2,) * rank, ((0, 0),) * rank, (1,) * rank)
    y = net.conv(apply_all(op, y)[0], 12)
    changed = same(*net.trained(y))
    assert count(changed, "BlockedConv") >= 2


def test_transposed_convolutions() -> None:
    net = Net()
    y = net.conv(net.input(1, 3, 4, 4), 8)
    op = ConvInputGradient((8, 8), (2, 2), ((0, 0), (0, 0)), (1, 1))
    y = net.conv(apply(op, y, net.weight(8, 16, 2, 2)), 8)
    changed = same(*net.outputs(y.sum((2, 3))))
    assert (count(changed, "BlockedConv"), reorders(changed)) == (3, 0)


@pytest.mark.parametrize(("target", "block"), [("sse", 2), ("avx2", 4), ("avx512", 8)])
def test_a_block_fills_a_vector(target: str, block: int) -> None:
    net = Net()
    y = net.conv(net.input(1, 3, 4, 4), 32).sum((2, 3))
    changed = same(*net.outputs(y), Target.named(target))
    assert [n.op.block for n in changed.nodes() if isinstance(n.op, BlockedConv)] == [block]


# -- whole networks -------------------------------------------------------------------------------


@st.composite
def networks(draw: Any) -> tuple[Net, Tensor]:
    """A random network of a few layers."""
    net = Net()
    values = [net.input(draw(st.integers(1, 2)), draw(st.sampled_from([3, 8, 12])), 6, 5)]
    for _ in range(draw(st.integers(2, 6))):
        x = draw(st.sampled_from(values[-3:]))
        kind = draw(st.sampled_from(["conv", "groups", "each", "add", "concat", *BETWEEN]))
        if kind == "conv":
            channels = draw(st.sampled_from([2, 8, 10, 16, 20, 24]))
            kernel = draw(st.sampled_from([1, 3]))
            values.append(net.conv(x, channels, kernel, draw(st.sampled_from([1, 2])), bias=True))
        elif kind == "groups":
            groups = draw(st.sampled_from([g for g in (2, 3, 4) if x.shape[1] % g == 0] or [1]))
            values.append(net.conv(x, 4 * groups, groups=groups))
        elif kind == "each":
            values.append(net.conv(x, x.shape[1], groups=x.shape[1]))
        elif kind == "concat":
            others = [y for y in values if y.shape[2:] == x.shape[2:]]
            values.append(apply(mv.Concat(1), *others[-3:], x))
        elif kind == "add":
            values.append(x + draw(st.sampled_from([y for y in values if y.shape == x.shape])))
        elif min(x.shape[2:]) >= 5 and x.shape[1] > 8:
            values.append(BETWEEN[kind](net, x))
    total = sum((y.sum((2, 3)).sum(1) for y in values[-2:]), values[-1].graph.constant(0.0))
    return net, total


@settings(max_examples=40, deadline=None)
@given(networks(), st.booleans(), st.sampled_from([AVX2, AVX512]))
def test_networks_keep_their_meaning(
    drawn: tuple[Net, Tensor], training: bool, target: Target
) -> None:
    net, y = drawn
    graph, feeds = net.trained(y) if training else net.outputs(y)
    same(graph, feeds, target)


@settings(max_examples=8, deadline=None)
@given(networks(), st.booleans())
def test_networks_in_blocks_as_kernels(drawn: tuple[Net, Tensor], training: bool) -> None:
    net, y = drawn
    graph, feeds = net.trained(y) if training else net.outputs(y)
    check_kernels(in_blocks(graph, host()), feeds, rtol=1e-9, atol=1e-9, whole=False)
