"""Transposed convolutions of large strides become convolutions whose channels are pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..graph import Graph, Node
from ..ops.base import apply
from ..ops.conv import Conv, ConvInputGradient
from ..ops.movement import Pad
from ..rewrite import Rewriter, rewrite
from ..tensor import Tensor
from ..types import Shape
from .base import Pass

_MOST_PHASES = 16


@dataclass(frozen=True)
class SubPixel(Pass):
    """A transposed convolution of stride s as a convolution and a rearrangement of its result.

    Along an axis, place a * s + r of the result (before padding is cut off) is the sum over u of
    dy[a - u] times w[u * s + r]. For each phase r that is a convolution by every s-th element of
    the kernel; all of them together are one convolution of s times as many channels, which are then
    put side by side (Shi et al., Real-time single image and video super-resolution, 2016). Kernels
    of transposed convolutions are written out phase by phase instead, which for the strides of 16
    and 32 of segmentation networks would be hundreds of loop nests.

    Arguments:
        most: phases (the product of the strides) that a kernel may be written out for.
    """

    most: int = _MOST_PHASES

    @property
    def name(self) -> str:
        return "sub-pixel"

    def apply(self, graph: Graph) -> Graph:
        wanted = any(self._applies(graph, node) for node in graph.nodes())
        return rewrite(graph, self._rule) if wanted else graph

    def _applies(self, graph: Graph, node: Node) -> bool:
        op = node.op
        if not isinstance(op, ConvInputGradient) or math.prod(op.stride) <= self.most:
            return False
        kernel = graph.type_of(graph.inputs_of(node.name)[1]).shape[2:]
        # A kernel that leaves gaps between its places would be filled up with zeros.
        return set(op.dilation) == {1} and all(
            k >= s for k, s in zip(kernel, op.stride, strict=True)
        )

    def _rule(self, rewriter: Rewriter, node: Node) -> Sequence[Tensor] | None:
        if not self._applies(rewriter.old, node):
            return None
        assert isinstance(node.op, ConvInputGradient)
        dy, w = rewriter.inputs(node)
        return [_side_by_side(_phases(dy, w, node.op), dy, w, node.op)]


def _taps(op: ConvInputGradient, kernel: Shape) -> Shape:
    """How many places of each phase the kernel has along each axis."""
    return tuple(-(-k // s) for k, s in zip(kernel, op.stride, strict=True))


def _phases(dy: Tensor, w: Tensor, op: ConvInputGradient) -> Tensor:
    """The convolution: (N, C * prod(stride), *places), phases within channels."""
    groups, rank = op.groups, len(op.stride)
    taps = _taps(op, w.shape[2:])
    lacking = [t * s - k for t, s, k in zip(taps, op.stride, w.shape[2:], strict=True)]
    full = apply(Pad(((0, 0), (0, 0), *((0, n) for n in lacking))), w) if any(lacking) else w
    inputs, outputs = w.shape[0] // groups, w.shape[1]
    split = tuple(n for pair in zip(taps, op.stride, strict=True) for n in pair)
    parts = full.reshape((groups, inputs, outputs, *split))
    steps, phases = range(3, 3 + 2 * rank, 2), range(4, 4 + 2 * rank, 2)
    parts = parts.permute((0, 2, *phases, 1, *steps))
    weight = parts.reshape((groups * outputs * math.prod(op.stride), inputs, *taps))
    for axis, n in enumerate(taps):
        weight = weight.slice_axis(2 + axis, n - 1, n, -1) if n > 1 else weight
    padding = tuple(
        (t - 1, max(-(-(low + extent) // s) - n, 0))
        for t, (low, _), extent, s, n in zip(
            taps, op.padding, op.spatial, op.stride, dy.shape[2:], strict=True
        )
    )
    ones = (1,) * rank
    return apply(Conv(ones, padding, ones, groups), dy, weight)


def _side_by_side(y: Tensor, dy: Tensor, w: Tensor, op: ConvInputGradient) -> Tensor:
    """The phases in their places, cut to the extents of the result."""
    rank, places = len(op.stride), y.shape[2:]
    channels = w.shape[1] * op.groups
    apart = y.reshape((dy.shape[0], channels, *op.stride, *places))
    order = (n for axis in range(rank) for n in (2 + rank + axis, 2 + axis))
    mixed = apart.permute((0, 1, *order))
    whole = mixed.reshape(
        (dy.shape[0], channels, *(n * s for n, s in zip(places, op.stride, strict=True)))
    )
    for axis, ((low, _), extent) in enumerate(zip(op.padding, op.spatial, strict=True)):
        whole = whole.slice_axis(2 + axis, low, extent)
    return whole
