"""Dropout layers, which do nothing in inference mode, and other noise."""

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


class AlphaDropout(Dropout):
    """Elements are what SELU gives for minus infinity with probability p, then all are scaled and
    shifted, so that mean 0 and variance 1 stay (Klambauer et al., 2017).
    """

    def forward(self, input: Tensor) -> Tensor:
        return functions.alpha_dropout(input, self.p, self.training)


class FeatureAlphaDropout(Dropout):
    """AlphaDropout of whole channels of (N, C, *)."""

    def forward(self, input: Tensor) -> Tensor:
        return functions.feature_alpha_dropout(input, self.p, self.training)


class RReLU(Layer):
    """x where x >= 0, else slope * x: in training each element has a random slope between two, else
    all have their mean (Xu et al., 2015).
    """

    def __init__(self, lower: float = 1 / 8, upper: float = 1 / 3, inplace: bool = False) -> None:
        super().__init__()
        self.lower = lower
        self.upper = upper
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return functions.rrelu(input, self.lower, self.upper, self.training)

    def extra_repr(self) -> str:
        return f"lower={self.lower}, upper={self.upper}" + ", inplace=True" * self.inplace
