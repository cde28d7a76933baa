"""This process as the client of a server: its link, the connections that serve it, its name.

Locks: see the methods; ``link`` and what the router knows of it are guarded by the state lock. The thread
here is the Connector's, which ``close`` ends.
"""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import NamedTuple

from .._core.addresses import Address, to_connect
from .._core.flow import count_messages
from .._core.handshake import Identity, Welcomed
from .._core.messages import MESSAGE_ITEMS
from .._core.router import Up
from .._core.state import Stage
from .._exceptions import LinkError
from .._options import Options
from . import payload
from .connector import CLOSE_SECONDS, Connector
from .dial import Attempt, Connected, dial
from .link import Link
from .node import Node
from .session import Session
from .sockets import resolve
from .threads import Deadline


class Arrival(NamedTuple):
    """A connection to the server that is not attached yet: our name there, and who the server is."""

    session: Session
    pid: str
    server: Identity


class Client:
    """The link to a server, and the thread that connects it again and again.

    ``me(pid)`` is who we are under that name. ``say_ready()`` is called in the notices thread before the
    first ``online``, if that comes late.
    """

    def __init__(
        self,
        node: Node,
        options: Options,
        *,
        key: bytes,
        me: Callable[[str], Identity],
        say_ready: Callable[[], None],
    ) -> None:
        self._node = node
        self._options = options
        self._key = key
        self._me = me
        self._say_ready = say_ready
        self._agreed = ""  # the pid that a server gave us
        self._server: int | None = None  # the incarnation of the one that we know; guarded by the state lock
        self._closing = False
        outer = node.inside()
        self.link = Link("server", node.lock, node.receive, self._closed)
        self.link.role = "server"
        try:
            with node.lock:
                node.router.set_parent(self.link, "", Up.OPEN)
            self._connector = Connector(
                self._dial,
                on_connected=self._connected,
                on_failed=node.error,
                delay_seconds=options.delay_reconnect,
            )
        except BaseException:  # no more threads, or a signal handler: the link is of no use
            node.let_go(outer)
            self.discard()
            raise

    def begin(self, connected: Connected | None) -> Arrival | None:
        """Use this connection, which the caller attaches, or begin to dial where there is none yet."""
        if connected is not None:
            return self._arrived(*connected)
        self._connector.begin()
        return None

    def begin_close(self) -> None:
        """No new connections. The link stays. Never blocks."""
        self._closing = True
        self._connector.begin_close()

    def close(self, timeout_seconds: float) -> None:
        """Wait for the end of the connector."""
        self._connector.close(timeout_seconds)

    def missed(self, arrival: Arrival) -> None:
        """``start()`` was interrupted before it served this connection: the connector makes another one."""
        node = self._node
        with node.lock:
            is_served = self.link.session is arrival.session
            if not is_served and node.stage is Stage.OPEN:
                node.announced = True  # sends wait in the link
        if not is_served:
            arrival.session.socket.close()
            self._connector.begin(immediately=True)

    def discard(self) -> None:
        """End the link as well, where it never came into use."""
        with self._node.lock:
            self.link.end()
            self._node.router.remove_parent()
        self.link.join(Deadline(CLOSE_SECONDS))

    def abandon(self) -> None:
        """In a forked child: give the descriptors back."""
        self._connector.abandon()
        self.link.abandon()

    # A connection

    def take_name(self, arrival: Arrival) -> None:
        """State lock held: our name as agreed with the server, and the server's."""
        node = self._node
        if arrival.pid != node.router.pid:
            node.rename(arrival.pid)
        server = arrival.server
        if server.incarnation != self._server:
            self._server = server.incarnation
            called = node.given.give(server.pid, server.incarnation, lambda _: False)
            node.router.parent_replaced(server.pid, called)

    def attach(self, session: Session) -> None:
        """State lock held: serve a connection to the server; ourselves first, then what waited for it."""
        node, link = self._node, self.link
        waiting = link.outbox.clear()
        node.router.set_up(Up.OPEN)
        node.announce_again()
        for record in waiting:
            if len(record) == MESSAGE_ITEMS:  # what was said of interest has just been said in full
                kind, path, event, to, messages = record
                renamed = (kind, (*path[:-1], node.router.pid), event, to, messages)
                link.outbox.put(renamed, sum(map(payload.size_of, messages)))
        link.attach(session)

    def _arrived(self, connection: Connection, welcomed: Welcomed) -> Arrival:
        self._agreed = welcomed.pid
        limit = min(self._options.max_message, welcomed.server.max_message)
        return Arrival(Session(connection, limit), welcomed.pid, welcomed.server)

    # In the connector's thread: a late or a new connection

    def _dial(self, attempt: Attempt) -> Connected:
        options = self._options
        path = options.socket_path
        if path is None:
            addresses = to_connect(resolve(options.host, options.port))  # they may not be what they were
        else:
            addresses = [Address("AF_UNIX", path)]
        # Over TCP "" until a server has named us after our address.
        me = self._me(self._agreed if path is None else self._node.router.pid)
        return dial(addresses, key=self._key, key_id=b"", me=me, attempt=attempt)

    def _connected(self, connection: Connection, welcomed: Welcomed) -> None:
        arrival = self._arrived(connection, welcomed)
        self._node.notify(lambda: self._welcome(arrival))

    def _welcome(self, arrival: Arrival) -> None:
        """In the notices thread."""
        node = self._node
        with node.lock:
            if node.stage is not Stage.OPEN or self.link.session is not None:
                arrival.session.socket.close()
                return
            self.take_name(arrival)
        self._say_ready()
        node.dispatcher.enter()
        try:
            with node.lock:
                self.attach(arrival.session)
            node.deliver_local("online")
        finally:
            node.dispatcher.leave()

    # In the link's reader

    def _closed(self, link: Link, error: Exception | None) -> None:
        node = self._node
        if isinstance(error, LinkError):
            node.error(error)
        with node.lock:
            pid = node.router.parent_pid() or "server"
            if node.stage is Stage.OPEN:
                node.router.set_up(Up.AWAY)
            link.drop("link-cut", count_messages(link.outbox.clear()))
            link.wake_waiters()
        if not self._closing:
            node.notify(lambda: self._tell_lost(pid))
            if self._options.reconnect:
                self._connector.begin()

    def _tell_lost(self, pid: str) -> None:
        self._node.deliver_local("offline", (pid,))
