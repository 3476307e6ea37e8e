"""A gradient by a convolution's weight: its operands, and how it is cut into tasks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..graph import Graph, Value
from ..group import Group
from ..loops import ir
from ..loops.ir import Expr
from ..ops.blocked import BlockedConvWeightGradient
from ..ops.conv import ConvWeightGradient
from ..types import Shape
from .anchored import Anchored
from .index import Index
from .padding import reader
from .slide import Slide, forward_slides
from .weight_form import Form, weight_form
from .weight_results import Starts, WeightResults


@dataclass(frozen=True)
class Operand:
    """X or dy, read by channel.

    Arguments:
        read: its elements.
        block: channels in a block; None of a plain value.
    """

    read: Callable[[Index], Expr]
    block: int | None

    def at(self, sample: Expr, channel: Expr, places: Sequence[Expr]) -> Expr:
        """The element of a channel."""
        if self.block is None:
            return self.read((sample, channel, *places))
        return self.read((sample, channel // self.block, *places, channel % self.block))


@dataclass
class WeightGradient(Anchored):
    """One gradient by a weight.

    Arguments:
        is_flat: whether the results of the group are indexed as (K, C / groups * taps).
    """

    is_flat: bool

    @cached_property
    def op(self) -> ConvWeightGradient:
        return _convolution(self.binding.graph, self.result)

    @cached_property
    def x(self) -> Operand:
        return self._operand(0)

    @cached_property
    def dy(self) -> Operand:
        return self._operand(1)

    def _operand(self, number: int) -> Operand:
        value = self.inputs[number]
        node = self.binding.graph.node(self.result.node)
        blocked = isinstance(node.op, BlockedConvWeightGradient)
        block = self.binding.shape(value)[-1] if blocked else None
        return Operand(reader(self.binding, value), block)

    @cached_property
    def extents(self) -> tuple[Shape, Shape]:
        """The spatial extents of x and dy."""
        x, dy = map(self.binding.shape, self.inputs)
        end = None if self.x.block is None else -1
        return x[2:end], dy[2:end]

    @cached_property
    def slides(self) -> tuple[Slide, ...]:
        x, dy = self.extents
        if len(x) < len(self.op.kernel):  # pixels joined to one axis
            return (Slide(dy[0], (0, 1), 1, 0, 1, 1, (0, 1)),)
        return forward_slides(self.op.window(self.op.kernel), x)

    @cached_property
    def form(self) -> Form:
        return weight_form(
            outputs=self.shape[0],
            inputs=self.shape[1] * self.op.groups,
            groups=self.op.groups,
            samples=self.binding.graph.type_of(self.inputs[1]).shape[0],
            slides=self.slides,
            blocks=(self.x.block, self.dy.block),
            lanes=self.lanes,
            registers=self.binding.target.registers,
            size=self.dtype.size,
        )

    @cached_property
    def results(self) -> WeightResults:
        return WeightResults(self.binding, self.result, self.is_flat, self.form.parts)

    def part(self, start: Starts) -> Expr:
        """Number of the part of the pixels that a task sums."""
        part: Expr = ir.index(0)
        for name, spans in self.form.chunks.items():
            part = part * sum(s.count for s in spans) + start[name] // spans[0].length
        return part


def _convolution(graph: Graph, result: Value) -> ConvWeightGradient:
    op = graph.node(result.node).op
    if isinstance(op, BlockedConvWeightGradient):
        return op.convolution
    assert isinstance(op, ConvWeightGradient)
    return op


def joined_pixels(graph: Graph, group: Group, result: Value) -> dict[Value, Shape]:
    """X and dy with one spatial axis, where windows are single pixels side by side."""
    op = _convolution(graph, result)
    operands = graph.inputs_of(result.node)
    shapes = [graph.type_of(value).shape for value in operands]
    window = op.window(op.kernel)
    dense = (window.size, *window.stride) == (1,) * (1 + len(op.kernel))
    if not dense or any(p for pair in window.padding for p in pair):
        return {}
    end = 2 + len(op.kernel)
    joined = {
        value: (*shape[:2], math.prod(shape[2:end]), *shape[end:])
        for value, shape in zip(operands, shapes, strict=True)
    }
    return joined if group.allows(graph, joined) else {}
