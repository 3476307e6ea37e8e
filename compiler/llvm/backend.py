"""LLVM itself: IR text in, object code or assembly out.

This file is also the program of the compile workers (see `pool.py`), which run it by its path. So
it imports nothing but llvmlite and a little of the standard library: a worker is ready in 0.1 s.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import struct
import sys
from functools import cache
from typing import Any

# The machine scheduler before register allocation lets full register tiles spill, and so does any
# scheduling of the selection DAG but the order of the source. Innermost loops begin a cache line,
# so that less is fetched: 7 % of a recurrent step when the machine is restless. The switches hold
# for the process.
OPTIONS = (
    "-enable-misched=0",
    "-pre-RA-sched=source",
    "-x86-experimental-pref-innermost-loop-alignment=6",
)
# Measured on register tiles and pointwise kernels: code of levels 1, 2 and 3 is equally fast.
LEVEL = 1
# Changes whenever the same IR may give other code; part of every cache key.
RECIPE = f"{' '.join(OPTIONS)} level={LEVEL} ir=O1-function pic small"

REQUEST = struct.Struct("<III")  # lengths of cpu, features, IR text
REPLY = struct.Struct("<BI")  # status, length of what follows
READY, OBJECT, REFUSED = range(3)
# Seconds after which a worker that has nothing to do ends itself.
IDLE = 60.0


class IRError(Exception):
    """LLVM refused the IR text; the message is LLVM's own."""


@cache
def initialize() -> Any:
    """LLVM, set up once a process."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    for option in OPTIONS:
        llvm.set_option("quern", option)
    return llvm


@cache
def _pipeline(cpu: str, features: str) -> tuple[Any, Any, Any, Any]:
    """Target machine, pass builder, module passes, function passes.

    The function passes are LLVM's simplification at level 1: SROA (register tiles become values),
    early CSE, instruction combining, LICM (addresses leave the inner loops). LLVM's vectoriser and
    unroller stay out: the emitter has already decided both.
    """
    llvm = initialize()
    # Position-independent code of the small model reaches constants by a 32-bit offset, where the
    # large model, llvmlite's default for JITs, would load each address as a 64-bit constant.
    machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
        cpu=cpu, features=features, opt=LEVEL, reloc="pic", codemodel="small"
    )
    machine.set_asm_verbosity(True)
    tuning = llvm.create_pipeline_tuning_options(speed_level=1)
    tuning.loop_unrolling = False
    tuning.loop_vectorization = False
    tuning.loop_interleaving = False
    tuning.slp_vectorization = False
    builder = llvm.create_pass_builder(machine, tuning)
    module_passes = llvm.create_new_module_pass_manager()
    module_passes.add_always_inliner_pass()
    module_passes.add_global_dead_code_eliminate_pass()
    return machine, builder, module_passes, builder.getFunctionPassManager()


def translate(ir: str, cpu: str, features: str, *, assembly: bool = False) -> bytes:
    """Machine code of a module of LLVM IR: an ELF object, or assembly text in UTF-8.

    Raises:
        IRError: the text does not parse or does not verify.
    """
    llvm = initialize()
    machine, builder, module_passes, function_passes = _pipeline(cpu, features)
    with llvm.create_context() as context:
        try:
            module = llvm.parse_assembly(ir, context)
        except RuntimeError as error:
            raise IRError(str(error)) from None
        with module:
            module.triple = machine.triple
            module.data_layout = str(machine.target_data)
            try:
                module.verify()
            except RuntimeError as error:
                raise IRError(str(error)) from None
            module_passes.run(module, builder)
            for function in module.functions:
                if not function.is_declaration:
                    function_passes.run(function, builder)
            if assembly:
                return bytes(machine.emit_assembly(module).encode())
            return bytes(machine.emit_object(module))


def read_exactly(fd: int, count: int) -> bytes | None:
    """The next `count` bytes of a pipe; None when it ends before that."""
    parts: list[bytes] = []
    while count:
        part = os.read(fd, min(count, 1 << 20))
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data` to a pipe."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _serve() -> None:
    """Answer requests on standard input until it ends, or nothing has come for `IDLE` seconds."""
    # Ctrl-C reaches the whole process group; it is for the parent, which then ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # LLVM aborts on what it cannot do: no dumps
    requests, replies = 0, os.dup(1)
    os.dup2(2, 1)  # whatever LLVM prints must not get between the replies
    initialize()
    write_all(replies, REPLY.pack(READY, 0))
    while select.select([requests], [], [], IDLE)[0]:
        header = read_exactly(requests, REQUEST.size)
        if header is None:
            return
        texts = [read_exactly(requests, length) for length in REQUEST.unpack(header)]
        cpu, features, ir = (text.decode() for text in texts if text is not None)
        try:
            status, data = OBJECT, translate(ir, cpu, features)
        except IRError as error:
            status, data = REFUSED, str(error).encode()
        write_all(replies, REPLY.pack(status, len(data)) + data)


if __name__ == "__main__":
    # Started with -I -S: beyond the standard library there is only the folder that holds llvmlite.
    sys.path.append(sys.argv[1])
    _serve()
