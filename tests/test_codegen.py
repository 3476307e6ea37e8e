"""LLVM IR becomes machine code that is right, for every target."""

from __future__ import annotations

import ctypes
import gc
import math
import os
import re
import textwrap
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from ir_units import (
    AVX2,
    AVX512,
    HOST,
    SSE,
    UNPARSABLE,
    UNVERIFIABLE,
    add_constant,
    runnable,
    tile,
)

from quern.compiler.errors import QuernError
from quern.compiler.llvm import jit, target
from quern.compiler.llvm.codegen import CodegenError, assembly, compile_to_object
from quern.compiler.llvm.target import Target
from quern.compiler.types import DType


def real_function(library: jit.Library, name: str) -> Callable[[float], float]:
    """A float -> float function of a library."""
    return ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_float)(library.address(name))


class TestCode:
    @pytest.mark.parametrize("each", runnable(), ids=lambda t: f"{t.level}-{t.cpu}")
    def test_tile_multiplies(self, each: Target, rng: np.random.Generator) -> None:
        lanes, rows, depth = each.lanes(DType.FLOAT32), 5, 37
        a = rng.standard_normal((rows, depth), np.float32)
        b = rng.standard_normal((depth, lanes), np.float32)
        y = np.full((rows, lanes), np.nan, np.float32)
        library = jit.load([compile_to_object(tile(lanes, rows, depth), each)])
        run = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3)(library.address("tile"))
        run(a.ctypes.data, b.ctypes.data, y.ctypes.data)
        np.testing.assert_allclose(y, a.astype(float) @ b.astype(float), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(
        ("each", "register"),
        [(SSE, "xmm"), (AVX2, "ymm"), (AVX512, "zmm")],
        ids=["128", "256", "512"],
    )
    def test_tile_lives_in_registers(self, each: Target, register: str) -> None:
        text = assembly(tile(each.lanes(DType.FLOAT32), 6, 64), each)
        assert f"%{register}" in text
        assert "rsp" not in text  # neither the tile nor anything spilled is on the stack
        assert ("vfmadd" in text) == each.has_fma

    @pytest.mark.parametrize("each", [SSE, AVX2, AVX512], ids=lambda t: t.level)
    def test_addresses_leave_the_inner_loop(self, each: Target) -> None:
        text = assembly(tile(each.lanes(DType.FLOAT32), 6, 1000), each)
        (loop,) = re.findall(r"^(\.LBB\d+_\d+):.*\n((?:\s.*\n)*?)\s+j\w+\s+\1\n", text, re.M)
        instructions = [line.split()[0] for line in loop[1].splitlines() if line.strip()]
        # Advancing the pointers and counting; a whole address would take products and sums each.
        scalar = [
            i for i in instructions if re.match(r"(add|sub|inc|dec|lea|imul|mul|shl|mov)q$", i)
        ]
        assert len(scalar) <= 3
        assert not {"imulq", "mulq", "shlq"} & set(scalar)

    def test_the_processor_tunes_but_adds_no_instructions(self) -> None:
        new = replace(SSE, cpu="sapphirerapids")
        text = assembly(tile(4, 4, 8), new)
        assert not re.search(r"%[yz]mm|\tv\w+ps", text)

    def test_same_text_gives_same_bytes(self) -> None:
        first, second = (compile_to_object(tile(8, 4, 8), HOST) for _ in range(2))
        assert first == second

    @pytest.mark.parametrize(
        ("ir", "line"),
        [(UNPARSABLE, "%x = add i32 1, 2.0"), (UNVERIFIABLE, "%z = add i32 1, 1")],
        ids=["parse", "verify"],
    )
    def test_error_names_the_line(self, ir: str, line: str) -> None:
        for compile_ in (compile_to_object, assembly):
            with pytest.raises(CodegenError) as caught:
                compile_(ir, HOST)
            assert caught.value.line == line
            number = [text.strip() for text in ir.splitlines()].index(line) + 1
            assert f"line {number}: {line}" in str(caught.value)
            assert "\n" not in str(caught.value)
            assert isinstance(caught.value, QuernError)


class TestLibrary:
    def test_objects_call_each_other(self) -> None:
        caller = textwrap.dedent("""\
            declare float @one(float)
            define float @two(float %x) {
              %y = call float @one(float %x)
              %z = call float @one(float %y)
              ret float %z
            }
            """)
        objects = [compile_to_object(ir, HOST) for ir in (caller, add_constant("one", 1.0))]
        library = jit.load(objects)
        assert library.symbols == ("two", "one")
        assert real_function(library, "two")(0.5) == 2.5

    @pytest.mark.parametrize("name", ["exp", "tanh", "erf", "log", "sin"])
    def test_libm_is_there(self, name: str) -> None:
        ir = (
            f"declare float @{name}f(float)\ndefine float @f(float %x) {{\n"
            f"  %y = call float @{name}f(float %x)\n  ret float %y\n}}\n"
        )
        library = jit.load([compile_to_object(ir, HOST)])
        expected = getattr(math, name)(0.75)
        assert real_function(library, "f")(0.75) == pytest.approx(expected, rel=1e-6)

    def test_libc_is_there(self) -> None:
        ir = textwrap.dedent("""\
            declare i64 @syscall(i64, ...)
            declare i32 @sched_yield()
            declare i32 @clock_gettime(i32, ptr)
            define i64 @seconds() {
              %time = alloca {i64, i64}
              %a = call i32 @clock_gettime(i32 0, ptr %time)
              %b = call i32 @sched_yield()
              %s = load i64, ptr %time
              ret i64 %s
            }
            define i64 @pid() {
              %p = call i64 (i64, ...) @syscall(i64 39)
              ret i64 %p
            }
            """)
        library = jit.load([compile_to_object(ir, HOST)])
        call = {
            name: ctypes.CFUNCTYPE(ctypes.c_int64)(library.address(name))
            for name in library.symbols
        }
        assert call["pid"]() == os.getpid()
        assert call["seconds"]() > 1_600_000_000

    def test_many_libraries_live_side_by_side(self) -> None:
        objects = [compile_to_object(add_constant("f", float(i)), HOST) for i in range(8)]
        libraries = [jit.load([data]) for data in objects]
        functions = [real_function(library, "f") for library in libraries]
        del libraries[::2]
        gc.collect()
        assert [f(0.0) for f in functions[1::2]] == [1.0, 3.0, 5.0, 7.0]

    def test_nothing_is_a_library_too(self) -> None:
        assert jit.load([]).symbols == ()

    def test_unknown_name(self) -> None:
        library = jit.load([compile_to_object(add_constant("f", 1.0), HOST)])
        with pytest.raises(CodegenError, match=r"no loaded object defines 'g'.*: f"):
            library.address("g")

    def test_unknown_symbol_inside(self) -> None:
        ir = "declare void @nowhere()\ndefine void @f() {\n  call void @nowhere()\n  ret void\n}\n"
        with pytest.raises(CodegenError, match="unknown symbol nowhere"):
            jit.load([compile_to_object(ir, HOST)])

    def test_symbol_defined_twice(self) -> None:
        data = compile_to_object(add_constant("f", 1.0), HOST)
        with pytest.raises(CodegenError, match="duplicate definition of symbol 'f'"):
            jit.load([data, data])

    def test_object_for_another_machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        old_machine = dict.fromkeys(SSE.features, True)
        monkeypatch.setattr(target, "_host_features", lambda: old_machine)
        data = compile_to_object(add_constant("f", 1.0), AVX2)
        with pytest.raises(CodegenError, match=r"uses avx, avx2, .*compile anew"):
            jit.load([data])

    def test_damaged_object(self) -> None:
        data = compile_to_object(add_constant("f", 1.0), HOST)
        for damaged in (b"", b"\x7fELF", data[: len(data) // 2], data[:-8]):
            with pytest.raises(CodegenError, match="damaged"):
                jit.load([damaged])
