"""``Answer``, the future of one answer: what ``requestAsync`` returns.

It is a ``concurrent.futures.Future``. It has the locks of that class and none of its own. It is resolved in
the reader thread of the link that brings the answer; where a process or a deadline has ended, in the
supervisor's thread, which must not wait for code of the user: then callbacks run in the notices thread.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator
from concurrent.futures import Future, InvalidStateError
from concurrent.futures._base import FINISHED
from typing import Any

from .._core.crew import Work
from .._core.messages import Payload
from .._core.requests import LOST, VALUE
from .._core.state import Stage
from .._exceptions import IPEventsError, RequestTimeout, WouldDeadlock
from .._platform.guards import told
from .._platform.interruptible import interruptible
from .._platform.threads import library_threads
from .asking import Asking
from .job import tell
from .outcome import Question, unanswered, value_of
from .target import Target


class Answer(Future[Any]):
    """What a request will come to: a ``concurrent.futures.Future``, which can be awaited as well.

    It may be used from any thread. ``result`` and ``exception`` raise WouldDeadlock in a listener, and in a
    callback, where they would wait.

    ``add_done_callback(function)`` is that of the standard library: ``function(answer)`` is called when this
    is done, in the thread of the library that brings the answer; in the calling thread if it is done already,
    or by ``cancel()``. It must be short, as all else that comes by the same link waits for it. What it
    raises is logged, and keeps no other callback from its turn.
    """

    # First values; in the class, because that is faster than to set them for each.
    _by: tuple[str, str] | None = None  # who has answered: pid and name
    _is_late = False  # resolved in a thread that runs no callbacks
    # As a sink, see job.py.
    is_many = False
    cause: BaseException | None = None
    places: tuple[tuple[Any, int], ...] = ()
    work: Work | None = None
    left = 0

    def __init__(self, asking: Asking, target: Target, event: str, timeout: float | None) -> None:
        super().__init__()
        self._asking = asking
        self._target = target
        self._event = event
        self._timeout = timeout

    @property
    def pid(self) -> str:
        """The pid of the process that has answered. Before, of the one that was asked, "" if not known."""
        return self._target.pid() if self._by is None else self._by[0]

    @property
    def name(self) -> str:
        """The name of that process where it is a direct child, otherwise ""."""
        if self._by is not None:
            return self._by[1]
        child = self._target.child
        if child is not None:
            return child.name
        return getattr(self.places[0][0], "given_name", "") if self.work and self.places else ""

    @property
    def attempts(self) -> int:
        """How often the request was given out: more than once only by ``requestAnyAsync``."""
        return 1 if self.work is None else self.work.attempts

    def cancel(self) -> bool:
        """Want no answer any more. Returns whether this is cancelled now.

        False if it is done, or if the answerer is known to have begun. The answerer is told in any case: what
        has not begun there never does, and what runs sees ``ipem.cancelled()``. Does not block.
        """
        if self.done():
            return self.cancelled()
        if self.running():
            self._asking.tell_cancelled(self)
            return False
        if not super().cancel():
            return False
        self.set_running_or_notify_cancel()
        self._asking.give_up(self)
        return True

    def running(self) -> bool:
        """Whether the answerer is known to have begun: a direct child, of which this can be seen."""
        return not self.done() and self._asking.is_begun(self)

    @interruptible
    def result(self, timeout: float | None = None) -> Any:
        """Return the value, or raise what came in its place, as ``Emitter.request`` does.

        Waits at most ``timeout`` seconds (None: no limit), then raises TimeoutError; the request goes on.
        Raises CancelledError after ``cancel``; WouldDeadlock, see the class.
        """
        if self._state != FINISHED:
            self._check("result()")
        try:
            return super().result(timeout)
        finally:
            del self  # it has the exception, whose traceback has this frame

    @interruptible
    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what came in place of a value, None for a value.

        Waits as ``result``, and raises TimeoutError, CancelledError and WouldDeadlock as that.
        """
        self._check("exception()")
        return super().exception(timeout)

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait for the answer in a coroutine of asyncio. Returns and raises as ``result``; blocks no thread.

        If the task that waits is cancelled, ``cancel`` is called.
        """
        import asyncio  # late: most programs do without

        return asyncio.wrap_future(self).__await__()

    def _check(self, what: str) -> None:
        """Refuse a wait that could not end."""
        if self.done():
            return
        node = self._asking.node
        if node.stage is Stage.FORKED:
            raise node.stage_error()
        if node.dispatcher.must_not_wait():
            raise WouldDeadlock(
                f"{what} waits, and no answer is delivered while a listener or a callback runs"
            )

    # As a sink

    def came(self, pid: str, name: str, status: int, payload: Payload, is_last: bool) -> None:
        """Take the answer."""
        self._by = (pid, name)
        if status == VALUE and type(payload) is tuple and len(payload) == 3:
            value = payload[2]
        else:
            self._is_late = status == LOST
            try:
                value = value_of(self._asked(), pid, name, status, payload, self.cause)
            except BaseException as exc:  # what the answerer has raised, or code of the value's class
                self._fail(exc)
                return
        with contextlib.suppress(InvalidStateError):  # cancelled just now
            self.set_result(value)

    def failed(self, exc: IPEventsError) -> None:
        """Take an error in place of it."""
        self._is_late = threading.get_ident() in library_threads
        self._fail(unanswered(self._asked(), exc))

    def expired(self) -> None:
        """End the wait: the time is over. In the supervisor's thread."""
        if self._asking.give_up(self):
            self._is_late = True
            self._fail(RequestTimeout(self._event, self.pid, self._timeout or 0.0, self.attempts))

    def _asked(self) -> Question:
        """Return what was asked, for the text of an error."""
        return Question(self._event, self._target.pid(), self._timeout, self.attempts)

    def _fail(self, exc: BaseException) -> None:
        exc.__traceback__ = None  # its frames have this answer
        with contextlib.suppress(InvalidStateError):  # cancelled just now
            self.set_exception(exc)

    def _invoke_callbacks(self) -> None:
        """Call the callbacks: here, or in the notices thread where this one must not wait for them."""
        if not self._done_callbacks:  # type: ignore[attr-defined]  # not in typeshed
            return
        if self._is_late:
            self._asking.node.events.notify(self._call_back)
        else:
            self._call_back()

    def _call_back(self) -> None:
        """Call each callback. What one raises is logged, and keeps no other from its turn."""
        for callback in self._done_callbacks:  # type: ignore[attr-defined]
            tell(callback, self)

    def __reduce__(self) -> str:
        raise TypeError("an Answer belongs to this process; send what its result() returns")

    def __repr__(self) -> str:
        who = f" of {self.pid}" if self.pid else ""
        state = self._state.lower()
        more = f", {told(self._exception, 80)}" if self.done() and self._exception is not None else ""
        return f"<Answer{who} to {self._event!r}, {state}{more}>"
