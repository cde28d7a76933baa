"""What one emitter consists of, and what is known of the life that it is in.

``Life`` is a base class of ``Lifecycle`` so that ``Opening`` can be given an emitter's parts without knowing
what makes, starts and stops them: opening.py imports this file, and lifecycle.py imports both.

A life goes from ``start()``, or the first ``worker()``, to the end of a stop. In a top process another life
may follow. Then ``Opening.renew`` forgets what belongs to the one before: supervisor, public socket, latches,
exit.

No lock of its own: the state lock, ``node.lock``, guards what more than one thread changes.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING

from .._ask.asking import Asking
from .._core.state import State
from .._links.link import Link
from .._node.node import Node
from .._options import Options
from .._platform.interruptible import in_handler
from .._platform.latches import Latch
from .._platform.threads import Deadline
from .._processes.role import Role, TopRole

if TYPE_CHECKING:
    from .._ask.pool import Pool
    from .._network.public_socket import PublicSocket
    from .._platform.shared_page import SharedPage
    from .._processes.supervisor import Supervisor

JOIN_SECONDS = 0.5  # for the thread that has brought the end about to end itself


class Life:
    """The parts of one emitter, and the facts of its present life."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.asks = Asking(node, lambda: self.page)
        node.asks = self.asks
        self.asks.sharing.is_any_coming = self._is_any_coming
        self.options = Options()
        self.incarnation = new_incarnation()
        self.depth = 0
        self.is_worker = False
        self.is_quiet = False  # no listener is told of this process, see Neighbour
        self.role: Role = TopRole(self.wait_over)  # until another process turns out to have started this one
        self.page: SharedPage | None = None  # in a child: what its parent reads when it has ended
        # Of this life.
        self.supervisor: Supervisor | None = None
        self.public_socket: PublicSocket | None = None
        self.is_grand_master = False
        self.stopping = Latch()  # a stop was asked for
        self.stop_is_announced = False  # by the parent, over the control channel: it comes over the link
        self.stopped = Latch()  # and is done
        self.waiters: set[Latch] = set()  # of waits for an event; a stop ends them
        self.stop_waiters: set[Latch] = set()  # of waits for stopping, which end once it was emitted
        self.stopping_said = False  # stopping was emitted, or will not be: a wait for it ends at once
        self.exit: SystemExit | None = None  # what a listener ended this process with
        self.was_started_by_user = False
        self.ready_said = False
        self.pools: weakref.WeakSet[Pool] = weakref.WeakSet()
        self.had_pool = False  # one was made; perhaps nobody has it any more

    # What Lifecycle does

    def make_supervisor(self) -> Supervisor:
        """Return the supervisor of a new life, whose thread is not started yet. Raises OSError."""
        raise NotImplementedError

    def request_stop(self, seconds: float | None) -> None:
        """Ask for the end, and return at once. A signal handler may call it in the middle of anything."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Give the emitter up in a process made by os.fork(): what is open belongs to the parent."""
        raise NotImplementedError

    # What is known

    @property
    def is_child(self) -> bool:
        """Whether another process of the tree has started this one."""
        return self.role.is_child

    @property
    def has_started(self) -> bool:
        """Whether ``start()`` was called, by the user or by implication, and not stopped since.

        Threads and links alone do not mean that: a child has them before its program runs.
        """
        return self.node.state.state in (State.JOINING, State.STARTING, State.STARTED, State.STOPPING)

    def _is_any_coming(self) -> bool:
        """Return whether a child is about to be online. State lock held."""
        return self.supervisor is not None and self.supervisor.children.is_any_coming()

    def say_ready(self) -> None:
        """Deliver ``ready``, once in a life, whatever happens to the connection."""
        if not self.ready_said:
            self.ready_said = True
            self.node.events.deliver("ready")

    # For handlers of signals, and for exits

    def resend(self, number: int) -> bool:
        """Send the main thread this signal again in a moment. Returns False where no thread does that."""
        return self.supervisor is not None and self.supervisor.resend(number)

    def kill_children(self) -> None:
        """Kill all children now; the process ends next. Takes no lock."""
        if self.supervisor is not None:
            self.supervisor.kill_all()

    def cannot_serve(self) -> bool:
        """Return whether new clients are lost: this Python starts no threads after the script's body."""
        return self.public_socket is not None and self.public_socket.cannot_serve()

    def has_ordinary_children(self) -> bool:
        """Return whether there is a child that is no worker of a pool."""
        return self.supervisor is not None and self.supervisor.children.has_ordinary()

    def finish_pools(self) -> None:
        """Wait for the jobs of all pools, and ask for the stop, where only these keep the emitter open."""
        if self.was_started_by_user or not self.had_pool or self.has_ordinary_children():
            return
        for pool in list(self.pools):
            pool.shutdown()
        if not self.has_ordinary_children():  # a job may have started one
            self.request_stop(None)

    # Waits for the end

    def may_wait(self) -> bool:
        """Return whether this thread may wait for the end of a stop.

        A thread that the stop needs for its end may not: one that holds the state lock, the floor or the
        right to write, one of the library, and one in a signal handler.
        """
        node = self.node
        if node.inside() or node.dispatcher.must_not_wait() or in_handler():
            return False
        ident = threading.get_ident()
        links = [link for link in list(node.router.neighbours) if isinstance(link, Link)]
        return not any(link.is_written_by(ident) for link in links)

    def wait_over(self, timeout: float | None) -> bool:
        """Wait until this emitter is stopped and the thread that stopped it has ended.

        Returns whether it is stopped.
        """
        with self.node.lock:
            stopped, supervisor = self.stopped, self.supervisor
        return wait_end(stopped, supervisor, timeout)


def wait_end(stopped: Latch, supervisor: Supervisor | None, timeout: float | None) -> bool:
    """Wait for the end of one life, and of the thread that brings it about. Returns whether it has come."""
    over = stopped.wait(timeout)
    if over and supervisor is not None:
        supervisor.join(Deadline(JOIN_SECONDS))
    return over


def new_incarnation() -> int:
    """Return a random number that tells this emitter, in this process, from others of the same pid."""
    return int.from_bytes(os.urandom(8), "big")
