"""Spectra."""

from __future__ import annotations

import numpy as np

from ....compiler.errors import OnnxError
from ....compiler.ops.indexing import stack
from ....compiler.ops.linear import matmul
from ....compiler.ops.movement import Pad
from ....compiler.tensor import Tensor
from ....compiler.types import normalize_axis
from ..call import Call, Result, operator


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
    if axis == x.rank - 1 or length < 1 or (inverse and onesided):
        raise OnnxError(f"a transform of length {length} along axis {axis} is not supported")
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


def _of_length(x: Tensor, axis: int, length: int) -> Tensor:
    """Cut, or continued by zeros."""
    x = x.slice_axis(axis, 0, min(length, x.shape[axis]))
    missing = length - x.shape[axis]
    if not missing:
        return x
    padding = tuple((0, missing if d == axis else 0) for d in range(x.rank))
    return x.graph.apply(Pad(padding), x)[0]
