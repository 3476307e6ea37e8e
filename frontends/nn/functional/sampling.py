"""Images looked at through grids and windows that move."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ....compiler.errors import ShapeError, UsageError
from ....compiler.ops.base import apply
from ....compiler.ops.grid import Border, GridSample
from ....compiler.ops.indexing import ScatterAdd, Take
from ....compiler.ops.resize import Interpolation
from ....compiler.tensor import Tensor
from ....compiler.tensor.promotion import constant
from ....compiler.types import Array, Shape
from ..context import emit
from .arguments import Size, per_axis
from .shape import pad

_INTERPOLATIONS = {
    "bilinear": Interpolation.LINEAR,
    "nearest": Interpolation.NEAREST,
    "bicubic": Interpolation.CUBIC,
}


def grid_sample(
    input: Tensor,
    grid: Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Tensor:
    """An image (N, C, *spatial) at the places of a grid (N, *places, d): (N, C, *places).

    Jaderberg et al., Spatial transformer networks, 2015.

    Arguments:
        grid: coordinates, that of the last spatial axis first, of which -1 and 1 are the ends.
        mode: "bilinear" (in three axes, too), "nearest" or "bicubic".
        padding_mode: "zeros", "border" or "reflection" outside of the image.
        align_corners: the ends are the centres of the outermost pixels, not their outer edges.
    """
    if mode not in _INTERPOLATIONS:
        known = ", ".join(_INTERPOLATIONS)
        raise UsageError(f"grid_sample knows the modes {known}, not {mode!r}")
    borders = {b.value: b for b in Border}
    if padding_mode not in borders:
        raise UsageError(f"padding_mode is one of {', '.join(borders)}, not {padding_mode!r}")
    op = GridSample(_INTERPOLATIONS[mode], borders[padding_mode], bool(align_corners))
    return emit(op, input, grid)


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """The grid (N, *spatial, d) for `grid_sample` of affine maps theta (N, d, d + 1).

    Arguments:
        size: (N, C, *spatial) of the result of `grid_sample`.
        align_corners: as there.
    """
    n, _, *spatial = (int(e) for e in size)
    d = len(spatial)
    if theta.shape != (n, d, d + 1):
        raise ShapeError(
            f"affine_grid to {tuple(size)} takes theta ({n}, {d}, {d + 1}), got {theta.type}"
        )
    ends = [_centres(extent, bool(align_corners)) for extent in spatial]
    axes = np.meshgrid(*ends, indexing="ij")
    places = np.stack([*reversed(axes), np.ones_like(axes[0])], -1).reshape(-1, d + 1)
    return (constant(places, theta) @ theta.mT).reshape(n, *spatial, d)


def _centres(extent: int, align_corners: bool) -> Array:
    """Coordinates of the pixels of an axis, whose ends are -1 and 1."""
    if align_corners:
        return np.linspace(-1, 1, extent) if extent > 1 else np.zeros(extent)
    return (2 * np.arange(extent) + 1) / extent - 1


def unfold(
    input: Tensor, kernel_size: Size, dilation: Size = 1, padding: Size = 0, stride: Size = 1
) -> Tensor:
    """The windows of (N, C, H, W) as columns (N, C * kernel elements, windows): im2col."""
    places, padded, _ = _windows(input.shape[2:], kernel_size, dilation, padding, stride)
    high, wide = per_axis(padding, 2, "padding")
    n, c = input.shape[:2]
    pixels = pad(input, (wide, wide, high, high)).reshape(n, c, math.prod(padded))
    columns = apply(Take(2), pixels, input.graph.constant(places))
    return columns.reshape(n, c * places.shape[0], places.shape[1])


def fold(
    input: Tensor,
    output_size: Size,
    kernel_size: Size,
    dilation: Size = 1,
    padding: Size = 0,
    stride: Size = 1,
) -> Tensor:
    """The transpose of `unfold`: columns are added where their windows are: (N, C, *output_size)
    from (N, C * kernel elements, windows).
    """
    spatial = per_axis(output_size, 2, "output_size")
    places, padded, pads = _windows(spatial, kernel_size, dilation, padding, stride)
    elements, windows = places.shape
    if input.rank != 3 or input.shape[1] % elements or input.shape[2] != windows:
        raise ShapeError(
            f"fold to {spatial} takes columns (N, C * {elements}, {windows}), got {input.type}"
        )
    n, c = input.shape[0], input.shape[1] // elements
    columns = input.reshape(n, c, elements, windows)
    op = ScatterAdd((n, c, math.prod(padded)), 2)
    image = apply(op, input.graph.constant(places), columns).reshape(n, c, *padded)
    (high, wide), (h, w) = pads, spatial
    return image[:, :, high : high + h, wide : wide + w]


def _windows(
    spatial: Sequence[int], kernel: Size, dilation: Size, padding: Size, stride: Size
) -> tuple[Array, Shape, Shape]:
    """Pixel numbers (kernel elements, windows) in the padded image, its extents, the padding."""
    kernels, dilations = per_axis(kernel, 2, "kernel_size"), per_axis(dilation, 2, "dilation")
    pads, strides = per_axis(padding, 2, "padding"), per_axis(stride, 2, "stride")
    padded = tuple(n + 2 * p for n, p in zip(spatial, pads, strict=True))
    rows, columns = (
        np.arange(0, n - d * (k - 1), s) + d * np.arange(k)[:, None]
        for n, k, d, s in zip(padded, kernels, dilations, strides, strict=True)
    )
    if not rows.size or not columns.size:
        raise ShapeError(f"windows {kernels} do not fit into an image {padded}")
    places = rows[:, None, :, None] * padded[1] + columns[None, :, None, :]
    return places.reshape(math.prod(kernels), -1), padded, pads


__all__ = ["affine_grid", "fold", "grid_sample", "unfold"]
