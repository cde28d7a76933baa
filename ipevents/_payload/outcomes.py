"""What a call in another process came to: the value that it returned, or what it raised.

An exception is pickled with its type where that can be read again, which is tried where it was raised. Its
traceback travels as text. What cannot be rebuilt is a RemoteError with the name of the type and the text.

All of this runs code of the user's classes, so the caller holds no lock.
"""

from __future__ import annotations

import pickle
from typing import Any, NoReturn

from .._core.messages import MAX_TEXT, Payload
from .._core.wire import FRAME_BYTES, MAX_FRAME_BYTES
from .._exceptions import RemoteError, Unpicklable, UnreadablePayload, shown
from .._platform.guards import foreign, told
from .._platform.signal_exceptions import interrupts_main
from . import forms
from .pickled import dumps

__all__ = ["of_exception", "of_value", "raise_again", "value_of"]


def of_value(value: object) -> tuple[Payload, int]:
    """Return the payload of a value that was returned, and its size.

    Raises Unpicklable, also for what does not fit into a frame.
    """
    payload, size = forms.encode((value,), {})
    if type(payload) is bytes and size > MAX_FRAME_BYTES - FRAME_BYTES:
        raise Unpicklable(f"its pickle has {size} bytes")
    return payload, size


def of_exception(exc: BaseException, traceback: str, pid: str) -> tuple[Payload, int]:
    """Return the payload of what was raised in this process, and its size. Never raises an Exception."""
    kind = type(exc)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        pickled: bytes | None = dumps(exc, "the exception")
        read = pickle.loads(pickled or b"")
        if type(read).__qualname__ != kind.__qualname__ or not isinstance(read, BaseException):
            pickled = None  # its class reads back as something else
    except BaseException as failure:  # of the code of its class; the program has failed already
        if interrupts_main(failure):
            raise
        pickled = None
    return forms.encode((pickled, name, _text(exc), traceback[-MAX_TEXT:], pid), {})


def _text(exc: BaseException) -> str:
    try:
        return str.__str__(str(exc))[:MAX_TEXT]
    except foreign():  # its __str__ is code of its class
        return told(exc)


def value_of(payload: Payload) -> Any:
    """Return the value that was returned, or raise why it could not be sent. Raises UnreadablePayload."""
    args, _ = forms.decode(payload)
    if len(args) != 1:
        raise_again(payload)
    return args[0]


def raise_again(payload: Payload, name: str = "", event: str = "", attempts: int = 1) -> NoReturn:
    """Raise what was raised in the other process, with a RemoteError as its cause, or that RemoteError.

    ``name`` is that of the process, ``event`` and ``attempts`` are those of the request.
    """
    args, _ = forms.decode(payload)
    if len(args) != 5 or not all(type(arg) is str for arg in args[1:]):
        raise UnreadablePayload(f"what was raised came as {shown(args)}")
    pickled, *told_of = args
    type_name, text, traceback, pid = told_of
    remote = RemoteError(type_name, text, traceback, pid, name, event, attempts)
    if pickled is None:
        raise remote
    try:
        exc = pickle.loads(pickled)
    except foreign():  # its class differs here
        raise remote from None
    if not isinstance(exc, Exception):  # a KeyboardInterrupt there is none here
        raise remote
    try:
        raise exc from remote
    finally:
        del exc, remote  # the traceback has this frame
