"""What a convolution of single pixels reads is computed by its own kernel, on the way."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import check_kernels
from test_layout import Net, in_blocks

from quern.compiler.graph import Graph
from quern.compiler.ops.base import apply
from quern.compiler.ops.blocked import BlockedConv
from quern.compiler.ops.movement import Concat
from quern.compiler.passes.partition import partition
from quern.compiler.tensor import Tensor


def normalized(net: Net, x: Tensor) -> Tensor:
    scale, shift = (net.weight(x.shape[1], 1, 1) for _ in range(2))
    return (x * scale + shift).relu()


def together(net: Net, x: Tensor, channels: int = 16) -> Tensor:
    """Maps that no kernel gives as a whole."""
    return apply(Concat(1), net.conv(x, channels), net.conv(x, channels, 1))


def before_convolutions(graph: Graph) -> list[str]:
    """Nodes that are computed in a convolution's kernel before it."""
    found = []
    for group in partition(graph):
        anchor = graph.node(group.anchor) if group.anchor else None
        if anchor is not None and isinstance(anchor.op, BlockedConv):
            found += group.nodes[: group.nodes.index(anchor.name)]
    return [graph.node(name).op.name for name in found]


def checked(net: Net, y: Tensor) -> Graph:
    graph, feeds = net.outputs(y)
    graph = in_blocks(graph)
    check_kernels(graph, feeds, rtol=1e-9, atol=1e-9, whole=False)
    return graph


def test_norm_and_rectifier_need_no_pass_of_their_own() -> None:
    net = Net()
    x = together(net, net.input(2, 8, 6, 5))
    y = net.conv(normalized(net, x), 24, 1)
    assert before_convolutions(checked(net, y)) == ["Multiply", "Add", "Relu"]


def test_maps_of_few_pixels_are_computed_image_by_image() -> None:
    net = Net()
    y = net.conv(normalized(net, together(net, net.input(3, 8, 2, 1))), 16, 1)
    assert before_convolutions(checked(net, y)) == ["Multiply", "Add", "Relu"]


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_any_maps_and_channels(data: st.DataObject) -> None:
    draw = data.draw
    net = Net()
    sizes = [draw(st.sampled_from([1, 2, 5, 8, 13])) for _ in range(2)]
    x = net.input(draw(st.integers(1, 3)), 16, *sizes)
    y = normalized(net, together(net, x, draw(st.sampled_from([8, 16, 24, 48]))))
    if draw(st.booleans()):
        y = y + net.weight(1, 1, *sizes)
    y = net.conv(y, draw(st.sampled_from([8, 16, 40])), 1, bias=draw(st.booleans()))
    checked(net, y.relu() if draw(st.booleans()) else y)


APART: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "larger windows": lambda net, y: net.conv(y, 16, 3),
    "strides": lambda net, y: net.conv(y, 16, 1, 2),
    "groups": lambda net, y: net.conv(y, 16, 1, groups=2),
    "another reader": lambda net, y: net.conv(y, 32, 1) + y,
    "what is dear": lambda net, y: net.conv(y.exp(), 16, 1),
}


@pytest.mark.parametrize("name", APART)
def test_what_is_not_computed_on_the_way(name: str) -> None:
    net = Net()
    y = APART[name](net, normalized(net, together(net, net.input(2, 8, 6, 5))))
    assert before_convolutions(checked(net, y)) == []


def test_a_depthwise_convolution_behind_it_has_a_kernel_of_its_own() -> None:
    net = Net()
    y = net.conv(normalized(net, together(net, net.input(2, 8, 6, 5))), 24, 1)
    checked(net, net.conv(y, 24, groups=24))
