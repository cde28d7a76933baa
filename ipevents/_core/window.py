"""What was written to a peer and is not acknowledged yet, and what came from it and is not acknowledged yet.

Frames have numbers in each direction, from 1 on, for as long as a session lasts. Both ends count them; on a
private link a session is one connection. Where a session outlives its connections, the next one goes on
behind the last frame that the other end has handled. So nothing is lost and nothing comes twice.

``Written`` is the sending half, ``Handled`` the receiving one. They touch nothing else.

What is kept has a bound of its own, and never holds up a sender. If room depended on acknowledgements, a
reader that waits for room in another link would wait for its own reading, and two clients that flood each
other through a server would stop for ever. Beyond the bound the oldest frames are forgotten, and their
numbers of events stay: such a session cannot be resumed, but its books are right.

These numbers are bounded as well, because a peer may acknowledge nothing for days: its reader is in a long
listener, or it is hostile. So there are never more than MOST_MARKS of them. Where there would be more, every
second one goes, and a number is that of a run of frames. An acknowledgement may then end within a run. Of its
events those count as acknowledged of which that is certain; the rest follows with the next acknowledgement.
So sent = acknowledged + unacknowledged + lost at any time, and acknowledged is what was handled, or less.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from .._exceptions import ProtocolError
from .books import NONE, Outcomes, are_outcomes, minus

ACKNOWLEDGE_FRAMES = 64  # handled without an acknowledgement, at most
ACKNOWLEDGE_BYTES = 1 << 20
KEPT_BYTES = 64 << 20  # of what was written to one peer
# What a kept frame takes in memory beside the sizes by which the outbox counts, and each event in it.
# Measured with CPython 3.10 to 3.15, by the memory of processes that kept 50,000 frames, or as many events in
# frames of 100. A frame of one event without arguments takes 368 bytes, where the outbox counts 48; one that
# came from another process, with an int, a float and a str, 641, where it counts 77. In a frame of 100 such
# an event takes 130 to 150. With these two a frame takes at most a quarter more than it counts for; one of
# events with many numbers may take twice as much.
KEPT_FRAME_BYTES = 400
KEPT_EVENT_BYTES = 48
MOST_COUNTED = 4096  # frames with a number of events for each, on a link that does not keep them
MOST_MARKS = 4096  # numbers of events for frames that were forgotten
ACKNOWLEDGE_SECONDS = 0.1  # the same; short against what users notice, long against a round trip

# All events up to the end of this frame, bytes, records; 0 and None where the records are not kept.
Frame = tuple[int, int, Any]


class Written:
    """The frames that the other end has not acknowledged, oldest first.

    Events are counted by running totals, so no step depends on how many frames there are. The thread that
    writes adds a frame: it computes the new total, and then assigns ``frames += (frame,)``, its bytes by
    ``added += size``, and ``total``. These are plain assignments, between which no signal handler runs (see
    threads.py). All methods are called with the state lock held. ``trim`` and ``count_only`` may be
    interrupted by a signal handler, so all they do are such assignments too, in an order that is right after
    each step of their loops.
    """

    __slots__ = (
        "_before",
        "_known",
        "_marks",
        "_outcomes",
        "_removed",
        "_stride",
        "acknowledged",
        "added",
        "frames",
        "total",
    )

    def __init__(self) -> None:
        self.frames: deque[Frame] = deque()
        self.total = 0  # events of all frames ever written
        self.added = 0  # bytes of all frames that were kept
        self.acknowledged = 0  # the number of the last frame that is acknowledged
        self._before = 0  # the number of the frame before the first of ``frames``
        self._removed = 0  # of the bytes, those that are not kept any more
        # Of the frames between ``acknowledged`` and ``frames``: the numbers of some of them, and all events
        # up to their ends. The last one is always there; of the others those whose number is a multiple of
        # the stride.
        self._marks: deque[tuple[int, int]] = deque()
        self._stride = 1
        self._known = 0  # how many events of the total are known to be acknowledged
        self._outcomes = NONE  # of all events that are acknowledged

    @property
    def last(self) -> int:
        """The number of the frame that was written last."""
        return self._before + len(self.frames)

    @property
    def is_owed(self) -> bool:
        """Whether any frame is not acknowledged."""
        return bool(self.frames or self._marks)

    @property
    def events(self) -> int:
        """How many events are not acknowledged."""
        return self.total - self._known

    @property
    def kept_bytes(self) -> int:
        """How many bytes are kept."""
        return self.added - self._removed

    def trim(self, bound: int) -> None:
        """Forget the oldest frames until the rest has at most ``bound`` bytes."""
        while self.added - self._removed > bound:
            self._forget()

    def count_only(self) -> None:
        """Bound the numbers of a link that keeps no frames."""
        while len(self.frames) > MOST_COUNTED:
            self._forget()

    def _forget(self) -> None:
        """Forget the oldest frame, but for the number of its events."""
        if len(self._marks) > MOST_MARKS:
            self._thin()
        total, size, _ = self.frames[0]
        number = self._before + 1
        marks = self._marks
        if marks and marks[-1][0] % self._stride:  # no call from here on
            marks[-1] = (number, total)
        else:
            marks += ((number, total),)
        self._before = number
        self._removed += size
        del self.frames[0]

    def _thin(self) -> None:
        """Keep every second mark, and the last one."""
        stride, last = 2 * self._stride, self._marks[-1]
        marks = deque(mark for mark in self._marks if not mark[0] % stride or mark is last)
        self._stride = stride  # no call from here on
        self._marks = marks

    def acknowledge(self, number: object, outcomes: object) -> tuple[int, Outcomes]:
        """Note that the other end has handled all frames up to this one, and what became of their events.

        ``outcomes`` are those of all events of the session so far. Returns how many events are known to be
        acknowledged that were not before, and the outcomes of these: nothing for an acknowledgement that is
        older than the last one, which comes in a frame that was written again. Raises ProtocolError for a
        frame that was not written, and for outcomes of more events than there were.

        In the reader thread, where no signal handler runs.
        """
        if type(number) is not int or not 0 <= number <= self.last:
            raise ProtocolError(f"it acknowledges the frame {number!r:.40}; {self.last} were written")
        if number < self.acknowledged:
            return 0, NONE
        least, most = self._totals(number)
        added = NONE
        if outcomes != self._outcomes:
            added = self._added(outcomes, most)
        while self._marks and self._marks[0][0] <= number:
            self._marks.popleft()
        if not self._marks:
            self._stride = 1
        while self._before < number:
            _, size, _ = self.frames.popleft()
            self._before += 1
            self._removed += size
        self.acknowledged = number
        before = self._known
        self._known = max(least, before + sum(added))
        return self._known - before, added

    def _totals(self, number: int) -> tuple[int, int]:
        """Return how many of all events are acknowledged with this frame, at least and at most."""
        least = self._known
        if number > self._before:
            exact = self.frames[number - self._before - 1][0]
            return exact, exact
        if number > self.acknowledged:
            for last, total in self._marks:
                if last >= number:
                    return (total if last == number else least), total
                least = total
        return least, least

    def _added(self, outcomes: Any, most: int) -> Outcomes:
        """Note other outcomes, if they can be. Returns what they have more than those before."""
        added = minus(outcomes, self._outcomes) if are_outcomes(outcomes) else None
        if added is None or min(added) < 0 or sum(added) > most - self._known:
            raise ProtocolError(f"it says of what it acknowledges that it became {outcomes!r:.100}")
        self._outcomes = outcomes
        return added

    @property
    def can_resume(self) -> bool:
        """Whether all that is not acknowledged is still there to be written again."""
        return not self._marks

    def lose(self) -> int:
        """End the session: forget all. Returns how many events were not acknowledged."""
        lost = self.events
        self.frames.clear()
        self._marks.clear()
        self._stride = 1
        self._removed = self.added
        self._known = self.total
        self._before = self.acknowledged = 0
        self._outcomes = NONE
        return lost


class Handled:
    """What came from the other end in this session, and what of it this end has said that it handled.

    ``begin`` and ``handle`` are called by the reader thread of the link only, ``say`` under the state lock.
    """

    __slots__ = ("_base", "_bytes", "_said", "done", "due", "is_withheld", "releases")

    def __init__(self) -> None:
        # The number of the frame that was handled last, and the outcomes of all that the link has received up
        # to it. One object, so that any thread finds both as they belong together.
        self.done = (0, NONE)
        self._base = NONE  # outcomes that are not of this session
        self._said = 0
        self._bytes = 0  # handled since then
        # When the writer thread looks whether something is to be said; 0.0: it does not. Set by the reader
        # thread, and to 0.0 by the writer thread before it looks.
        self.due = 0.0
        self.is_withheld = False  # nothing is said for now: what came is kept, and not handled yet
        self.releases = False  # that ends with the frame that is read now, as the outcomes are known then

    def begin(self, outcomes: Outcomes) -> None:
        """Begin, or go on, with a connection. Outcomes that were counted before a session are not of it."""
        if not self.done[0]:
            self._base = outcomes
            self.done = (0, outcomes)

    def handle(self, size: int, outcomes: Outcomes) -> bool:
        """Note that the next frame was handled. Returns whether that has to be said now.

        ``outcomes`` are those of all that the link has ever received.
        """
        last = self.done[0] + 1
        self.done = (last, outcomes)
        if self.releases:
            self.is_withheld = self.releases = False
        self._bytes += size
        if last - self._said < ACKNOWLEDGE_FRAMES and self._bytes < ACKNOWLEDGE_BYTES:
            return False
        return not self.is_withheld

    @property
    def is_unsaid(self) -> bool:
        """Whether something was handled that the other end has not been told."""
        return self.done[0] > self._said and not self.is_withheld

    def say(self) -> tuple[int, Outcomes]:
        """Return the number to acknowledge, and the outcomes of the session; they count as said."""
        number, outcomes = self.done
        self._bytes = 0
        self._said = number
        return number, NONE if outcomes is self._base else minus(outcomes, self._base)
