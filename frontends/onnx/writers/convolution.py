"""Convolutions."""

from __future__ import annotations

from ....compiler.ops.conv import Conv, ConvInputGradient, ConvTranspose
from ....compiler.ops.window import Pairs, Window
from ....compiler.types import Shape
from ..writer import Draft, Outputs, Ref, writes


def pads(padding: Pairs) -> list[int]:
    """(low, high) an axis as ONNX writes it: all begins, then all ends."""
    return [low for low, _ in padding] + [high for _, high in padding]


@writes(Conv)
def _conv(draft: Draft, op: Conv, x: Ref, w: Ref, *bias: Ref) -> Outputs:
    return draft.node(
        "Conv",
        x,
        w,
        *bias,
        kernel_shape=w.shape[2:],
        strides=op.stride,
        pads=pads(op.padding),
        dilations=op.dilation,
        group=op.groups,
    )


def _transposed(
    draft: Draft, op: ConvTranspose | ConvInputGradient, extra: Shape, *inputs: Ref
) -> str:
    return draft.node(
        "ConvTranspose",
        *inputs,
        kernel_shape=inputs[1].shape[2:],
        strides=op.stride,
        pads=pads(op.padding),
        dilations=op.dilation,
        group=op.groups,
        output_padding=extra if any(extra) else None,
    )


@writes(ConvTranspose)
def _conv_transpose(draft: Draft, op: ConvTranspose, x: Ref, w: Ref, *bias: Ref) -> Outputs:
    return _transposed(draft, op, op.output_padding, x, w, *bias)


@writes(ConvInputGradient)
def _conv_input_gradient(draft: Draft, op: ConvInputGradient, dy: Ref, w: Ref) -> Outputs:
    window = Window(w.shape[2:], op.stride, op.padding, op.dilation)
    axes = zip(op.spatial, dy.shape[2:], op.stride, window.reach, op.padding, strict=True)
    extra = tuple(
        extent - ((n - 1) * stride + reach - low - high)
        for extent, n, stride, reach, (low, high) in axes
    )
    return _transposed(draft, op, extra, dy, w)
