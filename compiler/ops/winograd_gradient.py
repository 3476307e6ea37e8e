"""The gradient by the weight of a 3x3 or 5x5 convolution by fewer products.

Winograd's filtering of m outputs along an axis is y = inverse @ ((filter @ g) * (data @ d)), linear
in the weight g (see `toom_cook.py`). So its transpose by g is

    dg = filter^T @ sum over tiles of (data @ d) * (inverse^T @ dy)

and the transform by `filter` comes once, behind the sum over all tiles of all images.

A NaN or an infinity in x or dy reaches all taps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..errors import ShapeError
from ..types import Array, TensorType
from .base import Op
from .blocked import BlockedConvWeightGradient
from .conv import ConvWeightGradient


@dataclass(frozen=True)
class WinogradConvWeightGradient(Op):
    """The transpose of a convolution by its weight, from values in blocks of channels.

    Inputs are x (N, C / b, H, W, b) and dy (N, K / d, H', W', d); the output is the gradient of the
    plain weight (K, C, 3, 3) or (K, C, 5, 5).

    Arguments:
        convolution: what it computes: stride 1, dilation 1, one group.
        tile: outputs of the convolution along each axis of a tile: 2 or 4, of 5x5 weights 2.
    """

    convolution: ConvWeightGradient
    tile: int
    arity: ClassVar[tuple[int, int | None]] = (2, 2)
    differentiable: ClassVar[bool] = False

    @property
    def taps(self) -> int:
        """Of the weight, along each axis."""
        return self.convolution.kernel[0]

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        op = self.convolution
        if not is_possible(op) or self.tile not in tiles(self.taps):
            raise ShapeError(
                f"{op} is not of a 3x3 or 5x5 convolution of stride 1 and one group, for which "
                f"there are tiles of {self.tile}x{self.tile}"
            )
        return BlockedConvWeightGradient(op).infer(*inputs)

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        return BlockedConvWeightGradient(self.convolution).evaluate(*inputs)


def is_possible(op: ConvWeightGradient) -> bool:
    """Whether it is of a 3x3 or 5x5 convolution of stride 1, dilation 1 and one group."""
    plain = (op.stride, op.dilation, op.groups) == ((1, 1), (1, 1), 1)
    return plain and op.kernel in ((3, 3), (5, 5))


def tiles(taps: int) -> tuple[int, ...]:
    """Outputs along an axis of the tiles for so many taps."""
    return (2, 4) if taps == 3 else (2,)
