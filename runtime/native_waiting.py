"""How threads wait for each other, as LLVM IR: a part of the runner in `native.py`.

Every wait spins, then yields the processor, then sleeps. So threads that share a core, long serial
steps and an idle team all take the same path, and none of them burns a core.
"""

from __future__ import annotations

WAITING = r"""
; Wait until the word holds `ticket` or a later one.
define internal void @wait(ptr %pool, ptr %word, i64 %ticket) noinline {
entry:
  %pauses.at = getelementptr %Pool, ptr %pool, i64 0, i32 8
  %pauses = load i64, ptr %pauses.at
  br label %spin
spin:
  %count = phi i64 [ 0, %entry ], [ %count.next, %spin.pause ]
  %spin.seen = load atomic i64, ptr %word acquire, align 8
  %spin.ready = icmp sge i64 %spin.seen, %ticket
  br i1 %spin.ready, label %done, label %spin.more
spin.more:
  %again = icmp ult i64 %count, %pauses
  br i1 %again, label %spin.pause, label %patience
spin.pause:
  call void @relax()
  %count.next = add i64 %count, 1
  br label %spin
patience:
  %since = call i64 @now()
  br label %yield
yield:
  %yielded = call i32 @sched_yield()
  %yield.seen = load atomic i64, ptr %word acquire, align 8
  %yield.ready = icmp sge i64 %yield.seen, %ticket
  br i1 %yield.ready, label %done, label %yield.more
yield.more:
  %time = call i64 @now()
  %waited = sub i64 %time, %since
  %patient = icmp slt i64 %waited, 70000
  br i1 %patient, label %yield, label %sleep
sleep:
  ; The sleeper announces itself, then looks at the word; `publish` writes the word, then looks for
  ; sleepers. Both in sequentially consistent order, so one of the two always sees the other.
  %sleepers = getelementptr %Pool, ptr %pool, i64 0, i32 11
  %mutex = getelementptr %Pool, ptr %pool, i64 0, i32 13
  %condition = getelementptr %Pool, ptr %pool, i64 0, i32 14
  %locked = call i32 @pthread_mutex_lock(ptr %mutex)
  %before = atomicrmw add ptr %sleepers, i64 1 seq_cst
  br label %asleep
asleep:
  %sleep.seen = load atomic i64, ptr %word seq_cst, align 8
  %sleep.ready = icmp sge i64 %sleep.seen, %ticket
  br i1 %sleep.ready, label %awake, label %block
block:
  %blocked = call i32 @pthread_cond_wait(ptr %condition, ptr %mutex)
  br label %asleep
awake:
  %after = atomicrmw sub ptr %sleepers, i64 1 seq_cst
  %unlocked = call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %done
done:
  ret void
}

; Write the word, and wake the threads that sleep for it.
define internal void @publish(ptr %pool, ptr %word, i64 %ticket) {
  store atomic i64 %ticket, ptr %word seq_cst, align 8
  %sleepers.at = getelementptr %Pool, ptr %pool, i64 0, i32 11
  %sleepers = load atomic i64, ptr %sleepers.at seq_cst, align 8
  %none = icmp eq i64 %sleepers, 0
  br i1 %none, label %done, label %wake
wake:
  %mutex = getelementptr %Pool, ptr %pool, i64 0, i32 13
  %condition = getelementptr %Pool, ptr %pool, i64 0, i32 14
  %locked = call i32 @pthread_mutex_lock(ptr %mutex)
  %woken = call i32 @pthread_cond_broadcast(ptr %condition)
  %unlocked = call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %done
done:
  ret void
}
"""
