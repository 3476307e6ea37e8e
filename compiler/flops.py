"""How many floating-point operations a node costs by definition, whatever kernel computes it.

A multiply-add counts as two, every other elementwise operation, `exp` and its like too, as one an
element, a reduction as one an element it reads; what only moves elements is free. A composite costs
what it expands into.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import singledispatch

from .graph import Graph
from .ops.base import Op
from .ops.blocked import BlockedConv, BlockedConvWeightGradient
from .ops.composite import Composite, expansion
from .ops.conv import Conv, ConvInputGradient, ConvWeightGradient
from .ops.indexing import ScatterAdd, ScatterAddAlongAxis
from .ops.linear import MatMul, PackedMatMul
from .ops.pointwise import Pointwise
from .ops.pool import MaxPool, MaxPoolGradient, SumPool, SumPoolGradient
from .ops.recurrence import Recurrence
from .ops.reduce import Reduction
from .ops.strassen import StrassenConv
from .ops.winograd import WinogradConv
from .ops.winograd_gradient import WinogradConvWeightGradient
from .types import TensorType

Types = Sequence[TensorType]


@singledispatch
def flops(op: Op, inputs: Types, outputs: Types) -> int:
    """Floating-point operations of one node.

    Arguments:
        op: its operation.
        inputs: types of what it reads.
        outputs: types of what it gives.
    """
    return 0


def graph_flops(graph: Graph) -> int:
    """Floating-point operations of one run of a graph."""
    return sum(
        flops(node.op, [graph.type_of(v) for v in graph.inputs_of(node.name)], node.types)
        for node in graph.nodes()
    )


@flops.register
def _(op: Composite, inputs: Types, outputs: Types) -> int:
    return graph_flops(expansion(op, tuple(inputs)))


@flops.register
def _(op: Recurrence, inputs: Types, outputs: Types) -> int:
    return op.steps * graph_flops(op.body.graph)


@flops.register
def _(op: Pointwise, inputs: Types, outputs: Types) -> int:
    return outputs[0].size


@flops.register
def _(op: Reduction, inputs: Types, outputs: Types) -> int:
    return inputs[0].size


@flops.register(MatMul)
@flops.register(PackedMatMul)
def _(op: MatMul | PackedMatMul, inputs: Types, outputs: Types) -> int:
    return 2 * outputs[0].size * inputs[0].shape[-1]


@flops.register
def _(op: Conv, inputs: Types, outputs: Types) -> int:
    bias = outputs[0].size if len(inputs) > 2 else 0
    return _convolution(outputs[0], inputs[1]) + bias


@flops.register
def _(op: ConvInputGradient, inputs: Types, outputs: Types) -> int:
    return _convolution(inputs[0], inputs[1])


@flops.register
def _(op: ConvWeightGradient, inputs: Types, outputs: Types) -> int:
    return _convolution(inputs[1], outputs[0])


@flops.register(BlockedConv)
@flops.register(WinogradConv)
@flops.register(StrassenConv)
def _(op: BlockedConv | WinogradConv | StrassenConv, inputs: Types, outputs: Types) -> int:
    y = outputs[0] if isinstance(op.convolution, Conv) else inputs[0]
    return _convolution(y, y.with_shape(op.weight))


@flops.register(BlockedConvWeightGradient)
@flops.register(WinogradConvWeightGradient)
def _(op: Op, inputs: Types, outputs: Types) -> int:
    return _convolution(inputs[1], outputs[0])


def _convolution(y: TensorType, w: TensorType) -> int:
    """All three meet each element of y with each of its filter's C / groups * kernel weights."""
    return 2 * y.size * math.prod(w.shape[1:])


@flops.register(MaxPool)
@flops.register(SumPool)
def _(op: MaxPool | SumPool, inputs: Types, outputs: Types) -> int:
    return outputs[0].size * op.window.size


@flops.register
def _(op: SumPoolGradient, inputs: Types, outputs: Types) -> int:
    return inputs[0].size * op.window.size


@flops.register(MaxPoolGradient)
@flops.register(ScatterAdd)
@flops.register(ScatterAddAlongAxis)
def _(op: Op, inputs: Types, outputs: Types) -> int:
    return inputs[-1].size
