"""The public socket: this process as the server that others connect to, or as a client of one.

``PublicSocket`` finds out which of the two, and passes each step on to ``Server`` or ``Client``. Workers and
forked children never open it, so sockets add exactly one level to the tree.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from .._core.handshake import Identity
from .._node.node import Node
from .._options import Options
from .._platform.threads import Deadline
from .._transport import keys
from .._transport.dial import Attempt, Connected
from .._transport.join import Joined, Listening, join
from .client import Arrival, Client, session_wanted
from .server import CLOSE_SECONDS, Server


class PublicSocket:
    """One emitter's public socket, from ``join`` to ``close``.

    Called in this order: ``join``, ``begin``, ``begin_stop``, ``go_on``, ``begin_close``, ``close``. Those in
    the middle are left out where nothing was served. ``say_ready`` is as for Client.
    """

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
        self._key = keys.derive(keys.tree_key(options.authkey), keys.CLIENT)
        # ``begin`` sets one of the two.
        self.server: Server | None = None
        self.client: Client | None = None

    def join(self, attempt: Attempt) -> Joined:
        """Connect to a server, or listen where there is none. Starts no thread.

        Blocks as ``join`` of the transport does; another thread may break ``attempt`` off. Raises LinkError.
        """
        options = self._options
        return join(
            socket_path=options.socket_path,
            host=options.host,
            port=options.port,
            allow_remote=options.allow_remote,
            only_connect=options.only_connect,
            key=self._key,
            forwarded=options.forwarded,
            session=session_wanted(options),
            me=self._me("" if options.socket_path is None else self._node.router.pid),
            attempt=attempt,
        )

    def begin(self, joined: Joined) -> Arrival | None:
        """Serve what ``join`` returned.

        Returns the connection to the server if there is one, not attached yet.

        Raises RuntimeError where no thread can be started, and OSError where there is no descriptor. In both
        cases what was joined has been closed.
        """
        try:
            if isinstance(joined, Listening):
                self.server = Server(self._node, self._options, key=self._key, me=self._me)
                self.server.begin(joined)
                return None
            self.client = Client(
                self._node, self._options, key=self._key, me=self._me, say_ready=self._say_ready
            )
            return self.client.begin(joined if isinstance(joined, Connected) else None)
        except BaseException:  # Ctrl-C as well: no other code would close it
            self.give_up(joined, None)
            raise

    def give_up(self, joined: Joined, arrival: Arrival | None) -> None:
        """Undo ``join`` and ``begin``, as far as they came, after a start that failed. Idempotent."""
        if self.server is None or not self.server.serves:
            joined.close()
        if arrival is not None:
            arrival.stream.socket.close()
        self.begin_close()
        self.close(Deadline(CLOSE_SECONDS))
        if self.client is not None:
            self.client.discard()

    def begin_stop(self) -> None:
        """Make no new links from now on, but for a session that was cut. Never blocks."""
        if self.server is not None:
            self.server.begin_close()
        if self.client is not None:
            self.client.begin_stop()

    def go_on(self, deadline: Deadline) -> bool:
        """In a stop, connect once more where the session was cut, see ``Client.go_on``."""
        return self.client is not None and self.client.go_on(deadline)

    def begin_close(self) -> None:
        """Make no new links from now on; existing links stay. Never blocks."""
        if self.server is not None:
            self.server.begin_close()
        if self.client is not None:
            self.client.begin_close()

    def close(self, deadline: Deadline) -> None:
        """Wait, until the deadline at most, for the end of the thread that made links.

        Called after ``begin_close``.
        """
        if self.server is not None:
            self.server.close(deadline)
        if self.client is not None:
            self.client.close(deadline)

    def cannot_serve(self) -> bool:
        """Return whether new clients need threads that this Python cannot start once the script has ended."""
        return (3, 12, 0) <= sys.version_info[:3] <= (3, 12, 2) and self.client is None

    def abandon(self) -> None:
        """Give our copies of the descriptors back in a forked child."""
        if self.server is not None:
            self.server.abandon()
        if self.client is not None:
            self.client.abandon()

    def _me(self, pid: str) -> Identity:
        """Return what a handshake says of this process under the name ``pid``."""
        return Identity(pid, self._incarnation, sys.version_info[:2], self._options.max_message)
