"""From a module or a function to a graph: `forward` is run once, on symbolic tensors."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ...compiler.errors import QuernError, UsageError
from ...compiler.graph import Graph, user_location
from ...compiler.tensor import Tensor
from ...compiler.types import DType, TensorType
from . import init
from .context import Trace
from .module import Module
from .state import State
from .structure import map_structure


def spec(
    *shape: int | Sequence[int] | np.ndarray[Any, Any], dtype: DType | DTypeLike | None = None
) -> TensorType:
    """The type of an input: `spec(64, 1, 28, 28)`, or that of an array.

    Arguments:
        shape: extents, one by one or as one sequence; or an array, whose type it is then.
        dtype: element type; that of the array, or float32, by default.
    """
    first: Any = shape[0] if len(shape) == 1 else shape
    if isinstance(first, np.ndarray):
        return TensorType(first.shape, DType.of(dtype or first.dtype))
    extents = tuple(first) if isinstance(first, Sequence) else (first,)
    if not all(isinstance(n, int | np.integer) and n >= 0 for n in extents):
        raise UsageError(f"{extents} is no shape; give extents as whole numbers from 0")
    return TensorType(tuple(int(n) for n in extents), DType.of(dtype or DType.FLOAT32))


def trace(
    target: Module | Callable[..., Any],
    *specs: Any,
    name: str | None = None,
    training: bool | None = None,
    **named_specs: Any,
) -> Graph:
    """The graph of a module or function.

    Nodes are named after modules (`features.conv1`), parameters and buffers after their keys in the
    state dict, inputs after the arguments of `forward`. One tensor returned is the output `output`,
    those of a tuple are `output0`, `output1`, …, those of a dictionary have its keys. The contents
    of parameters and buffers are the module's own arrays, not copies.

    Arguments:
        target: what is traced. A function may call modules and use parameters that it has not been
            given; the network that it calls first keeps the keys of its state dict.
        specs: type of each argument: from `spec`, or an array, or tuples, lists and dictionaries of
            them. Other values are handed on as they are.
        name: of the graph; that of the class or function by default.
        training: True or False traces training or inference whatever mode the modules are in.
        named_specs: the same for arguments given by name.

    Raises:
        ShapeError, DTypeError: what clashes, with node and line.
        UsageError: the arguments do not fit `forward`, or it returns something else than tensors.
    """
    return trace_call(target, specs, named_specs, name, training).graph


@dataclass(frozen=True)
class Traced:
    """A graph, and how it belongs to the call it was traced from.

    Attributes:
        graph: the graph.
        inputs: names of the inputs in order of the call's arguments.
        result: what the call returned, with names of outputs in place of tensors.
        states: node name -> the state it stands for.
        observed: hooks to be called after a run: hook, module, and inputs and output with names of
            outputs in place of tensors.
    """

    graph: Graph
    inputs: tuple[str, ...]
    result: Any
    states: Mapping[str, State]
    observed: tuple[tuple[Any, Module, Any, Any], ...] = ()


def trace_call(
    target: Module | Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    name: str | None = None,
    training: bool | None = None,
    observe: bool = False,
) -> Traced:
    """`trace`, with everything that is needed to run the graph in place of the call."""
    title = name or _title(target)
    bound = bind(target, title, args, kwargs)
    graph = Graph(title)
    inputs: list[str] = []

    def declare(name: str, given: Any) -> Any:
        if not isinstance(given, TensorType | np.ndarray):
            return given
        type = given if isinstance(given, TensorType) else spec(given)
        tensor = graph.input(type, name)
        inputs.append(tensor.value.node)
        return tensor

    _name_arguments(bound, declare)
    state = Trace(graph, training, init.current_seed(), observed=[] if observe else None)
    with state.running():
        if isinstance(target, Module):
            state.register(target, "")
        try:
            result = target(*bound.args, **bound.kwargs)
        except QuernError as error:
            raise error.at(title, user_location(error.__traceback__)) from None
        result = _declare_outputs(graph, title, result)
    observed = tuple(
        (hook, module, *(map_structure(v, _watch(graph)) for v in values))
        for hook, module, *values in state.observed or ()
    )
    return Traced(graph, tuple(inputs), result, state.nodes, observed)


def _watch(graph: Graph) -> Callable[[str, Any], Any]:
    """Puts a name of an output in the place of every tensor."""

    def watch(_: str, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        name = f"observed.{value.value}"
        graph.outputs[name] = value.value
        return Observed(name)

    return watch


class Observed(str):
    """The name of an output that a hook is given."""


def _title(target: Module | Callable[..., Any]) -> str:
    if isinstance(target, Module):
        return target._get_name()
    name = getattr(target, "__name__", "graph")
    return "graph" if name == "<lambda>" else name


def bind(
    target: Module | Callable[..., Any], title: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> inspect.BoundArguments:
    """Arguments in the order of the parameters.

    Raises:
        UsageError: they do not fit.
    """
    if not callable(target):
        raise UsageError(f"{target!r} is neither a module nor a function")
    signature = inspect.signature(target.forward if isinstance(target, Module) else target)
    try:
        return signature.bind(*args, **kwargs)
    except TypeError as error:
        takes = ", ".join(signature.parameters) or "no arguments"
        raise UsageError(f"{title} takes {takes}: {error}") from None


def _name_arguments(bound: inspect.BoundArguments, declare: Callable[[str, Any], Any]) -> None:
    """Puts an input in the place of every type among the arguments."""
    for name, given in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            parts = enumerate(given)
            bound.arguments[name] = tuple(map_structure(v, declare, f"{name}{i}") for i, v in parts)
        elif kind is inspect.Parameter.VAR_KEYWORD:
            bound.arguments[name] = map_structure(given, declare)
        else:
            bound.arguments[name] = map_structure(given, declare, name)


def _declare_outputs(graph: Graph, title: str, result: Any) -> Any:
    """Names the tensors returned; gives the same structure of names."""

    def declare(name: str, value: Any) -> str | None:
        if value is None:
            return None
        if not isinstance(value, Tensor):
            raise UsageError(f"{title} returns {value!r} where a tensor is wanted")
        name = name or "output"
        if name in graph.outputs:
            raise UsageError(f"{title} returns two outputs called {name}")
        graph.outputs[name] = value.value
        return name

    if isinstance(result, tuple | list) and not hasattr(result, "_fields"):
        parts = [map_structure(v, declare, f"output{i}") for i, v in enumerate(result)]
        names = tuple(parts) if isinstance(result, tuple) else parts
    else:
        names = map_structure(result, declare)
    if not graph.outputs:
        raise UsageError(f"{title} returns nothing; return what it computes")
    return names
