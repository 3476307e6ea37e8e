"""Values at places between the elements: images made larger or smaller."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ShapeError
from ..types import Array, DType
from .base import apply
from .composite import Composite
from .indexing import Take
from .linear import MatMul
from .pointwise import require_float

if TYPE_CHECKING:
    from ..tensor import Tensor

# An axis with more terms an element than this is resized by a matrix.
_MOST_TAKEN = 4


class Interpolation(Enum):
    """How a value between elements follows from them."""

    NEAREST = "nearest"
    LINEAR = "linear"
    CUBIC = "cubic"


class Coordinates(Enum):
    """Where in the input an element of the output lies (ONNX: coordinate_transformation_mode)."""

    HALF_PIXEL = "half_pixel"
    HALF_PIXEL_SYMMETRIC = "half_pixel_symmetric"
    PYTORCH_HALF_PIXEL = "pytorch_half_pixel"
    ALIGN_CORNERS = "align_corners"
    ASYMMETRIC = "asymmetric"
    CROP = "tf_crop_and_resize"


class Nearest(Enum):
    """Which element is the nearest one (ONNX: nearest_mode)."""

    ROUND_PREFER_FLOOR = "round_prefer_floor"
    ROUND_PREFER_CEIL = "round_prefer_ceil"
    FLOOR = "floor"
    CEIL = "ceil"


@dataclass(frozen=True)
class Resize(Composite):
    """x with some axes resampled to other extents, one axis after the other (ONNX: Resize).

    Arguments:
        axes: the axes, counted from the front.
        sizes: their extents in the output.
        scales: output over input, as coordinates are computed with it.
        interpolation: between elements.
        coordinates: where an element of the output lies in the input.
        nearest: which element NEAREST takes.
        cubic: the parameter a of the cubic kernel (Keys, 1981).
        exclude_outside: places outside of the input weigh nothing; else they repeat the edge.
        antialias: when making smaller, the kernel is widened to cover all elements.
        roi: (start, end) of each axis as shares of it, for CROP.
        outside: what CROP gives for places outside of the input.
    """

    axes: tuple[int, ...]
    sizes: tuple[int, ...]
    scales: tuple[float, ...]
    interpolation: Interpolation = Interpolation.NEAREST
    coordinates: Coordinates = Coordinates.HALF_PIXEL
    nearest: Nearest = Nearest.ROUND_PREFER_FLOOR
    cubic: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False
    roi: tuple[tuple[float, float], ...] = ()
    outside: float = 0.0

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        (x,) = inputs
        self._check(x)
        y = x
        for i, axis in enumerate(self.axes):
            y = self._along(y, i, axis)
        if self.coordinates is Coordinates.CROP:
            y = self._cropped(x, y)
        return (y,)

    def _check(self, x: Tensor) -> None:
        if self.interpolation is not Interpolation.NEAREST:
            require_float(self, x)
        fits = len(self.axes) == len(self.sizes) == len(self.scales)
        if not fits or any(not 0 <= a < x.rank for a in self.axes):
            raise ShapeError(f"{self} does not fit {x.type}")
        if self.coordinates is Coordinates.CROP and len(self.roi) != len(self.axes):
            raise ShapeError(f"{self.name} takes a region of interest for {len(self.axes)} axes")
        for axis, size in zip(self.axes, self.sizes, strict=True):
            if size < 0 or (size and not x.shape[axis]):
                raise ShapeError(f"axis {axis} of {x.type} cannot be resized to {size}")

    def _along(self, x: Tensor, i: int, axis: int) -> Tensor:
        extent = x.shape[axis]
        places = self.places(i, extent)
        if self.sizes[i] == extent and np.array_equal(places, np.arange(extent)):
            return x
        if self.interpolation is Interpolation.NEAREST:
            return apply(
                Take(axis), x, x.graph.constant(self._nearest(places, extent), DType.INT64)
            )
        indices, weights = self.terms(i, extent)
        if weights.shape[1] > _MOST_TAKEN:
            return _by_matrix(x, axis, indices, weights)
        total = None
        for term in range(weights.shape[1]):
            shape = tuple(-1 if d == axis else 1 for d in range(x.rank))
            taken = apply(Take(axis), x, x.graph.constant(indices[:, term], DType.INT64))
            part = taken * x.graph.constant(weights[:, term].reshape(shape), x.dtype)
            total = part if total is None else total + part
        assert total is not None
        return total

    def places(self, i: int, extent: int) -> Array:
        """Where the elements of the output lie along an axis of the input, float64."""
        size, scale = self.sizes[i], self.scales[i]
        at = np.arange(size, dtype=np.float64)
        if self.coordinates is Coordinates.ASYMMETRIC:
            return np.asarray(at / scale)
        if self.coordinates is Coordinates.ALIGN_CORNERS:
            last = scale * extent - 1.0
            return at * ((extent - 1) / last) if last > 0.0 else at * 0.0
        if self.coordinates is Coordinates.CROP:
            start, end = self.roi[i]
            if size == 1:
                return np.array([0.5 * (start + end) * (extent - 1)])
            return np.asarray(
                start * (extent - 1) + at * ((end - start) * (extent - 1) / (size - 1))
            )
        places = (at + 0.5) / scale - 0.5
        if self.coordinates is Coordinates.PYTORCH_HALF_PIXEL and size == 1:
            return np.zeros(1)
        if self.coordinates is Coordinates.HALF_PIXEL_SYMMETRIC:
            # Where the scale is not size / extent, the middle stays in the middle.
            places += extent / 2 * (1.0 - size / (scale * extent))
        return np.asarray(places)

    def _nearest(self, places: Array, extent: int) -> Array:
        rounded = {
            Nearest.FLOOR: np.floor(places),
            Nearest.CEIL: np.ceil(places),
            Nearest.ROUND_PREFER_FLOOR: np.ceil(places - 0.5),
            Nearest.ROUND_PREFER_CEIL: np.floor(places + 0.5),
        }[self.nearest]
        return np.clip(rounded, 0, extent - 1).astype(np.int64)

    def terms(self, i: int, extent: int) -> tuple[Array, Array]:
        """Each element of the output as a weighted sum: indices and weights, (size, terms)."""
        places = self.places(i, extent)
        stretch = max(1.0, 1.0 / self.scales[i]) if self.antialias else 1.0
        reach = 1 if self.interpolation is Interpolation.LINEAR else 2
        wide = int(np.ceil(reach * stretch))
        first = np.floor(places).astype(np.int64) - wide + 1
        indices = first[:, None] + np.arange(2 * wide)
        weights = self._kernel((indices - places[:, None]) / stretch)
        if self.exclude_outside or self.antialias:
            if self.exclude_outside:
                weights = np.where((indices >= 0) & (indices < extent), weights, 0.0)
            weights = weights / weights.sum(axis=1, keepdims=True)
        return np.clip(indices, 0, extent - 1), weights

    def _kernel(self, distance: Array) -> Array:
        d = np.abs(distance)
        if self.interpolation is Interpolation.LINEAR:
            return np.maximum(1.0 - d, 0.0)
        a = self.cubic
        near = ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0
        far = ((d - 5.0) * d + 8.0) * d * a - 4.0 * a
        return np.asarray(np.where(d <= 1.0, near, np.where(d < 2.0, far, 0.0)))

    def _cropped(self, x: Tensor, y: Tensor) -> Tensor:
        """With the given value where a place lies outside of the input."""
        for i, axis in enumerate(self.axes):
            places = self.places(i, x.shape[axis])
            within = (places >= 0) & (places <= x.shape[axis] - 1)
            if not within.all():
                shape = tuple(-1 if d == axis else 1 for d in range(y.rank))
                mask = y.graph.constant(within.reshape(shape))
                y = mask.where(y, y.graph.constant(self.outside, y.dtype))
        return y


def _by_matrix(x: Tensor, axis: int, indices: Array, weights: Array) -> Tensor:
    """The weighted sums as a product with a matrix (size, extent)."""
    matrix = np.zeros((indices.shape[0], x.shape[axis]))
    np.add.at(matrix, (np.arange(indices.shape[0])[:, None], indices), weights)
    last = x.transpose(axis, -1) if axis != x.rank - 1 else x
    rows = last.reshape((-1, x.shape[axis]))
    product = apply(MatMul(), rows, x.graph.constant(matrix.T, x.dtype))
    result = product.reshape((*last.shape[:-1], indices.shape[0]))
    return result.transpose(axis, -1) if axis != x.rank - 1 else result
