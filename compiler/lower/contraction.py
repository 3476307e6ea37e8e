"""Contractions: sums of products over some axes, computed in register tiles.

    result[outputs] = sum over `summed` of a[...] * b[...]

Convolution and its two transposes are one such sum, x * w * dy, of which each leaves out another
factor. What differs is which axes are summed, and which output axis lies in the lanes of vectors.

A tile is a block of results that stay in registers during the whole sum: some vectors along the
lane axis, times a box of the other output axes. The box is chosen by counting cycles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from typing import TypeAlias

from ..loops import ir
from ..loops.ir import Expr, LoopKind, ReduceOp, Space
from ..types import DType
from .binding import Binding
from .tile import VECTORS, Columns, Span, balanced, clear, panels

# What a core does in a cycle, and how many cycles a multiply-add takes, with one to spare.
_MULTIPLY_ADDS = 2
_LOADS = 2
_LATENCY = 5
# Cycles that a step costs beside, for counting and jumping: fewer, larger tiles are better.
_STEP = 0.5
# Cycles that a tile costs beside its sum and its stores.
_TILE = 20
# What must be gained by tiles of another size, each of which is more code to compile.
_VARIANT = 0.02


@dataclass(frozen=True)
class Axis:
    """An axis of a contraction; known by its name.

    Arguments:
        name: unique in its contraction.
        extent: number of places.
        most: longest block of it in a tile.
    """

    name: str
    extent: int
    most: int = 1 << 30


Place: TypeAlias = Mapping[Axis, Expr]


@dataclass(frozen=True)
class Factor:
    """One of the two factors.

    Arguments:
        axes: output axes along which it varies.
        cost: loads and shuffles that a vector of it takes.
    """

    axes: frozenset[Axis]
    cost: float = 1.0


@dataclass(frozen=True)
class Contraction:
    """A sum of products.

    Arguments:
        outputs: axes of the result.
        lane: the one among them that lies in the lanes of vectors.
        summed: the other axes, outermost loop first.
        factors: what is multiplied.
        lanes: of a vector.
        registers: how many vectors the machine holds.
        panel: width of the widest tile; some vectors by default.
        store: instructions that storing a vector takes.
    """

    outputs: tuple[Axis, ...]
    lane: Axis
    summed: tuple[Axis, ...]
    factors: tuple[Factor, Factor]
    lanes: int
    registers: int
    panel: int = 0
    store: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "panel", self.panel or VECTORS * self.lanes)

    @cached_property
    def depth(self) -> int:
        """Number of products in a sum."""
        return math.prod(axis.extent for axis in self.summed)

    @cached_property
    def rows(self) -> tuple[Axis, ...]:
        """The output axes that do not lie in lanes."""
        return tuple(axis for axis in self.outputs if axis is not self.lane)

    @cached_property
    def tilings(self) -> tuple[Tiling, ...]:
        """How the results are covered with tiles: one for each width along the lanes."""
        return tuple(_tiling(self, span) for span in panels(self.lane.extent, self.panel))

    @cached_property
    def cost(self) -> float:
        """Cycles for everything, as far as the inner loops tell."""
        return sum(tiling.cost for tiling in self.tilings)

    @property
    def size(self) -> str:
        """Rows and columns of the first tile."""
        if not self.tilings:
            return "of nothing"
        first = self.tilings[0]
        return f"{first.rows}x{self.whole(first.columns.length)}"

    def whole(self, width: int) -> int:
        """A width in whole vectors, if that is how wide panels are."""
        return width if self.panel % self.lanes else -(-width // self.lanes) * self.lanes

    def step(self, box: Mapping[Axis, int], vectors: int) -> float:
        """Cycles for one step of the sum in a tile."""
        loads = 0.0
        for factor in self.factors:
            count = math.prod(box[a] for a in factor.axes if a is not self.lane)
            loads += count * (vectors * factor.cost if self.lane in factor.axes else 1)
        adds = math.prod(box.values()) * vectors
        return max(adds / _MULTIPLY_ADDS, loads / _LOADS, _LATENCY) + _STEP

    def fits(self, box: Mapping[Axis, int], vectors: int) -> bool:
        """Whether accumulators, one factor's vectors, and one of the other fit the registers."""
        held, streamed = self.factors
        if self.lane in streamed.axes:
            held, streamed = streamed, held
        own = math.prod(box[a] for a in held.axes if a is not self.lane)
        rows = math.prod(box.values())
        live = vectors * (own if rows > own else 1)
        return rows * vectors + live + 1 <= self.registers


@dataclass(frozen=True)
class Tiling:
    """Blocks of each output axis: their products are tiles.

    Arguments:
        columns: blocks of the lane axis.
        blocks: of the other axes.
        cost: cycles for all tiles.
    """

    columns: Span
    blocks: Mapping[Axis, Sequence[Span]]
    cost: float

    @property
    def rows(self) -> int:
        """Of the largest tile."""
        return math.prod(spans[0].length if spans else 0 for spans in self.blocks.values())


@lru_cache(maxsize=4096)
def _tiling(form: Contraction, columns: Span) -> Tiling:
    """The box with the fewest cycles; among equals, the one that is longest along the last axes."""
    vectors = -(-columns.length // form.lanes)
    best: Tiling | None = None
    for lengths in _boxes([_lengths(axis, form.registers) for axis in form.rows], form.registers):
        if not form.fits(dict(zip(form.rows, lengths, strict=True)), vectors):
            continue
        blocks = {a: balanced(a.extent, n) for a, n in zip(form.rows, lengths, strict=True)}
        cost = 0.0
        for spans in product(*blocks.values()):
            box = {a: s.length for a, s in zip(form.rows, spans, strict=True)}
            cycles = form.depth * form.step(box, vectors) + _TILE
            cycles += math.prod(box.values()) * vectors * form.store
            cost += cycles * math.prod(s.count for s in spans)
        variants = math.prod(map(len, blocks.values()))
        cost *= columns.count * (1 + _VARIANT * (variants - 1))
        if best is None or cost < best.cost:
            best = Tiling(columns, blocks, cost)
    assert best is not None
    return best


def _lengths(axis: Axis, most: int) -> list[int]:
    """Block lengths that differ in how many blocks there are, the longest first."""
    if axis.extent == 0:
        return [1]
    counts = (-(-axis.extent // n) for n in range(1, min(axis.extent, axis.most, most) + 1))
    return sorted({-(-axis.extent // count) for count in counts}, reverse=True)


def _boxes(lengths: Sequence[Sequence[int]], most: int) -> Iterator[tuple[int, ...]]:
    """One length of each, with a product of at most `most`; the last ones longest first."""
    if not lengths:
        yield ()
        return
    for n in lengths[-1]:
        if n <= most:
            for rest in _boxes(lengths[:-1], most // n):
                yield (*rest, n)


def vector_cost(stride: int, lanes: int) -> float:
    """Loads and shuffles that a vector takes whose elements are `stride` apart."""
    return {1: 1.0, 2: 3.0}.get(abs(stride), 2.0 * lanes)


# -- loops ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A block of places.

    Arguments:
        start: the first place along each axis.
        length: number of places along each axis.
    """

    start: Place
    length: Mapping[Axis, int]

    def __or__(self, other: Block) -> Block:
        return Block({**self.start, **other.start}, {**self.length, **other.length})


def over_blocks(
    binding: Binding,
    spans: Mapping[Axis, Sequence[Span]],
    body: Callable[[Block], ir.Block],
    kind: LoopKind = LoopKind.SERIAL,
    origin: Place | None = None,
) -> ir.Block:
    """Loops over the blocks of some axes, the first axis outermost.

    Each combination of block lengths is a nest of its own.

    Arguments:
        binding: the group.
        spans: the blocks of each axis.
        body: what is done with a block.
        kind: of the loops.
        origin: what the spans are counted from, where that is not 0.
    """
    result: ir.Block = ()
    for combination in product(*spans.values()):
        loops: list[tuple[ir.Var, int]] = []
        start: dict[Axis, Expr] = {}
        for axis, span in zip(spans, combination, strict=True):
            var = binding.var(axis.name)
            loops.append((var, span.count))
            start[axis] = (origin or {}).get(axis, ir.index(0)) + (var * span.length + span.start)
        length = {a: s.length for a, s in zip(spans, combination, strict=True)}
        result += ir.loop_nest(tuple(loops), body(Block(start, length)), kind)
    return result


def register_tile(
    binding: Binding,
    form: Contraction,
    dtype: DType,
    tile: Block,
    multiply: Callable[[Place], Expr],
    write: Callable[[Expr, Place], ir.Block],
    summed: Mapping[Axis, tuple[Expr, int]] | None = None,
    exact: bool = False,
    stored: int = 0,
    ahead: Callable[[Place], ir.Block] | None = None,
) -> ir.Block:
    """The results of one tile.

    Arguments:
        binding: the group.
        form: the contraction.
        dtype: of the result.
        tile: which results.
        multiply: the product at a place along all axes.
        write: what is done with a result, given its place.
        summed: start and length along summed axes that are not summed as a whole.
        exact: whether factors may not be asked for beyond the tile, to fill the last vector.
        stored: lanes in which results are written, if they are fewer than the form's.
        ahead: what is done at each place of the outermost summed axis, besides.
    """
    lane = binding.var("v")
    loops, number, place = _rows(binding, form, tile)
    count, width = math.prod(extent for _, extent in loops), tile.length[form.lane]
    computed = Columns(width if exact else form.whole(width), form.lanes, dtype)
    results = Columns(width, stored or form.lanes, dtype)
    sums = binding.local("tile", (count, computed.width), dtype, Space.REGISTER)

    def at(column: int) -> Place:
        return {**place, form.lane: place[form.lane] + (lane + column)}

    steps, where = _steps(binding, form.summed, summed or {})
    add: dict[int, ir.Block] = {}
    for c, _ in computed.parts:
        x = multiply({**at(c), **where})
        add[c] = (ir.Accumulate(sums, (number, lane + c), ReduceOp.ADD, x),)
    step = ir.loop_nest(loops, computed.each(lane, add), LoopKind.UNROLLED)
    for inner in reversed(steps[1:]):
        step = ir.loop_nest(inner, step)
    if ahead is not None:
        step = (*ahead({**place, **where}), *step)
    finish = {c: write(ir.Load(sums, (number, lane + c)), at(c)) for c, _ in results.parts}
    return (
        *clear(sums, count, computed, binding.var("m"), lane),
        *ir.loop_nest(steps[0] if steps else (), step),
        *ir.loop_nest(loops, results.each(lane, finish), LoopKind.UNROLLED),
    )


def _rows(binding: Binding, form: Contraction, tile: Block) -> tuple[ir.Loops, Expr, Place]:
    """The loops over a tile's rows, the number of a row, and its place."""
    rows = [(axis, binding.var(axis.name)) for axis in form.rows if tile.length[axis] > 1]
    loops = tuple((var, tile.length[axis]) for axis, var in rows)
    number: Expr = ir.index(0)
    for var, extent in loops:
        number = number * extent + var
    place = {axis: tile.start[axis] for axis in form.outputs}
    for axis, var in rows:
        place[axis] = place[axis] + var
    return loops, number, place


def _steps(
    binding: Binding, axes: Sequence[Axis], spans: Mapping[Axis, tuple[Expr, int]]
) -> tuple[list[ir.Loops], Place]:
    """The loops over summed axes, and the place of a step; `spans` as `summed` of a tile."""
    steps: list[ir.Loops] = []
    place: dict[Axis, Expr] = {}
    for axis in axes:
        start, length = spans.get(axis, (ir.index(0), axis.extent))
        number, loop = binding.loop(axis.name, length)
        steps.append(loop)
        place[axis] = start + number
    return steps, place
