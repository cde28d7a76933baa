"""Reads the frames of a connection: in large steps, or in exact steps while large buffers arrive.

A frame is a header with its size, then one or more records. A record with large buffers is alone in its
frame, and its buffers follow the frame.

One ``recv`` takes as many small frames as have arrived. Once a frame had large buffers, the reader asks the
kernel for exactly the bytes that are missing. Then the next buffers go from the kernel into their final place
with no copy in between.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from .._core.messages import Record, is_message
from .._core.seal import PREFIX_BYTES, SEAL_BYTES, Seals
from .._core.wire import (
    FRAME_BYTES,
    HEADER_BYTES,
    MAX_FRAME_BYTES,
    decode,
    frame_size,
    is_large,
    large_sizes,
    with_buffers,
)
from .._exceptions import Forged, ProtocolError
from .._platform.clock import monotonic, sleep
from .silence import limit_receive
from .stream import Stream

SLICE_SECONDS = 0.005  # after so long without blocking a reader lets other threads run (README, Threads)
BREATH_SECONDS = 50e-6
# How much larger than the largest record a frame of small ones may be: a writer fills frames by estimates, in
# which text counts one byte a character and headers count nothing.
_FRAME_SLACK_BYTES = 32 * FRAME_BYTES
_FIRST_READ = 16 * 1024  # bytes asked of the kernel at once; doubled as long as it delivers that many
_LARGEST_READ = 256 * 1024
_LARGEST_MEMORY = 1 << 40  # bytes; no process can have sent a larger buffer
LOST = -1  # instead of a frame's size: no memory for the buffers of its one record


class Truncated(Exception):
    """The peer ended in the middle of a frame, because it was killed while it wrote.

    Nothing of the frame is delivered.
    """


class Stalled(Exception):
    """The peer has begun a frame, and sent no more of it for too long."""


class TimeSlice:
    """How long a reader thread has run without blocking.

    Without a limit on that, a link that is flooded would starve the other threads of the process.
    """

    __slots__ = ("began",)

    def __init__(self) -> None:
        self.began = 0.0

    def is_long(self) -> bool:
        """Whether the reader has run long enough for other threads to get a turn."""
        return monotonic() - self.began > SLICE_SECONDS

    def breathe(self) -> float:
        """Let other threads run if the reader has run for long; returns the time.

        The reader calls it between messages, holding no lock.
        """
        now = monotonic()
        if now - self.began > SLICE_SECONDS:
            sleep(BREATH_SECONDS)
            now = self.began = monotonic()
        return now


def read_frames(
    stream: Stream, name: str, time_slice: TimeSlice, on_frame: Callable[[list[Record], int], None]
) -> None:
    """Read frames until the peer closes the connection, and return then.

    ``on_frame(records, size)`` is called for each frame; ``size`` is LOST for a record whose buffers could
    not be kept. Blocks in ``recv``, which a shutdown of the socket ends, and in ``on_frame``.

    Over TCP a peer that has begun a frame has to go on with it: ``recv`` ends after ``dead_after`` without a
    byte. That limit is set with the first frame that does not come in one piece, and stays set while such
    frames come: to set it each time would take longer. If it ends a wait between two frames it is taken
    away; so an idle connection wakes this thread once, and then no more.

    It does not end the connection of a living peer for which there was no room for long. Such a peer asks
    ever more rarely whether there is room, in the end every two minutes, and the one segment that tells it
    so may be lost. But the frame that was handled last is acknowledged within 0.1 s. That tells of the room
    as well, and the kernel sends it until it has arrived.

    Raises Truncated, Stalled, OSError, ProtocolError, MemoryError if a frame does not fit into memory, and
    whatever ``on_frame`` raises.
    """
    reading = _Reading(stream, on_frame)
    ask = _FIRST_READ
    now = monotonic()
    time_slice.began = now
    receive = stream.socket.recv  # looked up once, as each event comes through this loop
    while True:
        try:
            chunk = receive(reading.missing() if reading.is_exact else ask)
        except BlockingIOError:
            reading.waited_in_vain()
            continue
        before, now = now, monotonic()
        if now - before > BREATH_SECONDS:
            time_slice.began = now  # it has blocked, so other threads could run
        if not chunk:
            if reading.rest:
                raise Truncated(f"{name} ended within a frame")
            return
        if len(chunk) == ask and ask < _LARGEST_READ:
            ask *= 2
        reading.take(chunk)
        if reading.is_unlimited and reading.rest:
            reading.limit_wait()
        now = time_slice.breathe()


class _Reading:
    """The state of reading one connection: the bytes left over from the last read, and the limits.

    ``rest`` never holds a complete frame after ``take``. The limits come from ``socket.maxMessage``; a peer
    that exceeds them breaks the protocol, and the link ends before any memory is taken for it.
    """

    def __init__(self, stream: Stream, on_frame: Callable[[list[Record], int], None]) -> None:
        self.rest = b""  # the beginning of a frame that is not complete
        self._stream = stream
        self._socket = stream.socket
        self._on_frame = on_frame
        self._largest = stream.max_message  # the largest record, in bytes; None for any
        self._limit = MAX_FRAME_BYTES if self._largest is None else self._largest + _FRAME_SLACK_BYTES
        self._seals = stream.opens
        if self._seals is not None:
            self._limit = min(self._limit + PREFIX_BYTES, MAX_FRAME_BYTES)
        self._number = 0  # of the last frame
        self.is_unlimited = stream.dead_after > 0  # a wait for the rest of a frame needs a limit
        # The last frame had large buffers: read exactly what is missing, so that the next need not be copied.
        self.is_exact = False

    def limit_wait(self) -> None:
        """Let no wait for bytes last for ever: a frame has begun."""
        limit_receive(self._socket, self._stream.dead_after)
        self.is_unlimited = False

    def waited_in_vain(self) -> None:
        """Nothing came for as long as the limit says. Between two frames that is fine, and may last.

        Raises Stalled within a frame.
        """
        if self.rest:
            raise Stalled
        limit_receive(self._socket, 0.0)
        self.is_unlimited = True

    def missing(self) -> int:
        """How many bytes are missing for the next header, or for the frame that it announces."""
        if len(self.rest) < HEADER_BYTES:
            return HEADER_BYTES - len(self.rest)
        return HEADER_BYTES + frame_size(self.rest, 0, self._limit) - len(self.rest)

    def take(self, chunk: bytes) -> None:
        """Pass on all frames that are complete with this chunk; keep the beginning of the next one."""
        if self.rest:
            chunk = self.rest + chunk
        at, end = 0, len(chunk)
        while end - at >= HEADER_BYTES:
            size = frame_size(chunk, at, self._limit)
            if end - at - HEADER_BYTES < size and size < _LARGEST_READ:
                break
            at += HEADER_BYTES
            if end - at < size:
                if self.is_unlimited:
                    self.limit_wait()
                frame: bytes | bytearray = _receive(self._socket, size, chunk[at:], True)
                at = end
            else:
                frame = chunk[at : at + size]
                at += size
            if self._seals is None:
                records = decode(frame)
            else:
                self._number += 1
                size -= PREFIX_BYTES
                records = decode(self._opened(self._seals, frame))
            self.is_exact = is_large(records[0]) if records else False
            if self.is_exact:
                at, total = self._take_buffers(records, chunk, at)
                size = LOST if total == LOST else size + total
            self._on_frame(records, size)
        self.rest = chunk[at:]

    def _opened(self, seals: Seals, frame: bytes | bytearray) -> memoryview:
        """Return the frame without number and seal. Raises Forged where these are not right."""
        try:
            return seals.opened(self._number, frame)
        except Forged:
            self._stream.is_tampered = True
            raise

    def _check_buffers(self, seals: Seals, buffers: list[Any], seal: bytes) -> None:
        """Raise Forged if this is not the seal of the buffers of the last frame."""
        try:
            seals.check_buffers(self._number, buffers, seal)
        except Forged:
            self._stream.is_tampered = True
            raise

    def _take_buffers(self, records: list[Record], chunk: bytes, at: int) -> tuple[int, int]:
        """Read the buffers that follow a frame, the first of them from the chunk.

        Returns where the chunk goes on, and the size of the buffers in bytes. The size is LOST if there is no
        memory for them; then they are read and forgotten, and the connection goes on.
        """
        sizes = large_sizes(records[0])
        total = sum(size for size, _ in sizes)
        if self._largest is not None and total > self._largest:
            raise ProtocolError(
                f"a record with buffers of {total} bytes; {self._largest} are allowed (socket.maxMessage)"
            )
        if self.is_unlimited:
            self.limit_wait()
        buffers: list[Any] = []
        for number, (size, readonly) in enumerate(sizes):
            head = chunk[at : at + size]
            at += len(head)
            try:
                buffers.append(_receive(self._socket, size, head, readonly))
            except OverflowError as exc:
                raise ProtocolError(f"a buffer of {size} bytes, for which there is no memory") from exc
            except _NoMemory as exc:
                if size > _LARGEST_MEMORY or not is_message(records[0]):
                    raise ProtocolError(f"a buffer of {size} bytes, for which there is no memory") from exc
                del head  # free what has come of it
                buffers.clear()
                _skip(self._socket, exc.missing)
                rest = [size for size, _ in sizes[number + 1 :]]
                if self._seals is not None:
                    rest.append(SEAL_BYTES)  # nothing of what it is for is used
                return self._skip_sizes(rest, chunk, at), LOST
        if self._seals is not None:
            seal = _receive(self._socket, SEAL_BYTES, chunk[at : at + SEAL_BYTES], True)
            at = min(len(chunk), at + SEAL_BYTES)
            self._check_buffers(self._seals, buffers, bytes(seal))
        records[0] = with_buffers(records[0], buffers)
        return at, total

    def _skip_sizes(self, sizes: list[int], chunk: bytes, at: int) -> int:
        """Read so many bytes and forget them; returns where the chunk goes on."""
        for size in sizes:
            there = min(size, len(chunk) - at)
            at += there
            _skip(self._socket, size - there)
        return at


def _receive_into(sock: socket.socket, view: memoryview) -> None:
    """Fill the view from the socket. Raises Truncated at the end of the connection, and Stalled."""
    while len(view):
        try:
            count = sock.recv_into(view)
        except BlockingIOError:
            raise Stalled from None
        if not count:
            raise Truncated("the connection ended within a frame")
        view = view[count:]


class _NoMemory(MemoryError):
    """There is no memory for a buffer, of which ``missing`` bytes are still to be read."""

    def __init__(self, missing: int) -> None:
        super().__init__(missing)
        self.missing = missing


def _skip(sock: socket.socket, size: int) -> None:
    """Read so many bytes and forget them. Raises Truncated and Stalled."""
    scratch = memoryview(bytearray(min(size, _FIRST_READ)))
    while size:
        try:
            count = sock.recv_into(scratch[:size])
        except BlockingIOError:
            raise Stalled from None
        if not count:
            raise Truncated("the connection ended within a frame")
        size -= count


def _receive(sock: socket.socket, size: int, head: bytes, readonly: bool) -> bytes | bytearray:
    """Return a buffer of ``size`` bytes that begins with ``head``; the rest is read from the socket.

    Without a head the bytes are copied only out of the kernel. A readonly buffer is returned as bytes. Raises
    _NoMemory, Truncated and Stalled.
    """
    missing = size - len(head)
    try:
        if readonly:
            parts = [head]
            while missing:
                part = sock.recv(
                    missing, socket.MSG_WAITALL
                )  # returns less only after a signal, at the end, or when it has taken as long as the limit
                if not part:
                    raise Truncated("the connection ended within a frame")
                parts.append(part)
                missing -= len(part)
            return b"".join(parts) if head or len(parts) > 2 else parts[-1]
        whole = bytearray(size)
    except MemoryError:
        raise _NoMemory(missing) from None
    except BlockingIOError:
        raise Stalled from None
    whole[: len(head)] = head
    _receive_into(sock, memoryview(whole)[len(head) :])
    return whole
