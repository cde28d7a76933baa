"""Listeners: what may be one, and what represents one in the table of an event's signal.

Neither blinker nor inspect is imported with this file: each takes as long as all other imports together, and
a process that listens to nothing needs neither.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from .._core.callable_names import described
from .._exceptions import InvalidListener, shown

Listener = Callable[..., Any]
Receivers = tuple[Listener, ...]  # what to call for an event, in this order

CO_SUSPENDS = 0x20 | 0x80 | 0x200  # inspect.CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR
_CO_VARARGS = 0x04  # inspect.CO_VARARGS


def check_listener(listener: object, what: str = "a listener") -> None:
    """Raise InvalidListener if an object cannot be called as ``listener(message)``.

    ``what`` names it in the text. A plain function is checked by its code object, others by inspect.
    """
    if not callable(listener):
        raise InvalidListener(f"{what} is a function that takes a message, not {shown(listener)}")
    code = getattr(listener, "__code__", None)
    if code is not None and type(listener).__name__ == "function":
        keyword_only = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
        defaults = listener.__kwdefaults__ or ()  # type: ignore[attr-defined]  # it is a function, see above
        missing = [name for name in keyword_only if name not in defaults]
        if (
            not code.co_flags & CO_SUSPENDS
            and (code.co_argcount or code.co_flags & _CO_VARARGS)
            and not missing
        ):
            return
    import inspect  # late, for the uncommon callables

    try:
        signature = inspect.signature(listener)
    except (TypeError, ValueError):  # some builtins have no signature
        return
    for function in (listener, getattr(type(listener), "__call__", None)):  # noqa: B004  # the method itself
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise InvalidListener(
                f"{described(listener)} is a coroutine function; {what} is a plain one, nothing awaits it"
            )
        if inspect.isgeneratorfunction(function):
            raise InvalidListener(
                f"{described(listener)} is a generator function; calling it would run nothing of it"
            )
    takes = any(
        parameter.kind
        in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD, parameter.VAR_POSITIONAL)
        for parameter in signature.parameters.values()
    )
    if not takes:
        raise InvalidListener(
            f"{described(listener)} takes no positional argument; {what} is called with (message, *args)"
        )


class Registration:
    """One call of ``on`` or ``once``: the same function registered twice has two of these.

    It is called in place of the listener, and ``once`` means that only its first call does anything.
    """

    __slots__ = ("__weakref__", "fired", "key", "listener", "once", "signal")

    def __init__(self, signal: Any, listener: Callable[..., Any], once: bool) -> None:
        self.signal = signal  # an EventSignal; that file imports this one, hence Any
        self.listener = listener
        self.once = once
        self.fired = False
        self.key = key_of(listener)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        if self.once:
            if self.fired:
                return None
            self.fired = True
            self.signal.disconnect(self)
        return self.listener(*args, **kwargs)


class Wait(Registration):
    """What the library itself connects to a signal while a thread waits for an event.

    It is called as a listener is, and its event has to be sent to this process. But no user has registered
    it. So no user gets to see it, and only the thread that waits removes it.
    """

    __slots__ = ()


def listener_of(item: Listener) -> Listener:
    """The user's function in a Registration; any other object is a listener itself."""
    return item.listener if type(item) is Registration else item


def key_of(listener: Listener) -> Hashable:
    """What finds a listener again: the listener itself, as equal ones have the same hash.

    For a listener without a hash it is its identity.
    """
    try:
        hash(listener)
    except Exception:  # the user's __hash__ may raise anything; mostly there is none
        return (id(listener),)
    return listener
