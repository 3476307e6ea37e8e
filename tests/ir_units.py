"""LLVM IR that the tests of code generation share: good, damaged, and of some size."""

from __future__ import annotations

import textwrap

import numpy as np

from quern.compiler.llvm.target import Target

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


def runnable() -> list[Target]:
    return [t for t in (SSE, AVX2, AVX512, HOST) if not t.missing]
