"""Benchmarks measure this project by its own parts: they have to go on working with them.

Each is run as its command runs it, on its smallest case, without peers and in this process.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quern as qn

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

Load = Callable[[str], Any]
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Imports a benchmark, in which a runtime has no process of its own; tests have modules of the
    same names.
    """
    names = {file.stem for file in BENCHMARKS.glob("*.py")}
    others = {name: sys.modules.pop(name) for name in names & sys.modules.keys()}
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    common = importlib.import_module("common")

    class Here(common.Worker):  # type: ignore[misc]  # of a module that mypy does not see
        def __post_init__(self) -> None:
            self.runtime = self.task.make(*self.task.arguments, threads=self.task.threads)

        def ask(self, what: str, *arguments: Any) -> Any:
            return common._ANSWERS[what](self.runtime, *arguments)

        def processor_seconds(self) -> float:
            return 0.0

    @contextmanager
    def started(tasks: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        yield {n: Here(n, task) for n, task in tasks.items() if n.startswith("quern")}

    monkeypatch.setattr(common, "started", started)
    monkeypatch.setattr(common, "PAUSE", 0.0)
    yield importlib.import_module
    for name in names & sys.modules.keys():
        del sys.modules[name]
    sys.modules.update(others)


@pytest.fixture
def run(load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs a command; gives what it writes to its file of figures."""

    def call(name: str, *arguments: str) -> dict[str, Any]:
        file = tmp_path / "figures.json"
        monkeypatch.setattr(sys, "argv", [name, *arguments, "--json", str(file)])
        load(name).main()
        found: dict[str, Any] = json.loads(file.read_text())
        return found

    return call


def is_fast(seconds: float | None) -> bool:
    return seconds is not None and 0 < seconds < 60


def test_inference(run: Run) -> None:
    pytest.importorskip("onnx")
    options = ("--batch", "1", "--threads", "1", "--rounds", "1", "--seconds", "0")
    (found,) = run("inference", "--networks", "lenet", *options)["results"]
    assert found["errors"] == {"quern": 0.0}
    assert is_fast(found["milliseconds"]["quern"] / 1e3)


def test_training(run: Run) -> None:
    options = ("--batch", "2", "--threads", "1", "--rounds", "1", "--seconds", "0")
    (found,) = run("training", "--networks", "lenet28", *options)["results"]
    assert found["errors"] == {"quern": {"loss": 0.0, "update": 0.0}}
    assert is_fast(found["milliseconds"]["quern"] / 1e3)
    assert found["planned"] > 1
    assert found["memory"]["quern"]["life"] >= found["memory"]["quern"]["running"] > 1


def test_a_step_of_training_is_what_its_graph_says(load: Load) -> None:
    ours = load("training").Quern("lenet28", 2, threads=1)
    before = {k: v.copy() for k, v in ours.parameters().items()}
    losses = [ours.step() for _ in range(3)]
    assert np.all(np.isfinite(losses))
    assert losses[-1] < losses[0]
    assert all(np.any(v != before[k]) for k, v in ours.parameters().items())


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
def test_recurrent(run: Run, cell: str) -> None:
    cases = f"{cell}:1,1,8,8,1", f"{cell}:3,2,8,8,2"
    options = ("--threads", "1", "--rounds", "1", "--seconds", "0")
    found = run("recurrent", "--cases", *cases, *options)["results"]
    assert [r["kind"] for r in found] == ["inference", "inference", "training"]
    for result in found:
        assert result["errors"] == {"quern": 0.0}
        assert is_fast(result["milliseconds"]["quern"] / 1e3)


@pytest.mark.parametrize("case", ["softmax 4096x1000", "conv 1x1 512-2048 @7 forward"])
def test_kernels(run: Run, load: Load, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    # What the machine can do takes seconds to measure.
    monkeypatch.setattr(load("kernels").Quern, "peaks", lambda self: (1e11, 1e10))
    figures = run("kernels", "--cases", case, "--threads", "1", "--rounds", "1")
    (found,) = figures["results"]
    assert is_fast(found["seconds"]["quern 1"])
    assert (found["mixing"]["1"] is not None) == (found["nbytes"] > 0)
    assert found["note"]


def test_layers(load: Load) -> None:
    cases = load("layers").cases()
    assert len({case.name for case in cases}) == len(cases)
    for case in cases:
        graph = case.ours()
        leaves = {n.name: n.types[0].shape for n in graph.nodes() if n.name in case.inputs}
        assert leaves == dict(case.inputs), case.name
        assert (case.flops > 0) != (case.nbytes > 0)


@pytest.mark.slow
def test_compiling(run: Run) -> None:
    (found,) = run("compiling", "--cases", "lenet:step2", "--repeat", "1", "--stages")["results"]
    for kind in ("cold", "warm"):
        assert is_fast(found[kind]["seconds"])
        assert found[kind]["kernels"] >= found[kind]["different"] > 1


def test_dispatch(
    load: Load, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["dispatch", "--threads", "1", "2", "--rounds", "1"])
    load("dispatch").main()
    _, *rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == ["1", "2"]
    assert all(is_fast(float(cell) / 1e6) for row in rows for cell in row.split()[1:])


@pytest.mark.slow
def test_startup(
    load: Load, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["startup", "--repeat", "1"])
    load("startup").main()
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 5
    assert all(is_fast(float(row.split()[-2]) / 1e3) for row in rows)


def test_peers_compute_what_ours_do(load: Load) -> None:
    torch = pytest.importorskip("torch")
    graph = load("common").inference_graph("lenet", 2)
    x = load("common").image("lenet", 2)
    with torch.no_grad():
        (theirs,) = load("peers_torch").module_of(graph)(torch.from_numpy(x)).values()
    np.testing.assert_allclose(theirs.numpy(), qn.interpret(graph, x), rtol=1e-4, atol=1e-5)
