"""The worked examples of the textbooks, with the numbers they print."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import quern as qn
from quern import nn, optim
from quern.compiler.autodiff import differentiate
from quern.compiler.graph import Graph
from quern.compiler.tensor import Tensor
from quern.compiler.types import DType, TensorType
from quern.frontends.compile import compile
from quern.runtime.executable import Executable

Array = np.ndarray[Any, Any]

CORNERS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
AND = np.array([0, 0, 0, 1], np.float32)
OR = np.array([0, 1, 1, 1], np.float32)
XOR = np.array([0, 1, 1, 0], np.float32)


# -- a linear network of two layers, one step by hand ---------------------------------------------


def two_layers() -> nn.Sequential:
    """h1 = i1·w1 + i2·w2, h2 = i1·w3 + i2·w4, prediction = h1·w5 + h2·w6."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    model.load_state_dict({"0.weight": [[0.11, 0.21], [0.12, 0.08]], "1.weight": [[0.14, 0.15]]})
    return model


def test_backpropagation_step_by_step() -> None:
    model = two_layers()
    trainer = qn.Trainer(model, loss="half_squared_error", optimizer=optim.SGD(0.05))
    inputs, target = np.array([[2.0, 3.0]]), np.array([[1.0]])
    assert trainer.predict(inputs) == pytest.approx(0.191, abs=5e-7)
    assert trainer.step(inputs, target)["loss"] == pytest.approx(0.3272, abs=5e-5)
    w12, w34 = model[0].weight.data
    (w56,) = model[1].weight.data
    assert [f"{w:.2f}" for w in (*w12, *w34)] == ["0.12", "0.23", "0.13", "0.10"]
    assert [f"{w:.2f}" for w in w56] == ["0.17", "0.17"]
    assert trainer.predict(inputs) == pytest.approx(0.26, abs=5e-3)


def test_the_prediction_comes_ever_closer() -> None:
    trainer = qn.Trainer(two_layers(), loss="half_squared_error", optimizer=optim.SGD(0.05))
    inputs, target = np.array([[2.0, 3.0]]), np.array([[1.0]])
    losses = [trainer.step(inputs, target)["loss"] for _ in range(40)]
    assert losses == sorted(losses, reverse=True)
    assert trainer.predict(inputs) == pytest.approx(1.0, abs=1e-3)


# -- the chain rule on a DAG ----------------------------------------------------------------------


def scalars(*names: str) -> tuple[Graph, list[Tensor]]:
    graph = Graph("textbook")
    return graph, [graph.input(TensorType((), DType.FLOAT64), name) for name in names]


def derivatives(graph: Graph, result: Tensor, *wrt: str) -> Executable:
    graph.outputs["result"] = result.value
    return compile(differentiate(graph, "result", wrt))


def test_two_paths_that_meet_in_a_product() -> None:
    """In g = x²·(a·x + b), x reaches g on two paths, whose signals add."""
    graph, (x, a, b) = scalars("x", "a", "b")
    run = derivatives(graph, (x * x) * (a * x + b), "x", "a", "b")
    for values in np.random.default_rng(0).normal(size=(20, 3)):
        x_, a_, b_ = values
        found = run(dict(zip("xab", values, strict=True)))
        assert found["result"] == pytest.approx(x_**2 * (a_ * x_ + b_), rel=1e-13)
        assert found["grad.x"] == pytest.approx(2 * x_ * (a_ * x_ + b_) + x_**2 * a_, rel=1e-12)
        assert found["grad.a"] == pytest.approx(x_**3, rel=1e-13)
        assert found["grad.b"] == pytest.approx(x_**2, rel=1e-13)


def test_a_tied_weight_gets_the_sum_of_its_uses() -> None:
    """For y = w·(w·x), dy/dw = 2·w·x."""
    graph, (w, x) = scalars("w", "x")
    run = derivatives(graph, w * (w * x), "w", "x")
    for w_, x_ in [(3.0, 5.0), (-0.5, 8.0), (0.0, 1.0)]:
        found = run({"w": w_, "x": x_})
        assert found["result"] == w_ * w_ * x_
        assert found["grad.w"] == 2 * w_ * x_
        assert found["grad.x"] == w_ * w_


# -- the perceptron -------------------------------------------------------------------------------


class Perceptron(nn.Module):
    """A threshold unit whose weights are corrected by its error (Rosenblatt, 1958)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Buffer(np.zeros(2, np.float32))
        self.bias = nn.Buffer(np.float32(0.0))

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        guess = ((self.weight * x).sum() + self.bias > 0.0).cast("float32")
        error = target - guess
        self.weight = self.weight + error * x
        self.bias = self.bias + error
        return error


def mistakes(targets: Array, epochs: int) -> list[int]:
    """Wrong answers in each epoch of the error-correction rule."""
    step = compile(Perceptron(), qn.spec(2), qn.spec())
    return [
        sum(int(step(x, t) != 0) for x, t in zip(CORNERS, targets, strict=True))
        for _ in range(epochs)
    ]


@pytest.mark.parametrize("targets", [AND, OR], ids=["and", "or"])
def test_the_perceptron_learns_what_a_line_separates(targets: Array) -> None:
    counts = mistakes(targets, 20)
    assert counts[0] > 0
    assert counts[-10:] == [0] * 10


def test_the_perceptron_never_learns_xor() -> None:
    assert min(mistakes(XOR, 200)) > 0


def test_two_layers_learn_xor() -> None:
    qn.manual_seed(1)
    model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
    trainer = qn.Trainer(model, loss="binary_cross_entropy_with_logits", optimizer=optim.Adam(0.05))
    trainer.fit((CORNERS, XOR[:, None]), epochs=200, quiet=True)
    assert_array_equal(trainer.predict(CORNERS)[:, 0] > 0, XOR > 0)


# -- filters on a photograph ----------------------------------------------------------------------

FILTERS = np.array(
    [
        [[0, 0, 0], [0, 1, 0], [0, 0, 0]],  # identity
        [[1 / 9, 1 / 9, 1 / 9]] * 3,  # box
        [[0, 0, 0], [1, 0, 0], [0, 0, 0]],  # shift by a pixel to the right
        [[0, -1, 0], [-1, 5, -1], [0, -1, 0]],  # sharpen
    ],
    np.float32,
)
BORDERS = {"zeros": "constant", "circular": "wrap", "replicate": "edge", "reflect": "reflect"}


@pytest.fixture(scope="module")
def photograph() -> Array:
    """The roofs of a temple, grey, (427, 640), from 0 to 1."""
    datasets = pytest.importorskip("sklearn.datasets")
    colours = datasets.load_sample_image("china.jpg")
    return np.asarray(colours.mean(axis=2) / 255, np.float32)


@pytest.mark.parametrize("border", BORDERS)
def test_filters_on_a_photograph(photograph: Array, border: str) -> None:
    layer = nn.Conv2d(1, 4, 3, padding=1, padding_mode=border, bias=False)
    layer.load_state_dict({"weight": FILTERS[:, None]})
    run = compile(layer, qn.spec(1, 1, *photograph.shape))
    (identity, box, shifted, sharp) = run(photograph[None, None])[0]

    height, width = photograph.shape
    # NumPy has an overload for each name of a border, none for any name.
    padded = np.pad(photograph.astype(np.float64), 1, BORDERS[border])  # type: ignore[call-overload]

    def moved(down: int, right: int) -> Array:
        """The photograph, seen from so many pixels away."""
        return padded[1 + down : 1 + down + height, 1 + right : 1 + right + width]

    around = [moved(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    cross = [moved(-1, 0), moved(1, 0), moved(0, -1), moved(0, 1)]
    assert_array_equal(identity, photograph)
    assert_array_equal(shifted, moved(0, -1))
    assert_allclose(box, np.mean(around, axis=0), atol=1e-6)
    assert_allclose(sharp, 5 * photograph - np.sum(cross, axis=0), atol=1e-5)
    assert sharp.std() > photograph.std() > box.std()
