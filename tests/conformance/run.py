"""One test: imported, run, compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from quern import from_onnx
from quern.compiler.driver import Options, compile_graph
from quern.compiler.errors import QuernError
from quern.compiler.evaluate import evaluate
from quern.compiler.graph import Graph
from quern.compiler.ops.leaf import Input
from quern.frontends.onnx.contents import DataDependentError
from quern.frontends.onnx.naming import sanitized
from quern.runtime.executable import Executable

from .models import ModelTest

Run = Callable[[Graph, Mapping[str, Any]], Mapping[str, Any]]

PASSED, UNSUPPORTED, FAILED = "passed", "unsupported", "failed"


@dataclass(frozen=True)
class Outcome:
    """What became of a test.

    Arguments:
        kind, name: of the test.
        operators: of its model.
        status: PASSED, UNSUPPORTED or FAILED.
        reason: the importer's, or what is wrong with the results.
        bound: inputs whose data had to be known at import.
        folded: whether everything was known then, so that nothing was left to run.
    """

    kind: str
    name: str
    operators: tuple[str, ...]
    status: str
    reason: str = ""
    bound: tuple[str, ...] = ()
    folded: bool = False


def by_numpy(graph: Graph, feeds: Mapping[str, Any]) -> Mapping[str, Any]:
    """The outputs of the reference."""
    with np.errstate(all="ignore"):
        return evaluate(graph, feeds).outputs


def compiled(graph: Graph, feeds: Mapping[str, Any]) -> Mapping[str, Any]:
    """The outputs of machine code."""
    executable = Executable(compile_graph(graph, Options()).image, threads=None)
    return executable.run({name: feeds[name] for name in executable.inputs})


def outcome_of(test: ModelTest, run: Run = by_numpy) -> Outcome:
    """Imports, runs and compares."""
    bound: tuple[str, ...] = ()
    folded = True
    status, reason = PASSED, ""
    try:
        for inputs, expected in test.sets:
            feeds = dict(zip(map(sanitized, test.inputs), inputs, strict=False))
            graph, bound = _import(test.model, feeds)
            names = {n.name for n in graph.leaves(Input)}
            folded = folded and not names
            outputs = run(graph, {n: np.asarray(x) for n, x in feeds.items() if n in names})
            _compare(list(outputs.values()), expected, test)
    except QuernError as error:
        status, reason = UNSUPPORTED, str(error)
    except AssertionError as error:
        status, reason = FAILED, " ".join(str(error).split())
    except Exception as error:  # an importer or a kernel that breaks is a failure, not the end
        status, reason = FAILED, f"{type(error).__name__}: {error}"
    return Outcome(test.kind, test.name, test.operators, status, reason, bound, folded)


def _import(model: Any, feeds: Mapping[str, Any]) -> tuple[Graph, tuple[str, ...]]:
    """The graph, with the data of those inputs that the importer asks for."""
    known: dict[str, Any] = {n: x.shape for n, x in feeds.items() if hasattr(x, "shape")}
    bound: tuple[str, ...] = ()
    while True:
        try:
            return from_onnx(model, known), bound
        except DataDependentError as error:
            if not set(error.inputs) - set(bound):
                raise
            bound = (*bound, *(n for n in error.inputs if n not in bound))
            known |= {name: np.asarray(feeds[name]) for name in bound}


def _compare(outputs: list[Any], expected: list[Any], test: ModelTest) -> None:
    assert len(outputs) == len(expected), f"{len(outputs)} outputs, expected {len(expected)}"
    for found, wanted in zip(outputs, expected, strict=True):
        assert found.shape == wanted.shape, f"shape {found.shape}, expected {wanted.shape}"
        assert found.dtype == wanted.dtype, f"dtype {found.dtype}, expected {wanted.dtype}"
        if found.dtype.kind == "f":
            np.testing.assert_allclose(found, wanted, rtol=test.rtol, atol=test.atol)
        else:
            np.testing.assert_array_equal(found, wanted)
