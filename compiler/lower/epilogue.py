"""What follows an anchor's own result: its group's point nodes, computed where the result still is
in registers, and the stores.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..graph import Value
from ..loops import ir
from .binding import Binding
from .index import Index, broadcast_index


def store_results(
    binding: Binding,
    given: Mapping[Value, ir.Expr],
    index: Index,
    results: Iterable[Value] | None = None,
) -> ir.Block:
    """Stores the group's results at one place.

    Arguments:
        binding: the group.
        given: the anchor's results there.
        index: the place, in the group's space.
        results: which of the group's results; all of them by default.
    """
    elements = binding.elements()
    for value, x in given.items():
        elements.given[value] = elements.name(x, "result")
    body: ir.Block = elements.take_block()
    for value in binding.outputs if results is None else results:
        place = broadcast_index(index, binding.shape(value))
        x = elements.at(value, place)
        body += (*elements.take_block(), ir.Store(binding.outputs[value], place, x))
    return body


def store_groups(
    binding: Binding, value: Value, given: Sequence[ir.Expr], index: Index, columns: int
) -> ir.Block:
    """Stores the group's results at one place in each of several equal parts of the last axis.

    Arguments:
        binding: the group.
        value: the anchor's result.
        given: what it is in each part.
        index: the place in the first part.
        columns: extent of a part.
    """
    elements = binding.elements()
    places = [(*index[:-1], index[-1] + number * columns) for number in range(len(given))]
    shape = binding.shape(value)
    for x, place in zip(given, places, strict=True):
        elements.put(value, broadcast_index(place, shape), elements.name(x, "result"))
    body: ir.Block = elements.take_block()
    for result, buffer in binding.outputs.items():
        for place in places if buffer.shape == shape else places[:1]:
            place = broadcast_index(place, buffer.shape)
            x = elements.at(result, place)
            body += (*elements.take_block(), ir.Store(buffer, place, x))
    return body
