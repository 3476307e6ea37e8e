"""Where the contents of arrays are, as LLVM IR: a part of the runner in `native.py`.

Asked for through Python, the address, dtype and shape of an array take some thousand instructions
from all over memory, most of which have left the caches whenever kernels have run: with three
inputs and two outputs 11 µs, a quarter of a step of an LSTM. Here they are read where NumPy keeps
them, in `PyArrayObject_fields` of its C interface, which is the same in all versions that load
the same extension modules; arrays come in a tuple, as `PyTupleObject` of Python's C interface.
"""

from __future__ import annotations

_POINTING = r"""
; Write into the tables where the contents of some arrays are. `wanted` says for each array: its
; type and dtype, by address; the number of its axes, and their extents; the number of its places,
; and for each of these the word of the tables and the bytes from the beginning of the contents.
; Returns how many arrays were as wanted and contiguous before one was not, or all.
define i64 @quern_point(ptr %arrays, ptr %wanted, i64 %count, ptr %tables) {
entry:
  %items = getelementptr %Tuple, ptr %arrays, i64 0, i32 1
  br label %next
next:
  %number = phi i64 [ 0, %entry ], [ %number.next, %array.done ]
  %form = phi ptr [ %wanted, %entry ], [ %place, %array.done ]
  %more = icmp slt i64 %number, %count
  br i1 %more, label %array.type, label %done
array.type:
  %item = getelementptr ptr, ptr %items, i64 %number
  %array = load ptr, ptr %item
  %type.at = getelementptr %Array, ptr %array, i64 0, i32 1
  %type = load i64, ptr %type.at
  %type.wanted = load i64, ptr %form
  %type.fits = icmp eq i64 %type, %type.wanted
  br i1 %type.fits, label %array.form, label %done
array.form:
  %rank.at = getelementptr %Array, ptr %array, i64 0, i32 3
  %shape.at = getelementptr %Array, ptr %array, i64 0, i32 4
  %dtype.at = getelementptr %Array, ptr %array, i64 0, i32 7
  %flags.at = getelementptr %Array, ptr %array, i64 0, i32 8
  %dtype.wanted.at = getelementptr i64, ptr %form, i64 1
  %rank.wanted.at = getelementptr i64, ptr %form, i64 2
  %shape.wanted = getelementptr i64, ptr %form, i64 3
  %dtype = load i64, ptr %dtype.at
  %dtype.wanted = load i64, ptr %dtype.wanted.at
  %dtype.fits = icmp eq i64 %dtype, %dtype.wanted
  %flags = load i32, ptr %flags.at
  %flags.both = and i32 %flags, 257  ; NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED
  %flags.fit = icmp eq i32 %flags.both, 257
  %rank.int = load i32, ptr %rank.at
  %rank = sext i32 %rank.int to i64
  %rank.wanted = load i64, ptr %rank.wanted.at
  %rank.fits = icmp eq i64 %rank, %rank.wanted
  %shape = load ptr, ptr %shape.at
  %memory.fits = and i1 %dtype.fits, %flags.fit
  %form.fits = and i1 %memory.fits, %rank.fits
  br i1 %form.fits, label %axis, label %done
axis:
  %axis.number = phi i64 [ 0, %array.form ], [ %axis.next, %axis.fits ]
  %axis.last = icmp eq i64 %axis.number, %rank
  br i1 %axis.last, label %array.fits, label %axis.extent
axis.extent:
  %extent.at = getelementptr i64, ptr %shape, i64 %axis.number
  %extent.wanted.at = getelementptr i64, ptr %shape.wanted, i64 %axis.number
  %extent = load i64, ptr %extent.at
  %extent.wanted = load i64, ptr %extent.wanted.at
  %extent.fits = icmp eq i64 %extent, %extent.wanted
  br i1 %extent.fits, label %axis.fits, label %done
axis.fits:
  %axis.next = add i64 %axis.number, 1
  br label %axis
array.fits:
  %contents.at = getelementptr %Array, ptr %array, i64 0, i32 2
  %contents = load i64, ptr %contents.at
  %places.at = getelementptr i64, ptr %shape.wanted, i64 %rank
  %places = load i64, ptr %places.at
  %place.first = getelementptr i64, ptr %places.at, i64 1
  br label %place.next
place.next:
  %left = phi i64 [ %places, %array.fits ], [ %left.next, %place.put ]
  %place = phi ptr [ %place.first, %array.fits ], [ %place.after, %place.put ]
  %place.more = icmp sgt i64 %left, 0
  br i1 %place.more, label %place.put, label %array.done
place.put:
  %bytes.at = getelementptr i64, ptr %place, i64 1
  %word = load i64, ptr %place
  %bytes = load i64, ptr %bytes.at
  %address = add i64 %contents, %bytes
  %word.at = getelementptr i64, ptr %tables, i64 %word
  store i64 %address, ptr %word.at
  %left.next = sub i64 %left, 1
  %place.after = getelementptr i64, ptr %place, i64 2
  br label %place.next
array.done:
  %number.next = add i64 %number, 1
  br label %next
done:
  ret i64 %number
}
"""


def pointing_ir() -> str:
    """The IR for this build of Python: what objects begin with differs."""
    before_type, before_items = object.__basicsize__ - 8, tuple.__basicsize__
    return (
        "; type; contents, rank, extents, strides, base, dtype, flags\n"
        f"%Array = type {{ [{before_type} x i8], i64, i64, i32, ptr, ptr, ptr, i64, i32 }}\n"
        f"%Tuple = type {{ [{before_items} x i8], ptr }}\n{_POINTING}"
    )
