"""What user code sends: checked, pickled, planned, put into outboxes, and written where the link is idle.

Everything here runs in the thread that sends. ``planning.py`` decides which way a message goes,
``backpressure.py`` what happens where there is no room.

``send`` puts a message with one call (``offer``) and claims the link with another, only if no thread attends
to it. In between it counts the message, without a call that a signal handler could interrupt. One method for
both would need a call more for each event, which made a flood of sends 8 % slower.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from .._core.messages import SEND_TO, TO_CHILD, Payload, Record, check_event
from .._core.outbox import Patience
from .._core.state import Stage
from .._exceptions import IPEventsError
from .._links.link import Link
from .._payload import forms
from .._payload.pickled import pickle_call
from .._platform.interruptible import runs_deferred
from .._platform.latches import let_go
from .backpressure import ANY_LIMIT, put, put_for_next, wait_to_copy
from .local_events import LocalEvents
from .node_state import NodeState
from .planning import NoProcess, plan_message
from .presence import Presence

if TYPE_CHECKING:
    from .backpressure import Restarting


Route = tuple[Any, ...]  # of pids, or the link of a child
Claimed = list[tuple[Link, list[Record]]]  # frames to be written outside the lock
# A plain name: to look the member up in its class would take longer than the comparison.
_OPEN = Stage.OPEN


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
        claimed: Claimed | None = None
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

    def claim(self, links: tuple[Any, ...]) -> Claimed:
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

    def write_claimed(self, claimed: Claimed) -> None:
        """Write the frames that ``claim`` has returned. Lock not held."""
        while claimed:
            link, records = claimed.pop()
            link.write_now(records)

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

    def patience(self) -> Patience:
        """Return how long the calling code may wait for room."""
        if self._node.dispatcher.must_not_wait():
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
