"""Optimizers, as descriptions. Names, arguments, defaults and the order of arithmetic are those of
torch.optim, without the parameters as first argument: a training step is built for a graph, see
`build_training_step`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...compiler.errors import UsageError
from ...compiler.tensor import Tensor
from .optimizer import Number, Optimizer, Slots, with_decay


@dataclass(frozen=True)
class SGD(Optimizer):
    """Gradient descent, with momentum (Polyak, 1964) or Nesterov's (Sutskever et al., 2013)."""

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
        g = with_decay(p, g, self.weight_decay)
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

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    amsgrad: bool = False

    def scalars(self, lr: Number, step: Tensor) -> tuple[Number, ...]:
        count = step + 1.0
        corrections = [1.0 - beta**count for beta in self.betas]
        return lr, lr / corrections[0], 1.0 / corrections[1].sqrt()

    def descend(self, p: Tensor, g: Tensor, slots: Slots, *scalars: Number) -> Tensor:
        _, step_size, root_factor = scalars
        return self._move(p, with_decay(p, g, self.weight_decay), slots, step_size, root_factor)

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
        g = with_decay(p, g, self.weight_decay)
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
        g = with_decay(p, g, self.weight_decay)
        total = slots.get("sum", self.initial_accumulator_value)
        return p - g / (slots.set(total, total + g * g).sqrt() + self.eps) * lr


@dataclass(frozen=True)
class Adadelta(Optimizer):
    """Steps in the units of the parameter, from running mean squares of gradients and of steps
    (Zeiler, 2012).

    Arguments:
        rho: how much of the running mean squares stays in a step.
    """

    lr: float = 1.0
    rho: float = 0.9
    eps: float = 1e-6
    weight_decay: float = 0.0

    def descend(self, p: Tensor, g: Tensor, slots: Slots, *scalars: Number) -> Tensor:
        (lr,) = scalars
        g = with_decay(p, g, self.weight_decay)
        square, moved = slots.get("square_avg"), slots.get("acc_delta")
        new_square = slots.set(square, square * self.rho + g * g * (1.0 - self.rho))
        delta = (moved + self.eps).sqrt() / (new_square + self.eps).sqrt() * g
        slots.set(moved, moved * self.rho + delta * delta * (1.0 - self.rho))
        return p - delta * lr


@dataclass(frozen=True)
class Adamax(Optimizer):
    """Adam with the largest gradient, which decays, in place of the root of the mean square
    (Kingma and Ba, 2015).
    """

    lr: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    def scalars(self, lr: Number, step: Tensor) -> tuple[Number, ...]:
        return (lr / (1.0 - self.betas[0] ** (step + 1.0)),)

    def descend(self, p: Tensor, g: Tensor, slots: Slots, *scalars: Number) -> Tensor:
        (size,) = scalars
        g = with_decay(p, g, self.weight_decay)
        mean, largest = slots.get("exp_avg"), slots.get("exp_inf")
        new_mean = slots.set(mean, mean + (g - mean) * (1.0 - self.betas[0]))
        bound = (largest * self.betas[1]).maximum(g.abs() + self.eps)
        return p - new_mean / slots.set(largest, bound) * size


@dataclass(frozen=True)
class NAdam(Optimizer):
    """Adam with Nesterov's momentum (Dozat, 2016).

    Arguments:
        momentum_decay: of the momentum's schedule.
        decoupled_weight_decay: take weight decay off the parameter itself, as AdamW.
    """

    lr: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    momentum_decay: float = 4e-3
    decoupled_weight_decay: bool = False

    def scalars(self, lr: Number, step: Tensor) -> tuple[Number, ...]:
        return lr, 1.0 / (1.0 - self.betas[1] ** (step + 1.0)).sqrt(), step

    def descend(self, p: Tensor, g: Tensor, slots: Slots, *scalars: Number) -> Tensor:
        lr, root_factor, step = scalars
        assert isinstance(step, Tensor)
        if self.decoupled_weight_decay:
            p = p * (1.0 - lr * self.weight_decay)
        else:
            g = with_decay(p, g, self.weight_decay)
        now, later = (self._momentum(step.cast("float64") + n) for n in (1.0, 2.0))
        product = slots.scalar("mu_product", 1.0)
        so_far = slots.set(product, product * now)
        mean, square = slots.get("exp_avg"), slots.get("exp_avg_sq")
        beta1, beta2 = self.betas
        new_mean = slots.set(mean, mean + (g - mean) * (1.0 - beta1))
        new_square = slots.set(square, square * beta2 + g * g * (1.0 - beta2))
        divisor = new_square.sqrt() * root_factor + self.eps
        of_gradient = ((1.0 - now) / (1.0 - so_far)).cast(p.dtype) * lr
        of_mean = (later / (1.0 - so_far * later)).cast(p.dtype) * lr
        return p - g / divisor * of_gradient - new_mean / divisor * of_mean

    def _momentum(self, step: Tensor) -> Tensor:
        return self.betas[0] * (1.0 - 0.5 * 0.96 ** (step * self.momentum_decay))


@dataclass(frozen=True)
class RAdam(Optimizer):
    """Adam that does without the mean square while its variance is large (Liu et al., 2020).

    Arguments:
        decoupled_weight_decay: take weight decay off the parameter itself, as AdamW.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    decoupled_weight_decay: bool = False

    def scalars(self, lr: Number, step: Tensor) -> tuple[Number, ...]:
        beta1, beta2 = self.betas
        count = step + 1.0
        correction = 1.0 - beta2**count
        most = 2.0 / (1.0 - beta2) - 1.0
        length = most - 2.0 * count * beta2**count / correction
        is_long = length > 5.0
        inside = is_long.where(length, 6.0)  # whose root there is
        rectified = (
            (inside - 4.0) * (inside - 2.0) * most / ((most - 4.0) * (most - 2.0) * inside)
        ).sqrt()
        return lr, lr / (1.0 - beta1**count), rectified * correction.sqrt(), is_long

    def descend(self, p: Tensor, g: Tensor, slots: Slots, *scalars: Number) -> Tensor:
        lr, size, factor, is_long = scalars
        assert isinstance(is_long, Tensor)
        if self.decoupled_weight_decay:
            p = p * (1.0 - lr * self.weight_decay)
        else:
            g = with_decay(p, g, self.weight_decay)
        beta1, beta2 = self.betas
        mean, square = slots.get("exp_avg"), slots.get("exp_avg_sq")
        new_mean = slots.set(mean, mean + (g - mean) * (1.0 - beta1))
        new_square = slots.set(square, square * beta2 + g * g * (1.0 - beta2))
        adapted = new_mean / (new_square.sqrt() + self.eps) * factor
        return p - is_long.where(adapted, new_mean) * size


@dataclass(frozen=True)
class Rprop(Optimizer):
    """Steps of their own length for each element, longer while the sign of its gradient stays
    (Riedmiller and Braun, 1993). For full batches.

    Arguments:
        etas: what a length is multiplied by when the sign changes, and when it stays.
        step_sizes: the least and the greatest length.
    """

    lr: float = 1e-2
    etas: tuple[float, float] = (0.5, 1.2)
    step_sizes: tuple[float, float] = (1e-6, 50.0)

    def check(self) -> None:
        super().check()
        if not 0.0 < self.etas[0] < 1.0 < self.etas[1]:
            raise UsageError(f"etas of Rprop are below 1 and above 1: {self.etas}")

    def descend(self, p: Tensor, g: Tensor, slots: Slots, *scalars: Number) -> Tensor:
        before, size = slots.get("prev"), slots.get("step_size", self.lr)
        agreement = g * before
        shorter, longer = self.etas
        factor = (agreement > 0.0).where(longer, (agreement < 0.0).where(shorter, g.constant(1.0)))
        new_size = slots.set(size, (size * factor).clamp(*self.step_sizes))
        kept = slots.set(before, (agreement < 0.0).where(0.0, g))
        return p - kept.sign() * new_size
