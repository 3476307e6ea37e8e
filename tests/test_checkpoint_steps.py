"""Recomputation through time: the same numbers from less memory."""

from __future__ import annotations

import argparse
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from op_cases import spread
from recurrences import random_step, wide

import quern as qn
from quern import nn
from quern.compiler.autodiff import differentiate
from quern.compiler.driver import Options, prepare
from quern.compiler.errors import UsageError
from quern.compiler.evaluate import evaluate
from quern.compiler.flops import graph_flops
from quern.compiler.graph import Graph, Phase
from quern.compiler.ops.base import Op
from quern.compiler.ops.conv import Conv, ConvInputGradient, ConvWeightGradient
from quern.compiler.ops.linear import Linear, MatMul
from quern.compiler.ops.movement import Broadcast, Concat, Reshape, Slice, Transpose
from quern.compiler.ops.pointwise import Add, Where
from quern.compiler.ops.recurrence import Recurrence, recur
from quern.compiler.ops.reduce import Max, Sum
from quern.compiler.passes.checkpoint_steps import CheckpointSteps, without_unread_results
from quern.compiler.passes.cut_recurrences import CutRecurrences, cut
from quern.compiler.report import Report
from quern.compiler.splits import resized, splits
from quern.compiler.training import build_training_step
from quern.compiler.types import Array, DType, TensorType
from quern.frontends.cli.options import add_recompute
from quern.optim import SGD

STEPS, BATCH, INPUT, HIDDEN, CLASSES = 30, 4, 6, 16, 5


# -- operations in parts --------------------------------------------------------------------------

OPERATIONS: list[tuple[Op, list[tuple[int, ...]]]] = [
    (Add(), [(6, 2), (2,)]),
    (Add(), [(3, 6), (1, 6)]),
    (Where(), [(6, 1), (6, 4), ()]),
    (Linear(), [(6, 3, 4), (5, 4), (5,)]),
    (MatMul(), [(6, 4), (4, 6)]),
    (MatMul(), [(2, 6), (6, 2)]),
    (Transpose((2, 0, 1)), [(6, 2, 4)]),
    (Reshape((12, 3)), [(6, 2, 3)]),
    (Reshape((1, 6, 6)), [(6, 2, 3)]),
    (Reshape((2, 6, 3)), [(2, 18)]),
    (Reshape((4, 9)), [(6, 6)]),
    (Broadcast((6, 2, 4)), [(6, 1, 4)]),
    (Slice((0, 1), (6, 2), (1, 1)), [(6, 4)]),
    (Concat(1), [(6, 2), (6, 3)]),
    (Sum((0,)), [(6, 4)]),
    (Sum((1, 2)), [(6, 4, 2)]),
    (Max((1,)), [(6, 4)]),
    (Conv((1, 1), ((1, 1), (1, 1)), (1, 1)), [(6, 2, 4, 4), (3, 2, 3, 3), (3,)]),
    (ConvInputGradient((4, 4), (1, 1), ((1, 1), (1, 1)), (1, 1)), [(6, 3, 4, 4), (3, 2, 3, 3)]),
    (ConvWeightGradient((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)), [(6, 2, 4, 4), (6, 3, 4, 4)]),
]


@pytest.mark.parametrize(("op", "shapes"), OPERATIONS, ids=lambda x: str(x)[:40])
def test_parts_make_up_the_whole(op: Op, shapes: list[tuple[int, ...]]) -> None:
    arrays = [spread(s, seed=i) for i, s in enumerate(shapes)]
    if isinstance(op, Where):
        arrays[0] = arrays[0] > 0
    types = [TensorType(a.shape, DType.of(a.dtype)) for a in arrays]
    (whole,) = op.evaluate(*arrays)
    found = list(splits(op, types, op.infer(*types)[0]))
    assert found
    for split in found:
        extents = [a.shape[d] for a, d in zip(arrays, split.inputs, strict=True) if d is not None]
        extents += [] if split.output is None else [whole.shape[split.output]]
        parts = math.gcd(*extents)
        results = []
        for i in range(parts):
            given = [
                a if d is None else np.split(a, parts, d)[i]
                for a, d in zip(arrays, split.inputs, strict=True)
            ]
            extent = 0 if split.output is None else whole.shape[split.output] // parts
            part = resized(op, split.output, extent)
            assert part.infer(*(TensorType(a.shape, DType.of(a.dtype)) for a in given))
            results += part.evaluate(*given)
        joined = sum(results) if split.output is None else np.concatenate(results, split.output)
        np.testing.assert_allclose(joined, whole, rtol=1e-12, atol=1e-14, err_msg=str(split))


@given(st.integers(1, 100), st.integers(1, 20))
def test_parts_are_no_longer_than_allowed(steps: int, every: int) -> None:
    cuts = cut(steps, every)
    sizes = np.diff(cuts)
    assert cuts[0] == 0
    assert cuts[-1] == steps
    assert sizes.max() <= every
    assert sizes.max() - sizes.min() <= 1


@given(st.integers(1, 20), st.integers(1, 5))
def test_parts_stay_loops(every: int, times: int) -> None:
    sizes = np.diff(cut(every * times + 1, every))
    assert sizes.min() > CheckpointSteps(every).unrolled


# -- any body -------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(st.data())
def test_the_same_numbers_for_any_body(data: st.DataObject) -> None:
    step = random_step(data.draw)
    steps, every = data.draw(st.integers(2, 7)), data.draw(st.integers(1, 4))
    graph = Graph("random")
    shapes = {"s": (3, 3), "x": (steps, 3, 3), "w": (3, 3), "b": (3,), "u": (3, 3)}
    s, x, w, b, u = (graph.input(wide(*shape), n) for n, shape in shapes.items())
    (final,), (y,) = recur(step, [s], [(x @ u).tanh()], [w, b], reverse=data.draw(st.booleans()))
    (other,), (z,) = recur(step, [final], [y], [w, b], reverse=data.draw(st.booleans()))
    graph.outputs["loss"] = ((z * z).sum() + (other * y[0]).sum()).value
    gradient = differentiate(graph, "loss", list(shapes))
    feeds = {n: 0.5 * spread(shape, seed=i) for i, (n, shape) in enumerate(shapes.items())}
    expected = evaluate(gradient, feeds).outputs

    cut_up = CutRecurrences(every).apply(gradient).verify()
    again = CheckpointSteps(every).apply(cut_up).verify()
    loops = [n.op for n in cut_up.nodes() if isinstance(n.op, Recurrence)]
    assert max((op.steps for op in loops), default=0) <= every
    found, recomputed = evaluate(cut_up, feeds).outputs, evaluate(again, feeds).outputs
    for name, array in expected.items():
        scale = max(1.0, float(np.abs(array).max(initial=0)))
        np.testing.assert_allclose(found[name], array, 1e-10, 1e-13 * scale, err_msg=name)
        np.testing.assert_array_equal(recomputed[name], found[name], err_msg=name)


# -- networks -------------------------------------------------------------------------------------


class Tagger(nn.Module):
    """Layers over sequences of different lengths."""

    def __init__(self, kind: Any, **options: Any) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, INPUT)
        self.layers = kind(INPUT, HIDDEN, batch_first=True, **options)
        self.head = nn.Linear(HIDDEN * self.layers.num_directions, CLASSES)

    def forward(
        self, words: nn.Tensor, lengths: nn.Tensor, target: nn.Tensor
    ) -> dict[str, nn.Tensor]:
        y, _ = self.layers(self.embedding(words), lengths=lengths)
        scores = self.head(y).flatten(0, 1)
        return {"loss": nn.functional.cross_entropy(scores, target.flatten())}


KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "rnn": (nn.RNN, {}),
    "lstm": (nn.LSTM, {"bidirectional": True}),
    "gru": (nn.GRU, {"num_layers": 2, "dropout": 0.3}),
}


def training_step(kind: str, steps: int = STEPS) -> Graph:
    qn.manual_seed(1)
    layers, options = KINDS[kind]
    words, lengths = qn.spec(BATCH, steps, dtype="int64"), qn.spec(BATCH, dtype="int64")
    traced = qn.trace(Tagger(layers, **options), words, lengths, words, training=True)
    return build_training_step(traced, "loss", SGD(0.1, momentum=0.9))


def batch(steps: int = STEPS) -> tuple[Array, ...]:
    rng = np.random.default_rng(2)
    words, target = rng.integers(0, 9, (BATCH, steps)), rng.integers(0, CLASSES, (BATCH, steps))
    return words, np.array([steps, 3, steps - 1, 7]), target


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_learns_the_same_from_less_memory(kind: str) -> None:
    step = training_step(kind)

    def run(every: int | None) -> tuple[list[float], dict[str, Array], int]:
        executable = qn.compile(step, threads=1, workers=1, checkpoint_every=every)
        losses = [float(executable(*batch())) for _ in range(3)]
        return losses, executable.state, executable.memory.total

    plain, found = run(None), run(10)
    np.testing.assert_allclose(found[0], plain[0], rtol=1e-6)
    assert found[2] < 0.8 * plain[2]
    for name, array in plain[1].items():
        np.testing.assert_allclose(found[1][name], array, rtol=1e-4, atol=1e-6, err_msg=name)


def prepared(step: Graph, every: int | None) -> Graph:
    options = Options(checkpoint_steps=CheckpointSteps.of(every))
    return prepare(step, options, Report()).main


def test_all_parts_but_the_last_are_computed_again() -> None:
    graph = prepared(training_step("rnn"), 10)
    loops = [(n.name, n.phase) for n in graph.nodes() if isinstance(n.op, Recurrence)]
    assert loops == [
        ("layers.steps0", Phase.FORWARD),
        ("layers.steps10", Phase.FORWARD),
        ("layers.steps20", Phase.FORWARD),
        ("grad.layers.backward.steps20", Phase.BACKWARD),
        ("again.layers.steps10", Phase.BACKWARD),
        ("grad.layers.backward.steps10", Phase.BACKWARD),
        ("again.layers.steps0", Phase.BACKWARD),
        ("grad.layers.backward.steps0", Phase.BACKWARD),
    ]
    first = graph.node("layers.steps0").op
    assert isinstance(first, Recurrence)
    assert len(first.results) == 1, "what is forgotten is not given"


def test_code_does_not_grow_with_the_number_of_parts() -> None:
    lstm = nn.LSTM(INPUT, HIDDEN)

    def kernels(steps: int) -> int:
        traced = qn.trace(
            lambda x: {"loss": (lstm(x)[0] ** 2).mean()},
            qn.spec(steps, BATCH, INPUT),
            training=True,
        )
        step = build_training_step(traced, "loss", SGD(0.1))
        return len(qn.compile(step, workers=1, checkpoint_every=16).image.objects)

    assert kernels(192) == kernels(96)


def test_computing_again_costs_less_than_a_forward_pass() -> None:
    step = training_step("lstm")
    plain, again = graph_flops(prepared(step, None)), graph_flops(prepared(step, 10))
    assert plain < again < 1.34 * plain


def test_results_that_nobody_reads_are_not_computed() -> None:
    graph = Graph()
    x = graph.input(wide(3, 2), "x")

    def step(s: nn.Tensor, x: nn.Tensor) -> tuple[list[nn.Tensor], list[nn.Tensor]]:
        return [s + x], [s.exp(), s * x]

    (final,), (_, y) = recur(step, [x[0]], [x])
    graph.outputs = {"final": final.value, "y": y.value}
    small = without_unread_results(graph).verify()
    feeds = {"x": spread((3, 2))}
    for name, array in evaluate(graph, feeds).outputs.items():
        np.testing.assert_array_equal(evaluate(small, feeds).outputs[name], array)
    (op,) = (n.op for n in small.nodes() if isinstance(n.op, Recurrence))
    assert len(op.results) == 1
    assert "Exp" not in str(op.body.graph)


# -- what is asked for ----------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [0, -3, 2.5, True, "10"])
def test_what_makes_no_sense_is_told(wanted: Any) -> None:
    with pytest.raises(UsageError, match="checkpoint_every="):
        CheckpointSteps.of(wanted)


@pytest.mark.parametrize("every", [STEPS, 100])
def test_a_short_recurrence_stays_whole(every: int) -> None:
    step = training_step("rnn")
    assert CutRecurrences(every).apply(step) is step


def test_without_a_backward_pass_nothing_is_cut() -> None:
    graph = qn.trace(nn.LSTM(INPUT, HIDDEN), qn.spec(STEPS, BATCH, INPUT))
    assert CutRecurrences(5).apply(graph) is graph
    assert not any("again" in n.name for n in prepared(graph, 5).nodes())


def test_on_the_command_line() -> None:
    parser = argparse.ArgumentParser()
    add_recompute(parser)
    assert parser.parse_args(["--recompute-every", "16"]).recompute_every == 16
    assert parser.parse_args([]).recompute_every is None


def test_a_trainer_recomputes() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(INPUT, HIDDEN, batch_first=True)
            self.head = nn.Linear(HIDDEN, CLASSES)

        def forward(self, x: nn.Tensor) -> nn.Tensor:
            _, (h, _) = self.lstm(x)
            return self.head(h[0])

    rng = np.random.default_rng(3)
    x = rng.standard_normal((BATCH, STEPS, INPUT)).astype(np.float32)
    y = rng.integers(0, CLASSES, BATCH)

    def losses(every: int | None) -> list[float]:
        qn.manual_seed(4)
        trainer = qn.Trainer(
            Last(), loss="cross_entropy", optimizer=SGD(0.5), threads=1, recompute_every=every
        )
        return [trainer.step(x, y)["loss"] for _ in range(3)]

    np.testing.assert_allclose(losses(7), losses(None), rtol=1e-6)
