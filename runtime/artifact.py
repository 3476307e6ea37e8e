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

Arrays are used where they lie in the mapped file (`archive.py`): loading reads them once, for their
checksums, and what no kernel reads, such as weights that a folded norm has replaced, takes no
memory until somebody asks for the state.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..compiler.errors import ArtifactError, GraphError, QuernError
from ..compiler.files import replacing
from ..compiler.llvm.cache import ObjectCache
from ..compiler.llvm.target import Target
from ..compiler.types import Array
from .archive import Archive, Part, checksum, write
from .executable import Executable
from .image import Image, StoredGraph
from .program import program_from_json, program_to_json

if TYPE_CHECKING:
    from ..compiler.graph import Graph

FORMAT = "quern"
VERSION = 4
"""Of the parts and what is in them; another one for every change."""
STATE, CONSTANTS = "state.safetensors", "constants.safetensors"


def save(executable: Executable, path: str | Path) -> Path:
    """Writes a `.qn` file, whole or not at all.

    Raises:
        ArtifactError: the file cannot be written.
    """
    target = Path(path)
    image = executable.image
    signed = {
        "graph.json": image.source.text.encode(),
        "program.json": json.dumps(program_to_json(image.program)).encode(),
    }
    if image.preparation is not None:
        signed["preparation.json"] = image.preparation.text.encode()
    signed |= {f"objects/{symbol}.o": data for symbol, data in image.objects.items()}
    constants = executable.constants
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "name": image.program.name,
        "target": image.target.to_json(),
        "digest": ObjectCache().sign(_message(signed, checksum(constants), image.target)),
    }
    parts: dict[str, Part] = {
        "manifest.json": json.dumps(manifest, indent=1).encode(),
        **signed,
        STATE: executable.state,
        CONSTANTS: constants,
    }
    try:
        with replacing(target) as file:
            write(file, parts)
    except OSError as error:
        raise ArtifactError(f"{target} cannot be written: {error.strerror or error}") from None
    return target


def load(path: str | Path, threads: int | None = None) -> Executable:
    """Reads a `.qn` file. It stays mapped: replace it by renaming, never overwrite it in place.

    Arguments:
        path: the file.
        threads: that will run it; QUERN_NUM_THREADS or the usable processors by default.

    Raises:
        ArtifactError: the file is missing, damaged, foreign, or of another version.
    """
    archive, manifest = _opened(Path(path))
    state = archive.tensors(STATE)
    try:
        image = _trusted_image(archive, manifest) or _recompiled(archive, state)
        return Executable(image, threads, state, share=True)
    except ArtifactError:
        raise
    except MemoryError as error:
        raise ArtifactError(f"{path} needs more memory than there is: {error}") from None
    except QuernError as error:
        raise ArtifactError(f"{path} is damaged: {error}") from None


def load_graph(path: str | Path) -> Graph:
    """The network of a `.qn` file as it was declared, with the contents of its state.

    Raises:
        ArtifactError: the file is missing, damaged, foreign, or of another version.
    """
    archive, _ = _opened(Path(path))
    return _graph(archive, archive.tensors(STATE))


def _opened(path: Path) -> tuple[Archive, dict[str, Any]]:
    """A file of this version, and its manifest."""
    archive = Archive(path)
    manifest = archive.json("manifest.json")
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ArtifactError(f"{path} is not a quern file")
    if manifest.get("version") != VERSION:
        raise ArtifactError(
            f"{path} has version {manifest.get('version')!r}, this quern reads {VERSION}; "
            "compile the network again"
        )
    return archive, manifest


def _trusted_image(archive: Archive, manifest: Mapping[str, Any]) -> Image | None:
    """The image as it is in the file, if it was made here and this machine can run it."""
    parts = {n: archive.read(n) for n in archive.names if _is_signed(n)}
    digest = manifest.get("digest")
    try:
        target = Target.from_json(manifest.get("target"))
        message = _message(parts, archive.checksum(CONSTANTS), target)
    except QuernError:
        return None
    if target.missing or not isinstance(digest, str) or not ObjectCache().verify(message, digest):
        return None
    objects = {
        part.removeprefix("objects/").removesuffix(".o"): data
        for part, data in parts.items()
        if part.startswith("objects/")
    }
    preparation = parts.get("preparation.json")
    return Image(
        program_from_json(json.loads(parts["program.json"])),
        objects,
        target,
        archive.tensors(CONSTANTS),
        StoredGraph(parts["graph.json"].decode()),
        StoredGraph(preparation.decode()) if preparation is not None else None,
    )


def _recompiled(archive: Archive, state: Mapping[str, Array]) -> Image:
    """The network compiled anew from its graph. The compiler is only imported for this."""
    from ..compiler.driver import Options, compile_graph

    try:
        return compile_graph(_graph(archive, state), Options()).image
    except ArtifactError:
        raise
    except QuernError as error:
        raise ArtifactError(f"{archive.path} cannot be compiled here: {error}") from None


def _graph(archive: Archive, state: Mapping[str, Array]) -> Graph:
    from ..compiler.serialize import graph_from_json

    try:
        return graph_from_json(archive.json("graph.json"), state)
    except GraphError as error:
        raise ArtifactError(f"{archive.path} is damaged: {error}") from None


def _is_signed(part: str) -> bool:
    return part.startswith("objects/") or (part.endswith(".json") and part != "manifest.json")


def _message(parts: Mapping[str, bytes], constants: int, target: Target) -> bytes:
    """Everything that decides which instructions run on which memory, to be signed.

    Arguments:
        parts: code, program and graphs, by name.
        constants: CRC-32 of the constants' part. Contents of arrays decide about results alone:
            kernels clamp the indices they read.
        target: of the code.
    """
    pieces = [target.key.encode(), constants.to_bytes(4, "little")]
    for name in sorted(parts):
        data = parts[name]
        pieces += [name.encode(), len(data).to_bytes(8, "little"), data]
    return b"\0".join(pieces)
