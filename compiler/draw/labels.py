"""The words of a picture: operations, attributes, shapes and numbers, as short as they can be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..graph import Node, Phase
from ..ops.base import family, format_attribute
from ..ops.recurrence import Recurrence
from ..printer import extents, shown_attributes
from ..types import DType, Shape, TensorType

_LONGEST = 24  # characters of an attribute that are shown
_MOST = 3  # attributes that are shown
# What an attribute is when it changes nothing.
_NEUTRAL = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "output_padding": 0}


def shape_text(type: TensorType, block: int = 1) -> str:
    """`64×6×24×24`, with the dtype where it is not float32; nothing for a float32 scalar.

    `1×64/8×24×24×8` is a value whose 64 channels lie in blocks of 8.
    """
    parts = ["×".join(extents(type.shape, block))] if type.shape else []
    if type.dtype is not DType.FLOAT32:
        parts.append(str(type.dtype))
    return " ".join(parts)


def extents_text(shape: Shape) -> str:
    """`5×5`"""
    return "×".join(map(str, shape))


def count_text(number: int) -> str:
    """`11.7M`, `61.7k`, `840`: three digits that count."""
    for unit, name in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= unit:
            return f"{number / unit:.3g}{name}"
    return str(number)


def number_text(number: bool | int | float) -> str:
    """A constant to four digits."""
    return f"{number:.4g}" if isinstance(number, float) else str(number)


def op_text(node: Node, inputs: Sequence[TensorType], constants: Sequence[str] = ()) -> str:
    """`Conv 5×5, stride 2`: the operation, its scalar operands and the attributes that say most.

    Arguments:
        node: the node.
        inputs: types of what it reads.
        constants: operands that are drawn nowhere else.
    """
    name = " ".join([node.op.name, " · ".join(constants)]).strip()
    if node.phase is not Phase.FORWARD:
        return name
    if isinstance(node.op, Recurrence):
        way = "steps backwards" if node.op.reverse else "steps"
        return f"{node.op.name}, {node.op.steps} {way}"
    attributes = shown_attributes(node)
    kernel = attributes.pop("kernel", None)
    if kernel is None and family(node.op) == "conv" and len(inputs) > 1:
        kernel = inputs[1].shape[2:]
    if kernel is not None:
        name = f"{name} {extents_text(kernel)}"
    if attributes.get("stride") == kernel:
        attributes.pop("stride", None)
    parts = [
        f"{key.replace('_', ' ')} {text}"
        for key, value in attributes.items()
        if (text := _attribute_text(value)) != str(_NEUTRAL.get(key))
    ]
    return ", ".join([name, *parts[:_MOST]])


def _attribute_text(value: Any) -> str:
    """A tuple whose entries are all the same is that entry."""
    while isinstance(value, tuple) and value and len(set(value)) == 1:
        value = value[0]
    text = format_attribute(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
