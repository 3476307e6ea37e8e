"""Activations that leave out what is small, and gates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..errors import ShapeError
from .activation import Activation, Elu, Sloped
from .base import apply
from .composite import Composite
from .pointwise import require_float

if TYPE_CHECKING:
    from ..tensor import Tensor


@dataclass(frozen=True)
class Threshold(Sloped):
    """x where x > threshold, else a value (torch.nn.Threshold)."""

    threshold: float
    value: float

    def formula(self, x: Tensor) -> Tensor:
        return (x > self.threshold).where(x, self.value)

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        return (x > self.threshold).cast(x.dtype)


@dataclass(frozen=True)
class HardShrink(Sloped):
    """x where |x| > bound, else 0 (torch.nn.Hardshrink, ONNX: Shrink)."""

    bound: float = 0.5

    def formula(self, x: Tensor) -> Tensor:
        return (x.abs() > self.bound).where(x, 0.0)

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        return (x.abs() > self.bound).cast(x.dtype)


@dataclass(frozen=True)
class SoftShrink(Sloped):
    """x moved by the bound towards 0, at which it stays (torch.nn.Softshrink, ONNX: Shrink)."""

    bound: float = 0.5

    def formula(self, x: Tensor) -> Tensor:
        return x - x.clamp(-self.bound, self.bound)

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        return (x.abs() > self.bound).cast(x.dtype)


@dataclass(frozen=True)
class TanhShrink(Sloped):
    """x - tanh(x) (torch.nn.Tanhshrink)."""

    def formula(self, x: Tensor) -> Tensor:
        return x - x.tanh()

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        return x.tanh().square()


@dataclass(frozen=True)
class Celu(Activation):
    """x where x > 0, else alpha * (e**(x / alpha) - 1) (Barron, 2017; ONNX: Celu)."""

    alpha: float = 1.0

    def formula(self, x: Tensor) -> Tensor:
        return self.alpha * apply(Elu(), x * (1.0 / self.alpha))


@dataclass(frozen=True)
class Glu(Composite):
    """The first half of an axis times the sigmoid of the second (Dauphin et al., 2017).

    Arguments:
        axis: counted from the front.
    """

    axis: int
    arity: ClassVar[tuple[int, int | None]] = (1, 1)

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        (x,) = inputs
        require_float(self, x)
        if not 0 <= self.axis < x.rank or x.shape[self.axis] % 2:
            raise ShapeError(f"{self} takes an axis of even extent, got {x.type}")
        value, gate = x.chunk(2, self.axis)
        return (value * gate.sigmoid(),)
