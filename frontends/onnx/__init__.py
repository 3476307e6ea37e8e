"""Networks from ONNX files (https://onnx.ai): every operator set from 7 to the installed package's.

Each ONNX operator is mapped onto the vocabulary of `compiler/ops` by a small function of the table
in `operators/`; an operator that has none, but that ONNX itself defines by other operators, is
imported by that definition. Shapes are static: what depends on known numbers alone (shapes,
constants, the data of integer initialisers) is computed at import.
"""

from __future__ import annotations

from .load import OnnxFile as OnnxFile
from .load import from_onnx as from_onnx
