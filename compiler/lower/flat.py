"""Maps as one row of pixels: a convolution of single pixels does not care how wide they are."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..graph import Graph, Value
from ..group import Group
from ..ops.blocked import BlockedConv
from ..ops.strassen import StrassenConv
from ..types import Shape
from .space import aligned_values, is_rigid


def flat_shapes(graph: Graph, group: Group) -> Mapping[Value, Shape]:
    """Shapes with the pixels in one row, if the convolution and its epilogue allow it.

    So it is where each output pixel reads one input pixel, and all else has all pixels or none.
    """
    result = Value(group.anchor or "")
    op = graph.producer(result).op
    assert isinstance(op, BlockedConv | StrassenConv)
    space, (x, w) = graph.type_of(result).shape, graph.inputs_of(result.node)
    window = op.convolution.window(op.weight[2:])
    if group.pool is not None:
        return {}
    pointwise = window.size == 1 and not any(map(any, window.padding))
    if len(space) < 5 or not pointwise or set(window.stride) != {1} or is_rigid(graph, group):
        return {}
    shapes: dict[Value, Shape] = {}
    for value in aligned_values(graph, group):
        shape = graph.type_of(value).shape
        if value == w:
            if isinstance(op, BlockedConv):
                shapes[value] = (*shape[:3], 1, shape[-1])
            continue
        shape = (1,) * (len(space) - len(shape)) + shape
        if value != x and shape[2:-1] not in (space[2:-1], (1,) * (len(space) - 3)):
            return {}
        shapes[value] = (*shape[:2], math.prod(shape[2:-1]), shape[-1])
    return shapes if group.allows(graph, shapes) else {}
