"""Gradients by the weights of 3x3 convolutions by Winograd's algorithm, where that costs less."""

from __future__ import annotations

from collections.abc import Sequence

from ..graph import Node
from ..llvm.target import Target
from ..ops.base import apply
from ..ops.blocked import BlockedConvWeightGradient
from ..ops.toom_cook import TAPS
from ..ops.winograd_gradient import WinogradConvWeightGradient
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
    plain = ((TAPS, TAPS), (1, 1), (1, 1), 1)
    if (conv.kernel, conv.stride, conv.dilation, conv.groups) != plain:
        return None
    x, dy = rewriter.inputs(node)
    lanes = target.lanes(x.dtype)
    if (x.shape[-1], dy.shape[-1]) != (lanes, lanes) or x.type.size == 0 or dy.type.size == 0:
        return None
    if tile is None:
        height, width = dy.shape[2:4]
        pairs = x.shape[1] * lanes, dy.shape[1] * lanes
        tile = best_weight_tile(target, x.dtype, dy.shape[0], (height, width), pairs, lanes)
    return [apply(WinogradConvWeightGradient(conv, tile), x, dy)] if tile else None
