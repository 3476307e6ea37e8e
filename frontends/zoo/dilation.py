"""Context modules: dilated convolutions that see far without losing resolution."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from ...compiler.types import Array, TensorType
from ..nn import init
from ..nn.activation import ReLU
from ..nn.container import Sequential
from ..nn.convolution import Conv2d
from ..nn.module import Module
from .entry import ZooEntry

PAPER = "Yu and Koltun, Multi-scale context aggregation by dilated convolutions"

# Table 1: dilations of the 3×3 convolutions, and the channels of each layer in units of C; the last
# layer is a 1×1 convolution.
DILATIONS = (1, 1, 2, 4, 8, 16, 1)
BASIC = (1, 1, 1, 1, 1, 1, 1, 1)
LARGE = (2, 2, 4, 8, 16, 32, 32, 1)


def context_module(widths: Sequence[int], channels: int = 21, noise: float = 0.001) -> Sequential:
    """Maps of scores (N, channels, H, W) -> the same, each seeing 67×67 pixels.

    It starts as the identity (equations 4 and 5), so that it can be put behind a trained network.

    Arguments:
        widths: BASIC or LARGE.
        channels: C, the number of classes.
        noise: standard deviation of the other weights where the channels are widened.
    """
    layers: dict[str, Module] = {}
    inputs = channels
    for i, (width, dilation) in enumerate(zip(widths, DILATIONS, strict=False), 1):
        outputs = width * channels
        layers[f"layer{i}"] = Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation)
        layers[f"relu{i}"] = ReLU()
        inputs = outputs
    layers["layer8"] = Conv2d(inputs, widths[-1] * channels, 1)
    for layer in layers.values():
        if isinstance(layer, Conv2d):
            deviation = 0.0 if layer.in_channels == layer.out_channels == channels else noise
            _spread_identity(layer, channels, deviation)
    return Sequential(layers)


def _spread_identity(layer: Conv2d, channels: int, noise: float) -> None:
    """The maps that stand for a class share its score equally; the last layer adds them up."""
    init.normal_(layer.weight, 0.0, noise)
    weight: Array = layer.weight.data
    outputs, inputs, rows, columns = weight.shape
    out_class = np.arange(outputs) * channels // outputs
    in_class = np.arange(inputs) * channels // inputs
    middle = weight[:, :, rows // 2, columns // 2]
    middle[out_class[:, None] == in_class] = channels / outputs
    if layer.bias is not None:
        init.zeros_(layer.bias)


_INPUT = TensorType((1, 21, 64, 64))

ENTRIES = (
    ZooEntry(
        "context_basic", 2015, PAPER, _INPUT, partial(context_module, BASIC), 28_392, 232_501_248
    ),
    ZooEntry(
        "context_large",
        2015,
        PAPER,
        _INPUT,
        partial(context_module, LARGE),
        6_803_139,
        55_731_228_672,
    ),
)
