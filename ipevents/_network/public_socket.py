"""The public socket: this process as the server that others connect to, or as a client of one.

Workers and forked children never open it; sockets make exactly one level of the tree.
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
from .client import Arrival, Client
from .server import CLOSE_SECONDS, Server


class PublicSocket:
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
        self._key = keys.derive(keys.tree_key(options.authkey), keys.CLIENT)
        # At most one of the two, from ``begin`` on.
        self.server: Server | None = None
        self.client: Client | None = None

    def join(self, attempt: Attempt) -> Joined:
        """Connect, or listen; another thread may break ``attempt`` off.

        Blocks as ``join`` of the transport; no thread is started. Raises LinkError.
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
            if isinstance(joined, Listening):
                self.server = Server(self._node, self._options, key=self._key, me=self._me)
                self.server.begin(joined)
                return None
            self.client = Client(
                self._node, self._options, key=self._key, me=self._me, say_ready=self._say_ready
            )
            return self.client.begin(joined if isinstance(joined, Connected) else None)
        except BaseException:  # Ctrl-C as well: nobody else knows of it
            if self.server is None or not self.server.serves:
                joined.close()
            self.begin_close()
            self.close(Deadline(CLOSE_SECONDS))
            if self.client is not None:
                self.client.discard()
            raise

    def begin_close(self) -> None:
        """No new links, from now on; those that there are stay. Never blocks."""
        if self.server is not None:
            self.server.begin_close()
        if self.client is not None:
            self.client.begin_close()

    def close(self, deadline: Deadline) -> None:
        """After ``begin_close``: wait for the end of the thread that made links, at most for the deadline."""
        if self.server is not None:
            self.server.close(deadline)
        if self.client is not None:
            self.client.close(deadline)

    def cannot_serve(self) -> bool:
        """Whether new clients need threads that this Python cannot start once the script has ended."""
        return (3, 12, 0) <= sys.version_info[:3] <= (3, 12, 2) and self.client is None

    def abandon(self) -> None:
        """In a forked child: give the descriptors back."""
        if self.server is not None:
            self.server.abandon()
        if self.client is not None:
            self.client.abandon()

    def _me(self, pid: str) -> Identity:
        return Identity(pid, self._incarnation, sys.version_info[:2], self._options.max_message)
