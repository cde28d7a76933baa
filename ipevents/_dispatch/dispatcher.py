"""The listeners of one emitter: how they are registered, found and called.

They are called in the order of registration, one at a time; what one raises does not keep the others from
being called. A listener may be registered for one call only, or for messages of one origin.

Locks. Listeners run while their thread has the floor, the right to run listeners, see floor.py. A thread may
block in them for as long as the user's code likes; no thread that holds the state lock waits for that.

Signals are made, kept and forgotten, and listeners registered, without a lock, because collected receivers
and signal handlers do so in the middle of anything. Each step is one operation of a dict or a set.
"""

from __future__ import annotations

import weakref
from _thread import get_ident

# WeakValueDictionary is built on this: it removes an entry only if its reference is dead, in one step.
from _weakref import _remove_dead_weakref  # type: ignore[attr-defined]  # not in typeshed
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .._core.messages import Message
from .._platform.latches import let_go
from .._platform.signal_exceptions import interrupts_main
from .._platform.threads import library_threads
from .floor import Floor, process_floor
from .listeners import Listener, Receivers, Registration, Wait, check_listener, listener_of

if TYPE_CHECKING:
    from .event_signal import EventSignal

_NO_KWARGS: Mapping[str, Any] = {}


class _Reference(weakref.ref["EventSignal"]):
    """A weak reference to the signal of an event; it knows the event even when the signal is gone.

    ``held`` keeps the signal alive while listeners are connected to it.
    """

    __slots__ = ("event", "held")

    # ref.__new__ has taken both arguments.
    def __init__(self, signal: EventSignal, on_gone: Callable[[_Reference], None]) -> None:
        self.event = signal.event
        self.held: EventSignal | None = None


class Dispatcher:
    """The listeners of one emitter.

    ``on_interest(event)`` is called after the listeners of an event have changed, in the thread that changed
    them. If a weak one was collected, that is any thread at any place; so it must not block.

    ``on_failure(exception, message, listener)`` gets what a listener raised. ``on_exit(exc)`` gets the
    SystemExit of a listener, and raises it again where it cannot end anything.

    ``on_idle()`` is called in the thread that ran listeners, after the last of them has run, if ``owe_idle``
    was called meanwhile.

    ``floor`` is another right to run listeners than that of the process, for several dispatchers in one
    process that stand for processes.
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
        # At most one signal for each event, kept alive only while something is connected to it, see _keep.
        # So an event that is not used any more, such as `reply-<id>`, costs nothing.
        self._signals: dict[str, _Reference] = {}
        self.floor = floor
        # What a listener raised to end the process: no further listener is called, see end().
        self.ended: SystemExit | None = None
        self.resumes = False  # the end is over: deliver local events again
        # The receivers of each event for which all origins have the same: a shortcut for the reader thread.
        # An entry is dropped when its signal changes.
        self.kept: dict[str, Receivers] = {}

    # Registration

    def signal(self, event: str) -> EventSignal:
        """The signal of an event, made on first use.

        It stays the same one as long as it is referred to from anywhere, or something is connected to it.
        """
        signal = self._find_signal(event)
        if signal is not None:
            return signal
        from .event_signal import EventSignal  # late: importing blinker takes as long as all other imports

        made = EventSignal(event, self._changed)
        reference = _Reference(made, self._forget)
        while True:
            found = self._signals.setdefault(event, reference)()  # ours, or another thread's
            if found is not None:
                return found
            _remove_dead_weakref(self._signals, event)  # dead; its callback is about to do the same

    def _find_signal(self, event: str) -> EventSignal | None:
        """The signal of an event if there is one."""
        reference = self._signals.get(event)
        return None if reference is None else reference.held or reference()

    def _forget(self, reference: _Reference) -> None:
        """A signal was collected: remove its entry, unless the event has a new signal already."""
        _remove_dead_weakref(self._signals, reference.event)
        self.kept.pop(reference.event, None)  # a thread that found the signal before may have put it

    def add(self, event: str, listener: Listener, *, sender: str | None = None, once: bool = False) -> None:
        """Register a listener. Raises InvalidListener if it could never be called with a message."""
        check_listener(listener)
        signal = self.signal(event)
        registration = Registration(signal, listener, once)
        if sender is None:
            signal.connect(registration, weak=False)
        else:
            signal.connect(registration, sender, weak=False)

    def begin_wait(self, event: str, heard: Listener) -> Wait:
        """Have ``heard`` called as a listener is, for a wait within the library; ``end_wait`` ends that."""
        wait = Wait(self.signal(event), heard, False)
        wait.signal.connect(wait, weak=False)
        return wait

    def end_wait(self, wait: Wait) -> None:
        """End what ``begin_wait`` began."""
        wait.signal.disconnect(wait)

    def remove(self, event: str | None, listener: Listener | None) -> None:
        """Remove the newest registration of a listener, all of an event, or (both None) all of all events."""
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
        """The listeners that users have registered for an event, in order."""
        signal = self._find_signal(event)
        return [] if signal is None else [listener_of(item) for item in signal.registrations()]

    def count(self, event: str) -> int:
        """How many listeners users have registered for an event."""
        signal = self._find_signal(event)
        return 0 if signal is None else signal.count()

    def events(self) -> list[str]:
        """The events with a listener of a user, in the order in which they got their first."""
        return [event for event in list(self._signals) if self.count(event)]

    def listens_to(self, event: str) -> bool:
        """Whether an event is wanted here, by a listener or by a wait within the library."""
        signal = self._find_signal(event)
        return signal is not None and bool(signal.receivers)

    def wanted(self) -> list[str]:
        """The events that are wanted here, by a listener or by a wait within the library."""
        return [event for event in list(self._signals) if self.listens_to(event)]

    def _changed(self, signal: EventSignal) -> None:
        """The listeners of a signal have changed: keep it or let it go, and report the change."""
        event = signal.event
        self._keep(signal)
        self.kept.pop(event, None)
        self._on_interest(event)

    def _keep(self, signal: EventSignal) -> None:
        """Keep a signal alive exactly while it is of use.

        No lock: each thread changes the signal first and then runs this loop, which asks ``is_used()`` again
        after it has written. So the last thread that writes has seen the latest state. Until then the signal
        is found in any case, because the thread that changes it refers to it.
        """
        reference = self._signals[signal.event]  # the entry exists as long as the signal does
        while True:
            used = signal.is_used()
            reference.held = signal if used else None
            if signal.is_used() is used:
                return

    # Calling

    def find(self, event: str, origin: str) -> Receivers:
        """What to call for an event of ``origin``; an empty tuple if there are no listeners.

        If all origins have the same receivers, these are kept for the next time.
        """
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
            if signal.version != version or self.ended:  # it changed meanwhile, so what was found may be old
                self.kept.pop(event, None)
        return receivers

    def enter(self, *, gathers: bool = False) -> None:
        """Take the floor for this thread; waits while another thread has it. Calls may be nested.

        ``gathers``: the caller will run listeners for several events, and after the last of them writes what
        this emitter's listeners have sent.
        """
        floor = self.floor
        ident = get_ident()
        if floor.owner == ident:
            floor.depth += 1
            return
        gatherer = self if gathers else None  # outside: 3.10 checks for signals at each jump, also of an `if`
        try:
            if not floor.lock.acquire(False):
                floor.take()
        except BaseException:  # of a signal handler, perhaps just after acquire()
            let_go(floor.lock)
            raise
        floor.gatherer = gatherer
        floor.turns += 1
        floor.depth = 1
        floor.owner = ident
        if floor.on_begin is not None:
            floor.begins()

    def leave(self) -> None:
        """Undo one ``enter``. The outermost one gives the floor back and then writes what listeners sent.

        It writes by calling each ``on_idle`` that is owed.
        """
        floor = self.floor
        if floor.depth > 1:
            floor.depth -= 1
            return
        floor.gatherer = None
        # Asked while owner is set: if a signal handler raises at this jump, leave_to() leaves again.
        if floor.owed:
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
        """Whether the calling code was called by a listener, of this emitter or of another one."""
        return self.floor.owner == get_ident()

    def must_not_wait(self) -> bool:
        """Whether the calling code must not wait for other processes: a listener, or a thread of the library.

        What it waits for could only come after its end. In a thread of the library it is a callback.
        """
        ident = get_ident()
        return self.floor.owner == ident or ident in library_threads

    def entered(self) -> int:
        """How often the calling thread has entered; an argument for ``leave_to``."""
        return self.floor.depth if self.runs_here() else 0

    def leave_to(self, outer: int) -> None:
        """After an exception, leave as often as is needed for ``entered()`` to be ``outer`` again.

        The exception may come from any place, also from a signal handler that interrupted enter() or leave().
        """
        floor = self.floor
        if floor.owner == get_ident() and floor.depth > outer:
            floor.depth = outer + 1
            self.leave()

    def owe_idle(self) -> None:
        """In a listener: have ``on_idle`` called after the last listener has run.

        Does nothing if this thread runs no listener, or gathers for this emitter: then the reader writes what
        was sent.
        """
        floor = self.floor
        if floor.owner == get_ident() and floor.gatherer is not self:
            floor.owed.append(self._on_idle)

    def gathers(self) -> bool:
        """In a listener: whether the reader will write what was sent, after the last message of its frame."""
        return self.floor.gatherer is self

    def deliver(self, message: Message, kwargs: Mapping[str, Any]) -> bool:
        """Call the listeners of a message in this thread, on the floor. Returns whether there were any."""
        if not self.listens_to(message.event):
            return False
        life = self.kept
        outer = self.entered()
        try:
            self.enter()
            if self.kept is not life and get_ident() in library_threads:
                receivers: Receivers = ()  # the life it serves ended while it waited
            else:
                if self.resumes and self.floor.depth == 1:  # in no listener: it might be the one that ended
                    self.resumes, self.ended = False, None
                # Found only now: listeners that ran meanwhile may have changed them.
                receivers = self.find(message.event, message.from_)
                self.call(receivers, message, kwargs)
            self.leave()
        except BaseException:  # Ctrl-C in a listener, or a signal handler, also at the entry of leave()
            self.leave_to(outer)
            raise
        return bool(receivers)

    def call(self, receivers: Receivers, message: Message, kwargs: Mapping[str, Any] = _NO_KWARGS) -> None:
        """Call listeners. After one raises, the others are still called, except after SystemExit.

        ``Incoming._deliver`` repeats these lines in its loop, where this call would cost 6 % of its whole
        time.
        """
        args = message.args
        for receiver in receivers:
            try:
                if kwargs:
                    receiver(message, *args, **kwargs)
                else:
                    receiver(message, *args)
            except BaseException as exc:  # the user's code may raise anything
                self.failed(exc, message, receiver)
                if self.ended:
                    return

    def end(self, exc: SystemExit) -> None:
        """Call no listener any more, not even for messages already received, until ``resumes``.

        From now on ``find`` finds nothing, and the kept receivers are forgotten. So delivery need not check
        for the end each time.
        """
        if self.ended is None:  # it is set if the exception passes an outer listener that emitted
            self.resumes = False
            self.ended = exc
        self.kept.clear()

    def turn_over(self) -> None:
        """A life is over and its links have ended: a reader thread of it calls no further listener.

        Such a reader may still be in a listener that does not return. Later it goes on with the table of kept
        receivers that it has in hand, which is emptied here and stays empty. So it asks for receivers, and
        finds that its link has ended. A reader that fetches the table only now checks its link first.
        """
        before, self.kept = self.kept, {}
        before.clear()

    def failed(self, exc: BaseException, message: Message, receiver: Listener) -> None:
        """A listener raised: SystemExit ends the process; other exceptions are reported and the others go on.

        After SystemExit no listener is called (``ended``). Two kinds of exceptions are raised again, to the
        code that emitted: what a signal raised in the main thread, and a SystemExit that ends nothing here. A
        thread of the library has no such code, so there a KeyboardInterrupt is only reported.
        """
        kind = type(exc)  # an exception may claim to be of another __class__
        if interrupts_main(exc):
            try:
                raise exc
            finally:
                del exc  # nothing may keep it alive, see signal_exceptions.py
        elif isinstance(exc, SystemExit) and issubclass(kind, SystemExit):
            before = self.ended
            self.end(exc)  # first, as the stop asked for next may be over before this thread goes on
            try:
                self._on_exit(exc)
            except BaseException:  # the exception ends nothing
                self.ended = before
                raise
        else:
            self._on_failure(exc, message, listener_of(receiver))
