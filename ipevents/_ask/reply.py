"""The wait for one answer, in the thread that asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._core.crew import Work
from .._core.messages import Payload
from .._core.requests import VALUE
from .._exceptions import IPEventsError
from .._platform.latches import BRIEF_SECONDS, Latch
from .outcome import Question, unanswered, value_of


class Reply:
    """A sink that one thread waits for. It reads the value in that thread."""

    __slots__ = ("_asked", "_came", "_error", "_latch", "cause", "is_many", "left", "places", "work")

    def __init__(self, asked: Callable[[], Question]) -> None:
        self._asked = asked  # for the text of an error
        self.is_many = False
        self.cause: BaseException | None = None
        self.places: tuple[tuple[Any, int], ...] = ()
        self.work: Work | None = None
        self.left = 0
        self._latch = Latch()
        self._came: tuple[str, str, int, Payload] | None = None
        self._error: IPEventsError | None = None

    @property
    def attempts(self) -> int:
        """How often the request was given out."""
        return 1 if self.work is None else self.work.attempts

    def came(self, pid: str, name: str, status: int, payload: Payload, is_last: bool) -> None:
        """Take the answer, and let the thread go on."""
        self._came = (pid, name, status, payload)
        self._latch.set()

    def failed(self, exc: IPEventsError) -> None:
        """Take an error in place of it."""
        self._error = unanswered(self._asked(), exc)
        self._latch.set()

    def expired(self) -> None:
        """The thread that waits looks at the time itself."""

    def wait(self, timeout: float | None) -> bool:
        """Wait at most so many seconds. Returns whether it is over."""
        if timeout is None or timeout >= BRIEF_SECONDS:
            if self._latch.wait_briefly():
                return True
            if timeout is not None:
                timeout -= BRIEF_SECONDS
        return self._latch.wait(timeout)

    def value(self) -> Any:
        """Return the value, or raise what came in its place. After ``wait``."""
        if self._error is not None:
            raise self._error
        assert self._came is not None
        pid, name, status, payload = self._came
        if status == VALUE and type(payload) is tuple and len(payload) == 3:
            return payload[2]
        return value_of(self._asked(), pid, name, status, payload, self.cause)
