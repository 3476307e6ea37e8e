"""Values of images at places given by data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import product
from typing import TYPE_CHECKING, ClassVar

from ..errors import ShapeError
from ..types import DType, row_major_strides
from .base import apply
from .composite import Composite
from .indexing import TakeAlongAxis
from .pointwise import Floor, Round, require_float
from .resize import Interpolation

if TYPE_CHECKING:
    from ..tensor import Tensor


class Border(Enum):
    """What lies outside of an image."""

    ZEROS = "zeros"
    EDGE = "border"
    REFLECTION = "reflection"


@dataclass(frozen=True)
class GridSample(Composite):
    """An image at the places of a grid (torch.nn.functional.grid_sample, ONNX: GridSample).

    Jaderberg et al., Spatial transformer networks, 2015. Inputs are x (N, C, *spatial) and grid
    (N, *places, d) for d = 1 to 3 spatial axes; the output is (N, C, *places). The last axis of the
    grid holds coordinates, that of the last spatial axis first, of which -1 and 1 are the ends.

    Arguments:
        interpolation: between pixels.
        border: what lies outside.
        align_corners: the ends are the centres of the outermost pixels, not their outer edges.
        cubic: the parameter a of the cubic kernel.
    """

    interpolation: Interpolation = Interpolation.LINEAR
    border: Border = Border.ZEROS
    align_corners: bool = False
    cubic: float = -0.75
    arity: ClassVar[tuple[int, int | None]] = (2, 2)

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        x, grid = inputs
        require_float(self, x, grid)
        spatial = x.shape[2:]
        fits = grid.rank == x.rank and grid.shape[:1] == x.shape[:1]
        if x.rank < 3 or not fits or grid.shape[-1] != len(spatial) or 0 in spatial:
            raise ShapeError(f"{self.name} takes no grid {grid.type} for an image {x.type}")
        places = grid.shape[1:-1]
        flat = grid.cast(x.dtype).reshape((x.shape[0], math.prod(places), len(spatial)))
        # The coordinate of the last axis stands first.
        axes = [
            list(self._terms(self._unnormalized(flat[:, :, len(spatial) - 1 - d], n), n))
            for d, n in enumerate(spatial)
        ]
        pixels = x.flatten(2)
        total = None
        for corner in product(*axes):
            part = self._corner(pixels, corner, spatial)
            total = part if total is None else total + part
        assert total is not None
        return (total.reshape((*x.shape[:2], *places)),)

    def _corner(
        self,
        pixels: Tensor,
        corner: tuple[tuple[Tensor, Tensor], ...],
        spatial: tuple[int, ...],
    ) -> Tensor:
        """The pixel that one term of each axis names, times their weights: (N, C, places)."""
        index, weight = None, None
        for (place, share), step in zip(corner, row_major_strides(spatial), strict=True):
            index = place * step if index is None else index + place * step
            weight = share if weight is None else weight * share
        assert index is not None
        assert weight is not None
        wide = index.unsqueeze(1).broadcast_to((*pixels.shape[:2], index.shape[1]))
        return apply(TakeAlongAxis(2), pixels, wide) * weight.unsqueeze(1)

    def _unnormalized(self, at: Tensor, extent: int) -> Tensor:
        """Coordinates from -1 to 1 as places along an axis."""
        if self.align_corners:
            return (at + 1.0) * ((extent - 1) / 2)
        return ((at + 1.0) * extent - 1.0) * 0.5

    def _terms(self, at: Tensor, extent: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Index (int64) and weight of every pixel that counts along an axis, (N, places) each."""
        if self.interpolation is not Interpolation.CUBIC:
            at = self._inside(at, extent)
        if self.interpolation is Interpolation.NEAREST:
            yield self._pixel(apply(Round(), at), at.constant(1.0).broadcast_to(at.shape), extent)
            return
        first = apply(Floor(), at)
        offset = at - first
        if self.interpolation is Interpolation.LINEAR:
            yield self._pixel(first, 1.0 - offset, extent)
            yield self._pixel(first + 1.0, offset, extent)
            return
        for step in (-1.0, 0.0, 1.0, 2.0):
            weight = self._kernel(offset + 1.0 if step == -1.0 else (offset - step).abs(), step)
            place = self._inside(first + step, extent)
            yield self._pixel(apply(Round(), place), weight, extent)

    def _kernel(self, distance: Tensor, step: float) -> Tensor:
        d, a = distance, self.cubic
        if step in (0.0, 1.0):
            return ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0
        return ((d - 5.0) * d + 8.0) * d * a - 4.0 * a

    def _pixel(self, place: Tensor, weight: Tensor, extent: int) -> tuple[Tensor, Tensor]:
        """A whole place as an index that exists; outside it weighs nothing where ZEROS are."""
        if self.border is Border.ZEROS:
            within = (place >= 0.0) & (place <= extent - 1.0)
            weight = within.where(weight, 0.0)
        held = place.maximum(0.0).minimum(extent - 1.0)
        return held.cast(DType.INT64), weight

    def _inside(self, at: Tensor, extent: int) -> Tensor:
        """Places moved into the image, but for ZEROS."""
        if self.border is Border.EDGE:
            return at.maximum(0.0).minimum(extent - 1.0)
        if self.border is Border.ZEROS:
            return at
        low, high = (0.0, extent - 1.0) if self.align_corners else (-0.5, extent - 0.5)
        span = high - low
        if span == 0.0:
            return at * 0.0
        # Folded: the distance from the lower end, in a period of twice the span.
        away = (at - low).abs() % (2.0 * span)
        folded = (away > span).where(2.0 * span - away, away) + low
        return folded.maximum(0.0).minimum(extent - 1.0)
