"""Which algorithm computes a convolution, and in blocks of which size: counted, not measured.

Costs are cycles of one core: what its instructions take and what its weights take that come from
memory. The shorter of the two is hidden behind the longer one but for a part. In a network weights
are cold: between two runs of a layer come all the others.

The numbers below were fitted to layers of VGG, ResNet and GoogLeNet with 64 to 512 channels on a
core with AVX2; they are ratios that change little between processors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from .llvm.target import Target
from .types import DType, Shape

# What a core does in a cycle at most, and how near inner loops come to it.
MULTIPLY_ADDS = 2
LOADS = 2
LATENCY = 4
EFFICIENCY = 0.88
# Cycles that a register tile costs beside its sum.
TILE = 20
# Bytes that a core gets from memory in a cycle when all cores ask.
COLD_BYTES = 5.0
# The part of the shorter one of work and waiting for memory that is not hidden.
NOT_HIDDEN = 0.25
# What one core has to itself: the least that is usual.
L2_BYTES = 512 * 1024

# Cycles that transforming a tile takes for a vector of channels, by its outputs and the taps of the
# weight along an axis: of the inputs, of the results, and of the weights.
_INPUTS = {(2, 3): 60, (4, 3): 150, (2, 5): 150}
_RESULTS = {(2, 3): 40, (4, 3): 100, (2, 5): 60}
_WEIGHTS = {(2, 3): 95, (4, 3): 210, (2, 5): 330}

# The same for a pair of pixels in Strassen's algorithm, which has so many products of quarters.
_PAIR_INPUTS = 10
_PAIR_RESULTS = 14
_PAIR_PRODUCTS = 7

# Transformed inputs of all tiles that are kept at the same time at most.
_APART_BYTES = 8 << 20
_SLOTS_BYTES = 32 << 20
_FEW_TILES = 18
_MANY_TILES = 48
# The part of all work that may be in vain for less code.
_WASTE = 0.03
# Weights that stay in cache while one block of tiles after the other meets them all.
_NEAR_BYTES = 4 << 20
# Products that wait on the stack for being transformed.
_PRODUCTS_BYTES = 128 * 1024
# So many tasks keep all threads busy; a multiple of this number is shared out fairly.
_TASKS = 16
_FAIR = 4


class Algorithm(Enum):
    """How a convolution of stride 1 is computed."""

    DIRECT = "direct"
    F2 = "winograd 2x2"
    F4 = "winograd 4x4"
    STRASSEN = "strassen"

    @property
    def tile(self) -> int:
        """Outputs along an axis of a tile of Winograd's; 0 for the others."""
        return {Algorithm.F2: 2, Algorithm.F4: 4}.get(self, 0)


@dataclass(frozen=True)
class SquareConvolution:
    """What is computed.

    Arguments:
        batch, depth, channels, height, width: images, input and output channels, outputs down and
            across.
        prepared: whether the weight is transformed before a run.
        taps: places of the weight along each axis.
    """

    batch: int
    depth: int
    channels: int
    height: int
    width: int
    prepared: bool = True
    taps: int = 3

    @property
    def algorithms(self) -> tuple[Algorithm, ...]:
        """Those that there are."""
        if self.taps == 1:
            return (Algorithm.DIRECT, Algorithm.STRASSEN)
        winograds = (a for a in Algorithm if (a.tile, self.taps) in _INPUTS)
        return (Algorithm.DIRECT, *winograds)

    def tiles(self, size: int) -> int:
        """Tiles of the whole batch."""
        return self.batch * -(-self.height // size) * -(-self.width // size)


@dataclass(frozen=True)
class Blocking:
    """How much of a Winograd convolution is done at a time.

    Arguments:
        tiles: tiles in a block.
        blocks: number of blocks.
        repeats: blocks of tiles that a task takes one after the other.
        fused: whether each task does all steps; else all inputs are transformed first.
        panels_first: whether all blocks meet a panel of weights before the next panel, where inputs
            are transformed first. Otherwise a thread mostly reads what it has transformed itself.
        near: whether the transformed inputs of a task are on its stack, the same memory for all
            tasks of a thread. Otherwise each has a place of its own.
    """

    tiles: int
    blocks: int
    repeats: int = 1
    fused: bool = True
    panels_first: bool = False
    near: bool = False

    @property
    def slots(self) -> int:
        """Blocks of tiles whose transformed inputs are there at the same time."""
        return -(-self.blocks // self.repeats)


# What is fastest on a target, in that dtype.
Choice: TypeAlias = Callable[[Target, DType, SquareConvolution], Algorithm]


def cheapest(target: Target, dtype: DType, conv: SquareConvolution) -> Algorithm:
    """The algorithm with the fewest cycles."""
    return min(conv.algorithms, key=lambda algorithm: cycles(target, dtype, conv, algorithm))


def cycles(target: Target, dtype: DType, conv: SquareConvolution, algorithm: Algorithm) -> float:
    """What a convolution takes on one core."""
    lanes, pairs = target.lanes(dtype), conv.depth * conv.channels
    if algorithm is Algorithm.DIRECT:
        outputs = conv.batch * conv.height * conv.width
        work = outputs * conv.taps**2 * pairs / (MULTIPLY_ADDS * lanes * EFFICIENCY)
        return _together(work, conv.taps**2 * pairs * dtype.size)
    if algorithm is Algorithm.STRASSEN:
        return _strassen_cycles(target, dtype, conv)
    size, kind = algorithm.tile, (algorithm.tile, conv.taps)
    places, tiles = (size + conv.taps - 1) ** 2, conv.tiles(size)
    deep, wide = -(-conv.depth // lanes), -(-conv.channels // lanes)
    panel = winograd_panel(target, dtype, conv.channels)
    panels = -(-conv.channels // panel)
    products = places * panels * _products(target, conv.depth, tiles, panel // lanes) / EFFICIENCY
    transforms = tiles * (deep * _INPUTS[kind] + wide * _RESULTS[kind])
    weight = places * pairs * dtype.size
    total = _together(products + transforms, weight)
    if not conv.prepared:
        total += _together(conv.depth * wide * _WEIGHTS[kind], 2 * weight)
    return total


def _strassen_cycles(target: Target, dtype: DType, conv: SquareConvolution) -> float:
    """What a 1x1 convolution takes in halves of pixels and channels."""
    lanes = target.lanes(dtype)
    tiles = conv.batch * -(-conv.height * conv.width // 2)
    deep, wide = conv.depth // 2, conv.channels // 2
    panel = winograd_panel(target, dtype, wide)
    products = -(-wide // panel) * _products(target, deep, tiles, panel // lanes) / EFFICIENCY
    sums = tiles * (deep * _PAIR_INPUTS + wide * _PAIR_RESULTS) / lanes
    return _together(_PAIR_PRODUCTS * products + sums, _PAIR_PRODUCTS * deep * wide * dtype.size)


def _together(work: float, nbytes: float) -> float:
    """Work and memory at the same time."""
    waiting = nbytes / COLD_BYTES
    return max(work, waiting) + NOT_HIDDEN * min(work, waiting)


def _products(target: Target, depth: int, tiles: int, vectors: int) -> float:
    """Cycles for so many vectors of output channels at one place of all tiles."""
    rows = tiles / -(-tiles // _most_rows(target, vectors))
    step = max(rows * vectors / MULTIPLY_ADDS, (rows + vectors) / LOADS, LATENCY)
    return tiles / rows * (depth * step + TILE)


def _most_rows(target: Target, vectors: int) -> int:
    """Rows of a register tile: rows * vectors sums, a row of vectors, and one number."""
    return max(1, (target.registers - vectors - 1) // vectors)


def bypasses_caches(target: Target, nbytes: int, between: float) -> bool:
    """Whether a result had better be written past the caches.

    An ordinary store reads its line from memory before it changes it: a third of the traffic where
    every element is read and written once. That pays if somebody finds the line in a cache later.
    Nobody does when more has passed through the last level by then than it holds.

    Arguments:
        target: the machine.
        nbytes: of the result.
        between: bytes that are read and written between an element's store and its next load.
    """
    return nbytes >= L2_BYTES and between >= target.cache_bytes


def winograd_panel(target: Target, dtype: DType, channels: int) -> int:
    """Output channels side by side in the weight: two vectors, or three if less is left over."""
    lanes = target.lanes(dtype)
    return min((2 * lanes, 3 * lanes), key=lambda panel: -(-channels // panel) * panel)


def winograd_blocking(
    target: Target, dtype: DType, conv: SquareConvolution, tile: int, panel: int
) -> Blocking:
    """Blocks of tiles.

    The more tiles are done at a time, the less often are weights read. But what is transformed
    should stay in the second-level cache: half of it is for the inputs of a block, or three
    quarters. Where that is room for a few tiles only, many tiles in the third level are better.

    Arguments:
        target, dtype: what the kernel is for.
        conv: the convolution.
        tile: outputs along an axis of a tile.
        panel: output channels side by side in the weight.
    """
    places, tiles = (tile + conv.taps - 1) ** 2, conv.tiles(tile)
    return _blocking(target, dtype, (places, tiles, conv.depth, conv.channels), panel)


def strassen_blocking(
    target: Target, dtype: DType, pairs: int, weight: Shape, panel: int
) -> Blocking:
    """Blocks of pairs of pixels in Strassen's algorithm, as of tiles in Winograd's."""
    channels, depth = weight[:2]
    return _blocking(target, dtype, (_PAIR_PRODUCTS, pairs, depth // 2, channels // 2), panel)


def _blocking(
    target: Target, dtype: DType, products: tuple[int, int, int, int], panel: int
) -> Blocking:
    """Blocks of so many places, tiles, input and output channels."""
    (places, tiles, depth, channels), size = products, dtype.size
    fit = L2_BYTES // (places * depth * size)
    on_stack = _PRODUCTS_BYTES // (places * panel * size)
    most = min(max(fit // 2, _FEW_TILES) if fit * 3 // 4 >= _FEW_TILES else _MANY_TILES, on_stack)
    rows = _most_rows(target, -(-panel // target.lanes(dtype)))
    block = _block(tiles, max(1, most), rows)
    blocks = -(-tiles // block)
    slot = places * depth * block * size
    near = blocks >= _TASKS and slot <= L2_BYTES
    fused = near or (blocks >= _TASKS and slot * blocks > _APART_BYTES)
    apart = fused and not near
    tasks = max(_TASKS // 2, min(2 * _TASKS, _SLOTS_BYTES // slot)) if apart else blocks
    repeats = -(-blocks // min(tasks, blocks))
    far = places * depth * channels * size > _NEAR_BYTES
    return Blocking(block, blocks, repeats, fused, far, near)


def _block(tiles: int, most: int, rows: int) -> int:
    """Tiles in a block: where it costs little, so many that all register tiles are equally high.

    Each height is code of its own.
    """
    blocks = -(-tiles // most)
    if blocks >= _TASKS:
        blocks = -(-blocks // _FAIR) * _FAIR
    even = -(-tiles // blocks)
    for block in range(min(most, tiles + 1), even * 3 // 4, -1):
        wasted = -(-tiles // block) * block - tiles
        if block % -(-block // rows) == 0 and wasted <= _WASTE * tiles:
            return block
    return even
