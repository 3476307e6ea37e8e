"""Single steps of recurrent layers, with PyTorch's arguments and state-dict keys."""

from __future__ import annotations

from ...compiler.tensor import Tensor
from .functional.recurrent import Cell, Elman, Gated, run_cell
from .recurrent import Recurrent, States, long_short_term


class RecurrentCell(Recurrent):
    """Base of single steps: input (B, I) or (I,), states (B, H) or (H,), zeros by default.

    Parameters are weight_ih (gates * H, I), weight_hh (gates * H, H), bias_ih and bias_hh.
    """

    def __init__(self, cell: Cell, input_size: int, bias: bool) -> None:
        super().__init__(cell, input_size, bias)
        self._add_cell(input_size)
        self.reset_parameters()

    def _run(self, x: Tensor, given: object) -> States:
        self._check_input(x, *"BI")
        states = self._as_states(given, x, x.shape[:-1])
        if x.rank == 2:
            return run_cell(self.cell, x, states, self._weights())
        rows = [s.unsqueeze(0) for s in states]
        after = run_cell(self.cell, x.unsqueeze(0), rows, self._weights())
        return tuple(s.squeeze(0) for s in after)

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")


class RNNCell(RecurrentCell):
    """One step of RNN: (input, h) gives h."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh"
    ) -> None:
        super().__init__(Elman(hidden_size, nonlinearity=nonlinearity), input_size, bias)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        (h,) = self._run(input, hx)
        return h


class LSTMCell(RecurrentCell):
    """One step of LSTM, perhaps with peepholes or coupled gates: (input, (h, c)) gives (h, c)."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        peepholes: bool = False,
        coupled: bool = False,
    ) -> None:
        super().__init__(long_short_term(hidden_size, 0, peepholes, coupled), input_size, bias)

    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        h, c = self._run(input, hx)
        return h, c


class GRUCell(RecurrentCell):
    """One step of GRU: (input, h) gives h."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True) -> None:
        super().__init__(Gated(hidden_size), input_size, bias)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        (h,) = self._run(input, hx)
        return h
