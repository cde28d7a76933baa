"""The thread that connects to a server, again and again until it succeeds.

It is used for a link that is to be made anew whenever it is lost. Between two episodes the thread sleeps.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from .._core.reconnects import Failures, first_wait, next_wait
from .._platform.clock import monotonic
from .._platform.logs import Log
from .._platform.threads import Deadline, for_lock, join_thread, run_rounds, start_thread
from .dial import Attempt, Connected

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Connector"]

MIN_DELAY_SECONDS = 0.05
CLOSE_SECONDS = 1.0

log = Log("ipevents.connector")


def any_chance() -> float:
    """Return a number from 0 up to 1 at random; in processes that were forked, too, another one for each."""
    return int.from_bytes(os.urandom(4), "big") / 2**32


class Connector:
    """One thread that dials until it gets a connection, as often as ``begin`` is called.

    From a ``begin`` to the connection is one episode. ``attempt(attempt)`` dials once; it passes its argument
    to :func:`dial`. The callbacks run in the connector's thread, must not block, and run no code of the user:

    - ``on_connected(connected)`` ends the episode and takes the connection over;
    - ``on_failed(exception)`` is called once for each distinct cause in an episode, never because nobody was
      there, and of a hang-up only when the next try ends with it as well. The thread goes on trying.

    The first try of an episode comes within half of ``delay_seconds``, at random; between two tries lie
    ``delay_seconds``, at least 0.05, spread by three tenths. See ``_core/reconnects.py``; ``chance`` draws.

    The thread starts in the constructor and serves all episodes, because a Python that has ended its main
    script may not be able to start one.
    """

    __slots__ = (
        "__weakref__",
        "_attempt",
        "_chance",
        "_changed",
        "_closing",
        "_delay_seconds",
        "_dial",
        "_due",
        "_failures",
        "_is_busy",
        "_is_last",
        "_on_connected",
        "_on_failed",
        "_thread",
        "_tries",
    )

    def __init__(
        self,
        attempt: Callable[[Attempt], Connected],
        *,
        on_connected: Callable[[Connected], None],
        on_failed: Callable[[Exception], None],
        delay_seconds: float,
        chance: Callable[[], float] = any_chance,
    ) -> None:
        self._dial = attempt
        self._on_connected = on_connected
        self._on_failed = on_failed
        self._delay_seconds = max(MIN_DELAY_SECONDS, delay_seconds)
        self._chance = chance
        # Guards the six that follow. Re-entrant, for a close() in a signal handler.
        self._changed = threading.Condition(threading.RLock())
        self._due: float | None = None  # when to dial next; None between episodes
        self._attempt: Attempt | None = None  # the dial that is going on
        self._closing = False
        self._is_busy = False  # a dial goes on, or what came of it is being handed over
        self._is_last = False  # no try follows on one that fails
        self._tries = 0  # that are over
        self._failures = Failures()  # of this episode
        try:
            self._thread = start_thread("connector", self._run)
        except BaseException:  # of a signal handler, perhaps when the thread runs already
            self._closing = True
            with self._changed:
                self._changed.notify_all()
            raise

    def __repr__(self) -> str:
        if self._closing:
            return "<Connector closed>"
        return f"<Connector {'idle' if self._due is None else 'connecting'}>"

    def begin(self, *, immediately: bool = False) -> None:
        """Begin an episode: the first try comes within half of the delay, or at once. Never blocks.

        During an episode this changes nothing, except that ``immediately`` ends the wait. After ``close`` it
        does nothing.
        """
        with self._changed:
            if self._closing:
                return
            if self._due is None:
                self._failures = Failures()
            elif not immediately:
                return
            wait = 0.0 if immediately else first_wait(self._delay_seconds, self._chance())
            self._due = monotonic() + wait
            self._changed.notify_all()

    def finish(self, deadline: Deadline) -> None:
        """Let an episode that is going on end with one try, made at once, and wait for what comes of it.

        A dial that is going on is that try. A connection that was made has been handed to ``on_connected``
        when this returns. Between episodes this does nothing: there is a connection.

        From another thread than the connector's. The caller holds no lock that a callback needs. The wait
        ends when the connector's thread has made its try, with ``begin_close``, or at the deadline; the try
        may then still go on.
        """
        with self._changed:
            self._is_last = True
            before = self._tries
            if self._due is not None and not self._is_busy:
                self._due = monotonic()
                self._changed.notify_all()
            # By their number: the connection may be cut, and another episode begin, before this thread looks.
            while self._tries == before and (self._is_busy or self._due is not None) and not self._closing:
                left = deadline.left()
                if left == 0.0:
                    return
                self._changed.wait(None if left is None else for_lock(left))

    def begin_close(self) -> None:
        """Dial no more; the thread is about to end. Never blocks; may be called again."""
        with self._changed:
            self._closing = True
            if self._attempt is not None:
                self._attempt.break_off()
            self._changed.notify_all()

    def close(self, timeout_seconds: float = CLOSE_SECONDS) -> bool:
        """End the thread; return whether it has ended. From any thread, any number of times.

        Why the thread ends: it waits for the next try (this notifies it), for a connect or for a frame of a
        handshake (``shutdown`` of the socket breaks both off). Only the look-up of a host's name cannot be
        broken off. If that takes longer, this returns False after ``timeout_seconds``, and the thread, a
        daemon, ends by itself. A connection that comes too late is closed.

        The caller holds no lock that a callback needs. Called in a callback, it only asks for the end.
        """
        self.begin_close()
        if threading.current_thread() is self._thread:
            return False
        return join_thread(self._thread, Deadline(timeout_seconds))

    def abandon(self) -> None:
        """Close our descriptors in a process made by ``os.fork()``; takes no lock."""
        self._closing = True
        if self._attempt is not None:
            self._attempt.abandon()

    # From here on everything runs in the connector's thread.

    def _run(self) -> None:
        """The thread: dial whenever it is time, until the close."""
        run_rounds(self._try_once, lambda: self._closing, log, self)

    def _try_once(self) -> None:
        """Wait until it is time to dial, dial once, and handle what comes of it."""
        attempt = self._next_attempt()
        if attempt is None:
            return
        try:
            try:
                connected = self._dial(attempt)
            except Exception as error:  # any kind: it is reported, and the next try may succeed
                self._failed(error)
            else:
                self._succeeded(connected)
        finally:
            with self._changed:
                self._is_busy = False
                self._tries += 1
                self._changed.notify_all()

    def _next_attempt(self) -> Attempt | None:
        """Wait until it is time to dial; returns the attempt, or None after ``begin_close``."""
        with self._changed:
            while not self._closing:
                left = None if self._due is None else self._due - monotonic()
                if left is not None and left <= 0.0:
                    self._attempt = Attempt()
                    self._is_busy = True
                    return self._attempt
                self._changed.wait(left)
            return None

    def _succeeded(self, connected: Connected) -> None:
        """End the episode and hand the connection over; close it if the connector was closed meanwhile."""
        with self._changed:
            self._attempt = None
            self._due = None
            closing = self._closing
        if closing:
            connected.close()
            return
        try:
            self._on_connected(connected)
        except Exception:  # no descriptor or no memory left, or a fault of the library: it tries again
            log.exception("! link as %s", connected.welcomed.pid)
            connected.close()
            if not self._is_last:
                self.begin()

    def _failed(self, error: Exception) -> None:
        """Set the time of the next try, and report the cause if it is news."""
        with self._changed:
            self._attempt = None
            if self._closing:
                return
            wait = next_wait(self._delay_seconds, self._chance())
            self._due = None if self._is_last else monotonic() + wait
        log.debug("! not connected: %s", error)
        if not self._failures.are_news(error):
            return
        if not isinstance(error, OSError):
            log.error("! dialling failed", exc_info=error)
        try:
            self._on_failed(error)
        except Exception:  # a fault of the library: the thread goes on
            log.exception("! reporting %s", error)
