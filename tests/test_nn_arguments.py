"""What modules and functions are given: told where it is not what their annotations say."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

import quern as qn
from quern import nn
from quern.compiler.errors import QuernError, UsageError
from quern.nn import functional as F

# Of each annotation that is looked at, as it is written: a value that it allows.
ALLOWED: dict[str, Any] = {
    "bool": True,
    "float": 0.5,
    "float | None": 0.5,
    "int": 2,
    "int | None": 2,
    "Sequence[Tensor]": [np.zeros(3, np.float32)],
    "Sequence[int]": (2,),
    "Size": 2,
    "Size | None": 2,
    "OptionalSize": 2,
    "Shape": (2,),
    "str": "mean",
    "Tensor": np.zeros(3, np.float32),
    "Tensor | None": np.zeros(3, np.float32),
}

MODULES = [
    found
    for name, found in sorted(vars(nn).items())
    if inspect.isclass(found) and issubclass(found, nn.Module) and found is not nn.Module
]
FUNCTIONS = [getattr(F, name) for name in F.__all__]


def assert_told(call: Callable[..., Any], title: str) -> int:
    """Something else for one argument after the other; returns for how many."""
    parameters = inspect.signature(call).parameters.values()
    needed = {p.name: ALLOWED.get(p.annotation) for p in parameters if p.default is p.empty}
    looked_at = [p.name for p in parameters if p.annotation in ALLOWED]
    several = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if several or any(value is None for value in needed.values()):
        return 0
    for name in looked_at:
        with pytest.raises(UsageError) as told:
            call(**{**needed, name: object()})
        message = str(told.value)
        assert message.startswith(f"{title} ({__file__}:"), message
        assert f": {name} is " in message, message
        assert message.endswith("not of type object"), message
    return len(looked_at)


def test_every_module_tells_of_arguments_that_are_something_else() -> None:
    assert sum(assert_told(module, module.__name__) for module in MODULES) > 350


def test_every_function_tells_of_arguments_that_are_something_else() -> None:
    assert sum(assert_told(function, function.__name__) for function in FUNCTIONS) > 350


IMAGE = np.ones((1, 2, 4, 4), np.float32)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: nn.Linear("3", 2), "in_features is a whole number, not '3'; write 3 without quo"),
        (lambda: nn.Linear(3.0, 2), "in_features is a whole number, not 3.0; write 3"),
        (lambda: nn.Linear(6 / 4, 2), "in_features is a whole number, not 1.5; // divides to one"),
        (lambda: nn.Linear(10**30, 2), "in_features is a whole number, not 1000000000"),
        (lambda: nn.Linear(3, 2, bias=IMAGE), "bias is True or False, not of type ndarray of shap"),
        (lambda: nn.Conv2d(1, 2, (3, "x")), "kernel_size is a whole number or several, not "),
        (lambda: nn.LSTM(3, 4, 1.5), "num_layers is a whole number, not 1.5"),
        (lambda: nn.Dropout("a lot"), "p is a number, not 'a lot'"),
        (lambda: nn.Dropout(10**400), "p is a number, not 1000"),
        (lambda: nn.BatchNorm2d(2, eps=[1, 2]), "eps is a number, not [1, 2]"),
        (lambda: nn.MSELoss(reduction=None), "reduction is a string, not None"),
        (lambda: F.max_pool2d(IMAGE, "s"), "kernel_size is a whole number or several, not "),
        (lambda: F.softmax(IMAGE, 1.0), "dim is a whole number or None, not 1.0; write 1"),
        (lambda: F.relu([1, 2]), "input is a tensor, not [1, 2]"),
        (lambda: qn.sum(IMAGE, "channels"), "axis is a whole number or several or None, not 'ch"),
    ],
)
def test_errors_say_what_was_given_and_what_to_write(call: Callable[[], Any], said: str) -> None:
    with pytest.raises(UsageError) as told:
        call()
    assert said in str(told.value)
    assert "\n" not in str(told.value)


def test_a_module_made_by_a_users_class_names_the_users_line() -> None:
    class Net(nn.Conv2d):
        def __init__(self, channels: object) -> None:
            super().__init__(channels, 2, 3)  # type: ignore[arg-type]  # which may be refused

    with pytest.raises(UsageError, match=r"Net \(.*test_nn_arguments\.py:\d+\): in_channels is"):
        Net("three")


def test_numbers_of_numpy_and_truths_of_pytorch_are_taken() -> None:
    conv = nn.Conv2d(np.int64(2), np.uint8(4), np.array([3, 1]), padding=np.int32(1), bias=None)  # type: ignore[arg-type]  # taken all the same
    assert repr(conv) == repr(nn.Conv2d(2, 4, (3, 1), padding=1, bias=False))
    assert type(conv.in_channels) is int
    assert nn.Dropout(np.float32(0.5)).p == 0.5  # type: ignore[arg-type]  # taken all the same
    assert nn.LeakyReLU(1).negative_slope == 1
    pooled = F.max_pool2d(IMAGE, np.int64(2), stride=[np.int64(1), 2])  # type: ignore[arg-type]  # taken all the same
    np.testing.assert_array_equal(pooled, F.max_pool2d(IMAGE, 2, stride=(1, 2)))


def test_truths_and_numbers_are_told_apart_where_both_may_be_given() -> None:
    counts = np.zeros((2, 2), np.int64)
    np.testing.assert_array_equal(qn.index_fill(counts, 0, [1], 5), [[0, 0], [5, 5]])
    np.testing.assert_array_equal(
        qn.index_fill(counts > 0, 0, [1], True), [[False] * 2, [True] * 2]
    )


@pytest.mark.parametrize("number", [-1, -(2**40), 2**62])
def test_no_module_is_made_with_absurd_numbers(number: int) -> None:
    for module in MODULES:
        parameters = inspect.signature(module).parameters.values()
        needed = {p.name: ALLOWED.get(p.annotation) for p in parameters if p.default is p.empty}
        for p in parameters:
            if p.annotation in ("int", "Size") and p.name != "dim" and "Lazy" not in str(module):
                if number > 0 and "layers" in p.name:
                    continue  # they would be made, one after the other
                with suppress(QuernError):
                    module(**{**needed, p.name: number})
