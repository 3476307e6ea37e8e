"""The products of Winograd convolution: [tiles x C] · [C x panel] at each place of a tile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from ..loops import ir
from ..loops.ir import Buffer, Expr, LoopKind, Space
from .binding import Binding
from .tile import Columns, Span, clear, most_rows, outer_product

# Channels whose products are added up before they are added to those of others: errors grow with
# the length of a sum.
_SUMMED = 128
# Bytes that a prefetch gets, and blocks of channels between asking for an input and reading it.
_LINE = 64
_AHEAD = 6

# What is done at a place, with a register tile: its first tile, and how many are in it.
Ahead = Callable[[Expr, Expr, int], ir.Block]


@dataclass
class Products:
    """Products of a block of tiles and a panel of output channels.

    Arguments:
        binding: the group.
        inputs: transformed, (slot, place, [C / block, tiles, block] in a row).
        weight: transformed, (panel, place, C, column).
        results: (tile, place, column).
        block: channels in a block of the inputs.
        unrolled: whether the steps of a block of channels are written out, several times the code.
            Else inputs are asked for: processors follow by themselves what one instruction reads at
            equal distances only.
    """

    binding: Binding
    inputs: Buffer
    weight: Buffer
    results: Buffer
    block: int
    unrolled: bool = True

    def at(self, channel: Expr, tile: Expr, lane: Expr) -> Expr:
        """Where a tile is in a row of the inputs."""
        return (channel * self.tiles + tile) * self.block + lane

    @property
    def tiles(self) -> int:
        return self.results.shape[0]

    @cached_property
    def columns(self) -> Columns:
        dtype = self.results.dtype
        return Columns(self.results.shape[2], self.binding.lanes(dtype), dtype)

    @cached_property
    def spans(self) -> list[Span]:
        """The tiles in register tiles whose heights differ by at most one."""
        count = -(-self.tiles // most_rows(self.binding.target, len(self.columns.parts)))
        height, more = divmod(self.tiles, count)
        spans = [Span(0, height + 1, more)] if more else []
        return [*spans, Span(more * (height + 1), height, count - more)]

    @cached_property
    def sums(self) -> tuple[int, int]:
        """Into how many sums the channels are cut, and blocks of channels in each."""
        blocks = self.weight.shape[2] // self.block
        count = -(-blocks // max(1, _SUMMED // self.block))
        return count, -(-blocks // count)

    def all(self, slot: Expr, panel: Expr, ahead: Ahead | None = None) -> ir.Block:
        """The loops: weights of a sum stay in the first-level cache while all tiles meet them.

        Arguments:
            slot: where the inputs are.
            panel: of output channels.
            ahead: what is done besides with the last sums of each place.
        """
        place, part = self.binding.var("p"), self.binding.var("s")
        body: ir.Block = ()
        before = 0
        for span in self.spans:
            number = self.binding.var("t")
            first = number * span.length + span.start
            where = (slot, place, panel)
            tile = self._register_tile(where, part, first, span.length, number + before)
            if ahead is not None:
                asked = ahead(place, first, span.length)
                is_last = part >= self.sums[0] - 1
                tile = (*((ir.If(is_last, asked),) if self.sums[0] > 1 else asked), *tile)
            body += (ir.For(number, span.count, tile),)
            before += span.count
        return ir.loop_nest(((place, self.results.shape[1]), (part, self.sums[0])), body)

    def _register_tile(
        self,
        where: tuple[Expr, Expr, Expr],
        part: Expr,
        first: Expr,
        length: int,
        order: Expr,
    ) -> ir.Block:
        """Sum `part` of some tiles; `order`: how many register tiles come before it."""
        lane, row = self.binding.var("v"), self.binding.var("m")
        dtype, width = self.columns.dtype, self.columns.width
        tile = self.binding.local("sums", (length, width), dtype, Space.REGISTER)
        number = self.binding.var("c")
        count, blocks = self.sums
        channel = part * blocks + number
        step = self._steps(tile, where, channel, first, row, lane, order)
        if count * blocks * self.block != self.weight.shape[2]:
            step = (ir.If(channel < self.weight.shape[2] // self.block, step),)
        keep, add = (self._keep(tile, where[1], first, row, lane, more) for more in (False, True))
        return (
            *clear(tile, length, self.columns, row, lane),
            ir.For(number, blocks, step),
            # A choice for each sum would have all the others' in registers as well.
            *((ir.If(part < 1, keep, add),) if count > 1 else keep),
        )

    def _steps(
        self,
        tile: Buffer,
        where: tuple[Expr, Expr, Expr],
        channel: Expr,
        first: Expr,
        row: ir.Var,
        lane: ir.Var,
        order: Expr,
    ) -> ir.Block:
        """Adds the products of a block of channels, and asks for weights of the next place."""
        slot, place, panel = where
        inner = self.binding.var("c")
        x = ir.Load(self.inputs, (slot, place, self.at(channel, first + row, inner)))
        depth = channel * self.block
        vectors: dict[int, Expr] = {
            c: ir.Load(self.weight, (panel, place, depth + inner, lane + c))
            for c, _ in self.columns.parts
        }
        step = outer_product(tile, [(row, tile.shape[0])], self.columns, lane, x, vectors)
        # Each register tile asks for its share.
        share = -(-self.block // sum(span.count for span in self.spans))
        ahead = tuple(
            ir.Prefetch(
                self.weight, (panel, place + 1, depth + (order * share + i), ir.index(column))
            )
            for i in range(share)
            for column in range(0, self.columns.width, _LINE // self.columns.dtype.size)
        )
        if self.unrolled:
            return (*ahead, ir.For(inner, self.block, step, LoopKind.UNROLLED))
        ahead += tuple(
            ir.Prefetch(self.inputs, (slot, place, self.at(channel + _AHEAD, first, ir.index(i))))
            for i in range(0, tile.shape[0] * self.block, _LINE // self.columns.dtype.size)
        )
        return (*ahead, ir.For(inner, self.block, step))

    def _keep(
        self, tile: Buffer, place: Expr, first: Expr, row: ir.Var, lane: ir.Var, more: bool
    ) -> ir.Block:
        """Stores the sums, or adds them to those of other channels if there are `more`."""
        keep: dict[int, ir.Block] = {}
        for c, _ in self.columns.parts:
            at = first + row, place, lane + c
            total: Expr = ir.Load(tile, (row, lane + c))
            if more:
                total = ir.binary(ir.BinaryOp.ADD, ir.Load(self.results, at), total)
            keep[c] = (ir.Store(self.results, at, total),)
        body = self.columns.each(lane, keep)
        return (ir.For(row, tile.shape[0], body, LoopKind.UNROLLED),)
