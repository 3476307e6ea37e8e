"""The table: for each ONNX operator the function that says it in operations of the compiler.

The docstrings of ONNX are the reference: https://onnx.ai/onnx/operators.
"""

from __future__ import annotations

from . import activation as activation
from . import control as control
from . import conv as conv
from . import generate as generate
from . import index as index
from . import linear as linear
from . import loss as loss
from . import math as math
from . import ml as ml
from . import ngrams as ngrams
from . import norm as norm
from . import pool as pool
from . import quantize as quantize
from . import recurrent as recurrent
from . import reduce as reduce
from . import refused as refused
from . import region as region
from . import resize as resize
from . import shape as shape
from . import signal as signal
from . import training as training
