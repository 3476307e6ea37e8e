"""The contract of an operation.

An operation is a frozen dataclass: its fields are the attributes, so equality, hashing and JSON come
free. A *primitive* says what it means three times: `infer` (types), `gradient` (chain rule, as graph
nodes) and `evaluate` (plain NumPy, slow and obviously right: the oracle of every test). A *composite*
(see `composite.py`) says itself in other operations through `expand`.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import GraphError, ShapeError
from ..types import Array, DType, TensorType

if TYPE_CHECKING:
    from ..tensor import Tensor

_REGISTRY: dict[str, type[Op]] = {}


@dataclass(frozen=True)
class Op:
    """Base of all operations.

    Class attributes:
        arity: numbers of inputs it takes, as (least, most); most is None for any number.
        differentiable: False where the derivative is zero or does not exist (comparisons, argmax).
    """

    arity: ClassVar[tuple[int, int | None]] = (1, 1)
    differentiable: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        _REGISTRY[cls.__name__] = cls

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        """Types of the outputs.

        Raises:
            ShapeError, DTypeError: naming the numbers that clash; the graph adds node and line.
        """
        raise NotImplementedError(f"{self.name} has no infer")

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        """The outputs, by NumPy alone."""
        raise NotImplementedError(f"{self.name} has no evaluate")

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...] | None:
        """Itself in simpler operations, or None when it already is a primitive for these inputs."""
        return None

    def gradient(
        self,
        inputs: tuple[Tensor, ...],
        outputs: tuple[Tensor, ...],
        signals: tuple[Tensor | None, ...],
    ) -> Sequence[Tensor | None]:
        """The chain rule: for each input, d loss / d input as nodes of the same graph.

        Arguments:
            inputs: what the node reads.
            outputs: what the node gives (to be reused, as tanh does).
            signals: d loss / d output for each output; None where nothing flows back.

        Returns:
            One tensor an input, of the input's shape and dtype; None where nothing flows.
        """
        raise NotImplementedError(f"{self.name} has no gradient")

    @property
    def has_gradient(self) -> bool:
        """Whether the class has a chain rule of its own."""
        return type(self).gradient is not Op.gradient

    @property
    def name(self) -> str:
        """The operation's name as printed: the class name."""
        return type(self).__name__

    @property
    def short_name(self) -> str:
        """The name a node gets when the user gives none: `log_softmax` for LogSoftmax."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", self.name).lower()

    def attributes(self) -> dict[str, Any]:
        """The fields, by name, in order of declaration."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    def check_arity(self, count: int) -> None:
        """
        Raises:
            ShapeError: when the operation does not take `count` inputs.
        """
        least, most = self.arity
        if count < least or (most is not None and count > most):
            wanted = f"{least}" if most == least else f"{least} to {most or 'any number of'}"
            raise ShapeError(f"{self.name} takes {wanted} inputs, got {count}")

    def __str__(self) -> str:
        fields = ", ".join(f"{k}={_plain(v)}" for k, v in self.attributes().items())
        return f"{self.name}({fields})" if fields else self.name


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(_plain(v) for v in value)}{',' if len(value) == 1 else ''})"
    return str(value.value) if isinstance(value, Enum) else str(value)


def apply(op: Op, first: Tensor, *others: Tensor) -> Tensor:
    """A node for a single-output `op` in the graph of its inputs."""
    (result,) = first.graph.apply(op, first, *others)
    return result


def apply_all(op: Op, first: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """A node for `op` in the graph of its inputs; all of its outputs."""
    return first.graph.apply(op, first, *others)


def op_to_json(op: Op) -> dict[str, Any]:
    """Plain JSON data; `op_from_json` gives the equal operation back."""
    return {"op": op.name} | {k: _encode(v) for k, v in op.attributes().items()}


def op_from_json(data: dict[str, Any]) -> Op:
    """
    Raises:
        GraphError: for operations or attributes that do not exist.
    """
    fields = dict(data)
    name = fields.pop("op", None)
    cls = _REGISTRY.get(name) if isinstance(name, str) else None
    if cls is None:
        raise GraphError(f"there is no operation called {name!r}")
    hints = _hints(cls)
    unknown = set(fields) - set(hints)
    if unknown:
        raise GraphError(f"{name} has no attribute {', '.join(sorted(unknown))}")
    try:
        return cls(**{k: _decode(v, hints[k]) for k, v in fields.items()})
    except (TypeError, ValueError, KeyError) as error:
        raise GraphError(f"attributes of {name} do not fit: {error}") from error


def op_names() -> list[str]:
    """The names of all operations, for error messages and documentation."""
    return sorted(_REGISTRY)


def _encode(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, TensorType):
        return [list(value.shape), value.dtype.value]
    if isinstance(value, tuple):
        return [_encode(v) for v in value]
    return value


@cache
def _hints(cls: type[Op]) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def _decode(value: Any, hint: Any) -> Any:
    """JSON data back to the declared type of a field."""
    origin = typing.get_origin(hint)
    if origin is typing.Union or origin is types.UnionType:
        options = typing.get_args(hint)
        if value is None and type(None) in options:
            return None
        rest = [o for o in options if o is not type(None)]
        nested = [o for o in rest if typing.get_origin(o) is tuple]
        if isinstance(value, list) and nested:
            return _decode(value, nested[0])
        plain = [o for o in rest if typing.get_origin(o) is not tuple]
        return _decode(value, plain[0]) if len(plain) == 1 else value
    if origin is tuple:
        items = typing.get_args(hint)
        if len(items) == 2 and items[1] is Ellipsis:
            return tuple(_decode(v, items[0]) for v in value)
        return tuple(_decode(v, h) for v, h in zip(value, items, strict=True))
    if hint is TensorType:
        shape, dtype = value
        return TensorType(tuple(int(e) for e in shape), DType(dtype))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(value)
    if hint is float and isinstance(value, int):
        return float(value)
    if hint in (int, float, str, bool) and type(value) is not hint:
        raise TypeError(f"{value!r} is not {hint.__name__}")
    return value
