"""Payloads with two numbers at their beginning: those of requests and answers.

The first number is the request's. The second is the request's deadline, or what sort of answer it is. They
are at the beginning in each form of a payload: the first two items of a tuple, the first 16 bytes otherwise.
So the payload keeps its form, and is passed on as any other.
"""

from __future__ import annotations

import struct

from .._core.messages import Payload
from .._exceptions import ProtocolError, shown

__all__ = ["NUMBERS_BYTES", "numbered", "numbers_of", "without_numbers"]

_NUMBERS = struct.Struct("!Qq")
NUMBERS_BYTES = _NUMBERS.size  # what they take on the wire at most, as sizes of payloads are estimated
_MOST = 1 << 63


def numbered(number: int, other: int, payload: Payload) -> Payload:
    """Return the payload with these two numbers before it. ``number`` is from 1 to 2**63 - 1."""
    if type(payload) is tuple:
        return (number, other, *payload)
    if type(payload) is bytes:
        return _NUMBERS.pack(number, other) + payload
    meta, buffers = payload
    return [_NUMBERS.pack(number, other) + meta, buffers]


def numbers_of(payload: Payload) -> tuple[int, int]:
    """Return the two numbers. Raises ProtocolError for what has none, which no process of ours writes."""
    kind = type(payload)
    if kind is tuple and len(payload) >= 2:
        number, other = payload[0], payload[1]
        if type(number) is int and type(other) is int and 0 < number < _MOST and -_MOST <= other < _MOST:
            return number, other
    else:
        meta = payload
        if kind is list and len(payload) == 2 and type(payload[1]) is list:
            meta = payload[0]
        if type(meta) is bytes and len(meta) >= NUMBERS_BYTES:
            number, other = _NUMBERS.unpack_from(meta)
            if 0 < number < _MOST:
                return number, other
    raise ProtocolError(f"a request or an answer without its numbers: {shown(payload)}")


def without_numbers(payload: Payload) -> Payload:
    """Return the payload that ``numbered`` was given."""
    if type(payload) is tuple:
        return payload[2:]
    if type(payload) is bytes:
        return payload[NUMBERS_BYTES:]
    meta, buffers = payload
    return [meta[NUMBERS_BYTES:], buffers]
