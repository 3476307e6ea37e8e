"""What puts elements at places, sorts them, and looks for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ....compiler.ops.base import apply
from ....compiler.ops.scatter import ScatterMode, ScatterND
from ....compiler.tensor import Tensor, choose
from ....compiler.types import DType, broadcast_shapes
from ...nn.functional import shape
from ..table import enter_methods, operator, refuse_unless

enter_methods("default", "histc index_copy scatter_add sort")
enter_methods("src value", "scatter")
enter_methods("two", "scatter_reduce")
enter_methods("int_Scalar", "index_fill")


@operator("sort.stable")
def _sort(x: Tensor, *, stable: bool | None, dim: int = -1, descending: bool = False) -> Any:
    return x.sort(dim, descending)


@operator("scatter.reduce", "scatter.value_reduce")
def _scatter(x: Tensor, dim: int, index: Tensor, src: Tensor | float, *, reduce: str) -> Tensor:
    updates = src if isinstance(src, Tensor) else x.constant(src).broadcast_to(index.shape)
    return x.scatter_reduce(dim, index, updates, {"add": "sum", "multiply": "prod"}[reduce])


@operator("index_add.default")
def _index_add(x: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:
    return x.index_add(dim, index, source if alpha == 1 else source * alpha)


@operator("index_put.default")
def _index_put(
    x: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False
) -> Tensor:
    given = [i for i in indices if i is not None]
    first = next(axis for axis, i in enumerate(indices) if i is not None)
    if given[0].dtype is DType.BOOL:
        return _put_where(x, first, given, values, accumulate)
    gap = any(i is None for i in indices[first : first + len(given)])
    refuse_unless(not gap, "assigning at indices of axes that are no neighbours")
    refuse_unless(all(i.dtype is not DType.BOOL for i in given), "assigning at indices and masks")
    common = broadcast_shapes(*(i.shape for i in given))
    places = shape.stack([i.broadcast_to(common) for i in given], -1)
    # The axes that are indexed come first, as do those of the indices.
    own = list(range(first, first + len(given)))
    moved = x.movedim(own, list(range(len(own))))
    before, after = x.shape[:first], x.shape[first + len(own) :]
    updates = values.cast(x.dtype).broadcast_to((*before, *common, *after))
    theirs = list(range(first, first + len(common)))
    updates = updates.movedim(theirs, list(range(len(theirs))))
    mode = ScatterMode.ADD if accumulate else ScatterMode.NONE
    return apply(ScatterND(mode), moved, places, updates).movedim(list(range(len(own))), own)


def _put_where(
    x: Tensor, first: int, masks: Sequence[Tensor], values: Tensor, accumulate: bool
) -> Tensor:
    """Values where a mask of the axes from `first` on is true."""
    mask = masks[0]
    rest = x.rank - first - mask.rank
    known = len(masks) == 1 and (first == 0 or values.rank == 0) and values.rank <= rest
    refuse_unless(known, "assigning at a mask what has an element for each truth, or several masks")
    values = values.cast(x.dtype)
    return choose(
        mask.reshape((*mask.shape, *(1,) * rest)), x + values if accumulate else values, x
    )


# -- looking for them -----------------------------------------------------------------------------


@operator("bucketize.Tensor")
def _bucketize(
    x: Tensor, boundaries: Tensor, *, out_int32: bool = False, right: bool = False
) -> Tensor:
    return _search(boundaries, x, out_int32=out_int32, right=right)


@operator("searchsorted.Tensor")
def _search(
    rows: Tensor,
    values: Tensor,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    rows = rows if sorter is None else rows.gather(-1, sorter)
    found = rows.searchsorted(values, right or side == "right")
    return found.cast(DType.INT32) if out_int32 else found


@operator("isin.Tensor_Tensor", "isin.Tensor_Scalar")
def _is_in(
    x: Tensor, others: Tensor | float, *, assume_unique: bool = False, invert: bool = False
) -> Tensor:
    found = x.isin(others) if isinstance(others, Tensor) else x.equal(others)
    return found.logical_not() if invert else found
