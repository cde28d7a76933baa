"""This process as the client of a server: its link, the connections that serve the link, and its name.

Locks: the state lock guards ``link`` and what the router knows of it; each method says whether the caller
holds it. The only thread here is the Connector's, which ``close`` ends.

A connection with which a session goes on is attached by the connector's thread, at once: what is sent then
goes on, however long a listener takes. Its reader waits until the ``offline`` of the connection before was
told, and tells the ``online``. All other connections are attached by the notices thread, which tells their
``online`` itself.

A stop in an outage. While a session is there, the connector goes on in a stop, and so does the notices
thread: the next connection is attached as ever. When all that may still send has ended, the supervisor's
thread lets the connector make one last try where something waits (``go_on``). It waits in three places,
without a lock, and no longer than the deadline: for the reader thread, which is about to return from
``_closed``; for the connector's thread, which dials; and for the notices thread, where that attaches the
connection. None of them waits for the supervisor's thread. The notices thread may wait for a listener, and a
dial for an answer that never comes: then the deadline ends the wait, and the connection is closed as soon as
it is there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .._core.addresses import Address, to_connect
from .._core.handshake import Identity
from .._core.messages import is_message
from .._core.state import Stage
from .._core.topology import Up
from .._exceptions import LinkError
from .._links.link import Link
from .._node.node import Node
from .._options import Options
from .._payload.forms import size_of
from .._platform.latches import Latch
from .._platform.threads import Deadline
from .._transport.connector import CLOSE_SECONDS, Connector
from .._transport.dial import Attempt, Connected, dial
from .._transport.sockets import resolve
from .._transport.stream import Stream


def session_wanted(options: Options, session: int = 0) -> int | None:
    """Return what a client that has this session wants of the server, see ``ClientHandshake``."""
    return session if options.reconnect and options.resume_within else None


class Arrival(NamedTuple):
    """A connection to the server that is not attached yet, with our name there and what the server is."""

    stream: Stream
    pid: str
    server: Identity


class Client:
    """The link to a server, and the thread that connects it again after each break.

    ``me(pid)`` returns this process's Identity under that name. ``say_ready()`` is called in the notices
    thread before the first ``online``, when the first connection comes only after ``start()`` has returned.
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
        self._server: int | None = None  # the incarnation of the last server; guarded by the state lock
        self._closing = False
        self._served: Stream | None = None  # the connection that go_on() has found last
        outer = node.inside()
        self.link = Link("server", node.lock, node.incoming.receive, self._closed)
        try:
            self.link.role = "server"
            with node.lock:
                node.router.set_parent(self.link, "", Up.OPEN)
            self._connector = Connector(
                self._dial,
                on_connected=self._connected,
                on_failed=node.error,
                delay_seconds=options.delay_reconnect,
            )
        except BaseException:  # no more threads, or a signal handler: nothing will connect the link
            node.let_go(outer)
            self.discard()
            raise

    def begin(self, connected: Connected | None) -> Arrival | None:
        """Take this first connection over, or start to dial in the background where there is none yet.

        Returns the connection as an Arrival, which the caller attaches.
        """
        if connected is not None:
            return self._arrived(connected)
        self._connector.begin()
        return None

    def begin_stop(self) -> None:
        """Make no new connections, unless there is a session that may have to go on. Never blocks."""
        link = self.link
        with self._node.lock:
            stream = link.away or link.connection
        if stream is None or not stream.session:
            self.begin_close()

    def go_on(self, deadline: Deadline) -> bool:
        """In a stop, try one connect where the session was cut and something waits for the server.

        In the supervisor's thread, after ``begin_stop``. Returns whether the link has another connection than
        after the call before, so that what waits can be written, and goodbye said.
        """
        link = self.link
        with self._node.lock:
            stream = link.connection
            if stream is not None and not stream.failed:
                return self._is_new(stream)
        # Whoever reads it is about to find its end, and ``_closed`` would count as lost what the next
        # connection goes on with.
        if not link.wait_closed(deadline):
            return False
        with self._node.lock:
            stream, away = link.connection, link.away
            if stream is not None:  # made by the connector just now
                return self._is_new(stream)
            if away is None or self._closing or not link.owes:
                self._closing = True
                return False
        self._connector.finish(deadline)
        if link.away is away:
            welcomed = Latch()
            self._node.events.notify(welcomed.set)  # behind the welcome, if there is a connection
            welcomed.wait(deadline.left())
        with self._node.lock:
            went_on = link.away is not away
            if not went_on:
                self._closing = True
            self._served = link.connection
        return went_on

    def _is_new(self, stream: Stream) -> bool:
        """Return whether this is another connection than in the call before. Lock held."""
        served, self._served = self._served, stream
        return served is not stream

    def begin_close(self) -> None:
        """Make no new connections. The link stays. Never blocks."""
        self._closing = True
        self._connector.begin_close()

    def close(self, deadline: Deadline) -> None:
        """Wait for the end of the connector's thread. Called after ``begin_close``; the link stays."""
        left = deadline.left()
        self._connector.close(CLOSE_SECONDS if left is None else min(CLOSE_SECONDS, left))

    def missed(self, arrival: Arrival) -> None:
        """Let the connector make another connection in place of one that was not served.

        ``start()`` was interrupted, perhaps before it attached this connection; if so, it is closed.
        """
        node = self._node
        with node.lock:
            is_served = self.link.connection is arrival.stream
            if not is_served and node.stage is Stage.OPEN:
                node.announced = True  # sends wait in the link
        if not is_served:
            arrival.stream.socket.close()
            self._connector.begin(immediately=True)

    def discard(self) -> None:
        """End the link as well. Only for a link that never came into use."""
        with self._node.lock:
            self.link.end()
            self._node.router.remove_parent()
        self.link.join(Deadline(CLOSE_SECONDS))

    def abandon(self) -> None:
        """Give our copies of the descriptors back in a forked child."""
        self._connector.abandon()
        self.link.abandon()

    # A connection

    def take_name(self, arrival: Arrival) -> None:
        """Take over the name that we agreed on with the server, and note the server's. State lock held."""
        node = self._node
        if arrival.pid != node.router.pid:
            node.presence.rename(arrival.pid)
        server = arrival.server
        if server.incarnation != self._server:
            self._server = server.incarnation
            called = node.given.give(server.pid, server.incarnation, lambda _: False)
            node.router.parent_replaced(server.pid, called)

    def attach(self, stream: Stream) -> None:
        """Serve a connection to the server with which a session begins, or that has none. State lock held.

        Our presence and interest are sent first, then what waited in the outbox: our name may have changed,
        so the paths of those messages are written anew. The server takes none of a process that is gone and
        that it has never heard of: what waited of these is lost.
        """
        node, link = self._node, self.link
        node.timers.cancel(link)
        link.forget_session("link-cut")
        node.router.set_away(link, False)
        waiting = link.outbox.clear()
        node.router.set_up(Up.OPEN)
        node.presence.announce_again()
        for record in waiting:
            if is_message(record):  # announce_again() has sent anew what the other records say
                kind, path, event, to, messages = record
                if len(path) > 1 and not node.router.netmap.is_online(path[:-1]):
                    link.drop("disconnected", len(messages))
                    continue
                renamed = (kind, (*path[:-1], node.router.pid), event, to, messages)
                link.outbox.put(renamed, sum(map(size_of, messages)))
        link.attach(stream)

    def _arrived(self, connected: Connected) -> Arrival:
        """Turn a finished handshake into an Arrival, and keep the name that the server gave us."""
        connection, welcomed, agreement = connected
        self._agreed = welcomed.pid
        limit = min(self._options.max_message, welcomed.server.max_message)
        return Arrival(
            Stream(connection, limit, agreement, self._options.dead_after), welcomed.pid, welcomed.server
        )

    # In the connector's thread: a late or a new connection

    def _dial(self, attempt: Attempt) -> Connected:
        """Try to connect once; the connector calls this again and again. In the connector's thread."""
        options = self._options
        path = options.socket_path
        if path is None:
            addresses = to_connect(  # looked up anew: addresses may have changed
                resolve(options.host, options.port, allow_remote=options.allow_remote)
            )
        else:
            addresses = [Address("AF_UNIX", path)]
        # Over TCP "" until a server has named us after our address.
        me = self._me(self._agreed if path is None else self._node.router.pid)
        away = self.link.away
        return dial(
            addresses,
            key=self._key,
            key_id=b"",
            me=me,
            forwarded=options.forwarded,
            session=session_wanted(options, away.session if away is not None else 0),
            attempt=attempt,
        )

    def _connected(self, connected: Connected) -> None:
        """Go on with the session, or hand the connection over to the notices thread, which runs listeners.

        In the connector's thread.
        """
        arrival = self._arrived(connected)
        if arrival.stream.resumes:
            self._resume(arrival)
        else:
            self._node.events.notify(lambda: self._welcome(arrival))

    def _resume(self, arrival: Arrival) -> None:
        """Attach a connection with which the session goes on. The server knows all that it knew before.

        In the connector's thread. The reader of the link tells the ``online`` when the server has said where
        the session goes on.
        """
        node, told = self._node, Latch()
        with node.lock:
            is_wanted = self._is_wanted(arrival)
            if is_wanted:
                self.take_name(arrival)
                self.link.attach(arrival.stream, told)
        if is_wanted:
            node.events.after_offlines(told.set)
        else:
            self._dial_anew()

    def _welcome(self, arrival: Arrival) -> None:
        """Attach a new connection and announce it: ``ready`` if that is still due, then ``online``.

        In the notices thread. The floor is held from before the connection is served until ``online`` was
        delivered, so nothing that the server sends reaches a listener before it.
        """
        node = self._node
        with node.lock:
            is_wanted = self._is_wanted(arrival)
            if is_wanted:
                self.take_name(arrival)
        if not is_wanted:
            self._dial_anew()
            return
        self._say_ready()
        node.dispatcher.enter()
        try:
            with node.lock:  # the listeners of ready may have asked for a stop, or have lasted longer than it
                is_wanted = self._is_wanted(arrival)
                if is_wanted:
                    self.attach(arrival.stream)
            if is_wanted:
                node.events.deliver("online")
        finally:
            node.dispatcher.leave()
        if not is_wanted:
            self._dial_anew()

    def _dial_anew(self) -> None:
        """Make another connection where one has come too late for the session that it was to go on with."""
        with self._node.lock:
            is_wanted = self._node.stage is Stage.OPEN and self.link.connection is None
        if is_wanted and not self._closing:
            self._connector.begin(immediately=True)

    def _is_wanted(self, arrival: Arrival) -> bool:
        """Return whether the link still has use for this connection; close it if not. State lock held.

        It has none after a stop (another life may have begun), and while another connection serves it; in a
        stop only for what waits since the session was cut.
        """
        link = self.link
        stage = self._node.stage
        is_free = link.connection is None and not link.ended
        if is_free and link.away is not None and not self._closing:
            if stage is Stage.OPEN or stage is Stage.STOPPING:
                return True
        elif is_free and stage is Stage.OPEN and not arrival.stream.resumes:
            return True
        arrival.stream.socket.close()
        return False

    # In the link's reader

    def _closed(self, link: Link, error: Exception | None) -> None:
        """Mark the server as away, count what is lost, announce ``offline``, and connect again.

        It was announced already where the session was cut again before it went on. In the link's reader.
        """
        node = self._node
        if isinstance(error, LinkError):
            node.errors.link_failed(error, link.name)
        with node.lock:
            neighbour = node.router.neighbours.get(link)
            pid = "server" if neighbour is None else neighbour.pid or "server"
            is_told = neighbour is not None and neighbour.is_away
            stage = node.stage
            goes_on = not self._closing
            is_cut = link.away is not None and goes_on and stage in (Stage.OPEN, Stage.STOPPING)
            if is_cut:
                node.router.set_away(link, True)
                if stage is Stage.OPEN:  # a stop gives it up by itself
                    # Where the session has not gone on since the cut before, the time goes on as well.
                    node.timers.after(self._options.resume_within, link, self._expire)
            else:
                self._lose("link-cut")
            if (is_cut or stage is Stage.OPEN) and goes_on:
                if not is_told:
                    node.events.tell_offlines([lambda: self._tell_lost(pid)])
            else:
                goes_on = False
        if goes_on and self._options.reconnect:
            self._connector.begin()

    def _expire(self) -> None:
        """Give the session up that has not gone on in time, with whatever connection.

        In the supervisor's thread.
        """
        with self._node.lock:
            if self.link.is_cut:
                self._lose("disconnected")
                self.link.disconnect()

    def _lose(self, cause: str) -> None:
        """Count what waits for the server, and what it has not acknowledged, as lost. Lock held."""
        node, link = self._node, self.link
        node.timers.cancel(link)
        link.forget_session(cause)
        node.asks.link_gone(link)
        if node.stage is Stage.OPEN:
            node.router.set_up(Up.AWAY)
        link.drop_waiting(cause)
        link.wake_waiters()

    def _tell_lost(self, pid: str) -> None:
        """Deliver ``offline`` for the server that we lost. In the notices thread."""
        self._node.events.deliver("offline", (pid,))
