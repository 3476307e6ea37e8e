"""Windows that slide over spatial axes: the arithmetic that convolution and pooling share.

Values are (N, C, *spatial). Along each spatial axis window `i` reads the places
`i * stride - low + j * dilation` for j < kernel, where (low, high) is the padding; places outside
of the input are padding. Rows at the end that no window reads are left unread. (Dumoulin and Visin,
A guide to convolution arithmetic for deep learning, 2016; arXiv:1603.07285.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from ..errors import ShapeError
from ..types import Array, Shape, TensorType
from .base import Op

Pairs: TypeAlias = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class WithSpatial(Op, abstract=True):
    """Base of the transposes, whose results have extents that their inputs do not tell.

    Arguments:
        spatial: extents of the result along the spatial axes.
    """

    spatial: tuple[int, ...]


@dataclass(frozen=True)
class Window:
    """Geometry of a sliding window, one entry a spatial axis.

    Arguments:
        kernel: places in the window.
        stride: distance between neighbouring windows.
        padding: (low, high) places before and after the input.
        dilation: distance between neighbouring places of a window.
    """

    kernel: Shape
    stride: Shape
    padding: Pairs
    dilation: Shape

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel)

    @property
    def size(self) -> int:
        """Number of places in a window."""
        return math.prod(self.kernel)

    @property
    def reach(self) -> Shape:
        """Distance along each axis from a window's first place to behind its last one."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    def along(self, axes: slice) -> Window:
        """The window along some of the axes."""
        return Window(self.kernel[axes], self.stride[axes], self.padding[axes], self.dilation[axes])

    def check(self) -> None:
        """
        Raises:
            ShapeError: for entries that do not make a window.
        """
        if not 1 <= self.rank <= 3:
            raise ShapeError(f"kernel {self.kernel} must have 1, 2 or 3 spatial axes")
        for name in ("stride", "padding", "dilation"):
            given = getattr(self, name)
            if len(given) != self.rank:
                raise ShapeError(
                    f"{name} {given} has {len(given)} entries, the kernel {self.kernel} has "
                    f"{self.rank} spatial axes; give one entry an axis"
                )
        for name in ("kernel", "stride", "dilation"):
            if min(getattr(self, name)) < 1:
                raise ShapeError(f"{name} {getattr(self, name)} must be at least 1 on every axis")
        if any(p < 0 for pair in self.padding for p in pair):
            raise ShapeError(f"padding {self.padding} is negative; slice the input instead")

    def outputs(self, spatial: Shape) -> Shape:
        """How many windows fit along each axis.

        Raises:
            ShapeError: for a window that is none, or that fits nowhere.
        """
        self.check()
        if len(spatial) != self.rank:
            raise ShapeError(
                f"kernel {self.kernel} slides over {self.rank} spatial axes, the input "
                f"(N, C, *spatial) has {len(spatial)}: {spatial}"
            )
        if min(spatial) < 0:
            raise ShapeError(f"there are no spatial extents {spatial}")
        result = []
        for axis, (extent, reach, stride, (low, high)) in enumerate(
            zip(spatial, self.reach, self.stride, self.padding, strict=True)
        ):
            room = low + extent + high - reach
            if room < 0:
                raise ShapeError(
                    f"a window that reaches over {reach} places (kernel {self.kernel[axis]}, "
                    f"dilation {self.dilation[axis]}) does not fit spatial axis {axis} of extent "
                    f"{extent} with padding {(low, high)}; pad {-room} more or make the kernel "
                    "smaller"
                )
            result.append(room // stride + 1)
        return tuple(result)

    def rounded_up(self, spatial: Shape) -> Window:
        """With the high padding that lets the last, partly outside window count too (`ceil_mode`).

        The rule is PyTorch's: a window counts only when it starts in the input or its low padding.
        So one that is larger than the padded input counts where its stride reaches beyond it.
        """
        self.check()
        if len(spatial) != self.rank or min(spatial) < 0:
            self.outputs(spatial)
        pairs = []
        for extent, reach, stride, (low, high) in zip(
            spatial, self.reach, self.stride, self.padding, strict=True
        ):
            floor, rest = divmod(low + extent + high - reach, stride)
            last = floor + (rest > 0)
            while last > 0 and last * stride >= low + extent:
                last -= 1
            if last < 0:
                self.outputs(spatial)
            needed = max(last * stride + reach - low - extent, 0)
            pairs.append((low, high if last == floor else needed))
        return replace(self, padding=tuple(pairs))

    def places(self, axis: int, extent: int) -> Array:
        """Input places that each window reads along one axis: int64 (windows, kernel).

        Padding is where they are negative or at least `extent`.
        """
        low, high = self.padding[axis]
        count = (low + extent + high - self.reach[axis]) // self.stride[axis] + 1
        first = np.arange(count)[:, None] * self.stride[axis] - low
        return np.asarray(first + np.arange(self.kernel[axis]) * self.dilation[axis])

    def inside(self, axis: int, extent: int) -> Array:
        """How many places of each window along one axis are no padding: int64 (windows,)."""
        places = self.places(axis, extent)
        return np.asarray(((places >= 0) & (places < extent)).sum(axis=1))

    def unfold(self, x: Array, fill: float = 0.0) -> Array:
        """The places of every window: (N, C, *spatial) -> (N, C, prod(kernel), *windows).

        Arguments:
            x: the input.
            fill: what padding reads.
        """
        pairs = ((0, 0), (0, 0), *self.padding)
        padded = np.pad(x, pairs, constant_values=np.asarray(fill, x.dtype))
        axes = tuple(range(2, 2 + self.rank))
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.reach, axis=axes)
        every = tuple(slice(None, None, s) for s in self.stride)
        places = tuple(slice(None, None, d) for d in self.dilation)
        windows = windows[(slice(None), slice(None), *every, *places)]
        last = tuple(range(2 + self.rank, 2 + 2 * self.rank))
        windows = np.moveaxis(windows, last, axes)
        return windows.reshape(*x.shape[:2], self.size, *windows.shape[2 + self.rank :])

    def fold(self, parts: Array, spatial: Shape) -> Array:
        """The transpose of `unfold`: each place gets the sum of what the windows have for it.

        Arguments:
            parts: (N, C, prod(kernel), *windows).
            spatial: extents of the result (N, C, *spatial); what falls on padding is dropped.
        """
        extents = (low + n + high for n, (low, high) in zip(spatial, self.padding, strict=True))
        padded = np.zeros((*parts.shape[:2], *extents), parts.dtype)
        windows = parts.shape[3:]
        for flat, place in enumerate(np.ndindex(*self.kernel)):
            target = tuple(
                slice(j * d, j * d + (n - 1) * s + 1, s)
                for j, d, n, s in zip(place, self.dilation, windows, self.stride, strict=True)
            )
            padded[(slice(None), slice(None), *target)] += parts[:, :, flat]
        inner = tuple(
            slice(low, low + n) for n, (low, _) in zip(spatial, self.padding, strict=True)
        )
        return np.ascontiguousarray(padded[(slice(None), slice(None), *inner)])


def spatial_of(name: str, x: TensorType) -> Shape:
    """The spatial extents of a value (N, C, *spatial).

    Raises:
        ShapeError: when it has none.
    """
    if not 3 <= x.rank <= 5:
        raise ShapeError(
            f"{name} takes (N, C, *spatial) with 1 to 3 spatial axes, got {x} of rank {x.rank}; "
            "reshape it"
        )
    return x.shape[2:]
