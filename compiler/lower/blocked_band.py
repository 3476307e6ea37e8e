"""What a task of a convolution in blocks of channels reads: a band of the input, or a copy of it.

Where windows leave the input, the copy has zeros; what the kernel computes its input from is
computed when it is copied.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from ..loops import ir
from ..loops.ir import Buffer, Expr, LoopKind, Space
from .block_index import divided
from .contraction import Place
from .window_copy import Reach, Run, WindowCopy

if TYPE_CHECKING:
    from .blocked_task import Tasks


@dataclass(frozen=True)
class _Overhanging(Reach):
    """A reach that is checked to be inside."""

    @property
    def is_inside(self) -> bool:
        return False


@dataclass
class Band:
    """The input of a task.

    Arguments:
        tasks: that read it.
    """

    tasks: Tasks

    @cached_property
    def buffer(self) -> Buffer | None:
        """The copy, with zeros around, if there is one: [block][*places][channel]."""
        if not self.tasks.is_copied:
            return None
        places = (reach.size for reach in self.tasks.reaches(self.tasks.cut.rows))
        shape = (self.blocks[1], *places, self.tasks.conv.source_shape[-1])
        return self.tasks.conv.binding.local("band", shape, self.tasks.conv.dtype, Space.STACK)

    @cached_property
    def blocks(self) -> tuple[Expr, int]:
        """The first block of channels that a task reads at a time, and how many it reads."""
        tasks, conv = self.tasks, self.tasks.conv
        block, total = conv.source_shape[-1], conv.source_shape[1]
        if conv.is_depthwise:
            first, count = tasks.origin[conv.channel], tasks.cut.panels * tasks.part.form.panel
        else:
            first = tasks.origin[conv.group] * conv.channels + tasks.first_unit * conv.unit
            count = conv.channels if tasks.units == 1 else tasks.cut.units * conv.unit
        aligned = conv.channels % block == 0 or block % conv.channels == 0
        blocks = -(-count // block) + (not (aligned or conv.is_depthwise))
        if blocks >= total:
            return ir.index(0), total
        start, _ = divided(first, block)
        if conv.is_depthwise or not aligned:
            start = ir.minimum(start, total - blocks)
        return start, blocks

    def copy(self) -> ir.Block:
        """Fills the band."""
        band, tasks, conv = self.buffer, self.tasks, self.tasks.conv
        if band is None:
            return ()
        binding, channels = conv.binding, conv.source_shape[-1]
        first, count = self.blocks
        zero: Expr = ir.Const(0.0, band.dtype)
        block = binding.var("b")

        def fill(rows: list[tuple[Expr, Expr]], run: Run, inside: bool) -> ir.Block:
            column, lane = binding.var("i"), binding.var("v")
            to, start = run.place(column)
            elements, x = binding.elements(), zero
            if inside:
                sample = tasks.origin[conv.batch]
                index = (sample, first + block, *(s for _, s in rows), start, lane)
                x = elements.at(conv.source, index)
            store = ir.Store(band, (block, *(p for p, _ in rows), to, lane), x)
            wide = channels > 1
            loops = [(column, run.length, not wide), (lane, channels, wide)]
            body: ir.Block = (*elements.take_block(), store)
            for var, extent, vector in reversed(loops):
                kind = LoopKind.VECTOR if vector else LoopKind.SERIAL
                body = (ir.For(var, extent, body, kind, conv.lanes if vector else 1),)
            return body

        writer = WindowCopy(
            self._reaches(),
            lambda rows, run: fill(list(rows), run, True),
            lambda rows, run: fill(list(rows), run, False),
            binding.var,
        )
        body = writer.write([tasks.origin[axis] for axis in tasks.part.outputs])
        return (ir.For(block, count, body),)

    def read(self, place: Place, major: Expr, minor: Expr) -> Expr:
        """The input that a tap of a result reads."""
        tasks, conv, part = self.tasks, self.tasks.conv, self.tasks.part
        outputs, taps = part.outputs, part.taps
        if self.buffer is not None:
            reaches = tasks.reaches(tasks.cut.rows)
            places = tuple(
                reach.place(place[o], place[t])
                for reach, o, t in zip(reaches, outputs, taps, strict=True)
            )
            return ir.Load(self.buffer, (major - self.blocks[0], *places, minor))
        scalar = conv.binding.elements().scalar(conv.source)
        if scalar is not None:
            return scalar
        there = tasks.absolute(place)
        places = tuple(
            slide.input_place(there[o], place[t])
            for slide, o, t in zip(part.slides, outputs, taps, strict=True)
        )
        source = conv.binding.inputs[conv.source]
        return ir.Load(source, (there[conv.batch], major, *places, minor))

    def _reaches(self) -> list[Reach]:
        """What is copied; tasks may lie beyond the result."""
        tasks = self.tasks
        return [
            _Overhanging(r.slide, r.extent, r.length) if tasks.overhangs(axis) else r
            for r, axis in zip(tasks.reaches(tasks.cut.rows), tasks.part.outputs, strict=True)
        ]
