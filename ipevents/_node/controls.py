"""Control records: what processes send each other about interest, names, starts and ends.

Everything here runs in the reader thread of the link that the record came by. Each handler checks under the
state lock that the link is still a neighbour, changes the router and passes the change on to the parent. It
calls listeners after the lock is released.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._core.books import Outcomes
from .._core.control_checks import check_control
from .._core.interest import Change
from .._core.log_lines import one_line
from .._core.messages import (
    ACKNOWLEDGED,
    ANSWERS,
    CANCEL,
    EVERYTHING,
    GOODBYE,
    INTEREST,
    INTERESTS,
    KIND,
    MAX_CAUSE,
    MAX_INTEREST,
    MORE_INTERESTS,
    OFFLINE,
    ONLINE,
    PARENT,
    QUIET,
    REPORT,
    RESUMED,
    TAKE_BACK,
    TO_CHILD,
    TO_PARENTS,
    Envelope,
    Message,
    Record,
    control,
)
from .._core.router import Router
from .._exceptions import Undeliverable
from .._links.link import Link
from .._links.outlet import CONTROL_BYTES
from .._platform.logs import Log
from .node_state import NodeState
from .presence import Presence

log = Log("ipevents")

_CAUSE_BYTES = 4 * MAX_CAUSE  # of a cause that has only printable characters
_NO_KWARGS: dict[str, Any] = {}


def put_report(link: Link, record: Record) -> None:
    """Queue a report for the origin of an event that was lost on its way. State lock held.

    A report never waits: where the outbox has no room for it, it is dropped.
    """
    if link.outbox.has_room(CONTROL_BYTES):
        link.tell(record)


class Controls:
    """One handler for each kind of control record; it gets the record's items by their names.

    A record that is in no row of the table is about the peer's process and not about the tree. It goes to
    ``on_control(record)`` of its link, and so does the ``online`` of a direct child. ``on_parent()`` is
    called when the parent has answered our ``online``.
    """

    def __init__(
        self,
        node: NodeState,
        presence: Presence,
        on_parent: Callable[[], None],
    ) -> None:
        self._node = node
        self._presence = presence
        self._on_parent = on_parent
        self.undeliverable = 0  # events that started here, and of which a report came; state lock
        self._table: dict[int, Callable[..., None]] = {
            INTEREST: self._take_interest,
            INTERESTS: self._take_interests,
            MORE_INTERESTS: self._take_more_interests,
            EVERYTHING: self._take_everything,
            ONLINE: self._take_online,
            QUIET: self._take_quiet,
            OFFLINE: self._take_offline,
            PARENT: self._take_parent,
            REPORT: self._take_report,
            ACKNOWLEDGED: self._take_acknowledgement,
            RESUMED: self._take_resumed,
            GOODBYE: self._take_goodbye,
            ANSWERS: self._take_answers,
            CANCEL: self._take_cancel,
            TAKE_BACK: self._take_back,
        }

    def take(self, link: Link, record: Record) -> None:
        """Handle a control record.

        Raises Forged or ProtocolError, having changed nothing, for one that cannot be.
        """
        router = self._node.router
        is_parent = link is router.parent if link in router.neighbours else None
        items = check_control(record, is_parent=is_parent, is_public=link.is_public)
        handler = self._table.get(record[KIND])
        if handler is not None:
            handler(link, **items)
        else:
            link.on_control(record)

    def _take_interest(self, link: Link, event: str, wanted: bool) -> None:
        """A neighbour began, or ceased, to want one event."""
        self._change_interest(link, Router.peer_interest, event, wanted)

    def _take_interests(self, link: Link, events: tuple[str, ...]) -> None:
        """A neighbour wants these events, and no other ones."""
        self._change_interest(link, Router.peer_interests, events)

    def _take_more_interests(self, link: Link, events: tuple[str, ...]) -> None:
        """A neighbour wants these events as well."""
        self._change_interest(link, Router.more_peer_interests, events)

    def _take_everything(self, link: Link) -> None:
        """A neighbour wants every event."""
        self._change_interest(link, Router.peer_wants_everything)

    def _change_interest(self, link: Link, change: Callable[..., Change], *items: Any) -> None:
        """Note what a neighbour wants, and pass the change on.

        That it wants too many events to be told apart is logged, once for each link.
        """
        node = self._node
        router = node.router
        with node.lock:
            neighbour = router.neighbours.get(link)
            if neighbour is None:
                return
            self._presence.advertise(change(router, link, *items))
            is_news = router.interest.wants_everything(link) and not neighbour.is_flooded
            neighbour.is_flooded |= is_news
        if is_news:
            log.warning(
                "! %s wants more than %d events: it gets every event from now on, which costs more",
                link.title,
                MAX_INTEREST,
            )

    def _take_online(self, link: Link, path: tuple[str, ...]) -> None:
        """A process below announces its ``online``: note it, pass it on, and deliver it here.

        A direct child gets our pid as the answer, which is its event ``parent``. That a quiet process is
        online is delivered nowhere.
        """
        node = self._node
        with node.lock:
            self._presence.wait_to_tell(link)
            if link not in node.router.neighbours:
                return
            pids = node.router.online(link, path)
            is_quiet = node.router.netmap.is_quiet(path)
            if len(path) == 1:
                link.tell(control(PARENT, pid=node.router.pid))
            self._presence.tell_online(path, link)
            if len(path) == 1:
                node.asks.child_settled()
        if len(path) == 1:
            link.on_control(control(ONLINE, path=path))
        if not is_quiet:
            self._deliver_lifecycle(TO_PARENTS, pids, "online")

    def _take_quiet(self, link: Link, path: tuple[str, ...]) -> None:
        """No listener is told of the process below whose ``online`` follows. Passed on with that."""
        node = self._node
        with node.lock:
            if link in node.router.neighbours:
                node.router.quiet(link, path)

    def _take_offline(
        self, link: Link, path: tuple[str, ...], gone: tuple[str, ...], exitcode: int | None
    ) -> None:
        """A process below has ended: note it, pass it on, and deliver ``offline`` here if it is not quiet."""
        node = self._node
        with node.lock:
            self._presence.wait_to_tell(link)
            if link not in node.router.neighbours:
                return
            is_quiet = node.router.netmap.is_quiet((*gone, *path))
            pids = node.router.offline(link, path, gone)
            self._presence.tell_up(control(OFFLINE, path=pids, gone=gone, exitcode=exitcode), link)
        if not is_quiet:
            self._deliver_lifecycle(TO_PARENTS, pids, "offline", (gone[0],), exitcode)

    def _take_parent(self, link: Link, pid: str) -> None:
        """The parent sends its pid: the answer to our ``online``, or a new name.

        Only the answer is delivered here, as the event ``parent``.
        """
        node = self._node
        with node.lock:
            if link not in node.router.neighbours:
                return
            pid = node.router.parent_renamed(pid)
            link.name = pid
            if not node.announced:
                return  # only a new name; the answer to our online is still to come
        own = node.router.pid
        envelope = Envelope(TO_CHILD, (pid, own), "parent", node.reply, to=own)
        node.dispatcher.deliver(Message(envelope, (pid,)), _NO_KWARGS)
        self._on_parent()

    def _take_acknowledgement(self, link: Link, number: int, outcomes: Outcomes) -> None:
        """A neighbour has handled what we have written, up to the frame with this number."""
        with self._node.lock:
            link.take_acknowledgement(number, outcomes)

    def _take_resumed(self, link: Link, number: int, outcomes: Outcomes) -> None:
        """A session goes on: the neighbour has handled what we have written before, up to this frame.

        From here on what waits is written. What comes from there is handled after the ``online`` of those
        that are back, and that is delivered here after their ``offline``: of this process, where the
        neighbour is its server, and otherwise of the neighbour and of those below it.
        """
        node = self._node
        router = node.router
        with node.lock:
            if link not in router.neighbours:
                return
            link.take_resumed(number, outcomes)
            node.timers.cancel(link)
        if not link.wait_told():
            return
        with node.lock:
            if link not in router.neighbours:
                return
            paths = self._presence.child_back(link)
            is_parent = link is router.parent
        node.asks.answerers_changed()
        if is_parent:
            self._deliver_lifecycle(0, router.path, "online")
        for pids in paths:
            self._deliver_lifecycle(TO_PARENTS, pids, "online")

    def _take_answers(self, link: Link, event: str, answerers: int, capacity: int) -> None:
        """So many processes in a neighbour's subtree answer an event, so many requests at once."""
        self._change_interest(link, Router.peer_answers, event, answerers, capacity)
        self._node.asks.answerers_changed()

    def _take_cancel(self, link: Link, ids: tuple[int, ...]) -> None:
        """Nobody waits any more for the answers to requests that came by this link."""
        self._node.asks.cancelled(link, ids)

    def _take_back(self, link: Link, event: str, ids: tuple[int, ...]) -> None:
        """The parent takes those of these requests back that have not begun."""
        self._node.asks.take_back(link, event, ids)

    def _take_goodbye(self, link: Link) -> None:
        """The neighbour ends, and its session with it."""
        stream = link.connection
        if stream is not None:
            stream.is_leaving = True

    def _take_report(
        self, link: Link, route: tuple[str, ...], event: str, at: str, target: str | None, cause: str
    ) -> None:
        """An event was lost on its way. Report the error if it started here, otherwise pass the record on."""
        node = self._node
        if not route:
            with node.lock:
                self.undeliverable += 1
            cause = one_line(cause, _CAUSE_BYTES)
            kind = (Undeliverable, at, target, cause)
            node.peer_error(kind, lambda more: Undeliverable(event, at, target, cause + more))
            return
        with node.lock:
            next_link, _ = node.router.hop(route)
            found: Any = next_link
            if found is not None:
                rest = control(REPORT, route=route[:-1], event=event, at=at, target=target, cause=cause)
                put_report(found, rest)

    def _deliver_lifecycle(
        self,
        kind: int,
        pids: tuple[str, ...],
        event: str,
        args: tuple[Any, ...] = (),
        exitcode: int | None = None,
    ) -> None:
        """Call the listeners of ``online`` or ``offline`` for a process below, or for this one."""
        envelope = Envelope(kind, pids, event, self._node.reply, exitcode=exitcode)
        self._node.dispatcher.deliver(Message(envelope, args), _NO_KWARGS)
