"""What moves elements, takes some of them, or puts some in their place."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from ....compiler.tensor import Tensor
from ....compiler.types import normalize_axis
from ...nn.functional import shape
from ..table import OPERATORS, enter_methods, operator, refuse_unless

Sizes = Sequence[int]


enter_methods(
    "default",
    "broadcast_to chunk diagonal expand_as flip index_select movedim narrow permute repeat reshape "
    "roll t tril triu unfold unsqueeze view",
)
enter_methods("int", "movedim select transpose unbind unflatten")
enter_methods("intlist", "movedim")
enter_methods("default dim dims", "squeeze")
enter_methods("self_int", "repeat_interleave")
enter_methods("using_ints", "flatten")
enter_methods("Tensor", "split")


# -- shapes ---------------------------------------------------------------------------------------


@operator("_unsafe_view.default")
def _view(x: Tensor, size: Sizes) -> Tensor:
    return x.reshape(tuple(size))


@operator("numpy_T.default")
def _reversed_axes(x: Tensor) -> Tensor:
    return x.t()


@operator("expand.default")
def _expand(x: Tensor, size: Sizes, *, implicit: bool = False) -> Tensor:
    return x.expand(tuple(size))


# -- joining and cutting --------------------------------------------------------------------------


@operator("cat.default")
def _concatenate(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    # An empty tensor of one axis goes with anything.
    return shape.cat([t for t in tensors if t.shape != (0,)] or tensors[:1], dim)


@operator("stack.default")
def _stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    return shape.stack(tensors, dim)


@operator("split_with_sizes.default")
def _split(x: Tensor, sizes: Sizes, dim: int = 0) -> tuple[Tensor, ...]:
    return x.split(sizes, dim)


@operator("slice.Tensor")
def _slice(
    x: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:
    axis = normalize_axis(dim, x.rank)
    end = None if end is not None and end >= sys.maxsize else end
    return x[(slice(None),) * axis + (slice(start, end, step),)]


@operator("select_scatter.default")
def _put_one(x: Tensor, part: Tensor, dim: int, index: int) -> Tensor:
    return _put(x, part.unsqueeze(dim), dim, range(x.shape[dim])[index], 1)


@operator("slice_scatter.default")
def _put_slice(
    x: Tensor,
    part: Tensor,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Tensor:
    if step != 1:
        return x.slice_scatter(part.cast(x.dtype), dim, start, end, step)
    places = range(x.shape[dim])[start:end]
    return _put(x, part, dim, places.start, len(places))


def _put(x: Tensor, part: Tensor, dim: int, start: int, size: int) -> Tensor:
    """The tensor with a part of it in place of its own elements."""
    axis = normalize_axis(dim, x.rank)
    rest = x.shape[axis] - start - size
    before, after = x.slice_axis(axis, 0, start), x.slice_axis(axis, start + size, rest)
    return shape.cat([p for p in (before, part.cast(x.dtype), after) if p.shape[axis]], axis)


# -- padding --------------------------------------------------------------------------------------


@operator("pad.default")
def _pad(x: Tensor, pad: Sizes, mode: str = "constant", value: float | None = None) -> Tensor:
    return shape.pad(x, tuple(pad), mode, value or 0.0)


@operator("constant_pad_nd.default")
def _pad_constant(x: Tensor, pad: Sizes, value: float = 0.0) -> Tensor:
    return shape.pad(x, tuple(pad), value=value)


def _padded(mode: str) -> Any:
    return lambda x, pad: shape.pad(x, tuple(pad), mode)


OPERATORS.update(
    {
        f"aten.{kind}_pad{rank}d.default": _padded(mode)
        for kind, mode in (("reflection", "reflect"), ("replication", "replicate"))
        for rank in (1, 2, 3)
    }
)


# -- indices --------------------------------------------------------------------------------------


@operator("embedding.default")
def _embedding(
    weight: Tensor,
    indices: Tensor,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    return shape.embedding(indices, weight, None if padding_idx == -1 else padding_idx)


@operator("gather.default")
def _gather(x: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    return x.gather(dim, index)


@operator("index.Tensor")
def _index(x: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
    return x[tuple(slice(None) if index is None else index for index in indices)]


@operator("one_hot.default")
def _one_hot(x: Tensor, num_classes: int = -1) -> Tensor:
    refuse_unless(num_classes > 0, "one_hot without num_classes, which depends on the numbers,")
    return shape.one_hot(x, num_classes)
