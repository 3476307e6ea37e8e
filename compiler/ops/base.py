"""The contract of an operation.

An operation is a frozen dataclass: its fields are the attributes, so equality, hashing and JSON
come free. A *primitive* says what it means three times: `infer` (types), `gradient` (chain rule, as
graph nodes) and `evaluate` (plain NumPy, slow and obviously right: the oracle of every test). A
*composite* (see `composite.py`) says itself in other operations through `expand`.
"""

from __future__ import annotations

import dataclasses
import math
import pkgutil
import re
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ..errors import GraphError, ShapeError
from ..types import Array, DType, TensorType

if TYPE_CHECKING:
    from ..tensor import Tensor

_REGISTRY: dict[str, type[Op]] = {}

_FIELD_TYPES: dict[type[Op], dict[str, Any]] = {}

MAX_RANK = 64  # NumPy's own limit


class Structured(ABC):
    """Base of attributes with a JSON form of their own. They are frozen and hashable."""

    @abstractmethod
    def to_json(self) -> Any:
        """Plain JSON data."""

    @classmethod
    @abstractmethod
    def from_json(cls, data: Any) -> Self:
        """The equal attribute, from data that need not be trusted."""


@dataclass(frozen=True)
class Op:
    """Base of all operations.

    A base class that is no operation itself is declared as `class Unary(Op, abstract=True)`. What
    an operation must have raises NotImplementedError here and is not abstract in Python's sense:
    passes ask `isinstance` all the time, which such classes make several times slower.

    Class attributes:
        arity: numbers of inputs it takes, as (least, most); most is None for any number.
        differentiable: False where the derivative is zero or does not exist (comparisons, argmax).
    """

    arity: ClassVar[tuple[int, int | None]] = (1, 1)
    differentiable: ClassVar[bool] = True

    def __init_subclass__(cls, abstract: bool = False) -> None:
        if not abstract:
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
        return short_name(self.name)

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
        fields = ", ".join(f"{k}={format_attribute(v)}" for k, v in self.attributes().items())
        return f"{self.name}({fields})" if fields else self.name


def short_name(name: str) -> str:
    """`log_softmax` for LogSoftmax."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def format_attribute(value: Any) -> str:
    """An attribute as people read it: `(2, 2)`, `reflect`, `float32[3]`."""
    if isinstance(value, tuple):
        inside = ", ".join(format_attribute(v) for v in value)
        return f"({inside}{',' if len(value) == 1 else ''})"
    return str(value.value) if isinstance(value, Enum) else str(value)


def apply(op: Op, first: Tensor, *others: Tensor) -> Tensor:
    """A node for a single-output `op` in the graph of its inputs."""
    (result,) = first.graph.apply(op, first, *others)
    return result


def apply_all(op: Op, first: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """A node for `op` in the graph of its inputs; all of its outputs."""
    return first.graph.apply(op, first, *others)


def op_to_json(op: Op) -> dict[str, Any]:
    """Plain JSON data, NaN and infinities as text; `op_from_json` gives the equal operation."""
    return {"op": op.name} | {k: _encode(v) for k, v in op.attributes().items()}


def op_from_json(data: dict[str, Any]) -> Op:
    """The operation, from data that need not be trusted.

    Raises:
        GraphError: for operations or attributes that do not exist or do not fit.
    """
    fields = dict(data)
    name = fields.pop("op", None)
    cls = op_class(name) if isinstance(name, str) else None
    if cls is None:
        raise GraphError(f"there is no operation called {name!r}")
    hints = field_types(cls)
    unknown = set(fields) - set(hints)
    if unknown:
        raise GraphError(f"{name} has no attribute {', '.join(sorted(unknown))}")
    try:
        return cls(**{k: _decode(v, hints[k]) for k, v in fields.items()})
    except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError) as error:
        raise GraphError(f"attributes of {name} do not fit: {error}") from error


def family(op: Op) -> str:
    """The file or folder of this package that an operation is from: conv, pointwise …"""
    return type(op).__module__.removeprefix(f"{__package__}.").partition(".")[0]


def op_classes() -> dict[str, type[Op]]:
    """All operations by name."""
    package = __package__ or ""
    for module in pkgutil.iter_modules(import_module(package).__path__):
        import_module(f"{package}.{module.name}")
    return dict(sorted(_REGISTRY.items()))


def op_class(name: str) -> type[Op] | None:
    """The operation of that class name, in whatever module it is; None when there is none."""
    return _REGISTRY.get(name) or op_classes().get(name)


def field_types(cls: type[Op]) -> dict[str, Any]:
    """The declared type of each attribute of an operation."""
    if cls not in _FIELD_TYPES:
        hints = typing.get_type_hints(cls)
        _FIELD_TYPES[cls] = {f.name: hints[f.name] for f in dataclasses.fields(cls)}
    return _FIELD_TYPES[cls]


def _encode(value: Any) -> Any:
    if isinstance(value, Structured):
        return value.to_json()
    if isinstance(value, Op):
        return op_to_json(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, TensorType):
        return [list(value.shape), value.dtype.value]
    if isinstance(value, tuple):
        return [_encode(v) for v in value]
    if isinstance(value, float):
        # JSON has no word for these, and float() reads them back from text.
        return float(value) if math.isfinite(value) else str(float(value))
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(f"{value!r} of type {type(value).__name__} has no JSON form")


def _decode(value: Any, hint: Any) -> Any:
    """JSON data as the declared type of a field; ValueError or TypeError where it does not fit."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Union or origin is types.UnionType:
        return _decode_union(value, options)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise TypeError(f"{value!r} is no list")
        if len(options) == 2 and options[1] is Ellipsis:
            return tuple(_decode(v, options[0]) for v in value)
        return tuple(_decode(v, h) for v, h in zip(value, options, strict=True))
    if hint is TensorType:
        return type_from_json(value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(value)
    if isinstance(hint, type) and issubclass(hint, Structured):
        return hint.from_json(value)
    if isinstance(hint, type) and issubclass(hint, Op):
        return _decode_op(value, hint)
    if hint is float:
        return _decode_float(value)
    if type(value) is not hint:
        raise TypeError(f"{value!r} is not {getattr(hint, '__name__', hint)}")
    return value


def _decode_op(value: Any, hint: type[Op]) -> Op:
    op = op_from_json(value) if isinstance(value, dict) else value
    if not isinstance(op, hint):
        raise TypeError(f"{value!r} is no {hint.__name__}")
    return op


def _decode_union(value: Any, options: tuple[Any, ...]) -> Any:
    """The first of several types that fits."""
    if value is None and type(None) in options:
        return None
    for option in options:
        if option is not type(None):
            try:
                return _decode(value, option)
            except (TypeError, ValueError):
                continue
    raise TypeError(f"{value!r} is none of {', '.join(str(o) for o in options)}")


def _decode_float(value: Any) -> float:
    if isinstance(value, str) and value in ("nan", "inf", "-inf"):
        return float(value)
    if type(value) in (int, float):
        return float(value)
    raise TypeError(f"{value!r} is not float")


def type_from_json(value: Any) -> TensorType:
    """A TensorType from `[[2, 3], "float32"]`; ValueError or TypeError where it is none."""
    shape, dtype = value
    if not isinstance(shape, list) or not all(type(e) is int and e >= 0 for e in shape):
        raise ValueError(f"{shape!r} is no shape")
    result = TensorType(tuple(shape), DType(dtype))
    if result.nbytes >= 2**63 or max(shape, default=0) >= 2**63 or len(shape) > MAX_RANK:
        raise ValueError(f"{result} is larger than any memory")
    return result
