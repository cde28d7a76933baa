"""The threads that answer the requests of one event, for ``answer(..., threads=n)``.

The state lock guards the queue; it is held for a few lines. A thread blocks in ``_calls`` until there may be
a job, and in the user's function. ``close`` lets each thread end after the function that it is in. The
threads are daemons: where a function does not return, the thread is left behind, and a stop says so.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable

from .._platform.state_lock import StateLock
from .._platform.threads import Deadline, join_thread
from .job import Job


class Lanes:
    """The threads, and the jobs that wait for one.

    ``work(job)`` is called in such a thread. ``begins(job)`` is called before that, under the state lock, in
    the order in which the jobs came, whichever threads take them.
    """

    def __init__(
        self,
        name: str,
        count: int,
        lock: StateLock,
        work: Callable[[Job], None],
        begins: Callable[[Job], None],
    ) -> None:
        self._name = name
        self.count = count
        self._lock = lock
        self._work = work
        self._begins = begins
        self._waiting: deque[Job] = deque()
        self._calls: queue.SimpleQueue[None] = queue.SimpleQueue()  # one for each job, and for each end
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._is_closed = False

    def waiting(self) -> int:
        """Return how many jobs wait for a thread."""
        return len(self._waiting)

    def put(self, job: Job) -> tuple[bool, list[Job]]:
        """Queue a job, and start a thread where none is free and there may be another one. Lock not held.

        Returns whether that was done, which it is not after ``close``; and all that cannot be done, because
        there is no thread and the system starts none.
        """
        thread = None
        with self._lock:
            if self._is_closed:
                return False, []
            self._waiting.append(job)
            if self._idle < len(self._waiting) and len(self._threads) < self.count:
                number = len(self._threads) + 1
                thread = threading.Thread(
                    target=self._run, name=f"ipevents-answers-{self._name}-{number}", daemon=True
                )
                self._threads.append(thread)
        self._calls.put(None)
        if thread is not None:
            try:
                thread.start()
            except RuntimeError:  # the system has no more
                with self._lock:
                    self._threads.remove(thread)
                    if not self._threads:
                        refused, self._waiting = list(self._waiting), deque()
                        return True, refused
        return True, []

    def drop(self, is_dropped: Callable[[Job], bool]) -> list[Job]:
        """Remove and return all jobs that wait and for which this is true. Lock held."""
        dropped: list[Job] = []
        kept: deque[Job] = deque()
        for job in self._waiting:
            (dropped if is_dropped(job) else kept).append(job)
        self._waiting = kept
        return dropped

    def close(self) -> list[Job]:
        """Let the threads end. Returns the jobs that no thread has begun. Does not wait. Lock not held."""
        with self._lock:
            self._is_closed = True
            waiting, self._waiting = list(self._waiting), deque()
            count = len(self._threads)
        for _ in range(count):
            self._calls.put(None)
        return waiting

    def join(self, deadline: Deadline) -> bool:
        """Wait until the threads have ended, after ``close``. Returns whether they have."""
        return all(join_thread(thread, deadline) for thread in list(self._threads))

    def _run(self) -> None:
        """Answer one request after the other. The body of each thread."""
        while True:
            with self._lock:
                self._idle += 1
            self._calls.get()
            with self._lock:
                self._idle -= 1
                job = self._waiting.popleft() if self._waiting else None
                is_closed = self._is_closed
                if job is not None:
                    self._begins(job)
            if job is not None:
                self._work(job)
            elif is_closed:
                return
