"""Elementary functions as straight-line vector code, for any number of lanes.

`call(f, "exp", x)` appends code to the function that `f` is building and returns the result.
float32 functions are this module's own: at most 4 ULP over the whole float32 range, subnormal
arguments and results, ±0, infinities and NaN included. float64 functions call libm once a lane:
accuracy first. The largest errors of float32, in ULP, with FMA and without:

    exp     1.66  1.59      tanh    2.57  2.61      sin    1.96  2.01      pow   0.55  0.55
    expm1   1.42  1.35      sigmoid 3.49  3.53      cos    1.98  1.98      sqrt  0.50  0.50
    log     1.22  1.20      erf     2.93  3.01      log1p  1.75  1.75      rsqrt 1.49  1.49
    decay   1.97  2.23

(exp, sigmoid, tanh and erf over every argument from 2^-27 to 104, log with FMA over all; the others
over every 97th bit pattern or more, pow at random; sqrt is the processor's.) floor, ceil, trunc and
round, which takes halves to even, are exact. decay is exp for what is not above 1, in fewer
instructions: below 2^-126 it gives 0.

Every lane goes through the same operations whatever the number of lanes, so a loop's scalar or odd
tail has the same bits as its body (of a NaN, neither sign nor payload is promised). Results differ
only between targets with and without FMA. No fast-math flag is used, and the processor's flags must
be the defaults: rounding to nearest, and subnormals not flushed (FTZ and DAZ of MXCSR clear).

Small functions are appended in place, because the constants then leave the loop, independent rounds
overlap and no optimisation pass has to run for that. The long ones (pow, sin, cos) are emitted
once per module and lane count as an internal function, `@quern.sin.v8f32`, and called.

How the approximations are made: arguments are reduced as in Cody and Waite, "Software Manual for
the Elementary Functions" (1980), or Payne and Hanek, "Radian reduction for trigonometric functions"
(1983); polynomials and rationals are minimax fits in relative error by Remez exchange at 60 digits,
of the form each comment gives, then rounded to the format. The error that is quoted with a fit is
that of the approximation alone: 1 ULP is 2^-24 to 2^-23 relative.
"""

from __future__ import annotations

from collections.abc import Mapping

from . import exponential, trigonometry
from .approximation import Emitter, libm, shared
from .builder import FunctionBuilder, Value, constant


def _intrinsic(name: str) -> Emitter:
    return lambda f, x: f.intrinsic(name, x)


def _rsqrt(f: FunctionBuilder, x: Value) -> Value:
    return f.fdiv(constant(x.type, 1.0), f.intrinsic("sqrt", x))


_EITHER: Mapping[str, Emitter] = {
    "sqrt": _intrinsic("sqrt"),
    "rsqrt": _rsqrt,
    "floor": _intrinsic("floor"),
    "ceil": _intrinsic("ceil"),
    "round": _intrinsic("nearbyint"),  # halves to even, in the default rounding mode
    "trunc": _intrinsic("trunc"),
    "sigmoid": exponential.sigmoid,
}

# Emitters by name of the function, for each element type.
FUNCTIONS: Mapping[str, Mapping[str, Emitter]] = {
    "float": {
        **_EITHER,
        "exp": exponential.exp,
        "decay": exponential.decay,
        "expm1": exponential.expm1,
        "log": exponential.log,
        "log1p": exponential.log1p,
        "tanh": exponential.tanh,
        "erf": exponential.erf,
        "pow": shared("pow", exponential.pow_body),
        "sin": shared("sin", trigonometry.sine_shifted_by(0)),
        "cos": shared("cos", trigonometry.sine_shifted_by(1)),
    },
    "double": {
        **_EITHER,
        "decay": libm("exp"),
        **{
            name: libm(name)
            for name in ("exp", "expm1", "log", "log1p", "tanh", "erf", "pow", "sin", "cos")
        },
    },
}


def call(f: FunctionBuilder, name: str, *arguments: Value) -> Value:
    """Appends the function `name` of float32 or float64 values of one type; `pow` takes two.

    Raises:
        TypeError: there is no such function of these types.
    """
    types = {argument.type for argument in arguments}
    emitter = FUNCTIONS.get(arguments[0].type.element, {}).get(name)
    if emitter is None or len(types) != 1 or len(arguments) != (2 if name == "pow" else 1):
        listed = ", ".join(str(argument.type) for argument in arguments)
        raise TypeError(f"@{f.name}: no vector function {name}({listed})")
    return emitter(f, *arguments)
