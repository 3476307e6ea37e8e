"""Values in blocks of channels, and the convolutions that read and write them.

A value (N, C, *spatial) in blocks of b channels is (N, C / b, *spatial, b): the channels of a block
lie side by side, so that a vector of them is one load and neighbouring pixels are b apart. A block
of 1 is the plain layout with one more axis. Weights are packed once: what a register tile reads in
one step of its sum lies side by side.

The layout pass (`compiler/layout.py`) brings these operations in, after differentiation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..errors import ShapeError
from ..types import Array, Shape, TensorType
from .base import Op, apply
from .conv import Conv, ConvInputGradient, ConvWeightGradient
from .pointwise import Gradients, Signals, Tensors

# Lanes of the widest vectors.
_WIDEST = 16


@dataclass(frozen=True)
class Block(Op):
    """(N, C, *spatial) in blocks of `size` channels: (N, C / size, *spatial, size)."""

    size: int

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        (x,) = inputs
        if x.rank < 2 or self.size < 1 or x.shape[1] % self.size:
            raise ShapeError(f"{x} has no channels on axis 1 that are a multiple of {self.size}")
        return (x.with_shape(blocked_shape(x.shape, self.size)),)

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        return (blocked(inputs[0], self.size),)

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (signal,) = signals
        return (apply(Unblock(), signal) if signal is not None else None,)


@dataclass(frozen=True)
class Unblock(Op):
    """(N, C / b, *spatial, b), in blocks of b channels, as (N, C, *spatial)."""

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        (x,) = inputs
        if x.rank < 3:
            raise ShapeError(f"{x} is not in blocks: (N, C / b, *spatial, b) has at least 3 axes")
        return (x.with_shape(plain_shape(x.shape)),)

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        return (plain(inputs[0]),)

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (x,), (signal,) = inputs, signals
        return (apply(Block(x.shape[-1]), signal) if signal is not None else None,)


@dataclass(frozen=True)
class PackWeight(Op):
    """A weight (K, C / groups, *kernel) as (groups, panels, depth, *kernel, panel).

    Neighbouring output channels of a group lie side by side in panels, zeros behind the last;
    depth are the input channels of a group.

    Arguments:
        groups: of the convolution.
        panel: output channels side by side.
        transposed: for the transpose of a convolution by x, whose output channels are C.
        joined: whether panels go on from group to group, as if there were one.
    """

    groups: int
    panel: int
    transposed: bool = False
    joined: bool = False
    differentiable: ClassVar[bool] = False

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        (w,) = inputs
        if w.rank < 2 or self.groups < 1 or w.shape[0] % self.groups:
            raise ShapeError(f"weight {w} cannot be cut into groups={self.groups}")
        channels, depth = w.shape[0] // self.groups, w.shape[1]
        if self.transposed:
            channels, depth = depth, channels
        groups = self.groups
        if self.joined:
            channels, groups = groups * channels, 1
        panels = -(-channels // self.panel)
        return (w.with_shape((groups, panels, depth, *w.shape[2:], self.panel)),)

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        (w,) = inputs
        w = w.reshape(self.groups, w.shape[0] // self.groups, *w.shape[1:])
        if self.transposed:
            w = w.swapaxes(1, 2)
        if self.joined:
            w = w.reshape(1, -1, *w.shape[2:])
        fill = -w.shape[1] % self.panel
        w = np.pad(w, ((0, 0), (0, fill), *((0, 0),) * (w.ndim - 2)))
        w = w.reshape(w.shape[0], w.shape[1] // self.panel, self.panel, *w.shape[2:])
        return (np.ascontiguousarray(np.moveaxis(w, 2, -1)),)

    def unpacked(self, packed: Array, shape: Shape) -> Array:
        """The weight of that shape that `packed` was made from."""
        w = np.moveaxis(packed, -1, 2)
        w = w.reshape(packed.shape[0], -1, *w.shape[3:])
        if self.joined:
            channels = shape[1] if self.transposed else shape[0] // self.groups
            w = w[0, : self.groups * channels].reshape(self.groups, channels, *w.shape[2:])
        if self.transposed:
            w = w[:, : shape[1]].swapaxes(1, 2)
        else:
            w = w[:, : shape[0] // self.groups]
        return np.ascontiguousarray(w.reshape(shape))


@dataclass(frozen=True)
class BlockedConv(Op):
    """A convolution, or its transpose by x, of a value in blocks of channels.

    Inputs are x (N, C / b, *spatial, b) and the packed weight; the output is in blocks of `block`.

    Arguments:
        convolution: what it computes.
        weight: shape of the weight before it was packed.
        block: channels in a block of the output.
    """

    convolution: Conv | ConvInputGradient
    weight: tuple[int, ...]
    block: int
    arity: ClassVar[tuple[int, int | None]] = (2, 2)
    differentiable: ClassVar[bool] = False

    def packing(self, panel: int) -> PackWeight:
        """How its weight is packed.

        In a depthwise convolution the channels of different groups lie side by side.
        """
        transposed = isinstance(self.convolution, ConvInputGradient)
        if self.joins_groups(panel):
            return PackWeight(self.convolution.groups, panel, transposed, joined=True)
        groups = 1 if self.is_depthwise else self.convolution.groups
        return PackWeight(groups, panel, transposed and not self.is_depthwise)

    def joins_groups(self, panel: int) -> bool:
        """Whether a panel of so many channels holds several groups, as wide as they are deep."""
        groups, (outer, inner) = self.convolution.groups, self.weight[:2]
        is_square = groups > 1 and outer == groups * inner
        return is_square and 1 < inner < panel and panel % inner == outer % panel == 0

    @property
    def has_small_groups(self) -> bool:
        """Whether several of its groups may lie in a vector."""
        return self.joins_groups(self.weight[1] * 2) and self.weight[1] < _WIDEST

    @property
    def is_pointwise(self) -> bool:
        """Whether each pixel of the output reads the same pixel of x, and all channels of it."""
        return is_pointwise(self.convolution, self.weight)

    @property
    def is_depthwise(self) -> bool:
        """Whether each group has one input and one output channel."""
        return self.convolution.groups == self.weight[0] and self.weight[1] == 1

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x, w = inputs
        weight = w.with_shape(self.weight)
        (packed,) = self.packing(w.shape[-1]).infer(weight)
        if packed != w:
            raise ShapeError(f"weight {weight} is packed as {packed}, got {w}")
        (y,) = self.convolution.infer(x.with_shape(plain_shape(x.shape)), weight)
        return Block(self.block).infer(y)

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        x, packed = inputs
        w = self.packing(packed.shape[-1]).unpacked(packed, self.weight)
        (y,) = self.convolution.evaluate(plain(x), w)
        return (blocked(y, self.block),)


@dataclass(frozen=True)
class BlockedConvWeightGradient(Op):
    """The transpose of a convolution by its weight, from values in blocks of channels.

    Inputs are x (N, C / b, *spatial, b) and dy (N, K / d, *windows, d); the output is the gradient
    of the plain weight (K, C / groups, *kernel).

    Arguments:
        convolution: what it computes.
    """

    convolution: ConvWeightGradient
    arity: ClassVar[tuple[int, int | None]] = (2, 2)
    differentiable: ClassVar[bool] = False

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        return self.convolution.infer(*(t.with_shape(plain_shape(t.shape)) for t in inputs))

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        return self.convolution.evaluate(*map(plain, inputs))


def is_pointwise(op: Conv | ConvInputGradient, weight: Shape) -> bool:
    """Whether each pixel of the output reads the same pixel of x, and all channels of it."""
    window = op.window(weight[2:])
    alone = (window.size, *window.stride) == (1,) * (1 + len(window.stride))
    return alone and op.groups == 1 and not any(map(any, window.padding))


def blocked_shape(shape: Shape, size: int) -> Shape:
    """(N, C, *spatial) -> (N, C / size, *spatial, size)."""
    return (shape[0], shape[1] // size, *shape[2:], size)


def plain_shape(shape: Shape) -> Shape:
    """(N, C / b, *spatial, b) -> (N, C, *spatial)."""
    return (shape[0], math.prod((shape[1], shape[-1])), *shape[2:-1])


def blocked(x: Array, size: int) -> Array:
    """A value in blocks of `size` channels."""
    n, c, *spatial = x.shape
    parts = x.reshape(n, c // size, size, *spatial)
    return np.ascontiguousarray(np.moveaxis(parts, 2, -1))


def plain(x: Array) -> Array:
    """A value in blocks of channels, without them."""
    return np.ascontiguousarray(np.moveaxis(x, -1, 2).reshape(plain_shape(x.shape)))
