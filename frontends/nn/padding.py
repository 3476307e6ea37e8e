"""Padding layers. `padding` is one number for all sides, or (before, after) of the last axis, then
of the one before it, and so on.
"""

from __future__ import annotations

from typing import ClassVar

from ...compiler.errors import ShapeError
from ...compiler.tensor import Tensor
from .functional import shape
from .functional.arguments import Size
from .module import Layer


class Padding(Layer):
    """Base of the padding layers."""

    rank: ClassVar[int]
    mode: ClassVar[str]

    def __init__(self, padding: Size) -> None:
        super().__init__()
        sides = 2 * self.rank
        self.padding = (padding,) * sides if isinstance(padding, int) else tuple(padding)
        if len(self.padding) != sides:
            raise ShapeError(
                f"the padding of {type(self).__name__} has {sides} numbers, got {self.padding}"
            )

    def forward(self, input: Tensor) -> Tensor:
        return shape.pad(input, self.padding, self.mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ConstantPad(Padding):
    """Base of padding by one number."""

    mode = "constant"

    def __init__(self, padding: Size, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        return shape.pad(input, self.padding, self.mode, self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ZeroPad1d(Padding):
    """Pads one spatial axis with zeros."""

    rank = 1
    mode = "constant"


class ZeroPad2d(Padding):
    """Pads two spatial axes with zeros."""

    rank = 2
    mode = "constant"


class ZeroPad3d(Padding):
    """Pads three spatial axes with zeros."""

    rank = 3
    mode = "constant"


class ReflectionPad1d(Padding):
    """Pads one spatial axis with what is inside, mirrored without the edge."""

    rank = 1
    mode = "reflect"


class ReflectionPad2d(Padding):
    """Pads two spatial axes with what is inside, mirrored without the edge."""

    rank = 2
    mode = "reflect"


class ReflectionPad3d(Padding):
    """Pads three spatial axes with what is inside, mirrored without the edge."""

    rank = 3
    mode = "reflect"


class ReplicationPad1d(Padding):
    """Pads one spatial axis with the elements at the edge."""

    rank = 1
    mode = "replicate"


class ReplicationPad2d(Padding):
    """Pads two spatial axes with the elements at the edge."""

    rank = 2
    mode = "replicate"


class ReplicationPad3d(Padding):
    """Pads three spatial axes with the elements at the edge."""

    rank = 3
    mode = "replicate"


class CircularPad1d(Padding):
    """Pads one spatial axis with the elements at the other end."""

    rank = 1
    mode = "circular"


class CircularPad2d(Padding):
    """Pads two spatial axes with the elements at the other end."""

    rank = 2
    mode = "circular"


class CircularPad3d(Padding):
    """Pads three spatial axes with the elements at the other end."""

    rank = 3
    mode = "circular"


class ConstantPad1d(ConstantPad):
    """Pads one spatial axis with one number."""

    rank = 1


class ConstantPad2d(ConstantPad):
    """Pads two spatial axes with one number."""

    rank = 2


class ConstantPad3d(ConstantPad):
    """Pads three spatial axes with one number."""

    rank = 3
