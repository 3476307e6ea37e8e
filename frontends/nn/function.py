"""Functions with a gradient of their own: `torch.autograd.Function`.

What a subclass says is traced to two graphs, one for each direction, which are the attributes of
one node: a network that has it can be saved, drawn and differentiated twice like any other.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, NoReturn

from ...compiler.body import Body
from ...compiler.errors import QuernError, ShapeError, UsageError
from ...compiler.graph import Graph
from ...compiler.ops.base import short_name
from ...compiler.ops.custom import CustomGradient
from ...compiler.tensor import Tensor
from .context import FunctionTrace, require_trace
from .eager import on_arrays
from .state import Parameter, State
from .structure import map_structure


class FunctionContext:
    """What `forward` leaves to `backward`: saved tensors, and attributes of any name.

    Attributes:
        needs_input_grad: for each argument of `apply`, whether a gradient may flow to it.
    """

    def __init__(self, needs_input_grad: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs_input_grad
        self.saved_tensors: tuple[Tensor | None, ...] = ()
        self._constant: tuple[Tensor, ...] = ()

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Tensors for `backward`, which finds them in `saved_tensors`."""
        self.saved_tensors = tensors

    def mark_non_differentiable(self, *outputs: Tensor) -> None:
        """No gradient flows from these outputs."""
        self._constant = outputs

    def set_materialize_grads(self, value: bool) -> None:
        """Nothing: what an output that nobody reads sends back is always a tensor of zeros."""

    def mark_dirty(self, *tensors: Tensor) -> NoReturn:
        """
        Raises:
            UsageError: always; tensors do not change.
        """
        raise UsageError("tensors do not change, none is dirty; return a new one from forward")


class Function:
    """Base of functions whose gradient the user says.

        class Sign(qn.autograd.Function):            # a straight-through estimator
            @staticmethod
            def forward(ctx, x):
                ctx.save_for_backward(x)
                return x.sign()

            @staticmethod
            def backward(ctx, grad):
                (x,) = ctx.saved_tensors
                return grad * (x.abs() <= 1)

        y = Sign.apply(x)

    `forward(ctx, *args)` returns a tensor or a tuple of them; `backward(ctx, *grads)` gets
    d loss / d output for each (None for one that is not of floats), and returns d loss / d argument
    for each argument, None where nothing flows. Both are called once, on symbolic tensors. Where
    there is a `setup_context(ctx, inputs, output)`, `forward` takes no ctx. Second derivatives
    are those of `backward`; what it takes from `forward`, other than inputs and outputs, is
    constant to them.
    """

    @staticmethod
    def forward(*args: Any) -> Any:
        """What it computes."""
        raise UsageError("a Function has no forward(); say there what it computes")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """The chain rule."""
        raise UsageError("a Function has no backward(); say there how gradients flow")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> Any:
        """Saves what `backward` needs, where `forward` takes no ctx."""

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Calls it: on tensors, or on arrays at once. Tensors inside of lists are no inputs.

        Raises:
            UsageError: `forward` or `backward` return what they should not.
            ShapeError: a gradient has another shape than the input.
        """

        def applied(*args: Any) -> Any:
            return _apply(cls, args)

        applied.__name__ = cls.__name__
        return on_arrays(applied)(*args)


def _apply(cls: type[Function], args: tuple[Any, ...]) -> Any:
    given = [a for a in args if isinstance(a, Tensor)]
    if not given:
        raise UsageError(f"{cls.__name__} is applied to no tensor, so it has no gradient")
    outer = require_trace(cls.__name__)
    inside = FunctionTrace(Graph(cls.__name__), seed=outer.seed, outer=outer)
    ctx = FunctionContext(tuple(_needs_grad(a) for a in args))
    try:
        with inside.running():
            forward, backward, wrt, constant, single = _Tracing(cls, ctx, args, inside).bodies()
    except QuernError as error:
        raise error.unlocated() from None
    op = CustomGradient(forward, backward, wrt)
    name = short_name(cls.__name__)
    outputs = outer.graph.apply(op, *given, *inside.captured, name=name)
    outputs = tuple(y.detach() if i in constant else y for i, y in enumerate(outputs))
    return outputs[0] if single else outputs


class _Tracing:
    """A function on its way to two bodies."""

    def __init__(
        self, cls: type[Function], ctx: FunctionContext, args: tuple[Any, ...], trace: FunctionTrace
    ) -> None:
        self.cls, self.ctx, self.trace, self.graph = cls, ctx, trace, trace.graph
        names = iter(_argument_names(cls, len(args)))
        self.args = [
            self.graph.input(a.type, n) if isinstance(a, Tensor) else a
            for a, n in zip(args, names, strict=True)
        ]

    def bodies(self) -> tuple[Body, Body, tuple[int, ...], set[int], bool]:
        """Forward, backward, inputs with a gradient, constant outputs, whether there is one."""
        result = self._forward()
        single = isinstance(result, Tensor)
        outputs = [result] if single else list(result) if isinstance(result, tuple | list) else []
        if not outputs or not all(isinstance(y, Tensor) for y in outputs):
            raise UsageError(f"forward of {self.cls.__name__} returns {result!r}, give tensors")
        self.graph.outputs = {f"output{i}": y.value for i, y in enumerate(outputs)}
        forward = Body.of(self.graph)
        constant = {i for i, y in enumerate(outputs) for c in self.ctx._constant if c is y}
        captured = len(self.trace.captured)
        found = self._backward(outputs)
        if len(self.trace.captured) > captured:
            name = self.trace.captured[captured].value
            raise UsageError(
                f"backward of {self.cls.__name__} reads {name}, which forward does not; hand it to "
                "apply, and save it for backward"
            )
        self.graph.name = f"{self.cls.__name__}.backward"
        self.graph.outputs = {f"grad{i}": g.value for i, g in found.items()}
        return forward, Body.of(self.graph), tuple(found), constant, single

    def _forward(self) -> Any:
        if self.cls.setup_context is Function.setup_context:
            return self.cls.forward(self.ctx, *self.args)
        result = self.cls.forward(*self.args)
        self.cls.setup_context(self.ctx, tuple(self.args), result)
        return result

    def _backward(self, outputs: Sequence[Tensor]) -> dict[int, Tensor]:
        """The gradient of each input tensor that has one, by its number."""
        inputs = [a.value for a in self.args if isinstance(a, Tensor)]
        given = [self.graph.input(y.type, f"output{i}") for i, y in enumerate(outputs)]
        signals = [
            self.graph.input(y.type, f"grad.output{i}") if y.dtype.is_float else None
            for i, y in enumerate(outputs)
        ]
        known = {y.value: there for y, there in zip(outputs, given, strict=True)}
        known |= {v: self.graph.tensor(v) for v in inputs}

        def saved(_: str, value: Any) -> Any:
            if not isinstance(value, Tensor) or isinstance(value, State):
                return value
            if value.graph is not self.graph:
                return value
            return known[value.value] if value.value in known else value.detach()

        for name, value in vars(self.ctx).items():
            vars(self.ctx)[name] = map_structure(value, saved)
        result = self.cls.backward(self.ctx, *signals)
        grads = list(result) if isinstance(result, tuple | list) else [result]
        while len(grads) > len(self.args) and grads[-1] is None:
            grads.pop()
        if len(grads) != len(self.args):
            raise UsageError(
                f"backward of {self.cls.__name__} returns {len(grads)} gradients for "
                f"{len(self.args)} arguments; give one for each, None where nothing flows"
            )
        found: dict[int, Tensor] = {}
        number = 0
        for argument, grad in zip(self.args, grads, strict=True):
            if grad is not None:
                found[number] = self._fitted(argument, grad)
            number += isinstance(argument, Tensor)
        return found

    def _fitted(self, x: Any, grad: Any) -> Tensor:
        """The gradient in the type of the input, where broadcasting was all that changed it."""
        if not isinstance(x, Tensor) or not x.dtype.is_float or not isinstance(grad, Tensor):
            what = x.type if isinstance(x, Tensor) else repr(x)
            raise UsageError(
                f"backward of {self.cls.__name__} gives {grad!r} for the argument {what}; "
                "tensors of floats have a gradient, give None for others"
            )
        lead = grad.rank - x.rank
        if lead < 0 or any(
            n not in (1, m) for n, m in zip(x.shape, grad.shape[lead:], strict=True)
        ):
            raise ShapeError(
                f"backward of {self.cls.__name__} gives {grad.type} for the argument {x.type}"
            )
        return grad.sum_to(x.shape).cast(x.dtype)


def _needs_grad(argument: Any) -> bool:
    if isinstance(argument, State):
        return isinstance(argument, Parameter) and argument.requires_grad
    return isinstance(argument, Tensor) and argument.dtype.is_float


def _argument_names(cls: type[Function], count: int) -> list[str]:
    """What `forward` calls its arguments."""
    parameters = list(inspect.signature(cls.forward).parameters.values())
    parameters = parameters[cls.setup_context is Function.setup_context :]
    plain = [p.name for p in parameters if p.kind is not inspect.Parameter.VAR_POSITIONAL]
    return [*plain, *(f"x{i}" for i in range(len(plain), count))][:count]
