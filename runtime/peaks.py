"""What this machine can do at most: multiply-adds and bytes in a second, measured by kernels."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
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
    Call,
    Const,
    Expr,
    For,
    Function,
    Kernel,
    Load,
    LoopKind,
    ReduceOp,
    Space,
    Store,
    Var,
    index,
)
from ..compiler.types import DType
from .executable import aligned_copy
from .threads import PARALLEL, get_runner

_WORKING_SETS = tuple(1 << n for n in (14, 17, 19, 21, 23, 25, 27))
# Many short rounds: in some of them all threads have a processor for themselves.
_ROUNDS, _ROUND_SECONDS = 60, 0.002
_ROWS, _VECTORS, _DEPTH = 6, 2, 256
_TILES = 64
_STREAMS = 4


@dataclass(frozen=True)
class Peaks:
    """What a number of threads can do at most.

    Arguments:
        threads: their number.
        float32, float64: floating-point operations in a second, a multiply-add being two, by
            register tiles whose operands are in the first-level cache.
        bandwidth: (bytes of working set, bytes read from it in a second), by growing working set;
            the last one is memory.
        traffic: the same, with bytes both read and written in place; empty: as many as can be read.
    """

    threads: int
    float32: float
    float64: float
    bandwidth: tuple[tuple[int, float], ...]
    traffic: tuple[tuple[int, float], ...] = ()

    @property
    def memory(self) -> float:
        """Bytes read from memory in a second."""
        return self.bandwidth[-1][1]

    def bytes_per_second(self, working_set: int) -> float:
        """How fast data can be read of which so many bytes are used again and again."""
        return _rate(self.bandwidth, working_set)

    def traffic_per_second(self, working_set: int) -> float:
        """How fast data can be read and written of which so many bytes are used again and again."""
        return _rate(self.traffic or self.bandwidth, working_set)

    def or_better(self, other: Peaks) -> Peaks:
        """The larger one of each figure: something else may have run while one was measured."""
        if [n for n, _ in self.bandwidth] != [n for n, _ in other.bandwidth]:
            return self
        return Peaks(
            self.threads,
            max(self.float32, other.float32),
            max(self.float64, other.float64),
            _larger(self.bandwidth, other.bandwidth),
            _larger(self.traffic, other.traffic),
        )


def _rate(rates: tuple[tuple[int, float], ...], working_set: int) -> float:
    return next((rate for size, rate in rates if working_set <= size), rates[-1][1])


def _larger(
    a: tuple[tuple[int, float], ...], b: tuple[tuple[int, float], ...]
) -> tuple[tuple[int, float], ...]:
    return tuple((n, max(x, y)) for (n, x), (_, y) in zip(a, b, strict=True))


def peaks(threads: int, measure: bool = False) -> Peaks:
    """What this machine can do, from the user's cache directory; measured the first time.

    Arguments:
        threads: that take part.
        measure: measure it again, and keep what is larger. It takes two or three seconds, in which
            nothing else should run.
    """
    path = _file(threads)
    known = _read(path)
    if known is not None and not measure:
        return known
    found = measured(threads)
    if known is not None:
        found = found.or_better(known)
    _write(path, found)
    return found


@lru_cache(maxsize=1)
def _target() -> Target:
    return Target.host()


def measured(threads: int) -> Peaks:
    """What this machine can do, measured now: the best of a few rounds of each kernel."""
    single, double = (_products_per_second(threads, t) for t in (DType.FLOAT32, DType.FLOAT64))
    bandwidth, traffic = (_rates(threads, make) for make in (reading_kernel, updating_kernel))
    return Peaks(threads, single, double, bandwidth, traffic)


def _rates(
    threads: int, make: Callable[[int, int], tuple[Kernel, int]]
) -> tuple[tuple[int, float], ...]:
    """Bytes in a second by working set, of a kernel that counts them."""
    found: list[tuple[int, float]] = []
    for size in _WORKING_SETS:
        kernel, count = make(threads, size)
        found.append((size, count / _fastest(kernel, threads)))
    # More data cannot come faster: a dip at a small size is noise.
    return tuple((n, max(rate for _, rate in found[i:])) for i, (n, _) in enumerate(found))


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
    """Each thread adds up its share of a working set, at several places at a time; also the bytes
    of a run.
    """
    data = _working_set(threads, nbytes)
    lanes = data.shape[-1]
    total = Buffer("total", (threads, _STREAMS, _VECTORS, lanes))
    tile = Buffer("tile", (_STREAMS, _VECTORS, lanes), space=Space.REGISTER)
    thread, row, stream, vector, lane = map(Var, ("thread", "row", "stream", "vector", "lane"))
    each = (stream, vector, lane)

    def nest(body: Block) -> For:
        return _tile_loops((stream, _STREAMS), (vector, _VECTORS), (lane, lanes), body=body)

    element = Load(data, (thread, stream, row, vector, lane))
    body = (
        Alloc(tile),
        nest((Store(tile, each, Const(0.0, DType.FLOAT32)),)),
        For(row, data.shape[2], (nest((Accumulate(tile, each, ReduceOp.ADD, element),)),)),
        nest((Store(total, (thread, *each), Load(tile, each)),)),
    )
    kernel = Kernel("reading", (data, total), (For(thread, threads, body, LoopKind.PARALLEL),))
    return kernel, data.nbytes


def updating_kernel(threads: int, nbytes: int) -> tuple[Kernel, int]:
    """Each thread changes the signs in its share of a working set; also the bytes that a run reads
    and writes.
    """
    data = _working_set(threads, nbytes)
    thread, row, stream, vector, lane = map(Var, ("thread", "row", "stream", "vector", "lane"))
    place = (thread, stream, row, vector, lane)
    change = Store(data, place, Call(Function.NEG, Load(data, place)))
    loops = (stream, _STREAMS), (vector, _VECTORS), (lane, data.shape[-1])
    body = (For(row, data.shape[2], (_tile_loops(*loops, body=(change,)),)),)
    kernel = Kernel("updating", (data,), (For(thread, threads, body, LoopKind.PARALLEL),))
    return kernel, 2 * data.nbytes


def mixing_kernel(threads: int, nbytes: int, reads: int, writes: int) -> tuple[Kernel, int]:
    """Each thread walks through its share of two arrays, at several places at a time, and for so
    many lines that it reads of one writes so many, their sums, to the other past the caches; also
    the bytes that a run reads and writes.

    Arguments:
        threads: their number.
        nbytes: of both arrays.
        reads, writes: lines, at least as many read as written.
    """
    lanes = _target().lanes(DType.FLOAT32)
    rows = max(1, nbytes // (4 * threads * _STREAMS * (reads + writes) * _VECTORS * lanes))
    given, result = (
        Buffer(name, (threads, _STREAMS, rows, lines, _VECTORS, lanes))
        for name, lines in (("given", reads), ("result", writes))
    )
    thread, row, stream, vector, lane = map(Var, ("thread", "row", "stream", "vector", "lane"))

    def place(line: int) -> tuple[Expr, ...]:
        return (thread, stream, row, index(line), vector, lane)

    body: Block = ()
    for line in range(writes):
        total: Expr = Load(given, place(line))
        for other in range(line + writes, reads, writes):
            total = total + Load(given, place(other))
        stores = (Store(result, place(line), total, streaming=True),)
        body += (_tile_loops((vector, _VECTORS), (lane, lanes), body=stores),)
    inner = For(stream, _STREAMS, body, LoopKind.UNROLLED)
    walk = For(thread, threads, (For(row, rows, (inner,)),), LoopKind.PARALLEL)
    return Kernel("mixing", (given, result), (walk,)), given.nbytes + result.nbytes


def _working_set(threads: int, nbytes: int) -> Buffer:
    """(thread, stream, row, vector, lane)"""
    lanes = _target().lanes(DType.FLOAT32)
    rows = max(1, nbytes // (4 * threads * _STREAMS * _VECTORS * lanes))
    return Buffer("data", (threads, _STREAMS, rows, _VECTORS, lanes))


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


def _fastest(kernel: Kernel, threads: int) -> float:
    """Seconds of one run of a kernel."""
    runs = Runs(kernel, threads)
    runs.seconds(1)
    repeats = max(1, int(_ROUND_SECONDS / runs.seconds(1)))
    return min(runs.seconds(repeats) for _ in range(_ROUNDS))


class Runs:
    """Runs of a kernel of one parallel phase, with arrays of its own."""

    def __init__(self, kernel: Kernel, threads: int) -> None:
        emitted = emit(kernel, _target())
        objects = compile_all({"peak": emitted.ir}, _target(), ObjectCache(), workers=1).objects
        self._library = jit.load([objects["peak"]])
        # Two threads that wrote to one cache line would wait for each other.
        self._arrays = [aligned_copy(np.ones(b.shape, b.dtype.numpy)) for b in kernel.buffers]
        self._pointers = np.array([a.ctypes.data for a in self._arrays], np.uint64)
        (phase,) = emitted.phases
        function, arguments = self._library.address(phase.symbol), self._pointers.ctypes.data
        self._step = (function, int(arguments), phase.extent, PARALLEL)
        self._runner = get_runner(threads)

    def seconds(self, repeats: int) -> float:
        """Seconds of one of some runs in one native call."""
        steps = np.array([self._step] * repeats, np.int64)
        start = time.perf_counter()
        self._runner.run(steps)
        return (time.perf_counter() - start) / repeats


# -- what is known --------------------------------------------------------------------------------


def _file(threads: int) -> Path:
    target = _target()
    key = object_key(target, "peaks", target.cpu, str(threads))
    return default_directory() / f"peaks-{key[:16]}.json"


def _read(path: Path) -> Peaks | None:
    try:
        data = json.loads(path.read_text())
        pairs, traffic = (
            tuple((int(size), float(rate)) for size, rate in data[name])
            for name in ("bandwidth", "traffic")
        )
        numbers = int(data["threads"]), float(data["float32"]), float(data["float64"])
        known = Peaks(*numbers, pairs, traffic)
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
