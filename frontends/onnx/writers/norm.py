"""Normalisation and dropout, as in inference."""

from __future__ import annotations

from ....compiler.ops.norm import (
    BatchNorm,
    BatchNormInference,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    LocalResponseNorm,
)
from ....compiler.ops.random import Dropout
from ....compiler.ops.stop_gradient import StopGradient
from ..writer import Draft, Outputs, Ref, writes

_INFERENCE = "an exported network has no training mode, its running statistics stay as they are"


def _scale_and_bias(draft: Draft, x: Ref, shape: tuple[int, ...], *given: Ref) -> list[Ref | str]:
    """Weight and bias, ones and zeros where they are not given."""
    defaults = (draft.like([1.0] * shape[0], x), draft.like([0.0] * shape[0], x))
    return [*given, *defaults[len(given) :]]


def _batch_norm(
    draft: Draft, eps: float, x: Ref, affine: tuple[Ref, ...], mean: Ref, variance: Ref
) -> str:
    weights = _scale_and_bias(draft, x, mean.shape, *affine)
    return draft.node("BatchNormalization", x, *weights, mean, variance, epsilon=eps)


@writes(BatchNormInference)
def _inference(
    draft: Draft, op: BatchNormInference, x: Ref, mean: Ref, variance: Ref, *affine: Ref
) -> Outputs:
    return _batch_norm(draft, op.eps, x, affine, mean, variance)


@writes(BatchNorm)
def _training(draft: Draft, op: BatchNorm, x: Ref, *parameters: Ref) -> Outputs:
    *affine, mean, variance = parameters
    unchanged = (draft.missing(t, _INFERENCE) for t in draft.outputs[1:])
    return _batch_norm(draft, op.eps, x, tuple(affine), mean, variance), *unchanged


@writes(Dropout)
def _dropout(draft: Draft, op: Dropout, x: Ref, seed: Ref, step: Ref) -> Outputs:
    return x


@writes(StopGradient)
def _stop_gradient(draft: Draft, op: StopGradient, x: Ref) -> Outputs:
    return x


@writes(LayerNorm)
def _layer_norm(draft: Draft, op: LayerNorm, x: Ref, *affine: Ref) -> Outputs:
    if not affine:
        return None
    return draft.node(
        "LayerNormalization", x, *affine, axis=x.rank - op.normalized_rank, epsilon=op.eps
    )


@writes(GroupNorm)
def _group_norm(draft: Draft, op: GroupNorm, x: Ref, *affine: Ref) -> Outputs:
    weights = _scale_and_bias(draft, x, x.shape[1:2], *affine)
    return draft.node("GroupNormalization", x, *weights, num_groups=op.groups, epsilon=op.eps)


@writes(InstanceNorm)
def _instance_norm(draft: Draft, op: InstanceNorm, x: Ref, *affine: Ref) -> Outputs:
    weights = _scale_and_bias(draft, x, x.shape[1:2], *affine)
    return draft.node("InstanceNormalization", x, *weights, epsilon=op.eps)


@writes(LocalResponseNorm)
def _local_response_norm(draft: Draft, op: LocalResponseNorm, x: Ref) -> Outputs:
    # Of an even number, ONNX has one channel more behind, this operation one more ahead; and ONNX
    # Runtime normalises images only.
    if op.size % 2 == 0 or x.rank != 4:
        return None
    return draft.node("LRN", x, size=op.size, alpha=op.alpha, beta=op.beta, bias=op.k)
