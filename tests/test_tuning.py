"""Choosing by measurement: every algorithm is measured, the winner is remembered and is used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quern as qn
from quern import nn
from quern.compiler.cost_model import Algorithm, SquareConvolution
from quern.compiler.driver import Options, compile_graph
from quern.compiler.errors import UsageError
from quern.compiler.evaluate import evaluate
from quern.compiler.llvm.cache import ObjectCache
from quern.compiler.llvm.target import Target
from quern.compiler.ops.strassen import StrassenConv
from quern.compiler.ops.winograd import WinogradConv
from quern.compiler.report import Report
from quern.compiler.types import DType
from quern.frontends import tuning
from quern.frontends.tuning import Tuner, convolution_graph, passes_for
from quern.runtime.executable import Executable

HOST = Target.host()
SMALL = SquareConvolution(batch=1, depth=16, channels=16, height=8, width=8)


@pytest.fixture
def store(tmp_path: Path) -> ObjectCache:
    return ObjectCache(tmp_path)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "_FLUSH_BYTES", 1 << 16)
    monkeypatch.setattr(tuning, "_SECONDS", 0.0)


def rigged(monkeypatch: pytest.MonkeyPatch, winner: Algorithm) -> None:
    """Lets an algorithm be the fastest."""
    monkeypatch.setattr(
        Tuner, "_measure", lambda *_: {a: 1.0 + (a is not winner) for a in Algorithm}
    )


def test_all_algorithms_are_measured_and_the_fastest_is_taken(store: ObjectCache) -> None:
    report = Report()
    tuner = Tuner(1, report, store)
    winner = tuner.choose(HOST, DType.FLOAT32, SMALL)
    (stage,) = report.stages
    assert stage.name == "tune 1x16x8x8 by 3x3 to 16"
    told = dict(part.rsplit(" ", 2)[:2] for part in stage.detail.split(", "))
    assert set(told) == {a.value for a in SMALL.algorithms}
    assert float(told[winner.value]) == min(map(float, told.values()))
    assert tuner.measured == 1


@pytest.mark.parametrize("winner", Algorithm)
def test_winners_are_remembered(
    monkeypatch: pytest.MonkeyPatch, store: ObjectCache, winner: Algorithm
) -> None:
    rigged(monkeypatch, winner)
    assert Tuner(1, store=store).choose(HOST, DType.FLOAT32, SMALL) is winner
    monkeypatch.undo()
    later = Tuner(1, store=ObjectCache(store.directory))
    assert later.choose(HOST, DType.FLOAT32, SMALL) is winner
    assert later.measured == 0


def test_other_shapes_dtypes_and_threads_are_measured_anew(
    monkeypatch: pytest.MonkeyPatch, store: ObjectCache
) -> None:
    rigged(monkeypatch, Algorithm.F2)
    for threads in (1, 2):
        tuner = Tuner(threads, store=store)
        for dtype in (DType.FLOAT32, DType.FLOAT64):
            for conv in (SMALL, replace(SMALL, height=9), replace(SMALL, prepared=False)):
                tuner.choose(HOST, dtype, conv)
        assert tuner.measured == 6


def test_what_is_remembered_wrongly_is_measured_again(
    monkeypatch: pytest.MonkeyPatch, store: ObjectCache
) -> None:
    rigged(monkeypatch, Algorithm.F4)
    tuner = Tuner(1, store=store)
    store.put(tuner._key(HOST, DType.FLOAT32, SMALL), b"by hand")
    assert tuner.choose(HOST, DType.FLOAT32, SMALL) is Algorithm.F4


def test_large_batches_are_measured_with_fewer_images(
    monkeypatch: pytest.MonkeyPatch, store: ObjectCache
) -> None:
    monkeypatch.setattr(tuning, "_MOST_BYTES", 3 * 2 * 16 * 8 * 8 * 4)
    rigged(monkeypatch, Algorithm.F2)
    tuner = Tuner(1, store=store)
    for batch in (2, 3, 8, 64):
        tuner.choose(HOST, DType.FLOAT32, replace(SMALL, batch=batch))
    assert tuner.measured == 2


@pytest.mark.parametrize("prepared", [True, False])
@pytest.mark.parametrize("algorithm", Algorithm)
def test_what_is_measured_is_the_convolution(algorithm: Algorithm, prepared: bool) -> None:
    taps = 1 if algorithm is Algorithm.STRASSEN else 3
    conv = SquareConvolution(2, 16, 32, 5, 6, prepared, taps)
    assert algorithm in conv.algorithms
    random = np.random.default_rng(1)
    graph = convolution_graph(HOST, DType.FLOAT32, conv, random)
    compiled = compile_graph(graph, Options(HOST, passes=passes_for(HOST, algorithm)))
    kinds = [type(n.op) for n in compiled.optimized.nodes()]
    assert (WinogradConv in kinds) is (algorithm.tile > 0)
    assert (StrassenConv in kinds) is (algorithm is Algorithm.STRASSEN and prepared)
    executable = Executable(compiled.image, 1)
    feeds = {
        name: random.standard_normal(type.shape).astype(np.float32)
        for name, type in executable.inputs.items()
    }
    (y,) = executable.run(feeds).values()
    (expected,) = evaluate(graph, feeds).outputs.values()
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-3)


def test_only_what_runs_here_can_be_measured(
    monkeypatch: pytest.MonkeyPatch, store: ObjectCache
) -> None:
    monkeypatch.setattr(tuning, "missing_features", lambda features: ("avx512f",))
    with pytest.raises(UsageError, match="tuning measures on this machine, which has no avx512f"):
        Tuner(1, store=store).choose(HOST, DType.FLOAT32, SMALL)


@pytest.mark.parametrize("winner", Algorithm)
def test_a_network_is_compiled_with_the_winners(
    monkeypatch: pytest.MonkeyPatch, store: ObjectCache, winner: Algorithm
) -> None:
    rigged(monkeypatch, winner)
    graph = qn.trace(nn.Conv2d(16, 16, 3, padding=1).eval(), qn.spec(1, 16, 8, 8))
    options = Options(HOST, choose=Tuner(1, store=store).choose)
    tiles = [
        n.op.tile
        for n in compile_graph(graph, options).optimized.nodes()
        if isinstance(n.op, WinogradConv)
    ]
    assert tiles == ([winner.tile] if winner.tile else [])


def test_compile_takes_tune(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("QUERN_CACHE_DIR", str(tmp_path))
    rigged(monkeypatch, Algorithm.F4)
    network = nn.Conv2d(16, 16, 3, padding=1).eval()
    x = np.random.default_rng(0).standard_normal((1, 16, 8, 8)).astype(np.float32)
    tuned = qn.compile(network, qn.spec(*x.shape), tune=True)
    np.testing.assert_allclose(tuned(x), qn.interpret(network, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "winograd"),
    [({"tune": True}, True), ({"algorithms": "direct"}, False)],
    ids=["tuned", "direct"],
)
def test_a_trainer_takes_algorithms_as_compile_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: dict[str, Any], winograd: bool
) -> None:
    monkeypatch.setenv("QUERN_CACHE_DIR", str(tmp_path))
    rigged(monkeypatch, Algorithm.F4)
    network = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.Flatten(), nn.Linear(1024, 4))
    network.eval()
    trainer = qn.Trainer(network, loss="cross_entropy", optimizer=qn.optim.SGD(0.1), **options)
    x = np.random.default_rng(0).standard_normal((4, 16, 8, 8)).astype(np.float32)
    outputs = trainer.predict(x)
    np.testing.assert_allclose(outputs, qn.interpret(network, x), rtol=1e-4, atol=1e-5)
    (program,) = trainer._programs._programs.values()
    notes = [kernel.note for kernel in program.executable.program.kernels]
    assert any("winograd 4x4" in note for note in notes) == winograd


def test_a_stage_does_not_count_what_stages_within_it_take() -> None:
    report = Report()
    with report.stage("outer"), report.stage("inner"):
        sum(range(200_000))
    inner, outer = report.stages
    assert (inner.name, outer.name) == ("inner", "outer")
    assert outer.seconds < inner.seconds
