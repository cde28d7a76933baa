"""What a call in another process came to: the value that it returned, or what it raised.

An exception is pickled with its type where that can be read again, which is tried where it was raised. Its
traceback travels as text. What cannot be rebuilt is a RemoteError with the name of the type and the text.

All of this runs code of the user's classes, so the caller holds no lock.
"""

from __future__ import annotations

import pickle
from typing import Any, NoReturn

from .._core.messages import MAX_TEXT, Payload
from .._exceptions import RemoteError
from .._platform.guards import foreign, told
from . import forms
from .pickled import dumps

__all__ = ["of_exception", "of_value", "raise_again", "value_of"]


def of_value(value: object) -> tuple[Payload, int]:
    """Return the payload of a value that was returned, and its size. Raises Unpicklable."""
    return forms.encode((value,), {})


def of_exception(exc: BaseException, traceback: str, pid: str) -> tuple[Payload, int]:
    """Return the payload of what was raised in this process, and its size. Never raises an Exception."""
    kind = type(exc)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        pickled: bytes | None = dumps(exc, "the exception")
        read = pickle.loads(pickled or b"")
        if type(read).__qualname__ != kind.__qualname__ or not isinstance(read, BaseException):
            pickled = None  # its class reads back as something else
    except foreign():  # whatever the code of its class raises
        pickled = None
    return forms.encode((pickled, name, _text(exc), traceback[-MAX_TEXT:], pid), {})


def _text(exc: BaseException) -> str:
    try:
        return str.__str__(str(exc))[:MAX_TEXT]
    except foreign():  # its __str__ is code of its class
        return told(exc)


def value_of(payload: Payload) -> Any:
    """Return the value that was returned. Raises UnreadablePayload."""
    (value,), _ = forms.decode(payload)
    return value


def raise_again(payload: Payload) -> NoReturn:
    """Raise what was raised in the other process, with a RemoteError as its cause, or that RemoteError."""
    (pickled, *told_of), _ = forms.decode(payload)
    remote = RemoteError(*told_of)
    if pickled is None:
        raise remote
    try:
        exc = pickle.loads(pickled)
    except foreign():  # its class differs here
        raise remote from None
    if not isinstance(exc, BaseException):
        raise remote
    raise exc from remote
