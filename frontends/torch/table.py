"""The table of ATen operators that there are functions for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ...compiler.errors import UsageError
from ...compiler.graph import Graph
from ...compiler.tensor import Tensor
from ...compiler.types import DType
from ..nn.context import require_trace

Operator = Callable[..., Any]
F = TypeVar("F", bound=Operator)

# Full name of an operator, with its overload, such as "aten.add.Tensor", to what takes its
# arguments, in PyTorch's order and with PyTorch's names, and gives its result.
OPERATORS: dict[str, Operator] = {}


def operator(*names: str) -> Callable[[F], F]:
    """Enters a function under names of operators of `aten`."""

    def enter(function: F) -> F:
        OPERATORS.update({f"aten.{name}": function for name in names})
        return function

    return enter


def enter_methods(overloads: str, names: str) -> None:
    """Enters methods of tensors for the operators of their names, under each of the overloads."""
    for name in names.split():
        OPERATORS.update(
            {f"aten.{name}.{kind}": getattr(Tensor, name) for kind in overloads.split()}
        )


def graph() -> Graph:
    """The graph that is being built."""
    return require_trace("an operator").graph


def dtype_of(torch_dtype: Any) -> DType:
    """
    Raises:
        DTypeError: values of that type are not supported.
    """
    return DType.of(str(torch_dtype).removeprefix("torch."))


def refuse_unless(condition: bool, what: str) -> None:
    """
    Raises:
        UsageError: `what` is not supported.
    """
    if not condition:
        raise UsageError(f"{what} is not supported")
