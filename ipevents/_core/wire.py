"""Lists of records to frames of bytes, and back. Payloads are bytes or plain values here and are not opened.

A frame is what ``multiprocessing.connection`` sends at once: a length and that many bytes. Here the bytes are
the pickle of a list of records. They are checked before they are unpickled, see grammar.py. The unpickler can
make nothing but plain values, so a peer cannot have code run by it.

A payload with large buffers is ``[meta, buffers]`` in memory. It travels alone in its record, and that alone
in its frame, as ``[meta, [(size, readonly), ...]]``; the buffers follow the frame as raw bytes.

A sealed frame has its number and its seal between the length, which counts them, and the pickle; the seal of
its buffers follows them. See seal.py.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from .._exceptions import ProtocolError
from .grammar import DEPTH, PICKLE_PROTOCOL, check
from .messages import MESSAGE_ITEMS, PAYLOADS, Record
from .seal import PREFIX_BYTES, Seals

MAX_FRAME_BYTES = 0x7FFFFFFF  # the largest number in a short header
FRAME_BYTES = 1 << 20  # records gather up to this size in a frame (README, Wire and handshake)
_MAX_BUFFER_BYTES = 1 << 128  # no system has so many; a much greater number is too long to be shown
_JOIN_BYTES = 16 * 1024  # up to this size header and frame are joined into one part, by a copy

Part = bytes | memoryview  # a piece to be written; a view if large, whose rest needs no copy

_SHORT = struct.Struct("!i")
_LONG = struct.Struct("!iQ")


def frame_header(size: int) -> bytes:
    """Return the header of a frame of ``size`` bytes, as multiprocessing.connection writes it."""
    if size <= MAX_FRAME_BYTES:
        return _SHORT.pack(size)
    return _LONG.pack(-1, size)


HEADER_BYTES = _SHORT.size


def frame_size(chunk: bytes, at: int, limit: int) -> int:
    """Return the size of a frame, from the header at the place ``at`` of ``chunk``.

    Raises ProtocolError for a size that is not positive or exceeds ``limit`` (README, Wire and handshake).
    The header for frames of 2 GiB and more is not read: large buffers travel after the frame, so no frame is
    so large.
    """
    size: int = _SHORT.unpack_from(chunk, at)[0]
    if not 0 < size <= limit:
        raise ProtocolError(f"a frame of {size} bytes; from 1 to {limit} are allowed")
    return size


class _Output:
    """What a pickler writes into, by its ``write``."""

    __slots__ = ("write",)
    write: Callable[[bytes], None]


class _Input:
    """What an unpickler reads a frame from: it gets all of it at once, and without a copy."""

    __slots__ = ("_frame",)

    def __init__(self, frame: bytes | bytearray | memoryview) -> None:
        self._frame = frame

    def peek(self, size: int) -> bytes | bytearray | memoryview:
        frame, self._frame = self._frame, b""
        return frame

    def read(self, size: int = -1) -> bytes:
        return b""

    def readline(self) -> bytes:
        return b""


class _PlainUnpickler(pickle.Unpickler):
    """Reads plain values. Refuses every class and function, so that unpickling runs no code.

    No frame that ``check`` lets pass names one.
    """

    def find_class(self, module: str, name: str) -> NoReturn:
        raise ProtocolError(f"a header names {module}.{name}; headers hold plain values only")


_Encoder = tuple[Callable[[Sequence[Record]], None], list[bytes]]
_encoders: list[_Encoder] = []  # those that no thread is using


def _make_encoder() -> _Encoder:
    """Return a function that puts the frame of records into a list, and that list.

    ``fast`` leaves out the opcodes of the memo, see grammar.py. It is for values without cycles, as all of
    ours are. The documentation calls it deprecated, and CPython 3.10 to 3.15 have it. One without it would
    refuse the assignment, or write frames that no reader takes.
    """
    output = _Output()
    written: list[bytes] = []
    output.write = written.append
    pickler = pickle.Pickler(output, PICKLE_PROTOCOL)
    pickler.fast = True
    return pickler.dump, written


def encode(records: Sequence[Record]) -> bytes:
    """Return the frame of records without large buffers, without its header."""
    try:
        encoder = _encoders.pop()
    except IndexError:
        encoder = _make_encoder()
    dump, written = encoder
    dump(records)
    if len(written) > 1:  # there are bytes objects of 64 KiB or more, each of which is a part
        return b"".join(written)
    frame = written.pop()
    if len(frame) <= _JOIN_BYTES:  # after a larger one a pickler takes as much memory for each
        _encoders.append(encoder)  # which has not been interrupted
    return frame


def is_large(record: Record) -> bool:
    """Return whether the record has a payload with large buffers, which travel after its frame.

    Judged by its form and not by its kind: PROGRAM may have such a payload as well, and a record of a peer
    may be anything.
    """
    payloads = record[-1]  # a message with small payloads is the likeliest, and is recognised first
    return (
        type(payloads) is list
        and type(payloads[0] if payloads else None) is list
        and len(payloads) == 1
        and len(record) == MESSAGE_ITEMS
    )


def encode_large(record: Record) -> tuple[bytes, list[Any]]:
    """Return the frame of a record with large buffers, and the buffers, which are sent after it."""
    meta, buffers = record[PAYLOADS][0]
    sizes = [(len(buffer), isinstance(buffer, bytes)) for buffer in buffers]
    return encode([(*record[:PAYLOADS], [[meta, sizes]])]), buffers


def parts(records: Sequence[Record], seals: Seals | None = None, number: int = 0) -> list[Part]:
    """Return everything that is written for the records of one frame, in order.

    With ``seals`` it is sealed, as the frame with this number. Then the buffers have one more part after
    them.
    """
    buffers: list[Any] = []
    if is_large(records[0]):
        frame, buffers = encode_large(records[0])
    else:
        frame = encode(records)
    size = len(frame)
    if seals is None:
        begin = frame_header(size)
    else:
        begin = frame_header(PREFIX_BYTES + size) + seals.prefix(number, frame)
    written: list[Part] = [begin + frame] if size <= _JOIN_BYTES else [begin, memoryview(frame)]
    if buffers:
        written += [memoryview(buffer) for buffer in buffers if len(buffer)]
        if seals is not None:
            written.append(seals.of_buffers(number, buffers))
    return written


def with_buffers(record: Record, buffers: list[Any]) -> Record:
    """Return a record that was read from a frame, with the buffers that followed the frame put in."""
    meta, _ = record[PAYLOADS][0]
    return (*record[:PAYLOADS], [[meta, buffers]])


def decode(frame: bytes | bytearray | memoryview) -> list[Record]:
    """Return the records of a frame.

    Raises ProtocolError if the bytes are not the pickle of a list of non-empty tuples or lists, or if a
    record with large buffers is not alone in the frame.
    """
    levels = check(frame)
    try:
        records = _PlainUnpickler(_Input(frame)).load()
    except ProtocolError:
        raise
    except Exception as exc:  # wrong bytes may make the unpickler raise anything
        raise ProtocolError(f"a frame of {len(frame)} bytes is no list of records: {exc!r:.200}") from exc
    if type(records) is not list:
        raise ProtocolError(f"a frame holds a {type(records).__name__}, not a list of records")
    for record in records:
        if not record or (type(record) is not tuple and type(record) is not list):
            raise ProtocolError(f"a frame holds a {type(record).__name__} or an empty record")
    if len(records) > 1 and any(map(is_large, records)):
        raise ProtocolError("a frame holds a record with buffers beside others")
    if levels > DEPTH and not (records and is_large(records[0])):
        raise ProtocolError(f"a frame of {levels} levels; without buffers {DEPTH} are allowed")
    return records


def large_sizes(record: Record) -> list[tuple[int, bool]]:
    """Return size and read-only mark of each buffer that follows a record with large buffers.

    Raises ProtocolError if the record does not announce them properly.
    """
    try:
        meta, sizes = record[PAYLOADS][0]
        if type(meta) is not bytes or not all(
            type(size) is int and 0 <= size <= _MAX_BUFFER_BYTES and type(readonly) is bool
            for size, readonly in sizes
        ):
            raise ValueError
    except (TypeError, ValueError):
        raise ProtocolError("a record announces buffers in a way that makes no sense") from None
    return list(sizes)
