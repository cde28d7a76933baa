"""The private socket of a process, to which the children that it started connect.

It is an AF_UNIX socket in a directory that only this user may enter. A child proves a token that it got
through the pipe of its start and that is good for one connection.

Locks. ``_opening`` guards the making of directory and acceptor, and ``_is_closed``; the state lock guards
which children are expected. The only thread is the acceptor's: it calls all the callbacks here, and ``close``
ends it.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from .._core.child_states import Contact, Phase
from .._core.handshake import HUNG_UP, Identity, Refusal
from .._node.node import Node
from .._platform.clock import monotonic
from .._transport.keys import CHILD, derive
from .._transport.private_directory import PrivateDirectory
from .._transport.sockets import listen
from .child_state import ChildState

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from .._transport.acceptor import Accepted, Acceptor


class ChildSocket:
    """The socket for the children of one process, and the starts of children that may still connect.

    ``on_attached()`` is called when a child's link has got its connection, so that the supervisor looks
    again.
    """

    def __init__(self, node: Node, *, incarnation: int, on_attached: Callable[[], None]) -> None:
        self._node = node
        self._incarnation = incarnation
        self._on_attached = on_attached
        self._expected: dict[bytes, ChildState] = {}  # by the key of the start; guarded by the state lock
        self._opening = threading.Lock()
        self._directory: PrivateDirectory | None = None
        self._acceptor: Acceptor | None = None
        self._is_closed = False
        self.address = ""

    def open(self) -> None:
        """Make the directory and listen in it. Idempotent.

        Raises OSError, and Closed after ``close``, so that nothing is opened after a stop.
        """
        with self._opening:
            if self._is_closed:
                raise self._node.stage_error()
            if self._acceptor is not None:
                return
            # Late: a process without children does without.
            from .._transport.acceptor import Acceptor
            from .._transport.socket_file import SocketFile

            directory = PrivateDirectory.make()
            listener = None
            try:
                address = os.path.join(directory.path, "children")
                listener = listen(address, "AF_UNIX")
                os.chmod(address, 0o600)  # whatever the umask is: to connect, a child needs to write to it
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

    @property
    def is_closed(self) -> bool:
        """Whether it is closed for good."""
        return self._is_closed

    def expect(self, child: ChildState) -> None:
        """Let this start of a child connect from now on. State lock held."""
        self._expected[child.key_id] = child

    def name(self, child: ChildState, pid: str) -> None:
        """Give this start of a child its name and its place in the tree, if it has none yet.

        State lock held.

        The name is its OS pid, unless that is taken: by this process or a neighbour (in another container,
        say), or by a neighbour that is gone, because what is still sent to that one is not for this one.
        Called in the thread that starts the child and in its handshake; the first of the two gives the name.
        """
        link, router = child.link, self._node.router
        if not child.is_named:
            child.is_named = True
            incarnation = int.from_bytes(child.key_id, "big")
            child.pid = link.name = self._node.given.give(pid, incarnation, router.is_taken)
            router.add_child(link, child.pid, is_quiet=link.is_quiet)

    def forget(self, child: ChildState) -> None:
        """Expect no connection from this start any more, and close one that has no link yet.

        State lock held.
        """
        self._expected.pop(child.key_id, None)
        if child.phase is not Phase.EXITED:  # the start has failed, perhaps after the handshake
            self._node.router.remove_child(child.link)
        if child.early is not None:
            child.early.close()
            child.early = None

    def close(self) -> None:
        """End the acceptor and its thread, and remove the directory. Links stay."""
        with self._opening:
            self._is_closed = True
        if self._acceptor is not None:
            self._acceptor.close()
        self.remove()

    def remove(self) -> None:
        """Remove the directory only. Idempotent. Takes no lock, so a signal handler may call it."""
        if self._directory is not None:
            self._directory.close()

    def abandon(self) -> None:
        """Give our copies of the descriptors back in a forked child; leave everything else alone."""
        if self._acceptor is not None:
            self._acceptor.abandon()
        if self._directory is not None:
            self._directory.abandon()

    # In the acceptor's thread

    def _me(self) -> Identity:
        """Return what a handshake says of this process."""
        return Identity(self._node.router.pid, self._incarnation, sys.version_info[:2], 0)

    def _find_key(self, key: bytes) -> bytes | None:
        """Return the key for a start that is still expected to connect, None for any other."""
        with self._node.lock:
            child = self._expected.get(key)
            awaited = child is not None and child.contact is Contact.AWAITED
            return derive(child.token, CHILD) if child is not None and awaited else None

    def _admit(
        self, identity: Identity, key: bytes, address: str, session: int | None
    ) -> tuple[str, int] | Refusal:
        """Note that a process has proved its token, and return its name, and no session; or a Refusal."""
        with self._node.lock:
            child = self._expected.get(key)
            if child is None or child.contact is not Contact.AWAITED:
                return Refusal("unknown", "no child is expected under this token")
            child.admitted(monotonic())
            self.name(child, identity.pid)
            return child.pid, 0

    def _accepted(self, accepted: Accepted) -> None:
        """Attach a connection, after every ``offline`` that is still to be announced."""
        self._node.events.after_offlines(lambda: self._attach(accepted.connection, accepted.key_id))

    def _attach(self, connection: Connection, key: bytes) -> None:
        """Give the connection to the child's link, unless that start is over by now."""
        with self._node.lock:
            child = self._expected.get(key)
            if child is None or child.contact is not Contact.ADMITTED or child.link.stream is not None:
                connection.close()
                return
            child.connected(connection)
        self._on_attached()

    def _refused(self, cause: str, address: str) -> None:
        """Count and log a connection that was refused; a peer that just hung up is no news."""
        text = f"{self._node.place()} refused a connection to the socket for its children: {cause}"
        if cause == HUNG_UP:  # a child that was killed just then
            self._node.refusals.note_quietly(cause, text)
        else:
            self._node.refusals.note_privately(cause, text)
