"""Listeners: what may be one, and what stands for one in the table of an event's signal.

Neither blinker nor inspect is imported here: both take as long as everything else, and a process that listens
to nothing needs neither.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from .._core.callable_names import described
from .._exceptions import InvalidListener, shown

Listener = Callable[..., Any]
Receivers = tuple[Listener, ...]  # what is called for an event, in this order

CO_SUSPENDS = 0x20 | 0x80 | 0x200  # inspect.CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR
_CO_VARARGS = 0x04  # inspect.CO_VARARGS


def check_listener(listener: object, what: str = "a listener") -> None:
    """Refuse what cannot be called as ``listener(message)``. Raises InvalidListener about ``what``."""
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
    except (TypeError, ValueError):  # some builtins have none
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
    """One call of ``on`` or ``once``: the same function registered twice is two of these."""

    __slots__ = ("__weakref__", "fired", "key", "listener", "once", "signal")

    def __init__(self, signal: Any, listener: Callable[..., Any], once: bool) -> None:
        self.signal = signal  # its EventSignal, whose file imports this one
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
    """What the library itself listens with while somebody waits for an event.

    It is called like a listener, and its event has to come here. But no user has registered it: so none is
    shown it, and only the thread that waits removes it.
    """

    __slots__ = ()


def listener_of(item: Listener) -> Listener:
    """The user's function that a Registration is for; anything else is one itself."""
    return item.listener if type(item) is Registration else item


def key_of(listener: Listener) -> Hashable:
    """What finds a listener again: itself, since equal ones have the same hash; without one, its identity."""
    try:
        hash(listener)
    except Exception:  # a __hash__ of the user's raises what it likes; most have none
        return (id(listener),)
    return listener
