"""The lives of one emitter: it opens, announces itself, and stops.

``Lifecycle`` joins node, supervisor and public socket, see life.py. opening.py has how it opens, what a stop
does to a start, and the locks for that. The stop is ``Lifecycle.carry_out_stop``, step by step. What only a
child does is in child_main.py.
"""

from __future__ import annotations

import os
from _thread import get_ident
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from .._core.messages import FAULT, control
from .._core.state import Event, Stage, State
from .._exceptions import ProcessError, WouldDeadlock
from .._node.node import Node
from .._platform import hooks
from .._platform.guards import told
from .._platform.latches import Latch
from .._platform.logs import Log
from .._platform.threads import Deadline, library_threads
from .._processes.role import HUNG_EXITCODE, Role
from . import drain
from .drain import GOODBYE_SECONDS, LAST_SECONDS
from .life import Life, new_incarnation, wait_end
from .opening import Opening, Try

if TYPE_CHECKING:
    from .._processes.child_state import ChildState
    from .._processes.supervisor import Supervisor

log = Log("ipevents.life")

LAST_STEPS_SECONDS = 3.0  # more than all steps take after the deadline: each has a limit of its own


class _Asked(NamedTuple):
    """What the caller of a stop may wait for: latch and thread of this life, and a start() that it met."""

    stopped: Latch
    supervisor: Supervisor | None
    start: Try | None

    def wait(self, timeout: float | None) -> bool:
        """Wait for the end of the stop, and of its thread. Returns whether the stop has ended."""
        return wait_end(self.stopped, self.supervisor, timeout)


class Lifecycle(Life):
    """The start and the stop of one emitter. In a top process ``start`` may follow ``stop``, and so on.

    ``child_main(launch, ...)`` is what the main thread of a child runs. ``reply`` is as for Node.
    """

    def __init__(self, pid: str, reply: Callable[..., None], child_main: Callable[..., None]) -> None:
        super().__init__(
            Node(
                pid,
                reply=reply,
                on_first_use=self.first_use,
                on_exit=self._listener_exit,
                on_unheard=self._look_again,
            )
        )
        self._child_main = child_main
        self._suffix = pid.removeprefix(str(os.getpid()))  # ".2" of the second emitter of a process
        self.opening = Opening(self)
        hooks.register(self)

    # Opening

    def open(self) -> None:
        """Start the threads of a life, so that children become possible.

        Idempotent; errors as for ``Opening.open``.
        """
        self.opening.open()

    def make_supervisor(self) -> Supervisor:
        """Return the supervisor of a new life, whose thread is not started yet. Raises OSError."""
        from .._processes.supervisor import Supervisor  # late: what starts children takes its time to import

        return Supervisor(
            self.node,
            depth=self.depth,
            incarnation=self.incarnation,
            role=self.role,
            child_main=self._child_main,
            on_stop=self.carry_out_stop,
            on_fault=self._supervisor_failed,
        )

    def start(self, again: bool = True) -> None:
        """Deliver ``ready`` and ``online``; in a top process, open the public socket before that.

        Idempotent. ``again`` as for ``Opening.start``.
        """
        self.was_started_by_user = True
        self.opening.start(again)

    def imply_start(self) -> None:
        """Start as ``start`` does, without a call of the user. Such a start does not keep a child alive."""
        self.opening.start()

    def first_use(self) -> None:
        """Start a child that sends or waits before it has called ``start()``: either implies it."""
        node = self.node
        if self.is_child and node.stage in (Stage.OPEN, Stage.STOPPING):
            self.imply_start()
            if not node.announced:  # in a listener of ready: our online goes before all that we send
                with node.lock:
                    if not node.announced:
                        node.presence.announce()

    # As somebody's child

    def become_child(self, role: Role, *, depth: int, is_worker: bool, is_quiet: bool = False) -> None:
        """Take over the role of a child: another process has started this one.

        Called once, before anything else.
        """
        self.role = role
        self.depth = depth
        self.is_worker = is_worker
        self.is_quiet = is_quiet

    def _look_again(self) -> None:
        """Let the role check again whether anything keeps this process."""
        self.role.look_again()

    # Stopping

    def request_stop(self, seconds: float | None) -> None:
        """Ask for the end, and return at once. A signal handler may call it in the middle of anything."""
        self._ask(seconds)

    def _ask(self, seconds: float | None) -> _Asked | None:
        """Ask for the end.

        Returns what is to be waited for, which is of this life and not of the next one.

        Returns None where nothing is to be waited for, or where this was called from inside the state lock;
        then the request is made as far as that is safe, and made again when the lock is released.
        """
        node = self.node
        if node.inside():
            # This thread was interrupted while it held the state lock, so the state must not change now. The
            # supervisor is still that of the life that the interrupted section found, or None.
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
        except BaseException:  # of a signal handler: the request is made completely, or not at all
            node.let_go(False)
            if self.stopping.is_set():
                self._ask(seconds)
            raise
        self._look_again()
        return asked

    def _begin_stop(self, seconds: float) -> _Asked | None:
        """Begin a stop, as this state of the emitter needs it. State lock held.

        A supervisor is asked to carry it out; a start() that has only begun to join its socket is ended at
        once. May be called again where it was interrupted. Returns as ``_ask`` does.
        """
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
        """End this process's part of the tree and wait for that; from inside, only request it."""
        if self.node.stage is Stage.FORKED:
            return
        outer = self.node.inside()
        try:
            self._stop(timeout)
        except BaseException:  # of a signal handler
            self.node.let_go(outer)
            raise

    def _stop(self, timeout: float | None) -> None:
        """Carry out ``stop``. What a signal handler raises in here is the caller's to clear up after."""
        waits = self.may_wait()
        if self.supervisor is not None:
            self.role.before_stop(waits)
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

    def check_join(self, what: str = "join()") -> None:
        """Refuse to wait for a child whose end would never be noticed.

        Raises WouldDeadlock, ForkedError.
        """
        self.check_no_listener(what)
        if self.node.stage is Stage.FORKED:
            raise self.node.stage_error()

    def check_no_listener(self, what: str) -> None:
        """Refuse a wait for what cannot come while the calling listener runs. Raises WouldDeadlock."""
        if self.node.dispatcher.runs_here():
            raise WouldDeadlock(f"{what} waits, and no event is delivered while a listener runs")
        if get_ident() in library_threads:  # a callback of an Answer
            raise WouldDeadlock(f"{what} waits, and nothing comes while a callback runs")

    def wait_stopped(self, timeout: float | None) -> bool:
        """Wait for ``run`` until the stop has ended, at most ``timeout`` seconds.

        In a child, until a stop is asked for.
        """
        self.check_no_listener("run()")
        return self.role.wait_stop(timeout)

    def _listener_exit(self, exc: SystemExit) -> None:
        """End this process with the exit code of a listener, which raised SystemExit.

        Where nothing is open that could end, the exception is raised again, for the code that emitted.
        """
        if exc is self.exit:  # the same once more, raised through the listener that emitted
            return
        if self.node.state.state in (State.NEW, State.JOINING, State.CLOSED, State.FORKED):
            raise exc
        if self.exit is None:
            self.exit = exc
        self.request_stop(None)

    def _supervisor_failed(self, exc: BaseException) -> None:
        """Report that the supervisor failed, and that it ends everything. In the supervisor's thread."""
        self.stopping.set()
        if self.exit is None:
            self.exit = SystemExit(HUNG_EXITCODE)
        self.node.error(ProcessError(f"the supervisor failed, and everything is ended: {told(exc)}"))
        self.role.report(control(FAULT, text=f"its supervisor failed: {told(exc)}"))
        self._look_again()

    def carry_out_stop(self, supervisor: Supervisor, deadline: Deadline) -> None:
        """Stop this process's part of the tree, in the supervisor's thread; the whole stop, step by step.

        The numbers are those of the README, "A stop". Step 1 is done: ``request_stop`` was called, or the
        supervisor has failed. Each step ends at the deadline; those that let other processes know what has
        happened get a little time of their own after it. Whatever fails, the emitter is closed afterwards,
        because threads may wait for that without a limit.
        """
        node, role = self.node, self.role
        try:
            if role.up is not None:
                role.up.answers_no_more()
            # 2. Nothing new begins: no start, no child, no client, no wait. The event ``stopping``.
            self._close_entrances()
            # 3. All children are asked to stop at once.
            # 4. They are waited for, and killed at the deadline; the main thread leaves its program.
            # 5. The socket for children, its directory and the fork server go.
            deadline = supervisor.end_children(deadline)
            # 6. In a child: wait until the main thread has left its program, or end the process here.
            role.wait_target(deadline)
            deadline = deadline.at_least(LAST_SECONDS if role.orphaned else GOODBYE_SECONDS)
            self.asks.answering.finish(deadline)
            # 7. The listeners of all that was noticed so far run; they may still send.
            drain.run_notices(node, deadline)
            # 8. What is queued is written, with another connection where that to the server was cut.
            self._flush(deadline)
            # 9. Nothing comes in any more; goodbye is said, and each neighbour closes its end.
            drain.say_goodbye(node, Deadline(min(GOODBYE_SECONDS, deadline.left() or 0.0)))
            # 10. The notices thread ends, then readers and writers; what nobody took is counted.
            drain.end_notices(node, deadline)
            drain.join(node, deadline if role.orphaned else Deadline(GOODBYE_SECONDS))
            # 11. The threads of the public socket end, its file goes. A child does not outlive its parent.
            if self.public_socket is not None:
                self.public_socket.close(deadline.at_least(LAST_SECONDS))
            role.last_steps()
        except BaseException:  # a fault of the library or of the system, which has no memory, say
            log.exception("! the stop of %s failed", node.router.pid)
            self._drop_all(supervisor)
        finally:
            # 12. The emitter is closed, and threads that wait for that go on.
            self._close()

    def _close_entrances(self) -> None:
        """Step 2 of the stop: let nothing new begin, end the waits for events, and announce ``stopping``."""
        node = self.node
        self.stopping.set()
        with self.opening.building:  # a start() has opened all of the socket by now, or will open nothing
            with node.lock:
                if node.state.allows(Event.STOP):
                    node.change(Event.STOP)
                for link in list(node.router.neighbours):
                    link.wake_waiters()  # type: ignore[attr-defined]  # every neighbour here is a Link
            public_socket = self.public_socket
        for waiter in list(self.waiters):
            waiter.set()
        self.asks.end_all()
        self.asks.answering.begin_stop()
        if public_socket is not None:
            public_socket.begin_stop()
        if not self.opening.undoes:
            stopped = self.stopped
            node.events.notify(lambda: self._say_stopping(stopped))

    def _flush(self, deadline: Deadline) -> None:
        """Step 8 of the stop: write what is queued, and say goodbye.

        A session that was cut before or is cut meanwhile goes on first. Each round but the first needs
        another connection and ends with it, or with the deadline.
        """
        public_socket = self.public_socket
        if public_socket is not None:
            public_socket.go_on(deadline)
        drain.flush(self.node, deadline)
        if public_socket is not None:
            while public_socket.go_on(deadline):
                drain.flush(self.node, deadline)
            public_socket.begin_close()

    def _say_stopping(self, stopped: Latch) -> None:
        """Deliver ``stopping``, then end the waits for it. In the notices thread.

        ``stopped`` is the latch of the life that stops. Where a listener has lasted longer than the stop, and
        another life has begun, the waits are those of that life.
        """
        self.node.events.deliver("stopping")
        with self.node.lock:
            if self.stopped is stopped:
                self._end_stop_waits()

    def _end_stop_waits(self) -> None:
        """End the waits for ``stopping`` that its delivery has not ended.

        Their filter has refused it, or no listener was called. State lock held, under which another life
        begins.

        The flag is set first: a wait puts its latch into the set, and then reads the flag.
        """
        self.stopping_said = True
        for waiter in list(self.stop_waiters):
            waiter.set()

    def _drop_all(self, supervisor: Supervisor) -> None:
        """End children, links and threads after a fault in the stop, without a word to other processes."""
        node = self.node
        supervisor.kill_all()
        supervisor.children.give_up()
        node.incoming.drop_held()
        drain.end(node, Deadline(LAST_SECONDS))
        if node.notices is not None:
            node.notices.close(Deadline(LAST_SECONDS))
        if self.public_socket is not None:
            self.public_socket.begin_close()
            self.public_socket.close(Deadline(LAST_SECONDS))

    def _close(self) -> None:
        """Step 12 of the stop: the emitter is CLOSED, and the waits for the end of the stop end."""
        node = self.node
        node.notices = None
        self.is_grand_master = False
        hooks.closed(self)
        node.dispatcher.turn_over()
        node.dispatcher.resumes = True  # what is emitted from now on is emitted by code that lives on
        # In one step: from here on another start() may begin a new life, with latches of its own.
        with node.lock:
            for event in (Event.STOP, Event.GOODBYE, Event.ENDED):  # the last; after a fault what is missing
                if node.state.allows(event):
                    node.change(event)
            self._end_stop_waits()
            self.stopped.set()

    # Children

    def add_child(self, child: ChildState) -> None:
        """Start a child under this emitter. Raises IPEventsError or OSError; after a stop, Closed.

        Raises WorkerRefused for code that has interrupted a section of the state lock in its own thread.
        """
        if self.node.inside():
            from .._processes.children import refused_here  # late, as in make_supervisor

            raise refused_here(child)
        try:
            if self.node.stage is not Stage.NEW and self.node.stage is not Stage.OPEN:
                raise self.node.stage_error()
            self.open()
            self.first_use()
            supervisor = self.supervisor
            if supervisor is None:  # a stop and another start have come in between
                raise self.node.stage_error()
            supervisor.children.add(child)
        except BaseException:  # of a signal handler, perhaps
            self.node.let_go(False)
            raise

    def abandon(self) -> None:
        """Disarm an emitter that is open, in a process made by os.fork(): what is open belongs to the parent.

        An emitter that is not open becomes this process's own, under its own name: the parent may be a server
        that loads the application and forks its workers, or a daemon that forks twice.
        """
        self.page = None  # the parent shares it with the process that was forked, not with this one
        node = self.node
        node.forget_lock_owner()
        node.dispatcher.floor.forget_owner()
        if self.opening.belongs_to_a_fork():
            self.incarnation = new_incarnation()
            self.waiters.clear()
            self.opening.renew(f"{os.getpid()}{self._suffix}")
            return
        node.change(Event.FORK)
        node.notices = None  # its thread does not exist here; errors are delivered where they come up
        if self.supervisor is not None:
            self.supervisor.abandon()
        if self.public_socket is not None:
            self.public_socket.abandon()
        self.role.abandon()
