"""Recurrent modules against NumPy, and against PyTorch where it is installed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import quern as qn
from quern import nn
from quern.compiler.autodiff import differentiate
from quern.compiler.check import check_gradients
from quern.compiler.errors import DTypeError, ShapeError, UsageError
from quern.compiler.evaluate import evaluate
from quern.compiler.graph import Graph
from quern.compiler.ops.leaf import Parameter
from quern.compiler.ops.recurrence import Recurrence
from quern.compiler.passes.unroll import Unroll
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array

STEPS, BATCH, INPUT, HIDDEN = 7, 3, 4, 5
LENGTHS = np.array([4, 7, 1])
KINDS = ("RNN", "LSTM", "GRU")


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# -- the same in NumPy, one sequence and one step at a time ---------------------------------------


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


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

Step = Callable[[Array, list[Array], dict[str, Array]], list[Array]]


def layers_numpy(
    step: Step,
    state: dict[str, Array],
    x: Array,
    states: list[Array],
    layers: int,
    directions: int,
    lengths: Array,
) -> tuple[Array, list[Array]]:
    """Output (T, B, *) and final states (layers * directions, B, *), all in float64."""
    finals = [s.astype(np.float64) for s in states]
    for layer in range(layers):
        outputs = []
        for direction, way in enumerate(("", "_reverse")[:directions]):
            suffix = f"_l{layer}{way}"
            w = {k: state[k + suffix].astype(np.float64) for k in ("weight_ih", "weight_hh")}
            w |= {"bias": state["bias_ih" + suffix], "bias_h": state["bias_hh" + suffix]}
            if "weight_peephole" + suffix in state:
                w["peephole"] = state["weight_peephole" + suffix]
            place = layer * directions + direction
            output = np.zeros((*x.shape[:2], finals[0].shape[-1]))
            for b, length in enumerate(lengths):
                now = [s[place, b] for s in finals]
                for t in range(length)[:: -1 if direction else 1]:
                    now = step(x[t, b].astype(np.float64), now, w)
                    output[t, b] = now[0]
                for s, new in zip(finals, now, strict=True):
                    s[place, b] = new
            outputs.append(output)
        x = np.concatenate(outputs, axis=2)
    return x, finals


def initial(kind: str, places: int) -> list[Array]:
    count = 2 if kind == "LSTM" else 1
    return [random(places, BATCH, HIDDEN, seed=10 + i) for i in range(count)]


def hx_of(states: list[Any]) -> Any:
    return tuple(states) if len(states) > 1 else states[0]


def flat(result: Any) -> list[Any]:
    """Output and final states."""
    output, last = result
    return [output, *(last if isinstance(last, tuple) else (last,))]


def assert_close(found: Array, expected: Array, what: str = "", tolerance: float = 1e-5) -> None:
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale, err_msg=what)


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


# -- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_axes(kind: str) -> None:
    """With the batch first, and one sequence without a batch."""
    time_first = getattr(nn, kind)(INPUT, HIDDEN, 2)
    batch_first = getattr(nn, kind)(INPUT, HIDDEN, 2, batch_first=True)
    batch_first.load_state_dict(time_first.state_dict())
    x, states = random(STEPS, BATCH, INPUT), initial(kind, 2)
    expected = flat(time_first(x, hx_of(states)))
    found = flat(batch_first(x.swapaxes(0, 1).copy(), hx_of(states)))
    one = flat(time_first(x[:, 1].copy(), hx_of([s[:, 1].copy() for s in states])))
    np.testing.assert_array_equal(found[0].swapaxes(0, 1), expected[0])
    np.testing.assert_allclose(one[0], expected[0][:, 1], rtol=1e-5, atol=1e-6)
    for a, b, c in zip(found[1:], expected[1:], one[1:], strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(c, b[:, 1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_initial_states_are_zeros_by_default(kind: str) -> None:
    module = getattr(nn, kind)(INPUT, HIDDEN, bias=False)
    x = random(STEPS, BATCH, INPUT)
    zeros = [np.zeros_like(s) for s in initial(kind, 1)]
    for a, b in zip(flat(module(x)), flat(module(x, hx_of(zeros))), strict=True):
        np.testing.assert_array_equal(a, b)
    assert all(not name.startswith("bias") for name in module.state_dict())


def test_initial_contents() -> None:
    module = nn.LSTM(64, 100)
    for name, array in module.state_dict().items():
        assert np.abs(array).max() <= 0.1, name
        assert np.abs(array).max() > 0.09, name


def test_relu() -> None:
    module = nn.RNN(INPUT, HIDDEN, nonlinearity="relu")
    assert flat(module(random(STEPS, BATCH, INPUT)))[0].min() == 0
    with pytest.raises(UsageError, match="'tanh' or 'relu', not 'sine'"):
        nn.RNN(INPUT, HIDDEN, nonlinearity="sine")


def test_dropout_lies_between_layers_in_training_only() -> None:
    x = random(STEPS, BATCH, INPUT)
    module = nn.GRU(INPUT, HIDDEN, 2, dropout=0.5)
    plain = nn.GRU(INPUT, HIDDEN, 2)
    plain.load_state_dict(module.state_dict())
    assert (module.eval()(x)[0] == plain(x)[0]).all()
    assert not (module.train()(x)[0] == plain(x)[0]).all()
    (_, first), (_, second) = module(x), plain(x)
    assert (first[0] == second[0]).all(), "nothing falls before the first layer"


@pytest.mark.parametrize("kind", KINDS)
def test_cells_by_hand_are_what_the_layer_is(kind: str) -> None:
    """An Elman net, or another one, whose loop is Python's."""
    layer, cell = getattr(nn, kind)(INPUT, HIDDEN), getattr(nn, f"{kind}Cell")(INPUT, HIDDEN)
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in layer.state_dict().items()})

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = cell

        def forward(self, x: Tensor) -> list[Tensor]:
            states, outputs = None, []
            for t in range(len(x)):
                states = self.cell(x[t], states)
                outputs.append(states[0] if kind == "LSTM" else states)
            return outputs

    x = random(STEPS, BATCH, INPUT)
    assert_close(np.stack(Net()(x)), layer(x)[0], tolerance=1e-6)
    assert cell(x[0, 0])[0].shape == ((HIDDEN,) if kind == "LSTM" else ())


def variant_step(x: Array, states: list[Array], w: dict[str, Array]) -> list[Array]:
    """Both variants of the LSTM, told apart by their weights."""
    h, c = states
    gates = w["weight_ih"] @ x + w["weight_hh"] @ h + w["bias"] + w["bias_h"]
    *inner, o = np.split(gates, len(gates) // HIDDEN)
    see = w.get("peephole", np.zeros((3, HIDDEN)))
    i = sigmoid(inner[0] + see[0] * c)
    f = sigmoid(inner[1] + see[1] * c) if len(inner) == 3 else 1 - i
    c = f * c + i * np.tanh(inner[-1])
    return [sigmoid(o + see[-1] * c) * np.tanh(c), c]


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("peepholes", [False, True])
def test_variants_of_the_lstm(peepholes: bool, coupled: bool) -> None:
    module = nn.LSTM(INPUT, HIDDEN, 2, peepholes=peepholes, coupled=coupled)
    x, states = random(STEPS, BATCH, INPUT), initial("LSTM", 2)
    output, finals = layers_numpy(
        variant_step, module.state_dict(), x, states, 2, 1, np.full(BATCH, STEPS)
    )
    for y, expected in zip(flat(module(x, hx_of(states))), [output, *finals], strict=True):
        assert_close(y, expected)
    cell = nn.LSTMCell(INPUT, HIDDEN, peepholes=peepholes, coupled=coupled)
    assert cell.weight_ih.shape == ((3 if coupled else 4) * HIDDEN, INPUT)


# -- in the graph, and as machine code ------------------------------------------------------------


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(INPUT, HIDDEN)
        self.stack = nn.GRU(HIDDEN, HIDDEN, 2, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.lstm(x)
        result: Tensor = self.stack(y)[0]
        return result


def test_names() -> None:
    graph = qn.trace(Tagger(), qn.spec(2, BATCH, INPUT))
    loops = [n.name for n in graph.nodes() if isinstance(n.op, Recurrence)]
    assert loops == ["lstm", "stack.l0", "stack.l0_reverse", "stack.l1", "stack.l1_reverse"]
    names = {n.name for n in Unroll().apply(graph).nodes()}
    assert {"lstm.input", "lstm.t1.gates", "lstm.t1.forget_gate", "stack.l1.t0.hidden"} <= names


def test_compiled_with_gradients() -> None:
    module = Tagger()
    x = random(3, BATCH, INPUT)
    graph = differentiate(qn.trace(module, qn.spec(x)), "output")
    found = qn.compile(graph, workers=1).run({"x": x})
    for name, expected in evaluate(graph, {"x": x}).outputs.items():
        assert_close(found[name], expected, name)


def test_products_with_the_input_are_one() -> None:
    graph = qn.trace(Tagger(), qn.spec(STEPS, BATCH, INPUT))
    names = {n.name: n.types[0].shape for n in graph.nodes()}
    assert names["lstm.input"] == (STEPS, BATCH, 4 * HIDDEN)


# -- errors ---------------------------------------------------------------------------------------


def test_wrong_shapes() -> None:
    module = nn.LSTM(INPUT, HIDDEN)
    x = random(STEPS, BATCH, INPUT)
    with pytest.raises(ShapeError, match=r"takes \(T, B, I\), or without B, with I = 4, got"):
        module(random(STEPS, BATCH, 9))
    with pytest.raises(ShapeError, match="initial states h_0, c_0"):
        module(x, random(1, BATCH, HIDDEN))
    with pytest.raises(ShapeError, match=r"c_0 is .*, it must have the shape \(1, 3, 5\)"):
        module(x, (random(1, BATCH, HIDDEN), random(2, BATCH, HIDDEN)))
    with pytest.raises(ShapeError, match=r"lengths are one a sequence, \(3,\), got int64\[2\]"):
        module(x, lengths=LENGTHS[:2])
    with pytest.raises(DTypeError, match="lengths are int32 or int64, got float32"):
        module(x, lengths=LENGTHS.astype(np.float32))
    with pytest.raises(UsageError, match="lengths are for batches"):
        module(x[:, 0].copy(), lengths=LENGTHS[:1])


def test_wrong_arguments() -> None:
    with pytest.raises(UsageError, match="hidden_size from 1"):
        nn.GRU(INPUT, 0)
    with pytest.raises(UsageError, match="num_layers is from 1, got 0"):
        nn.GRU(INPUT, HIDDEN, 0)
    with pytest.raises(UsageError, match=r"from 0 to 1, got 1\.5"):
        nn.GRU(INPUT, HIDDEN, 2, dropout=1.5)
    with pytest.raises(UsageError, match="proj_size 5 is from 0 to below hidden_size 5"):
        nn.LSTM(INPUT, HIDDEN, proj_size=5)


# -- nets built by hand ---------------------------------------------------------------------------


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


def test_a_step_draws_no_random_numbers() -> None:
    with pytest.raises(UsageError, match="no dropout inside of the step"):
        Elman(0.5)(random(STEPS, BATCH, INPUT), random(BATCH, HIDDEN))


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
