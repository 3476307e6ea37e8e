"""What an ONNX file holds, as Python and NumPy data: checked, and bounded in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

from ...compiler.errors import OnnxError
from ...compiler.types import Array, DType

# The classes that protobuf generates have no types of their own.
ModelProto: TypeAlias = Any
GraphProto: TypeAlias = Any
NodeProto: TypeAlias = Any
TensorProto: TypeAlias = Any
AttributeProto: TypeAlias = Any
ValueInfoProto: TypeAlias = Any

MOST_BYTES = 1 << 36  # of one value: more than any network has, less than what a typing error gives
_PROTOBUF_LIMIT = 1 << 31


def onnx_package() -> ModuleType:
    """The `onnx` package.

    Raises:
        OnnxError: it is not installed.
    """
    try:
        import onnx
    except ImportError:
        raise OnnxError("ONNX files take the onnx package; pip install 'quern[onnx]'") from None
    return onnx


def read_model(path: Path) -> ModelProto:
    """The model in a file.

    Raises:
        OnnxError: the file is missing, too large for the format, or no ONNX model.
    """
    onnx = onnx_package()
    try:
        size = path.stat().st_size
        if size >= _PROTOBUF_LIMIT:
            raise OnnxError(
                f"{path} has {size} bytes; an ONNX file has less than 2 GB, larger weights are in "
                "files of their own"
            )
        data = path.read_bytes()
    except OSError as error:
        raise OnnxError(f"cannot read {path}: {error.strerror}") from None
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:  # DecodeError of whichever protobuf implementation is installed
        raise OnnxError(f"{path} is no ONNX model, or damaged: {error}") from None
    if not model.opset_import or not model.HasField("graph"):
        raise OnnxError(f"{path} is no ONNX model: it names no operator set or has no graph")
    if not _has_texts(model):
        raise OnnxError(f"{path} is damaged: a name in it is no text")
    return model


def _has_texts(message: Any) -> bool:
    """Whether every text of a message is one; protobuf hands out damaged ones as bytes."""
    for kind, value in message.ListFields():
        several = value if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
        if kind.type == kind.TYPE_STRING and not all(isinstance(v, str) for v in several):
            return False
        if kind.type == kind.TYPE_MESSAGE and not all(map(_has_texts, several)):
            return False
    return True


def dtype_name(element: int) -> str:
    """`float16` for an ONNX element type."""
    names = {v: k for k, v in onnx_package().TensorProto.DataType.items()}
    return str(names.get(element, f"type {element}")).lower()


def numpy_dtype(element: int) -> np.dtype[Any]:
    """The NumPy type of an ONNX element type.

    Raises:
        OnnxError: there is none.
    """
    try:
        dtype: np.dtype[Any] = onnx_package().helper.tensor_dtype_to_np_dtype(element)
    except (KeyError, TypeError, ValueError):
        raise OnnxError(f"values of {dtype_name(element)} are not supported") from None
    if dtype.kind == "c":
        raise OnnxError(f"values of {dtype_name(element)} are not supported")
    return dtype


def dtype_of(element: int) -> DType:
    """The dtype of an ONNX element type.

    Raises:
        OnnxError: it is not among the dtypes of the compiler.
    """
    onnx = onnx_package()
    known = {
        onnx.TensorProto.FLOAT: DType.FLOAT32,
        onnx.TensorProto.DOUBLE: DType.FLOAT64,
        onnx.TensorProto.INT32: DType.INT32,
        onnx.TensorProto.INT64: DType.INT64,
        onnx.TensorProto.UINT8: DType.UINT8,
        onnx.TensorProto.BOOL: DType.BOOL,
    }
    if element not in known:
        raise OnnxError(f"values of {dtype_name(element)} are not supported")
    return known[element]


def to_array(tensor: TensorProto, folder: Path | None) -> Array:
    """The contents of a tensor.

    Arguments:
        tensor: with its data inside, or in a file of their own.
        folder: where such files are; None when the model came from no file.

    Raises:
        OnnxError: the data do not fit the declared shape and type, or cannot be read.
    """
    onnx = onnx_package()
    name = tensor.name or "a tensor"
    if tensor.data_type == onnx.TensorProto.STRING:
        raise OnnxError(f"{name} holds strings, which are not supported")
    if any(extent < 0 for extent in tensor.dims):
        raise OnnxError(f"{name} has the shape {tuple(tensor.dims)}")
    dtype = numpy_dtype(tensor.data_type)
    if math.prod(tensor.dims) * dtype.itemsize > MOST_BYTES:
        raise OnnxError(f"{name} of shape {tuple(tensor.dims)} is larger than any memory")
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return _read_external(tensor, dtype, folder)
    try:
        return np.asarray(onnx.numpy_helper.to_array(tensor))
    except Exception as error:
        raise OnnxError(f"the data of {name} do not fit its shape and type: {error}") from None


def _read_external(tensor: TensorProto, dtype: np.dtype[Any], folder: Path | None) -> Array:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    path = _external_path(tensor.name, entries.get("location", ""), folder)
    count = math.prod(tensor.dims)
    try:
        offset = int(entries.get("offset") or 0)
        length = int(entries.get("length") or count * dtype.itemsize)
        if offset < 0 or length != count * dtype.itemsize:
            raise OnnxError(
                f"{tensor.name} takes {count * dtype.itemsize} bytes, its entry in {path.name} has "
                f"{length} from {offset}"
            )
        if path.stat().st_size < offset + length:
            raise OnnxError(f"{path} is too short for {tensor.name}: it ends before byte "
                            f"{offset + length}")  # fmt: skip
        data = np.fromfile(path, dtype.newbyteorder("<"), count, offset=offset)
    except OSError as error:
        raise OnnxError(f"cannot read {path} of {tensor.name}: {error.strerror}") from None
    except ValueError as error:
        raise OnnxError(f"the data of {tensor.name} in {path.name}: {error}") from None
    return data.astype(dtype, copy=False).reshape(tuple(tensor.dims))


def _external_path(name: str, location: str, folder: Path | None) -> Path:
    if folder is None:
        raise OnnxError(f"the data of {name} are in a file; give the path of the model, not itself")
    root = folder.resolve()
    path = (root / location).resolve()
    if not location or Path(location).is_absolute() or not path.is_relative_to(root):
        raise OnnxError(f"the data of {name} are at {location!r}, outside of the model's folder")
    return path


def attribute_value(attribute: AttributeProto, folder: Path | None) -> Any:
    """An attribute as int, float, str, tuple, Array or GraphProto, by its declared type.

    Raises:
        OnnxError: for types without meaning here.
    """
    kinds = onnx_package().AttributeProto
    if attribute.type == kinds.TENSOR:
        return to_array(attribute.t, folder)
    if attribute.type in (kinds.INT, kinds.FLOAT, kinds.GRAPH):
        fields = {kinds.INT: "i", kinds.FLOAT: "f", kinds.GRAPH: "g"}
        return getattr(attribute, fields[attribute.type])
    if attribute.type == kinds.STRING:
        return _text(attribute.s)
    if attribute.type == kinds.INTS:
        return tuple(attribute.ints)
    if attribute.type == kinds.FLOATS:
        return tuple(attribute.floats)
    if attribute.type == kinds.STRINGS:
        return tuple(_text(s) for s in attribute.strings)
    raise OnnxError(f"the attribute {attribute.name} is of a kind that is not supported")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def declared_shape(value: ValueInfoProto) -> tuple[int | str, ...] | None:
    """The declared extents of a value: numbers, or names of unknown ones; None without a rank."""
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        what = (kind or "type unknown").removesuffix("_type")
        raise OnnxError(f"{value.name} is no tensor ({what}), which is not supported")
    if not value.type.tensor_type.HasField("shape"):
        return None
    return tuple(
        d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else d.dim_param or "?"
        for d in value.type.tensor_type.shape.dim
    )


def type_proto(dtype: np.dtype[Any], shape: Sequence[int]) -> bytes:
    """A tensor type as ONNX writes it."""
    helper = onnx_package().helper
    element = helper.np_dtype_to_tensor_dtype(dtype)
    return bytes(helper.make_tensor_type_proto(element, list(shape)).SerializeToString())


def element_type(dtype: np.dtype[Any]) -> int:
    """The ONNX element type of a NumPy type."""
    return int(onnx_package().helper.np_dtype_to_tensor_dtype(dtype))
