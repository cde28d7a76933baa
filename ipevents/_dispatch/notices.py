"""The thread that runs listeners for what the library itself has to announce.

``offline``, ``error`` and a late ``ready`` or ``online`` are noticed in threads that must never wait for a
listener: the supervisor, the connector, the acceptor, or a reader in the middle of something else. Such a
thread queues a call, and the thread of this file runs the calls in order.
"""

from __future__ import annotations

import queue
from collections.abc import Callable

from .._platform.logs import Log
from .._platform.threads import Deadline, join_thread, start_thread

log = Log("ipevents.notices")

Notice = Callable[[], object]

MOMENT_SECONDS = 0.2  # a thread that no listener holds up has ended by then


class Notices:
    """A queue of calls and the thread that runs them in order.

    Why the thread ends: it blocks in ``get`` until there is a call, and in the calls themselves, which run
    listeners of the user. ``close`` queues the end, so the thread ends after all that was queued before. A
    listener that never returns keeps it from ending. It is a daemon, and ``end`` reports that.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._is_over = False
        self._begun = 0  # how many notices have begun; written by the thread
        self._queue: queue.SimpleQueue[Notice | None] = queue.SimpleQueue()
        try:
            self._thread = start_thread(f"notices-{name}", self._run)
        except BaseException:  # of a signal handler, perhaps when the thread runs already
            self._queue.put(None)
            raise

    def put(self, notice: Notice) -> None:
        """Queue a call. Never blocks; may be called under any lock and in a signal handler."""
        self._queue.put(notice)

    def close(self, deadline: Deadline) -> bool:
        """Let the thread end after what is queued, and wait for that. Returns whether it has ended."""
        self._queue.put(None)
        return join_thread(self._thread, deadline)

    def end(self, deadline: Deadline, is_running: Callable[[], object]) -> None:
        """As ``close``; if the thread does not end, log the reason and leave it behind.

        ``is_running()``: whether any listener runs. A listener is blamed only if one runs and the thread has
        begun no further notice for MOMENT_SECONDS, because the deadline may have been over before this wait
        began.
        """
        if self.close(deadline):
            return
        begun = self._begun
        if self.close(Deadline(MOMENT_SECONDS)):
            return
        self._is_over = True  # what is still queued must not be announced in the next life
        if begun == self._begun and is_running():
            log.warning("! a listener of %s does not return; its thread is left behind", self._name)
        else:
            log.warning("! %s has no time to tell all that it noticed", self._name)

    def _run(self) -> None:
        """The thread: run the queued calls until the end is queued, or ``end`` has given up."""
        while True:
            notice = self._queue.get()
            if notice is None or self._is_over:
                return
            self._begun += 1
            try:
                notice()
            except BaseException:  # a fault of the library or of the system; the next one runs
                log.exception("! a notice failed")
