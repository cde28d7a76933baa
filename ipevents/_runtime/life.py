"""The life of one emitter: open, say that it is there, end.

Joins node, supervisor and public socket; what only a child does is in childhood.py. Locks: ``_starting``
guards the one way through ``start``, and is taken before the dispatcher's, so no listener waits for it;
``_opening`` guards the way from NEW to OPEN, and nobody who holds it waits for a listener. Both are taken
before the state lock.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from .._core.messages import FAILED, FAULT, FINISHED, ONLINE, Record
from .._core.router import Router
from .._exceptions import Closed, ProcessError, WouldDeadlock
from .._options import Options
from . import allocator, farewell, lifetime, privatedirectory
from .childhood import HUNG_EXITCODE, LAST_SECONDS, Childhood
from .guards import told
from .link import Link
from .logs import Log
from .node import Node
from .notices import Notices
from .process import Launch
from .slot import Slot
from .stage import Stage
from .supervisor import Supervisor
from .threads import Deadline, Latch, acquire_from_user, library_threads

if TYPE_CHECKING:
    from .client import Arrival
    from .gate import Gate

log = Log("ipevents.life")

GOODBYE_SECONDS = 0.5  # for the other end to read what was written


class Life:
    """See the module. One for each emitter; ``stop`` and ``start`` may follow each other in a top process."""

    def __init__(self, pid: str, reply: Callable[..., None]) -> None:
        self.node = Node(
            pid,
            reply=reply,
            on_control=self._control,
            on_first_use=self.first_use,
            on_exit=self._listener_exit,
            on_unheard=self._look_again,
        )
        self.options = Options()
        self.incarnation = int.from_bytes(os.urandom(8), "big")
        self.depth = 0
        self.is_worker = False
        self.is_grand_master = False
        self.supervisor: Supervisor | None = None
        self.gate: Gate | None = None
        self.childhood: Childhood | None = None  # where another process has started this one
        self.stopping = Latch()  # a stop was asked for
        self.stopped = Latch()  # and is done
        self.waiters: set[Latch] = set()  # of waits for an event; a stop ends them
        self.exit: SystemExit | None = None  # what a listener ended this process with
        self._starting = threading.RLock()
        self._opening = threading.RLock()
        self._started = False  # start() was called, by the user or by implication
        self.was_started_by_user = False
        self._ready_said = False  # once in a life, whatever happens to the connection
        lifetime.register(self)

    # Opening

    def open(self) -> None:
        """Threads and children become possible. Idempotent."""
        node = self.node
        with self._opening:
            if node.stage is Stage.OPEN:
                return
            if node.stage is Stage.STOPPING or node.stage is Stage.FORKED:
                raise node.stage_error()
            if node.stage is Stage.CLOSED:
                self._begin_anew()
            allocator.keep_freed()
            node.notices = Notices(node.router.pid)
            self.supervisor = Supervisor(
                node,
                depth=self.depth,
                incarnation=self.incarnation,
                on_stop=self._stop_links,
                on_stopped=self._end_links,
                on_empty=self._look_again,
                on_fault=self._supervisor_failed,
                childhood=self.childhood,
            )
            with node.lock:
                node.stage = Stage.OPEN  # NEW -> OPEN
            if not self.is_child:
                node.announced = False
                privatedirectory.sweep()
                lifetime.watch(self)
                self.supervisor.begin()

    def _begin_anew(self) -> None:
        """After a stop: a new life with the same name and listeners."""
        if self.is_child:
            raise Closed("the emitter of a child was stopped; its process is about to end")
        if not self.stopped.is_set():  # the last steps of the stop are still to come
            if not self.may_wait():
                raise self.node.stage_error()
            self.wait_over(None)
        node = self.node
        with node.lock:
            node.router = Router(node.router.pid)
            node.announced = False
            node.stage = Stage.NEW  # CLOSED -> NEW
        self.gate = None
        self._started = self.was_started_by_user = self._ready_said = False
        self.stopping, self.stopped = Latch(), Latch()
        self.exit = None

    def start(self) -> None:
        """``ready`` and ``online``, and before that the public socket of a top process. Idempotent."""
        self.was_started_by_user = True
        self.imply_start()

    @property
    def has_started(self) -> bool:
        """Whether ``start()`` was called, by the user or by implication, and not stopped since.

        Threads and links alone do not mean that: a child has them before its program runs.
        """
        return self._started and self.node.stage in (Stage.OPEN, Stage.STOPPING)

    def first_use(self) -> None:
        """A send, or a wait: in a child it implies ``start()``."""
        node = self.node
        if self.is_child and node.stage is Stage.OPEN:
            self.imply_start()
            if not node.announced:  # in a listener of ready: our online goes before all that we send
                with node.lock:
                    if not node.announced:
                        node.announce()

    def imply_start(self) -> None:
        """As ``start``, but not by the user's own call."""
        # A listener does not wait for the thread that starts, which may wait for listeners to end.
        if not self._starting.acquire(blocking=False):
            if self.node.dispatcher.runs_here():
                return
            acquire_from_user(self._starting)
        try:
            if self._started and (self.is_child or self.node.stage is not Stage.CLOSED):
                return
            if self.is_child:
                self._started = True
                self._announce(None)
                return
            if self.node.stage is not Stage.NEW and self.node.stage is not Stage.CLOSED:
                self.open()
            self._join_and_open()
        finally:
            self._starting.release()

    def _join_and_open(self) -> None:
        with self._opening:
            if self.node.stage is Stage.CLOSED:
                self._begin_anew()
        gate = joined = arrival = None
        waits = False
        if self.options.use_socket:
            from .connector import Waiting  # late: what starts most often are children, which have no gate
            from .gate import Gate

            gate = Gate(self.node, self.options, self.incarnation, say_ready=self._say_ready)
            joined = gate.join()
            waits = isinstance(joined, Waiting)
        try:
            self.open()
            self.node.dispatcher.enter()  # whoever connects now is heard behind our own ready and online
        except BaseException:  # no thread, or Ctrl-C while a listener runs: nobody else has it yet
            if joined is not None:
                joined.close()
            raise
        try:
            if gate is not None and joined is not None:
                arrival = gate.begin(joined)
            self.gate = gate
            self._started = True
            if waits:
                self.node.announced = True  # sends wait in the link; online is said when it is connected
                return
            self.is_grand_master = gate is None or gate.client is None
            self._announce(arrival)
        finally:
            self.node.dispatcher.leave()

    def _announce(self, arrival: Arrival | None) -> None:
        """``ready`` to our listeners, then our interest and ``online`` upwards, then ``online`` to ours.

        The dispatcher is ours meanwhile, so the parent's answer is not told before our own online.
        """
        node = self.node
        client = None if self.gate is None else self.gate.client
        if client is not None and arrival is not None:
            with node.lock:
                client.take_name(arrival)
        node.dispatcher.enter()
        try:
            self._say_ready()
            with node.lock:
                if client is not None and arrival is not None:
                    client.attach(arrival.session)
                elif not node.announced:
                    node.announce()
            node.deliver_local("online")
            node.incoming.online_said()
        finally:
            node.dispatcher.leave()

    def _say_ready(self) -> None:
        if not self._ready_said:
            self._ready_said = True
            self.node.deliver_local("ready")

    # As somebody's child

    @property
    def is_child(self) -> bool:
        return self.childhood is not None

    def become_child(self, launch: Launch) -> Childhood:
        """This process was started by another one. Called once, before anything else."""
        self.depth = launch.depth
        self.is_worker = launch.is_worker
        self.childhood = Childhood(self, launch)
        return self.childhood

    def _control(self, link: Link, record: Record) -> None:
        if self.childhood is not None and link is self.childhood.link:
            self.childhood.control(record)
        elif record[0] in (ONLINE, FAILED, FAULT, FINISHED) and self.supervisor is not None:
            self.supervisor.control(link, record)

    def _look_again(self) -> None:
        if self.childhood is not None:
            self.childhood.look_again()

    def _is_orphaned(self) -> bool:
        return self.childhood is not None and self.childhood.orphaned

    # Stopping

    def request_stop(self, seconds: float | None) -> None:
        """Ask for the end; returns at once. Takes no lock: a signal handler may call it."""
        supervisor = self.supervisor
        if supervisor is None:
            return
        self.stopping.set()
        supervisor.request_stop(self.options.stop_timeout if seconds is None else seconds)
        self._look_again()

    def stop(self, timeout: float | None) -> None:
        """End this process's part of the tree; waits for it, but from inside only requests it."""
        if self.node.stage is Stage.FORKED:
            return
        if self.supervisor is None:
            if self.stopping.is_set() and not self.node.inside():
                self.stopped.wait(GOODBYE_SECONDS)  # another thread is at the last line of its stop
            return
        waits = self.may_wait()
        if self.childhood is not None:
            self.childhood.stop_called(waits)
        self.request_stop(timeout)
        if waits:
            self.wait_over(None if timeout is None else timeout + 1.0)

    def check_wait(self, what: str) -> None:
        """Refuse a wait that could never end. Raises WouldDeadlock, NotStarted or Closed."""
        self._check_no_listener(what)
        if self.node.stage is not Stage.OPEN:
            raise self.node.stage_error()

    def _check_no_listener(self, what: str) -> None:
        if self.node.dispatcher.runs_here():
            raise WouldDeadlock(f"{what} waits, and no event is delivered while a listener runs")

    def may_wait(self) -> bool:
        """Whether this thread may wait for the end: nothing that ends needs it."""
        node = self.node
        ident = threading.get_ident()
        if node.inside() or node.dispatcher.runs_here() or lifetime.in_handler():
            return False
        if self.supervisor is None or ident in library_threads:
            return False
        links = [link for link in list(node.router.neighbours) if isinstance(link, Link)]
        return not any(link.is_written_by(ident) for link in links)

    def wait_stopped(self, timeout: float | None) -> bool:
        """For ``run``: until stopped (in a child: until a stop is asked for), at most ``timeout`` seconds."""
        self._check_no_listener("run()")
        if self.childhood is not None:
            return self.childhood.wait_stop(timeout)
        return self.wait_over(timeout)

    def wait_over(self, timeout: float | None) -> bool:
        """Wait until this emitter is stopped and the thread that did it has ended as well."""
        supervisor = self.supervisor
        over = self.stopped.wait(timeout)
        if over and supervisor is not None:
            supervisor.join(Deadline(GOODBYE_SECONDS))
        return over

    def _listener_exit(self, exc: SystemExit) -> None:
        """A listener raised SystemExit: this process ends with that code."""
        if self.exit is None:
            self.exit = exc
        self.request_stop(None)

    def _supervisor_failed(self, exc: BaseException) -> None:
        """In the supervisor's thread, which ends all: nobody watches over anything any more."""
        self.stopping.set()
        if self.exit is None:
            self.exit = SystemExit(HUNG_EXITCODE)
        self.node.error(ProcessError(f"the supervisor failed, and everything is ended: {told(exc)}"))
        if self.childhood is not None:
            self.childhood.tell_parent((FAULT, f"its supervisor failed: {told(exc)}"))
        self._look_again()

    def _stop_links(self) -> None:
        """In the supervisor's thread, first: nothing new comes in; the main thread of a child is told."""
        node = self.node
        self.stopping.set()
        with node.lock:
            node.stage = Stage.STOPPING  # OPEN -> STOPPING
            for link in list(node.router.neighbours):
                link.wake_waiters()  # type: ignore[attr-defined]  # every neighbour here is a Link
        node.incoming.online_said()
        for waiter in list(self.waiters):
            waiter.set()
        if self.gate is not None:
            self.gate.begin_close()

    def _end_links(self, deadline: Deadline) -> None:
        """In the supervisor's thread, last: what is queued is written, then links and notices end."""
        node = self.node
        if self.childhood is not None:
            self.childhood.wait_target(deadline)
        # The children may have used the time up: what they left to be told is told all the same. But where
        # a parent is gone, nobody is left to be told anything.
        deadline = deadline.at_least(LAST_SECONDS if self._is_orphaned() else GOODBYE_SECONDS)
        notices = node.notices
        if notices is not None:
            told = Latch()  # all that was noticed so far: its listeners may still send
            notices.put(told.set)
            told.wait(deadline.left())
        farewell.flush(node, deadline)
        links = farewell.say_goodbye(node, Deadline(min(GOODBYE_SECONDS, deadline.left() or 0.0)))
        # Behind the ends of the clients' links, whose offline is told as well.
        if notices is not None and not notices.close(deadline):
            log.warning("! a listener of %s does not return; its thread is left behind", node.router.pid)
        last = deadline if self._is_orphaned() else Deadline(GOODBYE_SECONDS)
        farewell.join(node, links + (self.supervisor.retired if self.supervisor else []), last)
        if self.gate is not None:
            self.gate.close(deadline.at_least(LAST_SECONDS))
        node.notices = None
        if self.childhood is not None:
            self.childhood.sweep()
        else:
            self.supervisor = None
        lifetime.unwatch(self)
        self.is_grand_master = False
        self.stopped.set()

    # Children

    def add_child(self, slot: Slot) -> None:
        """Start a child under this emitter. Raises IPEventsError or OSError; after a stop, Closed."""
        if self.node.stage is not Stage.NEW and self.node.stage is not Stage.OPEN:
            raise self.node.stage_error()
        self.open()
        self.first_use()
        assert self.supervisor is not None
        self.supervisor.add(slot)

    def abandon(self) -> None:
        """In a process made by os.fork(): the emitter belongs to the parent; ours is disarmed."""
        node = self.node
        node.forget_lock_owner()
        node.dispatcher.forget_owner()
        if node.stage is Stage.NEW:
            return
        node.stage = Stage.FORKED
        node.notices = None  # its thread is not here: what it would tell is told where it comes up
        if self.supervisor is not None:
            self.supervisor.abandon()
        if self.gate is not None:
            self.gate.abandon()
        elif self.childhood is not None and self.childhood.link is not None:
            self.childhood.link.abandon()
