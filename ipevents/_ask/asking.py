"""Requests on their way: those that start here, and those that pass through this process.

``_core/requests.py`` knows which request went down which link. Here it is asked and told, under the state
lock. What waits for an answer is a *sink*, see job.py: its methods run without the lock, in the thread that
brought the answer, see returning.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from .._core.books import UNREADABLE
from .._core.crew import Crew, Work
from .._core.decisions import Decision
from .._core.messages import (
    ANSWER,
    CANCEL,
    MAX_IDS,
    PAYLOADS,
    REQUEST_ALL,
    REQUEST_ANY,
    REQUEST_GRAND_MASTER,
    Envelope,
    Payload,
    Record,
    control,
)
from .._core.requests import (
    BEYOND,
    BOTH,
    CANCELLED,
    LOST,
    NEXT,
    NO_ANSWERER,
    REFUSED,
    SPLIT,
    BegunLast,
    Given,
    Gone,
    Requests,
)
from .._core.state import Stage
from .._core.topology import Up
from .._exceptions import (
    Closed,
    IPEventsError,
    MessageTooLarge,
    OutboxFull,
    SendError,
    Unpicklable,
    WouldDeadlock,
)
from .._links.link import Link
from .._node.node import Node
from .._node.planning import NoProcess
from .._payload.numbered import NUMBERS_BYTES, numbered, numbers_of, without_numbers
from .._platform.clock import monotonic
from .answering import Answering, own_job
from .deadlines import Deadlines, here, is_remote, there
from .job import Job, Sink, tell
from .returning import Returning
from .sends import Request, Sends
from .sharing import Sharing

if TYPE_CHECKING:
    from .._node.backpressure import Restarting
    from .._node.outgoing import Route
    from .._platform.shared_page import SharedPage

_OPEN = Stage.OPEN  # a plain name: to look the member up in its class takes longer


class Asking:
    """The requests of one node. ``page()`` as for Answering."""

    def __init__(self, node: Node, page: Callable[[], SharedPage | None]) -> None:
        self.node = node
        self.requests = Requests()
        self.deadlines = Deadlines(node)
        self._sends = Sends(node, self.requests)
        self.answering = Answering(node, self._sends, page)
        self.sharing = Sharing(
            node,
            self.requests,
            self._sends,
            self.answering.answers,
            self.answering.passes,
            self._answer_later,
        )
        self.returning = Returning(
            node, self.requests, self._sends, self.answering, self.sharing, self._answer_any
        )
        self._serials = itertools.count(1)  # of own requests to this process itself
        self._lost = 0

    # Requests of this process

    def ask(
        self,
        kind: int,
        event: str,
        route: Route | None,
        payload: Payload,
        size: int,
        timeout: float | None,
        sink: Sink,
        child: Restarting | None = None,
        retries: int = 0,
    ) -> None:
        """Send a request, and have the sink called with what comes of it.

        ``route`` is as for ``Router.plan_here``; in its place there may be a ``child``, whose next process
        gets the request where none runs. ``timeout`` is in seconds, for the answerer. The sink is told of it
        only after ``expire``. ``retries`` is as for Work.

        May wait for room in an outbox. Raises what the caller can be blamed for: NotStarted, Closed,
        MessageTooLarge, OutboxFull, WouldDeadlock from inside the state lock. What is wrong with the process
        that was asked is for the sink.
        """
        try:
            if (
                timeout is None
                and child is not None
                and child.alive
                and self._sends.offer(child.link, event, payload, size, sink)
            ):
                return
            deadline = 0 if timeout is None else max(1, int((monotonic() + timeout) * 1000))
            if kind == REQUEST_ANY:
                self._ask_any(Work(event, payload, size + NUMBERS_BYTES, deadline, retries=retries), sink)
            else:
                self._ask(kind, event, route, payload, size, deadline, sink, child)
        except BaseException:  # of a signal handler as well: nobody has the sink then
            self.give_up(sink)
            raise

    def _ask(
        self,
        kind: int,
        event: str,
        route: Route | None,
        payload: Payload,
        size: int,
        deadline: int,
        sink: Sink,
        child: Restarting | None,
    ) -> None:
        """Send a request in whatever way it goes. ``deadline`` is as for a Job."""
        node, sends = self.node, self._sends
        self._check_stage()
        is_own = route is not None and len(route) == 1 and route[0] in node.router.names
        if is_own or (kind == REQUEST_GRAND_MASTER and node.router.up is Up.NONE):
            job = own_job(node, kind, next(self._serials), event, payload, deadline, sink)
            self.answering.answer_own(job)
            return
        is_all = kind == REQUEST_ALL
        sink.left = int(is_all)  # one for this call itself, so it is not over before
        hops = len(route) - (route[-1] in node.router.names) if route else 0
        passes_on = hops > 1 or kind == REQUEST_GRAND_MASTER
        reach = BOTH if is_all else BEYOND if passes_on else NEXT
        request = Request(sends, event, payload, size, deadline, sink, reach)
        try:
            if child is not None:
                sends.put_for(child, request)
            else:
                sends.put(kind, route, request)
        except SendError as exc:
            if isinstance(exc, Unpicklable | MessageTooLarge | OutboxFull):
                raise
            with node.lock:
                sends.asked += 1
            sink.failed(exc)  # there is no such process
        if is_all:
            with node.lock:
                sink.left -= 1
                if not sink.left:
                    sink.came("", "", SPLIT, numbered(0, SPLIT, (-1,)), True)

    def _check_stage(self) -> None:
        """Raise what does not allow a request at this moment."""
        node = self.node
        if node.lock._is_owned():  # type: ignore[attr-defined]  # see StateLock.inside
            raise WouldDeadlock("a request was made by a signal handler in the middle of the library")
        if not node.announced:
            node.on_first_use()
        if node.stage is not _OPEN:
            raise node.stage_error()

    def put(self, work: Work, sink: Sink) -> None:
        """Send a request to any. Raises as ``ask``."""
        try:
            self._ask_any(work, sink)
        except BaseException:  # of a signal handler as well: nobody has the sink then
            self.give_up(sink)
            raise

    def put_all(self, event: str, pairs: Sequence[tuple[Work, Sink]]) -> None:
        """Send requests to any of one event, each with its sink, and write them. Raises as ``ask``.

        What was sent before an error stays so; the caller gives it up.
        """
        self._check_stage()
        if self.sharing.ask_all(event, pairs):
            return
        for work, sink in pairs:
            self._ask_any(work, sink)

    def fail_all(self, event: str, make: Callable[[], IPEventsError]) -> None:
        """End all requests to any of an event that start here, each with an error of its own."""
        sinks = []
        with self.node.lock:
            for link, number, asked in self.requests.each():
                if type(asked) is Given and asked.event == event and asked.back and not asked.back_number:
                    sinks.append(asked.back)
                    asked.back.left = 0
                    self._send_cancel(link, [number])
                    asked.back = None
        for sink in sinks:
            tell(sink.failed, make())

    def _ask_any(self, work: Work, sink: Sink) -> None:
        """Have a request answered by any other process, or by this one if no other does."""
        self._check_stage()
        sink.work = work
        try:
            if self.sharing.ask(work, sink):
                return
        except (MessageTooLarge, OutboxFull):
            raise
        except (SendError, NoProcess):  # the parent is gone just now
            pass
        self._answer_any(work, sink)

    def _answer_any(self, work: Work, sink: Sink) -> None:
        """Answer a request to any here, because no other process does, or say that nobody does."""
        node = self.node
        event = work.event
        number = next(self._serials)
        if self.answering.answers(event):
            work.attempts += 1
            job = own_job(node, REQUEST_ANY, number, event, work.payload, work.deadline, sink)
            self.answering.answer_own(job)
            return
        with node.lock:
            self._sends.asked += 1
            sink.left = 0
        why = (self.sharing.why_nobody(event),)
        tell(sink.came, node.router.pid, "", NO_ANSWERER, numbered(number, NO_ANSWERER, why), True)

    def give_up(self, sink: Sink) -> bool:
        """Wait no more for the answers to a request, and tell those that have it.

        Returns whether it was open; True from inside the state lock, where it is deferred.
        """
        node = self.node
        if node.inside():
            node.defer(self.give_up, sink)
            return True
        with node.lock:
            was_open, sink.left = sink.left > 0, 0
            for link, number in sink.places:
                asked = self.requests.get(link, number)
                if asked is not None and asked.back is sink:
                    self._send_cancel(link, [number])
                    asked.back = None
        self.answering.cancel_own(sink)
        return was_open

    def tell_cancelled(self, sink: Sink) -> None:
        """Tell those that have a request that its answer is not wanted. It stays open."""
        node = self.node
        if node.inside():
            node.defer(self.tell_cancelled, sink)
            return
        with node.lock:
            for link, number in sink.places:
                self._send_cancel(link, [number])
        self.answering.cancel_own(sink)

    def give_up_later(self, sink: Sink) -> None:
        """Give a request up, in the notices thread. From a finalizer, at any place, under any lock."""
        notices = self.node.notices
        if notices is not None:  # otherwise nothing is open
            notices.put(lambda: self.give_up(sink))

    def is_begun(self, sink: Sink) -> bool:
        """Return whether the request is known to have been begun: by a direct child."""
        if self.node.inside():
            return False
        with self.node.lock:
            return any(
                link.page is not None and self.requests.is_begun(link, number, link.page.begun_last)
                for link, number in sink.places
            )

    # Answers

    def answered(self) -> Iterable[tuple[str, int]]:
        """Return the events of which this process answers requests, each with its capacity."""
        return self.answering.events()

    def take(self, link: Link, decision: Decision, messages: list[Payload]) -> None:
        """Handle requests, or answers, that are for this process. In the reader thread of the link."""
        envelope: Any = decision.envelope
        if envelope.kind == ANSWER:
            self.returning.take(link, decision.pids, envelope.event, messages)
        elif envelope.kind != REQUEST_ANY or not self._shares(link, decision, messages):
            self.answering.take(link, decision, messages)

    def _shares(self, link: Link, decision: Decision, messages: list[Payload]) -> bool:
        """Return whether requests to any were given to other processes; otherwise this one answers them."""
        event = decision.envelope.event  # type: ignore[union-attr]  # they are for this process
        if self.answering.answers(event) and not self.node.router.answerers_below(event):
            return False  # looked at without the lock: those that come just now get the next one
        numbers = [(number, deadline and here(deadline)) for number, deadline in map(numbers_of, messages)]
        return self.sharing.arrive(link, decision, numbers, messages)

    def _answer_later(self, given: Given) -> bool:
        """Answer a request to any here after all, in the notices thread, if this process does. Lock held.

        For one that those who had it, or were to get it, will not answer.
        """
        node, work = self.node, given.work
        if node.notices is None or not self.answering.answers(work.event):
            return False
        if given.back_number:
            assert work.header is not None
            envelope = Envelope(REQUEST_ANY, work.header[1], work.event, node.reply, to=node.router.pid)
            payload = numbered(given.back_number, work.deadline, work.payload)
            job = Job(given.back, given.back_number, work.deadline, envelope, payload)
        else:
            number = next(self._serials)
            job = own_job(node, REQUEST_ANY, number, work.event, work.payload, work.deadline, given.back)
        work.attempts += 1
        self.answering.answer_later(job)
        return True

    # Requests that pass through this process

    def passes(
        self, link: Link, target: Link, event: str, messages: list[Payload], reach: int
    ) -> list[Payload]:
        """Note requests that go on from ``link`` to ``target``. Returns them as they are to be put there."""
        passed = []
        refused = []
        remote = is_remote(target)
        numbers = [numbers_of(payload) for payload in messages]  # first: none is noted where one is forged
        for (number, deadline), payload in zip(numbers, messages, strict=True):
            if self.requests.is_full(target):
                refused.append(numbered(number, REFUSED, (f"too many requests to {target.title} are open",)))
                continue
            following = self.requests.put(target, link, event, number, reach=reach)
            deadline = deadline and there(here(deadline), remote)  # noqa: PLW2901
            passed.append(numbered(following, deadline, without_numbers(payload)))
        self._sends.put_small(link, event, refused)
        return passed

    def splits(self, link: Link, record: Record, copies: int) -> None:
        """Tell the asker that requests to all go on in so many copies, and whether one is answered here."""
        event = record[2]
        numbers = [numbers_of(payload)[0] for payload in record[PAYLOADS]]
        more = copies + self.answering.counts_here(link, event, numbers) - 1
        if more:
            self._sends.put_small(link, event, [numbered(number, SPLIT, (more,)) for number in numbers])

    def not_passed(self, link: Link, record: Record, cause: str, target: str | None) -> None:
        """Answer requests with an error, because they cannot go on."""
        numbers = [numbers_of(payload)[0] for payload in record[PAYLOADS]]
        self._sends.put_small(
            link, record[2], [numbered(number, NO_ANSWERER, (cause,)) for number in numbers]
        )

    def lose(self, link: Link, record: Record) -> None:
        """Handle a request, or an answer, whose large buffers did not fit into memory."""
        kind, path, event, _, (payload,) = record
        number, _ = numbers_of(payload)
        text = f"there is no memory for it in {self.node.place()}"
        if kind == ANSWER:
            with self.node.lock:
                pids = self.node.router.accept(link, path)
            self.returning.take(link, pids, event, [numbered(number, REFUSED, (text,))])
            return
        link.turn_out(UNREADABLE, 1)
        with self.node.lock:
            if kind == REQUEST_ANY and self.answering.passes(event, link, number):
                return  # taken back, and answered by that
            self._sends.put_small(link, event, [numbered(number, REFUSED, (text,))])

    # Ends

    def cancelled(self, link: Link, ids: tuple[int, ...]) -> None:
        """Note that nobody waits any more for the answers to requests that came by this link."""
        for back_number in ids:
            if self.answering.cancel(link, back_number):
                continue
            with self.node.lock:
                places: list[Any] = self.requests.of(link, back_number)
                for target, number in places:
                    self._send_cancel(target, [number])
                if not places:
                    self.answering.cancel_early(link, back_number)

    def _send_cancel(self, link: Any, numbers: list[int]) -> None:
        """Tell the neighbour, or a crew, that nobody waits for these answers, each once. State lock held.

        Over the control channel if there is one, which waits for no listener. A child that is about to be
        started again is told when it has one, see ``child_started``.
        """
        fresh = []
        for number in numbers:
            asked = self.requests.get(link, number)
            if asked is not None and not asked.is_cancelled:
                asked.is_cancelled = True
                fresh.append(number)
        if isinstance(link, Crew):
            for number in fresh:
                self.sharing.drop(link, number)
            return
        for begin in range(0, len(fresh), MAX_IDS):
            record = control(CANCEL, ids=tuple(fresh[begin : begin + MAX_IDS]))
            if link.channel is not None:
                link.channel.put(record)
                self.node.timers.ring()
            elif link in self.node.router.neighbours:
                link.tell(record)

    def take_back(self, link: Link, event: str, ids: tuple[int, ...]) -> None:
        """Give those of these requests back to the parent that have not begun. State lock not held."""
        node = self.node
        with node.lock:
            unknown = self.sharing.take_back(link, event, ids)
            taken = self.answering.claims.take_back(link, unknown)
            self._sends.put_small(link, event, [numbered(number, CANCELLED, ()) for number in taken])
        if not node.dispatcher.runs_here():
            node.outgoing.write_dirty()

    def answerers_changed(self) -> None:
        """Give out what waits: more, or fewer, processes of a neighbour's subtree answer requests now."""
        if self.sharing.crews:
            with self.node.lock:
                self.sharing.fill_all()

    def child_started(self, link: Link) -> None:
        """Tell a child whose process has just been started what was cancelled of that which waits for it.

        State lock held.
        """
        down = self.requests.down.get(link)
        if down is not None:
            numbers = [number for number, asked in down.requests.items() if asked.is_cancelled]
            for number in numbers:
                down.requests[number].is_cancelled = False
            self._send_cancel(link, numbers)

    def child_settled(self) -> None:
        """Note that a child has come online, or has ended for good; or that one is not to be started again.

        So the children that are coming may have become fewer, see ``Children.is_any_coming``. State lock
        held.
        """
        if self.sharing.crews:
            self.sharing.fill_all()

    def asker_ended(self, link: Link) -> None:
        """Begin nothing more for a child whose process has ended. What it wrote is still read. Lock held."""
        self.answering.asker_gone(link, is_read=False)

    def link_gone(
        self,
        link: Link,
        exitcode: int | None = None,
        begun: BegunLast | None = None,
        *,
        goes_on: bool = False,
        cause: BaseException | None = None,
    ) -> None:
        """End all requests that went down a link whose process is gone, and all that came by it. Lock held.

        The sinks are called when the lock is released.
        """
        mine = []
        self.sharing.leaves(link)
        for gone in self._without_shared(link, exitcode, self.requests.gone(link, begun, goes_on=goes_on)):
            sink = gone.back
            rest = (link.name, link.given_name, exitcode, gone.begun)
            if sink is None:
                continue
            if gone.back_number:
                fewer = [numbered(gone.back_number, SPLIT, (1 - gone.left,))] if gone.left > 1 else []
                self._sends.put_small(sink, gone.event, [*fewer, numbered(gone.back_number, LOST, rest)])
                continue
            sink.left -= 1
            sink.cause = cause
            lost = numbered(gone.number, LOST, rest)
            if sink.is_many:
                sink.came(link.name, link.given_name, LOST, lost, not sink.left)
                self._lost += 1
            else:
                mine.append((sink, lost))
        if mine:
            self._lost += len(mine)
            self.node.defer(self._tell_lost, link.name, link.given_name, mine)
        self._cancel_all(self.requests.asker_gone(link))
        self.answering.asker_gone(link, is_read=True)
        self.sharing.left()

    def _without_shared(self, link: Link, exitcode: int | None, all_gone: list[Gone]) -> list[Gone]:
        """Give requests to any to other processes. Returns those that are lost. State lock held."""
        lost = []
        for gone in reversed(all_gone):  # each goes before all that waits, so they are in order then
            rest = (link.name, link.given_name, exitcode, gone.begun)
            if type(gone.asked) is not Given or not self.sharing.lost(link, gone, rest):
                lost.append(gone)
        return lost[::-1]

    def _cancel_all(self, pairs: list[tuple[Any, int]]) -> None:
        """Tell neighbours that nobody waits for the answers to these requests. State lock held.

        Of each link the last one first: what runs sees it when nothing is left that would be begun after it.
        """
        numbers: dict[Any, list[int]] = {}
        for link, number in reversed(pairs):
            numbers.setdefault(link, []).append(number)
        for link, those in numbers.items():
            self._send_cancel(link, those)

    def _tell_lost(self, pid: str, name: str, mine: list[tuple[Sink, Payload]]) -> None:
        for sink, payload in mine:
            tell(sink.came, pid, name, LOST, payload, True)

    def end_all(self) -> None:
        """End all requests of this process with Closed: it stops. State lock not held."""
        sinks: dict[int, Any] = {}
        pairs = []
        with self.node.lock:
            for link, number, asked in self.requests.each():
                if asked.back is not None and not asked.back_number:
                    sinks[id(asked.back)] = asked.back
                    pairs.append((link, number))
            for sink in sinks.values():
                sink.left = 0  # first: what waits here is told nothing else
            self._cancel_all(pairs)
            for link, number in pairs:
                asked_still = self.requests.get(link, number)
                if asked_still is not None:  # it has gone down a link, and does not wait here
                    asked_still.back = None
            for sink in self.answering.take_own():
                sinks[id(sink)] = sink
            for sink in sinks.values():
                sink.left = 0
            self.deadlines.clear()
        for sink in sinks.values():
            tell(sink.failed, Closed(f"{self.node.place()} was stopped before the answer came"))

    def renew(self) -> None:
        """Begin another life. State lock held."""
        self.requests.clear()
        self.deadlines.clear()
        self.answering.renew()
        self.sharing.renew()

    def stats(self) -> dict[str, int]:
        """Return the counters of requests. State lock held."""
        own = [asked.back for _, _, asked in self.requests.each() if asked.back and not asked.back_number]
        return {
            "requests": self._sends.asked,
            "answered": self.returning.answered,
            "lost": self._lost,
            "late": self.returning.late,
            "open": len({id(sink) for sink in own}) + self.answering.count_own(),
            "carriedOut": self.answering.answered,
            "retried": self.sharing.retried,
        }
