"""Recurrences: Scan, whose body is a graph of its own."""

from __future__ import annotations

import numpy as np

from ....compiler.ops.recurrence import Recurrence
from ....compiler.types import DType, TensorType
from ..writer import Block, Draft, Outputs, Ref, writes


@writes(Recurrence)
def _recurrence(draft: Draft, op: Recurrence, *inputs: Ref) -> Outputs:
    """The invariants are values of outside that the body reads."""
    if op.steps == 0:
        return None
    states, sequences, invariants = op.split(inputs)
    names, writer = op.body.input_names, draft.writer
    own = [
        Ref(draft.fresh(name), type)
        for name, type in zip(names, op.body.inputs[: len(states) + len(sequences)], strict=False)
    ]
    scanned: list[Ref | str] = list(sequences)
    block = Block(inputs=list(own))
    if not scanned:  # a Scan takes its number of steps from what it scans
        scanned.append(draft.constant(np.zeros(op.steps), DType.FLOAT32))
        block.inputs.append(Ref(draft.fresh("step"), TensorType(())))
    with writer.inside(block):
        given = dict(zip(names, [*own, *invariants], strict=True))
        results = writer.graph(op.body.graph, given, draft.title)
        writer.close(block, [""] * len(results), results)
    backwards = int(op.reverse)
    stacked = len(results) - len(states)
    return draft.nodes(
        len(results),
        "Scan",
        *states,
        *scanned,
        body=block,
        num_scan_inputs=len(scanned),
        scan_input_directions=[backwards] * len(scanned) if op.reverse else None,
        scan_output_directions=[backwards] * stacked if op.reverse and stacked else None,
    )
