"""What the neighbours of a process know of it: that it is there, what it listens to, and what is below it.

All methods are called with the state lock held, except ``interest_changed``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._core.interest import Change
from .._core.messages import (
    ANSWERS,
    EVERYTHING,
    INTERESTS,
    MAX_ANSWERERS,
    MAX_CAPACITY,
    MAX_INTEREST,
    OFFLINE,
    ONLINE,
    PARENT,
    QUIET,
    RESERVED_EVENTS,
    Record,
    control,
)
from .._core.shares import Shares, size_of
from .._core.state import Stage
from .._core.topology import Up
from .._exceptions import NotConnected
from .._links.link import Link
from .backpressure import wait_to_tell
from .local_events import LocalEvents
from .node_state import NodeState

_PRIVATE = RESERVED_EVENTS | {"error"}  # never sent, so no neighbour needs to know who listens to them


class Presence:
    """The presence of one node. ``on_unheard()`` is called when an event has no listener any more."""

    def __init__(self, node: NodeState, events: LocalEvents, on_unheard: Callable[[], None]) -> None:
        self._node = node
        self._events = events
        self._on_unheard = on_unheard
        self._outage_told = False  # this outage was reported
        self._shared: Link | None = None  # the parent in whose outbox the shares are
        self._shares = Shares()
        self._wants_everything = False  # what the parent was told last of all interest: every event
        self._told_answers: set[str] = set()  # events of which the parent knows how many answer them

    def rename(self, pid: str) -> None:
        """Take over another pid that was agreed on, and send it to the children."""
        router = self._node.router
        router.rename(pid)
        children: list[Any] = router.child_links()
        for child in children:
            child.tell(control(PARENT, pid=pid))

    # Upwards

    def announce(self) -> None:
        """Send our ``online`` to the parent, after everything that is wanted here and below."""
        node = self._node
        router = node.router
        node.announced = True
        router.own_interests([name for name in node.dispatcher.wanted() if name not in _PRIVATE])
        router.own_answered(node.asks.answered())
        if router.up is Up.OPEN:
            self._tell_interest()
        self.tell_up(control(ONLINE, path=router.path))

    def announce_again(self) -> None:
        """Announce this process after a reconnect, then all processes that are online below it, top down."""
        self._outage_told = False
        self.announce()
        router = self._node.router
        for path in router.announced():
            self.tell_online(path)

    def _tell_interest(self) -> None:
        """Let the parent be told all that is wanted here and below."""
        parent: Any = self._node.router.parent
        parent.outbox.put_all_interest(self._all_interest)
        parent.prompt()

    def _all_interest(self) -> list[Record]:
        """Return the records that tell the parent what is wanted, and answered, here and below.

        Where these are more names than the parent would keep, it is told that every event is wanted. Called
        when that record leaves.
        """
        interest = self._node.router.interest
        names = interest.all()
        self._wants_everything = interest.is_everything or len(names) > MAX_INTEREST
        first = control(EVERYTHING) if self._wants_everything else control(INTERESTS, events=names)
        sums = self._node.router.told_answers()[:MAX_INTEREST]
        self._told_answers = {event for event, _, _ in sums}
        return [
            first,
            *(
                control(
                    ANSWERS,
                    event=event,
                    answerers=min(count, MAX_ANSWERERS),
                    capacity=min(capacity, MAX_CAPACITY),
                )
                for event, count, capacity in sums
            ),
        ]

    def advertise(self, change: Change) -> None:
        """Let the parent be told which events began or ceased to be wanted, here and below.

        A parent that was told that every event is wanted, because there are too many names, is told no single
        one any more: as it does not forget that either before the connection ends.
        """
        router = self._node.router
        if router.up is not Up.OPEN or change == Change():
            return
        parent: Any = router.parent
        for event, count, capacity in change.answers:
            if event not in self._told_answers and len(self._told_answers) >= MAX_INTEREST:
                continue  # more than the parent would keep, which takes that for a forged record
            if count:
                self._told_answers.add(event)
            else:
                self._told_answers.discard(event)
            parent.outbox.put_answers(event, min(count, MAX_ANSWERERS), min(capacity, MAX_CAPACITY))
            parent.prompt()
        if change.everything is not None:
            self._tell_interest()
        elif not self._wants_everything:
            if router.interest.total > MAX_INTEREST:
                self._tell_interest()
                return
            for event in change.advertise:
                parent.outbox.put_interest(event, True)
            for event in change.withdraw:
                parent.outbox.put_interest(event, False)
            parent.prompt()

    def tell_up(self, record: Record, source: Link | None = None) -> None:
        """Queue an ONLINE or OFFLINE for the parent, if there is an open link to it.

        ``source`` is the neighbour that it is from, or about; None for what is announced at a connect.
        """
        self._tell_all_up([record], source)

    def tell_online(self, path: tuple[str, ...], source: Link | None = None) -> None:
        """Queue an ONLINE for the parent, and before it that the process is quiet where it is so.

        ``path`` is the one by which it is known here. ``source`` is as for ``tell_up``.
        """
        router = self._node.router
        pids = (*path, router.pid)
        quiet = [control(QUIET, path=pids)] if router.netmap.is_quiet(path) else []
        self._tell_all_up([*quiet, control(ONLINE, path=pids)], source)

    def _tell_all_up(self, records: list[Record], source: Link | None) -> None:
        """Queue all of these records for the parent, or none of them."""
        router = self._node.router
        if router.up is not Up.OPEN:
            return
        parent: Any = router.parent
        if source is not None and not self._is_reached(parent) and self._is_used_up(source, parent):
            return  # with its first connection it is told all that holds then
        for record in records:
            size = size_of(*[item for item in record[1:] if type(item) is tuple])
            parent.outbox.put(record, size)
            if source is not None:
                self._shares_in(parent).add(source, parent.outbox.controls_put, size)
        parent.prompt()

    def wait_to_tell(self, source: Link) -> None:
        """Wait until this neighbour may bring an ONLINE or OFFLINE. Lock held, released meanwhile.

        In the reader thread of that link.
        """
        wait_to_tell(self._node, source, lambda: self._may_tell(source))

    def _may_tell(self, source: Link) -> bool:
        """Return whether news from this neighbour may be put into the outbox to the parent."""
        router = self._node.router
        if router.up is not Up.OPEN:
            return True
        parent: Any = router.parent
        return not self._is_reached(parent) or not self._is_used_up(source, parent)

    def _is_reached(self, parent: Link) -> bool:
        """Return whether what waits for the parent will be written, unless its session ends before."""
        return parent.connection is not None or parent.is_interrupted

    def _is_used_up(self, source: Link, parent: Link) -> bool:
        return self._shares_in(parent).is_used_up(source, parent.outbox.controls_taken)

    def _shares_in(self, parent: Link) -> Shares:
        """Return the shares in the outbox to this parent, new ones where it is another link than before."""
        if parent is not self._shared:
            self._shared, self._shares = parent, Shares()
        return self._shares

    def lose_up(self, count: int = 1) -> None:
        """Count the upward part of fan-outs as lost, because the server is away.

        Report that once in each outage.
        """
        node, router = self._node, self._node.router
        parent: Any = router.parent
        parent.drop("disconnected", count)
        if router.up is Up.AWAY and not self._outage_told:
            self._outage_told = True
            server = router.neighbours[parent].pid
            text = f"the server {server} is away; what {node.place()} sends upwards is lost until it is back"
            node.error(NotConnected(text))

    def interest_changed(self, event: str) -> None:
        """Note that the listeners of an event changed, and advertise that.

        Called in any thread, perhaps inside the state lock; then the rest is deferred until it is released.
        """
        node = self._node
        listens = node.dispatcher.listens_to
        if not listens(event):
            self._on_unheard()
        if event in _PRIVATE:
            return
        lock = node.lock
        if lock.inside():
            lock.defer(self.interest_changed, event)
            return
        with lock:
            if node.announced and node.stage is Stage.OPEN:
                self.advertise(node.router.own_interest(event, listens(event)))

    def answers_changed(self, event: str, capacity: int) -> None:
        """Advertise how many requests of an event this process works on at once now; 0: none. Lock held."""
        node = self._node
        if not capacity:
            self._on_unheard()
        if node.announced and node.stage is Stage.OPEN:
            self.advertise(node.router.own_answers(event, capacity))

    # Links that are gone

    def child_gone(
        self, link: Link, exitcode: int | None, cause: str = "link-cut"
    ) -> tuple[bool, list[Callable[[], None]]]:
        """Remove a child that has ended and whose link is read to the end.

        Returns whether it was online, and the notices of ``offline`` to run in order, for it and for all
        below it, but for quiet ones. What was not written yet is counted as lost by ``cause``.
        """
        router = self._node.router
        neighbour = router.neighbours.get(link)
        if neighbour is None:
            return False, []
        online = neighbour.online
        quiet = router.quiet_at(link)
        gone, change = router.remove_child(link)
        link.drop_waiting(cause)
        self._node.remember(link)
        link.wake_waiters()
        self.advertise(change)
        notices: list[Callable[[], None]] = []
        for path in gone:
            code = exitcode if len(path) == 1 else None
            self.tell_up(control(OFFLINE, path=router.path, gone=path, exitcode=code), link)
            if path not in quiet:
                notices.append(self._offline_notice(path[0], code))
        return online, notices

    def child_away(self, link: Link) -> list[Callable[[], None]]:
        """Note that the connection to a client was cut while its session may go on.

        Returns the notices of ``offline``, as ``child_gone`` does. What is known of it stays.
        """
        router = self._node.router
        neighbour = router.neighbours.get(link)
        if neighbour is None or neighbour.is_away:  # told already: it was cut again before it was back
            return []
        notices = []
        for path in sorted(router.set_away(link, True), key=len, reverse=True):
            self.tell_up(control(OFFLINE, path=router.path, gone=path, exitcode=None))
            if not router.netmap.is_quiet(path):
                notices.append(self._offline_notice(path[0], None))
        return notices

    def child_back(self, link: Link) -> list[tuple[str, ...]]:
        """Note that the session of a client, or with the server, goes on.

        Returns the paths of those that are online again and not quiet, top down, with this process at their
        ends: none where it is the server.
        """
        router = self._node.router
        paths = router.set_away(link, False)
        for path in paths:
            self.tell_online(path)
        if paths:
            link.tell(control(PARENT, pid=router.pid))
        return [(*path, router.pid) for path in paths if not router.netmap.is_quiet(path)]

    def give_up(self, link: Link, cause: str) -> None:
        """Remove a client whose session will not go on: its ``offline`` was told when it was cut."""
        node = self._node
        link.forget_session(cause)
        if link in node.router.neighbours:
            _, change = node.router.remove_child(link)
            self.advertise(change)
        link.drop_waiting(cause)
        link.wake_waiters()
        self.retire(link)

    def _offline_notice(self, pid: str, exitcode: int | None) -> Callable[[], None]:
        """Return a call that delivers ``offline`` for one process. It runs in the notices thread."""

        def notice() -> None:
            self._events.deliver("offline", (pid,), exitcode=exitcode)

        return notice

    def retire(self, link: Link) -> None:
        """End a link that is not used any more, and keep its counters.

        Its threads end by themselves; the list of retired links is for the stop, which joins them.
        """
        node = self._node
        link.end()
        ended = [other for other in node.retired if not other.is_alive()]
        for other in ended:
            node.remember(other)
        node.retired = [other for other in node.retired if other not in ended]
        node.retired.append(link)
