"""Records and frames to bytes and back. Headers only: a payload stays the bytes it is.

A frame is what ``multiprocessing.connection`` sends at once: a length and that many bytes, here the
pickle of a list of records. It is read by an unpickler that can make nothing but plain values.
A payload with large buffers is ``[meta, buffers]`` in memory; on the wire its record stands alone
in a frame as ``[meta, [(size, readonly), ...]]``, and the buffers follow as raw bytes.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Sequence
from typing import Any, NoReturn

from .._exceptions import ProtocolError
from .messages import Record

FRAME_BYTES = 1 << 20  # records gather up to this size in a frame (DESIGN section 5, Wire)
PAYLOAD = 3  # index of the payload in a message record

_SHORT = struct.Struct("!i")
_LONG = struct.Struct("!iQ")
_SHORT_MAX = 0x7FFFFFFF


def frame_header(size: int) -> bytes:
    """The bytes before a frame of ``size`` bytes, as multiprocessing.connection writes them."""
    if size <= _SHORT_MAX:
        return _SHORT.pack(size)
    return _LONG.pack(-1, size)


HEADER_BYTES = _SHORT.size


def frame_size(header: bytes | bytearray | memoryview, limit: int) -> int:
    """The size that a four-byte header announces.

    Raises ProtocolError for a size that is not positive or above ``limit`` (FAULTS K9). Frames above
    2 GiB are not read: a record's buffers travel behind its frame, so no frame needs it.
    """
    (size,) = _SHORT.unpack(header)
    if not 0 < size <= limit:
        raise ProtocolError(f"a frame of {size} bytes; from 1 to {limit} are allowed")
    return int(size)


class _PlainUnpickler(pickle.Unpickler):
    """Reads the values that headers consist of; refuses every class and function."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise ProtocolError(f"a header names {module}.{name}; headers hold plain values only")


def encode(records: Sequence[Record]) -> bytes:
    """The bytes of a frame of records without large buffers."""
    return pickle.dumps(records, 5)


def encode_large(record: Record) -> tuple[bytes, list[Any]]:
    """The frame of a record with large buffers, and the buffers to be sent behind it."""
    meta, buffers = record[PAYLOAD]
    sizes = [(len(buffer), isinstance(buffer, bytes)) for buffer in buffers]
    head = (*record[:PAYLOAD], [meta, sizes], *record[PAYLOAD + 1 :])
    return encode([head]), buffers


def decode(frame: bytes | bytearray | memoryview) -> list[Record]:
    """The records of a frame.

    Raises ProtocolError: the bytes are not the pickle of a list of non-empty tuples or lists.
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
    return records


def large_sizes(record: Record) -> list[tuple[int, bool]] | None:
    """The sizes of the buffers that follow this record's frame, or None."""
    if len(record) <= PAYLOAD or type(record[PAYLOAD]) is not list:
        return None
    payload = record[PAYLOAD]
    try:
        meta, sizes = payload
        if not isinstance(meta, bytes) or not all(
            type(size) is int and size >= 0 and type(readonly) is bool for size, readonly in sizes
        ):
            raise ValueError
    except (TypeError, ValueError):
        raise ProtocolError("a record announces buffers in a way that makes no sense") from None
    return list(sizes)
