"""Operators that move elements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from ....compiler.errors import OnnxError
from ....compiler.ops import movement as mv
from ....compiler.ops.base import apply
from ....compiler.ops.indexing import split
from ....compiler.tensor import Tensor
from ....compiler.types import DType, broadcast_shapes, normalize_axes, normalize_axis
from ..call import Call, Result, operator


@operator("Reshape")
def _reshape(call: Call) -> Result:
    x = call.x()
    wanted = list(call.given("shape", 1) or ())
    if not call.flag("allowzero"):
        wanted = [x.shape[d] if n == 0 and d < x.rank else n for d, n in enumerate(wanted)]
    if wanted.count(-1) > 1 or min(wanted, default=0) < -1:
        raise OnnxError(f"there is no shape {tuple(wanted)}")
    return x.reshape(tuple(wanted))


@operator("Flatten")
def _flatten(call: Call) -> Result:
    x = call.x()
    axis = call.integer("axis", 1)
    if not -x.rank <= axis <= x.rank:
        raise OnnxError(f"{x.type} has no axis {axis}")
    axis = axis + x.rank if axis < 0 else axis
    return x.reshape((math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


@operator("Transpose")
def _transpose(call: Call) -> Result:
    x = call.x()
    return x.permute(call.integers("perm", tuple(reversed(range(x.rank)))))


@operator("Squeeze")
def _squeeze(call: Call) -> Result:
    x = call.x()
    given = call.given("axes", 1)
    if given is None:
        return x.squeeze()
    axes = normalize_axes(given, x.rank)
    wide = [d for d in axes if x.shape[d] != 1]
    if wide:
        raise OnnxError(f"axis {wide[0]} of {x.type} cannot be dropped")
    return x.squeeze(axes)


@operator("Unsqueeze")
def _unsqueeze(call: Call) -> Result:
    x = call.x()
    given = call.given("axes", 1) or ()
    axes = normalize_axes(given, x.rank + len(given))
    rest = iter(x.shape)
    return x.reshape(tuple(1 if d in axes else next(rest) for d in range(x.rank + len(given))))


@operator("Expand")
def _expand(call: Call) -> Result:
    x = call.x()
    shape = tuple(int(n) for n in call.known(1))
    return x.broadcast_to(broadcast_shapes(x.shape, shape))


@operator("Tile")
def _tile(call: Call) -> Result:
    x = call.x()
    repeats = [int(n) for n in call.known(1)]
    if len(repeats) != x.rank or min(repeats, default=0) < 0:
        raise OnnxError(f"repeats {tuple(repeats)} do not fit {x.type}")
    apart = [e for n in x.shape for e in (1, n)]
    wide = [e for r, n in zip(repeats, x.shape, strict=True) for e in (r, n)]
    shape = tuple(r * n for r, n in zip(repeats, x.shape, strict=True))
    return x.reshape(tuple(apart)).broadcast_to(tuple(wide)).reshape(shape)


@operator("Concat")
def _concat(call: Call) -> Result:
    inputs = call.all()
    axis = normalize_axis(call.integer("axis", 1), inputs[0].rank)
    return call.apply(mv.Concat(axis), *inputs)


@operator("Split")
def _split(call: Call) -> Result:
    x = call.x()
    axis = normalize_axis(call.integer("axis", 0), x.rank)
    sizes = call.given("split", 1)
    if sizes is None:
        count = call.integer("num_outputs", len(call.outputs))
        part = -(-x.shape[axis] // count)
        starts = [min(i * part, x.shape[axis]) for i in range(count + 1)]
        sizes = tuple(b - a for a, b in pairwise(starts))
    return split(x, sizes, axis)


@operator("Slice")
def _slice(call: Call) -> Result:
    x = call.x()
    starts, ends = call.given("starts", 1), call.given("ends", 2)
    if starts is None or ends is None:
        raise OnnxError("it has no starts or no ends")
    axes = call.given("axes", 3) or tuple(range(len(starts)))
    steps = call.given("steps", 4) or (1,) * len(starts)
    key = [slice(None)] * x.rank
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        d = normalize_axis(axis, x.rank)
        extent = x.shape[d]
        # Counted from the front, ends are held inside; before the first element is None.
        first = _held(start, extent, 0, extent - 1 if step < 0 else extent)
        last = _held(end, extent, -1 if step < 0 else 0, extent)
        key[d] = slice(first, None if last < 0 else last, step)
    return x[tuple(key)]


def _held(place: int, extent: int, low: int, high: int) -> int:
    return max(low, min(high, place + extent if place < 0 else place))


@operator("Pad")
def _pad(call: Call) -> Result:
    x = call.x()
    pads = call.given("pads", 1)
    if pads is None:
        raise OnnxError("it has no pads")
    named = call.known(3).reshape(-1) if call.has(3) else range(x.rank)
    axes = [normalize_axis(int(a), x.rank) for a in named]
    pairs = [(0, 0)] * x.rank
    for i, axis in enumerate(axes):
        pairs[axis] = pads[i], pads[i + len(axes)]
    x = _cropped(x, pairs)
    padding = tuple((max(a, 0), max(b, 0)) for a, b in pairs)
    mode = call.text("mode", "constant")
    if mode == "constant":
        value = call.given_number("value", 2) or 0.0
        dtype = x.dtype
        if dtype is DType.BOOL:
            return apply(mv.Pad(padding, value=value), x.cast(DType.UINT8)).cast(dtype)
        return apply(mv.Pad(padding, value=value), x)
    return _repeatedly(x, padding, mv.PadMode(mode))


def _repeatedly(x: Tensor, padding: Sequence[tuple[int, int]], mode: mv.PadMode) -> Tensor:
    """Reflecting and wrapping reach once around; more takes several steps."""
    rest = [list(pair) for pair in padding]
    while any(map(any, rest)):
        most = [n - (mode is mv.PadMode.REFLECT) for n in x.shape]
        if mode is mv.PadMode.EDGE:
            most = [1 << 62] * x.rank
        now = [[min(p, m) for p in pair] for pair, m in zip(rest, most, strict=True)]
        if not any(map(any, now)):
            raise OnnxError(f"{x.type} cannot be padded like this: an axis is too short")
        x = apply(mv.Pad(tuple((a, b) for a, b in now), mode), x)
        rest = [[p - q for p, q in zip(a, b, strict=True)] for a, b in zip(rest, now, strict=True)]
    return x


def _cropped(x: Tensor, pairs: Sequence[tuple[int, int]]) -> Tensor:
    """Negative padding takes rows away."""
    key = tuple(slice(max(-a, 0), n - max(-b, 0)) for n, (a, b) in zip(x.shape, pairs, strict=True))
    return x[key]


@operator("DepthToSpace")
def _depth_to_space(call: Call) -> Result:
    x, b = call.x(), call.integer("blocksize")
    n, c, h, w = x.shape
    if call.text("mode", "DCR") == "DCR":
        x = x.reshape((n, b, b, c // (b * b), h, w)).permute(0, 3, 4, 1, 5, 2)
    else:
        x = x.reshape((n, c // (b * b), b, b, h, w)).permute(0, 1, 4, 2, 5, 3)
    return x.reshape((n, c // (b * b), h * b, w * b))


@operator("SpaceToDepth")
def _space_to_depth(call: Call) -> Result:
    x, b = call.x(), call.integer("blocksize")
    n, c, h, w = x.shape
    x = x.reshape((n, c, h // b, b, w // b, b))
    order = (0, 3, 5, 1, 2, 4) if call.text("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    return x.permute(order).reshape((n, c * b * b, h // b, w // b))


@operator("ReverseSequence")
def _reverse_sequence(call: Call) -> Result:
    """Only with known lengths: then it is a constant permutation of each sequence."""
    from ....compiler.ops.indexing import Take

    x = call.x()
    batch, time = call.integer("batch_axis", 1), call.integer("time_axis", 0)
    lengths = [int(n) for n in call.known(1)]
    parts = []
    for b, length in enumerate(lengths):
        order = np.arange(x.shape[time])
        order[:length] = order[:length][::-1]
        part = x.slice_axis(batch, b, 1)
        parts.append(apply(Take(time), part, call.constant(order)))
    return apply(mv.Concat(batch), *parts)
