"""What people who know PyTorch write without thinking: functions beside methods, gradients inside
of `forward`, trainers that share modules.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import quern as qn
from quern import nn, optim
from quern.compiler.errors import GradientError, QuernError, ShapeError, UsageError
from quern.nn import functional as F

X = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)


# -- functions ------------------------------------------------------------------------------------


def test_methods_are_functions_too() -> None:
    def network(x: Any) -> Any:
        return qn.sum(qn.exp(-qn.clamp(x, min=0)) * qn.tanh(x), dim=1)

    expected = (np.exp(-np.maximum(X, 0)) * np.tanh(X)).sum(1)
    np.testing.assert_allclose(qn.compile(network, qn.spec(X))(X), expected, rtol=1e-5)


def test_functions_run_at_once_on_arrays() -> None:
    probabilities = F.softmax(X, dim=1)
    assert isinstance(probabilities, np.ndarray)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-6)
    np.testing.assert_array_equal(qn.argmax(X, 1), X.argmax(1))
    values, _ = qn.topk(X, 2, dim=1)
    np.testing.assert_array_equal(values, -np.sort(-X, 1)[:, :2])
    np.testing.assert_array_equal(qn.cat([X, X], dim=0), np.concatenate([X, X]))
    layer = nn.Linear(3, 2)
    np.testing.assert_allclose(F.linear(X, layer.weight, layer.bias), layer(X), rtol=1e-6)


def test_arrays_beside_tensors_are_constants() -> None:
    kernel = np.random.default_rng(1).standard_normal((2, 3))  # doubles, as NumPy makes them

    def network(x: Any) -> Any:
        return F.linear(x, kernel)

    y = qn.compile(network, qn.spec(X))(X)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, X @ kernel.T, rtol=1e-5)


def test_outside_of_forward_tensors_are_arrays() -> None:
    qn.manual_seed(3)
    drawn = qn.randn(100, 100)
    assert isinstance(drawn, np.ndarray)
    assert drawn.dtype == np.float32
    assert abs(drawn.mean()) < 0.05 < 0.95 < drawn.std() < 1.05
    assert set(np.unique(qn.randint(2, 5, (200,)))) == {2, 3, 4}
    assert (qn.zeros(2, 3, dtype=qn.long, device="cpu") == np.zeros((2, 3), int)).all()
    assert qn.empty(2).shape == qn.rand_like(np.ones(2)).shape == (2,)
    qn.manual_seed(3)
    np.testing.assert_array_equal(qn.randn(100, 100), drawn)
    assert nn.Parameter(qn.zeros(1, 1, 4)).shape == (1, 1, 4)
    with pytest.raises(UsageError, match="no device cuda"):
        qn.zeros(2, device="cuda")


def test_random_numbers_of_a_network_differ_between_runs() -> None:
    def network(x: Any) -> Any:
        return x + qn.randn(200, 3), qn.randint(0, 7, (x.shape[0], 99)), qn.rand(3, 5)

    executable = qn.compile(network, qn.spec(1, 3))
    (normal, whole, uniform), again = executable(X[:1]), executable(X[:1])
    assert 0.9 < normal.std() < 1.6
    assert whole.dtype == np.int64
    assert set(np.unique(whole)) == set(range(7))
    assert uniform.shape == (3, 5)
    assert (normal != again[0]).any()


# -- gradients inside of forward ------------------------------------------------------------------


class Distilled(nn.Module):
    """The loss of a student that learns what its teacher says."""

    def __init__(self, detach: bool) -> None:
        super().__init__()
        self.teacher, self.student = nn.Linear(3, 2), nn.Linear(3, 2)
        self.detach = detach

    def forward(self, x: Any) -> Any:
        if self.detach:
            return F.mse_loss(self.student(x), self.teacher(x).relu().detach())
        with qn.no_grad():
            wanted = self.teacher(x).relu()
        return F.mse_loss(self.student(x), wanted)


def test_no_gradient_flows_through_no_grad() -> None:
    net, detached = Distilled(False), Distilled(True)
    detached.load_state_dict(net.state_dict())
    wrt = ["student.weight", "student.bias"]
    graph = qn.trace(net, qn.spec(X))
    found = qn.interpret(qn.grad(graph, wrt=wrt), X)
    expected = qn.interpret(qn.grad(qn.trace(detached, qn.spec(X)), wrt=wrt), X)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(GradientError, match="does not depend on it"):
        qn.grad(graph, wrt="teacher.weight")
    with qn.no_grad():
        assert net.teacher(X).shape == (4, 2)


def test_a_gradient_is_a_value_of_the_network() -> None:
    net = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.GELU(), nn.Linear(5, 1))

    def slope(x: Any) -> Any:
        (g,) = qn.autograd.grad(net(x), x)
        return g

    graph = qn.grad(qn.trace(net, qn.spec(X)), wrt="input")
    np.testing.assert_allclose(
        qn.compile(slope, qn.spec(X))(X), qn.interpret(graph, X)[1], rtol=1e-4, atol=1e-6
    )


def test_the_penalty_on_a_gradient_can_be_differentiated() -> None:
    net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1, bias=False))

    def penalty(x: Any) -> Any:
        (g,) = qn.autograd.grad(net(x).sum(), x, create_graph=True)
        return ((g.norm(dim=1) - 1) ** 2).mean()

    qn.check_gradients(qn.trace(penalty, qn.spec(X)))

    def constant(x: Any) -> Any:
        (g,) = qn.autograd.grad(net(x).sum(), x)
        return g.sum() + net(x).mean()

    graph = qn.trace(constant, qn.spec(X))
    plain = qn.trace(lambda x: net(x).mean(), qn.spec(X))
    for a, b in zip(
        qn.interpret(qn.grad(graph), X)[1:], qn.interpret(qn.grad(plain), X)[1:], strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_a_value_read_twice_by_a_composite_has_one_gradient() -> None:
    def square(x: Any) -> Any:
        y = x * 2
        (g,) = qn.autograd.grad(F.mse_loss(y, -y, reduction="sum"), [y])  # 4 y²
        return g

    np.testing.assert_allclose(qn.interpret(qn.trace(square, qn.spec(X)), X), 16 * X, rtol=1e-5)


def test_what_an_output_does_not_depend_on() -> None:
    def network(x: Any, y: Any, allow_unused: bool) -> Any:
        return qn.autograd.grad(x.sum(), [x, y], allow_unused=allow_unused)[0]

    with pytest.raises(GradientError, match="does not depend on y"):
        qn.trace(network, qn.spec(X), qn.spec(X), False)
    assert (qn.interpret(qn.trace(network, qn.spec(X), qn.spec(X), True), X, X) == 1).all()


# -- trainers that share modules ------------------------------------------------------------------


class Chain(nn.Module):
    """Two modules, one after the other."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Any) -> Any:
        return self.second(self.first(x))


def test_a_trainer_learns_the_parameters_it_is_given() -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 1)
    one = np.ones((4, 1), np.float32)
    judge = qn.Trainer(second, loss="mse_loss", optimizer=optim.SGD(0.1))
    maker = qn.Trainer(
        Chain(first, second),
        loss="mse_loss",
        optimizer=optim.SGD(0.1),
        parameters=first.parameters(),
    )
    for _ in range(2):
        before = first.weight.data.copy(), second.weight.data.copy()
        judge.step(X, one)
        between = second.weight.data.copy()
        assert (between != before[1]).any()
        maker.step(X, one)
        assert (first.weight.data != before[0]).any()
        assert (second.weight.data == between).all()
    assert second.weight.requires_grad
    np.testing.assert_allclose(maker.predict(X), second(first(X)), rtol=1e-5)
    np.testing.assert_allclose(judge.predict(X), second(X), rtol=1e-5)


def test_a_step_on_a_batch_of_transitions() -> None:
    """Deep Q-learning: gathered values against a target network's, row by row."""
    rng = np.random.default_rng(0)

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.target = nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x: Any, action: Any, reward: Any, after: Any, done: Any) -> Any:
            value = self.q(x).gather(1, action.unsqueeze(1)).squeeze(1)
            with qn.no_grad():
                wanted = reward + 0.99 * (1 - done) * self.target(after).max(1)[0]
            return F.smooth_l1_loss(value, wanted)

    model = Loss()
    trainer = qn.Trainer(model, loss=lambda loss, _: loss, optimizer=optim.Adam(1e-2))
    x, after = rng.standard_normal((2, 8, 4)).astype(np.float32)
    batch = x, rng.integers(0, 2, 8), rng.random(8), after, rng.random(8).round()
    losses = [trainer.step(batch, np.zeros(8, np.float32))["loss"] for _ in range(30)]
    assert losses[-1] < losses[0] / 2
    model.target.load_state_dict(model.q.state_dict())
    assert trainer.step(batch, np.zeros(8, np.float32))["loss"] != losses[-1]


# -- what there is not, and what is said then -----------------------------------------------------


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: x.add_(1), r"tensors do not change, there is no add_; write x = x\.add"),
        (lambda x: x.backward(), "Trainer takes gradients"),
        (lambda x: x.cuda(), "run on the CPU"),
        (lambda x: x.nonzero(), "shape would depend on data"),
        (lambda x: x.no_such_thing, "has no 'no_such_thing'"),
        (lambda x: x.__setitem__(0, 1.0), "cannot be assigned, tensors do not change"),
    ],
)
def test_tensors_say_what_to_write_instead(function: Any, said: str) -> None:
    with pytest.raises(QuernError, match=said):
        qn.trace(function, qn.spec(X))


def test_attributes_that_there_are_not_can_be_asked_for() -> None:
    def network(x: Any) -> Any:
        assert not hasattr(x, "grad_fn")
        assert x.device == "cpu"
        return x.cpu()

    qn.trace(network, qn.spec(X))


def test_optimizers_and_schedules_are_descriptions() -> None:
    net = nn.Linear(3, 2)
    with pytest.raises(UsageError, match=r"Trainer\(model, optimizer=Adam\(lr\)\)"):
        optim.Adam(net.parameters(), lr=1e-3)
    with pytest.raises(UsageError, match=r"SGD\(lr, schedule=StepLR\(…\)\)"):
        optim.lr_scheduler.StepLR(optim.SGD(0.1), 30)
    assert optim.SGD(1, schedule=optim.lr_scheduler.StepLR(30)).lr_at(30) == pytest.approx(0.1)


def test_there_is_one_device() -> None:
    net = nn.Linear(3, 2)
    assert net.to("cpu") is net.cpu() is net
    net.zero_grad()
    for move in (net.cuda, lambda: net.to("cuda:0")):
        with pytest.raises(UsageError, match="run on the CPU"):
            move()


def test_contents_of_parameters_are_given_anew() -> None:
    layer = nn.Linear(3, 2)
    with qn.no_grad():
        layer.weight.fill_(2.0)
        layer.bias.copy_([1, -1])
    np.testing.assert_allclose(layer(X), 2 * X.sum(1, keepdims=True) + [1, -1], rtol=1e-5)
    assert not layer.bias.zero_().data.any()


def test_variances_with_and_without_bias() -> None:
    def network(x: Any) -> Any:
        return x.var(1, unbiased=False), qn.std(x, dim=1)

    biased, deviation = qn.interpret(qn.trace(network, qn.spec(X)), X)
    np.testing.assert_allclose(biased, X.var(1), rtol=1e-5)
    np.testing.assert_allclose(deviation, X.std(1, ddof=1), rtol=1e-5)


def test_rows_without_a_label_are_learned_around() -> None:
    labels = np.array([0, 2, -100, 1])
    trainer = qn.Trainer(nn.Linear(3, 3), loss="cross_entropy", optimizer=optim.SGD(0.1))
    expected = F.cross_entropy(trainer.model(X)[labels >= 0], labels[labels >= 0])
    assert trainer.step(X, labels)["loss"] == pytest.approx(float(expected), rel=1e-5)


# -- looking inside -------------------------------------------------------------------------------


def test_hooks_see_activations() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    seen: dict[str, Any] = {}
    handle = net[1].register_forward_hook(lambda m, x, y: seen.update(module=m, x=x, y=y))
    net(X)
    assert seen["module"] is net[1]
    np.testing.assert_array_equal(seen["y"], np.maximum(seen["x"][0], 0))
    np.testing.assert_allclose(seen["x"][0], net[0](X), rtol=1e-6)
    handle.remove()
    seen.clear()
    net(X)
    assert not seen


def test_hooks_change_what_is_traced() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    plain = net[1](2 * net[0](X))
    net[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    np.testing.assert_allclose(qn.compile(net, qn.spec(X))(X), plain, rtol=1e-4, atol=1e-6)
    with pytest.raises(UsageError, match="replaced in traces"):
        net(X)


@pytest.mark.parametrize(("mode", "combine"), [("mean", np.mean), ("sum", np.sum), ("max", np.max)])
def test_bags_of_embeddings(mode: str, combine: Any) -> None:
    layer = nn.EmbeddingBag(10, 4, mode=mode)
    bags = np.random.default_rng(0).integers(0, 10, (5, 3))
    np.testing.assert_allclose(layer(bags), combine(layer.weight.data[bags], 1), rtol=1e-5)
    with pytest.raises(ShapeError, match=r"bags are the rows of \(bags, N\), or \(N,\)"):
        layer(bags[0])
