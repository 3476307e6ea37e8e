"""Blocked convolutions of stride 1 become Winograd convolutions where that costs less."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..cost_model import Choice, SquareConvolution, cheapest, winograd_panel
from ..graph import Graph, Node
from ..llvm.target import Target
from ..ops.base import apply
from ..ops.blocked import BlockedConv, BlockedConvWeightGradient, PackWeight, plain_shape
from ..ops.winograd import WinogradConv, is_possible, winograd_weight
from ..rewrite import Rewriter, rewrite
from ..tensor import Tensor
from .base import Pass
from .hoist import known
from .winograd_gradient import winograd_gradient


@dataclass(frozen=True)
class Winograd(Pass):
    """Replaces `BlockedConv` of a `PackWeight` by `WinogradConv` of a `WinogradWeight`, and
    `BlockedConvWeightGradient` by `WinogradConvWeightGradient`.

    Arguments:
        target: the machine, whose costs are counted.
        tile: outputs along an axis of a tile, 2 or 4, for all convolutions that can be done so; by
            default whatever is cheapest, which may be the direct convolution.
        choose: what tells which one is cheapest: the cost model, or measurements.
    """

    target: Target
    tile: int | None = None
    choose: Choice = cheapest

    def apply(self, graph: Graph) -> Graph:
        kinds = BlockedConv, BlockedConvWeightGradient
        if not any(isinstance(node.op, kinds) for node in graph.nodes()):
            return graph
        prepared = set() if graph.updates else known(graph)

        def rule(rewriter: Rewriter, node: Node) -> Sequence[Tensor] | None:
            if isinstance(node.op, BlockedConvWeightGradient):
                return winograd_gradient(rewriter, node, node.op, self.target, self.tile)
            if not isinstance(node.op, BlockedConv) or not _is_possible(node.op, self.tile or 2):
                return None
            x, packed = rewriter.inputs(node)
            producer = rewriter.new.producer(packed.value)
            if not isinstance(producer.op, PackWeight):
                return None
            tile = self.tile or self._tile(graph, node, x, prepared)
            if not tile:
                return None
            (weight,) = rewriter.new.inputs_of(producer.name)
            panel = winograd_panel(self.target, x.dtype, plain_shape(node.types[0].shape)[1])
            transform = winograd_weight(node.op.convolution, tile, panel)
            with rewriter.new.scope(prefix=producer.name, origins=producer.origins):
                u = apply(transform, rewriter.new.tensor(weight))
            op = WinogradConv(node.op.convolution, node.op.weight, node.op.block, tile)
            return [apply(op, x, u)]

        return rewrite(rewrite(graph, rule))  # once more, without weights that nobody reads now

    def _tile(self, graph: Graph, node: Node, x: Tensor, prepared: set[str]) -> int:
        """The best tile; 0 if direct convolution is best."""
        assert isinstance(node.op, BlockedConv)
        y = plain_shape(node.types[0].shape)
        (weight,) = graph.inputs_of(graph.inputs_of(node.name)[1].node)
        shape = SquareConvolution(
            batch=y[0],
            depth=plain_shape(x.shape)[1],
            channels=y[1],
            height=y[2],
            width=y[3],
            taps=node.op.weight[2],
            prepared=weight.node in prepared,
        )
        return self.choose(self.target, x.dtype, shape).tile


def _is_possible(op: BlockedConv, tile: int) -> bool:
    """Whether it is a convolution of stride 1, dilation 1 and one group with transforms."""
    conv = op.convolution
    return is_possible(tile, op.weight[2:]) and (conv.stride, conv.dilation, conv.groups) == (
        (1, 1),
        (1, 1),
        1,
    )
