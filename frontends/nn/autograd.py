"""Gradients inside of `forward`, and where none flow: `torch.autograd.grad`, `torch.no_grad`.

A gradient is part of the graph, so that it can be used like any other value: in a penalty, or to
change an image by its sign.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ...compiler.autodiff import gradients
from ...compiler.errors import GradientError
from ...compiler.tensor import Tensor
from .context import current_trace, require_trace
from .function import Function, FunctionContext


@contextmanager
def set_grad_enabled(mode: bool) -> Iterator[None]:
    """Gradients flow through what is computed inside, or not; as `with` or as a decorator."""
    trace = current_trace()
    if trace is None:
        yield
        return
    with trace.graph.scope(detached=not mode):
        yield


@contextmanager
def no_grad() -> Iterator[None]:
    """What is computed inside counts as constant: no gradient flows through. Also a decorator.

    Modules called on arrays compute no gradients anyway.
    """
    with set_grad_enabled(False):
        yield


inference_mode = no_grad


@contextmanager
def enable_grad() -> Iterator[None]:
    """Gradients flow through what is computed inside, also inside of `no_grad`."""
    with set_grad_enabled(True):
        yield


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Any, ...]:
    """Derivatives of values of the network by others, inside of `forward` or a traced function.

    Arguments:
        outputs: what is differentiated; the sum of all their elements counts.
        inputs: with respect to what: inputs, parameters or anything between.
        grad_outputs: weights of the elements of the outputs, ones by default.
        retain_graph: graphs stay anyway.
        create_graph: whether gradients flow through the result, as a penalty on it needs.
        allow_unused: None for an input that the outputs do not depend on.

    Returns:
        A tensor of the shape of each input.

    Raises:
        GradientError: outputs do not depend on an input, or are no floats.
    """
    graph = require_trace("a gradient").graph
    of, wrt = _several(outputs), _several(inputs)
    seeds = None if grad_outputs is None else _several(grad_outputs)
    found = gradients(graph, of, wrt, seeds)
    for x, signal in zip(wrt, found, strict=True):
        if signal is None and not allow_unused:
            raise GradientError(
                f"{', '.join(str(y.value) for y in of)} does not depend on {x.value}; "
                "leave it out or give allow_unused=True"
            )
    return tuple(s if s is None or create_graph else s.detach() for s in found)


def _several(tensors: Tensor | Sequence[Tensor]) -> list[Tensor]:
    return [tensors] if isinstance(tensors, Tensor) else list(tensors)


__all__ = [
    "Function",
    "FunctionContext",
    "enable_grad",
    "grad",
    "inference_mode",
    "no_grad",
    "set_grad_enabled",
]
