"""One process's place in the tree: its state, its listeners, its errors, and what it tells its neighbours.

Joins the pure router with links and listeners; what is sent and what arrives is handled by
``outgoing.py`` and ``incoming.py``. The rules that hold it together (DESIGN section 5):
outboxes are filled under the state lock, listeners are called outside it.

Locks. ``lock`` (the state lock) guards router, outboxes, ``stage`` and the lists here. It is re-entrant
only so that its owner can be told from C without a gap: code that finds it owned by its own thread was
called from inside (a signal handler, a collected object) and queues itself in ``deferred``, which the
owner runs after his release (a ``with`` sees to it; who calls ``release`` himself does as well).
Order: the floor first (see floor.py), then the state lock, nothing after it.
"""

from __future__ import annotations

from _thread import RLock, get_ident
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from .._core.flow import count_messages
from .._core.interest import Change
from .._core.messages import (
    OFFLINE,
    ONLINE,
    PARENT,
    RESERVED_EVENTS,
    Envelope,
    Message,
    Record,
    check_event,
)
from .._core.names import Names
from .._core.router import Router, Up
from .._core.state import Event, LifeState, Stage
from .._exceptions import Closed, ForkedError, IPEventsError, NotStarted
from .dispatch import Dispatcher
from .errors import Errors
from .floor import Floor, process_floor
from .incoming import Incoming
from .link import Link
from .notices import Notices
from .outgoing import Outgoing
from .threads import let_go, library_threads

_NO_KWARGS: dict[str, Any] = {}


class StateLock(RLock):  # type: ignore[misc]  # final for type checkers only
    """A lock whose ``with`` block runs what was deferred within, when its thread has left it altogether."""

    def __init__(self, deferred: dict[int, Any], run_deferred: Callable[[], None]) -> None:
        super().__init__()
        self._deferred = deferred
        self._run_deferred = run_deferred

    def __enter__(self) -> bool:  # type: ignore[override]  # the arguments are for direct calls only
        try:
            got = self.acquire()
        except BaseException:  # of a signal handler; on 3.14 it may come between ``acquire`` and the block
            let_go(self)
            raise
        return got

    def __exit__(self, *exc: object) -> None:
        self.release()
        if self._deferred:
            self._run_deferred()


class Node:
    """See the module. ``on_control(link, record)`` gets the control records that concern processes; it is
    called in the link's reader. ``on_first_use()`` is called before a send of a process that has not said
        its ``online``; ``on_exit(exc)`` when a listener raised SystemExit. ``reply(pids, event, args,
        kwargs)`` is what Message.reply calls.
    """

    def __init__(
        self,
        pid: str,
        *,
        reply: Callable[..., None],
        on_control: Callable[[Link, Record], None],
        on_first_use: Callable[[], None],
        on_exit: Callable[[SystemExit], None],
        on_unheard: Callable[[], None] = lambda: None,
        floor: Floor = process_floor,
    ) -> None:
        self.deferred: dict[int, deque[tuple[Callable[..., Any], tuple[Any, ...]]]] = {}  # by thread
        self._running_deferred: set[int] = set()  # threads that run theirs just now
        self.lock = StateLock(self.deferred, self.run_deferred)
        self.router = Router(pid)
        self.state = LifeState()  # changed by change() only
        self.stage = self.state.stage  # kept beside it, because each send asks for it
        self.announced = False  # our own online has been said, or need not be
        self.sends_while_stopping = False
        self.given = Names()  # what neighbours are called, in all lives; guarded by the state lock
        self.notices: Notices | None = None
        self.reply = reply
        self.on_first_use = on_first_use
        self._on_unheard = on_unheard
        self.outgoing = Outgoing(self)
        self.incoming = Incoming(self, on_control)
        self._telling_errors: set[int] = set()  # threads that run the listeners of error
        self.errors = Errors(self, self._telling_errors)
        self.fail = self.errors.fail
        self.error = self.errors.report
        self.dispatcher = Dispatcher(
            on_interest=self._interest_changed,
            on_failure=self.errors.listener_failed,
            on_exit=on_exit,
            on_idle=self.outgoing.write_dirty,
            floor=floor,
        )
        self.receive = self.incoming.receive
        self.retired: list[Link] = []  # links that have ended, whose threads may be about to; state lock
        # The counters of links that are gone.
        self.past: dict[str, Any] = {"sent": 0, "received": 0, "forwarded": 0, "delivered": 0, "dropped": {}}
        self._offlines = 0  # notices of offline that are queued

    # Re-entrancy

    def inside(self) -> bool:
        """Whether this code was called from within a section of its thread that holds the state lock."""
        return self.lock._is_owned()  # type: ignore[attr-defined,no-any-return]  # as threading.Condition does

    def let_go(self, outer: bool) -> None:
        """After an exception of any kind: give the state lock back, unless ``outer``, what ``inside()`` said
        before.

        A signal handler may raise at the entry of the lock's ``__exit__``. So whatever the main thread calls
        from outside, and goes through ``with`` blocks of the lock, calls this where it is left by an
        exception, before anything else is done about that.
        """
        if not outer:
            while self.inside():
                let_go(self.lock)
            if self.deferred:
                self.run_deferred()

    def forget_lock_owner(self) -> None:
        """In a process made by os.fork(): whoever held the lock does not exist here."""
        self.deferred.clear()
        self._running_deferred.clear()
        self._telling_errors.intersection_update({get_ident()})  # the forking thread may run one of them
        self.lock = StateLock(self.deferred, self.run_deferred)

    def defer(self, call: Callable[..., Any], *args: Any) -> None:
        """Queue a call for the moment at which this thread leaves the state lock."""
        self.deferred.setdefault(get_ident(), deque()).append((call, args))

    def run_deferred(self) -> None:
        """Lock not held: run what this thread queued from inside, in order.

        What is queued by that runs behind it, and not within.
        """
        ident = get_ident()
        mine = self.deferred.get(ident)
        if mine is None or ident in self._running_deferred:
            return
        try:
            self._running_deferred.add(ident)
            while not self.inside():
                try:
                    call, args = mine.popleft()
                except IndexError:  # not asked before: a signal handler may come in between, and run all
                    break
                try:
                    call(*args)
                except IPEventsError as exc:  # nobody is left to raise it at
                    self.error(exc)
        finally:
            self._running_deferred.discard(ident)
        if not mine:
            meanwhile = self.deferred.pop(ident, None)
            if meanwhile:  # put there by a handler just now
                self.deferred.setdefault(ident, deque()).extend(meanwhile)

    # Stages

    def change(self, event: Event) -> None:
        """State lock held: go on to the next state. RuntimeError where that is none, see ``state.py``."""
        try:
            self.state.change(event)
        finally:  # also where a signal handler raises after it
            self.stage = self.state.stage

    def check_stage(self, listener: bool) -> None:
        """While it stops, listeners may still send, and a child's target that is being unwound."""
        if self.stage is not Stage.STOPPING or not (listener or self.sends_while_stopping):
            raise self.stage_error()

    def may_send(self) -> bool:
        """Whether this stage allows a send of the calling code; else ``send`` says why not."""
        if self.stage is Stage.OPEN:
            return True
        return self.stage is Stage.STOPPING and (self.sends_while_stopping or self.dispatcher.runs_here())

    def stage_error(self) -> IPEventsError:
        """What to say to a call that this stage does not allow."""
        here = self.errors.place()
        if self.stage is Stage.NEW:
            return NotStarted(f"{here} has not started: call ipem.start() first")
        if self.stage is Stage.FORKED:
            return ForkedError(
                f"this process was forked from {self.router.pid}, which has the emitter; use ipem.worker()"
            )
        return Closed(f"{here} {'is stopping' if self.stage is Stage.STOPPING else 'was stopped'}")

    # Local events

    def checked(self, event: object, *, sending: bool) -> str | None:
        """The plain name of an event that the caller may use; else None, and he has been told."""
        try:
            return check_event(event, sending=sending)
        except IPEventsError as exc:
            self.fail(exc)
            return None

    def emit(self, event: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """An event of this process for its own listeners; returns whether there were any."""
        if self.inside():
            self.defer(self._emit_late, event, args, kwargs)
            return self.dispatcher.listens_to(event)
        try:
            heard = self.deliver_local(event, args, kwargs)
            exc = self.dispatcher.ended
            if exc is not None and self.dispatcher.runs_here():
                raise exc  # the listener that emitted, in which nothing is to go on either
            return heard
        finally:
            if self.deferred:  # a signal that came in the middle, see lifetime.py
                self.run_deferred()

    def _emit_late(self, event: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """A deferred ``emit``: here, but not in a library thread, which may never run listeners."""
        if get_ident() in library_threads:
            self.notify(lambda: self.deliver_local(event, args, kwargs))
        else:
            self.deliver_local(event, args, kwargs)

    def deliver_local(
        self,
        event: str,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] = _NO_KWARGS,
        exitcode: int | None = None,
    ) -> bool:
        envelope = Envelope(0, self.router.path, event, self.reply, exitcode=exitcode)
        return self.dispatcher.deliver(Message(envelope, args, kwargs), kwargs)

    def notify(self, call: Callable[[], object]) -> None:
        """Run a call in the notices thread, in order; in this thread where that is not there."""
        notices = self.notices
        if notices is None:
            call()
        else:
            notices.put(call)

    # Topology: called with the lock held

    def rename(self, pid: str) -> None:
        """We have agreed on another pid; children are told."""
        self.router.rename(pid)
        children: list[Any] = self.router.child_links()
        for child in children:
            child.tell((PARENT, pid))

    def announce(self) -> None:
        """Say ``online`` upwards: all interest first."""
        self.announced = True
        self.router.own_interests(name for name in self.dispatcher.wanted() if name not in _PRIVATE)
        if self.router.up is Up.OPEN:
            parent: Any = self.router.parent
            parent.outbox.put_interests(self.router.interest.all())
        self.tell_up((ONLINE, self.router.path))

    def announce_again(self) -> None:
        """After a reconnect: ourselves, then all that are online below, top down."""
        self.outgoing.outage_told = False
        self.announce()
        for path in self.router.netmap.announced():
            self.tell_up((ONLINE, (*path, self.router.pid)))

    def advertise(self, change: Change) -> None:
        """Tell the parent what began and what ceased to be wanted here and below."""
        if self.router.up is not Up.OPEN:
            return
        parent: Any = self.router.parent
        for event in change.advertise:
            parent.outbox.put_interest(event, True)
        for event in change.withdraw:
            parent.outbox.put_interest(event, False)
        if change.advertise or change.withdraw:
            parent.prompt()

    def child_gone(
        self, link: Link, exitcode: int | None, cause: str = "link-cut"
    ) -> tuple[bool, list[Callable[[], None]]]:
        """A child ended and its link is read. Returns whether it was online, and notices to run in order.

        What was not written yet is counted as lost by ``cause``.
        """
        neighbour = self.router.neighbours.get(link)
        if neighbour is None:
            return False, []
        online = neighbour.online
        gone, change = self.router.remove_child(link)
        link.drop(cause, count_messages(link.outbox.clear()))
        link.wake_waiters()
        self.advertise(change)
        notices: list[Callable[[], None]] = []
        for path in gone:
            code = exitcode if len(path) == 1 else None
            self.tell_up((OFFLINE, self.router.path, path[0], code))
            notices.append(self._offline_notice(path[0], code))
        return online, notices

    def retire(self, link: Link) -> None:
        """Lock held: a link is gone for good. Its threads end; its counters are kept."""
        link.end()
        self.remember(link)
        self.retired = [other for other in self.retired if other.is_alive()]
        self.retired.append(link)

    def remember(self, link: Link) -> None:
        """Lock held: keep the counters of a link that is gone for good."""
        past = self.past
        for name in ("sent", "received", "forwarded", "delivered"):
            past[name] += getattr(link, name)
        for cause, count in link.dropped.items():
            past["dropped"][cause] = past["dropped"].get(cause, 0) + count

    def tell_offlines(self, notices: list[Callable[[], None]]) -> None:
        """Lock held: queue what ``child_gone`` returned."""
        if notices:
            self._offlines += 1
            for notice in notices:
                self.notify(notice)
            self.notify(self._offlines_told)

    def _offlines_told(self) -> None:
        with self.lock:
            self._offlines -= 1

    def after_offlines(self, call: Callable[[], None]) -> None:
        """Run a call when every ``offline`` so far was told: at once, or in the notices thread.

        So nothing of a successor is delivered before the end of the one before it.
        """
        with self.lock:
            waits = self._offlines > 0
        if waits:
            self.notify(call)
        else:
            call()

    def _offline_notice(self, pid: str, exitcode: int | None) -> Callable[[], None]:
        def notice() -> None:
            self.deliver_local("offline", (pid,), exitcode=exitcode)

        return notice

    def tell_up(self, record: Record) -> None:
        """Put a control record for the parent, if there is one to take it."""
        if self.router.up is Up.OPEN:
            parent: Any = self.router.parent
            parent.tell(record)

    def _interest_changed(self, event: str) -> None:
        """The listeners of an event changed, in whatever thread, perhaps inside the state lock."""
        if not self.dispatcher.listens_to(event):
            self._on_unheard()
        if event in _PRIVATE:
            return
        if self.inside():
            self.defer(self._interest_changed, event)
            return
        with self.lock:
            if self.announced and self.stage is Stage.OPEN:
                self.advertise(self.router.own_interest(event, self.dispatcher.listens_to(event)))
        if self.deferred:
            self.run_deferred()


_PRIVATE = RESERVED_EVENTS | {"error"}  # never sent, so nobody need know
