"""The thread that runs what the library itself has to say to listeners.

``offline``, ``error`` and a late ``ready`` or ``online`` are noticed by threads that must never wait for
a listener (supervisor, connector, acceptor, or a reader in the middle of something else), so they
are queued here and run in order.
"""

from __future__ import annotations

import queue
from collections.abc import Callable

from .._platform.logs import Log
from .._platform.threads import Deadline, join_thread, start_thread

log = Log("ipevents.notices")

Notice = Callable[[], object]

MOMENT_SECONDS = 0.2  # a thread that nothing keeps has ended by then


class Notices:
    """An ordered queue of calls with one thread.

    The thread blocks in ``get`` until there is a call, and in the calls themselves (listeners of the user).
    ``close`` queues the end, so it ends after what was queued before. A listener that never returns keeps
    it; it is a daemon, and ``end`` says so.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._is_over = False
        self._begun = 0  # notices; written by the thread
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
        """Let the thread end after what is queued, and wait for it. Returns whether it has ended."""
        self._queue.put(None)
        return join_thread(self._thread, deadline)

    def end(self, deadline: Deadline, is_running: Callable[[], object]) -> None:
        """``close``, and say in the log why the thread is left behind, if it is.

        ``is_running()``: whether any listener runs. It is said to hang only if one runs, and the notice that
        waits for it was the same for a while: the deadline may have been over before the wait began.
        """
        if self.close(deadline):
            return
        begun = self._begun
        if self.close(Deadline(MOMENT_SECONDS)):
            return
        self._is_over = True  # what is still queued is not announced in the next life
        if begun == self._begun and is_running():
            log.warning("! a listener of %s does not return; its thread is left behind", self._name)
        else:
            log.warning("! %s has no time to tell all that it noticed", self._name)

    def _run(self) -> None:
        while True:
            notice = self._queue.get()
            if notice is None or self._is_over:
                return
            self._begun += 1
            try:
                notice()
            except BaseException:  # a fault of the library or of the system: seen, and the next still runs
                log.exception("! a notice failed")
