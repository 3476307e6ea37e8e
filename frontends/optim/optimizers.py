"""Optimizers, as descriptions. Names, arguments, defaults and the order of arithmetic are those of
torch.optim, without the parameters as first argument: a training step is built for a graph, see
`build_training_step`.
"""

from __future__ import annotations

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
from ...compiler.types import DType, TensorType
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

    def set(self, state: Tensor, value: Tensor) -> Tensor:
        """What the state is after the step."""
        self.parameter.graph.updates[state.value.node] = value.value
        return value


@dataclass(frozen=True)
class Optimizer:
    """Base of the optimizers.

    Arguments:
        schedule: how the learning rate follows from the step.
        groups: pattern of parameter names (`*.bias`) -> options that differ for what it matches.
            Later patterns win.
        clip_grad_norm: gradients are scaled down together so that the norm of all of them is at
            most this.
        clip_grad_value: each element of a gradient is held within plus and minus this, before its
            norm is looked at.
        maximize: climb instead of descending.
    """

    schedule: Schedule = field(default=Constant(), kw_only=True)
    groups: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False, kw_only=True)
    clip_grad_norm: float | None = field(default=None, kw_only=True)
    clip_grad_value: float | None = field(default=None, kw_only=True)
    maximize: bool = field(default=False, kw_only=True)

    # Options that are about all parameters at once, and cannot differ between groups.
    _common: ClassVar[frozenset[str]] = frozenset({"groups", "clip_grad_norm", "clip_grad_value"})

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
            replace(self, groups={}, **options)

    def check(self) -> None:
        """
        Raises:
            UsageError: for options that make no sense.
        """
        for name in ("lr", "weight_decay", "momentum", "eps", "lr_decay", "alpha"):
            if getattr(self, name, 0.0) < 0.0:
                raise UsageError(
                    f"{name} of {type(self).__name__} is {getattr(self, name)}, below 0"
                )
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

    def descend(self, p: Tensor, g: Tensor, slots: Slots, *scalars: Number) -> Tensor:
        """The next contents of a parameter p with the gradient g."""
        raise NotImplementedError

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

    def lr_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0, for parameters that are in no group."""
        graph = Graph("rate")
        rate = self._rate(graph.input(TensorType((), DType.FLOAT64), "step"))
        if not isinstance(rate, Tensor):
            return rate
        graph.outputs["rate"] = rate.value
        return float(evaluate(graph, {"step": np.array(float(step))}).outputs["rate"])

    def _rate(self, step: Tensor) -> Number:
        return self.schedule.rate(getattr(self, "lr"), step)  # noqa: B009

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


@dataclass(frozen=True)
class SGD(Optimizer):
    """Gradient descent, with momentum (Polyak, 1964) or Nesterov's (Sutskever et al., 2013)."""

    lr: float = 1e-3
    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False

    def check(self) -> None:
        super().check()
        if self.nesterov and (self.momentum <= 0.0 or self.dampening != 0.0):
            raise UsageError("SGD(nesterov=True) needs a momentum above 0 and no dampening")

    def scalars(self, lr: Number, step: Tensor) -> tuple[Number, ...]:
        return (lr, step.equal(0.0)) if self.momentum and self.dampening else (lr,)

    def descend(self, p: Tensor, g: Tensor, slots: Slots, *scalars: Number) -> Tensor:
        lr, *first = scalars
        g = _with_decay(p, g, self.weight_decay)
        if self.momentum:
            old = slots.get("momentum")
            new = old * self.momentum + (g * (1.0 - self.dampening) if self.dampening else g)
            for is_first in first:  # PyTorch starts from the gradient itself, undamped
                assert isinstance(is_first, Tensor)
                new = is_first.where(g, new)
            slots.set(old, new)
            g = g + new * self.momentum if self.nesterov else new
        return p - g * lr


@dataclass(frozen=True)
class Adam(Optimizer):
    """Steps scaled by running moments of the gradient (Kingma and Ba, 2015).

    Arguments:
        betas: how much of the running mean and mean square stays in a step.
        eps: added to the root of the mean square.
        weight_decay: this share of the parameter is added to its gradient.
        amsgrad: divide by the largest mean square so far (Reddi et al., 2018).
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    amsgrad: bool = False

    def check(self) -> None:
        super().check()
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise UsageError(f"betas of {type(self).__name__} are from 0 to below 1: {self.betas}")

    def scalars(self, lr: Number, step: Tensor) -> tuple[Number, ...]:
        count = step + 1.0
        corrections = [1.0 - beta**count for beta in self.betas]
        return lr, lr / corrections[0], 1.0 / corrections[1].sqrt()

    def descend(self, p: Tensor, g: Tensor, slots: Slots, *scalars: Number) -> Tensor:
        _, step_size, root_factor = scalars
        return self._move(p, _with_decay(p, g, self.weight_decay), slots, step_size, root_factor)

    def _move(self, p: Tensor, g: Tensor, slots: Slots, size: Number, factor: Number) -> Tensor:
        beta1, beta2 = self.betas
        mean, square = slots.get("exp_avg"), slots.get("exp_avg_sq")
        new_mean = slots.set(mean, mean + (g - mean) * (1.0 - beta1))
        new_square = slots.set(square, square * beta2 + g * g * (1.0 - beta2))
        if self.amsgrad:
            largest = slots.get("max_exp_avg_sq")
            new_square = slots.set(largest, largest.maximum(new_square))
        return p - new_mean / (new_square.sqrt() * factor + self.eps) * size


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam that takes weight decay off the parameter itself (Loshchilov and Hutter, 2019)."""

    weight_decay: float = 1e-2

    def descend(self, p: Tensor, g: Tensor, slots: Slots, *scalars: Number) -> Tensor:
        lr, step_size, root_factor = scalars
        if self.weight_decay:
            p = p * (1.0 - lr * self.weight_decay)
        return self._move(p, g, slots, step_size, root_factor)


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """Steps divided by the root of a running mean square (Tieleman and Hinton, 2012).

    Arguments:
        alpha: how much of the running mean square stays in a step.
        centered: divide by the standard deviation instead (Graves, 2013).
    """

    lr: float = 1e-2
    alpha: float = 0.99
    eps: float = 1e-8
    weight_decay: float = 0.0
    momentum: float = 0.0
    centered: bool = False

    def descend(self, p: Tensor, g: Tensor, slots: Slots, *scalars: Number) -> Tensor:
        (lr,) = scalars
        g = _with_decay(p, g, self.weight_decay)
        square = slots.get("square_avg")
        average = slots.set(square, square * self.alpha + g * g * (1.0 - self.alpha))
        if self.centered:
            mean = slots.get("grad_avg")
            new_mean = slots.set(mean, mean + (g - mean) * (1.0 - self.alpha))
            average = average - new_mean * new_mean
        direction = g / (average.sqrt() + self.eps)
        if self.momentum:
            old = slots.get("momentum")
            direction = slots.set(old, old * self.momentum + direction)
        return p - direction * lr


@dataclass(frozen=True)
class Adagrad(Optimizer):
    """Steps divided by the root of the sum of squares so far (Duchi et al., 2011).

    Arguments:
        lr_decay: the rate is divided by 1 + lr_decay * the number of steps done.
        initial_accumulator_value: what the sums start from.
    """

    lr: float = 1e-2
    lr_decay: float = 0.0
    weight_decay: float = 0.0
    initial_accumulator_value: float = 0.0
    eps: float = 1e-10

    def scalars(self, lr: Number, step: Tensor) -> tuple[Number, ...]:
        return (lr / (step * self.lr_decay + 1.0) if self.lr_decay else lr,)

    def descend(self, p: Tensor, g: Tensor, slots: Slots, *scalars: Number) -> Tensor:
        (lr,) = scalars
        g = _with_decay(p, g, self.weight_decay)
        total = slots.get("sum", self.initial_accumulator_value)
        return p - g / (slots.set(total, total + g * g).sqrt() + self.eps) * lr


def _with_decay(p: Tensor, g: Tensor, weight_decay: float) -> Tensor:
    """The gradient of the loss plus weight_decay / 2 * |p|²."""
    return g + p * weight_decay if weight_decay else g
