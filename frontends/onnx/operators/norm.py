"""Normalisation."""

from __future__ import annotations

from ....compiler.errors import OnnxError
from ....compiler.ops import norm as nm
from ....compiler.ops.base import apply_all
from ....compiler.tensor import Tensor
from ....compiler.types import DType, normalize_axis
from ..call import Call, Result, operator


@operator("BatchNormalization")
def _batch_norm(call: Call) -> Result:
    x, scale, bias = (call.x(i) for i in range(3))
    mean, variance = call.statistic(3), call.statistic(4)
    eps = call.number("epsilon", 1e-5)
    scale, bias, mean, variance = (t.cast(x.dtype) for t in (scale, bias, mean, variance))
    if call.version < 9 and not call.integer("spatial", 1):
        return (x - mean) / (variance + eps).sqrt() * scale + bias
    if not call.flag("training_mode"):
        return call.apply(nm.BatchNormInference(eps), x, mean, variance, scale, bias)
    # ONNX keeps the biased variance and says which share of the old statistics stays.
    momentum = call.number("momentum", 0.9)
    y, *_ = apply_all(nm.BatchNorm(1.0 - momentum, eps), x, scale, bias, mean, variance)
    moments = nm.Moments.of(x, (0, *range(2, x.rank)), eps)
    assert moments.mean is not None
    running = (
        old * momentum + new.reshape(old.shape) * (1.0 - momentum)
        for old, new in ((mean, moments.mean), (variance, moments.variance))
    )
    return y, *running


@operator("InstanceNormalization")
def _instance_norm(call: Call) -> Result:
    return call.apply(nm.InstanceNorm(call.number("epsilon", 1e-5)))


@operator("GroupNormalization")
def _group_norm(call: Call) -> Result:
    x, scale, bias = call.all()
    groups = call.integer("num_groups")
    if scale.shape == (groups,) != x.shape[1:2]:  # one a group, in operator sets before 21
        scale, bias = (_repeated(p, x.shape[1] // groups) for p in (scale, bias))
    return call.apply(nm.GroupNorm(groups, call.number("epsilon", 1e-5)), x, scale, bias)


def _repeated(x: Tensor, times: int) -> Tensor:
    return x.unsqueeze(1).broadcast_to((x.shape[0], times)).reshape(-1)


@operator("LayerNormalization")
def _layer_norm(call: Call) -> Result:
    x, *parameters = call.all()
    axis = normalize_axis(call.integer("axis", -1), x.rank)
    eps = call.number("epsilon", 1e-5)
    shape = x.shape[axis:]
    parameters = [p.broadcast_to(shape) for p in parameters]
    y = call.apply(nm.LayerNorm(len(shape), eps), x, *parameters)
    if not (call.wants(1) or call.wants(2)):
        return y
    moments = nm.Moments.of(x.cast(DType.FLOAT32), tuple(range(axis, x.rank)), eps)
    return y, moments.mean, moments.inverse


@operator("RMSNormalization")
def _rms_norm(call: Call) -> Result:
    x, *parameters = call.all()
    axis = normalize_axis(call.integer("axis", -1), x.rank)
    shape = x.shape[axis:]
    op = nm.RMSNorm(len(shape), call.number("epsilon", 1e-5))
    return call.apply(op, x, *(p.broadcast_to(shape) for p in parameters))


@operator("LRN")
def _local_response(call: Call) -> Result:
    size = call.integer("size")
    if size % 2 == 0:  # ONNX has the extra channel behind, the compiler before
        raise OnnxError(f"a window of {size} channels is not supported, only odd ones")
    alpha, beta = call.number("alpha", 1e-4), call.number("beta", 0.75)
    return call.apply(nm.LocalResponseNorm(size, alpha, beta, call.number("bias", 1.0)))


@operator("LpNormalization")
def _lp_norm(call: Call) -> Result:
    x, p = call.x(), call.integer("p", 2)
    axis = normalize_axis(call.integer("axis", -1), x.rank)
    if p not in (1, 2):
        raise OnnxError(f"p is {p}, expected 1 or 2")
    total = (x * x if p == 2 else x.abs()).sum(axis, keepdims=True)
    norm = total.sqrt() if p == 2 else total
    return norm.equal(0.0).where(0.0, x / norm)


@operator("MeanVarianceNormalization")
def _mean_variance(call: Call) -> Result:
    x = call.x()
    axes = tuple(sorted(normalize_axis(a, x.rank) for a in call.integers("axes", (0, 2, 3))))
    centered = x - x.mean(axes, keepdims=True)
    return centered / ((centered * centered).mean(axes, keepdims=True).sqrt() + 1e-9)


@operator("Dropout")
def _dropout(call: Call) -> Result:
    if call.version >= 12 and call.has(2) and bool(call.known(2).reshape(-1)[0]):
        ratio = float(call.known(1).reshape(-1)[0]) if call.has(1) else 0.5
        if ratio:
            raise OnnxError("dropout in training mode is not supported: import the network as it "
                            "is used, or train with the layers of quern.nn")  # fmt: skip
    if not call.wants(1):
        return call.operand(0)
    return call.operand(0), call.filled(call.shape(), True, DType.BOOL)
