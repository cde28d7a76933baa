"""Signals that came while the library was in the middle of something: they are sent again in a moment."""

from __future__ import annotations

import signal
from collections.abc import Callable

from .clock import monotonic, sleep
from .threads import main_ident

AGAIN_SECONDS = 0.002  # after which it is sent again
ATTENTION_SECONDS = 0.5  # how long its next bad moment is waited for


class Again:
    """Signals to be sent again: a handler puts them in and the supervisor takes them out, each number once.

    ``ring`` wakes the supervisor. It is called for the first of a series only, and for a while after that the
    supervisor looks by itself. If a handler rang each time, it would be called within itself without end:
    a ring lets other threads run, so the signal may come again within it.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._due: dict[int, float] = {}
        self._attentive = False  # written by the supervisor
        self._until = 0.0
        self._is_closed = False

    def put(self, number: int) -> bool:
        """In a signal handler; takes no lock but that of ``ring``. Returns False if nobody looks any more."""
        self._due[number] = monotonic() + AGAIN_SECONDS
        if self._is_closed:  # read after the line above: ``close`` takes what it finds
            return self._due.pop(number, None) is None
        if not self._attentive:
            self._ring()
        return True

    def next_look(self, now: float) -> float | None:
        """In the supervisor, before it waits: when it has to look here again, None for not before a ring."""
        if self._attentive and now >= self._until:
            self._attentive = False  # before the line below: a handler that puts from here on rings
        if self._due:
            self._attentive = True
            self._until = now + ATTENTION_SECONDS
        return now + AGAIN_SECONDS if self._attentive else None

    def take(self, now: float) -> list[int]:
        """In the supervisor: the signals to be sent now."""
        due = [number for number, at in list(self._due.items()) if at <= now]
        for number in due:
            self._due.pop(number, None)
        return due

    def close(self) -> list[int]:
        """In the supervisor, which looks no more: the signals that are left, to be sent at once."""
        self._is_closed = True
        return [number for number in list(self._due) if self._due.pop(number, None) is not None]


# In this process's main thread, where all handlers run: signals that have not counted yet.
pending: set[int] = set()
_sent: set[int] = set()  # on their way once more


def send(number: int) -> None:
    """Send the main thread a pending signal once more; in any other thread."""
    _sent.add(number)
    signal.pthread_kill(main_ident(), number)


def send_later(number: int) -> None:
    """As ``send``, in a moment, for which the calling thread sleeps."""
    sleep(AGAIN_SECONDS)
    send(number)


def counts(number: int) -> bool:
    """In a handler: whether this signal means something, or was sent again and has counted meanwhile.

    The kernel merges equal signals that are pending, so a new Ctrl-C within the few milliseconds of a resend
    may be taken for the resent one and be lost.
    """
    if number not in _sent:
        return True
    _sent.discard(number)
    return number in pending


def forget() -> None:
    """In a process made by os.fork(): what was pending concerns the parent."""
    pending.clear()
    _sent.clear()
