"""Convolution in many small groups, and its transpose by x, in blocks of channels.

A group's output channels fill a vector, or part of one. A tile is some neighbouring results of a
row, held in registers: for each input channel of a group the weights of a row of the kernel are
held, too, and each column of x is loaded once for all taps that read it. In groups of a vector or
more it is broadcast from memory. In smaller ones a vector of x holds several groups, as the vector
of results does; every lane takes its own group's element of it, which is one permutation.

Rows and their edges are those of depthwise convolutions (`depthwise.py`), which are groups of one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING

from ..loops import ir
from ..loops.ir import Expr, LoopKind, ReduceOp
from ..ops.conv import Conv
from .block_index import divided
from .depthwise import Depthwise, Form, Line, Tiles
from .epilogue import store_results
from .index import Index
from .padding import reader
from .slide import Slide, forward_slides, transposed_slides
from .windows import guarded

if TYPE_CHECKING:
    from .binding import Lowered
    from .blocked_conv import BlockedGather

# Weights of a row of the kernel that are held in registers, if they are no more.
_HELD = 8
# Registers that sums move through where a column of x is used only once.
_MOVING = 3
# What must be gained by another tile at the edge of a row, which is more code to compile.
_EDGE = 0.01
# Cycles that a tile costs beside its sum, and that an addition waits for the one before it.
_TILE = 20
_LATENCY = 4
# Bytes of a cache line, bytes of an input that stay in the second-level cache, and how many rows
# before they are needed columns of others are asked for.
_LINE = 64
_FAR = 512 * 1024
_ROWS = 8
# So many tasks keep all threads busy.
_TASKS = 32


@dataclass(frozen=True)
class GroupedForm(Form):
    """How a convolution in groups is computed."""

    @property
    def note(self) -> str:
        return f"groups, {max(tiles.length for tiles in self.tiles)} pixels, channels"


@dataclass
class Grouped(Depthwise):
    """The results of a convolution in groups, row by row."""

    @cached_property
    def outputs(self) -> int:
        """Output channels of a group."""
        return self.conv.shape[1] // self.conv.op.groups

    @cached_property
    def is_shared(self) -> bool:
        """Whether a vector of results is of one group."""
        return self.outputs % self.size == 0

    @cached_property
    def units(self) -> tuple[int, int]:
        """Units of the input channels of a group, and how many channels are in one."""
        return self.conv.depth.extent, self.conv.unit

    def channel(self, unit: Expr, member: Expr, lane: Expr) -> Index:
        """The block of x, and the place in it, that a lane reads."""
        conv, channels = self.conv, self.conv.channels
        if self.is_shared:
            group = self.block // (self.outputs // self.size)
            first, start = divided(group * channels, conv.source_shape[-1])
            major, minor = divided(unit * conv.unit, conv.source_shape[-1])
            return first + major, start + minor + member
        own = lane // self.outputs * channels + member
        if conv.source_shape[-1] == self.size:
            return self.block, own
        return divided(self.block * self.size + own, conv.source_shape[-1])

    def weights(self, depth: Expr, kernel: Sequence[Expr], lane: Expr) -> Expr:
        """The weight of an input channel."""
        conv = self.conv
        groups, panels, *_, panel = conv.binding.shape(conv.weight)
        if panel % self.size == 0:
            of_panel = panel // self.size
            number, column = self.block // of_panel, self.block % of_panel * self.size + lane
        else:
            number, column = divided(self.block * self.size + lane, panel)
        if groups > 1:
            return conv.weight_of((number // panels, number % panels, depth, *kernel, column))
        return conv.weight_of((ir.index(0), number, depth, *kernel, column))

    def add_up(
        self,
        tiles: Tiles,
        column: Expr,
        periods: Sequence[Expr],
        slides: Sequence[Slide],
        sums: ir.Buffer,
        lane: ir.Var,
    ) -> ir.Block:
        binding = self.conv.binding
        rows, kernel, nest, checks = self.kernel_rows(periods, slides)
        (count, members), (unit, member) = self.units, (binding.var("c"), binding.var("cc"))
        step = self.products(tiles, column, rows, kernel, (unit, member), sums, lane)
        kind = LoopKind.SERIAL if self.is_shared else LoopKind.UNROLLED
        inner = ir.For(member, members, self.lanes(lane, step), kind)
        products = ir.loop_nest(nest, guarded(checks, ir.loop_nest(((unit, count),), (inner,))))
        return self.ask_ahead(tiles, column, periods, slides) + products

    def ask_ahead(
        self, tiles: Tiles, column: Expr, periods: Sequence[Expr], slides: Sequence[Slide]
    ) -> ir.Block:
        """Asks for the columns of x that a tile some rows on reads, perhaps in the next map."""
        line, zero = self.form.axes[-1], ir.index(0)
        if not slides or self.units[0] > 1:
            return ()
        *outer, row = [s.input_place(p, zero) for s, p in zip(slides, periods, strict=True)]
        major, _ = self.channel(zero, zero, zero)
        found: list[ir.Stmt] = []
        for number in range(slides[-1].stride):
            x = self.read((major, *outer, row + (_ROWS + number), column), zero)
            if not isinstance(x, ir.Load) or x.buffer.nbytes < _FAR:
                return ()
            columns = tiles.length // line.period * line.stride
            elements = _LINE // x.buffer.dtype.size
            for first in range(0, columns * x.buffer.shape[-1], elements):
                found.append(ir.Prefetch(x.buffer, (*x.index[:-1], ir.index(first))))
        return tuple(found)

    def products(
        self,
        tiles: Tiles,
        column: Expr,
        rows: Sequence[Expr],
        kernel: Sequence[Expr],
        depth: tuple[Expr, Expr],
        sums: ir.Buffer,
        lane: Expr,
    ) -> ir.Block:
        """The products of an input channel and a row of the kernel."""
        body: list[ir.Stmt] = []
        unit, member = depth

        def name(hint: str, value: Expr) -> Expr:
            var = ir.Var(self.conv.binding.var(hint).name, self.conv.dtype)
            body.append(ir.Let(var, value))
            return var

        def weight(number: int) -> Expr:
            place = unit * self.units[1] + member
            return self.weights(place, (*kernel, ir.index(number)), lane)

        used = sorted({tap.kernel for tap in tiles.taps})
        held = {n: name("weight", weight(n)) for n in used} if len(used) <= _HELD else {}
        major, minor = self.channel(unit, member, lane)
        for offset, taps in groupby(tiles.taps, key=lambda tap: tap.column):
            x = name("x", self.read((major, *rows, column + offset), minor))
            for tap in taps:
                w = held[tap.kernel] if held else weight(tap.kernel)
                value = ir.binary(ir.BinaryOp.MUL, w, x)
                index = (ir.index(tap.result), lane)
                body.append(ir.Accumulate(sums, index, ReduceOp.ADD, value))
        return tuple(body)


def grouped_form(conv: BlockedGather) -> GroupedForm | None:
    """How a convolution in groups is computed; None if not here.

    Arguments:
        conv: the convolution, or its transpose by x.
    """
    op, size = conv.blocked_op, conv.blocked_op.block
    if op.convolution.groups == 1 or op.is_depthwise or conv.binding.group.pool is not None:
        return None
    weight = conv.binding.shape(conv.weight)
    is_vector = size == weight[-1] == conv.channel.extent == conv.source_shape[-1]
    if not op.joins_groups(weight[-1]) and not is_vector:
        return None
    kernel, source = weight[3:-1], conv.source_shape[2:-1]
    spatial = conv.binding.shape(conv.result)[2:-1]
    slides: Sequence[tuple[Slide, ...]]
    if conv.flat:
        slides = [(Slide(spatial[0], (0, 1), 1, 0, 1, 1, (0, 1)),)]
    elif isinstance(conv.op, Conv):
        slides = [(slide,) for slide in forward_slides(conv.op.window(kernel), source)]
    else:
        slides = transposed_slides(conv.op.window(kernel), spatial)
    axes = tuple(Line(*axis) for axis in zip(slides, spatial, source, strict=True))
    height = math.prod(max(slide.taps for slide in axis.slides) for axis in axes[:-1])
    held = kernel[-1] if kernel[-1] <= _HELD else 1
    most = max(1, conv.binding.target.registers // -(-size // conv.lanes) - held - 1)
    if axes[-1].stride > 1:
        most = max(1, most - _MOVING)
    tiles = _tiles(axes[-1], most, height * conv.channels, conv.channel.extent < size)
    return GroupedForm(axes, tuple(tiles))


def _tiles(line: Line, most: int, depth: int, permuted: bool) -> list[Tiles]:
    """The fastest tiles of at most so many results, for so many steps of a sum."""
    found: list[tuple[float, int, list[Tiles]]] = []
    for length in range(1, max(1, min(max(most, line.period), line.extent)) + 1):
        if length % line.period == 0 or length == line.extent:
            tiles = line.tiles(length)
            cost = sum(_cost(each, depth, permuted) for each in tiles)
            found.append((cost * (1 + _EDGE * len(tiles)), -length, tiles))
    return min(found, key=lambda each: each[:2])[-1] if found else line.tiles(1)


def _cost(tiles: Tiles, depth: int, permuted: bool) -> float:
    """Cycles: two multiply-adds or loads, three of those and permutations."""
    taps, columns = len(tiles.taps), len({tap.column for tap in tiles.taps})
    weights = len({tap.kernel for tap in tiles.taps})
    loads = columns + (weights if weights <= _HELD else taps)
    step = max(taps / 2, loads / 2, (taps + columns) / 3 if permuted else 0, _LATENCY * weights)
    return tiles.count * (depth * step + tiles.length + _TILE)


def lower_grouped(conv: BlockedGather, form: Form) -> Lowered:
    """The kernel of a convolution in groups and its epilogue."""
    binding = conv.binding
    count, periods = conv.shape[1] // conv.blocked_op.block, form.periods
    others = math.prod((conv.shape[0], count, *periods[:-1]))
    rows = periods[-1] if periods else 1
    height = -(-rows // max(1, min(-(-_TASKS // max(1, others)), rows)))
    bands = -(-rows // max(1, height))
    sample, block = binding.var("n"), binding.var("k")
    loops: ir.Loops = ((sample, conv.shape[0]), (block, count))
    first: list[Expr] = []
    for extent in [*periods[:-1], bands][: len(periods)]:
        task, loop = binding.loop("band", extent)
        loops += loop
        first.append(task)
    if first:
        first[-1] = first[-1] * height
    x = reader(binding, conv.source)

    def read(place: Index, lane: Expr) -> Expr:
        return x((sample, *place, lane))

    def write(result: Expr, place: Index, lane: Expr) -> ir.Block:
        return store_results(binding, {conv.result: result}, (sample, block, *place, lane))

    kernel = Grouped(conv, form, read, block, write)
    heights = [*(1 for _ in periods[:-1]), height][: len(periods)]
    body = kernel.rows(first, heights, bands)
    return binding.finish(ir.loop_nest(loops, body, LoopKind.PARALLEL), form.note)
