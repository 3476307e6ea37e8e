"""Convolutions, and the padding they share with pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ....compiler.errors import OnnxError
from ....compiler.ops import conv as cv
from ....compiler.ops.base import apply
from ....compiler.ops.window import Pairs, Window
from ....compiler.tensor import Tensor
from ....compiler.types import Shape
from ..call import Call, Result, operator


def pads_of(call: Call, rank: int) -> Pairs:
    """The attribute `pads`, all begins and then all ends, as (low, high) an axis."""
    pads = call.integers("pads", (0,) * (2 * rank))
    if len(pads) != 2 * rank:
        raise OnnxError(f"pads {pads} has {len(pads)} entries, expected {2 * rank}")
    return tuple(zip(pads[:rank], pads[rank:], strict=True))


def automatic_padding(
    call: Call, spatial: Shape, kernel: Shape, stride: Sequence[int], dilation: Sequence[int]
) -> Pairs:
    """The padding by `auto_pad` or `pads`."""
    mode = call.text("auto_pad", "NOTSET")
    if mode == "NOTSET":
        return pads_of(call, len(kernel))
    if mode == "VALID":
        return ((0, 0),) * len(kernel)
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise OnnxError(f"auto_pad is {mode!r}")
    pairs = []
    for extent, k, s, d in zip(spatial, kernel, stride, dilation, strict=True):
        wanted = -(-extent // s)
        total = max((wanted - 1) * s + (k - 1) * d + 1 - extent, 0)
        pairs.append(halved(total, mode == "SAME_UPPER"))
    return tuple(pairs)


def halved(total: int, upper: bool) -> tuple[int, int]:
    """A padding cut in two; the odd one goes to the end for `upper`."""
    small, large = total // 2, total - total // 2
    return (small, large) if upper else (large, small)


@operator("Conv")
def _conv(call: Call) -> Result:
    inputs = call.all()
    return call.apply(convolution(call, *inputs[:2]), *inputs)


def convolution(call: Call, x: Tensor, w: Tensor) -> cv.Conv:
    """The convolution of x by w that the attributes say."""
    rank = x.rank - 2
    kernel = call.integers("kernel_shape", w.shape[2:])
    if kernel != w.shape[2:]:
        raise OnnxError(f"kernel_shape {kernel} is not that of the weight {w.type}")
    stride = call.integers("strides", (1,) * rank)
    dilation = call.integers("dilations", (1,) * rank)
    padding = automatic_padding(call, x.shape[2:], kernel, stride, dilation)
    return cv.Conv(stride, padding, dilation, call.integer("group", 1))


@operator("ConvTranspose")
def _conv_transpose(call: Call) -> Result:
    inputs = call.all()
    x, w = inputs[:2]
    rank = x.rank - 2
    kernel = w.shape[2:]
    stride = call.integers("strides", (1,) * rank)
    dilation = call.integers("dilations", (1,) * rank)
    extra = call.integers("output_padding", (0,) * rank)
    free = [
        (n - 1) * s + (k - 1) * d + 1 + e
        for n, s, k, d, e in zip(x.shape[2:], stride, kernel, dilation, extra, strict=True)
    ]
    mode = call.text("auto_pad", "NOTSET")
    wanted = call.integers("output_shape", ())[-rank:]
    if not wanted and mode.startswith("SAME"):
        wanted = tuple(n * s for n, s in zip(x.shape[2:], stride, strict=True))
    if wanted:
        # An output larger than what the windows reach has further places at its end.
        upper = mode == "SAME_UPPER"
        totals = [f - n for f, n in zip(free, wanted, strict=True)]
        extra = tuple(e + max(-t, 0) for e, t in zip(extra, totals, strict=True))
        padding: Pairs = tuple(halved(max(t, 0), upper) for t in totals)
    else:
        padding = ((0, 0),) * rank if mode == "VALID" else pads_of(call, rank)
    op = cv.ConvTranspose(stride, padding, extra, dilation, call.integer("group", 1))
    return call.apply(op, *inputs)


@operator("Col2Im")
def _col2im(call: Call) -> Result:
    """The transpose of taking windows: a transposed convolution by single places."""
    x = call.x()
    extents = tuple(int(n) for n in call.known(1))
    block = tuple(int(n) for n in call.known(2))
    rank, size = len(block), math.prod(block)
    stride = call.integers("strides", (1,) * rank)
    dilation = call.integers("dilations", (1,) * rank)
    padding = pads_of(call, rank)
    windows = Window(block, stride, padding, dilation).outputs(extents)
    channels = x.shape[1] // size
    dy = x.reshape((x.shape[0] * channels, size, *windows))
    call.importer.check_made(size, size)
    places = np.eye(size).reshape((size, 1, *block))
    op = cv.ConvInputGradient(extents, stride, padding, dilation)
    y = apply(op, dy, call.constant(places, x.dtype))
    return y.reshape((x.shape[0], channels, *extents))
