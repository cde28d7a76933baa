"""One process's place in the tree: what is sent, what arrives, and who is told.

Joins the pure router with links and listeners. The rules that hold it together (DESIGN section 5):
outboxes are filled under the state lock, listeners are called outside it.

Locks. ``lock`` (the state lock) guards router, outboxes, ``stage`` and the lists here. It is re-entrant
only so that its owner can be told from C without a gap: code that finds it owned by its own thread was
called from inside (a signal handler, a collected object) and queues itself in ``_deferred``, which the
owner runs after his release (a ``with`` sees to it; who calls ``release`` himself does as well). Order: the dispatcher's lock first, then the state lock, nothing after it.
"""

from __future__ import annotations

import logging
import threading
import time
from _thread import RLock, get_ident
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any

from .._core.flow import Sender, Verdict
from .._core.interest import Change
from .._core.messages import (
    INTEREST,
    INTERESTS,
    MAX_PID,
    MAX_ROUTE,
    OFFLINE,
    ONLINE,
    PARENT,
    REPORT,
    SEND_TO,
    TO_CHILD,
    TO_PARENTS,
    Envelope,
    Message,
    Payload,
    Record,
    check_event,
    check_received,
)
from .._core.actions import Plan, Report
from .._core.router import Router, Up
from .._exceptions import (
    Closed,
    ForkedError,
    Forged,
    IPEventsError,
    MessageTooLarge,
    NotConnected,
    NotStarted,
    OutboxFull,
    ProtocolError,
    SendError,
    SlowPeer,
    Undeliverable,
    UnknownProcess,
    UnreadablePayload,
)
from . import payload as payloads
from .dispatch import Dispatcher, Listener
from .link import Link
from .notices import Notices
from .threads import library_threads

log = logging.getLogger("ipevents")

REPEAT_SECONDS = 1.0  # the same failure is logged, or told to an origin, at most so often
_BATCH = 64  # messages between two looks at the clock in a long frame
_ANY_LIMIT = 1024  # bytes that every socket.maxMessage allows
_MAX_HELD_BYTES = 64 << 20  # what waits for our own online, as much as an outbox holds
_MAX_HELD_RECORDS = 100_000
_NO_KWARGS: dict[str, Any] = {}


class Stage(Enum):
    """The life of an emitter."""

    NEW = "not started"
    OPEN = "running: threads, links, children"
    STOPPING = "stop() was asked for"
    CLOSED = "stopped"
    FORKED = "this process is a fork of the one that it belongs to"


_OPEN = Stage.OPEN  # looking a member up in its class takes longer than all else that a send asks of it


class StateLock(RLock):  # type: ignore[misc]  # final for type checkers only
    """A lock whose ``with`` block runs what was deferred within, when its thread has left it altogether."""

    def __init__(self, deferred: deque[Any], run_deferred: Callable[[], None]) -> None:
        super().__init__()
        self._deferred = deferred
        self._run_deferred = run_deferred

    def __exit__(self, *exc: object) -> None:
        self.release()
        if self._deferred:
            self._run_deferred()


class Node:
    """See the module. ``on_control(link, record)`` gets the control records that concern processes; it is
    called in the link's reader. ``on_first_use()`` is called before a send of a process that has not said
    its ``online``; ``on_exit(code)`` when a listener raised SystemExit. ``reply`` is what Message.reply calls.
    """

    def __init__(
        self,
        pid: str,
        *,
        reply: Callable[..., Any],
        on_control: Callable[[Link, Record], None],
        on_first_use: Callable[[], None],
        on_exit: Callable[[SystemExit], None],
    ) -> None:
        self._deferred: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self.lock = StateLock(self._deferred, self.run_deferred)
        self.router = Router(pid)
        self.stage = Stage.NEW
        self.announced = False  # our own online has been said, or need not be
        self.holding = False  # what comes from the parent for us waits for our online
        self.held_count = 0
        self.sends_while_stopping = False
        self.notices: Notices | None = None
        self.counters: dict[str, int] = {"delivered": 0, "unheard": 0}
        self.sent = 0  # events that user code sent
        self.dispatcher = Dispatcher(
            on_interest=self._interest_changed,
            on_failure=self._listener_failed,
            on_exit=on_exit,
            on_idle=self._write_dirty,
        )
        self._reply = reply
        self._on_control = on_control
        self._on_first_use = on_first_use
        self._path: tuple[str, ...] = (pid,)
        self._held: list[tuple[Link, Record]] = []
        self._held_bytes = 0
        self._online_said = threading.Event()
        self._offlines = 0  # notices of offline that are queued
        self._dirty: list[Link] = []
        self._logged: dict[type, tuple[float, int]] = {}
        self._reported: dict[tuple[str, str], float] = {}
        self._controls: dict[int, Callable[[Link, Record], None]] = {
            INTEREST: self._take_interest,
            INTERESTS: self._take_interests,
            ONLINE: self._take_online,
            OFFLINE: self._take_offline,
            PARENT: self._take_parent,
            REPORT: self._take_report,
        }

    # Re-entrancy

    def inside(self) -> bool:
        """Whether the calling code was called from within a section of this thread that holds the state lock."""
        return self.lock._is_owned()  # type: ignore[attr-defined,no-any-return]  # as threading.Condition does

    def forget_lock_owner(self) -> None:
        """In a process made by os.fork(): whoever held the lock does not exist here."""
        self._deferred.clear()
        self.lock = StateLock(self._deferred, self.run_deferred)

    def defer(self, call: Callable[..., Any], *args: Any) -> None:
        """Queue a call for the moment at which this thread leaves the state lock."""
        self._deferred.append((call, args))

    def run_deferred(self) -> None:
        """Lock not held: run what was queued from inside."""
        while self._deferred and not self.inside():
            try:
                call, args = self._deferred.popleft()
            except IndexError:  # another thread took it
                return
            try:
                call(*args)
            except IPEventsError as exc:  # nobody is left to raise it at
                self.error(exc)

    # Sending

    def send(self, kind: int, event: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Send a message that goes by the rules. Raises, or reports as ``error``, what the caller got wrong."""
        lock = self.lock
        if lock._is_owned():  # type: ignore[attr-defined]  # see inside()
            self._deferred.append((self.send, (kind, event, args, kwargs)))
            return
        try:
            if not self.announced:
                self._on_first_use()
            if type(event) is not str:
                event = check_event(event, sending=True)
            payload, size = payloads.encode(args, kwargs)
            ident = get_ident()
            listener = self.dispatcher.owner == ident or ident in library_threads
            direct: list[tuple[Link, list[Record]]] | None = None
            lock.acquire()
            try:
                if self.stage is not _OPEN:
                    self._check_stage(listener)
                plan = self.router.here[kind].get(event)
                if plan is None:
                    check_event(event, sending=True)
                    plan = self.router.plan(kind, event)
                deliver, links, report, lost_up = plan
                if report is not None:
                    raise self._refusal(event, report)
                if lost_up:
                    self._lose_up()
                record = (kind, self._path, event, payload, None)
                if listener:
                    self._put_for_listener(links, record, size)
                else:
                    if size > _ANY_LIMIT:
                        for link in links:  # all are asked before the first gets it
                            self._check_size(link, record, size)
                    for link in links:
                        if not link.outbox.offer(record, size) and self._room(link, record, size, Sender.FANOUT):
                            link.put(record, size)
                    for link in links:  # after all waiting: who has claimed a link writes to it at once
                        if not link.attended:
                            records = link.claim()
                            if records is not None:
                                if direct is None:
                                    direct = []
                                direct.append((link, records))
                self.sent += 1
            finally:
                lock.release()
            if direct is not None:
                for link, records in direct:
                    link.write_now(records)
            if deliver:
                self.deliver_local(event, args, kwargs)
        except IPEventsError as exc:
            self.fail(exc)
        finally:
            if self._deferred:
                self.run_deferred()

    def _put_for_listener(self, links: tuple[Any, ...], record: Record, size: int) -> None:
        """Lock held: a fan-out of code in a listener: to all of them or, where one is full, to none."""
        for link in links:
            self._check_size(link, record, size)
            if link.outbox.decide(size, Sender.LISTENER, 0.0, 0.0) is not Verdict.TAKE:
                raise self._full(link, record[2])
        for link in links:
            link.put(record, size)
            self._mark_dirty(link)

    def send_route(self, route: Sequence[str], event: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """``sendTo``: along a route, target first. Errors as for ``send``."""
        if self.inside():
            self.defer(self.send_route, route, event, args, kwargs)
            return
        hops = tuple(route)
        if hops and hops[-1] in self.router.names:
            hops = hops[:-1]
            if not hops:
                self.emit(check_event(event, sending=True), args, kwargs)
                return
        self._addressed(SEND_TO, hops, event, args, kwargs)

    def send_child(self, pid: str, event: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """``sendToChild``: to a direct child. Errors as for ``send``."""
        if self.inside():
            self.defer(self.send_child, pid, event, args, kwargs)
            return
        self._addressed(TO_CHILD, (pid,), event, args, kwargs)

    def _addressed(
        self, kind: int, route: tuple[str, ...], event: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        try:
            if not self.announced:
                self._on_first_use()
            event = check_event(event, sending=True)
            if not route:
                raise UnknownProcess("sendTo needs at least one pid, the target first: message.pids is the reply")
            if len(route) > MAX_ROUTE:
                raise SendError(f"a route has at most {MAX_ROUTE} pids, this one has {len(route)}")
            if max(map(len, route)) > MAX_PID:
                raise UnknownProcess(f"no pid has more than {MAX_PID} characters")
            payload, size = payloads.encode(args, kwargs)
            ident = get_ident()
            listener = self.dispatcher.owner == ident or ident in library_threads
            sender = Sender.LISTENER if listener else Sender.APPLICATION
            records = None
            with self.lock:
                link = self._reserve(kind, route, event, payload, size, sender)
                tail = route[:-1] if kind == SEND_TO else None
                to = (route[0], tail) if tail else None
                link.put((kind, self._path, event, payload, to), size)
                self.sent += 1
                if listener:
                    self._mark_dirty(link)
                else:
                    records = link.claim()
            if records is not None:
                link.write_now(records)
        except IPEventsError as exc:
            self.fail(exc)
        finally:
            if self._deferred:
                self.run_deferred()

    def _reserve(
        self, kind: int, route: tuple[str, ...], event: str, payload: Payload, size: int, sender: Sender
    ) -> Link:
        """Lock held: the link of an addressed send, when it has room. Decided again after each wait."""
        while True:
            if self.stage is not Stage.OPEN:
                self._check_stage(sender is Sender.LISTENER)
            if kind == TO_CHILD:
                found: Any = self.router.child_link(route[-1])
                if found is None:
                    raise UnknownProcess(f"event {event!r}: there is no child with pid {route[-1]!r} here")
            else:
                found, report = self.router.hop(route)
                if report is not None:
                    raise self._refusal(event, report)
            link: Link = found
            self._check_size(link, (kind, None, event, payload, None), size)
            if self._room(link, None, size, sender, event):
                return link

    def _room(self, link: Link, record: Record | None, size: int, sender: Sender, event: str = "") -> bool:
        """Lock held: whether the record may be put now.

        Fan-outs and forwards wait here while the peer makes progress; an addressed send waits for one change
        and returns False, to be decided anew. Raises OutboxFull for a listener, Closed by ``stop``.
        """
        while True:
            verdict = link.outbox.decide(size, sender, time.monotonic(), link.progress)
            if verdict is Verdict.TAKE:
                return True
            if verdict is Verdict.REFUSE:
                raise self._full(link, event)
            if verdict is Verdict.DROP:
                link.drop("slow-peer" if sender is Sender.FANOUT else "full")
                if sender is Sender.FANOUT and not link.outbox.dropping:
                    link.outbox.dropping = True
                    self.error(SlowPeer(f"{link.name} takes nothing; events to it are dropped until it does"))
                return False
            link.wait_room(REPEAT_SECONDS)
            if sender is Sender.APPLICATION:
                return False
            if self.stage is Stage.CLOSED:
                raise self.stage_error()
            if link not in self.router.neighbours:
                link.drop("link-cut")
                return False

    def _mark_dirty(self, link: Link) -> None:
        if not link.dirty:
            link.dirty = True
            self._dirty.append(link)
        link.defer()

    def _write_dirty(self) -> None:
        """Lock not held: write what listeners, or a reader that forwards, put during a batch."""
        while self._dirty:
            with self.lock:
                if not self._dirty:
                    return
                link = self._dirty.pop()
                link.dirty = False
                records = link.claim_now()
            if records is not None:
                link.write_now(records)

    def _check_size(self, link: Link, record: Record, size: int) -> None:
        if size <= link.limit:
            return
        if not link.is_limited and type(record[3]) is list:
            return  # between relatives only what has to be in one frame is limited
        raise MessageTooLarge(
            f"event {record[2]!r} has {size} bytes, {link.name} takes at most {link.limit} (socket.maxMessage)"
        )

    def _full(self, link: Link, event: str) -> OutboxFull:
        return OutboxFull(
            f"event {event!r} was not sent: {len(link.outbox)} records wait for {link.name}, and a listener never waits"
        )

    def _refusal(self, event: str, report: Report) -> SendError:
        if not report.connected:
            return NotConnected(f"event {event!r} was not sent: {report.cause}")
        return UnknownProcess(f"event {event!r} was not sent: {report.cause}")

    _outage_told = False

    def _lose_up(self) -> None:
        """Lock held: the upward part of a fan-out is lost in an outage; one error for each outage."""
        parent: Any = self.router.parent
        parent.drop("disconnected")
        if not self._outage_told:
            self._outage_told = True
            self.error(NotConnected("the server is away; what goes up is lost until it is back"))

    def _check_stage(self, listener: bool) -> None:
        """While it stops, listeners may still send, and a child's target that is being unwound."""
        if self.stage is not Stage.STOPPING or not (listener or self.sends_while_stopping):
            raise self.stage_error()

    def stage_error(self) -> IPEventsError:
        """What to say to a call that this stage does not allow."""
        if self.stage is Stage.NEW:
            return NotStarted("call ipem.start() first")
        if self.stage is Stage.FORKED:
            return ForkedError("this process was forked from the one that the emitter belongs to; start a worker()")
        return Closed("the emitter is stopping" if self.stage is Stage.STOPPING else "the emitter was stopped")

    # Local events

    def emit(self, event: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """An event of this process for its own listeners; returns whether there were any."""
        if self.inside():
            self.defer(self._emit_late, event, args, kwargs)
            return self.dispatcher.listens_to(event)
        return self.deliver_local(event, args, kwargs)

    def _emit_late(self, event: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """A deferred ``emit``: here, but not in a library thread, which may be one that never runs listeners."""
        if get_ident() in library_threads:
            self.notify(lambda: self._deliver_late(event, args, kwargs))
        else:
            self._deliver_late(event, args, kwargs)

    def _deliver_late(self, event: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.deliver_local(event, args, kwargs)

    def deliver_local(
        self,
        event: str,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] = _NO_KWARGS,
        exitcode: int | None = None,
    ) -> bool:
        envelope = Envelope(0, self._path, event, self._reply, exitcode=exitcode)
        return self.dispatcher.deliver(Message(envelope, args, kwargs), kwargs)

    def notify(self, call: Callable[[], None]) -> None:
        """Run a call in the notices thread, in order; in this thread where that is not there."""
        notices = self.notices
        if notices is None:
            call()
        else:
            notices.put(call)

    # Errors

    def fail(self, exc: IPEventsError) -> None:
        """A mistake of the caller: an ``error`` event if anyone listens to it, else raised here."""
        if not self.dispatcher.listens_to("error") or self.stage is Stage.FORKED:
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
        if self.deliver_local("error", (exc,)):
            return
        now = time.monotonic()
        last, hidden = self._logged.get(type(exc), (-REPEAT_SECONDS, 0))
        if now - last < REPEAT_SECONDS:
            self._logged[type(exc)] = (last, hidden + 1)
            return
        self._logged[type(exc)] = (now, 0)
        more = f" ({hidden} more of this kind were not logged)" if hidden else ""
        log.error("! %s: %s%s", type(exc).__name__, exc, more, exc_info=exc if exc.__traceback__ else None)

    def _listener_failed(self, exc: BaseException, message: Message, listener: Listener) -> None:
        if message.event == "error":
            log.error("! the error listener %r failed", listener, exc_info=exc)
        else:
            self.error(exc)

    # Receiving: in the reader thread of a link

    def receive(self, link: Link, records: list[Record]) -> None:
        """Handle the records of one frame: deliver, forward, report, or note what they tell."""
        dispatcher = self.dispatcher
        kept = dispatcher.kept
        entered = False
        router = self.router
        last_kind = last_path = last_event = last_to = None
        last_version = -1
        deliver = forward = False
        envelope: Envelope | None = None
        delivered = unheard = 0
        count = 0
        try:
            for record in records:
                kind = record[0]
                if kind > SEND_TO:
                    if entered:
                        entered = False
                        dispatcher.leave()
                    self._control(link, record)
                    last_event = None
                    continue
                _, path, event, payload, to = record
                if (
                    event is not last_event
                    or path is not last_path
                    or kind != last_kind
                    or to is not last_to
                    or router.version != last_version
                ):
                    last_version = router.version
                    deliver, forward, envelope = self._decide(link, record)
                    last_kind, last_path, last_event, last_to = kind, path, event, to
                if forward and not self._forward(link, record, may_wait=not entered):
                    entered = False  # it has to wait for room: not while we keep others from their listeners
                    dispatcher.leave()
                    self._forward(link, record, may_wait=True)
                if deliver:
                    if self.holding and link is router.parent:
                        if entered:
                            entered = False
                            dispatcher.leave()
                        self._hold(link, record)
                        continue
                    receivers = kept.get(event)
                    if receivers is None:
                        receivers = dispatcher.find(event, path[0])
                    if not receivers:
                        unheard += 1
                        continue
                    if not entered:
                        dispatcher.enter()
                        entered = True
                        receivers = dispatcher.find(event, path[0])  # may have changed while others ran
                    assert envelope is not None
                    if type(payload) is tuple:
                        message = Message(envelope, payload)
                        for receiver in receivers:
                            try:
                                receiver(message, *payload)
                            except BaseException as exc:  # a user's code: it raises what it likes
                                dispatcher.failed(exc, message, receiver)
                    else:
                        self._open(envelope, receivers, payloads.own(payload) if forward else payload)
                    delivered += 1
                    count += 1
                    if not count % _BATCH and entered and link.is_long():
                        entered = False
                        dispatcher.leave()
                        link.breathe()
        except Closed:  # stop() ended a wait for room; this link ends as well
            return
        except (TypeError, ValueError, IndexError, KeyError) as exc:  # listeners do not raise up to here
            if isinstance(exc, IPEventsError):
                raise
            raise ProtocolError(f"{link.name} sent a record that makes no sense: {exc!r:.200}") from exc
        finally:
            if entered:
                dispatcher.leave()
            elif self._dirty:
                self._write_dirty()
            link.delivered += delivered
            if unheard:
                self.counters["unheard"] += unheard
            self.counters["delivered"] += delivered
        if self._deferred:
            self.run_deferred()

    def _open(self, envelope: Envelope, receivers: tuple[Listener, ...], payload: Payload) -> None:
        """Unpickle a payload and call the listeners; the dispatcher is entered."""
        try:
            args, kwargs = payloads.decode(payload)
        except UnreadablePayload as exc:
            error = UnreadablePayload(f"event {envelope.event!r} from {envelope.pids[0]}: {exc}")
            error.__cause__ = exc.__cause__
            self.counters["unreadable"] = self.counters.get("unreadable", 0) + 1
            self.error(error)
            return
        message = Message(envelope, args, kwargs)
        for receiver in receivers:
            self.dispatcher.call(receiver, message, kwargs)

    def _decide(self, link: Link, record: Record) -> tuple[bool, bool, Envelope | None]:
        """What to do with records like this one: deliver, forward, and what they have in common."""
        kind, path, event, _, to = record
        check_received(kind, event, to)
        with self.lock:
            if link not in self.router.neighbours:
                return False, False, None
            pids = self.router.accept(link, path)
            if kind == SEND_TO or kind == TO_CHILD:
                deliver, forward = to is None, to is not None
            else:
                plan = self.router.plan(kind, event, link)
                deliver, forward = plan.deliver, bool(plan.forward or plan.report or plan.lost_up)
        if not deliver:
            return False, forward, None
        addressed = self.router.pid if kind in (SEND_TO, TO_CHILD) else None
        return True, forward, Envelope(kind, pids, event, self._reply, to=addressed)

    def _links_of(self, link: Link, record: Record) -> tuple[tuple[Any, ...], Report | None, bool, Any]:
        """Lock held: where a received record goes on to, and the last item it then has."""
        kind, _, event, _, to = record
        if to is not None:
            target, route = to
            next_link, report = self.router.hop(route)
            rest = (target, route[:-1]) if len(route) > 1 else None
            return (() if next_link is None else (next_link,)), report, False, rest
        plan: Plan = self.router.plan(kind, event, link)
        return plan.forward, plan.report, plan.lost_up, None

    def _forward(self, link: Link, record: Record, *, may_wait: bool) -> bool:
        """Pass a record on, in the reader of ``link``. Returns False, with nothing done, if it had to wait.

        With ``may_wait`` the reader holds nothing that a listener needs.
        """
        kind, path, event, payload, _ = record
        size = payloads.size_of(payload)
        with self.lock:
            if link not in self.router.neighbours:
                return True
            links, report, lost_up, to = self._links_of(link, record)
            if not may_wait and any(item.outbox.dropping or not item.outbox.has_room(size) for item in links):
                return False
            pids = self.router.accept(link, path)
            if lost_up:
                self._lose_up()
                self._report_back(link, record, "the server is away", None, "disconnected")
            if report is not None:
                self._report_back(link, record, report.cause, report.target, "undeliverable")
            passed = (kind, pids, event, payload, to)
            for target in links:
                outbox = target.outbox
                if target.is_limited and size > target.limit:
                    target.drop("too-large")
                    cause = f"{size} bytes are more than {target.name} takes ({target.limit}, socket.maxMessage)"
                    self._report_back(link, record, cause, None, None)
                    continue
                if outbox.dropping or not outbox.has_room(size):
                    sender = Sender.BACK if target is link else Sender.FANOUT
                    if not self._room(target, record, size, sender, event):
                        if to is not None or kind in (SEND_TO, TO_CHILD) or sender is Sender.BACK:
                            self._report_back(link, record, f"{target.name} takes nothing", target.name, None)
                        continue
                target.put(passed, size)
                target.forwarded += 1
                self._mark_dirty(target)
        return True

    def _report_back(
        self, link: Link, record: Record, cause: str, target: str | None, counter: str | None
    ) -> None:
        """Lock held: tell the origin of a record that it broke off here; at most once a second for a cause."""
        _, path, event, _, _ = record
        if counter is not None:
            link.drop(counter)
        key = (path[0], cause)
        now = time.monotonic()
        if now - self._reported.get(key, -REPEAT_SECONDS) < REPEAT_SECONDS:
            return
        if len(self._reported) > 1024:
            self._reported.clear()
        self._reported[key] = now
        if link.outbox.has_room(len(cause)):
            link.put((REPORT, path[:-1], event, self.router.pid, target, cause), len(cause))
            self._mark_dirty(link)

    # What waits for our own online

    def _hold(self, link: Link, record: Record) -> None:
        """In the parent link's reader: keep an event for us until ``online`` was said and answered."""
        if self._held_bytes >= _MAX_HELD_BYTES or len(self._held) >= _MAX_HELD_RECORDS:
            self._online_said.wait()
            self.release_held()
            self.receive(link, [record])
            return
        self._held.append((link, record))
        self._held_bytes += payloads.size_of(record[3])
        self.held_count = len(self._held)

    def release_held(self) -> None:
        """In the parent link's reader: deliver what waited."""
        self.holding = False
        held, self._held = self._held, []
        self._held_bytes = self.held_count = 0
        for link, record in held:
            kind, path, event, payload, _ = record
            with self.lock:
                if link not in self.router.neighbours:
                    return
                pids = self.router.accept(link, path)
            receivers = self.dispatcher.find(event, path[0])
            if not receivers:
                continue
            addressed = self.router.pid if kind in (SEND_TO, TO_CHILD) else None
            self.dispatcher.enter()
            try:
                self._open(Envelope(kind, pids, event, self._reply, to=addressed), receivers, payload)
                link.delivered += 1
            finally:
                self.dispatcher.leave()

    def online_said(self) -> None:
        """The held may come: lets a reader that waits with a full store go on."""
        self._online_said.set()

    # Control records

    def _control(self, link: Link, record: Record) -> None:
        handler = self._controls.get(record[0])
        try:
            if handler is not None:
                handler(link, record)
            else:
                self._on_control(link, record)
        except (ValueError, TypeError, IndexError) as exc:
            if isinstance(exc, IPEventsError):
                raise
            raise ProtocolError(f"{link.name} sent a control record that makes no sense: {record!r}") from exc

    def _take_interest(self, link: Link, record: Record) -> None:
        _, event, wanted = record
        with self.lock:
            if link in self.router.neighbours:
                self.advertise(self.router.peer_interest(link, event, bool(wanted)))

    def _take_interests(self, link: Link, record: Record) -> None:
        _, events = record
        with self.lock:
            if link in self.router.neighbours:
                self.advertise(self.router.peer_interests(link, events))

    def _take_online(self, link: Link, record: Record) -> None:
        _, path = record
        with self.lock:
            if link not in self.router.neighbours:
                return
            pids = self.router.online(link, path)
            if len(path) == 1:
                self._put_control(link, (PARENT, self.router.pid))
            self._put_up((ONLINE, pids))
        self._on_control(link, record)
        self._deliver_lifecycle(TO_PARENTS, pids, "online")

    def _take_offline(self, link: Link, record: Record) -> None:
        _, path, pid, exitcode = record
        with self.lock:
            if link not in self.router.neighbours:
                return
            pids = self.router.offline(link, path, pid)
            self._put_up((OFFLINE, pids, pid, exitcode))
        self._deliver_lifecycle(TO_PARENTS, pids, "offline", (pid,), exitcode)

    def _take_parent(self, link: Link, record: Record) -> None:
        _, pid = record
        if not isinstance(pid, str) or link is not self.router.parent:
            raise Forged(f"{link.name} says it is our parent")
        with self.lock:
            self.router.parent_renamed(pid)
            link.name = pid
        envelope = Envelope(TO_CHILD, (pid, self.router.pid), "parent", self._reply, to=self.router.pid)
        self.dispatcher.deliver(Message(envelope, (pid,)), _NO_KWARGS)
        if self.holding:
            self.release_held()

    def _take_report(self, link: Link, record: Record) -> None:
        _, route, event, at, target, cause = record
        if not route:
            self.counters["undeliverable"] = self.counters.get("undeliverable", 0) + 1
            self.error(Undeliverable(event, at, target, cause))
            return
        with self.lock:
            next_link, _ = self.router.hop(route)
            found: Any = next_link
            if found is not None and found.outbox.has_room(len(cause)):
                found.put((REPORT, route[:-1], event, at, target, cause), len(cause))
                self._mark_dirty(found)

    def _deliver_lifecycle(
        self, kind: int, pids: tuple[str, ...], event: str, args: tuple[Any, ...] = (), exitcode: int | None = None
    ) -> None:
        envelope = Envelope(kind, pids, event, self._reply, exitcode=exitcode)
        self.dispatcher.deliver(Message(envelope, args), _NO_KWARGS)

    # Topology: called with the lock held

    def rename(self, pid: str) -> None:
        """We have agreed on another pid; children are told."""
        self.router.rename(pid)
        self._path = (pid,)
        for child in self.router.child_links():
            self._put_control(child, (PARENT, pid))

    def announce(self) -> None:
        """Say ``online`` upwards: all interest first."""
        self.announced = True
        self.router.own_interests(name for name in self.dispatcher.events() if name not in _PRIVATE)
        if self.router.up is Up.OPEN:
            parent: Any = self.router.parent
            parent.outbox.put_interests(self.router.interest.all())
        self._put_up((ONLINE, self._path))

    def announce_again(self) -> None:
        """After a reconnect: ourselves, then all that are online below, top down."""
        self._outage_told = False
        self.announce()
        for path in self.router.netmap.announced():
            self._put_up((ONLINE, (*path, self.router.pid)))

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
        link.drop("link-cut", len(link.outbox.clear()))
        link.wake_waiters()
        self.advertise(change)
        notices: list[Callable[[], None]] = []
        for path in gone:
            code = exitcode if len(path) == 1 else None
            self._put_up((OFFLINE, self._path, path[0], code))
            notices.append(self._offline_notice(path[0], code))
        return online, notices

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

    def _put_control(self, link: Any, record: Record) -> None:
        link.put(record, 64)
        link.prompt()

    def _put_up(self, record: Record) -> None:
        if self.router.up is Up.OPEN:
            self._put_control(self.router.parent, record)

    def _interest_changed(self, event: str) -> None:
        """The listeners of an event changed, in whatever thread, perhaps inside the state lock."""
        if event in _PRIVATE:
            return
        if self.inside():
            self.defer(self._interest_changed, event)
            return
        with self.lock:
            if self.announced and self.stage is Stage.OPEN:
                self.advertise(self.router.own_interest(event, self.dispatcher.listens_to(event)))
        if self._deferred:
            self.run_deferred()


_PRIVATE = frozenset({"ready", "online", "offline", "parent", "error"})  # never sent, so nobody need know
