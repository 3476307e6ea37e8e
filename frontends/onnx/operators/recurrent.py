"""Recurrent layers: one recurrence a direction."""

from __future__ import annotations

from collections.abc import Callable

from ....compiler.errors import OnnxError
from ....compiler.ops import activation as act
from ....compiler.ops.base import apply
from ....compiler.ops.indexing import own_indices, stack
from ....compiler.ops.linear import matmul
from ....compiler.ops.recurrence import recur
from ....compiler.tensor import Tensor
from ....compiler.types import DType
from ..call import Call, Result, operator

Function = Callable[[Tensor], Tensor]

# ONNX's names of activation functions, with their parameters alpha and beta.
_FUNCTIONS: dict[str, Callable[[float | None, float | None], Function]] = {
    "sigmoid": lambda a, b: Tensor.sigmoid,
    "tanh": lambda a, b: Tensor.tanh,
    "relu": lambda a, b: Tensor.relu,
    "affine": lambda a, b: lambda x: x * (1.0 if a is None else a) + (b or 0.0),
    "leakyrelu": lambda a, b: lambda x: apply(act.LeakyRelu(0.01 if a is None else a), x),
    "elu": lambda a, b: lambda x: apply(act.Elu(1.0 if a is None else a), x),
    "softsign": lambda a, b: lambda x: apply(act.Softsign(), x),
    "softplus": lambda a, b: lambda x: apply(act.Softplus(1.0, float("inf")), x),
}


@operator("RNN", "GRU", "LSTM")
def _recurrent(call: Call) -> Result:
    """Y (T, directions, N, H), then the final state(s) (directions, N, H)."""
    direction = call.text("direction", "forward")
    if direction not in ("forward", "reverse", "bidirectional"):
        raise OnnxError(f"there is no direction {direction!r}")
    backward = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}[direction]
    x = call.x(0)
    batch_first = call.flag("layout")
    if batch_first:
        x = x.transpose(0, 1)
    results = [_direction(call, x, d, back, batch_first) for d, back in enumerate(backward)]
    sequence = stack([y for y, _ in results], 1)
    finals = [stack(list(states)) for states in zip(*(s for _, s in results), strict=True)]
    if batch_first:
        return sequence.permute(2, 0, 1, 3), *(s.transpose(0, 1) for s in finals)
    return sequence, *finals


def _direction(
    call: Call, x: Tensor, d: int, backward: bool, batch_first: bool
) -> tuple[Tensor, list[Tensor]]:
    """One direction: all outputs (T, N, H) and the final states (N, H)."""
    steps, batch = x.shape[:2]
    hidden = call.shape(2)[-1]
    weights, recurrent = call.x(1)[d], call.x(2)[d]
    gates = weights.shape[0]
    zero = x.constant(0.0)
    bias = call.x(3)[d] if call.has(3) else zero.broadcast_to((2 * gates,))
    count = 2 if call.operator == "LSTM" else 1
    places = (5, 6)[:count]
    initial = [_initial(call, place, d, batch_first) for place in places]
    states = [zero.broadcast_to((batch, hidden)) if s is None else s for s in initial]
    peepholes = call.x(7)[d] if call.operator == "LSTM" and call.has(7) else None
    # The part of the gates that follows from the input, for all steps in one product.
    projected = matmul(x, weights.transpose()) + bias[:gates]
    cell = _CELLS[call.operator](call, d, hidden)
    invariants = [recurrent, bias[gates:], *(() if peepholes is None else (peepholes,))]
    sequences = [projected]
    if call.has(4):  # sequences end early: then states stay and outputs are zero
        numbers = own_indices(projected, 0, steps, DType.INT64).reshape((steps, 1, 1))
        lengths = call.x(4).cast(DType.INT64).reshape((1, batch, 1))
        sequences.append(numbers < lengths)

    def step(*values: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        old, rest = list(values[:count]), values[count:]
        new = cell(rest[0], old, *rest[len(sequences) :])
        if len(sequences) == 1:
            return new, [new[0]]
        running = rest[1]
        kept = [running.where(n, o) for n, o in zip(new, old, strict=True)]
        return kept, [running.where(new[0], 0.0)]

    finals, (outputs,) = recur(step, states, sequences, invariants, reverse=backward)
    return outputs, list(finals)


def _initial(call: Call, i: int, d: int, batch_first: bool) -> Tensor | None:
    if not call.has(i):
        return None
    state = call.x(i)
    return state[:, d] if batch_first else state[d]


def _functions(call: Call, d: int, defaults: tuple[str, ...]) -> list[Function]:
    """The activation functions of a direction, held to the range of `clip`."""
    count = len(defaults)
    names = call.attributes.get("activations", defaults * (d + 1))[d * count : (d + 1) * count]
    alphas = call.numbers("activation_alpha", ())[d * count :]
    betas = call.numbers("activation_beta", ())[d * count :]
    limit = call.attributes.get("clip")
    found = []
    for i, name in enumerate(names):
        make = _FUNCTIONS.get(name.lower())
        if make is None:
            raise OnnxError(f"the activation {name} is not supported")
        alpha = alphas[i] if i < len(alphas) else None
        beta = betas[i] if i < len(betas) else None
        found.append(_clipped(make(alpha, beta), limit))
    return found


def _clipped(function: Function, limit: float | None) -> Function:
    if limit is None:
        return function
    return lambda x: function(x.maximum(-limit).minimum(limit))


Cell = Callable[..., list[Tensor]]


def _rnn(call: Call, d: int, hidden: int) -> Cell:
    (f,) = _functions(call, d, ("Tanh",))

    def cell(x: Tensor, states: list[Tensor], r: Tensor, bias: Tensor) -> list[Tensor]:
        return [f(x + matmul(states[0], r.transpose()) + bias)]

    return cell


def _gru(call: Call, d: int, hidden: int) -> Cell:
    """Gates are update, reset, hidden."""
    f, g = _functions(call, d, ("Sigmoid", "Tanh"))
    after = call.flag("linear_before_reset")

    def cell(x: Tensor, states: list[Tensor], r: Tensor, bias: Tensor) -> list[Tensor]:
        (h,) = states
        gates = matmul(h, r[: 2 * hidden].transpose()) + bias[: 2 * hidden] + x[:, : 2 * hidden]
        z, reset = f(gates[:, :hidden]), f(gates[:, hidden:])
        own, own_bias = r[2 * hidden :].transpose(), bias[2 * hidden :]
        if after:
            inner = reset * (matmul(h, own) + own_bias)
        else:
            inner = matmul(reset * h, own) + own_bias
        new = g(x[:, 2 * hidden :] + inner)
        return [(1.0 - z) * new + z * h]

    return cell


def _lstm(call: Call, d: int, hidden: int) -> Cell:
    """Gates are input, output, forget, cell; peepholes input, output, forget."""
    f, g, h_ = _functions(call, d, ("Sigmoid", "Tanh", "Tanh"))
    coupled = call.flag("input_forget")

    def cell(
        x: Tensor, states: list[Tensor], r: Tensor, bias: Tensor, *peepholes: Tensor
    ) -> list[Tensor]:
        h, c = states
        gates = x + matmul(h, r.transpose()) + bias
        i, o, forget, new = (gates[:, k * hidden : (k + 1) * hidden] for k in range(4))
        if peepholes:
            p = peepholes[0]
            i, forget = i + p[:hidden] * c, forget + p[2 * hidden :] * c
        i = f(i)
        forget = 1.0 - i if coupled else f(forget)
        c = forget * c + i * g(new)
        if peepholes:
            o = o + peepholes[0][hidden : 2 * hidden] * c
        return [f(o) * h_(c), c]

    return cell


_CELLS: dict[str, Callable[[Call, int, int], Cell]] = {"RNN": _rnn, "GRU": _gru, "LSTM": _lstm}
