"""Three oracles of one graph: NumPy, the loop interpreter, and machine code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from kernels import host, run_kernel, runs

from quern.compiler.autodiff import differentiate
from quern.compiler.driver import Options, compile_graph
from quern.compiler.evaluate import Evaluation, evaluate
from quern.compiler.graph import Graph, Value
from quern.compiler.group import Group, storage
from quern.compiler.llvm.target import Target
from quern.compiler.loops.access import collect
from quern.compiler.loops.bounds import prove
from quern.compiler.loops.interpreter import interpret
from quern.compiler.loops.ir import Kernel
from quern.compiler.loops.printer import print_kernel
from quern.compiler.lower.lower import lower
from quern.compiler.ops.leaf import Leaf
from quern.compiler.passes.expand import Expand
from quern.compiler.passes.partition import partition
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array, DType, TensorType
from quern.runtime.executable import Executable


def check_kernels(
    graph: Graph,
    feeds: Mapping[str, Array],
    rtol: float = 1e-5,
    atol: float = 1e-6,
    target: Target | None = None,
    whole: bool = True,
    change: Callable[[Group], Group] = lambda group: group,
) -> tuple[Group, ...]:
    """Compares every kernel of a graph, interpreted and as machine code, with NumPy.

    Each kernel is given what NumPy has computed, so that a fault is seen where it arises. `whole`
    then compares the outputs of the compiled graph.

    Arguments:
        graph: composites are expanded.
        feeds: contents of inputs, parameters and buffers.
        rtol, atol: of floats; atol is relative to the largest finite element.
        target: another machine than the one at hand, whose code runs only where that is possible.
        change: what is done to a group before it is lowered.

    Returns:
        The groups that the graph was partitioned into.
    """
    expanded = Expand().apply(graph.verify())
    with np.errstate(all="ignore"):
        reference = evaluate(expanded, feeds)
    groups = partition(expanded)
    check_order(expanded, groups)
    for group in groups:
        lowered = lower(expanded, change(group), target or host())
        _check_kernel(lowered.kernel, lowered.arguments, group, reference, target, (rtol, atol))
    if whole:
        _check_whole(graph, feeds, reference, (rtol, atol))
    return groups


def check_order(graph: Graph, groups: Sequence[Group]) -> None:
    """Every kernel reads what is a leaf or has been written, and every result is written once."""
    written: set[Value] = set()
    for group in groups:
        for value in group.inputs:
            base = storage(graph, value)
            is_leaf = isinstance(graph.producer(base).op, Leaf)
            assert is_leaf or base in written, f"{group.name} reads {value} before it is written"
        assert not written.intersection(group.outputs), f"{group.name} writes a value again"
        written.update(group.outputs)
    for value in (*graph.outputs.values(), *graph.updates.values()):
        base = storage(graph, value)
        assert isinstance(graph.producer(base).op, Leaf) or base in written, f"{value} is lost"


def _check_kernel(
    kernel: Kernel,
    arguments: Sequence[Value],
    group: Group,
    reference: Evaluation,
    target: Target | None,
    tolerance: tuple[float, float],
) -> None:
    accesses = collect(kernel)
    prove(kernel, accesses)
    given = [
        None
        if value in group.outputs
        else np.ascontiguousarray(reference.values[value]).reshape(buffer.shape)
        for value, buffer in zip(arguments, kernel.parameters, strict=True)
    ]
    interpreted = [
        np.full(b.shape, _garbage(b.dtype), b.dtype.numpy) if a is None else a.copy()
        for a, b in zip(given, kernel.parameters, strict=True)
    ]
    with np.errstate(all="ignore"):
        interpret(kernel, interpreted, accesses)
    results = {"interpreter": interpreted}
    if runs(target or host()):
        results["machine code"] = run_kernel(kernel, given, target, pieces=2)
    for name, found in results.items():
        for value, array in zip(arguments, found, strict=True):
            expected = reference.values[value]
            what = f"{name}: {value} of kernel {kernel.name}\n"
            rtol, atol = (0.0, 0.0) if value not in group.outputs else tolerance
            try:
                compare(array.reshape(expected.shape), expected, rtol, atol, what)
            except AssertionError as error:
                error.add_note(print_kernel(kernel))
                raise


def _garbage(dtype: DType) -> Any:
    return np.nan if dtype.is_float else 77 if dtype.is_integer else True


def _check_whole(
    graph: Graph,
    feeds: Mapping[str, Array],
    reference: Evaluation,
    tolerance: tuple[float, float],
) -> None:
    image = compile_graph(graph, Options(workers=1)).image
    executable = Executable(image, threads=1)
    executable.load_state({n: feeds[n] for n in executable.state if n in feeds}, strict=False)
    outputs = executable.run({n: feeds[n] for n in executable.inputs})
    for name, expected in reference.outputs.items():
        compare(outputs[name], expected, *tolerance, f"executable: output {name}\n")
    for name, expected in reference.updates.items():
        compare(executable.state[name], expected, *tolerance, f"executable: state {name}\n")


def compare(found: Array, expected: Array, rtol: float, atol: float, what: str) -> None:
    """Floats by tolerance, NaN and infinities in the same places; all else exactly."""
    assert found.shape == expected.shape, what
    assert found.dtype == expected.dtype, what
    if expected.dtype.kind != "f" or (rtol, atol) == (0.0, 0.0):
        np.testing.assert_array_equal(found, expected, err_msg=what)
        return
    scale = np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected))
    np.testing.assert_allclose(found, expected, rtol, atol * max(1.0, scale), err_msg=what)


def graph_of(function: Callable[..., Any], *arrays: Array) -> tuple[Graph, dict[str, Array]]:
    """The graph of a function of tensors, and its feeds x0, x1, …"""
    graph = Graph()
    tensors = [
        graph.input(TensorType(x.shape, DType.of(x.dtype)), f"x{i}") for i, x in enumerate(arrays)
    ]
    results = function(*tensors)
    results = results if isinstance(results, tuple | list) else (results,)
    graph.outputs = {f"y{i}": t.value for i, t in enumerate(results) if isinstance(t, Tensor)}
    return graph, {f"x{i}": x for i, x in enumerate(arrays)}


def check(function: Callable[..., Any], *arrays: Array, **options: Any) -> tuple[Group, ...]:
    """`check_kernels` of a function of tensors."""
    return check_kernels(*graph_of(function, *arrays), **options)


def trained(
    function: Callable[..., Any], count: int, *arrays: Array
) -> tuple[Graph, dict[str, Array]]:
    """A function's graph with the gradients by its first `count` inputs, and feeds.

    What is differentiated is the first result, weighted by random numbers.
    """
    graph, feeds = graph_of(function, *arrays)
    y = graph.tensor(graph.outputs["y0"])
    seed = graph.input(y.type, "seed")
    feeds["seed"] = np.random.default_rng(9).standard_normal(y.shape).astype(y.dtype.numpy)
    graph.outputs["weighted"] = (y * seed).value
    return differentiate(graph, "weighted", [f"x{i}" for i in range(count)]), feeds
