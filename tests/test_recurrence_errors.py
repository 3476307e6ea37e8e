"""What a recurrence refuses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from recurrences import wide

from quern.compiler.body import Body
from quern.compiler.errors import GraphError, ShapeError
from quern.compiler.graph import Graph
from quern.compiler.ops.recurrence import recur
from quern.compiler.types import TensorType


def run_step(step: Any, states: Sequence[TensorType], sequences: Sequence[TensorType]) -> None:
    graph = Graph()
    recur(
        step,
        [graph.input(t, f"s{i}") for i, t in enumerate(states)],
        [graph.input(t, f"x{i}") for i, t in enumerate(sequences)],
    )


def test_a_state_must_keep_its_type() -> None:
    with pytest.raises(ShapeError, match=r"x0 .* is float64\[2\] before a step and float64\[1,"):
        run_step(lambda s, x: ([s.reshape(1, 2)], []), [wide(2)], [wide(4, 2)])


def test_sequences_must_be_equally_long() -> None:
    with pytest.raises(ShapeError, match=r"float64\[5, 2\]; give float64\[4, 2\]: 4 steps of it"):
        run_step(lambda s, x, y: ([s], []), [wide(2)], [wide(4, 2), wide(5, 2)])


def test_errors_inside_a_step_name_the_line() -> None:
    with pytest.raises(ShapeError, match=r"do not broadcast"):
        run_step(lambda s, x: ([s + x], []), [wide(2)], [wide(4, 3)])


def test_a_step_returns_as_many_states_as_it_takes() -> None:
    with pytest.raises(ShapeError, match="takes 1 states and returns 0"):
        run_step(lambda s, x: ([], [s]), [wide(2)], [wide(4, 2)])


def test_what_is_no_sequence() -> None:
    with pytest.raises(ShapeError, match="has no axes"):
        run_step(lambda s, x: ([s], []), [wide(2)], [wide()])
    with pytest.raises(ShapeError, match="needs to know its steps"):
        run_step(lambda s: ([s], []), [wide(2)], [])
    with pytest.raises(ShapeError, match="needs a state or a sequence"):
        recur(lambda: ([], []), [])


def test_a_body_keeps_no_state_of_its_own() -> None:
    graph = Graph("stateful")
    graph.outputs["y"] = (graph.parameter(np.zeros(2), "w") * 2.0).value
    with pytest.raises(GraphError, match="stateful has the state w"):
        Body.of(graph)
