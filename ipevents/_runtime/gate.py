"""The public socket: this process as the server that others connect to, or as a client of one.

Workers and forked children never open it; sockets make exactly one level of the tree.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from multiprocessing.connection import Connection

from .._core.handshake import HUNG_UP, WRONG_KEY, Identity, Refusal
from .._core.messages import MAX_ROUTE
from .._core.state import Stage
from .._exceptions import LinkError
from .._options import Options
from . import keys
from .acceptor import CLOSE_SECONDS, EVICTED, Acceptor
from .client import Arrival, Client
from .connector import CLOSE_SECONDS as CLIENT_CLOSE_SECONDS
from .connector import Joined, Listening, join
from .dial import Attempt, Connected
from .link import Link
from .node import Node
from .session import Session
from .threads import Deadline

PURPOSE = b"link"  # the key of the public socket's handshake is derived from the tree's key for this


class Gate:
    """One emitter's public socket, between ``join`` and ``close``. ``say_ready`` as for Client."""

    def __init__(
        self,
        node: Node,
        options: Options,
        incarnation: int,
        *,
        say_ready: Callable[[], None],
    ) -> None:
        self._node = node
        self._options = options
        self._incarnation = incarnation
        self._say_ready = say_ready
        self._key = keys.derive(keys.tree_key(options.authkey), PURPOSE)
        self._clients: dict[Link, int] = {}  # incarnation by link; guarded by the state lock
        # What takes the place of a stale link once that is read to its end; guarded by the state lock.
        self._successors: dict[Link, tuple[Link, Session, Identity, str]] = {}
        # Links whose offline of a predecessor is still being told; guarded by the state lock.
        self._arriving: dict[Link, Session] = {}
        self._acceptor: Acceptor | None = None
        self.client: Client | None = None  # once another process turned out to be the server

    def join(self, attempt: Attempt) -> Joined:
        """Connect, or listen; another thread may break ``attempt`` off.

        Blocks as connector.join; no thread is started. Raises LinkError.
        """
        options = self._options
        return join(
            socket_path=options.socket_path,
            host=options.host,
            port=options.port,
            only_connect=options.only_connect,
            key=self._key,
            me=self._me("" if options.socket_path is None else self._node.router.pid),
            attempt=attempt,
        )

    def begin(self, joined: Joined) -> Arrival | None:
        """Serve what ``join`` gave. Returns the connection to the server if there is one.

        Raises RuntimeError where no thread can be started, and OSError where there is no descriptor; then
        what was joined is closed, and nothing serves it.
        """
        try:
            return self._begin(joined)
        except BaseException:  # Ctrl-C as well: nobody else knows of it
            self.give_up(joined, None)
            raise

    def give_up(self, joined: Joined, arrival: Arrival | None) -> None:
        """A start has failed: what ``begin`` has made of ``joined``, if anything, is ended. Idempotent."""
        if self._acceptor is None:
            joined.close()
        if arrival is not None:
            arrival.session.socket.close()
        self.begin_close()
        self.close(Deadline(CLOSE_SECONDS))
        if self.client is not None:
            self.client.discard()

    def _begin(self, joined: Joined) -> Arrival | None:
        if isinstance(joined, Listening):
            self._acceptor = Acceptor(
                *joined.listeners,
                name="socket",
                me=lambda: self._me(self._node.router.pid),
                find_key=lambda key_id: self._key if not key_id else None,
                admit=self._admit,
                on_accepted=self._accepted,
                on_refused=self._refused,
                socket_file=joined.socket_file,
            )
            return None
        self.client = Client(self._node, self._options, key=self._key, me=self._me, say_ready=self._say_ready)
        return self.client.begin(joined if isinstance(joined, Connected) else None)

    def begin_close(self) -> None:
        """No new links, from now on; those that there are stay. Never blocks."""
        if self._acceptor is not None:
            self._acceptor.begin_close()
        if self.client is not None:
            self.client.begin_close()

    def close(self, deadline: Deadline) -> None:
        """Wait for the ends of acceptor and connector, behind ``begin_close``."""
        left = deadline.left()
        if self._acceptor is not None:
            self._acceptor.close(CLOSE_SECONDS if left is None else left)
        if self.client is not None:
            self.client.close(CLIENT_CLOSE_SECONDS if left is None else min(CLIENT_CLOSE_SECONDS, left))
        with self._node.lock:  # from here on nothing arrives: what has not found its place never will
            for link, session in self._arriving.items():
                session.socket.close()
                link.end()
                self._node.retired.append(link)
            self._arriving.clear()
            for stale in list(self._successors):
                self._drop_successor(stale)

    def cannot_serve(self) -> bool:
        """Whether new clients need threads that this Python cannot start once the script has ended."""
        return (3, 12, 0) <= sys.version_info[:3] <= (3, 12, 2) and self.client is None

    def abandon(self) -> None:
        """In a forked child: give the descriptors back."""
        if self._acceptor is not None:
            self._acceptor.abandon()
        if self.client is not None:
            self.client.abandon()
        for link in self._clients:
            link.abandon()

    def _me(self, pid: str) -> Identity:
        return Identity(pid, self._incarnation, sys.version_info[:2], self._options.max_message)

    # As a server, in the acceptor's thread

    def _admit(self, identity: Identity, key_id: bytes, address: str) -> str | Refusal:
        with self._node.lock:
            if self._node.stage is not Stage.OPEN:
                return Refusal("stopping", "the server is stopping")
            if len(self._node.router.names) > MAX_ROUTE:
                return Refusal("names", "the server has too many names")
            wanted = identity.pid or address
            if not wanted:
                return Refusal("nameless", "a client over a path has to say its pid")
            return self._node.given.give(
                wanted, identity.incarnation, lambda name: self._is_taken(name, identity)
            )

    def _is_taken(self, name: str, identity: Identity) -> bool:
        """Lock held: whether this process or another neighbour than the one that connects has a name."""
        router = self._node.router
        link = router.child_link(name)
        return name in router.names or (link is not None and not self._is_stale(link, identity))

    def _is_stale(self, link: object, identity: Identity) -> bool:
        """Lock held: whether a link belongs to the very process that connects now."""
        return any(
            known is link and number == identity.incarnation for known, number in self._clients.items()
        )

    def _accepted(self, connection: Connection, identity: Identity, pid: str, key_id: bytes) -> None:
        node = self._node
        limit = min(self._options.max_message, identity.max_message)
        try:
            link = Link(pid, node.lock, node.receive, self._client_closed)
            link.role = "client"
        except RuntimeError as exc:  # no more threads: too many, or a Python that is about to end
            connection.close()
            self._node.incoming.count_refused("no-thread")
            node.error(LinkError(f"client {pid} was refused: {exc}"))
            return
        try:
            session = Session(connection, limit)
        except OSError:
            with node.lock:
                link.end()
            raise
        with node.lock:
            known = [old for old, number in self._clients.items() if number == identity.incarnation]
            stale = known[0] if known else None
            if stale is not None:
                self._drop_successor(stale)
                self._successors[stale] = (link, session, identity, pid)
                stale.close_session()  # what has arrived is read first; then _client_closed goes on
            else:
                self._arriving[link] = session
        if stale is None:
            node.after_offlines(lambda: self._attach(link, session, identity, pid))

    def _drop_successor(self, stale: Link) -> None:
        """Lock held: a still newer connection takes the place, or nobody does."""
        successor = self._successors.pop(stale, None)
        if successor is not None:
            successor[1].socket.close()
            successor[0].end()
            self._node.retired.append(successor[0])

    def _attach(self, link: Link, session: Session, identity: Identity, pid: str) -> None:
        node = self._node
        with node.lock:
            self._arriving.pop(link, None)
            if link.ended:
                return  # by close()
            if node.stage is not Stage.OPEN or node.router.child_link(pid) is not None:
                session.socket.close()
                link.end()
                node.retired.append(link)
                return
            self._clients[link] = identity.incarnation
            node.router.add_child(link, pid)
            link.attach(session)

    def _remove(self, link: Link) -> None:
        """Lock held: a client is gone."""
        if self._clients.pop(link, None) is None:
            return
        _, notices = self._node.child_gone(link, None)
        self._node.tell_offlines(notices)
        self._node.retire(link)

    def _client_closed(self, link: Link, error: Exception | None) -> None:
        if isinstance(error, LinkError):
            self._node.error(error)
        with self._node.lock:
            successor = self._successors.pop(link, None)
            if successor is not None:
                self._arriving[successor[0]] = successor[1]
            self._remove(link)
        if successor is not None:
            self._node.after_offlines(lambda: self._attach(*successor))

    def _refused(self, cause: str, address: str) -> None:
        self._node.incoming.count_refused(cause)
        if cause not in (HUNG_UP, EVICTED):
            where = f" from {address}" if address else ""
            remedy = "; both ends need the same socket.authkey" if cause == WRONG_KEY else ""
            self._node.error(LinkError(f"a connection{where} was refused: {cause}{remedy}"))
