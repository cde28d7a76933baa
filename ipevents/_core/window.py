"""What was written to a peer and is not acknowledged yet, and what came from it and is not acknowledged yet.

Frames have numbers in each direction, from 1 on, for as long as a session lasts. Both ends count them; on a
private link a session is one connection. Where a session outlives its connections, the next one goes on
behind the last frame that the other end has handled. So nothing is lost and nothing comes twice.

``Written`` is the sending half, ``Handled`` the receiving one. They touch nothing else.

What is kept has a bound of its own, and never holds up a sender. If room depended on acknowledgements, a
reader that waits for room in another link would wait for its own reading, and two clients that flood each
other through a server would stop for ever. Beyond the bound the oldest frames are forgotten, and their
numbers of events stay: such a session cannot be resumed, but its books are right.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from .._exceptions import ProtocolError
from .books import NONE, Outcomes, are_outcomes, minus

ACKNOWLEDGE_FRAMES = 64  # handled without an acknowledgement, at most
ACKNOWLEDGE_BYTES = 1 << 20
KEPT_BYTES = 64 << 20  # of what was written to one peer
ACKNOWLEDGE_SECONDS = 0.1  # the same; short against what users notice, long against a round trip

Frame = tuple[int, int, Any]  # events, bytes, records; 0 and None where the records are not kept


class Written:
    """The frames that the other end has not acknowledged, oldest first.

    The thread that writes adds a frame by ``frames += (frame,)`` and its bytes by ``added += size``: plain
    assignments, between which no signal handler runs (see threads.py). All methods are called with the state
    lock held.
    """

    __slots__ = ("_forgotten", "_outcomes", "_removed", "acknowledged", "added", "frames")

    def __init__(self) -> None:
        self.frames: deque[Frame] = deque()
        self.acknowledged = 0  # the number of the frame before the first of these
        self.added = 0  # bytes of all frames that were kept
        self._removed = 0  # of them, those that are not kept any more
        self._forgotten = 0  # frames without their records, from the oldest on
        self._outcomes = NONE  # of all events that are acknowledged

    @property
    def last(self) -> int:
        """The number of the frame that was written last."""
        return self.acknowledged + len(self.frames)

    @property
    def events(self) -> int:
        """How many events are not acknowledged."""
        return sum(events for events, _, _ in list(self.frames))

    @property
    def kept_bytes(self) -> int:
        """How many bytes are kept."""
        return self.added - self._removed

    def trim(self, bound: int) -> None:
        """Forget the oldest frames until the rest has at most ``bound`` bytes."""
        while self.added - self._removed > bound:
            events, size, _ = self.frames[self._forgotten]
            self.frames[self._forgotten] = (events, 0, None)
            self._forgotten += 1
            self._removed += size

    def acknowledge(self, number: object, outcomes: object) -> tuple[int, Outcomes]:
        """Note that the other end has handled all frames up to this one, and what became of their events.

        ``outcomes`` are those of all events of the session so far. Returns how many events were not
        acknowledged before, and the outcomes of these: nothing for an acknowledgement that is older than the
        last one, which comes in a frame that was written again. Raises ProtocolError for a frame that was not
        written, and for outcomes of more events than there were.
        """
        if type(number) is not int or not 0 <= number <= self.last:
            raise ProtocolError(f"it acknowledges the frame {number!r:.40}; {self.last} were written")
        added = NONE
        if number >= self.acknowledged and outcomes != self._outcomes:
            added = self._added(number, outcomes)
        events = 0
        while self.acknowledged < number:
            count, size, _ = self.frames.popleft()
            self.acknowledged += 1
            events += count
            self._removed += size
            if self._forgotten:
                self._forgotten -= 1
        return events, added

    def _added(self, number: int, outcomes: Any) -> Outcomes:
        """Note other outcomes, if they can be. Returns what they have more than those before."""
        added = minus(outcomes, self._outcomes) if are_outcomes(outcomes) else None
        # By their places: the thread that writes may add a frame meanwhile, which ends an iteration.
        events = sum(self.frames[at][0] for at in range(number - self.acknowledged))
        if added is None or min(added) < 0 or sum(added) > events:
            raise ProtocolError(f"it says of what it acknowledges that it became {outcomes!r:.100}")
        self._outcomes = outcomes
        return added

    @property
    def can_resume(self) -> bool:
        """Whether all that is not acknowledged is still there to be written again."""
        return not self._forgotten

    def lose(self) -> int:
        """End the session: forget all. Returns how many events were not acknowledged."""
        lost = self.events
        self.frames.clear()
        self._removed = self.added
        self._forgotten = self.acknowledged = 0
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
