"""Checkpoints: all that a training run needs to go on to the same bits, in one safetensors file.

The tensors are `state/NAME` (parameters, running statistics, optimizer moments, random counters)
and `best/NAME` (the same of the best epoch so far, where early stopping asks for it). The header's
metadata says that it is a checkpoint, of which version, holds a digest of the tensors, and what is
not an array as JSON. Nothing in it is ever run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from ..compiler.errors import ArtifactError
from ..compiler.files import replacing
from ..compiler.types import Array

FORMAT = "quern.checkpoint"
VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """A training run at a boundary between two steps.

    Arguments:
        state: contents of all states, by name.
        best: the same as they were after the best epoch; empty where nobody asked for it.
        facts: what is not an array, as JSON has it.
    """

    state: Mapping[str, Array]
    best: Mapping[str, Array] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


def save_checkpoint(checkpoint: Checkpoint, path: str | Path) -> Path:
    """Writes a checkpoint, whole or not at all: until it is on the disk, an older one stays.

    Raises:
        ArtifactError: the file cannot be written.
    """
    target = Path(path)
    tensors = {f"state/{k}": np.asarray(v, order="C") for k, v in checkpoint.state.items()}
    tensors |= {f"best/{k}": np.asarray(v, order="C") for k, v in checkpoint.best.items()}
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "digest": _digest(tensors),
        "facts": json.dumps(checkpoint.facts),
    }
    try:
        with replacing(target) as file:
            file.write(safetensors.save(tensors, metadata))
    except OSError as error:
        raise ArtifactError(f"cannot write the checkpoint {target}: {error.strerror}") from None
    return target


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Reads a checkpoint.

    Raises:
        ArtifactError: there is none, it is damaged, or it is another kind or version of file.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ArtifactError(f"cannot read the checkpoint {path}: {error.strerror}") from None
    try:
        tensors = safetensors.load(data)
        metadata = _metadata(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is damaged or no checkpoint: {error}") from None
    if metadata.get("format") != FORMAT:
        raise ArtifactError(f"{path} is a safetensors file, but no checkpoint of a training run")
    if metadata.get("version") != str(VERSION):
        raise ArtifactError(
            f"{path} is a checkpoint of version {metadata.get('version')}, "
            f"this release reads version {VERSION}"
        )
    if metadata.get("digest") != _digest(tensors):
        raise ArtifactError(f"{path} is damaged: its contents do not have the digest it names")
    return Checkpoint(_part(tensors, "state/"), _part(tensors, "best/"), _facts(path, metadata))


def _metadata(data: bytes) -> dict[str, str]:
    """The free part of the header, which the safetensors package has found to be well formed."""
    length = int.from_bytes(data[:8], "little")
    metadata: dict[str, str] = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    return metadata


def _facts(path: str | Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        facts = json.loads(metadata["facts"])
    except (KeyError, ValueError) as error:
        raise ArtifactError(f"{path} is damaged: {error}") from None
    if not isinstance(facts, dict):
        raise ArtifactError(f"{path} is damaged: it does not say where the run stands")
    return facts


def _part(tensors: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _digest(tensors: Mapping[str, Array]) -> str:
    """SHA-256 over names, types and bytes."""
    result = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name]
        result.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        result.update(array.tobytes())
    return result.hexdigest()
