"""Choosing algorithms by measuring them, and remembering what was fastest.

Each convolution that can be done in several ways is compiled in each of them, alone, and run on
random data by as many threads as the network will have. In a network the weights of a layer are in
memory when it is run, for all the others have been between, and its input is in a cache; so it is
here: before every run so much else is read that nothing is left in the caches, and then the input.

The winner is kept in the user's cache directory, under a key of the shapes, the dtype, the threads,
the processor, the target and the compiler's own source.
"""

from __future__ import annotations

import hashlib
import math
import platform
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from .. import compiler
from ..compiler.cost_model import Algorithm, SquareConvolution
from ..compiler.driver import Options, compile_graph
from ..compiler.errors import UsageError
from ..compiler.graph import Graph
from ..compiler.llvm.cache import ObjectCache, object_key
from ..compiler.llvm.target import Target, missing_features
from ..compiler.lower.blocked_conv import panel_width
from ..compiler.ops.base import apply
from ..compiler.ops.blocked import BlockedConv, blocked_shape
from ..compiler.ops.conv import Conv
from ..compiler.passes.base import Pass
from ..compiler.passes.strassen import Strassen
from ..compiler.passes.winograd import Winograd
from ..compiler.report import Report
from ..compiler.types import Array, DType, TensorType
from ..runtime.executable import Executable
from ..runtime.threads import default_threads

# More than any cache holds.
_FLUSH_BYTES = 128 << 20
# The most bytes of input and output that are measured: with more images it is the same again.
_MOST_BYTES = 64 << 20
_LEAST_ROUNDS, _MOST_ROUNDS, _SECONDS = 3, 15, 0.5


class Tuner:
    """Chooses how convolutions are computed.

    Arguments:
        threads: that will run the network; as for `Executable` by default.
        report: is told of every choice.
        store: where winners are kept.

    Attributes:
        measured: number of convolutions that were measured, the others being remembered.
    """

    def __init__(
        self,
        threads: int | None = None,
        report: Report | None = None,
        store: ObjectCache | None = None,
    ) -> None:
        self.threads = default_threads() if threads is None else threads
        self.report = report or Report()
        self.store = store or ObjectCache()
        self.measured = 0

    def choose(self, target: Target, dtype: DType, conv: SquareConvolution) -> Algorithm:
        """The fastest algorithm.

        Raises:
            UsageError: this machine cannot run what is compiled for the target.
        """
        if missing := missing_features(target.features):
            raise UsageError(
                f"tuning measures on this machine, which has no {', '.join(missing)}: compile for "
                "this machine, or without tuning"
            )
        conv = replace(conv, batch=_enough_images(conv, dtype))
        key = self._key(target, dtype, conv)
        known = self.store.get(key)
        with suppress(ValueError):
            if known is not None:
                return Algorithm(known.decode(errors="replace"))
        with self.report.stage(f"tune {_text(conv)}") as describe:
            seconds = self._measure(target, dtype, conv)
            describe(", ".join(f"{a.value} {1e3 * s:.2f} ms" for a, s in seconds.items()))
        winner = min(seconds, key=seconds.__getitem__)
        self.store.put(key, winner.value.encode())
        self.measured += 1
        return winner

    def _key(self, target: Target, dtype: DType, conv: SquareConvolution) -> str:
        parts = (_source(), _processor(), dtype.value, repr(conv), str(self.threads))
        return object_key(target, "fastest", *parts)

    def _measure(
        self, target: Target, dtype: DType, conv: SquareConvolution
    ) -> dict[Algorithm, float]:
        """Seconds that each algorithm takes: the least of runs in turn, as noise only adds."""
        random = np.random.default_rng(0)
        graph = convolution_graph(target, dtype, conv, random)
        candidates = {}
        for algorithm in conv.algorithms:
            options = Options(target, passes=passes_for(target, algorithm))
            image = compile_graph(graph, options).image
            candidates[algorithm] = Executable(image, self.threads)
        feeds = {
            name: random.standard_normal(type.shape).astype(type.dtype.numpy)
            for name, type in candidates[Algorithm.DIRECT].inputs.items()
        }
        taken: dict[Algorithm, list[float]] = {algorithm: [] for algorithm in candidates}
        other = np.zeros(_FLUSH_BYTES, np.uint8)
        for executable in candidates.values():
            executable.run(feeds)
        began = time.perf_counter()
        for number in range(_MOST_ROUNDS):
            if number >= _LEAST_ROUNDS and time.perf_counter() - began > _SECONDS:
                break
            for algorithm, executable in candidates.items():
                taken[algorithm].append(_seconds_cold(executable, feeds, other))
        return {algorithm: min(times) for algorithm, times in taken.items()}


def passes_for(target: Target, algorithm: Algorithm) -> tuple[Pass, ...]:
    """What has all convolutions done by an algorithm that can be."""

    def choose(*_: object) -> Algorithm:
        return algorithm

    return Winograd(target, choose=choose), Strassen(target, choose)


def convolution_graph(
    target: Target, dtype: DType, conv: SquareConvolution, random: np.random.Generator
) -> Graph:
    """A convolution in blocks of channels, alone: `x`, `weight` -> `y`.

    A weight that will be prepared is a parameter, any other an input.
    """
    lanes = target.lanes(dtype)
    graph = Graph("convolution")
    shape = (conv.batch, conv.depth, conv.height, conv.width)
    x = graph.input(TensorType(blocked_shape(shape, _block(conv.depth, lanes)), dtype), "x")
    kernel = TensorType((conv.channels, conv.depth, conv.taps, conv.taps), dtype)
    if conv.prepared:
        values = random.standard_normal(kernel.shape) / math.sqrt(conv.depth * conv.taps**2)
        weight = graph.parameter(values.astype(dtype.numpy), "weight")
    else:
        weight = graph.input(kernel, "weight")
    same = Conv((1, 1), ((conv.taps // 2,) * 2,) * 2, (1, 1))
    op = BlockedConv(same, kernel.shape, _block(conv.channels, lanes))
    packed = apply(op.packing(panel_width(op, x.type, target)), weight)
    graph.outputs["y"] = apply(op, x, packed).value
    return graph


def _block(channels: int, lanes: int) -> int:
    """The largest power of two that divides the channels, up to the lanes of a vector."""
    return math.gcd(channels, 1 << (lanes.bit_length() - 1))


def _enough_images(conv: SquareConvolution, dtype: DType) -> int:
    image = (conv.depth + conv.channels) * conv.height * conv.width * dtype.size
    return max(1, min(conv.batch, _MOST_BYTES // max(1, image)))


def _seconds_cold(executable: Executable, feeds: Mapping[str, Array], other: Array) -> float:
    """Seconds of a run whose input is in the caches and whose weights are not."""
    np.add(other, 1, out=other)
    feeds["x"].sum()
    start = time.perf_counter()
    executable.run(feeds)
    return time.perf_counter() - start


def _text(conv: SquareConvolution) -> str:
    size = f"{conv.taps}x{conv.taps}"
    return f"{conv.batch}x{conv.depth}x{conv.height}x{conv.width} by {size} to {conv.channels}"


@cache
def _source() -> bytes:
    """Changes with the compiler's own code."""
    digest = hashlib.sha256()
    for file in sorted(Path(compiler.__path__[0]).rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.digest()


@cache
def _processor() -> str:
    """What the processor is called."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith("model name"))
    return platform.processor()
