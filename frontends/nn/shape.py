"""Layers that move elements, and the one that does nothing."""

from __future__ import annotations

from ...compiler.tensor import Tensor
from ...compiler.types import Shape
from .functional import shape
from .module import Layer


class Identity(Layer):
    """The input itself; takes any arguments and ignores them."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__()

    def forward(self, input: Tensor) -> Tensor:
        return input


class Flatten(Layer):
    """Axes `start_dim` to `end_dim` (both included) as one."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, input: Tensor) -> Tensor:
        return shape.flatten(input, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Layer):
    """One axis as several; one of their extents may be -1."""

    def __init__(self, dim: int, unflattened_size: Shape) -> None:
        super().__init__()
        self.dim = dim
        self.unflattened_size = unflattened_size

    def forward(self, input: Tensor) -> Tensor:
        return shape.unflatten(input, self.dim, self.unflattened_size)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


class PixelShuffle(Layer):
    """(…, C r², H, W) as (…, C, H r, W r)."""

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = upscale_factor

    def forward(self, input: Tensor) -> Tensor:
        return shape.pixel_shuffle(input, self.upscale_factor)

    def extra_repr(self) -> str:
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Layer):
    """(…, C, H r, W r) as (…, C r², H, W)."""

    def __init__(self, downscale_factor: int) -> None:
        super().__init__()
        self.downscale_factor = downscale_factor

    def forward(self, input: Tensor) -> Tensor:
        return shape.pixel_unshuffle(input, self.downscale_factor)

    def extra_repr(self) -> str:
        return f"downscale_factor={self.downscale_factor}"


class ChannelShuffle(Layer):
    """Channels of (N, C, *) dealt out in turns from groups."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, input: Tensor) -> Tensor:
        return shape.channel_shuffle(input, self.groups)

    def extra_repr(self) -> str:
        return f"groups={self.groups}"


class UpsamplingNearest2d(Layer):
    """Each pixel of (N, C, H, W) repeated a whole number of times along each axis."""

    def __init__(self, scale_factor: int | tuple[int, int]) -> None:
        super().__init__()
        self.scale_factor = scale_factor

    def forward(self, input: Tensor) -> Tensor:
        return shape.upsample_nearest(input, self.scale_factor)

    def extra_repr(self) -> str:
        return f"scale_factor={self.scale_factor}"
