"""A hint for the allocator of the C library."""

from __future__ import annotations

from .._core.wire import FRAME_BYTES

_KEPT_BYTES = 4 * FRAME_BYTES  # a frame, its pickle, what is read from it, and room
_told = False


def keep_freed() -> None:
    """Have glibc keep freed memory for the next frame, up to 8 MiB in each arena; once in a process.

    By itself it gives that memory back to the system, and the next frame costs page faults: payloads of 30
    kB arrived a fourth as fast, those of 4 kB at 0.4 times the rate. It keeps up to twice the size of the
    largest block so far that was mapped and freed (mallopt(3), M_MMAP_THRESHOLD), so one of 4 MiB is made
    and freed here. Where the heap has that much room just now, nothing is mapped, and nothing changes. A
    user who has set MALLOC_TRIM_THRESHOLD_ overrides this; in other C libraries it does nothing.
    """
    global _told
    if not _told:
        _told = True
        bytes(_KEPT_BYTES)  # from calloc(): never touched, so it costs 25 us; a bytearray is filled
