"""How many threads there are: arguments, environment, affinity and control groups."""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import llvmlite.binding as llvm
import pytest

from quern.compiler.errors import UsageError
from quern.runtime import cpus
from quern.runtime.cpus import cpu_quota, usable_cpus
from quern.runtime.native import runner_ir
from quern.runtime.threads import default_threads, get_runner


@pytest.mark.parametrize("threads", [0, -1, 1025, 1.5, "2", True])
def test_thread_counts_that_make_no_sense_are_refused(threads: int) -> None:
    with pytest.raises(UsageError, match="whole number from 1 to 1024"):
        get_runner(threads)


# -- how many threads ------------------------------------------------------------------------------


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


# -- other machines --------------------------------------------------------------------------------


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
