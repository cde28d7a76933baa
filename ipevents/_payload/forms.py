"""The three forms of a payload: which one arguments take, and what can be done with it whatever its form.

A payload is, in memory and on its way through the processes that pass it on,

- a tuple: the positional arguments themselves, all of plain immutable types;
- bytes: the pickle of ``(args, kwargs)``;
- a list ``[bytes, buffers]``: the same with buffers out of band, "large".

It is made once by the origin and opened only where a listener wants it. Which form it has is asked here, and
besides only where a call would cost too much or may not be made: the loop that calls listeners opens a tuple
itself, and ``_core`` knows a large one, which travels alone in its frame.
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

# More text than this is pickled on its own, once: else each hop encodes it anew, and its size is a guess.
_PLAIN_TEXT_BYTES = 32 * 1024
_SMALL_INT_BITS = 256
_NO_KWARGS: dict[str, Any] = {}


def encode(
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    names: Names | None = None,
    inherited: Inheritance | None = None,
) -> tuple[Payload, int]:
    """The payload of a call's arguments, and its size in bytes (a close estimate for plain values).

    For the call of a worker: ``names`` as for ``by_value.dumps``, and what the child ``inherited``. Raises
    Unpicklable, naming the argument.
    """
    size = plain_size(args, kwargs)
    return pickle_call(args, kwargs, None, names, inherited) if size is None else (args, size)


def plain_size(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int | None:
    """The size of arguments that are their own payload: small, and all of plain immutable types; else None.

    Called for every event that is sent: counted in nanoseconds.
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
    return sum(len(arg) for arg in args if type(arg) is str) >= _PLAIN_TEXT_BYTES


def decode(payload: Payload) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a payload. Runs the unpickling code of their classes; the caller holds no state lock.

    Raises UnreadablePayload with the cause, also for what is no payload.
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
    """The same payload with buffers of its own: what listeners here do to theirs is not passed on."""
    if type(payload) is not list or len(payload) != 2 or type(payload[1]) is not list:
        return payload
    meta, buffers = payload
    return [meta, [bytearray(item) if type(item) is bytearray else item for item in buffers]]


def size_of(payload: Payload) -> int:
    """Bytes that a payload takes on the wire, headers apart; exact for all but plain values.

    What is no payload is passed on as well: only ``decode`` refuses it.
    """
    if type(payload) is bytes:
        return len(payload)
    if type(payload) is tuple:
        return sum(8 + len(value) if type(value) in (str, bytes) else 8 for value in payload)
    if type(payload) is list and len(payload) == 2 and type(payload[1]) is list:
        return sum(len(item) for item in (payload[0], *payload[1]) if type(item) in (bytes, bytearray))
    return 8
