"""What losses share: an element by element formula, and how its results are reduced."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from ...errors import ShapeError
from ..composite import Composite
from ..pointwise import require_float

if TYPE_CHECKING:
    from ...tensor import Tensor


class Reduction(Enum):
    """How the losses of single elements become the result."""

    MEAN = "mean"
    SUM = "sum"
    NONE = "none"
    BATCH_MEAN = "batchmean"


@dataclass(frozen=True)
class Loss(Composite, abstract=True):
    """Base of the losses.

    Arguments:
        reduction: mean over all losses, their sum, all of them, or their sum divided by the batch.
    """

    reduction: Reduction = Reduction.MEAN
    arity: ClassVar[tuple[int, int | None]] = (2, 2)

    def formula(self, x: Tensor, target: Tensor) -> Tensor:
        """The loss of each element, or of each sample."""
        raise NotImplementedError(f"{self.name} has no formula")

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        x, target = inputs
        require_float(self, x, target)
        check_same_shape(self, x, target)
        return (self.reduced(self.formula(x, target), x),)

    def reduced(self, loss: Tensor, x: Tensor) -> Tensor:
        """The losses of a batch `x` after the reduction."""
        if self.reduction is Reduction.NONE:
            return loss
        if self.reduction is Reduction.MEAN:
            return loss.mean()
        return loss.sum() / self.divisor(loss, x)

    def spread(self, signal: Tensor, loss: Tensor, x: Tensor) -> Tensor:
        """The transpose of `reduced`: the signal of each loss."""
        if self.reduction is Reduction.NONE:
            return signal
        return (signal / self.divisor(loss, x)).broadcast_to(loss.shape)

    def divisor(self, loss: Tensor, x: Tensor) -> float:
        """What the sum of the losses is divided by."""
        if self.reduction is Reduction.SUM:
            return 1.0
        count = loss.type.size if self.reduction is Reduction.MEAN else x.shape[0] if x.rank else 1
        return float(count) if count else math.nan


def check_same_shape(op: Composite, x: Tensor, target: Tensor) -> None:
    """
    Raises:
        ShapeError: when prediction and target have different shapes.
    """
    if x.shape != target.shape:
        raise ShapeError(
            f"{op.name} compares values of one shape, got {x.type} and {target.type}; reshape one"
        )
