"""Loads and stores: one scalar, one vector, or lane by lane, as the offset moves with the lane."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import gcd

from .arithmetic import from_memory, memory_type, to_memory
from .builder import I64, Value, constants, poison
from .linear import Linear, Staggered
from .scope import Place, Result, Scope

# Alignment of local buffers, in bytes: a cache line.
ALIGNMENT = 64
# The shortest vector that there is a streaming store for, in bytes.
_LEAST_STREAMED = 16


def load(scope: Scope, place: Place, offset: Result) -> Value:
    """The element at `offset`: a scalar if it is the same for all lanes, else one a lane."""
    f, lanes = scope.f, scope.lanes
    if place.private:
        offset, whole = _private(scope, place, offset)
    else:
        whole = isinstance(offset, Linear) and offset.step == 1
    dtype = place.buffer.dtype
    vector = memory_type(dtype, lanes)
    if isinstance(offset, Linear):
        if whole:
            loaded = f.load(vector, address(scope, place, offset), _align(scope, place, offset))
        elif offset.step == 0:
            loaded = f.load(place.element, address(scope, place, offset))
        elif offset.step == -1:
            last = offset.uniform.shifted(1 - lanes)
            loaded = f.load(vector, address(scope, place, last))
            loaded = f.shuffle(loaded, None, range(lanes - 1, -1, -1))
        elif abs(offset.step) == 2 and lanes >= 4:
            loaded = _load_every_second(scope, place, offset)
        else:
            loaded = _load_lanes(scope, place, offset)
    elif isinstance(offset, Staggered):
        loaded = _load_staggered(scope, place, offset)
    else:
        loaded = _load_lanes(scope, place, offset)
    return from_memory(f, loaded, dtype)


def store(
    scope: Scope, place: Place, offset: Result, value: Value, streaming: bool = False
) -> None:
    """Writes the element at `offset`; where lanes share a place, the last one's value remains.

    `streaming`: past the caches, if it is a vector whose address is known to be aligned.
    """
    f, lanes = scope.f, scope.lanes
    if place.private:
        offset, whole = _private(scope, place, offset)
    else:
        whole = isinstance(offset, Linear) and offset.step == 1
    value = to_memory(f, value)
    if isinstance(offset, Linear):
        if whole:
            where, vector = address(scope, place, offset), scope.spread(value)
            if streaming and scope.lined and _can_stream(scope, place, offset):
                f.store(vector, where, lanes * place.element.bytes, streaming=True)
            else:
                f.store(vector, where, _align(scope, place, offset))
            return
        if offset.step == 0:
            f.store(f.extract(value, lanes - 1), address(scope, place, offset))
            return
        if offset.step == -1:
            last = offset.uniform.shifted(1 - lanes)
            backwards = f.shuffle(scope.spread(value), None, range(lanes - 1, -1, -1))
            f.store(backwards, address(scope, place, last))
            return
    for lane, where in enumerate(_addresses(scope, place, offset)):
        f.store(f.extract(value, lane), where)


def prefetch(scope: Scope, place: Place, offset: Result) -> None:
    """Asks for the line of the element at `offset` in lane 0, which may be outside, in L2."""
    start = scope.value(offset.uniform if isinstance(offset, Linear) else offset)
    if start.type.lanes > 1:
        start = scope.f.extract(start, 0)
    scope.f.prefetch(scope.f.gep(place.element, place.pointer, start, inbounds=False), locality=2)


def update(
    scope: Scope, place: Place, offset: Result, value: Value,
    combine: Callable[[Value, Value], Value],
) -> None:  # fmt: skip
    """Replaces each lane's element by `combine(element, value)`, lane after lane if they may meet.

    The lanes must not all have the same place, unless there is only one.
    """
    apart = isinstance(offset, Linear) and (offset.step != 0 or scope.lanes == 1)
    if apart or place.private:
        store(scope, place, offset, combine(load(scope, place, offset), value))
        return
    f, dtype = scope.f, place.buffer.dtype
    for lane, where in enumerate(_addresses(scope, place, offset)):
        element = from_memory(f, f.load(place.element, where), dtype)
        f.store(to_memory(f, combine(element, f.extract(value, lane))), where)


def address(scope: Scope, place: Place, offset: Linear) -> Value:
    """The address of the element at `offset` in lane 0.

    The constant part comes last, where the processor adds it for nothing, and equal variable parts
    are computed once. Without it the address may lie outside the buffer, hence not `inbounds`.
    """
    f, element = scope.f, place.element
    inside = offset.const == 0
    variable = scope.sum(offset, with_constant=False)
    pointer = f.gep(element, place.pointer, variable, inbounds=inside)
    return f.gep(element, pointer, offset.const, inbounds=not offset.terms)


def _private(scope: Scope, place: Place, offset: Result) -> tuple[Result, bool]:
    """The offset of lane 0's own element, and whether the lanes' elements lie side by side."""
    if isinstance(offset, Linear) and offset.step == 0:
        return offset.times(place.private), True
    f = scope.f
    lane = constants(I64, range(scope.lanes))
    each = f.add(f.mul(scope.spread(scope.value(offset)), place.private), lane)
    return each, False


def _align(scope: Scope, place: Place, offset: Linear) -> int | None:
    """Bytes to which a vector is aligned for certain; None: as its element."""
    if not place.local:
        return None
    return gcd(ALIGNMENT, scope.facts.multiple(offset) * place.element.bytes)


def _can_stream(scope: Scope, place: Place, offset: Linear) -> bool:
    """Whether a vector of a buffer that begins at a line is as a streaming store has to be."""
    nbytes = scope.lanes * place.element.bytes
    multiple = scope.facts.multiple(offset) * place.element.bytes
    is_whole = nbytes >= _LEAST_STREAMED and ALIGNMENT % nbytes == 0
    return is_whole and multiple % nbytes == 0


def _load_every_second(scope: Scope, place: Place, offset: Linear) -> Value:
    """Two vectors side by side if they lie inside of the buffer: odd elements are in the same ones
    as even elements. Else two that overlap, so that nothing beyond the last lane's is touched.
    """
    f, lanes = scope.f, scope.lanes
    type = memory_type(place.buffer.dtype, lanes)
    start = offset.uniform
    if offset.step < 0:
        start = start.shifted(2 - 2 * lanes)
    odd = start.const % 2
    pair = start.shifted(-odd)
    least, most = scope.facts.bounds(pair, 1)
    whole = place.buffer.gaps is None and least >= 0 and most + 2 * lanes <= place.buffer.size
    first, apart = (pair, lanes) if whole else (start, lanes - 1)
    low, high = (
        f.load(type, address(scope, place, part), _align(scope, place, part))
        for part in (first, first.shifted(apart))
    )
    # Element 2k is in the first vector as far as that goes, and in the second from there on.
    places = (2 * k + (odd if whole else 0) for k in range(lanes))
    order = [n if n < lanes else n + lanes - apart for n in places]
    return f.shuffle(low, high, order if offset.step > 0 else order[::-1])


def _load_staggered(scope: Scope, place: Place, offset: Staggered) -> Value:
    """One vector, permuted, where all lanes read from the same one.

    It begins at a multiple of its lanes, as each row of the buffer does, so that it lies inside of
    the row that the lanes read.
    """
    lanes = scope.lanes
    apart = (*place.strides[:-1], place.buffer.shape[-1]) if place.buffer.shape else (1,)
    first = offset.form.const % lanes
    start = offset.form.shifted(-first)
    order = [first + n for n in offset.lanes]
    is_row = place.strides[-1:] == (1,) and not any(stride % lanes for stride in apart)
    aligned = is_row and scope.facts.multiple(start) % lanes == 0
    if place.private or not aligned or not all(0 <= n < lanes for n in order):
        return _load_runs(scope, place, offset)
    row = scope.f.load(
        memory_type(place.buffer.dtype, lanes),
        address(scope, place, start),
        _align(scope, place, start),
    )
    return scope.f.shuffle(row, None, order)


def _load_runs(scope: Scope, place: Place, offset: Staggered) -> Value:
    """Two vectors, of what some lane reads, where that is two runs of neighbours."""
    runs = _runs(offset.lanes)
    if place.private or len(runs) != 2 or len(runs[0]) != len(runs[1]):
        return _load_lanes(scope, place, offset)
    first, second = (
        scope.f.load(
            memory_type(place.buffer.dtype, len(run)),
            address(scope, place, offset.form.shifted(run[0])),
        )
        for run in runs
    )
    every = [*runs[0], *runs[1]]
    return scope.f.shuffle(first, second, [every.index(n) for n in offset.lanes])


def _runs(numbers: Iterable[int]) -> list[range]:
    """Numbers as ranges without gaps."""
    runs: list[range] = []
    for n in sorted(set(numbers)):
        if runs and runs[-1].stop == n:
            runs[-1] = range(runs[-1].start, n + 1)
        else:
            runs.append(range(n, n + 1))
    return runs


def _load_lanes(scope: Scope, place: Place, offset: Result) -> Value:
    f = scope.f
    loaded = poison(memory_type(place.buffer.dtype, scope.lanes))
    for lane, where in enumerate(_addresses(scope, place, offset)):
        loaded = f.insert(loaded, f.load(place.element, where), lane)
    return loaded


def _addresses(scope: Scope, place: Place, offset: Result) -> list[Value]:
    """Each lane's address."""
    f = scope.f
    if isinstance(offset, Linear):
        first = offset.uniform
        return [
            address(scope, place, first.shifted(lane * offset.step)) for lane in range(scope.lanes)
        ]
    offset = scope.spread(scope.value(offset))
    return [
        f.gep(place.element, place.pointer, f.extract(offset, lane)) for lane in range(scope.lanes)
    ]
