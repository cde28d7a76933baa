"""The outbox of a link: what waits to be written, and what happens when there is too much of it.

The rules are DESIGN section 5, Flow. Pure: no lock, no clock, ``now`` is monotonic seconds; the
caller holds the state lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from enum import Enum

from .messages import INTEREST, INTERESTS, Record
from .wire import FRAME_BYTES, PAYLOAD

OUTBOX_BYTES = 64 << 20
OUTBOX_RECORDS = 100_000
STALLED_SECONDS = 1.0  # a peer that takes nothing for so long is slow
RECORD_OVERHEAD = 48  # what a record costs beside its payload, for the limit only


class Sender(Enum):
    """On whose behalf a record is put."""

    APPLICATION = "an addressed send of an application thread: waits for room"
    LISTENER = "code that runs in a listener: never waits"
    FANOUT = "a fan-out, or a reader that forwards: waits while the peer makes progress"
    BACK = "a reader that forwards to the link it reads from: never waits"


class Verdict(Enum):
    TAKE = "there is room"
    WAIT = "wait for room, then ask again"
    REFUSE = "tell the caller"
    DROP = "count it as lost"


class Outbox:
    """Records in order, gathered into frames, with the limits of one link."""

    __slots__ = ("_framed", "_framed_size", "_frames", "_pending_interest", "_tail", "_tail_size", "dropping", "peak")

    def __init__(self) -> None:
        self._frames: deque[tuple[list[Record], int]] = deque()  # full frames and their bytes, oldest first
        self._framed = 0  # records in them
        self._framed_size = 0  # bytes in them
        self._tail: list[Record] = []  # the frame that is being filled
        self._tail_size = 0
        self._pending_interest: dict[str, list[object]] = {}
        self.peak = 0
        self.dropping = False  # an episode of a slow peer, until half empty

    def __len__(self) -> int:
        return self._framed + len(self._tail)

    @property
    def count(self) -> int:
        """Records in it."""
        return self._framed + len(self._tail)

    @property
    def size(self) -> int:
        """Bytes in it."""
        return self._framed_size + self._tail_size

    def has_room(self, size: int) -> bool:
        """Whether a record fits; an empty outbox takes one of any size."""
        count = self._framed + len(self._tail)
        return not count or (
            count < OUTBOX_RECORDS and self._framed_size + self._tail_size + size <= OUTBOX_BYTES
        )

    def offer(self, record: Record, size: int) -> bool:
        """Take a message if there is room and no episode; else ``decide`` tells what to do with it."""
        tail_size = self._tail_size + size + RECORD_OVERHEAD
        if tail_size <= FRAME_BYTES and not self._frames and not self.dropping and type(record[PAYLOAD]) is not list:
            self._tail.append(record)  # a single frame that is not full: far below every limit
            self._tail_size = tail_size
            return True
        if self.dropping or not self.has_room(size):
            return False
        self.put_message(record, size)
        return True

    def decide(self, size: int, sender: Sender, now: float, progress: float) -> Verdict:
        """What to do with a record; ``progress`` is when the peer last took something."""
        if self.dropping:
            if self.size > OUTBOX_BYTES // 2 or self.count > OUTBOX_RECORDS // 2:
                return _FULL[sender] if sender is not Sender.FANOUT else Verdict.DROP
            self.dropping = False
        if self.has_room(size):
            return Verdict.TAKE
        if sender is Sender.FANOUT and now - progress >= STALLED_SECONDS:
            return Verdict.DROP
        return _FULL[sender]

    def put(self, record: Record, size: int) -> None:
        """Take a record at the end, whatever the limits say (control records are exempt)."""
        size += RECORD_OVERHEAD
        if self._tail_size + size > FRAME_BYTES and self._tail:
            self._close_tail()
        self._tail.append(record)
        self._tail_size += size

    def put_message(self, record: Record, size: int) -> None:
        """Take a message at the end; one whose payload has buffers travels in a frame of its own."""
        if type(record[PAYLOAD]) is not list:
            self.put(record, size)
            return
        if self._tail:
            self._close_tail()
        self.put(record, size)
        self._close_tail()

    def put_interest(self, event: str, wanted: bool) -> None:
        """Tell the peer of interest; news of the same event that still waits is replaced in its place."""
        pending = self._pending_interest.get(event)
        if pending is not None:
            pending[2] = wanted
            return
        record: list[object] = [INTEREST, event, wanted]
        self._pending_interest[event] = record
        self.put(record, len(event))

    def put_interests(self, events: tuple[str, ...]) -> None:
        """Tell the peer all interest at once. What is told later is not put in a place before this."""
        self._pending_interest = {}
        self.put((INTERESTS, events), sum(map(len, events)))

    def take(self) -> list[Record]:
        """The records of the next frame, taken out; empty if nothing waits."""
        count = self._framed + len(self._tail)
        if count > self.peak:
            self.peak = count
        if self._pending_interest:
            self._pending_interest = {}
        if self._frames:
            records, size = self._frames.popleft()
            self._framed -= len(records)
            self._framed_size -= size
            return records
        records = self._tail
        self._tail = []
        self._tail_size = 0
        return records

    def clear(self) -> list[Record]:
        """Empty it; returns what was in it."""
        records = list(self._all())
        self.__init__()  # type: ignore[misc]  # every field back to its beginning
        return records

    def _all(self) -> Iterator[Record]:
        for frame, _ in self._frames:
            yield from frame
        yield from self._tail

    def _close_tail(self) -> None:
        self._frames.append((self._tail, self._tail_size))
        self._framed += len(self._tail)
        self._framed_size += self._tail_size
        self._tail = []
        self._tail_size = 0


_FULL = {
    Sender.APPLICATION: Verdict.WAIT,
    Sender.LISTENER: Verdict.REFUSE,
    Sender.FANOUT: Verdict.WAIT,
    Sender.BACK: Verdict.DROP,
}


def is_large(record: Record) -> bool:
    """Whether the record's payload has buffers that travel behind its frame."""
    return len(record) > PAYLOAD and type(record[PAYLOAD]) is list
