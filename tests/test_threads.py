"""The program runner: how steps are shared, ordered and waited for; what it costs while idle."""

from __future__ import annotations

import ctypes
import os
import platform
import time
from pathlib import Path

import numpy as np
import pytest
from native_programs import TEAMS, Ints, Program, check_chain, child, compiled, finish, naps

from quern.runtime.threads import BARRIER, PARALLEL, Runner, get_runner

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

# -- sharing and order -----------------------------------------------------------------------------


@pytest.mark.parametrize("threads", TEAMS)
@pytest.mark.parametrize("extent", [0, 1, 2, 5, 7, 1000])
def test_every_index_of_a_parallel_step_runs_once_in_pieces_of_shares(
    threads: int, extent: int
) -> None:
    hits, ends = np.zeros(extent + 1, np.int64), np.full(extent + 1, -1)
    program = Program()
    program.add("record", extent, PARALLEL, hits, ends)
    program.run(get_runner(threads))
    np.testing.assert_array_equal(hits, [1] * extent + [0])
    shares = [(extent * t // threads, extent * (t + 1) // threads) for t in range(threads)]
    for begin, end in enumerate(ends):
        assert end < 0 or any(low <= begin <= end <= high for low, high in shares)


@pytest.mark.parametrize("threads", [2, 4, 7])
def test_threads_that_are_done_help_those_that_are_not(threads: int) -> None:
    # Whoever has index 0 waits for the last index of the same share: others have to run it.
    extent = 8 * threads
    program, hits = Program(), np.zeros((20, extent), np.int64)
    for row in hits:
        program.add("await", extent, PARALLEL | BARRIER, row, np.array([7]))
    program.run(get_runner(threads))
    np.testing.assert_array_equal(hits, 1)


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


# -- arithmetic ------------------------------------------------------------------------------------


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


# -- calls that are refused ------------------------------------------------------------------------


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
