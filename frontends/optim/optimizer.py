"""What optimizers share: states, groups of parameters, clipping, the learning rate of a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from functools import reduce
from operator import add
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np

from ...compiler.errors import GraphError, UsageError
from ...compiler.evaluate import evaluate
from ...compiler.graph import Graph, Origin
from ...compiler.ops.activation import Clip
from ...compiler.ops.base import apply
from ...compiler.tensor import Tensor
from ...compiler.training import Descent
from ...compiler.types import Array, DType, TensorType
from .schedules import Constant, Schedule

Number: TypeAlias = Tensor | float

STEP = "optim.step"


@dataclass(frozen=True)
class Slots:
    """The states that an optimizer keeps for one parameter: buffers `optim.PARAMETER.NAME`.

    Arguments:
        parameter: the parameter.
    """

    parameter: Tensor

    def get(self, name: str, initial: float = 0.0) -> Tensor:
        """A state of the parameter's type, from one number everywhere."""
        type = self.parameter.type
        # Zeros take no memory before they are written.
        contents = np.zeros(type.shape, type.dtype.numpy)
        if initial:
            contents[...] = initial
        graph = self.parameter.graph
        with graph.scope(prefix=""):
            return graph.buffer(contents, f"optim.{self.parameter.value.node}.{name}")

    def scalar(self, name: str, initial: float) -> Tensor:
        """A state that is one number (float64)."""
        graph = self.parameter.graph
        with graph.scope(prefix=""):
            key = f"optim.{self.parameter.value.node}.{name}"
            return graph.buffer(np.array(initial, np.float64), key)

    def set(self, state: Tensor, value: Tensor) -> Tensor:
        """What the state is after the step."""
        self.parameter.graph.updates[state.value.node] = value.value
        return value


@dataclass(frozen=True)
class Optimizer(ABC):
    """Base of the optimizers.

    Arguments:
        lr: the learning rate.
        schedule: how the learning rate follows from the step.
        groups: pattern of parameter names (`*.bias`) -> options that differ for what it matches.
            Later patterns win.
        clip_grad_norm: gradients are scaled down together so that the norm of all of them is at
            most this.
        clip_grad_value: each element of a gradient is held within plus and minus this, before its
            norm is looked at.
        maximize: climb instead of descending.
    """

    lr: float = 1e-3
    schedule: Schedule = field(default=Constant(), kw_only=True)
    groups: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False, kw_only=True)
    clip_grad_norm: float | None = field(default=None, kw_only=True)
    clip_grad_value: float | None = field(default=None, kw_only=True)
    maximize: bool = field(default=False, kw_only=True)

    # Options that are about all parameters at once, and cannot differ between groups.
    _common: ClassVar[frozenset[str]] = frozenset({"groups", "clip_grad_norm", "clip_grad_value"})

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        if args and not isinstance(args[0], int | float):
            raise UsageError(
                f"{cls.__name__} is a description that does not take parameters; write "
                f"Trainer(model, optimizer={cls.__name__}(lr)), parameters= for some alone, and "
                'groups={"*.bias": {"lr": …}} for options of their own'
            )
        return super().__new__(cls)

    def __post_init__(self) -> None:
        self.check()
        own = {f.name for f in fields(self)} - self._common
        for pattern, options in self.groups.items():
            unknown = set(options) - own
            if unknown:
                raise UsageError(
                    f"group {pattern!r} sets {', '.join(sorted(unknown))}; "
                    f"{type(self).__name__} has {', '.join(sorted(own))} for a group"
                )
            plateau = replace(self, groups={}, **options).schedule.plateau
            if plateau not in (None, self.schedule.plateau):
                raise UsageError(
                    f"group {pattern!r} has a ReduceLROnPlateau of its own; there is one for all "
                    "parameters: give it to the optimizer"
                )

    def check(self) -> None:
        """
        Raises:
            UsageError: for options that make no sense.
        """
        for name in ("lr", "weight_decay", "momentum", "eps", "lr_decay", "alpha", "rho"):
            if getattr(self, name, 0.0) < 0.0:
                raise UsageError(
                    f"{name} of {type(self).__name__} is {getattr(self, name)}, below 0"
                )
        betas = getattr(self, "betas", ())
        if not all(0.0 <= beta < 1.0 for beta in betas):
            raise UsageError(f"betas of {type(self).__name__} are from 0 to below 1: {betas}")
        for name in ("clip_grad_norm", "clip_grad_value"):
            bound = getattr(self, name)
            if bound is not None and not bound > 0.0:
                raise UsageError(
                    f"{name} of {type(self).__name__} is {bound}; give a number above 0"
                )

    # -- what each optimizer says -----------------------------------------------------------------

    def scalars(self, lr: Number, step: Tensor) -> tuple[Number, ...]:
        """What all parameters share in one step.

        Arguments:
            lr: the learning rate; float64 where it is a tensor.
            step: number of steps done so far, a float64 scalar.
        """
        return (lr,)

    @abstractmethod
    def descend(self, p: Tensor, g: Tensor, slots: Slots, *scalars: Number) -> Tensor:
        """The next contents of a parameter p with the gradient g."""

    # -- what they have in common -----------------------------------------------------------------

    def update(self, graph: Graph, descents: Mapping[str, Descent]) -> dict[str, Tensor]:
        """The next contents of each parameter, by name; see `compiler.training.Optimizer`."""
        if STEP in graph:
            raise GraphError(f"{graph.name} is a training step already; give the network's graph")
        with graph.scope(prefix="", origins=(Origin("optim"),)):
            done = graph.buffer(np.array(0, np.int64), STEP)
            with graph.scope(prefix="optim"):
                graph.updates[STEP] = (done + 1).value
                step = done.cast(DType.FLOAT64)
                clipped = self._clipped({name: d.gradient for name, d in descents.items()})
        result: dict[str, Tensor] = {}
        for (own, dtype), names in self._by_options(descents).items():
            with graph.scope(prefix="optim", origins=(Origin("optim"),)):
                scalars = tuple(
                    x.cast(dtype) if isinstance(x, Tensor) and x.dtype.is_float else x
                    for x in own.scalars(own._rate(step), step)
                )
            for name in names:
                p, origins = descents[name].parameter, graph.node(name).origins
                with graph.scope(prefix=f"optim.{name}", origins=origins):
                    g = -clipped[name] if own.maximize else clipped[name]
                    result[name] = own.descend(p, g, Slots(p), *scalars)
        return {name: result[name] for name in descents}

    def lr_at(self, step: int, states: Mapping[str, Array] | None = None) -> float:
        """The learning rate of a step, counted from 0, for parameters that are in no group.

        Arguments:
            step: number of steps done.
            states: of training, by name, where the schedule has any.
        """
        graph = Graph("rate")
        rate = self._rate(graph.input(TensorType((), DType.FLOAT64), "step"))
        if not isinstance(rate, Tensor):
            return rate
        graph.outputs["rate"] = rate.value
        feeds = {**(states or {}), "step": np.array(float(step))}
        return float(evaluate(graph, feeds).outputs["rate"])

    def _rate(self, step: Tensor) -> Number:
        return self.schedule.rate(self.lr, step)

    def _by_options(
        self, descents: Mapping[str, Descent]
    ) -> dict[tuple[Optimizer, DType], list[str]]:
        """Names of the parameters that share options and dtype."""
        unused = [p for p in self.groups if not any(fnmatchcase(n, p) for n in descents)]
        if unused:
            raise UsageError(
                f"group {unused[0]!r} matches no trainable parameter; "
                f"there are {', '.join(descents)}"
            )
        result: dict[tuple[Optimizer, DType], list[str]] = {}
        for name, descent in descents.items():
            own = self._for_parameter(name)
            result.setdefault((own, descent.parameter.dtype), []).append(name)
        return result

    def _for_parameter(self, name: str) -> Self:
        options: dict[str, Any] = {}
        for pattern, different in self.groups.items():
            if fnmatchcase(name, pattern):
                options |= different
        return replace(self, groups={}, **options)

    def _clipped(self, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.clip_grad_value is not None:
            clip = Clip(-self.clip_grad_value, self.clip_grad_value)
            gradients = {name: apply(clip, g) for name, g in gradients.items()}
        if self.clip_grad_norm is not None:
            squares = [(g * g).sum() for g in gradients.values()]
            norm = reduce(add, squares).sqrt()
            scale = (self.clip_grad_norm / (norm + 1e-6)).minimum(1.0)
            gradients = {name: g * scale.cast(g.dtype) for name, g in gradients.items()}
        return gradients


def with_decay(p: Tensor, g: Tensor, weight_decay: float) -> Tensor:
    """The gradient of the loss plus weight_decay / 2 * |p|²."""
    return g + p * weight_decay if weight_decay else g
