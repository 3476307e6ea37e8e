"""The machine code that runs a program of kernels on a team of threads.

Written by hand as LLVM IR, since it must not touch Python between two kernels. `threads.py` owns
the memory this code works on, starts the worker threads, and decides when to call what.

How a team keeps step. Thread 0 is the caller; the others are workers. Every native run draws a
range of *tickets*, greater than all tickets before: `start + i` stands for "about to do step i",
and `start + count` for "has left the run". Words that threads wait for only ever grow through
tickets, so nothing is reset between two runs and no wait can mistake an old value for a new one:

- `start` calls the workers into a run;
- `arrived` (one for each worker, on its own cache line) tells thread 0 which ticket a worker
  reached;
- `release` is thread 0's answer: every thread has arrived at this ticket, go on.

`native_waiting.py` has the waits, `native_sharing.py` how a step is shared out, `native_arrays.py`
how kernels are told where arrays are.

Pausing. When a run has taken longer than its budget, thread 0 sets `stop` to the run's start
ticket the next time that all threads have met. They leave before that step, and the native call
returns, with no thread inside any kernel; a later call continues at the same step. A run never
pauses elsewhere: threads that are ahead would do the next step without thread 0. One that has no
workers may pause before any step.
"""

from __future__ import annotations

import ctypes
import functools
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass

from ..compiler.llvm import jit
from ..compiler.llvm.cache import ObjectCache
from ..compiler.llvm.pool import compile_all
from ..compiler.llvm.target import Target
from .native_arrays import pointing_ir
from .native_sharing import SHARING
from .native_waiting import WAITING

LINE = 128
"""Bytes between words that different threads write: a cache line and its prefetched neighbour."""

POOL_BYTES = 4 * LINE
"""Size of `%Pool` below; the workers' lines, LINE bytes each and one for thread 0, follow it."""

FIELD_THREADS, FIELD_PAUSES, FIELD_STARTED = 6, 8, 9
"""Indices (in 64-bit words) of the fields of `%Pool` that Python writes."""

MUTEX, CONDITION = 2 * LINE, 3 * LINE
"""Byte offsets of the mutex and condition variable in `%Pool`."""

UNSTARTED = -1
"""What `quern_run` returns where there are parallel steps, but no workers yet."""

_RUNNER = r"""
; One row of the program: function, its arguments, extent, flags (1 parallel, 2 barrier).
%Step = type { ptr, ptr, i64, i64 }

; Line 0 is written by thread 0 alone, the sleepers' words by whoever goes to sleep.
%Pool = type {
  i64, i64, i64,       ; 0 start, 1 release, 2 stop: tickets
  ptr, i64, i64,       ; 3 steps, 4 count: the program, no steps means the pool closes; 5 first step
  i64,                 ; 6 threads, the caller included
  i64,                 ; 7 last: greatest ticket drawn
  i64,                 ; 8 pauses: how often a wait spins before it yields
  i64,                 ; 9 started: whether the workers exist
  [6 x i64],
  i64, [15 x i64],     ; 11 sleepers: threads that sleep, or are about to
  [16 x i64],          ; 13 mutex
  [16 x i64]           ; 14 condition
}

; A thread's line: arrived (ticket), the thread's number, its pool, and what is claimed of its
; share: 8 * ticket + pieces.
%Worker = type { i64, i64, ptr, i64, [12 x i64] }

declare i32 @clock_gettime(i32, ptr)
declare i32 @sched_yield()
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_broadcast(ptr)

define internal i64 @now() {
  %time = alloca { i64, i64 }
  %id = load i32, ptr @clock_id
  %status = call i32 @clock_gettime(i32 %id, ptr %time)
  %seconds = load i64, ptr %time
  %at = getelementptr { i64, i64 }, ptr %time, i64 0, i32 1
  %rest = load i64, ptr %at
  %whole = mul i64 %seconds, 1000000000
  %now = add i64 %whole, %rest
  ret i64 %now
}

define internal ptr @worker(ptr %pool, i64 %thread) alwaysinline {
  %lines = getelementptr %Pool, ptr %pool, i64 1
  %worker = getelementptr %Worker, ptr %lines, i64 %thread
  ret ptr %worker
}

; Thread 0 waits until every worker has arrived at the ticket.
define internal void @gather(ptr %pool, i64 %threads, i64 %ticket) {
entry:
  br label %next
next:
  %thread = phi i64 [ 1, %entry ], [ %thread.next, %one ]
  %more = icmp slt i64 %thread, %threads
  br i1 %more, label %one, label %done
one:
  %arrived = call ptr @worker(ptr %pool, i64 %thread)
  call void @wait(ptr %pool, ptr %arrived, i64 %ticket)
  %thread.next = add i64 %thread, 1
  br label %next
done:
  ret void
}

; What a worker thread does all its life.
define ptr @quern_worker(ptr %self) {
entry:
  %thread.at = getelementptr %Worker, ptr %self, i64 0, i32 1
  %pool.at = getelementptr %Worker, ptr %self, i64 0, i32 2
  %thread = load i64, ptr %thread.at
  %pool = load ptr, ptr %pool.at
  %start.at = getelementptr %Pool, ptr %pool, i64 0, i32 0
  %release.at = getelementptr %Pool, ptr %pool, i64 0, i32 1
  %stop.at = getelementptr %Pool, ptr %pool, i64 0, i32 2
  %steps.at = getelementptr %Pool, ptr %pool, i64 0, i32 3
  %count.at = getelementptr %Pool, ptr %pool, i64 0, i32 4
  %first.at = getelementptr %Pool, ptr %pool, i64 0, i32 5
  %threads.at = getelementptr %Pool, ptr %pool, i64 0, i32 6
  %threads = load i64, ptr %threads.at
  call void @float_mode_standard()
  br label %idle
idle:
  ; The ticket a worker left its last run with is that run's greatest.
  %left = load i64, ptr %self
  %due = add i64 %left, 1
  call void @wait(ptr %pool, ptr %start.at, i64 %due)
  %start = load atomic i64, ptr %start.at acquire, align 8
  %steps = load ptr, ptr %steps.at
  %closing = icmp eq ptr %steps, null
  br i1 %closing, label %close, label %enter
enter:
  %count = load i64, ptr %count.at
  %first = load i64, ptr %first.at
  %leaving = add i64 %start, %count
  br label %step
step:
  %index = phi i64 [ %first, %enter ], [ %index.next, %go ]
  %more = icmp slt i64 %index, %count
  br i1 %more, label %meet, label %leave
meet:
  %barrier = call i1 @flagged(ptr %steps, i64 %index, i64 2)
  br i1 %barrier, label %arrive, label %check
arrive:
  %ticket = add i64 %start, %index
  call void @publish(ptr %pool, ptr %self, i64 %ticket)
  call void @wait(ptr %pool, ptr %release.at, i64 %ticket)
  br label %check
check:
  %stop = load atomic i64, ptr %stop.at acquire, align 8
  %stopped = icmp eq i64 %stop, %start
  br i1 %stopped, label %leave, label %go
go:
  %now = add i64 %start, %index
  call void @execute(ptr %pool, ptr %steps, i64 %index, i64 %thread, i64 %threads, i64 %now)
  %index.next = add i64 %index, 1
  br label %step
leave:
  call void @publish(ptr %pool, ptr %self, i64 %leaving)
  br label %idle
close:
  ret ptr null
}

; Run the program on from step `first` for about `budget` nanoseconds, and return the next step, or
; `count`. `stamps` is null, or gets the clock at every step's start and at the end.
define i64 @quern_run(ptr %pool, ptr %steps, i64 %count, i64 %first, ptr %stamps, i64 %budget) {
entry:
  %began = call i64 @now()
  %threads.at = getelementptr %Pool, ptr %pool, i64 0, i32 6
  %all = load i64, ptr %threads.at
  %single = icmp slt i64 %all, 2
  br i1 %single, label %prepare, label %scan
scan:
  %scanned = phi i64 [ %first, %entry ], [ %scanned.next, %scan.one ]
  %scan.more = icmp slt i64 %scanned, %count
  br i1 %scan.more, label %scan.one, label %prepare
scan.one:
  %parallel = call i1 @flagged(ptr %steps, i64 %scanned, i64 1)
  %scanned.next = add i64 %scanned, 1
  br i1 %parallel, label %assemble, label %scan
assemble:
  %started.at = getelementptr %Pool, ptr %pool, i64 0, i32 9
  %started = load i64, ptr %started.at
  %missing = icmp eq i64 %started, 0
  br i1 %missing, label %unstarted, label %prepare
unstarted:
  ret i64 -1

prepare:
  ; The team: everybody, or thread 0 alone where no step is parallel.
  %threads = phi i64 [ 1, %entry ], [ 1, %scan ], [ %all, %assemble ]
  %alone = icmp eq i64 %threads, 1
  %mode = call i64 @float_mode()
  call void @float_mode_standard()
  %start.at = getelementptr %Pool, ptr %pool, i64 0, i32 0
  %release.at = getelementptr %Pool, ptr %pool, i64 0, i32 1
  %stop.at = getelementptr %Pool, ptr %pool, i64 0, i32 2
  %last.at = getelementptr %Pool, ptr %pool, i64 0, i32 7
  %last = load i64, ptr %last.at
  %start = add i64 %last, 1
  %leaving = add i64 %start, %count
  store i64 %leaving, ptr %last.at
  call void @write_stamp(ptr %stamps, i64 %first)
  br i1 %alone, label %step, label %call.workers
call.workers:
  %steps.at = getelementptr %Pool, ptr %pool, i64 0, i32 3
  %count.at = getelementptr %Pool, ptr %pool, i64 0, i32 4
  %first.at = getelementptr %Pool, ptr %pool, i64 0, i32 5
  store ptr %steps, ptr %steps.at
  store i64 %count, ptr %count.at
  store i64 %first, ptr %first.at
  call void @publish(ptr %pool, ptr %start.at, i64 %start)
  br label %step

step:
  %index = phi i64 [ %first, %prepare ], [ %first, %call.workers ], [ %index.next, %go ]
  %ticket = add i64 %start, %index
  %more = icmp slt i64 %index, %count
  br i1 %more, label %check, label %finish
check:
  %barrier = call i1 @flagged(ptr %steps, i64 %index, i64 2)
  %together = or i1 %barrier, %alone
  br i1 %together, label %meet, label %go
meet:
  call void @gather(ptr %pool, i64 %threads, i64 %ticket)
  call void @write_stamp(ptr %stamps, i64 %index)
  ; Every call does at least one step, whatever its budget.
  %fresh = icmp eq i64 %index, %first
  br i1 %fresh, label %release, label %look
look:
  %time = call i64 @now()
  %spent = sub i64 %time, %began
  %over = icmp sgt i64 %spent, %budget
  br i1 %over, label %pause, label %release
release:
  call void @publish(ptr %pool, ptr %release.at, i64 %ticket)
  br label %go
go:
  call void @execute(ptr %pool, ptr %steps, i64 %index, i64 0, i64 %threads, i64 %ticket)
  %index.next = add i64 %index, 1
  call void @write_stamp(ptr %stamps, i64 %index.next)
  br label %step

pause:
  store atomic i64 %start, ptr %stop.at release, align 8
  call void @publish(ptr %pool, ptr %release.at, i64 %leaving)
  call void @gather(ptr %pool, i64 %threads, i64 %leaving)
  br label %return
finish:
  call void @gather(ptr %pool, i64 %threads, i64 %leaving)
  call void @write_stamp(ptr %stamps, i64 %count)
  br label %return
return:
  call void @float_mode_set(i64 %mode)
  ret i64 %index
}

; A step that copies `end` bytes.
declare ptr @memcpy(ptr, ptr, i64)
define void @quern_copy(ptr %args, i64 %begin, i64 %end) {
  %target.at = getelementptr ptr, ptr %args, i64 1
  %source = load ptr, ptr %args
  %target = load ptr, ptr %target.at
  %copied = call ptr @memcpy(ptr %target, ptr %source, i64 %end)
  ret void
}

define internal void @write_stamp(ptr %stamps, i64 %index) {
  %unwanted = icmp eq ptr %stamps, null
  br i1 %unwanted, label %done, label %write
write:
  %now = call i64 @now()
  %at = getelementptr i64, ptr %stamps, i64 %index
  store i64 %now, ptr %at
  br label %done
done:
  ret void
}

; Send the workers home. They return from `quern_worker`.
define void @quern_close(ptr %pool) {
  %start.at = getelementptr %Pool, ptr %pool, i64 0, i32 0
  %steps.at = getelementptr %Pool, ptr %pool, i64 0, i32 3
  %last.at = getelementptr %Pool, ptr %pool, i64 0, i32 7
  %last = load i64, ptr %last.at
  %start = add i64 %last, 1
  store i64 %start, ptr %last.at
  store ptr null, ptr %steps.at
  call void @publish(ptr %pool, ptr %start.at, i64 %start)
  ret void
}
"""

# Kernels run with subnormals and rounding to nearest on every thread: a library that set "flush to
# zero" in the caller's thread must not make thread 0's share differ from the others'.
_X86 = r"""
declare void @llvm.x86.sse2.pause()
define internal void @relax() alwaysinline {
  call void @llvm.x86.sse2.pause()
  ret void
}
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)
define internal i64 @float_mode() {
  %word = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %word)
  %mode = load i32, ptr %word
  %wide = zext i32 %mode to i64
  ret i64 %wide
}
define internal void @float_mode_set(i64 %wide) {
  %word = alloca i32
  %mode = trunc i64 %wide to i32
  store i32 %mode, ptr %word
  call void @llvm.x86.sse.ldmxcsr(ptr %word)
  ret void
}
define internal void @float_mode_standard() {
  call void @float_mode_set(i64 8064)  ; 0x1f80: the processor's state after reset
  ret void
}
"""

_ARM = r"""
declare void @llvm.aarch64.isb(i32)
define internal void @relax() alwaysinline {
  call void @llvm.aarch64.isb(i32 15)  ; `yield` does nothing on most cores, this does
  ret void
}
declare i64 @llvm.aarch64.get.fpcr()
declare void @llvm.aarch64.set.fpcr(i64)
define internal i64 @float_mode() {
  %mode = call i64 @llvm.aarch64.get.fpcr()
  ret i64 %mode
}
define internal void @float_mode_set(i64 %mode) {
  call void @llvm.aarch64.set.fpcr(i64 %mode)
  ret void
}
define internal void @float_mode_standard() {
  call void @float_mode_set(i64 0)
  ret void
}
"""


def runner_ir(machine: str = platform.machine(), system: str = sys.platform) -> str:
    """The runner as LLVM IR text for a processor (`platform.machine()`) and a `sys.platform`."""
    # The clock of Python's `time.perf_counter_ns`: CLOCK_UPTIME_RAW or CLOCK_MONOTONIC.
    clock = f"@clock_id = internal constant i32 {8 if system == 'darwin' else 1}\n"
    processor = _ARM if machine.lower() in ("arm64", "aarch64") else _X86
    return clock + processor + _RUNNER + WAITING + SHARING + pointing_ir()


@dataclass(frozen=True)
class Native:
    """The runner's entry points.

    Attributes:
        run: (pool, steps, count, first, stamps, budget) -> next step, or UNSTARTED.
        close: (pool) -> None.
        point: (tuple of arrays, what is wanted, count, tables) -> how many arrays fit.
        copy: address of the function of a step that copies as many bytes as its extent.
        worker: address of the workers' start routine.
        code: what keeps the machine code in memory.
    """

    run: Callable[[int, int, int, int, int, int], int]
    close: Callable[[int], None]
    point: Callable[[tuple[object, ...], int, int, int], int]
    copy: int
    worker: int
    code: jit.Library


@functools.cache
def native() -> Native:
    """The runner in memory; compiled, or taken from the cache, at the first call of the process."""
    objects = compile_all({"runner": runner_ir()}, Target.host(), ObjectCache(), workers=1).objects
    code = jit.load([objects["runner"]])
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    run = ctypes.CFUNCTYPE(integer, pointer, pointer, integer, integer, pointer, integer)
    close = ctypes.CFUNCTYPE(None, pointer)
    # With Python's lock, so that nobody changes an array meanwhile.
    point = ctypes.PYFUNCTYPE(integer, ctypes.py_object, pointer, integer, pointer)
    return Native(
        run=run(code.address("quern_run")),
        close=close(code.address("quern_close")),
        point=point(code.address("quern_point")),
        copy=code.address("quern_copy"),
        worker=code.address("quern_worker"),
        code=code,
    )
