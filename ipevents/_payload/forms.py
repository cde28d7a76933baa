"""The three forms of a payload: which of them arguments take, and what can be done with any of them.

A payload is, in memory and on its way through the processes that pass it on,

- a tuple: the positional arguments themselves, all of plain immutable types;
- bytes: the pickle of ``(args, kwargs)``;
- a list ``[bytes, buffers]``: the same with buffers beside the pickle, called "large".

The origin makes it once, and it is opened only where a listener wants it.

Only this file asks which form a payload has, with two exceptions where a call would cost too much or is not
allowed: the loop that calls listeners opens a tuple itself, and ``_core`` recognizes a large payload, which
travels alone in its frame.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .._core.messages import Payload
from .._exceptions import UnreadablePayload
from .._platform.guards import foreign, told
from .pickled import LARGE_BYTES, pickle_call

if TYPE_CHECKING:
    from .inheritance import Inheritance
    from .main_names import Names

# More text than this is pickled once by the origin. As a tuple each process on the way would encode it
# again, and its size would be a guess.
_PLAIN_TEXT_BYTES = 32 * 1024
_SMALL_INT_BITS = 256
_NO_KWARGS: dict[str, Any] = {}


def encode(
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    names: Names | None = None,
    inherited: Inheritance | None = None,
) -> tuple[Payload, int]:
    """The payload of a call's arguments and its size in bytes (a close estimate for plain values).

    For the call of a worker there are ``names``, as for ``by_value.dumps``, and ``inherited``, which notes
    what the child inherits. Raises Unpicklable, which names the argument.
    """
    size = plain_size(args, kwargs)
    return pickle_call(args, kwargs, None, names, inherited) if size is None else (args, size)


def plain_size(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int | None:
    """The size of arguments that can be their own payload; None if they have to be pickled.

    They can if they are small and all of plain immutable types. Called for every event that is sent, so each
    nanosecond counts.
    """
    if kwargs:
        return None
    size = 8 * len(args)
    for arg in args:  # the likeliest types first
        kind = type(arg)
        if kind is str:
            size += len(arg)
        elif kind is int:
            if arg.bit_length() > _SMALL_INT_BITS:
                return None
        elif kind is not float and arg is not None and kind is not bool:
            if kind is not bytes:
                return None
            size += len(arg)
    if size < _PLAIN_TEXT_BYTES or (size < LARGE_BYTES and not _has_much_text(args)):
        return size
    return None


def _has_much_text(args: tuple[Any, ...]) -> bool:
    """Whether the text alone is so long that it is better pickled."""
    return sum(len(arg) for arg in args if type(arg) is str) >= _PLAIN_TEXT_BYTES


def decode(payload: Payload) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a payload. Runs unpickling code of their classes, so the caller holds no state lock.

    Raises UnreadablePayload with the cause, also for a value that is no payload.
    """
    if type(payload) is tuple:
        return payload, _NO_KWARGS
    try:
        if type(payload) is list:
            meta, buffers = payload
            args, kwargs = pickle.loads(meta, buffers=buffers)
        else:
            args, kwargs = pickle.loads(payload)
    except foreign() as exc:  # whatever the classes' own code raises, SystemExit and MemoryError as well
        raise UnreadablePayload(f"its arguments cannot be unpickled: {told(exc)}") from exc
    return args, kwargs


def own(payload: Payload) -> Payload:
    """The same payload with copies of its writable buffers.

    Listeners in this process may change theirs, and those changes must not be passed on.
    """
    if type(payload) is not list or len(payload) != 2 or type(payload[1]) is not list:
        return payload
    meta, buffers = payload
    return [meta, [bytearray(item) if type(item) is bytearray else item for item in buffers]]


def size_of(payload: Payload) -> int:
    """How many bytes a payload takes on the wire, without headers; exact for all but plain values.

    A value that is no payload gets a size as well, because it is passed on; only ``decode`` refuses it.
    """
    if type(payload) is bytes:
        return len(payload)
    if type(payload) is tuple:
        return sum(8 + len(value) if type(value) in (str, bytes) else 8 for value in payload)
    if type(payload) is list and len(payload) == 2 and type(payload[1]) is list:
        return sum(len(item) for item in (payload[0], *payload[1]) if type(item) in (bytes, bytearray))
    return 8
