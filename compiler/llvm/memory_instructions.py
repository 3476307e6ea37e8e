"""Instructions that move numbers: between memory and vectors, and from lane to lane."""

from __future__ import annotations

from collections.abc import Sequence

from .arithmetic_instructions import ArithmeticInstructions
from .values import I1, I32, PTR, VOID, Operand, Type, Value, constant, constants, poison, vector


class MemoryInstructions(ArithmeticInstructions):
    """Loads, stores and addresses; lanes of vectors."""

    # ---------------------------------------------------------------- memory

    def gep(self, element: Type, pointer: Value, index: Operand, inbounds: bool = True) -> Value:
        """The address of element `index` (an integer, or a vector of them) counted from `pointer`.

        `element` I8 counts bytes. A vector of indices gives a vector of pointers.
        """
        index = self.index(index)
        if index.number == 0 and index.type.lanes == 1:
            return pointer
        keyword = "getelementptr inbounds" if inbounds else "getelementptr"
        lanes = max(index.type.lanes, pointer.type.lanes)
        return self.assign(
            vector(lanes, PTR), f"{keyword} {element}, {pointer.typed}, {index.typed}"
        )

    def load(self, type: Type, pointer: Value, align: int | None = None) -> Value:
        """`align` in bytes; by default the size of one element, which is always safe."""
        text = f"load {type}, ptr {pointer.text}, align {align or type.bytes}"
        return self.assign(type, text, pure=False)

    def store(
        self, value: Value, pointer: Value, align: int | None = None, streaming: bool = False
    ) -> None:
        """`streaming`: past the caches; other threads see it for certain behind a `store_fence`."""
        hint = ", !nontemporal !{i32 1}" if streaming else ""
        align = align or value.type.bytes
        self.emit(f"store {value.typed}, ptr {pointer.text}, align {align}{hint}")

    def store_fence(self) -> None:
        """Streaming stores before it are seen before any store behind it."""
        self.module.declare("llvm.x86.sse.sfence", VOID, ())
        self.emit("call void @llvm.x86.sse.sfence()")

    def gather(self, element: Type, pointer: Value, indices: Value) -> Value:
        """Element `indices[lane]` from `pointer` in each lane; all must be readable."""
        where = self.gep(element, pointer, indices)
        type = vector(indices.type.lanes, element)
        if type.lanes == 1:
            return self.load(type, where)
        name = f"llvm.masked.gather.{type.suffix}.{where.type.suffix}"
        mask = constant(vector(type.lanes, I1), 1)
        self.module.declare(name, type, (where.type, mask.type, type))
        aligned = f"{where.type} align {type.bytes} {where.text}"
        text = f"call {type} @{name}({aligned}, {mask.typed}, {type} poison)"
        return self.assign(type, text, pure=False)

    def prefetch(self, pointer: Value, write: bool = False, locality: int = 3) -> None:
        """Locality 3 asks for L1, 2 for L2, 1 for L3, 0 for no trace in the caches."""
        self.module.declare("llvm.prefetch.p0", VOID, (PTR, I32, I32, I32))
        hint = f"i32 {int(write)}, i32 {locality}, i32 1"
        self.emit(f"call void @llvm.prefetch.p0(ptr {pointer.text}, {hint})")

    # ---------------------------------------------------------------- lanes

    def splat(self, value: Value, lanes: int) -> Value:
        """The scalar in every lane."""
        if lanes == 1 or value.type.lanes == lanes:
            return value
        type = vector(lanes, value.type)
        if value.number is not None:
            return constant(type, value.number)
        first = self.assign(type, f"insertelement {type} poison, {value.typed}, i64 0")
        zeros = f"<{lanes} x i32> zeroinitializer"
        return self.assign(type, f"shufflevector {first.typed}, {type} poison, {zeros}")

    def ramp(self, start: Value, step: int, lanes: int) -> Value:
        """The integer vector start, start + step, … ."""
        steps = constants(start.type, [step * lane for lane in range(lanes)])
        if lanes > 1 and start.number == 0:
            return steps
        return self.add(self.splat(start, lanes), steps)

    def extract(self, value: Value, index: Operand) -> Value:
        if value.type.lanes == 1:
            return value
        if value.number is not None:
            return constant(value.type.scalar, value.number)
        return self.assign(
            value.type.scalar, f"extractelement {value.typed}, {self.index(index).typed}"
        )

    def insert(self, value: Value, element: Value, index: Operand) -> Value:
        if value.type.lanes == 1:
            return element
        at = self.index(index).typed
        return self.assign(value.type, f"insertelement {value.typed}, {element.typed}, {at}")

    def shuffle(self, a: Value, b: Value | None, mask: Sequence[int]) -> Value:
        """Picks lanes of `a` (0 …) then of `b` (a.lanes …) in the mask's order; -1 is undefined."""
        if a.type.lanes == 1:
            parts = [a] if b is None else [a, b]
            joined = poison(vector(len(mask), a.type))
            for lane, source in enumerate(mask):
                if source >= 0:
                    joined = self.insert(joined, parts[source], lane)
            return joined
        if len(mask) == 1:
            first = mask[0] < a.type.lanes or b is None
            return self.extract(a if first or b is None else b, mask[0] % a.type.lanes)
        other = poison(a.type) if b is None else b
        order = ", ".join("i32 poison" if lane < 0 else f"i32 {lane}" for lane in mask)
        return self.assign(
            vector(len(mask), a.type), f"shufflevector {a.typed}, {other.typed}, "
            f"<{len(mask)} x i32> <{order}>",
        )  # fmt: skip

    def reduce(self, operation: str, value: Value) -> Value:
        """Folds the lanes by add, mul, and, or, xor, smin, smax, umin, umax, fmaximum, fminimum …

        Floating-point sums have an order to choose: write them with `shuffle`.
        """
        if value.type.lanes == 1:
            return value
        return self.intrinsic(
            f"vector.reduce.{operation}", value, returns=value.type.scalar, overloads=(value.type,)
        )
