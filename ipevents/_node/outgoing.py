"""What user code sends: checked, pickled, decided, put into outboxes; and the flow rules for it.

The rules of the flow are in README, Flow, and in ``backpressure.py``. Everything here runs in the thread that
sends. An application thread may wait for room, holding neither the state lock nor the dispatcher; code in
a listener never waits.
"""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from .._core.decisions import Plan, Report
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
from .._core.outbox import Patience
from .._core.state import Stage
from .._exceptions import (
    IPEventsError,
    MessageTooLarge,
    NotConnected,
    SendError,
    UnknownProcess,
    shown,
)
from .._links.link import Link
from .._payload import forms
from .._payload.pickled import pickle_call
from .._platform.interruptible import runs_deferred
from .._platform.latches import let_go
from .._platform.threads import library_threads
from .backpressure import LOOK_SECONDS, outbox_full, wait_for_room, wait_to_copy

if TYPE_CHECKING:
    from .._processes.child_state import ChildState
    from .node import Node

_Claimed = list[tuple[Link, list[Record]]]  # frames to be written outside the lock
_ADDRESSED = {TO_GRAND_MASTER, TO_CHILD, SEND_TO}  # to one process; an application thread waits for its room
_ANY_LIMIT = 1024  # bytes that every socket.maxMessage allows
# Looking a member up in its class takes longer than all else that a send asks of it.
_OPEN = Stage.OPEN


class _NoProcess(Exception):
    """A send by a link found no process there; it goes no further than ``send_to_process``."""


class Outgoing:
    """The sending side of a node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.dirty: list[Link] = []  # links with records that a batch put; guarded by the state lock
        self.sent = 0  # events that user code sent; guarded by the state lock
        self.outage_told = False  # the error of this outage was given

    @runs_deferred
    def send(
        self,
        kind: int,
        event: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        route: tuple[str, ...] | None = None,
    ) -> None:
        """Send a message; ``route`` as for ``Router.plan_here``.

        Raises, or reports as ``error``, what the caller got wrong.
        """
        node = self._node
        lock = node.lock
        if lock._is_owned():  # type: ignore[attr-defined]  # see Node.inside
            node.defer(self.send, kind, event, args, kwargs, route)
            return
        claimed: _Claimed | None = None
        try:
            if not node.announced:
                node.on_first_use()
            if type(event) is not str:
                event = check_event(event, sending=True)
            payload: Payload = args
            size = forms.plain_size(args, kwargs)
            if size is None:
                payload, size = self._pickled(kind, event, route, args, kwargs)
            lock.acquire()
            plan = node.router.here[kind].get(event if route is None else (route, event))
            if plan is None or node.stage is not _OPEN:
                plan = self._plan(kind, event, route)
            link = plan.only
            if (
                link is None
                or size > _ANY_LIMIT
                or not link.outbox.offer(plan.header, plan.event, payload, size)
            ):
                claimed = self._put(kind, plan, route, payload, size)
            else:
                self.sent += 1  # no call since it came into the outbox: both, or none
                if not link.attended:
                    claimed = self._claim((link,))
            lock.release()
            if claimed is not None:  # else, as in a flood, somebody writes or is about to
                while claimed:
                    link, records = claimed.pop()
                    link.write_now(records)
                if plan.deliver:
                    node.emit(event, args, kwargs)
        except BaseException as exc:
            self._break_off()
            if not isinstance(exc, IPEventsError):
                raise  # of a signal handler, or of the arguments' own code
            node.fail(exc)
        finally:
            if node.deferred:
                node.run_deferred()

    def _break_off(self) -> None:
        """What was interrupted by an exception, at whatever place, leaves nothing as it should not be.

        The lock was not held by this thread when it began, and no claim is to be used any more.
        """
        node = self._node
        let_go(node.lock)
        for link in list(node.router.neighbours):
            link.give_back()  # type: ignore[attr-defined]  # every neighbour here is a Link

    def _pickled(
        self,
        kind: int,
        event: str,
        route: tuple[str, ...] | None,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> tuple[Payload, int]:
        """The payload of arguments that are not all plain."""
        links = partial(self._links, kind, event, route)
        return pickle_call(args, kwargs, partial(wait_to_copy, self._node, links))

    def _links(self, kind: int, event: str, route: tuple[str, ...] | None) -> tuple[Link, ...]:
        """Lock held: where a message is about to go."""
        return self._plan(kind, event, route).forward

    def _plan(self, kind: int, event: str, route: tuple[str, ...] | None) -> Plan:
        """Lock held: what ``send`` finds kept in the router from the second time on.

        Raises what is wrong with stage, event or route, and with the way there.
        """
        node = self._node
        if node.stage is not _OPEN:
            node.check_stage(node.dispatcher.runs_here())
        event = check_event(event, sending=True)
        target: Any = route[0] if route and kind == TO_CHILD else None
        if isinstance(target, Link):
            if target not in node.router.neighbours:
                raise _NoProcess
        elif route is not None:
            _check_route(route, node.router.names)
        plan = node.router.plan_here(kind, event, route)
        if plan.report is not None:
            raise refusal(event, plan.report)
        return plan

    def _put(
        self, kind: int, plan: Plan, route: tuple[str, ...] | None, payload: Payload, size: int
    ) -> _Claimed:
        """Lock held: a message for the outboxes of all links that it goes to, by the rules of the flow."""
        links, header, event = plan.forward, plan.header, plan.event
        assert header is not None
        if plan.lost_up:
            self.lose_up()
        if size > _ANY_LIMIT:
            for link in links:  # all are asked before the first gets it
                _check_size(link, event, payload, size)
        if self._node.dispatcher.runs_here():
            self._put_for_listener(links, header, event, payload, size)
            return self._claim(links)
        full = []
        is_counted = False
        for link in links:
            if not link.outbox.offer(header, event, payload, size):
                full.append(link)
            elif not is_counted:
                self.sent += 1  # as in ``send``
                is_counted = True
        if full and kind in _ADDRESSED:
            self._put_addressed(kind, event, route, payload, size)
            return []
        if not is_counted:
            self.sent += 1
        if full:
            for link in links:
                if not link.attended and link not in full:
                    link.prompt()  # who had room does not wait for the others
            self._put_slowly(full, header, event, payload, size)
            return []
        return self._claim(links)

    def _put_slowly(self, full: list[Link], header: Header, event: str, payload: Payload, size: int) -> None:
        """Lock held: a fan-out of an application thread for those of the links that had no room at once."""
        patience = Patience.LISTENER if get_ident() in library_threads else Patience.FANOUT
        for link in full:
            if link not in self._node.router.neighbours:  # gone while we waited for another one
                link.drop("link-cut")
            elif wait_for_room(self._node, link, size, 1, patience, event):
                link.outbox.put(make_record(header, event, [payload]), size)
                if not link.attended:
                    link.prompt()  # nor does this one wait for the next

    def _put_addressed(
        self, kind: int, event: str, route: tuple[str, ...] | None, payload: Payload, size: int
    ) -> None:
        """Lock held: a message of an application thread for one link; decided anew after each wait."""
        patience = Patience.LISTENER if get_ident() in library_threads else Patience.APPLICATION
        while True:
            plan = self._plan(kind, event, route)
            (link,) = plan.forward
            if wait_for_room(self._node, link, size, 1, patience, event):
                assert plan.header is not None
                link.outbox.put(make_record(plan.header, event, [payload]), size)
                self.sent += 1
                if not link.attended:
                    link.prompt()
                return

    def _put_for_listener(
        self, links: tuple[Any, ...], header: Header, event: str, payload: Payload, size: int
    ) -> None:
        """Lock held: what code in a listener sends, for all of the links or, where one is full, for none."""
        for link in links:
            if not link.outbox.has_room(size):
                raise outbox_full(link, event)
        is_counted = False
        for link in links:
            if not link.outbox.offer(header, event, payload, size):
                # There is room; in the way is an episode of a slow peer, which perhaps ends here.
                wait_for_room(self._node, link, size, 1, Patience.LISTENER, event)
                link.outbox.put(make_record(header, event, [payload]), size)
            if not is_counted:
                self.sent += 1  # as in ``send``
                is_counted = True
        if not links:
            self.sent += 1

    def _claim(self, links: tuple[Any, ...]) -> _Claimed:
        """Lock held: the frames that the caller writes at once, after a message was put for these links.

        A link that was busy just now is left to its writer. What code in a listener put for such a link
        leaves when that code is done, as does all that it puts while the frame being read has more to come;
        the writer only sees to it that this does not take long.
        """
        dispatcher = self._node.dispatcher
        listens = dispatcher.runs_here()
        claimed = []
        for link in links:
            if link.attended:
                continue
            records = (
                None if listens and dispatcher.gathers() else link.claim(len(links), prompts=not listens)
            )
            if records is not None:
                claimed.append((link, records))
            elif listens:
                self.mark_dirty(link)
        return claimed

    def send_route(
        self, route: tuple[str, ...], event: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """``sendTo``: along a route, target first; to our own name an ``emit``. Errors as for ``send``."""
        if len(route) == 1 and route[0] in self._node.router.names:
            name = self._node.checked(event, sending=True)
            if name is not None:
                self._node.emit(name, args, kwargs)
        else:
            self.send(SEND_TO, event, args, kwargs, route)

    def send_child(self, pid: str, event: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """``sendToChild``: to a direct child. Errors as for ``send``."""
        self.send(TO_CHILD, event, args, kwargs, (pid,))

    def send_to_process(
        self, child: ChildState, event: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """``Child.send``: to the process that runs now, or to the next one where that has ended.

        By the link, which the processes of a child have in common, and not by the pid, which each has for
        itself. Errors as for ``send``.
        """
        node = self._node
        if node.inside():
            node.defer(self.send_to_process, child, event, args, kwargs)
            return
        try:
            waits = False
            while not waits:
                if child.alive:
                    try:
                        self.send(TO_CHILD, event, args, kwargs, (child.link,))  # type: ignore[arg-type]
                        return
                    except _NoProcess:  # it ended just now
                        pass
                waits = self._put_for_next(child, event, args, kwargs)
        except IPEventsError as exc:
            node.fail(exc, child.handle)
        finally:
            if node.deferred:
                node.run_deferred()

    def _put_for_next(
        self, child: ChildState, event: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> bool:
        """Keep a message for the process that is about to be started; waits for room as any addressed send.

        Returns False where a process runs, or did so just now.
        """
        node = self._node
        event = check_event(event, sending=True)
        payload, size = forms.encode(args, kwargs)
        with node.lock:
            while True:
                if node.stage is not _OPEN:
                    raise node.stage_error()
                if child.is_over:
                    raise UnknownProcess(f"event {event!r} was not sent: {child.title} has ended")
                link = child.link
                if child.alive:
                    return False
                _check_size(link, event, payload, size)
                outbox = child.next_outbox()
                if outbox.has_room(size):
                    outbox.put(make_record(node.router.header(TO_CHILD), event, [payload]), size)
                    self.sent += 1
                    return True
                if node.dispatcher.runs_here() or get_ident() in library_threads:
                    raise outbox_full(link, event)
                link.wait_room(LOOK_SECONDS)

    def defer(self, call: Callable[..., None], *args: Any) -> None:
        """In a handler that interrupted ``send`` or ``write_dirty``: called when that is about to return."""
        self._node.defer(call, *args)

    def mark_dirty(self, link: Link) -> None:
        """Lock held: a listener, or a reader that forwards, put something that leaves after the batch."""
        if not link.dirty:
            self.dirty += (link,)
            link.dirty = True
            self._node.dispatcher.owe_idle()
        link.defer()

    @runs_deferred
    def write_dirty(self) -> None:
        """Lock not held: write what was put during a batch."""
        if not self.dirty:
            return
        node = self._node
        lock = node.lock
        try:
            while self.dirty:
                records = None
                lock.acquire()
                if self.dirty:
                    link = self.dirty[-1]
                    link.dirty = False
                    del self.dirty[-1]
                    records = link.claim_now()
                lock.release()
                if records is not None:
                    link.write_now(records)
        except BaseException:  # of a signal handler
            self._break_off()
            raise
        finally:
            if node.deferred:
                node.run_deferred()

    def lose_up(self, count: int = 1) -> None:
        """Lock held: the upward part of fan-outs is lost in an outage; one error for each outage."""
        parent: Any = self._node.router.parent
        parent.drop("disconnected", count)
        if not self.outage_told:
            self.outage_told = True
            server = self._node.router.neighbours[parent].pid
            here = self._node.errors.place()
            text = f"the server {server} is away; what {here} sends upwards is lost until it is back"
            self._node.error(NotConnected(text))


def refusal(event: str, report: Report) -> SendError:
    """A report of the router as the exception that the caller gets."""
    if not report.connected:
        return NotConnected(f"event {event!r} was not sent: {report.cause}")
    return UnknownProcess(f"event {event!r} was not sent: {report.cause}")


def _check_route(route: tuple[str, ...], own: set[str]) -> None:
    if not route:
        raise UnknownProcess("sendTo needs at least one pid, the target first: message.pids is the reply")
    hops = len(route) - (route[-1] in own)
    if hops > MAX_ROUTE:
        raise SendError(f"a route has at most {MAX_ROUTE} pids, this one has {hops}")
    if max(map(len, route)) > MAX_PID:
        longest = max(route, key=len)
        raise UnknownProcess(f"no pid has more than {MAX_PID} characters, as {shown(longest)} has")


def _check_size(link: Link, event: str, payload: Payload, size: int) -> None:
    if size <= link.limit:
        return
    if not link.is_limited and type(payload) is list:
        return  # between relatives only what has to be in one frame is limited
    raise MessageTooLarge(
        f"event {event!r} has {size} bytes, {link.title} takes at most {link.limit} (socket.maxMessage)"
    )
