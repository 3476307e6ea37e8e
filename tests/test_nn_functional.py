"""Functions without a layer of their own, against PyTorch's; and calls that are refused."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import quern as qn
from quern import nn
from quern.compiler.errors import QuernError
from quern.compiler.evaluate import evaluate
from quern.nn import functional as F

Array = np.ndarray[Any, Any]

RNG = np.random.default_rng(2)
X = RNG.standard_normal((2, 4, 6), np.float32)
IMAGE = RNG.standard_normal((2, 4, 6, 6), np.float32)
W = RNG.standard_normal((3, 4, 2, 2), np.float32)
PLACES = RNG.integers(0, 4, (2, 3, 6))


def both(call: Callable[..., Any], *arrays: Array) -> None:
    """The same call on the same arrays gives the same numbers in both libraries."""
    torch = pytest.importorskip("torch")
    outputs = evaluate(
        graph := qn.trace(lambda *inputs: call(F, *inputs), *arrays),
        {n.name: a for n, a in zip(graph.nodes(), arrays, strict=False)},
    ).outputs
    expected = call(_Torch(torch), *(torch.from_numpy(a) for a in arrays))
    listed = list(expected) if isinstance(expected, tuple | list) else [expected]
    assert len(outputs) == len(listed)
    for actual, wanted in zip(outputs.values(), listed, strict=True):
        assert actual.dtype == wanted.numpy().dtype
        np.testing.assert_allclose(actual, wanted.numpy(), rtol=2e-5, atol=2e-6)


class _Torch:
    """Both of PyTorch's places for functions."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._torch.nn.functional, name, None) or getattr(self._torch, name)


CALLS: dict[str, tuple[Callable[..., Any], tuple[Array, ...]]] = {
    "cat": (lambda f, x, y: f.cat((x, y), dim=-1), (X, X)),
    "concat": (lambda f, x, y: f.concat([x, y], 1), (X, X)),
    "stack": (lambda f, x, y: f.stack((x, y), dim=-2), (X, X)),
    "split": (lambda f, x: f.split(x, 4, dim=2), (X,)),
    "split by sizes": (lambda f, x: f.split(x, [1, 2, 3], 2), (X,)),
    "chunk": (lambda f, x: f.chunk(x, 4, dim=-1), (X,)),
    "flatten": (lambda f, x: f.flatten(x, 1), (X,)),
    "unflatten": (lambda f, x: f.unflatten(x, -1, (2, -1)), (X,)),
    "where": (lambda f, x: f.where(x > 0, x, x * 0.5), (X,)),
    "exp, log, sqrt": (lambda f, x: f.log(f.sqrt(f.exp(x))), (X,)),
    "maximum": (lambda f, x, y: f.maximum(x, y) - f.minimum(x, y), (X, X[::-1].copy())),
    "argmax": (lambda f, x: f.argmax(x, dim=1, keepdim=True), (X,)),
    "argmax of all": (lambda f, x: f.argmax(x), (X,)),
    "one_hot": (lambda f, i: f.one_hot(i, 4), (PLACES,)),
    "gather": (lambda f, x, i: f.gather(x, 1, i), (X, PLACES)),
    "matmul": (lambda f, x, y: f.matmul(x, y), (X, X.swapaxes(1, 2).copy())),
    "bmm": (lambda f, x, y: f.bmm(x, y), (X, X.swapaxes(1, 2).copy())),
    "pad": (lambda f, x: f.pad(x, (1, -2, 0, 3), value=1.5), (X,)),
    "pad circular": (lambda f, x: f.pad(x, (1, 2), mode="circular"), (X,)),
    "normalize": (lambda f, x: f.normalize(x), (X,)),
    "normalize p": (lambda f, x: f.normalize(x, p=3.0, dim=-1), (X,)),
    "normalize 1": (lambda f, x: f.normalize(x, p=1.0, dim=2), (X,)),
    "clamp": (lambda f, x: f.clamp(x, min=-0.5), (X,)),
    "softmax": (lambda f, x: f.softmax(x, dim=-1), (X,)),
    "interpolate": (lambda f, x: f.interpolate(x, size=(9, 4)), (IMAGE,)),
    "interpolate up": (lambda f, x: f.interpolate(x, scale_factor=3), (IMAGE,)),
    "interpolate by a factor": (lambda f, x: f.interpolate(x, scale_factor=1.3), (IMAGE,)),
    "interpolate at centres": (
        lambda f, x: f.interpolate(x, scale_factor=(1.3, 0.4), mode="nearest-exact"),
        (IMAGE,),
    ),
    "interpolate at centres to a size": (
        lambda f, x: f.interpolate(x, (9, 4), mode="nearest-exact"),
        (IMAGE,),
    ),
    "interpolate areas": (lambda f, x: f.interpolate(x, (9, 4), mode="area"), (IMAGE,)),
    "interpolate by a factor of the sizes": (
        lambda f, x: f.interpolate(
            x, scale_factor=2.3, mode="bilinear", recompute_scale_factor=True
        ),
        (IMAGE,),
    ),
    "interpolate bilinear": (lambda f, x: f.interpolate(x, (9, 4), mode="bilinear"), (IMAGE,)),
    "interpolate bilinear by a factor": (
        lambda f, x: f.interpolate(x, scale_factor=2.3, mode="bilinear"),
        (IMAGE,),
    ),
    "interpolate with aligned corners": (
        lambda f, x: f.interpolate(x, 11, mode="bilinear", align_corners=True),
        (IMAGE,),
    ),
    "interpolate bicubic": (lambda f, x: f.interpolate(x, (9, 4), mode="bicubic"), (IMAGE,)),
    "interpolate antialiased": (
        lambda f, x: f.interpolate(x, (2, 3), mode="bilinear", antialias=True),
        (IMAGE,),
    ),
    "pixel_shuffle": (lambda f, x: f.pixel_shuffle(x, 2), (IMAGE,)),
    "conv2d": (lambda f, x, w: f.conv2d(x, w, stride=2, padding="valid"), (IMAGE, W)),
    "layer_norm with a bias alone": (
        lambda f, x, b: f.layer_norm(x, (6,), None, b),
        (X, X[0, 0].copy()),
    ),
    "batch_norm with a weight alone": (
        lambda f, x, w: f.batch_norm(x, None, None, weight=w, training=True),
        (X, X[0, :, 0].copy()),
    ),
    "batch_norm by known statistics": (
        lambda f, x, m: f.batch_norm(x, m, m * m, bias=m),
        (X, X[0, :, 0].copy()),
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_functions_are_pytorchs(name: str) -> None:
    call, arrays = CALLS[name]
    both(call, *arrays)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("to", [{"size": (9, 1)}, {"scale_factor": (2.0, 0.3)}], ids=str)
def test_antialiased_to_one_column_is_pytorchs_row_of_the_image_turned(
    mode: str, to: dict[str, tuple[float, float]]
) -> None:
    """PyTorch 2.13 fills one column with its first row where the height changes too.

    (On the CPU; it resizes the same column right where it stands twice, or lies as a row.)
    """

    def call(f: Any, x: Any) -> Any:
        if f is F:
            return f.interpolate(x, mode=mode, antialias=True, **to)
        turned = {name: numbers[::-1] for name, numbers in to.items()}
        return f.interpolate(x.mT.contiguous(), mode=mode, antialias=True, **turned).mT

    both(call, IMAGE)


def test_signatures_begin_like_pytorchs() -> None:
    """Arguments that both have stand at the same place, under the same name."""
    torch = pytest.importorskip("torch")
    compared = 0
    for name in F.__all__:
        other = getattr(torch.nn.functional, name, None)
        try:
            theirs = [p for p in inspect.signature(other).parameters if not p.startswith("_")]
        except (TypeError, ValueError):
            continue  # built into PyTorch, or ours alone
        ours = list(inspect.signature(getattr(F, name)).parameters)
        if theirs[:1] == ["args"]:
            continue
        deprecated = {"size_average", "reduce", "return_indices", "ceil_mode"}
        kept = [p for p in theirs if p in ours and p not in deprecated]
        assert [p for p in ours if p in kept] == kept, name
        compared += 1
    assert compared > 30


REFUSED: list[tuple[Callable[[Any], Any], str]] = [
    (lambda x: F.conv2d(x, F.flatten(x)), "the weight has rank 4 here"),
    (lambda x: F.conv2d(x, x, stride=(1, 2, 3)), r"stride \(1, 2, 3\) has 3 entries"),
    (lambda x: F.conv2d(x, x, stride=2, padding="same"), "'same' needs a stride of 1"),
    (lambda x: F.conv2d(x, x, padding="full"), "not 'full'"),
    (lambda x: F.max_pool2d(x, 2, padding=2), "more than half of the kernel"),
    (lambda x: F.pad(x, (1,)), "two numbers for each"),
    (lambda x: F.pad(x, (-9, 0)), "takes more than axis 3"),
    (lambda x: F.pad(x, (1, 1), mode="mirror"), "not 'mirror'"),
    (lambda x: F.cat([]), "at least one tensor"),
    (lambda x: F.dropout(x, 1.5), "from 0 to 1, got 1.5"),
    (lambda x: F.batch_norm(x, None, None), "needs running_mean"),
    (lambda x: F.layer_norm(x, (5,)), "is not what the shape of"),
    (lambda x: F.mse_loss(x, x, reduction="avg"), "not 'avg'"),
    (lambda x: F.interpolate(x), "either size or scale_factor"),
    (lambda x: F.interpolate(x, size=3, mode="cubic"), "not 'cubic'"),
    (lambda x: F.interpolate(x, size=3, mode="trilinear"), "for 3 spatial axes"),
    (lambda x: F.interpolate(x, size=3, align_corners=True), "not for mode 'nearest'"),
    (lambda x: F.unflatten(x, 1, (3, 3)), "cannot be unflattened"),
    (lambda x: F.pixel_shuffle(x, 3), "multiple of 9 channels"),
    (lambda x: F.embedding(x, x), r"weight of embedding is \(V, D\)"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_calls_that_make_no_sense_are_refused(call: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(QuernError, match=message) as caught:
        qn.trace(call, qn.spec(2, 4, 6, 6))
    assert __file__ in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Conv2d(3, 4, 3, groups=2), "groups=2 must divide in_channels=3"),
        (lambda: nn.Conv2d(3, 4, 3, padding_mode="mirror"), "not 'mirror'"),
        (lambda: nn.Conv2d(3, 4, 3, stride=2, padding="same"), "'same' needs a stride of 1"),
        (lambda: nn.ConvTranspose2d(3, 4, 3, padding_mode="reflect"), "'zeros' only"),
        (lambda: nn.Linear(3, -1), r"cannot have the shape \(-1, 3\)"),
        (lambda: nn.GroupNorm(3, 4), "does not divide num_channels=4"),
        (lambda: nn.Dropout(-0.1), "from 0 to 1, got -0.1"),
        (lambda: nn.Embedding(3, 2, padding_idx=3), "is none of 3 embeddings"),
        (lambda: nn.ZeroPad2d((1, 2)), "has 4 numbers"),
        (lambda: nn.BatchNorm2d(3)(X), "takes values of rank 4"),
        (lambda: nn.InstanceNorm1d(3)(X), "is for 3 channels"),
    ],
)
def test_layers_that_make_no_sense_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(QuernError, match=message):
        make()
