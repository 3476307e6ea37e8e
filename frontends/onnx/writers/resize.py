"""Resampling."""

from __future__ import annotations

from ....compiler.ops.grid import GridSample
from ....compiler.ops.resize import Coordinates, Interpolation, Resize
from ....compiler.types import DType
from ..writer import Draft, Outputs, Ref, writes


@writes(Resize)
def _resize(draft: Draft, op: Resize, x: Ref) -> Outputs:
    """ONNX Runtime interpolates images (N, C, H, W), and can leave out what is outside of them for
    cubic kernels alone; anything else is written out.
    """
    is_image = x.rank == 4 and set(op.axes) <= {2, 3} and x.type.dtype is DType.FLOAT32
    exact = all(s * x.shape[a] == n for a, s, n in zip(op.axes, op.scales, op.sizes, strict=True))
    if not is_image or not exact or op.coordinates is Coordinates.CROP:
        return None
    nearest = op.interpolation is Interpolation.NEAREST
    cubic = op.interpolation is Interpolation.CUBIC
    if op.exclude_outside and not (nearest or cubic):
        return None
    sizes = list(x.shape)
    for axis, size in zip(op.axes, op.sizes, strict=True):
        sizes[axis] = size
    return draft.node(
        "Resize",
        x,
        None,
        None,
        draft.integers(*sizes),
        mode=op.interpolation.value,
        coordinate_transformation_mode=op.coordinates.value,
        nearest_mode=op.nearest.value if nearest else None,
        cubic_coeff_a=op.cubic if cubic else None,
        exclude_outside=int(op.exclude_outside) if cubic else None,
        antialias=int(op.antialias) if op.antialias else None,
    )


@writes(GridSample)
def _grid_sample(draft: Draft, op: GridSample, x: Ref, grid: Ref) -> Outputs:
    if x.rank != 4 or op.cubic != -0.75 or grid.type.dtype is not x.type.dtype:
        return None
    return draft.node(
        "GridSample",
        x,
        grid,
        mode=op.interpolation.value,
        padding_mode=op.border.value,
        align_corners=int(op.align_corners),
    )
