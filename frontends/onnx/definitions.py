"""Definitions that ONNX gives of its operators by other operators."""

from __future__ import annotations

from typing import Any

from .call import Call
from .proto import NodeProto, onnx_package, type_proto


def definition(node: NodeProto, call: Call, domain: str) -> Any:
    """The operator's definition by other operators, where ONNX gives one."""
    onnx = onnx_package()
    try:
        schema = onnx.defs.get_schema(node.op_type, call.version, domain)
    except onnx.defs.SchemaError:
        return None
    function = onnx.FunctionProto()
    if schema.has_function:
        versions = [v for v in schema.function_opset_versions if v <= call.version]
        body = schema.get_function_with_opset_version(
            max(versions or schema.function_opset_versions)
        )
    elif schema.has_context_dependent_function:
        versions = schema.context_dependent_function_opset_versions
        version = max([v for v in versions if v <= call.version] or versions)
        types = [
            type_proto(call.dtype(i), call.shape(i)) if call.has(i) else b""
            for i in range(len(call.inputs))
        ]
        resolved = onnx.NodeProto()
        resolved.CopyFrom(node)
        _resolve(resolved, call)
        body = schema.get_context_dependent_function_with_opset_version(
            version, resolved.SerializeToString(), types
        )
    else:
        return None
    function.ParseFromString(body)
    for name, attribute in schema.attributes.items():
        known = {a.name for a in function.attribute_proto}
        if name not in known and attribute.default_value.name:
            function.attribute_proto.append(attribute.default_value)
    return function if function.node else None


def _resolve(node: NodeProto, call: Call) -> None:
    """Puts the values of a function's attributes where the node refers to them."""
    helper = onnx_package().helper
    kept = [a for a in node.attribute if not a.ref_attr_name]
    for attribute in node.attribute:
        if attribute.ref_attr_name and attribute.name in call.attributes:
            value = call.attributes[attribute.name]
            kept.append(helper.make_attribute(attribute.name, value))
    del node.attribute[:]
    node.attribute.extend(kept)


def without(node: NodeProto, names: set[str]) -> NodeProto:
    """The node, with inputs of these names left out."""
    if not names.intersection(node.input):
        return node
    copy = onnx_package().NodeProto()
    copy.CopyFrom(node)
    for i, name in enumerate(copy.input):
        if name in names:
            copy.input[i] = ""
    return copy
