"""`qn.save` and `qn.load`: what is kept in files, by what it is."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from ..compiler.errors import ArtifactError, UsageError
from ..compiler.files import replacing
from ..compiler.types import Array
from . import artifact
from .executable import Executable

ENDING = ".safetensors"


def save(what: Mapping[str, object] | Executable, path: str | Path) -> Path:
    """Writes a state dict to a `.safetensors` file, or a compiled network to a `.qn` file, whole or
    not at all.

    Arguments:
        what: arrays by name, such as `model.state_dict()`, or an executable.
        path: of the file.

    Raises:
        UsageError: it is something else, or two of its names are the same as text.
        ArtifactError: the file cannot be written.
    """
    if isinstance(what, Executable):
        return artifact.save(what, path)
    if not isinstance(what, Mapping):
        raise UsageError(
            f"{type(what).__name__} is not kept in a file as it is: save model.state_dict(), "
            "qn.compile(model, …), or a whole training run with Trainer.save_checkpoint"
        )
    target = Path(path)
    if target.suffix != ENDING:
        raise UsageError(
            f"state dicts are kept in the format of {ENDING}, which PyTorch reads with "
            f"safetensors.torch.load_file: {target.with_suffix(ENDING)} in place of {target}"
        )
    arrays = {str(name): _array(name, each) for name, each in what.items()}
    if len(arrays) < len(what):
        raise UsageError("two names of the state dict are the same as text; rename one")
    data = safetensors.save(arrays)
    try:
        with replacing(target) as file:
            file.write(data)
    except OSError as error:
        raise ArtifactError(f"{target} cannot be written: {error.strerror or error}") from None
    return target


def load(path: str | Path, threads: int | None = None) -> Any:
    """What a file holds: an `Executable` of a `.qn` file, arrays by name of a `.safetensors` file.

        model.load_state_dict(qn.load("model.safetensors"))

    Arguments:
        path: the file; its contents say what it is.
        threads: that will run an executable; QUERN_NUM_THREADS or the usable processors by default.

    Raises:
        ArtifactError: the file is missing, damaged, foreign, or of another version.
    """
    path = Path(path)
    if path.suffix != ENDING and (zipfile.is_zipfile(path) or not _is_of_arrays(path)):
        return artifact.load(path, threads)
    try:
        return safetensors.load_file(path)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from None


def _is_of_arrays(path: Path) -> bool:
    """Whether a file begins as safetensors do: with the length of a JSON object, and that."""
    try:
        with path.open("rb") as file:
            return file.read(9)[8:] == b"{"
    except OSError:
        return False


def _array(name: object, value: object) -> Array:
    if isinstance(value, Mapping) or not hasattr(value, "__array__"):
        array = np.asarray(value) if isinstance(value, bool | int | float) else None
    else:
        array = np.asarray(value, order="C")
    if array is None or array.dtype.kind not in "biuf":
        raise UsageError(
            f"{name!r} is {type(value).__name__}; what is saved is a state dict: arrays and "
            "numbers by name. Trainer.save_checkpoint keeps all of a training run"
        )
    return array
