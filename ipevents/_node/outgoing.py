"""What user code sends: checked, pickled, planned, put into outboxes, and written where the link is idle.

Everything here runs in the thread that sends. ``planning.py`` decides which way a message goes,
``backpressure.py`` what happens where there is no room.

``send`` puts a message with one call (``offer``) and claims the link with another, only if no thread attends
to it. In between it counts the message, without a call that a signal handler could interrupt. One method for
both would need a call more for each event, which made a flood of sends 8 % slower.
"""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from .._core.decisions import Plan
from .._core.messages import (
    REQUEST,
    REQUEST_ALL,
    SEND_TO,
    TO_CHILD,
    Header,
    Payload,
    Record,
    check_event,
)
from .._core.outbox import OUTBOX_RECORDS, Patience, Verdict
from .._core.state import Stage
from .._exceptions import IPEventsError, NotConnected
from .._links.link import Link
from .._payload import forms
from .._payload.forms import size_of
from .._payload.pickled import pickle_call
from .._platform.clock import monotonic
from .._platform.interruptible import runs_deferred
from .._platform.latches import let_go
from .._platform.threads import library_threads
from .backpressure import (
    ANY_LIMIT,
    LOOK_SECONDS,
    check_size,
    outbox_full,
    put,
    put_for_next,
    wait_for_room,
    wait_to_copy,
)
from .local_events import LocalEvents
from .node_state import NodeState
from .planning import NoProcess, plan_message
from .presence import Presence

if TYPE_CHECKING:
    from .backpressure import Restarting

    class Ask(Protocol):
        """One request that is being put. All of it is called with the state lock held."""

        payload: Payload  # without numbers
        size: int

        def check(self, link: Link) -> None:
            """Raise OutboxFull where too many are open at this link."""

        def goes_down(self, link: Link, *, waits: bool = False) -> Payload:
            """Note that it goes down this link, just before that, and return its payload there.

            ``waits``: it is for the next process there, while what the last one wrote is still read.
            """

        def is_lost(self, link: Link, why: str) -> None:
            """Let the asker know why a request to all does not go down this link."""

    class Wanted(Protocol):
        """A request whose answer is put. ``is_gone``: the process that asked is; state lock."""

        is_gone: bool


Route = tuple[Any, ...]  # of pids, or the link of a child
_Claimed = list[tuple[Link, list[Record]]]  # frames to be written outside the lock
# A plain name: to look the member up in its class would take longer than the comparison.
_OPEN = Stage.OPEN
MOST_WAITING = 5 * OUTBOX_RECORDS // 2  # records for one neighbour: a full outbox, and answers beside it


class Outgoing:
    """The sending side of a node.

    Records that a listener or a forwarding reader puts are collected in ``dirty`` and written when its batch
    is done, by ``write_dirty``.
    """

    def __init__(self, node: NodeState, events: LocalEvents, presence: Presence) -> None:
        self._node = node
        self._events = events
        self._presence = presence
        # The books of what starts here, guarded by the state lock: events that user code sent; how many more
        # copies of them were meant for links (fewer: below 0); how many nobody wanted.
        self.sent = 0
        self.more = 0
        self.filtered = 0
        # Of those that were for this process itself.
        self.delivered = 0
        self.unheard = 0
        self.dirty: list[Link] = []  # links with records that a batch put; guarded by the state lock

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

        A mistake of the caller is raised, or reported as ``error``. An addressed send may wait for room, see
        ``backpressure.py``. Called from inside the state lock, by a signal handler, say, it is deferred.
        """
        node = self._node
        lock = node.lock
        if lock._is_owned():  # type: ignore[attr-defined]  # see StateLock.inside
            lock.defer(self.send, kind, event, args, kwargs, route)
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
                plan = plan_message(node, kind, event, route)
            link = plan.only
            if link is None or size > ANY_LIMIT or not link.outbox.offer(plan, payload, size):
                claims = put(node, self, kind, plan, route, payload, size)
                if plan.lost_up:
                    self._presence.lose_up()
                    self.more += 1
                claimed = self.claim(plan.forward) if claims else []
            else:
                self.sent += 1  # no call since the offer, so no handler comes between the two
                if not link.attended:
                    claimed = self.claim((link,))
            lock.release()
            if claimed is not None:  # None, as in a flood: another thread writes or is about to
                while claimed:
                    link, records = claimed.pop()
                    link.write_now(records)
                if plan.deliver:
                    self._emit(event, args, kwargs)
        except BaseException as exc:
            self.break_off()
            if not isinstance(exc, IPEventsError):
                raise  # of a signal handler, or of the arguments' own code
            node.fail(exc)
        finally:
            if lock.deferred:
                lock.run_deferred()

    def _emit(self, event: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Call the listeners here of an event that was sent to this process itself."""
        heard = True  # also where one of them raises what reaches this caller
        try:
            heard = self._events.emit(event, args, kwargs)
        finally:
            with self._node.lock:
                self.delivered += heard
                self.unheard += not heard

    def break_off(self) -> None:
        """Release the lock and give all claims back, after an exception that may have come at any place.

        The thread did not hold the lock when its call began, and uses none of its claims any more.
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
        """Return the payload and its size for arguments that are not all plain."""
        links = partial(self._links, kind, event, route)
        return pickle_call(args, kwargs, partial(wait_to_copy, self._node, links))

    def _links(self, kind: int, event: str, route: tuple[str, ...] | None) -> tuple[Link, ...]:
        """Return the links that a message is about to go to. Lock held."""
        return plan_message(self._node, kind, event, route).forward

    def claim(self, links: tuple[Any, ...]) -> _Claimed:
        """Take the right to write for these links, for which a message was put.

        Returns the frames to write. Lock held.

        A link that was busy just now is left to its writer thread. What code in a listener sends over such a
        link, or while the frame being read has more to come, is written when that frame is done; the writer
        thread steps in only after LINGER_SECONDS.
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
        """Send along a route, target first (``sendTo``); to our own name, ``emit``.

        Errors as for ``send``.
        """
        if len(route) == 1 and route[0] in self._node.router.names:
            name = self._events.checked(event, sending=True)
            if name is not None:
                with self._node.lock:
                    self.sent += 1
                    self.more -= 1
                self._emit(name, args, kwargs)
        else:
            self.send(SEND_TO, event, args, kwargs, route)

    def send_child(self, pid: str, event: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Send to a direct child (``sendToChild``). Errors as for ``send``."""
        self.send(TO_CHILD, event, args, kwargs, (pid,))

    def send_to_process(
        self, child: Restarting, event: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """Send to a child's process that runs now, or to the next one where that has ended (``Child.send``).

        It sends by the link, which all processes of a child have in common, and not by the pid, which each
        process has for itself. Errors as for ``send``.
        """
        node = self._node
        lock = node.lock
        if lock._is_owned():  # type: ignore[attr-defined]  # see StateLock.inside
            lock.defer(self.send_to_process, child, event, args, kwargs)
            return
        try:
            waits = False
            while not waits:
                if child.alive:
                    try:
                        self.send(TO_CHILD, event, args, kwargs, (child.link,))  # type: ignore[arg-type]
                        return
                    except NoProcess:  # it ended just now
                        pass
                name = check_event(event, sending=True)
                waits = put_for_next(node, self, child, name, *forms.encode(args, kwargs))
        except IPEventsError as exc:
            node.fail(exc, child.handle)
        finally:
            if lock.deferred:
                lock.run_deferred()

    # Requests and answers

    @runs_deferred
    def put_request(self, kind: int, event: str, route: Route | None, ask: Ask) -> None:
        """Put a request, and write it where the link is idle. Not from inside the state lock.

        The arguments are those of ``Router.plan_here``. Waits for room as an addressed event does. Raises
        what is wrong with stage, event or route, MessageTooLarge, OutboxFull, and NoProcess for a route that
        is a link.
        """
        lock = self._node.lock
        claimed: _Claimed = []
        try:
            lock.acquire()
            if kind == REQUEST_ALL:
                links = self._put_to_all(event, ask)
            else:
                links = self._put_to_one(kind, event, route, ask)
            claimed = self.claim(links)
            lock.release()
            while claimed:
                link, records = claimed.pop()
                link.write_now(records)
        except BaseException:  # also of a signal handler
            self.break_off()
            raise
        finally:
            if lock.deferred:
                lock.run_deferred()

    def _put_to_one(self, kind: int, event: str, route: Route | None, ask: Ask) -> tuple[Link, ...]:
        """Put a request for one process. Lock held, released while it waits for room."""
        node = self._node
        patience = self._patience()
        while True:
            plan = plan_message(node, kind, event, route)
            if not plan.forward:  # this process has become the top just now
                raise NotConnected(f"request {event!r} was not sent: {node.place()} has no parent any more")
            (link,) = plan.forward
            if ask.size > ANY_LIMIT:
                check_size(link, event, ask.payload, ask.size)
            ask.check(link)
            if wait_for_room(node, link, ask.size, 1, patience, event):
                payload = ask.goes_down(link)  # the lock was not released since there is room
                if not link.outbox.offer(plan, payload, ask.size):
                    link.outbox.put_message(plan.header, event, payload, ask.size)
                self.sent += 1
                return (link,)

    def _put_to_all(self, event: str, ask: Ask) -> tuple[Link, ...]:
        """Put a request to all, as a fan-out is put. Lock held, released while it waits for room.

        A process whose link is gone meanwhile, or takes nothing, stands in the answers with an error.
        """
        node = self._node
        plan = plan_message(node, REQUEST_ALL, event, None)
        links: tuple[Link, ...] = plan.forward
        patience = Patience.FANOUT if self._patience() is Patience.APPLICATION else Patience.LISTENER
        for link in links:
            check_size(link, event, ask.payload, ask.size)
            ask.check(link)
            if patience is Patience.LISTENER and not link.outbox.has_room(ask.size):
                raise outbox_full(link, event)
        self.sent += 1
        self.more -= 1
        self.filtered += not (links or plan.lost_up)
        if plan.lost_up:
            self._presence.lose_up()
            self.more += 1
        for link in links:
            if link not in node.router.neighbours:  # gone while we waited for another one
                link.drop("link-cut")
                node.remember(link)
                ask.is_lost(link, f"{link.title} is gone")
            elif wait_for_room(node, link, ask.size, 1, patience, event):
                link.outbox.put_message(plan.header, event, ask.goes_down(link), ask.size)
                if not link.attended:
                    link.prompt()
            else:
                ask.is_lost(link, f"{link.title} takes nothing")
            self.more += 1
        return ()

    def put_request_for_next(self, child: Restarting, event: str, ask: Ask) -> bool:
        """Keep a request for the next process of a child. Returns as ``put_for_next``, and raises as that."""

        def made(link: Link, waits: bool) -> Payload:
            ask.check(link)
            return ask.goes_down(link, waits=waits)

        return put_for_next(self._node, self, child, event, ask.payload, ask.size, kind=REQUEST, made=made)

    def offer_answer(self, job: Wanted, link: Link, plan: Plan, payload: Payload, size: int) -> bool:
        """Put one answer where there is room for it, while the floor is held, and write it as ``send`` does.

        Returns False where ``put_answers`` is to be called.
        """
        lock = self._node.lock
        claimed = None
        try:
            lock.acquire()
            is_put = job.is_gone
            if not is_put and link in self._node.router.neighbours and link.outbox.offer(plan, payload, size):
                is_put = True
                self.sent += 1
                if not (link.attended or link.dirty):
                    claimed = self.claim((link,))
            lock.release()
            if claimed:
                for each, records in claimed:
                    each.write_now(records)
        except BaseException:  # of a signal handler
            self.break_off()
            raise
        return is_put

    @runs_deferred
    def put_answer(
        self, job: Wanted, link: Link, header: Header, event: str, payload: Payload, size: int
    ) -> bool:
        """Put an answer, and have it written. Returns whether it was put, or nobody is there to take it.

        Waits for room as long as the asker makes progress; in a listener, and in a thread of the library, it
        does not wait. Not from inside the state lock.
        """
        node = self._node
        lock = node.lock
        claimed: _Claimed = []
        is_done = False
        waits = self._patience() is Patience.APPLICATION
        try:
            lock.acquire()
            while True:
                is_done = job.is_gone or link not in node.router.neighbours
                if is_done:
                    break
                verdict = link.outbox.decide(size, Patience.FANOUT, monotonic(), link.progress)
                if verdict is Verdict.TAKE:
                    link.outbox.put_message(header, event, payload, size)
                    self.sent += 1
                    is_done = True
                    claimed = self.claim((link,))
                    break
                if verdict is not Verdict.WAIT or not waits:
                    break
                link.wait_room(LOOK_SECONDS)
            lock.release()
            while claimed:
                link, records = claimed.pop()
                link.write_now(records)
        except BaseException:
            self.break_off()
            raise
        finally:
            if lock.deferred:
                lock.run_deferred()
        return is_done

    def put_small_answers(self, link: Link, header: Header, event: str, answers: list[Payload]) -> None:
        """Put short answers although the outbox is full, and have them written. Lock held."""
        if link not in self._node.router.neighbours or self.hangs_up(link):
            return
        for payload in answers:
            link.outbox.put_message(header, event, payload, size_of(payload))
        self.sent += len(answers)
        self.mark_dirty(link)

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

    def _patience(self) -> Patience:
        """Return how long the calling code may wait for room."""
        if self._node.dispatcher.runs_here() or get_ident() in library_threads:
            return Patience.LISTENER
        return Patience.APPLICATION

    def defer(self, call: Callable[..., None], *args: Any) -> None:
        """Queue a call for the return of ``send`` or ``write_dirty``.

        Called by a handler that has interrupted it.
        """
        self._node.lock.defer(call, *args)

    def mark_dirty(self, link: Link) -> None:
        """Have a link written after the batch: a listener, or a reader that forwards, has put something.

        Lock held.
        """
        if not link.dirty:
            self.dirty += (link,)
            link.dirty = True
            self._node.dispatcher.owe_idle()
        link.defer()

    @runs_deferred
    def write_dirty(self) -> None:
        """Write what was put during a batch. Lock not held."""
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
            self.break_off()
            raise
        finally:
            if lock.deferred:
                lock.run_deferred()
