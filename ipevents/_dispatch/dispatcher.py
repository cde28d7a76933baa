"""Listeners on blinker signals: registration order, once, origin, isolation, one at a time.

Locks. Listeners run on the ``floor``: one at a time in a process, see there. Signals are made, kept and
forgotten, and listeners registered, without a lock, because collected receivers and signal handlers do so in
the middle of anything: each step is one operation of a dict or a set. Every thread that runs listeners may
block in them as long as the user's code likes; no thread that holds the state lock waits for one.
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
from .._platform.latches import let_go
from .._platform.signal_exceptions import is_from_signal
from .._platform.threads import library_threads
from .floor import Floor, process_floor
from .listeners import Listener, Receivers, Registration, Wait, check_listener, listener_of

if TYPE_CHECKING:
    from .event_signal import EventSignal

_NO_KWARGS: Mapping[str, Any] = {}


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
    listener)`` gets what a listener raised; ``on_exit(exc)`` the SystemExit of one, and raises it again where
    it cannot end anything. ``on_idle()`` is called in the thread that ran listeners, after the last one for
    now, if a listener had it owed by ``owe_idle``.

    ``floor``: another right to run listeners than the process's, where several dispatchers of one process
    stand for processes.
    """

    def __init__(
        self,
        *,
        on_interest: Callable[[str], None],
        on_failure: Callable[[BaseException, Message, Listener], None],
        on_exit: Callable[[SystemExit], None],
        on_idle: Callable[[], None],
        floor: Floor = process_floor,
    ) -> None:
        self._on_interest = on_interest
        self._on_failure = on_failure
        self._on_exit = on_exit
        self._on_idle = on_idle
        # At most one signal for an event, held here only while something is connected to it, see _keep; so
        # a name that is no longer used, such as `reply-<id>`, costs nothing.
        self._signals: dict[str, _Reference] = {}
        self.floor = floor
        # What a listener has ended the process with: no other one is called, see end().
        self.ended: SystemExit | None = None
        self.resumes = False  # the end is over: with the next local event listeners are called again
        # Event to receivers, where all origins have the same: the reader's shortcut. An entry is dropped
        # when its signal changes.
        self.kept: dict[str, Receivers] = {}

    # Registration

    def signal(self, event: str) -> EventSignal:
        """The signal of an event, made on first use.

        The same one as long as anybody holds it or something is connected.
        """
        signal = self._find_signal(event)
        if signal is not None:
            return signal
        from .event_signal import EventSignal  # late: importing blinker takes as long as everything else

        made = EventSignal(event, self._changed)
        reference = _Reference(made, self._forget)
        while True:
            found = self._signals.setdefault(event, reference)()  # ours, or another thread's
            if found is not None:
                return found
            _remove_dead_weakref(self._signals, event)  # its own callback is about to

    def _find_signal(self, event: str) -> EventSignal | None:
        reference = self._signals.get(event)
        return None if reference is None else reference.held or reference()

    def _forget(self, reference: _Reference) -> None:
        """A signal is gone: its place is free, unless another one has it already."""
        _remove_dead_weakref(self._signals, reference.event)
        self.kept.pop(reference.event, None)  # a thread that found it just before may have kept that

    def add(self, event: str, listener: Listener, *, sender: str | None = None, once: bool = False) -> None:
        """Register a listener. Raises InvalidListener where it could never be called with a message."""
        check_listener(listener)
        signal = self.signal(event)
        registration = Registration(signal, listener, once)
        if sender is None:
            signal.connect(registration, weak=False)
        else:
            signal.connect(registration, sender, weak=False)

    def begin_wait(self, event: str, heard: Listener) -> Wait:
        """Have ``heard`` called like a listener, for a wait of the library's; ``end_wait`` ends it."""
        wait = Wait(self.signal(event), heard, False)
        wait.signal.connect(wait, weak=False)
        return wait

    def end_wait(self, wait: Wait) -> None:
        wait.signal.disconnect(wait)

    def remove(self, event: str | None, listener: Listener | None) -> None:
        """Remove the newest registration of a listener, all of an event, or (both None) all."""
        names = list(self._signals) if event is None else [event]
        for name in names:
            signal = self._find_signal(name)
            if signal is None:
                continue
            if listener is None:
                for item in signal.registrations():
                    signal.disconnect(item)
            else:
                found = signal.newest(listener)
                if found is not None:
                    signal.disconnect(found)

    def listeners(self, event: str) -> list[Listener]:
        signal = self._find_signal(event)
        return [] if signal is None else [listener_of(item) for item in signal.registrations()]

    def count(self, event: str) -> int:
        signal = self._find_signal(event)
        return 0 if signal is None else signal.count()

    def events(self) -> list[str]:
        """The events with a listener of the user's, in the order in which they got their first."""
        return [event for event in list(self._signals) if self.count(event)]

    def listens_to(self, event: str) -> bool:
        """Whether anything here wants to hear an event: a listener, or a wait of the library's."""
        signal = self._find_signal(event)
        return signal is not None and bool(signal.receivers)

    def wanted(self) -> list[str]:
        """The events that anything here wants to hear."""
        return [event for event in list(self._signals) if self.listens_to(event)]

    def _changed(self, signal: EventSignal) -> None:
        event = signal.event
        self._keep(signal)
        self.kept.pop(event, None)
        self._on_interest(event)

    def _keep(self, signal: EventSignal) -> None:
        """Hold a signal while it is of use.

        No lock: each thread changes the signal first and then runs this loop, which asks ``is_used()`` again
        after it has written. So the last writer has seen the latest state. Until then the signal is found
        all the same, because the thread that changes it holds it.
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
        if self.ended:
            return ()
        version = signal.version
        receivers, same_for_all = signal.in_order(origin)
        if same_for_all:
            self.kept[event] = receivers
            if signal.version != version or self.ended:  # it changed meanwhile: what we found may be old
                self.kept.pop(event, None)
        return receivers

    def enter(self, *, gathers: bool = False) -> None:
        """Begin to run listeners in this thread; waits while another thread does. Nests.

        ``gathers``: for several events; after the last of them the caller writes what this emitter sent.
        """
        floor = self.floor
        ident = get_ident()
        if floor.owner == ident:
            floor.depth += 1
            return
        gatherer = self if gathers else None  # here: 3.10 looks for signals at every jump, also of an `if`
        try:
            if not floor.lock.acquire(False):
                floor.take()
        except BaseException:  # of a signal handler, perhaps just after the acquisition
            let_go(floor.lock)
            raise
        floor.gatherer = gatherer
        floor.depth = 1
        floor.owner = ident

    def leave(self) -> None:
        """The counterpart of ``enter``. The outermost one lets what listeners sent go."""
        floor = self.floor
        if floor.depth > 1:
            floor.depth -= 1
            return
        floor.gatherer = None
        if (
            floor.owed
        ):  # asked while the owner is known, who leaves again after an exception at the jump: see enter
            owed, floor.owed = floor.owed, []
            floor.depth = 0
            floor.owner = 0
            floor.lock.release()
            for on_idle in owed:
                on_idle()
        else:
            floor.depth = 0
            floor.owner = 0
            floor.lock.release()

    def runs_here(self) -> bool:
        """Whether the calling code is called by a listener, of this emitter or of another one."""
        return self.floor.owner == get_ident()

    def entered(self) -> int:
        """How often the calling thread has entered. For ``leave_to``."""
        return self.floor.depth if self.runs_here() else 0

    def leave_to(self, outer: int) -> None:
        """After an exception at any place, also of a signal handler within enter() or leave(): as before."""
        floor = self.floor
        if floor.owner == get_ident() and floor.depth > outer:
            floor.depth = outer + 1
            self.leave()

    def owe_idle(self) -> None:
        """Have ``on_idle`` called when the last listener has run for now.

        Not where this thread runs no listener, or gathers for this emitter: then the reader sees to it.
        """
        floor = self.floor
        if floor.owner == get_ident() and floor.gatherer is not self:
            floor.owed.append(self._on_idle)

    def gathers(self) -> bool:
        """In a listener: whether more of the frame is to come; after it the reader writes what was sent."""
        return self.floor.gatherer is self

    def deliver(self, message: Message, kwargs: Mapping[str, Any]) -> bool:
        """Call the listeners of a message in this thread. Returns whether there were any."""
        if not self.listens_to(message.event):
            return False
        life = self.kept
        outer = self.entered()
        try:
            self.enter()
            if self.kept is not life and get_ident() in library_threads:
                receivers: Receivers = ()  # it waited for its turn longer than the life that it serves
            else:
                if self.resumes and self.floor.depth == 1:  # not in a listener, perhaps the one that ended
                    self.resumes, self.ended = False, None
                # Found now: the listeners that ran before may have changed them.
                receivers = self.find(message.event, message.from_)
                self.call(receivers, message, kwargs)
            self.leave()
        except (
            BaseException
        ):  # Ctrl-C out of a listener, or of a signal handler, also at the entry of leave()
            self.leave_to(outer)
            raise
        return bool(receivers)

    def call(self, receivers: Receivers, message: Message, kwargs: Mapping[str, Any] = _NO_KWARGS) -> None:
        """Call listeners; what one raises spares the others, but for SystemExit.

        ``Incoming._deliver`` has the same lines in its loop, where this call would cost 6 % of all its time.
        """
        args = message.args
        for receiver in receivers:
            try:
                if kwargs:
                    receiver(message, *args, **kwargs)
                else:
                    receiver(message, *args)
            except BaseException as exc:  # a user's code: it raises what it likes
                self.failed(exc, message, receiver)
                if self.ended:
                    return

    def end(self, exc: SystemExit) -> None:
        """Call no listener any more, also for what has been received already, until it ``resumes``.

        Nothing is found from now on, and what was kept is forgotten; so it costs nothing before.
        """
        if self.ended is None:  # else it comes by again, through the listener that emitted
            self.resumes = False
            self.ended = exc
        self.kept.clear()

    def turn_over(self) -> None:
        """A life is over, and its links have ended: a reader of it that a listener has kept calls no other
        one.

        Such a reader goes on with the table that it has in hand, which stays empty from here on; so it asks
        for receivers, and finds that its link has ended. One that looks for the table only now looks at its
        link first.
        """
        before, self.kept = self.kept, {}
        before.clear()

    def failed(self, exc: BaseException, message: Message, receiver: Listener) -> None:
        """A listener raised: SystemExit ends the process, the rest is reported and the others go on.

        After SystemExit no listener is called (``ended``). What a signal raised in the main thread goes up to
        the code that emitted, as does a SystemExit that ends nothing here: a library thread has nobody to
        raise it at.
        """
        kind = type(exc)  # an exception may claim to be of another __class__
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and (issubclass(kind, KeyboardInterrupt) or is_from_signal(exc)):
            try:
                raise exc
            finally:
                del exc  # nothing may keep it alive, see signal_exceptions.py
        elif isinstance(exc, SystemExit) and issubclass(kind, SystemExit):
            before = self.ended
            self.end(exc)  # first: the stop that is asked for next may be over before this thread goes on
            try:
                self._on_exit(exc)
            except BaseException:  # nothing is ended by it
                self.ended = before
                raise
        else:
            self._on_failure(exc, message, listener_of(receiver))
