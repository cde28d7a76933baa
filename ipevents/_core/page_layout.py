"""What stands where on the page that a child shares with its parent, see _platform/shared_page.py.

The page has 512 slots of 8 bytes, which are zero at first. A *lane* is a row of jobs that begin one after the
other; a job has a key, a number that is not zero. Lane 0 is the thread that calls listeners. Each other lane
belongs to one event, whose jobs begin in a thread of their own.

| slots | content |
| --- | --- |
| 0 | the key of the job that has begun last in lane 0; 0 before the first one |
| 2n - 1, for lane n of 1 to 255 | the mark of the event that has this lane, made of its name; 0: no event |
| 2n | the key of the job that has begun last in lane n; 0 before the first one |
| 511 | 1 if an event has no lane, because all were taken or it lost the one it had |

The child writes and the parent reads, in the middle of anything: the child may be killed at any moment. That
is safe because each change is one slot, and a lane is found by its mark: before the mark is written, the key
of its lane is zero, as that of an event of which no job has begun.
"""

from __future__ import annotations

from collections.abc import Iterator

from .mac import blake2b

__all__ = ["DISPATCHER", "LANES", "SLOTS", "Lanes", "begun_last", "key_slot", "mark_of"]

SLOTS = 512
LANES = 255  # beside that of the dispatcher
DISPATCHER = 0  # the lane of the thread that calls listeners

_OVERFLOW = SLOTS - 1  # the slot


def key_slot(lane: int) -> int:
    """Return the slot for the key of the job that has begun last in this lane."""
    return 2 * lane


def _mark_slot(lane: int) -> int:
    return 2 * lane - 1


def mark_of(event: str) -> int:
    """Return a number for an event's name, the same one in every process, and never zero.

    Two names have the same number once in 2**64 pairs; then the two events share a lane.
    """
    name = event.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(name, digest_size=8).digest(), "big") or 1


def begun_last(slots: memoryview, event: str) -> tuple[int, int] | None:
    """Return the lane in which the jobs for an event begin, and the key of the one that has begun last there.

    Returns None where that is not known: the event has no lane of its own, and may be one of those that found
    all lanes taken, or lost theirs. For the parent.
    """
    marks = slots[_mark_slot(1) : _mark_slot(LANES) + 1 : 2].tolist()
    mark = mark_of(event)
    if mark in marks:
        lane = marks.index(mark) + 1
    elif slots[_OVERFLOW]:
        return None
    else:
        lane = DISPATCHER
    return lane, slots[key_slot(lane)]


class Lanes:
    """The lanes that events of this process have, each for as long as the process lives. For the child.

    Any thread may ask for a lane, without a lock: ``next`` and ``setdefault`` are one step each.
    """

    def __init__(self) -> None:
        self._of_marks: dict[int, int | None] = {}  # None: forgotten
        self._unused: Iterator[int] = iter(range(1, LANES + 1))

    def forget(self, slots: memoryview, event: str) -> None:
        """Note on the page that the parent cannot tell what has begun for an event, from now on.

        Nor for any other event without a lane of its own.
        """
        mark = mark_of(event)
        slots[_OVERFLOW] = 1
        lane = self._of_marks.get(mark)
        if lane:
            slots[_mark_slot(lane)] = 0
        self._of_marks[mark] = None

    def of(self, slots: memoryview, event: str) -> int | None:
        """Return the lane of an event, which gets one if it has none; notes that on the page.

        Returns None where all lanes are taken, and notes that, too.
        """
        mark = mark_of(event)
        if mark not in self._of_marks:
            unused = next(self._unused, None)
            if unused is None:
                slots[_OVERFLOW] = 1
                return None
            self._of_marks.setdefault(mark, unused)  # another thread's stays; ours is lost then
        lane = self._of_marks[mark]
        if lane is None:  # forgotten
            return None
        # Each time, as the thread that took the lane may not have come to this line yet.
        slots[_mark_slot(lane)] = mark
        return lane
