"""Random networks of layers, compiled, against NumPy and PyTorch: outputs and gradients.

Layouts, fusion, parts and memory are decided over a whole graph: so what is drawn is how layers
follow each other: branches that are added or concatenated, slices, other orders of axes, products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

import quern as qn
from quern import nn
from quern.compiler.autodiff import differentiate
from quern.compiler.tensor import Tensor
from quern.compiler.types import Shape

try:
    import torch
except ImportError:
    torch = None  # type: ignore[assignment]  # tests that need it are skipped

Array = np.ndarray[Any, Any]
# What is done, the channels before it, and which tensor is the other one.
Step = tuple[str, int, int]

# Of images (N, C, H, W): x is the last tensor, y an earlier one of the same shape.
IMAGES: dict[str, Callable[[Any, Any, Any, Any], Any]] = {
    "layer": lambda f, layer, x, y: layer(x),
    "add": lambda f, layer, x, y: x + y,
    "gate": lambda f, layer, x, y: x * y.sigmoid(),
    "join": lambda f, layer, x, y: f.cat((x, y), 1),
    "join rows": lambda f, layer, x, y: f.cat((y, x), 2),
    "cut": lambda f, layer, x, y: x[:, x.shape[1] // 2 :],
    "thin": lambda f, layer, x, y: x[:, :, ::2],
    "turn": lambda f, layer, x, y: x.transpose(2, 3),
    "channels last": lambda f, layer, x, y: x.permute(0, 2, 3, 1),
    "softmax": lambda f, layer, x, y: f.log_softmax(x.transpose(2, 3), 3),
    "centre": lambda f, layer, x, y: x - x.mean((2, 3), keepdim=True),
    "gram": lambda f, layer, x, y: (x @ x.transpose(2, 3)).tanh(),
    "attention": lambda f, layer, x, y: f.softmax(x @ y.transpose(2, 3), 3) @ y,
}

# By library and channels.
LAYERS: dict[str, Callable[[Any, int], Any]] = {
    "conv": lambda nn, c: nn.Conv2d(c, 16, 3, padding=1),
    "conv of 5": lambda nn, c: nn.Conv2d(c, 5, (1, 2), padding=1, stride=(2, 1)),
    "pointwise": lambda nn, c: nn.Conv2d(c, 24, 1, bias=False),
    "depthwise": lambda nn, c: nn.Conv2d(c, c, 3, padding=1, groups=c),
    "transposed": lambda nn, c: nn.ConvTranspose2d(c, 8, 2, 2),
    "batch norm": lambda nn, c: nn.BatchNorm2d(c),
    "group norm": lambda nn, c: nn.GroupNorm(1, c),
    "max pool": lambda nn, c: nn.MaxPool2d(3, 2, 1),
    "average pool": lambda nn, c: nn.AvgPool2d(2, ceil_mode=True),
    "relu": lambda nn, c: nn.ReLU(),
    "selu": lambda nn, c: nn.SELU(),
}


def network(library: Any, functions: Any, plan: Sequence[Step]) -> Any:
    """The module that a plan describes, in a namespace that is `quern`'s or `torch`'s."""

    class Network(library.Module):  # type: ignore[misc]  # quern.nn or torch.nn
        def __init__(self) -> None:
            super().__init__()
            self.layers = library.ModuleList()
            for kind, width, _ in plan:
                made = LAYERS[kind](library, width) if kind in LAYERS else library.Identity()
                self.layers.append(made)

        def forward(self, image: Any) -> Any:
            passed = [image]
            for (kind, _, other), layer in zip(plan, self.layers, strict=True):
                step = IMAGES[kind if kind in IMAGES else "layer"]
                passed.append(step(functions, layer, passed[-1], passed[other]))
            return passed[-1]

    return Network()


@st.composite
def networks(draw: Any) -> tuple[list[Step], Shape]:
    """A plan, and the shape of the image."""
    first = tuple(draw(st.sampled_from(sizes)) for sizes in ([1, 3], [3, 8, 16], [6, 9], [7, 8]))
    shapes, plan = [first], list[Step]()
    for _ in range(draw(st.integers(2, 7))):
        alike = [i for i, shape in enumerate(shapes) if shape == shapes[-1]]
        kind = draw(st.sampled_from([*LAYERS, *list(IMAGES)[1:]]))
        step = (kind, shapes[-1][1], draw(st.sampled_from(alike)))
        graph = qn.trace(network(nn, qn, [*plan, step]), qn.spec(*first))
        shape = graph.type_of(graph.outputs["output"]).shape
        if min(shape[1:]) >= 2 and np.prod(shape) < 6000:
            plan.append(step)
            shapes.append(shape)
    return plan, first


def assert_close(found: Array, expected: Array, what: str) -> None:
    error = np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-3)
    assert error < 2e-3, f"{what}: relative error {error:.1e}"


@settings(max_examples=5)
@example(([("conv", 16, 0), ("selu", 16, 1), ("softmax", 16, 2)], (4, 16, 7, 9)))
@given(networks())
def test_compiled_networks_are_what_numpy_and_pytorch_compute(
    drawn: tuple[list[Step], Shape],
) -> None:
    plan, shape = drawn
    module = network(nn, qn, plan)
    image = np.random.default_rng(0).standard_normal(shape).astype(np.float32)

    def loss(image: Tensor) -> dict[str, Tensor]:
        y = module(image)
        return {"y": y, "loss": (y * y.tanh()).mean()}

    graph = differentiate(qn.trace(loss, qn.spec(image), training=True), "loss", ["image"])
    compiled = qn.compile(graph, threads=2)
    found = {name: y.copy() for name, y in compiled.run({"image": image}).items()}
    for name, expected in qn.interpret(graph, {"image": image}).items():
        assert_close(found[name], expected, name)
    for name, again in qn.compile(graph, threads=1).run({"image": image}).items():
        np.testing.assert_array_equal(again, found[name])
    if torch is not None:
        theirs = network(torch.nn, torch, plan).train()
        theirs.load_state_dict({k: torch.from_numpy(v) for k, v in module.state_dict().items()})
        x = torch.from_numpy(image).requires_grad_()
        y = theirs(x)
        (y * y.tanh()).mean().backward()
        assert_close(found["y"], y.detach().numpy(), "y of PyTorch")
        assert_close(found["grad.image"], x.grad.numpy(), "gradient of PyTorch")
