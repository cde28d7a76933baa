"""Requests and answers, put into outboxes and written where the link is idle.

Everything here runs in the thread that asks or answers, but the short answers, which each thread that finds
something out puts. What waits for room waits as an event does, see ``_node/backpressure.py``. A request is
noted in ``Requests`` under the state lock under which it is put, and only while the emitter is open: what is
noted when a stop begins is ended by ``Asking.end_all``, and later nothing more is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._core.decisions import Plan
from .._core.messages import ANSWER, REQUEST, REQUEST_ALL, Payload
from .._core.outbox import OUTBOX_RECORDS, Patience, Verdict
from .._core.requests import MAX_OPEN, REFUSED, Asked, Given, Requests
from .._core.state import Stage
from .._exceptions import NotConnected, OutboxFull
from .._links.link import Link
from .._node.backpressure import (
    ANY_LIMIT,
    LOOK_SECONDS,
    check_size,
    outbox_full,
    put_for_next,
    wait_for_room,
)
from .._node.node import Node
from .._node.planning import NoProcess, plan_message
from .._payload.forms import size_of
from .._payload.numbered import NUMBERS_BYTES, numbered
from .._platform.clock import monotonic
from .._platform.interruptible import runs_deferred
from .deadlines import is_remote, there
from .job import Job, Sink

if TYPE_CHECKING:
    from .._core.crew import Work
    from .._node.backpressure import Restarting
    from .._node.outgoing import Claimed, Route

_OPEN = Stage.OPEN  # a plain name: to look the member up in its class takes longer
MOST_WAITING = 5 * OUTBOX_RECORDS // 2  # records for one neighbour: a full outbox, and answers beside it


class Request:
    """One request that is being put. Its methods are called with the state lock held."""

    __slots__ = ("_deadline", "_node", "_reach", "_requests", "_sink", "_work", "event", "payload", "size")

    def __init__(
        self,
        sends: Sends,
        event: str,
        payload: Payload,
        size: int,
        deadline: int,
        sink: Sink,
        reach: int,
        work: Work | None = None,
    ) -> None:
        self._node = sends.node
        self._requests = sends.requests
        self.event = event
        self.payload = payload  # without numbers
        self.size = size + NUMBERS_BYTES
        self._deadline = deadline
        self._sink = sink
        self._reach = reach  # as for Requests.put
        self._work = work  # for a request to any

    def check(self, link: Link) -> None:
        """Raise OutboxFull where too many are open at this link."""
        if self._requests.is_full(link):
            count = self._requests.count(link)
            raise OutboxFull(f"request {self.event!r} was not sent: {count} to {link.title} are open")

    def goes_down(self, link: Link, *, waits: bool = False) -> Payload:
        """Note that it goes down this link, just before that, and return its payload there.

        ``waits``: it is for the next process there, while what the last one wrote is still read. Raises
        Closed where a stop has begun meanwhile: ``end_all`` may be over, and would not find it.
        """
        node, sink = self._node, self._sink
        if node.stage is not _OPEN:
            raise node.stage_error()
        if self._work is None:
            number = self._requests.put(link, sink, self.event, waits=waits, reach=self._reach)
        else:
            given = Given(sink, self._work)
            given.reach = self._reach
            self._work.attempts += 1
            number = self._requests.add(link, given)
        sink.left += 1
        sink.places += ((link, number),)
        deadline = self._deadline and there(self._deadline, is_remote(link))
        return numbered(number, deadline, self.payload)

    def is_lost(self, link: Link, why: str) -> None:
        """Let the sink know why a request to all does not go down this link."""
        self._sink.came(link.name, link.given_name, REFUSED, numbered(0, REFUSED, (why,)), False)


class Sends:
    """The sending of the requests and the answers of one process.

    ``asked`` counts its requests that were put; guarded by the state lock.
    """

    def __init__(self, node: Node, requests: Requests) -> None:
        self.node = node
        self.requests = requests
        self.asked = 0

    # Requests

    @runs_deferred
    def offer(self, link: Link, event: str, payload: Payload, size: int, sink: Sink) -> bool:
        """Put a request for a child's process where nothing stands in the way, as most often.

        Returns False, having done nothing, where the way is not known yet, there may be no room, or an error
        is to be raised: then ``put`` is to be called.
        """
        node = self.node
        lock, outgoing = node.lock, node.outgoing
        if lock._is_owned():  # type: ignore[attr-defined]  # see StateLock.inside
            return False
        claimed: Claimed = []
        is_put = False
        try:
            lock.acquire()
            plan = node.router.here[REQUEST].get(((link,), event))
            down = self.requests.down.get(link)
            if (
                plan is not None
                and down is not None
                and node.stage is _OPEN
                and node.announced
                and size < ANY_LIMIT
                and len(down.requests) < MAX_OPEN
            ):
                number = down.last = down.last + 1
                down.requests[number] = Asked(sink, event)
                sink.left, sink.places = 1, ((link, number),)
                is_put = link.outbox.offer(plan, numbered(number, 0, payload), size + NUMBERS_BYTES)
                if is_put:
                    outgoing.sent += 1
                    self.asked += 1
                    if not link.attended:
                        claimed = outgoing.claim((link,))
                else:
                    del down.requests[number]
                    sink.left, sink.places = 0, ()
            lock.release()
            if claimed:
                outgoing.write_claimed(claimed)
        except BaseException:  # of a signal handler
            outgoing.break_off()
            raise
        finally:
            if lock.deferred:
                lock.run_deferred()
        return is_put

    @runs_deferred
    def put(self, kind: int, route: Route | None, request: Request) -> None:
        """Put a request, and write it where the link is idle. Not from inside the state lock.

        ``kind`` and ``route`` are as for ``Router.plan_here``. Waits for room as an addressed event does.
        Raises what is wrong with stage, event or route, MessageTooLarge, OutboxFull, and NoProcess for a
        route that is a link.
        """
        outgoing, lock = self.node.outgoing, self.node.lock
        try:
            lock.acquire()
            if kind == REQUEST_ALL:
                links = self._put_to_all(request)
            else:
                links = self._put_to_one(kind, route, request)
            claimed = outgoing.claim(links)
            lock.release()
            outgoing.write_claimed(claimed)
        except BaseException:  # also of a signal handler
            outgoing.break_off()
            raise
        finally:
            if lock.deferred:
                lock.run_deferred()

    def _put_to_one(self, kind: int, route: Route | None, request: Request) -> tuple[Link, ...]:
        """Put a request for one process. Lock held, released while it waits for room."""
        node = self.node
        event, size = request.event, request.size
        patience = node.outgoing.patience()
        while True:
            plan = plan_message(node, kind, event, route)
            if not plan.forward:  # this process has become the top just now
                raise NotConnected(f"request {event!r} was not sent: {node.place()} has no parent any more")
            (link,) = plan.forward
            if size > ANY_LIMIT:
                check_size(link, event, request.payload, size)
            request.check(link)
            if wait_for_room(node, link, size, 1, patience, event):
                payload = request.goes_down(link)  # the lock was not released since there is room
                if not link.outbox.offer(plan, payload, size):
                    link.outbox.put_message(plan.header, event, payload, size)
                node.outgoing.sent += 1
                self.asked += 1
                return (link,)

    def _put_to_all(self, request: Request) -> tuple[Link, ...]:
        """Put a request to all, as a fan-out is put. Lock held, released while it waits for room.

        A process whose link is gone meanwhile, or takes nothing, stands in the answers with an error.
        """
        node, outgoing = self.node, self.node.outgoing
        event, size = request.event, request.size
        plan = plan_message(node, REQUEST_ALL, event, None)
        links: tuple[Link, ...] = plan.forward
        patience = Patience.FANOUT if outgoing.patience() is Patience.APPLICATION else Patience.LISTENER
        for link in links:
            check_size(link, event, request.payload, size)
            request.check(link)
            if patience is Patience.LISTENER and not link.outbox.has_room(size):
                raise outbox_full(link, event)
        self.asked += 1
        outgoing.sent += 1
        outgoing.more -= 1
        outgoing.filtered += not (links or plan.lost_up)
        if plan.lost_up:
            node.presence.lose_up()
            outgoing.more += 1
        for link in links:
            if link not in node.router.neighbours:  # gone while we waited for another one
                link.drop("link-cut")
                node.remember(link)
                request.is_lost(link, f"{link.title} is gone")
            elif wait_for_room(node, link, size, 1, patience, event):
                link.outbox.put_message(plan.header, event, request.goes_down(link), size)
                if not link.attended:
                    link.prompt()
            else:
                request.is_lost(link, f"{link.title} takes nothing")
            outgoing.more += 1
        return ()

    def put_for(self, child: Restarting, request: Request) -> None:
        """Put a request for the process of a child, or keep it for its next one. Raises as ``put``."""

        def made(link: Link, waits: bool) -> Payload:
            request.check(link)
            payload = request.goes_down(link, waits=waits)
            self.asked += 1
            return payload

        event, payload, size = request.event, request.payload, request.size
        is_put = False
        while not is_put:
            if child.alive:
                try:
                    self.put(REQUEST, (child.link,), request)
                    return
                except NoProcess:  # it ended just now
                    pass
            outgoing = self.node.outgoing
            is_put = put_for_next(self.node, outgoing, child, event, payload, size, kind=REQUEST, made=made)

    # Answers

    def offer_answer(self, job: Job, link: Link, plan: Plan, payload: Payload, size: int) -> bool:
        """Put one answer where there is room for it, while the floor is held, and write it as ``send`` does.

        Returns False where ``put_answer`` is to be called.
        """
        node, outgoing = self.node, self.node.outgoing
        lock = node.lock
        claimed: Claimed = []
        try:
            lock.acquire()
            is_put = job.is_gone
            if not is_put and link in node.router.neighbours and link.outbox.offer(plan, payload, size):
                is_put = True
                outgoing.sent += 1
                if not (link.attended or link.dirty):
                    claimed = outgoing.claim((link,))
            lock.release()
            if claimed:
                outgoing.write_claimed(claimed)
        except BaseException:  # of a signal handler
            outgoing.break_off()
            raise
        return is_put

    @runs_deferred
    def keep_answer(self, job: Job, link: Link, plan: Plan, payload: Payload, size: int) -> bool:
        """Put one answer where there is room for it. It is written with others, by ``write_dirty``.

        Returns False where ``put_answer`` is to be called.
        """
        node = self.node
        with node.lock:
            if job.is_gone:
                return True
            if link not in node.router.neighbours or not link.outbox.offer(plan, payload, size):
                return False
            node.outgoing.sent += 1
            if not link.dirty:
                node.outgoing.mark_dirty(link)
            return True

    @runs_deferred
    def put_answer(self, job: Job, link: Link, payload: Payload, size: int) -> bool:
        """Put an answer, and have it written. Returns whether it was put, or nobody is there to take it.

        Waits for room as long as the asker makes progress; in a listener, and in a thread of the library, it
        does not wait. Not from inside the state lock.
        """
        node, outgoing = self.node, self.node.outgoing
        lock = node.lock
        claimed: Claimed = []
        is_done = False
        waits = outgoing.patience() is Patience.APPLICATION
        try:
            lock.acquire()
            while True:
                is_done = job.is_gone or link not in node.router.neighbours
                if is_done:
                    break
                verdict = link.outbox.decide(size, Patience.FANOUT, monotonic(), link.progress)
                if verdict is Verdict.TAKE:
                    header = node.router.header(ANSWER)
                    link.outbox.put_message(header, job.envelope.event, payload, size)
                    outgoing.sent += 1
                    is_done = True
                    claimed = outgoing.claim((link,))
                    break
                if verdict is not Verdict.WAIT or not waits:
                    break
                link.wait_room(LOOK_SECONDS)
            lock.release()
            outgoing.write_claimed(claimed)
        except BaseException:  # of a signal handler
            outgoing.break_off()
            raise
        finally:
            if lock.deferred:
                lock.run_deferred()
        return is_done

    def put_small(self, link: Link, event: str, answers: list[Payload]) -> None:
        """Put short answers although the outbox is full, and have them written. Lock held."""
        node = self.node
        if not answers or link not in node.router.neighbours or self.hangs_up(link):
            return
        header = node.router.header(ANSWER)
        for payload in answers:
            link.outbox.put_message(header, event, payload, size_of(payload))
        node.outgoing.sent += len(answers)
        node.outgoing.mark_dirty(link)

    def hangs_up(self, link: Link) -> bool:
        """Hang up on an asker for which too many answers wait, and return whether that was done. Lock held.

        To be called before an answer is put although the outbox is full. An honest asker has no more than
        MAX_OPEN requests open, so no more than so many answers wait for it. One for which more wait does not
        read what it asks for.
        """
        if link.outbox.count <= MOST_WAITING:
            return False
        link.disconnect()
        return True

    def defer(self, call: Callable[..., None], *args: Any) -> None:
        """Queue a call for the return of the method that a handler, which calls this, has interrupted."""
        self.node.lock.defer(call, *args)
