"""The program runner is paused between two steps: signals, Ctrl-C, other threads, forks."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType, SimpleNamespace

import numpy as np
import pytest
from native_programs import TEAMS, Program, check_chain, child, finish, naps

from quern.runtime import program as programs
from quern.runtime import threads
from quern.runtime.native import native
from quern.runtime.tables import Tables
from quern.runtime.threads import BARRIER, PARALLEL, _Team, get_runner


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


def test_teams_pause_only_where_all_have_met(monkeypatch: pytest.MonkeyPatch) -> None:
    # Elsewhere one thread would wait for the others, who do the whole of the next step without it.
    calls = 0

    def counted(*arguments: int) -> int:
        nonlocal calls
        calls += 1
        return native().run(*arguments)

    runner = get_runner(2)
    check_chain(runner, seed=3)  # which starts the workers
    monkeypatch.setattr(runner, "slice_ns", -1)
    monkeypatch.setattr(threads, "native", lambda: SimpleNamespace(run=counted))
    for flags, expected in ((0, 8), (PARALLEL, 1), (PARALLEL | BARRIER, 8)):
        calls = 0
        naps(8, 1, flags).run(runner)
        assert calls == expected


def test_programs_that_need_no_barrier_can_pause_all_the_same() -> None:
    call = programs.KernelCall("serial", (), "forward", "", ())
    step = programs.Step("f", 1, parallel=False, barrier=False, kernel=0)
    loop = programs.Loop(begin=0, end=3, count=1000)
    program = programs.Program("", (), (), (), (), (call,), (step,) * 5, (), 0, (loop,))
    rows = Tables(program, lambda symbol: 0).rows
    meetings = np.flatnonzero(rows[:, 3] & BARRIER)
    assert np.diff(meetings, prepend=-1, append=len(rows)).max() <= 256


def test_resumed_threads_still_wait_for_those_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    # When thread 0 wants to pause, threads 1 and 3 are in one of their naps, their shares of
    # `middle` still to be done. Threads 2 and 0 must not read those before that.
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


@pytest.mark.parametrize("flags", [0, BARRIER, PARALLEL | BARRIER])
def test_exception_from_a_signal_ends_the_run_between_two_steps(flags: int) -> None:
    class Enough(Exception):
        pass

    def enough(signum: int, frame: FrameType | None) -> None:
        raise Enough

    runner, hits = get_runner(2), np.zeros(8, np.int64)
    program = naps(3000, 10_000, flags)
    program.add("record", 8, flags, hits, np.zeros(8, np.int64))
    before = signal.signal(signal.SIGALRM, enough)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Enough):
            program.run(runner)
    finally:
        signal.signal(signal.SIGALRM, before)
    check_chain(runner, seed=7)
    np.testing.assert_array_equal(hits, 0)  # nothing of the interrupted program ran later


def test_a_team_whose_making_was_interrupted_is_dropped_quietly() -> None:
    _Team.__new__(_Team).__del__()


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


# -- processes -------------------------------------------------------------------------------------


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
