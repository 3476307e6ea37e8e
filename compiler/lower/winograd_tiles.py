"""What the kernels of Winograd's algorithm share: tiles, numbered over the whole batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TypeAlias

from ..loops import ir
from ..loops.ir import Expr
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

    def is_inside(
        self, corner: Sequence[Expr], low: Sequence[int], size: int, extents: Shape
    ) -> list[Expr]:
        """What must hold for a tile of `size` x `size` inputs to lie inside of what is read.

        Arguments:
            corner: the first place of the tile along each axis.
            low: the padding before the first tile.
            size: places of the tile along an axis.
            extents: of what is read.
        """
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
