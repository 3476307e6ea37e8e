"""ONNX models that tests are written with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
helper = onnx.helper
FLOAT, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64

RNG = np.random.default_rng(0)


def value(name: str, *shape: int | str, dtype: int = FLOAT) -> Any:
    return helper.make_tensor_value_info(name, dtype, shape)


def model(
    nodes: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[str] = ("y",),
    weights: dict[str, Any] | None = None,
    version: int = 21,
    **options: Any,
) -> Any:
    initializers = [
        onnx.numpy_helper.from_array(np.asarray(w), name) for name, w in (weights or {}).items()
    ]
    declared = [helper.make_empty_tensor_value_info(name) for name in outputs]
    for info in declared:
        info.type.tensor_type.elem_type = FLOAT
    graph = helper.make_graph(nodes, "net", inputs, declared, initializers)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", version)], ir_version=10, **options
    )


def node(operator: str, inputs: str, outputs: str = "y", **attributes: Any) -> Any:
    return helper.make_node(operator, inputs.split(), outputs.split(), **attributes)


W = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)
STATISTICS = {n: np.ones(4, np.float32) for n in ("bn.weight", "bn.bias", "bn.mean", "bn.var")}


def small_network(batch: int | str = 2) -> Any:
    """Convolution, batch normalisation, ReLU, and a flattening by shape arithmetic."""
    return model(
        [
            node("Conv", "x conv.weight", "c", name="/features/conv/Conv", pads=[1, 1, 1, 1]),
            node("BatchNormalization", "c bn.weight bn.bias bn.mean bn.var", "b", name="bn"),
            node("Relu", "b", "r", name="relu"),
            node("Shape", "r", "shape"),
            node("Gather", "shape zero", "n", axis=0),
            node("Unsqueeze", "n axes", "n1"),
            node("Concat", "n1 rest", "target", axis=0),
            node("Reshape", "r target", "flat", name="flatten"),
            node("Gemm", "flat fc.weight fc.bias", "y", name="fc", transB=1),
        ],
        [value("x", batch, 3, 4, 4)],
        weights={
            "conv.weight": W,
            **STATISTICS,
            "zero": np.array(0),
            "axes": np.array([0]),
            "rest": np.array([-1]),
            "fc.weight": RNG.standard_normal((5, 64)).astype(np.float32),
            "fc.bias": np.zeros(5, np.float32),
        },
    )
