"""Layers with a kernel for each place, against sums over what each place sees."""

from __future__ import annotations

import numpy as np
import pytest

from quern import nn
from quern.compiler.errors import ShapeError


@pytest.mark.parametrize(("kernel", "stride", "places"), [(3, 2, (2, 3)), ((2, 5), 1, (5, 3))])
def test_each_place_has_a_kernel_of_its_own(
    kernel: int | tuple[int, int], stride: int, places: tuple[int, int]
) -> None:
    rng = np.random.default_rng(0)
    layer = nn.LocallyConnected2d(2, 3, (6, 7), kernel, stride)
    assert layer.places == places
    high, wide = layer.kernel_size
    x = rng.standard_normal((4, 2, 6, 7), np.float32)
    kernels = layer.weight.data.reshape(*places, 2, high, wide, 3)
    expected = np.empty((4, 3, *places), np.float32)
    for i, j in np.ndindex(*places):
        seen = x[:, :, i * stride : i * stride + high, j * stride : j * stride + wide]
        expected[:, :, i, j] = np.einsum("nchw,chwk->nk", seen, kernels[i, j])
    assert layer.bias is not None
    np.testing.assert_allclose(layer(x), expected + layer.bias.data, rtol=1e-4, atol=1e-5)


def test_with_equal_kernels_it_is_a_convolution() -> None:
    rng = np.random.default_rng(1)
    layer = nn.LocallyConnected2d(3, 4, 5, 3, bias=False)
    layer.weight.data[...] = layer.weight.data[0]
    shared = nn.Conv2d(3, 4, 3, bias=False)
    shared.weight.data[...] = layer.weight.data[0].T.reshape(4, 3, 3, 3)
    x = rng.standard_normal((2, 3, 5, 5), np.float32)
    np.testing.assert_allclose(layer(x), shared(x), rtol=1e-4, atol=1e-5)


def test_extents_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"kernel_size=\(5, 5\) does not fit into input_size"):
        nn.LocallyConnected2d(2, 3, 4, 5)
    layer = nn.LocallyConnected2d(2, 3, 4, 3)
    with pytest.raises(ShapeError, match=r"takes \(N, 2, \*\(4, 4\)\)"):
        layer(np.zeros((1, 2, 5, 4), np.float32))
