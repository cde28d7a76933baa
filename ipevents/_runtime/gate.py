"""The public socket: this process as the server that others connect to, or as a client of one.

Workers and forked children never open it; sockets make exactly one level of the tree.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from multiprocessing.connection import Connection

from .._core.flow import count_messages
from .._core.handshake import Identity, Refusal, Welcomed
from .._core.messages import MAX_ROUTE
from .._core.router import Up
from .._exceptions import LinkError, ProtocolError
from .._options import Options
from . import keys
from .acceptor import Acceptor
from .connector import Attempt, Connected, Connector, Joined, Listening, dial, join
from .link import Link
from .node import Node
from .session import Session
from .stage import Stage
from .threads import Deadline

PURPOSE = b"link"  # the key of the public socket's handshake is derived from the tree's key for this


class Gate:
    """One emitter's public socket, between ``join`` and ``close``.

    ``on_connected(session)`` is called in the connector's thread with a connection to the server that is not
    attached yet; ``on_lost(pid)`` in the parent link's reader after the server went.
    """

    def __init__(
        self,
        node: Node,
        options: Options,
        incarnation: int,
        *,
        on_connected: Callable[[Session, str, str], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._node = node
        self._options = options
        self._incarnation = incarnation
        self._on_connected = on_connected
        self._on_lost = on_lost
        self._key = keys.derive(keys.tree_key(options.authkey), PURPOSE)
        self._clients: dict[Link, int] = {}  # incarnation by link; guarded by the state lock
        # What takes the place of a stale link once that is read to its end; guarded by the state lock.
        self._successors: dict[Link, tuple[Link, Session, Identity, str]] = {}
        self._acceptor: Acceptor | None = None
        self._connector: Connector | None = None
        self._agreed = ""  # the pid that a server gave us
        self._closing = False
        self._is_server = False
        self.parent: Link | None = None

    def join(self) -> Joined:
        """Connect, or listen. Blocks as connector.join; no thread is started. Raises LinkError."""
        options = self._options
        return join(
            socket_path=options.socket_path,
            host=options.host,
            port=options.port,
            only_connect=options.only_connect,
            key=self._key,
            me=self._me(),
        )

    def begin(self, joined: Joined) -> tuple[Session, str, str] | None:
        """Serve what ``join`` gave.

        Returns the session, our pid and the server's if there is a connection.
        """
        if isinstance(joined, Listening):
            self._is_server = True  # before the acceptor's thread asks who we are
            self._acceptor = Acceptor(
                joined.listener,
                name="socket",
                me=self._me,
                find_key=lambda key_id: self._key if not key_id else None,
                admit=self._admit,
                on_accepted=self._accepted,
                on_refused=self._refused,
                socket_file=joined.socket_file,
            )
            return None
        self.parent = Link("server", self._node.lock, self._node.receive, self._parent_closed)
        with self._node.lock:
            self._node.router.set_parent(self.parent, "", Up.OPEN)
        self._connector = Connector(
            self._dial,
            on_connected=self._connected,
            on_failed=self._node.error,
            delay_seconds=self._options.delay_reconnect,
        )
        if isinstance(joined, Connected):
            return self._session(*joined)
        self._connector.begin()
        return None

    def reconnect(self) -> None:
        """Begin to dial again after the server went, if that is wanted."""
        if self._connector is not None and self._options.reconnect and not self._closing:
            self._connector.begin()

    def close(self, deadline: Deadline) -> None:
        """No new links: acceptor and connector end. Links stay."""
        self._closing = True
        left = deadline.left()
        if self._acceptor is not None:
            self._acceptor.close(5.0 if left is None else left)
        if self._connector is not None:
            self._connector.close(1.0 if left is None else min(1.0, left))

    def clients(self) -> list[Link]:
        """State lock held: the links to connected clients."""
        return list(self._clients)

    def abandon(self) -> None:
        """In a forked child: give the descriptors back."""
        if self._acceptor is not None:
            self._acceptor.abandon()
        if self._connector is not None:
            self._connector.abandon()
        for link in self._clients:
            link.abandon()
        if self.parent is not None:
            self.parent.abandon()

    def _me(self) -> Identity:
        pid = self._node.router.pid
        if not self._is_server and self._options.socket_path is None:
            pid = self._agreed  # "" until a server has named us after our address
        return Identity(pid, self._incarnation, sys.version_info[:2], self._options.max_message)

    # Client

    def _dial(self, attempt: Attempt) -> tuple[Connection, Welcomed]:
        options = self._options
        path = options.socket_path
        address = (options.host, options.port) if path is None else path
        family = "AF_INET" if path is None else "AF_UNIX"
        return dial(address, family, key=self._key, key_id=b"", me=self._me(), attempt=attempt)

    def _session(self, connection: Connection, welcomed: Welcomed) -> tuple[Session, str, str]:
        self._agreed = welcomed.pid
        limit = min(self._options.max_message, welcomed.server.max_message)
        return Session(connection, limit), welcomed.pid, welcomed.server.pid

    def _connected(self, connection: Connection, welcomed: Welcomed) -> None:
        self._on_connected(*self._session(connection, welcomed))

    def _parent_closed(self, link: Link, error: Exception | None) -> None:
        if isinstance(error, ProtocolError):
            self._node.error(error)
        with self._node.lock:
            pid = self._node.router.parent_pid() or "server"
            if self._node.stage is Stage.OPEN:
                self._node.router.set_up(Up.AWAY)
            link.drop("link-cut", count_messages(link.outbox.clear()))
            link.wake_waiters()
        if not self._closing:
            self._on_lost(pid)
            self.reconnect()

    # Server: in the acceptor's thread

    def _admit(self, identity: Identity, key_id: bytes, address: str) -> str | Refusal:
        with self._node.lock:
            if self._node.stage is not Stage.OPEN:
                return Refusal("stopping", "the server is stopping")
            if len(self._node.router.names) > MAX_ROUTE:
                return Refusal("names", "the server has too many names")
            wanted = identity.pid or address
            if not wanted:
                return Refusal("nameless", "a client over a path has to say its pid")
            link = self._node.router.child_link(wanted)
            if wanted not in self._node.router.names and (link is None or self._is_stale(link, identity)):
                return wanted
        return f"{wanted}-{identity.incarnation & 0xFFFFFF:06x}"

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
        if stale is None:
            node.after_offlines(lambda: self._attach(link, session, identity, pid))

    def _drop_successor(self, stale: Link) -> None:
        """Lock held: a still newer connection takes the place, or nobody does."""
        successor = self._successors.pop(stale, None)
        if successor is not None:
            successor[1].socket.close()
            successor[0].end()

    def _attach(self, link: Link, session: Session, identity: Identity, pid: str) -> None:
        node = self._node
        with node.lock:
            if node.stage is not Stage.OPEN or node.router.child_link(pid) is not None:
                session.socket.close()
                link.end()
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
        self._node.remember(link)
        link.end()

    def _client_closed(self, link: Link, error: Exception | None) -> None:
        if isinstance(error, ProtocolError):
            self._node.error(error)
        with self._node.lock:
            successor = self._successors.pop(link, None)
            self._remove(link)
        if successor is not None:
            self._node.after_offlines(lambda: self._attach(*successor))

    def _refused(self, cause: str, address: str) -> None:
        self._node.incoming.count_refused(cause)
        if cause not in ("hung-up", "evicted"):
            where = f" from {address}" if address else ""
            self._node.error(LinkError(f"a connection{where} was refused: {cause}"))
