"""The child state: what is known of one child over all its restarts, and how it changes.

``phase`` and ``contact`` are where the child is (tables in _core/child_states.py). Only the methods here
change them; a field that has a meaning in some phases only names them in its comment. All fields are guarded
by the state lock, unless only the supervisor's thread uses them.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from .._core.child_states import Contact, ContactEvent, Phase, PhaseEvent, next_contact, next_phase
from .._core.messages import (
    FAILED,
    FAULT,
    FINISHED,
    KIND,
    ONLINE,
    PAYLOADS,
    PROBE,
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
from .._core.outbox import Outbox
from .._core.restarts import GiveUp, Restart, RestartDecision, RestartPolicy
from .._core.stopping import grace
from .._core.vigil import Vigil
from .._exceptions import (
    ChildEnded,
    GaveUp,
    LinkError,
    ProcessError,
    StartFailed,
    TargetFailed,
    WorkerRefused,
    child_title,
    last_words,
)
from .._links.link import Link
from .._payload import forms
from .._payload.inheritance import Inheritance
from .._platform.clock import monotonic
from .._platform.latches import Latch
from .._platform.logs import Log
from .._platform.shared_page import SharedPage
from .._platform.threads import Deadline
from .._transport.stream import Stream
from .control_channel import ControlChannel
from .process import ChildProcess
from .programs import FUNCTION, Program

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

log = Log("ipevents.supervisor")

ADMITTED_SECONDS = 1.0  # from a child's handshake to its link
SETTLE_SECONDS = 0.002  # until it is asked again whether a thread still writes to a process that has ended
STEP = 0.05  # the part of a stop's time that each level of the tree keeps for itself
LEAST_STEP_SECONDS = 0.2  # the least that a level keeps


class ChildState:
    """One child: its program, its link, its process of the moment, and when something is due for it.

    The methods change the state and return what follows. They start no process and call no listener; Children
    does that.

    With ``is_quiet`` no listener of the tree is told that it is online, or gone, and no error about it is an
    ``error`` event. Instead its owner, a part of the library, gives what is to be called, each in the
    supervisor's thread, without the state lock:

    - ``on_online()``: a process of it has come online;
    - ``on_failure(error)``: an error that would be an ``error`` event about another child;
    - ``on_end()``, once: it has ended for good, and nothing else is called any more. Not where ``add`` has
      raised before there was a process.

    They must not block. What they raise is a fault of the library, and logged.
    """

    link: Link  # one for all its processes; set by Children.add()

    def __init__(
        self,
        name: str,
        program: Program,
        is_worker: bool,
        policy: RestartPolicy,
        explicit: bool,
        start_method: str,
        inherited: Inheritance | None = None,
        *,
        stop_grace: float = 1.0,
        leave_timeout: float | None = None,
        hang_timeout: float | None = None,
        is_quiet: bool = False,
        on_online: Callable[[], None] | None = None,
        on_failure: Callable[[ProcessError | LinkError], None] | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self.is_quiet = is_quiet
        self.on_online = on_online
        self.on_failure = on_failure
        self.on_end = on_end
        # Calls for the owner that other threads have noticed the reason for; see Children._tell_owner.
        self.news: list[Callable[[], None]] = []
        self.inherited = inherited or Inheritance()  # kept with the child, for all starts
        self.is_worker = is_worker
        self.is_function = program.kind == FUNCTION  # otherwise it runs a script
        self.policy = policy
        self.explicit = explicit
        self.start_method = start_method
        self.stop_grace = stop_grace  # seconds
        self.leave_timeout = leave_timeout  # seconds, None for no limit
        self.hang_timeout = hang_timeout  # seconds that a listener may run, None for no limit
        self.program, self.program_size = forms.encode(tuple(program), {})
        self.phase = Phase.NEW
        self.process: ChildProcess | None = None  # while RUNNING and EXITED
        self.exited_at = 0.0  # of the last process
        self.restart_at = 0.0  # while WAITING
        self.pid = ""
        self.starts = 0
        self.exitcode: int | None = None
        self.wanted = False  # stop() or kill() was called: its end is final
        # By the function of one of its processes, the last that returned; by that of the last process.
        self.returned: Payload | None = None
        self.raised: Payload | None = None
        self.concluded = Latch()  # set when a value has come, or the phase is ENDED
        self.error: ProcessError | None = None  # the last one that was reported
        self.waiters: set[Latch] = set()  # of waits that the final end ends; changed without a lock
        self.end_is_told = False  # and all that was reported of it; from then on such a wait ends at once
        self.ended = Latch()  # set when the phase is ENDED and everything has been reported
        self.handle: Any = None  # the user's Child
        # What Child.send was given since the last process has ended, until its link is read to the end. Sends
        # by the pid of that process still go into the outbox of the link, and are lost.
        self._next: Outbox | None = None
        self._has_program = False  # the outbox of the link begins with PROGRAM, for a process to be started
        # Of its process, to be read after the end of that as well, until the next start or the final end.
        self.page: SharedPage | None = None
        self._forget_start()

    def _forget_start(self) -> None:
        """Give all fields that concern one start their first values, with a new key id and a new token."""
        self.close_page()
        self.contact = Contact.AWAITED
        self.key_id = os.urandom(8)
        self.token = os.urandom(32)
        self.sent_before = 0  # events on its link until this start
        self.admitted_at = 0.0  # while ADMITTED
        self.is_named = False
        self.channel: ControlChannel | None = None  # to its process, until that has ended
        self.vigil: Vigil | None = None  # over its process, while that runs and is not asked to stop
        self.was_written_to = False  # since the vigil sleeps
        self.early: Connection | None = None  # while STARTING and CONNECTED: the link gets it after the start
        # What the process has reported of its end.
        self.finished = False
        self.refused = False
        self.failure = ""
        self.fault = ""  # of the library or the system, for which it ended
        self.goes_on = False  # its main thread has called stop() itself and goes on with its program
        # Of its stop, while it runs.
        self.stop_sent = False
        self.term_sent = False
        self.warn_at: float | None = None
        self.term_at: float | None = None
        self.kill_at: float | None = None

    @property
    def title(self) -> str:
        """The child's name in texts for people: ``child resize (4718)``."""
        return child_title(self.name, self.pid)

    @property
    def alive(self) -> bool:
        """Whether a process runs."""
        return self.phase is Phase.RUNNING

    @property
    def is_over(self) -> bool:
        """Whether no other process will be started; the last one may still run. State lock held."""
        return self.wanted or self.phase is Phase.ENDED

    def is_coming(self, online: bool) -> bool:
        """Return whether it is about to be online, for the first time or again. State lock held.

        ``online``: its present process has said that. One that has not for SILENT_SECONDS counts as one that
        never will. A quiet child does not count.
        """
        if self.is_quiet or self.is_over:
            return False
        return self.phase is not Phase.RUNNING or (not online and self.warn_at is not None)

    # The phases

    def next_outbox(self) -> Outbox:
        """Return the outbox for the next process, while none runs. State lock held.

        It begins with the program, and has the limits of any other outbox.
        """
        if self.phase is not Phase.EXITED:
            return self.link.outbox
        if self._next is None:
            self._next = self._begun(Outbox())
        return self._next

    def _begun(self, outbox: Outbox) -> Outbox:
        """Put the program into an empty outbox."""
        outbox.put(with_payload(PROGRAM, self.program), self.program_size)
        return outbox

    def _fill(self) -> None:
        """Have the outbox of the link begin with the program, and go on with what waits. State lock held.

        The outbox stays the same object: a thread may still be about to write a frame that it took for the
        process before.
        """
        if not self._has_program:
            self._has_program = True
            following, self._next = self._next, None
            self.link.outbox.adopt(following or self._begun(Outbox()))

    def waiting(self) -> int:
        """Return how many events wait for the next process, while its link is none of the tree.

        State lock held.
        """
        if self.phase is Phase.EXITED:
            return 0 if self._next is None else self._next.events
        is_apart = self.phase is Phase.WAITING or (self.phase is Phase.STARTING and not self.is_named)
        return self.link.outbox.events if is_apart else 0

    def starts_now(self, now: float) -> None:
        """Note that a process is about to be started, and make a token for it. State lock held."""
        self.phase = next_phase(self.phase, PhaseEvent.START)
        self._forget_start()
        self._fill()
        self.sent_before = self.link.sent
        self.link.lost_as = "link-cut"
        self.policy.started(now)

    def started(self, process: ChildProcess) -> None:
        """Note that the process runs. What is sent from now on goes into its link. State lock held."""
        self.phase = next_phase(self.phase, PhaseEvent.STARTED)
        self.starts += 1
        self.raised = None
        self.process = process
        self._has_program = False

    def watch_over(self, channel: ControlChannel) -> None:
        """Take the control channel to a process that was started, and begin its vigil. State lock held."""
        self.channel = self.link.channel = channel
        if self.hang_timeout is not None:
            self.vigil = Vigil(self.hang_timeout)
            self.ask()

    def ask(self) -> None:
        """Send the process the question of the vigil. State lock held."""
        vigil, channel = self.vigil, self.channel
        if vigil is not None and channel is not None:
            channel.put(control(PROBE, number=vigil.number, limit=int(vigil.limit * 1000)))

    def end_channel(self) -> None:
        """Close the control channel to a process that has ended. In the supervisor's thread."""
        self.vigil = None
        if self.channel is not None:
            self.channel.close()
            self.channel = self.link.channel = None

    def close_page(self) -> None:
        """Let go of the page of its last process, which has ended. A late reader gets zeros."""
        page, self.page = self.page, None
        if page is not None:
            self.link.page = None
            page.close()

    def exited(self, code: int | None, now: float) -> None:
        """Note that its process has ended with this exit code. State lock held."""
        self.phase = next_phase(self.phase, PhaseEvent.EXITED)
        self.exitcode, self.exited_at = code, now
        self.kill_at = self.warn_at = None

    def goes_next(self, decision: RestartDecision, since: float) -> bool:
        """Go on after the last process was read to its end, or after a start that has failed.

        State lock held.

        Returns whether another process follows. If not, the caller calls ``ends``.
        """
        self.process = None
        if not isinstance(decision, Restart):
            return False
        self.phase = next_phase(self.phase, PhaseEvent.AGAIN)
        self.restart_at = since + decision.after
        self._fill()
        return True

    def ends(self) -> int:
        """Note that there will be no other process.

        Returns how many events waited for one, beside those in the outbox of the link. State lock held.
        """
        self.phase = next_phase(self.phase, PhaseEvent.END)
        self.process = None
        following, self._next = self._next, None
        return 0 if following is None else following.events

    # The link

    def admitted(self, now: float) -> None:
        """Note that a process has proved the token of this start. State lock held."""
        self.contact = next_contact(self.contact, ContactEvent.ADMITTED)
        self.admitted_at = now

    def connected(self, connection: Connection) -> None:
        """Take the connection of the process that was admitted. State lock held.

        The link gets it at once, or, while the start has not returned yet, in ``attach_early``.
        """
        self.contact = next_contact(self.contact, ContactEvent.CONNECTED)
        if self.phase is Phase.STARTING:
            self.early = connection
        else:
            self._attach(connection)

    def attach_early(self) -> None:
        """Give the link a connection that came before the start had returned. State lock held."""
        connection, self.early = self.early, None
        if connection is not None:
            self._attach(connection)

    def _attach(self, connection: Connection) -> None:
        """Give the link its connection.

        A stop that waits in the outbox is sent again, with the time that is left by now. Where the system has
        no descriptor for it, this hangs up, which ends the process, and nothing comes from this start.
        """
        try:
            stream = Stream(connection, None)
        except BaseException:  # no descriptor, or no memory
            self.contact = next_contact(self.contact, ContactEvent.READ)
            connection.close()
            raise
        self.link.attach(stream)
        if self.vigil is not None:
            self.vigil.connected(monotonic())
        if (
            self.stop_sent and self.kill_at is not None
        ):  # it has waited in the outbox: less time is left by now
            self.send_stop(Deadline(max(0.0, self.kill_at - monotonic())))

    def leaves(self, now: float) -> None:
        """Note that its link is read to the end, so its process is about to end. State lock held.

        A process that then takes longer than ``leave_timeout`` is killed.
        """
        self.contact = next_contact(self.contact, ContactEvent.READ)
        if self.alive and self.kill_at is None and self.leave_timeout is not None:
            self.kill_at = now + self.leave_timeout

    def is_read(self, now: float) -> bool:
        """Return whether nothing can come any more from a process that has ended."""
        if self.contact is Contact.ADMITTED:
            return now >= self.admitted_at + ADMITTED_SECONDS
        return self.contact in (Contact.AWAITED, Contact.READ) and self.link.is_settled

    # What is to be done, and when

    def times(self) -> list[float | None]:
        """Return the times at which something is to be done for this child.

        Only of what can still be done: a time that has passed and leads to nothing would make the thread
        spin.
        """
        if self.phase is Phase.WAITING:
            return [self.restart_at]
        if self.phase is Phase.RUNNING:
            times = [self.warn_at, self.term_at if self._is_out_of_reach() else None, self.kill_at]
            return times if self.vigil is None else [*times, self.vigil.next_at]
        if self.phase is Phase.EXITED and self.contact is Contact.ADMITTED:
            return [self.admitted_at + ADMITTED_SECONDS]
        if self.phase is Phase.EXITED and self.contact is Contact.READ and not self.link.is_settled:
            return [monotonic() + SETTLE_SECONDS]
        return []

    def send_stop(self, deadline: Deadline) -> None:
        """Ask the child to stop, and set the times for TERM and KILL if it does not. State lock held.

        In a stop the child itself sends TERM to its main thread, see child_main.py. The TERM from here is for
        a child that has closed its link by a ``stop()`` of its own, and so receives nothing, while its
        program goes on.
        """
        left = deadline.left()
        assert left is not None
        if self.phase is Phase.WAITING:
            self.restart_at = monotonic()  # the restart that is due now finds that the child is to end
        if not self.alive:
            return
        now = monotonic()
        if self.stop_sent and self.kill_at is not None:  # of several stops the shortest time counts
            left = min(left, max(0.0, self.kill_at - now))
        self.link.lost_as = "stopped"
        step = min(max(STEP * left, LEAST_STEP_SECONDS), left / 2)
        stop = control(STOP, milliseconds=int((left - step) * 1000))
        if self.channel is not None:  # at once; what is queued on the link is still handled
            self.channel.put(stop)
        self.link.tell(stop)
        self.vigil = None
        self.stop_sent = True
        if self.term_at is None and not self.term_sent:
            self.term_at = now + grace(self.stop_grace, left, orphaned=False)
        self.kill_at = now + left if self.kill_at is None else min(self.kill_at, now + left)

    def _is_out_of_reach(self) -> bool:
        """Return whether the program goes on after its own ``stop()``, so that only a signal can reach it."""
        return self.goes_on and self.contact is Contact.READ

    def kill(self) -> None:
        """End the child at once, and do not start it again.

        State lock held; the supervisor's thread sends the signal.
        """
        self.wanted = True
        self.link.lost_as = "stopped"
        self.kill_at = self.restart_at = monotonic()

    def heard(self, record: Record) -> None:
        """Note what the child has reported of itself. State lock held.

        That is ONLINE, FAILED, FAULT, FINISHED, RETURNED or RAISED. Ignores any other record: there is none
        that a child sends about its process.
        """
        kind = record[KIND]
        if kind == RETURNED:
            self.returned = record[PAYLOADS][0]
            self.concluded.set()
        elif kind == RAISED:
            self.raised = record[PAYLOADS][0]
        if kind not in (ONLINE, FAILED, FAULT, FINISHED):
            return
        items = items_of(record)
        if kind == ONLINE:
            self.contact = next_contact(self.contact, ContactEvent.ONLINE)
            self.warn_at = None
            if self.on_online is not None:
                self.news.append(self.on_online)
        elif kind == FAILED:
            self.failure, self.refused = str(items["text"]), bool(items["refused"])
        elif kind == FAULT:
            self.fault = str(items["text"])
        elif kind == FINISHED:
            self.finished = True
            self.goes_on = bool(items["goes_on"])

    def link_failed(self, error: LinkError) -> None:
        """Note, for the owner of a quiet child, an error that has ended its connection. State lock held."""
        if self.on_failure is not None:
            self.news.append(partial(self.on_failure, error))

    def take_news(self) -> list[Callable[[], None]]:
        """Return the calls that are due for its owner, once. State lock held."""
        news, self.news = self.news, []
        return news

    def ends_waits(self) -> None:
        """End all waits for the child itself, after its final end."""
        self.ended.set()
        self.concluded.set()

    def ends_expectations(self) -> None:
        """End the waits for events that last no longer than this child. After all that is told of its end."""
        self.end_is_told = True
        for latch in list(self.waiters):  # after the flag: who comes later asks for that
            latch.set()

    def came_to_nothing(self) -> ChildEnded:
        """Return the error for a wait that its final end has ended."""
        ended = ChildEnded(self.pid, self.name, self.exitcode)
        ended.__cause__ = self.error
        return ended

    def failures(self, online: bool, stopping: bool, decision: RestartDecision) -> list[ProcessError]:
        """Return the errors to report for an end.

        ``online``: it came after the child's online. State lock held.

        An end that was asked for, of this child or of the whole tree, is no failure.
        """
        told: list[ProcessError] = []
        failed = not self.wanted and not stopping
        if not online and failed:
            told.append(StartFailed(self.pid, self.exitcode, self.failure, self.fault, self.name))
        elif self.refused:
            # The reason first: a log line has no room for the traceback.
            text = f"{self.title} was refused and is not started again: {last_words(self.failure)}"
            told.append(WorkerRefused(f"{text}\n{self.failure}"))
        elif self.failure and failed:
            told.append(TargetFailed(self.pid, self.exitcode, self.failure, self.name))
        elif self.fault and failed:
            told.append(ProcessError(f"{self.title} ended for a fault: {self.fault}"))
        if isinstance(decision, GiveUp):
            told.append(GaveUp(f"{self.title} died young {decision.deaths} times in a row"))
        return told

    def act(self, now: float) -> None:
        """Give the warning and send the signals that are due for a running child.

        In the supervisor's thread.
        """
        process = self.process
        if process is None or self.phase is not Phase.RUNNING:
            return
        if self.warn_at is not None and self.warn_at <= now:
            self.warn_at = None
            self._warn()
        if self.term_at is not None and self.term_at <= now and self._is_out_of_reach():
            self.term_at, self.term_sent = None, True
            log.debug("= TERM to %s", self.title)
            process.send_signal(signal.SIGTERM)
        if self.kill_at is not None and self.kill_at <= now:
            self.kill_at = None
            log.debug("= KILL to %s", self.title)
            process.send_signal(signal.SIGKILL)

    def _warn(self) -> None:
        """Log how many events wait for a child that has not announced its online."""
        waiting = self.link.count_waiting(self.sent_before)
        if waiting:
            log.warning(
                "! %d events for %s wait: it has not said online yet; it does so when it calls ipem.start(), "
                "sends, or waits",
                waiting,
                self.title,
            )
