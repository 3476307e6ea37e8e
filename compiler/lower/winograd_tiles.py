"""What the kernels of Winograd's algorithm share: tiles, numbered over the whole batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TypeAlias

from ..loops import ir
from ..loops.ir import Buffer, Expr, Space
from ..ops.toom_cook import Matrix, Transforms, transforms
from ..ops.winograd import WinogradConv
from ..ops.winograd_gradient import WinogradConvWeightGradient
from ..types import Shape
from .anchored import Anchored
from .linear_map import linear_map

# Elements between the transformed tiles of two places beyond what they take, so that these do not
# all fall into the same sets of the first-level cache.
APART = 16

# Given the image of a tile, its row and its column.
OfTile: TypeAlias = Callable[[Expr, Expr, Expr], ir.Block]
# An element of a tile or of what it is read from, by its row and column; and what is done with one.
Element: TypeAlias = Callable[[Expr, Expr], Expr]
Write: TypeAlias = Callable[[Expr, Expr, Expr], ir.Block]


@dataclass
class WinogradTiles(Anchored, ABC):
    """One operation, whose windows are cut into tiles."""

    @cached_property
    @abstractmethod
    def op(self) -> WinogradConv | WinogradConvWeightGradient:
        """What it computes."""

    @property
    @abstractmethod
    def windows(self) -> Shape:
        """Shape of what is cut into tiles: (N, K / d, H, W, d)."""

    @cached_property
    def matrices(self) -> Transforms:
        return transforms(self.op.tile, self.op.taps)

    @cached_property
    def side(self) -> int:
        """Places of a transformed tile along an axis."""
        return self.op.tile + self.op.taps - 1

    @cached_property
    def counts(self) -> tuple[int, int]:
        """Tiles down and across."""
        down, across = (-(-n // self.op.tile) for n in self.windows[2:4])
        return down, across

    @cached_property
    def tiles(self) -> int:
        """Tiles of the whole batch."""
        return self.windows[0] * prod(self.counts)

    def of_tile(self, number: Expr, count: int, body: OfTile, missing: ir.Block = ()) -> ir.Block:
        """What is done with a tile.

        Arguments:
            number: of the tile.
            count: so many numbers there are, some of which may lie behind the last tile.
            body: what is done.
            missing: what is done behind the last tile.
        """
        down, across = self.counts
        tile = self.binding.var("tile")
        image, row, column = (self.binding.var(h) for h in ("n", "row", "column"))
        inside: ir.Block = (
            ir.Let(image, tile // (down * across)),
            ir.Let(row, tile // across % down),
            ir.Let(column, tile % across),
            *body(image, row, column),
        )
        if count != self.tiles:
            inside = (ir.If(tile < self.tiles, inside, missing),)
        return (ir.Let(tile, number), *inside)

    def read_tile(
        self,
        matrix: Matrix,
        place: Sequence[Expr],
        low: Sequence[int],
        extents: Shape,
        element: Element,
        write: Write,
    ) -> ir.Block:
        """Reads a tile, with zeros where it leaves the value, and transforms it along both axes.

        Arguments:
            matrix: the transform, (rows, places of the tile along an axis).
            place: row and column of the tile.
            low: the padding before the first tile along each axis.
            extents: of what is read.
            element: of what is read.
            write: what is done with an element of the transformed tile.
        """
        size = len(matrix[0])
        corner = [i * self.op.tile - n for i, n in zip(place, low, strict=True)]
        half = self._half(matrix)
        columns = self._columns(matrix, half, lambda i, j: element(corner[0] + i, corner[1] + j))
        tests = self._is_inside(corner, low, size, extents)
        if tests:
            patch = self.binding.local("patch", (size, size), self.dtype, Space.STACK)
            border = (
                ir.Alloc(patch),
                *self._read_patch(patch, corner, extents, element),
                *self._columns(matrix, half, lambda i, j: ir.Load(patch, (i, j))),
            )
            first, *others = tests
            for other in others:
                first = first & other
            is_small = any(n < size for n in extents)
            columns = border if is_small else (ir.If(first, columns, border),)
        return (ir.Alloc(half), *columns, *self._rows(matrix, half, write))

    def map_tile(self, matrix: Matrix, element: Element, write: Write) -> ir.Block:
        """Transforms a tile along both axes."""
        half = self._half(matrix)
        columns = self._columns(matrix, half, element)
        return (ir.Alloc(half), *columns, *self._rows(matrix, half, write))

    def _half(self, matrix: Matrix) -> Buffer:
        """A tile that is transformed along one axis."""
        return self.binding.local("half", (len(matrix), len(matrix[0])), self.dtype, Space.STACK)

    def _columns(self, matrix: Matrix, half: Buffer, element: Element) -> ir.Block:
        across = self.binding.var("j")
        values = [element(ir.index(i), across) for i in range(half.shape[1])]
        body = self.map(matrix, values, lambda i, y: (ir.Store(half, (ir.index(i), across), y),))
        return (ir.For(across, half.shape[1], body),)

    def _rows(self, matrix: Matrix, half: Buffer, write: Write) -> ir.Block:
        down = self.binding.var("i")
        values = [ir.Load(half, (down, ir.index(j))) for j in range(half.shape[1])]
        body = self.map(matrix, values, lambda j, y: write(down, ir.index(j), y))
        return (ir.For(down, half.shape[0], body),)

    def _read_patch(
        self, patch: Buffer, corner: Sequence[Expr], extents: Shape, element: Element
    ) -> ir.Block:
        """Copies a tile of which parts may be missing."""
        number = self.binding.var("i"), self.binding.var("j")
        places = [first + var for first, var in zip(corner, number, strict=True)]
        zero: ir.Block = (ir.Store(patch, number, ir.Const(0.0, self.dtype)),)
        body: ir.Block = (ir.Store(patch, number, element(places[0], places[1])),)
        for place, extent in zip(places, extents, strict=True):
            body = (ir.If((place >= 0) & (place < extent), body, zero),)
        return ir.loop_nest(tuple(zip(number, patch.shape, strict=True)), body)

    def _is_inside(
        self, corner: Sequence[Expr], low: Sequence[int], size: int, extents: Shape
    ) -> list[Expr]:
        """What must hold for a tile of `size` x `size` inputs to lie inside of what is read."""
        tests: list[Expr] = []
        for axis in range(2):
            last = (self.counts[axis] - 1) * self.op.tile - low[axis] + size
            if low[axis] > 0:
                tests.append(corner[axis] >= 0)
            if last > extents[axis]:
                tests.append(corner[axis] <= extents[axis] - size)
        return tests

    def map(
        self, matrix: Matrix, values: Sequence[Expr], write: Callable[[int, Expr], ir.Block]
    ) -> ir.Block:
        """A matrix times values, each result written."""
        elements = self.binding.elements()
        named = [elements.name(x, "x") for x in values]
        results = linear_map(elements, matrix, named)
        body = elements.take_block()
        for i, y in enumerate(results):
            body += write(i, y)
        return body
