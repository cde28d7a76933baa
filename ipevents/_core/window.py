"""What was written to a peer and is not acknowledged yet, and what came from it and is not acknowledged yet.

Frames are numbered in each direction, from 1 on, for as long as a session lasts. A session outlives its
connections: when one breaks, the next one goes on behind the last frame that the other end has handled. So
nothing is lost and nothing comes twice.

``Written`` is the sending half, ``Handled`` the receiving one. They touch nothing else. The caller holds the
lock of the link.

What is kept has a bound of its own, and never holds up a sender. If room depended on acknowledgements, a
reader that waits for room in another link would wait for its own reading, and two clients that flood each
other through a server would stop for ever. Beyond the bound the oldest frames are forgotten, and their
numbers of events stay: such a session cannot be resumed, but its books are right.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from .._exceptions import ProtocolError

ACKNOWLEDGE_FRAMES = 64  # handled without an acknowledgement, at most
ACKNOWLEDGE_BYTES = 1 << 20


class Frame(NamedTuple):
    """A frame that was written. ``parts`` is None once it was forgotten."""

    events: int
    size: int
    parts: Any


class Written:
    """The frames that the other end has not acknowledged, oldest first.

    ``bound`` is in bytes; 0 keeps none.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._frames: deque[Frame] = deque()  # their numbers end with ``last``
        self._forgotten = 0  # of them, from the oldest on
        self.last = 0  # the number of the frame that was written last in this session
        self.kept_bytes = 0
        self.unacknowledged = 0  # events

    def write(self, events: int, size: int, parts: Any) -> int:
        """Note a frame of ``size`` bytes that is written now. Returns its number."""
        self.last += 1
        self._frames.append(Frame(events, size, parts))
        self.unacknowledged += events
        self.kept_bytes += size
        while self.kept_bytes > self._bound:
            self._forget_oldest()
        return self.last

    def _forget_oldest(self) -> None:
        frame = self._frames[self._forgotten]
        self._frames[self._forgotten] = frame._replace(parts=None)
        self._forgotten += 1
        self.kept_bytes -= frame.size

    def acknowledge(self, number: int) -> int:
        """Note that the other end has handled all frames up to this one. Returns how many events that were.

        Raises ProtocolError for a number that was not written, or is below one acknowledged before.
        """
        first = self.last - len(self._frames)  # acknowledged before
        if not first <= number <= self.last:
            raise ProtocolError(
                f"frame {number} is acknowledged, which is not between {first} and {self.last}"
            )
        events = 0
        for _ in range(number - first):
            frame = self._frames.popleft()
            events += frame.events
            if self._forgotten:
                self._forgotten -= 1
            else:
                self.kept_bytes -= frame.size
        self.unacknowledged -= events
        return events

    @property
    def can_resume(self) -> bool:
        """Whether all that is not acknowledged is still there to be written again."""
        return not self._forgotten

    def again(self) -> list[tuple[int, Any]]:
        """Return numbers and parts of all that is to be written again, oldest first.

        First tell ``acknowledge`` what the other end says that it has handled. Only if ``can_resume``.
        """
        first = self.last - len(self._frames) + 1
        return [(first + index, frame.parts) for index, frame in enumerate(self._frames)]

    def lose(self) -> int:
        """End the session: forget all, begin with 1 again. Returns how many events were not acknowledged."""
        lost, self.unacknowledged = self.unacknowledged, 0
        self._frames.clear()
        self._forgotten = self.last = self.kept_bytes = 0
        return lost


class Handled:
    """What came from the other end in this session, and what of it this end has said that it handled."""

    def __init__(self) -> None:
        self.last = 0  # the number of the frame that was handled last
        self._said = 0
        self._bytes = 0  # handled and not said

    def check(self, number: int) -> None:
        """Raise ProtocolError if a frame with this number cannot be the next one."""
        if number != self.last + 1:
            raise ProtocolError(f"frame {number} came after frame {self.last}")

    def handle(self, size: int) -> bool:
        """Note that the next frame was handled. Returns whether that has to be said now."""
        self.last += 1
        self._bytes += size
        return self.last - self._said >= ACKNOWLEDGE_FRAMES or self._bytes >= ACKNOWLEDGE_BYTES

    @property
    def is_unsaid(self) -> bool:
        """Whether something was handled that the other end has not been told."""
        return self.last > self._said

    def say(self) -> int:
        """Return the number to acknowledge; it counts as said."""
        self._said = self.last
        self._bytes = 0
        return self.last

    def begin_again(self) -> None:
        """Begin with frame 1: another session."""
        self.last = self._said = self._bytes = 0
