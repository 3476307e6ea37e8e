"""Grids and windows over images: against loops in NumPy, and against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import quern as qn
from quern import nn
from quern.compiler.errors import ShapeError, UsageError
from quern.compiler.types import Array
from quern.nn import functional as F

IMAGE = np.random.default_rng(0).standard_normal((2, 3, 5, 6)).astype(np.float32)


def run(function: Any, *arrays: Array) -> Array:
    graph = qn.trace(lambda *xs: function(*xs), *map(qn.spec, arrays))
    result: Array = qn.compile(graph)(*arrays)
    return result


def test_the_grid_of_no_map_gives_the_image_back() -> None:
    theta = np.tile(np.eye(2, 3, dtype=np.float32), (2, 1, 1))
    for corners in (False, True):
        same = run(
            lambda x, t, c=corners: F.grid_sample(x, F.affine_grid(t, x.shape, c), align_corners=c),
            IMAGE, theta,
        )  # fmt: skip
        np.testing.assert_allclose(same, IMAGE, atol=1e-5)


def test_a_mirrored_grid_mirrors() -> None:
    theta = np.tile(np.diag([-1, 1, 0])[:2].astype(np.float32), (2, 1, 1))
    y = run(lambda x, t: F.grid_sample(x, F.affine_grid(t, x.shape)), IMAGE, theta)
    np.testing.assert_allclose(y, IMAGE[..., ::-1], atol=1e-5)


def test_columns_are_windows() -> None:
    y = run(lambda x: F.unfold(x, (2, 3), padding=(1, 0), stride=(2, 1)), IMAGE)
    padded = np.pad(IMAGE, ((0, 0), (0, 0), (1, 1), (0, 0)))
    windows = [padded[:, :, i : i + 2, j : j + 3] for i in range(0, 6, 2) for j in range(4)]
    np.testing.assert_array_equal(y, np.stack([w.reshape(2, -1) for w in windows], -1))


def test_a_convolution_is_a_product_with_columns() -> None:
    conv = nn.Conv2d(3, 4, 3, padding=1, stride=2)

    def by_columns(x: Any) -> Any:
        columns = F.unfold(x, 3, padding=1, stride=2)
        rows = conv.weight.flatten(1) @ columns + conv.bias.unsqueeze(1)
        return rows.unflatten(2, (3, 3))

    np.testing.assert_allclose(run(by_columns, IMAGE), conv(IMAGE), rtol=1e-4, atol=1e-5)


def test_fold_is_the_transpose_of_unfold() -> None:
    layer = nn.Unfold(3, dilation=2, padding=1, stride=2)
    graph = qn.trace(lambda x: (layer(x) * layer(x)).sum() * 0.5, qn.spec(IMAGE))
    gradient = qn.compile(qn.grad(graph, of="output", wrt=["x"])).run({"x": IMAGE})["grad.x"]
    columns = run(layer, IMAGE)
    folded = run(nn.Fold((5, 6), 3, dilation=2, padding=1, stride=2), columns)
    np.testing.assert_allclose(folded, gradient, rtol=1e-5, atol=1e-6)


def test_a_spatial_transformer_is_trained(rng: np.random.Generator) -> None:
    """It learns to bring shifted images back (Jaderberg et al., 2015)."""

    class Transformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.theta = nn.Parameter(np.eye(2, 3, dtype=np.float32)[None])

        def forward(self, x: qn.Tensor) -> Any:
            theta = self.theta.expand(x.size(0), 2, 3)
            return F.grid_sample(x, F.affine_grid(theta, x.shape), padding_mode="border")

    ramp = np.add.outer(np.arange(8.0), 2 * np.arange(8.0))[None, None] / 8
    x = np.repeat(ramp.astype(np.float32), 4, 0)
    target = x + 0.25  # the image, seen from one pixel on along the columns
    trainer = qn.Trainer(Transformer(), loss="mse", optimizer=qn.optim.Adam(0.02), metrics={})
    records = trainer.fit((x, target), epochs=60, batch_size=4, quiet=True)
    assert records[-1]["loss"] < 0.1 * records[0]["loss"]


def test_mistakes_are_told() -> None:
    with pytest.raises(UsageError, match="not 'cubic'"):
        run(lambda x: F.grid_sample(x, x, mode="cubic"), IMAGE)
    with pytest.raises(UsageError, match="padding_mode is one of zeros"):
        run(lambda x: F.grid_sample(x, x, padding_mode="wrap"), IMAGE)
    with pytest.raises(ShapeError, match=r"takes theta \(2, 2, 3\), got"):
        run(lambda x: F.affine_grid(x, x.shape), IMAGE)
    with pytest.raises(ShapeError, match="do not fit into an image"):
        run(lambda x: F.unfold(x, 7), IMAGE)
    with pytest.raises(ShapeError, match=r"takes columns \(N, C \* 4, 20\)"):
        run(lambda x: F.fold(x[0], (5, 6), 2), IMAGE)


# -- PyTorch --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("border", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("corners", [False, True])
def test_grids_are_pytorchs(
    mode: str, border: str, corners: bool, rng: np.random.Generator
) -> None:
    torch = pytest.importorskip("torch")
    theta = (np.eye(2, 3) + 0.3 * rng.standard_normal((2, 2, 3))).astype(np.float32)

    def ours(x: Any, t: Any) -> Any:
        return F.grid_sample(x, F.affine_grid(t, (2, 3, 4, 7), corners), mode, border, corners)

    f = torch.nn.functional
    grid = f.affine_grid(torch.from_numpy(theta), (2, 3, 4, 7), corners)
    expected = f.grid_sample(torch.from_numpy(IMAGE), grid, mode, border, corners)
    np.testing.assert_allclose(run(ours, IMAGE, theta), expected.numpy(), rtol=1e-4, atol=1e-4)


def test_grids_of_volumes_are_pytorchs(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    volume = rng.standard_normal((1, 2, 3, 4, 5)).astype(np.float32)
    theta = (np.eye(3, 4) + 0.2 * rng.standard_normal((1, 3, 4))).astype(np.float32)
    y = run(lambda x, t: F.grid_sample(x, F.affine_grid(t, x.shape)), volume, theta)
    grid = f.affine_grid(torch.from_numpy(theta), volume.shape, False)
    expected = f.grid_sample(torch.from_numpy(volume), grid, align_corners=False)
    np.testing.assert_allclose(y, expected.numpy(), rtol=1e-4, atol=1e-4)
