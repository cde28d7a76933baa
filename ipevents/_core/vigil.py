"""Whether a child hangs: when it is asked what it is doing, and what its answers mean.

A child is asked only while something runs in it, or while it has not handled all that was sent to it. While
nothing is to be done there it sleeps, and so does its parent: the next thing that begins, or is sent, begins
the questions again. Nothing here knows of clocks, processes or connections.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["LOOK", "Act", "Vigil"]

LOOK = 0.25  # of the limit: from one question to the next


class Act(Enum):
    """What the caller does next."""

    NOTHING = "nothing"
    ASK = "ask"  # send the question with the number of the vigil
    SLEEP = "sleep"  # say when something is sent to the child: call begins() then
    SILENT = "silent"  # it has not answered for as long as the limit: it hangs
    HUNG = "hung"  # one listener has been running for as long as the limit


class Vigil:
    """The watch over one process of a child. ``limit`` is how long a listener may run, in seconds.

    A child that begins is given all the time that it needs to connect. Where this process itself was not
    running for a while, because it was stopped, say, that counts for no child.
    """

    __slots__ = ("_due", "_is_asked", "limit", "number")

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.number = 1  # of the last question; the first one is sent at once
        self._is_asked = True  # and has not answered
        self._due: float | None = None  # when to look again

    @property
    def next_at(self) -> float | None:
        """When ``look`` has something to do; None for not before something else happens."""
        return self._due

    def connected(self, now: float) -> None:
        """Note that the child has connected, and can be expected to answer the first question."""
        if self.number == 1 and self._is_asked:
            self._due = now + self.limit

    def begins(self, now: float) -> None:
        """Note that something was sent to the child, or that something began to run there."""
        if self._due is None and not self._is_asked:
            self._due = now + LOOK * self.limit

    def look(self, now: float) -> Act:
        """Return what is to be done at this time."""
        if self._due is None or now < self._due:
            return Act.NOTHING
        if not self._is_asked:
            self._is_asked = True
            self.number += 1
            self._due = now + self.limit
            return Act.ASK
        if now - self._due > LOOK * self.limit:  # this process was late itself: the answer may be there
            self._due = now + self.limit
            return Act.NOTHING
        self._due = None
        return Act.SILENT

    def answered(self, now: float, number: int, running: float | None, *, owes: bool) -> Act:
        """Note an answer, and return what is to be done. One to an earlier question says nothing.

        ``running`` is for how many seconds one listener has been running, None where none runs. ``owes`` says
        that the child has not handled yet all that was sent to it.
        """
        if number != self.number or not self._is_asked:
            return Act.NOTHING
        self._is_asked = False
        if running is None and not owes:
            self._due = None
            return Act.SLEEP
        if running is not None and running >= self.limit:
            self._due = None
            return Act.HUNG
        left = self.limit if running is None else self.limit - running
        self._due = now + min(left, LOOK * self.limit)
        return Act.NOTHING
