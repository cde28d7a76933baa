"""The private socket of a process: where the children that it started connect to it.

An AF_UNIX socket in a directory that only this user may enter. A child proves a token that it got through
the pipe of its start and that is good for one connection.

Locks. ``_opening`` guards the making of directory and acceptor, and ``_is_closed``; the state lock guards
which children are expected. The acceptor's thread, which calls all the callbacks here, is ended by
``close``.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection

from .._core.handshake import HUNG_UP, Identity, Refusal
from .acceptor import Acceptor
from .clock import monotonic
from .keys import derive
from .logs import Log
from .node import Node
from .privatedirectory import PrivateDirectory
from .session import Session
from .slot import Slot
from .socketfile import SocketFile
from .sockets import listen

log = Log("ipevents.children")


class PrivateSocket:
    """See the module. ``on_attached()`` is called when a child has its link: the supervisor looks again."""

    def __init__(self, node: Node, *, incarnation: int, on_attached: Callable[[], None]) -> None:
        self._node = node
        self._incarnation = incarnation
        self._on_attached = on_attached
        self._expected: dict[bytes, Slot] = {}  # by the key of the start; guarded by the state lock
        self._opening = threading.Lock()
        self._directory: PrivateDirectory | None = None
        self._acceptor: Acceptor | None = None
        self._is_closed = False
        self.address = ""

    def open(self) -> None:
        """Listen. Idempotent. Raises OSError; Closed after ``close``, so that nothing is opened behind it."""
        with self._opening:
            if self._is_closed:
                raise self._node.stage_error()
            if self._acceptor is not None:
                return
            directory = PrivateDirectory.make()
            listener = None
            try:
                address = os.path.join(directory.path, "children")
                listener = listen(address, "AF_UNIX")
                os.chmod(address, 0o600)  # whatever the umask is: who connects has to be allowed to write
                self._acceptor = Acceptor(
                    listener,
                    socket_file=SocketFile.at(address),
                    name="children",
                    me=self._me,
                    find_key=self._find_key,
                    admit=self._admit,
                    on_accepted=self._accepted,
                    on_refused=self._refused,
                )
            except BaseException:  # no descriptor, no thread, or Ctrl-C: nothing is left on the disk
                if listener is not None:
                    listener.close()
                directory.close()
                raise
            self._directory = directory
            self.address = address

    def expect(self, slot: Slot) -> None:
        """State lock held: this start of a child may connect."""
        self._expected[slot.key] = slot

    def name(self, slot: Slot, pid: str) -> None:
        """State lock held: what this start of a child is called, and its place in the tree.

        Its OS pid, unless this process or a neighbour, in another container, say, goes by that already, or a
        neighbour did that is gone: what is still sent to that one is not for this one.
        Called by who learns the pid first, the thread that starts the child or its handshake.
        """
        link, router = slot.link, self._node.router
        assert link is not None
        if not slot.is_named:
            slot.is_named = True
            incarnation = int.from_bytes(slot.key, "big")
            slot.pid = link.name = self._node.given.give(pid, incarnation, router.is_taken)
            router.add_child(link, slot.pid)

    def forget(self, slot: Slot) -> None:
        """State lock held: nothing more can come from this start."""
        self._expected.pop(slot.key, None)
        if slot.process is None and slot.link is not None:  # it failed, perhaps behind the handshake
            self._node.router.remove_child(slot.link)
        if slot.early is not None:
            slot.early.close()
            slot.early = None

    def close(self) -> None:
        """End the acceptor, and remove the directory. Links stay."""
        with self._opening:
            self._is_closed = True
        if self._acceptor is not None:
            self._acceptor.close()
        self.remove()

    def remove(self) -> None:
        """Remove the directory only. Takes no lock, for a signal handler; idempotent."""
        if self._directory is not None:
            self._directory.close()

    def abandon(self) -> None:
        """In a forked child: give our descriptors back, leave everything else alone."""
        if self._acceptor is not None:
            self._acceptor.abandon()
        if self._directory is not None:
            self._directory.abandon()

    # In the acceptor's thread

    def _me(self) -> Identity:
        return Identity(self._node.router.pid, self._incarnation, sys.version_info[:2], 0)

    def _find_key(self, key: bytes) -> bytes | None:
        with self._node.lock:
            slot = self._expected.get(key)
            return None if slot is None or slot.admitted_at is not None else derive(slot.token, b"child")

    def _admit(self, identity: Identity, key: bytes, address: str) -> str | Refusal:
        with self._node.lock:
            slot = self._expected.get(key)
            if slot is None or slot.admitted_at is not None:
                return Refusal("unknown", "no child is expected under this token")
            slot.admitted_at = monotonic()
            self.name(slot, identity.pid)
            return slot.pid

    def _accepted(self, connection: Connection, identity: Identity, pid: str, key: bytes) -> None:
        self._node.after_offlines(lambda: self._attach(connection, key))

    def _attach(self, connection: Connection, key: bytes) -> None:
        with self._node.lock:
            slot = self._expected.get(key)
            link = None if slot is None else slot.link
            if slot is None or link is None or slot.attached or link.session is not None:
                connection.close()
                return
            slot.attached = True
            if slot.process is None:  # faster than the thread that starts it: that attaches the link
                slot.early = connection
            else:
                link.attach(Session(connection, None))
                slot.connected()
        self._on_attached()

    def _refused(self, cause: str, address: str) -> None:
        self._node.incoming.count_refused(cause)
        if cause != HUNG_UP:  # a child that was killed just then is no news
            log.warning(
                "! %s refused a connection to the socket for its children: %s",
                self._node.errors.place(),
                cause,
            )
