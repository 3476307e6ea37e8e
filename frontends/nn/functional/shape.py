"""Padding, joining, cutting, choosing: functions that move elements, or look them up."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ....compiler.errors import ShapeError, UsageError
from ....compiler.ops import indexing
from ....compiler.ops.adaptive import AdaptiveAvgPool
from ....compiler.ops.base import Op, apply
from ....compiler.ops.movement import Concat, Pad, PadMode
from ....compiler.ops.pointwise import Exp, Log, Sqrt
from ....compiler.ops.resize import Coordinates, Interpolation, Resize
from ....compiler.tensor import Scalar, Tensor, as_float, choose, promote
from ....compiler.types import DType, normalize_axis
from ..context import emit
from .arguments import Size, per_axis

_MODES = {
    "constant": PadMode.CONSTANT,
    "reflect": PadMode.REFLECT,
    "replicate": PadMode.EDGE,
    "circular": PadMode.WRAP,
}

# Mode of interpolate: how, and for how many spatial axes where not for any number.
_INTERPOLATIONS = {
    "nearest": (Interpolation.NEAREST, None),
    "nearest-exact": (Interpolation.NEAREST, None),
    "linear": (Interpolation.LINEAR, 1),
    "bilinear": (Interpolation.LINEAR, 2),
    "trilinear": (Interpolation.LINEAR, 3),
    "bicubic": (Interpolation.CUBIC, 2),
}


def pad(
    input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    """Rows before and after the last axes.

    Arguments:
        pad: (before, after) of the last axis, then of the one before it, and so on; a negative
            number takes rows away.
        mode: "constant", "reflect", "replicate" or "circular".
        value: of constant padding; 0 by default.
    """
    return _padded(emit, input, pad, mode, value or 0.0)


def unnamed_pad(input: Tensor, pad: Sequence[int], mode: str) -> Tensor:
    """`pad` as a side matter, which leaves a layer's name to its main node."""
    return _padded(apply, input, pad, mode, 0.0)


def _padded(
    add: Callable[[Op, Tensor], Tensor], input: Tensor, pad: Sequence[int], mode: str, value: float
) -> Tensor:
    if mode not in _MODES:
        raise UsageError(f"the padding mode is one of {', '.join(_MODES)}, not {mode!r}")
    if len(pad) % 2 or len(pad) > 2 * input.rank:
        raise ShapeError(
            f"pad {tuple(pad)} takes two numbers for each of the last axes of {input.type}"
        )
    pairs = [(0, 0)] * input.rank
    for i, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True)):
        axis = input.rank - 1 - i
        keep = input.shape[axis] + min(before, 0) + min(after, 0)
        if keep < 0:
            raise ShapeError(
                f"padding {(before, after)} takes more than axis {axis} of {input.type} has"
            )
        input = input.slice_axis(axis, max(-before, 0), keep)
        pairs[axis] = (max(before, 0), max(after, 0))
    if not any(map(any, pairs)):
        return input
    return add(Pad(tuple(pairs), _MODES[mode], float(value)), input)


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors one after the other along an axis."""
    if not tensors:
        raise ShapeError("cat takes at least one tensor")
    parts = promote(*tensors)
    return emit(Concat(normalize_axis(dim, parts[0].rank)), *parts)


concat = cat


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one shape side by side on a new axis."""
    return indexing.stack(promote(*tensors) if tensors else tensors, dim)


def split(
    tensor: Tensor, split_size_or_sections: int | Sequence[int], dim: int = 0
) -> tuple[Tensor, ...]:
    """Parts of a tensor along an axis: of one extent, or of the extents given."""
    return indexing.split(tensor, split_size_or_sections, dim)


def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most so many parts of equal extent along an axis, the last one perhaps smaller."""
    return indexing.chunk(input, chunks, dim)


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Axes `start_dim` to `end_dim` (both included) as one."""
    return input.flatten(start_dim, end_dim)


def where(condition: Tensor, input: Tensor | Scalar, other: Tensor | Scalar) -> Tensor:
    """Elements of `input` where the condition holds, else of `other`."""
    return choose(condition, input, other)


def exp(input: Tensor) -> Tensor:
    """The exponential of each element."""
    return emit(Exp(), as_float(input))


def log(input: Tensor) -> Tensor:
    """Natural logarithm of each element."""
    return emit(Log(), as_float(input))


def sqrt(input: Tensor) -> Tensor:
    """Square root of each element."""
    return emit(Sqrt(), as_float(input))


def maximum(input: Tensor, other: Tensor | Scalar) -> Tensor:
    """The larger one of each two elements."""
    return input.maximum(other)


def minimum(input: Tensor, other: Tensor | Scalar) -> Tensor:
    """The smaller one of each two elements."""
    return input.minimum(other)


def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Index (int64) of the first largest element along an axis, or of all in row-major order."""
    return input.argmax(dim, keepdim)


def one_hot(tensor: Tensor, num_classes: int) -> Tensor:
    """1 at the class each index names, 0 elsewhere, on a new last axis (int64)."""
    return emit(indexing.OneHot(num_classes, None, DType.INT64), tensor)


def gather(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """input[…, index[…], …] along an axis; both have the same extents on all others."""
    return input.gather(dim, index)


def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """The row of weight (V, D) for each index: (…,) gives (…, D).

    Arguments:
        padding_idx: no gradient reaches this row.
    """
    if weight.rank != 2:
        raise ShapeError(f"the weight of embedding is (V, D), got {weight.type}")
    rows = emit(indexing.Take(0), weight, input)
    if padding_idx is None:
        return rows
    padding = input.equal(padding_idx % weight.shape[0]).unsqueeze(-1)
    return padding.where(rows.detach(), rows)


def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """One axis as several; one of their extents may be -1."""
    return input.unflatten(dim, sizes)


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """(…, C r², H, W) as (…, C, H r, W r)."""
    *lead, channels, height, width = input.shape
    r = upscale_factor
    if channels % (r * r):
        raise ShapeError(
            f"pixel_shuffle by {r} needs a multiple of {r * r} channels, got {input.type}"
        )
    n = len(lead)
    x = input.reshape((*lead, channels // (r * r), r, r, height, width))
    x = x.permute((*range(n), n, n + 3, n + 1, n + 4, n + 2))
    return x.reshape((*lead, channels // (r * r), height * r, width * r))


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """(…, C, H r, W r) as (…, C r², H, W)."""
    *lead, channels, height, width = input.shape
    r = downscale_factor
    if height % r or width % r:
        raise ShapeError(f"pixel_unshuffle by {r} needs multiples of {r} pixels, got {input.type}")
    n = len(lead)
    x = input.reshape((*lead, channels, height // r, r, width // r, r))
    x = x.permute((*range(n), n, n + 2, n + 4, n + 1, n + 3))
    return x.reshape((*lead, channels * r * r, height // r, width // r))


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """Channels of (N, C, *) dealt out in turns from `groups` groups."""
    n, channels, *spatial = input.shape
    if channels % groups:
        raise ShapeError(f"channel_shuffle in {groups} groups does not divide {input.type}")
    x = input.reshape((n, groups, channels // groups, *spatial)).transpose(1, 2)
    return x.reshape((n, channels, *spatial))


def interpolate(
    input: Tensor,
    size: Size | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """(N, C, *spatial) in other spatial extents.

    Arguments:
        size: the extents; or
        scale_factor: how many times those of the input.
        mode: "nearest": an element is the one of the input at `floor(i * extent / size)`, or
            `floor(i / scale_factor)`; "nearest-exact": with i + 1/2 in place of i; "area": the mean
            of all that lie in it; or "linear", "bilinear", "trilinear" for 1 to 3 spatial axes, or
            "bicubic".
        align_corners: whether the centres of the corner elements stay where they are, and not
            their outer edges. Not with "nearest".
        recompute_scale_factor: coordinates follow from the extents alone, also where those follow
            from a scale_factor.
        antialias: when making smaller, all elements count.
    """
    rank = input.rank - 2
    extents, scales = _extents(input, size, scale_factor)
    if recompute_scale_factor:
        scales = _ratios(input, extents)
    if mode == "area":
        return emit(AdaptiveAvgPool(extents), input)
    if mode not in _INTERPOLATIONS:
        known = ", ".join(map(repr, (*_INTERPOLATIONS, "area")))
        raise UsageError(f"interpolate knows the modes {known}, not {mode!r}")
    interpolation, axes = _INTERPOLATIONS[mode]
    if axes not in (None, rank):
        raise ShapeError(f"interpolate: mode {mode!r} is for {axes} spatial axes, got {input.type}")
    if axes is None and (align_corners is not None or antialias):
        raise UsageError("interpolate: align_corners and antialias are not for mode 'nearest'")
    if axes is None:
        for axis, (extent, scale) in enumerate(zip(extents, scales, strict=True), 2):
            input = _stretched(input, axis, extent, scale, 0.5 if mode == "nearest-exact" else 0.0)
        return input
    op = Resize(
        tuple(range(2, input.rank)),
        extents,
        _ratios(input, extents) if align_corners else scales,
        interpolation,
        Coordinates.ALIGN_CORNERS if align_corners else Coordinates.HALF_PIXEL,
        cubic=-0.5 if antialias else -0.75,
        exclude_outside=antialias,
        antialias=antialias,
    )
    return emit(op, input)


def _extents(
    x: Tensor, size: Size | None, factor: float | Sequence[float] | None
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Spatial extents of the result, and by how much they are larger."""
    rank = x.rank - 2
    if size is not None and factor is None:
        extents = per_axis(size, rank, "size")
        return extents, _ratios(x, extents)
    if factor is not None and size is None:
        each = factor if isinstance(factor, Sequence) else (factor,) * rank
        extents = tuple(int(n * f) for n, f in zip(x.shape[2:], each, strict=True))
        return extents, tuple(map(float, each))
    raise UsageError("interpolate takes either size or scale_factor")


def _ratios(x: Tensor, extents: Sequence[int]) -> tuple[float, ...]:
    return tuple(n / old if old else 1.0 for n, old in zip(extents, x.shape[2:], strict=True))


def _stretched(x: Tensor, axis: int, extent: int, scale: float, start: float) -> Tensor:
    old = x.shape[axis]
    if old and extent % old == 0 and scale == extent / old:
        head, tail = x.shape[:axis], x.shape[axis + 1 :]
        return (
            x.unsqueeze(axis + 1)
            .broadcast_to((*head, old, extent // old, *tail))
            .reshape((*head, extent, *tail))
        )
    # In PyTorch's arithmetic, which decides where a place falls between two elements.
    places = (np.arange(extent, dtype=np.float32) + np.float32(start)) * np.float32(1 / scale)
    places = np.minimum(places.astype(np.int64), old - 1)
    return emit(indexing.Take(axis), x, x.graph.constant(places))


__all__ = [
    "argmax",
    "cat",
    "channel_shuffle",
    "chunk",
    "concat",
    "embedding",
    "exp",
    "flatten",
    "gather",
    "interpolate",
    "log",
    "maximum",
    "minimum",
    "one_hot",
    "pad",
    "pixel_shuffle",
    "pixel_unshuffle",
    "split",
    "sqrt",
    "stack",
    "unflatten",
    "where",
]
