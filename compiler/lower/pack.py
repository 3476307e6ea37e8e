"""Weights packed for convolutions in blocks of channels: whole panels, and what fills the last."""

from __future__ import annotations

from ..graph import Graph, Value
from ..group import Group
from ..llvm.target import Target
from ..loops import ir
from ..loops.ir import LoopKind
from ..ops.blocked import PackWeight
from .binding import Binding, Lowered
from .tile import panels


def packs_weight(graph: Graph, group: Group) -> bool:
    """Whether all that a group gives is a packed weight."""
    return len(group.outputs) == 1 and isinstance(graph.producer(group.outputs[0]).op, PackWeight)


def lower_pack(graph: Graph, group: Group, target: Target) -> Lowered:
    """The kernel of PackWeight and of what is computed for it."""
    (result,) = group.outputs
    op, (w,) = graph.producer(result).op, graph.inputs_of(result.node)
    assert isinstance(op, PackWeight)
    binding = Binding(graph, group, target)
    body = _panels(binding, result, w, op)
    return binding.finish(body, f"panels of {op.panel} channels")


def _panels(binding: Binding, result: Value, w: Value, op: PackWeight) -> ir.Block:
    packed = binding.outputs[result]
    groups, _, depth, *taps, width = packed.shape
    outer, inner = binding.shape(w)[0] // op.groups, binding.shape(w)[1]
    channels = inner if op.transposed else outer
    lanes = binding.lanes(packed.dtype)
    zero = ir.Const(0.0, packed.dtype)
    body: ir.Block = ()
    for span in panels(op.groups * channels if op.joined else channels, width):
        group, panel, place, lane = (binding.var(hint) for hint in ("g", "p", "c", "v"))
        kernel = [binding.var("t") for _ in taps]
        number = panel + span.start // width
        channel = number * width + lane
        of: ir.Expr = group
        if op.joined:
            of, channel = channel // channels, channel % channels
        pair = (place, channel) if op.transposed else (channel, place)
        elements = binding.elements()
        x = elements.at(w, (of * outer + pair[0], pair[1], *kernel))
        store = ir.Store(packed, (group, number, place, *kernel, lane), x)
        row = (*elements.take_block(), store)
        rows: ir.Block = (ir.For(lane, span.length, row, LoopKind.VECTOR, lanes),)
        if span.length < width:
            fill = ir.Store(packed, (group, number, place, *kernel, lane + span.length), zero)
            rows += (ir.For(lane, width - span.length, (fill,), LoopKind.VECTOR, lanes),)
        outside = ((group, groups), (panel, span.count), (place, depth))
        loops = (*outside, *zip(kernel, taps, strict=True))
        body += ir.loop_nest(loops, rows, LoopKind.PARALLEL)
    return body
