"""Gradients through time, against closed forms."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import quern as qn
from quern import nn
from quern.compiler.errors import GradientError, InputError, UsageError
from quern.compiler.evaluate import evaluate
from quern.compiler.probe import with_probes
from quern.frontends.gradient_flow import GradientFlow, gradient_flow
from quern.frontends.nn.functional.recurrent import recurrence

STEPS, BATCH, INPUT, HIDDEN = 20, 3, 4, 6


@pytest.mark.parametrize("w", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_linear_recurrence(w: float, reverse: bool) -> None:
    """H[t] = w h[t-1] + x[t] has the gradient w^(T-t) by what step t reads."""

    def last(x: nn.Tensor) -> nn.Tensor:
        def step(h: nn.Tensor, x: nn.Tensor) -> tuple[list[nn.Tensor], list[nn.Tensor]]:
            return [h * w + x], []

        (h,), _ = recurrence(step, [x[0] * 0.0], [x], reverse=reverse)
        return h.sum()

    flow = gradient_flow(last, np.ones((STEPS, BATCH, HIDDEN)))
    (norms,) = flow.norms.values()
    expected = np.sqrt(BATCH * HIDDEN) * w ** np.arange(STEPS, 0, -1)
    np.testing.assert_allclose(norms[::-1] if reverse else norms, expected, rtol=1e-12)
    assert flow.parameters == {}
    assert flow.total == 0


def rnn_and_input() -> tuple[nn.RNN, np.ndarray]:
    qn.manual_seed(0)
    rng = np.random.default_rng(1)
    return nn.RNN(INPUT, HIDDEN), rng.standard_normal((STEPS, BATCH, INPUT)).astype(np.float32)


def test_a_plain_network_against_products_of_jacobians() -> None:
    net, x = rnn_and_input()
    flow = gradient_flow(lambda x: net(x)[0][-1], x)
    w = {name: array.astype(np.float64) for name, array in net.state_dict().items()}
    h, states = np.zeros((BATCH, HIDDEN)), []
    for part in x:
        states.append(h)
        gates = part @ w["weight_ih_l0"].T + w["bias_ih_l0"] + w["bias_hh_l0"]
        h = np.tanh(gates + h @ w["weight_hh_l0"].T)
    signal, expected = np.ones_like(h), []
    for after in (h, *reversed(states[1:])):
        signal = (signal * (1 - after**2)) @ w["weight_hh_l0"]
        expected.append(np.linalg.norm(signal))
    assert list(flow.norms) == ["rnn.h"]
    np.testing.assert_allclose(flow.norms["rnn.h"], expected[::-1], rtol=1e-4)


def test_the_norm_of_all_parameters() -> None:
    net, x = rnn_and_input()
    graph = qn.trace(lambda x: net(x)[0][-1], x)
    found = evaluate(qn.grad(graph), {"x": x}).outputs
    squares = [np.sum(np.square(a, dtype=np.float64)) for n, a in found.items() if "grad." in n]
    assert gradient_flow(graph, x).total == pytest.approx(np.sqrt(sum(squares)), rel=1e-6)


def test_both_states_of_each_layer() -> None:
    net = nn.LSTM(INPUT, HIDDEN, num_layers=2)
    x = np.ones((STEPS, BATCH, INPUT), np.float32)
    flow = gradient_flow(lambda x: net(x)[0][-1], x)
    assert sorted(flow.norms) == ["l0.c", "l0.h", "l1.c", "l1.h"]
    assert all(n.shape == (STEPS,) and (n > 0).all() for n in flow.norms.values())


def test_open_gates_carry_gradients_back() -> None:
    """What an LSTM is for: with f near 1 the cell's gradient hardly shrinks."""
    net = nn.LSTM(INPUT, HIDDEN)
    rows = net.bias_ih_l0.data
    rows[HIDDEN : 2 * HIDDEN] = 8.0
    x = np.random.default_rng(1).standard_normal((STEPS, BATCH, INPUT)).astype(np.float32)
    norms = gradient_flow(lambda x: net(x)[1][1], x).norms["lstm.c"]
    assert norms[0] > 0.5 * norms[-1]


def test_probes_change_nothing() -> None:
    net, x = rnn_and_input()
    graph = qn.trace(net, x)
    probed, probes = with_probes(graph)
    zeros = {n: np.zeros((STEPS, BATCH, HIDDEN), np.float32) for n in probes.values()}
    expected = evaluate(graph, {"input": x}).outputs
    for name, array in evaluate(probed.verify(), {"input": x, **zeros}).outputs.items():
        np.testing.assert_array_equal(array, expected[name])


def test_clipping_scales_all_steps_alike() -> None:
    flow = GradientFlow({"h": np.array([8.0, 2.0])}, {"w": 3.0, "b": 4.0})
    assert flow.total == 5.0
    half = flow.clipped(2.5)
    assert half.total == pytest.approx(2.5)
    np.testing.assert_allclose(half.norms["h"], [4.0, 1.0])
    assert flow.clipped(10.0).parameters == flow.parameters


def test_a_table() -> None:
    flow = GradientFlow({"h": np.geomspace(1e-9, 1.0, 30), "c": np.ones(4)}, {"w": 0.25})
    lines = str(flow).splitlines()
    assert lines[0] == "norms of d loss / d state"
    assert lines[1].split() == ["steps", "back", "h", "c"]
    assert [line.split() for line in lines[3:-1]] == [
        ["1", "1.00e+00", "1.00e+00"],
        ["2", "4.89e-01", "1.00e+00"],
        ["5", "5.74e-02"],
        ["10", "1.61e-03"],
        ["20", "1.27e-06"],
    ]
    assert lines[-1].endswith("0.25")
    both = GradientFlow.beside({"one": flow, "other": flow})
    assert list(both.norms) == ["one h", "one c", "other h", "other c"]


def test_a_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    flow = GradientFlow({"h": np.array([0.0, 1.0])})
    assert flow.plot(tmp_path / "flow.svg").read_text("utf-8").startswith("<?xml")


def test_without_matplotlib_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    flow = GradientFlow({"h": np.ones(2)})
    with pytest.raises(UsageError, match=r"pip install 'quern\[plot\]'"):
        flow.plot(tmp_path / "flow.png")
    with pytest.raises(UsageError, match=r"flow\.bmp: let the name end in"):
        flow.plot(tmp_path / "flow.bmp")


def test_what_makes_no_sense_is_told() -> None:
    net, x = rnn_and_input()
    with pytest.raises(UsageError, match="has no recurrence"):
        gradient_flow(nn.Linear(INPUT, 2), x)
    with pytest.raises(InputError, match="takes 1 inputs, got 0"):
        gradient_flow(qn.trace(net, x))
    with pytest.raises(GradientError, match="no output 'loss'"):
        gradient_flow(net, x, of="loss")
