"""Networks, gradients and training steps against PyTorch: same weights, same batch, same numbers.

The networks are written once, in a namespace that is `quern.nn` or `torch.nn`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import quern as qn
from quern import nn, optim
from quern.compiler.autodiff import differentiate
from quern.compiler.tensor import Tensor
from quern.frontends.compile import compile
from quern.frontends.nn.trace import trace

torch = pytest.importorskip("torch")

Array = np.ndarray[Any, Any]
TOLERANCE = 1e-4


def lenet(nn: Any) -> Any:
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(400, 120), nn.ReLU()),
        *(nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


def vgg(nn: Any) -> Any:
    """Three blocks of 3×3 convolutions."""
    layers: list[Any] = []
    before = 3
    for channels, count in ((8, 1), (16, 1), (32, 2)):
        for _ in range(count):
            layers += [nn.Conv2d(before, channels, 3, padding=1), nn.ReLU()]
            before = channels
        layers += [nn.MaxPool2d(2, 2)]
    head = (nn.Flatten(), nn.Linear(32 * 2 * 2, 64), nn.ReLU(), nn.Linear(64, 10))
    return nn.Sequential(*layers, *head)


def resnet(nn: Any) -> Any:
    """A stem and two residual blocks, of which the second halves the image."""

    class Block(nn.Module):  # type: ignore[misc]  # quern.nn or torch.nn
        def __init__(self, before: int, channels: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(before, channels, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(channels)
            self.relu = nn.ReLU()
            self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(channels)
            self.shortcut = (
                nn.Sequential(
                    nn.Conv2d(before, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
                )
                if stride > 1
                else nn.Identity()
            )

        def forward(self, x: Any) -> Any:
            y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
            return self.relu(y + self.shortcut(x))

    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        *(Block(8, 8, 1), Block(8, 16, 2)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)),
    )


NETWORKS: dict[str, tuple[Callable[[Any], Any], tuple[int, ...]]] = {
    "lenet": (lenet, (8, 1, 28, 28)),
    "resnet": (resnet, (8, 3, 12, 12)),
    "vgg": (vgg, (8, 3, 16, 16)),
}


@pytest.fixture(params=NETWORKS)
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, Any, Array, Array]:
    """The network here and there, with the same weights, and a batch."""
    build, shape = NETWORKS[request.param]
    qn.manual_seed(3)
    own, theirs = build(nn), build(torch.nn)
    state = {k: torch.from_numpy(np.array(v)) for k, v in own.state_dict().items()}
    theirs.load_state_dict(state)
    rng = np.random.default_rng(11)
    x = rng.normal(size=shape).astype(np.float32)
    return own, theirs, x, rng.integers(0, 10, shape[0])


def assert_close(found: Array, expected: Any, what: str) -> None:
    """Equal to 1e-4 of the largest element."""
    there = expected.detach().numpy().astype(np.float64)
    error = np.abs(found - there).max() / max(np.abs(there).max(), 1e-12)
    assert error <= TOLERANCE, f"{what}: relative error {error:.2e}"


def test_outputs(pair: tuple[nn.Module, Any, Array, Array]) -> None:
    own, theirs, x, _ = pair
    run = compile(own.eval(), qn.spec(*x.shape))
    assert_close(run(x), theirs.eval()(torch.from_numpy(x)), "outputs")


def test_gradients(pair: tuple[nn.Module, Any, Array, Array]) -> None:
    own, theirs, x, y = pair

    def loss(image: Tensor, target: Tensor) -> dict[str, Tensor]:
        return {"loss": nn.functional.cross_entropy(own(image), target)}

    graph = trace(loss, qn.spec(x), qn.spec(y), training=True)
    names = [name for name, _ in own.named_parameters()]
    found = compile(differentiate(graph, "loss", names)).run({"image": x, "target": y})
    expected = torch.nn.functional.cross_entropy(
        theirs.train()(torch.from_numpy(x)), torch.from_numpy(y)
    )
    expected.backward()
    assert_close(found["loss"], expected, "loss")
    for name, parameter in theirs.named_parameters():
        assert_close(found[f"grad.{name}"], parameter.grad, name)


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_ten_steps(pair: tuple[nn.Module, Any, Array, Array], kind: str) -> None:
    own, theirs, x, y = pair
    options: dict[str, Any] = {"lr": 1e-3} if kind == "Adam" else {}
    options = options or {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-3}
    trainer = qn.Trainer(own, loss="cross_entropy", optimizer=getattr(optim, kind)(**options))
    there = getattr(torch.optim, kind)(theirs.train().parameters(), **options)
    for step in range(10):
        loss = trainer.step(x, y)["loss"]
        there.zero_grad()
        expected = torch.nn.functional.cross_entropy(
            theirs(torch.from_numpy(x)), torch.from_numpy(y)
        )
        expected.backward()
        there.step()
        assert loss == pytest.approx(float(expected.detach()), rel=TOLERANCE), f"step {step + 1}"
    expected_state = theirs.state_dict()
    for name, array in own.state_dict().items():
        # By the norm: where a gradient is nothing but rounding, Adam moves an element by a full
        # step all the same, PyTorch's float32 and float64 into different directions too.
        there_too = expected_state[name].numpy().astype(np.float64)
        error = np.linalg.norm(array - there_too) / max(np.linalg.norm(there_too), 1e-12)
        assert error <= TOLERANCE, f"{name}: relative error {error:.2e}"
