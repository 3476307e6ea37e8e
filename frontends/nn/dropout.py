"""Dropout layers. In inference mode they do nothing."""

from __future__ import annotations

from ...compiler.errors import UsageError
from ...compiler.tensor import Tensor
from .functional import dropout as functions
from .module import Layer


class Dropout(Layer):
    """Elements are 0 with probability p, else divided by 1 - p (Srivastava et al., 2014)."""

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise UsageError(f"the p of {type(self).__name__} is from 0 to 1, got {p}")
        self.p = p
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return functions.dropout(input, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Dropout1d(Dropout):
    """Whole channels of (N, C, L) or (C, L) are 0 with probability p, else divided by 1 - p."""

    def forward(self, input: Tensor) -> Tensor:
        return functions.dropout1d(input, self.p, self.training)


class Dropout2d(Dropout):
    """Whole channels of (N, C, H, W) are 0 with probability p, else divided by 1 - p."""

    def forward(self, input: Tensor) -> Tensor:
        return functions.dropout2d(input, self.p, self.training)


class Dropout3d(Dropout):
    """Whole channels of (N, C, D, H, W) are 0 with probability p, else divided by 1 - p."""

    def forward(self, input: Tensor) -> Tensor:
        return functions.dropout3d(input, self.p, self.training)
