"""Profiles: times of kernels against the machine's limits; `quern profile` and `quern bench`."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import networks
import numpy as np
import pytest

import quern as qn
from quern.compiler.errors import InputError, UsageError
from quern.compiler.loops.bounds import prove
from quern.compiler.loops.cost import cost
from quern.compiler.training import build_training_step
from quern.compiler.types import DType, TensorType
from quern.frontends.cli.main import main
from quern.frontends.cli.timing import Timing
from quern.optim import SGD
from quern.runtime import peaks as machine
from quern.runtime.executable import Executable
from quern.runtime.peaks import (
    Peaks,
    mixing_kernel,
    product_kernel,
    reading_kernel,
    updating_kernel,
)
from quern.runtime.profile import HEADINGS, from_timestamps, profile
from quern.runtime.program import KernelCall, Program, Slot, SlotKind, Step

KNOWN = Peaks(1, 100e9, 50e9, ((1 << 20, 80e9), (1 << 28, 20e9)))


@pytest.fixture(autouse=True)
def known_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is measured in tests that do not ask for it."""
    monkeypatch.setattr(machine, "measured", lambda threads: KNOWN)


@pytest.fixture(scope="module")
def lenet() -> Executable:
    return qn.compile(networks.lenet(), threads=1, workers=1, algorithms="direct")


def program(flops: int, nbytes: int, *slots: Slot, arena: int = 0) -> Program:
    """Two kernels: the first has two steps, and the numbers given; the second does nothing."""
    places = tuple(range(len(slots)))
    written = (TensorType((2, 3)),)
    calls = (
        KernelCall("first", ("n",), "forward", "how", places, flops, nbytes, ("u",), (), written),
        KernelCall("second", (), "update", "", ()),
    )
    steps = tuple(Step(f"s{i}", 1, False, False, kernel) for i, kernel in enumerate((0, 0, 1)))
    return Program("p", (), (), (), slots, calls, steps, (), arena)


def stamps(*milliseconds: tuple[int, ...]) -> np.ndarray:
    """Times at which steps begin, for runs whose steps take so many milliseconds."""
    ends = np.cumsum(np.array(milliseconds, np.int64), axis=1) * 1_000_000
    return np.concatenate((np.zeros((len(ends), 1), np.int64), ends), axis=1) + 12345


# -- figures --------------------------------------------------------------------------------------


def test_a_kernel_takes_the_median_of_the_sums_of_its_steps() -> None:
    found = from_timestamps(program(0, 0), stamps((1, 2, 4), (1, 1, 9), (30, 1, 5)), KNOWN)
    first, second = found.kernels
    assert first.seconds == pytest.approx(3e-3)
    assert second.seconds == pytest.approx(5e-3)
    assert found.seconds == pytest.approx(11e-3)
    assert found.runs == 3
    assert [found.share(k) for k in found.kernels] == pytest.approx([3 / 8, 5 / 8])
    assert found.slowest(1) == [second]


def test_a_kernel_is_as_slow_as_its_operations_at_the_peak() -> None:
    found = from_timestamps(program(10**9, 1000), stamps((10, 10, 0)), KNOWN).kernels[0]
    assert found.bound == "FLOPs"
    assert found.limit == pytest.approx(0.01)
    assert found.roofline == pytest.approx(0.5)
    assert found.flops_per_second == pytest.approx(50e9)


def test_bytes_between_kernels_come_from_the_cache_that_holds_what_the_kernel_touches() -> None:
    small = from_timestamps(program(0, 1 << 20), stamps((1, 0, 0)), KNOWN).kernels[0]
    assert small.limit == pytest.approx((1 << 20) / 80e9)
    large = from_timestamps(program(0, 2 << 20), stamps((1, 0, 0)), KNOWN).kernels[0]
    assert large.limit == pytest.approx((2 << 20) / 20e9)
    assert large.bound == "bytes"
    assert large.bytes_per_second == pytest.approx((2 << 20) / 1e-3)


def test_parameters_come_from_where_everything_fits() -> None:
    weights = Slot(SlotKind.STATE, "w", 1000)
    inside = from_timestamps(program(0, 5000, weights), stamps((1, 0, 0)), KNOWN).kernels[0]
    assert inside.limit == pytest.approx(5000 / 80e9)
    big = program(0, 5000, weights, arena=10 << 20)
    assert from_timestamps(big, stamps((1, 0, 0)), KNOWN).kernels[0].limit == pytest.approx(
        1000 / 20e9 + 4000 / 80e9
    )


def test_what_is_written_passes_besides_what_is_read() -> None:
    both = replace(KNOWN, traffic=((1 << 20, 120e9), (1 << 28, 30e9)))
    read, written = 5000, TensorType((2, 3)).nbytes
    found = from_timestamps(program(0, read + written), stamps((1, 0, 0)), both).kernels[0]
    assert found.limit == pytest.approx(read / 80e9)
    found = from_timestamps(program(0, written), stamps((1, 0, 0)), both).kernels[0]
    assert found.limit == pytest.approx(written / 120e9)


def test_a_kernel_without_time_divides_by_nothing() -> None:
    found = from_timestamps(program(5, 5), stamps((0, 0, 0)), KNOWN)
    assert found.kernels[0].roofline == 0.0
    assert found.share(found.kernels[0]) == 0.0
    assert "total of 2 kernels" in str(found)


# -- running --------------------------------------------------------------------------------------


def test_a_profile_has_every_kernel_of_the_network_in_order(lenet: Executable) -> None:
    found = profile(lenet, duration=0.01)
    assert [k.name for k in found.kernels] == [k.name for k in lenet.program.kernels]
    assert found.runs >= 5
    assert all(k.seconds >= 0 and k.limit >= 0 for k in found.kernels)
    conv = max((k for k in found.kernels if "conv2" in k.origins), key=lambda k: k.flops)
    assert conv.phase == "forward"
    assert conv.note
    assert conv.flops >= 2 * 2 * 16 * 10 * 10 * 6 * 5 * 5
    assert sum(t.size for t in conv.reads) >= 2 * 6 * 14 * 14 + 16 * 6 * 5 * 5
    assert conv.writes[0].size >= 2 * 16 * 5 * 5
    assert conv.name in str(found)


def test_inputs_by_name_and_in_order(lenet: Executable, rng: np.random.Generator) -> None:
    image = rng.standard_normal((2, 1, 28, 28), np.float32)
    target = np.array([1, 2])
    assert qn.profile(lenet, (image, target), duration=0.01).runs >= 5
    assert qn.profile(lenet, {"image": image, "target": target}, duration=0.01).runs >= 5
    with pytest.raises(InputError, match=r"takes 2 inputs \(image, target\), got 1"):
        profile(lenet, image)


def test_a_training_step_has_three_phases() -> None:
    step = build_training_step(networks.lenet(), "loss", SGD(0.01, momentum=0.9))
    found = profile(qn.compile(step, threads=1, workers=1), duration=0.01)
    assert {k.phase for k in found.kernels} == {"forward", "backward", "update"}


def test_json_holds_all_figures(lenet: Executable) -> None:
    found = profile(lenet, duration=0.01)
    data = json.loads(json.dumps(found.to_json()))
    assert data["seconds"] == found.seconds
    assert data["limit"] == pytest.approx(sum(k["limit"] for k in data["kernels"]))
    assert sum(k["share"] for k in data["kernels"]) == pytest.approx(1.0)
    assert data["peaks"]["float32"] == KNOWN.float32
    assert data["kernels"][0]["origins"] == ["conv1", "relu1", "pool1"]


def test_top_sums_up_what_it_leaves_out(lenet: Executable) -> None:
    found = profile(lenet, duration=0.01)
    rows = found.rows(top=2)
    assert len(rows) == 4
    assert all(len(row) == len(HEADINGS) for row in rows)
    assert rows[2][6] == f"{len(found.kernels) - 2} more kernels"
    assert sum(float(row[1]) for row in rows[:3]) == pytest.approx(100, abs=0.2)


# -- peaks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [DType.FLOAT32, DType.FLOAT64])
@pytest.mark.parametrize("threads", [1, 3])
def test_the_kernels_that_measure_do_what_is_counted(threads: int, dtype: DType) -> None:
    kernel, flops = product_kernel(threads, dtype)
    prove(kernel)
    assert cost(kernel).flops == flops
    for size in (4096, 1 << 20):
        kernel, nbytes = reading_kernel(threads, size)
        prove(kernel)
        assert cost(kernel).bytes_read == nbytes
        assert size / 2 < nbytes <= size
        kernel, nbytes = updating_kernel(threads, size)
        prove(kernel)
        assert cost(kernel).bytes_read == cost(kernel).bytes_written == nbytes / 2
        assert size < nbytes <= 2 * size
    for reads, writes in ((4, 1), (5, 4)):
        kernel, nbytes = mixing_kernel(threads, 1 << 20, reads, writes)
        prove(kernel)
        assert cost(kernel).bytes_read * writes == cost(kernel).bytes_written * reads
        assert 1 << 19 < nbytes <= 1 << 20


def test_peaks_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUERN_CACHE_DIR", str(tmp_path))
    asked = []
    monkeypatch.setattr(machine, "measured", lambda threads: asked.append(threads) or KNOWN)
    assert machine.peaks(1) == machine.peaks(1) == KNOWN
    assert asked == [1]
    machine.peaks(1, measure=True)
    machine.peaks(2)
    assert asked == [1, 1, 2]
    for file in tmp_path.glob("peaks-*.json"):
        file.write_text('{"float32": -1')
    assert machine.peaks(1) == KNOWN
    assert asked == [1, 1, 2, 1]


def test_the_largest_figures_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUERN_CACHE_DIR", str(tmp_path))
    disturbed = replace(KNOWN, float32=10e9, bandwidth=((1 << 20, 90e9), (1 << 28, 1e9)))
    found = iter((KNOWN, disturbed))
    monkeypatch.setattr(machine, "measured", lambda threads: next(found))
    machine.peaks(1)
    best = replace(KNOWN, bandwidth=((1 << 20, 90e9), (1 << 28, 20e9)))
    assert machine.peaks(1, measure=True) == machine.peaks(1) == best


def test_peaks_that_a_kernel_exceeds_are_measured_again(
    lenet: Executable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUERN_CACHE_DIR", str(tmp_path))
    low = replace(KNOWN, float32=1e3, float64=1e3)
    found = iter((low, KNOWN))
    monkeypatch.setattr(machine, "measured", lambda threads: next(found))
    assert profile(lenet, duration=0.01).peaks == KNOWN


def test_peaks_are_those_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(machine, "_ROUNDS", 1)
    monkeypatch.setattr(machine, "_ROUND_SECONDS", 0.0)
    monkeypatch.setattr(machine, "_WORKING_SETS", (1 << 14, 1 << 20))
    found = machine.measured(1)
    assert found.float32 > 1e8
    assert found.float64 > 1e8
    for pairs in (found.bandwidth, found.traffic):
        rates = [rate for _, rate in pairs]
        assert rates == sorted(rates, reverse=True)
        assert rates[-1] > 1e7


# -- pictures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_plot(lenet: Executable, tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    path = profile(lenet, duration=0.01).plot(tmp_path / f"lenet.{suffix}")
    start = path.read_bytes()[:200]
    assert start.startswith(b"\x89PNG") if suffix == "png" else b"<?xml" in start


def test_without_matplotlib_there_is_one_line(
    lenet: Executable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    found = profile(lenet, duration=0.01)
    with pytest.raises(UsageError, match=r"pip install 'quern\[plot\]'"):
        found.plot(tmp_path / "x.png")
    with pytest.raises(UsageError, match=r"end in \.png"):
        found.plot(tmp_path / "x.bmp")


# -- commands -------------------------------------------------------------------------------------


def test_quern_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--threads", "1", "--duration", "0.01"]
    call = ["profile", "lenet", "--input", "2x1x8x8", *arguments, "--json", "p.json", "--top", "2"]
    assert main(call) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0].split()[:4] == ["ms", "%", "GFLOP/s", "GB/s"]
    assert "more kernels" in lines[3]
    assert "total of" in lines[4]
    assert "peaks: 100 GFLOP/s of float32, 20.0 GB/s from memory" in out
    assert json.loads((tmp_path / "p.json").read_text())["threads"] == KNOWN.threads
    np.save("x.npy", np.zeros((2, 1, 8, 8), np.float32))
    assert main(["profile", "lenet", "--input", "x.npy", "--training", *arguments]) == 0
    assert "grad_conv2" in capsys.readouterr().out


def test_quern_bench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    call = ["bench", "lenet", "--input", "4x1x8x8", "--threads", "1", "--count", "7"]
    assert main([*call, "--json", "b.json"]) == 0
    out = capsys.readouterr().out
    assert "LeNet: 7 runs on 1 thread" in out
    assert all(word in out for word in ("p50", "p90", "p99", "runs/s", "batches of 4"))
    data = json.loads((tmp_path / "b.json").read_text())
    assert data["runs"] == 7
    assert data["fastest"] <= data["p50"] <= data["p90"] <= data["p99"] <= data["slowest"]
    assert data["rows_per_second"] == pytest.approx(4 * data["runs_per_second"])


def test_percentiles_and_throughput() -> None:
    timing = Timing("net", 2, 16, tuple(n / 1000 for n in range(1, 102)))
    assert timing.percentile(50) == pytest.approx(0.051)
    assert timing.percentile(90) == pytest.approx(0.091)
    assert timing.percentile(99) == pytest.approx(0.1)
    assert timing.runs_per_second == pytest.approx(1 / 0.051)
    assert timing.line() == "median 51.000 ms, fastest 1.000 ms, of 101 runs on 2 threads"


@pytest.mark.parametrize("text", ["0", "-1", "x", "1e3"])
def test_a_duration_is_a_number_above_zero(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "lenet", f"--duration={text}"]) == 2
    assert "is no number of seconds above 0" in capsys.readouterr().err
