"""The transpose of convolution by its weight.

    dw[k, c, t] = sum over n, o of dy[n, k, o] * x[n, c, place(o, t)]

Vectors lie along the output channels k, dy packed with them side by side; or along the innermost
spatial axis: then each lane sums what falls to it, and the lanes are added at the end. Whichever is
counted to be faster.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from ..graph import Graph, Value
from ..llvm.target import Target
from ..loops import ir
from ..loops.ir import Buffer, Expr, LoopKind, Space
from ..ops.conv import ConvWeightGradient
from ..passes.partition import Group
from ..types import DType, Shape
from .binding import Binding, Lowered
from .contraction import Axis, Block, Contraction, Factor, Place, store_lanes, vector_cost
from .elements import Index
from .epilogue import store_results
from .long_sum import LongSum
from .padding import Reader, padded, reader
from .slide import Slide, forward_slides
from .tile import panels


def lower_conv_weight(graph: Graph, group: Group, target: Target) -> Lowered:
    """The kernel of ConvWeightGradient and its epilogue."""
    assert group.anchor is not None
    return WeightGradient(Binding(graph, group, target), Value(group.anchor)).lower()


@dataclass
class WeightGradient:
    """One gradient by a weight."""

    binding: Binding
    result: Value
    _x: Reader = field(init=False)
    _dy: Reader = field(init=False)
    _packed: Buffer | None = None

    @cached_property
    def op(self) -> ConvWeightGradient:
        op = self.binding.graph.node(self.result.node).op
        assert isinstance(op, ConvWeightGradient)
        return op

    @cached_property
    def operands(self) -> tuple[Value, Value]:
        x, dy = self.binding.graph.inputs_of(self.result.node)
        return x, dy

    @property
    def dtype(self) -> DType:
        return self.binding.graph.type_of(self.result).dtype

    @cached_property
    def shape(self) -> Shape:
        return self.binding.graph.type_of(self.result).shape

    @cached_property
    def slides(self) -> tuple[Slide, ...]:
        x = self.binding.graph.type_of(self.operands[0]).shape
        return forward_slides(self.op.window(self.op.kernel), x[2:])

    # -- axes -------------------------------------------------------------------------------------

    @cached_property
    def group(self) -> Axis:
        return Axis("g", self.op.groups, 1)

    @cached_property
    def channel(self) -> Axis:
        """Output channels of a group."""
        return Axis("k", self.shape[0] // self.op.groups)

    @cached_property
    def depth(self) -> Axis:
        """Input channels of a group."""
        return Axis("c", self.shape[1])

    @cached_property
    def batch(self) -> Axis:
        return Axis("n", self.binding.graph.type_of(self.operands[1]).shape[0])

    @cached_property
    def pixels(self) -> tuple[Axis, ...]:
        """The spatial axes of dy."""
        names = "dhw"[-len(self.slides) :]
        return tuple(Axis(h, s.count) for h, s in zip(names, self.slides, strict=True))

    @cached_property
    def taps(self) -> tuple[Axis, ...]:
        return tuple(
            Axis(f"k{a.name}", s.taps) for a, s in zip(self.pixels, self.slides, strict=True)
        )

    @cached_property
    def pixel(self) -> Axis:
        """Places in a vector of pixels."""
        return Axis("p", self.binding.lanes(self.dtype))

    @cached_property
    def vectors(self) -> Axis:
        """Vectors of pixels in a row."""
        return Axis("pw", -(-self.pixels[-1].extent // self.pixel.extent))

    # -- forms ------------------------------------------------------------------------------------

    @cached_property
    def form(self) -> Contraction:
        """The cheaper form."""
        forms = [self._by_pixels()]
        if self.channel.extent >= self.pixel.extent:
            forms.append(self._by_channels())
        return min(forms, key=lambda form: form.cost)

    def _by_channels(self) -> Contraction:
        return Contraction(
            outputs=(self.group, self.channel, self.depth, *self.taps),
            lane=self.channel,
            summed=(self.batch, *self.pixels),
            factors=(
                Factor(frozenset({self.group, self.depth, *self.taps})),
                Factor(frozenset({self.group, self.channel})),
            ),
            lanes=self.pixel.extent,
            registers=self.binding.target.registers,
        )

    def _by_pixels(self) -> Contraction:
        stride = vector_cost(self.slides[-1].stride, self.pixel.extent)
        return Contraction(
            outputs=(self.group, self.channel, self.depth, *self.taps, self.pixel),
            lane=self.pixel,
            summed=(self.batch, *self.pixels[:-1], self.vectors),
            factors=(
                Factor(frozenset({self.group, self.depth, *self.taps, self.pixel}), stride),
                Factor(frozenset({self.group, self.channel, self.pixel})),
            ),
            lanes=self.pixel.extent,
            registers=self.binding.target.registers,
        )

    @property
    def in_channels(self) -> bool:
        """Whether vectors lie along the output channels."""
        return self.form.lane is self.channel

    def lower(self) -> Lowered:
        body = self._read_operands()
        body += LongSum(
            self.binding,
            self.form,
            self.dtype,
            self.shape,
            shared=self.depth,
            whole=self.taps,
            folded=None if self.in_channels else (self.vectors, self._last),
            multiply=self._multiply,
            index=self._index,
            store=lambda x, index: store_results(self.binding, {self.result: x}, index),
        ).lower()
        way = "channels" if self.in_channels else "pixels"
        return self.binding.finish(body, f"direct {self.form.size}, {way}")

    @property
    def _last(self) -> int:
        """Pixels in the last vector of a row."""
        return self.pixels[-1].extent - (self.vectors.extent - 1) * self.pixel.extent

    # -- operands ---------------------------------------------------------------------------------

    def _read_operands(self) -> ir.Block:
        """Makes x and dy readable as the tiles read them."""
        x, dy = self.operands
        body, self._x = padded(self.binding, x, [slide.reads(slide.count) for slide in self.slides])
        self._dy = reader(self.binding, dy)
        return body + self._pack() if self.in_channels else body

    def _pack(self) -> ir.Block:
        """Dy as [group][panel][n][*o][column]."""
        form, channels = self.form, self.channel.extent
        width = min(form.panel, form.whole(channels))
        pixels = (axis.extent for axis in self.pixels)
        shape = (self.group.extent, -(-channels // form.panel), self.batch.extent, *pixels, width)
        self._packed = self.binding.local("packed", shape, self.dtype, Space.SCRATCH)
        body: ir.Block = ()
        for span in panels(channels, form.panel):
            group, panel, sample, lane = (self.binding.var(h) for h in ("g", "panel", "n", "v"))
            pixel = [(self.binding.var(axis.name), axis.extent) for axis in self.pixels]
            at = tuple(var for var, _ in pixel)
            number = panel + span.start // form.panel
            channel = group * channels + number * form.panel + lane
            dy = self._dy((sample, channel, *at))
            row = store_lanes(
                self._packed, (group, number, sample, *at), lane, span.length, dy, form
            )
            nest = ((group, self.group.extent), (panel, span.count), (sample, self.batch.extent))
            body += ir.loop_nest(
                (*nest, *pixel[:-1]), ir.loop_nest((pixel[-1],), row), LoopKind.PARALLEL
            )
        return body

    def _multiply(self, task: Block, place: Place) -> Expr:
        """One product."""
        group, channel, sample = place[self.group], place[self.channel], place[self.batch]
        pixels = [place[axis] for axis in self.pixels[:-1]]
        if self.in_channels:
            pixels.append(place[self.pixels[-1]])
        else:
            pixels.append(place[self.vectors] * self.pixel.extent + place[self.pixel])
        places = (
            slide.input_place(pixel, place[tap])
            for slide, pixel, tap in zip(self.slides, pixels, self.taps, strict=True)
        )
        x = self._x((sample, group * self.depth.extent + place[self.depth], *places))
        if self._packed is None:
            dy = self._dy((sample, group * self.channel.extent + channel, *pixels))
        else:
            first = task.start[self.channel]
            index = (group, first // self.form.panel, sample, *pixels, channel - first)
            dy = ir.Load(self._packed, index)
        return ir.binary(ir.BinaryOp.MUL, x, dy)

    def _index(self, place: Place) -> Index:
        """Where a sum belongs."""
        channel = place[self.group] * self.channel.extent + place[self.channel]
        return (channel, place[self.depth], *(place[tap] for tap in self.taps))
