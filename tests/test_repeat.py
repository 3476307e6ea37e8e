"""Recurrences as loops: what NumPy computes, in programs that do not grow with time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import compare

import quern as qn
from quern import nn
from quern.compiler.autodiff import differentiate
from quern.compiler.driver import Options, compile_graph, standard_passes
from quern.compiler.evaluate import evaluate
from quern.compiler.explain import explain
from quern.compiler.graph import Graph
from quern.compiler.llvm.target import Target
from quern.compiler.ops.recurrence import Recurrence, recur
from quern.compiler.tensor import Tensor
from quern.compiler.training import build_training_step
from quern.compiler.types import Array, DType, TensorType
from quern.runtime.executable import Executable
from quern.runtime.program import Program, program_from_json, program_to_json

Step = Callable[..., tuple[Sequence[Tensor], Sequence[Tensor]]]


def looped(graph: Graph, threads: int = 1) -> Executable:
    """The graph compiled with all its recurrences as loops."""
    options = Options(passes=standard_passes(0, Target.host()), workers=1)
    return Executable(compile_graph(graph, options).image, threads=threads)


def check(graph: Graph, feeds: dict[str, Array]) -> Program:
    """Compares a graph in loops with NumPy."""
    executable = looped(graph)
    found = executable.run(feeds)
    for name, expected in evaluate(graph, feeds).outputs.items():
        compare(found[name], expected, 1e-5, 1e-5, name)
    return executable.program


def numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def recurrence(
    step: Step, steps: int, shape: tuple[int, ...], count: int, reverse: bool = False
) -> tuple[Graph, dict[str, Array]]:
    """`count` states and a sequence of a shape; everything the recurrence gives is an output."""
    graph = Graph()
    feeds = {f"s{i}": numbers(*shape, seed=i) for i in range(count)}
    feeds |= {"x": numbers(steps, *shape, seed=7), "w": numbers(shape[-1], shape[-1], seed=8)}
    given = [graph.input(TensorType(a.shape, DType.FLOAT32), n) for n, a in feeds.items()]
    states, results = recur(step, given[:count], given[count:-1], given[-1:], reverse=reverse)
    named = {f"end{i}": t for i, t in enumerate(states)}
    named |= {f"y{i}": t for i, t in enumerate(results)}
    graph.outputs = {name: t.value for name, t in named.items()}
    return graph, feeds


@settings(max_examples=12)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 17), st.booleans())
def test_a_state_that_is_a_result(steps: int, rows: int, columns: int, reverse: bool) -> None:
    def step(s: Tensor, x: Tensor, w: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        s = (s @ w * 0.2 + x).tanh()
        return [s], [s]

    program = check(*recurrence(step, steps, (rows, columns), 1, reverse))
    assert program.loops[0].count == steps


@pytest.mark.parametrize("steps", [1, 2, 3, 6])
@pytest.mark.parametrize("reverse", [False, True])
def test_states_that_no_result_tells_of(steps: int, reverse: bool) -> None:
    def step(a: Tensor, b: Tensor, x: Tensor, w: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        return [(a @ w).tanh() + x, b * 0.5 + a.exp().sqrt()], [a * b]

    check(*recurrence(step, steps, (3, 5), 2, reverse))


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_states_that_change_places(steps: int) -> None:
    def step(a: Tensor, b: Tensor, x: Tensor, w: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        return [b, a], [a, b + x]

    check(*recurrence(step, steps, (2, 9), 2))


@pytest.mark.parametrize("steps", [1, 4])
def test_what_goes_through_is_copied(steps: int) -> None:
    def step(
        a: Tensor, b: Tensor, c: Tensor, x: Tensor, w: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        y = (a @ w).relu()
        return [y, b, x], [y, y, y.reshape((y.shape[1], y.shape[0])), x, a, b, c]

    check(*recurrence(step, steps, (4, 6), 3))


@pytest.mark.parametrize("shape", [(9, 16), (13, 33), (16, 40)])
@pytest.mark.parametrize("transposed", [False, True])
def test_matrices_of_the_loop_are_packed_once(shape: tuple[int, int], transposed: bool) -> None:
    def step(s: Tensor, x: Tensor, w: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        s = (s @ (w.transpose() if transposed else w) * 0.2 + x).tanh()
        return [s], [s]

    program = check(*recurrence(step, 4, shape, 1))
    assert [k for k in program.kernels if "packed before" in k.note]


def test_constants_of_the_body_are_read() -> None:
    table = numbers(2, 3, seed=5)

    def step(s: Tensor, x: Tensor, w: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        s = s + x * s.graph.constant(table) + 2.0
        return [s], [s @ w]

    check(*recurrence(step, 5, (2, 3), 1))


def test_values_between_kernels_share_memory() -> None:
    def step(s: Tensor, x: Tensor, w: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        for _ in range(4):
            s = (s @ w * 0.1).tanh() @ w
        return [s + x], [s]

    graph, feeds = recurrence(step, 3, (8, 32), 1)
    program = check(graph, feeds)
    value = 8 * 32 * 4
    packed = 32 * 32 * 4
    assert program.arena_bytes <= packed + 6 * value


@pytest.mark.parametrize("cell", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("threads", [2, 4])
def test_training_gives_the_same_bits_with_any_number_of_threads(
    cell: type[nn.LSTM], threads: int
) -> None:
    net = cell(20, 64, num_layers=2, bidirectional=True)
    x = numbers(10, 16, 20)
    graph = differentiate(qn.trace(lambda x: {"loss": (net(x)[0] ** 2).sum()}, qn.spec(x)), "loss")
    alone, together = looped(graph).run({"x": x}), looped(graph, threads).run({"x": x})
    assert len(alone) > 8
    for name, array in alone.items():
        np.testing.assert_array_equal(array, together[name], err_msg=name)


@pytest.mark.parametrize("cell", [nn.RNN, nn.LSTM, nn.GRU])
def test_gradients_in_loops_are_those_of_the_unrolled_network(cell: type[nn.LSTM]) -> None:
    net = cell(5, 12, num_layers=2)
    x = numbers(9, 3, 5)
    graph = differentiate(qn.trace(lambda x: {"loss": (net(x)[0] ** 2).sum()}, qn.spec(x)), "loss")
    unrolled = Options(passes=standard_passes(unroll=100), workers=1)
    expected = Executable(compile_graph(graph, unrolled).image, threads=1).run({"x": x})
    found = looped(graph).run({"x": x})
    for name, array in expected.items():
        compare(found[name], array, 1e-4, 1e-5, name)


def test_the_program_of_a_longer_sequence_has_as_many_steps_and_the_same_code() -> None:
    net = nn.LSTM(8, 16, num_layers=2)
    short, long = (
        qn.compile(lambda x: net(x)[0], qn.spec(steps, 2, 8), threads=1) for steps in (50, 1000)
    )
    assert len(short.program.steps) == len(long.program.steps)
    assert len(short.program.slots) == len(long.program.slots)
    loops = [loop.count for loop in long.program.loops]
    assert loops.count(1000) == 2
    inside = {
        step.symbol
        for program in (short.program, long.program)
        for loop in program.loops
        for step in program.steps[loop.begin : loop.end]
    }
    assert {s.rsplit(".", 1)[0] for s in inside} <= set(short.image.objects)
    assert len(short.image.objects) == len(long.image.objects)


def test_programs_with_loops_are_written_and_read() -> None:
    def step(s: Tensor, x: Tensor, w: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        s = s @ w + x
        return [s], [s]

    graph, _ = recurrence(step, 12, (2, 3), 1)
    program = compile_graph(graph, Options(workers=1)).image.program
    assert program.loops
    assert program_from_json(program_to_json(program)) == program


def test_the_time_of_a_step_is_that_of_all_iterations() -> None:
    def step(s: Tensor, x: Tensor, w: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        s = (s @ w + x).tanh()
        return [s], [s]

    graph, feeds = recurrence(step, 40, (16, 64), 1)
    executable = looped(graph)
    stamps = np.zeros(len(executable.program.steps) + 1, np.int64)
    executable.run(feeds, stamps)
    assert (np.diff(stamps) > 0).all()


def test_a_loop_is_explained_by_its_kernels() -> None:
    net = nn.LSTM(8, 16)
    graph = qn.trace(lambda x: net(x)[0], qn.spec(20, 2, 8))
    (recurrent,) = [n.name for n in graph.nodes() if isinstance(n.op, Recurrence)]
    text = explain(graph, recurrent).text()
    assert "loop of 20 steps" in text
    assert "in parallel(" in text


def lstm_graph(steps: int, batch: int, training: bool) -> Graph:
    """Two layers over a sequence; the mean square of what they give, and what SGD does, or that."""
    net = nn.LSTM(128, 256, num_layers=2)
    x = qn.spec(steps, batch, 128)
    if not training:
        return qn.trace(lambda x: net(x)[0], x)
    graph = qn.trace(lambda x: {"loss": (net(x)[0] ** 2).mean()}, x, training=True)
    return build_training_step(graph, "loss", qn.optim.SGD(lr=0.1))


@pytest.mark.parametrize(
    ("batch", "training"), [(1, False), (8, False), (32, False), (32, True), (48, True)]
)
def test_code_is_as_large_for_a_sequence_of_any_length(batch: int, training: bool) -> None:
    options = Options(target=Target.named("avx2"), workers=1)
    short, long = (
        compile_graph(lstm_graph(steps, batch, training), options).image for steps in (50, 1000)
    )
    assert len(short.objects) == len(long.objects)
    assert len(short.program.steps) == len(long.program.steps)
    assert sum(map(len, short.objects.values())) == sum(map(len, long.objects.values()))
