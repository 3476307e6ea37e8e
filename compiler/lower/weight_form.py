"""How the gradient by a convolution's weight is cut into tasks and register tiles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import product

from ..types import Shape
from .slide import Slide
from .tile import Span, balanced, panels
from .window_copy import Reach

# Pixels whose products are summed in registers.
_TERMS = 256
# Input channels times taps of a task, and bytes of its sums and of what it reads of x at a time.
_ROWS = 160
_SUMS = 64 * 1024
_BAND = 64 * 1024
# So many tasks keep all threads busy, if there are this many multiply-adds; and pixels of a task
# that are worth sums of their own.
_TASKS = 64
_WORK = 1 << 20
_PIXELS = 1024
# What a core does in a cycle, and how many cycles a multiply-add takes.
_MULTIPLY_ADDS = 2
_LOADS = 2
_LATENCY = 4
# Bytes of the first-level cache, and how many come into it in a cycle.
_NEAR = 32 * 1024
_COMING = 32
# Cycles of a tile beside its products, and what must be gained by tiles of another size, each of
# which is more code to compile.
_TILE = 20
_VARIANT = 0.01
_VECTORS = 4


@dataclass(frozen=True)
class Form:
    """Sizes of everything.

    Arguments:
        outputs: output channels that a task's lanes run over: of a group, or all if `spread`.
        blocks: blocks of input channels of a group.
        inner: channels in such a block.
        kernel: taps along each spatial axis.
        spread: whether the lanes of a vector belong to several groups.
        lanes: of a vector.
        machine: what tiles depend on.
        vectors: in a panel of output channels.
        columns: output channels in a task.
        task_blocks: blocks of input channels in a task.
        pixels: extents of the batch `n` and the axes of dy, `p0`, `p1` …
        block: how many of each are summed at a time.
        chunks: how these are cut for tasks.
        in_place, dy_in_place: whether x and dy are read where they are.
    """

    outputs: int
    blocks: int
    inner: int
    kernel: Shape
    spread: bool
    lanes: int
    machine: _Panel
    vectors: int
    columns: int
    task_blocks: int
    pixels: Mapping[str, int]
    block: Mapping[str, int]
    chunks: Mapping[str, Sequence[Span]]
    in_place: bool
    dy_in_place: bool

    @property
    def taps(self) -> int:
        return math.prod(self.kernel)

    @property
    def panel(self) -> int:
        """Output channels in a panel."""
        return self.vectors * self.lanes

    @cached_property
    def lane_spans(self) -> list[Span]:
        """Output channels of the tasks."""
        return panels(self.outputs, self.columns)

    @cached_property
    def channel_spans(self) -> list[Span]:
        """Blocks of input channels of the tasks."""
        return balanced(self.blocks, self.task_blocks)

    @property
    def parts(self) -> int:
        """Sums for each result, of different pixels."""
        return math.prod(sum(s.count for s in spans) for spans in self.chunks.values())

    @property
    def note(self) -> str:
        box, _ = _box((self.task_blocks, self.inner, *self.kernel), self._machine(self.vectors))
        way = "lanes of several groups" if self.spread else "channels"
        return f"direct {math.prod(box)}x{self.panel}, {way}"

    def boxes(self, blocks: int, vectors: int) -> dict[str, list[Span]]:
        """Tiles of a panel: blocks `c`, channels in a block `i`, and taps `tp0`, `tp1` …"""
        extents = (blocks, self.inner, *self.kernel)
        box, _ = _box(extents, self._machine(vectors))
        names = ("c", "i", *(f"t{name}" for name in self.pixels if name != "n"))
        return {
            name: balanced(extent, length)
            for name, extent, length in zip(names, extents, box, strict=True)
        }

    def _machine(self, vectors: int) -> _Panel:
        return replace(self.machine, vectors=vectors)


@dataclass(frozen=True)
class _Panel:
    """What the cost of a tile depends on, beside its rows.

    Arguments:
        vectors: of dy.
        registers: how many vectors the machine holds.
        spread: whether each row has vectors of x.
        terms: pixels.
        dy, x: bytes of a vector of dy, and of a block of input channels of x, for all pixels.
    """

    vectors: int
    registers: int
    spread: bool
    terms: int
    dy: int
    x: int

    @property
    def most_rows(self) -> int:
        """Accumulators, the vectors of dy, and one of x."""
        return max(1, (self.registers - self.vectors - 1) // self.vectors)

    def cycles(self, rows: int, blocks: int) -> float:
        """Of a tile, whose rows are of so many blocks of input channels.

        The panel of dy remains in the first-level cache from tile to tile if there is room.
        """
        products = rows * self.vectors
        loads = self.vectors + (products if self.spread else rows)
        step = max(products / _MULTIPLY_ADDS, loads / _LOADS, _LATENCY)
        panel, coming = self.vectors * self.dy, blocks * self.x
        coming += panel if panel + coming > _NEAR else 0
        return max(max(self.terms, 1) * step, coming / _COMING) + _TILE + 3 * products / _LOADS


@lru_cache(maxsize=4096)
def _box(extents: Shape, panel: _Panel) -> tuple[Shape, float]:
    """The box of rows with the fewest cycles for all rows, and these.

    Among equals it is the one that is longest along the last axes.
    """
    best: tuple[Shape, float] | None = None
    for lengths in product(*(_lengths(n, panel.most_rows) for n in reversed(extents))):
        if math.prod(lengths) > panel.most_rows:
            continue
        box = lengths[::-1]
        spans = [balanced(n, length) for n, length in zip(extents, box, strict=True)]
        cost = sum(
            math.prod(s.count for s in each)
            * panel.cycles(math.prod(s.length for s in each), each[0].length)
            for each in product(*spans)
        )
        cost *= 1 + _VARIANT * (math.prod(map(len, spans)) - 1)
        if best is None or cost < best[1]:
            best = box, cost
    assert best is not None
    return best


def _lengths(extent: int, most: int) -> list[int]:
    """Block lengths that differ in how many blocks there are, the longest first."""
    lengths = {-(-extent // -(-extent // n)) for n in range(1, min(extent, most) + 1)}
    return sorted(lengths, reverse=True) or [1]


def weight_form(
    outputs: int,
    inputs: int,
    groups: int,
    samples: int,
    slides: Sequence[Slide],
    blocks: tuple[int | None, int | None],
    lanes: int,
    registers: int,
    size: int,
) -> Form:
    """The sizes for a convolution of `inputs` channels to `outputs`.

    Arguments:
        slides: of the windows, one a spatial axis.
        blocks: channels in a block of x and of dy; None of plain values.
        lanes, registers: of the machine.
        size: bytes of a number.
    """
    depth, columns = inputs // groups, outputs // groups
    x_block, dy_block = blocks
    shared = math.gcd(outputs, lanes)
    spread = groups > 1 and columns < shared and shared % columns == 0 and shared >= 4
    if spread:
        lanes, columns = shared, outputs
    inner = 1 if spread else math.gcd(x_block or 1, depth)
    dense = all((s.stride, s.taps, s.first) == (1, 1, 0) for s in slides)
    kernel = tuple(s.taps for s in slides)
    pixels = {"n": samples, **{f"p{i}": s.count for i, s in enumerate(slides)}}
    count = depth // inner if depth else 0
    task_blocks = _even(count, max(1, _ROWS // (inner * math.prod(kernel))))
    read_at_once = (lanes if spread else inner) * size
    task_blocks, block, read = _pixel_blocks(pixels, slides, task_blocks, read_at_once)
    limit = max(lanes, _SUMS // (size * max(1, task_blocks) * inner * math.prod(kernel)))
    rows = (task_blocks, inner, *kernel)
    terms = math.prod(block.values())
    machine = _Panel(1, registers, spread, terms, terms * lanes * size, read)
    vectors, columns_of_task = _columns(columns, lanes, lanes if spread else limit, rows, machine)
    tasks = (1 if spread else groups) * -(-count // max(task_blocks, 1))
    tasks *= -(-columns // columns_of_task)
    work = outputs * depth * math.prod(kernel) * math.prod(pixels.values())
    return Form(
        outputs=columns,
        blocks=count,
        inner=inner,
        kernel=kernel,
        spread=spread,
        lanes=lanes,
        machine=machine,
        vectors=vectors,
        columns=columns_of_task,
        task_blocks=task_blocks,
        pixels=pixels,
        block=block,
        chunks=_chunks(pixels, tasks) if work >= _WORK else {},
        in_place=dense and not spread and x_block is not None and depth % x_block == 0,
        dy_in_place=dy_block is not None and dy_block % lanes == 0 and columns % lanes == 0,
    )


def _even(extent: int, most: int) -> int:
    """The length of equal blocks."""
    return balanced(extent, min(most, extent))[0].length if extent else 1


def _pixel_blocks(
    pixels: Mapping[str, int], slides: Sequence[Slide], blocks: int, width: int
) -> tuple[int, dict[str, int], int]:
    """Blocks of input channels of a task, pixels at a time, so that what they read of x fits, and
    how many bytes that are for a block of channels.

    Arguments:
        pixels: extents.
        slides: of the windows.
        blocks: of input channels; at most so many.
        width: bytes that are read of each block and place.
    """
    room = _TERMS
    while True:
        block: dict[str, int] = {}
        left = room
        for name, extent in reversed(list(pixels.items())):
            block[name] = _even(extent, max(left, 1))
            left //= max(block[name], 1)
        lengths = list(block.values())
        reads = [Reach(s, 0, n).size for s, n in zip(reversed(slides), lengths, strict=False)]
        size = width * math.prod(reads) * block["n"]
        if size * blocks <= _BAND or (room == 1 and blocks == 1):
            return blocks, dict(reversed(block.items())), size
        if blocks > 1:
            blocks -= 1
        else:
            room //= 2


def _columns(extent: int, lanes: int, limit: int, rows: Shape, machine: _Panel) -> tuple[int, int]:
    """Vectors in a panel and output channels in a task."""
    best: tuple[float, int, int] | None = None
    for vectors in range(min(_VECTORS, -(-extent // lanes)), 0, -1):
        panel = vectors * lanes
        if panel > limit:
            continue
        least = -(-extent // limit)
        for tasks in range(least, 2 * least + 1):
            columns = panel * math.ceil(extent / tasks / panel)
            if columns > limit:
                continue
            cost = 0.0
            for task in panels(extent, columns):
                for part in panels(task.length, panel):
                    width = replace(machine, vectors=-(-part.length // lanes))
                    cost += task.count * part.count * _box(rows, width)[1]
            if best is None or cost < best[0]:
                best = cost, vectors, columns
    return best[1:] if best else (1, lanes)


def _chunks(pixels: Mapping[str, int], tasks: int) -> dict[str, list[Span]]:
    """How samples, and rows of pixels where there are few, are shared out among tasks."""
    wanted = min(-(-_TASKS // tasks), math.prod(pixels.values()) // _PIXELS)
    chunks: dict[str, list[Span]] = {}
    for name in ("n", "p0"):
        if wanted > 1:
            parts = _parts(pixels[name], wanted)
            chunks[name] = balanced(pixels[name], -(-pixels[name] // parts))
            wanted = -(-wanted // sum(span.count for span in chunks[name]))
    return chunks


def _parts(extent: int, wanted: int) -> int:
    """A number of parts, equal ones if that is possible with not too many."""
    equal = [n for n in range(wanted, 2 * wanted) if extent % n == 0]
    return min(equal[0] if equal else wanted, extent)
