"""Machine code on all cores: workers, their ends, and processes with workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from ir_units import FATAL, HOST, SSE, UNPARSABLE, add_constant, tile

from quern.compiler.llvm import pool
from quern.compiler.llvm.codegen import CodegenError
from quern.compiler.llvm.pool import Compilation, compile_all, usable_cpus

UNITS = {f"kernel{i}": tile(8, 1 + i % 4, 16 + i) for i in range(9)}


class TestParallel:
    def test_workers_give_the_same_bytes(self) -> None:
        here = compile_all(UNITS, HOST, workers=1)
        there = compile_all(UNITS, HOST, workers=2)
        assert list(there.objects) == list(UNITS)
        assert there.objects == here.objects
        assert there.compiled == here.compiled == len(UNITS)

    def test_equal_units_are_compiled_once(self) -> None:
        ir = add_constant("f", 1.0)
        result = compile_all({"a": ir, "b": ir, "c": add_constant("f", 2.0)}, HOST)
        assert result.compiled == 2
        assert result.objects["a"] == result.objects["b"] != result.objects["c"]

    def test_nothing_to_do(self) -> None:
        assert compile_all({}, HOST).objects == {}

    @pytest.mark.parametrize("workers", [1, 2])
    def test_refused_unit_is_named(self, workers: int) -> None:
        with pytest.raises(CodegenError, match=r"bad: .*line 2: %x = add i32 1, 2\.0") as caught:
            compile_all({**UNITS, "bad": UNPARSABLE}, HOST, workers=workers)
        assert caught.value.unit == "bad"
        assert caught.value.line == "%x = add i32 1, 2.0"

    def test_unit_that_kills_llvm_is_named_and_leaves_no_trace(self) -> None:
        with pytest.raises(
            CodegenError, match=r"deadly: LLVM died compiling it .*LLVM ERROR"
        ) as caught:
            compile_all({**UNITS, "deadly": FATAL}, SSE, workers=2)
        assert caught.value.unit == "deadly"
        assert compile_all(UNITS, SSE, workers=2).compiled == len(UNITS)

    def test_worker_ended_from_outside_is_replaced(self) -> None:
        compile_all(UNITS, HOST, workers=2)
        for worker in pool._POOL._workers:
            os.kill(worker._process.pid, signal.SIGSTOP)  # still alive when it is chosen
        threading.Timer(0.2, lambda: [w._process.kill() for w in pool._POOL._workers]).start()
        assert compile_all(UNITS, HOST, workers=2).compiled == len(UNITS)

    def test_workers_that_do_not_start_are_done_without(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pool, "_POOL", pool._Pool())
        monkeypatch.setattr(sys, "executable", "/bin/false")
        assert compile_all(UNITS, HOST, workers=2).compiled == len(UNITS)

    def test_from_several_threads(self) -> None:
        expected = compile_all(UNITS, HOST, workers=1).objects
        results: list[dict[str, bytes]] = []
        threads = [
            threading.Thread(
                target=lambda n=n: results.append(compile_all(UNITS, HOST, workers=n).objects)
            )
            for n in (1, 2, 2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [expected] * 3

    def test_workers_begin_while_units_are_added(self) -> None:
        expected = compile_all(UNITS, HOST, workers=1).objects
        with Compilation(HOST, workers=2) as compilation:
            for name, ir in UNITS.items():
                compilation.add(name, ir)
            for _ in range(3000):
                if compilation._found:
                    break
                time.sleep(0.01)
            assert compilation._found
            compilation.add("one more", add_constant("f", 1.0))
            objects = compilation.result().objects
        assert list(objects) == [*UNITS, "one more"]
        assert {name: objects[name] for name in UNITS} == expected

    def test_nobody_waits_for_units_that_are_given_up(self) -> None:
        with Compilation(HOST, workers=2) as compilation:
            for name, ir in UNITS.items():
                compilation.add(name, ir)
        assert compile_all(UNITS, HOST, workers=2).compiled == len(UNITS)

    def test_number_of_cores_is_what_the_process_may_use(self) -> None:
        assert 1 <= usable_cpus() <= len(os.sched_getaffinity(0))


def run_script(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run a Python file of its own, without a main guard."""
    script = folder / "script.py"
    script.write_text(text)
    return subprocess.run(
        [sys.executable, "-W", "error", str(script)], capture_output=True, text=True, timeout=60
    )


PREAMBLE = """\
from quern.compiler.llvm import pool
from quern.compiler.llvm.target import Target
units = {f"f{i}": f"define float @f{i}() {{ ret float {i}.0 }}" for i in range(4)}
first = pool.compile_all(units, Target.host(), workers=2)
"""


class TestProcesses:
    def test_script_without_main_guard(self, tmp_path: Path) -> None:
        done = run_script(tmp_path, PREAMBLE + "print('once', first.compiled)\n")
        assert (done.returncode, done.stdout, done.stderr) == (0, "once 4\n", "")

    def test_forked_child_has_workers_of_its_own(self, tmp_path: Path) -> None:
        done = run_script(
            tmp_path,
            PREAMBLE
            + """\
import os, sys
child = os.fork()
again = pool.compile_all(units, Target.host(), workers=2)
assert again.objects == first.objects
if child:
    assert os.waitpid(child, 0)[1] == 0
    print("done")
""",
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")

    def test_interrupt_ends_the_workers(self, tmp_path: Path) -> None:
        done = run_script(
            tmp_path,
            PREAMBLE
            + """\
import os, signal, threading
pids = [w._process.pid for w in pool._POOL._workers]
for pid in pids:
    os.kill(pid, signal.SIGSTOP)  # so that the work does not end before the interrupt
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    pool.compile_all(units, Target.host(), workers=2)
except KeyboardInterrupt:
    print(len(pids), pool._POOL.running)
for pid in pids:
    try:
        os.kill(pid, 0)
        print("still there")
    except ProcessLookupError:
        pass
""",
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "2 0\n", "")
