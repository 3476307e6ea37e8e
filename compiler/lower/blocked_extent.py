"""How large the tasks of a convolution in blocks of channels are.

A task takes a band of rows and some panels of output channels, and sums some units of input
channels at a time (`cut.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

from .contraction import Axis, Tiling
from .cut import Cut, Work
from .tile import Span
from .window_copy import Reach

if TYPE_CHECKING:
    from .blocked_conv import BlockedGather
    from .gather import Part


@dataclass
class Extents:
    """The extents of the tasks of all results that are computed in tiles of one width.

    Arguments:
        conv: the kernel.
        part: the outputs.
        tiling: their tiles.
        wanted: chunks of input channels, those of the other tiles; None for the first ones.
    """

    conv: BlockedGather
    part: Part
    tiling: Tiling
    wanted: int | None = None

    # -- axes -------------------------------------------------------------------------------------

    @cached_property
    def line(self) -> Axis:
        """The axis along which tiles lie."""
        return self.part.outputs[-1]

    @cached_property
    def rows(self) -> tuple[Axis, ...]:
        """The other axes of a map."""
        return self.part.outputs[:-1]

    @cached_property
    def band(self) -> Axis:
        """The axis that is cut into bands."""
        return self.part.outputs[-2] if self.rows else self.line

    def spans(self, axis: Axis) -> tuple[Span, ...]:
        """Blocks of an axis."""
        return tuple(self.tiling.blocks[axis])

    def bands(self) -> int:
        """Number of places along the banded axis, or of blocks of a line."""
        return self.spans(self.band)[0].count

    def length(self, axis: Axis, band: int) -> int:
        """Places along an axis that a task takes whose bands are so high."""
        if axis is self.band and self.rows:
            return band
        if axis is self.band:
            first, *rest = self.spans(axis)
            return min(band, first.count) * first.length + sum(s.length for s in rest)
        return axis.extent if axis is self.line else 1

    @property
    def length_of_band(self) -> int:
        """Places between the first ones of neighbouring bands."""
        return self.cut.rows * self.spans(self.band)[0].length

    # -- cuts -------------------------------------------------------------------------------------

    def reaches(self, band: int) -> list[Reach]:
        """What a task reads along each spatial axis."""
        return [
            Reach(slide, extent, self.length(axis, band))
            for slide, extent, axis in zip(
                self.part.slides, self.conv.source_shape[2:], self.part.outputs, strict=False
            )
        ]

    def overhangs(self, axis: Axis) -> bool:
        """Whether the last task along an axis, or the first, lies in part beyond the result."""
        return self.counts.get(axis, 0) * self.length(axis, self.cut.rows) > axis.extent

    @cached_property
    def is_padded(self) -> bool:
        """Whether windows leave the input."""
        return not all(reach.is_inside for reach in self.reaches(1))

    @cached_property
    def is_copied(self) -> bool:
        """Whether tasks copy what they read: it is padded, or computed on the way."""
        return self.is_padded or self.conv.is_computed

    @cached_property
    def joins_batch(self) -> bool:
        """Whether tiles lie across samples."""
        return any(span.length > 1 for span in self.spans(self.conv.batch))

    @cached_property
    def unit_channels(self) -> int:
        return self.tiling.columns.length if self.conv.is_depthwise else self.conv.unit

    @cached_property
    def units(self) -> int:
        """Units of input channels that may be cut."""
        whole = self.conv.unit % self.conv.source_shape[-1] or self.joins_batch
        return 1 if whole or self.conv.is_depthwise else self.conv.depth.extent

    @cached_property
    def cut(self) -> Cut:
        conv, form = self.conv, self.part.form
        size = conv.dtype.size
        width = form.whole(self.tiling.columns.length)
        channels = self.unit_channels if conv.is_depthwise else conv.channels // self.units
        taps = math.prod(axis.extent for axis in self.part.taps)
        samples = 1 if self.joins_batch else conv.batch.extent

        @cache
        def pixels(band: int) -> int:
            return math.prod(self.length(axis, band) for axis in self.part.outputs)

        @cache
        def read(band: int) -> int:
            *outer, line = self.reaches(band)
            pixels = line.size if self.is_copied else line.size * line.slide.stride
            return channels * size * pixels * math.prod(reach.size for reach in outer)

        work = Work(
            rows=self.bands(),
            panels=self.tiling.columns.count,
            units=self.units,
            others=conv.group.extent * samples * self.others,
            cycles=lambda band: pixels(band) * width * form.depth / (2 * form.lanes),
            input=read,
            weights=channels * taps * width * size,
            products=channels * taps,
            sums=lambda band: pixels(band) * width * size,
            copied=self.is_copied,
            kept=self.keeps_sums,
            own_input=conv.is_depthwise,
            chunks=self.wanted,
        )
        found = work.cut()
        return found if found is not None else Cut(1, 1, 1)

    @property
    def others(self) -> int:
        """Tasks for each band."""
        return math.prod(axis.extent for axis in self.rows[:-1])

    @property
    def keeps_sums(self) -> bool:
        return False

    @property
    def depth_of_chunk(self) -> int:
        return self.cut.units if self.units > 1 else self.conv.depth.extent

    @property
    def chunks(self) -> int:
        return self.units // self.cut.units

    # -- tasks ------------------------------------------------------------------------------------

    @cached_property
    def counts(self) -> dict[Axis, int]:
        """How many tasks there are along each axis, the outermost loop first.

        Those over bands and over channels, whichever reads less, are inside.
        """
        conv, cut = self.conv, self.cut
        found = {conv.group: conv.group.extent}
        if not self.joins_batch:
            found[conv.batch] = conv.batch.extent
        found |= dict(zip(self.rows[:-1], self.others_of, strict=True))
        last = {
            self.band: -(-self.bands() // cut.rows),
            conv.channel: -(-self.tiling.columns.count // cut.panels),
        }
        pixels = math.prod(conv.source_shape[2:-1])
        if conv.channel.extent * math.prod(axis.extent for axis in self.part.taps) > pixels:
            last = dict(reversed(last.items()))
        return found | last

    @property
    def others_of(self) -> list[int]:
        """Tasks along each axis of rows but the last."""
        return [axis.extent for axis in self.rows[:-1]]
