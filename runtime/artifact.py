"""`.qn` files: a compiled network as a zip of data.

    manifest.json         format, version, target, and the keyed digest
    graph.json            the network as it was declared
    preparation.json      what computes constants from states, where there is something of the kind
    program.json          slots, kernels, steps
    state.safetensors     parameters and buffers
    constants.safetensors
    objects/SYMBOL.o      machine code

Nothing is pickled, nothing is compressed. Machine code, and the program that hands it pointers, are
used only when their keyed digest (HMAC, with a key that only this user's cache directory holds)
verifies and this machine can run them. Otherwise the graph is compiled anew: a file from a stranger
never runs the stranger's code.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from ..compiler.errors import ArtifactError, GraphError, QuernError
from ..compiler.files import replacing
from ..compiler.llvm.cache import ObjectCache
from ..compiler.llvm.target import Target
from ..compiler.types import Array
from .executable import Executable
from .image import Image, StoredGraph
from .program import program_from_json, program_to_json

if TYPE_CHECKING:
    from ..compiler.graph import Graph

FORMAT = "quern"
VERSION = 1
_TIME = (1980, 1, 1, 0, 0, 0)
_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    NotImplementedError,
    zipfile.BadZipFile,
)


def save(executable: Executable, path: str | Path) -> Path:
    """Writes a `.qn` file, whole or not at all.

    Raises:
        ArtifactError: the file cannot be written.
    """
    target = Path(path)
    image = executable.image
    parts = {
        "graph.json": image.source.text.encode(),
        "program.json": json.dumps(program_to_json(image.program)).encode(),
        "state.safetensors": safetensors.save(_contiguous(executable.state)),
        "constants.safetensors": safetensors.save(_contiguous(executable.constants)),
    }
    if image.preparation is not None:
        parts["preparation.json"] = image.preparation.text.encode()
    for symbol, data in image.objects.items():
        parts[f"objects/{symbol}.o"] = data
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "name": image.program.name,
        "target": image.target.to_json(),
        "digest": ObjectCache().sign(_signed(parts, image.target)),
    }
    try:
        with replacing(target) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            _add(archive, "manifest.json", json.dumps(manifest, indent=1).encode())
            for name, data in parts.items():
                _add(archive, name, data)
    except OSError as error:
        raise ArtifactError(f"{target} cannot be written: {error.strerror or error}") from None
    return target


def load(path: str | Path, threads: int | None = None) -> Executable:
    """Reads a `.qn` file.

    Arguments:
        path: the file.
        threads: that will run it; QUERN_NUM_THREADS or the usable processors by default.

    Raises:
        ArtifactError: the file is missing, damaged, foreign, or of another version.
    """
    name = Path(path)
    parts, manifest = _opened(name)
    state = _tensors(parts, "state.safetensors", name)
    try:
        image = _trusted_image(parts, manifest, name) or _recompiled(parts, state, name)
        return Executable(image, threads, state)
    except ArtifactError:
        raise
    except MemoryError as error:
        raise ArtifactError(f"{name} needs more memory than there is: {error}") from None
    except QuernError as error:
        raise ArtifactError(f"{name} is damaged: {error}") from None


def load_graph(path: str | Path) -> Graph:
    """The network of a `.qn` file as it was declared, with the contents of its state.

    Raises:
        ArtifactError: the file is missing, damaged, foreign, or of another version.
    """
    name = Path(path)
    parts, _ = _opened(name)
    return _graph(parts, _tensors(parts, "state.safetensors", name), name)


def _opened(name: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """All parts of a file of this version, and its manifest."""
    parts = _read(name)
    manifest = _json(parts, "manifest.json", name)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ArtifactError(f"{name} is not a quern file")
    if manifest.get("version") != VERSION:
        raise ArtifactError(
            f"{name} has version {manifest.get('version')!r}, this quern reads {VERSION}; "
            "compile the network again"
        )
    return parts, manifest


def _trusted_image(parts: Mapping[str, bytes], manifest: Any, name: Path) -> Image | None:
    """The image as it is in the file, if it was made here and this machine can run it."""
    try:
        target = Target.from_json(manifest.get("target"))
        signed = _signed(parts, target)
    except QuernError:
        return None
    digest = manifest.get("digest")
    if target.missing or not isinstance(digest, str) or not ObjectCache().verify(signed, digest):
        return None
    objects = {
        part.removeprefix("objects/").removesuffix(".o"): data
        for part, data in parts.items()
        if part.startswith("objects/")
    }
    preparation = parts.get("preparation.json")
    return Image(
        program_from_json(_json(parts, "program.json", name)),
        objects,
        target,
        _tensors(parts, "constants.safetensors", name),
        StoredGraph(parts["graph.json"].decode()),
        StoredGraph(preparation.decode()) if preparation is not None else None,
    )


def _recompiled(parts: Mapping[str, bytes], state: Mapping[str, Array], name: Path) -> Image:
    """The network compiled anew from its graph. The compiler is only imported for this."""
    from ..compiler.driver import Options, compile_graph

    try:
        return compile_graph(_graph(parts, state, name), Options()).image
    except ArtifactError:
        raise
    except QuernError as error:
        raise ArtifactError(f"{name} cannot be compiled here: {error}") from None


def _graph(parts: Mapping[str, bytes], state: Mapping[str, Array], name: Path) -> Graph:
    from ..compiler.serialize import graph_from_json

    try:
        return graph_from_json(_json(parts, "graph.json", name), state)
    except GraphError as error:
        raise ArtifactError(f"{name} is damaged: {error}") from None


def _signed(parts: Mapping[str, bytes], target: Target) -> bytes:
    """Everything that decides which instructions run on which memory."""
    chosen = sorted(n for n in parts if n.startswith("objects/") or n.endswith(".json"))
    chosen = [n for n in chosen if n != "manifest.json"] + ["constants.safetensors"]
    pieces = [target.key.encode()]
    for name in chosen:
        data = parts.get(name)
        if data is None:
            raise ArtifactError(f"{name} is missing")
        pieces += [name.encode(), len(data).to_bytes(8, "little"), data]
    return b"\0".join(pieces)


# -- the archive ----------------------------------------------------------------------------------


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, _TIME), data)


def _read(path: Path) -> dict[str, bytes]:
    """All parts of a file. Sizes are checked before anything is read into memory."""
    try:
        size = path.stat().st_size
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            stored = all(e.compress_type == zipfile.ZIP_STORED for e in entries)
            if not stored or sum(e.file_size for e in entries) > size:
                raise ArtifactError(f"{path} is not a quern file: its parts are packed otherwise")
            return {e.filename: archive.read(e) for e in entries}
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist") from None
    except _UNREADABLE as error:
        raise ArtifactError(f"{path} is damaged or not a quern file: {error}") from None


def _json(parts: Mapping[str, bytes], part: str, path: Path) -> Any:
    try:
        return json.loads(parts[part])
    except KeyError:
        raise ArtifactError(f"{path} is not a quern file: {part} is missing") from None
    except (ValueError, RecursionError):
        raise ArtifactError(f"{path} is damaged: {part} is not JSON") from None


def _tensors(parts: Mapping[str, bytes], part: str, path: Path) -> dict[str, Array]:
    try:
        return safetensors.load(parts[part])
    except KeyError:
        raise ArtifactError(f"{path} is not a quern file: {part} is missing") from None
    except (SafetensorError, ValueError, TypeError) as error:
        raise ArtifactError(f"{path} is damaged: {part}: {error}") from None


def _contiguous(arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {name: np.asarray(array, order="C") for name, array in arrays.items()}
