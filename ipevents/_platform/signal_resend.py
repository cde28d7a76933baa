"""Signals that came while the library could not be interrupted: they are sent again a moment later."""

from __future__ import annotations

import signal
from collections.abc import Callable

from .clock import monotonic, sleep
from .threads import main_ident

AGAIN_SECONDS = 0.002  # until a signal is sent again
ATTENTION_SECONDS = 0.5  # how long the supervisor goes on looking without a ring


class Again:
    """Signals to be sent again: a handler puts them in, the supervisor takes them out, each number once.

    ``ring`` wakes the supervisor. It is called only for the first of a series; for ATTENTION_SECONDS after
    that the supervisor looks by itself. A handler that rang each time could be called within itself without
    end: a ring lets other threads run, so the signal may be sent again during it.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._due: dict[int, float] = {}
        self._attentive = False  # the supervisor looks by itself; only it writes this
        self._until = 0.0
        self._is_closed = False

    def put(self, number: int) -> bool:
        """In a signal handler: note a signal to be sent again. Takes no lock but that of ``ring``.

        Returns False if the supervisor does not look any more.
        """
        self._due[number] = monotonic() + AGAIN_SECONDS
        if self._is_closed:  # read after the line above, so either close() takes it, or we do
            return self._due.pop(number, None) is None
        if not self._attentive:
            self._ring()
        return True

    def next_look(self, now: float) -> float | None:
        """In the supervisor, before it waits: when it has to look here again; None for not before a ring."""
        if self._attentive and now >= self._until:
            self._attentive = False  # before the next line, so that a handler that puts from here on rings
        if self._due:
            self._attentive = True
            self._until = now + ATTENTION_SECONDS
        return now + AGAIN_SECONDS if self._attentive else None

    def take(self, now: float) -> list[int]:
        """In the supervisor: remove and return the signals that are due now."""
        due = [number for number, at in list(self._due.items()) if at <= now]
        for number in due:
            self._due.pop(number, None)
        return due

    def close(self) -> list[int]:
        """In the supervisor, which looks no more: return the signals that are left, to be sent at once."""
        self._is_closed = True
        return [number for number in list(self._due) if self._due.pop(number, None) is not None]


# Signals that have come and not taken effect yet. Changed in the main thread only, where all handlers run.
pending: set[int] = set()
_sent: set[int] = set()  # signals that were sent again and have not arrived yet


def send(number: int) -> None:
    """Send the main thread a pending signal again. Called in any other thread."""
    _sent.add(number)
    signal.pthread_kill(main_ident(), number)


def send_later(number: int) -> None:
    """Sleep for a moment and then send the main thread a pending signal again."""
    sleep(AGAIN_SECONDS)
    send(number)


def counts(number: int) -> bool:
    """In a handler: whether this signal is to take effect. False for a resent one that has done so meanwhile.

    The kernel merges equal pending signals, so a new Ctrl-C within the few milliseconds of a resend may be
    taken for the resent one and be lost.
    """
    if number not in _sent:
        return True
    _sent.discard(number)
    return number in pending


def forget() -> None:
    """In a process made by os.fork(): forget the pending signals, which concern the parent."""
    pending.clear()
    _sent.clear()
