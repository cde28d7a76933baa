"""Keeps freed memory in the process, so that each new frame does not cost page faults."""

from __future__ import annotations

from .._core.wire import FRAME_BYTES

_KEPT_BYTES = 4 * FRAME_BYTES  # room for a frame, its pickle, what is read from it, and a reserve
_told = False


def keep_freed() -> None:
    """Have glibc keep freed memory for the next frame, up to 8 MiB in each arena; acts once in a process.

    By default glibc gives that memory back to the system, and the next frame costs page faults: payloads of
    30 kB arrived a fourth as fast, those of 4 kB at 0.4 times the rate.

    glibc keeps up to twice the size of the largest block that was mapped and freed so far (mallopt(3),
    M_MMAP_THRESHOLD). Therefore this function makes a block of 4 MiB and frees it. If the heap has that much
    room at the moment, nothing is mapped and nothing changes. A user who has set MALLOC_TRIM_THRESHOLD_
    overrides this; with other C libraries it does nothing.
    """
    global _told
    if not _told:
        _told = True
        bytes(_KEPT_BYTES)  # calloc() leaves the pages untouched: 25 us; a bytearray would be filled
