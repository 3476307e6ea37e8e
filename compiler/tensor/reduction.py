"""Methods of tensors that join the elements along axes, over all axes by default.

`dim` and `keepdim` are PyTorch's words for NumPy's `axis` and `keepdims`; both are understood.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, overload

from numpy.typing import DTypeLike

from ..errors import UsageError
from ..ops import reduce as rd
from ..ops.activation import LogSoftmax, Softmax
from ..ops.base import apply
from ..ops.cumulative import CumProd, CumSum
from ..ops.indexing import ArgExtremum, ArgMax, ArgMin
from ..ops.topk import TopK
from ..types import DType, Shape, normalize_axes, normalize_axis
from .pointwise import choose, truth
from .promotion import as_float

if TYPE_CHECKING:
    from .handle import Tensor

Axes: TypeAlias = int | tuple[int, ...] | list[int] | None


class Found(NamedTuple):
    """Elements and where along their axis they were found (int64)."""

    values: Tensor
    indices: Tensor


def _reduce(x: Tensor, op: type[rd.Reduction], axis: Axes, keepdims: bool) -> Tensor:
    axes = normalize_axes(axis, x.rank)
    result = apply(op(axes), x) if axes else x
    return result if keepdims else without(result, axes)


def without(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Without axes of extent 1."""
    return x.reshape(tuple(n for d, n in enumerate(x.shape) if d not in axes))


def sum(
    self: Tensor,
    axis: Axes = None,
    keepdims: bool = False,
    *,
    dim: Axes = None,
    keepdim: bool = False,
    dtype: DType | DTypeLike | None = None,
) -> Tensor:
    """Sum over axes: of integers and truths int64, where no dtype to add up in is given."""
    axes = dim if axis is None else axis
    return _reduce(_summable(self, dtype), rd.Sum, axes, keepdims or keepdim)


def _summable(x: Tensor, dtype: DType | DTypeLike | None) -> Tensor:
    """In the dtype that sums and products are in."""
    if dtype is None:
        return x if x.dtype.is_float else x.cast(DType.INT64)
    return x.cast(dtype)


def sum_to(self: Tensor, shape: Shape) -> Tensor:
    """Undoes broadcasting: the sum over every axis that broadcasting from `shape` repeated."""
    if self.shape == shape:
        return self
    lead = self.rank - len(shape)
    axes = tuple(range(lead)) + tuple(
        d + lead for d, n in enumerate(shape) if n == 1 and self.shape[d + lead] != 1
    )
    return (apply(rd.Sum(axes), self) if axes else self).reshape(shape)


def prod(
    self: Tensor,
    axis: Axes = None,
    keepdims: bool = False,
    *,
    dim: Axes = None,
    keepdim: bool = False,
    dtype: DType | DTypeLike | None = None,
) -> Tensor:
    """Product over axes; dtypes are those of `sum`."""
    axes = dim if axis is None else axis
    return _reduce(_summable(self, dtype), rd.Product, axes, keepdims or keepdim)


def mean(
    self: Tensor,
    axis: Axes = None,
    keepdims: bool = False,
    *,
    dim: Axes = None,
    keepdim: bool = False,
    dtype: DType | DTypeLike | None = None,
) -> Tensor:
    """Mean over axes, of floats."""
    axes = normalize_axes(dim if axis is None else axis, self.rank)
    count = math.prod(self.shape[d] for d in axes)
    inverse = 1.0 / count if count else math.nan
    x = as_float(self) if dtype is None else as_float(self.cast(dtype))
    return x.sum(axes, keepdims or keepdim) * inverse


def amax(self: Tensor, dim: Axes = None, keepdim: bool = False) -> Tensor:
    """Largest element over axes."""
    return _extremum(self, rd.Max, dim, keepdim)


def amin(self: Tensor, dim: Axes = None, keepdim: bool = False) -> Tensor:
    """Smallest element over axes."""
    return _extremum(self, rd.Min, dim, keepdim)


def _extremum(x: Tensor, op: type[rd.Extremum], dim: Axes, keepdim: bool) -> Tensor:
    if x.dtype is DType.BOOL:
        return _reduce(x.cast(DType.UINT8), op, dim, keepdim).cast(DType.BOOL)
    return _reduce(x, op, dim, keepdim)


@overload
def max(self: Tensor, dim: None = None) -> Tensor: ...


@overload
def max(self: Tensor, dim: Tensor) -> Tensor: ...


@overload
def max(self: Tensor, dim: int, keepdim: bool = False) -> Found: ...


def max(self: Tensor, dim: int | Tensor | None = None, keepdim: bool = False) -> Tensor | Found:
    """The largest element; along an axis, the largest ones and their indices; or, of two tensors,
    the larger one of each two elements. As in PyTorch; `amax` gives elements alone.
    """
    if dim is None:
        return amax(self)
    if not isinstance(dim, int):
        return self.maximum(dim)
    return Found(amax(self, dim, keepdim), argmax(self, dim, keepdim))


@overload
def min(self: Tensor, dim: None = None) -> Tensor: ...


@overload
def min(self: Tensor, dim: Tensor) -> Tensor: ...


@overload
def min(self: Tensor, dim: int, keepdim: bool = False) -> Found: ...


def min(self: Tensor, dim: int | Tensor | None = None, keepdim: bool = False) -> Tensor | Found:
    """As `max`, of the smallest."""
    if dim is None:
        return amin(self)
    if not isinstance(dim, int):
        return self.minimum(dim)
    return Found(amin(self, dim, keepdim), argmin(self, dim, keepdim))


def argmax(self: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Index (int64) of the first largest element along an axis, or of all in row-major order."""
    return _argument(ArgMax, self, dim, keepdim)


def argmin(self: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Index (int64) of the first smallest element along an axis, or of all in row-major order."""
    return _argument(ArgMin, self, dim, keepdim)


def _argument(op: type[ArgExtremum], x: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    if dim is not None:
        return apply(op(normalize_axis(dim, x.rank), keepdim), x)
    flat = apply(op(0), x.reshape(-1))
    return flat.reshape((1,) * x.rank) if keepdim else flat


def any(self: Tensor, dim: Axes = None, keepdim: bool = False) -> Tensor:
    """Whether one of the elements is true."""
    return truth(self).sum(dim, keepdim, dtype=DType.INT32).not_equal(0)


def all(self: Tensor, dim: Axes = None, keepdim: bool = False) -> Tensor:
    """Whether all elements are true."""
    return truth(self).logical_not().sum(dim, keepdim, dtype=DType.INT32).equal(0)


def count_nonzero(self: Tensor, dim: Axes = None) -> Tensor:
    """How many elements are other than 0 (int64)."""
    return truth(self).sum(dim)


# -- statistics -----------------------------------------------------------------------------------


def var(
    self: Tensor,
    dim: Axes = None,
    *,
    correction: float = 1,
    keepdim: bool = False,
    unbiased: bool | None = None,
) -> Tensor:
    """Variance over axes; the sum of squares is divided by the count less the correction, which is
    1 or 0 for `unbiased` True or False.
    """
    correction = correction if unbiased is None else float(unbiased)
    axes = normalize_axes(dim, self.rank)
    count = math.prod(self.shape[d] for d in axes) - correction
    centred = self - self.mean(axes, keepdims=True)
    return (centred * centred).sum(axes, keepdim) * (1 / count if count > 0 else math.nan)


def std(
    self: Tensor,
    dim: Axes = None,
    *,
    correction: float = 1,
    keepdim: bool = False,
    unbiased: bool | None = None,
) -> Tensor:
    """Square root of the variance over axes."""
    return var(self, dim, correction=correction, keepdim=keepdim, unbiased=unbiased).sqrt()


def norm(self: Tensor, p: float | str = 2, dim: Axes = None, keepdim: bool = False) -> Tensor:
    """(sum |x|^p)^(1/p) over axes; the largest or smallest |x| for an infinite p. No gradient flows
    where it is 0.
    """
    if p in ("fro", 2):
        return root((self * self).sum(dim, keepdim))
    if isinstance(p, str):
        raise UsageError(f"norm knows numbers and 'fro', not {p!r}")
    size = self.abs()
    if math.isinf(p):
        return amax(size, dim, keepdim) if p > 0 else amin(size, dim, keepdim)
    if p == 0:
        return size.not_equal(0).cast(self.dtype).sum(dim, keepdim)
    return size.sum(dim, keepdim) if p == 1 else root((size**p).sum(dim, keepdim), p)


def root(total: Tensor, p: float = 2) -> Tensor:
    """The p-th root of a sum of powers, without a gradient where that is 0."""
    zero = total.equal(0)
    positive = zero.where(1.0, total)
    return zero.where(0.0, positive.sqrt() if p == 2 else positive ** (1 / p))


def logsumexp(self: Tensor, dim: Axes = None, keepdim: bool = False) -> Tensor:
    """log(sum(exp(x))) over axes, also where exp(x) would be infinite."""
    axes = normalize_axes(dim, self.rank)
    top = amax(self, axes, keepdim=True).detach()
    finite = top.isfinite().where(top, 0.0)
    total = (self - finite).exp().sum(axes, keepdims=True).log() + finite
    return total if keepdim else without(total, axes)


def softmax(self: Tensor, dim: int) -> Tensor:
    """exp(x) / sum(exp(x)) along an axis."""
    return apply(Softmax(normalize_axis(dim, self.rank)), self)


def log_softmax(self: Tensor, dim: int) -> Tensor:
    """log(softmax(x)) along an axis."""
    return apply(LogSoftmax(normalize_axis(dim, self.rank)), self)


# -- running, and in order ------------------------------------------------------------------------


def cumsum(self: Tensor, dim: int, *, dtype: DType | DTypeLike | None = None) -> Tensor:
    """The sum of the elements up to each one along an axis; dtypes are those of `sum`."""
    return apply(CumSum(normalize_axis(dim, self.rank)), _summable(self, dtype))


def cumprod(self: Tensor, dim: int, *, dtype: DType | DTypeLike | None = None) -> Tensor:
    """The product of the elements up to each one along an axis; dtypes are those of `sum`."""
    return apply(CumProd(normalize_axis(dim, self.rank)), _summable(self, dtype))


def topk(self: Tensor, k: int, dim: int = -1, largest: bool = True) -> Found:
    """The k largest (or smallest) elements along an axis, in order, and their indices."""
    values, indices = self.graph.apply(TopK(k, normalize_axis(dim, self.rank), largest), self)
    return Found(values, indices)


def sort(self: Tensor, dim: int = -1, descending: bool = False) -> Found:
    """All elements along an axis in order, and where they were."""
    return topk(self, self.size(dim), dim, descending)


def argsort(self: Tensor, dim: int = -1, descending: bool = False) -> Tensor:
    """Where the elements in order along an axis are (int64)."""
    return sort(self, dim, descending).indices


@overload
def median(self: Tensor, dim: None = None) -> Tensor: ...


@overload
def median(self: Tensor, dim: int, keepdim: bool = False) -> Found: ...


def median(self: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor | Found:
    """The middle one of all elements, the lower one of two; or, along an axis, the middle ones and
    where they are. NaN is the median of what it is in.
    """
    if dim is None:
        return median(self.reshape(-1), 0).values
    count = self.size(dim)
    middle = self.kthvalue((count + 1) // 2, dim, keepdim)
    if not self.dtype.is_float:
        return middle
    last = self.kthvalue(count, dim, keepdim)  # NaN, where there is one
    unknown = last.values.isnan()
    return Found(*(choose(unknown, a, b) for a, b in zip(last, middle, strict=True)))


def var_mean(
    self: Tensor,
    dim: Axes = None,
    *,
    correction: float = 1,
    keepdim: bool = False,
    unbiased: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """Variance and mean over axes."""
    spread = var(self, dim, correction=correction, keepdim=keepdim, unbiased=unbiased)
    return spread, self.mean(dim, keepdim)


def std_mean(
    self: Tensor,
    dim: Axes = None,
    *,
    correction: float = 1,
    keepdim: bool = False,
    unbiased: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """Standard deviation and mean over axes."""
    spread = std(self, dim, correction=correction, keepdim=keepdim, unbiased=unbiased)
    return spread, self.mean(dim, keepdim)
