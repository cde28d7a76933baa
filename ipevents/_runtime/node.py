"""One process's place in the tree: its state, its listeners, its errors, and what it tells its neighbours.

Joins the pure router with links and listeners; what is sent and what arrives is handled by
``outgoing.py`` and ``incoming.py``. The rules that hold it together (DESIGN section 5):
outboxes are filled under the state lock, listeners are called outside it.

Locks. ``lock`` (the state lock) guards router, outboxes, ``stage`` and the lists here. It is re-entrant
only so that its owner can be told from C without a gap: code that finds it owned by its own thread was
called from inside (a signal handler, a collected object) and queues itself in ``deferred``, which the
owner runs after his release (a ``with`` sees to it; who calls ``release`` himself does as well).
Order: the dispatcher's lock first, then the state lock, nothing after it.
"""

from __future__ import annotations

from _thread import RLock, get_ident
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from .._core.flow import count_messages
from .._core.interest import Change
from .._core.messages import OFFLINE, ONLINE, PARENT, Envelope, Message, Record, check_event
from .._core.router import Router, Up
from .._exceptions import Closed, ForkedError, IPEventsError, NotStarted
from .clock import monotonic
from .dispatch import Dispatcher, Listener
from .incoming import Incoming
from .link import Link
from .logs import Log
from .notices import Notices
from .outgoing import Outgoing
from .stage import Stage
from .threads import let_go, library_threads

log = Log("ipevents")

REPEAT_SECONDS = 1.0  # the same failure is logged at most so often
_NO_KWARGS: dict[str, Any] = {}


class StateLock(RLock):  # type: ignore[misc]  # final for type checkers only
    """A lock whose ``with`` block runs what was deferred within, when its thread has left it altogether."""

    def __init__(self, deferred: dict[int, Any], run_deferred: Callable[[], None]) -> None:
        super().__init__()
        self._deferred = deferred
        self._run_deferred = run_deferred

    def __enter__(self) -> bool:  # type: ignore[override]  # the arguments are for direct calls only
        try:
            return self.acquire()
        except BaseException:  # of a signal handler; on 3.14 it may come between ``acquire`` and the block
            let_go(self)
            raise

    def __exit__(self, *exc: object) -> None:
        self.release()
        if self._deferred:
            self._run_deferred()


class Node:
    """See the module. ``on_control(link, record)`` gets the control records that concern processes; it is
    called in the link's reader. ``on_first_use()`` is called before a send of a process that has not said
    its ``online``; ``on_exit(code)`` when a listener raised SystemExit. ``reply(pids, event, args,
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
    ) -> None:
        self.deferred: dict[int, deque[tuple[Callable[..., Any], tuple[Any, ...]]]] = {}  # by thread
        self._running_deferred: set[int] = set()  # threads that run theirs just now
        self.lock = StateLock(self.deferred, self.run_deferred)
        self.router = Router(pid)
        self.stage = Stage.NEW
        self.announced = False  # our own online has been said, or need not be
        self.sends_while_stopping = False
        self.notices: Notices | None = None
        self.reply = reply
        self.on_first_use = on_first_use
        self._on_unheard = on_unheard
        self.outgoing = Outgoing(self)
        self.incoming = Incoming(self, on_control)
        self.dispatcher = Dispatcher(
            on_interest=self._interest_changed,
            on_failure=self._listener_failed,
            on_exit=on_exit,
            on_idle=self.outgoing.write_dirty,
        )
        self.receive = self.incoming.receive
        # The counters of links that are gone.
        self.past: dict[str, Any] = {"sent": 0, "received": 0, "forwarded": 0, "delivered": 0, "dropped": {}}
        self._offlines = 0  # notices of offline that are queued
        self._telling_errors: set[int] = set()  # threads that run the listeners of error
        self._logged: dict[type, tuple[float, int]] = {}

    # Re-entrancy

    def inside(self) -> bool:
        """Whether this code was called from within a section of its thread that holds the state lock."""
        return self.lock._is_owned()  # type: ignore[attr-defined,no-any-return]  # as threading.Condition does

    def forget_lock_owner(self) -> None:
        """In a process made by os.fork(): whoever held the lock does not exist here."""
        self.deferred.clear()
        self._running_deferred.clear()
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
        if self.stage is Stage.NEW:
            return NotStarted("call ipem.start() first")
        if self.stage is Stage.FORKED:
            return ForkedError(
                "this process was forked from the one that the emitter belongs to; start a worker()"
            )
        return Closed(
            "the emitter is stopping" if self.stage is Stage.STOPPING else "the emitter was stopped"
        )

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
        return self.deliver_local(event, args, kwargs)

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

    # Errors

    def fail(self, exc: IPEventsError) -> None:
        """A mistake of the caller: an ``error`` event if anyone listens to it, else raised here.

        Raised also in a listener of ``error``: it would be told of it, make the same mistake, and so on.
        """
        if (
            not self.dispatcher.listens_to("error")
            or self.stage is Stage.FORKED
            or get_ident() in self._telling_errors
        ):
            raise exc
        self.error(exc)

    def error(self, exc: BaseException) -> None:
        """Tell the listeners of ``error``, or the log. May be called under the state lock; never blocks."""
        notices = self.notices
        if notices is not None:
            notices.put(lambda: self._tell_error(exc))
        elif self.inside():
            self.defer(self._tell_error, exc)
        else:
            self._tell_error(exc)

    def _tell_error(self, exc: BaseException) -> None:
        ident = get_ident()
        outer = ident in self._telling_errors
        self._telling_errors.add(ident)
        try:
            heard = self.deliver_local("error", (exc,))
        finally:
            if not outer:
                self._telling_errors.discard(ident)
        if heard:
            return
        now = monotonic()
        last, hidden = self._logged.get(type(exc), (-REPEAT_SECONDS, 0))
        if now - last < REPEAT_SECONDS:
            self._logged[type(exc)] = (last, hidden + 1)
            return
        self._logged[type(exc)] = (now, 0)
        more = f" ({hidden} more of this kind were not logged)" if hidden else ""
        log.error("! %s: %s%s", type(exc).__name__, exc, more, exc_info=exc if exc.__traceback__ else None)

    def _listener_failed(self, exc: BaseException, message: Message, listener: Listener) -> None:
        if issubclass(type(exc), Closed) and self.stage in (Stage.STOPPING, Stage.CLOSED):
            log.debug("! the stop overtook the listener %r: %s", listener, exc)
        elif message.event == "error":
            log.error("! the error listener %r failed", listener, exc_info=exc)
        else:
            self.error(exc)

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
        self.router.own_interests(name for name in self.dispatcher.events() if name not in _PRIVATE)
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

    def child_gone(self, link: Link, exitcode: int | None) -> tuple[bool, list[Callable[[], None]]]:
        """A child ended and its link is read. Returns whether it was online, and notices to run in order."""
        neighbour = self.router.neighbours.get(link)
        if neighbour is None:
            return False, []
        online = neighbour.online
        gone, change = self.router.remove_child(link)
        link.drop("link-cut", count_messages(link.outbox.clear()))
        link.wake_waiters()
        self.advertise(change)
        notices: list[Callable[[], None]] = []
        for path in gone:
            code = exitcode if len(path) == 1 else None
            self.tell_up((OFFLINE, self.router.path, path[0], code))
            notices.append(self._offline_notice(path[0], code))
        return online, notices

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


_PRIVATE = frozenset({"ready", "online", "offline", "parent", "error"})  # never sent, so nobody need know
