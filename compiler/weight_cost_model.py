"""What gradients by 3x3 and 5x5 weights cost by Winograd's algorithm, and in which blocks.

Costs are cycles of one core, as in `cost_model.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product

from .cost_model import EFFICIENCY, LATENCY, LOADS, MULTIPLY_ADDS, TILE
from .llvm.target import Target
from .ops.toom_cook import TAPS
from .ops.winograd_gradient import tiles as tiles_of
from .types import DType

# Cycles that transforming a tile takes, by the places along an axis when it is transformed, for a
# vector of channels: of x, of dy, and of the sums of a pair of channels.
_TILE_OF_X = {4: 60, 6: 150}
_TILE_OF_DY = {4: 45, 6: 110}
_SUMS = {4: 50, 6: 110}
# What a task reads and writes again and again: a little more than the smallest second-level caches.
_BYTES = 768 * 1024
# Pixels below which all products of a direct sum may well be zeros: in few of them neither x nor dy
# is zero. Winograd's algorithm gives a rounding error there, which an optimizer like Adam makes a
# whole step of.
_FEWEST = 768
# Products that are summed one by one: of more, the last ones would lose digits.
_TERMS = 28
# Cycles that adding a vector of a register tile to its sums takes, and a tile's blocks of channels.
_ADD = 1.5
_WIDEST = 64
# So many tasks, of at least so many blocks of tiles.
_WEIGHT_TASKS = 32
_BLOCKS = 4


@dataclass(frozen=True)
class WeightBlocking:
    """How much of a gradient by a weight is done at a time by Winograd's algorithm.

    Arguments:
        depth, channels: input and output channels of a task.
        rows, vectors: input channels and vectors of output channels of a register tile.
        tiles: tiles in a block.
        repeats: blocks of tiles of a task.
        parts: tasks for the same channels.
        cycles: of one core for everything.
    """

    depth: int
    channels: int
    rows: int
    vectors: int
    tiles: int
    repeats: int
    parts: int
    cycles: float


@cache
def weight_blocking(
    target: Target,
    dtype: DType,
    tile: tuple[int, int],
    tiles: int,
    pairs: tuple[int, int],
    block: int,
) -> WeightBlocking:
    """The blocks with the fewest cycles among those that stay in cache.

    Arguments:
        tile: outputs along an axis of a tile, and taps.
        tiles: of the whole batch.
        pairs: input and output channels.
        block: channels in a block of x and of dy.
    """
    found = []
    for depth, channels in product(*(_widths(n, block) for n in pairs)):
        places = _side(tile) ** 2
        room = _BYTES // (places * dtype.size) - depth * channels
        most = min(tiles, _TERMS, max(room // (depth + channels), 1))
        at_a_time = -(-tiles // -(-tiles // most)) if tiles else 1
        for vectors in range(1, 5):
            rows = min((target.registers - vectors - 1) // vectors, block)
            rows = max(n for n in range(1, rows + 1) if block % n == 0)
            if vectors * target.lanes(dtype) <= channels + target.lanes(dtype) - 1:
                found.append(
                    _weight_blocking(
                        target, dtype, tile, tiles, pairs,
                        (depth, channels), (rows, vectors), at_a_time,
                    )
                )  # fmt: skip
    return min(found, key=lambda blocking: blocking.cycles)


def _widths(extent: int, block: int) -> list[int]:
    """Widths of equal parts of an extent in whole blocks, none wider than `_WIDEST`."""
    blocks = extent // block
    counts = range(-(-extent // _WIDEST), blocks + 1)
    return sorted({block * -(-blocks // count) for count in counts})


def _weight_blocking(
    target: Target,
    dtype: DType,
    tile: tuple[int, int],
    tiles: int,
    pairs: tuple[int, int],
    widths: tuple[int, int],
    register_tile: tuple[int, int],
    at_a_time: int,
) -> WeightBlocking:
    (depth, channels), (rows, vectors), lanes = widths, register_tile, target.lanes(dtype)
    places = _side(tile) ** 2
    blocks = -(-tiles // at_a_time)
    tasks = -(-pairs[0] // depth) * -(-pairs[1] // channels)
    parts = min(-(-_WEIGHT_TASKS // tasks), max(1, blocks // _BLOCKS))
    repeats = -(-blocks // parts) if blocks else 0
    parts = max(1, -(-blocks // repeats)) if repeats else 1
    products = 0.0
    for width in _lengths(-(-channels // lanes), vectors):
        for height in _lengths(depth, rows):
            step = max(height * width / MULTIPLY_ADDS, (height + width) / LOADS, LATENCY)
            products += at_a_time * step / EFFICIENCY + TILE + _ADD * height * width
    transforms = (
        -(-depth // lanes) * _TILE_OF_X[_side(tile)]
        + -(-channels // lanes) * _TILE_OF_DY[_side(tile)]
    )
    block = places * products + at_a_time * transforms
    sums = depth * -(-channels // lanes) * _SUMS[_side(tile)]
    total = tasks * parts * (repeats * block + sums)
    return WeightBlocking(depth, channels, rows, vectors, at_a_time, repeats, parts, total)


def _side(tile: tuple[int, int]) -> int:
    """Places along an axis of a transformed tile."""
    outputs, taps = tile
    return outputs + taps - 1


def _lengths(extent: int, most: int) -> list[int]:
    """Equal parts of at most `most`, and a smaller one."""
    length = -(-extent // -(-extent // most))
    whole, rest = divmod(extent, length)
    return [length] * whole + ([rest] if rest else [])


def best_weight_tile(
    target: Target,
    dtype: DType,
    samples: int,
    extents: tuple[int, int],
    pairs: tuple[int, int],
    block: int,
    taps: int = TAPS,
) -> int:
    """The tile for the gradient by a 3x3 or 5x5 weight; 0 if direct sums cost less.

    Arguments:
        samples: batch.
        extents: outputs of the convolution down and across.
        pairs: input and output channels.
        block: channels in a block of x and of dy.
        taps: of the weight along each axis, 3 or 5.
    """
    lanes = target.lanes(dtype)
    products = samples * extents[0] * extents[1] * taps**2 * pairs[0] * pairs[1]
    costs: dict[int, float] = {0: products / (MULTIPLY_ADDS * lanes * EFFICIENCY)}
    enough = samples * extents[0] * extents[1] >= _FEWEST
    for tile in tiles_of(taps) if enough else ():
        tiles = samples * -(-extents[0] // tile) * -(-extents[1] // tile)
        costs[tile] = weight_blocking(target, dtype, (tile, taps), tiles, pairs, block).cycles
    return min(costs, key=lambda tile: costs[tile])
