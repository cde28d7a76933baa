"""The life of one emitter: open, say that it is there, end; as a top process or as somebody's child.

Joins node, supervisor and public socket. Locks: ``_starting`` guards the one way through ``start``, and
is taken before the dispatcher's, so no listener waits for it; ``_opening`` guards the way from NEW to
OPEN, and nobody who holds it waits for a listener. Both are taken before the state lock.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from .._core.handshake import Identity
from .._core.messages import FAILED, FINISHED, MESSAGE_ITEMS, ONLINE, PAYLOADS, PROGRAM, STOP, Record
from .._core.router import Router, Up
from .._exceptions import Closed, LinkError, WorkerRefused, WouldDeadlock
from .._options import Options
from . import keys, lifetime, payload, programs
from .connector import Waiting, dial
from .gate import Gate
from .link import Link
from .logs import Log, traceback_of
from .node import Node
from .notices import Notices
from .process import Launch
from .programs import Program
from .session import Session
from .stage import Stage
from .supervisor import LEAST_STEP_SECONDS, ORPHAN_SECONDS, Slot, Supervisor
from .threads import Deadline, Latch, main_ident

log = Log("ipevents.life")

GOODBYE_SECONDS = 0.5  # for the other end to read what was written
LAST_SECONDS = 0.1  # the same where nobody is left who reads
HUNG_EXITCODE = 1  # of a child whose main thread could not be brought to its end


class Life:
    """See the module. One for each emitter; ``stop`` and ``start`` may follow each other in a top process."""

    def __init__(self, pid: str, reply: Callable[..., Any]) -> None:
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
        self.is_child = False
        self.is_worker = False
        self.is_grand_master = False
        self.supervisor: Supervisor | None = None
        self.gate: Gate | None = None
        self.parent: Link | None = None
        self.stopping = Latch()  # a stop was asked for
        self.stopped = Latch()  # and is done
        self.waiters: set[Latch] = set()  # of waits for an event; a stop ends them
        self.exit: SystemExit | None = None  # what a listener ended this process with
        self._starting = threading.RLock()
        self._opening = threading.RLock()
        self._started = False  # start() was called, by the user or by implication
        self._explicit = False  # by the user
        self._ready_said = False  # once in a life, whatever happens to the connection
        self._program: queue.SimpleQueue[Record | None] = queue.SimpleQueue()
        self._kind = ""
        self._target_done = Latch()
        self._returned = False  # the target, or the script's body, ended normally
        self._in_run = False
        self._recheck: Latch | None = None
        self._orphaned = False
        self._told = False  # run() returned True in a child: what follows it is how the target ends
        self._interrupted = False  # SystemExit was raised in the child's main thread
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
            node.notices = Notices(node.router.pid)
            self.supervisor = Supervisor(
                node,
                depth=self.depth,
                incarnation=self.incarnation,
                on_stop=self._stop_links,
                on_stopped=self._end_links,
                on_orphaned=self._parent_ended,
                on_empty=self._look_again,
                is_done=lambda: not self.is_child or self._target_done.is_set(),
                interrupt=self._interrupt_target,
            )
            with node.lock:
                node.stage = Stage.OPEN  # NEW -> OPEN
            if not self.is_child:
                node.announced = False
                keys.sweep()
                lifetime.watch(self)
                self.supervisor.begin()

    def _begin_anew(self) -> None:
        """After a stop: a new life with the same name and listeners."""
        if self.is_child:
            raise Closed("the emitter of a child was stopped; its process is about to end")
        if not self.stopped.is_set():  # the last steps of the stop are still to come
            if not self.may_wait():
                raise self.node.stage_error()
            self._wait_over(None)
        node = self.node
        with node.lock:
            node.router = Router(node.router.pid)
            node.announced = False
            node.stage = Stage.NEW  # CLOSED -> NEW
        self.gate = self.parent = None
        self._started = self._explicit = self._ready_said = False
        self.stopping, self.stopped = Latch(), Latch()
        self.exit = None

    def start(self) -> None:
        """``ready`` and ``online``, and before that the public socket of a top process. Idempotent."""
        self._explicit = True
        self._start()

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
            self._start()
            if not node.announced:  # in a listener of ready: our online goes before all that we send
                with node.lock:
                    if not node.announced:
                        node.announce()

    def _start(self) -> None:
        # A listener does not wait for the thread that starts, which may wait for listeners to end.
        if not self._starting.acquire(blocking=not self.node.dispatcher.runs_here()):
            return
        try:
            if self._started:
                if self.node.stage is Stage.CLOSED and not self.is_child:
                    self._started = False
                else:
                    return
            if self.is_child:
                self._started = True
                self._announce(None)
                return
            if self.node.stage is Stage.NEW or self.node.stage is Stage.CLOSED:
                self._join_and_open()
            else:
                self.open()
                self._join_and_open()
        finally:
            self._starting.release()

    def _join_and_open(self) -> None:
        with self._opening:
            if self.node.stage is Stage.CLOSED:
                self._begin_anew()
        gate = joined = connected = None
        if self.options.use_socket:
            gate = Gate(
                self.node,
                self.options,
                self.incarnation,
                on_connected=self._server_found,
                on_lost=self._server_lost,
            )
            joined = gate.join()
        self.open()
        self.node.dispatcher.enter()  # whoever connects now is heard behind our own ready and online
        try:
            if gate is not None and joined is not None:
                connected = gate.begin(joined)
                self.parent = gate.parent
            self.gate = gate
            self._started = True
            if isinstance(joined, Waiting):
                self.node.announced = True  # sends wait in the link; online is said when it is connected
                return
            self.is_grand_master = self.parent is None
            self._announce(connected)
        finally:
            self.node.dispatcher.leave()

    def _announce(self, connected: tuple[Session, str, str] | None) -> None:
        """``ready`` to our listeners, then our interest and ``online`` upwards, then ``online`` to ours.

        The dispatcher is ours meanwhile, so the parent's answer is not told before our own online.
        """
        node = self.node
        if connected is not None:
            with node.lock:
                self._take_name(*connected[1:])
        node.dispatcher.enter()
        try:
            self._ready_said = True
            node.deliver_local("ready")
            with node.lock:
                if connected is not None:
                    self._attach_server(connected[0])
                elif not node.announced:
                    node.announce()
            node.deliver_local("online")
        finally:
            node.dispatcher.leave()
        node.incoming.online_said()

    # As a client of a server

    def _take_name(self, pid: str, server_pid: str) -> None:
        """State lock held: our name as agreed with the server, and the server's."""
        node = self.node
        if pid != node.router.pid:
            node.rename(pid)
        node.router.parent_renamed(server_pid)

    def _attach_server(self, session: Session) -> None:
        """State lock held: serve a connection to the server; ourselves first, then what waited for it."""
        node, link = self.node, self.parent
        assert link is not None
        waiting = link.outbox.clear()
        node.router.set_up(Up.OPEN)
        node.announce_again()
        for record in waiting:
            if len(record) == MESSAGE_ITEMS:  # what was said of interest has just been said in full
                kind, path, event, to, messages = record
                renamed = (kind, (*path[:-1], node.router.pid), event, to, messages)
                link.outbox.put(renamed, sum(map(payload.size_of, messages)))
        link.attach(session)

    def _server_found(self, session: Session, pid: str, server_pid: str) -> None:
        """In the connector's thread: a late or a new connection."""
        self.node.notify(lambda: self._welcome_server(session, pid, server_pid))

    def _welcome_server(self, session: Session, pid: str, server_pid: str) -> None:
        node = self.node
        with node.lock:
            link = self.parent
            if node.stage is not Stage.OPEN or link is None or link.session is not None:
                session.socket.close()
                return
            self._take_name(pid, server_pid)
        if not self._ready_said:
            self._ready_said = True
            node.deliver_local("ready")
        node.dispatcher.enter()
        try:
            with node.lock:
                self._attach_server(session)
            node.deliver_local("online")
        finally:
            node.dispatcher.leave()

    def _server_lost(self, pid: str) -> None:
        self.node.notify(lambda: self._tell_lost(pid))

    def _tell_lost(self, pid: str) -> None:
        self.node.deliver_local("offline", (pid,))

    # As a child of a parent

    def become_child(self, launch: Launch) -> Program:
        """Connect to the parent that started this process, and return what it wants to be run.

        Called once, in the main thread. Raises LinkError where the parent is not to be reached.
        """
        node = self.node
        self.is_child = True
        self.is_worker = launch.is_worker
        self.depth = launch.depth
        node.sends_while_stopping = True
        node.incoming.holding = True
        self.open()
        assert self.supervisor is not None
        if not self.supervisor.watch_parent(launch.parent_pid):
            self._vanish()
        me = Identity(node.router.pid, self.incarnation, sys.version_info[:2], 0)
        try:
            connection, welcomed = dial(
                launch.address,
                "AF_UNIX",
                key=keys.derive(launch.token, b"child"),
                key_id=launch.slot,
                me=me,
            )
        except (LinkError, OSError):
            if self.supervisor.parent_is_gone(GOODBYE_SECONDS):
                self._vanish()
            raise
        link = Link(welcomed.server.pid, node.lock, node.receive, self._parent_closed)
        self.parent = link
        with node.lock:
            node.router.set_parent(link, welcomed.server.pid, Up.OPEN)
            link.attach(Session(connection, None))
        self.supervisor.begin()
        lifetime.serve_child(self)
        record = self._program.get()
        if record is None:  # the parent is gone
            self._end_child()
            raise SystemExit(HUNG_EXITCODE)
        (kind, *rest), _ = payload.decode(record[PAYLOADS][0])
        self._kind = kind
        return Program(kind, *rest)

    def _vanish(self) -> None:
        """The parent is gone, nobody is to be told anything: end at once and leave nothing, in any thread."""
        if self.supervisor is not None:
            self.supervisor.kill_all()
        keys.sweep()
        os._exit(HUNG_EXITCODE)

    def run_child(self, program: Program) -> None:
        """Run the program, stay as long as something keeps the process, then stop. In the main thread.

        Raises what the program raises, and SystemExit where a listener ended the process.
        """
        try:
            programs.execute(program)
            self._returned = True
            if not self.stopping.is_set():
                self._start()
                self._stay()
        except SystemExit:
            if self.exit is None or not self._interrupted:
                raise
            # Raised here because a listener ended the process: the listener's code counts.
        except Exception as exc:
            if not (isinstance(exc, Closed) and self.stopping.is_set()):  # else a wait that the stop ended
                refused = isinstance(exc, WorkerRefused) and not self.stopping.is_set()
                self._tell_parent((FAILED, traceback_of(exc), refused))
                raise
        finally:
            self._end_child()
        if self.exit is not None:
            raise self.exit

    def _stay(self) -> None:
        """Wait while something keeps this process, which else has finished."""
        assert self.supervisor is not None
        while True:
            recheck = self._recheck = Latch()
            if self.stopping.is_set():  # looked at behind the line above: a stop sets the latch that it finds
                return
            kept = self._explicit or self.node.dispatcher.events() or self.supervisor.slots
            if not kept:
                if self._kind == programs.FUNCTION:
                    self._tell_parent((FINISHED,))
                return
            recheck.wait()

    def _tell_parent(self, record: Record) -> None:
        link = self.parent
        if self.node.inside():  # called by a signal handler in the middle of something
            self.node.defer(self._tell_parent, record)
        elif link is not None:
            with self.node.lock:
                link.tell(record)

    def _end_child(self) -> None:
        self._target_done.set()
        self.request_stop(None)
        self._wait_over(None)

    def _look_again(self) -> None:
        """A child or the last listener of an event is gone: perhaps nothing keeps this process any more."""
        if self._recheck is not None:
            self._recheck.set()

    def _control(self, link: Link, record: Record) -> None:
        kind = record[0]
        if link is self.parent and self.is_child:
            if kind == PROGRAM:
                self._program.put(record)
            elif kind == STOP:
                self.request_stop(max(int(record[1]) / 1000, LEAST_STEP_SECONDS / 2))
        elif kind in (ONLINE, FAILED, FINISHED) and self.supervisor is not None:
            self.supervisor.control(link, record)

    def _parent_closed(self, link: Link, error: Exception | None) -> None:
        """In the reader of a child's link to its parent: without it this process has no purpose."""
        if error is not None:
            self.node.error(error)
        if not self.stopping.is_set():  # else one of us has ended the link in order
            self._parent_ended()

    def _parent_ended(self) -> None:
        """Also in the middle of a stop, whose deadline is now a nearer one. Called by two threads."""
        if not self._orphaned:
            self._orphaned = True
            # A listener may hold up the stop, a thread of the user or his exit hook the interpreter.
            lifetime.exit_soon(ORPHAN_SECONDS + 2 * LAST_SECONDS, self._vanish)
            self.request_stop(ORPHAN_SECONDS)
        self._program.put(None)

    def target_is_done(self) -> bool:
        """For the child's signal handler: whether nothing is left in the main thread to be interrupted."""
        if self._returned or self._in_run or self._target_done.is_set():
            return True
        return self._interrupted or self._told

    def _interrupt_target(self) -> bool:
        """In the supervisor's thread, while a child stops: get its main thread out of its program."""
        if not self.is_child or self.target_is_done():
            return False
        signal.pthread_kill(main_ident(), signal.SIGINT)  # see lifetime
        return True

    def target_interrupted(self) -> None:
        self._interrupted = True

    def gate_cannot_serve(self) -> bool:
        """Whether new clients need threads that this Python cannot start once the script has ended."""
        broken = (3, 12, 0) <= sys.version_info[:3] <= (3, 12, 2)
        return broken and self.gate is not None and self.gate.parent is None

    # Stopping

    def request_stop(self, seconds: float | None) -> None:
        """Ask for the end; returns at once. Takes no lock: a signal handler may call it."""
        supervisor = self.supervisor
        if supervisor is None:
            return
        self.stopping.set()
        supervisor.request_stop(self.options.stop_timeout if seconds is None else seconds)
        if self._recheck is not None:
            self._recheck.set()

    def stop(self, timeout: float | None) -> None:
        """End this process's part of the tree; waits for it, but from inside only requests it."""
        if self.node.stage is Stage.FORKED:
            return
        if self.supervisor is None:
            if self.stopping.is_set() and not self.node.inside():
                self.stopped.wait(GOODBYE_SECONDS)  # another thread is at the last line of its stop
            return
        waits = self.may_wait()
        if self.is_child:
            if not self.stopping.is_set():
                self._tell_parent((FINISHED,))
            if waits and self._is_main():
                self._target_done.set()  # it is we who wait: nobody has to wait for us
        self.request_stop(timeout)
        if waits:
            self._wait_over(None if timeout is None else timeout + 1.0)

    def check_wait(self, what: str) -> None:
        """Refuse a wait that could never end. Raises WouldDeadlock, NotStarted or Closed."""
        if self.node.dispatcher.runs_here():
            raise WouldDeadlock(f"{what} waits, and no event is delivered while a listener runs")
        if self.node.stage is not Stage.OPEN:
            raise self.node.stage_error()

    def may_wait(self) -> bool:
        """Whether this thread may wait for the end: nothing that ends needs it."""
        node, supervisor = self.node, self.supervisor
        ident = threading.get_ident()
        if node.inside() or node.dispatcher.runs_here() or lifetime.in_handler_of(self):
            return False
        if threading.current_thread().name.startswith("ipevents-"):
            return False
        if supervisor is None or supervisor.runs_here():
            return False
        links = [link for link in list(node.router.neighbours) if isinstance(link, Link)]
        return not any(link.is_written_by(ident) for link in links)

    def _is_main(self) -> bool:
        return threading.current_thread() is threading.main_thread()

    def wait_stopped(self, timeout: float | None) -> bool:
        """For ``run``: until stopped (in a child: until a stop is asked for), at most ``timeout`` seconds."""
        if self.node.dispatcher.runs_here():
            raise WouldDeadlock("run() waits, and no event is delivered while a listener runs")
        self._in_run = True
        try:
            if not self.is_child:
                return self._wait_over(timeout)
            self.stopping.wait(timeout)
        finally:
            self._in_run = False
        # Looked at again: who stopped us after the wait and before the line above did not interrupt us.
        self._told = self.stopping.is_set()
        return self._told

    def _wait_over(self, timeout: float | None) -> bool:
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

    def _stop_links(self, deadline: Deadline) -> None:
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
            self.gate.close(deadline)

    def _end_links(self, deadline: Deadline) -> None:
        """In the supervisor's thread, last: what is queued is written, then links and notices end."""
        node = self.node
        if self.is_child and not self._target_done.wait(deadline.left()):
            log.warning("! the main thread of %s does not end; the process does", node.router.pid)
            if self._orphaned:
                self._vanish()
            self._flush(deadline.at_least(LAST_SECONDS))
            os._exit(HUNG_EXITCODE)
        # The children may have used the time up: what they left to be told is told all the same. But where
        # a parent is gone, nobody is left to be told anything.
        deadline = deadline.at_least(LAST_SECONDS if self._orphaned else GOODBYE_SECONDS)
        notices = node.notices
        if notices is not None:
            told = Latch()  # all that was noticed so far: its listeners may still send
            notices.put(told.set)
            told.wait(deadline.left())
        self._flush(deadline)
        with node.lock:
            node.stage = Stage.CLOSED  # STOPPING -> CLOSED
            links = [link for link in node.router.neighbours if isinstance(link, Link)]
            for link in links:
                link.say_goodbye()
        goodbye = Deadline(min(GOODBYE_SECONDS, deadline.left() or 0.0))
        for link in links:
            link.wait_closed(goodbye)
        with node.lock:
            for link in links:
                link.end()
        # Behind the ends of the clients' links, whose offline is told as well.
        if notices is not None and not notices.close(deadline):
            log.warning("! a listener of %s does not return; its thread is left behind", node.router.pid)
        last = deadline if self._orphaned else Deadline(GOODBYE_SECONDS)
        for link in links + (self.supervisor.retired if self.supervisor else []):
            if not link.join(last):
                log.warning("! the reader of %r does not end: a listener keeps it", link)
        node.notices = None
        if self._orphaned and self.supervisor is not None and self.supervisor.parent_is_gone(LAST_SECONDS):
            keys.sweep()  # what it has left, its locks with it
        self.supervisor = None if not self.is_child else self.supervisor
        lifetime.unwatch(self)
        self.is_grand_master = False
        self.stopped.set()

    def _flush(self, deadline: Deadline) -> None:
        with self.node.lock:
            for link in list(self.node.router.neighbours):
                link.flush(deadline)  # type: ignore[attr-defined]  # every neighbour here is a Link

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
        elif self.parent is not None:
            self.parent.abandon()
