"""This process as a server: it lets clients in, and keeps the links to them.

A client that connects again after a break may arrive before its old link has been read to the end. Then its
new connection waits as the successor of the old one, so that what the client had sent before is handled
first.

Where the client has a session, the link outlives its connection: for ``socket.resumeWithin`` it stays in the
tree, and a new connection of the same session is attached to it, at once. If the client does not say within
that time where the session goes on, with whatever connection, it is given up. All others get a new link.

Locks: the state lock guards the tables of ``Server``. Threads: the acceptor's, which ``close`` ends. A
client is also handled in the reader thread of its link (``_closed``) and in the notices thread (``_attach``).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from .._core.handshake import HUNG_UP, WRONG_KEY, Identity, Refusal
from .._core.messages import MAX_ROUTE
from .._core.state import Stage
from .._core.window import KEPT_BYTES
from .._exceptions import LinkError
from .._links.link import Link
from .._node.node import Node
from .._options import Options
from .._platform.latches import Latch
from .._platform.threads import Deadline
from .._transport.acceptor import CLOSE_SECONDS, EVICTED, Accepted, Acceptor
from .._transport.join import Listening
from .._transport.stream import Stream

__all__ = ["CLOSE_SECONDS", "Server"]

MAX_LINKS = "max-links"  # a cause of refusals


class _Newcomer(NamedTuple):
    """A client that was let in: its link and its connection, which are not attached to each other yet.

    It is in ``Server._arriving`` or in ``Server._successors`` until ``_attach`` or ``_hang_up``. Where its
    session goes on, the link is the one that it had before.
    """

    link: Link
    stream: Stream
    identity: Identity
    pid: str


class Server:
    """The clients of this process, and the acceptor that lets them in.

    ``key`` is the key of the handshake; ``me(pid)`` returns this process's Identity under that name.
    """

    def __init__(self, node: Node, options: Options, *, key: bytes, me: Callable[[str], Identity]) -> None:
        self._node = node
        self._options = options
        self._key = key
        self._me = me
        self._clients: dict[Link, int] = {}  # the incarnation of each, by link
        self._successors: dict[Link, _Newcomer] = {}  # by the old link, which is still being read
        self._arriving: set[_Newcomer] = set()  # to be attached after the offlines that are being announced
        self._absent: list[Link] = []  # clients that were cut and are not back
        # Clients that were cut, the longest ago first. Those whose session has gone on leave it late.
        self._cut: list[Link] = []
        self._acceptor: Acceptor | None = None

    @property
    def serves(self) -> bool:
        """Whether ``begin`` has taken the listening sockets over."""
        return self._acceptor is not None

    def begin(self, listening: Listening) -> None:
        """Take the listening sockets over, and let clients in.

        Raises RuntimeError where no thread can be started, and OSError where there is no descriptor; then the
        caller still owns the listening sockets.
        """
        self._acceptor = Acceptor(
            *listening.listeners,
            name="socket",
            me=lambda: self._me(self._node.router.pid),
            find_key=lambda key_id: self._key if not key_id else None,
            admit=self._admit,
            on_accepted=self._accepted,
            on_refused=self._refused,
            socket_file=listening.socket_file,
            forwarded=self._options.forwarded,
        )

    def begin_close(self) -> None:
        """Let no client in any more; existing links stay. Never blocks."""
        if self._acceptor is not None:
            self._acceptor.begin_close()

    def close(self, deadline: Deadline) -> None:
        """Wait for the end of the acceptor's thread, then end the links of clients not attached yet.

        Called after ``begin_close``.
        """
        left = deadline.left()
        if self._acceptor is not None:
            self._acceptor.close(CLOSE_SECONDS if left is None else left)
        with self._node.lock:  # no client arrives any more, and those still here will not be attached
            for newcomer in (*self._arriving, *self._successors.values()):
                self._hang_up(newcomer)
            self._arriving.clear()
            self._successors.clear()

    def abandon(self) -> None:
        """Give our copies of the descriptors back in a forked child."""
        if self._acceptor is not None:
            self._acceptor.abandon()
        for link in self._clients:
            link.abandon()

    # In the acceptor's thread

    def _admit(
        self, identity: Identity, key_id: bytes, address: str, session: int | None
    ) -> tuple[str, int] | Refusal:
        """Decide in the handshake whether a client may come in.

        Returns its name here and its session, or a Refusal.
        """
        with self._node.lock:
            if self._node.stage is not Stage.OPEN:
                return Refusal("stopping", "the server is stopping")
            if len(self._node.router.names) > MAX_ROUTE:
                return Refusal("names", "the server has too many names")
            if self._is_full(identity):
                return Refusal(MAX_LINKS, f"the server has {self._limit()}")
            wanted = identity.pid or address
            if not wanted:
                return Refusal("nameless", "a client over a path has to say its pid")
            pid = self._node.given.give(
                wanted, identity.incarnation, lambda name: self._is_taken(name, identity)
            )
            return pid, self._session(identity, session)

    def _is_full(self, identity: Identity) -> bool:
        """Return whether there are as many clients as may be. One that is back has its place. Lock held.

        Those that were cut count until they are given up, because their links are kept.
        """
        new = sum(not newcomer.stream.resumes for newcomer in self._arriving)
        return len(self._clients) + new >= self._options.max_links and self._known(identity) is None

    def _limit(self) -> str:
        most = self._options.max_links
        return f"{most} client{'s' * (most != 1)} already, which is its limit (socket.maxLinks)"

    def _session(self, identity: Identity, wanted: int | None) -> int:
        """Return the number of the session for a client that has the session ``wanted``. Lock held."""
        if wanted is None or not self._options.resume_within:
            return 0
        link = self._known(identity)
        if wanted and link is not None and link.can_resume(wanted):
            return wanted
        return int.from_bytes(os.urandom(8), "big") or 1

    def _known(self, identity: Identity) -> Link | None:
        """Return the link of the very process that connects now, if it has one. Lock held."""
        return next((link for link, number in self._clients.items() if number == identity.incarnation), None)

    def _is_taken(self, name: str, identity: Identity) -> bool:
        """Return whether this process or a neighbour has this name already. Lock held.

        The old link of the very process that connects now does not count.
        """
        router = self._node.router
        link = router.child_link(name)
        return name in router.names or (link is not None and link is not self._known(identity))

    def _accepted(self, accepted: Accepted) -> None:
        """Make a link for a client that was let in.

        It is attached after the end of its old link, if it has one.

        It is also attached after every ``offline`` that is being announced, so that no listener hears of the
        new client before the end of the old one.
        """
        node = self._node
        connection, identity, pid, _, agreement = accepted
        limit = min(self._options.max_message, identity.max_message)
        with node.lock:
            before = self._known(identity)
        if agreement.resumes:
            if before is None:  # the session has ended since it was agreed on; the client will ask again
                connection.close()
            else:
                stream = Stream(connection, limit, agreement, self._options.dead_after)
                self._arrives(_Newcomer(before, stream, identity, pid))
            return
        try:
            link = Link(pid, node.lock, node.incoming.receive, self._closed)
            link.role = "client"
        except RuntimeError as exc:  # no more threads: too many, or a Python that is about to end
            connection.close()
            node.refusals.note("no-thread", f"client {pid} was refused: {exc}")
            return
        try:
            stream = Stream(connection, limit, agreement, self._options.dead_after)
            newcomer = _Newcomer(link, stream, identity, pid)
        except BaseException:  # no descriptor or no memory left: the threads of the link end
            with node.lock:
                link.end()
            raise
        self._arrives(newcomer)

    def _arrives(self, newcomer: _Newcomer) -> None:
        """Attach a client, as soon as what came from it before is read and its ``offline`` is announced."""
        node = self._node
        with node.lock:
            stale = self._known(newcomer.identity)
            is_absent = stale in self._absent  # it is read to its end, and its offline was told
            if stale is not None and is_absent and not newcomer.stream.resumes:
                self._give_up(stale)
            elif stale is not None and not is_absent:
                if stale in self._successors:  # this connection is newer still
                    self._hang_up(self._successors[stale])
                self._successors[stale] = newcomer
                stale.disconnect()  # what has arrived is read first; then _closed goes on
                return
            self._arriving.add(newcomer)
        self._let_in(newcomer)

    def _let_in(self, newcomer: _Newcomer) -> None:
        """Attach a client after all ``offline`` that are being announced.

        One whose session goes on at once: the link waits for them by itself, and what is sent goes on
        meanwhile, however long a listener takes.
        """
        if newcomer.stream.resumes:
            told = Latch()
            self._attach(newcomer, told)
            self._node.events.after_offlines(told.set)
        else:
            self._node.events.after_offlines(lambda: self._attach(newcomer))

    def _refused(self, cause: str, address: str) -> None:
        """Count and report a connection that was refused.

        It is no error if the peer hung up, or if we made room for another connection.
        """
        where = f" from {address}" if address else ""
        text = f"a connection{where} was refused: {cause}"
        if cause in (HUNG_UP, EVICTED):
            self._node.refusals.note_quietly(cause, text)
        else:
            self._node.refusals.note(cause, text + self._remedy(cause))

    def _remedy(self, cause: str) -> str:
        """Return what to do about a refusal, as the end of a sentence."""
        if cause == MAX_LINKS:
            return f"; this server has {self._limit()}"
        return "; both ends need the same socket.authkey" if cause == WRONG_KEY else ""

    # In other threads

    def _attach(self, newcomer: _Newcomer, told: Latch | None = None) -> None:
        """Put a client into the tree, and serve its connection."""
        node = self._node
        link, stream, identity, pid = newcomer
        with node.lock:
            self._arriving.discard(newcomer)
            if link.ended:
                if stream.resumes:
                    stream.socket.close()
                return  # by close()
            if stream.resumes:
                if node.stage is Stage.OPEN and link in self._absent and link.can_resume(stream.session):
                    self._absent.remove(link)
                    link.attach(stream, told)
                else:
                    self._hang_up(newcomer)
                return
            if node.stage is not Stage.OPEN or node.router.child_link(pid) is not None:
                self._hang_up(newcomer)
                return
            self._clients[link] = identity.incarnation
            node.router.add_child(link, pid)
            link.attach(stream)

    def _closed(self, link: Link, error: Exception | None) -> None:
        """Take a client out of the tree and announce its ``offline``, then attach its successor if one waits.

        In the reader thread of the client's link, which has read its connection to the end.
        """
        node = self._node
        if isinstance(error, LinkError):
            node.errors.link_failed(error, link.name)
        with node.lock:
            successor = self._successors.pop(link, None)
            if successor is not None:
                self._arriving.add(successor)
            away = link.away
            if (
                away is not None
                and node.stage is Stage.OPEN
                and node.router.is_online(link)
                and (successor is None or successor.stream.resumes)
            ):
                if link not in self._absent:
                    self._absent.append(link)
                # There are none where it was cut before and the session has not gone on since. Then the time
                # goes on, and it keeps its place.
                notices = node.presence.child_away(link)
                node.events.tell_offlines(notices)
                node.timers.after(self._options.resume_within, link, lambda: self._expire(link))
                if notices or link not in self._cut:
                    self._cut = [*(other for other in self._cut if other is not link), link]
                self._make_room()
            elif self._clients.pop(link, None) is not None:
                self._cut = [other for other in self._cut if other is not link]
                node.timers.cancel(link)
                link.forget_session("link-cut")
                node.asks.link_gone(link)
                _, notices = node.presence.child_gone(link, None)
                node.events.tell_offlines(notices)
                node.presence.retire(link)
        if successor is not None:
            self._let_in(successor)

    def _expire(self, link: Link) -> None:
        """Give a client up that has not come back in time, or not said where the session goes on.

        In the supervisor's thread.
        """
        with self._node.lock:
            if link.is_cut and link in self._clients:
                self._give_up(link)

    def _make_room(self) -> None:
        """Give clients up, the longest cut first, until what is kept for all is no more than for one.

        Also those that have another connection and have not said yet where the session goes on. Lock held.
        """
        self._cut = [link for link in self._cut if link.is_cut]
        kept = [link.kept_bytes for link in self._cut]
        while sum(kept) > KEPT_BYTES:
            self._give_up(self._cut[0])
            del kept[0]

    def _give_up(self, link: Link) -> None:
        """Forget a client whose session does not go on. Lock held."""
        self._node.timers.cancel(link)
        self._clients.pop(link, None)
        for links in (self._absent, self._cut):
            if link in links:
                links.remove(link)
        successor = self._successors.pop(link, None)
        if successor is not None:  # _closed is not called any more, which would attach it; it will ask again
            self._hang_up(successor)
        self._node.asks.link_gone(link)
        self._node.presence.give_up(link, "disconnected")

    def _hang_up(self, newcomer: _Newcomer) -> None:
        """Close a connection that never came into use, and end its link if that is a new one. Lock held."""
        newcomer.stream.socket.close()
        if not newcomer.stream.resumes:
            newcomer.link.end()
            self._node.retired.append(newcomer.link)
