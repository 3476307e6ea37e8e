"""Programs of native steps, for the tests of what runs them; and processes of their own."""

from __future__ import annotations

import functools
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
from numpy.typing import NDArray

from quern.runtime.threads import BARRIER, PARALLEL, Runner

TEAMS = [1, 2, 4, 7]
Ints = NDArray[np.int64]

# record: how often [begin, end) was run, and where each call began and ended.
# mirror: dst[i] = 3·src[extent - 1 - i] + i; reads what the thread at the other end wrote.
# await: as record, without ends, but who begins waits for the last. nap: sleep for args[0][0]
# microseconds. halve: dst[i] = src[i] / 2, in float32.
KERNELS = r"""
define void @record(ptr %args, i64 %begin, i64 %end) {
entry:
  %hits = load ptr, ptr %args
  %ends.at = getelementptr ptr, ptr %args, i64 1
  %ends = load ptr, ptr %ends.at
  %first = getelementptr i64, ptr %ends, i64 %begin
  store i64 %end, ptr %first
  br label %loop
loop:
  %i = phi i64 [ %begin, %entry ], [ %next, %body ]
  %more = icmp slt i64 %i, %end
  br i1 %more, label %body, label %done
body:
  %at = getelementptr i64, ptr %hits, i64 %i
  %old = load i64, ptr %at
  %new = add i64 %old, 1
  store i64 %new, ptr %at
  %next = add i64 %i, 1
  br label %loop
done:
  ret void
}

define void @mirror(ptr %args, i64 %begin, i64 %end) {
entry:
  %src = load ptr, ptr %args
  %dst.at = getelementptr ptr, ptr %args, i64 1
  %dst = load ptr, ptr %dst.at
  %extent.at = getelementptr ptr, ptr %args, i64 2
  %extent.word = load ptr, ptr %extent.at
  %extent = load i64, ptr %extent.word
  br label %loop
loop:
  %i = phi i64 [ %begin, %entry ], [ %next, %body ]
  %more = icmp slt i64 %i, %end
  br i1 %more, label %body, label %done
body:
  %next = add i64 %i, 1
  %other = sub i64 %extent, %next
  %from = getelementptr i64, ptr %src, i64 %other
  %value = load i64, ptr %from
  %triple = mul i64 %value, 3
  %sum = add i64 %triple, %i
  %to = getelementptr i64, ptr %dst, i64 %i
  store i64 %sum, ptr %to
  br label %loop
done:
  ret void
}

declare i32 @usleep(i32)
define void @nap(ptr %args, i64 %begin, i64 %end) {
  %word = load ptr, ptr %args
  %wide = load i64, ptr %word
  %time = trunc i64 %wide to i32
  %status = call i32 @usleep(i32 %time)
  ret void
}

; The call with index 0 waits until the last index of args[1][0] has been run, for a while.
define void @await(ptr %args, i64 %begin, i64 %end) {
entry:
  %hits = load ptr, ptr %args
  %last.at = getelementptr ptr, ptr %args, i64 1
  %last.word = load ptr, ptr %last.at
  %last = load i64, ptr %last.word
  %other = getelementptr i64, ptr %hits, i64 %last
  %waits = icmp eq i64 %begin, 0
  br i1 %waits, label %look, label %loop
look:
  %count = phi i64 [ 0, %entry ], [ %count.next, %rest ]
  %seen = load atomic i64, ptr %other acquire, align 8
  %there = icmp ne i64 %seen, 0
  br i1 %there, label %loop, label %rest
rest:
  %status = call i32 @usleep(i32 1000)
  %count.next = add i64 %count, 1
  %patient = icmp slt i64 %count.next, 5000
  br i1 %patient, label %look, label %failed
failed:
  ret void
loop:
  %i = phi i64 [ %begin, %entry ], [ %begin, %look ], [ %next, %body ]
  %more = icmp slt i64 %i, %end
  br i1 %more, label %body, label %done
body:
  %at = getelementptr i64, ptr %hits, i64 %i
  %old = load i64, ptr %at
  %new = add i64 %old, 1
  store atomic i64 %new, ptr %at release, align 8
  %next = add i64 %i, 1
  br label %loop
done:
  ret void
}

define void @halve(ptr %args, i64 %begin, i64 %end) {
entry:
  %src = load ptr, ptr %args
  %dst.at = getelementptr ptr, ptr %args, i64 1
  %dst = load ptr, ptr %dst.at
  br label %loop
loop:
  %i = phi i64 [ %begin, %entry ], [ %next, %body ]
  %more = icmp slt i64 %i, %end
  br i1 %more, label %body, label %done
body:
  %from = getelementptr float, ptr %src, i64 %i
  %to = getelementptr float, ptr %dst, i64 %i
  %value = load float, ptr %from
  %half = fmul float %value, 0.5
  store float %half, ptr %to
  %next = add i64 %i, 1
  br label %loop
done:
  ret void
}
"""


@functools.cache
def compiled(ir: str) -> Callable[[str], int]:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(ir), machine)
    engine.finalize_object()
    return lambda name: int(engine.get_function_address(name))


class Program:
    """Steps, and the arrays they work on."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, int, int]] = []
        self.kept: list[object] = []

    def add(self, kernel: str, extent: int, flags: int, *buffers: NDArray[np.generic]) -> None:
        args = np.array([buffer.ctypes.data for buffer in buffers], np.uint64)
        self.kept.append((args, buffers))
        self.rows.append((compiled(KERNELS)(kernel), args.ctypes.data, extent, flags))

    @property
    def steps(self) -> Ints:
        return np.array(self.rows, np.int64).reshape(-1, 4)

    def run(self, runner: Runner, timestamps: Ints | None = None) -> None:
        runner.run(self.steps, timestamps)


def check_chain(runner: Runner, seed: int, length: int = 40, repeat: int = 1) -> None:
    """Run dependent steps of random extents, forth and back between two buffers."""
    rng, size = np.random.default_rng(seed), 300
    for _ in range(repeat):
        program, last = Program(), 0
        buffers = [rng.integers(0, 1 << 20, size), np.zeros(size, np.int64)]
        expected = [buffer.copy() for buffer in buffers]
        for step in range(length):
            extent = int(rng.integers(0, size + 1))
            parallel = PARALLEL if rng.random() < 0.7 else 0
            # Only a serial step after a serial one needs no other thread to be done.
            flags = parallel | (BARRIER if parallel or last else 0)
            last = parallel
            here, there = step % 2, (step + 1) % 2
            program.add("mirror", extent, flags, buffers[here], buffers[there], np.array([extent]))
            expected[there][:extent] = 3 * expected[here][:extent][::-1] + np.arange(extent)
        program.run(runner)
        np.testing.assert_array_equal(buffers, expected)


def naps(count: int, microseconds: int, flags: int) -> Program:
    program = Program()
    for _ in range(count):
        program.add("nap", 64, flags, np.array([microseconds], np.int64))
    return program


_AT_HAND = f"""\
import os, sys, threading, time
from pathlib import Path
from quern.compiler.errors import UsageError
from quern.runtime.threads import BARRIER, PARALLEL, get_runner
from {Path(__file__).stem} import check_chain, naps
"""


def child(code: str) -> subprocess.Popen[str]:
    """A fresh interpreter that runs `code` with these names at hand."""
    code = _AT_HAND + textwrap.dedent(code)
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, output and errors of a child that must end long before its programs would."""
    try:
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    return process.returncode, out, err
