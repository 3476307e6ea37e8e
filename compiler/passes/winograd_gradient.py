"""Gradients by weights of 3x3 and 5x5 convolutions by Winograd's algorithm where that pays."""

from __future__ import annotations

from collections.abc import Sequence

from ..graph import Node
from ..llvm.target import Target
from ..ops.base import apply
from ..ops.blocked import BlockedConvWeightGradient
from ..ops.winograd_gradient import WinogradConvWeightGradient, is_possible, tiles
from ..rewrite import Rewriter
from ..tensor import Tensor
from ..weight_cost_model import best_weight_tile


def winograd_gradient(
    rewriter: Rewriter, node: Node, op: BlockedConvWeightGradient, target: Target, tile: int | None
) -> Sequence[Tensor] | None:
    """A rule of the pass `Winograd`.

    Arguments:
        node: one of `op`.
        target: the machine, whose costs are counted.
        tile: outputs along an axis of a tile, 2 or 4; by default whatever is cheapest, which may be
            the direct sum.
    """
    conv = op.convolution
    if not is_possible(conv):
        return None
    x, dy = rewriter.inputs(node)
    lanes = target.lanes(x.dtype)
    if (x.shape[-1], dy.shape[-1]) != (lanes, lanes) or x.type.size == 0 or dy.type.size == 0:
        return None
    taps = conv.kernel[0]
    if tile is None:
        height, width = dy.shape[2:4]
        pairs = x.shape[1] * lanes, dy.shape[1] * lanes
        tile = best_weight_tile(target, x.dtype, dy.shape[0], (height, width), pairs, lanes, taps)
    return [apply(WinogradConvWeightGradient(conv, tile), x, dy)] if tile in tiles(taps) else None
