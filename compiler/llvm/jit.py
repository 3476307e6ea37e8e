"""Objects into memory: link them, resolve what they call, give out addresses."""

from __future__ import annotations

import ctypes
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import llvmlite.binding as llvm

from . import backend
from .codegen import STAMP, CodegenError
from .target import missing_features


class Library:
    """Loaded machine code. It stays in memory for as long as this object is referenced."""

    def __init__(self, jit: Any, tracker: Any, addresses: Mapping[str, int]) -> None:
        self._jit = jit
        self._tracker = tracker
        self._addresses = addresses

    @property
    def symbols(self) -> tuple[str, ...]:
        """Names of everything that has an address, in the order of the objects."""
        return tuple(self._addresses)

    def address(self, symbol: str) -> int:
        """Where a function or variable is in memory.

        Raises:
            CodegenError: none of the objects defines it.
        """
        try:
            return self._addresses[symbol]
        except KeyError:
            known = ", ".join(list(self._addresses)[:8]) or "none"
            raise CodegenError(
                f"no loaded object defines {symbol!r}; the first of the "
                f"{len(self._addresses)} symbols that are defined: {known}"
            ) from None


def load(objects: Sequence[bytes]) -> Library:
    """Link objects of `compile_to_object` into one library.

    They may call each other, libm, libc and whatever else the process has globally.

    Raises:
        CodegenError: an object is damaged, is made for instructions this machine does not have,
            refers to an unknown symbol, or defines one that another defines too.
    """
    symbols = [symbol for data in objects for symbol in _examine(data)]
    names = [name for name, defined in symbols if defined]
    if not names:
        return Library(None, None, {})
    _open_libm()
    builder = llvm.JITLibraryBuilder()
    for data in objects:
        builder.add_object_img(data)
    for name in names:
        builder.export_symbol(name)
    builder.add_current_process()
    # JITLink rather than MCJIT, which is 4 ms faster for 50 objects but ends the process on an
    # unknown symbol, and cannot be sure that constants are within reach of the code.
    jit = llvm.create_lljit_compiler(_host_machine(), use_jit_link=True, suppress_errors=True)
    try:
        tracker = builder.link(jit, "quern")
    except RuntimeError as error:
        wanted = {name for name, defined in symbols if not defined}.difference(names)
        # LLVM names only those that could not be linked because of it.
        unknown = sorted(name for name in wanted if not llvm.address_of_symbol(name))
        why = f"unknown symbol {', '.join(unknown)}" if unknown else " ".join(str(error).split())
        raise CodegenError(f"objects do not link: {why}") from None
    return Library(jit, tracker, {name: tracker[name] for name in names})


def _host_machine() -> Any:
    """What the JIT takes its triple and data layout from."""
    backend.initialize()
    return llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
        reloc="pic", codemodel="small"
    )


@cache
def _open_libm() -> None:
    """Make libm's symbols global: an interpreter may have been linked without it."""
    with suppress(OSError):  # another C library (musl), where libm is part of libc
        ctypes.CDLL("libm.so.6", mode=ctypes.RTLD_GLOBAL)


def _examine(data: bytes) -> list[tuple[str, bool]]:
    """The symbols of an object, after checking that it can run here."""
    stamp = re.search(re.escape(STAMP.encode()) + rb"([^;\0]*);", data)
    if not data.startswith(b"\x7fELF") or stamp is None:
        raise CodegenError("not an object made by this compiler, or a damaged one")
    if missing := missing_features(tuple(stamp[1].decode("ascii", "replace").split(","))):
        raise CodegenError(
            f"the object uses {', '.join(missing)}, which this machine does not have; compile anew"
        )
    try:
        return list(_symbols(data))
    except (struct.error, IndexError, ValueError) as error:
        raise CodegenError(f"a damaged object: {error}") from None


_SECTION = struct.Struct("<IIQQQQIIQQ")  # Elf64_Shdr
_SYMBOL = struct.Struct("<IBBHQQ")  # Elf64_Sym
_SHT_SYMTAB = 2
_STB_LOCAL = 0
_SHN_UNDEF = 0


def _symbols(data: bytes) -> Iterator[tuple[str, bool]]:
    """Global symbols of a 64-bit little-endian ELF object, and whether it defines them itself.

    Source: System V ABI, chapter 4.
    """
    (table,) = struct.unpack_from("<Q", data, 0x28)
    entry, count = struct.unpack_from("<HH", data, 0x3A)
    sections = [_SECTION.unpack_from(data, table + i * entry) for i in range(count)]
    for _, kind, _, _, offset, size, link, _, _, _ in sections:
        if kind != _SHT_SYMTAB:
            continue
        names = sections[link][4]
        for at in range(offset, offset + size, _SYMBOL.size):
            name, info, _, section, _, _ = _SYMBOL.unpack_from(data, at)
            if info >> 4 != _STB_LOCAL:
                start = names + name
                yield data[start : data.index(b"\0", start)].decode(), section != _SHN_UNDEF
