"""How a team of threads shares a step, as LLVM IR: a part of the runner in `native.py`.

Each thread has its share of a parallel step's extent, which it claims piece by piece, the first
half at once, then half of what is left; whoever has done all of its own claims pieces of the
others' shares. So a thread that is slow, or not running, holds nobody up by more than the piece it
is in, and a thread mostly comes back to the memory that it wrote the step before.
"""

from __future__ import annotations

SHARING = r"""
define internal i1 @flagged(ptr %steps, i64 %index, i64 %mask) alwaysinline {
  %at = getelementptr %Step, ptr %steps, i64 %index, i32 3
  %flags = load i64, ptr %at
  %masked = and i64 %flags, %mask
  %flagged = icmp ne i64 %masked, 0
  ret i1 %flagged
}

; Where a piece of a share begins: 1, 1/2, 1/4, ... 1/64 of it before its end; the seventh ends it.
define internal i64 @piece(i64 %begin, i64 %end, i64 %number) alwaysinline {
  %length = sub i64 %end, %begin
  %halved = lshr i64 %length, %number
  %beyond = icmp eq i64 %number, 7
  %left = select i1 %beyond, i64 0, i64 %halved
  %at = sub i64 %end, %left
  ret i64 %at
}

; Claims a piece of a thread's share, so long, of the step with this ticket; its number, or 7 if
; none is left.
define internal i64 @claim(ptr %word, i64 %ticket, i64 %length) alwaysinline {
entry:
  %fresh = shl i64 %ticket, 3
  %first = load atomic i64, ptr %word monotonic, align 8
  br label %try
try:
  %seen = phi i64 [ %first, %entry ], [ %found, %swap ]
  %old = icmp slt i64 %seen, %fresh
  %now = select i1 %old, i64 %fresh, i64 %seen
  %number = sub i64 %now, %fresh
  %beyond = icmp sgt i64 %number, 6
  %left = lshr i64 %length, %number
  %empty = icmp eq i64 %left, 0
  %none = select i1 %beyond, i1 true, i1 %empty
  br i1 %none, label %nothing, label %swap
swap:
  %next = add i64 %now, 1
  %pair = cmpxchg ptr %word, i64 %seen, i64 %next acq_rel monotonic
  %found = extractvalue { i64, i1 } %pair, 0
  %ours = extractvalue { i64, i1 } %pair, 1
  br i1 %ours, label %taken, label %try
taken:
  ret i64 %number
nothing:
  ret i64 7
}

; What this thread does of one step: its share piece by piece, then pieces of others' shares.
define internal void @execute(ptr %pool, ptr %steps, i64 %index, i64 %thread, i64 %threads,
                              i64 %ticket) {
entry:
  %step = getelementptr %Step, ptr %steps, i64 %index
  %args.at = getelementptr %Step, ptr %step, i64 0, i32 1
  %extent.at = getelementptr %Step, ptr %step, i64 0, i32 2
  %function = load ptr, ptr %step
  %args = load ptr, ptr %args.at
  %extent = load i64, ptr %extent.at
  %parallel = call i1 @flagged(ptr %steps, i64 %index, i64 1)
  %several = icmp sgt i64 %threads, 1
  %together = and i1 %parallel, %several
  br i1 %together, label %shared, label %serial
serial:
  %mine = icmp eq i64 %thread, 0
  br i1 %mine, label %whole, label %done
whole:
  call void %function(ptr %args, i64 0, i64 %extent)
  br label %done
shared:
  %helped = phi i64 [ 0, %entry ], [ %helped.next, %other ]
  %offset = add i64 %thread, %helped
  %beyond = icmp sge i64 %offset, %threads
  %around = sub i64 %offset, %threads
  %whose = select i1 %beyond, i64 %around, i64 %offset
  %line = call ptr @worker(ptr %pool, i64 %whose)
  %word = getelementptr %Worker, ptr %line, i64 0, i32 3
  %low = mul i64 %extent, %whose
  %high = add i64 %low, %extent
  %begin = udiv i64 %low, %threads
  %end = udiv i64 %high, %threads
  %length = sub i64 %end, %begin
  br label %next
next:
  %number = call i64 @claim(ptr %word, i64 %ticket, i64 %length)
  %exhausted = icmp eq i64 %number, 7
  br i1 %exhausted, label %other, label %run
run:
  %from = call i64 @piece(i64 %begin, i64 %end, i64 %number)
  %number.next = add i64 %number, 1
  %to = call i64 @piece(i64 %begin, i64 %end, i64 %number.next)
  call void %function(ptr %args, i64 %from, i64 %to)
  br label %next
other:
  %helped.next = add i64 %helped, 1
  %all = icmp eq i64 %helped.next, %threads
  br i1 %all, label %done, label %shared
done:
  ret void
}
"""
