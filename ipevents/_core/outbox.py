"""The outbox of a link: what waits to be written, and what happens when there is too much of it.

The rules are in README, Flow. Pure: the caller holds the state lock, and hands in the time as monotonic
seconds (``now``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum

from .books import Outcomes
from .decisions import Plan
from .interest_news import InterestNews, size_of
from .messages import (
    ACKNOWLEDGED,
    KIND,
    LAST_MESSAGE,
    NUMBER,
    OUTCOMES,
    PAYLOADS,
    Header,
    Payload,
    Record,
    control,
    make_record,
)
from .wire import FRAME_BYTES, is_large

OUTBOX_BYTES = 64 << 20
OUTBOX_RECORDS = 100_000  # messages and control records
STALLED_SECONDS = 1.0  # a peer that takes nothing for this long is slow
OVERHEAD = 48  # bytes that a message counts for beside its payload; an estimate, for the limits only


class Patience(Enum):
    """How long the code that puts a record may wait for room."""

    APPLICATION = "an addressed send of an application thread: waits for room"
    LISTENER = "code that runs in a listener: never waits"
    FANOUT = "a fan-out, or a reader that forwards: waits while the peer makes progress"
    BACK = "a reader that forwards to the link it reads from: never waits"


class Verdict(Enum):
    """What to do with a message that is to be put."""

    TAKE = "there is room"
    WAIT = "wait for room, then ask again"
    REFUSE = "tell the caller"
    DROP = "count it as lost"


class Outbox:
    """The messages and control records that wait for one link, in order, gathered into frames.

    Full frames wait in ``frames``; the last one, the *tail*, is still being filled. A message with the same
    header as the one before it joins the record of that one; the last record of the tail, which others may
    still join, is called the *run*. Sizes are bytes of payloads, with OVERHEAD for each message.

    News of interest are no records before they are taken, see interest_news.py. They leave at the beginning
    of the next frame, and count for no limit.

    A signal handler may raise after any call in this class, and at the beginning of any function, but not
    between plain assignments (see threads.py). So each change is a series of plain assignments: it is done
    as a whole, or not begun.
    """

    __slots__ = (
        "_controls",
        "_event",
        "_events",
        "_framed",
        "_framed_size",
        "_header",
        "_is_next",
        "_pending_acknowledgement",
        "_run",
        "_simple_up_to",
        "_tail_controls",
        "_tail_count",
        "_tail_size",
        "being_written",
        "controls_taken",
        "dropping",
        "frames",
        "news",
        "peak",
        "tail",
        "taken",
    )

    def __init__(self) -> None:
        # Full ones: records, messages and control records, of these the control records, bytes.
        self.frames: deque[tuple[list[Record], int, int, int]] = deque()
        self._framed = 0  # messages and control records in frames
        self._framed_size = 0  # bytes in frames
        self.tail: list[Record] = []  # the frame that is being filled
        self._tail_count = 0  # messages and control records in the tail, without those of the run
        self._tail_size = 0
        self._controls = 0  # control records in all frames
        self._tail_controls = 0  # in the tail
        # The run: the header and payloads of its messages, their one event, or a list with a name for each.
        # The header is None while there is no run.
        self._header: Header | None = None
        self._event = ""
        self._events: list[str] | None = None
        self._run: list[Payload] = []
        # Fast path: below this tail size no limit can be reached, so offer() checks none. 0 while frames are
        # queued or messages are being dropped.
        self._simple_up_to = FRAME_BYTES
        self.news: InterestNews | None = None  # None: the peer knows all
        self._is_next = False  # the first of the frames has waited for news, and newer ones wait for it
        self._pending_acknowledgement: list[object] | None = None
        self.taken: list[Record] = []  # the frame that was taken last, until it is encoded
        self.being_written = 0  # bytes of the frame that was taken last; the thread that writes sets it to 0
        self.controls_taken = 0  # control records that were put and have left
        self.peak = 0  # the greatest count so far
        self.dropping = False  # fan-outs are dropped for a slow peer, until the outbox is half empty

    def __len__(self) -> int:
        return self.count

    @property
    def count(self) -> int:
        """How many messages and control records wait; news of interest are counted as one.

        Whether there are any is known faster: one of ``tail``, ``frames`` and ``news`` is true then.
        """
        return self._framed + self._tail_count + len(self._run) + (self.news is not None)

    @property
    def events(self) -> int:
        """How many messages of users wait."""
        there = self._framed + self._tail_count + len(self._run)
        return there - self._controls - self._tail_controls

    @property
    def controls_put(self) -> int:
        """How many control records were put so far: the number of the last one."""
        return self.controls_taken + self._controls + self._tail_controls

    @property
    def size(self) -> int:
        """How many bytes wait."""
        return self._framed_size + self._tail_size

    def has_room(self, size: int, count: int = 1) -> bool:
        """Return whether ``count`` messages of ``size`` bytes in all fit. An empty outbox takes any."""
        there = self._framed + self._tail_count + len(self._run)
        return not there or (
            there + count <= OUTBOX_RECORDS and self._framed_size + self._tail_size + size <= OUTBOX_BYTES
        )

    def has_room_for_large(self, size: int) -> bool:
        """Return whether a message with large buffers fits beside what waits and what is being written.

        The latter counts here because a frame with large buffers stays in memory until it is written.
        """
        there = self._framed_size + self._tail_size + self.being_written
        return not there or there + size <= OUTBOX_BYTES

    def offer(self, plan: Plan, payload: Payload, size: int) -> bool:
        """Put a message if there is room and nothing is being dropped. Returns whether it was put.

        If it was not, the caller asks ``decide`` what to do. The header and the event are those of ``plan``.
        The message joins the run if both have the same header object, see ``Router.header``.
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
        except BaseException:  # a signal handler may raise after any of these calls
            self._undo(payload)
            raise
        self._tail_size = tail_size
        return True

    def _undo(self, payload: Payload) -> None:
        """Remove a message, and its name, if a signal handler has interrupted its ``offer``.

        A message without arguments may stay: its payload () is the same object for all of these, so the last
        one in the run may be another message.
        """
        if payload and self._run and self._run[-1] is payload:
            if len(self._run) == 1:
                del self.tail[-1]
                self._run, self._header, self._events = [], None, None
            else:
                del self._run[-1]
        if self._events is not None:
            del self._events[len(self._run) :]

    def _begin_run(self, header: Header | None, event: str, payload: Payload) -> None:
        """Begin a run: put a record with this message, which others may join.

        The record has the message in it from the beginning, so no interruption leaves an empty one.
        """
        run = [payload]
        record = make_record(header, event, run)
        if self._run:
            self._end_run()
        self._run, self._header, self._event, self._events = run, header, event, None
        self.tail += (record,)

    def _end_run(self) -> None:
        """End the run: no message joins the last record of the tail any more."""
        self._tail_count += len(self._run)
        self._run, self._header, self._events = [], None, None

    def _mix(self, event: str) -> None:
        """Give each message of the run a name of its own, if ``event`` is not the event of all before it."""
        if event != self._event:
            assert self._header is not None
            events = [self._event] * len(self._run) + [event]
            self.tail[-1] = make_record(self._header, events, self._run)
            self._events = events

    def begin_dropping(self) -> None:
        """Drop fan-outs from now on, because the peer is slow. ``decide`` ends that."""
        self.dropping = True
        self._limits_changed()

    def _limits_changed(self) -> None:
        """Set the fast path of ``offer`` to what the present state allows."""
        self._simple_up_to = 0 if self.dropping or self.frames else FRAME_BYTES

    def decide(self, size: int, patience: Patience, now: float, progress: float, count: int = 1) -> Verdict:
        """Return what to do with ``count`` messages of ``size`` bytes in all.

        ``progress`` is the time at which the peer last took something. The first DROP of a slow peer leaves
        the call of ``begin_dropping`` to the caller, who reports it.
        """
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
        """Put a message, in a record of its own. Checks no limits."""
        self.put(make_record(header, event, [payload]), size)

    def put(self, record: Record, size: int) -> None:
        """Put a record. Checks no limits, from which control records are exempt.

        A record with large buffers gets a frame of its own, see wire.py.
        """
        is_message = record[KIND] <= LAST_MESSAGE
        count = len(record[PAYLOADS]) if is_message else 1
        size += OVERHEAD * count
        large = is_large(record)
        if self.tail and (large or self._tail_size + size > FRAME_BYTES):
            self._close_tail()
        self._end_run()
        if large:
            self.frames += (([record], count, int(not is_message), size),)
            self._framed += count
            self._controls += not is_message
            self._framed_size += size
            self._simple_up_to = 0
        else:
            self.tail += (record,)
            self._tail_count += count
            self._tail_controls += not is_message
            self._tail_size += size

    def put_interest(self, event: str, wanted: bool) -> None:
        """Announce that the interest in an event has changed."""
        news = self.news or InterestNews()
        news.change(event, wanted)
        self.news = None if news.is_empty else news

    def put_answers(self, event: str, count: int, capacity: int) -> None:
        """Announce how many processes answer an event now, and how many requests they work on at once."""
        news = self.news or InterestNews()
        news.answers(event, count, capacity)
        self.news = news

    def put_all_interest(self, whole: Callable[[], list[Record]]) -> None:
        """Announce all interest anew. ``whole`` is called when that leaves, and returns the records of it."""
        news = InterestNews()
        news.anew(whole)
        self.news = news

    def put_acknowledgement(self, number: int, outcomes: Outcomes) -> None:
        """Put an acknowledgement. One that still waits is changed instead."""
        pending = self._pending_acknowledgement
        if pending is not None:
            pending[NUMBER], pending[OUTCOMES] = number, outcomes
            return
        record: list[object] = [*control(ACKNOWLEDGED, number=number, outcomes=outcomes)]
        self.put(record, 0)
        self._pending_acknowledgement = record

    def take(self) -> list[Record]:
        """Take the next frame out, and return its records; an empty list if nothing waits.

        The caller writes them. Until it has encoded them they are in ``taken`` as well, so that they can be
        counted if it is interrupted.
        """
        there = self._framed + self._tail_count + len(self._run)
        if there > self.peak:
            self.peak = there
        self._pending_acknowledgement = None
        first: list[Record] = []
        first_size = 0
        if self.news is not None and not self._is_next:
            first = self.news.records()
            first_size = size_of(first)
            if self.frames and is_large(self.frames[0][0][0]):  # which has a frame of its own
                self.news, self._is_next, self.taken, self.being_written = None, True, first, first_size
                return first
        if self.frames:
            records, count, controls, size = self.frames[0]
            if first:
                records = first + records
                self.news = None
            self._is_next = False
            self.taken = records
            del self.frames[0]
            self._framed -= count
            self._controls -= controls
            self.controls_taken += controls
            self._framed_size -= size
            self.being_written = size + first_size
            self._simple_up_to = 0 if self.dropping or self.frames else FRAME_BYTES
            return records
        records = self.tail
        if first:
            records = first + records
            self.news = None
        self.taken = records
        self.being_written = self._tail_size + first_size
        self.controls_taken += self._tail_controls
        self.tail, self._run, self._header, self._events = [], [], None, None
        self._tail_count = self._tail_controls = self._tail_size = 0
        return records

    def clear(self) -> list[Record]:
        """Remove everything that waits, and return the records.

        A frame that was taken stays with the thread that is about to write it.
        """
        records = list(self._all())
        taken, being_written, controls = self.taken, self.being_written, self.controls_put
        self.__init__()  # type: ignore[misc]  # every field back to its beginning
        self.taken, self.being_written, self.controls_taken = taken, being_written, controls
        return records

    def adopt(self, other: Outbox) -> None:
        """Take over what waits in another outbox, which is not used any more. Here nothing waits."""
        for name in _WAITING:
            setattr(self, name, getattr(other, name))

    def _all(self) -> Iterator[Record]:
        """Yield all records that wait, in order."""
        if self.news is not None:
            yield from self.news.records()
        for frame, _, _, _ in self.frames:
            yield from frame
        yield from self.tail

    def _close_tail(self) -> None:
        """Queue the tail as a full frame, and begin an empty one."""
        self._end_run()
        self.frames += ((self.tail, self._tail_count, self._tail_controls, self._tail_size),)
        self._framed += self._tail_count
        self._controls += self._tail_controls
        self._framed_size += self._tail_size
        self.tail, self._tail_count, self._tail_controls, self._tail_size = [], 0, 0, 0
        self._simple_up_to = 0


# All but what concerns the frames that were taken, and the peak.
_WAITING = [
    name for name in Outbox.__slots__ if name not in ("being_written", "controls_taken", "peak", "taken")
]
_FULL = {  # what to do where there is no room and the peer is not known to be slow
    Patience.APPLICATION: Verdict.WAIT,
    Patience.LISTENER: Verdict.REFUSE,
    Patience.FANOUT: Verdict.WAIT,
    Patience.BACK: Verdict.DROP,
}
