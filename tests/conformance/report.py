"""Counts of outcomes as tables, and the page that has them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import onnx

from .run import FAILED, PASSED, UNSUPPORTED, Outcome

_SEVERAL = "several operators"
_TEXT = """\
# ONNX

`qn.from_onnx("model.onnx")` gives the graph of an ONNX model; `qn.compile`, `qn.draw` and every
command take the file itself. It needs the `onnx` package: `pip install 'quern[onnx]'`.

- Operator sets from 6 to the newest that the installed `onnx` package knows.
- Initialisers of floats become parameters, so an imported network can be trained, drawn with its
  backward graph and saved. What depends on known numbers alone (shapes, integer initialisers,
  constants) is computed at import.
- Shapes are static. Symbolic dimensions are bound by `inputs={{"x": (16, 3, 224, 224)}}`. An input
  whose data decide about shapes (the target of Reshape, the k of TopK) is bound to an array,
  `inputs={{"shape": np.array([2, 3])}}`, and is then part of the network.
- `If` takes the branch of its known condition; `Loop` and `Scan` are written out, their number of
  iterations must be known.
- An operator without a rule of its own that ONNX defines by others (Attention, AffineGrid, …) is
  imported by that definition; functions of the model likewise.
- Weights in files of their own are read from the model's folder, never from outside of it.
- What cannot be compiled (strings, sequences, data-dependent shapes, random numbers) is refused in
  one line that names node, operator and reason.

## Export

`qn.to_onnx(source, "model.onnx")`, or `quern export SOURCE -o model.onnx`, writes a network to a
file of operator set 21 (ONNX 1.16, ONNX Runtime 1.18). The source is a module, the name of a
network of the zoo, a graph, an Executable with what it has learned, a `.qn` file, or whatever
else `qn.compile` takes.

- What is exported is the declared graph: a convolution with its bias, a normalisation, a pooling
  or an activation is one ONNX node. What has no operator of its own is exported as what it
  expands to.
- Parameters and buffers are initialisers under the names of the state dict; nodes, inputs and
  outputs have the names of the graph, so that `qn.from_onnx` gives the same network back.
- It is the network of inference: dropout is left out, batch normalisation uses the running
  statistics.
- A recurrence (`LSTM`, `GRU`, `RNN`, or one built by hand) is a `Scan` with its body.
- `external_data=True` puts parameters into `model.onnx.data`; beyond 1.9 GB that is done in any
  case.
- Gradients, random numbers and layouts of the machine have no operators and are refused in one
  line that names node, operation and reason. Files are replaced whole or not at all.

The table is in `frontends/onnx/writers/`: a function an operation, the mirror of `operators/`.
`tests/test_to_onnx.py` exports every operation of the registry, reads it again, and runs it in
ONNX Runtime.

## Conformance

The backend tests of ONNX (onnx {version}), run by `python -m tests.conformance`. A test is
unsupported when the importer refuses its model, for the reason it gives; there is no list of tests.

{totals}

{bound} of the tests passed with data of some inputs known at import; in {folded} of them,
everything was known then, and nothing was left to run. The nine networks of `real` run as machine
code.

### By operator

Models of a single operator, by that operator; all others together.

{operators}

### What is not supported

{reasons}
"""


def page(outcomes: Sequence[Outcome]) -> str:
    """The whole of docs/onnx.md."""
    passed = [o for o in outcomes if o.status == PASSED]
    return _TEXT.format(
        version=onnx.__version__,
        totals=_table(("kind",), ((o.kind, o) for o in outcomes)),
        operators=_table(("operator",), sorted(((_operator(o), o) for o in outcomes), key=_first)),
        bound=sum(bool(o.bound) for o in passed),
        folded=sum(bool(o.bound) and o.folded for o in passed),
        reasons=_reasons(outcomes),
    )


def totals(outcomes: Sequence[Outcome]) -> str:
    """Counts by kind and by operator, for the terminal."""
    return "\n\n".join(
        (
            _table(("operator",), sorted(((_operator(o), o) for o in outcomes), key=_first)),
            _table(("kind",), ((o.kind, o) for o in outcomes)),
        )
    )


def _first(item: tuple[str, Outcome]) -> str:
    return item[0]


def _operator(outcome: Outcome) -> str:
    return outcome.operators[0] if len(outcome.operators) == 1 else _SEVERAL


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, Outcome]]) -> str:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for key, outcome in rows:
        counts[key][outcome.status] += 1
    columns = (PASSED, UNSUPPORTED, FAILED)
    lines = [f"| {' | '.join((*head, *columns))} |", "|---|--:|--:|--:|"]
    lines += [
        f"| {k} | {' | '.join(str(c[s] or '') for s in columns)} |" for k, c in counts.items()
    ]
    return "\n".join(lines)


def _reasons(outcomes: Sequence[Outcome]) -> str:
    """Reasons without the names of nodes and inputs, most frequent first."""
    found: Counter[str] = Counter()
    for outcome in outcomes:
        if outcome.status == UNSUPPORTED:
            found[_general(outcome.reason)] += 1
    return "\n".join(f"- {reason}: {n}" for reason, n in found.most_common())


def _general(reason: str) -> str:
    reason = re.sub(r"^input \S+?: ", "", reason)
    reason = re.sub(r"^\S+ is no tensor", "a value that is no tensor", reason)
    return re.sub(r"^.*? \((\w+)\): ", r"\1: ", reason)
