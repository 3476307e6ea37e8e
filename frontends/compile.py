"""The front door of the compiler: anything that describes a network, compiled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..compiler.driver import Options, compile_graph
from ..compiler.errors import UsageError
from ..compiler.graph import Graph
from ..compiler.llvm.target import Target
from ..compiler.types import TensorType
from ..runtime.executable import Executable


def as_graph(source: Any, *specs: TensorType) -> Graph:
    """The graph of a network.

    Arguments:
        source: a Graph, a module or a function of tensors.
        specs: types of the inputs, where the source does not know them.

    Raises:
        UsageError: it is none of these.
    """
    if isinstance(source, Graph):
        return source
    if callable(source):
        from .nn.trace import trace

        return trace(source, *specs)
    raise UsageError(
        f"{type(source).__name__} cannot be compiled; give a module, a function of tensors, or a Graph"
    )


def compile(
    source: Any,
    *specs: TensorType,
    threads: int | None = None,
    target: str | Target | None = None,
    dump: str | Path | None = None,
    workers: int | None = None,
) -> Executable:
    """Compiles a network to machine code.

    Arguments:
        source: a module, a function of tensors, or a Graph.
        specs: types of the inputs (`qn.spec(64, 1, 28, 28)`), where the source does not know them.
        threads: that run it; QUERN_NUM_THREADS or the usable processors by default.
        target: "avx512", "avx2" or "sse"; the host by default.
        dump: folder into which the text of every stage is written.
        workers: processes that compile kernels.

    Returns:
        What can be called with NumPy arrays.

    Raises:
        QuernError: what does not fit, with node and line.
    """
    chosen = Target.named(target) if isinstance(target, str) else target or Target.host()
    options = Options(chosen, workers=workers)
    compiled = compile_graph(as_graph(source, *specs), options, Path(dump) if dump else None)
    return Executable(compiled.image, threads)


def interpret(source: Any, *arrays: Any, **named: Any) -> Any:
    """Runs a network by NumPy alone, slowly: what compiled results are checked against.

    Arguments:
        source: a Graph, or a module or function of tensors.
        arrays: inputs, in order.
        named: inputs by name.

    Returns:
        One array for one output, a tuple for several.
    """
    from ..compiler.evaluate import evaluate
    from ..compiler.ops.leaf import Input

    graph = as_graph(source, *(_spec_of(a) for a in (*arrays, *named.values())))
    names = [n.name for n in graph.leaves(Input)]
    results = tuple(
        evaluate(graph, {**dict(zip(names, arrays, strict=False)), **named}).outputs.values()
    )
    return results[0] if len(results) == 1 else results


def _spec_of(array: Any) -> TensorType:
    import numpy as np

    from ..compiler.types import DType

    value = np.asarray(array)
    return TensorType(tuple(value.shape), DType.of(value.dtype))
