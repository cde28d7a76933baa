"""What the C library's allocator is told about this process."""

from __future__ import annotations

from .._core.wire import FRAME_BYTES

_KEPT_BYTES = 4 * FRAME_BYTES  # a frame, its pickle, what is read from it, and room
_told = False


def keep_freed() -> None:
    """Have glibc keep freed memory for the next frame, some megabytes for each arena; once in a process.

    By default it gives free memory above 128 KiB at the end of a heap back to the system, and each next frame
    of that size is paid for with page faults: 30 kB payloads go 4 times as fast without, those of 4 kB 2.6
    times. Freeing a block that was mapped raises that limit to twice the block's size (mallopt(3),
    M_MMAP_THRESHOLD), as an array of this size would that the user frees. The block is never touched.
    Whoever sets MALLOC_TRIM_THRESHOLD_ has his way; other C libraries do not care.
    """
    global _told
    if not _told:
        _told = True
        bytearray(_KEPT_BYTES)
