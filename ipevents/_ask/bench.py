"""The place where a worker of a pool works: its main thread, which carries out one job after the other.

In place of the threads of ``answer(threads=n)`` (lanes.py) it is the main thread that takes what has come: so
jobs may use signals, and a library that wants the main thread. Functions come as events before the jobs that
call them (functions.py), and take their place in the same row.

No lock. ``_row`` is a deque: the reader of the link to the parent appends, the main thread takes. A job that
has come is the main thread's if ``takes(job)`` says so: otherwise it was cancelled or taken back. The main
thread blocks in ``_wait`` until something has come; ``close``, which a stop calls, ends that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .._core.decisions import Plan
from .._core.messages import ANSWER, Message
from .._core.requests import RAISED
from .._exceptions import Unpicklable
from .._node.backpressure import LOOK_SECONDS
from .._payload import outcomes
from .._payload.numbered import numbers_of
from .._platform.clock import monotonic
from .._platform.latches import Latch
from .._platform.logs import traceback_of
from .._platform.signal_exceptions import interrupts_main
from .functions import KEY_BYTES, ReceivedFunctions
from .job import SHORT_SECONDS, Job, Outcome, carry_out, not_shown, of_value, users_trace

if TYPE_CHECKING:
    from .._node.node import Node
    from .sends import Sends

MANY = b"*"  # before the key of a function that is called with each of several tuples of arguments
Chunk = tuple[float, list[Any], dict[int, Any]]


class Bench:
    """The jobs of one worker of a pool.

    ``takes(job)`` says, once, whether a job is still to be done; ``begins(job)`` notes in the shared page
    that it begins.
    """

    def __init__(
        self,
        node: Node,
        sends: Sends,
        takes: Callable[[Job], bool],
        begins: Callable[[Job], None],
    ) -> None:
        self._node = node
        self._sends = sends
        self._takes = takes
        self._begins = begins
        self._row: deque[Any] = deque()
        self._more = Latch()
        self._is_idle = False  # the main thread waits, or is about to
        self._is_closed = False
        self._functions = ReceivedFunctions()
        self._plan = Plan()
        self._unwritten = 0.0  # when the first of the jobs began whose answers wait to be written
        self._chunks: list[Chunk] = []  # what the job came to, if that is a chunk
        self.done = 0  # jobs

    # In other threads

    def put_all(self, jobs: list[Job]) -> bool:
        """Queue jobs. Returns False after ``close``. In the reader of the link."""
        self._row.extend(jobs)
        if self._is_idle:
            self._more.set()
        return not self._is_closed  # looked at last: ``close`` takes what it finds

    def close(self) -> list[Job]:
        """Begin nothing more. Returns the jobs that were not begun, and that perhaps others have taken."""
        self._is_closed = True
        self._more.set()
        return [job for job in list(self._row) if isinstance(job, Job)]

    def receive(self, message: Message, key: bytes, code: bytes, *forget: bytes) -> None:
        """Queue a function. A listener, in the reader thread."""
        self._row.append((key, code, forget))

    # In the main thread

    def run(self, may_go_on: Callable[[int], bool]) -> None:
        """Carry out jobs until ``close``, or until ``may_go_on(done)`` is false after one."""
        while True:
            job = self._next()
            if job is None:
                return
            began = monotonic()
            self._begins(job)
            self._put(job, self._answer(job), began)
            self.done += 1
            if not may_go_on(self.done):
                self._write()
                return

    def _answer(self, job: Job) -> Outcome:
        """Do one job, and return its answer."""
        pid = self._node.router.pid
        self._chunks.clear()
        answer = carry_out(job, self._call, pid)
        if self._chunks and numbers_of(answer[0])[1] == RAISED:  # one of the values cannot be sent
            chunk = self._chunks.pop()
            self._sort_out(chunk[1], chunk[2])
            answer = of_value(job, chunk, pid)
        return answer

    def _next(self) -> Job | None:
        """Return the next job that is to be begun, None after ``close``."""
        row = self._row
        while not self._is_closed:
            if not row:
                self._wait()
                continue
            first = row.popleft()
            if isinstance(first, Job):
                if self._takes(first):
                    return first
            else:
                self._functions.put(*first)
        return None

    def _wait(self) -> None:
        """Wait until something has come. What was answered is written before."""
        more = self._more = Latch()
        self._is_idle = True  # before the next line: whoever appends looks at it afterwards
        if not self._has_come():
            self._write()
            if not self._has_come() and not more.wait_briefly():
                more.wait()
        self._is_idle = False

    def _has_come(self) -> bool:
        """Return whether there is something to do: jobs, or to end."""
        return bool(self._row) or self._is_closed

    def _put(self, job: Job, answer: Outcome, began: float) -> None:
        """Put an answer, and have it written before the next job if this one, or several, have taken long."""
        link: Any = job.link
        payload, size = answer
        header = self._node.router.header(ANSWER)
        plan = self._plan
        if plan.header is not header:
            plan = self._plan = Plan(header=header, event=job.envelope.event)
        if not self._sends.keep_answer(job, link, plan, payload, size):
            self._write()
            while not (self._sends.put_answer(job, link, payload, size) or self._is_closed):
                with self._node.lock:  # the parent takes nothing for long; this process has nobody else
                    link.wait_room(LOOK_SECONDS)
            return
        if not self._unwritten:
            self._unwritten = began
        if not self._row or monotonic() - self._unwritten > SHORT_SECONDS:
            self._write()

    def _write(self) -> None:
        """Write the answers that were put."""
        self._unwritten = 0.0
        self._node.outgoing.write_dirty()

    # What a job does

    def _call(self, message: Message, key: bytes, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function once, or with each of several tuples of arguments."""
        if key[:1] != MANY or len(key) <= KEY_BYTES:
            return self._functions.get(key)(*args, **kwargs)
        return self._call_each(self._functions.get(key[1:]), *args)

    def _call_each(self, function: Callable[..., Any], items: Sequence[tuple[Any, ...]]) -> Chunk:
        """Call a function with each of these tuples of arguments.

        Returns the seconds that it took, the values, and by their places there the payloads of what was
        raised.
        """
        began = monotonic()
        values: list[Any] = []
        failures: dict[int, Any] = {}
        for args in items:
            try:
                values.append(function(*args))
            except BaseException as exc:  # code of the user
                if interrupts_main(exc) or issubclass(type(exc), SystemExit):
                    raise
                failures[len(values)] = self._failure(exc)
                values.append(None)
        chunk = (monotonic() - began, values, failures)
        self._chunks.append(chunk)
        return chunk

    def _sort_out(self, values: list[Any], failures: dict[int, Any]) -> None:
        """Replace each value that cannot be pickled by the reason why not."""
        for place, value in enumerate(values):
            try:
                outcomes.of_value(value)
            except Unpicklable as exc:
                why = str(exc).removeprefix("argument 1, ")
                failures[place] = self._failure(Unpicklable(f"what was returned cannot be sent: {why}"))
                values[place] = None

    def _failure(self, exc: BaseException) -> Any:
        """Return the payload of what was raised."""
        text = "" if users_trace(exc) is None else traceback_of(exc)
        return outcomes.of_exception(exc, text, self._node.router.pid)[0]


not_shown.update([Bench._call.__code__, Bench._call_each.__code__])
