"""Convolutions of stride s by windows of one place become convolutions of every s-th place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..graph import Graph, Node
from ..ops.base import apply
from ..ops.conv import Conv, ConvInputGradient
from ..ops.movement import Slice, Unslice
from ..rewrite import Rewriter, rewrite
from ..tensor import Tensor
from ..types import Shape
from .base import Pass


@dataclass(frozen=True)
class Subsample(Pass):
    """A 1x1 convolution of stride s reads a slice of x in steps of s, then has stride 1.

    Most of what it would step over shares cache lines with what it needs, and the pixels of a slice
    follow each other across rows, so that they fill register tiles whatever the width of the map.
    Its gradient by x is that of the slice: where it is added to another gradient, no zeros are
    stored. The gradient by the weight stays as it is, for its slice would have to be kept.
    """

    def apply(self, graph: Graph) -> Graph:
        wanted = any(_applies(graph, node) for node in graph.nodes())
        return rewrite(graph, _rule) if wanted else graph


def _applies(graph: Graph, node: Node) -> bool:
    op, inputs = node.op, graph.inputs_of(node.name)
    if not isinstance(op, Conv | ConvInputGradient) or len(inputs) != 2:
        return False
    whole = graph.type_of(inputs[0]) if isinstance(op, Conv) else node.types[0]
    return (
        math.prod(op.stride) > 1
        and math.prod(graph.type_of(inputs[1]).shape[2:]) == 1
        and not any(before or after for before, after in op.padding)
        and 0 not in whole.shape
    )


def _rule(rewriter: Rewriter, node: Node) -> Sequence[Tensor] | None:
    if not _applies(rewriter.old, node):
        return None
    op, (x, w) = node.op, rewriter.inputs(node)
    assert isinstance(op, Conv | ConvInputGradient)
    start, step = (0,) * x.rank, (1, 1, *op.stride)
    dense = (1,) * len(op.stride)
    if isinstance(op, Conv):
        size: Shape = (*x.shape[:2], *node.types[0].shape[2:])
        return [apply(replace(op, stride=dense), apply(Slice(start, size, step), x), w)]
    gradient = apply(replace(op, stride=dense, spatial=x.shape[2:]), x, w)
    return [apply(Unslice(node.types[0].shape, start, step), gradient)]
