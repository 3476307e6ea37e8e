"""What this machine can do at most: multiply-adds and bytes in a second, measured by kernels."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..compiler.files import replacing
from ..compiler.llvm import jit
from ..compiler.llvm.cache import ObjectCache, default_directory, object_key
from ..compiler.llvm.emit import emit
from ..compiler.llvm.pool import compile_all
from ..compiler.llvm.target import Target
from ..compiler.loops.ir import (
    Accumulate,
    Alloc,
    Block,
    Buffer,
    Const,
    For,
    Kernel,
    Load,
    LoopKind,
    ReduceOp,
    Space,
    Store,
    Var,
)
from ..compiler.types import DType
from .executable import aligned_copy
from .threads import PARALLEL, get_runner

_WORKING_SETS = tuple(1 << n for n in (14, 17, 19, 21, 23, 25, 28))
_ROUNDS, _ROUND_SECONDS = 15, 0.01
_ROWS, _VECTORS, _DEPTH = 6, 2, 256
_TILES = 64
_STREAMS = 8


@dataclass(frozen=True)
class Peaks:
    """What a number of threads can do at most.

    Arguments:
        threads: their number.
        float32, float64: floating-point operations in a second, a multiply-add being two, by
            register tiles whose operands are in the first-level cache.
        bandwidth: (bytes of working set, bytes read from it in a second), by growing working set;
            the last one is memory.
    """

    threads: int
    float32: float
    float64: float
    bandwidth: tuple[tuple[int, float], ...]

    @property
    def memory(self) -> float:
        """Bytes read from memory in a second."""
        return self.bandwidth[-1][1]

    def bytes_per_second(self, working_set: int) -> float:
        """How fast data can be read of which so many bytes are used again and again."""
        return next((rate for size, rate in self.bandwidth if working_set <= size), self.memory)


def peaks(threads: int, measure: bool = False) -> Peaks:
    """What this machine can do, from the user's cache directory; measured the first time.

    Arguments:
        threads: that take part.
        measure: measure it again. It takes a second or two, in which nothing else should run.
    """
    path = _file(threads)
    found = None if measure else _read(path)
    if found is None:
        found = measured(threads)
        _write(path, found)
    return found


@lru_cache(maxsize=1)
def _target() -> Target:
    return Target.host()


def measured(threads: int) -> Peaks:
    """What this machine can do, measured now: the best of a few rounds of each kernel."""
    single, double = (_products_per_second(threads, t) for t in (DType.FLOAT32, DType.FLOAT64))
    bandwidth = tuple((size, _read_rate(threads, size)) for size in _WORKING_SETS)
    # More data cannot come faster: a dip at a small size is noise.
    smooth = tuple(
        (size, max(rate for _, rate in bandwidth[i:])) for i, (size, _) in enumerate(bandwidth)
    )
    return Peaks(threads, single, double, smooth)


# -- kernels --------------------------------------------------------------------------------------


def product_kernel(threads: int, dtype: DType) -> tuple[Kernel, int]:
    """Each thread adds up products in a tile of registers; also the operations of a run."""
    lanes = _target().lanes(dtype)
    shape = (_ROWS, _VECTORS, lanes)
    a = Buffer("a", (_DEPTH, _ROWS), dtype)
    b = Buffer("b", (_DEPTH, _VECTORS, lanes), dtype)
    total = Buffer("total", (threads, *shape), dtype)
    tile = Buffer("tile", shape, dtype, Space.REGISTER)
    thread, again, k, row, vector, lane = map(
        Var, ("thread", "again", "k", "row", "vector", "lane")
    )
    each = (row, vector, lane)
    product = Load(a, (k, row)) * Load(b, (k, vector, lane))

    def nest(body: Block) -> For:
        return _tile_loops((row, _ROWS), (vector, _VECTORS), (lane, lanes), body=body)

    body = (
        Alloc(tile),
        nest((Store(tile, each, Const(0.0, dtype)),)),
        For(k, _DEPTH, (nest((Accumulate(tile, each, ReduceOp.ADD, product),)),)),
        nest((Store(total, (thread, *each), Load(tile, each)),)),
    )
    loop = For(thread, threads, (For(again, _TILES, body),), LoopKind.PARALLEL)
    kernel = Kernel("products", (a, b, total), (loop,))
    return kernel, 2 * threads * _TILES * _DEPTH * tile.size


def reading_kernel(threads: int, nbytes: int) -> tuple[Kernel, int]:
    """Each thread adds up its share of a working set; also the bytes of a run."""
    lanes = _target().lanes(DType.FLOAT32)
    rows = max(1, nbytes // (4 * threads * _STREAMS * lanes))
    data = Buffer("data", (threads, rows, _STREAMS, lanes))
    total = Buffer("total", (threads, _STREAMS, lanes))
    tile = Buffer("tile", (_STREAMS, lanes), space=Space.REGISTER)
    thread, row, vector, lane = map(Var, ("thread", "row", "vector", "lane"))
    each = (vector, lane)

    def nest(body: Block) -> For:
        return _tile_loops((vector, _STREAMS), (lane, lanes), body=body)

    element = Load(data, (thread, row, vector, lane))
    body = (
        Alloc(tile),
        nest((Store(tile, each, Const(0.0, DType.FLOAT32)),)),
        For(row, rows, (nest((Accumulate(tile, each, ReduceOp.ADD, element),)),)),
        nest((Store(total, (thread, *each), Load(tile, each)),)),
    )
    kernel = Kernel("reading", (data, total), (For(thread, threads, body, LoopKind.PARALLEL),))
    return kernel, data.nbytes


def _tile_loops(*loops: tuple[Var, int], body: Block) -> For:
    """Over a tile of registers: the last loop runs in vector lanes, the others are unrolled."""
    *outer, (lane, lanes) = loops
    nest = For(lane, lanes, body, LoopKind.VECTOR, lanes)
    for var, extent in reversed(outer):
        nest = For(var, extent, (nest,), LoopKind.UNROLLED)
    return nest


def _products_per_second(threads: int, dtype: DType) -> float:
    kernel, count = product_kernel(threads, dtype)
    return count / _fastest(kernel, threads)


def _read_rate(threads: int, nbytes: int) -> float:
    kernel, count = reading_kernel(threads, nbytes)
    return count / _fastest(kernel, threads)


def _fastest(kernel: Kernel, threads: int) -> float:
    """Seconds of one run of a kernel of one parallel phase, repeated in one native call."""
    emitted = emit(kernel, _target())
    objects = compile_all({"peak": emitted.ir}, _target(), ObjectCache(), workers=1).objects
    library = jit.load([objects["peak"]])
    # Two threads that wrote to one cache line would wait for each other.
    arrays = [aligned_copy(np.ones(b.shape, b.dtype.numpy)) for b in kernel.buffers]
    pointers = np.array([a.ctypes.data for a in arrays], np.uint64)
    (phase,) = emitted.phases
    step = (library.address(phase.symbol), int(pointers.ctypes.data), phase.extent, PARALLEL)
    runner = get_runner(threads)

    def seconds(repeats: int) -> float:
        steps = np.array([step] * repeats, np.int64)
        start = time.perf_counter()
        runner.run(steps)
        return (time.perf_counter() - start) / repeats

    seconds(1)
    repeats = max(1, int(_ROUND_SECONDS / seconds(1)))
    return min(seconds(repeats) for _ in range(_ROUNDS))


# -- what is known --------------------------------------------------------------------------------


def _file(threads: int) -> Path:
    target = _target()
    key = object_key(target, "peaks", target.cpu, str(threads))
    return default_directory() / f"peaks-{key[:16]}.json"


def _read(path: Path) -> Peaks | None:
    try:
        data = json.loads(path.read_text())
        pairs = tuple((int(size), float(rate)) for size, rate in data["bandwidth"])
        known = Peaks(int(data["threads"]), float(data["float32"]), float(data["float64"]), pairs)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return known if pairs and min(known.float32, known.float64, known.memory) > 0 else None


def _write(path: Path, known: Peaks) -> None:
    data: dict[str, Any] = asdict(known)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(json.dumps(data).encode())
    except OSError:
        return  # then it is measured again the next time
