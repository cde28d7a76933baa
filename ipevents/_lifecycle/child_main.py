"""What runs in the main thread of a child, and this process's role as the child of another one.

``run`` is what the process of every child runs: connect to the parent, run the program, stay as long as
something keeps this process, stop.

No lock of its own: the fields are latches, or flags that one thread sets and others read. The main thread
blocks in the user's program, in ``_stay`` and in the wait for the end. A stop brings the program to its end
(see ``hurry``) and sets ``_recheck`` for ``_stay``; the end of the stop ends the last wait.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import sys
import threading

from .._core.addresses import Address
from .._core.handshake import Identity
from .._core.messages import (
    FAILED,
    FAULT,
    FINISHED,
    KIND,
    MAX_TEXT,
    PAYLOADS,
    PROGRAM,
    RAISED,
    RETURNED,
    STOP,
    Payload,
    Record,
    control,
    items_of,
    with_payload,
)
from .._core.state import Stage
from .._core.stopping import ORPHAN_GRACE_SECONDS, Act, Ending, Handler, Raised, grace
from .._core.topology import Up
from .._exceptions import Closed, LinkError, ProtocolError, Unpicklable, WorkerRefused
from .._links.link import Link
from .._payload import forms, inheritance, outcomes
from .._platform import exits, hooks, os_signals, registry, signal_exceptions
from .._platform.clock import monotonic, sleep
from .._platform.latches import Latch, main_waits_for
from .._platform.logs import Log, traceback_of
from .._platform.threads import Deadline, is_readable, main_ident, start_thread
from .._processes import programs
from .._processes.child_state import LEAST_STEP_SECONDS
from .._processes.process import Launch
from .._processes.programs import Program
from .._processes.role import HUNG_EXITCODE, Upward
from .._transport import keys, private_directory
from .._transport.dial import dial
from .._transport.stream import Stream
from . import drain
from .drain import LAST_SECONDS
from .lifecycle import Lifecycle
from .parent_channel import ParentChannel

log = Log("ipevents.life")

ORPHAN_SECONDS = 0.6  # all that a child has when its parent is gone
READ_SECONDS = 0.5  # for what is on its way when this process stops by itself in a stop of its parent
GONE_SECONDS = 0.5  # for the end of a parent that cannot be reached: mostly it is about to end


def run(life: Lifecycle, launch: Launch, descriptors: list[int] | None) -> None:
    """Connect to the parent, run the program, stay, stop. ``life`` is that of the process's own emitter.

    ``descriptors`` are those that the arguments of the program refer to.
    """
    os_signals.take_in_child()
    inheritance.receive(descriptors or [])
    role = ChildRole(life, launch)
    life.page = launch.page
    life.become_child(role, depth=launch.depth, is_worker=launch.is_worker, is_quiet=launch.is_quiet)
    program = role.connect()
    try:
        role.run(program)
    except SystemExit:
        raise
    except BaseException:  # of the program: multiprocessing prints it under this name
        multiprocessing.current_process().name += f" ({life.node.router.pid})"
        raise


class ChildRole:
    """The role of a process that another process of the tree has started, see Role.

    ``connect`` and ``run`` are called once, in the main thread.
    """

    is_child = True

    def __init__(self, life: Lifecycle, launch: Launch) -> None:
        self.life = life
        self.link: Link | None = None  # to the parent
        self.up: Upward | None = None
        if launch.channel is not None:
            self.up = ParentChannel(life, launch.channel, self._received, self._stop)
        self.orphaned = False
        self.failed = False  # the link to the parent ended for a fault
        self._launch = launch
        self._left = Latch()  # a stop need not wait for the main thread any more
        # Over the link, so all was read that came before; or the link has ended.
        self._asked_to_stop = Latch()
        self._program: queue.SimpleQueue[Record | None] = queue.SimpleQueue()
        self._has_program = False  # it has come; used by the reader of the link only
        self._kind = ""
        self._begun = False  # the program; before that a stop has nothing to bring to its end
        self._returned = False  # the target, or the script's body, ended normally
        self._goes_on = False  # the main thread has called stop() and goes on after it
        self._ending = Ending()
        self.ends_at_once = False  # see Role
        self._over = False  # the main thread has left the program, its code after a stop() as well
        self._recheck: Latch | None = None
        self._leaving: threading.Thread | None = None  # waits for threads of the user

    def connect(self) -> Program:
        """Connect to the parent that started this process, and return the program that it sends.

        Ends the process at once where the parent is gone. Raises LinkError where it cannot be reached.
        """
        life, launch = self.life, self._launch
        node = life.node
        node.sends_while_stopping = True
        node.incoming.holding = True
        life.open()
        assert life.supervisor is not None
        watch = life.supervisor.sentinels
        if not watch.add_parent(launch.parent_pid):
            self._vanish()
        me = Identity(node.router.pid, life.incarnation, sys.version_info[:2], 0)
        try:
            connection, welcomed, _ = dial(
                [Address("AF_UNIX", launch.address)],
                key=keys.derive(launch.token, keys.CHILD),
                key_id=launch.key_id,
                me=me,
            )
        except (LinkError, OSError):
            if watch.parent_is_gone(GONE_SECONDS):
                self._vanish()
            raise
        link = Link(welcomed.server.pid, node.lock, node.incoming.receive, self._closed)
        link.role = "parent"
        self.link = link
        link.on_control = self._control
        link.channel = None if self.up is None else self.up.channel
        link.last_words = lambda text: control(FAULT, text=text)
        with node.lock:
            if welcomed.pid != node.router.pid:  # another neighbour of the parent has our OS pid
                node.presence.rename(welcomed.pid)
            node.router.set_parent(link, welcomed.server.pid, Up.OPEN)
            link.attach(Stream(connection, None))
        hooks.serve_child(self)  # before begin(): a stop looks at the handler
        life.supervisor.begin(warns=not launch.is_quiet)
        record = self._program.get()
        if record is None:  # the parent is gone
            self._end()
            raise SystemExit(HUNG_EXITCODE)
        (kind, *rest), _ = forms.decode(record[PAYLOADS][0])
        self._kind = kind
        return Program(kind, *rest)

    def run(self, program: Program) -> None:
        """Run the program, stay as long as something keeps the process, then stop.

        Raises what the program raises, and SystemExit where a listener ended the process or the link to the
        parent ended for a fault.
        """
        life = self.life
        try:
            self._begun = True
            value = programs.execute(program)
            returned = self._pickled(value) if program.kind == programs.FUNCTION else None
            self._returned = True
            if not self.orphaned and life.exit is None and life.node.stage in (Stage.OPEN, Stage.STOPPING):
                life.imply_start()  # also in a stop: what waits for it is delivered
            if returned is not None and life.exit is None:
                self._tell_payload(RETURNED, *returned)
            if not life.stopping.is_set():
                self._stay()
        except SystemExit as exc:
            if life.exit is None or not isinstance(exc, signal_exceptions.Terminated):
                raise
            # Raised here because a listener ended the process: the listener's code counts.
        except BaseException as exc:  # the program's own, CancelledError say: reported, then raised on
            stopping = life.stopping.is_set()
            if not (isinstance(exc, Closed) and stopping):  # that would be a wait that the stop ended
                refused = isinstance(exc, WorkerRefused) and not stopping
                text = traceback_of(exc)[-MAX_TEXT:]  # the end says most
                self.report(control(FAILED, text=text, refused=refused))
                if program.kind == programs.FUNCTION:
                    self._tell_payload(RAISED, *outcomes.of_exception(exc, text, life.node.router.pid))
                raise
        finally:
            self._end()
        if life.exit is not None:
            raise life.exit
        if self.failed:
            raise SystemExit(HUNG_EXITCODE)

    def _pickled(self, value: object) -> tuple[Payload, int]:
        """Return what the parent is sent for what the function has returned: why not, if that cannot be sent.

        A part of the program, which a stop may break off: it runs code of the value's class.
        """
        try:
            return outcomes.of_value(value)
        except Unpicklable as exc:
            text = f"what the function has returned cannot be sent: {exc}"
            return outcomes.of_exception(Unpicklable(text), text, self.life.node.router.pid)

    def _tell_payload(self, kind: int, payload: Payload, size: int) -> None:
        """Send the parent a record with a payload. In the main thread, which holds no lock."""
        if self.link is not None:
            with self.life.node.lock:
                self.link.outbox.put(with_payload(kind, payload), size)
                self.link.prompt()

    def _stay(self) -> None:
        """Wait while something keeps this process. Otherwise it has finished, and a worker reports that.

        It is kept by the user's own ``start()``, by a listener, by a child, or by a thread of the user.
        """
        life = self.life
        assert life.supervisor is not None
        while True:
            recheck = self._recheck = Latch()
            if life.stopping.is_set():  # read after the line above: a stop sets the latch that it finds
                return
            kept = (
                life.was_started_by_user
                or life.node.dispatcher.wanted()
                or life.asks.answered()
                or life.has_ordinary_children()
            )
            if not kept and life.supervisor.children:  # of pools, which end when their jobs are done
                for pool in list(life.pools):
                    pool.shutdown(wait=False)
            elif not kept and not self._wait_for_threads():
                if self._kind == programs.FUNCTION:
                    self.report(control(FINISHED, goes_on=False))
                return
            recheck.wait()

    def _wait_for_threads(self) -> bool:
        """Return whether threads of the user keep this process, as they keep any other.

        If they do, ``_stay`` looks again when they have ended.

        A thread of ours waits for them. A stop does not wait for it: it ends with the process.
        """
        threads = _user_threads()
        if threads and (self._leaving is None or not self._leaving.is_alive()):

            def wait() -> None:
                try:
                    for leave in reversed(getattr(threading, "_threading_atexits", ())):
                        leave()  # as the interpreter does: executors finish their work and end
                    for thread in threads:
                        thread.join()
                finally:  # a hook may be of any library; what it raises is shown as in any thread
                    self.look_again()

            self._leaving = start_thread("leaving", wait)
        return bool(threads)

    def look_again(self) -> None:
        """Let ``_stay`` check again whether anything keeps this process.

        In any thread, also for signal handlers.

        A stop was asked for, or a child, a thread or the last listener of an event is gone.
        """
        if self._recheck is not None:
            self._recheck.set()

    def report(self, record: Record) -> None:
        """Send a control record to the parent, if there is a link to it. Signal handlers may call it."""
        link, node = self.link, self.life.node
        if node.inside():  # called by a signal handler in the middle of something
            node.defer(self.report, record)
        elif link is not None:
            with node.lock:
                link.tell(record)

    def _end(self) -> None:
        """Stop the emitter and wait for that. In the main thread, when it has left the program.

        Other emitters of the program are asked to stop where it was broken off. Otherwise their children may
        end first, for which multiprocessing waits.
        """
        self._over = True
        self._left.set()
        if self.life.supervisor is not None:  # a stop that is going on waits for this, see hurry()
            self.life.supervisor.sentinels.ring()
        if not self._returned or self.life.stopping.is_set():
            registry.stop_all()
        if not self.life.stopping.is_set():  # a stop that the parent has asked for keeps its time
            self.life.request_stop(None)
        self.life.wait_over(None)

    # The parent

    def _control(self, record: Record) -> None:
        """Handle the program, or the request to stop, that the parent has sent. In the reader of ``link``."""
        kind = record[KIND]
        if kind == PROGRAM:
            if self._has_program:
                raise ProtocolError("a second program")
            self._has_program = True
            self._program.put(record)
        elif kind == STOP:
            self._asked_to_stop.set()
            self._stop(items_of(record)["milliseconds"] / 1000)

    def _stop(self, seconds: float) -> None:
        """Stop, because the parent asks for it."""
        self.life.request_stop(max(seconds, LEAST_STEP_SECONDS / 2))

    def _received(self) -> int:
        """Return how many events the parent has sent that were read."""
        return 0 if self.link is None else self.link.received

    def _closed(self, link: Link, error: Exception | None) -> None:
        """Note the end of the link to the parent: without it this process has no purpose.

        In the link's reader.
        """
        if error is not None:
            self.life.node.error(error)
        self.life.node.incoming.held.released.set()
        self._asked_to_stop.set()
        if isinstance(error, LinkError) and not self.life.stopping.is_set():
            self.failed = True
        if not self.life.stopping.is_set():  # in a stop the link ends in order
            self.parent_ended()

    def parent_ended(self) -> None:
        """Stop this process soon, because the parent is gone. Called by two threads.

        In the middle of a stop this makes its deadline a nearer one.
        """
        if not self.orphaned:
            self.orphaned = True
            # A listener may hold up the stop; a thread of the user, or an exit hook, the interpreter.
            exits.exit_soon(ORPHAN_SECONDS + 2 * LAST_SECONDS, self._vanish)
            self.life.request_stop(ORPHAN_SECONDS)
        self._program.put(None)

    def _vanish(self) -> None:
        """End the process at once, with all its children and files: the parent is gone. In any thread.

        Nothing is reported, since no process is left that would take it.
        """
        if self.life.supervisor is not None:
            self.life.supervisor.kill_all()
        private_directory.sweep()
        os._exit(HUNG_EXITCODE)

    # Stopping

    def wait_stop(self, timeout: float | None) -> bool:
        """Wait for ``run`` of the emitter until a stop is asked for, at most ``timeout`` seconds."""
        return self.life.stopping.wait(timeout)

    def before_stop(self, waits: bool) -> None:
        """Report to the parent that the user's code calls ``stop()`` in this thread.

        ``waits`` if that call waits for the end. In the main thread it goes on with its program after that.
        """
        is_main = threading.current_thread() is threading.main_thread()
        goes_on = waits and is_main and not (self._over or self.life.stopped.is_set())
        if goes_on or not self.life.stopping.is_set():
            self.report(control(FINISHED, goes_on=goes_on))
        if goes_on:
            self._goes_on = True
            self._left.set()  # this thread waits for the stop, so the stop must not wait for it

    def runs(self, *, alone: bool) -> bool:
        """Return whether the main thread has to be brought to the end of its program during a stop.

        That is not so in a wait that ends by itself: one that the stop has ended already, that for the event
        ``stopping``, which ends when its listeners have run, and one for a child of this process while there
        is any (``alone`` says that there is none). Whatever else the program waits for, at another emitter
        say, no stop of this one ends.
        """
        latch = main_waits_for()
        ends_by_itself = latch is not None and (
            not alone or latch.is_set() or latch in self.life.stop_waiters
        )
        return self._begun and not (self._returned or self._left.is_set() or ends_by_itself)

    def takes_no_signal(self) -> bool:
        """Return whether a stop is under way to which this SIGTERM adds nothing.

        In the handler of SIGTERM.
        """
        life = self.life
        if not life.stopping.is_set() or life.stopped.is_set():
            return False
        supervisor = life.supervisor
        alone = supervisor is None or not supervisor.children
        return not self.runs(alone=alone) or signal_exceptions.raised() is Raised.ALIVE

    def has_left(self) -> bool:
        """Return whether a stop need not wait for the main thread, because that has left its program."""
        return self._left.is_set()

    def hurry(self, deadline: Deadline, *, alone: bool) -> float | None:
        """Bring the program to its end, step by step, see _core/stopping.py.

        In the supervisor's thread, during a stop.

        ``alone``: this process has no children any more. Returns when to call this again, None for not before
        something else happens. Sets ``ends_at_once`` where the last signal ends the process, so that all else
        is done first.
        """
        now = monotonic()
        left = deadline.left()
        assert left is not None
        self._ending.signal_by(now + grace(self._launch.stop_grace, left, orphaned=self.orphaned))
        act, look_at = self._ending.next(
            now,
            runs=self.runs(alone=alone),
            alone=alone,
            handler=os_signals.term_handler(),
            raised=signal_exceptions.raised(),
        )
        if act is Act.SIGNAL:
            log.debug("= TERM to the main thread of %s", self.life.node.router.pid)
            signal.pthread_kill(main_ident(), signal.SIGTERM)
        self.ends_at_once = act is Act.LAST
        return look_at

    def wait_target(self, deadline: Deadline) -> None:
        """Wait until the main thread has left its program. Ends the process if it does not.

        In the supervisor's thread, at the end of a stop.
        """
        if not self._left.is_set() and os_signals.term_handler() is Handler.DEFAULT and self.runs(alone=True):
            drain.run_notices(self.life.node, deadline.at_least(LAST_SECONDS))
            drain.flush(self.life.node, deadline.at_least(LAST_SECONDS))
            signal.pthread_kill(main_ident(), signal.SIGTERM)  # the end, unless it is blocked there
        if self._left.wait(deadline.left()):
            self._wait_held(deadline)
            return
        log.warning("! the main thread of %s does not end; the process does", self.life.node.place())
        if self.orphaned:
            self._vanish()
        drain.flush(self.life.node, deadline.at_least(LAST_SECONDS))
        os._exit(HUNG_EXITCODE)

    def _wait_held(self, deadline: Deadline) -> None:
        """Wait for the delivery of what waited for our online; count it as lost if that was not announced.

        Where the parent has announced a stop, what it has sent before is read first, if nothing keeps the
        reader from that: this process may stop by itself faster.
        """
        node = self.life.node
        incoming = node.incoming
        if self.life.stop_is_announced and not self.orphaned:
            self._asked_to_stop.wait(min(READ_SECONDS, deadline.left() or 0.0))
        if node.announced and not self.orphaned and (incoming.held.count or not incoming.holding):
            incoming.held.released.wait(deadline.left())
        incoming.drop_held()

    def last_steps(self) -> None:
        """Remove what a dead parent has left, and watch the parent from now on. At the very end of a stop.

        In the supervisor's thread, which ends after this.
        """
        self._sweep()
        self._guard()

    def abandon(self) -> None:
        """Give our copies of the descriptors back in a process made by os.fork()."""
        if self.link is not None:
            self.link.abandon()
        if self.up is not None:
            self.up.channel.abandon()

    def _guard(self) -> None:
        """Start a thread that ends this process soon after the end of the parent.

        After the stop, what is left of the program, exit hooks and threads may take their time, but not
        longer than the parent lives. The supervisor, which has watched it until now, has ended.
        """
        supervisor = self.life.supervisor
        assert supervisor is not None
        parent = supervisor.sentinels.parent_descriptor()
        if parent is None:
            return

        def wait() -> None:
            is_readable(parent, None)
            # Nothing here may need another thread: an interpreter that ends starts none.
            sleep(ORPHAN_GRACE_SECONDS)
            if self._goes_on and not self._over:
                signal.pthread_kill(main_ident(), signal.SIGTERM)
            sleep(ORPHAN_SECONDS)
            self._vanish()

        try:
            start_thread("parent", wait)
        except RuntimeError:  # the interpreter is ending already
            os.close(parent)

    def _sweep(self) -> None:
        """Remove the directories, with their locks, that a dead parent has left."""
        supervisor = self.life.supervisor
        if self.orphaned and supervisor is not None:
            if supervisor.sentinels.parent_is_gone(LAST_SECONDS):
                private_directory.sweep()
            else:
                self.failed = True  # the parent lives, and has cut the link off without a stop


def _user_threads() -> list[threading.Thread]:
    """Return the threads that the interpreter waits for at its end.

    All threads of the library are daemons.
    """
    main = threading.main_thread()
    return [thread for thread in threading.enumerate() if thread is not main and not thread.daemon]
