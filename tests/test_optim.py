"""Training steps as graphs: optimizers, schedules, clipping and groups, held against PyTorch's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import quern as qn
from quern import nn, optim
from quern.compiler.errors import GradientError, GraphError, QuernError, UsageError
from quern.compiler.evaluate import evaluate
from quern.compiler.graph import Graph, Phase

Array = np.ndarray[Any, Any]


class Net(nn.Module):
    """Two layers and a loss; `scale` is used by nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.second = nn.Linear(4, 2)
        self.unused = nn.Parameter(np.ones(2, np.float32))

    def forward(self, x: Any, target: Any) -> Any:
        y = self.second(nn.functional.tanh(self.first(x)))
        return {"loss": nn.functional.mse_loss(y, target), "y": y}


def forward_graph() -> Graph:
    nn.init.manual_seed(3)
    return qn.trace(Net(), qn.spec(5, 3), qn.spec(5, 2))


def batches(count: int) -> list[tuple[Array, Array]]:
    rng = np.random.default_rng(7)
    shapes = (5, 3), (5, 2)
    return [tuple(rng.standard_normal(s, np.float32) for s in shapes) for _ in range(count)]


def train(step: Graph, count: int) -> dict[str, Array]:
    """The states of a training step after some runs."""
    states: dict[str, Array] = dict(step.data)
    for x, target in batches(count):
        states |= evaluate(step, {**states, "x": x, "target": target}).updates
    return states


# -- against PyTorch ------------------------------------------------------------------------------

OPTIMIZERS = [
    "SGD(lr=0.1)",
    "SGD(lr=0.1, momentum=0.9)",
    "SGD(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)",
    "SGD(lr=0.1, momentum=0.5, dampening=0.3)",
    "SGD(lr=0.1, maximize=True)",
    "Adam()",
    "Adam(lr=0.02, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.1)",
    "Adam(lr=0.02, amsgrad=True)",
    "AdamW(lr=0.02)",
    "AdamW(lr=0.02, weight_decay=0.3, amsgrad=True)",
    "RMSprop()",
    "RMSprop(lr=0.02, alpha=0.8, momentum=0.7, weight_decay=0.1)",
    "RMSprop(lr=0.02, centered=True)",
    "Adagrad(lr=0.1)",
    "Adagrad(lr=0.1, lr_decay=0.2, weight_decay=0.1, initial_accumulator_value=0.5)",
    "Adadelta()",
    "Adadelta(lr=0.5, rho=0.8, eps=1e-4, weight_decay=0.1)",
    "Adamax()",
    "Adamax(lr=0.02, betas=(0.8, 0.95), weight_decay=0.1)",
    "NAdam()",
    "NAdam(lr=0.02, momentum_decay=0.1, weight_decay=0.1)",
    "NAdam(lr=0.02, weight_decay=0.1, decoupled_weight_decay=True)",
    "RAdam(lr=0.02)",
    "RAdam(lr=0.02, betas=(0.8, 0.95), weight_decay=0.1)",
    "RAdam(lr=0.02, weight_decay=0.1, decoupled_weight_decay=True)",
    "Rprop(lr=0.02)",
    "Rprop(lr=0.02, etas=(0.3, 1.5), step_sizes=(1e-3, 0.03))",
]

Loop = Callable[[Any, Any], None]


def torch_training(
    make: Callable[[Any, Any], Any],
    count: int = 10,
    between: Callable[[Any], None] = lambda parameters: None,
    schedule: Callable[[Any, Any], Any] | None = None,
) -> dict[str, Array]:
    """The parameters of the same network after PyTorch has trained it on the same batches."""
    torch = pytest.importorskip("torch")
    first, second = torch.nn.Linear(3, 4), torch.nn.Linear(4, 2)
    named = {f"first.{k}": p for k, p in first.named_parameters()}
    named |= {f"second.{k}": p for k, p in second.named_parameters()}
    initial = forward_graph().data
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(torch.from_numpy(initial[name].copy()))
    optimizer = make(torch, named)
    scheduler = schedule(torch, optimizer) if schedule else None
    for x, target in batches(count):
        optimizer.zero_grad()
        y = second(torch.tanh(first(torch.from_numpy(x))))
        torch.nn.functional.mse_loss(y, torch.from_numpy(target)).backward()
        between(list(named.values()))
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    return {name: parameter.detach().numpy() for name, parameter in named.items()}


def assert_same_parameters(states: dict[str, Array], expected: dict[str, Array]) -> None:
    for name, array in expected.items():
        np.testing.assert_allclose(states[name], array, rtol=2e-6, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("source", OPTIMIZERS)
def test_ten_steps_are_pytorchs(source: str) -> None:
    own = eval(f"optim.{source}", {"optim": optim})
    call = source.replace("(", "(parameters, ", 1)
    expected = torch_training(
        lambda torch, named: eval(
            f"optim.{call}", {"optim": torch.optim, "parameters": list(named.values())}
        )
    )
    states = train(optim.build_training_step(forward_graph(), "loss", own), 10)
    assert_same_parameters(states, expected)
    assert states["optim.step"] == 10


@pytest.mark.parametrize("limit", [1e-3, 0.3, 1e3])
def test_gradients_are_clipped_by_their_common_norm(limit: float) -> None:
    torch = pytest.importorskip("torch")
    expected = torch_training(
        lambda torch, named: torch.optim.SGD(named.values(), 0.1),
        between=lambda parameters: torch.nn.utils.clip_grad_norm_(parameters, limit),
    )
    step = optim.build_training_step(forward_graph(), "loss", optim.SGD(0.1, clip_grad_norm=limit))
    assert_same_parameters(train(step, 10), expected)


def test_gradients_are_clipped_by_value() -> None:
    torch = pytest.importorskip("torch")
    expected = torch_training(
        lambda torch, named: torch.optim.SGD(named.values(), 0.1),
        between=lambda parameters: torch.nn.utils.clip_grad_value_(parameters, 0.05),
    )
    step = optim.build_training_step(forward_graph(), "loss", optim.SGD(0.1, clip_grad_value=0.05))
    assert_same_parameters(train(step, 10), expected)


def test_groups_override_options_by_name() -> None:
    def make(torch: Any, named: dict[str, Any]) -> Any:
        biases = [p for name, p in named.items() if name.endswith("bias")]
        second = named["second.weight"]
        groups = [
            {"params": [named["first.weight"]]},
            {"params": biases, "weight_decay": 0.0},
            {"params": [second], "lr": 0.5, "momentum": 0.0},
        ]
        return torch.optim.SGD(groups, 0.1, momentum=0.9, weight_decay=0.1)

    own = optim.SGD(
        0.1,
        momentum=0.9,
        weight_decay=0.1,
        groups={"*.bias": {"weight_decay": 0.0}, "second.weight": {"lr": 0.5, "momentum": 0.0}},
    )
    step = optim.build_training_step(forward_graph(), "loss", own)
    assert "optim.second.bias.momentum" in step
    assert "optim.second.weight.momentum" not in step
    assert_same_parameters(train(step, 10), torch_training(make))


def test_the_rate_of_a_schedule_moves_the_parameters() -> None:
    expected = torch_training(
        lambda torch, named: torch.optim.AdamW(named.values(), 0.1),
        schedule=lambda torch, o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 8, 0.01),
    )
    own = optim.AdamW(0.1, schedule=optim.CosineAnnealingLR(8, 0.01))
    step = optim.build_training_step(forward_graph(), "loss", own)
    assert_same_parameters(train(step, 10), expected)


SCHEDULES = [
    ("StepLR(3, 0.5)", "StepLR(o, 3, 0.5)"),
    ("MultiStepLR((7, 2), 0.5)", "MultiStepLR(o, [2, 7], 0.5)"),
    ("CosineAnnealingWarmRestarts(4, 1, 0.1)", "CosineAnnealingWarmRestarts(o, 4, 1, 0.1)"),
    ("CosineAnnealingWarmRestarts(2, 3)", "CosineAnnealingWarmRestarts(o, 2, 3)"),
    ("CosineAnnealingWarmRestarts(1, 2, 0.05)", "CosineAnnealingWarmRestarts(o, 1, 2, 0.05)"),
    ("LinearLR()", "LinearLR(o)"),
    ("LinearLR(0.1, 0.9, 7)", "LinearLR(o, 0.1, 0.9, 7)"),
    ("ConstantLR(0.2, 3)", "ConstantLR(o, 0.2, 3)"),
    ("PolynomialLR(6, 2.0)", "PolynomialLR(o, 6, 2.0)"),
    ("CyclicLR(0.1, 0.7, 3)", "CyclicLR(o, 0.1, 0.7, 3)"),
    (
        "CyclicLR(0.1, 0.7, 2, 3, 'triangular2')",
        "CyclicLR(o, 0.1, 0.7, 2, 3, 'triangular2')",
    ),
    (
        "CyclicLR(0.1, 0.7, 2, 3, 'exp_range', 0.9)",
        "CyclicLR(o, 0.1, 0.7, 2, 3, 'exp_range', 0.9)",
    ),
    ("LambdaLR(lambda step: 0.9**step)", "LambdaLR(o, lambda step: 0.9**step)"),
    (
        "SequentialLR([optim.LinearLR(0.5, 1.0, 3), optim.ExponentialLR(0.9)], [3])",
        "SequentialLR(o, [s.LinearLR(o, 0.5, 1.0, 3), s.ExponentialLR(o, 0.9)], [3])",
    ),
    ("ExponentialLR(0.9)", "ExponentialLR(o, 0.9)"),
    ("CosineAnnealingLR(6, 0.05)", "CosineAnnealingLR(o, 6, 0.05)"),
    ("OneCycleLR(10)", "OneCycleLR(o, 0.4, 10)"),
    (
        "OneCycleLR(10, 0.5, 4.0, 10.0)",
        "OneCycleLR(o, 0.4, 10, None, None, 0.5, 'cos', False, 0, 0, 4.0, 10.0)",
    ),
]


@pytest.mark.parametrize(("source", "reference"), SCHEDULES)
@pytest.mark.filterwarnings("ignore:Detected call of")
def test_schedules_are_pytorchs(source: str, reference: str) -> None:
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1)], 0.4)
    scheduler = eval(f"s.{reference}", {"s": torch.optim.lr_scheduler, "o": optimizer})
    own = optim.SGD(0.4, schedule=eval(f"optim.{source}", {"optim": optim}))
    for step in range(10):
        assert own.lr_at(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12), step
        if step < 9:
            scheduler.step()


# -- by hand --------------------------------------------------------------------------------------


def test_the_rate_is_constant_by_default() -> None:
    assert [optim.SGD(0.25).lr_at(step) for step in (0, 5)] == [0.25, 0.25]


def test_warm_up_leads_to_another_schedule_that_counts_from_there() -> None:
    own = optim.SGD(0.4, schedule=optim.LinearWarmup(4, optim.StepLR(2, 0.5)))
    rates = [own.lr_at(step) for step in range(9)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.2, 0.2, 0.1], rel=1e-12)


def test_inverse_decay_divides_by_the_steps_done() -> None:
    rates = [optim.SGD(1.0, schedule=optim.InverseDecay(0.5)).lr_at(s) for s in range(4)]
    assert rates == pytest.approx([1 / (1 + 0.5 * s) for s in range(4)], rel=1e-12)
    squared = optim.SGD(1.0, schedule=optim.InverseDecay(0.5, power=2.0))
    assert squared.lr_at(2) == pytest.approx(0.25, rel=1e-12)


def test_one_step_of_the_textbook_network() -> None:
    """Prediction 0.191 for target 1 at rate 0.05 moves the six weights as printed."""

    class TwoLayers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = nn.Linear(2, 2, bias=False)
            self.output = nn.Linear(2, 1, bias=False)
            self.hidden.weight.data[:] = [[0.11, 0.21], [0.12, 0.08]]
            self.output.weight.data[:] = [[0.14, 0.15]]

        def forward(self, x: Any) -> Any:
            y = self.output(self.hidden(x))
            return {"y": y, "loss": nn.functional.half_squared_error(y, 0.0 * y + 1.0)}

    step = optim.build_training_step(qn.trace(TwoLayers(), qn.spec(1, 2)), "loss", optim.SGD(0.05))
    result = evaluate(step, {"x": np.array([[2, 3]], np.float32)})
    assert result.outputs["y"].item() == pytest.approx(0.191, abs=1e-6)
    updated = {name: np.round(w, 2) for name, w in result.updates.items() if w.ndim == 2}
    np.testing.assert_allclose(updated["output.weight"], [[0.17, 0.17]], atol=1e-6)
    np.testing.assert_allclose(updated["hidden.weight"], [[0.12, 0.23], [0.13, 0.10]], atol=1e-6)


# -- what the graph is like -----------------------------------------------------------------------


def test_a_step_is_one_graph_with_the_forward_pass_outputs() -> None:
    graph = forward_graph()
    before = str(graph)
    step = optim.build_training_step(graph, "loss", optim.Adam()).verify()
    assert str(graph) == before
    assert list(step.outputs) == ["loss", "y"]
    moved = {"first.weight", "first.bias", "second.weight", "second.bias"}
    states = {f"optim.{n}.{s}" for n in moved for s in ("exp_avg", "exp_avg_sq")}
    assert set(step.updates) == moved | states | {"optim.step"}
    assert all(not step.data[name].any() for name in states)
    phases = {node.phase for node in step.nodes()}
    assert phases == {Phase.FORWARD, Phase.BACKWARD, Phase.UPDATE}
    for name in moved:
        assert step.producer(step.updates[name]).phase is Phase.UPDATE
        assert step.producer(step.updates[name]).origins[0].name == name


def test_what_all_parameters_share_is_computed_once() -> None:
    step = optim.build_training_step(forward_graph(), "loss", optim.Adam(0.1))
    powers = [node for node in step.nodes() if node.op.name == "Power"]
    assert len(powers) == 2  # one for each beta


def test_running_statistics_and_random_counters_are_updated_too() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 1))
    graph = qn.trace(lambda x: network(x).mean(), qn.spec(5, 3))
    step = optim.build_training_step(graph, "output", optim.SGD())
    buffers = {"1.running_mean", "1.running_var", "1.num_batches_tracked", "rng.step"}
    assert buffers < set(step.updates)


def test_frozen_parameters_stay() -> None:
    network = Net()
    network.first.requires_grad_(False)
    graph = qn.trace(network, qn.spec(5, 3), qn.spec(5, 2))
    step = optim.build_training_step(graph, "loss", optim.SGD())
    assert set(step.updates) == {"second.weight", "second.bias", "optim.step"}


def test_float64_networks_train_in_float64() -> None:
    network = Net().double()
    graph = qn.trace(network, qn.spec(5, 3, dtype="float64"), qn.spec(5, 2, dtype="float64"))
    schedule = optim.LinearWarmup(5, optim.ExponentialLR(0.5))
    step = optim.build_training_step(graph, "loss", optim.AdamW(schedule=schedule))
    assert step.type_of(step.updates["first.weight"]).dtype.value == "float64"


# -- what is refused ------------------------------------------------------------------------------


def test_schedules_by_hand() -> None:
    def rates(schedule: optim.Schedule) -> list[float]:
        return [round(optim.SGD(1.0, schedule=schedule).lr_at(step), 6) for step in range(6)]

    assert rates(optim.LinearLR(0.5, 1.0, 2)) == [0.5, 0.75, 1, 1, 1, 1]
    assert rates(optim.ConstantLR(0.5, 2)) == [0.5, 0.5, 1, 1, 1, 1]
    assert rates(optim.PolynomialLR(2, 2.0)) == [1, 0.25, 0, 0, 0, 0]
    assert rates(optim.CyclicLR(0.0, 1.0, 2)) == [0, 0.5, 1, 0.5, 0, 0.5]
    assert rates(optim.CyclicLR(0.0, 1.0, 2, 1, "triangular2")) == [0, 0.5, 1, 0, 0.25, 0.5]
    assert rates(optim.CosineAnnealingWarmRestarts(2)) == [1, 0.5, 1, 0.5, 1, 0.5]
    assert rates(optim.CosineAnnealingWarmRestarts(1, 2)) == [1, 1, 0.5, 1, 0.853553, 0.5]
    assert rates(optim.LambdaLR(lambda step: 0.5**step)) == [1, 0.5, 0.25, 0.125, 0.0625, 0.03125]
    after = optim.SequentialLR([optim.ConstantLR(0.5), optim.StepLR(1, 0.5)], [2])
    assert rates(after) == [0.5, 0.5, 1, 0.5, 0.25, 0.125]


def bad_options() -> Iterator[tuple[Callable[[], object], str]]:
    yield lambda: optim.SGD(-1.0), "lr of SGD is -1.0, below 0"
    yield lambda: optim.SGD(nesterov=True), "needs a momentum"
    yield lambda: optim.Adam(betas=(0.9, 1.0)), "betas of Adam"
    yield lambda: optim.SGD(clip_grad_norm=0.0), "clip_grad_norm of SGD is 0.0"
    yield lambda: optim.SGD(clip_grad_value=math.nan), "clip_grad_value of SGD is nan"
    yield lambda: optim.SGD(groups={"*.bias": {"beta": 1}}), r"group '\*.bias' sets beta"
    yield lambda: optim.SGD(groups={"*.bias": {"lr": -1.0}}), "lr of SGD is -1.0"
    yield lambda: optim.StepLR(0), "step_size is at least 1"
    yield lambda: optim.CosineAnnealingLR(0), "T_max is at least 1"
    yield lambda: optim.LinearWarmup(0), "at least 1 step"
    yield lambda: optim.OneCycleLR(2), "no way up"
    yield lambda: optim.LinearLR(total_iters=0), "total_iters is at least 1"
    yield lambda: optim.CosineAnnealingWarmRestarts(0), "T_0 is at least 1"
    yield lambda: optim.CyclicLR(0.1, 1.0, mode="sine"), "not 'sine'"
    yield lambda: optim.SequentialLR([optim.StepLR(1)], [3]), "one milestone less"
    yield lambda: optim.Rprop(etas=(1.5, 0.5)), "below 1 and above 1"
    yield lambda: optim.Adadelta(rho=-0.1), "rho of Adadelta"


@pytest.mark.parametrize(("make", "message"), list(bad_options()))
def test_options_that_make_no_sense_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


def test_a_group_that_matches_nothing_is_a_slip() -> None:
    own = optim.SGD(groups={"*.gamma": {"lr": 0.0}})
    with pytest.raises(UsageError, match=r"group '\*.gamma' matches no trainable parameter"):
        optim.build_training_step(forward_graph(), "loss", own)


def test_losses_that_cannot_be_trained_on_are_refused() -> None:
    graph = forward_graph()
    cases: list[tuple[Graph, str, type[QuernError], str]] = [
        (graph, "cost", GradientError, "no output 'cost' to be made small, it has loss, y"),
        (graph, "y", GradientError, r"a loss is one float, this is float32\[5, 2\]"),
        (optim.build_training_step(graph, "loss", optim.SGD()), "loss", GraphError, "already"),
        (qn.trace(lambda x: x.mean(), qn.spec(2)), "output", GradientError, "no trainable"),
    ]
    for given, loss, kind, message in cases:
        with pytest.raises(kind, match=message):
            optim.build_training_step(given, loss, optim.SGD())
