"""Requests to any one that answers: given to a neighbour below, sent up, or kept until somebody has room.

The lowest process that has answering neighbours below it chooses among them, see ``_core/crew.py``. It takes
a request over: the books of the link that brought it say *delivered*, and it is sent anew. What waits is
noted in ``Requests`` under its crew, in place of a link.

Everything here is called with the state lock held, but ``arrive``, ``ask``, ``_look`` and ``_fill_now``.
Nothing blocks but ``ask``, which waits for room where too much waits already. What is put here is written
when the lock is released, or by the reader at the end of its frame.

Whatever makes room has what waits looked at again: an answer, a change of who answers, and where an outbox
was full, a record that leaves it. So nothing waits that somebody could begin.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from .._core.crew import Crew, Work
from .._core.decisions import Plan
from .._core.messages import MAX_IDS, POOL_EVENT, REQUEST_ANY, TAKE_BACK, Header, Payload, control
from .._core.outbox import OUTBOX_BYTES, Patience
from .._core.requests import (
    BEYOND,
    CANCELLED,
    LOST,
    MAX_OPEN,
    NEXT,
    NO_ANSWERER,
    OVERDUE,
    RAISED,
    REFUSED,
    SPLIT,
    VALUE,
    Given,
    Gone,
    Requests,
)
from .._core.state import Stage
from .._core.topology import Up
from .._exceptions import Closed, MessageTooLarge, OutboxFull, ProtocolError
from .._links.link import Link
from .._node.backpressure import LOOK_SECONDS
from .._node.node import Node
from .._payload.forms import size_of
from .._payload.numbered import NUMBERS_BYTES, numbered, without_numbers
from .._platform.clock import monotonic
from .._platform.latches import Latch
from .deadlines import is_remote, there
from .job import Sink, tell
from .sends import Request, Sends

if TYPE_CHECKING:
    from .._core.decisions import Decision

_MOST_FULL = 4  # times as much as for one event may wait for all together
IDLE_SECONDS = 0.002  # that a neighbour is idle until others give work back for it (README, Sharing work)


class Sharing:
    """The requests to any of one node.

    ``answers_itself(event)`` says whether this process does. ``is_any_coming()`` says whether a child is
    about to be online, which may answer. ``passes(event, link, number)`` notes that a request goes on to a
    neighbour, and returns true where it was taken back before it came. ``answer_later(given)`` has this
    process answer a request after all, in another thread; where it does not, it returns false.
    """

    def __init__(
        self,
        node: Node,
        requests: Requests,
        sends: Sends,
        answers_itself: Callable[[str], bool],
        passes: Callable[[str, Link, int], bool],
        answer_later: Callable[[Given], bool],
    ) -> None:
        self._node = node
        self._requests = requests
        self._sends = sends
        self._answers_itself = answers_itself
        self._passes = passes
        self._answer_later = answer_later
        self.is_any_coming: Callable[[], bool] = lambda: False
        self.crews: dict[str, Crew] = {}
        self._waiters: list[Latch] = []  # threads that wait for room
        self._full: set[Link] = set()  # that have work, and no room in their outboxes for what waits
        self._leaving: Link | None = None  # the router may still have it as a neighbour, see ``leaves``
        self._last_plan = Plan()
        self.retried = 0  # requests that were given out again after they may have begun

    # New requests

    def ask(self, work: Work, sink: Sink) -> bool:
        """Take a request of this process, and find somebody for it. Lock not held.

        Returns False where nobody else answers, so that this process is to answer it itself, or nobody does.
        Waits for room where too much waits; in a listener it does not. Raises what is wrong with the stage,
        MessageTooLarge where all that answer take less, and OutboxFull.
        """
        node = self._node
        waits = node.outgoing.patience() is Patience.APPLICATION
        with node.lock:
            while True:
                if node.stage is not Stage.OPEN:
                    raise node.stage_error()
                crew = self._crew_for_new(work.event)
                if not self._is_full(crew):
                    break
                if work.deadline and monotonic() * 1000 > work.deadline:
                    self._say(Given(sink, work), OVERDUE, ())
                    return True
                if not waits:
                    raise OutboxFull(
                        f"request {work.event!r} was not sent: {crew.count} wait for any that "
                        "answers, and a listener never waits"
                    )
                self._wait_room()
            if self._goes_up(work, crew):
                parent: Any = node.router.parent
                self._forget(crew)
            elif self._place(Given(sink, work)):
                self._sends.asked += 1
                parent = None
            elif work.too_large is not None and not self._answers_itself(work.event):
                raise MessageTooLarge(work.too_large)
            else:
                return False
        if parent is not None:
            self._ask_above(parent, work, sink)
        else:
            self._write()
        return True

    def ask_all(self, event: str, pairs: Sequence[tuple[Work, Sink]]) -> bool:
        """Take many requests of this process for one event, where somebody below answers. Lock not held.

        Returns False, having done nothing, where that is not so, or too much waits. Raises what is wrong with
        the stage.
        """
        node = self._node
        with node.lock:
            if node.stage is not Stage.OPEN:
                raise node.stage_error()
            crew = self._crew_for_new(event)
            if not (crew.is_open or crew.is_answered()) or self._is_full(crew):
                self._forget(crew)
                return False
            for work, sink in pairs:
                sink.work = work
                given = Given(sink, work)
                link: Any = None if crew.count else crew.choose()
                if link is not None and self._fits(crew, link, work) and self._give(crew, link, given):
                    continue
                if not self._place(given):
                    self._refuse(given)
            self._sends.asked += len(pairs)
        self._write()
        return True

    def _ask_above(self, parent: Link, work: Work, sink: Sink) -> None:
        """Send a request of this process to its parent. Raises as ``Sends.put``. Lock not held."""
        request = Request(
            self._sends,
            work.event,
            work.payload,
            work.size - NUMBERS_BYTES,
            work.deadline,
            sink,
            BEYOND,
            work,
        )
        self._sends.put(REQUEST_ANY, (parent,), request)

    def arrive(
        self, link: Link, decision: Decision, numbers: list[tuple[int, int]], messages: list[Payload]
    ) -> bool:
        """Take requests that came by a link, and find somebody for them. In its reader thread.

        Returns False, having done nothing, where this process is to answer them itself, or nobody does.
        """
        node = self._node
        envelope: Any = decision.envelope
        event = envelope.event
        with node.lock:
            crew = self._crew(event)
            if not crew.is_answered((link,)) and (
                self._answers_itself(event) or link not in node.router.neighbours
            ):
                self._forget(crew)
                return False
            header = (REQUEST_ANY, decision.pids, None)
            are_full = self._are_full()
            for (number, deadline), payload in zip(numbers, messages, strict=True):
                if self._passes(event, link, number):
                    continue
                work = Work(event, without_numbers(payload), size_of(payload), deadline, header, link)
                work.stays_below = link is node.router.parent
                given = Given(link, work, number)
                if self._is_full(self._crew(event)) or are_full:
                    self._say(given, REFUSED, (f"too much waits for any that answers {event!r}",))
                elif not self._place(given):
                    self._refuse(given)
            self._watch(self._crew(event))
            self._forget(self._crew(event))
        link.delivered += len(messages)
        return True

    # Finding somebody

    def _crew(self, event: str) -> Crew:
        """Return the crew of an event, as it is now."""
        crew = self.crews.get(event)
        if crew is None:
            crew = self.crews[event] = Crew(event)
        router = self._node.router
        if crew.version != router.version:
            links = router.answering_links(event)
            links.pop(self._leaving, None)
            crew.update(links, router.version)
        return crew

    def _crew_for_new(self, event: str) -> Crew:
        """Return the crew of an event that gets a new request. Raises what a pool says that takes no more."""
        crew = self._crew(event) if event in self.crews or not event.startswith(POOL_EVENT) else None
        if crew is None:
            raise Closed("the pool has ended")
        if crew.refuses is not None:
            raise crew.refuses()
        return crew

    def members(self, event: str) -> list[Hashable]:
        """Return the links of the neighbours below that answer an event now."""
        crew = self._crew(event) if event in self.crews else None
        return [] if crew is None else [link for link, member in crew.members.items() if member.capacity]

    def _forget(self, crew: Crew) -> None:
        """Remove a crew that has neither members nor work."""
        if crew.members or crew.is_open or self._requests.count(crew):
            return
        self._requests.gone(crew)
        if self.crews.get(crew.event) is crew:
            del self.crews[crew.event]

    def _is_full(self, crew: Crew) -> bool:
        """Return whether no more may wait in a crew."""
        return crew.count >= MAX_OPEN or crew.bytes > OUTBOX_BYTES

    def _are_full(self) -> bool:
        """Return whether no more of neighbours may wait for all events together."""
        crews = self.crews.values()
        count, size = sum(crew.count for crew in crews), sum(crew.bytes for crew in crews)
        return count >= _MOST_FULL * MAX_OPEN or size > _MOST_FULL * OUTBOX_BYTES

    def _goes_up(self, work: Work, crew: Crew) -> bool:
        """Return whether a request is one for the parent: nobody answers below."""
        router = self._node.router
        return (
            not (work.stays_below or crew.is_open or crew.is_answered(work.excluded))
            and router.up is Up.OPEN
            and router.parent is not self._leaving
        )

    def _is_for_anybody(self, given: Given) -> bool:
        """Return whether there is anybody, or will be, to whom a request that is not new can be given."""
        work = given.work
        crew = self._crew(work.event)
        found = (
            crew.is_open
            or crew.is_answered(work.excluded)
            or self._goes_up(work, crew)
            or self.is_any_coming()
            or self._answers_itself(work.event)
        )
        self._forget(crew)
        return found

    def _place(self, given: Given, *, first: bool = False) -> bool:
        """Give a request to a neighbour, or let it wait for one. Returns False where nobody will answer.

        ``first``: it goes before all that waits.
        """
        work = given.work
        crew = self._crew(work.event)
        # Where some that wait cannot go to each neighbour, there may be one with room that they cannot go to.
        while first or crew.choosy or not crew.count:
            link = self._find(crew, work)
            if link is None:
                break
            if self._give(crew, link, given):
                return True
        if not (crew.is_open or crew.is_answered(work.excluded)):
            if given.back_number and self._answer_later(given):  # nobody below does, so it is this one's turn
                self._forget(crew)
                return True
            if self._goes_up(work, crew):
                self._forget(crew)
                return self._put_above(given)
            if not self.is_any_coming():
                self._forget(crew)
                return False
        self._keep(crew, given, first=first)
        return True

    def _find(self, crew: Crew, work: Work) -> Link | None:
        """Return the neighbour that gets a request now, None where nobody has room for it."""
        excluded = work.excluded
        while True:
            link: Any = crew.choose(excluded, work.avoid)
            if link is None or self._fits(crew, link, work):
                return link  # type: ignore[no-any-return]
            excluded = (*excluded, link)

    def _fits(self, crew: Crew, link: Link, work: Work) -> bool:
        """Return whether a neighbour has room for one more: in its outbox, and among what is open there.

        One that has nothing to do always has: no answer of it would have what waits looked at again.
        """
        if not crew.members[link].has:
            return True
        if not link.outbox.has_room(work.size):
            if link not in self._full:
                self._full.add(link)
                link.call_on_room(partial(self._has_room, link))
            return False
        return not self._requests.is_full(link)

    def _has_room(self, link: Link) -> None:
        """Have what waits looked at again: something has left the outbox of a neighbour."""
        self._full.discard(link)
        self._node.timers.after(0.0, self, self._fill_now)

    def _fill_now(self) -> None:
        """Give out what waits. In the supervisor's thread."""
        with self._node.lock:
            self.fill_all()

    def _give(self, crew: Crew, link: Link, given: Given) -> bool:
        """Give a request to a neighbour below, or say that its time is over.

        Returns False, having done neither, where it is larger than that takes: it is for the others then.
        """
        node, work = self._node, given.work
        now = monotonic()
        if work.deadline and now * 1000 > work.deadline:
            self._say(given, OVERDUE, ())
            return True
        if work.size > link.limit and link.is_limited:
            work.too_large = _too_large(link, work)
            work.excluded += (crew.members[link],)
            return False
        neighbour = node.router.neighbours[link]
        given.reach = BEYOND if node.router.netmap.has_below((neighbour.pid,)) else NEXT
        given.is_taken_back = given.is_taken_above = given.is_cancelled = False
        number = self._requests.add(link, given)
        crew.gave(link, now)
        work.attempts += 1
        if not given.back_number:
            given.back.left, given.back.places = 1, ((link, number),)
        if work.code is not None:
            work.code.send(link)
        self._put(link, given, number)
        return True

    def _put(self, link: Link, given: Given, number: int) -> None:
        """Put the record of a request, and have it written."""
        node, work = self._node, given.work
        router = node.router
        header = work.header or router.header(REQUEST_ANY)
        if header[1][-1] != router.pid:  # this process has got another name while it has waited
            header = work.header = (REQUEST_ANY, (*header[1][:-1], router.pid), None)
        if link is router.parent and not router.netmap.knows(header[1][:-1]):
            header = router.header(REQUEST_ANY)  # its origin has ended; it is still asked for
        deadline = work.deadline and there(work.deadline, is_remote(link))
        payload = numbered(number, deadline, work.payload)
        if not link.outbox.offer(self._plan(header, work.event), payload, work.size):
            link.outbox.put_message(header, work.event, payload, work.size)
        node.outgoing.sent += 1
        node.outgoing.mark_dirty(link)

    def _plan(self, header: Header, event: str) -> Plan:
        """Return the plan that puts requests of one header and event into one record while they come."""
        plan = self._last_plan
        if plan.header is not header or plan.event != event:
            plan = self._last_plan = Plan(header=header, event=event)
        return plan

    def _put_above(self, given: Given) -> bool:
        """Give a request, which is not new here, to the parent. It is refused where that takes no more."""
        node, work = self._node, given.work
        parent: Any = node.router.parent
        if self._requests.is_full(parent) or not parent.outbox.has_room(work.size):
            self._say(given, REFUSED, (f"too much waits for {parent.title}",))
            return True
        if parent.is_limited and work.size > parent.limit:
            self._say(given, REFUSED, (_too_large(parent, work),))
            return True
        given.reach = BEYOND
        given.is_taken_back = given.is_taken_above = given.is_cancelled = False
        number = self._requests.add(parent, given)
        work.attempts += 1
        if not given.back_number:
            given.back.left, given.back.places = 1, ((parent, number),)
        self._put(parent, given, number)
        return True

    def _write(self) -> None:
        """Write what was put, unless that is done at the end of the listener that runs. Lock not held."""
        if not self._node.dispatcher.runs_here():
            self._node.outgoing.write_dirty()

    # What waits

    def _keep(self, crew: Crew, given: Given, *, first: bool) -> None:
        """Let a request wait."""
        number = self._requests.add(crew, given)
        crew.keep(number, given.work, first=first)
        if not given.back_number:
            given.back.left, given.back.places = 1, ((crew, number),)

    def _release(self, crew: Crew, number: int) -> Given | None:
        """Return a request that waits no more; None where it has been cancelled."""
        given: Given | None = self._requests.take(crew, number)  # type: ignore[assignment]  # see _keep
        if given is not None:
            crew.release(given.work)
        if self._waiters:
            self._wake()
        return given

    def drop(self, crew: Crew, number: int) -> None:
        """Remove a request that waits, because nobody waits for its answer or its asker takes it back."""
        given = self._release(crew, number)
        if given is not None and given.back is not None and (given.back_number or given.back.left):
            self._say(given, CANCELLED, ())
        if given is not None and len(crew.waiting) > 2 * crew.count + MAX_IDS:
            requests = self._requests.down[crew].requests  # numbers of requests that are gone pile up
            crew.waiting = type(crew.waiting)(each for each in crew.waiting if each in requests)
        self._forget(crew)

    def fill(self, crew: Crew) -> None:
        """Give what waits to those that have room now, or fail it where nobody will answer any more."""
        if crew.is_hopeless():
            waiting, crew.waiting = crew.waiting, type(crew.waiting)()
            for number in waiting:
                given = self._release(crew, number)
                if given is not None and not self._place(given):
                    self._refuse(given)
        passed: list[int] = []  # over: those that can only go where no room is
        while crew.waiting and len(passed) < MAX_IDS:
            number = crew.waiting.popleft()
            waiting_one: Any = self._requests.get(crew, number)
            if waiting_one is None:
                continue
            link = self._find(crew, waiting_one.work)
            if link is None:
                passed.append(number)
                if crew.choose() is None:
                    break
                continue
            given = self._release(crew, number)
            assert given is not None
            if not self._give(crew, link, given) and not self._place(given, first=True):
                self._refuse(given)
        crew.waiting.extendleft(reversed(passed))
        if crew.on_change is not None:
            self._node.defer(crew.on_change)
        self._watch(crew)
        self._forget(crew)

    def fill_all(self) -> None:
        """Do that for all events: who answers may have changed. It is written when the lock is released."""
        for crew in [self._crew(event) for event in list(self.crews)]:
            self.fill(crew)
        if self._node.outgoing.dirty:
            self._node.defer(self._node.outgoing.write_dirty)

    def _wait_room(self) -> None:
        """Release the lock until something that waits has gone, or a moment has passed."""
        waiter = Latch()
        self._waiters.append(waiter)
        self._node.lock.release()
        try:
            waiter.wait(LOOK_SECONDS)
        finally:
            self._node.lock.acquire()
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _wake(self) -> None:
        for waiter in self._waiters:
            waiter.set()
        self._waiters.clear()

    # Answers

    def keeps(self, link: Link, number: int, given: Given, status: int, payload: Payload) -> bool:
        """Return whether a request goes to somebody else, after this answer of a neighbour.

        Otherwise the answer is for its asker.
        """
        if not VALUE <= status < SPLIT:
            raise ProtocolError(f"an answer of the sort {status} to a request to any")
        work = given.work
        crew = self.crews.get(work.event)
        member = None if crew is None else crew.members.get(link)
        if crew is not None:
            crew.note(link, status in (VALUE, RAISED), given.is_taken_back)
        if status in (VALUE, RAISED, OVERDUE) or given.back is None or given.is_cancelled:
            return False
        if status == CANCELLED:
            if not given.is_taken_back or given.is_taken_above:
                return False
            work.attempts -= 1
            self._place_again(link, number, given)
            return True
        begun: object = False
        if status == LOST:
            rest = without_numbers(payload)
            begun = rest[3] if type(rest) is tuple and len(rest) == 4 else None
            work.lost = rest
        if status not in (NO_ANSWERER, LOST) or not self._may_again(given, begun):
            return False
        if begun is not False:
            _avoid(work, link)
        else:  # it does not begin this one, now or later: nobody answers there, or it stops
            if link is self._node.router.parent:
                work.stays_below = True
            else:
                work.excluded += (member or link,)
            if status == NO_ANSWERER and not given.back_number and self._answers_itself(work.event):
                crew = self._crew(work.event)
                if not (crew.is_open or crew.is_answered(work.excluded) or self._goes_up(work, crew)):
                    self._forget(crew)
                    return False  # the caller has it answered here, in this thread
        if not self._is_for_anybody(given):
            return False
        self._count_retry(work, begun)
        self._place_again(link, number, given)
        return True

    def _may_again(self, given: Given, begun: object) -> bool:
        """Return whether a request that was lost may be given to another process."""
        return begun is False or (given.work.retries > 0 and not given.back_number)

    def _count_retry(self, work: Work, begun: object) -> None:
        """Note that a request that was lost is given to another process."""
        if begun is not False:
            work.retries -= 1
            self.retried += 1

    def _place_again(self, link: Link, number: int, given: Given) -> None:
        """Give a request that a neighbour had to another one, or say that nobody will answer it."""
        self._requests.take(link, number)
        if not self._place(given, first=True):
            self._refuse(given)

    def leaves(self, link: Link) -> None:
        """Give nothing more to a neighbour that is gone. ``left`` is to be called with the lock still held.

        The router may have it as a neighbour for a moment longer.
        """
        self._leaving = link
        for event in list(self.crews):
            self._crew(event).left(link)

    def left(self) -> None:
        """Give out what waits, after ``leaves`` and after ``lost`` for all that the neighbour had."""
        self.fill_all()
        self._leaving = None

    def lost(self, link: Link, gone: Gone, rest: tuple[Any, ...]) -> bool:
        """Return whether a request goes to somebody else, now that the process that had it is gone."""
        given: Any = gone.asked
        if given.back is None or given.is_cancelled:
            return False
        given.work.lost = rest
        if not self._may_again(given, gone.begun):
            return False
        if gone.begun is not False:
            _avoid(given.work, link)
        if not (self._place(given, first=True) or self._answer_later(given)):
            return False
        self._count_retry(given.work, gone.begun)
        return True

    def answered(self, crew: Crew, link: Link) -> None:
        """Note that a neighbour has answered some requests, and give it more."""
        crew.answered(link, monotonic())
        self.fill(self._crew(crew.event))

    def _refuse(self, given: Given) -> None:
        """Answer a request with the reason why nobody answers it, unless this process does."""
        work = given.work
        if self._answer_later(given):
            return
        if work.lost is not None:
            self._say(given, LOST, work.lost)
        elif work.too_large is not None:
            self._say(given, REFUSED, (work.too_large,))
        else:
            self._say(given, NO_ANSWERER, (self.why_nobody(work.event),))

    def why_nobody(self, event: str) -> str:
        """Return why nobody answers an event, as far as is known here."""
        node = self._node
        if node.router.up is Up.AWAY:
            return f"the server of {node.place()} is away, and nobody below answers {event!r}"
        return f"no process below {node.place()} answers {event!r}"

    def _say(self, given: Given, status: int, args: tuple[Any, ...]) -> None:
        """Answer a request, of this process or of a neighbour, with a short answer."""
        node, back = self._node, given.back
        if back is None:
            return
        if given.back_number:
            self._sends.put_small(back, given.work.event, [numbered(given.back_number, status, args)])
            return
        back.left = 0
        pid = node.router.pid
        node.defer(tell, back.came, pid, "", status, numbered(1, status, args), True)

    # Taking back

    def _watch(self, crew: Crew) -> None:
        """Have work taken back in a moment, where one is idle then and another one has work ahead."""
        if not crew.is_watched and crew.is_unbalanced():
            crew.is_watched = True
            self._node.timers.after(IDLE_SECONDS, crew, partial(self._look, crew))

    def _look(self, crew: Crew) -> None:
        """Take work back from those that have it ahead, where others are idle. In the supervisor's thread."""
        with self._node.lock:
            crew.is_watched = False
            wanted, links = crew.takes_back()
            for link, count in links:
                wanted -= self._take_back(crew, link, min(wanted, count))
        self._node.outgoing.write_dirty()

    def _take_back(self, crew: Crew, link: Any, count: int) -> int:
        """Ask a neighbour for at most so many requests back, those that it was given last.

        Returns how many these are: none of those that the idle ones could not get, and none of the first,
        which it works on.
        """
        down = self._requests.down.get(link)
        member = crew.members[link]
        ahead = member.has - member.capacity
        found: list[int] = []
        for number, asked in reversed(down.requests.items()) if down is not None else ():
            if len(found) >= min(count, MAX_IDS) or ahead <= 0:
                break
            if type(asked) is Given and asked.work.event == crew.event:
                ahead -= 1
                if not _is_called_off(asked) and crew.is_wanted(asked.work):
                    asked.is_taken_back = True
                    found.append(number)
        if found:
            crew.takes(link, len(found))
            self.tell_taken_back(link, crew.event, found)
        return len(found)

    def tell_taken_back(self, link: Link, event: str, numbers: list[int]) -> None:
        """Tell a neighbour below that these requests are taken back, past its link if it has a channel."""
        record = control(TAKE_BACK, event=event, ids=tuple(numbers))
        if link.channel is not None:
            link.channel.put(record)
            self._node.timers.ring()
        elif link in self._node.router.neighbours:
            link.tell(record)

    def take_back(self, link: Link, event: str, numbers: Iterable[int]) -> list[int]:
        """Give requests back to the parent that have not begun here or below.

        Returns those that have not come to this process yet, or are its own to answer.
        """
        unknown = []
        for number in numbers:
            places: Any = self._requests.of(link, number)
            if not places:
                unknown.append(number)
            for target, its_number in places:
                given: Any = self._requests.get(target, its_number)
                if isinstance(target, Crew):
                    self.drop(target, its_number)
                elif type(given) is Given and not given.is_cancelled:
                    given.is_taken_above = True
                    if not given.is_taken_back:
                        given.is_taken_back = True
                        self._crew(given.work.event).takes(target, 1)
                        self.tell_taken_back(target, event, [its_number])
        return unknown

    def renew(self) -> None:
        """Begin another life."""
        self.crews.clear()
        self._full.clear()
        self._leaving = None
        self._wake()


def _avoid(work: Work, link: Link) -> None:
    """Note that a request is not to be given to this link while there is another one."""
    if link not in work.avoid:
        work.avoid += (link,)


def _too_large(link: Link, work: Work) -> str:
    """Return why a neighbour does not take a request."""
    return f"it has {work.size} bytes, {link.title} takes at most {link.limit} (socket.maxMessage)"


def _is_called_off(given: Given) -> bool:
    """Return whether the neighbour that has a request was asked already not to begin it."""
    return given.is_taken_back or given.is_cancelled
