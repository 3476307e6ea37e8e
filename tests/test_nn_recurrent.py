"""RNN, LSTM and GRU: outputs, states and gradients, against NumPy and PyTorch."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from recurrent_layers import (
    BATCH,
    HIDDEN,
    INPUT,
    KINDS,
    LENGTHS,
    STEPS,
    assert_close,
    flat,
    hx_of,
    initial,
    layers_numpy,
    random,
    sigmoid,
)

import quern as qn
from quern import nn
from quern.compiler.autodiff import differentiate
from quern.compiler.check import check_gradients
from quern.compiler.evaluate import evaluate
from quern.compiler.graph import Graph
from quern.compiler.ops.recurrence import Recurrence
from quern.compiler.passes.unroll import Unroll
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array

# -- the same in NumPy, one sequence and one step at a time ---------------------------------------


def rnn_step(x: Array, states: list[Array], w: dict[str, Array]) -> list[Array]:
    return [np.tanh(w["weight_ih"] @ x + w["weight_hh"] @ states[0] + w["bias"] + w["bias_h"])]


def lstm_step(x: Array, states: list[Array], w: dict[str, Array]) -> list[Array]:
    h, c = states
    gates = w["weight_ih"] @ x + w["weight_hh"] @ h + w["bias"] + w["bias_h"]
    i, f, g, o = np.split(gates, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return [sigmoid(o) * np.tanh(c), c]


def gru_step(x: Array, states: list[Array], w: dict[str, Array]) -> list[Array]:
    (h,) = states
    xr, xz, xn = np.split(w["weight_ih"] @ x + w["bias"], 3)
    hr, hz, hn = np.split(w["weight_hh"] @ h + w["bias_h"], 3)
    z, n = sigmoid(xz + hz), np.tanh(xn + sigmoid(xr + hr) * hn)
    return [(1 - z) * n + z * h]


NUMPY_STEPS = {"RNN": rnn_step, "LSTM": lstm_step, "GRU": gru_step}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
def test_outputs_and_final_states(kind: str, directions: int, lengths: Array | None) -> None:
    module = getattr(nn, kind)(INPUT, HIDDEN, 2, bidirectional=directions == 2)
    x, states = random(STEPS, BATCH, INPUT), initial(kind, 2 * directions)
    found = flat(module(x, hx_of(states), lengths=lengths))
    steps = np.full(BATCH, STEPS) if lengths is None else lengths
    output, finals = layers_numpy(
        NUMPY_STEPS[kind], module.state_dict(), x, states, 2, directions, steps
    )
    for y, expected in zip(found, [output, *finals], strict=True):
        assert y.dtype == np.float32
        assert_close(y, expected)


def loss_graph(module: nn.Module, kind: str, places: int, lengths: bool) -> Graph:
    """Outputs and final states, weighted, as a scalar; inputs x, h, c and length."""

    def forward(x: Tensor, states: Any, weights: Any, lengths: Any = None) -> dict[str, Tensor]:
        results = flat(module(x, hx_of(states), lengths=lengths))
        parts = [(y * w).sum() for y, w in zip(results, weights, strict=True)]
        names = ("output", "h", "c")
        return {"loss": sum(parts[1:], parts[0]), **dict(zip(names, results, strict=False))}

    states = [qn.spec(s) for s in initial(kind, places)]
    width = HIDDEN * (places // 2)
    weights = [qn.spec(STEPS, BATCH, width), *states]
    given = [qn.spec(STEPS, BATCH, INPUT), states, weights]
    return qn.trace(forward, *given, *([qn.spec(LENGTHS)] if lengths else []))


def feeds_of(kind: str, places: int, lengths: bool) -> dict[str, Array]:
    states = initial(kind, places)
    feeds = {"x": random(STEPS, BATCH, INPUT)}
    feeds |= {f"states.{i}": s for i, s in enumerate(states)}
    shapes = [(STEPS, BATCH, HIDDEN * (places // 2)), *(s.shape for s in states)]
    feeds |= {f"weights.{i}": random(*shape, seed=20 + i) for i, shape in enumerate(shapes)}
    return feeds | ({"lengths": LENGTHS} if lengths else {})


@pytest.mark.parametrize("kind", KINDS)
def test_what_lies_behind_the_end_changes_nothing(kind: str) -> None:
    module = getattr(nn, kind)(INPUT, HIDDEN, 2, bidirectional=True)
    graph = loss_graph(module, kind, 4, lengths=True)
    names = [n for n, _ in module.named_parameters()]
    graph = differentiate(graph, "loss", [*names, "x", "states.0"])
    feeds = feeds_of(kind, 4, lengths=True)
    expected = evaluate(graph, feeds).outputs
    for filler in (7.0, np.inf, np.nan):
        for b, length in enumerate(LENGTHS):
            feeds["x"][length:, b] = filler
        found = evaluate(graph, feeds).outputs
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array, err_msg=name)
    for b, length in enumerate(LENGTHS):
        assert not expected["output"][length:, b].any()
        assert not expected["grad.x"][length:, b].any()


@pytest.mark.parametrize("kind", [*KINDS, "peepholes", "coupled"])
def test_gradients_through_twelve_steps_by_central_differences(kind: str) -> None:
    options = {} if kind in KINDS else {kind: True}
    module = getattr(nn, kind if kind in KINDS else "LSTM")(2, 3, **options).double()
    graph = qn.trace(lambda x: flat(module(x)), qn.spec(12, 2, 2, dtype="float64"))
    feeds = {"x": random(12, 2, 2).astype(np.float64)}
    assert check_gradients(graph, feeds, samples=6).error < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_rolled_and_unrolled_give_the_same_gradients(kind: str) -> None:
    module = getattr(nn, kind)(INPUT, HIDDEN, 2, bidirectional=True)
    graph = loss_graph(module, kind, 4, lengths=True)
    feeds = feeds_of(kind, 4, lengths=True)
    rolled = differentiate(graph, "loss")
    unrolled = differentiate(Unroll().apply(graph), "loss")
    assert any(isinstance(n.op, Recurrence) for n in rolled.nodes())
    found, expected = (evaluate(g, feeds).outputs for g in (rolled, unrolled))
    for name, array in expected.items():
        assert_close(found[name], array, name, 1e-6)


# -- PyTorch --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [False, True], ids=["whole", "lengths"])
def test_outputs_states_and_gradients_agree_with_pytorch(kind: str, lengths: bool) -> None:
    torch = pytest.importorskip("torch")
    options = {"num_layers": 2, "bidirectional": True}
    own = getattr(nn, kind)(INPUT, HIDDEN, **options)
    theirs = getattr(torch.nn, kind)(INPUT, HIDDEN, **options)
    assert list(own.state_dict()) == list(theirs.state_dict())
    assert repr(own) == repr(theirs)
    theirs.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in own.state_dict().items()})
    theirs = theirs.double()
    graph = differentiate(
        loss_graph(own, kind, 4, lengths),
        "loss",
        [*own.state_dict(), "x", *(f"states.{i}" for i in range(len(initial(kind, 4))))],
    )
    feeds = feeds_of(kind, 4, lengths)
    found = evaluate(graph, feeds).outputs

    leaves = {
        n: torch.from_numpy(a).double().requires_grad_()
        for n, a in feeds.items()
        if n.startswith(("x", "states"))
    }
    states = hx_of([t for n, t in leaves.items() if n != "x"])
    utils = torch.nn.utils.rnn
    if lengths:
        packed = utils.pack_padded_sequence(
            leaves["x"], torch.from_numpy(LENGTHS), enforce_sorted=False
        )
        output, last = theirs(packed, states)
        output, _ = utils.pad_packed_sequence(output, total_length=STEPS)
    else:
        output, last = theirs(leaves["x"], states)
    results = flat((output, last))
    loss = sum((y * torch.from_numpy(feeds[f"weights.{i}"])).sum() for i, y in enumerate(results))
    loss.backward()
    for name, y in zip(("output", "h", "c"), results, strict=False):
        assert_close(found[name], y.detach().numpy(), name)
    for name, leaf in [*leaves.items(), *theirs.named_parameters()]:
        assert_close(found[f"grad.{name}"], leaf.grad.numpy(), f"gradient of {name}")


@pytest.mark.parametrize("kind", KINDS)
def test_cells_agree_with_pytorch(kind: str) -> None:
    torch = pytest.importorskip("torch")
    own, theirs = (getattr(m, f"{kind}Cell")(INPUT, HIDDEN) for m in (nn, torch.nn))
    theirs.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in own.state_dict().items()})
    assert repr(own) == repr(theirs)
    x, states = random(BATCH, INPUT), [s[0] for s in initial(kind, 1)]
    there = theirs(torch.from_numpy(x), hx_of([torch.from_numpy(s) for s in states]))
    here = own(x, hx_of(states))
    pairs = zip(here, there, strict=True) if kind == "LSTM" else [(here, there)]
    for y, expected in pairs:
        assert_close(y, expected.detach().numpy())


def test_projections_agree_with_pytorch() -> None:
    torch = pytest.importorskip("torch")
    options = {"num_layers": 2, "bidirectional": True, "proj_size": 2}
    own, theirs = nn.LSTM(INPUT, HIDDEN, **options), torch.nn.LSTM(INPUT, HIDDEN, **options)
    assert list(own.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in own.state_dict().items()})
    x = random(STEPS, BATCH, INPUT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = flat(theirs(torch.from_numpy(x)))
    for y, there in zip(flat(own(x)), expected, strict=True):
        assert_close(y, there.detach().numpy())
