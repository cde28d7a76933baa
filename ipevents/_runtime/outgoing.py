"""What user code sends: checked, pickled, decided, put into outboxes; and the flow rules for it.

The rules of the flow are DESIGN section 5, see also ``room.py``. Everything here runs in the thread that
sends. An application thread may wait for room, holding neither the state lock nor the dispatcher; code in
a listener never waits.
"""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from .._core.actions import Plan, Report
from .._core.flow import Sender
from .._core.messages import (
    MAX_PID,
    MAX_ROUTE,
    SEND_TO,
    TO_CHILD,
    TO_GRAND_MASTER,
    Header,
    Payload,
    Record,
    check_event,
    make_record,
)
from .._exceptions import (
    IPEventsError,
    MessageTooLarge,
    NotConnected,
    SendError,
    UnknownProcess,
)
from . import payload as payloads
from .link import Link
from .room import outbox_full, wait_for_room, wait_to_copy
from .stage import Stage
from .threads import library_threads

if TYPE_CHECKING:
    from .node import Node

_Claimed = list[tuple[Link, list[Record]]]  # frames to be written outside the lock
_ANY_LIMIT = 1024  # bytes that every socket.maxMessage allows
# Looking a member up in its class takes longer than all else that a send asks of it.
_OPEN = Stage.OPEN


class Outgoing:
    """The sending side of a node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.dirty: list[Link] = []  # links with records that a batch put; guarded by the state lock
        self.sent = 0  # events that user code sent; guarded by the state lock
        self.outage_told = False  # the error of this outage was given

    def send(self, kind: int, event: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Send a message that goes by the rules.

        Raises, or reports as ``error``, what the caller got wrong.
        """
        node = self._node
        lock = node.lock
        if lock._is_owned():  # type: ignore[attr-defined]  # see Node.inside
            node.defer(self.send, kind, event, args, kwargs)
            return
        claimed: _Claimed | None = None
        try:
            if not node.announced:
                node.on_first_use()
            if type(event) is not str:
                event = check_event(event, sending=True)
            payload: Payload = args
            size = payloads.plain_size(args, kwargs)
            if size is None:
                payload, size = self._pickled(kind, event, args, kwargs)
            listeners_run = node.dispatcher.owner != 0  # perhaps not in this thread
            lock.acquire()
            try:
                plan = node.router.here[kind].get(event)
                if plan is None or node.stage is not _OPEN:
                    plan = self._plan(kind, event)
                link = plan.only
                if (
                    link is not None
                    and not listeners_run
                    and size <= _ANY_LIMIT
                    and link.outbox.offer(plan.header, plan.event, payload, size)
                ):
                    if not link.attended:
                        claimed = _claim([link], 1)
                else:
                    claimed = self._put(kind, plan, payload, size)
                self.sent += 1
            finally:
                lock.release()
            while claimed:
                link, records = claimed.pop()
                link.write_now(records)
            if plan.deliver:
                node.deliver_local(event, args, kwargs)
        except IPEventsError as exc:
            node.fail(exc)
        finally:
            if claimed:  # a signal handler of the user raised
                for link, records in claimed:
                    link.leave_unwritten(records)
            if node.deferred:
                node.run_deferred()

    def _pickled(
        self, kind: int, event: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[Payload, int]:
        """The payload of arguments that are not all plain."""
        node = self._node
        return payloads.pickled(
            args, kwargs, partial(wait_to_copy, node, lambda: node.router.plan(kind, event).forward)
        )

    def _plan(self, kind: int, event: str) -> Plan:
        """Lock held: what ``send`` finds kept in the router from the second time on."""
        node = self._node
        if node.stage is not _OPEN:
            node.check_stage(node.dispatcher.runs_here())
        return node.router.plan(kind, check_event(event, sending=True))

    def _put(self, kind: int, plan: Plan, payload: Payload, size: int) -> _Claimed | None:
        """Lock held: a message for the outboxes of all links that it goes to, by the rules of the flow."""
        deliver, links, report, lost_up, header, event, _ = plan
        assert header is not None
        if report is not None:
            raise refusal(event, report)
        if lost_up:
            self.lose_up()
        if size > _ANY_LIMIT:
            for link in links:  # all are asked before the first gets it
                _check_size(link, event, payload, size)
        if self._node.dispatcher.runs_here():
            self._put_for_listener(links, header, event, payload, size)
            return None
        idle: list[Link] = []
        full: list[Link] = []
        for link in links:
            if not link.outbox.offer(header, event, payload, size):
                full.append(link)
            elif not link.attended:
                idle.append(link)
        if full:
            self._put_slowly(kind, idle, full, plan, payload, size)
            return None
        return _claim(idle, len(links))

    def _put_slowly(
        self, kind: int, idle: list[Link], full: list[Link], plan: Plan, payload: Payload, size: int
    ) -> None:
        """Lock held: a message of an application thread for those of the links that had no room at once."""
        for link in idle:
            link.prompt()  # who had room does not wait for the others
        if kind == TO_GRAND_MASTER:
            self._put_to_top(plan.event, payload, size)
            return
        header, event = plan.header, plan.event
        assert header is not None
        sender = Sender.LISTENER if get_ident() in library_threads else Sender.FANOUT
        for link in full:
            if link not in self._node.router.neighbours:  # gone while we waited for another one
                link.drop("link-cut")
            elif wait_for_room(self._node, link, size, 1, sender, event):
                link.outbox.put(make_record(header, event, [payload]), size)
                if not link.attended:
                    link.prompt()  # nor does this one wait for the next

    def _put_to_top(self, event: str, payload: Payload, size: int) -> None:
        """Lock held: an addressed message of an application thread; decided anew after each wait for room."""
        sender = Sender.LISTENER if get_ident() in library_threads else Sender.APPLICATION
        while True:
            plan = self._plan(TO_GRAND_MASTER, event)
            if plan.report is not None:
                raise refusal(event, plan.report)
            (link,) = plan.forward
            if wait_for_room(self._node, link, size, 1, sender, event):
                assert plan.header is not None
                link.outbox.put(make_record(plan.header, event, [payload]), size)
                if not link.attended:
                    link.prompt()
                return

    def _put_for_listener(
        self, links: tuple[Any, ...], header: Header, event: str, payload: Payload, size: int
    ) -> None:
        """Lock held: a fan-out of code in a listener: to all of them or, where one is full, to none."""
        if len(links) == 1 and links[0].outbox.offer(header, event, payload, size):
            self.mark_dirty(links[0])
            return
        for link in links:
            if not link.outbox.has_room(size):
                raise outbox_full(link, event)
        for link in links:
            if not link.outbox.offer(header, event, payload, size):
                link.outbox.put(make_record(header, event, [payload]), size)  # an episode: it has room again
            self.mark_dirty(link)

    def send_route(
        self, route: Sequence[str], event: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """``sendTo``: along a route, target first. Errors as for ``send``."""
        node = self._node
        if node.inside():
            node.defer(self.send_route, route, event, args, kwargs)
            return
        hops = tuple(route)
        if hops and hops[-1] in node.router.names:
            hops = hops[:-1]
            if not hops:
                name = node.checked(event, sending=True)
                if name is not None:
                    node.emit(name, args, kwargs)
                return
        self._addressed(SEND_TO, hops, event, args, kwargs)

    def send_child(self, pid: str, event: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """``sendToChild``: to a direct child. Errors as for ``send``."""
        node = self._node
        if node.inside():
            node.defer(self.send_child, pid, event, args, kwargs)
            return
        self._addressed(TO_CHILD, (pid,), event, args, kwargs)

    def _addressed(
        self,
        kind: int,
        route: tuple[str, ...],
        event: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        node = self._node
        try:
            if not node.announced:
                node.on_first_use()
            event = check_event(event, sending=True)
            _check_route(route)
            payload: Payload = args
            size = payloads.plain_size(args, kwargs)
            if size is None:
                payload, size = payloads.pickled(
                    args, kwargs, partial(wait_to_copy, node, partial(self._link_to, kind, route, event))
                )
            owner = node.dispatcher.owner
            listener = owner != 0 and owner == get_ident()
            records = None
            with node.lock:
                link, to = self._target(kind, route, event, listener)
                if size > _ANY_LIMIT:
                    _check_size(link, event, payload, size)
                header = node.router.header(kind, to)
                while not link.outbox.offer(header, event, payload, size):
                    waits = not listener and get_ident() not in library_threads
                    sender = Sender.APPLICATION if waits else Sender.LISTENER
                    if wait_for_room(node, link, size, 1, sender, event):
                        link.outbox.put(make_record(header, event, [payload]), size)
                        break
                    link, to = self._target(kind, route, event, listener)  # decided again after each wait
                    header = node.router.header(kind, to)
                self.sent += 1
                if listener:
                    self.mark_dirty(link)
                elif not link.attended:
                    records = link.claim()
            if records is not None:
                link.write_now(records)
        except IPEventsError as exc:
            node.fail(exc)
        finally:
            if node.deferred:
                node.run_deferred()

    def _link_to(self, kind: int, route: tuple[str, ...], event: str) -> tuple[Link]:
        """Lock held: the one link of an addressed message, as ``wait_to_copy`` wants it."""
        return (self._target(kind, route, event, False)[0],)

    def when_done(self, call: Callable[..., None], *args: Any) -> None:
        """In a signal handler that interrupted a send: have this called when that is about to return."""
        self._node.defer(call, *args)

    def _target(self, kind: int, route: tuple[str, ...], event: str, listener: bool) -> tuple[Link, Any]:
        """Lock held: the link of an addressed message, and what is left of its route behind that."""
        node = self._node
        if node.stage is not _OPEN:
            node.check_stage(listener)
        if kind == TO_CHILD:
            found: Any = node.router.child_link(route[-1])
            if found is None:
                raise UnknownProcess(f"event {event!r}: there is no child with pid {route[-1]!r} here")
            return found, None
        found, report = node.router.hop(route)
        if report is not None:
            raise refusal(event, report)
        return found, (route[0], route[:-1]) if len(route) > 1 else None

    def mark_dirty(self, link: Link) -> None:
        """Lock held: a listener, or a reader that forwards, put something that leaves after the batch."""
        if not link.dirty:
            link.dirty = True
            self.dirty.append(link)
        link.defer()

    def write_dirty(self) -> None:
        """Lock not held: write what was put during a batch."""
        lock = self._node.lock
        while self.dirty:
            with lock:
                if not self.dirty:
                    return
                link = self.dirty.pop()
                link.dirty = False
                records = link.claim_now()
            if records is not None:
                link.write_now(records)

    def lose_up(self, count: int = 1) -> None:
        """Lock held: the upward part of fan-outs is lost in an outage; one error for each outage."""
        parent: Any = self._node.router.parent
        parent.drop("disconnected", count)
        if not self.outage_told:
            self.outage_told = True
            self._node.error(NotConnected("the server is away; what goes up is lost until it is back"))


def refusal(event: str, report: Report) -> SendError:
    """A report of the router as the exception that the caller gets."""
    if not report.connected:
        return NotConnected(f"event {event!r} was not sent: {report.cause}")
    return UnknownProcess(f"event {event!r} was not sent: {report.cause}")


def _check_route(route: tuple[str, ...]) -> None:
    if not route:
        raise UnknownProcess("sendTo needs at least one pid, the target first: message.pids is the reply")
    if len(route) > MAX_ROUTE:
        raise SendError(f"a route has at most {MAX_ROUTE} pids, this one has {len(route)}")
    if max(map(len, route)) > MAX_PID:
        raise UnknownProcess(f"no pid has more than {MAX_PID} characters")


def _claim(links: list[Link], count: int) -> _Claimed:
    """Lock held: the frames that the caller has to write at once, of links that he found idle."""
    claimed = []
    for link in links:
        records = link.claim(count)
        if records is not None:
            claimed.append((link, records))
    return claimed


def _check_size(link: Link, event: str, payload: Payload, size: int) -> None:
    if size <= link.limit:
        return
    if not link.is_limited and type(payload) is list:
        return  # between relatives only what has to be in one frame is limited
    raise MessageTooLarge(
        f"event {event!r} has {size} bytes, {link.name} takes at most {link.limit} (socket.maxMessage)"
    )
