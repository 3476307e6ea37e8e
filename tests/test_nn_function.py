"""Functions with a gradient of their own, as in PyTorch's autograd.Function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quern as qn
from quern import nn
from quern.compiler.errors import ShapeError, UsageError
from quern.compiler.serialize import graph_from_json, graph_to_json

X = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)


class Sign(qn.autograd.Function):
    """A straight-through estimator."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x.sign()

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        (x,) = ctx.saved_tensors
        return grad * (x.abs() <= 1)


class Reversal(qn.autograd.Function):
    """The identity whose gradient changes its sign."""

    @staticmethod
    def forward(ctx: Any, x: Any, strength: float) -> Any:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return -ctx.strength * grad, None


class Exp(qn.autograd.Function):
    """Written in the newer style, its output is saved."""

    @staticmethod
    def forward(x: Any) -> Any:
        return x.exp()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        (y,) = ctx.saved_tensors
        return grad * y


class Product(qn.autograd.Function):
    """x Wᵀ and the sum of its squares, with attributes of the context in place of saved tensors."""

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any) -> Any:
        ctx.parts = {"x": x, "weight": weight, "y": x @ weight.t(), "twice": 2 * x}
        assert ctx.needs_input_grad == (True, True)
        return ctx.parts["y"], (ctx.parts["y"] ** 2).sum()

    @staticmethod
    def backward(ctx: Any, by_y: Any, by_sum: Any) -> Any:
        signal = by_y + 2 * by_sum * ctx.parts["y"]
        return signal @ ctx.parts["weight"], signal.t() @ (ctx.parts["twice"] / 2)


def gradient_of(function: Any, *arrays: Any) -> Any:
    def derivative(*tensors: Any) -> Any:
        return qn.autograd.grad(function(*tensors).sum(), tensors, create_graph=True)

    found = qn.compile(derivative, *(qn.spec(a) for a in arrays))(*arrays)
    return found if len(arrays) > 1 else [found]


def test_the_gradient_is_what_backward_says() -> None:
    (g,) = gradient_of(lambda x: 3 * Sign.apply(2 * x), X)
    np.testing.assert_allclose(g, 6 * (np.abs(2 * X) <= 1))
    (g,) = gradient_of(lambda x: Reversal.apply(x, 0.5) * 4, X)
    np.testing.assert_allclose(g, np.full(X.shape, -2))
    (g,) = gradient_of(Exp.apply, X)
    np.testing.assert_allclose(g, np.exp(X), rtol=1e-5)


def test_several_inputs_and_outputs() -> None:
    w = np.random.default_rng(1).standard_normal((2, 3)).astype(np.float32)

    def loss(x: Any, w: Any) -> Any:
        y, total = Product.apply(x, w)
        return y.sum() + 3 * total

    def plain(x: Any, w: Any) -> Any:
        y = x @ w.t()
        return y.sum() + 3 * (y**2).sum()

    for found, expected in zip(gradient_of(loss, X, w), gradient_of(plain, X, w), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    qn.check_gradients(qn.trace(loss, qn.spec(X), qn.spec(w)))
    # Where one output is not read, its gradient is zeros.
    first = gradient_of(lambda x, w: Product.apply(x, w)[0], X, w)
    np.testing.assert_allclose(first[0], np.tile(w.sum(0), (4, 1)), rtol=1e-5)


def test_second_derivatives_are_those_of_backward() -> None:
    def penalty(x: Any) -> Any:
        (g,) = qn.autograd.grad(Exp.apply(x).sum(), x, create_graph=True)
        return (g**2).sum()

    (g,) = gradient_of(penalty, X)
    np.testing.assert_allclose(g, 2 * np.exp(2 * X), rtol=1e-5)


def test_arrays_run_at_once() -> None:
    np.testing.assert_array_equal(Sign.apply(X), np.sign(X))


class Binarized(nn.Module):
    """A network with functions, which is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x: Any) -> Any:
        return self.second(Sign.apply(self.first(x)))


def test_it_is_trained_saved_and_drawn(tmp_path: Path) -> None:
    net = Binarized()
    graph = qn.trace(net, qn.spec(X))
    assert graph_to_json(graph_from_json(graph_to_json(graph))) == graph_to_json(graph)
    assert "forward=Sign, backward=Sign.backward" in str(graph)
    before = net.first.weight.data.copy()
    trainer = qn.Trainer(net, loss=nn.CrossEntropyLoss(), optimizer=qn.optim.SGD(lr=0.1))
    trainer.fit((X, np.array([0, 1, 0, 1])), epochs=3, batch_size=4, quiet=True)
    assert (net.first.weight.data != before).any()
    executable = qn.compile(net, qn.spec(X))
    executable.save(tmp_path / "net.qn")
    np.testing.assert_array_equal(qn.load(tmp_path / "net.qn")(X), executable(X))
    qn.to_onnx(graph, tmp_path / "net.onnx")
    onnx = qn.from_onnx(tmp_path / "net.onnx")
    np.testing.assert_allclose(qn.interpret(onnx, X), qn.interpret(graph, X), rtol=1e-5)
    qn.draw(graph, tmp_path / "net.svg")
    assert "sign" in (tmp_path / "net.svg").read_text()


def test_parameters_and_random_numbers_inside() -> None:
    class Bernoulli(qn.autograd.Function):
        """Stochastic units: a sample, and the gradient of its mean."""

        @staticmethod
        def forward(ctx: Any, p: Any, scale: Any) -> Any:
            ctx.save_for_backward(scale)
            ctx.drawn = qn.bernoulli(p)
            return ctx.drawn * scale

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            (scale,) = ctx.saved_tensors
            return grad * scale, (grad * ctx.drawn).sum()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(np.float32(3))

        def forward(self, x: Any) -> Any:
            return Bernoulli.apply(x.sigmoid(), self.scale)

    graph = qn.trace(Net(), qn.spec(100, 3))
    step = qn.compile(qn.grad(graph, wrt=["x", "scale"]))
    x = np.random.default_rng(2).standard_normal((100, 3)).astype(np.float32)
    sample, by_x, by_scale = step(x)
    assert set(np.unique(sample)) == {0, 3}
    s = 1 / (1 + np.exp(-x))
    np.testing.assert_allclose(by_x, 3 * s * (1 - s), rtol=1e-4)
    np.testing.assert_allclose(by_scale, (sample / 3).sum())  # of the same numbers
    assert (step(x)[0] != sample).any()


def test_in_the_step_of_a_recurrence() -> None:
    sequence = np.random.default_rng(3).standard_normal((12, 4, 3)).astype(np.float32)

    def network(xs: Any) -> Any:
        def step(h: Any, x: Any) -> Any:
            h = h / 2 + Sign.apply(x)
            return [h], [h]

        _, (hs,) = nn.functional.recurrence(step, [xs[0] * 0], [xs])
        return hs

    (g,) = gradient_of(network, sequence)
    weight = np.cumsum(0.5 ** np.arange(12))[::-1, None, None]
    np.testing.assert_allclose(g, weight * (np.abs(sequence) <= 1), rtol=1e-5)


def function_of(forward: Any, backward: Any) -> type[qn.autograd.Function]:
    parts = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    return type("Mine", (qn.autograd.Function,), parts)


@pytest.mark.parametrize(
    ("forward", "backward", "error", "message"),
    [
        (lambda ctx, x: 3, None, UsageError, "returns 3, give tensors"),
        (lambda ctx, x: x, lambda ctx, g: (g, g), UsageError, "2 gradients for 1 arguments"),
        (lambda ctx, x: x, lambda ctx, g: 1.0, UsageError, "gives 1.0 for the argument float32"),
        (lambda ctx, x: x, lambda ctx, g: g.sum(), ShapeError, r"gives float32\[\] for"),
        (lambda ctx, x: ctx.mark_dirty(x), None, UsageError, "tensors do not change"),
    ],
)
def test_what_is_wrong(forward: Any, backward: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        qn.trace(function_of(forward, backward).apply, qn.spec(X))


def test_backward_reads_what_forward_knows() -> None:
    layer = nn.Linear(3, 3)
    mine = function_of(lambda ctx, x: x, lambda ctx, g: g @ layer.weight)
    with pytest.raises(UsageError, match="backward of Mine reads weight, which forward does not"):
        qn.trace(lambda x: mine.apply(layer(x)), qn.spec(X))


def test_outputs_that_are_marked_are_constant() -> None:
    class Parts(qn.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            whole = x.trunc()
            ctx.mark_non_differentiable(whole)
            return x - whole, whole, x.argmax(1)

        @staticmethod
        def backward(ctx: Any, by_rest: Any, by_whole: Any, by_place: Any) -> Any:
            assert by_place is None
            return by_rest + by_whole, None

    (g,) = gradient_of(lambda x: 2 * Parts.apply(x)[0] + 5 * Parts.apply(x)[1], X)
    np.testing.assert_array_equal(g, np.full(X.shape, 2))


def test_gradients_may_be_broadcast_as_in_pytorch() -> None:
    mine = function_of(lambda ctx, x: x.broadcast_to(5, 4, 3), lambda ctx, g: g * 2)
    (g,) = gradient_of(mine.apply, X)
    np.testing.assert_array_equal(g, np.full(X.shape, 10))


def test_the_same_classes_mean_the_same_in_pytorch() -> None:
    torch = pytest.importorskip("torch")
    for ours in (Sign, Exp):
        theirs = type("Theirs", (torch.autograd.Function,), dict(vars(ours)))
        x = torch.tensor(X, requires_grad=True)
        (theirs.apply(x * 1.5) ** 2).sum().backward()
        (g,) = gradient_of(lambda x, f=ours: f.apply(x * 1.5) ** 2, X)
        np.testing.assert_allclose(g, x.grad.numpy(), rtol=1e-5, atol=1e-6)
    for name, first in (("no_grad", False), ("enable_grad", True)):
        x = torch.tensor(X, requires_grad=True)
        with torch.set_grad_enabled(not first), getattr(torch, name)():
            y = x * 2
        assert y.requires_grad is first

        def network(x: Any, name: str = name, first: bool = first) -> Any:
            with qn.set_grad_enabled(not first), getattr(qn.autograd, name)():
                y = x * 2
            return y + x

        (g,) = gradient_of(network, X)
        np.testing.assert_array_equal(g, np.full(X.shape, 3 if first else 1))
