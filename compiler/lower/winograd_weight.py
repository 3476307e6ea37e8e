"""The gradient by the weight of a 3x3 or 5x5 convolution, by Winograd's algorithm.

Tiles are numbered over the whole batch. A task has some input channels (a *depth* of them), some
output channels, and a part of the tiles, of which it takes some at a time:

    inputs     each tile of x and of dy is transformed, with zeros where it leaves the value
    products   for each place of a transformed tile: [depth x tiles] · [tiles x channels], added up

When all tiles are done, the sums are transformed to taps. What a task reads and writes again and
again stays in the second-level cache; so a transformed tile meets few channels, and is transformed
again by other tasks, which is cheaper than reading it from memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import gcd

from ..graph import Graph, Value
from ..group import Group
from ..llvm.target import Target
from ..loops import ir
from ..loops.ir import Buffer, Expr, LoopKind, ReduceOp, Space
from ..ops.toom_cook import Matrix
from ..ops.winograd_gradient import WinogradConvWeightGradient
from ..types import Shape
from ..weight_cost_model import WeightBlocking, weight_blocking
from .binding import Binding, Lowered
from .padding import reader
from .tile import Columns, Span, balanced, clear, outer_product, panels
from .weight_results import Lengths, Starts, WeightResults, flat_shapes, over_spans
from .winograd_tiles import APART, WinogradTiles


def lower_winograd_weight(graph: Graph, group: Group, target: Target) -> Lowered:
    """The kernel of WinogradConvWeightGradient and its epilogue."""
    assert group.anchor is not None
    result = Value(group.anchor)
    flat = flat_shapes(graph, group, result)
    return WinogradWeight(
        Binding(graph, group, target, flat or {}), result, flat is not None
    ).lower()


@dataclass(frozen=True)
class Operand:
    """X or dy.

    Arguments:
        value: in memory, (N, C / b, H, W, b).
        shape: of it.
        low: padding before it: tile (i, j) starts `tile * i - low[0]` and `tile * j - low[1]`.
        matrix: its transform, (places of a transformed tile along an axis, of a tile).
        transformed: buffer, (place, [channels / b, tiles, b] in a row).
    """

    value: Value
    shape: Shape
    low: tuple[int, int]
    matrix: Matrix
    transformed: Buffer


@dataclass
class WinogradWeight(WinogradTiles):
    """One gradient by a weight.

    Arguments:
        is_flat: whether the results of the group are indexed as (K, C * taps).
    """

    is_flat: bool

    @cached_property
    def op(self) -> WinogradConvWeightGradient:
        op = self.binding.graph.node(self.result.node).op
        assert isinstance(op, WinogradConvWeightGradient)
        return op

    @cached_property
    def shapes(self) -> tuple[Shape, Shape]:
        """Of x and dy."""
        x, dy = (self.binding.graph.type_of(value).shape for value in self.inputs)
        return x, dy

    @property
    def windows(self) -> Shape:
        return self.shapes[1]

    @cached_property
    def blocking(self) -> WeightBlocking:
        x, dy = self.shapes
        return weight_blocking(
            self.binding.target,
            self.dtype,
            (self.op.tile, self.op.taps),
            self.tiles,
            (x[1] * x[-1], dy[1] * dy[-1]),
            max(x[-1], dy[-1]),
        )

    @cached_property
    def results(self) -> WeightResults:
        return WeightResults(self.binding, self.result, self.is_flat, self.blocking.parts)

    @cached_property
    def operands(self) -> tuple[Operand, Operand]:
        """X and dy."""
        matrices = self.matrices
        (top, _), (left, _) = self.op.convolution.padding
        x, dy = self.inputs
        inverse = tuple(zip(*matrices.inverse, strict=True))
        return (
            self._operand(x, (top, left), matrices.data, self.blocking.depth),
            self._operand(dy, (0, 0), inverse, self.blocking.channels),
        )

    def _operand(self, value: Value, low: tuple[int, int], matrix: Matrix, width: int) -> Operand:
        shape = (self.side**2, self.blocking.tiles * width + APART)
        buffer = self.binding.local("transformed", shape, self.dtype, Space.STACK)
        return Operand(value, self.binding.graph.type_of(value).shape, low, matrix, buffer)

    @cached_property
    def sums(self) -> Buffer:
        """Sums of products, (place, input channel, output channel)."""
        shape = (self.side**2, self.blocking.depth, self.blocking.channels)
        return self.binding.local("sums", shape, self.dtype, Space.STACK)

    # -- tasks ------------------------------------------------------------------------------------

    def lower(self) -> Lowered:
        x, dy = self.shapes
        spans = {
            "part": [Span(0, 1, self.blocking.parts)],
            "c": panels(x[1] * x[-1], self.blocking.depth),
            "k": panels(dy[1] * dy[-1], self.blocking.channels),
        }
        body = over_spans(self.binding, spans, self._task, LoopKind.PARALLEL)
        size = f"{self.op.tile}x{self.op.tile}"
        note = f"winograd {size}, {self.blocking.tiles} tiles of {self.blocking.depth} to "
        note += f"{self.blocking.channels} channels at a time"
        return self.binding.finish(body + self.results.combine(), note)

    def _task(self, start: Starts, length: Lengths) -> ir.Block:
        """The sums over a part of the tiles, for some pairs of channels."""
        blocking = self.blocking
        number = self.binding.var("block")
        block = start["part"] * blocking.repeats + number
        body: ir.Block = ()
        for operand, name in zip(self.operands, "ck", strict=True):
            body += self._transform(operand, block, start[name], length[name])
        body += self._products(length)
        if blocking.parts * blocking.repeats * blocking.tiles - self.tiles >= blocking.tiles:
            body = (ir.If(block * blocking.tiles < self.tiles, body),)
        buffers = (*(operand.transformed for operand in self.operands), self.sums)
        return (
            *map(ir.Alloc, buffers),
            *self._clear(length),
            ir.For(number, blocking.repeats, body),
            *self._results(start, length),
        )

    def _clear(self, length: Lengths) -> ir.Block:
        place, row, lane = (self.binding.var(hint) for hint in ("p", "c", "v"))
        zero = ir.Const(0.0, self.dtype)
        store = ir.Store(self.sums, (place, row, lane), zero)
        loop = ir.For(lane, length["k"], (store,), LoopKind.VECTOR, self.lanes)
        return ir.loop_nest(((place, self.side**2), (row, length["c"])), (loop,))

    # -- transformed tiles ------------------------------------------------------------------------

    def _transform(self, operand: Operand, block: Expr, first: Expr, width: int) -> ir.Block:
        """Transforms a block of tiles, of neighbouring channels."""
        number, group, lane = (self.binding.var(hint) for hint in ("t", "g", "v"))
        wide = operand.shape[-1]
        read = reader(self.binding, operand.value)
        at = self._column(operand, number, group * wide + lane)

        def write(i: Expr, j: Expr, y: Expr) -> ir.Block:
            index = (i * self.side + j, at)
            return (ir.Store(operand.transformed, index, y),)

        def of_tile(image: Expr, row: Expr, column: Expr) -> ir.Block:
            inside = self.read_tile(
                operand.matrix,
                (row, column),
                operand.low,
                operand.shape[2:4],
                lambda i, j: read((image, first // wide + group, i, j, lane)),
                write,
            )
            return (ir.For(lane, wide, inside, LoopKind.VECTOR, self.lanes),)

        tiles = self.blocking.tiles
        body = self.of_tile(
            block * tiles + number,
            self.blocking.parts * self.blocking.repeats * tiles,
            of_tile,
            self._no_tile(operand, number, group),
        )
        return ir.loop_nest(((group, width // wide), (number, tiles)), body)

    def _column(self, operand: Operand, tile: Expr, channel: Expr) -> Expr:
        """Where a channel of a transformed tile is in a row of them."""
        wide = operand.shape[-1]
        return (channel // wide * self.blocking.tiles + tile) * wide + channel % wide

    def _no_tile(self, operand: Operand, number: Expr, group: Expr) -> ir.Block:
        """Zeros behind the last tile."""
        place, lane, wide = self.binding.var("p"), self.binding.var("v"), operand.shape[-1]
        index = (place, self._column(operand, number, group * wide + lane))
        store = ir.Store(operand.transformed, index, ir.Const(0.0, self.dtype))
        loop = ir.For(lane, wide, (store,), LoopKind.VECTOR, self.lanes)
        return (ir.For(place, self.side**2, (loop,)),)

    # -- products ---------------------------------------------------------------------------------

    def _products(self, length: Lengths) -> ir.Block:
        """Adds the products of a block of tiles to the sums."""
        place = self.binding.var("p")
        body: ir.Block = ()
        blocking = self.blocking
        for columns in panels(length["k"], blocking.vectors * self.lanes):
            for rows in balanced(length["c"], blocking.rows):
                panel, row = self.binding.var("panel"), self.binding.var("c")
                first = row * rows.length + rows.start, panel * columns.length + columns.start
                tile = self._register_tile(place, first, rows.length, columns.length)
                body += ir.loop_nest(((panel, columns.count), (row, rows.count)), tile)
        return (ir.For(place, self.side**2, body),)

    def _register_tile(
        self,
        place: Expr,
        first: tuple[Expr, Expr],
        rows: int,
        width: int,
    ) -> ir.Block:
        """The products of a block of tiles for some pairs of channels."""
        x, dy = self.operands
        lane, row, number = (self.binding.var(hint) for hint in ("v", "m", "t"))
        columns = Columns(width, self.lanes, self.dtype)
        sums = self.binding.local("tile", (rows, width), self.dtype, Space.REGISTER)
        scalar = ir.Load(x.transformed, (place, self._column(x, number, first[0] + row)))
        vectors: dict[int, Expr] = {
            c: ir.Load(dy.transformed, (place, self._column(dy, number, first[1] + c + lane)))
            for c, _ in columns.parts
        }
        step = outer_product(sums, [(row, rows)], columns, lane, scalar, vectors)
        add: dict[int, ir.Block] = {
            c: (
                ir.Accumulate(
                    self.sums,
                    (place, first[0] + row, first[1] + lane + c),
                    ReduceOp.ADD,
                    ir.Load(sums, (row, lane + c)),
                ),
            )
            for c, _ in columns.parts
        }
        return (
            *clear(sums, rows, columns, row, lane),
            ir.For(number, self.blocking.tiles, step),
            ir.For(row, rows, columns.each(lane, add), LoopKind.UNROLLED),
        )

    # -- results ----------------------------------------------------------------------------------

    def _results(self, start: Starts, length: Lengths) -> ir.Block:
        """Transforms the sums to taps, some output channels at a time, and stores them."""
        group, channel, lane = (self.binding.var(hint) for hint in ("g", "c", "v"))
        matrix = tuple(zip(*self.matrices.filter, strict=True))
        width = gcd(length["k"], self.lanes)
        count = length["c"] * self.op.taps**2
        taps = self.binding.local("taps", (count, width), self.dtype, Space.STACK)

        def element(i: Expr, j: Expr) -> Expr:
            at = (i * self.side + j, channel, group * width + lane)
            return ir.Load(self.sums, at)

        def write(i: Expr, j: Expr, y: Expr) -> ir.Block:
            return (ir.Store(taps, ((channel * self.op.taps + i) * self.op.taps + j, lane), y),)

        inside = self.map_tile(matrix, element, write)
        vector = ir.For(lane, width, inside, LoopKind.VECTOR, self.lanes)
        column, row = self.binding.var("k"), self.binding.var("r")
        put = self.results.put(
            ir.Load(taps, (row, column)),
            start["part"],
            start["k"] + group * width + column,
            start["c"] * self.op.taps**2 + row,
        )
        body = (
            ir.Alloc(taps),
            ir.For(channel, length["c"], (vector,)),
            ir.For(column, width, self.results.row_loop(row, count, put)),
        )
        return (ir.For(group, length["k"] // width, body),)
