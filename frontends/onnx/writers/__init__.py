"""The table: for each operation the function that says it in operators of ONNX.

An operation without a function, or whose function returns None, is exported as what it expands to.
The docstrings of ONNX are the reference: https://onnx.ai/onnx/operators.
"""

from __future__ import annotations

from ..writer import WRITERS as WRITERS
from . import activation as activation
from . import convolution as convolution
from . import indexing as indexing
from . import linear as linear
from . import movement as movement
from . import norm as norm
from . import pointwise as pointwise
from . import pool as pool
from . import recurrence as recurrence
from . import resize as resize
