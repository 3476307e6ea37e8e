"""Runs hand-written loop kernels as machine code, here or in an emulator."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Sequence
from functools import cache

import emulator
import numpy as np
import pytest

from quern.compiler.cost_model import Blocking
from quern.compiler.llvm import jit
from quern.compiler.llvm.codegen import compile_to_object
from quern.compiler.llvm.emit import emit
from quern.compiler.llvm.target import Target
from quern.compiler.loops.ir import Buffer, Kernel
from quern.compiler.types import Array

_GUARD = 64
_PATTERN = 0xA5
_SIGNATURE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)

# Twenty tiles, or pairs of pixels, in each of the ways in which tasks take them.
BLOCKINGS = (
    Blocking(5, 4, 3),
    Blocking(5, 4, 3, near=True),
    Blocking(5, 4, 1, False),
    Blocking(5, 4, 1, False, True),
)


@cache
def host() -> Target:
    """What kernels are tested for: this machine, or what QUERN_TEST_TARGET names.

    That need not be a target that runs here, if there is an emulator.
    """
    name = os.environ.get("QUERN_TEST_TARGET")
    return Target.named(name) if name else Target.host()


def runs(target: Target) -> bool:
    """Whether `run_kernel` can run its code."""
    return emulator.AVAILABLE or not target.missing


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
    target = target or host()
    emitted = emit(kernel, target)
    contents = [*arrays, *[None] * len(kernel.scratch)]
    memory = [_Guarded(b, a) for b, a in zip(kernel.buffers, contents, strict=True)]
    addresses = [m.array.ctypes.data if m.array.size else m.raw.ctypes.data for m in memory]
    args = (ctypes.c_void_p * max(1, len(memory)))(*addresses)
    if emitted.phases:
        with pytest.MonkeyPatch.context() as patch:
            if target.missing:
                patch.setattr(jit, "missing_features", lambda features: ())
            library = jit.load([compile_to_object(emitted.ir, target)])
        spans = [(m.raw.ctypes.data, m.raw.nbytes) for m in memory]
        spans.append((ctypes.addressof(args), ctypes.sizeof(args)))
        for phase in emitted.phases:
            address = library.address(phase.symbol)
            step = math.ceil(phase.extent / (pieces if phase.parallel else 1))
            for begin in reversed(range(0, phase.extent, step)):
                piece = ctypes.addressof(args), begin, min(begin + step, phase.extent)
                if target.missing:
                    emulator.call(address, piece, spans)
                else:
                    _SIGNATURE(address)(*piece)
    for buffer, guarded in zip(kernel.buffers, memory, strict=True):
        guarded.check(buffer.name)
    return [m.array.copy() for m in memory[: len(arrays)]]
