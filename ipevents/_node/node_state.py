"""What all parts of a node share: the state lock, what it guards, and the stage of the emitter.

``NodeState`` is a base class of ``Node`` because the parts are given the node without knowing the whole of
it. They import this file; ``node.py``, which imports them, only assembles.

Locks. ``lock`` (the state lock) guards router, outboxes, ``state`` and the lists here. Order: the floor first
(see floor.py), then the state lock. A thread that holds the state lock takes no other lock.
"""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from .._core.books import Counters, add
from .._core.neighbour_names import Names
from .._core.router import Router
from .._core.state import Event, LifeState, Stage
from .._dispatch.dispatcher import Dispatcher
from .._dispatch.notices import Notices
from .._exceptions import Closed, ForkedError, IPEventsError, NotStarted
from .._links.link import Link
from .._platform.host import process_name
from .._platform.state_lock import StateLock
from .._platform.timers import Timers

if TYPE_CHECKING:
    from .._core.decisions import Decision
    from .._core.messages import Payload, Record
    from .._core.requests import BegunLast


class Asks(Protocol):
    """What the node calls for requests and answers; ``_ask/asking.py`` has it."""

    def answered(self) -> Iterable[tuple[str, int]]:
        """Return the events of which this process answers requests, each with its capacity."""

    def stats(self) -> dict[str, int]:
        """Return the counters of requests. State lock held."""

    def take(self, link: Link, decision: Decision, messages: list[Payload]) -> None:
        """Handle requests, or answers, that are for this process. In the reader thread of the link."""

    def passes(
        self, link: Link, target: Link, event: str, messages: list[Payload], reach: int
    ) -> list[Payload]:
        """Note requests that go on from ``link`` to ``target``, and return them as they are to be put there.

        ``reach``: as for ``Requests.put``.
        State lock held. One that may not go on is answered with an error, and left out.
        """

    def splits(self, link: Link, record: Record, copies: int) -> None:
        """Tell the asker that requests to all go on in so many copies, and whether one is answered here.

        State lock held.
        """

    def not_passed(self, link: Link, record: Record, cause: str, target: str | None) -> None:
        """Answer requests with an error, because they cannot go on. State lock held."""

    def lose(self, link: Link, record: Record) -> None:
        """Handle a request, or an answer, for whose large buffers there is no memory."""

    def cancelled(self, link: Link, ids: tuple[int, ...]) -> None:
        """Note that nobody waits any more for the answers to requests that came by this link."""

    def take_back(self, link: Link, event: str, ids: tuple[int, ...]) -> None:
        """Give those of these requests back to the parent that have not begun. State lock not held."""

    def answerers_changed(self) -> None:
        """Note that more, or fewer, processes of a neighbour's subtree answer requests now. Lock not held."""

    def child_started(self, link: Link) -> None:
        """Tell a child whose process was just started what was cancelled of that which waits for it.

        State lock held.
        """

    def child_settled(self) -> None:
        """Note that a child has come online, or has ended for good; or that one is not to be started again.

        So the children that are coming may have become fewer, see ``Children.is_any_coming``. State lock
        held.
        """

    def asker_ended(self, link: Link) -> None:
        """Begin nothing more for a child whose process has ended. What it wrote is still read.

        State lock held.
        """

    def link_gone(
        self,
        link: Link,
        exitcode: int | None = None,
        begun: BegunLast | None = None,
        *,
        goes_on: bool = False,
        cause: BaseException | None = None,
    ) -> None:
        """End all requests that went down a link whose process is gone, and all that came by it.

        State lock held. Arguments as for ``Requests.gone``. ``cause`` is what is reported of the child.
        """


class NodeState:
    """The shared state of one node.

    ``reply(pids, event, args, kwargs)`` is what Message.reply calls. ``on_first_use()`` is called before a
    send of a process that has not announced its ``online``.
    """

    # Assigned by Node when it assembles; called from everywhere.
    dispatcher: Dispatcher
    fail: Callable[..., None]  # Errors.fail
    error: Callable[..., None]  # Errors.report
    peer_error: Callable[..., None]  # Errors.report_peer
    asks: Asks  # assigned by the lifecycle

    def __init__(self, pid: str, reply: Callable[..., None], on_first_use: Callable[[], None]) -> None:
        self.lock = StateLock(self._deferred_failed)
        self.deferred = self.lock.deferred  # kept beside it, because each frame asks for it
        self.router = Router(pid)
        self.state = LifeState()  # changed by change() only
        self.stage = self.state.stage  # kept beside it, because each send asks for it
        self.announced = False  # our own online was announced, or need not be
        self.sends_while_stopping = False
        self.given = Names()  # the names that neighbours have been given, in all lives
        self.notices: Notices | None = None
        self.reply = reply
        self.on_first_use = on_first_use
        self.telling_errors: set[int] = set()  # threads that run the listeners of error
        self.timers = Timers()
        self.retired: list[Link] = []  # links that have ended and whose threads may still be about to end
        self.lingering: list[Link] = []  # the same, of lives that are over; nobody waits for them any more
        self.past: Counters = {}  # the books of links that are gone, see remember()

    # The lock

    def inside(self) -> bool:
        """Return whether this thread holds the state lock: the code was called from within such a section."""
        return self.lock.inside()

    def let_go(self, outer: bool) -> None:
        """Give the state lock back after an exception of any kind, see ``StateLock.let_go``."""
        self.lock.let_go(outer)

    def defer(self, call: Callable[..., Any], *args: Any) -> None:
        """Queue a call for the moment at which this thread releases the state lock."""
        self.lock.defer(call, *args)

    def _deferred_failed(self, exc: IPEventsError) -> None:
        """Report what a deferred call raised: there is no caller any more to raise it at."""
        self.error(exc)

    def forget_lock_owner(self) -> None:
        """Replace the state lock in a process made by os.fork(), where its owner does not exist."""
        self.lock.forget()
        self.telling_errors.intersection_update({get_ident()})  # the forking thread may run one of them
        self.lock = StateLock(self._deferred_failed)
        self.deferred = self.lock.deferred

    # The books

    def remember(self, link: Link) -> None:
        """Add the books of a link that is gone to those of the past, and begin new ones for it.

        State lock held. May be called again for what it still counts: its threads may be about to end, or
        another one has waited for room in its outbox.
        """
        add(self.past, link.close_books())

    def remember_retired(self) -> None:
        """Do that for all links that have ended, and whose threads may still count. State lock held."""
        alive = [link for link in self.lingering if link.is_alive()]  # first: the others count nothing more
        for link in (*self.retired, *self.lingering):
            self.remember(link)
        self.lingering = alive

    # The stage

    def change(self, event: Event) -> None:
        """Go on to the next state.

        State lock held. Raises RuntimeError where there is none, see ``state.py``.
        """
        try:
            self.state.change(event)
        finally:  # also where a signal handler raises after it
            self.stage = self.state.stage

    def check_stage(self, listener: bool) -> None:
        """Raise the error of this stage if it allows no send.

        While the emitter stops, listeners may still send, and so may a child's target that is being unwound.
        """
        if self.stage is not Stage.STOPPING or not (listener or self.sends_while_stopping):
            raise self.stage_error()

    def may_send(self) -> bool:
        """Return whether this stage allows a send of the calling code. If not, ``send`` raises the reason."""
        if self.stage is Stage.OPEN:
            return True
        return self.stage is Stage.STOPPING and (self.sends_while_stopping or self.dispatcher.runs_here())

    def stage_error(self) -> IPEventsError:
        """Return the error for a call that this stage does not allow."""
        if self.stage is Stage.NEW:
            return NotStarted(f"{self.place()} has not started: call ipem.start() first")
        if self.stage is Stage.FORKED:
            return ForkedError(
                f"this process was forked from {self.router.pid}, which has the emitter; use ipem.worker()"
            )
        return Closed(f"{self.place()} {'is stopping' if self.stage is Stage.STOPPING else 'was stopped'}")

    def place(self) -> str:
        """Return this process's name in texts for people: ``resize (4718)``."""
        return f"{process_name()} ({self.router.pid})"
