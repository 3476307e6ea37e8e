"""Loop kernels written by hand, and random small ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import strategies as st

from quern.compiler.loops import ir
from quern.compiler.loops.ir import (
    Accumulate,
    Alloc,
    Binary,
    BinaryOp,
    Block,
    Buffer,
    Call,
    Const,
    Expr,
    For,
    Function,
    If,
    Kernel,
    Let,
    Load,
    LoopKind,
    ReduceOp,
    Select,
    Space,
    Stmt,
    Store,
    Var,
)
from quern.compiler.types import DType

F32 = DType.FLOAT32
I64 = DType.INT64
SERIAL, PARALLEL = LoopKind.SERIAL, LoopKind.PARALLEL
VECTOR, UNROLLED = LoopKind.VECTOR, LoopKind.UNROLLED

i, j, k, m, n, v = (Var(name) for name in "ijkmnv")


def number(value: float, dtype: DType = F32) -> Const:
    return Const(value, dtype)


def add(a: Expr, b: Expr) -> Expr:
    return Binary(BinaryOp.ADD, a, b)


def mul(a: Expr, b: Expr) -> Expr:
    return Binary(BinaryOp.MUL, a, b)


def pointwise(rows: int = 3, extent: int = 10, dtype: DType = F32) -> Kernel:
    """Y = 2x + 1"""
    x, y = Buffer("x", (rows, extent), dtype), Buffer("y", (rows, extent), dtype)
    value = add(mul(number(2, dtype), Load(x, (i, v))), number(1, dtype))
    body = (For(v, extent, (Store(y, (i, v), value),), VECTOR, 4),)
    return Kernel("twice", (x, y), (For(i, rows, body, PARALLEL),))


def softmax(rows: int = 3, extent: int = 10) -> Kernel:
    """Softmax of rows in three walks."""
    x, y = Buffer("x", (rows, extent)), Buffer("y", (rows, extent))
    top, total = (Buffer(name, (), F32, Space.REGISTER) for name in ("top", "total"))
    shifted = Call(Function.EXP, Binary(BinaryOp.SUB, Load(x, (i, v)), Load(top, ())))

    def walk(*body: Stmt) -> For:
        return For(v, extent, body, VECTOR, 8)

    e = Var("e", F32)
    row = (
        Alloc(top),
        Store(top, (), number(float("-inf"))),
        walk(Accumulate(top, (), ReduceOp.MAX, Load(x, (i, v)))),
        Alloc(total),
        Store(total, (), number(0.0)),
        walk(Accumulate(total, (), ReduceOp.ADD, shifted)),
        walk(
            Let(e, shifted),
            Store(y, (i, v), Binary(BinaryOp.DIV, e, Load(total, ()))),
        ),
    )
    return Kernel("softmax", (x, y), (For(i, rows, row, PARALLEL),), note="3 walks a row")


def matmul(rows: int = 5, columns: int = 16, depth: int = 7) -> Kernel:
    """Y = a b, in tiles of one row and eight columns."""
    a, b = Buffer("a", (rows, depth)), Buffer("b", (depth, columns))
    y = Buffer("y", (rows, columns))
    tile = Buffer("tile", (8,), F32, Space.REGISTER)
    lane = j * 8 + v

    def lanes(*body: Stmt) -> For:
        return For(v, 8, body, VECTOR, 8)

    product = mul(Load(a, (i, k)), Load(b, (k, lane)))
    body: Block = (
        Alloc(tile),
        lanes(Store(tile, (v,), number(0.0))),
        For(k, depth, (lanes(Accumulate(tile, (v,), ReduceOp.ADD, product)),)),
        lanes(Store(y, (i, lane), Load(tile, (v,)))),
    )
    nest = For(i, rows, (For(j, columns // 8, body, PARALLEL),), PARALLEL)
    return Kernel("matmul", (a, b, y), (nest,), note="tiles 1x8")


def convolution(size: int = 12, window: int = 3, guarded: bool = True) -> Kernel:
    """One-dimensional correlation with zeros around."""
    pad = window // 2
    x, w, y = Buffer("x", (size,)), Buffer("w", (window,)), Buffer("y", (size,))
    total = Buffer("total", (), F32, Space.REGISTER)
    place = Var("place")
    step: Stmt = Accumulate(total, (), ReduceOp.ADD, mul(Load(x, (place,)), Load(w, (k,))))
    if guarded:
        step = If((place >= 0) & (place < size), (step,))
    body = (
        Alloc(total),
        Store(total, (), number(0.0)),
        For(k, window, (Let(place, i + k - pad), step)),
        Store(y, (i,), Load(total, ())),
    )
    return Kernel("conv", (x, w, y), (For(i, size, body, PARALLEL),))


def gather(rows: int = 5, count: int = 7, clamped: bool = True) -> Kernel:
    """y[i] = x[indices[i]], negative indices from the end."""
    x, y = Buffer("x", (rows,)), Buffer("y", (count,))
    indices = Buffer("indices", (count,), I64)
    place: Expr = Load(indices, (v,))
    place = Select(place < 0, place + rows, place)
    if clamped:
        place = ir.clamp(place, 0, rows - 1)
    body = (Store(y, (v,), Load(x, (place,))),)
    return Kernel("gather", (x, indices, y), (For(v, count, body, VECTOR, 4),))


def copy_at(index: Expr, loops: dict[str, int], extent: int, kind: LoopKind = SERIAL) -> Kernel:
    """y[0] = x[index], for all iterations of some loops."""
    x, y = Buffer("x", (extent,), I64), Buffer("y", (1,), I64)
    body: Block = (Store(y, (ir.index(0),), Load(x, (index,))),)
    nest = tuple((Var(name), n) for name, n in loops.items())
    return Kernel("copy", (x, y), ir.loop_nest(nest, body, kind))


def store_at(index: Expr, loops: dict[str, int], extent: int, kind: LoopKind = PARALLEL) -> Kernel:
    """y[index] = 1, for all iterations of some loops."""
    y = Buffer("y", (extent,), I64)
    body: Block = (Store(y, (index,), number(1, I64)),)
    nest = tuple((Var(name), n) for name, n in loops.items())
    return Kernel("fill", (y,), ir.loop_nest(nest, body, kind))


def serial(kernel: Kernel) -> Kernel:
    """The kernel with every loop run in order, one iteration after the other."""

    def plain(block: Block) -> Block:
        return tuple(
            replace(s, body=plain(s.body), kind=SERIAL)
            if isinstance(s, For)
            else replace(s, body=plain(s.body), orelse=plain(s.orelse))
            if isinstance(s, If)
            else s
            for s in block
        )

    return replace(kernel, body=plain(kernel.body))


# -- random kernels -------------------------------------------------------------------------------

_FIXED = {
    name: Buffer(name, shape, I64)
    for name, shape in {"x": (6,), "z": (3, 4), "y": (12,), "w": (3, 4)}.items()
}
READ = (_FIXED["x"], _FIXED["z"])
WRITTEN = (_FIXED["y"], _FIXED["w"])


@dataclass
class _Scope:
    """Draws the parts of a kernel."""

    draw: st.DrawFn
    variables: tuple[Var, ...] = ()
    count: int = 0
    loads: bool = True

    def index(self, depth: int = 2) -> Expr:
        """An int64 expression."""
        kind = (
            self.draw(st.integers(0, 9 if self.loads else 8))
            if depth
            else self.draw(st.integers(0, 1))
        )
        if kind == 0 or (kind == 1 and not self.variables):
            return ir.index(self.draw(st.integers(-3, 6)))
        if kind == 1:
            return self.draw(st.sampled_from(self.variables))
        a = self.index(depth - 1)
        if kind in (2, 3, 4):
            op = self.draw(st.sampled_from([BinaryOp.ADD, BinaryOp.SUB, BinaryOp.MUL]))
            return ir.binary(op, a, self.index(depth - 1))
        if kind in (5, 6):
            op = self.draw(st.sampled_from([BinaryOp.FLOORDIV, BinaryOp.MOD, BinaryOp.AND]))
            return ir.binary(op, a, self.draw(st.sampled_from([-2, 0, 1, 2, 3, 4, 7])))
        if kind == 7:
            op = self.draw(st.sampled_from([BinaryOp.MIN, BinaryOp.MAX]))
            return ir.binary(op, a, self.index(depth - 1))
        if kind == 8:
            return Select(self.condition(depth - 1), a, self.index(depth - 1))
        buffer = self.draw(st.sampled_from(READ + WRITTEN))
        return Load(buffer, self.place(buffer, depth - 1))

    def condition(self, depth: int = 1) -> Expr:
        op = self.draw(st.sampled_from([BinaryOp.LT, BinaryOp.LE, BinaryOp.EQ, BinaryOp.NE]))
        test: Expr = Binary(op, self.index(depth), self.index(depth))
        kind = self.draw(st.integers(0, 3))
        if kind == 0:
            return Call(Function.NOT, test)
        if kind == 1:
            other = Binary(BinaryOp.LE, self.index(depth), self.index(depth))
            return Binary(self.draw(st.sampled_from([BinaryOp.AND, BinaryOp.OR])), test, other)
        return test

    def place(self, buffer: Buffer, depth: int = 2) -> tuple[Expr, ...]:
        """An index of a buffer, more often than not kept inside."""
        result = []
        for extent in buffer.shape:
            expr = self.index(depth)
            way = self.draw(st.integers(0, 4))
            if way == 0:
                expr = ir.clamp(expr, 0, extent - 1)
            elif way == 1:
                expr = expr % extent
            result.append(expr)
        return tuple(result)

    def statement(self, depth: int) -> Stmt:
        kind = self.draw(st.integers(0, 6 if depth else 3))
        if kind <= 3:
            buffer = self.draw(st.sampled_from(WRITTEN))
            place, value = self.place(buffer), self.value()
            if kind == 0:
                op = self.draw(st.sampled_from(list(ReduceOp)))
                return Accumulate(buffer, place, op, value)
            return Store(buffer, place, value)
        if kind == 4:
            orelse = self.block(depth - 1) if self.draw(st.booleans()) else ()
            return If(self.condition(), self.block(depth - 1), orelse)
        self.count += 1
        inner = _Scope(self.draw, (*self.variables, Var(f"i{self.count}")), self.count)
        loop = For(
            inner.variables[-1],
            self.draw(st.integers(0, 5)),
            inner.block(depth - 1),
            self.draw(st.sampled_from([SERIAL, UNROLLED, VECTOR, PARALLEL])),
            self.draw(st.integers(1, 4)),
        )
        self.count = inner.count
        return loop

    def value(self) -> Expr:
        return add(self.index(1), Load(READ[0], self.place(READ[0], 1)))

    def block(self, depth: int) -> Block:
        scope = _Scope(self.draw, self.variables, self.count)
        body: list[Stmt] = []
        for _ in range(self.draw(st.integers(1, 2))):
            if self.draw(st.integers(0, 3)) == 0:
                scope.count += 1
                var = Var(f"t{scope.count}")
                body.append(Let(var, scope.index()))
                scope.variables = (*scope.variables, var)
            body.append(scope.statement(depth))
        self.count = scope.count
        return tuple(body)


@st.composite
def random_kernels(draw: st.DrawFn) -> Kernel:
    """Small kernels over `READ` and `WRITTEN` that may well leave their buffers."""
    scope = _Scope(draw)
    variables: list[tuple[Var, int]] = []
    for name in "ab":
        variables.append((Var(name), draw(st.integers(1, 4))))
    scope.variables = tuple(var for var, _ in variables)
    kind = draw(st.sampled_from([SERIAL, PARALLEL, VECTOR]))
    body = scope.block(2)
    return Kernel("random", (*READ, *WRITTEN), ir.loop_nest(tuple(variables), body, kind))


@st.composite
def guarded_indices(draw: st.DrawFn) -> tuple[Kernel, Kernel]:
    """An index under a condition, for all a and b: used as one, and written down."""
    loops = tuple((Var(name), draw(st.integers(1, 6))) for name in "ab")
    scope = _Scope(draw, tuple(var for var, _ in loops), loads=False)
    condition, place = scope.condition(2), scope.index(3)
    x = Buffer("x", (1,), I64)
    y = Buffer("y", tuple(extent for _, extent in loops), I64)
    uses = Store(x, (place,), number(1, I64))
    writes = Store(y, tuple(var for var, _ in loops), place)
    used, written = (ir.loop_nest(loops, (If(condition, (s,)),)) for s in (uses, writes))
    return Kernel("used", (x,), used), Kernel("written", (y,), written)


@st.composite
def regular_kernels(draw: st.DrawFn) -> Kernel:
    """Kernels of linear and mixed-radix indices inside of their buffers: often without races."""
    a, b, c = (Var(name) for name in "abc")
    extents = {var: draw(st.integers(1, 4)) for var in (a, b, c)}

    def index() -> Expr:
        result: Expr = ir.index(draw(st.integers(0, 3)))
        for var in draw(st.permutations((a, b, c))):
            result = var * draw(st.sampled_from([0, 0, 1, 1, 2, 3, 4, 6, 12, 16])) + result
        way = draw(st.integers(0, 5))
        if way == 0:
            return result // 2 * 2 + result % 2
        return result % 7 if way == 1 else result

    x, y = Buffer("x", (256,), I64), Buffer("y", (256,), I64)
    s = Buffer("s", (4,), I64, Space.STACK)
    shared = [index() for _ in range(2)]
    pick = st.sampled_from(shared)

    def statement() -> Stmt:
        kind = draw(st.integers(0, 4))
        value = add(Load(x, (draw(pick),)), a * 5 + b * 3 + c)
        if kind == 0:
            op = draw(st.sampled_from([ReduceOp.ADD, ReduceOp.MAX]))
            return Accumulate(y, (draw(pick),), op, value)
        if kind == 1:
            return Accumulate(s, (a % 4,), ReduceOp.ADD, Load(y, (draw(pick),)))
        if kind == 2:
            return Store(y, (draw(pick),), add(value, Load(s, (b % 4,))))
        return Store(y, (draw(pick),), value)

    clear = For(m, 4, (Store(s, (m,), number(0, I64)),))
    inside = tuple(statement() for _ in range(draw(st.integers(1, 2))))
    home = draw(st.integers(0, 2))
    kinds = [draw(st.sampled_from([SERIAL, PARALLEL, VECTOR])) for _ in range(3)]
    body: Block = inside
    for depth, var in reversed(list(enumerate((a, b, c)))):
        body = (For(var, extents[var], body, kinds[depth], 2),)
        if depth == home:
            body = (Alloc(s), clear, *body)
    return Kernel("regular", (x, y), body)
