"""What a gradient by a convolution's weight asks for before it is written.

The results of a task lie in many places, a short run of each output channel, and the lines that
stores miss come one after the other. So while the last pixels are multiplied, each tile asks for
its share of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..loops import ir
from ..loops.ir import Expr
from .tile import Span
from .weight_results import Starts

if TYPE_CHECKING:
    from .conv_weight import Task

_LINE = 64


def ask_ahead(
    task: Task, panel: tuple[Expr, int], boxes: Mapping[str, Sequence[Span]], start: Starts
) -> ir.Block:
    """Asks for the share of one tile.

    Arguments:
        task: whose results they are.
        panel: number of the panel of output channels, and how many are in it.
        boxes: all tiles of a panel.
        start: the first row of this one.
    """
    form, whole = task.form, task.whole
    number, columns = panel
    channel = task.start["k"] + number * form.panel
    if not form.spread:
        channel = channel + task.start["g"] * (whole.shape[0] // whole.op.groups)
    row, rows = task.start["c"] * (form.inner * form.taps), task.sums.shape[1]
    tile: Expr = ir.index(0)
    tiles = 1
    for name, spans in boxes.items():
        count = sum(span.count for span in spans)
        tile, tiles = tile * count + start[name] // spans[0].length, tiles * count
    found: ir.Block = ()
    for buffer, outer in whole.results.changed(whole.part(task.start)):
        elements = _LINE // buffer.dtype.size
        lines = rows // elements + 1  # of a channel, wherever they begin
        share = -(-lines * columns // tiles)
        for i in range(share):
            line = tile * share + i
            place = (channel + line // lines, row + line % lines * elements)
            found += (ir.Prefetch(buffer, (*outer, *place)),)
    return found
