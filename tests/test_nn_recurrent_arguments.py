"""What recurrent layers can be told, and how they look in a graph."""

from __future__ import annotations

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
from quern.compiler.errors import DTypeError, ShapeError, UsageError
from quern.compiler.evaluate import evaluate
from quern.compiler.ops.recurrence import Recurrence
from quern.compiler.passes.unroll import Unroll
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array

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


def test_lengths_are_a_tensor_or_numbers() -> None:
    module, x = nn.GRU(INPUT, HIDDEN), random(STEPS, BATCH, INPUT)
    known = [int(n) for n in LENGTHS]
    for a, b in zip(module(x, lengths=known), module(x, lengths=np.array(known)), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ShapeError, match=f"a length is {STEPS + 1}, the sequences have {STEPS}"):
        module(x, lengths=[STEPS + 1] * BATCH)


def test_all_weights() -> None:
    module = nn.LSTM(INPUT, HIDDEN, 2, bidirectional=True)
    module.flatten_parameters()
    assert [len(weights) for weights in module.all_weights] == [4] * 4
    assert module.all_weights[2][1] is module.weight_hh_l1


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
    with pytest.raises(ShapeError, match=r"takes \(B, T, I\), or without B"):
        nn.GRU(INPUT, HIDDEN, batch_first=True)(random(BATCH, STEPS, 9))
    with pytest.raises(ShapeError, match=r"takes \(B, I\), or without B"):
        nn.GRUCell(INPUT, HIDDEN)(x)
    with pytest.raises(ShapeError, match="initial states h_0 and c_0, got 1"):
        module(x, random(1, BATCH, HIDDEN))
    with pytest.raises(ShapeError, match="initial states h_0, got 2"):
        nn.GRU(INPUT, HIDDEN)(x, hx_of(initial("LSTM", 1)))
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
