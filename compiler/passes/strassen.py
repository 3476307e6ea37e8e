"""Blocked 1x1 convolutions are done by Strassen's algorithm where that costs less."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..cost_model import Algorithm, Choice, SquareConvolution, cheapest, winograd_panel
from ..graph import Graph, Node
from ..llvm.target import Target
from ..ops.base import apply
from ..ops.blocked import BlockedConv, PackWeight, plain_shape
from ..ops.conv import Conv
from ..ops.pool import MaxPool
from ..ops.strassen import StrassenConv, StrassenWeight
from ..rewrite import Rewriter, rewrite
from ..roles import Role, role
from ..tensor import Tensor
from .base import Pass
from .hoist import known


@dataclass(frozen=True)
class Strassen(Pass):
    """Replaces `BlockedConv` of a `PackWeight` by `StrassenConv` of a `StrassenWeight`.

    Only where weights are prepared, and where no window behind it is done in the same kernel.

    Arguments:
        target: the machine, whose costs are counted.
        choose: what tells which algorithm is cheapest: the cost model, or measurements.
    """

    target: Target
    choose: Choice = cheapest

    def apply(self, graph: Graph) -> Graph:
        prepared = set() if graph.updates else known(graph)
        wanted = {node.name for node in graph.nodes() if _is_possible(graph, node, prepared)}

        def rule(rewriter: Rewriter, node: Node) -> Sequence[Tensor] | None:
            if node.name not in wanted:
                return None
            op = node.op
            assert isinstance(op, BlockedConv)
            assert isinstance(op.convolution, Conv)
            x, packed = rewriter.inputs(node)
            producer = rewriter.new.producer(packed.value)
            (weight,) = rewriter.new.inputs_of(producer.name)
            n, channels, *spatial = plain_shape(node.types[0].shape)
            depth = plain_shape(x.shape)[1]
            pixels = math.prod(spatial)
            shape = SquareConvolution(n, depth, channels, pixels, 1, taps=1)
            if self.choose(self.target, x.dtype, shape) is not Algorithm.STRASSEN:
                return None
            panel = winograd_panel(self.target, x.dtype, channels // 2)
            with rewriter.new.scope(prefix=producer.name, origins=producer.origins):
                u = apply(StrassenWeight(panel), rewriter.new.tensor(weight))
            return [apply(StrassenConv(op.convolution, op.weight, op.block), x, u)]

        # Once more, without weights that nobody reads now.
        return rewrite(rewrite(graph, rule)) if wanted else graph


def _is_possible(graph: Graph, node: Node, prepared: set[str]) -> bool:
    """Whether it is a 1x1 convolution of halves whose weight is prepared, and no window's."""
    op = node.op
    if not isinstance(op, BlockedConv) or not isinstance(op.convolution, Conv):
        return False
    x, packed = graph.inputs_of(node.name)
    producer, shapes = graph.producer(packed), (graph.type_of(x).shape, node.types[0].shape)
    return (
        op.is_pointwise
        and isinstance(producer.op, PackWeight)
        and all(shape[1] % 2 == 0 and shape[-1] > 1 for shape in shapes)
        and graph.inputs_of(producer.name)[0].node in prepared
        and not _has_windows(graph, node)
    )


def _has_windows(graph: Graph, node: Node) -> bool:
    """Whether windows over the result, or over what points make of it, may share its kernel."""
    seen: set[str] = set()
    waiting = [node.name]
    while waiting:
        for name in graph.users_of(waiting.pop()):
            user = graph.node(name)
            if isinstance(user.op, MaxPool):
                return True
            if isinstance(user.op, BlockedConv) and user.op.is_depthwise:
                return True
            if role(user.op) is Role.POINT and name not in seen:
                seen.add(name)
                waiting.append(name)
    return False
