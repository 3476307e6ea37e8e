"""What docs/gradients.md shows: maps of what a network looks at, dreams, styles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import quern as qn
from quern import nn
from quern.nn import functional as F

IMAGE = np.random.default_rng(0).uniform(0, 1, (2, 3, 8, 8)).astype(np.float32)
LABEL = np.array([1, 3])


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        qn.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.ReLU())
        self.classify = nn.Linear(5, 4)

    def forward(self, x: Any) -> Any:
        return self.classify(self.features(x).mean((2, 3)))


def score(net: nn.Module, x: Any, label: Any) -> Any:
    return net(x).gather(1, label.unsqueeze(1)).sum()


def seen_by(module: nn.Module, run: Callable[[], Any]) -> tuple[Any, Any]:
    """What a function gives, and what a module has given meanwhile."""
    seen: list[Any] = []
    handle = module.register_forward_hook(lambda module, inputs, output: seen.append(output))
    result = run()
    handle.remove()
    return result, seen[0]


def test_grad_cam() -> None:
    net = Net()

    def grad_cam(x: Any, label: Any) -> Any:
        total, maps = seen_by(net.features, lambda: score(net, x, label))
        (g,) = qn.autograd.grad(total, maps)
        return (g.mean((2, 3), keepdims=True) * maps).sum(1).relu()

    heat = qn.compile(grad_cam, IMAGE, LABEL)(IMAGE, LABEL)
    # The mean is the only layer behind the maps: their gradient is the weight of the class.
    weight = net.classify.weight.data[LABEL][:, :, None, None] / 16
    expected = np.maximum((weight * net.features(IMAGE)).sum(1), 0)
    np.testing.assert_allclose(heat, expected, rtol=1e-4, atol=1e-6)


def test_saliency_is_the_slope_by_each_pixel() -> None:
    net = Net()

    def saliency(x: Any, label: Any) -> Any:
        return qn.autograd.grad(score(net, x, label), x)[0]

    g = qn.compile(saliency, IMAGE, LABEL)(IMAGE, LABEL)
    nudge = np.zeros_like(IMAGE)
    nudge[1, 2, 3, 4] = 1e-2
    slope = (net(IMAGE + nudge) - net(IMAGE - nudge))[1, 3] / 2e-2
    np.testing.assert_allclose(g[1, 2, 3, 4], slope, rtol=1e-2, atol=1e-4)


class Guided(qn.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x.relu()

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        (x,) = ctx.saved_tensors
        return grad.relu() * (x > 0)


def test_guided_back_propagation_by_hooks() -> None:
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 1))
    x = np.random.default_rng(1).standard_normal((6, 3)).astype(np.float32)
    handle = net[1].register_forward_hook(lambda module, inputs, output: Guided.apply(inputs[0]))
    guided = qn.compile(lambda x: qn.autograd.grad(net(x), x)[0], x)(x)
    handle.remove()
    plain = qn.compile(lambda x: qn.autograd.grad(net(x), x)[0], x)(x)
    first, second = net[0].weight.data, net[2].weight.data
    on = (x @ first.T + net[0].bias.data) > 0
    np.testing.assert_allclose(plain, (on * second) @ first, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(guided, (on * np.maximum(second, 0)) @ first, rtol=1e-4, atol=1e-6)


def test_a_dream_has_more_of_what_is_looked_for() -> None:
    net = Net()

    def step(x: Any) -> Any:
        loss = net.features(x).square().mean()
        (g,) = qn.autograd.grad(loss, x)
        return x + 0.05 * g / (g.abs().mean() + 1e-8), loss

    run, x, losses = qn.compile(step, IMAGE), IMAGE, []
    for _ in range(5):
        x, loss = run(x)
        losses.append(loss)
    assert losses == sorted(losses)
    assert losses[-1] > 1.5 * losses[0]


def gram(features: Any) -> Any:
    f = features.flatten(2)
    return f @ f.mT / f[0].numel()


def test_an_image_takes_the_style_of_another_one() -> None:
    net = Net()
    style = qn.compile(lambda x: gram(net.features(x)), IMAGE[:1])(IMAGE[:1])
    maps = net.features(IMAGE[:1]).reshape(1, 5, -1)
    np.testing.assert_allclose(
        style, maps @ maps.transpose(0, 2, 1) / maps.size, rtol=1e-4, atol=1e-6
    )

    def step(x: Any, style: Any) -> Any:
        loss = F.mse_loss(gram(net.features(x)), style)
        (g,) = qn.autograd.grad(loss, x)
        return x - 0.005 * g / (g.abs().mean() + 1e-12), loss

    run, x, losses = qn.compile(step, IMAGE[1:], style), IMAGE[1:], []
    for _ in range(20):
        x, loss = run(x, style)
        losses.append(loss)
    assert min(losses) < 0.5 * losses[0]
