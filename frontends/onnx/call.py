"""One ONNX node as the function that imports it sees it: typed inputs and attributes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

from ...compiler.errors import OnnxError
from ...compiler.ops.base import Op, apply
from ...compiler.tensor import Tensor
from ...compiler.types import Array, DType, TensorType
from .proto import GraphProto, onnx_package

if TYPE_CHECKING:
    from .importer import Importer


@dataclass(frozen=True, eq=False)
class Weight:
    """An initialiser of floats: a parameter from the moment a node reads it as a tensor.

    Arguments:
        name: its ONNX name.
        array: its contents.
    """

    name: str
    array: Array


Operand: TypeAlias = Array | Weight | Tensor
Result: TypeAlias = Operand | Sequence[Operand | None]
Import: TypeAlias = Callable[["Call"], Result]

_T = TypeVar("_T")

OPERATORS: dict[tuple[str, str], Import] = {}


def operator(*names: str, domain: str = "") -> Callable[[Import], Import]:
    """Registers the function that imports the ONNX operators of these names."""

    def register(function: Import) -> Import:
        for name in names:
            OPERATORS[domain, name] = function
        return function

    return register


@dataclass(frozen=True, eq=False)
class Call:
    """An ONNX node.

    Arguments:
        importer: the import it is part of.
        name: of the node.
        operator: its operator.
        version: the operator set of its domain.
        inputs: what it reads; None for an optional input that is left out.
        attributes: decoded.
        outputs: whether each output is wanted.
    """

    importer: Importer
    name: str
    operator: str
    version: int
    inputs: tuple[Operand | None, ...]
    attributes: Mapping[str, Any]
    outputs: tuple[bool, ...]

    # -- inputs -----------------------------------------------------------------------------------

    def has(self, i: int) -> bool:
        """Whether input `i` is given."""
        return i < len(self.inputs) and self.inputs[i] is not None

    def operand(self, i: int) -> Operand:
        """Input `i`, whatever it is."""
        value = self.inputs[i] if i < len(self.inputs) else None
        if value is None:
            raise OnnxError(f"input {i} is missing")
        return value

    def x(self, i: int = 0) -> Tensor:
        """Input `i` as a tensor of the graph."""
        return self.importer.tensor(self.operand(i))

    def all(self) -> list[Tensor]:
        """All inputs as tensors."""
        return [self.x(i) for i in range(len(self.inputs))]

    def optional(self, i: int) -> Tensor | None:
        """Input `i` as a tensor, or None where it is left out."""
        return self.x(i) if self.has(i) else None

    def statistic(self, i: int) -> Tensor:
        """Input `i` as a tensor that is not learned, where it is an initialiser."""
        return self.importer.tensor(self.operand(i), learned=False)

    def known(self, i: int) -> Array:
        """The contents of input `i`.

        Raises:
            OnnxError: they depend on an input of the network.
        """
        return self.importer.known(self.operand(i), f"input {i}")

    def shape(self, i: int = 0) -> tuple[int, ...]:
        """The shape of input `i`."""
        value = self.operand(i)
        return tuple((value.array if isinstance(value, Weight) else value).shape)

    def dtype(self, i: int = 0) -> np.dtype[Any]:
        """The NumPy dtype of input `i`."""
        value = self.operand(i)
        if isinstance(value, Tensor):
            return value.dtype.numpy
        return (value.array if isinstance(value, Weight) else value).dtype

    # -- attributes and inputs that say how -------------------------------------------------------

    def integer(self, name: str, default: int | None = None) -> int:
        """An attribute."""
        return self._attribute(name, int, default)

    def number(self, name: str, default: float | None = None) -> float:
        """An attribute."""
        return float(self._attribute(name, float, default))

    def text(self, name: str, default: str | None = None) -> str:
        """An attribute."""
        return self._attribute(name, str, default)

    def flag(self, name: str, default: bool = False) -> bool:
        """An attribute of 0 or 1."""
        return bool(self._attribute(name, int, int(default)))

    def integers(self, name: str, default: Sequence[int] | None = None) -> tuple[int, ...]:
        """An attribute."""
        return tuple(self._attribute(name, tuple, None if default is None else tuple(default)))

    def numbers(self, name: str, default: Sequence[float] | None = None) -> tuple[float, ...]:
        """An attribute."""
        return tuple(self._attribute(name, tuple, None if default is None else tuple(default)))

    def subgraph(self, name: str) -> GraphProto:
        """An attribute that is a graph."""
        if name not in self.attributes:
            raise OnnxError(f"the attribute {name} is missing")
        value = self.attributes[name]
        if not isinstance(value, onnx_package().GraphProto):
            raise OnnxError(f"the attribute {name} is no graph")
        return value

    def given(self, name: str, i: int) -> tuple[int, ...] | None:
        """Integers: an attribute in older operator sets, input `i` in newer ones."""
        if name in self.attributes:
            return self.integers(name)
        if not self.has(i):
            return None
        return tuple(int(n) for n in self.known(i).reshape(-1))

    def given_number(self, name: str, i: int) -> float | None:
        """A number: an attribute in older operator sets, input `i` in newer ones."""
        if name in self.attributes:
            return float(self.attributes[name])
        return float(self.known(i).reshape(-1)[0]) if self.has(i) else None

    def _attribute(self, name: str, kind: type[_T], default: _T | None) -> _T:
        value = self.attributes.get(name, default)
        if value is None:
            raise OnnxError(f"the attribute {name} is missing")
        if not isinstance(value, kind):
            raise OnnxError(f"the attribute {name} is {value!r}, expected {kind.__name__}")
        return value

    # -- results ----------------------------------------------------------------------------------

    def apply(self, op: Op, *inputs: Tensor) -> Tensor:
        """A node for a single-output operation; of the ONNX node's inputs by default."""
        return apply(op, *(inputs or self.all()))

    def source(self, op: Op) -> Tensor:
        """A node for an operation without inputs."""
        (result,) = self.importer.graph.apply(op)
        return result

    def constant(self, value: Any, dtype: DType | None = None) -> Tensor:
        """A constant."""
        return self.importer.graph.constant(value, dtype)

    def filled(self, shape: Sequence[int], value: Any, dtype: DType) -> Tensor:
        """A tensor of equal elements."""
        extents = tuple(int(n) for n in shape)
        self.importer.check_size(TensorType(extents, dtype))
        return self.constant(value, dtype).broadcast_to(extents)

    def wants(self, i: int) -> bool:
        """Whether output `i` is read by anything."""
        return i < len(self.outputs) and self.outputs[i]
