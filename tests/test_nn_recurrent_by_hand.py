"""Recurrent networks from modules that are applied step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from recurrent_layers import BATCH, HIDDEN, INPUT, STEPS, assert_close, random, sigmoid

import quern as qn
from quern import nn
from quern.compiler.check import check_gradients
from quern.compiler.errors import GraphError, UsageError
from quern.compiler.ops.leaf import Parameter
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array


class Elman(nn.Module):
    """A cell of modules in a loop that is one node, its output fed back."""

    def __init__(self, drop: float = 0.0) -> None:
        super().__init__()
        self.inner = nn.Linear(INPUT, HIDDEN)
        self.context = nn.Linear(HIDDEN, HIDDEN, bias=False)
        self.outer = nn.Linear(HIDDEN, 2)
        self.dropout = nn.Dropout(drop)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        def step(h: Tensor, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
            h = self.dropout(self.inner(x) + self.context(h)).tanh()
            return [h], [self.outer(h)]

        _, (y,) = nn.functional.recurrence(step, [h], [x])
        result: Tensor = y
        return result


def test_modules_inside_of_a_step() -> None:
    module, x, h = Elman(), random(STEPS, BATCH, INPUT), random(BATCH, HIDDEN, seed=1)
    found = module(x, h)
    w = module.state_dict()
    for t in range(STEPS):
        h = np.tanh(x[t] @ w["inner.weight"].T + w["inner.bias"] + h @ w["context.weight"].T)
        assert_close(found[t], h @ w["outer.weight"].T + w["outer.bias"])
    graph = qn.trace(module, qn.spec(x), qn.spec(h))
    assert {n.name for n in graph.leaves(Parameter)} == set(w)
    feeds = {"x": x.astype(np.float64), "h": h.astype(np.float64)}
    assert check_gradients(graph, feeds, samples=8).error < 1e-6


@pytest.mark.parametrize("steps", [3, 20])
def test_dropout_inside_of_a_step_is_new_in_each(steps: int) -> None:
    """Unrolled, and as a loop: y = x mask, so that dy/dx is the mask."""
    shape = (steps, 10, 10)

    def network(x: Tensor) -> tuple[Tensor, Tensor]:
        def step(total: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            y = nn.functional.dropout(x, 0.25)
            return total + y, y

        (total,), (y,) = nn.functional.recurrence(step, x.new_zeros(10, 10), x)
        return y, qn.autograd.grad(total, x)[0]

    x = random(*shape)
    run = qn.compile(network, qn.spec(*shape))
    (y, mask), (other, _) = run(x), run(x)
    np.testing.assert_allclose(y, x * mask, rtol=1e-6)
    assert set(np.unique(mask)) == {0.0, np.float32(1 / 0.75)}
    assert 0.15 < (mask == 0).mean() < 0.35
    assert len({part.tobytes() for part in mask}) == steps
    assert not np.array_equal(y, other)
    assert Elman(0.5)(random(STEPS, BATCH, INPUT), random(BATCH, HIDDEN)).shape[0] == STEPS


@pytest.mark.parametrize("first", ["around", "own"])
def test_a_step_reads_what_is_around_it(first: str) -> None:
    """The state becomes 2 a³ (h + x): 2 a is from around the step, a² from a step inside of it."""

    def network(x: Tensor, a: Tensor) -> Tensor:
        twice = a * 2.0

        def step(h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            h = twice * (h + x) if first == "around" else (h + x) * twice
            (h,), _ = nn.functional.recurrence(lambda h: (h * a, ()), h, steps=2)
            return h, twice

        (last,), (constant,) = nn.functional.recurrence(step, x.new_zeros(3), x)
        return last + constant.sum(0)

    x, a = random(4, 3), random(3, seed=1)
    h = np.zeros(3)
    for row in x:
        h = 2 * a**3 * (h + row)
    graph = qn.trace(network, qn.spec(x), qn.spec(a))
    for run in (qn.compile(graph), lambda *feeds: qn.interpret(graph, *feeds)):
        assert_close(run(x, a), h + 8 * a)
    assert check_gradients(graph, samples=6).error < 1e-6


def test_what_a_step_computes_leaves_it_as_a_result() -> None:
    def leaky(x: Tensor) -> Tensor:
        seen: list[Tensor] = []

        def step(h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            seen.append(h + x)
            return seen[0], seen[0]

        nn.functional.recurrence(step, x.new_zeros(3), x)
        return x[0] + seen[0]

    with pytest.raises(GraphError, match="leaves it as one of its results"):
        qn.trace(leaky, qn.spec(4, 3))
    with pytest.raises(UsageError, match="returns its next states and its results, two lists"):
        nn.functional.recurrence(lambda h, x: h + x, random(3), random(4, 3))


class Attentive(nn.Module):
    """The decoder of docs/recurrence.md; `told` says where it is given what is right."""

    def __init__(self, letters: int = 7) -> None:
        super().__init__()
        self.embedding = nn.Embedding(letters, 4)
        self.query, self.key = nn.Linear(HIDDEN, 5), nn.Linear(3, 5, bias=False)
        self.energy = nn.Linear(5, 1, bias=False)
        self.cell = nn.GRUCell(4 + 3, HIDDEN)
        self.head = nn.Linear(HIDDEN + 3, letters)

    def step(self, keys: Tensor, h: Tensor, letter: Tensor) -> tuple[Tensor, Tensor]:
        x = self.embedding(letter)
        energy = self.energy((self.query(h).unsqueeze(1) + self.key(keys)).tanh())
        context = (energy.softmax(1) * keys).sum(1)
        h = self.cell(qn.cat([x, context], 1), h)
        return h, self.head(qn.cat([h, context], 1))

    def forward(self, keys: Tensor, h: Tensor, before: Tensor, told: Tensor) -> Tensor:
        def step(h: Tensor, said: Tensor, right: Tensor, told: Tensor) -> Any:
            h, logits = self.step(keys, h, qn.where(told, right, said))
            return [h, logits.argmax(1)], [logits]

        _, (logits,) = nn.functional.recurrence(step, [h, before[:, 0]], [before.t(), told])
        result: Tensor = logits
        return result


@pytest.mark.parametrize("steps", [4, 12])
def test_a_decoder_with_attention_and_scheduled_sampling(steps: int) -> None:
    """Against the same cells in a loop of Python, each called on arrays."""
    module, rng = Attentive(), np.random.default_rng(0)
    keys, h = random(BATCH, 6, 3), random(BATCH, HIDDEN, seed=1)
    before, told = rng.integers(0, 7, (BATCH, steps)), rng.random((steps, BATCH)) < 0.5
    graph = qn.trace(module, *(qn.spec(x) for x in (keys, h, before, told)))
    found = qn.compile(graph)(keys, h, before, told)
    said = before[:, 0]
    for t in range(steps):
        letter = np.where(told[t], before[:, t], said)
        w = module.state_dict()
        energy = np.tanh(module.query(h)[:, None] + keys @ w["key.weight"].T)
        share = np.exp(energy @ w["energy.weight"].T)
        context = (share / share.sum(1, keepdims=True) * keys).sum(1)
        h = module.cell(np.concatenate([w["embedding.weight"][letter], context], 1), h)
        logits = module.head(np.concatenate([h, context], 1))
        said = logits.argmax(1)
        assert_close(found[t], logits)
    feeds = {"keys": keys, "h": h, "before": before, "told": told}
    wide = {k: x.astype(np.float64) if x.dtype == np.float32 else x for k, x in feeds.items()}
    assert check_gradients(graph, wide, samples=4).error < 1e-6


def test_a_loop_in_python_over_the_steps_of_a_sequence() -> None:
    cell, x = nn.GRUCell(INPUT, HIDDEN), random(STEPS, BATCH, INPUT)

    def network(x: Tensor) -> Tensor:
        h, ys = None, []
        for row in x:
            h = cell(row, h)
            ys.append(h)
        return qn.stack(ys)

    layer = nn.GRU(INPUT, HIDDEN)
    layer.load_state_dict({f"{name}_l0": data for name, data in cell.state_dict().items()})
    assert_close(qn.interpret(network, x), layer(x)[0])


def test_a_step_assigns_no_buffers() -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", np.zeros(2, np.float32))

        def forward(self, x: Tensor) -> Tensor:
            def step(x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
                self.seen = x
                return [x], []

            (last,), _ = nn.functional.recurrence(step, [x], steps=2)
            result: Tensor = last
            return result

    with pytest.raises(UsageError, match="seen is assigned in the step of a recurrence"):
        Counter()(random(2))


def convolved(x: Array, w: Array) -> Array:
    """X (N, C, H, W) with w (K, C, 3, 3), padded by one."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    return np.einsum("nchwij,kcij->nkhw", windows, w)


@pytest.mark.parametrize("iterations", [0, 1, 3])
def test_a_recurrent_convolutional_layer(iterations: int) -> None:
    module = nn.RecurrentConv2d(2, 4, iterations=iterations)
    w, u = module.state_dict(), random(2, 2, 5, 6)
    given = convolved(u, w["feedforward.weight"]) + w["feedforward.bias"][:, None, None]
    x = np.maximum(given, 0)
    for _ in range(iterations):
        x = np.maximum(given + convolved(x, w["recurrent.weight"]), 0)
    assert_close(module(u), x)


def test_a_convolutional_lstm() -> None:
    module = nn.ConvLSTM2d(2, 3)
    w, x = module.state_dict(), random(4, 2, 2, 5, 6)
    h = c = np.zeros((2, 3, 5, 6))
    output, (last, cell) = module(x)
    for t in range(4):
        gates = convolved(x[t], w["input.weight"]) + w["input.bias"][:, None, None]
        i, f, g, o = np.split(gates + convolved(h, w["recurrent.weight"]), 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        assert_close(output[t], h)
    assert_close(last, h)
    assert_close(cell, c)
    graph = qn.trace(lambda x: module(x)[0], qn.spec(3, 1, 2, 3, 3))
    assert check_gradients(graph, samples=4).error < 1e-6
    with pytest.raises(UsageError, match="is odd, got 4"):
        nn.ConvLSTM2d(2, 3, 4)
