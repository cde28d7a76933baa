"""The child's end of its control channel: the stop that its parent announces, and what runs here.

The parent asks only after it has said so once (PROBE), and only while something is to be done. So nothing is
measured in a process whose parent has no ``hangTimeout`` for it.

No lock of its own. All of it runs in the supervisor's thread, but ``_begins``, which the thread calls that is
about to run a listener.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from operator import length_hint
from typing import Any

from .._ask.job import carry_out
from .._core.messages import CANCEL, MAX_CAUSE, PROBE, RUNS, STOP, TAKE_BACK, control
from .._dispatch.listener_watch import ListenerWatch
from .._node.incoming import Incoming
from .._platform.clock import monotonic
from .._platform.threads import Deadline
from .._processes.control_channel import ControlChannel
from .life import Life

LOOK = 0.5  # of the time that an announced stop has left, to see whether it comes over the link
LAST_STEPS_SECONDS = 1.5  # for what comes after the deadline of a stop, see drain.py
LEAST = 0.25  # of what is left then, for a stop that has not the time for those as well


class ParentChannel:
    """What a child and its parent say to each other past their link; see ``Upward`` in role.py.

    ``received()`` is how many events of the parent were read. ``stop(seconds)`` begins the stop.
    """

    def __init__(
        self,
        life: Life,
        sock: socket.socket,
        received: Callable[[], int],
        stop: Callable[[float], None],
    ) -> None:
        sock.set_inheritable(False)  # it was inheritable only for the start
        self.channel = ControlChannel(sock, self._asked, life.node.error, is_to_parent=True)
        self._life = life
        self._received = received
        self._stop = stop
        self._watch: ListenerWatch | None = None  # once the parent has asked
        self._has_begun = False  # a listener runs; the parent is to be told

    def look(self) -> None:
        """Tell the parent that a listener has begun to run, if it waits for that."""
        if self._has_begun:
            self._has_begun = False
            self._say(0, 0)

    def answers_no_more(self) -> None:
        """Tell the parent that this process stops, and answers nothing."""
        self._say(0, None)

    def _asked(self, kind: int, items: dict[str, Any]) -> None:
        """Handle what the parent says."""
        if kind == STOP:
            self._announced(items["milliseconds"] / 1000)
        elif kind == CANCEL:
            parent: Any = self._life.node.router.parent
            self._life.node.asks.cancelled(parent, items["ids"])
        elif kind == TAKE_BACK:
            parent = self._life.node.router.parent
            self._life.node.asks.take_back(parent, items["event"], items["ids"])
        elif kind == PROBE:
            self._answer(items["number"], items["limit"] / 1000)

    # The stop

    def _announced(self, seconds: float) -> None:
        """Note that the parent begins to stop this process.

        The stop itself begins with the same record on the link, when all is handled that was sent before. A
        listener that does not return keeps that from being read, and so does a full store of held events. So
        after half of the time it is looked whether anything goes on there, and again after half of the rest.
        If not, or if little is left, the stop begins without that record, with some time for its last steps.
        """
        self._life.stop_is_announced = True
        with self._life.node.lock:
            self._life.node.timers.cancel(self)  # it comes again where the parent has less time than before
            self._look_later(Deadline(seconds))

    def _look_later(self, deadline: Deadline) -> None:
        """Look after a part of the time that is left whether the link is still read. State lock held."""
        wait = LOOK * (deadline.left() or 0.0)
        before = self._progress()

        def look() -> None:
            left = deadline.left() or 0.0
            if self._life.stopping.is_set():
                return
            if left > 2 * LAST_STEPS_SECONDS and self._progress() != before:
                with self._life.node.lock:
                    self._look_later(deadline)
            else:
                self._stop(max(left - LAST_STEPS_SECONDS, LEAST * left))

        self._life.node.timers.after(wait, self, look)

    def _progress(self) -> tuple[int, int, int]:
        """Return what changes whenever an event of the parent is received or handled."""
        floor = self._life.node.dispatcher.floor
        return floor.turns, length_hint(floor.left), self._received()

    # What runs here

    def _answer(self, number: int, limit: float) -> None:
        """Tell the parent for how long one listener has been running, and the stacks if that is too long."""
        floor = self._life.node.dispatcher.floor
        watch = self._watch
        if watch is None:
            watch = self._watch = ListenerWatch(floor, [Incoming._deliver.__code__, carry_out.__code__])
        running = watch.look(monotonic(), limit)
        if running is None:
            floor.on_begin = self._begins
            running = watch.look(monotonic(), limit)  # it may have begun just now
        is_long = running is not None and running >= limit
        self._say(
            number,
            None if running is None else int(running * 1000),
            watch.listener()[:MAX_CAUSE] if is_long else "",
            watch.stacks() if is_long else "",
        )

    def _say(self, number: int, running: int | None, listener: str = "", text: str = "") -> None:
        """Write RUNS to the parent."""
        self.channel.put(control(RUNS, number=number, running=running, listener=listener, text=text))
        self.channel.write()

    def _begins(self) -> None:
        """Note that a listener is about to run, and have the parent told. In the thread that runs it."""
        self._has_begun = True
        supervisor = self._life.supervisor
        if supervisor is not None:
            supervisor.sentinels.ring()
