"""Networks from ONNX files (https://onnx.ai), and back.

Read is every operator set from 7 to the installed package's; what is written has operator set 21.

Each ONNX operator is mapped onto the vocabulary of `compiler/ops` by a small function of the table
in `operators/`; an operator that has none, but that ONNX itself defines by other operators, is
imported by that definition. Shapes are static: what depends on known numbers alone (shapes,
constants, the data of integer initialisers) is computed at import.
"""

from __future__ import annotations

from .exporter import to_onnx as to_onnx
from .load import OnnxFile as OnnxFile
from .load import from_onnx as from_onnx
