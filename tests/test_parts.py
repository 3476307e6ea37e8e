"""Concatenations and slices that are never copied: values that lie in larger ones, with gaps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracles import check_kernels, compare, graph_of, trained
from plan_simulation import Plan, check, planned
from random_graphs import graphs
from test_layout import Net, in_blocks, networks

from quern.compiler.driver import Options, compile_graph
from quern.compiler.errors import CompileError
from quern.compiler.evaluate import evaluate
from quern.compiler.explain import explain
from quern.compiler.graph import Graph, Value
from quern.compiler.group import Group
from quern.compiler.lower.binding import Binding
from quern.compiler.lower.lower import takes_gaps
from quern.compiler.ops import movement as mv
from quern.compiler.ops.base import apply, apply_all
from quern.compiler.ops.indexing import ScatterAdd
from quern.compiler.ops.pool import MaxPool
from quern.compiler.parts import Part, find_parts
from quern.compiler.passes.partition import partition
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array, DType, Shape, restrided, row_major_strides
from quern.runtime.executable import Executable

F = np.float32
FEW = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))


def concat(*tensors: Tensor, axis: int = 1) -> Tensor:
    return apply(mv.Concat(axis), *tensors)


def numbers(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape).astype(F)


def convolution(x: Tensor, channels: int, kernel: int = 1) -> Tensor:
    """A kernel of its own, whose result gets into memory."""
    weight = x.graph.constant(numbers(channels, x.shape[1], kernel, kernel) / x.shape[1])
    net = Net(x.graph)
    # A method is replaced, on purpose.
    net.weight = lambda *shape: weight  # type: ignore[method-assign, assignment]
    return net.conv(x, channels, kernel)


def copies(plan: Plan) -> list[str]:
    """Kernels that do nothing but move."""
    moves = mv.Concat | mv.Slice
    return [
        placed.name
        for placed in plan.kernels
        if placed.group
        and all(isinstance(plan.graph.node(n).op, moves) for n in placed.group.nodes)
    ]


def same_everywhere(graph: Graph, feeds: dict[str, Array]) -> None:
    """The compiled graph gives what NumPy gives, and the same bits on any number of threads."""
    image = compile_graph(graph, Options(workers=1)).image
    found = [Executable(image, threads=n).run(feeds) for n in (1, 2)]
    for name, expected in evaluate(graph, feeds).outputs.items():
        compare(found[0][name], expected, 1e-4, 1e-5, name)
        np.testing.assert_array_equal(found[1][name], found[0][name], name)


# -- strides under other shapes --------------------------------------------------------------------


@given(st.data())
def test_strides_under_another_shape_are_those_of_a_view(data: st.DataObject) -> None:
    """NumPy finds them too, if it can do without a copy."""
    extents = st.lists(st.sampled_from([1, 2, 3, 4]), min_size=1, max_size=4)
    shape = tuple(data.draw(extents))
    whole = np.zeros([n + data.draw(st.integers(0, 2)) for n in shape], np.int8)
    part = whole[tuple(slice(n) for n in shape)]
    size = part.size
    target = []
    for _ in range(data.draw(st.integers(0, 4))):
        target.append(math.gcd(size, data.draw(st.sampled_from([1, 2, 3, 4, 6, 8, 9, 12]))))
        size //= target[-1]
    target.append(size)
    found = restrided(part.shape, part.strides, tuple(target))
    view = part.view()
    try:
        view.shape = tuple(target)
    except AttributeError:
        assert found is None
    else:
        moving = [i for i, n in enumerate(target) if n > 1]
        assert found is not None
        assert [found[i] for i in moving] == [view.strides[i] for i in moving]


# -- kernels ---------------------------------------------------------------------------------------


def with_gaps(graph: Graph, draw: Any, group: Group) -> Group:
    """A group all of whose values in memory are parts of larger ones."""
    if not takes_gaps(graph, group):
        return group
    found: list[tuple[Value, Shape]] = []
    for value in dict.fromkeys((*group.inputs, *group.outputs)):
        shape = graph.type_of(value).shape
        if shape and 0 not in shape:
            axis = draw(st.integers(0, len(shape) - 1))
            wider = (*shape[:axis], shape[axis] + draw(st.integers(1, 3)), *shape[axis + 1 :])
            found.append((value, row_major_strides(wider)))
    return replace(group, strides=tuple(found))


@FEW
@given(graphs(most=8), st.data())
def test_kernels_keep_to_their_values_where_these_have_gaps(
    case: tuple[Graph, dict[str, Array]], data: st.DataObject
) -> None:
    graph, feeds = case
    tolerance = {"rtol": 1e-9, "atol": 1e-9, "whole": False}
    check_kernels(graph, feeds, change=partial(with_gaps, graph, data.draw), **tolerance)


@FEW
@given(networks(), st.booleans(), st.data())
def test_convolutions_and_pools_keep_to_values_with_gaps(
    drawn: tuple[Net, Tensor], training: bool, data: st.DataObject
) -> None:
    net, y = drawn
    graph, feeds = net.trained(y) if training else net.outputs(y)
    graph = in_blocks(graph)
    tolerance = {"rtol": 1e-9, "atol": 1e-9, "whole": False}
    check_kernels(graph, feeds, change=partial(with_gaps, graph, data.draw), **tolerance)


def test_a_shape_with_gaps_inside_of_an_axis_is_refused() -> None:
    graph, _ = graph_of(lambda x: x.exp(), numbers(4, 6))
    (group,) = partition(graph)
    (result,) = group.outputs
    group = replace(group, strides=((result, (9, 1)),))
    binding = Binding(graph, group, Options().target, {result: (24,)})
    with pytest.raises(CompileError, match=r"exp reads or writes exp as \(24,\), .* gaps"):
        _ = binding.outputs


# -- which values are parts ------------------------------------------------------------------------


def dense_block(x: Tensor, layers: int = 3) -> Tensor:
    for _ in range(layers):
        x = concat(x, convolution(convolution(x.relu(), 16).relu(), 8, 3))
    return x


def inception(x: Tensor) -> Tensor:
    pooled = apply_all(MaxPool((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)), x)[0]
    return concat(convolution(x, 8).relu(), convolution(x, 16, 3), pooled)


def fire(x: Tensor) -> Tensor:
    x = convolution(x, 8).relu()
    return concat(convolution(x, 16).relu(), convolution(x, 16, 3).relu())


def shuffled(x: Tensor) -> Tensor:
    """Half of the channels go round a convolution."""
    y = convolution(x, 32)
    return concat(convolution(y[:, 16:], 16, 3), convolution(y[:, :16], 16))


NETWORKS: dict[str, Callable[[Tensor], Tensor]] = {
    "dense block": dense_block,
    "inception": inception,
    "fire": fire,
    "shuffled": shuffled,
}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_channels_are_put_together_without_copies(name: str, batch: int) -> None:
    def network(x: Tensor) -> Tensor:
        return convolution(NETWORKS[name](convolution(x, 16)), 8)

    graph, feeds = graph_of(network, numbers(batch, 8, 6, 5))
    plan = planned(graph)
    check(plan)
    assert copies(plan) == []
    same_everywhere(graph, feeds)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_of_channels_are_read_where_they_are(name: str) -> None:
    def network(x: Tensor) -> Tensor:
        return convolution(NETWORKS[name](convolution(x, 16)), 8)

    graph, feeds = trained(network, 1, numbers(3, 8, 6, 5))
    plan = planned(graph)
    check(plan)
    assert copies(plan) == []
    same_everywhere(graph, feeds)


def test_a_layer_writes_to_its_place_in_the_whole_block() -> None:
    """Of each image the channels of all layers follow on each other: those of the input first."""
    graph, _ = graph_of(
        lambda x: convolution(dense_block(convolution(x, 16), 2), 8), numbers(3, 8, 4, 4)
    )
    plan = planned(graph)
    kernels = [k.lowered.kernel for k in plan.kernels]
    image = (16 + 2 * 8) * 4 * 4
    written = [b.gaps for k in kernels for b in k.parameters if b.gaps and b.shape[1] <= 2]
    assert written
    assert {gaps[0] for gaps in written} == {image}


def test_halves_of_rows_are_read_in_place() -> None:
    """Not channels alone: heads of attention out of one product."""

    def network(x: Tensor) -> Tensor:
        y = x @ x.graph.constant(numbers(16, 48))
        q, k = (y[:, :, i : i + 16].reshape(2, 10, 4, 4) for i in (0, 16))
        return (q.permute(0, 2, 1, 3) @ k.permute(0, 2, 3, 1)) + 0.0

    graph, feeds = graph_of(network, numbers(2, 10, 16))
    plan = planned(graph)
    check(plan)
    assert copies(plan) == []
    same_everywhere(graph, feeds)


def test_slices_of_inputs_are_read_where_they_are() -> None:
    """Kernels that differ in nothing else than where their rows begin are one."""

    def network(x: Tensor) -> list[Tensor]:
        return [cut(x[i : i + 4]).sum() for i in (0, 4, 8)]

    graph, feeds = graph_of(network, numbers(12, 32))
    plan = planned(graph)
    check(plan)
    assert copies(plan) == []
    products = [p for p in plan.kernels if "product" in p.lowered.kernel.note]
    assert len(products) == 3
    assert len({p.routine.symbol for p in products}) == 1
    same_everywhere(graph, feeds)


def parts_of(function: Callable[..., Any], *arrays: Array) -> dict[Value, Part]:
    graph, feeds = graph_of(function, *arrays)
    same_everywhere(graph, feeds)
    check(planned(graph))
    return dict(find_parts(graph, partition(graph), partial(takes_gaps, graph)).places)


def cut(x: Tensor) -> Tensor:
    """The same numbers out of a kernel of their own."""
    return x @ x.graph.constant(np.eye(x.shape[-1], dtype=F))


WHOLE: dict[str, Callable[[Tensor], Any]] = {
    "a result": lambda x: concat(cut(x), cut(x.exp())),
    "a part that is a result": lambda x: (lambda y: [y, cut(concat(y, cut(x.exp())))])(cut(x)),
    "a slice that is a result": lambda x: cut(cut(x))[:, 16:],
    "rows that are short": lambda x: (lambda y: cut(concat(cut(y), cut(y.exp()), axis=2)))(
        x.reshape(4, 8, 4)),
    "every other column": lambda x: cut(cut(x)[:, ::2]),
    "a view over the gap": lambda x: cut(concat(cut(x.reshape(16, 8)).reshape(4, 32), cut(x))),
    "scattered": lambda x: cut(concat(
        apply(ScatterAdd((4, 32)), x.graph.constant(np.arange(4), DType.INT64), x), cut(x))),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_what_has_to_be_contiguous_is(name: str) -> None:
    assert parts_of(WHOLE[name], numbers(4, 32)) == {}


def test_a_slice_of_a_concatenation_lies_where_the_parts_do() -> None:
    def network(x: Tensor) -> list[Tensor]:
        whole = concat(cut(x), cut(x.exp()))
        return [cut(whole), convolution(whole[:, 16:48].reshape(4, 32, 1, 1), 8)]

    places = parts_of(network, numbers(4, 32))
    assert [(p.begin, p.strides) for p in places.values()] == [
        (0, (64, 1)),
        (32, (64, 1)),
        (16, (64, 1)),
    ]


@FEW
@given(st.data())
def test_random_networks_of_concatenations_and_slices(data: st.DataObject) -> None:
    """Images of a batch, with what is put together and taken apart along any axis."""
    draw = data.draw

    def network(x: Tensor) -> list[Tensor]:
        values = [x, convolution(x, 16)]
        for _ in range(draw(st.integers(2, 7))):
            y = draw(st.sampled_from(values[-4:]))
            kind = draw(st.sampled_from(["conv", "conv", "concat", "concat", "slice", "relu"]))
            if kind == "conv":
                y = convolution(
                    y, draw(st.sampled_from([8, 16, 24])), draw(st.sampled_from([1, 3]))
                )
            elif kind == "concat":
                axis = draw(st.integers(0, 3))
                rest = [n for d, n in enumerate(y.shape) if d != axis]
                fits = [
                    z for z in values if [n for d, n in enumerate(z.shape) if d != axis] == rest
                ]
                y = concat(
                    y, *draw(st.lists(st.sampled_from(fits), min_size=1, max_size=3)), axis=axis
                )
            elif kind == "slice":
                axis = draw(st.sampled_from([1, 1, 0, 2]))
                size = draw(st.integers(1, y.shape[axis]))
                y = y.slice_axis(axis, draw(st.integers(0, y.shape[axis] - size)), size, 1)
            else:
                y = y.relu() * 0.5
            if y.type.size < 40_000:
                values.append(y)
        return [values[-1], convolution(values[-2], 8)]

    graph, feeds = graph_of(network, numbers(2, 8, 6, 5))
    if draw(st.booleans()):
        graph, feeds = trained(lambda x: network(x)[-1], 1, numbers(2, 8, 6, 5))
    check(planned(graph))
    same_everywhere(graph, feeds)


def test_explain_says_that_nothing_is_copied() -> None:
    graph, _ = graph_of(lambda x: cut(concat(cut(x), cut(x.exp()))), numbers(4, 32))
    assert explain(graph, "concat").verdict == (
        "concat is in no kernel: it copies nothing, as parts lie where the whole has them"
    )
