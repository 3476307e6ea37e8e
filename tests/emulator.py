"""Machine code for processors that this one is not, run by Bochs (PyPI: bochscpu-python).

Code and data stay where they are in this process: the emulated processor's pages are those that a
call is given, at the addresses that they have here. Whatever else it touches is a fault.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

try:
    importlib.import_module("bochscpu")
except ImportError:  # it is not installed, or the C library is too old for it
    AVAILABLE = False
else:
    AVAILABLE = True

_PAGE = 4096
_STACK = 1 << 20
# Guest-physical addresses: the page tables' root, and where memory begins.
_ROOT = 0x10_0000
_MEMORY = 0x1000_0000
_WRITABLE = 1
_LIBRARIES = ("libm.so", "libm-", "libc.so", "libc-")
_HALT = 0xF4  # privileged, so it is a fault like any other
# Control registers (AMD64 manual, volume 2, 3.1 and 11.5): SSE and XSAVE are on; x87, SSE, AVX,
# mask registers and both halves of AVX-512's are state.
_CR0_MP = 1 << 1
_CR4_OSFXSR, _CR4_OSXMMEXCPT, _CR4_OSXSAVE = 1 << 9, 1 << 10, 1 << 18
_XCR0 = 0b1110_0111
_MXCSR = 0x1F80
_CODE_SEGMENT, _DATA_SEGMENT = (0x33, 0x22FB), (0x2B, 0xCF3)


def call(address: int, arguments: tuple[int, int, int], spans: Sequence[tuple[int, int]]) -> None:
    """Calls a function of three integers that returns nothing.

    Arguments:
        address: of the function.
        arguments: what is passed in the first three registers.
        spans: address and bytes of the memory that it may use, beside its code and a stack.

    Raises:
        AssertionError: it has faulted.
    """
    import bochscpu
    import bochscpu.cpu

    stack = np.zeros(_STACK, np.uint8)
    end = np.full(16, _HALT, np.uint8)
    # The caller's frame: the stack is aligned before the return address is pushed.
    top = (stack.ctypes.data + _STACK - 256) // 64 * 64 - 8
    ctypes.c_uint64.from_address(top).value = end.ctypes.data
    own = [(stack.ctypes.data, _STACK), (end.ctypes.data, 16)]

    session = bochscpu.Session()
    session.missing_page_handler = _missing
    state = bochscpu.State()
    bochscpu.cpu.set_long_mode(state)
    state.cr0 |= _CR0_MP
    tables = _map([*_code(address), *own, *spans])
    state.cr3 = _ROOT
    state.cr4 |= _CR4_OSFXSR | _CR4_OSXMMEXCPT | _CR4_OSXSAVE
    state.xcr0, state.mxcsr, state.mxcsr_mask = _XCR0, _MXCSR, 0xFFFF
    state.rip, state.rsp, state.rflags = address, top, 2
    state.rdi, state.rsi, state.rdx = arguments
    state.cs = _segment(*_CODE_SEGMENT)
    state.ss = state.ds = state.es = state.fs = state.gs = _segment(*_DATA_SEGMENT)
    session.cpu.state = state

    faults: list[str] = []

    def stop(session: Any, cpu: int, vector: int, code: int) -> None:
        now = session.cpu.state
        if not 0 <= now.rip - end.ctypes.data <= 1:
            faults.append(f"exception {vector} near {now.rip - address:+#x}, cr2 {now.cr2:#x}")
        session.stop()

    hook = bochscpu.Hook()
    hook.exception = stop
    session.run([hook])
    del tables  # their memory is the processor's until here
    assert not faults, faults


def _map(spans: Sequence[tuple[int, int]]) -> Any:
    """Page tables of so much memory."""
    from bochscpu import memory

    tables = memory.PageMapLevel4Table()
    pages = {
        page for start, size in spans for page in range(start // _PAGE * _PAGE, start + size, _PAGE)
    }
    for number, page in enumerate(sorted(pages)):
        tables.insert(page, _MEMORY + number * _PAGE, _WRITABLE)
        memory.page_insert(_MEMORY + number * _PAGE, page)
    for page, physical in tables.commit(_ROOT):
        memory.page_insert(physical, page)
    return tables


def _code(address: int) -> list[tuple[int, int]]:
    """The function's sections, which lie side by side, and the C library, which it may call."""
    maps = list(_maps())
    where = next(i for i, (lo, hi, _) in enumerate(maps) if lo <= address < hi)
    first = last = where
    while first and maps[first - 1][1] == maps[first][0] and not maps[first - 1][2]:
        first -= 1
    while last + 1 < len(maps) and maps[last][1] == maps[last + 1][0] and not maps[last + 1][2]:
        last += 1
    libc = [(lo, hi - lo) for lo, hi, name in maps if Path(name).name.startswith(_LIBRARIES)]
    return [(maps[first][0], maps[last][1] - maps[first][0]), *libc]


def _maps() -> Iterator[tuple[int, int, str]]:
    """What is mapped into this process: begin, end, file."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, _, _, _, _, *name = line.split(maxsplit=5)
        low, high = (int(number, 16) for number in span.split("-"))
        yield low, high, "".join(name)


def _segment(selector: int, attributes: int) -> Any:
    import bochscpu

    segment = bochscpu.Segment()
    segment.present, segment.selector, segment.attr = True, selector, attributes
    segment.base, segment.limit = 0, 0xFFFF_FFFF
    return segment


def _missing(address: int) -> None:
    raise AssertionError(f"no memory at guest-physical {address:#x}")
