"""What all parts of a node share: the state lock, what it guards, and the stage of the emitter.

A base class of ``Node``, so that its parts can be given the node without knowing the whole of it: they import
this file, and ``node.py``, which imports them, only assembles.

Locks. ``lock`` (the state lock) guards router, outboxes, ``state`` and the lists here. Order: the floor first
(see floor.py), then the state lock, nothing after it.
"""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Callable
from typing import Any

from .._core.neighbour_names import Names
from .._core.router import Router
from .._core.state import Event, LifeState, Stage
from .._dispatch.dispatcher import Dispatcher
from .._dispatch.notices import Notices
from .._exceptions import Closed, ForkedError, IPEventsError, NotStarted
from .._links.link import Link
from .._platform.host import process_name
from .state_lock import StateLock


class NodeState:
    """See the module. ``reply(pids, event, args, kwargs)`` is what Message.reply calls;
    ``on_first_use()`` is called before a send of a process that has not said its ``online``.
    """

    # Assigned by Node when it assembles; called from everywhere.
    dispatcher: Dispatcher
    fail: Callable[..., None]  # Errors.fail
    error: Callable[..., None]  # Errors.report

    def __init__(self, pid: str, reply: Callable[..., None], on_first_use: Callable[[], None]) -> None:
        self.lock = StateLock(self._deferred_failed)
        self.deferred = self.lock.deferred  # kept beside it, because each frame asks for it
        self.router = Router(pid)
        self.state = LifeState()  # changed by change() only
        self.stage = self.state.stage  # kept beside it, because each send asks for it
        self.announced = False  # our own online has been said, or need not be
        self.sends_while_stopping = False
        self.given = Names()  # what neighbours are called, in all lives
        self.notices: Notices | None = None
        self.reply = reply
        self.on_first_use = on_first_use
        self.telling_errors: set[int] = set()  # threads that run the listeners of error
        self.retired: list[Link] = []  # links that have ended, whose threads may be about to
        # The counters of links that are gone.
        self.past: dict[str, Any] = {"sent": 0, "received": 0, "forwarded": 0, "delivered": 0, "dropped": {}}

    # The lock

    def inside(self) -> bool:
        """Whether this code was called from within a section of its thread that holds the state lock."""
        return self.lock.inside()

    def defer(self, call: Callable[..., Any], *args: Any) -> None:
        """Queue a call for the moment at which this thread leaves the state lock."""
        self.lock.defer(call, *args)

    def _deferred_failed(self, exc: IPEventsError) -> None:
        self.error(exc)

    def forget_lock_owner(self) -> None:
        """In a process made by os.fork(): the thread that held the lock does not exist here."""
        self.lock.forget()
        self.telling_errors.intersection_update({get_ident()})  # the forking thread may run one of them
        self.lock = StateLock(self._deferred_failed)
        self.deferred = self.lock.deferred

    # The stage

    def change(self, event: Event) -> None:
        """State lock held: go on to the next state. RuntimeError where that is none, see ``state.py``."""
        self.state.change(event)
        self.stage = self.state.stage

    def check_stage(self, listener: bool) -> None:
        """While it stops, listeners may still send, and a child's target that is being unwound."""
        if self.stage is not Stage.STOPPING or not (listener or self.sends_while_stopping):
            raise self.stage_error()

    def may_send(self) -> bool:
        """Whether this stage allows a send of the calling code; if not, ``send`` says why."""
        if self.stage is Stage.OPEN:
            return True
        return self.stage is Stage.STOPPING and (self.sends_while_stopping or self.dispatcher.runs_here())

    def stage_error(self) -> IPEventsError:
        """What to raise at a call that this stage does not allow."""
        if self.stage is Stage.NEW:
            return NotStarted(f"{self.place()} has not started: call ipem.start() first")
        if self.stage is Stage.FORKED:
            return ForkedError(
                f"this process was forked from {self.router.pid}, which has the emitter; use ipem.worker()"
            )
        return Closed(f"{self.place()} {'is stopping' if self.stage is Stage.STOPPING else 'was stopped'}")

    def place(self) -> str:
        """This process as texts for people name it: ``resize (4718)``."""
        return f"{process_name()} ({self.router.pid})"
