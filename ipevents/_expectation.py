"""Waiting for an event: behind ``waitFor`` and ``expecting``."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ._core.messages import Message
from ._exceptions import Closed
from ._platform.latches import Latch
from ._platform.signal_exceptions import interrupts_main
from ._platform.threads import Deadline

if TYPE_CHECKING:
    from ._dispatch.listeners import Wait
    from ._lifecycle.lifecycle import Lifecycle

Where = Callable[..., Any]


class Expectation:
    """A context manager that listens before its block runs and waits at its end.

    ``message`` is what came. Leaving the block by an exception does not wait.
    """

    def __init__(self, life: Lifecycle, event: str, timeout: float | None, where: Where | None) -> None:
        self._message: Message | None = None
        self._life = life
        self._event = event
        self._timeout = timeout
        self._where = where
        self._came = Latch()
        self._listens: Wait | None = None  # in between
        self._failure: BaseException | None = None

    @property
    def message(self) -> Message:
        """The event that came. Raises AttributeError before that."""
        if self._message is None:
            raise AttributeError(
                f"no matching event {self._event!r} has come yet; its message is there after the with block"
            )
        return self._message

    def __enter__(self) -> Expectation:
        life = self._life
        life.check_wait("waiting for an event")
        # Anew, for who enters it a second time: what came then has nothing to say now.
        self._came, self._message, self._failure = Latch(), None, None
        try:
            self._listens = life.node.dispatcher.begin_wait(self._event, self._heard)
            if self._event == "stopping":  # what it waits for comes with the stop itself
                life.stop_waiters.add(self._came)
                is_too_late = life.stopping_said
            else:
                life.waiters.add(self._came)
                is_too_late = life.stopping.is_set()
            if is_too_late:  # the stop may have looked at the waiters already
                self._came.set()
            life.first_use()
        except BaseException:  # a listener of ready may raise it, or Ctrl-C: then __exit__ is not called
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if exc is None:
                self._wait()
        finally:
            self._end()

    def _end(self) -> None:
        self._life.waiters.discard(self._came)
        self._life.stop_waiters.discard(self._came)
        if self._listens is not None:
            self._life.node.dispatcher.end_wait(self._listens)
            self._listens = None

    def _wait(self) -> None:
        deadline = Deadline(self._timeout)
        is_over = self._came.wait(deadline.left())
        if self._failure is not None:
            raise self._failure
        if self._message is not None:
            return
        if is_over or self._life.stopping.is_set():  # a stop has ended the wait; another life may have begun
            raise Closed(f"the emitter was stopped while {self._event!r} was waited for")
        raise TimeoutError(f"no matching event {self._event!r} came within {self._timeout:g} s")

    def _heard(self, message: Message, /, *args: Any, **kwargs: Any) -> None:
        if self._came.is_set():
            return
        if self._where is not None:
            try:
                if not self._where(message, *args, **kwargs):
                    return
            except BaseException as exc:  # the filter is the waiter's code: it fails there
                if interrupts_main(exc):
                    raise  # what a signal has raised concerns the main thread, and nothing here may keep it
                self._failure = exc
                self._came.set()
                return
        self._message = message
        self._came.set()
