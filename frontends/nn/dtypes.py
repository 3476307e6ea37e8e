"""Element types under PyTorch's names."""

from __future__ import annotations

from ...compiler.types import DType

bool = DType.BOOL
uint8 = DType.UINT8
int = int32 = DType.INT32
long = int64 = DType.INT64
float = float32 = DType.FLOAT32
double = float64 = DType.FLOAT64

__all__ = [
    "bool",
    "double",
    "float",
    "float32",
    "float64",
    "int",
    "int32",
    "int64",
    "long",
    "uint8",
]
