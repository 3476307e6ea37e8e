"""Modules and functions called on NumPy arrays: traced, modules once for each type of input, then
run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from ...compiler.errors import UsageError
from ...compiler.evaluate import evaluate
from ...compiler.graph import Graph
from ...compiler.tensor import Tensor
from ...compiler.types import Array
from . import init
from .annotations import checked
from .context import current_trace
from .module import Module
from .state import State
from .structure import hashable, map_structure
from .trace import Observed, Traced, bind, spec, trace_call

P = ParamSpec("P")
R = TypeVar("R")

# What has been traced, by module; then by modes and types, for one version of all modules.
_TRACED: WeakKeyDictionary[Module, tuple[int, dict[Any, Traced]]] = WeakKeyDictionary()


def on_arrays(function: Callable[P, R]) -> Callable[P, R]:
    """The same function of tensors, which runs at once where there is no graph to build on: no
    tensor is given and nothing is being traced. Elsewhere arrays beside tensors are constants.
    """
    checking = checked(function)

    @wraps(function)
    def either(*args: P.args, **kwargs: P.kwargs) -> R:
        given = _leaves((args, kwargs))
        graph = _graph_of(given)
        if graph is None:
            result: R = run(checking, args, kwargs)
            return result
        if not any(isinstance(a, np.ndarray) for a in (*args, *kwargs.values())):
            return checking(*args, **kwargs)
        floats = (t.dtype for t in given if isinstance(t, Tensor) and t.dtype.is_float)
        like = next(floats, None)

        def constant(value: Any) -> Any:
            if not isinstance(value, np.ndarray):
                return value
            return graph.constant(value, like if value.dtype.kind == "f" else None)

        return checking(*(constant(a) for a in args), **{k: constant(a) for k, a in kwargs.items()})

    return either


def _leaves(structure: Any) -> list[Any]:
    found: list[Any] = []
    map_structure(structure, lambda _, value: found.append(value))
    return found


def _graph_of(given: Sequence[Any]) -> Graph | None:
    """The graph that a function of these builds on: that of a tensor, or of the trace."""
    own = next((t for t in given if isinstance(t, Tensor) and not isinstance(t, State)), None)
    if own is not None:
        return own.graph
    trace = current_trace()
    return trace.graph if trace is not None else None


def run(module: Module | Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What `forward` or a function returns, with arrays in place of tensors.

    Buffers that `forward` assigns, such as running means, keep their new contents. Every run draws
    new random numbers.

    Raises:
        UsageError: symbolic tensors were given where nothing is being traced, or no arrays at all.
    """
    arrays: list[Array] = []
    title = type(module).__name__ if isinstance(module, Module) else module.__name__

    def collect(name: str, value: Any) -> Any:
        if isinstance(value, State):
            return value
        if isinstance(value, Tensor):
            raise UsageError(
                f"{title} was called on {value!r} outside of a trace; "
                "call it inside a module's forward or a traced function"
            )
        if not hasattr(value, "__array__") or isinstance(value, np.generic):
            return value
        array = np.asarray(value)
        arrays.append(array)
        return spec(array)

    bound = bind(module, title, args, kwargs)
    types = map_structure(bound.args, collect), map_structure(bound.kwargs, collect)
    traced = _traced(module, *types) if isinstance(module, Module) else trace_call(module, *types)
    feeds = dict(zip(traced.inputs, arrays, strict=True))
    feeds |= {name: state.data for name, state in traced.states.items()}
    if "rng.step" in traced.graph:
        feeds |= {"rng.seed": np.array(init.current_seed()), "rng.step": np.array(init.next_run())}
    results = evaluate(traced.graph, feeds)
    for name, array in results.updates.items():
        if name in traced.states:
            traced.states[name].data = array
    for hook, called, *values in traced.observed:
        told = hook(
            called, *(map_structure(v, lambda _, x: _array_of(x, results.outputs)) for v in values)
        )
        if told is not None:
            raise UsageError(
                f"the hook of {type(called).__name__} returns {type(told).__name__}; outputs are "
                "replaced in traces, compile the network in place of calling it"
            )
    return map_structure(traced.result, lambda _, output: output and results.outputs[output])


def _array_of(value: Any, outputs: Mapping[str, Array]) -> Any:
    return outputs[value] if isinstance(value, Observed) else value


def _traced(module: Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Traced:
    version, known = _TRACED.get(module, (-1, {}))
    if version != Module._version:
        known = {}
    key = (
        tuple(part.training for part in module.modules()),
        tuple(state.type for _, state in module._named_states()),
        hashable(args),
        hashable(kwargs),
    )
    if key not in known:
        known[key] = trace_call(module, args, kwargs, observe=True)
        _TRACED[module] = Module._version, known
    return known[key]
