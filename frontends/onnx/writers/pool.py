"""Pooling and unpooling."""

from __future__ import annotations

import math

import numpy as np

from ....compiler.errors import OnnxError
from ....compiler.ops.adaptive import AdaptiveAvgPool, AdaptiveMaxPool
from ....compiler.ops.pool import (
    AvgPool,
    MaxPool,
    MaxPoolIndices,
    MaxUnpool,
    Pool,
    SumPool,
    max_pool_padding,
)
from ....compiler.ops.window import Pairs
from ....compiler.types import DType
from ..writer import Draft, Outputs, Ref, writes
from .convolution import pads


def _padded(draft: Draft, x: Ref, kernel: tuple[int, ...], padding: Pairs, value: float) -> Ref:
    """X padded by a node of its own, where ONNX Runtime takes no such padding in pooling."""
    if all(p < k for pair, k in zip(padding, kernel, strict=True) for p in pair):
        return x
    places = pads(((0, 0), (0, 0), *padding))
    return Ref(draft.node("Pad", x, draft.integers(*places), draft.like(value, x)), x.type)


def _geometry(op: Pool, moved: bool) -> dict[str, object]:
    padding = ((0, 0),) * len(op.padding) if moved else op.padding
    return {
        "kernel_shape": op.kernel,
        "strides": op.stride,
        "pads": pads(padding),
        "dilations": op.dilation if set(op.dilation) != {1} else None,
    }


@writes(MaxPool)
def _max_pool(draft: Draft, op: MaxPool, x: Ref) -> Outputs:
    source = _padded(draft, x, op.kernel, op.padding, -math.inf)
    y, indices = draft.nodes(2, "MaxPool", source, **_geometry(op, source is not x))
    position = draft.missing(draft.outputs[1], "ONNX has no positions inside of windows")
    if source is x:
        draft.writer.places[position.name] = indices
    return y, position


@writes(MaxPoolIndices)
def _max_pool_indices(draft: Draft, op: MaxPoolIndices, position: Ref) -> Outputs:
    indices = draft.writer.places.get(position.name)
    if indices is None:
        raise OnnxError("it reads no positions of a max-pooling that ONNX has")
    # ONNX counts through samples and channels, too.
    return draft.node("Mod", indices, draft.integers(math.prod(op.spatial)))


@writes(MaxUnpool)
def _max_unpool(draft: Draft, op: MaxUnpool, x: Ref, indices: Ref) -> Outputs:
    planes, windows = (*x.shape[:2], math.prod(op.spatial)), (*x.shape[:2], -1)
    empty = draft.node("Expand", draft.like(0, x), draft.integers(*planes))
    flat, places = draft.reshaped(x, windows), draft.reshaped(indices, windows)
    scattered = draft.node("ScatterElements", empty, places, flat, axis=2)
    return draft.reshaped(scattered, (*x.shape[:2], *op.spatial))


@writes(SumPool)
def _sum_pool(draft: Draft, op: SumPool, x: Ref) -> Outputs:
    source = _padded(draft, x, op.kernel, op.padding, 0.0)
    geometry = _geometry(op, source is not x)
    average = draft.node("AveragePool", source, **geometry, count_include_pad=1)
    return draft.node("Mul", average, draft.like(op.window.size, x))


@writes(AvgPool)
def _avg_pool(draft: Draft, op: AvgPool, x: Ref) -> Outputs:
    dilation = (1,) * len(op.kernel)
    padding = max_pool_padding(
        x.shape[2:], op.kernel, op.stride, op.padding, dilation, op.ceil_mode
    )
    too_far = any(p >= k for pair, k in zip(padding, op.kernel, strict=True) for p in pair)
    if padding != op.padding or op.divisor_override is not None or too_far:
        return None  # who divides by what differs there
    return draft.node(
        "AveragePool",
        x,
        kernel_shape=op.kernel,
        strides=op.stride,
        pads=pads(padding),
        count_include_pad=int(op.count_include_pad) if np.any(padding) else None,
    )


@writes(AdaptiveAvgPool, AdaptiveMaxPool)
def _global_pool(draft: Draft, op: AdaptiveAvgPool | AdaptiveMaxPool, x: Ref) -> Outputs:
    if set(draft.outputs[0].shape[2:]) != {1} or x.type.dtype is not DType.FLOAT32:
        return None
    average = isinstance(op, AdaptiveAvgPool)
    return draft.node("GlobalAveragePool" if average else "GlobalMaxPool", x)
