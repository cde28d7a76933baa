"""``pool.map`` and ``mapAny``: many jobs, made from an input as they can be done, and their results.

The thread that iterates does all the work here: it reads the input, makes jobs, sends them, and opens what
has come. It reads only as far ahead as the workers can do soon, so the input may be endless. The readers of
the links only put what comes into an ``Inbox``, which wakes that thread.

The jobs know their inbox and not the iterator: where nobody has that any more, it ends, and so do they.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from functools import partial
from itertools import islice
from typing import Any

from .._core.chunks import Chunks
from .._core.crew import Work
from .._core.messages import Payload
from .._core.requests import VALUE
from .._exceptions import IPEventsError, RequestTimeout, WouldDeadlock, shown
from .._payload import forms, outcomes
from .._payload.numbered import NUMBERS_BYTES
from .._platform.clock import monotonic
from .._platform.guards import foreign
from .._platform.latches import Latch
from .._platform.signal_exceptions import interrupts_main
from .._platform.threads import Deadline
from .asking import Asking
from .outcome import Question, unanswered, value_of

_SEND_SECONDS = 0.001  # for which jobs are made before they are sent
_UNKNOWN = 64  # jobs at once where it is not known who answers: somewhere above

Items = list[tuple[Any, ...]]
Found = tuple["Piece", str, str, int, Any]  # a job, and what came() or failed() of it was told


class Inbox:
    """What jobs have come to, in the order in which it came, for one thread that takes it.

    No lock: a deque is appended to and taken from in one step each, and the thread says that it waits before
    it looks a last time.
    """

    __slots__ = ("_is_waiting", "_more", "found")

    def __init__(self) -> None:
        self.found: deque[Found] = deque()
        self._more = Latch()
        self._is_waiting = False

    def put(self, found: Found) -> None:
        """Take what a job came to. In the thread that brings it."""
        self.found.append(found)
        if self._is_waiting:
            self._more.set()

    def wait(self, seconds: float | None) -> bool:
        """Wait until there is something, at most so long. Returns whether there is."""
        more = self._more = Latch()
        self._is_waiting = True
        try:
            if not self.found:
                return more.wait_briefly() or more.wait(seconds)
            return True
        finally:
            self._is_waiting = False


class Piece:
    """One job of a map: the sink of its request."""

    __slots__ = ("_inbox", "cause", "count", "index", "is_many", "left", "places", "work")

    def __init__(self, inbox: Inbox, index: int, count: int) -> None:
        self._inbox = inbox
        self.index = index
        self.count = count  # items in it
        self.is_many = False
        self.left = 0
        self.places: tuple[tuple[Any, int], ...] = ()
        self.work: Work | None = None
        self.cause: BaseException | None = None

    def came(self, pid: str, name: str, status: int, payload: Payload, is_last: bool) -> None:
        """Take the answer."""
        self._inbox.put((self, pid, name, status, payload))

    def failed(self, exc: IPEventsError) -> None:
        """Take an error in place of it."""
        self._inbox.put((self, "", "", -1, exc))

    def cancelled(self) -> None:
        """Note that it will not be done."""
        self._inbox.put((self, "", "", -1, CancelledError()))

    def expired(self) -> None:
        """Never called: the thread that iterates looks at the time itself."""


class Mapping:
    """An iterator over the results of a function, or of requests, for each item of an input.

    ``make(items)`` returns the work for some items: requests of ``event``. ``check()`` raises why none may be
    sent any more. ``describe`` is what texts of errors call it. ``size`` is how many items a job has, None
    for as many as ``chunks`` says; ``is_chunked`` whether a job returns the results of several.
    ``capacity()`` says how many jobs may be open. ``on_end()`` is called once, when nothing is open any more;
    it must not block.
    """

    def __init__(
        self,
        asking: Asking,
        items: Iterator[tuple[Any, ...]],
        event: str,
        make: Callable[[Items], Work],
        describe: str,
        *,
        check: Callable[[], None] = lambda: None,
        size: int | None,
        is_chunked: bool,
        chunks: Chunks,
        capacity: Callable[[], int],
        ordered: bool,
        buffersize: int | None,
        timeout: float | None,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        self._asking = asking
        self._items = items
        self._event = event
        self._make = make
        self._check = check
        self._describe = describe
        self._size = size
        self._is_chunked = is_chunked
        self._chunks = chunks
        self._capacity = capacity
        self._ordered = ordered
        self._buffersize = buffersize
        self._timeout = timeout
        self._deadline = Deadline(timeout)
        self._on_end = on_end
        self._is_read = False  # the input is
        self._made = 0  # jobs
        self._next = 0  # the job whose results come next, if ordered
        self._read_ahead = 0  # items whose results were not returned
        self._open: dict[int, Piece] = {}
        self.inbox = Inbox()
        self._broken: BaseException | None = None  # what the input has raised; what was read comes before
        self._early: dict[int, Found] = {}  # not their turn yet, by job
        self._values: deque[tuple[bool, Any]] = deque()  # whether it is a value, and that; or an exception
        self._is_over = False
        try:
            self._feed()
        except BaseException:  # of the input, of a signal handler, or it cannot be sent
            self.close()
            raise

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to come."""
        return self._is_over

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        while True:
            if self._values:
                self._read_ahead -= 1
                is_value, value = self._values.popleft()
                if is_value:
                    return value
                try:
                    if isinstance(value, StopIteration):  # raised here it would end the loop in silence
                        raise RuntimeError(f"{self._describe} has raised StopIteration") from value
                    raise value
                finally:
                    del value  # its traceback has this frame
            if self._is_over:
                raise StopIteration
            try:
                has_more = self._take()
                self._try_feed()  # afterwards: what has come early has made room, too
                if has_more:
                    continue
                if not self._is_read or self._open or self._early:
                    self._wait()
                    continue
            except BaseException:  # Ctrl-C, or the time is over: nothing more comes
                self.close()
                raise
            self.close()
            failure, self._broken = self._broken, None
            if failure is None:
                raise StopIteration
            raise failure

    # Jobs

    def _try_feed(self) -> None:
        """Make and send jobs. What the input raises is raised when the results before it were returned."""
        try:
            self._feed()
        except BaseException as exc:  # the input is code of the user
            if interrupts_main(exc):
                raise
            self._broken = exc
            self._is_read = True

    def _feed(self) -> None:
        """Make and send as many jobs as there is room for: together, unless the input takes its time."""
        most = 0 if self._is_read else self._capacity()
        # In order, results may have to wait for an earlier one; they count as well, but less.
        room = min(most - len(self._open), 2 * most + _UNKNOWN - len(self._open) - len(self._early))
        if room < max(1, most // 4) and self._open:
            return  # not one by one, each with a write of its own
        if room > 0 and not self._is_read:
            self._check()
        pairs: list[tuple[Work, Piece]] = []
        began = monotonic()
        try:
            while len(pairs) < room and not self._is_read and self._make_next(pairs):
                if monotonic() - began > _SEND_SECONDS:  # the input takes its time
                    now, pairs = pairs, []
                    room -= len(now)
                    self._send(now)
                    began = monotonic()
        finally:  # also what was read before the input has raised
            self._send(pairs)

    def _send(self, pairs: list[tuple[Work, Piece]]) -> None:
        """Send jobs that were made."""
        try:
            if pairs:
                self._asking.put_all(self._event, pairs)
        except BaseException:  # a stop, an outbox without room, or a signal handler
            for _, piece in pairs:
                if not piece.places:  # nothing comes of it
                    del self._open[piece.index]
            raise

    def _make_next(self, pairs: list[tuple[Work, Piece]]) -> bool:
        """Make one job, and add it to those to be sent. Returns whether that was possible."""
        size = self._size or self._chunks.next_size()
        if self._buffersize is not None:
            size = min(size, self._buffersize - self._read_ahead)
        if size < 1:
            return False
        items = self._next_items(size)
        if not items:
            return False
        work = self._make(items)
        piece = Piece(self.inbox, self._made, len(items))
        self._open[piece.index] = piece
        self._made += 1
        self._read_ahead += len(items)
        pairs.append((work, piece))
        return True

    def _next_items(self, size: int) -> Items:
        """Read so many items, or fewer if these are the last ones, or those before an error of the input.

        Raises what the input raises where there is nothing before it.
        """
        items: Items = []
        try:
            items.extend(islice(self._items, size))  # keeps what it has read when that raises
            self._is_read = len(items) < size
        except BaseException as exc:  # the input is code of the user
            if interrupts_main(exc) or not (items or self._made):
                raise
            self._broken = exc
            self._is_read = True
        return items

    def _take(self) -> bool:
        """Open what has come and whose turn it is. Returns whether there is anything to return."""
        while self.inbox.found:
            found = self.inbox.found.popleft()
            piece = found[0]
            if self._open.pop(piece.index, None) is None:
                continue
            if self._ordered and piece.index != self._next:
                self._early[piece.index] = found
                continue
            self._next = piece.index + 1
            self._open_up(found)
            if self._values:
                return True
        while self._ordered and self._next in self._early:
            found = self._early.pop(self._next)
            self._next += 1
            self._open_up(found)
            if self._values:
                return True
        return False

    def _open_up(self, found: Found) -> None:
        """Add the results of one job to those that are returned next."""
        piece, pid, name, status, payload = found
        if status == VALUE and not self._is_chunked and type(payload) is tuple and len(payload) == 3:
            self._values.append((True, payload[2]))
            return
        attempts = 1 if piece.work is None else piece.work.attempts
        asked = Question(self._describe, pid, self._timeout, attempts)
        values = self._values
        try:
            if status < 0:
                raise unanswered(asked, payload)
            value = value_of(asked, pid, name, status, payload, piece.cause)
            if not self._is_chunked:
                values.append((True, value))
                return
            seconds, results, failures = value
            if self._size is None:
                self._chunks.took(len(results), seconds)
            if not failures:
                values.extend([(True, result) for result in results])
                return
            for place, result in enumerate(results):
                if place in failures:
                    values.append((False, self._failure(failures[place], name, attempts)))
                else:
                    values.append((True, result))
        except foreign() as exc:  # what the function has raised, or code of its classes
            values.extend([(False, exc)] * piece.count)

    def _failure(self, payload: Payload, name: str, attempts: int) -> BaseException:
        """Return what the function has raised for one of several items."""
        try:
            outcomes.raise_again(payload, name, self._describe, attempts)
        except foreign() as exc:
            return exc

    def _wait(self) -> None:
        """Wait for another answer. Raises RequestTimeout when the time is over."""
        if self._asking.node.dispatcher.must_not_wait():
            raise WouldDeadlock("a map waits for its jobs, and no answer is delivered while a listener runs")
        if not self.inbox.wait(self._deadline.left()):
            raise RequestTimeout(self._describe, "", self._timeout or 0.0)

    # The end

    def close(self) -> None:
        """Want no further results. Jobs that have not begun never do."""
        if not self._is_over:
            _give_up(self._asking, self._finish(), self._on_end)

    def cancel(self) -> None:
        """Have nothing more begun: each job that has not begun has CancelledError. From any thread."""
        for piece in list(self._open.values()):
            if not self._asking.is_begun(piece) and self._asking.give_up(piece):
                piece.cancelled()

    def _finish(self) -> list[Piece]:
        """Note the end. Returns the jobs that are open."""
        self._is_over = True
        pieces, self._open = list(self._open.values()), {}
        self._early.clear()
        self._values.clear()
        self._items = iter(())
        return pieces

    def __del__(self) -> None:
        if getattr(self, "_is_over", True):
            return
        pieces = self._finish()
        notices = self._asking.node.notices
        if notices is not None:
            notices.put(partial(_give_up, self._asking, pieces, self._on_end))


def map_any(
    asking: Asking,
    event: str,
    iterable: Iterable[Any],
    *,
    ordered: bool,
    buffersize: int | None,
    timeout: float | None,
    retries: int,
) -> Mapping:
    """Return the answers to requests to any, one for each item. ``event`` is a checked name."""
    crews = asking.sharing.crews

    def make(items: Items) -> Work:
        payload, size = forms.encode(items[0], {})
        return Work(event, payload, size + NUMBERS_BYTES, retries=retries)

    def capacity() -> int:
        crew = crews.get(event)
        return (crew.takes_soon() if crew is not None else 0) or _UNKNOWN

    return Mapping(
        asking,
        zip(iterable, strict=False),
        event,
        make,
        event,
        size=1,
        is_chunked=False,
        chunks=Chunks(),
        capacity=capacity,
        ordered=ordered,
        buffersize=buffersize,
        timeout=timeout,
    )


def number_of_items(value: object, name: str) -> int | None:
    """Return a number of items as it was given. Raises TypeError and ValueError for what is none."""
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is a number of items, an int, not {shown(value)}")
    if value < 1:
        raise ValueError(f"{name} is at least 1, not {shown(value)}")
    return int(value)


def _give_up(asking: Asking, pieces: list[Piece], on_end: Callable[[], None] | None) -> None:
    """Want no answers to these jobs any more, and say then that the map has ended."""
    for piece in pieces:
        asking.give_up(piece)
    if on_end is not None:
        on_end()
