"""Recomputation: the same numbers from less memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import quern as qn
from quern import nn
from quern.compiler.driver import Options, prepare
from quern.compiler.errors import CompileError, UsageError
from quern.compiler.evaluate import evaluate
from quern.compiler.flops import graph_flops
from quern.compiler.graph import Graph, Phase
from quern.compiler.ops.leaf import Leaf
from quern.compiler.passes.checkpoint import Checkpoint, peak
from quern.compiler.report import Report
from quern.compiler.training import build_training_step
from quern.frontends.cli.options import recomputed
from quern.optim import SGD

BATCH, CLASSES = 4, 5


class Block(nn.Module):
    """With everything that makes recomputation hard: batch statistics, random numbers, a sum."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        return x + self.dropout(self.norm(self.conv(x)).relu())


class Deep(nn.Module):
    def __init__(self, blocks: int = 6, dropout: float = 0.5) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(8, dropout) for _ in range(blocks)))
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(8 * 8 * 8, CLASSES)

    def scores(self, image: nn.Tensor) -> nn.Tensor:
        x = self.pool(self.blocks(self.stem(image)))
        return self.fc(x.reshape(x.shape[0], -1))

    def forward(self, image: nn.Tensor, target: nn.Tensor) -> dict[str, nn.Tensor]:
        return {"loss": nn.functional.cross_entropy(self.scores(image), target)}


@pytest.fixture(scope="module")
def step() -> Graph:
    qn.manual_seed(3)
    specs = qn.spec(BATCH, 3, 16, 16), qn.spec(BATCH, dtype="int64")
    return build_training_step(
        qn.trace(Deep(), *specs, training=True), "loss", SGD(0.1, momentum=0.9)
    )


@pytest.fixture(scope="module")
def optimized(step: Graph) -> Graph:
    return prepare(step, Options(), Report()).main


def inputs() -> tuple[Any, Any]:
    rng = np.random.default_rng(5)
    return rng.standard_normal((BATCH, 3, 16, 16), np.float32), rng.integers(0, CLASSES, BATCH)


def run(step: Graph, **options: Any) -> tuple[list[Any], dict[str, Any], int]:
    """Losses of three steps, the state after them, and the planned peak."""
    executable = qn.compile(step, threads=1, workers=1, **options)
    losses = [executable(*inputs()) for _ in range(3)]
    return losses, executable.state, executable.memory.total


@pytest.fixture(scope="module")
def plain(step: Graph) -> tuple[list[Any], dict[str, Any], int]:
    return run(step)


@pytest.mark.parametrize("wanted", [3, True, ["blocks.1", "blocks.2", "blocks.3"]], ids=str)
def test_the_same_numbers_from_less_memory(
    step: Graph, plain: tuple[list[Any], dict[str, Any], int], wanted: Any
) -> None:
    losses, state, planned = run(step, checkpoint=wanted)
    assert planned < 0.9 * plain[2]
    np.testing.assert_allclose(losses, plain[0], rtol=1e-5)
    for name, array in plain[1].items():
        np.testing.assert_allclose(state[name], array, rtol=2e-4, atol=2e-5, err_msg=name)


def test_numpy_gives_the_same_bits(optimized: Graph) -> None:
    """The pass changes who computes what, never what is computed."""
    again = Checkpoint(segments=4).apply(optimized).verify()
    image, target = inputs()
    feeds = {**optimized.data, "image": image, "target": target}
    one, other = evaluate(optimized, feeds), evaluate(again, feeds)
    for name, array in {**one.outputs, **one.updates}.items():
        np.testing.assert_array_equal({**other.outputs, **other.updates}[name], array)


def test_segments_are_computed_again_in_the_backward_pass(optimized: Graph) -> None:
    again = Checkpoint(segments=4).apply(optimized)

    def names(graph: Graph, phase: Phase) -> list[str]:
        return [n.name for n in graph.nodes() if n.phase is phase and not isinstance(n.op, Leaf)]

    def repeated(phase: Phase, layer: str) -> list[str]:
        return [n for n in names(again, phase) if n.startswith("again.") and f".{layer}" in n]

    assert set(names(again, Phase.FORWARD)) <= set(names(optimized, Phase.FORWARD))
    assert not any("again." in n for n in names(optimized, Phase.BACKWARD))
    convolutions = repeated(Phase.BACKWARD, "conv")
    assert any(".blocks.1." in name for name in convolutions)
    assert not any(".blocks.5." in name for name in convolutions), "the last segment is kept"
    assert repeated(Phase.BACKWARD, "dropout")
    assert graph_flops(again) < 1.34 * graph_flops(optimized)


def test_the_estimate_is_near_the_plan(step: Graph, optimized: Graph) -> None:
    for wanted in (1, 4):
        planned = qn.compile(step, threads=1, workers=1, checkpoint=wanted).memory.total
        estimate = peak(Checkpoint(segments=wanted).apply(optimized))
        assert 0.85 * planned < estimate < 1.1 * planned


def test_one_segment_changes_nothing(optimized: Graph) -> None:
    assert str(Checkpoint(segments=1).apply(optimized)) == str(optimized)


def test_a_network_without_backward_pass_stays_as_it_is() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
    graph = prepare(qn.trace(net, qn.spec(1, 1, 8, 8)), Options(), Report()).main
    for wanted in (Checkpoint(), Checkpoint(segments=3), Checkpoint(budget=10**9)):
        assert str(wanted.apply(graph)) == str(graph)


def test_gradients_alone_are_recomputed_too(rng: np.random.Generator) -> None:
    specs = qn.spec(2, 3, 16, 16), qn.spec(2, dtype="int64")
    graph = qn.grad(qn.trace(Deep(dropout=0.0), *specs, training=True), "loss")
    image, target = rng.standard_normal((2, 3, 16, 16), np.float32), np.array([1, 2])
    feeds = {"image": image, "target": target}
    plain = qn.compile(graph, threads=1, workers=1)(feeds)
    again = qn.compile(graph, threads=1, workers=1, checkpoint=3)(feeds)
    for name, array in plain.items():
        np.testing.assert_allclose(again[name], array, rtol=2e-4, atol=2e-5, err_msg=name)


# -- what is asked for ----------------------------------------------------------------------------


def test_a_budget_recomputes_no_more_than_it_must(optimized: Graph) -> None:
    whole, least = peak(optimized), peak(Checkpoint().apply(optimized))
    assert least < 0.9 * whole
    assert str(Checkpoint(budget=whole).apply(optimized)) == str(optimized)
    middle = Checkpoint(budget=(whole + least) // 2).apply(optimized)
    assert peak(middle) <= (whole + least) // 2
    assert graph_flops(middle) > graph_flops(optimized)
    with pytest.raises(CompileError, match=r"needs \d+\.\d MB at least, checkpoint allows 0\.1 MB"):
        Checkpoint(budget=100_000).apply(optimized)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (None, None),
        (False, None),
        (True, Checkpoint()),
        (4, Checkpoint(segments=4)),
        ("1.5 GB", Checkpoint(budget=1_500_000_000)),
        ("200MiB", Checkpoint(budget=200 << 20)),
        (["a", "b.0"], Checkpoint(modules=("a", "b.0"))),
    ],
)
def test_ways_to_ask(wanted: Any, expected: Checkpoint | None) -> None:
    assert Checkpoint.of(wanted) == expected


@pytest.mark.parametrize("wanted", [0, -2, "much", "5", "3 parsecs", [1, 2]])
def test_what_makes_no_sense_is_told(wanted: Any) -> None:
    with pytest.raises(UsageError, match="checkpoint="):
        Checkpoint.of(wanted)


def test_a_module_that_is_not_there(optimized: Graph) -> None:
    with pytest.raises(UsageError, match=r"has no module 'block\.1'"):
        Checkpoint(modules=("block.1",)).apply(optimized)


def test_a_trainer_keeps_to_a_budget(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((BATCH, 3, 16, 16), np.float32)
    data = images, rng.integers(0, CLASSES, BATCH)

    class Scores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.deep = Deep(4)

        def forward(self, image: nn.Tensor) -> nn.Tensor:
            return self.deep.scores(image)

    def planned(recompute: Any) -> float:
        qn.manual_seed(0)
        trainer = qn.Trainer(
            Scores(), loss="cross_entropy", optimizer=SGD(0.1), threads=1, recompute=recompute
        )
        record = trainer.fit(data, batch_size=BATCH)[-1]
        out = capsys.readouterr().out
        told, unit = out.removeprefix("planned peak memory ").split(":")[0].split()
        assert np.isfinite(record["loss"])
        return float(told) * {"kB": 1e3, "MB": 1e6}[unit]

    whole = planned(None)
    assert planned(f"{0.92 * whole / 1e3:.0f} kB") <= 0.95 * whole


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("4", 4), ("least", True), ("1.5GB", "1.5GB"), ("layer1,layer2", ["layer1", "layer2"])],
)
def test_recompute_on_the_command_line(text: str, wanted: Any) -> None:
    assert recomputed(text) == wanted
