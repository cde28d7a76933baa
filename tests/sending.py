"""A link whose peer is a plain socket: what its sending half does, step by step."""

from __future__ import annotations

import queue
import socket
import threading

from watched import WatchedLink

from ipevents._core.decisions import Plan
from ipevents._core.link_state import Right
from ipevents._core.messages import BROADCAST
from ipevents._platform.threads import Deadline
from ipevents._transport.stream import Stream

CEILING = 10.0  # reached only in a deadlock
PLAN = Plan(header=(BROADCAST, ("1",), None), event="evt")


class Sending:
    """A link, and the socket that its peer would have."""

    def __init__(self, ours=None, peer=None, dead_after=0.0):
        self.lock = threading.RLock()
        self.errors = queue.Queue()  # with which connections have ended
        self.link = WatchedLink(
            "1", self.lock, lambda *args: None, lambda link, error: self.errors.put(error)
        )
        ours, self.peer = (ours, peer) if ours is not None else socket.socketpair()
        self.peer.settimeout(CEILING)
        with self.lock:
            self.link.attach(Stream(_Connection(ours), None, dead_after=dead_after))

    def put(self, payload=()):
        """State lock held."""
        assert self.link.outbox.offer(PLAN, payload, 10)

    def written(self):
        """Wait until the kernel has everything."""
        with self.lock:
            assert self.link.flush(Deadline(CEILING))
            assert self.link._right is Right.FREE

    def close(self):
        self.peer.close()
        with self.lock:
            self.link.end()
        assert self.link.join(Deadline(CEILING))
        assert self.link.refused == set()


class _Connection:
    """As much of a multiprocessing.connection.Connection as a stream takes over."""

    def __init__(self, sock):
        self._sock = sock
        self.fileno = sock.fileno
        self.close = sock.close
