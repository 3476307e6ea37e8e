"""Where the chain rule ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from .composite import Composite

if TYPE_CHECKING:
    from ..tensor import Tensor


@dataclass(frozen=True)
class StopGradient(Composite):
    """The input itself, as if it were constant (torch.Tensor.detach)."""

    differentiable: ClassVar[bool] = False

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return inputs
