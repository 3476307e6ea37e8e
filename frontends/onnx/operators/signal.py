"""Spectra."""

from __future__ import annotations

import numpy as np

from ....compiler.errors import OnnxError
from ....compiler.ops.indexing import Take, stack
from ....compiler.ops.linear import matmul
from ....compiler.ops.movement import Pad
from ....compiler.tensor import Tensor
from ....compiler.types import normalize_axis
from ..call import Call, Result, operator
from ..proto import numpy_dtype


@operator("DFT")
def _dft(call: Call) -> Result:
    """By the matrix of the transform; the last axis holds real and imaginary parts."""
    x = call.x()
    if call.version < 20:
        given = call.integer("axis", 1)
    else:
        given = int(call.known(2).reshape(-1)[0]) if call.has(2) else -2
    axis = normalize_axis(given, x.rank)
    length = int(call.known(1).reshape(-1)[0]) if call.has(1) else x.shape[axis]
    inverse, onesided = call.flag("inverse"), call.flag("onesided")
    if onesided and inverse and not call.has(1):
        length = 2 * (x.shape[axis] - 1)
    if axis == x.rank - 1 or length < 1:
        raise OnnxError(f"a transform of length {length} along axis {axis} is not supported")
    if onesided and inverse:
        return _real(call, x, axis, length)
    return _transform(call, x, axis, length, inverse, onesided)


def _transform(
    call: Call, x: Tensor, axis: int, length: int, inverse: bool, onesided: bool
) -> Tensor:
    call.importer.check_made(length, length)
    x = _of_length(x, axis, length)
    real = x[..., 0].transpose(axis, -1)
    imaginary = x[..., 1].transpose(axis, -1) if x.shape[-1] == 2 else None
    count = length // 2 + 1 if onesided else length
    # Products are taken modulo the length while they are exact.
    angle = 2.0 * np.pi / length * (np.outer(np.arange(length), np.arange(count)) % length)
    scale, sign = (1.0 / length, -1.0) if inverse else (1.0, 1.0)
    cosine = call.constant(scale * np.cos(angle), x.dtype)
    sine = call.constant(sign * scale * np.sin(angle), x.dtype)
    # (re + i im) (cos - i sin)
    parts = [matmul(real, cosine), -matmul(real, sine)]
    if imaginary is not None:
        parts = [
            parts[0] + matmul(imaginary, sine),
            parts[1] + matmul(imaginary, cosine),
        ]
    return stack([p.transpose(axis, -1) for p in parts], -1)


def _real(call: Call, x: Tensor, axis: int, length: int) -> Tensor:
    """The signal (…, 1) whose spectrum begins with x: all but the ends of that stand for two."""
    count = length // 2 + 1
    call.importer.check_made(count, length)
    x = _of_length(x, axis, count)
    k = np.arange(count)
    twice = np.where((k == 0) | (2 * k == length), 1.0, 2.0)[:, None] / length
    angle = 2.0 * np.pi / length * (np.outer(k, np.arange(length)) % length)
    real, imaginary = (x[..., i].transpose(axis, -1) for i in (0, 1))
    y = matmul(real, call.constant(twice * np.cos(angle), x.dtype))
    y = y - matmul(imaginary, call.constant(twice * np.sin(angle), x.dtype))
    return y.transpose(axis, -1).unsqueeze(-1)


@operator("STFT")
def _stft(call: Call) -> Result:
    """Transforms of windows of the signal (N, length, 1 or 2), side by side."""
    x = call.x()
    step = int(call.known(1).reshape(-1)[0])
    window = call.optional(2)
    if call.has(3):
        length = int(call.known(3).reshape(-1)[0])
    else:
        length = x.shape[1] if window is None else window.shape[0]
    if step < 1 or not 1 <= length <= x.shape[1]:
        raise OnnxError(f"windows of {length} every {step} of {x.type} are not supported")
    frames = 1 + (x.shape[1] - length) // step
    call.importer.check_made(frames, length)
    places = np.arange(frames)[:, None] * step + np.arange(length)
    taken = call.apply(Take(1), x, call.constant(places))
    if window is not None:
        taken = taken * window.reshape((length, 1))
    return _transform(call, taken, 2, length, inverse=False, onesided=call.flag("onesided", True))


@operator("MelWeightMatrix")
def _mel_weight_matrix(call: Call) -> Result:
    """Triangles whose corners are equally far apart in mels, (frequencies, mels)."""
    mels, length, rate, low, high = (call.known(i).reshape(-1)[0].item() for i in range(5))
    if min(mels, length, rate) < 1:
        raise OnnxError(f"there are no {mels} mels of {length} numbers at a rate of {rate}")
    call.importer.check_made(length, mels)
    ends = 2595.0 * np.log10(1.0 + np.array([low, high], np.float64) / 700.0)
    step = (ends[1] - ends[0]) / (mels + 2)
    hertz = 700.0 * (10.0 ** ((np.arange(mels + 2) * step + ends[0]) / 2595.0) - 1.0)
    corners = ((length + 1) * hertz // rate).astype(int)
    k = np.arange(length // 2 + 1)[:, None]
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    rising = np.where(left == centre, 1.0, (k - left) / np.maximum(centre - left, 1))
    falling = np.where(k < right, (right - k) / np.maximum(right - centre, 1), 0.0)
    weights = np.where(k < left, 0.0, np.where(k <= centre, rising, falling))
    return weights.astype(numpy_dtype(call.integer("output_datatype", 1)))


def _of_length(x: Tensor, axis: int, length: int) -> Tensor:
    """Cut, or continued by zeros."""
    x = x.slice_axis(axis, 0, min(length, x.shape[axis]))
    missing = length - x.shape[axis]
    if not missing:
        return x
    padding = tuple((0, missing if d == axis else 0) for d in range(x.rank))
    return x.graph.apply(Pad(padding), x)[0]
