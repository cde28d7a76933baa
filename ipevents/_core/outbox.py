"""The outbox of a link: what waits to be written, and what happens when there is too much of it.

The rules are in README, Flow. Pure: no lock, no clock, ``now`` is monotonic seconds; the
caller holds the state lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from enum import Enum

from .decisions import Plan
from .messages import (
    INTEREST,
    INTERESTS,
    KIND,
    LAST_MESSAGE,
    MORE_INTERESTS,
    PAYLOADS,
    WANTED,
    Header,
    Payload,
    Record,
    control,
    count_messages,
    make_record,
)
from .wire import FRAME_BYTES, is_large

OUTBOX_BYTES = 64 << 20
OUTBOX_RECORDS = 100_000  # messages and control records
STALLED_SECONDS = 1.0  # a peer that takes nothing for so long is slow
OVERHEAD = 48  # bytes that a message costs beside its payload, for the limit only
_NAME_BYTES = 8  # that a name costs beside its text


class Patience(Enum):
    """How long the code that puts a record may wait for room."""

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
    """Messages and control records in order, gathered into records and frames, with the limits of one link.

    Sizes are those of the payloads in bytes. A message that has its header in common with the one before it
    joins that one's record.

    A signal handler may raise after any call in here, and at the beginning of any function, but not between
    plain assignments (see threads.py). So each change is a row of those: done, or not begun.
    """

    __slots__ = (
        "_event",
        "_events",
        "_frames",
        "_framed",
        "_framed_size",
        "_header",
        "_pending_interest",
        "_run",
        "_simple_up_to",
        "_tail",
        "_tail_count",
        "_tail_size",
        "being_written",
        "dropping",
        "peak",
        "taken",
    )

    def __init__(self) -> None:
        self._frames: deque[tuple[list[Record], int, int]] = deque()  # full ones: records, count, bytes
        self._framed = 0  # messages and control records in them
        self._framed_size = 0  # bytes in them
        self._tail: list[Record] = []  # the frame that is being filled
        self._tail_count = 0  # messages and control records in it, those of the run apart
        self._tail_size = 0
        # The last record of the tail, if messages may still join it: what all of them have in common, the
        # event of all or a name for each, and their payloads.
        self._header: Header | None = None
        self._event = ""
        self._events: list[str] | None = None
        self._run: list[Payload] = []
        # Up to this size of the tail a message can be taken without a look at any limit: far below them all,
        # while it is the only frame and there is no episode.
        self._simple_up_to = FRAME_BYTES
        self._pending_interest: dict[str, list[object]] = {}
        self.taken: list[Record] = []  # the frame that was taken last, until whoever took it has its bytes
        self.being_written = 0  # bytes of the frame that was taken last, until whoever took it sets 0
        self.peak = 0
        self.dropping = False  # an episode of a slow peer, until half empty

    def __len__(self) -> int:
        return self.count

    @property
    def count(self) -> int:
        """Messages and control records in it."""
        return self._framed + self._tail_count + len(self._run)

    @property
    def size(self) -> int:
        """Bytes in it."""
        return self._framed_size + self._tail_size

    def has_room(self, size: int, count: int = 1) -> bool:
        """Whether ``count`` messages of ``size`` bytes in all fit; an empty outbox takes any."""
        there = self.count
        return not there or (
            there + count <= OUTBOX_RECORDS and self._framed_size + self._tail_size + size <= OUTBOX_BYTES
        )

    def has_room_for_large(self, size: int) -> bool:
        """Whether a message with large buffers fits beside what is queued and what is just being written."""
        there = self._framed_size + self._tail_size + self.being_written
        return not there or there + size <= OUTBOX_BYTES

    def offer(self, plan: Plan, payload: Payload, size: int) -> bool:
        """Take a message if there is room and no episode; otherwise ``decide`` says what to do with it.

        ``plan`` says where its record begins. It joins the record before it if that was made from the very
        same header.
        """
        tail_size = self._tail_size + size + OVERHEAD
        if tail_size > self._simple_up_to or type(payload) is list:
            if self.dropping or not self.has_room(size):
                return False
            if tail_size > FRAME_BYTES or type(payload) is list:
                self.put_message(plan.header, plan.event, payload, size)
                return True
        header, event = plan.header, plan.event
        try:
            if header is self._header:
                events = self._events
                if events is not None:
                    events.append(event)
                elif event is not self._event:
                    self._mix(event)
                self._run.append(payload)
            else:
                self._begin_run(header, event, payload)
        except BaseException:  # of a signal handler, after any of these calls
            self._undo(payload)
            raise
        self._tail_size = tail_size
        return True

    def _undo(self, payload: Payload) -> None:
        """A message was interrupted on its way in: it is not sent, and neither is its name.

        But () may stay: it is the same object for all messages without arguments.
        """
        if payload and self._run and self._run[-1] is payload:
            if len(self._run) == 1:
                del self._tail[-1]
                self._run, self._header, self._events = [], None, None
            else:
                del self._run[-1]
        if self._events is not None:
            del self._events[len(self._run) :]

    def _begin_run(self, header: Header | None, event: str, payload: Payload) -> None:
        """A record for a message and those that may join it.

        It comes into being with the message in it.
        """
        run = [payload]
        record = make_record(header, event, run)
        self._end_run()
        self._run, self._header, self._event, self._events = run, header, event, None
        self._tail += (record,)

    def _end_run(self) -> None:
        """No message joins the last record of the tail any more."""
        self._tail_count += len(self._run)
        self._run, self._header, self._events = [], None, None

    def _mix(self, event: str) -> None:
        """The run goes on with a message of perhaps another event: from then on it has a name for each."""
        if event != self._event:
            assert self._header is not None
            events = [self._event] * len(self._run) + [event]
            self._tail[-1] = make_record(self._header, events, self._run)
            self._events = events

    def begin_dropping(self) -> None:
        """An episode of a slow peer begins."""
        self.dropping = True
        self._limits_changed()

    def _limits_changed(self) -> None:
        self._simple_up_to = 0 if self.dropping or self._frames else FRAME_BYTES

    def decide(self, size: int, patience: Patience, now: float, progress: float, count: int = 1) -> Verdict:
        """What to do with ``count`` messages; ``progress`` is when the peer last took something."""
        if self.dropping:
            self.dropping = self.size > OUTBOX_BYTES // 2 or self.count > OUTBOX_RECORDS // 2
            self._limits_changed()
            if self.dropping and patience is Patience.FANOUT:
                return Verdict.DROP
        if self.has_room(size, count):
            return Verdict.TAKE
        if patience is Patience.FANOUT and now - progress >= STALLED_SECONDS:
            return Verdict.DROP
        return _FULL[patience]

    def put_message(self, header: Header | None, event: str, payload: Payload, size: int) -> None:
        """Take a message at the end, in a record of its own, whatever the limits say."""
        self.put(make_record(header, event, [payload]), size)

    def put(self, record: Record, size: int) -> None:
        """Take a record at the end, whatever the limits say; control records are exempt from them."""
        count = len(record[PAYLOADS]) if record[KIND] <= LAST_MESSAGE else 1
        size += OVERHEAD * count
        large = is_large(record)
        if self._tail and (large or self._tail_size + size > FRAME_BYTES):
            self._close_tail()
        self._end_run()
        if large:
            self._frames += (([record], count, size),)
            self._framed += count
            self._framed_size += size
            self._simple_up_to = 0
        else:
            self._tail += (record,)
            self._tail_count += count
            self._tail_size += size

    def put_interest(self, event: str, wanted: bool) -> None:
        """Tell the peer of interest; news of the same event that still waits is replaced in its place."""
        pending = self._pending_interest.get(event)
        if pending is not None:
            pending[WANTED] = wanted
            return
        record: list[object] = [*control(INTEREST, event=event, wanted=wanted)]
        self.put(record, len(event))
        self._pending_interest[event] = record

    def put_interests(self, events: tuple[str, ...]) -> None:
        """Tell the peer all interest at once. What is told later is not put in a place before this.

        In several records, each with a frame of its own, where the names are too many for one frame: the
        peer refuses what is longer than its limits.
        """
        self._pending_interest = {}
        kind, size = INTERESTS, 0
        part: list[str] = []
        for event in events:
            if size + len(event) + OVERHEAD > FRAME_BYTES:
                self.put(control(kind, events=tuple(part)), size)
                kind, part, size = MORE_INTERESTS, [], 0
            part.append(event)
            size += len(event) + _NAME_BYTES
        self.put(control(kind, events=tuple(part)), size)

    def take(self) -> list[Record]:
        """The records of the next frame, taken out; empty if nothing waits."""
        there = self._framed + self._tail_count + len(self._run)
        if there > self.peak:
            self.peak = there
        if self._pending_interest:
            self._pending_interest = {}
        if self._frames:
            records, count, size = self._frames[0]
            self.taken = records
            del self._frames[0]
            self._framed -= count
            self._framed_size -= size
            self.being_written = size
            self._simple_up_to = 0 if self.dropping or self._frames else FRAME_BYTES
            return records
        self.taken = records = self._tail
        self.being_written = self._tail_size
        self._tail, self._run, self._header, self._events = [], [], None, None
        self._tail_count = self._tail_size = 0
        return records

    def count_messages(self) -> int:
        """Messages of users in it, control records apart. Looks at every record."""
        return count_messages(self._all())

    def clear(self) -> list[Record]:
        """Empty it; returns what was in it."""
        records = list(self._all())
        self.__init__()  # type: ignore[misc]  # every field back to its beginning
        return records

    def _all(self) -> Iterator[Record]:
        for frame, _, _ in self._frames:
            yield from frame
        yield from self._tail

    def _close_tail(self) -> None:
        self._end_run()
        self._frames += ((self._tail, self._tail_count, self._tail_size),)
        self._framed += self._tail_count
        self._framed_size += self._tail_size
        self._tail, self._tail_count, self._tail_size = [], 0, 0
        self._simple_up_to = 0


_FULL = {
    Patience.APPLICATION: Verdict.WAIT,
    Patience.LISTENER: Verdict.REFUSE,
    Patience.FANOUT: Verdict.WAIT,
    Patience.BACK: Verdict.DROP,
}
