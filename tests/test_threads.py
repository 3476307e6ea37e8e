"""The program runner: how steps are shared, ordered, paused and interrupted; and thread counts."""

from __future__ import annotations

import ctypes
import functools
import math
import os
import platform
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

import llvmlite.binding as llvm
import numpy as np
import pytest
from numpy.typing import NDArray

from quern.compiler.errors import UsageError
from quern.runtime import cpus
from quern.runtime.cpus import cpu_quota, usable_cpus
from quern.runtime.native import runner_ir
from quern.runtime.threads import BARRIER, PARALLEL, Runner, default_threads, get_runner

TEAMS = [1, 2, 4, 7]
Ints = NDArray[np.int64]

# record: how often [begin, end) was run, and where each call began and ended.
# mirror: dst[i] = 3·src[extent - 1 - i] + i; reads what the thread at the other end wrote.
# nap: sleep for args[0][0] microseconds. halve: dst[i] = src[i] / 2, in float32.
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

FLUSH_TO_ZERO = r"""
declare void @llvm.x86.sse.ldmxcsr(ptr)
declare void @llvm.x86.sse.stmxcsr(ptr)
define i32 @exchange(i32 %new) {
  %old.word = alloca i32
  %new.word = alloca i32
  store i32 %new, ptr %new.word
  call void @llvm.x86.sse.stmxcsr(ptr %old.word)
  call void @llvm.x86.sse.ldmxcsr(ptr %new.word)
  %old = load i32, ptr %old.word
  ret i32 %old
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


def child(code: str) -> subprocess.Popen[str]:
    """A fresh interpreter that runs `code` with this module's names at hand."""
    code = f"from {Path(__file__).stem} import *\n{textwrap.dedent(code)}"
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


# Sharing and order


@pytest.mark.parametrize("threads", TEAMS)
@pytest.mark.parametrize("extent", [0, 1, 2, 5, 7, 1000])
def test_parallel_step_is_split_statically_and_every_index_runs_once(
    threads: int, extent: int
) -> None:
    hits, ends = np.zeros(extent + 1, np.int64), np.full(extent + 1, -1)
    program = Program()
    program.add("record", extent, PARALLEL, hits, ends)
    program.run(get_runner(threads))
    np.testing.assert_array_equal(hits, [1] * extent + [0])
    shares = {(extent * t // threads, extent * (t + 1) // threads) for t in range(threads)}
    assert {(begin, int(end)) for begin, end in enumerate(ends) if end >= 0} == {
        (begin, end) for begin, end in shares if begin < end
    }


@pytest.mark.parametrize("threads", TEAMS)
@pytest.mark.parametrize("others", [[], [PARALLEL | BARRIER]])
def test_serial_step_runs_whole_on_one_thread(threads: int, others: list[int]) -> None:
    program = Program()
    for flags in others:
        program.add("record", 9, flags, np.zeros(9, np.int64), np.zeros(9, np.int64))
    hits, ends = np.zeros(10, np.int64), np.full(10, -1)
    program.add("record", 10, BARRIER, hits, ends)
    program.run(get_runner(threads))
    np.testing.assert_array_equal(hits, 1)
    np.testing.assert_array_equal(ends, [10] + [-1] * 9)


@pytest.mark.parametrize("threads", TEAMS)
def test_dependent_steps_see_each_other_s_results(threads: int) -> None:
    check_chain(get_runner(threads), seed=threads, length=60, repeat=20)


@pytest.mark.parametrize("threads", [2, 4])
def test_thousands_of_runs_of_one_program(threads: int) -> None:
    program, runner = Program(), get_runner(threads)
    a, b, n = np.arange(64), np.zeros(64, np.int64), np.array([64])
    program.add("mirror", 64, PARALLEL, a, b, n)
    program.add("mirror", 64, PARALLEL | BARRIER, b, a, n)
    steps, expected = program.steps, a.copy()
    for _ in range(3000):
        runner.run(steps)
        for _ in range(2):
            expected = 3 * expected[::-1] + np.arange(64)
    np.testing.assert_array_equal(a, expected)


def test_empty_program_is_done_at_once() -> None:
    stamps = np.zeros(1, np.int64)
    get_runner(2).run(np.zeros((0, 4), np.int64), stamps)
    assert stamps[0] > 0


@pytest.mark.parametrize("threads", TEAMS)
def test_timestamps_are_the_starts_of_steps_and_the_end(threads: int) -> None:
    program = naps(6, 1000, PARALLEL | BARRIER)
    stamps = np.zeros(7, np.int64)
    before = time.perf_counter_ns()
    program.run(get_runner(threads), stamps)
    after = time.perf_counter_ns()
    assert before <= stamps[0]
    assert stamps[-1] <= after
    assert np.diff(stamps).min() >= 1_000_000  # each step sleeps that long


# Pauses, signals, several callers


@pytest.mark.parametrize("threads", TEAMS)
def test_pausing_between_any_two_steps_changes_nothing(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = get_runner(threads)
    monkeypatch.setattr(runner, "slice_ns", -1)  # pause wherever it is possible
    check_chain(runner, seed=50 + threads, length=40, repeat=10)


@pytest.mark.parametrize("threads", TEAMS)
def test_pausing_while_threads_are_at_different_steps_repeats_and_skips_nothing(
    threads: int, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    # Without barriers threads run ahead of each other, by as much as the naps make them.
    runner = get_runner(threads)
    for slice_ns in (-1, 50_000, 300_000):
        monkeypatch.setattr(runner, "slice_ns", slice_ns)
        program, hits = Program(), np.zeros((60, 32), np.int64)
        for row in hits:
            flags = int(rng.choice([0, PARALLEL, PARALLEL, PARALLEL, BARRIER, PARALLEL | BARRIER]))
            if rng.random() < 0.3:
                program.add("nap", int(rng.integers(1, 9)), flags, rng.integers(1, 200, 1))
            program.add("record", 32, flags, row, np.zeros(32, np.int64))
        program.run(runner)
        np.testing.assert_array_equal(hits, 1)


def test_resumed_threads_still_wait_for_those_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    # When thread 0 pauses before the last step, threads 1 and 3 are in one of their naps, their
    # shares of `middle` still to be done. Threads 2 and 0 must not read those before that.
    runner, extent = get_runner(4), np.array([4])
    monkeypatch.setattr(runner, "slice_ns", 100_000)
    for _ in range(10):
        program = Program()
        first, middle, last = np.arange(1, 5), np.zeros(4, np.int64), np.zeros(4, np.int64)
        for _ in range(3):
            program.add("nap", 2, PARALLEL, np.array([1000]))  # threads 1 and 3
        program.add("mirror", 4, PARALLEL, first, middle, extent)
        program.add("nap", 1, 0, np.array([200]))  # thread 0
        program.add("mirror", 4, PARALLEL | BARRIER, middle, last, extent)
        program.run(runner)
        expected = 3 * first[::-1] + np.arange(4)
        np.testing.assert_array_equal(last, 3 * expected[::-1] + np.arange(4))


@pytest.mark.parametrize("flags", [0, PARALLEL, PARALLEL | BARRIER])
def test_exception_from_a_signal_ends_the_run_between_two_steps(flags: int) -> None:
    class Enough(Exception):
        pass

    def enough(signum: int, frame: FrameType | None) -> None:
        raise Enough

    runner, hits = get_runner(2), np.zeros(8, np.int64)
    program = naps(3000, 10_000, flags)
    program.add("record", 8, PARALLEL | BARRIER, hits, np.zeros(8, np.int64))
    before = signal.signal(signal.SIGALRM, enough)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Enough):
            program.run(runner)
    finally:
        signal.signal(signal.SIGALRM, before)
    check_chain(runner, seed=7)
    np.testing.assert_array_equal(hits, 0)  # nothing of the interrupted program ran later


def test_signal_handler_may_run_a_program_on_the_same_runner() -> None:
    runner, calls = get_runner(2), 0

    def handler(signum: int, frame: FrameType | None) -> None:
        nonlocal calls
        calls += 1
        check_chain(runner, seed=8)

    program, hits = Program(), np.zeros((300, 16), np.int64)
    for row in hits:
        program.add("nap", 2, PARALLEL, np.array([1000], np.int64))
        program.add("record", 16, PARALLEL | BARRIER, row, np.zeros(16, np.int64))
    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        program.run(runner)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert calls == 1
    np.testing.assert_array_equal(hits, 1)


def test_several_python_threads_take_turns() -> None:
    def work(seed: int) -> None:
        check_chain(get_runner([2, 2, 2, 3][seed % 4]), seed, length=30, repeat=15)

    with ThreadPoolExecutor(8) as pool:
        for job in [pool.submit(work, seed) for seed in range(16)]:
            job.result()


@pytest.mark.parametrize("threads", [1, 2])
def test_control_c_is_keyboard_interrupt_and_the_runner_stays_usable(threads: int) -> None:
    process = child(f"""
        runner = get_runner({threads})
        program = naps(30_000, 10_000, PARALLEL | BARRIER)  # five minutes
        check_chain(runner, seed=1)
        print("ready", flush=True)
        try:
            program.run(runner)
        except KeyboardInterrupt:
            check_chain(runner, seed=2)
            print("interrupted", flush=True)
        program.run(runner)
        """)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "interrupted\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)  # this one is not caught
    code, _, err = finish(process)
    assert code == -signal.SIGINT
    assert err.rstrip().endswith("KeyboardInterrupt")


# Processes


def in_fork(work: Callable[[], None]) -> None:
    """Run `work` in a forked child, which must succeed."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# Python 3.12 warns of every fork of a process with threads; it is what is tested here.
forks = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@forks
def test_forked_child_starts_its_own_workers() -> None:
    runner = get_runner(2)
    check_chain(runner, seed=3)
    in_fork(lambda: check_chain(runner, seed=4, repeat=5))
    check_chain(runner, seed=5)


@forks
def test_fork_while_another_thread_runs_a_program() -> None:
    runner = get_runner(2)
    thread = threading.Thread(target=naps(60, 5000, PARALLEL | BARRIER).run, args=[runner])
    thread.start()
    time.sleep(0.05)
    in_fork(lambda: check_chain(runner, seed=6))
    thread.join()
    check_chain(runner, seed=6)


@forks
def test_fork_in_the_middle_of_a_run_continues_it_in_both_processes() -> None:
    runner, pids = get_runner(2), [-1]

    def handler(signum: int, frame: FrameType | None) -> None:
        pids[0] = os.fork()

    program, hits = Program(), np.zeros((200, 16), np.int64)
    for row in hits:
        program.add("nap", 2, PARALLEL, np.array([1000], np.int64))
        program.add("record", 16, PARALLEL | BARRIER, row, np.zeros(16, np.int64))
    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        program.run(runner)
        good = bool((hits == 1).all())
    except BaseException:
        good = False
        raise
    finally:
        if pids[0] == 0:
            os._exit(0 if good else 1)
        signal.signal(signal.SIGALRM, before)
    assert good
    assert os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]) == 0


@pytest.mark.parametrize(
    "last_words",
    [
        "pass",  # workers still spin
        "time.sleep(0.3)",  # workers sleep
        "atexit.register(check_chain, get_runner(2), 2)",
        "busy.start()",
        "busy.start(); time.sleep(0.3)",
        "sys.exit(0)",
    ],
)
def test_interpreter_exits_cleanly(last_words: str) -> None:
    process = child(f"""
        import atexit
        long = naps(30_000, 10_000, PARALLEL | BARRIER)  # five minutes
        check_chain(get_runner(2), seed=1)
        check_chain(get_runner(3), seed=1)
        busy = threading.Thread(target=long.run, args=[get_runner(2)], daemon=True)
        {last_words}
        """)
    assert finish(process) == (0, "", "")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_workers_are_gone_before_the_interpreter_is_taken_down() -> None:
    process = child("""
        import atexit
        count = lambda: len(os.listdir("/proc/self/task"))
        before = count()
        atexit.register(lambda: print(count() - before))  # runs last
        check_chain(get_runner(4), seed=1)
        print(count() - before)
        """)
    assert finish(process) == (0, "3\n0\n", "")


def test_idle_workers_use_no_processor_time() -> None:
    check_chain(get_runner(4), seed=9)
    before = time.process_time()
    time.sleep(0.5)
    # Three spinning workers would use 0.5 s or more, on any number of cores.
    assert time.process_time() - before < 0.25


def test_waiting_threads_use_no_processor_time() -> None:
    program = naps(1, 0, PARALLEL)
    program.add("nap", 1, BARRIER, np.array([400_000], np.int64))
    program.add("nap", 4, PARALLEL | BARRIER, np.array([0], np.int64))
    before = time.process_time()
    program.run(get_runner(4))
    assert time.process_time() - before < 0.2


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_serial_programs_start_no_workers() -> None:
    runner = Runner(5)
    before = len(os.listdir("/proc/self/task"))
    naps(3, 1, BARRIER).run(runner)
    assert len(os.listdir("/proc/self/task")) == before
    naps(3, 1, PARALLEL).run(runner)
    assert len(os.listdir("/proc/self/task")) == before + 4


def test_too_many_threads_for_the_system_is_a_clear_error() -> None:
    process = child("""
        import resource
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), resource.RLIM_INFINITY))
        try:
            naps(1, 1, PARALLEL).run(get_runner(1000))
        except UsageError as error:
            print(error)
        check_chain(get_runner(2), seed=1)
        """)
    if not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc")
    code, out, err = finish(process)
    assert (code, err) == (0, "")
    assert out.startswith("cannot start thread ")
    assert "of 1000" in out
    assert "QUERN_NUM_THREADS" in out


# Arithmetic


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="needs x86-64")
@pytest.mark.parametrize("flags", [0, PARALLEL])
def test_caller_s_flush_to_zero_does_not_reach_the_kernels(flags: int) -> None:
    exchange = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_uint32)(
        compiled(FLUSH_TO_ZERO)("exchange")
    )
    tiny = np.full(64, np.float32(1e-40))
    halves, expected = np.zeros_like(tiny), tiny / 2
    program = Program()
    program.add("halve", 64, flags, tiny, halves)
    steps, runner = program.steps, Runner(2)  # a new one, whose workers inherit the caller's mode
    before = exchange(0x9FC0)  # flush to zero, denormals are zero
    try:
        runner.run(steps)
    finally:
        after = exchange(before)
    assert after & 0x8040 == 0x8040  # as the caller had it
    np.testing.assert_array_equal(halves, expected)
    assert (halves != 0).all()


# Calls that are refused


@pytest.mark.parametrize(
    "steps",
    [
        np.zeros((3, 5), np.int64),
        np.zeros(4, np.int64),
        np.zeros((3, 4), np.int32),
        np.zeros((3, 8), np.int64)[:, ::2],
    ],
)
def test_misshapen_programs_are_refused(steps: Ints) -> None:
    with pytest.raises(ValueError, match=r"steps is"):
        get_runner(1).run(steps)


@pytest.mark.parametrize(
    "stamps", [np.zeros(3, np.int64), np.zeros(4, np.float64), np.zeros(8, np.int64)[::2]]
)
def test_misshapen_timestamps_are_refused(stamps: Ints) -> None:
    with pytest.raises(ValueError, match=r"timestamps is"):
        naps(3, 1, 0).run(get_runner(1), stamps)


@pytest.mark.parametrize("threads", [0, -1, 1025, 1.5, "2", True])
def test_thread_counts_that_make_no_sense_are_refused(threads: int) -> None:
    with pytest.raises(UsageError, match="whole number from 1 to 1024"):
        get_runner(threads)


# How many threads


def test_one_runner_for_each_thread_count() -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: get_runner(6), range(32)))) == 1
    assert get_runner(6).threads == 6
    assert get_runner(6) is not get_runner(5)


def test_environment_gives_the_thread_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUERN_NUM_THREADS", " 5 ")
    assert default_threads() == 5
    assert get_runner() is get_runner(5)
    assert get_runner(2).threads == 2


@pytest.mark.parametrize("value", ["0", "-2", "two", "1.5", "100000", "²"])
def test_bad_environment_is_a_clear_error(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUERN_NUM_THREADS", value)
    with pytest.raises(UsageError, match=r"QUERN_NUM_THREADS is .*whole number from 1 to 1024"):
        default_threads()


@pytest.mark.parametrize(
    ("processors", "quota", "usable"),
    [(8, math.inf, 8), (8, 2.5, 3), (2, 4.0, 2), (4, 0.1, 1), (4000, math.inf, 4000)],
)
def test_default_is_the_lesser_of_affinity_and_quota(
    processors: int, quota: float, usable: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def affinity(pid: int) -> set[int]:
        return set(range(processors))

    monkeypatch.delenv("QUERN_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", affinity, raising=False)
    monkeypatch.setattr(cpus, "cpu_quota", lambda: quota)
    assert usable_cpus() == usable
    assert default_threads() == min(usable, 1024)


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        ("0::/", {}, math.inf),
        ("0::/", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/a/b", {"a/b/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "400000 100000"}, 4.0),
        ("0::/a/b", {"a/b/cpu.max": "500000 100000", "a/cpu.max": "200000 100000"}, 2.0),
        ("0::/host/path", {"cpu.max": "300000 100000\n"}, 3.0),  # inside a container
        ("0::/a", {"unified/a/cpu.max": "50000 100000"}, 0.5),
        ("0::/a", {"a/cpu.max": "something else"}, math.inf),
        (
            "4:cpu,cpuacct:/d\n2:memory:/m",
            {
                "cpu,cpuacct/d/cpu.cfs_quota_us": "250000",
                "cpu,cpuacct/d/cpu.cfs_period_us": "100000",
            },
            2.5,
        ),
        (
            "4:cpu:/d",
            {"cpu/d/cpu.cfs_quota_us": "-1", "cpu/d/cpu.cfs_period_us": "100000"},
            math.inf,
        ),
        ("4:cpuset:/d", {"cpu/d/cpu.cfs_quota_us": "1", "cpu/d/cpu.cfs_period_us": "1"}, math.inf),
    ],
)
def test_cpu_quota_of_control_groups(
    groups: str, files: dict[str, str], quota: float, tmp_path: Path
) -> None:
    texts = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in {"proc/self/cgroup": groups, **texts}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert cpu_quota(tmp_path) == quota


def test_no_control_groups_is_no_limit(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) == math.inf


# Other machines


@pytest.mark.parametrize(
    ("machine", "system", "triple"),
    [
        ("x86_64", "linux", "x86_64-linux-gnu"),
        ("x86_64", "darwin", "x86_64-apple-darwin"),
        ("aarch64", "linux", "aarch64-linux-gnu"),
        ("arm64", "darwin", "aarch64-apple-darwin"),
    ],
)
def test_runner_compiles_for_other_machines(machine: str, system: str, triple: str) -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    module = llvm.parse_assembly(runner_ir(machine, system))
    module.verify()
    target = llvm.Target.from_triple(triple).create_target_machine()
    assert "quern_run" in target.emit_assembly(module)
