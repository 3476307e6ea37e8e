"""What a task of a convolution in blocks of channels asks for before it is needed.

While a panel of weights is multiplied, the next one comes into the second-level cache, and so does
the input of the next task: in blocks of channels it lies in as many places as there are blocks,
which is more than processors follow by themselves. Each tile asks for its share. Smaller inputs are
in the caches of the core that wrote them, often another one: each tile asks for the next one's.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..loops import ir
from ..loops.ir import Buffer, Expr
from .contraction import Block, Place

if TYPE_CHECKING:
    from .blocked_task import Tasks

_LINE = 64
# Weights and inputs of fewer bytes stay in the first-level cache, and inputs of fewer in some
# second one; of half as many where parts of it are read in turn.
_NEAR = 32 * 1024
_FAR = 512 * 1024
# Cache lines that are asked for at most with one unit of input channels.
_MOST = 4


def ask_ahead(tasks: Tasks, tile: Block, panel: Expr, place: Place) -> ir.Block:
    """Asks for this tile's share of what comes next, in one unit of input channels.

    Arguments:
        tasks: the tasks.
        tile: the results.
        panel: which of the task's panels of weights it multiplies.
        place: the unit of input channels.
    """
    if tasks.conv.is_depthwise:
        return ()
    return (*_weights(tasks, tile, place), *_input(tasks, tile, panel, place))


def _ordinal(tasks: Tasks, tile: Block) -> tuple[Expr, int]:
    """Which of the tiles of a panel this one is, about, and how many there are."""
    line = tasks.line
    longest = tasks.spans(line)[0].length
    length = tasks.length(line, tasks.cut.rows)
    in_line = -(-length // longest)
    number: Expr = ir.index(0)
    for axis in tasks.rows:
        number = number * tasks.length(axis, tasks.cut.rows) + tile.start[axis]
    rows = math.prod(tasks.length(axis, tasks.cut.rows) for axis in tasks.rows)
    return number * in_line + tile.start[line] // longest, rows * in_line


def _weights(tasks: Tasks, tile: Block, place: Place) -> ir.Block:
    """The next panel: a unit of it while the same unit of this one is multiplied."""
    conv, part = tasks.conv, tasks.part
    weight = conv.binding.inputs.get(conv.weight)
    if weight is None or weight.nbytes < _NEAR:
        return ()
    step = _LINE // weight.dtype.size
    width = -(-weight.shape[-1] // step)
    taps = [axis.extent for axis in part.taps]
    number, tiles = _ordinal(tasks, tile)
    share = min(-(-conv.unit * math.prod(taps) * width // tiles), _MOST)
    first = tasks.origin[conv.channel] + tile.start[conv.channel]
    next_panel = first // part.form.panel + 1
    depth = (tasks.first_unit + place[conv.depth]) * conv.unit

    def ask(line: Expr) -> ir.Stmt:
        line, column = line // width, line % width
        kernel: list[Expr] = []
        for slide, count in zip(reversed(part.slides), reversed(taps), strict=True):
            kernel.insert(0, slide.kernel_place(line % count))
            line = line // count
        index = (tasks.origin[conv.group], next_panel, depth + line, *kernel, column * step)
        return ir.Prefetch(weight, index)

    return tuple(ask(number * share + i) for i in range(share))


def _input(tasks: Tasks, tile: Block, panel: Expr, place: Place) -> ir.Block:
    """The input of the next task, or the next chunk of this one's; if small, of the next tile."""
    conv = tasks.conv
    source = conv.binding.inputs.get(conv.source)
    if source is None or tasks.is_padded or tasks.joins_batch:
        return ()
    if source.nbytes < _NEAR or conv.unit != source.shape[-1]:
        return ()
    if source.nbytes * min(tasks.chunks, 2) < _FAR:
        return _next_tile(tasks, tile, place, source)
    number, tiles = _ordinal(tasks, tile)
    *outer, reach = tasks.reaches(tasks.cut.rows)
    pixels = reach.size * math.prod(each.size for each in outer)
    lines = -(-pixels * source.shape[-1] * source.dtype.size // _LINE)
    slots = tiles * tasks.cut.panels
    share = min(-(-lines // slots), _MOST)
    if not share:  # results that no tap reaches
        return ()
    slot = ir.minimum(panel * tiles + number, -(-lines // share) - 1)
    major = tasks.origin[conv.group] * conv.depth.extent + tasks.first_unit + place[conv.depth]
    starts = [
        slide.input_place(tasks.origin[axis], ir.index(0))
        for slide, axis in zip(tasks.part.slides, tasks.part.outputs, strict=True)
    ]
    if tasks.chunks > 1:
        major = major + tasks.cut.units
    else:
        banded = tasks.part.outputs.index(tasks.band)
        slide = tasks.part.slides[banded]
        starts[banded] = starts[banded] + slide.stride * tasks.length(tasks.band, tasks.cut.rows)
    index = (tasks.origin[conv.batch], major, *starts)
    step = _LINE // source.dtype.size
    return tuple(ir.Prefetch(source, (*index, (slot * share + i) * step)) for i in range(share))


def _next_tile(tasks: Tasks, tile: Block, place: Place, source: Buffer) -> ir.Block:
    """A unit of the pixels that the next tile of the line reads, if windows are single places."""
    conv, line = tasks.conv, tasks.line
    if any(axis.extent != 1 for axis in tasks.part.taps):
        return ()
    length, (*_, slide) = tile.length[line], tasks.part.slides
    step = _LINE // source.dtype.size
    lines = -(-length * slide.stride * source.shape[-1] // step)
    first = {axis: tasks.origin[axis] + tile.start[axis] for axis in tasks.part.outputs}
    first[line] = first[line] + length
    starts = [
        slide.input_place(first[axis], ir.index(0))
        for slide, axis in zip(tasks.part.slides, tasks.part.outputs, strict=True)
    ]
    major = tasks.origin[conv.group] * conv.depth.extent + tasks.first_unit + place[conv.depth]
    index = (tasks.origin[conv.batch], major, *starts)
    return tuple(ir.Prefetch(source, (*index, ir.index(i * step))) for i in range(lines))
