"""Steps of optimizers, as `ai.onnx.preview.training` has them."""

from __future__ import annotations

from collections.abc import Sequence

from ....compiler.errors import OnnxError
from ....compiler.tensor import Tensor
from ..call import Call, Result, operator

_DOMAIN = "ai.onnx.preview.training"


def _columns(call: Call, kinds: int) -> tuple[Tensor, Tensor, list[Sequence[Tensor]]]:
    """Rate, number of the step, and for each parameter the tensors of it: itself, gradient, …"""
    rate, step, *tensors = (x.reshape(()) if i < 2 else x for i, x in enumerate(call.all()))
    if not tensors or len(tensors) % kinds:
        raise OnnxError(f"it takes {kinds} tensors for each parameter, got {len(tensors)}")
    count = len(tensors) // kinds
    return rate, step, [tensors[i::count] for i in range(count)]


def _by_kind(rows: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """All new parameters, then all first states, …"""
    return [x for column in zip(*rows, strict=True) for x in column]


@operator("Momentum", domain=_DOMAIN)
def _momentum(call: Call) -> Result:
    alpha, beta = call.number("alpha"), call.number("beta")
    nesterov = call.text("mode") == "nesterov"
    rate, step, columns = _columns(call, 3)
    rows = []
    for x, gradient, state in columns:
        g = x * call.number("norm_coefficient") + gradient
        # The first gradient counts in full.
        new = state * alpha + g * (step > 0).where(g.constant(beta), g.constant(1.0))
        rows.append((x - (g + new * alpha if nesterov else new) * rate, new))
    return _by_kind(rows)


@operator("Adagrad", domain=_DOMAIN)
def _adagrad(call: Call) -> Result:
    rate, step, columns = _columns(call, 3)
    rate = rate / (step.cast(rate.dtype) * call.number("decay_factor", 0.0) + 1.0)
    rows = []
    for x, gradient, state in columns:
        g = x * call.number("norm_coefficient", 0.0) + gradient
        new = state + g * g
        rows.append((x - g * rate / (new.sqrt() + call.number("epsilon", 1e-6)), new))
    return _by_kind(rows)


@operator("Adam", domain=_DOMAIN)
def _adam(call: Call) -> Result:
    alpha, beta = call.number("alpha", 0.9), call.number("beta", 0.999)
    rate, step, columns = _columns(call, 4)
    t = step.cast(rate.dtype)
    one = t.constant(1.0)
    # Step 0 is without correction: there the divisors would be 0.
    later = step > 0
    rate = rate * later.where((1.0 - beta**t).sqrt(), one) / later.where(1.0 - alpha**t, one)
    rows = []
    for x, gradient, mean, square in columns:
        g = x * call.number("norm_coefficient", 0.0) + gradient
        first = mean * alpha + g * (1.0 - alpha)
        second = square * beta + g * g * (1.0 - beta)
        moved = x - first / (second.sqrt() + call.number("epsilon", 1e-6)) * rate
        rows.append((moved * (1.0 - call.number("norm_coefficient_post", 0.0)), first, second))
    return _by_kind(rows)
