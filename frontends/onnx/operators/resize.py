"""Resizing images."""

from __future__ import annotations

import math
from dataclasses import replace

from ....compiler.errors import OnnxError
from ....compiler.ops.grid import Border, GridSample
from ....compiler.ops.resize import Coordinates, Interpolation, Nearest, Resize
from ....compiler.tensor import Tensor
from ....compiler.types import normalize_axis
from ..call import Call, Result, operator


@operator("Upsample")
def _upsample(call: Call) -> Result:
    x = call.x()
    if "scales" in call.attributes:
        scales = call.numbers("scales")
    else:
        scales = tuple(float(s) for s in call.known(1))
    mode = Interpolation(call.text("mode", "nearest"))
    sizes = tuple(math.floor(n * s) for n, s in zip(x.shape, scales, strict=True))
    axes = tuple(range(x.rank))
    op = Resize(axes, sizes, scales, mode, Coordinates.ASYMMETRIC, Nearest.FLOOR)
    return call.apply(_moved_only(op, x), x)


@operator("Resize")
def _resize(call: Call) -> Result:
    x = call.x()
    if call.version < 11:
        return _upsample(call)
    mode = Interpolation(call.text("mode", "nearest"))
    given = call.attributes.get("axes", tuple(range(x.rank)))
    axes = tuple(normalize_axis(a, x.rank) for a in given)
    sizes, scales = _extents(call, x, axes)
    coordinates = call.text("coordinate_transformation_mode", "half_pixel")
    if coordinates == "tf_half_pixel_for_nn":
        raise OnnxError("the coordinates tf_half_pixel_for_nn are not supported")
    roi = _region(call, len(axes)) if coordinates == "tf_crop_and_resize" else ()
    op = Resize(
        axes,
        sizes,
        scales,
        mode,
        Coordinates(coordinates),
        Nearest(call.text("nearest_mode", "round_prefer_floor")),
        call.number("cubic_coeff_a", -0.75),
        call.flag("exclude_outside"),
        call.flag("antialias"),
        roi,
        call.number("extrapolation_value", 0.0),
    )
    return call.apply(_moved_only(op, x), x)


def _moved_only(op: Resize, x: Tensor) -> Resize:
    """The operation on the axes that it changes."""
    same = [
        op.coordinates is not Coordinates.CROP and size == x.shape[axis] and scale == 1.0
        for axis, size, scale in zip(op.axes, op.sizes, op.scales, strict=True)
    ]
    kept = [i for i, s in enumerate(same) if not s]
    return replace(
        op,
        axes=tuple(op.axes[i] for i in kept),
        sizes=tuple(op.sizes[i] for i in kept),
        scales=tuple(op.scales[i] for i in kept),
        roi=tuple(op.roi[i] for i in kept) if op.roi else (),
    )


def _region(call: Call, count: int) -> tuple[tuple[float, float], ...]:
    region = [float(v) for v in call.known(1).reshape(-1)]
    return tuple(zip(region[:count], region[count:], strict=True))


def _extents(
    call: Call, x: Tensor, axes: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Sizes of the output, and output over input."""
    if call.has(2) and 0 not in call.shape(2):
        scales = tuple(float(s) for s in call.known(2))
        sizes = tuple(math.floor(x.shape[a] * s) for a, s in zip(axes, scales, strict=True))
        return sizes, scales
    sizes = tuple(int(n) for n in call.known(3))
    ratios = [n / x.shape[a] for a, n in zip(axes, sizes, strict=True)]
    policy = call.text("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        ratio = min(ratios) if policy == "not_larger" else max(ratios)
        ratios = [ratio] * len(axes)
        sizes = tuple(math.floor(x.shape[a] * ratio + 0.5) for a in axes)
    return sizes, tuple(ratios)


@operator("GridSample")
def _grid_sample(call: Call) -> Result:
    names = {"bilinear": "linear", "bicubic": "cubic"}
    mode = call.text("mode", "linear")
    return call.apply(
        GridSample(
            Interpolation(names.get(mode, mode)),
            Border(call.text("padding_mode", "zeros")),
            call.flag("align_corners"),
        )
    )
