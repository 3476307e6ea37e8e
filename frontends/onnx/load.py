"""`from_onnx`: a file, or a model in memory, as a graph."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ...compiler.errors import OnnxError
from ...compiler.graph import Graph
from ...compiler.types import Array, TensorType
from .call import Operand
from .importer import Importer, Scope
from .naming import sanitized
from .proto import (
    ModelProto,
    ValueInfoProto,
    declared_shape,
    dtype_of,
    numpy_dtype,
    onnx_package,
    read_model,
)

Binding: TypeAlias = Sequence[int] | TensorType | Array

_OLDEST = 6


def from_onnx(source: str | Path | Any, inputs: Mapping[str, Binding] | None = None) -> Graph:
    """The graph of an ONNX model.

    Initialisers of floats become parameters, statistics of batch normalisation buffers, and what
    is known without the network's inputs is computed now. Nodes and inputs keep their ONNX names,
    with dots for slashes; outputs have the names they have in the file.

    Arguments:
        source: path of a file, or an `onnx.ModelProto`.
        inputs: by name, the shape of an input, `{"x": (16, 3, 224, 224)}`, which symbolic
            dimensions need; or an array, which makes the input a constant.

    Raises:
        OnnxError: the file is damaged, or holds what cannot be compiled: the node and the reason.
    """
    onnx = onnx_package()
    if isinstance(source, onnx.ModelProto):
        model, folder, name = source, None, source.graph.name
    else:
        path = Path(source)
        model, folder, name = read_model(path), path.parent, path.stem
    return _imported(model, folder, name, dict(inputs or {}))


@dataclass(frozen=True)
class OnnxFile:
    """A file whose network gets the types of its inputs when its graph is asked for."""

    path: Path

    def graph(self, *specs: TensorType, **named: TensorType) -> Graph:
        """The graph for inputs of these types: in order, or by name.

        Raises:
            OnnxError: as from_onnx; more types than inputs.
        """
        model = read_model(self.path)
        known = {t.name for t in model.graph.initializer}
        names = [v.name for v in model.graph.input if v.name not in known]
        if len(specs) > len(names):
            raise OnnxError(f"{self.path} has {len(names)} inputs, {len(specs)} types were given")
        given: dict[str, Binding] = {**dict(zip(names, specs, strict=False)), **named}
        return _imported(model, self.path.parent, self.path.stem, given)


def _imported(
    model: ModelProto, folder: Path | None, name: str, inputs: dict[str, Binding]
) -> Graph:
    _check_versions(model)
    importer = Importer(model, folder, Graph(sanitized(name or "onnx")))
    scope: Scope = ChainMap({})
    importer.initializers(model.graph, scope)
    _bind_inputs(importer, scope, inputs)
    outputs = [v.name for v in model.graph.output]
    for value in model.graph.output:
        declared_shape(value)
    importer.run(model.graph.node, scope, set(outputs))
    for output in outputs:
        if output not in scope:
            raise OnnxError(f"the output {output} is given by no node")
    return importer.finish({output: scope[output] for output in outputs}).verify()


def _check_versions(model: ModelProto) -> None:
    newest = onnx_package().defs.onnx_opset_version()
    for used in model.opset_import:
        if used.domain not in ("", "ai.onnx"):
            continue
        if not _OLDEST <= used.version <= newest:
            raise OnnxError(
                f"the model uses operator set {used.version}; supported are {_OLDEST} to {newest}, "
                "the newest that the installed onnx package knows"
            )


def _bind_inputs(importer: Importer, scope: Scope, given: dict[str, Binding]) -> None:
    """Puts the network's inputs into the scope."""
    values = [v for v in importer.model.graph.input if v.name not in scope]
    names = [v.name for v in values]
    for name in given:
        if name not in names and name not in map(sanitized, names):
            raise OnnxError(
                f"there is no input {name}; the inputs are {', '.join(names) or 'none'}"
            )
    for value in values:
        scope[value.name] = _input(
            importer, value, given.get(value.name, given.get(sanitized(value.name)))
        )


def _input(importer: Importer, value: ValueInfoProto, given: Binding | None) -> Operand:
    shape = declared_shape(value)
    element = value.type.tensor_type.elem_type
    if isinstance(given, np.ndarray | np.generic):
        _check_shape(value.name, shape, given.shape)
        return np.asarray(given, numpy_dtype(element))
    wanted: Sequence[int] | None = given.shape if isinstance(given, TensorType) else given
    try:
        dtype = dtype_of(element)
    except OnnxError as error:
        raise OnnxError(f"input {value.name}: {error}") from None
    if wanted is None:
        if shape is None or any(isinstance(n, str) for n in shape):
            what = "no shape" if shape is None else f"the shape ({', '.join(map(str, shape))})"
            raise OnnxError(
                f"input {value.name} is declared with {what}; give one, "
                f"inputs={{{value.name!r}: (…)}}"
            )
        wanted = [int(n) for n in shape]
    _check_shape(value.name, shape, wanted)
    if isinstance(given, TensorType) and given.dtype is not dtype:
        raise OnnxError(f"input {value.name} is {dtype}, it cannot be {given}")
    type = TensorType(tuple(int(n) for n in wanted), dtype)
    importer.check_size(type)
    return importer.graph.input(type, sanitized(value.name))


def _check_shape(name: str, declared: Sequence[int | str] | None, given: Sequence[int]) -> None:
    if declared is None:
        return
    fits = len(declared) == len(given) and all(
        isinstance(d, str) or d == n for d, n in zip(declared, given, strict=True)
    )
    if not fits or any(n < 0 for n in given):
        told = ", ".join(map(str, declared))
        raise OnnxError(f"input {name} is declared as ({told}), it cannot be {tuple(given)}")
