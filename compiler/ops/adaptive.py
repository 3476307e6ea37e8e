"""Pooling to a given size, whatever the extents of the input: x is (N, C, *spatial)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ShapeError
from ..types import Shape, TensorType
from .base import apply, apply_all
from .composite import Composite
from .linear import FLOATS, common_dtype
from .movement import Concat
from .pool import AvgPool, MaxPool
from .window import spatial_of

if TYPE_CHECKING:
    from ..tensor import Tensor


@dataclass(frozen=True)
class AdaptivePool(Composite, abstract=True):
    """Base of the pooling operations that are told the extents of their result.

    Output i of O along an axis of extent L pools the elements from floor(i L / O) to
    ceil((i + 1) L / O), as in PyTorch. Axes are pooled one by one, the last one first, so that the
    first maximum in row-major order is the one that counts.

    Arguments:
        output_size: an extent for each spatial axis; None keeps the input's.
    """

    output_size: tuple[int | None, ...]

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        (x,) = inputs
        common_dtype(self.name, (x,), FLOATS)
        spatial = spatial_of(self.name, x)
        if len(self.output_size) != len(spatial):
            raise ShapeError(
                f"output_size {self.output_size} has {len(self.output_size)} entries, {x} has "
                f"{len(spatial)} spatial axes; give one entry an axis"
            )
        if min(spatial) < 1 or min(self._extents(spatial)) < 1:
            raise ShapeError(
                f"{x} cannot be pooled to {self.output_size}; all extents must be at least 1"
            )
        return (x.with_shape(x.shape[:2] + self._extents(spatial)),)

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        (x,) = inputs
        spatial = x.shape[2:]
        wanted = self._extents(spatial)
        if all(n % m == 0 for n, m in zip(spatial, wanted, strict=True)):
            kernel = tuple(n // m for n, m in zip(spatial, wanted, strict=True))
            return (self.pool(x, kernel),)
        for axis in reversed(range(len(spatial))):
            x = self._pool_axis(x, axis, wanted[axis])
        return (x,)

    def pool(self, x: Tensor, kernel: Shape) -> Tensor:
        """Pool x in windows of `kernel` that neither overlap nor leave anything out."""
        raise NotImplementedError(f"{self.name} has no pool")

    def _extents(self, spatial: Shape) -> Shape:
        wanted = zip(spatial, self.output_size, strict=True)
        return tuple(n if m is None else m for n, m in wanted)

    def _pool_axis(self, x: Tensor, axis: int, wanted: int) -> Tensor:
        extent = x.shape[2 + axis]
        if extent % wanted == 0:
            return self._pool_along(x, axis, extent // wanted)
        parts = []
        for i in range(wanted):
            start, stop = i * extent // wanted, -(-(i + 1) * extent // wanted)
            part = x.slice_axis(2 + axis, start, stop - start)
            parts.append(self._pool_along(part, axis, stop - start))
        return apply(Concat(2 + axis), *parts)

    def _pool_along(self, x: Tensor, axis: int, size: int) -> Tensor:
        kernel = tuple(size if d == axis else 1 for d in range(x.rank - 2))
        return self.pool(x, kernel) if size > 1 else x


@dataclass(frozen=True)
class AdaptiveAvgPool(AdaptivePool):
    """Averages (PyTorch: adaptive_avg_pool1d to adaptive_avg_pool3d)."""

    def pool(self, x: Tensor, kernel: Shape) -> Tensor:
        if kernel == x.shape[2:]:
            return x.mean(tuple(range(2, x.rank)), keepdims=True)
        return apply(AvgPool(kernel, kernel, ((0, 0),) * len(kernel)), x)


@dataclass(frozen=True)
class AdaptiveMaxPool(AdaptivePool):
    """Maxima (PyTorch: adaptive_max_pool1d to adaptive_max_pool3d)."""

    def pool(self, x: Tensor, kernel: Shape) -> Tensor:
        op = MaxPool(kernel, kernel, ((0, 0),) * len(kernel), (1,) * len(kernel))
        return apply_all(op, x)[0]
