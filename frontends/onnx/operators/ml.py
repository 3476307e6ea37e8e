"""What `ai.onnx.ml` has of tensors."""

from __future__ import annotations

from ....compiler.ops.indexing import Take
from ..call import Call, Result, operator

_DOMAIN = "ai.onnx.ml"


@operator("Binarizer", domain=_DOMAIN)
def _binarizer(call: Call) -> Result:
    x = call.x()
    return (x > call.number("threshold", 0.0)).cast(x.dtype)


@operator("ArrayFeatureExtractor", domain=_DOMAIN)
def _array_feature_extractor(call: Call) -> Result:
    x, places = call.x(0), call.x(1).reshape(-1)
    taken = call.apply(Take(x.rank - 1), x, places)
    return taken.unsqueeze(0) if x.rank == 1 else taken
