"""Calls that are due at a time. They run in the supervisor's thread, which looks at them each time it wakes.

Under the state lock, all but ``ring``.
"""

from __future__ import annotations

from collections.abc import Callable

from .clock import monotonic


class Timers:
    """The calls that wait, at most one for each key. ``ring`` lets the supervisor look again; it sets it."""

    def __init__(self) -> None:
        self.ring: Callable[[], None] = lambda: None
        self._waiting: dict[object, tuple[float, Callable[[], None]]] = {}

    def after(self, seconds: float, key: object, call: Callable[[], None]) -> None:
        """Have this called in so many seconds, without the state lock. It must neither block nor raise.

        Where a call with this key waits already, that one stays, and this one is not called.
        """
        if key not in self._waiting:
            self._waiting[key] = (monotonic() + seconds, call)
            self.ring()

    def cancel(self, key: object) -> None:
        """Forget the call with this key, if one waits."""
        self._waiting.pop(key, None)

    def clear(self) -> None:
        """Forget all calls: another life begins."""
        self._waiting = {}

    def next_at(self) -> float | None:
        """Return when the next call is due; None if there is none."""
        return min((at for at, _ in self._waiting.values()), default=None)

    def take(self, now: float) -> list[Callable[[], None]]:
        """Remove and return the calls that are due, the earliest first."""
        due = {key: each for key, each in self._waiting.items() if each[0] <= now}
        for key in due:
            del self._waiting[key]
        return [call for _, call in sorted(due.values(), key=lambda each: each[0])]
