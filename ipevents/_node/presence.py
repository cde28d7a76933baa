"""What the neighbours of a process know of it: that it is there, what it listens to, and who is below it.

All methods are called with the state lock held, but for ``interest_changed``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._core.interest import Change
from .._core.messages import OFFLINE, ONLINE, PARENT, RESERVED_EVENTS, Record, count_messages
from .._core.router import Up
from .._core.state import Stage
from .._exceptions import NotConnected
from .._links.link import Link
from .local_events import LocalEvents
from .node_state import NodeState

_PRIVATE = RESERVED_EVENTS | {"error"}  # never sent, so no neighbour needs to know who listens to them


class Presence:
    """The presence of one node. ``on_unheard()`` is called when an event has no listener any more."""

    def __init__(self, node: NodeState, events: LocalEvents, on_unheard: Callable[[], None]) -> None:
        self._node = node
        self._events = events
        self._on_unheard = on_unheard
        self._outage_told = False  # the error of this outage was given

    def rename(self, pid: str) -> None:
        """We have agreed on another pid; children are told."""
        router = self._node.router
        router.rename(pid)
        children: list[Any] = router.child_links()
        for child in children:
            child.tell((PARENT, pid))

    # Upwards

    def announce(self) -> None:
        """Say ``online`` upwards: all interest first."""
        node = self._node
        router = node.router
        node.announced = True
        router.own_interests(name for name in node.dispatcher.wanted() if name not in _PRIVATE)
        if router.up is Up.OPEN:
            parent: Any = router.parent
            parent.outbox.put_interests(router.interest.all())
        self.tell_up((ONLINE, router.path))

    def announce_again(self) -> None:
        """After a reconnect: ourselves, then all that are online below, top down."""
        self._outage_told = False
        self.announce()
        router = self._node.router
        for path in router.netmap.announced():
            self.tell_up((ONLINE, (*path, router.pid)))

    def advertise(self, change: Change) -> None:
        """Tell the parent what began and what ceased to be wanted here and below."""
        router = self._node.router
        if router.up is not Up.OPEN:
            return
        parent: Any = router.parent
        for event in change.advertise:
            parent.outbox.put_interest(event, True)
        for event in change.withdraw:
            parent.outbox.put_interest(event, False)
        if change.advertise or change.withdraw:
            parent.prompt()

    def tell_up(self, record: Record) -> None:
        """Put a control record for the parent, if there is one to take it."""
        router = self._node.router
        if router.up is Up.OPEN:
            parent: Any = router.parent
            parent.tell(record)

    def lose_up(self, count: int = 1) -> None:
        """The upward part of fan-outs is lost in an outage; one error for each outage."""
        node = self._node
        parent: Any = node.router.parent
        parent.drop("disconnected", count)
        if not self._outage_told:
            self._outage_told = True
            server = node.router.neighbours[parent].pid
            text = f"the server {server} is away; what {node.place()} sends upwards is lost until it is back"
            node.error(NotConnected(text))

    def interest_changed(self, event: str) -> None:
        """The listeners of an event changed, in whatever thread, perhaps inside the state lock."""
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

    # Children that are gone

    def child_gone(
        self, link: Link, exitcode: int | None, cause: str = "link-cut"
    ) -> tuple[bool, list[Callable[[], None]]]:
        """A child ended and its link is read. Returns whether it was online, and notices to run in order.

        What was not written yet is counted as lost by ``cause``.
        """
        router = self._node.router
        neighbour = router.neighbours.get(link)
        if neighbour is None:
            return False, []
        online = neighbour.online
        gone, change = router.remove_child(link)
        link.drop(cause, count_messages(link.outbox.clear()))
        link.wake_waiters()
        self.advertise(change)
        notices: list[Callable[[], None]] = []
        for path in gone:
            code = exitcode if len(path) == 1 else None
            self.tell_up((OFFLINE, router.path, path[0], code))
            notices.append(self._offline_notice(path[0], code))
        return online, notices

    def _offline_notice(self, pid: str, exitcode: int | None) -> Callable[[], None]:
        def notice() -> None:
            self._events.deliver("offline", (pid,), exitcode=exitcode)

        return notice

    def retire(self, link: Link) -> None:
        """A link is gone for good. Its threads end; its counters are kept."""
        node = self._node
        link.end()
        self.remember(link)
        node.retired = [other for other in node.retired if other.is_alive()]
        node.retired.append(link)

    def remember(self, link: Link) -> None:
        """Keep the counters of a link that is gone for good."""
        past = self._node.past
        for name in ("sent", "received", "forwarded", "delivered"):
            past[name] += getattr(link, name)
        for cause, count in link.dropped.items():
            past["dropped"][cause] = past["dropped"].get(cause, 0) + count
