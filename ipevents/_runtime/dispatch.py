"""Listeners on blinker signals: registration order, once, origin, isolation, one at a time.

Locks. ``_running`` (re-entrant) is held while listeners run: one at a time in a process. It is taken
with no other lock held and may be followed by the state lock (a listener sends), never the other way
round. Signals are made, kept and forgotten, and listeners registered, without a lock, because collected
receivers and signal handlers do so in the middle of anything: each step is one operation of a dict or a set.
Every thread that runs listeners may block in them as long as the user's code likes; nobody
who holds the state lock waits for one.
"""

from __future__ import annotations

import threading
import weakref
from _thread import get_ident

# What WeakValueDictionary is built on: looks whether it is dead and removes it in one step.
from _weakref import _remove_dead_weakref  # type: ignore[attr-defined]  # not in typeshed
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .._core.messages import Message
from .._exceptions import InvalidListener, shown
from .threads import acquire_from_user, let_go

if TYPE_CHECKING:
    from .signals import EventSignal, Receivers


Listener = Callable[..., Any]


class _Reference(weakref.ref["EventSignal"]):
    """To the signal of an event; holds it while it is of use, and knows the event when it is gone."""

    __slots__ = ("event", "held")

    # ref has taken both in __new__
    def __init__(self, signal: EventSignal, on_gone: Callable[[_Reference], None]) -> None:
        self.event = signal.event
        self.held: EventSignal | None = None


class Dispatcher:
    """The listeners of one emitter.

    ``on_interest(event)`` is called after an event's listeners changed, in the thread that changed them
    (a collected weak one: any thread, anywhere), so it must not block. ``on_failure(exception, message,
    listener)`` gets what a listener raised; ``on_exit(code)`` the SystemExit of one; ``on_idle()`` is
    called when a thread has run its last listener for now, still in that thread, unless it ``gathers``.
    """

    def __init__(
        self,
        *,
        on_interest: Callable[[str], None],
        on_failure: Callable[[BaseException, Message, Listener], None],
        on_exit: Callable[[SystemExit], None],
        on_idle: Callable[[], None],
    ) -> None:
        self._on_interest = on_interest
        self._on_failure = on_failure
        self._on_exit = on_exit
        self._on_idle = on_idle
        # At most one signal for an event, held here only while something is connected to it, see _keep; so
        # a name that is no longer used, such as `reply-<id>`, costs nothing.
        self._signals: dict[str, _Reference] = {}
        self._running = threading.RLock()
        self._depth = 0  # written by the owner of _running
        self.owner = 0  # the thread that runs listeners now
        # More of the same frame is to come: what listeners send is gathered. Written by the owner.
        self.gathers = False
        # Event to receivers, where all origins have the same: the reader's shortcut. An entry is dropped
        # when its signal changes.
        self.kept: dict[str, Receivers] = {}

    def forget_owner(self) -> None:
        """In a process made by os.fork(): a thread that was running listeners is not in this process.

        The forking thread may run one itself; it goes on to hold what it holds.
        """
        if not self._running._is_owned():  # type: ignore[attr-defined]  # as threading.Condition does
            self._running = threading.RLock()
            self._depth = 0
            self.owner = 0

    # Registration

    def signal(self, event: str) -> EventSignal:
        """The signal of an event, made on first use.

        The same one as long as anybody holds it or something is connected.
        """
        signal = self._find_signal(event)
        if signal is not None:
            return signal
        from .signals import EventSignal  # late: importing blinker takes as long as everything else

        made = EventSignal(event, self._changed)
        reference = _Reference(made, self._forget)
        while True:
            found = self._signals.setdefault(event, reference)()  # made, or that of who was faster
            if found is not None:
                return found
            _remove_dead_weakref(self._signals, event)  # its own callback is about to

    def _find_signal(self, event: str) -> EventSignal | None:
        reference = self._signals.get(event)
        return None if reference is None else reference.held or reference()

    def _forget(self, reference: _Reference) -> None:
        """A signal is gone: its place is free, unless another one has it already."""
        _remove_dead_weakref(self._signals, reference.event)
        self.kept.pop(reference.event, None)  # who looked while it still was there may have kept that

    def add(self, event: str, listener: Listener, *, sender: str | None = None, once: bool = False) -> None:
        """Register a listener. Raises InvalidListener where it could never be called with a message."""
        check_listener(listener)
        from .signals import Registration

        signal = self.signal(event)
        registration = Registration(signal, listener, once)
        if sender is None:
            signal.connect(registration, weak=False)
        else:
            signal.connect(registration, sender, weak=False)

    def remove(self, event: str | None, listener: Listener | None) -> None:
        """Remove the newest registration of a listener, all of an event, or (both None) all."""
        names = list(self._signals) if event is None else [event]
        for name in names:
            signal = self._find_signal(name)
            if signal is None:
                continue
            found = signal.registrations()
            if listener is not None:
                found = [item for item in found if _listener_of(item) == listener or item == listener][-1:]
            for item in found:
                signal.disconnect(item)

    def listeners(self, event: str) -> list[Listener]:
        signal = self._find_signal(event)
        return [] if signal is None else [_listener_of(item) for item in signal.registrations()]

    def count(self, event: str) -> int:
        signal = self._find_signal(event)
        return 0 if signal is None else len(signal.registrations())

    def listens_to(self, event: str) -> bool:
        signal = self._find_signal(event)
        return signal is not None and bool(signal.receivers)

    def events(self) -> list[str]:
        """The events with a listener, in the order in which they got their first."""
        return [event for event in list(self._signals) if self.listens_to(event)]

    def _changed(self, signal: EventSignal) -> None:
        event = signal.event
        self._keep(signal)
        self.kept.pop(event, None)
        self._on_interest(event)

    def _keep(self, signal: EventSignal) -> None:
        """Hold a signal while it is of use.

        Two threads may change it at once. Whoever writes looks again afterwards, and who changes a signal
        comes here behind that: so the last one to write has seen the last change. Meanwhile the signal is
        found all the same, because we hold it.
        """
        reference = self._signals[signal.event]  # it is there as long as the signal is
        while True:
            used = signal.is_used()
            reference.held = signal if used else None
            if signal.is_used() is used:
                return

    # Calling

    def find(self, event: str, origin: str) -> Receivers:
        """What to call for an event of ``origin``; an empty tuple if nobody listens."""
        reference = self._signals.get(event)
        if reference is None:
            return ()
        signal = reference.held or reference()
        if signal is None:
            return ()
        version = signal.version
        receivers, same_for_all = signal.in_order(origin)
        if same_for_all:
            self.kept[event] = receivers
            if signal.version != version:  # it changed meanwhile: what we found may be old
                self.kept.pop(event, None)
        return receivers

    def enter(self, *, gathers: bool = False) -> None:
        """Begin to run listeners in this thread; waits while another thread does. Nests.

        ``gathers``: for several events; behind the last of them the caller has written what was sent.
        """
        ident = get_ident()
        if self.owner == ident:
            self._depth += 1
            return
        try:
            if not self._running.acquire(False):
                acquire_from_user(self._running)  # Ctrl-C is heard also where a listener never returns
        except BaseException:  # of a signal handler
            let_go(self._running)
            raise
        self.gathers = gathers
        self._depth = 1
        self.owner = ident

    def leave(self) -> None:
        """The counterpart of ``enter``. The outermost one lets what listeners sent go, unless it gathers."""
        if self._depth > 1:
            self._depth -= 1
            return
        gathers = self.gathers
        self._depth = 0
        self.owner = 0
        self._running.release()
        if not gathers:
            self._on_idle()

    def runs_here(self) -> bool:
        """Whether the calling code is called by a listener."""
        return self.owner == get_ident()

    def deliver(self, message: Message, kwargs: Mapping[str, Any]) -> bool:
        """Call the listeners of a message in this thread. Returns whether there were any."""
        if not self.listens_to(message.event):
            return False
        outer = self._depth if self.runs_here() else 0
        try:
            self.enter()
            # Found now: whoever ran before may have changed them.
            receivers = self.find(message.event, message.from_)
            for receiver in receivers:
                self.call(receiver, message, kwargs)
            self.leave()
        except BaseException:  # Ctrl-C out of a listener, or a signal handler's, at whatever place
            if self.runs_here() and self._depth > outer:
                self._depth = outer + 1
                self.leave()
            raise
        return bool(receivers)

    def call(self, receiver: Listener, message: Message, kwargs: Mapping[str, Any]) -> None:
        """Call one listener; what it raises spares the others."""
        try:
            receiver(message, *message.args, **kwargs)
        except BaseException as exc:  # a user's code: it raises what it likes
            self.failed(exc, message, receiver)

    def call_all(self, receivers: Receivers, message: Message) -> None:
        """As ``call``, several listeners with a message without keyword arguments."""
        args = message.args
        for receiver in receivers:
            try:
                receiver(message, *args)
            except BaseException as exc:  # a user's code: it raises what it likes
                self.failed(exc, message, receiver)

    def failed(self, exc: BaseException, message: Message, receiver: Listener) -> None:
        """A listener raised: SystemExit ends the process, the rest is reported and the others go on.

        Only Ctrl-C goes up to the code that emitted: a library thread has nobody to raise it at.
        """
        kind = type(exc)  # of which an exception may say something else
        if issubclass(kind, SystemExit):
            self._on_exit(exc)  # type: ignore[arg-type]  # it is one, see above
        elif issubclass(kind, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            raise exc
        else:
            self._on_failure(exc, message, _listener_of(receiver))


def check_listener(listener: object, what: str = "a listener") -> None:
    """Refuse what cannot be called as ``listener(message)``; ``what`` it is named in the error."""
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
                f"{shown(listener)} is a coroutine function; {what} is a plain one, nothing awaits it"
            )
        if inspect.isgeneratorfunction(function):
            raise InvalidListener(
                f"{shown(listener)} is a generator function; calling it would run nothing of it"
            )
    takes = any(
        parameter.kind
        in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD, parameter.VAR_POSITIONAL)
        for parameter in signature.parameters.values()
    )
    if not takes:
        raise InvalidListener(
            f"{shown(listener)} takes no positional argument; {what} is called with (message, *args)"
        )


_CO_VARARGS = 0x04  # inspect.CO_VARARGS, without importing inspect
CO_SUSPENDS = 0x20 | 0x80 | 0x200  # CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR


def _listener_of(item: Listener) -> Listener:
    """The user's function behind a Registration."""
    return getattr(item, "listener", item) if type(item).__name__ == "Registration" else item
