"""Runs hand-written loop kernels as machine code."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from functools import cache

import numpy as np

from quern.compiler.llvm.codegen import compile_to_object
from quern.compiler.llvm.emit import emit
from quern.compiler.llvm.jit import load
from quern.compiler.llvm.target import Target
from quern.compiler.loops.ir import Buffer, Kernel
from quern.compiler.types import Array

_GUARD = 64
_PATTERN = 0xA5


@cache
def host() -> Target:
    return Target.host()


class _Guarded:
    """Memory for a buffer that is aligned as its elements only.

    Around it, and in the gaps between its rows, are bytes to be left alone.
    """

    def __init__(self, buffer: Buffer, contents: Array | None) -> None:
        size = buffer.dtype.size
        steps = [(n - 1) * s for n, s in zip(buffer.shape, buffer.strides, strict=True)]
        nbytes = (1 + sum(steps)) * size if buffer.size else 0
        self.raw = np.full(nbytes + 3 * _GUARD, _PATTERN, np.uint8)
        start = _GUARD + (size - self.raw.ctypes.data) % 64

        def elements(memory: Array) -> Array:
            flat = memory[start : start + nbytes].view(buffer.dtype.numpy)
            strides = [s * size for s in buffer.strides]
            return np.lib.stride_tricks.as_strided(flat, buffer.shape, strides)

        self.array = elements(self.raw)
        own = np.zeros_like(self.raw)
        elements(own)[...] = np.full(size, 1, np.uint8).view(buffer.dtype.numpy)[0]
        self.border = own == 0
        if contents is not None:
            given = np.asarray(contents)
            assert given.dtype == buffer.dtype.numpy, (buffer.name, given.dtype)
            assert given.shape == buffer.shape, (buffer.name, given.shape)
            self.array[...] = given

    def check(self, name: str) -> None:
        borders = self.raw[self.border]
        assert (borders == _PATTERN).all(), f"{name}: written outside of its bounds"


def run_kernel(
    kernel: Kernel,
    arrays: Sequence[Array | None],
    target: Target | None = None,
    pieces: int = 1,
) -> list[Array]:
    """The contents of the kernel's parameters after a run of all its phases, one after the other.

    `arrays` are their contents before, None for those that start undefined; they are not changed.
    Scratch is provided. A parallel phase is run in `pieces` calls, the last one first.
    """
    assert len(arrays) == len(kernel.parameters)
    emitted = emit(kernel, target or host())
    contents = [*arrays, *[None] * len(kernel.scratch)]
    memory = [_Guarded(b, a) for b, a in zip(kernel.buffers, contents, strict=True)]
    addresses = [m.array.ctypes.data if m.array.size else m.raw.ctypes.data for m in memory]
    args = (ctypes.c_void_p * max(1, len(memory)))(*addresses)
    if emitted.phases:
        library = load([compile_to_object(emitted.ir, target or host())])
        signature = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
        for phase in emitted.phases:
            function = signature(library.address(phase.symbol))
            step = math.ceil(phase.extent / (pieces if phase.parallel else 1))
            for begin in reversed(range(0, phase.extent, step)):
                function(ctypes.addressof(args), begin, min(begin + step, phase.extent))
    for buffer, guarded in zip(kernel.buffers, memory, strict=True):
        guarded.check(buffer.name)
    return [m.array.copy() for m in memory[: len(arrays)]]
