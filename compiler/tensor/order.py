"""Methods of tensors that put elements in order, or count them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..errors import ShapeError, UsageError
from ..ops.base import apply, apply_all
from ..ops.cumulative import CumMax, CumMin, LogCumSumExp
from ..ops.indexing import own_indices
from ..types import DType, normalize_axis
from . import reduction
from .promotion import as_float, as_tensor
from .reduction import Axes, Found

if TYPE_CHECKING:
    from .handle import Tensor
    from .indexing import Places


class Extrema(NamedTuple):
    """The smallest and the largest elements."""

    min: Tensor
    max: Tensor


def aminmax(self: Tensor, *, dim: int | None = None, keepdim: bool = False) -> Extrema:
    """The smallest and the largest elements, of all or along an axis."""
    return Extrema(reduction.amin(self, dim, keepdim), reduction.amax(self, dim, keepdim))


# -- running --------------------------------------------------------------------------------------


def cummax(self: Tensor, dim: int) -> Found:
    """The largest of the elements up to each one along an axis, and where it is: the last one of
    equals.
    """
    return Found(*apply_all(CumMax(normalize_axis(dim, self.rank)), self))


def cummin(self: Tensor, dim: int) -> Found:
    """As `cummax`, of the smallest."""
    return Found(*apply_all(CumMin(normalize_axis(dim, self.rank)), self))


def logcumsumexp(self: Tensor, dim: int) -> Tensor:
    """The log of the sum of the exponentials of the elements up to each one along an axis."""
    return apply(LogCumSumExp(normalize_axis(dim, self.rank)), as_float(self))


def diff(self: Tensor, n: int = 1, dim: int = -1) -> Tensor:
    """Differences of neighbours along an axis, n times over."""
    axis, x = normalize_axis(dim, self.rank), self
    for _ in range(n):
        extent = max(x.shape[axis] - 1, 0)
        later, sooner = x.slice_axis(axis, 1, extent), x.slice_axis(axis, 0, extent)
        x = later ^ sooner if x.dtype is DType.BOOL else later - sooner
    return x


# -- places in order ------------------------------------------------------------------------------


def kthvalue(self: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Found:
    """The k-th smallest element along an axis, counted from 1, and where it is."""
    axis = normalize_axis(dim, self.rank)
    if not 1 <= k <= self.shape[axis]:
        raise ShapeError(f"there is no element {k} in order along axis {axis} of {self.type}")
    values, indices = reduction.topk(self, k, axis, largest=False)
    parts = (x.slice_axis(axis, k - 1, 1) for x in (values, indices))
    return Found(*(x if keepdim else x.squeeze(axis) for x in parts))


def msort(self: Tensor) -> Tensor:
    """The elements in order along the first axis."""
    return reduction.sort(self, 0).values


def quantile(
    self: Tensor,
    q: float | Sequence[float],
    dim: int | None = None,
    keepdim: bool = False,
    *,
    interpolation: str = "linear",
) -> Tensor:
    """Below which the share q of the elements is, of all or along an axis.

    Arguments:
        q: from 0 to 1; several give a new first axis.
        interpolation: between two elements: "linear", "lower", "higher", "midpoint" or "nearest".
    """
    x = self.reshape(-1) if dim is None else self.movedim(dim, -1)
    axis = 0 if dim is None else normalize_axis(dim, self.rank)
    shares = np.atleast_1d(np.asarray(q, np.float64))
    if ((shares < 0) | (shares > 1)).any() or not x.shape[-1]:
        raise UsageError(f"quantiles {q} of {self.type}: q is from 0 to 1, of one element or more")
    place = shares * (x.shape[-1] - 1)
    low = np.floor(place)
    weights = {
        "linear": place - low,
        "lower": low * 0,
        "higher": np.ceil(place) - low,
        "midpoint": (np.ceil(place) - low) / 2,
        "nearest": np.round(place) - low,
    }
    if interpolation not in weights:
        raise UsageError(f"interpolation is one of {', '.join(weights)}, not {interpolation!r}")
    ordered = reduction.sort(x, -1).values
    first = ordered.index_select(-1, low.astype(np.int64))
    second = ordered.index_select(-1, np.ceil(place).astype(np.int64))
    found = first + (second - first) * as_tensor(weights[interpolation], first)
    unknown = x.isnan().any(-1).unsqueeze(-1)
    found = unknown.where(math.nan, found).movedim(-1, 0)
    if keepdim:
        found = found.reshape((-1, *(1,) * self.rank)) if dim is None else found.unsqueeze(axis + 1)
    return found if np.ndim(q) else found.squeeze(0)


# -- counts ---------------------------------------------------------------------------------------


def bincount(self: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each of 0, 1, … minlength - 1 occurs (int64); or the sums of their weights.

    Larger numbers count nowhere: how many they are is not known before the network runs.

    Raises:
        UsageError: there is no minlength.
    """
    if minlength < 1:
        raise UsageError(
            "bincount needs minlength, the number of classes: its length would depend on data"
        )
    flat = self.reshape(-1)
    hits = flat.unsqueeze(1).equal(own_indices(flat.unsqueeze(1), 1, minlength, flat.dtype))
    if weights is None:
        return hits.cast(DType.INT64).sum(0)
    return hits.where(weights.reshape((-1, 1)), 0.0).sum(0)


def histc(self: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """How many elements lie in each of so many equal parts from min to max, as floats; what lies
    outside counts nowhere.

    Arguments:
        min, max: the smallest and largest elements where both are equal.
    """
    x = self.reshape((-1, 1))
    low, high = x.constant(min), x.constant(max)
    if min == max:
        low, high = x.amin().detach(), x.amax().detach()
        flat = low.equal(high)
        low, high = flat.where(low - 1, low), flat.where(high + 1, high)
    place = ((x - low) * bins / (high - low)).floor()
    place = x.equal(high).where(bins - 1.0, place)
    own = own_indices(x, 1, bins, DType.INT64).cast(x.dtype)
    return (place.equal(own) & (x >= low) & (x <= high)).cast(x.dtype).sum(0)


def searchsorted(self: Tensor, values: Tensor, right: bool = False) -> Tensor:
    """Where values would be put among sorted numbers (int64): before equal ones, or after them; NaN
    behind all.

    Arguments:
        self: sorted (N,), or (…, N) with the leading extents of the values.
        values: (…,), or (…, M).
    """
    rows = self if self.rank == 1 else self.unsqueeze(-2)
    values = as_tensor(values, self)
    if self.rank > 1 and self.shape[:-1] != values.shape[:-1]:
        raise ShapeError(f"{values.type} is looked up in {self.type}: leading extents differ")
    each = values.unsqueeze(-1)
    before = rows <= each if right else rows < each
    return (before | each.isnan() if each.dtype.is_float else before).sum(-1)


def bucketize(self: Tensor, boundaries: Places, right: bool = False) -> Tensor:
    """Between which of the sorted boundaries each element is (int64)."""
    return searchsorted(as_tensor(boundaries, self), self, right)


def isin(self: Tensor, test_elements: Places) -> Tensor:
    """Whether each element is one of some others."""
    others = as_tensor(test_elements, self).reshape(-1)
    return self.unsqueeze(-1).equal(others).any(-1)


# -- statistics -----------------------------------------------------------------------------------


def nansum(self: Tensor, dim: Axes = None, keepdim: bool = False) -> Tensor:
    """The sum of what is not NaN."""
    return self.isnan().where(0.0, self).sum(dim, keepdim)


def nanmean(self: Tensor, dim: Axes = None, keepdim: bool = False) -> Tensor:
    """The mean of what is not NaN."""
    count = self.isnan().logical_not().cast(self.dtype).sum(dim, keepdim)
    return nansum(self, dim, keepdim) / count


def cov(self: Tensor, *, correction: int = 1) -> Tensor:
    """The covariances of variables (N, observations), (N, N); () of one variable."""
    x = self.reshape((-1, self.shape[-1])) if self.rank else self.reshape(1, 1)
    centred = x - x.mean(1, keepdims=True)
    found = centred @ centred.t() / max(x.shape[1] - correction, 0)
    return found if found.shape[0] > 1 else found.reshape(())


def corrcoef(self: Tensor) -> Tensor:
    """The correlations of variables (N, observations), (N, N), from -1 to 1."""
    c = cov(self)
    if not c.rank:
        return c / c
    spread = c.diagonal().sqrt()
    return (c / spread.unsqueeze(1) / spread).clamp(-1, 1)
