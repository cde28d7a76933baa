"""The children of this process: how they are started, what follows their end, how they are asked to stop.

There is no thread in this file. The first start of a child runs in the thread that asks for it; everything
else runs in the supervisor's thread, unless the docstring names another.

Locks. The state lock guards the list of children and the fields of each child state. What is reported to the
user is reported after the lock is released.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from .._core.callable_names import failure
from .._core.child_states import Phase
from .._core.log_lines import one_line
from .._core.messages import CANCEL, Record
from .._core.requests import begun_nothing
from .._core.restarts import Restart
from .._core.state import Stage
from .._exceptions import LinkError, ProcessError, ProtocolError, StartFailed, Unpicklable, WorkerRefused
from .._links.link import Link
from .._node.node import Node
from .._payload.inheritance import Inheritance
from .._platform import streams
from .._platform.clock import monotonic
from .._platform.logs import Log
from .._platform.shared_page import SharedPage
from .._platform.signal_resend import AGAIN_SECONDS
from .._platform.threads import Deadline
from .child_socket import ChildSocket
from .child_state import ChildState
from .control_channel import ControlChannel
from .process import ChildProcess, Launch, boot_server
from .vigils import Vigils

if TYPE_CHECKING:
    from .fork_server import ForkServer

log = Log("ipevents.supervisor")

SILENT_SECONDS = 10.0  # until a warning names the events that wait for an online (README, Guarantees)
GIVE_BACK_SECONDS = 1.0  # for threads that wait for nothing

_here = threading.local()  # is_starting: this thread is in the first start of a child, see Children.add


class Children:
    """The children that have not ended.

    Each child's main thread runs ``child_main(launch, ...)``. ``ring()`` lets the supervisor look again;
    ``on_empty()`` is called when a child has ended for good.
    """

    def __init__(
        self,
        node: Node,
        *,
        depth: int,
        incarnation: int,
        child_main: Callable[..., None],
        ring: Callable[[], None],
        on_empty: Callable[[], None],
    ) -> None:
        self._node = node
        self._depth = depth
        self._child_main = child_main
        self._ring = ring
        self._on_empty = on_empty
        self._states: list[ChildState] = []  # guarded by the state lock
        self.restarts = 0
        self._fork_server: ForkServer | None = None  # once a child was to be forked; it stays for that
        self._vigils = Vigils(node, ring, self._report)
        self._socket = ChildSocket(node, incarnation=incarnation, on_attached=ring)

    def __len__(self) -> int:
        return len(self._states)

    def waiting(self) -> int:
        """Return how many events wait for next processes of children. State lock held."""
        return sum(child.waiting() for child in self._states)

    def is_any_coming(self) -> bool:
        """Return whether a child that is not quiet is about to be online, the first time or again.

        State lock held. Whenever that may have ceased to be true, ``child_settled`` of the node's asks is
        called.
        """
        is_online = self._node.router.is_online
        return any(child.is_coming(is_online(child.link)) for child in self._states)

    def has_ordinary(self) -> bool:
        """Return whether there is a child that is not quiet."""
        return any(not child.is_quiet for child in list(self._states))

    # Starts

    def add(self, child: ChildState) -> None:
        """Start a child for the first time, in the calling thread.

        Raises OSError where the system refuses it.

        If this raises, there is no such child: what was started of it is taken back or killed. Raises
        WorkerRefused for a signal handler, or a finalizer, that has interrupted such a start in its own
        thread: locks of multiprocessing and of the library are held there.
        """
        if getattr(_here, "is_starting", False):
            raise refused_here(child)
        try:
            _here.is_starting = True
            self._add(child)
        finally:
            _here.is_starting = False

    def _add(self, child: ChildState) -> None:
        """Start a child for the first time. Errors as for ``add``."""
        node = self._node
        streams.occupy()  # the user may have closed them only now, and the socket would get such a number
        try:
            if child.start_method == "forkserver" and self._fork_server is None:
                self._boot_server()  # first: it boots while the rest is made ready here
            self._socket.open()
        except BaseException:
            if self._socket.is_closed and self._fork_server is not None:
                self._fork_server.release(self)  # a stop was faster, and may not have seen it
            raise
        link = Link(child.name, node.lock, node.incoming.receive, self._link_closed)
        try:
            child.link = link  # first: what follows may be broken off, and taken back
            link.on_control = partial(self._reported, child)
            link.role, link.given_name, link.child = "child", child.name, child.handle
            link.is_quiet = child.is_quiet
            with node.lock:
                if node.stage is not Stage.OPEN:  # a stop was faster; it does not know of this link
                    raise node.stage_error()
                self._states.append(child)
            self._start(child)
        except BaseException:  # the stop, the system refuses, or Ctrl-C: there is no such child
            node.let_go(False)
            if child.process is None:
                self._take_back(child, link)
            else:  # a signal handler raised when it ran already: the caller will have no handle of it
                self.kill_child(child)
            self._ring()
            raise
        self._ring()

    def _boot_server(self) -> None:
        """Have a fork server started, and keep it until ``close``."""
        from .fork_server import fork_server  # late: a process without children does without

        self._fork_server = fork_server  # first: a signal handler may raise between the two
        fork_server.retain(self)
        boot_server()

    def _take_back(self, child: ChildState, link: Link) -> None:
        """Remove a child whose first start has failed, as if it had never been."""
        with self._node.lock:
            if child in self._states:
                self._states.remove(child)
                child.ends()
                self._node.asks.child_settled()
            self._socket.forget(child)
        self._give_back(link)

    def _give_back(self, link: Link) -> None:
        """End the link, and its threads, of a child that was never started."""
        with self._node.lock:
            link.end()
        link.join(Deadline(GIVE_BACK_SECONDS))

    def _start(self, child: ChildState) -> None:
        """Start a process of a child. Called by ``add``, and in the supervisor's thread for each restart."""
        with self._node.lock:
            child.starts_now(monotonic())
            self._socket.expect(child)
        ours, theirs = socket.socketpair()
        process = page = None
        try:
            page = SharedPage.create()
            channel = ControlChannel(
                ours, partial(self._heard, child), partial(self._misled, child), is_to_parent=False
            )
            launch = Launch(
                self._socket.address,
                child.key_id,
                child.token,
                os.getpid(),
                self._depth + 1,
                child.is_worker,
                child.start_method,
                child.stop_grace,
                theirs,
                page,
                child.is_quiet,
            )
            inherited = child.inherited.passed(child.start_method)
            process = ChildProcess(self._child_main, launch, child.name, inherited)
            self._started(child, process, channel, page)
        except BaseException:  # of a signal handler, where there is a process
            if process is not None and child.process is None:
                process.discard()
            if child.channel is None:
                ours.close()
            if page is not None and child.page is None:
                page.close()
            raise
        finally:
            theirs.close()
            if page is not None:
                page.close_descriptor()
        log.debug("= %s started", child.title)

    def _started(
        self, child: ChildState, process: ChildProcess, channel: ControlChannel, page: SharedPage
    ) -> None:
        """Note that the process runs: from here on it has its name and is watched.

        Where a stop began meanwhile, it is killed at once.
        """
        with self._node.lock:
            child.started(process)
            child.page = child.link.page = page
            child.watch_over(channel)
            self._node.asks.child_started(child.link)
            child.link.wake_waiters()
            self._socket.name(child, str(process.pid))
            child.warn_at = None if child.is_quiet else monotonic() + SILENT_SECONDS
            child.link.progress = monotonic()
            child.attach_early()
            stopping = self._node.stage is not Stage.OPEN
            if stopping or child.wanted:
                child.kill_at = monotonic()

    # What children report: in the readers of their links, but what comes over a control channel

    def _heard(self, child: ChildState, kind: int, items: dict[str, Any]) -> None:
        """Handle what a child sends over its control channel. In the supervisor's thread."""
        if kind == CANCEL:
            self._node.asks.cancelled(child.link, items["ids"])
        else:
            self._vigils.told(child, kind, items)

    def _misled(self, child: ChildState, error: ProtocolError) -> None:
        """Report that a child has sent what cannot come over a control channel, and hang up on it.

        In the supervisor's thread.
        """
        text = f"{child.title} sent what makes no sense, and the connection ends: {error}"
        error.args = (one_line(text),)
        self._tell_error(child, error)
        child.link.disconnect()

    def _reported(self, child: ChildState, record: Record) -> None:
        """Note what a child reports of itself, unless it has ended for good. In the reader of its link."""
        with self._node.lock:
            if child in self._states:
                child.heard(record)
            has_news = bool(child.news)
        if has_news:
            self._ring()

    def _child_of(self, link: Link) -> ChildState | None:
        """Return the child that has this link, None where it has ended. Takes the state lock."""
        with self._node.lock:
            return next((child for child in self._states if child.link is link), None)

    def _link_closed(self, link: Link, error: Exception | None) -> None:
        """Note that a child's connection is read to its end, and let the supervisor look.

        In the reader of its link.
        """
        child = self._child_of(link)
        if isinstance(error, LinkError) and not link.is_quiet:
            self._node.error(error, child=link.child)
        if child is None:
            return
        with self._node.lock:
            if isinstance(error, LinkError) and child.is_quiet:
                child.link_failed(error)
            child.leaves(monotonic())
        self._ring()

    # Wishes, from any thread

    def stop_child(self, child: ChildState, seconds: float) -> None:
        """Ask one child to end within ``seconds``, and kill it after that. It is not started again."""
        with self._node.lock:
            child.wanted = True
            child.send_stop(Deadline(seconds))
            self._node.asks.child_settled()
        self._ring()

    def kill_child(self, child: ChildState) -> None:
        """Have one child killed at once, in the supervisor's thread. It is not started again."""
        with self._node.lock:
            child.kill()
            self._node.asks.child_settled()
        self._ring()

    def stop(self, deadline: Deadline) -> None:
        """Ask all children at once to end by the deadline. They are killed after it."""
        with self._node.lock:
            for child in self._states:
                child.send_stop(deadline)

    def hurry(self, deadline: Deadline) -> None:
        """Ask the children again where the deadline has been shortened since."""
        assert deadline.at is not None
        with self._node.lock:
            for child in self._states:
                if child.kill_at is not None and child.kill_at > deadline.at + AGAIN_SECONDS:
                    child.send_stop(deadline)

    def kill_all(self) -> None:
        """Kill all children now, and remove the directory. Takes no lock, so a signal handler may call it."""
        for child in list(self._states):
            process = child.process
            if process is not None and child.alive:
                process.send_signal(signal.SIGKILL)
        self._socket.remove()

    def give_up(self) -> None:
        """Reap all children after ``kill_all``, where their ends are not waited for otherwise.

        Let no child in.
        """
        for child in self._all():
            process = child.process
            if process is not None:
                child.exitcode = process.reap()
                process.close()
            child.end_channel()
            with self._node.lock:
                self._end(child)
            child.close_page()
            child.ends_waits()
            self._node.events.notify(child.ends_expectations)
            self._end_told(child)
        self.close()

    # The socket

    def close(self) -> None:
        """Let no child in any more, remove the directory, and let the fork server end.

        There are no children any more. Waits for the end of the fork server, some milliseconds.
        """
        self._socket.close()
        if self._fork_server is not None:
            self._fork_server.release(self)

    def remove_socket(self) -> None:
        """Remove the directory only. Idempotent. Takes no lock, so a signal handler may call it."""
        self._socket.remove()

    def abandon(self) -> None:
        """Give our copies of the descriptors back in a forked process; leave everything else alone."""
        for child in self._states:
            child.link.abandon()
            if child.process is not None:
                child.process.abandon()
            if child.channel is not None:
                child.channel.abandon()
        self._socket.abandon()
        if self._fork_server is not None:
            self._fork_server.abandon()

    # What is due

    def watched(self) -> tuple[list[ChildState], list[float]]:
        """Return the children whose process runs, and the times at which something is due for any child."""
        with self._node.lock:
            alive = [child for child in self._states if child.alive]
            return alive, [at for child in self._states for at in child.times() if at is not None]

    def look(self, now: float, deadline: Deadline | None) -> None:
        """Do what is due by the clock or by the links. ``deadline`` is that of the stop, if there is one."""
        for child in self._all():
            self._due(child, now, deadline)

    def _all(self) -> list[ChildState]:
        """Return a copy of the list of children, made under the state lock."""
        with self._node.lock:
            return list(self._states)

    def exited(self, child: ChildState) -> None:
        """Reap a child whose process has ended, and end its connection, so that the reader ends as well."""
        process = child.process
        if process is not None and child.alive:  # not alive: called again after a fault further down
            code = process.reap()
            with self._node.lock:
                if child.alive:
                    child.exited(code, monotonic())
                    self._node.asks.asker_ended(child.link)
            child.end_channel()
            log.debug("= %s ended with %s", child.title, code)
        # What it wrote is read first, also where a forked helper keeps its end open.
        child.link.disconnect()

    def _due(self, child: ChildState, now: float, deadline: Deadline | None) -> None:
        """Do what is due for one child: finish its last process, restart it, or send its signals."""
        if child.news:
            self._tell_owner(child)
        if child.phase is Phase.EXITED:
            # A listener that never returns keeps the link from being read: a stop does not wait for it.
            overdue = deadline is not None and deadline.passed()
            if overdue or child.is_read(now):
                self._finish(child, stopping=deadline is not None)
        if child.phase is Phase.WAITING and child.restart_at <= now:
            self._restart(child, stopping=deadline is not None)
        if child.vigil is not None:
            self._vigils.watch(child, now)
        is_silent = child.warn_at is not None and child.warn_at <= now
        child.act(now)
        if is_silent:
            with self._node.lock:
                self._node.asks.child_settled()

    def _finish(self, child: ChildState, *, stopping: bool) -> None:
        """Report the end of a child's process, and decide whether another one follows.

        Called when the process has ended and its link is read to the end.
        """
        link, process = child.link, child.process
        with self._node.lock:
            if child.phase is not Phase.EXITED:
                return
            code = child.exitcode
            if not link.is_settled or link.connection is not None:  # a listener keeps its reader
                link.write_off()
            self._socket.forget(child)
            cause = "stopped" if child.wanted or stopping else "link-cut"
            lost = link.dropped.get(cause, 0)
            online, notices = self._node.presence.child_gone(link, code, cause)
            lost = link.dropped.get(cause, 0) - lost + link.sent - child.sent_before
            decision = child.policy.exited(
                child.exited_at,
                code,
                finished=child.finished,
                wanted=child.wanted or stopping,
                refused=child.refused,
                explicit=child.explicit,
            )
            errors = child.failures(online, stopping, decision)
            begun = None if child.page is None else child.page.begun_last
            if not online:  # what it was sent waited in it for its online
                begun = begun_nothing
            goes_on = isinstance(decision, Restart)
            why = errors[0] if errors else None
            self._node.asks.link_gone(link, code, begun, goes_on=goes_on, cause=why)
            goes_on = child.goes_next(decision, child.exited_at)
            self._node.events.tell_offlines(notices)
            if not goes_on:
                self._end(child)
        if process is not None:
            process.close()
        self._tell_owner(child)  # of this process, whose link is read to its end: nothing more comes
        # What was sent to it waited in its process for its online. An end that nobody wanted is an error.
        if lost and not online and cause == "stopped" and not child.is_quiet:
            log.warning("! %d events for %s are lost: it was stopped before its online", lost, child.title)
        for error in errors:
            self._report(child, error)
        if not goes_on:
            self._announce_end(child)

    def _report(self, child: ChildState, error: ProcessError) -> None:
        """Report an error about a child, and keep it as the cause of what waits for this child in vain."""
        child.error = error
        self._tell_error(child, error)

    def _tell_error(self, child: ChildState, error: ProcessError | LinkError) -> None:
        """Deliver an error about a child: to its owner if it is quiet, otherwise as an ``error`` event."""
        if not child.is_quiet:
            self._node.error(error, child=child.handle)
            return
        self._tell_owner(child)  # what was before it
        if child.on_failure is not None:
            self._call(child, partial(child.on_failure, error))

    def _tell_owner(self, child: ChildState) -> None:
        """Tell the owner of a quiet child what other threads have noticed."""
        with self._node.lock:
            news = child.take_news()
        for call in news:
            self._call(child, call)

    def _end_told(self, child: ChildState) -> None:
        """Tell the owner of a quiet child that it has ended for good, as the last thing of all."""
        if child.on_end is not None:
            self._call(child, child.on_end)

    def _call(self, child: ChildState, call: Callable[[], None]) -> None:
        """Call what the owner of a quiet child has given. State lock not held."""
        try:
            call()
        except BaseException:  # a fault of the library, or of the system: the supervisor goes on
            log.exception("! what was to be told of %s failed", child.title)

    def _end(self, child: ChildState) -> None:
        """Remove a child that will not be started again, and retire its link. State lock held."""
        self._states.remove(child)
        # No process has what is left.
        self._node.asks.link_gone(child.link, child.exitcode, begun_nothing, cause=child.error)
        child.link.drop("link-cut", child.ends())
        child.link.drop_waiting("link-cut")
        self._node.presence.retire(child.link)
        self._node.asks.child_settled()

    def _announce_end(self, child: ChildState) -> None:
        """Let the threads go on that wait for the child's end.

        Called after ``_end``, when all else is reported.
        """
        child.inherited = Inheritance()  # lets go of the objects that it passed to its processes
        child.close_page()
        child.ends_waits()
        self._node.events.notify(child.ends_expectations)
        self._on_empty()
        self._end_told(child)

    def _restart(self, child: ChildState, *, stopping: bool) -> None:
        """Start a child's next process, or end the child where it was stopped meanwhile.

        A start that fails is reported, and counts as a death: the restart policy decides whether another one
        follows.
        """
        if child.wanted or stopping:
            with self._node.lock:
                self._end(child)
            self._announce_end(child)
            return
        try:
            self._start(child)
        except BaseException as exc:  # of the system, a forkserver that is gone, an object that is passed on
            now = monotonic()
            with self._node.lock:
                if child.alive:  # the fault came after the start: the end of the process decides what follows
                    child.kill_at = now
                    raise
                self._socket.forget(child)
                decision = child.policy.exited(
                    now,
                    None,
                    finished=False,
                    wanted=child.wanted,
                    refused=isinstance(exc, Unpicklable),  # an argument is gone for good
                    explicit=child.explicit,
                )
                goes_on = child.goes_next(decision, now)
                if not goes_on:
                    self._end(child)
            failed = StartFailed(child.pid, None, why=failure(exc), name=child.name)
            self._report(child, failed)
            if not goes_on:
                self._announce_end(child)
            return
        self.restarts += 1


def refused_here(child: ChildState) -> WorkerRefused:
    """Return the error for a start by code that runs in the middle of the library, in the same thread."""
    return WorkerRefused(
        f"child {child.name} cannot be started here: this code has interrupted the library in its own "
        "thread, in the start of another child for example, as a signal handler or a finalizer does; let it "
        "note what it wants, in a queue say, and start the child outside of it"
    )
