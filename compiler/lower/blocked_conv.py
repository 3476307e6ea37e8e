"""Convolution, and its transpose by x, of values in blocks of channels.

The sum is that of `gather.py`; vectors always lie along the output channels, whose weights come
packed side by side. The input channels are summed block by block, so that addresses are affine.

What a task reads again and again stays in the second-level cache (`cut.py`): it takes a band of
rows, some panels of output channels, and so many input channels at a time that a panel of weights
and a band of the input fit. Where windows leave the input, the band is copied with zeros around.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

from ..graph import Graph, Phase, Value
from ..group import Group
from ..llvm.target import Target
from ..loops import ir
from ..loops.ir import Expr
from ..ops.blocked import BlockedConv, plain_shape
from ..ops.conv import Convolution
from ..ops.pool import MaxPool
from ..types import Shape, TensorType
from .bands import row_length
from .binding import Binding, Lowered
from .block_index import divided
from .blocked_depthwise import DepthwiseTasks
from .blocked_pool import PooledTasks
from .blocked_task import Tasks
from .contraction import Axis, Contraction, Factor, Place
from .depthwise import depthwise_form, lower_depthwise
from .elements import is_number
from .flat import flat_shapes
from .gather import Gather, Part
from .grouped_conv import grouped_form, lower_grouped
from .index import Index
from .padding import reader
from .pointwise_depthwise import PointwiseDepthwise, flat_before
from .pool import pooling_behind
from .slide import Slide
from .tile import VECTORS
from .windows import WindowAxis, window_axes

# The most vectors in a panel.
_WIDEST = 3
# What must be gained by another width of tiles, or by more vectors than usual.
_VARIANT = 0.03
# What tiles of a single vector lose by loading as often as they multiply.
_LOADS = 0.1
# Maps of fewer pixels do not fill a tile.
_SHORT = 12


def lower_blocked_conv(graph: Graph, group: Group, target: Target) -> Lowered:
    """The kernel of BlockedConv and its epilogue."""
    assert group.anchor is not None
    if group.pool is not None and isinstance(graph.node(group.pool).op, BlockedConv):
        shapes = flat_before(graph, group)
        if shapes:
            binding = Binding(graph, group, target, shapes)
            return PointwiseDepthwise(BlockedGather(binding, Value(group.anchor))).lower()
    shapes = flat_shapes(graph, group)
    binding = Binding(graph, group, target, shapes)
    return BlockedGather(binding, Value(group.anchor), flat=bool(shapes)).lower()


@cache
def panel_width(op: BlockedConv, x: TensorType, target: Target) -> int:
    """Channels in a panel of the packed weight with which a convolution is done soonest.

    Arguments:
        op: the convolution.
        x: what it reads, in blocks.
        target: the machine.
    """
    lanes = target.lanes(x.dtype)
    if op.joins_groups(lanes):
        return lanes
    graph = Graph()
    packed = op.packing(1).infer(x.with_shape(op.weight))
    inputs = [graph.input(type, name) for type, name in ((x, "x"), (packed[0], "w"))]
    (value,) = graph.add(op, *(tensor.value for tensor in inputs))
    group = Group("", (value.node,), value.node, None, (), (), (), (), Phase.FORWARD)
    shapes = flat_shapes(graph, group)
    gather = BlockedGather(Binding(graph, group, target, shapes), value, flat=bool(shapes))
    lanes = gather.lanes
    most = 1 if gather.is_depthwise else min(_WIDEST, -(-gather.channel.extent // lanes))
    return min((lanes * n for n in range(1, most + 1)), key=gather.cost)


@dataclass
class BlockedGather(Gather):
    """One convolution or transposed convolution in blocks of channels.

    Arguments:
        flat: whether the pixels are one row.
    """

    flat: bool = False

    @cached_property
    def blocked_op(self) -> BlockedConv:
        op = self.binding.graph.node(self.result.node).op
        assert isinstance(op, BlockedConv)
        return op

    @cached_property
    def op(self) -> Convolution:
        return self.blocked_op.convolution

    @cached_property
    def shape(self) -> Shape:
        return plain_shape(self.binding.shape(self.result))

    @cached_property
    def source_shape(self) -> Shape:
        """(N, C / b, *spatial, b)."""
        return self.binding.shape(self.source)

    @cached_property
    def is_computed(self) -> bool:
        """Whether the group computes what is read, and has it not in memory."""
        source = self.source
        return source not in self.binding.inputs and not is_number(self.binding.graph, source)

    @cached_property
    def is_depthwise(self) -> bool:
        return self.blocked_op.is_depthwise

    # -- axes -------------------------------------------------------------------------------------

    @cached_property
    def group(self) -> Axis:
        return Axis("g", 1 if self.is_depthwise else self.op.groups, 1)

    @cached_property
    def batch(self) -> Axis:
        joins = self.flat and self.shape[2] < _SHORT and not self.is_computed
        return Axis("n", self.shape[0]) if joins else Axis("n", self.shape[0], 1)

    @cached_property
    def channels(self) -> int:
        """Input channels of a group."""
        return plain_shape(self.source_shape)[1] // self.op.groups

    @cached_property
    def unit(self) -> int:
        """Input channels that lie side by side: a block, or part of one."""
        return math.gcd(self.channels, self.source_shape[-1])

    @cached_property
    def depth(self) -> Axis:
        """Units of the input channels of a group."""
        return Axis("c", self.channels // self.unit)

    @cached_property
    def within(self) -> Axis:
        """Input channels of a unit."""
        return Axis("cc", self.unit)

    @cached_property
    def stored(self) -> int:
        """Output channels that lie side by side: a block, or part of one."""
        return math.gcd(self.channel.extent, self.blocked_op.block)

    def slides(self) -> list[tuple[Slide, ...]]:
        """The slides of each part."""
        if self.flat:
            return [(Slide(self.shape[2], (0, 1), 1, 0, 1, 1, (0, 1)),)]
        return self.slides_of(self.blocked_op.weight[2:], plain_shape(self.source_shape))

    def outputs(self, slides: Sequence[Slide]) -> tuple[Axis, ...]:
        *outer, row = super().outputs(slides)
        if self.binding.group.pool is not None:
            row = replace(row, extent=row_length(self.windows_behind[-1]))
        return (*(replace(axis, most=1) for axis in outer), row)

    @cached_property
    def windows_behind(self) -> tuple[WindowAxis, ...]:
        """The windows of the pooling or depthwise convolution behind it, along each axis."""
        graph, behind = self.binding.graph, self.binding.group.pool or ""
        op = graph.node(behind).op
        if isinstance(op, BlockedConv):
            window, x = op.convolution.window(op.weight[2:]), graph.inputs_of(behind)[0]
            return window_axes(window, graph.type_of(x).shape[2:-1])
        return pooling_behind(self.binding).axes[:-1]

    def part(self, slides: Sequence[Slide]) -> Part:
        """The outputs of some slides."""
        return self.part_of(slides, self.binding.shape(self.weight)[-1])

    def part_of(self, slides: Sequence[Slide], panel: int) -> Part:
        """The outputs of some slides, for weights in panels of this width."""
        outputs = self.outputs(slides)
        taps = tuple(Axis(f"k{a.name}", s.taps) for a, s in zip(outputs, slides, strict=True))
        pixels = frozenset({self.group, self.batch, *outputs})
        x = Factor(pixels | {self.channel}) if self.is_depthwise else Factor(pixels)
        form = Contraction(
            outputs=(self.group, self.batch, self.channel, *outputs),
            lane=self.channel,
            summed=self._summed(slides, taps),
            factors=(x, Factor(frozenset({self.group, self.channel}))),
            lanes=self.lanes,
            registers=self.binding.target.registers,
            panel=panel,
        )
        return Part(tuple(slides), outputs, taps, form)

    def _summed(self, slides: Sequence[Slide], taps: tuple[Axis, ...]) -> tuple[Axis, ...]:
        """The summed axes, outermost loop first: as weights lie, unless taps are left out."""
        if self.is_depthwise:
            return taps
        if any(slide.kernel[1] > 1 for slide in slides):
            return (self.depth, *taps, self.within)
        return (self.depth, self.within, *taps)

    def cost(self, panel: int) -> float:
        """Cycles with weights in panels of this width."""
        forms = [self.part_of(slides, panel).form for slides in self.slides()]
        variants = max(len(form.tilings) for form in forms) - 1
        vectors = panel // self.lanes
        loads = _LOADS if vectors == 1 else 0.0
        extra = loads + _VARIANT * (variants + max(0, vectors - VECTORS))
        return sum(form.cost for form in forms) * (1 + extra)

    # -- loops ------------------------------------------------------------------------------------

    def lower(self) -> Lowered:
        if self.is_depthwise and self.binding.group.pool is None:
            form = depthwise_form(self)
            if form is not None:
                return lower_depthwise(self, form)
        grouped = grouped_form(self)
        if grouped is not None:
            return lower_grouped(self, grouped)
        parts = [self.part(slides) for slides in self.slides()]
        body: ir.Block = ()
        for part in parts:
            body += self.nest(part)
        return self.binding.finish(body, max(parts, key=lambda p: p.form.cost).note)

    def nest(self, part: Part) -> ir.Block:
        """All results of a part, one width of tiles after the other.

        All sum their input channels in the same chunks: channels of equal weights are equal.
        """
        behind = self.binding.group.pool
        kind = Tasks
        if behind is not None:
            is_pool = isinstance(self.binding.graph.node(behind).op, MaxPool)
            kind = PooledTasks if is_pool else DepthwiseTasks
        body: ir.Block = ()
        chunks: int | None = None
        for tiling in part.form.tilings:
            tasks = kind(self, part, tiling, chunks)
            body += tasks.lower()
            chunks = tasks.chunks
        return body

    def weight_of(self, index: Index) -> Expr:
        """An element of the packed weight."""
        return reader(self.binding, self.weight)(index)

    def index(self, part: Part, place: Place) -> Index:
        channel = place[self.group] * self.channel.extent + place[self.channel]
        spatial = (s.output_place(place[o]) for s, o in zip(part.slides, part.outputs, strict=True))
        major, minor = divided(channel, self.blocked_op.block)
        return (place[self.batch], major, *spatial, minor)
