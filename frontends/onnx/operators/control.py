"""Control flow that is decided at import."""

from __future__ import annotations

import numpy as np

from ....compiler.errors import OnnxError
from ....compiler.ops.indexing import stack
from ....compiler.tensor import Tensor
from ....compiler.types import normalize_axis
from ..call import Call, Operand, Result, operator

_MOST_ITERATIONS = 4096


@operator("If")
def _if(call: Call) -> Result:
    condition = call.known(0)
    if condition.size != 1:
        raise OnnxError(f"its condition has {condition.size} elements")
    branch = "then_branch" if condition.reshape(-1)[0] else "else_branch"
    return call.importer.subgraph(call, call.subgraph(branch), ())


@operator("Loop")
def _loop(call: Call) -> Result:
    """Written out: how often it runs must be known."""
    body = call.subgraph("body")
    most = int(call.known(0).reshape(-1)[0]) if call.has(0) else _MOST_ITERATIONS + 1
    condition: Operand = call.operand(1) if call.has(1) else np.array(True)
    carried = [call.operand(i) for i in range(2, len(call.inputs))]
    collected: list[list[Tensor]] = [[] for _ in range(len(body.output) - 1 - len(carried))]
    for i in range(most):
        if not bool(call.importer.known(condition, "its condition").reshape(-1)[0]):
            break
        if i == _MOST_ITERATIONS:
            raise OnnxError(f"it runs more than {_MOST_ITERATIONS} times")
        inputs = [np.array(i, np.int64), condition, *carried]
        condition, *results = call.importer.subgraph(call, body, inputs)
        carried = results[: len(carried)]
        for rows, row in zip(collected, results[len(carried) :], strict=True):
            rows.append(call.importer.tensor(row))
    if any(not rows for rows in collected):
        raise OnnxError("it collects the results of no iterations")
    return [*carried, *(stack(rows) for rows in collected)]


@operator("Scan")
def _scan(call: Call) -> Result:
    """Written out, one copy of the body for each element of the scanned axes."""
    if call.version < 9:
        raise OnnxError("Scan of operator set 8 is not supported")
    body, count = call.subgraph("body"), call.integer("num_scan_inputs")
    inputs = [call.operand(i) for i in range(len(call.inputs))]
    states, scanned = inputs[: len(inputs) - count], call.all()[len(inputs) - count :]
    outputs = len(body.output) - len(states)
    axes = _axes(call.integers("scan_input_axes", (0,) * count), [t.rank for t in scanned])
    backward = call.integers("scan_input_directions", (0,) * count)
    lengths = {t.shape[a] for t, a in zip(scanned, axes, strict=True)}
    if len(lengths) != 1:
        raise OnnxError(f"it scans axes of the extents {sorted(lengths)}, which must be equal")
    (length,) = lengths
    if not 0 < length <= _MOST_ITERATIONS:
        raise OnnxError(f"it runs {length} times; supported are 1 to {_MOST_ITERATIONS}")
    collected: list[list[Tensor]] = [[] for _ in range(outputs)]
    for i in range(length):
        rows = [
            _row(t, a, length - 1 - i if b else i)
            for t, a, b in zip(scanned, axes, backward, strict=True)
        ]
        results = call.importer.subgraph(call, body, [*states, *rows])
        states = results[: len(states)]
        for column, row in zip(collected, results[len(states) :], strict=True):
            column.append(call.importer.tensor(row))
    where = call.integers("scan_output_axes", (0,) * outputs)
    reverse = call.integers("scan_output_directions", (0,) * outputs)
    stacked = [
        stack(rows[::-1] if r else rows, normalize_axis(a, rows[0].rank + 1))
        for rows, a, r in zip(collected, where, reverse, strict=True)
    ]
    return [*states, *stacked]


def _axes(axes: tuple[int, ...], ranks: list[int]) -> list[int]:
    return [normalize_axis(a, r) for a, r in zip(axes, ranks, strict=True)]


def _row(x: Tensor, axis: int, i: int) -> Tensor:
    return x.slice_axis(axis, i, 1).reshape(x.shape[:axis] + x.shape[axis + 1 :])
