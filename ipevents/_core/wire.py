"""Records and frames to bytes and back. Headers only: a payload stays the bytes it is.

A frame is what ``multiprocessing.connection`` sends at once: a length and that many bytes, here the
pickle of a list of records. It is read by an unpickler that can make nothing but plain values.
A payload with large buffers is ``[meta, buffers]`` in memory; it travels alone in its record and its frame,
on the wire as ``[meta, [(size, readonly), ...]]``, and the buffers follow as raw bytes.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Sequence
from typing import Any, NoReturn

from .._exceptions import ProtocolError
from .messages import MESSAGE_ITEMS, PAYLOADS, Record

MAX_FRAME_BYTES = 0x7FFFFFFF  # what a short header can say, and so the largest record between relatives
FRAME_BYTES = 1 << 20  # records gather up to this size in a frame (README, Wire)
_JOIN_BYTES = 16 * 1024  # a frame up to this size is copied behind its header and sent at once

Part = bytes | memoryview  # of what is written; large ones are views, so that a rest is not copied

_SHORT = struct.Struct("!i")
_LONG = struct.Struct("!iQ")


def frame_header(size: int) -> bytes:
    """The bytes before a frame of ``size`` bytes, as multiprocessing.connection writes them."""
    if size <= MAX_FRAME_BYTES:
        return _SHORT.pack(size)
    return _LONG.pack(-1, size)


HEADER_BYTES = _SHORT.size


def frame_size(chunk: bytes, at: int, limit: int) -> int:
    """The size that the header at this place of a chunk announces.

    Raises ProtocolError for a size that is not positive or above ``limit`` (README, Wire). Frames above
    2 GiB are not read: a record's buffers travel behind its frame, so no frame needs it.
    """
    size: int = _SHORT.unpack_from(chunk, at)[0]
    if not 0 < size <= limit:
        raise ProtocolError(f"a frame of {size} bytes; from 1 to {limit} are allowed")
    return size


class _PlainUnpickler(pickle.Unpickler):
    """Reads the values that headers consist of; refuses every class and function."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise ProtocolError(f"a header names {module}.{name}; headers hold plain values only")


def encode(records: Sequence[Record]) -> bytes:
    """The bytes of a frame of records without large buffers."""
    return pickle.dumps(records, 5)


def is_large(record: Record) -> bool:
    """Whether it has one payload, and that has buffers that travel after its frame.

    By its form and not by its kind: it may come from a peer, and PROGRAM has a payload, too.
    """
    payloads = record[-1]  # the likeliest answer first: a message with small payloads
    return (
        type(payloads) is list
        and type(payloads[0] if payloads else None) is list
        and len(payloads) == 1
        and len(record) == MESSAGE_ITEMS
    )


def encode_large(record: Record) -> tuple[bytes, list[Any]]:
    """The frame of a record with large buffers, and the buffers to be sent behind it."""
    meta, buffers = record[PAYLOADS][0]
    sizes = [(len(buffer), isinstance(buffer, bytes)) for buffer in buffers]
    return encode([(*record[:PAYLOADS], [[meta, sizes]])]), buffers


def parts(records: Sequence[Record]) -> list[Part]:
    """All that is written for the records of one frame, in order."""
    buffers: list[Any] = []
    if is_large(records[0]):
        frame, buffers = encode_large(records[0])
    else:
        frame = pickle.dumps(records, 5)
    size = len(frame)
    begin = frame_header(size)
    written: list[Part] = [begin + frame] if size <= _JOIN_BYTES else [begin, memoryview(frame)]
    return written + [memoryview(buffer) for buffer in buffers if len(buffer)] if buffers else written


def with_buffers(record: Record, buffers: list[Any]) -> Record:
    """A record read from a frame, with the buffers that followed it in their place."""
    meta, _ = record[PAYLOADS][0]
    return (*record[:PAYLOADS], [[meta, buffers]])


def decode(frame: bytes | bytearray | memoryview) -> list[Record]:
    """The records of a frame.

    Raises ProtocolError: the bytes are not the pickle of a list of non-empty tuples or lists, or a record
    whose buffers follow its frame does not stand alone in it.
    """
    try:
        records = _PlainUnpickler(io.BytesIO(frame)).load()
    except ProtocolError:
        raise
    except Exception as exc:  # the unpickler raises what the bytes make it raise
        raise ProtocolError(f"a frame of {len(frame)} bytes is no list of records: {exc!r:.200}") from exc
    if type(records) is not list:
        raise ProtocolError(f"a frame holds a {type(records).__name__}, not a list of records")
    for record in records:
        if not record or (type(record) is not tuple and type(record) is not list):
            raise ProtocolError(f"a frame holds a {type(record).__name__} or an empty record")
    if len(records) > 1 and any(map(is_large, records)):
        raise ProtocolError("a frame holds a record with buffers beside others")
    return records


def large_sizes(record: Record) -> list[tuple[int, bool]]:
    """Of a large record, which its frame holds alone: the sizes of the buffers that follow.

    Raises ProtocolError where they make no sense.
    """
    try:
        meta, sizes = record[PAYLOADS][0]
        if type(meta) is not bytes or not all(
            type(size) is int and size >= 0 and type(readonly) is bool for size, readonly in sizes
        ):
            raise ValueError
    except (TypeError, ValueError):
        raise ProtocolError("a record announces buffers in a way that makes no sense") from None
    return list(sizes)
