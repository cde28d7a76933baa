"""What the C library's allocator is told about this process."""

from __future__ import annotations

from .._core.wire import FRAME_BYTES

_KEPT_BYTES = 4 * FRAME_BYTES  # a frame, its pickle, what is read from it, and room
_told = False


def keep_freed() -> None:
    """Have glibc keep freed memory for the next frame, up to 8 MiB in each arena; once in a process.

    Else it gives what is free there back to the system, and the next frame is paid for with page faults:
    payloads of 30 kB arrived a fourth as fast, those of 4 kB at 0.4 times the rate. The limit is twice the
    size of the largest block so far that was mapped and freed (mallopt(3), M_MMAP_THRESHOLD): as if the user
    had freed an array of 4 MiB. Where the heap has that much room just now, nothing is mapped, and nothing
    changes. Who sets MALLOC_TRIM_THRESHOLD_ has his way; other C libraries do not care.
    """
    global _told
    if not _told:
        _told = True
        bytes(_KEPT_BYTES)  # from calloc(): never touched, so it costs 25 us; a bytearray is filled
