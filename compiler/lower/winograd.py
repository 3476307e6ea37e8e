"""Winograd convolution of a value in blocks of channels.

Tiles of outputs are numbered over the whole batch, and taken some at a time (a *block* of tiles):

    inputs     each tile's inputs are transformed, with zeros where they leave the value
    products   for each of the places of a transformed tile: [tiles x C] · [C x K]
    outputs    the products of a tile are transformed, and the epilogue follows

Vectors lie along the channels everywhere. Which of this a task does is in `product_tasks.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import gcd

from ..cost_model import Blocking, SquareConvolution, winograd_blocking
from ..graph import Graph, Value
from ..group import Group
from ..llvm.target import Target
from ..loops import ir
from ..loops.ir import Buffer, Expr, LoopKind, Space
from ..ops.winograd import WinogradConv
from ..types import Shape
from .binding import Binding, Lowered
from .epilogue import store_results
from .index import Index
from .padding import reader
from .product_tasks import ProductTasks
from .winograd_products import Products
from .winograd_tiles import APART, OfTile, WinogradTiles


def lower_winograd(graph: Graph, group: Group, target: Target) -> Lowered:
    """The kernel of WinogradConv and its epilogue."""
    assert group.anchor is not None
    return Winograd(Binding(graph, group, target), Value(group.anchor)).lower()


@dataclass
class Winograd(WinogradTiles):
    """One convolution; `shape` is (N, K / d, H, W, d).

    Arguments:
        given: how much is done at a time; chosen by the cost model if None.
    """

    given: Blocking | None = None

    @cached_property
    def op(self) -> WinogradConv:
        op = self.binding.graph.node(self.result.node).op
        assert isinstance(op, WinogradConv)
        return op

    @property
    def source(self) -> Value:
        return self.inputs[0]

    @property
    def weight(self) -> Value:
        return self.inputs[1]

    @property
    def windows(self) -> Shape:
        return self.shape

    @cached_property
    def read(self) -> Shape:
        """(N, C / b, H, W, b)"""
        return self.binding.graph.type_of(self.source).shape

    @cached_property
    def channels(self) -> int:
        return self.shape[1] * self.shape[-1]

    @cached_property
    def panel(self) -> int:
        return self.binding.graph.type_of(self.weight).shape[-1]

    @cached_property
    def panels(self) -> int:
        return self.binding.graph.type_of(self.weight).shape[0]

    @cached_property
    def blocking(self) -> Blocking:
        n, _, height, width, _ = self.shape
        depth = self.read[1] * self.read[-1]
        conv = SquareConvolution(n, depth, self.channels, height, width, taps=self.op.taps)
        return self.given or winograd_blocking(
            self.binding.target, self.dtype, conv, self.op.tile, self.panel
        )

    @cached_property
    def products(self) -> Products:
        """The products, from transformed inputs in scratch to the stack."""
        tiles, places, block = self.blocking.tiles, self.side**2, self.read[-1]
        near = self.blocking.near
        inputs = (1 if near else self.blocking.slots, places, self.read[1] * tiles * block + APART)
        results = (tiles, places, self.panel)
        return Products(
            self.binding,
            self.binding.local(
                "transformed", inputs, self.dtype, Space.STACK if near else Space.SCRATCH
            ),
            self.binding.inputs[self.weight],
            self.binding.local("products", results, self.dtype, Space.STACK),
            block,
        )

    @property
    def note(self) -> str:
        size = f"{self.op.tile}x{self.op.tile}"
        rows = f"{self.products.spans[0].length}x{self.panel}"
        return f"winograd {size}, {rows}, {self.blocking.tiles} tiles at a time"

    def lower(self) -> Lowered:
        tasks = ProductTasks(
            self.products, self.blocking, self.read[1], self._inputs, self._outputs
        )
        return self.binding.finish(tasks.all(), self.note)

    # -- tiles ------------------------------------------------------------------------------------

    def _tile(self, block: Expr, number: Expr, body: OfTile) -> ir.Block:
        """What is done with tile `number` of a block."""
        blocking = self.blocking
        return self.of_tile(block * blocking.tiles + number, blocking.blocks * blocking.tiles, body)

    # -- inputs -----------------------------------------------------------------------------------

    def _inputs(self, slot: Expr, block: Expr, channel: Expr) -> ir.Block:
        """Transforms the inputs of a block of tiles, of one block of channels."""
        number, lane = self.binding.var("t"), self.binding.var("v")
        read = reader(self.binding, self.source)
        at = self.products.at(channel, number, lane)

        def write(i: Expr, j: Expr, y: Expr) -> ir.Block:
            return (ir.Store(self.products.inputs, (slot, i * self.side + j, at), y),)

        def tile(image: Expr, row: Expr, column: Expr) -> ir.Block:
            body = self.read_tile(
                self.matrices.data,
                (row, column),
                self.op.low,
                self.read[2:4],
                lambda i, j: read((image, channel, i, j, lane)),
                write,
            )
            return (ir.For(lane, self.read[-1], body, LoopKind.VECTOR, self.lanes),)

        return (ir.For(number, self.blocking.tiles, self._tile(block, number, tile)),)

    # -- outputs ----------------------------------------------------------------------------------

    def _outputs(self, block: Expr, panel: Expr) -> ir.Block:
        """Transforms the products of a block of tiles, and stores the results."""
        number, vector, lane = (self.binding.var(h) for h in ("t", "k", "v"))
        # A plain result is written a channel at a time, but for that it was transformed in vectors.
        together = self.shape[-1] if self.shape[-1] > 1 else self.channels
        wide = gcd(together, self.panel)
        half = self.binding.local("half", (self.op.tile, self.side), self.dtype, Space.STACK)
        part = panel * (self.panel // wide) + vector

        def tile(image: Expr, row: Expr, column: Expr) -> ir.Block:
            body = (
                ir.Alloc(half),
                *self._read_products(half, number, vector * wide + lane),
                *self.write_tile(half, image, part * wide, lane, (row, column)),
            )
            body = (ir.For(lane, wide, body, LoopKind.VECTOR, self.lanes),)
            if self.panels * self.panel != self.channels:
                body = (ir.If(part < self.channels // wide, body),)
            return (ir.For(vector, self.panel // wide, body),)

        return (ir.For(number, self.blocking.tiles, self._tile(block, number, tile)),)

    def _read_products(self, half: Buffer, number: Expr, column: Expr) -> ir.Block:
        across = self.binding.var("j")
        values = [
            ir.Load(self.products.results, (number, across + i * self.side, column))
            for i in range(self.side)
        ]
        body = self.map(
            self.matrices.inverse, values, lambda i, y: (ir.Store(half, (ir.index(i), across), y),)
        )
        return (ir.For(across, self.side, body),)

    def place(self, channel: Expr, lane: Expr) -> tuple[Expr, Expr]:
        """Block of channels and place in it of a result in lanes from `channel` on."""
        size = self.shape[-1]
        if size == 1:
            return channel + lane, ir.index(0)
        return channel // size, channel % size + lane

    def write_tile(
        self, half: Buffer, image: Expr, channel: Expr, lane: Expr, tile: Sequence[Expr]
    ) -> ir.Block:
        """Transforms the rows of a tile, and writes its results as far as they are needed."""
        down = self.binding.var("i")
        values = [ir.Load(half, (down, ir.index(j))) for j in range(self.side)]
        row, column = tile[0] * self.op.tile + down, tile[1] * self.op.tile
        block, within = self.place(channel, lane)

        def write(j: int, y: Expr) -> ir.Block:
            index = (image, block, row, column + j, within)
            body = self.write(y, index, (down, ir.index(j)))
            if j and self.counts[1] * self.op.tile != self.shape[3]:
                return (ir.If(column + j < self.shape[3], body),)
            return body

        body = self.map(self.matrices.inverse, values, write)
        if self.counts[0] * self.op.tile != self.shape[2]:
            body = (ir.If(row < self.shape[2], body),)
        return (ir.For(down, self.op.tile, body),)

    def write(self, y: Expr, index: Index, place: Index) -> ir.Block:
        """Writes the result at `index`, which is at `place` in its tile."""
        return store_results(self.binding, {self.result: y}, index)
