"""The life of one emitter: open, say that it is there, end.

Joins node, supervisor and public socket. How it opens, and what a stop does to a start, is in opening.py,
with the locks for that; what only a child does is in childhood.py.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from .._core.messages import FAILED, FAULT, FINISHED, ONLINE, Record
from .._core.state import Event, Stage, State
from .._exceptions import ProcessError, WouldDeadlock
from .._options import Options
from . import farewell, lifetime
from .childhood import HUNG_EXITCODE, LAST_SECONDS, Childhood
from .guards import told
from .link import Link
from .logs import Log
from .node import Node
from .opening import Opening, Try
from .process import Launch
from .slot import Slot
from .supervisor import Supervisor
from .threads import Deadline, Latch, library_threads

if TYPE_CHECKING:
    from .gate import Gate

log = Log("ipevents.life")

LAST_STEPS_SECONDS = 3.0  # more than all of them take behind the deadline: each has a limit of its own
GOODBYE_SECONDS = 0.5  # for the other end to read what was written


class _Asked(NamedTuple):
    """What a stop is about: the latch and the thread of this life, and the start() that it has met, if
    any."""

    stopped: Latch
    supervisor: Supervisor | None
    start: Try | None

    def wait(self, timeout: float | None) -> bool:
        """Wait for the end of the stop, and of its thread. Returns whether it has come."""
        over = self.stopped.wait(timeout)
        if over and self.supervisor is not None:
            self.supervisor.join(Deadline(GOODBYE_SECONDS))
        return over


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
        self.incarnation = _new_incarnation()
        self._suffix = pid.removeprefix(str(os.getpid()))  # ".2" of the second emitter of a process
        self.depth = 0
        self.is_worker = False
        self.is_grand_master = False
        self.supervisor: Supervisor | None = None
        self.gate: Gate | None = None
        self.childhood: Childhood | None = None  # where another process has started this one
        self.stopping = Latch()  # a stop was asked for
        self.stopped = Latch()  # and is done
        self.waiters: set[Latch] = set()  # of waits for an event; a stop ends them
        self.stop_waiters: set[Latch] = set()  # of waits for stopping, which end once it was emitted
        self.stopping_said = False  # it was, and the waits that there were have ended
        self.exit: SystemExit | None = None  # what a listener ended this process with
        self.opening = Opening(self)
        self.was_started_by_user = False
        self.ready_said = False
        lifetime.register(self)

    # Opening

    def open(self) -> None:
        """Threads and children become possible. Idempotent; errors as for ``Opening.open``."""
        self.opening.open()

    def make_supervisor(self) -> Supervisor:
        """For ``Opening``: the supervisor of a new life. Its thread is not started yet. Raises OSError."""
        return Supervisor(
            self.node,
            depth=self.depth,
            incarnation=self.incarnation,
            on_stop=self._stop_links,
            on_stopped=self._end_links,
            on_empty=self._look_again,
            on_fault=self._supervisor_failed,
            childhood=self.childhood,
        )

    def start(self) -> None:
        """``ready`` and ``online``, and before that the public socket of a top process. Idempotent."""
        self.was_started_by_user = True
        self.opening.start()

    def imply_start(self) -> None:
        """As ``start``, but not by the user's own call."""
        self.opening.start()

    @property
    def has_started(self) -> bool:
        """Whether ``start()`` was called, by the user or by implication, and not stopped since.

        Threads and links alone do not mean that: a child has them before its program runs.
        """
        return self.node.state.state in (State.JOINING, State.STARTING, State.STARTED, State.STOPPING)

    def first_use(self) -> None:
        """A send, or a wait: in a child it implies ``start()``."""
        node = self.node
        if self.is_child and node.stage in (Stage.OPEN, Stage.STOPPING):
            self.imply_start()
            if not node.announced:  # in a listener of ready: our online goes before all that we send
                with node.lock:
                    if not node.announced:
                        node.announce()

    def say_ready(self) -> None:
        """``ready``, once in a life, whatever happens to the connection."""
        if not self.ready_said:
            self.ready_said = True
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
        """Ask for the end; returns at once. A signal handler may call it in the middle of anything."""
        self._ask(seconds)

    def _ask(self, seconds: float | None) -> _Asked | None:
        """Ask for the end. Returns what is to be waited for, which is of this life and not of the next
        one."""
        node = self.node
        if node.inside():
            # A section of the state lock of this thread was interrupted: no step of the state now. The
            # supervisor is still that of the life that the section found, or None.
            supervisor = self.supervisor
            if supervisor is not None and node.stage is not Stage.CLOSED:
                self.stopping.set()
                supervisor.request_stop(self.options.stop_timeout if seconds is None else seconds)
                self._look_again()
            node.defer(self.request_stop, seconds)
            return None
        try:
            with node.lock:
                asked = self._begin_stop(self.options.stop_timeout if seconds is None else seconds)
            if asked is not None and asked.start is not None:
                asked.start.break_off()
        except BaseException:  # of a signal handler: a stop is asked for wholly, or not at all
            node.let_go(False)
            if self.stopping.is_set():
                self._ask(seconds)
            raise
        self._look_again()
        return asked

    def _begin_stop(self, seconds: float) -> _Asked | None:
        """State lock held: what ``_ask`` does. It may be called again where it was interrupted."""
        node = self.node
        supervisor = self.supervisor
        if node.stage is Stage.FORKED:
            return None
        if node.stage is Stage.CLOSED:
            if not self.stopping.is_set():
                return None
            if supervisor is None:
                self.stopped.set()
            return _Asked(self.stopped, supervisor, self.opening.overtake() if supervisor is None else None)
        if supervisor is not None:
            self.stopping.set()
            start = self.opening.overtake()
            supervisor.request_stop(seconds)
            return _Asked(self.stopped, supervisor, start)
        if node.state.allows(Event.STOP):  # start() is joining the socket; it will find this
            self.stopping.set()
            start = self.opening.overtake()
            node.change(Event.STOP)
            self.stopped.set()
            return _Asked(self.stopped, None, start)
        return None  # nothing was started

    def stop(self, timeout: float | None) -> None:
        """End this process's part of the tree; waits for it, but from inside only requests it."""
        if self.node.stage is Stage.FORKED:
            return
        outer = self.node.inside()
        try:
            self._stop(timeout)
        except BaseException:  # of a signal handler
            self.node.let_go(outer)
            raise

    def _stop(self, timeout: float | None) -> None:
        waits = self.may_wait()
        if self.childhood is not None and self.supervisor is not None:
            self.childhood.stop_called(waits)
        allowed = self.options.stop_timeout if timeout is None else timeout
        asked = self._ask(allowed)
        if waits and asked is not None:
            asked.wait(None if timeout is None else timeout + LAST_STEPS_SECONDS)
            if asked.start is not None:  # in another thread, which may wait for a listener
                asked.start.over.wait(allowed + LAST_STEPS_SECONDS)

    def check_wait(self, what: str) -> None:
        """Refuse a wait that could never end. Raises WouldDeadlock, NotStarted or Closed."""
        self.check_no_listener(what)
        if self.node.stage is not Stage.OPEN:
            self.first_use()  # in a child that stops: a wait implies start() all the same
            raise self.node.stage_error()

    def check_join(self) -> None:
        """Refuse to wait for the end of a child that would never be noticed. WouldDeadlock, ForkedError."""
        self.check_no_listener("join()")
        if self.node.stage is Stage.FORKED:
            raise self.node.stage_error()

    def check_no_listener(self, what: str) -> None:
        """Refuse a wait for what cannot come while the calling listener runs. Raises WouldDeadlock."""
        if self.node.dispatcher.runs_here():
            raise WouldDeadlock(f"{what} waits, and no event is delivered while a listener runs")

    def may_wait(self) -> bool:
        """Whether this thread may wait for the end: nothing that ends needs it."""
        node = self.node
        ident = threading.get_ident()
        if node.inside() or node.dispatcher.runs_here() or lifetime.in_handler():
            return False
        if ident in library_threads:
            return False
        links = [link for link in list(node.router.neighbours) if isinstance(link, Link)]
        return not any(link.is_written_by(ident) for link in links)

    def wait_stopped(self, timeout: float | None) -> bool:
        """For ``run``: until stopped (in a child: until a stop is asked for), at most ``timeout`` seconds."""
        self.check_no_listener("run()")
        if self.childhood is not None:
            return self.childhood.wait_stop(timeout)
        return self.wait_over(timeout)

    def wait_over(self, timeout: float | None) -> bool:
        """Wait until this emitter is stopped and the thread that did it has ended as well."""
        with self.node.lock:
            asked = _Asked(self.stopped, self.supervisor, None)
        return asked.wait(timeout)

    def _listener_exit(self, exc: SystemExit) -> None:
        """A listener raised SystemExit: this process ends with that code.

        Raises it again where it is for the code that emitted: nothing is open that could end.
        """
        if exc is self.exit:  # it comes by another time, through the listener that emitted
            return
        if self.node.state.state in (State.NEW, State.JOINING, State.CLOSED, State.FORKED):
            raise exc
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
        with self.opening.building:  # a start() has opened all of the socket by now, or will open nothing
            with node.lock:
                if node.state.allows(Event.STOP):
                    node.change(Event.STOP)
                for link in list(node.router.neighbours):
                    link.wake_waiters()  # type: ignore[attr-defined]  # every neighbour here is a Link
            gate = self.gate
        for waiter in list(self.waiters):
            waiter.set()
        if gate is not None:
            gate.begin_close()
        if not self.opening.undoes:
            node.notify(self._say_stopping)

    def _say_stopping(self) -> None:
        """In the notices thread."""
        self.node.deliver_local("stopping")
        self._end_stop_waits()

    def _end_stop_waits(self) -> None:
        """Who still waits for ``stopping`` waits in vain: filtered out, or no listener is called any more."""
        self.stopping_said = True  # first: a wait that begins just now looks at it when it is among them
        for waiter in list(self.stop_waiters):
            waiter.set()

    def _end_links(self, deadline: Deadline) -> None:
        """In the supervisor's thread, last: what is queued is written, then links and notices end.

        Whatever fails in that, the emitter is closed afterwards: somebody may wait for it without a limit.
        """
        try:
            self._take_leave(deadline)
        except BaseException:  # a fault of the library or of the system, which has no memory, say
            log.exception("! the last steps of the stop of %s failed", self.node.router.pid)
            self._drop_all()
        finally:
            self._close()

    def _drop_all(self) -> None:
        """After a fault in the last steps: links and threads end, without a word to anybody."""
        node = self.node
        node.incoming.drop_held()
        farewell.end(node, Deadline(LAST_SECONDS))
        if node.notices is not None:
            node.notices.close(Deadline(LAST_SECONDS))
        if self.gate is not None:
            self.gate.begin_close()
            self.gate.close(Deadline(LAST_SECONDS))

    def _take_leave(self, deadline: Deadline) -> None:
        node = self.node
        if self.childhood is not None:
            self.childhood.wait_target(deadline)
        # The children may have used the time up: what they left to be told is told all the same. But where
        # a parent is gone, nobody is left to be told anything.
        deadline = deadline.at_least(LAST_SECONDS if self._is_orphaned() else GOODBYE_SECONDS)
        notices = node.notices
        farewell.tell_notices(node, deadline)
        farewell.flush(node, deadline)
        farewell.say_goodbye(node, Deadline(min(GOODBYE_SECONDS, deadline.left() or 0.0)))
        # After the ends of the clients' links, whose offline is told as well.
        if notices is not None:
            notices.end(deadline, lambda: node.dispatcher.floor.owner)
        last = deadline if self._is_orphaned() else Deadline(GOODBYE_SECONDS)
        farewell.join(node, last)
        if self.gate is not None:
            self.gate.close(deadline.at_least(LAST_SECONDS))
        if self.childhood is not None:
            self.childhood.sweep()
            self.childhood.guard()

    def _close(self) -> None:
        node = self.node
        node.notices = None
        self.is_grand_master = False
        lifetime.unwatch(self)
        node.dispatcher.turn_over()
        node.dispatcher.resumes = True  # what is emitted from now on is emitted by code that lives on
        # In one step: from here on another start() may begin a new life, with latches of its own.
        with node.lock:
            for event in (Event.STOP, Event.GOODBYE, Event.ENDED):  # the last; after a fault what is missing
                if node.state.allows(event):
                    node.change(event)
            self.stopped.set()
        self._end_stop_waits()

    # Children

    def add_child(self, slot: Slot) -> None:
        """Start a child under this emitter. Raises IPEventsError or OSError; after a stop, Closed."""
        outer = self.node.inside()
        try:
            if self.node.stage is not Stage.NEW and self.node.stage is not Stage.OPEN:
                raise self.node.stage_error()
            self.open()
            self.first_use()
            supervisor = self.supervisor
            if supervisor is None:  # a stop and another start have come in between
                raise self.node.stage_error()
            supervisor.add(slot)
        except BaseException:  # of a signal handler, perhaps
            self.node.let_go(outer)
            raise

    def abandon(self) -> None:
        """In a process made by os.fork(): an emitter that is open belongs to the parent; ours is disarmed.

        One that is not open is this process's own, under its own name: the parent may be a server that
        loads the application and forks its workers, or a daemon that forks twice.
        """
        node = self.node
        node.forget_lock_owner()
        node.dispatcher.floor.forget_owner()
        if self.opening.belongs_to_a_fork():
            self.incarnation = _new_incarnation()
            self.waiters.clear()
            self.opening.renew(f"{os.getpid()}{self._suffix}")
            return
        node.change(Event.FORK)
        node.notices = None  # its thread is not here: what it would tell is told where it comes up
        if self.supervisor is not None:
            self.supervisor.abandon()
        if self.gate is not None:
            self.gate.abandon()
        elif self.childhood is not None and self.childhood.link is not None:
            self.childhood.link.abandon()


def _new_incarnation() -> int:
    """What tells this emitter, in this process, from every other one of the same pid."""
    return int.from_bytes(os.urandom(8), "big")
