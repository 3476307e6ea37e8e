"""The tests that the onnx package brings: models, inputs, expected outputs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator", "real")
_FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data"


@dataclass(frozen=True, eq=False)
class ModelTest:
    """A model with data.

    Arguments:
        kind: one of KINDS.
        name: of the test.
        model: an `onnx.ModelProto`.
        sets: inputs in order, and the outputs they give. Arrays, but for sequences and the like.
        rtol, atol: of the comparison.
    """

    kind: str
    name: str
    model: Any
    sets: tuple[tuple[list[Any], list[Any]], ...]
    rtol: float
    atol: float

    @property
    def operators(self) -> tuple[str, ...]:
        """The operators of its graph, each once."""
        return tuple(dict.fromkeys(node.op_type for node in self.model.graph.node))

    @property
    def inputs(self) -> list[str]:
        """Names of what it is given: its inputs that are no initialisers."""
        known = {t.name for t in self.model.graph.initializer}
        return [v.name for v in self.model.graph.input if v.name not in known]


def load(kind: str) -> Iterator[ModelTest]:
    """All tests of a kind."""
    from onnx.backend.test import loader

    with warnings.catch_warnings():  # the package computes infinities to test with
        warnings.simplefilter("ignore")
        found = loader.load_model_tests(kind=kind)
    for case in found:
        # The rtol of ONNX's own runner; results near 0 are held to an absolute 1e-5.
        tolerance = max(case.rtol, 1e-3), max(case.atol, 1e-5)
        if case.model is not None:
            sets = tuple(
                ([_array(x) for x in i], [_array(y) for y in o]) for i, o in case.data_sets
            )
            yield ModelTest(kind, case.name, case.model, sets, *tolerance)
        elif case.url is not None:
            yield _light(kind, case.name, _FOLDER / "light" / Path(case.url).name, tolerance)
        else:
            folder = Path(case.model_dir)
            model = onnx.load(folder / "model.onnx")
            sets = tuple(_data_set(d, model) for d in sorted(folder.glob("test_data_set*")))
            yield ModelTest(kind, case.name, model, sets, *tolerance)


def _array(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def _data_set(folder: Path, model: Any) -> tuple[list[Any], list[Any]]:
    def values(kind: str, declared: Any) -> list[Any]:
        count = len(list(folder.glob(f"{kind}_*.pb")))
        return [_read(folder / f"{kind}_{i}.pb", declared[i]) for i in range(count)]

    return values("input", model.graph.input), values("output", model.graph.output)


def _read(path: Path, declared: Any) -> Any:
    if declared.type.WhichOneof("value") != "tensor_type":
        return None
    tensor = onnx.TensorProto()
    tensor.ParseFromString(path.read_bytes())
    return numpy_helper.to_array(tensor)


def _light(kind: str, name: str, path: Path, tolerance: tuple[float, float]) -> ModelTest:
    """A real network whose weights are constants, on the ramp that ONNX feeds it."""
    model = onnx.load(path)
    known = {t.name for t in model.graph.initializer}
    inputs = []
    for value in model.graph.input:
        if value.name not in known:
            shape = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
            count = int(np.prod(shape))
            inputs.append((np.arange(count).reshape(shape) / count).astype(np.float32))
    outputs = [
        _read(path.with_name(f"{path.stem}_output_{i}.pb"), value)
        for i, value in enumerate(model.graph.output)
    ]
    return ModelTest(kind, name, model, ((inputs, outputs),), *tolerance)
