"""The functions that a pool sends to its workers: how they are pickled here, and kept there.

A function goes to a worker as a pickle, and that has a key, which is made of its bytes. So two functions with
the same key are the same, and one whose closure has changed has another key: nothing that a worker keeps is
ever out of date. ``_core/known_functions.py`` decides what a worker is sent, and what it forgets.

A function that the worker can import is pickled once. A function of the script, a lambda, a partial, a
method or another object that can be called is pickled for each job or map, because what it refers to may have
changed.

``Functions`` has no lock. Several threads may use it: each reads and stores whole entries, and an entry that
one of them overwrites or drops is made again. ``ReceivedFunctions`` belongs to the main thread of a worker.
"""

from __future__ import annotations

import sys
import types
from typing import Any, NamedTuple

from .._core.callable_names import described
from .._core.mac import blake2b
from .._exceptions import ProtocolError, Unpicklable, UnreadablePayload, shown
from .._payload import brought, pickled
from .._payload.brought import Brought
from .._payload.main_names import Names
from .._platform.guards import forget_values, told
from .._platform.signal_exceptions import interrupts_main

__all__ = ["Functions", "ReceivedFunctions", "SentFunction"]

KEY_BYTES = 16
MOST_NAMED = 256  # functions whose pickles are kept, which are a few bytes each

_BY_NAME_KINDS = (types.FunctionType, types.BuiltinFunctionType, type)
_BY_NAME_END = b"\x93\x94."  # of a pickle that is a name and nothing else: STACK_GLOBAL, MEMOIZE, STOP


class SentFunction(NamedTuple):
    """A function as it goes to workers: its pickle, and the key by which workers keep it."""

    key: bytes
    code: bytes


class _Named(NamedTuple):
    """A function that workers import: where it is found, and its pickle."""

    module: str
    path: list[str]
    sent: SentFunction
    function: Any  # kept alive, so that its id is not that of another one


class Functions:
    """The functions that one pool sends."""

    __slots__ = ("_named",)

    def __init__(self) -> None:
        self._named: dict[int, _Named] = {}  # by id of the function

    def of(self, function: Any) -> SentFunction:
        """Return what workers are sent of a function, as it is now.

        Runs pickling code of the user's classes, so the caller holds no lock. Raises TypeError for what
        cannot be called, and Unpicklable, which names the function and why.
        """
        named = self._named.get(id(function))
        if named is not None and _found(named[0], named[1]) is function:
            return named[2]
        if not callable(function):
            raise TypeError(f"a pool calls functions, and {shown(function)} cannot be called")
        code = _pickled(function)
        sent = SentFunction(blake2b(code, digest_size=KEY_BYTES).digest(), code)
        if code.endswith(_BY_NAME_END) and issubclass(type(function), _BY_NAME_KINDS):
            self._keep(function, sent)
        return sent

    def _keep(self, function: Any, sent: SentFunction) -> None:
        """Keep the pickle of a function. It is used as long as its name leads to this very object."""
        if len(self._named) >= MOST_NAMED:
            self._named.clear()
        path = str(function.__qualname__).split(".")
        self._named[id(function)] = _Named(function.__module__, path, sent, function)


def _found(module: str, path: list[str]) -> Any:
    """Return what has this name just now, None if nothing has."""
    found: Any = sys.modules.get(module)
    try:
        for name in path:
            found = getattr(found, name)
    except Exception:  # a module may have code for what it lacks; pickle finds nothing there either
        return None
    return found


def _pickled(function: Any) -> bytes:
    """Return the pickle of a function. It brings what it refers to of the script into a worker's script."""
    try:
        return pickled.dumps(function, "the function", Names(is_marked=True))
    except Unpicklable as exc:
        why = shown(exc.__cause__, 300)
        raise Unpicklable(f"the function {described(function)} cannot be pickled: {why}") from exc.__cause__


class ReceivedFunctions:
    """The functions that a worker has been sent, and was not told to forget."""

    __slots__ = ("_received",)

    def __init__(self) -> None:
        self._received: dict[bytes, _Received] = {}

    def put(self, key: bytes, code: bytes, forget: tuple[bytes, ...]) -> None:
        """Keep a function, after others were forgotten. Also if the job that it came with is not done."""
        for old in forget:
            self._received.pop(old, None)
        self._received[key] = _Received(code)

    def get(self, key: bytes) -> Any:
        """Return a function, with the globals of the script that it was pickled with.

        It is unpickled at first use, which imports modules of the user and runs code of his classes. Raises
        UnreadablePayload if that has failed, each time; and ProtocolError if there is no such function, which
        no process of ours lets happen. What a signal handler raises meanwhile passes, and the next call
        unpickles anew.
        """
        received = self._received.get(key)
        if received is None:
            raise ProtocolError(f"a job came without its function {key.hex()}")
        if received.code is not None:
            received.read()
        elif received.brought is not None:
            received.brought.again()
        if received.failure is not None:
            raise UnreadablePayload(received.failure) from received.cause
        return received.function


class _Received:
    """One function: its pickle until it is unpickled, then the function, or why there is none."""

    __slots__ = ("brought", "cause", "code", "failure", "function")

    def __init__(self, code: bytes) -> None:
        self.code: bytes | None = code
        self.function: Any = None
        self.brought: Brought | None = None
        self.failure: str | None = None
        self.cause: BaseException | None = None

    def read(self) -> None:
        """Unpickle the function, and let go of its pickle."""
        assert self.code is not None
        try:
            self.function, self.brought = brought.loads(self.code)
        except BaseException as exc:  # modules of the user, and code of his classes, may raise anything
            if interrupts_main(exc):
                raise
            failure = f"the function of the job cannot be unpickled: {told(exc)}"
            if issubclass(type(exc), MemoryError):  # there may be more at the next job
                raise UnreadablePayload(failure) from exc
            forget_values(exc)
            self.failure, self.cause = failure, exc
        self.code = None
