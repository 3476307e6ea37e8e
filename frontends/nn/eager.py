"""Modules called on NumPy arrays: traced once for each type of input, then run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ...compiler.errors import UsageError
from ...compiler.evaluate import evaluate
from ...compiler.tensor import Tensor
from ...compiler.types import Array
from . import init
from .module import Module
from .structure import hashable, map_structure
from .trace import Traced, bind, spec, trace_call

# What has been traced, by module; then by modes and types, for one version of all modules.
_TRACED: WeakKeyDictionary[Module, tuple[int, dict[Any, Traced]]] = WeakKeyDictionary()


def run(module: Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What `forward` returns, with arrays in place of tensors.

    Buffers that `forward` assigns, such as running means, keep their new contents. Every run draws
    new random numbers.

    Raises:
        UsageError: symbolic tensors were given where nothing is being traced.
    """
    arrays: list[Array] = []

    def collect(name: str, value: Any) -> Any:
        if isinstance(value, Tensor):
            raise UsageError(
                f"{type(module).__name__} was called on {value!r} outside of a trace; "
                "call it inside a module's forward or a traced function"
            )
        if not isinstance(value, np.ndarray):
            return value
        arrays.append(value)
        return spec(value)

    bound = bind(module, type(module).__name__, args, kwargs)
    types = map_structure(bound.args, collect), map_structure(bound.kwargs, collect)
    traced = _traced(module, *types)
    feeds = dict(zip(traced.inputs, arrays, strict=True))
    feeds |= {name: state.data for name, state in traced.states.items()}
    if "rng.step" in traced.graph:
        feeds |= {"rng.seed": np.array(init.current_seed()), "rng.step": np.array(init.next_run())}
    results = evaluate(traced.graph, feeds)
    for name, array in results.updates.items():
        if name in traced.states:
            traced.states[name].data = array
    return map_structure(traced.result, lambda _, output: output and results.outputs[output])


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
        known[key] = trace_call(module, args, kwargs)
        _TRACED[module] = Module._version, known
    return known[key]
