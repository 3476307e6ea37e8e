"""What approximations of functions are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .builder import F32, F64, I32, I64, FunctionBuilder, Value, constant

Emitter = Callable[..., Value]

_SIGN = -(2**31)


def polynomial(f: FunctionBuilder, x: Value, coefficients: Sequence[float]) -> Value:
    """c0 + c1 x + c2 x² + … by Horner's rule."""
    result = constant(x.type, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = f.multiply_add(result, x, coefficient)
    return result


def at_most(f: FunctionBuilder, x: Value, bound: float) -> Value:
    """min(x, bound) that keeps a NaN: one `minps` with this order of operands."""
    limit = constant(x.type, bound)
    return f.select(f.fcmp("olt", limit, x), limit, x)


def at_least(f: FunctionBuilder, x: Value, bound: float) -> Value:
    """max(x, bound) that keeps a NaN."""
    limit = constant(x.type, bound)
    return f.select(f.fcmp("ogt", limit, x), limit, x)


def bits_of(f: FunctionBuilder, x: Value) -> Value:
    """The bits of a float as an integer."""
    return f.bitcast(x, I32 if x.type.bits == 32 else I64)


def real_of(f: FunctionBuilder, bits: Value) -> Value:
    """The float of which these are the bits."""
    return f.bitcast(bits, F32 if bits.type.bits == 32 else F64)


def absolute(f: FunctionBuilder, x: Value) -> Value:
    """The magnitude of x."""
    return f.intrinsic("fabs", x)


def sign(f: FunctionBuilder, x: Value) -> Value:
    """The sign bit of float32 x, other bits zero."""
    return f.and_(bits_of(f, x), _SIGN)


def with_sign(f: FunctionBuilder, magnitude: Value, sign: Value) -> Value:
    """A magnitude, with a sign bit."""
    return real_of(f, f.or_(bits_of(f, magnitude), sign))


def libm(name: str) -> Emitter:
    """A float64 function of libm, called for each lane."""

    def emit(f: FunctionBuilder, *arguments: Value) -> Value:
        result = arguments[0]
        for lane in range(result.type.lanes):
            scalars = [f.extract(argument, lane) for argument in arguments]
            y = f.call(name, scalars, F64, "nounwind willreturn memory(none)")
            result = f.insert(result, y, lane)
        return result

    return emit


def shared(name: str, body: Emitter) -> Emitter:
    """Emits the body once per module and type, as an internal function, and calls it."""

    def emit(f: FunctionBuilder, *arguments: Value) -> Value:
        type = arguments[0].type
        symbol = f"quern.{name}.{type.suffix}"
        if not f.module.has_function(symbol):
            parameters = [(f"x{i}", argument.type) for i, argument in enumerate(arguments)]
            g = f.module.function(symbol, parameters, type, internal=True)
            g.ret(body(g, *g.arguments))
        return f.call(symbol, arguments, type)

    return emit
