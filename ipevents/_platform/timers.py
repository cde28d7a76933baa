"""Calls that are due at a time. They run in the supervisor's thread, which looks at them each time it wakes.

Under the state lock, all but ``ring``.
"""

from __future__ import annotations

from collections.abc import Callable

from .clock import monotonic


class Timers:
    """The calls that wait. ``ring`` lets the supervisor look again; it sets it."""

    def __init__(self) -> None:
        self.ring: Callable[[], None] = lambda: None
        self._waiting: list[tuple[float, Callable[[], None]]] = []

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Have this called in so many seconds, without the state lock. It must neither block nor raise."""
        self._waiting.append((monotonic() + seconds, call))
        self.ring()

    def clear(self) -> None:
        """Forget all calls: another life begins."""
        self._waiting = []

    def next_at(self) -> float | None:
        """Return when the next call is due; None if there is none."""
        return min((at for at, _ in self._waiting), default=None)

    def take(self, now: float) -> list[Callable[[], None]]:
        """Remove and return the calls that are due, the earliest first."""
        due = sorted((each for each in self._waiting if each[0] <= now), key=lambda each: each[0])
        self._waiting = [each for each in self._waiting if each[0] > now]
        return [call for _, call in due]
