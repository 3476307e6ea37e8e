"""Operators that cannot be compiled, and why."""

from __future__ import annotations

from ....compiler.errors import OnnxError
from ..call import Call, Result, operator

_REASONS = {
    "the size of its result depends on the data": ("NonMaxSuppression", "Unique"),
    "sequences are not supported": (
        "ConcatFromSequence", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase",
        "SequenceInsert", "SequenceLength", "SequenceMap", "SplitToSequence",
    ),
    "optional values are not supported": ("Optional", "OptionalGetElement", "OptionalHasElement"),
    "strings are not supported": (
        "RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit",
    ),
    "random numbers are not supported, no two programs draw the same": (
        "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
        "RandomUniformLike",
    ),
    "images are decoded before a network sees them": ("ImageDecoder",),
}  # fmt: skip
_REASON_OF = {name: reason for reason, names in _REASONS.items() for name in names}


@operator(*_REASON_OF)
def _refuse(call: Call) -> Result:
    raise OnnxError(_REASON_OF[call.operator])
