"""What a module keeps: parameters, which are learned, and buffers, which are not."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np

from ...compiler.graph import Graph, Value
from ...compiler.tensor import Tensor
from ...compiler.types import Array, DType, TensorType
from .context import require_trace


class State(Tensor):
    """An array that a module keeps. Inside `forward` it is a tensor like any other.

    The same object in several places of a network is one node of the graph: that is how weights
    are tied.

    Arguments:
        data: contents; anything NumPy takes as an array, kept without a copy where it is one;
            Python floats become float32.
    """

    kind: ClassVar[str] = "state"
    # The array that programs which train it work on, once there are any; the contents are
    # somewhere else after `data` was given anew.
    adopted: Array | None

    def __init__(self, data: object) -> None:
        self.adopted = None
        array = np.asarray(data)
        if array.dtype == np.float64 and not hasattr(data, "dtype"):
            array = array.astype(np.float32)  # Python's floats have no dtype of their own
        self.data: Array = array
        DType.of(array.dtype)

    @property
    def graph(self) -> Graph:
        return require_trace(repr(self)).graph

    @property
    def value(self) -> Value:
        return require_trace(repr(self)).value_of(self)

    @property
    def type(self) -> TensorType:
        return TensorType(tuple(self.data.shape), DType.of(self.data.dtype))

    def declare(self, graph: Graph, name: str) -> Tensor:
        """The node that stands for it in a graph."""
        raise NotImplementedError(f"{type(self).__name__} has no node of its own")

    def numpy(self) -> Array:
        """The contents."""
        return self.data

    def copy_(self, source: object) -> Self:
        """Takes other contents, broadcast to its shape. Like all that end in _, not in forward."""
        self.data[...] = np.asarray(source)
        return self

    def fill_(self, value: float) -> Self:
        """One number everywhere."""
        return self.copy_(value)

    def zero_(self) -> Self:
        """0 everywhere."""
        return self.fill_(0.0)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.data, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.type})"


class Parameter(State):
    """State that is learned.

    Arguments:
        data: contents, of a float dtype where it is to be learned.
        requires_grad: False freezes it.
    """

    kind = "parameter"

    def __init__(self, data: object, requires_grad: bool = True) -> None:
        super().__init__(data)
        self.requires_grad = requires_grad

    def requires_grad_(self, requires_grad: bool = True) -> Parameter:
        """Freezes or thaws it; returns itself."""
        self.requires_grad = requires_grad
        return self

    def declare(self, graph: Graph, name: str) -> Tensor:
        return graph.parameter(self.data, name, trainable=self.requires_grad)


class Buffer(State):
    """State that is not learned, such as running means.

    Arguments:
        data: contents.
        persistent: whether it is part of the state dict.
    """

    kind = "buffer"

    def __init__(self, data: object, persistent: bool = True) -> None:
        super().__init__(data)
        self.persistent = persistent

    def declare(self, graph: Graph, name: str) -> Tensor:
        return graph.buffer(self.data, name)
