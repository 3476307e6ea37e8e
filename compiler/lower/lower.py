"""Which kernel family a group belongs to."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import CompileError
from ..graph import Graph
from ..group import Group
from ..llvm.target import Target
from ..ops.base import Op
from ..ops.blocked import BlockedConv, BlockedConvWeightGradient
from ..ops.conv import Conv, ConvInputGradient, ConvWeightGradient
from ..ops.indexing import ScatterAdd, ScatterAddAlongAxis
from ..ops.linear import MatMul, PackedMatMul
from ..ops.movement import Concat
from ..ops.pool import (
    MaxPool,
    MaxPoolGather,
    MaxPoolGradient,
    MaxUnpool,
    SumPool,
    SumPoolGradient,
)
from ..ops.recurrence import Recurrence
from ..ops.strassen import StrassenConv, StrassenWeight
from ..ops.winograd import WinogradConv, WinogradWeight
from ..ops.winograd_gradient import WinogradConvWeightGradient
from .binding import Lowered
from .blocked_conv import lower_blocked_conv
from .concat import lower_concat
from .conv import lower_conv
from .conv_pool import lower_conv_pool
from .conv_weight import lower_conv_weight
from .matmul import lower_matmul
from .nest import lower_nest
from .pack import lower_pack, packs_weight
from .pool import lower_pool
from .pool_gradient import lower_pool_gradient
from .scatter import lower_scatter
from .strassen import lower_strassen, lower_strassen_weight
from .winograd import lower_winograd
from .winograd_filter import lower_winograd_filter
from .winograd_pool import lower_winograd_pool
from .winograd_weight import lower_winograd_weight

Family = Callable[[Graph, Group, Target], Lowered]

_FAMILIES: dict[type[Op], Family] = {
    MatMul: lower_matmul,
    PackedMatMul: lower_matmul,
    Conv: lower_conv,
    BlockedConv: lower_blocked_conv,
    ConvInputGradient: lower_conv,
    ConvWeightGradient: lower_conv_weight,
    BlockedConvWeightGradient: lower_conv_weight,
    WinogradConvWeightGradient: lower_winograd_weight,
    MaxPool: lower_pool,
    SumPool: lower_pool,
    MaxPoolGather: lower_pool,
    MaxPoolGradient: lower_pool_gradient,
    SumPoolGradient: lower_pool_gradient,
    ScatterAdd: lower_scatter,
    ScatterAddAlongAxis: lower_scatter,
    MaxUnpool: lower_scatter,
    Concat: lower_concat,
    WinogradConv: lower_winograd,
    WinogradWeight: lower_winograd_filter,
    StrassenConv: lower_strassen,
    StrassenWeight: lower_strassen_weight,
}

# With a max-pool behind them.
_POOLED: dict[type[Op], Family] = {
    Conv: lower_conv_pool,
    BlockedConv: lower_blocked_conv,
    WinogradConv: lower_winograd_pool,
}


def takes_gaps(graph: Graph, group: Group) -> bool:
    """Whether a group's kernel can read and write values with gaps between their rows."""
    anchor = graph.node(group.nodes[0] if group.anchor is None else group.anchor).op
    return not isinstance(anchor, ScatterAdd | ScatterAddAlongAxis | MaxUnpool | Recurrence)


def lower(graph: Graph, group: Group, target: Target) -> Lowered:
    """The loop kernel of a group.

    Raises:
        CompileError: there is no kernel family for the group's anchor.
    """
    if packs_weight(graph, group):
        return lower_pack(graph, group, target)
    if group.anchor is None:
        return lower_nest(graph, group, target)
    node = graph.node(group.anchor)
    family = (_FAMILIES if group.pool is None else _POOLED).get(type(node.op))
    if family is None:
        raise CompileError(f"{node.op.name} has no kernel").at(node.name, node.source)
    return family(graph, group, target)
