"""Readable names of graph nodes from those in ONNX files."""

from __future__ import annotations

import re

from ...compiler.ops.base import short_name
from .proto import NodeProto


def node_name(node: NodeProto) -> str:
    """The name of a node; older files give none, then it is that of its first output."""
    if node.name:
        return str(node.name)
    output = next((o for o in node.output if o), "")
    kind = short_name(node.op_type)
    return str(output) if re.match("[A-Za-z_]", output) else f"{kind}_{output}" if output else kind


def sanitized(name: str) -> str:
    """A name of letters, digits, `_` and dots: `/layer1/conv/Conv` is `layer1.conv.Conv`."""
    dotted = re.sub(r"[/:]+", ".", name)
    return re.sub(r"[^A-Za-z0-9_.-]", "_", dotted).strip(".") or "node"
