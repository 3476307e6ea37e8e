"""Losses of the angle between two vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...errors import ShapeError
from ..base import apply
from ..composite import Composite
from ..pointwise import require_float

if TYPE_CHECKING:
    from ...tensor import Tensor
from .base import Loss, check_same_shape


@dataclass(frozen=True)
class CosineSimilarity(Composite):
    """Cosine of the angle between two values along an axis, which is dropped; they may broadcast.

    Arguments:
        axis: counted from the front of the broadcast shape.
        eps: least norm that is divided by.
    """

    axis: int = 1
    eps: float = 1e-8
    arity: ClassVar[tuple[int, int | None]] = (2, 2)

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        a, b = inputs
        require_float(self, a, b)
        product = a * b
        if not 0 <= self.axis < product.rank:
            raise ShapeError(f"CosineSimilarity has no axis {self.axis} in {product.type}")
        a, b = a.broadcast_to(product.shape), b.broadcast_to(product.shape)
        # The square is held above 0, not the root, whose derivative at 0 is infinite.
        norms = [(v * v).sum(self.axis).maximum(self.eps**2).sqrt() for v in (a, b)]
        return (product.sum(self.axis) / (norms[0] * norms[1]),)


@dataclass(frozen=True)
class CosineEmbeddingLoss(Loss):
    """1 - cos(a, b) where the target is 1, max(0, cos(a, b) - margin) where it is -1.

    Inputs are a and b (N, D) or (D,) and targets (N,) or ().

    Arguments:
        margin: from -1 to 1.
    """

    margin: float = 0.0
    arity: ClassVar[tuple[int, int | None]] = (3, 3)

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        a, b, target = inputs
        require_float(self, a, b)
        check_same_shape(self, a, b)
        if not a.rank or target.shape != a.shape[:-1]:
            raise ShapeError(
                f"{self.name} of {a.type} takes targets of {a.shape[:-1]}, got {target.type}"
            )
        cosine = apply(CosineSimilarity(a.rank - 1), a, b)
        apart = (cosine - self.margin).relu()
        return (self.reduced(target.equal(1).where(1.0 - cosine, apart), a),)
