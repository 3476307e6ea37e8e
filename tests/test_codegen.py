"""LLVM IR becomes machine code that is right, for every target, alone or on all cores."""

from __future__ import annotations

import ctypes
import gc
import math
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quern.compiler.errors import ArtifactError, QuernError, UsageError
from quern.compiler.llvm import jit, pool, target
from quern.compiler.llvm.codegen import CodegenError, assembly, compile_to_object
from quern.compiler.llvm.pool import Compilation, compile_all, usable_cpus
from quern.compiler.llvm.target import Target
from quern.compiler.types import DType

HOST = Target.host()
SSE, AVX2, AVX512 = (Target.named(name) for name in ("sse", "avx2", "avx512"))

UNPARSABLE = "define void @f() {\n  %x = add i32 1, 2.0\n  ret void\n}\n"
UNVERIFIABLE = textwrap.dedent("""\
    define i32 @f() {
      br label %a
    a:
      %q = add i32 %z, 1
      br label %b
    b:
      %z = add i32 1, 1
      ret i32 %q
    }
    """)
# Code generation for a 128-bit target has no such instruction, and LLVM aborts.
FATAL = textwrap.dedent("""\
    declare <16 x float> @llvm.x86.avx512.rcp14.ps.512(<16 x float>, <16 x float>, i16)
    define <16 x float> @f(<16 x float> %x) {
      %y = call <16 x float> @llvm.x86.avx512.rcp14.ps.512(
        <16 x float> %x, <16 x float> %x, i16 -1)
      ret <16 x float> %y
    }
    """)


def add_constant(name: str, constant: float) -> str:
    """IR of a float -> float function."""
    bits = np.float64(np.float32(constant)).view(np.uint64)
    return (
        f"define float @{name}(float %x) {{\n"
        f"  %y = fadd float %x, 0x{int(bits):016X}\n  ret float %y\n}}\n"
    )


def tile(lanes: int, rows: int, depth: int) -> str:
    """IR of y[r] = Σ_k a[r, k] · b[k]; y is (rows, lanes), a (rows, depth), b (depth, lanes).

    Written as an emitter does it: the tile in memory, whole addresses in the inner loop.
    """
    vector = f"<{lanes} x float>"
    clear, body, store = [], [], []
    for r in range(rows):
        place = f"getelementptr inbounds [{rows} x {vector}], ptr %tile, i64 0, i64 {r}"
        clear += [f"%c{r} = {place}", f"store {vector} zeroinitializer, ptr %c{r}"]
        body += [
            f"%row{r} = mul nsw i64 {r}, {depth}",
            f"%i{r} = add nsw i64 %row{r}, %k",
            f"%pa{r} = getelementptr inbounds float, ptr %a, i64 %i{r}",
            f"%a{r} = load float, ptr %pa{r}",
            f"%n{r} = insertelement {vector} poison, float %a{r}, i32 0",
            f"%s{r} = shufflevector {vector} %n{r}, {vector} poison, "
            f"<{lanes} x i32> zeroinitializer",
            f"%m{r} = fmul contract {vector} %s{r}, %b0",
            f"%t{r} = {place}",
            f"%old{r} = load {vector}, ptr %t{r}",
            f"%new{r} = fadd contract {vector} %old{r}, %m{r}",
            f"store {vector} %new{r}, ptr %t{r}",
        ]
        store += [
            f"%o{r} = {place}",
            f"%v{r} = load {vector}, ptr %o{r}",
            f"%py{r} = getelementptr inbounds float, ptr %y, i64 {r * lanes}",
            f"store {vector} %v{r}, ptr %py{r}, align 4",
        ]
    lines = [
        "define void @tile(ptr noalias %a, ptr noalias %b, ptr noalias %y) {",
        "entry:",
        f"%tile = alloca [{rows} x {vector}], align {4 * lanes}",
        *clear,
        "br label %head",
        "head:",
        "%k = phi i64 [0, %entry], [%k1, %body]",
        f"%more = icmp slt i64 %k, {depth}",
        "br i1 %more, label %body, label %done",
        "body:",
        f"%off = mul nsw i64 %k, {lanes}",
        "%pb = getelementptr inbounds float, ptr %b, i64 %off",
        f"%b0 = load {vector}, ptr %pb, align 4",
        *body,
        "%k1 = add nsw i64 %k, 1",
        "br label %head",
        "done:",
        *store,
        "ret void",
        "}",
    ]
    return "\n".join(lines)


def real_function(library: jit.Library, name: str) -> Callable[[float], float]:
    """A float -> float function of a library."""
    return ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_float)(library.address(name))


def runnable() -> list[Target]:
    return [t for t in (SSE, AVX2, AVX512, HOST) if not t.missing]


class TestTarget:
    def test_the_host_runs_its_own_target(self) -> None:
        assert HOST.missing == ()
        assert HOST.lanes(DType.FLOAT32) * 32 == HOST.vector_bits
        assert HOST.lanes(DType.FLOAT64) * 64 == HOST.vector_bits

    def test_levels(self) -> None:
        assert [t.vector_bits for t in (SSE, AVX2, AVX512)] == [128, 256, 512]
        assert [t.registers for t in (SSE, AVX2, AVX512)] == [16, 16, 32]
        assert [t.has_fma for t in (SSE, AVX2, AVX512)] == [False, True, True]
        assert [t.level for t in (SSE, AVX2, AVX512)] == ["sse", "avx2", "avx512"]
        assert set(SSE.features) < set(AVX2.features) < set(AVX512.features)

    def test_key_is_the_instruction_set_without_tuning(self) -> None:
        assert replace(AVX2, cpu="skylake").key == AVX2.key
        assert replace(AVX2, vector_bits=128).key != AVX2.key
        assert len({SSE.key, AVX2.key, AVX512.key}) == 3

    def test_json_round_trip(self) -> None:
        for each in (SSE, AVX2, AVX512, HOST):
            assert Target.from_json(each.to_json()) == each

    @pytest.mark.parametrize(
        "data",
        [
            None,
            {},
            {**AVX2.to_json(), "vector_bits": 100},
            {**AVX2.to_json(), "features": ["x,+y"]},
        ],
    )
    def test_foreign_json_is_refused(self, data: object) -> None:
        with pytest.raises(ArtifactError, match="target"):
            Target.from_json(data)

    def test_environment_forces_a_lower_target(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("QUERN_TARGET", "SSE")
        assert Target.host() == SSE

    def test_environment_names_a_width_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("QUERN_TARGET", "sse:512")
        wide = Target.host()
        assert (wide.features, wide.vector_bits) == (SSE.features, 512)
        assert wide.registers == AVX512.registers
        assert wide.key not in (SSE.key, AVX512.key)

    def test_environment_cannot_name_nonsense(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("QUERN_TARGET", "sse:64")
        with pytest.raises(UsageError, match="'sse:64': vectors have 128, 256, 512 bits"):
            Target.host()
        monkeypatch.setenv("QUERN_TARGET", "neon")
        with pytest.raises(UsageError, match="'neon'; targets are sse, avx2, avx512"):
            Target.host()

    def test_environment_cannot_name_what_would_not_run(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        old_machine = dict.fromkeys(SSE.features, True)
        monkeypatch.setattr(target, "_host_features", lambda: old_machine)
        monkeypatch.setattr(target, "_detect", lambda: SSE)
        monkeypatch.setenv("QUERN_TARGET", "avx2")
        with pytest.raises(UsageError, match=r"this machine \(sse\) has no avx, avx2"):
            Target.host()


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


class TestParallel:
    units = {f"kernel{i}": tile(8, 1 + i % 4, 16 + i) for i in range(9)}  # noqa: RUF012

    def test_workers_give_the_same_bytes(self) -> None:
        here = compile_all(self.units, HOST, workers=1)
        there = compile_all(self.units, HOST, workers=2)
        assert list(there.objects) == list(self.units)
        assert there.objects == here.objects
        assert there.compiled == here.compiled == len(self.units)

    def test_equal_units_are_compiled_once(self) -> None:
        ir = add_constant("f", 1.0)
        result = compile_all({"a": ir, "b": ir, "c": add_constant("f", 2.0)}, HOST)
        assert result.compiled == 2
        assert result.objects["a"] == result.objects["b"] != result.objects["c"]

    def test_nothing_to_do(self) -> None:
        assert compile_all({}, HOST).objects == {}

    @pytest.mark.parametrize("workers", [1, 2])
    def test_refused_unit_is_named(self, workers: int) -> None:
        with pytest.raises(CodegenError, match=r"bad: .*line 2: %x = add i32 1, 2\.0") as caught:
            compile_all({**self.units, "bad": UNPARSABLE}, HOST, workers=workers)
        assert caught.value.unit == "bad"
        assert caught.value.line == "%x = add i32 1, 2.0"

    def test_unit_that_kills_llvm_is_named_and_leaves_no_trace(self) -> None:
        with pytest.raises(
            CodegenError, match=r"deadly: LLVM died compiling it .*LLVM ERROR"
        ) as caught:
            compile_all({**self.units, "deadly": FATAL}, SSE, workers=2)
        assert caught.value.unit == "deadly"
        assert compile_all(self.units, SSE, workers=2).compiled == len(self.units)

    def test_worker_ended_from_outside_is_replaced(self) -> None:
        compile_all(self.units, HOST, workers=2)
        for worker in pool._POOL._workers:
            os.kill(worker._process.pid, signal.SIGSTOP)  # still alive when it is chosen
        threading.Timer(0.2, lambda: [w._process.kill() for w in pool._POOL._workers]).start()
        assert compile_all(self.units, HOST, workers=2).compiled == len(self.units)

    def test_workers_that_do_not_start_are_done_without(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pool, "_POOL", pool._Pool())
        monkeypatch.setattr(sys, "executable", "/bin/false")
        assert compile_all(self.units, HOST, workers=2).compiled == len(self.units)

    def test_from_several_threads(self) -> None:
        expected = compile_all(self.units, HOST, workers=1).objects
        results: list[dict[str, bytes]] = []
        threads = [
            threading.Thread(
                target=lambda n=n: results.append(compile_all(self.units, HOST, workers=n).objects)
            )
            for n in (1, 2, 2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [expected] * 3

    def test_workers_begin_while_units_are_added(self) -> None:
        expected = compile_all(self.units, HOST, workers=1).objects
        with Compilation(HOST, workers=2) as compilation:
            for name, ir in self.units.items():
                compilation.add(name, ir)
            for _ in range(3000):
                if compilation._found:
                    break
                time.sleep(0.01)
            assert compilation._found
            compilation.add("one more", add_constant("f", 1.0))
            objects = compilation.result().objects
        assert list(objects) == [*self.units, "one more"]
        assert {name: objects[name] for name in self.units} == expected

    def test_nobody_waits_for_units_that_are_given_up(self) -> None:
        with Compilation(HOST, workers=2) as compilation:
            for name, ir in self.units.items():
                compilation.add(name, ir)
        assert compile_all(self.units, HOST, workers=2).compiled == len(self.units)

    def test_number_of_cores_is_what_the_process_may_use(self) -> None:
        assert 1 <= usable_cpus() <= len(os.sched_getaffinity(0))


def run_script(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run a Python file of its own, without a main guard."""
    script = folder / "script.py"
    script.write_text(text)
    return subprocess.run(
        [sys.executable, "-W", "error", str(script)], capture_output=True, text=True, timeout=60
    )


PREAMBLE = """\
from quern.compiler.llvm import pool
from quern.compiler.llvm.target import Target
units = {f"f{i}": f"define float @f{i}() {{ ret float {i}.0 }}" for i in range(4)}
first = pool.compile_all(units, Target.host(), workers=2)
"""


class TestProcesses:
    def test_script_without_main_guard(self, tmp_path: Path) -> None:
        done = run_script(tmp_path, PREAMBLE + "print('once', first.compiled)\n")
        assert (done.returncode, done.stdout, done.stderr) == (0, "once 4\n", "")

    def test_forked_child_has_workers_of_its_own(self, tmp_path: Path) -> None:
        done = run_script(
            tmp_path,
            PREAMBLE
            + """\
import os, sys
child = os.fork()
again = pool.compile_all(units, Target.host(), workers=2)
assert again.objects == first.objects
if child:
    assert os.waitpid(child, 0)[1] == 0
    print("done")
""",
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")

    def test_interrupt_ends_the_workers(self, tmp_path: Path) -> None:
        done = run_script(
            tmp_path,
            PREAMBLE
            + """\
import os, signal, threading
pids = [w._process.pid for w in pool._POOL._workers]
for pid in pids:
    os.kill(pid, signal.SIGSTOP)  # so that the work does not end before the interrupt
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    pool.compile_all(units, Target.host(), workers=2)
except KeyboardInterrupt:
    print(len(pids), pool._POOL.running)
for pid in pids:
    try:
        os.kill(pid, 0)
        print("still there")
    except ProcessLookupError:
        pass
""",
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "2 0\n", "")
