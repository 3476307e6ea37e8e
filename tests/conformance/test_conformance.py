"""No model that the importer accepts gives wrong results."""

from __future__ import annotations

from collections import Counter

import pytest

pytest.importorskip("onnx")

from .models import KINDS, load
from .run import FAILED, PASSED, UNSUPPORTED, compiled, outcome_of

# At most one of so many node tests is looked at in the default run.
_EVERY = 20


def test_the_models_of_pytorch_all_pass() -> None:
    for kind in ("pytorch-converted", "pytorch-operator"):
        outcomes = [outcome_of(test) for test in load(kind)]
        assert len(outcomes) >= 30
        assert [(o.name, o.reason) for o in outcomes if o.status != PASSED] == []


def test_the_simple_models_pass_but_for_strings_and_sequences() -> None:
    outcomes = [outcome_of(test) for test in load("simple")]
    assert Counter(o.status for o in outcomes)[PASSED] >= 7
    for outcome in outcomes:
        assert outcome.status != FAILED, outcome
        if outcome.status == UNSUPPORTED:
            assert any(
                word in outcome.reason.lower() for word in ("string", "sequence", "gradient")
            ), outcome


def test_some_models_of_single_operators() -> None:
    outcomes = [outcome_of(test) for i, test in enumerate(load("node")) if i % _EVERY == 0]
    assert [(o.name, o.reason) for o in outcomes if o.status == FAILED] == []
    assert Counter(o.status for o in outcomes)[PASSED] * _EVERY >= 1250


@pytest.mark.slow
def test_all_models_of_single_operators() -> None:
    outcomes = [outcome_of(test) for test in load("node")]
    assert [(o.name, o.reason) for o in outcomes if o.status == FAILED] == []
    assert Counter(o.status for o in outcomes)[PASSED] >= 1424


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_compiled(kind: str) -> None:
    """Machine code; `real` are nine whole networks."""
    for test in load(kind):
        outcome = outcome_of(test, compiled)
        assert outcome.status != FAILED, outcome
        assert kind != "real" or outcome.status == PASSED
