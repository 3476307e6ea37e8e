"""Convolutions by fewer products: Winograd's minimal filtering of tiles of 2x2 or 4x4 outputs.

Tiles of m x m outputs are transforms of products, place by place, of transformed weights (r x r)
and transformed tiles of (m + r - 1) x (m + r - 1) inputs (A. Lavin and S. Gray, Fast Algorithms for
Convolutional Neural Networks, 2015, section 4.1; the matrices are in `toom_cook.py`). Weights of
3x3 take 2.25 times fewer products than in direct convolution for 2x2 outputs and 4 times fewer for
4x4, weights of 5x5 take 2.8 times fewer for 2x2.

A NaN or an infinity in the input reaches all outputs of the tiles that read it.

The pass `compiler/passes/winograd.py` puts these operations in the place of blocked convolutions
where they pay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..errors import ShapeError
from ..types import Array, DType, Shape, TensorType
from .base import Op
from .blocked import Block, blocked, plain, plain_shape
from .conv import Conv, ConvInputGradient
from .linear import in_double
from .toom_cook import POINTS, as_array, transforms
from .window import Window


@dataclass(frozen=True)
class WinogradWeight(Op):
    """A weight (K, C, r, r) transformed and packed, as (panels, (tile + r - 1) ** 2, C, panel).

    Neighbouring output channels lie side by side in panels, zeros behind the last.

    Arguments:
        tile: outputs along each axis of a tile, 2 or 4.
        panel: output channels side by side.
        transposed: for the transpose of the convolution by x: the weight is flipped, its output
            channels are C.
    """

    tile: int
    panel: int
    transposed: bool = False
    differentiable: ClassVar[bool] = False

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        (w,) = inputs
        if w.rank != 4 or not is_possible(self.tile, w.shape[2:]):
            raise ShapeError(
                "Winograd transforms weights (K, C, 3, 3) for tiles of 2 or 4 and (K, C, 5, 5) for "
                f"tiles of 2, got {w} and {self.tile}"
            )
        channels, depth = w.shape[:2]
        if self.transposed:
            channels, depth = depth, channels
        places = (self.tile + w.shape[2] - 1) ** 2
        return (w.with_shape((-(-channels // self.panel), places, depth, self.panel)),)

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        (w,) = inputs
        g = in_double(w)
        if self.transposed:
            g = g.swapaxes(0, 1)[:, :, ::-1, ::-1]
        taps = w.shape[2]
        matrix = as_array(transforms(self.tile, taps).filter)
        # Rows and columns in one product of matrices: large weights are transformed so, too.
        both = np.kron(matrix, matrix).T
        with np.errstate(all="ignore"):
            u = g.reshape(*g.shape[:2], taps**2) @ both
        u = np.pad(u, ((0, -u.shape[0] % self.panel), (0, 0), (0, 0)))
        u = u.reshape(-1, self.panel, *u.shape[1:])
        return (np.ascontiguousarray(u.transpose(0, 3, 2, 1)).astype(w.dtype),)


@dataclass(frozen=True)
class WinogradConv(Op):
    """A convolution, or its transpose by x, of a value in blocks of channels.

    Inputs are x (N, C / b, H, W, b) and the weight as `WinogradWeight` gives it; the output is in
    blocks of `block`.

    Arguments:
        convolution: what it computes: stride 1, dilation 1, one group.
        weight: shape of the weight before it was transformed.
        block: channels in a block of the output.
        tile: outputs along each axis of a tile, 2 or 4.
    """

    convolution: Conv | ConvInputGradient
    weight: tuple[int, ...]
    block: int
    tile: int
    arity: ClassVar[tuple[int, int | None]] = (2, 2)
    differentiable: ClassVar[bool] = False

    @property
    def taps(self) -> int:
        """Places of the weight along each axis."""
        return self.weight[2]

    @property
    def low(self) -> tuple[int, ...]:
        """Zeros before the first input along each axis; less than 0 leaves inputs out."""
        before = (low for low, _ in self.convolution.padding)
        if isinstance(self.convolution, ConvInputGradient):
            return tuple(self.taps - 1 - low for low in before)
        return tuple(before)

    def holds(self, window: Window) -> bool:
        """Whether each window over (H, W, block) lies inside of a tile."""
        *kernel, last = window.kernel
        return (
            window.stride == window.kernel
            and last == 1
            and all(self.tile % n == 0 for n in kernel)
            and set(window.dilation) == {1}
            and not any(map(any, window.padding))
        )

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x, u = inputs
        op, weight = self.convolution, u.with_shape(self.weight)
        if (op.stride, op.dilation, op.groups) != ((1, 1), (1, 1), 1):
            raise ShapeError(f"{op} is not a convolution of stride 1, dilation 1 and one group")
        (expected,) = winograd_weight(op, self.tile, u.shape[-1]).infer(weight)
        if expected != u:
            raise ShapeError(f"weight {weight} is transformed as {expected}, got {u}")
        (y,) = op.infer(x.with_shape(plain_shape(x.shape)), weight)
        return Block(self.block).infer(y)

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        x, u = plain(inputs[0]), in_double(inputs[1])
        (y,) = self.infer(*(TensorType(a.shape, DType.of(a.dtype)) for a in inputs))
        n, k, *extents = plain_shape(y.shape)
        matrices = transforms(self.tile, self.taps)
        data, inverse = as_array(matrices.data), as_array(matrices.inverse)
        tiles = self._tiles(in_double(x), tuple(extents))
        with np.errstate(all="ignore"):
            v = np.einsum("ia,ncyxab,jb->ijncyx", data, tiles, data)
            v = v.reshape(-1, *v.shape[2:])
            m = np.einsum("pncyx,qpck->pnqkyx", v, u)
            m = m.reshape(len(data), len(data), n, -1, *m.shape[4:])[:, :, :, :k]
            parts = np.einsum("ia,abnkyx,jb->nkyixj", inverse, m, inverse)
        _, _, down, _, across, _ = parts.shape
        whole = parts.reshape(n, k, down * self.tile, across * self.tile)
        whole = whole[:, :, : extents[0], : extents[1]].astype(x.dtype)
        return (blocked(whole, self.block),)

    def _tiles(self, x: Array, extents: Shape) -> Array:
        """The inputs of each tile: (N, C, tiles down, tiles across, tile + r - 1, tile + r - 1)."""
        size = self.tile + self.taps - 1
        counts = [-(-n // self.tile) for n in extents]
        padding = []
        for axis, low in enumerate(self.low):
            behind = counts[axis] * self.tile + self.taps - 1 - low - x.shape[2 + axis]
            padding.append((max(low, 0), max(behind, 0)))
        whole = np.pad(x, ((0, 0), (0, 0), *padding))
        whole = whole[:, :, max(-self.low[0], 0) :, max(-self.low[1], 0) :]
        windows = np.lib.stride_tricks.sliding_window_view(whole, (size, size), (2, 3))
        return windows[:, :, :: self.tile, :: self.tile][:, :, : counts[0], : counts[1]]


def is_possible(tile: int, kernel: Shape) -> bool:
    """Whether there are transforms for tiles of so many outputs along an axis, and such weights."""
    return len(set(kernel)) == 1 and kernel[0] in (3, 5) and tile + kernel[0] - 1 in POINTS


def winograd_weight(op: Conv | ConvInputGradient, tile: int, panel: int) -> WinogradWeight:
    """How the weight of a convolution is transformed and packed."""
    return WinogradWeight(tile, panel, isinstance(op, ConvInputGradient))
