"""Parts of images at places that follow from data."""

from __future__ import annotations

import math

import numpy as np

from ....compiler.errors import OnnxError
from ....compiler.ops import conv as cv
from ....compiler.ops.base import apply
from ....compiler.ops.grid import Border, GridSample
from ....compiler.ops.indexing import Take, TakeAlongAxis, stack
from ....compiler.ops.pointwise import Floor
from ....compiler.tensor import Tensor
from ....compiler.types import DType
from ..call import Call, Result, operator
from .conv import pads_of


@operator("RoiAlign")
def _roi_align(call: Call) -> Result:
    """He et al., Mask R-CNN: a few samples in each bin, linear between four pixels."""
    x, rois, numbers = call.all()
    extents = call.integer("output_height", 1), call.integer("output_width", 1)
    samples = call.integer("sampling_ratio", 0)
    if samples < 1:
        raise OnnxError("sampling_ratio=0 makes the number of samples depend on the data")
    # Before operator set 16 there was no half pixel.
    half = call.text("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    half = half and call.version >= 16
    corners = rois * call.number("spatial_scale", 1.0) - (0.5 if half else 0.0)
    axes = []
    for d, n in enumerate(x.shape[2:]):
        low, high = corners[:, 1 - d], corners[:, 3 - d]
        size = high - low if half else (high - low).maximum(1.0)
        count = extents[d] * samples
        call.importer.check_made(count)
        share = call.constant((np.arange(count) + 0.5) / count, x.dtype)
        axes.append(_between(low.unsqueeze(1) + size.unsqueeze(1) * share, n))
    images = apply(Take(0), x, numbers).flatten(2)
    parts = [_pixels(images, y, z, x.shape[3]) for y in axes[0] for z in axes[1]]
    # (R, C, rows, samples, columns, samples)
    bins = (*images.shape[:2], extents[0], samples, extents[1], samples)
    if call.text("mode", "avg") == "avg":
        return sum(parts[1:], parts[0]).reshape(bins).mean((3, 5))
    largest = parts[0]
    for part in parts[1:]:
        largest = largest.maximum(part)
    return largest.reshape(bins).amax((3, 5))


def _between(at: Tensor, extent: int) -> list[tuple[Tensor, Tensor]]:
    """The two pixels (int64) around places along an axis, (R, places), and their weights."""
    known = ((at >= -1.0) & (at <= float(extent))).cast(at.dtype)
    at = at.maximum(0.0).minimum(float(extent - 1))
    first = apply(Floor(), at)
    share = at - first
    index = first.cast(DType.INT64)
    return [(index, (1.0 - share) * known), ((index + 1).minimum(extent - 1), share * known)]


def _pixels(
    images: Tensor, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor], width: int
) -> Tensor:
    """Weighted pixels (R, C, rows * columns) of images (R, C, H * W)."""
    place = rows[0].unsqueeze(2) * width + columns[0].unsqueeze(1)
    weight = rows[1].unsqueeze(2) * columns[1].unsqueeze(1)
    flat = place.flatten(1).unsqueeze(1)
    wide = flat.broadcast_to((*images.shape[:2], flat.shape[2]))
    return apply(TakeAlongAxis(2), images, wide) * weight.flatten(1).unsqueeze(1)


@operator("DeformConv")
def _deform_conv(call: Call) -> Result:
    """Dai et al., Deformable convolutional networks: the pixels of a kernel lie where data say."""
    x, w, offset = call.x(0), call.x(1), call.x(2)
    bias, mask = call.optional(3), call.optional(4)
    if x.rank != 4:
        raise OnnxError(f"it takes images, not {x.type}")
    kernel = w.shape[2:]
    taps = math.prod(kernel)
    stride, dilation = call.integers("strides", (1, 1)), call.integers("dilations", (1, 1))
    pads, groups = pads_of(call, 2), call.integer("offset_group", 1)
    n, (height, width) = x.shape[0], offset.shape[2:]
    moved = offset.reshape((n * groups, taps, 2, height, width))
    call.importer.check_made(taps, height, width)
    axes = []
    for d, extent in enumerate(x.shape[2:]):
        # Row or column of each tap of each window, had it not been moved: (taps, H, W).
        shape = [1, 1, 1]
        shape[1 + d] = -1
        start = (np.arange((height, width)[d]) * stride[d] - pads[d][0]).reshape(shape)
        tap = (np.indices(kernel)[d].reshape(-1) * dilation[d]).reshape(-1, 1, 1)
        at = moved[:, :, d] + call.constant(
            np.broadcast_to(start + tap, (taps, height, width)), x.dtype
        )
        axes.append((at * 2.0 + 1.0) * (1.0 / extent) - 1.0)
    grid = stack([axes[1], axes[0]], -1).flatten(1, 2)
    images = x.reshape((n * groups, x.shape[1] // groups, *x.shape[2:]))
    taken = apply(GridSample(border=Border.ZEROS), images, grid)
    if mask is not None:
        taken = taken * mask.reshape((n * groups, 1, taps * height, width))
    columns = taken.reshape((n, x.shape[1] * taps, height, width))
    weight = w.reshape((w.shape[0], w.shape[1] * taps, 1, 1))
    op = cv.Conv((1, 1), ((0, 0), (0, 0)), (1, 1), call.integer("group", 1))
    return call.apply(op, columns, weight, *(() if bias is None else (bias,)))
