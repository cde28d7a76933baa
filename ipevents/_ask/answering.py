"""Answering requests: the functions that do it, and the requests that wait for them here.

A function without threads runs as a listener does: in the reader thread of the link, on the floor, one at a
time in a process. One with threads has lanes, see lanes.py.

Locks: the state lock guards ``_answerers``, ``_early``, ``_absent``, ``_counted``, ``_late``, ``_queued`` and
what has lanes in the page, where they change. ``_own`` is a dict into which and out of which threads take
entries in one step each; whoever takes one out has to see that it is answered, and nobody else does. What
waits is claimed in the same way, see claims.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from .._core.decisions import Decision, Plan
from .._core.messages import ANSWER, REQUEST, REQUEST_ALL, REQUEST_ANY, Envelope, Message, Payload
from .._core.page_layout import DISPATCHER
from .._core.requests import CANCELLED, LOST, MAX_OPEN, NO_ANSWERER, OVERDUE, REFUSED, SPLIT
from .._core.state import Stage
from .._links.link import Link
from .._node.backpressure import ANY_LIMIT
from .._payload.forms import size_of
from .._payload.numbered import numbered, numbers_of
from .._platform.clock import monotonic
from .._platform.logs import Log
from .._platform.threads import Deadline
from .claims import Claims
from .deadlines import here
from .job import SHORT_SECONDS, Job, Outcome, Sink, carry_out, mark_running, running_here, tell
from .lanes import Lanes
from .sends import Sends

if TYPE_CHECKING:
    from .._node.node import Node
    from .._platform.shared_page import SharedPage
    from .bench import Bench

log = Log("ipevents.life")

MAX_EARLY = 10_000  # cancelled requests that have not come yet
QUEUED_BYTES = 64 << 20  # of requests that wait for threads, as much as an outbox holds
_BATCH = 64  # requests between two looks at the clock


class Answerer:
    """A function that answers one event, and its threads if it has any."""

    __slots__ = ("bench", "function", "lane", "lanes", "plan")

    def __init__(self, function: Callable[..., Any], lane: int | None) -> None:
        self.function = function
        self.plan = Plan()  # of the answers, as long as this process has the same name
        self.lanes: Lanes | None = None
        self.bench: Bench | None = None
        self.lane = lane  # in the shared page; None where that does not tell

    @property
    def capacity(self) -> int:
        """How many requests it works on at once."""
        return 1 if self.lanes is None else self.lanes.count

    @property
    def is_in_turn(self) -> bool:
        """Whether it answers in the turn of a listener, and not in a thread of its own."""
        return self.lanes is None and self.bench is None


class Answering:
    """The answering side of one node. ``page()`` is what this process shares with its parent, or None."""

    def __init__(self, node: Node, sends: Sends, page: Callable[[], SharedPage | None]) -> None:
        self._node = node
        self._sends = sends
        self._page = page
        self._answerers: dict[str, Answerer] = {}
        self._early: dict[Link, dict[int, None]] = {}  # cancelled before they came, or were begun
        self._absent: set[Link] = set()  # their processes have ended; what they wrote is still read
        self._counted: set[tuple[Link, int]] = set()  # requests to all of which the asker was told to wait
        self.claims = Claims(node)
        self._late: dict[Job, None] = {}  # that are answered here although others had them, see answer_later
        self._own: dict[int, Sink] = {}  # requests of this process that its own threads are to answer
        self._forgotten: set[str] = set()  # events of which the page does not tell what has begun
        self._had_threads: dict[str, bool] = {}  # by event, when it was answered last
        self._queued = 0  # bytes of requests that wait for threads
        self.answered = 0  # requests that were carried out

    # The functions

    def events(self) -> list[tuple[str, int]]:
        """Return the events that are answered here, each with how many requests are worked on at once."""
        return [(event, answerer.capacity) for event, answerer in list(self._answerers.items())]

    def answers(self, event: str) -> bool:
        """Return whether an event is answered here."""
        return event in self._answerers

    def add(self, event: str, function: Callable[..., Any], threads: int) -> None:
        """Let a function answer requests of an event. Raises ValueError where one does already."""
        node = self._node
        with node.lock:
            if event in self._answerers:
                raise ValueError(
                    f"requests of {event!r} are answered here already; ipem.unanswer({event!r}) ends that"
                )
            lane = self._lane_for(event, threads)
            self._answerers[event] = self._answerer(event, function, threads, lane)
            node.presence.answers_changed(event, max(1, threads))

    def _lane_for(self, event: str, threads: int) -> int | None:
        """Return the lane of an event in the shared page. Lock held.

        What was answered with threads and is without, or the other way round, has none: what has begun would
        be in either.
        """
        page = self._page()
        if page is None:
            return None
        has_threads = threads > 0
        if self._had_threads.setdefault(event, has_threads) != has_threads:
            page.forget(event)
            self._had_threads[event] = has_threads
            self._forgotten.add(event)
        if event in self._forgotten:
            return None
        return page.lane_of(event) if threads else DISPATCHER

    def _answerer(self, event: str, function: Callable[..., Any], threads: int, lane: int | None) -> Answerer:
        answerer = Answerer(function, lane)
        if threads:
            work, begins = partial(self._work, answerer), partial(self._begins, answerer)
            answerer.lanes = Lanes(event, threads, self._node.lock, work, begins)
        return answerer

    def add_bench(self, event: str) -> Bench:
        """Have the jobs of a pool done by the main thread, by ``Bench.run``. Returns its place there."""
        from .bench import Bench  # late: only workers of pools have one

        node = self._node
        with node.lock:
            answerer = Answerer(self._not_here, self._lane_for(event, 1))
            bench = Bench(node, self._sends, self._takes, partial(self._begins, answerer))
            answerer.bench = bench
            self._answerers[event] = answerer
            node.presence.answers_changed(event, 1)
        return bench

    def _not_here(self, *args: Any) -> None:
        """Stand where a function stands that answers. A bench has functions of its own."""

    def close_bench(self, event: str) -> None:
        """Take no more jobs of a pool: this worker ends. What waits goes to another one."""
        with self._node.lock:
            self._node.presence.answers_changed(event, 0)
        answerer = self._answerers.get(event)
        if answerer is not None:
            self._close_bench(answerer)
        self.remove(event)

    def _close_bench(self, answerer: Answerer) -> None:
        """Let another worker do the jobs that the main thread has not begun. Lock not held."""
        if answerer.bench is not None:
            self._lose(answerer.bench.close())

    def _lose(self, jobs: Iterable[Job]) -> None:
        """Say of those jobs that still wait that this process does not begin them, because it stops."""
        for job in jobs:
            if self.claims.claim(job):
                self._say(job, LOST, self._stopped())

    def remove(self, event: str) -> bool:
        """Answer requests of an event no more. Returns whether any was answered.

        What waits for a thread gets the error for that, what runs goes on.
        """
        node = self._node
        with node.lock:
            answerer = self._answerers.pop(event, None)
            if answerer is None:
                return False
            node.presence.answers_changed(event, 0)
        if answerer.lanes is not None:
            for job in answerer.lanes.close():
                if not self._unqueued(job):
                    continue
                self._say(job, NO_ANSWERER, (f"{event!r} is not answered any more by {node.place()}",))
        return True

    # Requests that come

    def counts_here(self, link: Link, event: str, numbers: list[int]) -> bool:
        """Note, and return, whether these requests to all are answered here. Lock held.

        They may wait for the ``online`` of this process before ``take`` is called with each of them.
        """
        is_answered = event in self._answerers
        if is_answered:
            self._counted.update([(link, number) for number in numbers])
        return is_answered

    def take(self, link: Link, decision: Decision, messages: list[Payload]) -> None:
        """Answer requests that came by a link. In its reader thread. Raises ProtocolError."""
        envelope: Any = decision.envelope
        event = envelope.event
        numbers = [(number, deadline and here(deadline)) for number, deadline in map(numbers_of, messages)]
        answerer = self._answerers.get(event)
        was_counted = self._was_counted(link, numbers) if decision.goes_on else None
        if link.ended or self._node.dispatcher.ended:
            link.end_here("stopped", len(messages))
        elif answerer is None:
            taken = self._taken_back(link, envelope, [number for number, _ in numbers])
            left = [number for number, _ in numbers if number not in taken]
            self._unanswered(link, envelope, left, was_counted)
        elif envelope.kind == REQUEST_ALL and was_counted is False:  # only since the asker was told
            link.turn_out(0, len(messages))
        elif answerer.is_in_turn:
            self._answer_in_turn(link, envelope, answerer, numbers, messages)
        else:
            self._hand_over(link, envelope, answerer, numbers, messages)

    def _hand_over(
        self,
        link: Link,
        envelope: Envelope,
        answerer: Answerer,
        numbers: list[tuple[int, int]],
        messages: list[Payload],
    ) -> None:
        """Have requests answered by threads, or by the main thread of a worker of a pool."""
        jobs = [
            Job(link, number, deadline, envelope, payload)
            for (number, deadline), payload in zip(numbers, messages, strict=True)
        ]
        self.claims.wait(jobs)
        taken = self._taken_back(link, envelope, [job.number for job in jobs])
        if taken:
            jobs = [job for job in jobs if job.number not in taken]
        if answerer.lanes is not None:
            for job in jobs:
                self._queue(answerer.lanes, job)
        elif answerer.bench is not None and not answerer.bench.put_all(jobs):
            self._lose(jobs)  # this worker ends
        link.delivered += len(jobs)

    def _taken_back(self, link: Link, envelope: Envelope, numbers: list[int]) -> set[int]:
        """Note that requests have come, and return those to any that were taken back before."""
        if envelope.kind != REQUEST_ANY:
            return set()
        taken = self.claims.have_come(link, numbers)
        link.turn_out(0, len(taken))
        return taken

    def _was_counted(self, link: Link, numbers: list[tuple[int, int]]) -> bool:
        """Return whether the asker waits for the answers to these requests to all from here."""
        keys = {(link, number) for number, _ in numbers}
        with self._node.lock:
            was_counted = not self._counted.isdisjoint(keys)
            self._counted -= keys
        return was_counted

    def _unanswered(
        self, link: Link, envelope: Envelope, numbers: list[int], was_counted: bool | None
    ) -> None:
        """Say that nobody answers here. A request to all gets no answer from here then.

        ``was_counted`` is None where such a request goes no further, so that the asker was told nothing yet.
        """
        event, node = envelope.event, self._node
        link.turn_out(0, len(numbers))
        if envelope.kind == REQUEST_ALL and not was_counted:
            if was_counted is None:
                self._put_small(link, event, [numbered(number, SPLIT, (-1,)) for number in numbers])
            return
        heard = node.dispatcher.listens_to(event)
        does = "only listens to" if heard else "does not answer"
        why = f"{node.place()} {does} {event!r}"
        self._put_small(link, event, [numbered(number, NO_ANSWERER, (why,)) for number in numbers])

    def _answer_in_turn(
        self,
        link: Link,
        envelope: Envelope,
        answerer: Answerer,
        numbers: list[tuple[int, int]],
        messages: list[Payload],
    ) -> None:
        """Answer requests on the floor, one after the other."""
        node = self._node
        dispatcher, outgoing = node.dispatcher, node.outgoing
        pid, function = node.router.pid, answerer.function
        header = node.router.header(ANSWER)
        plan = answerer.plan
        if plan.header is not header:
            plan = answerer.plan = Plan(header=header, event=envelope.event)
        # Numbers of other askers are unknown to the parent, and would hide those of its own requests.
        page = self._page() if link is node.router.parent else None
        is_any = envelope.kind == REQUEST_ANY
        count = 0
        dispatcher.enter(gathers=len(messages) > 1)
        try:
            dispatcher.floor.left = left = iter(messages)
            unwritten = monotonic()
            for payload in left:
                if dispatcher.ended or link.ended:
                    break
                number, deadline = numbers[count]
                count += 1
                job = Job(link, number, deadline, envelope, payload)
                if is_any and self.claims.comes(link, number):
                    continue
                if (deadline or self._early or self._absent) and self._is_dropped(job):
                    continue
                if page is not None and answerer.lane is not None:
                    page.begin(answerer.lane, number)
                try:
                    answer = carry_out(job, function, pid)
                except SystemExit as exc:  # it ends the process, as in a listener, and there is no answer
                    dispatcher.failed(exc, Message(envelope, ()), function)
                    continue
                self.answered += 1
                if answer[1] > ANY_LIMIT or not self._sends.offer_answer(job, link, plan, *answer):
                    self._put(job, answer)
                if monotonic() - unwritten > SHORT_SECONDS:
                    outgoing.write_dirty()
                    if not count % _BATCH and link.turn.is_long():
                        dispatcher.leave()
                        link.turn.breathe()
                        dispatcher.enter(gathers=True)
                        dispatcher.floor.left = left
                    unwritten = monotonic()
        finally:
            dispatcher.leave()
            link.delivered += count
        if count < len(messages):
            link.end_here("stopped", len(messages) - count)

    def answer_own(self, job: Job) -> None:
        """Answer a request of this process itself: in this thread, or in one of the lanes.

        Raises Closed where a stop has begun just now: ``take_own`` may have been called. Lock not held.
        """
        node = self._node
        assert job.sink is not None
        with node.lock:
            if node.stage is not Stage.OPEN:
                raise node.stage_error()
            self._sends.asked += 1
            job.sink.left = 1
            self._own[job.number] = job.sink
        event = job.envelope.event
        answerer = self._answerers.get(event)
        if answerer is None:
            self._say(job, NO_ANSWERER, (f"{node.place()} does not answer {event!r} itself",))
            return
        if answerer.lanes is not None:
            self.claims.wait((job,))
            self._queue(answerer.lanes, job)
        else:
            dispatcher = node.dispatcher
            outer = dispatcher.entered()
            try:
                dispatcher.enter()
                self._carry_out(job, answerer.function)
                dispatcher.leave()
            except BaseException:  # Ctrl-C in the function, say
                self._own.pop(job.number, None)
                dispatcher.leave_to(outer)
                raise

    def answer_later(self, job: Job) -> None:
        """Answer a request to any, which others had before, in the notices thread. Lock held.

        Not in this thread, which has more to do than to wait for code of the user.
        """
        if job.sink is not None:
            job.sink.left, job.sink.places = 1, ()
            self._own[job.number] = job.sink
        self._late[job] = None
        self._node.events.notify(partial(self._answer_late, job))

    def _answer_late(self, job: Job) -> None:
        """Do that. In the notices thread."""
        event, dispatcher = job.envelope.event, self._node.dispatcher
        answerer = self._answerers.get(event)
        try:
            if answerer is None:
                why = f"{event!r} is not answered any more by {self._node.place()}"
                self._say(job, NO_ANSWERER, (why,))
            elif answerer.lanes is not None:
                self.claims.wait((job,))
                self._queue(answerer.lanes, job)
            else:
                dispatcher.enter()
                try:
                    self._carry_out(job, answerer.function)
                finally:
                    dispatcher.leave()
        finally:
            with self._node.lock:
                self._late.pop(job, None)

    def passes(self, event: str, link: Link, number: int) -> bool:
        """Note that a request to any goes on to a neighbour. Returns whether it was taken back. Lock held.

        To the parent it counts as begun: what becomes of it cannot be seen there.
        """
        if self.claims.comes(link, number):
            return True
        page = self._page() if link is self._node.router.parent else None
        if page is not None:
            answerer = self._answerers.get(event)
            lane = DISPATCHER if answerer is None else answerer.lane
            if lane is not None:
                page.begin(lane, number)
        return False

    # One request

    def _carry_out(self, job: Job, function: Callable[..., Any]) -> None:
        """Call the function for a request, and put the answer. On the floor, or in a lane."""
        if self._is_dropped(job):
            return
        try:
            answer = carry_out(job, function, self._node.router.pid)
            self.answered += 1
        except SystemExit as exc:  # it ends the process, as in a listener, and there is no answer
            message = Message(job.envelope, ())
            self._node.dispatcher.failed(exc, message, function)
            return
        self._put(job, answer)

    def _begins(self, answerer: Answerer, job: Job) -> None:
        """Note in the shared page that a request of the parent is about to be begun. Lock held.

        Numbers of other links are unknown there, and would hide those of the parent.
        """
        page = self._page()
        is_parents = job.link is not None and job.link is self._node.router.parent
        if page is not None and is_parents and answerer.lane is not None:
            page.begin(answerer.lane, job.number)

    def _is_dropped(self, job: Job) -> bool:
        """Return whether a request is not to be begun any more; then it is answered by that."""
        link = job.link
        if link is not None and link in self._absent:
            return True
        if job.sink is not None and not job.sink.left:
            return True  # this process does not wait for its own answer any more
        if link is not None and link in self._early:
            with self._node.lock:
                job.is_cancelled |= self._early.get(link, {}).pop(job.number, 0) is None
        if job.is_cancelled:
            self._say(job, CANCELLED, ())
            return True
        if job.deadline and monotonic() * 1000 > job.deadline:
            self._say(job, OVERDUE, ())
            return True
        return False

    def _put(self, job: Job, answer: Outcome) -> None:
        """Put an answer for its asker. One that cannot be put becomes an error."""
        link, (payload, size) = job.link, answer
        if link is None:
            self._tell_own(job, numbers_of(payload)[1], payload)
            return
        if link.is_limited and size > link.limit:
            why = f"the answer has {size} bytes, {link.title} takes at most {link.limit} (socket.maxMessage)"
            self._say(job, REFUSED, (why,))
            return
        if not self._sends.put_answer(job, link, payload, size):
            self._say(job, REFUSED, ("more waits for the asker than its outbox holds",))

    def _say(self, job: Job, status: int, args: tuple[Any, ...]) -> None:
        """Answer a request by one of the short answers. State lock not held."""
        payload = numbered(job.number, status, args)
        if job.link is None:
            self._tell_own(job, status, payload)
        else:
            self._put_small(job.link, job.envelope.event, [payload], job)

    def _tell_own(self, job: Job, status: int, payload: Payload) -> None:
        """Give this process the answer to its own request, if it still waits for that."""
        sink = job.sink
        assert sink is not None
        with self._node.lock:
            is_wanted, sink.left = sink.left > 0, 0
            self._own.pop(job.number, None)
        if is_wanted:
            tell(sink.came, self._node.router.pid, "", status, payload, True)

    def _put_small(self, link: Link, event: str, answers: list[Payload], job: Job | None = None) -> None:
        """Put short answers, unless the process that has asked for ``job`` is gone. Lock not held."""
        node = self._node
        with node.lock:
            if job is None or not job.is_gone:
                self._sends.put_small(link, event, answers)
        if not node.dispatcher.runs_here():
            node.outgoing.write_dirty()

    # Lanes

    def _queue(self, lanes: Lanes, job: Job) -> None:
        """Queue a request that waits for threads, or refuse it where too much waits."""
        size = size_of(job.payload)
        if self._queued + size > QUEUED_BYTES or lanes.waiting() >= MAX_OPEN:
            if self.claims.claim(job):
                self._say(job, REFUSED, (f"too much waits for the threads of {job.envelope.event!r}",))
            return
        with self._node.lock:
            self._queued += size
        is_put, refused = lanes.put(job)
        for each in refused:
            if self._unqueued(each):
                self._say(each, REFUSED, ("no thread can be started for it",))
        if not is_put and self._unqueued(job):  # closed just now, and neither cancelled nor taken back
            answerer = self._answerers.get(job.envelope.event)
            if answerer is not None and answerer.lanes is lanes:
                self._say(job, LOST, self._stopped())
            else:
                self._say(job, NO_ANSWERER, (f"{job.envelope.event!r} is not answered any more",))

    def _stopped(self) -> tuple[Any, ...]:
        """Return what is said of a request that is not begun because this process stops."""
        return self._node.router.pid, "", None, False

    def _unqueued(self, job: Job) -> bool:
        """Note that a request does not wait any more. Returns False where it was cancelled meanwhile."""
        with self._node.lock:
            self._queued -= size_of(job.payload)
        return self.claims.claim(job)

    def _takes(self, job: Job) -> bool:
        """Return whether a job of a pool is still to be done. Its cancel may have come before it."""
        return self.claims.claim(job) and not self._is_dropped(job)

    def _work(self, answerer: Answerer, job: Job) -> None:
        """Answer one request in a thread of the lanes."""
        try:
            if self._unqueued(job):
                self._carry_out(job, answerer.function)
        except BaseException:  # a fault of the library, or a SystemExit that ends nothing here
            log.exception("! the answer to %r could not be given", job.envelope.event)

    # Ends

    def cancel(self, link: Link, number: int) -> bool:
        """Note that nobody waits for an answer any more. Returns whether the request is here."""
        if mark_running(lambda job: job.link is link and job.number == number):
            return True
        waiting = self.claims.take(link, number)
        if waiting is None:
            return False
        self._say(waiting, CANCELLED, ())  # a thread that takes it finds it is not there any more
        return True

    def cancel_early(self, link: Link, number: int) -> None:
        """Note the same of a request that has not come yet, or has been answered just now. Lock held."""
        early = self._early.setdefault(link, {})
        early[number] = None
        if len(early) > MAX_EARLY:
            del early[next(iter(early))]

    def asker_gone(self, link: Link, *, is_read: bool) -> None:
        """Drop what has not begun of an asker that is gone, and let what runs see that. Lock held.

        If ``is_read``, nothing of it comes any more, and another process may follow at the link: what is
        still answered is for nobody.
        """
        dropped = mark_running(lambda job: job.link is link)
        for lanes in self._all_lanes():
            for job in lanes.drop(lambda job: job.link is link):
                self._queued -= size_of(job.payload)
                self.claims.claim(job)
        if not is_read:
            self._absent.add(link)
            return
        late = [job for job in self._late if job.link is link]
        for job in late:
            job.is_cancelled = True  # also where it is queued for a thread just now
        for job in (*dropped, *late):
            job.is_gone = True
        self._absent.discard(link)
        self._early.pop(link, None)
        self.claims.forget(link)
        self._counted = {key for key in self._counted if key[0] is not link}

    def is_cancelled(self) -> bool:
        """Return whether nobody waits any more for the answer that the calling thread works on."""
        job = running_here()
        if job is None:
            return False
        if job.sink is not None:  # this process has asked itself
            return job.is_cancelled or not job.sink.left
        return job.is_cancelled or (job.link is not None and job.number in self._early.get(job.link, ()))

    def count_own(self) -> int:
        """Return how many requests of this process itself are not answered."""
        return len(self._own)

    def take_own(self) -> list[Sink]:
        """Return, and forget, all that wait for answers of this process itself. Lock held."""
        sinks, self._own = list(self._own.values()), {}
        return sinks

    def cancel_own(self, sink: Sink) -> None:
        """Note that this process does not wait any more for its own answer, if it is to give one.

        Takes no lock: it may be called by a finalizer.
        """
        for number, own in list(self._own.items()):
            if own is sink:
                self._own.pop(number, None)
                mark_running(lambda job: job.sink is sink)

    def begin_stop(self) -> None:
        """Begin nothing more in the threads, and tell whoever has asked for what waits. No lock held."""
        for lanes in self._all_lanes():
            for job in lanes.close():
                if not self._unqueued(job):
                    continue
                self._say(job, LOST, self._stopped())
        for answerer in list(self._answerers.values()):
            self._close_bench(answerer)

    def finish(self, deadline: Deadline) -> None:
        """Wait until the threads have ended, after ``begin_stop``."""
        for lanes in self._all_lanes():
            if not lanes.join(deadline):
                place = self._node.place()
                log.warning("! an answer in %s does not return; its thread is left behind", place)

    def _all_lanes(self) -> list[Lanes]:
        return [answerer.lanes for answerer in list(self._answerers.values()) if answerer.lanes is not None]

    def renew(self) -> None:
        """Begin another life: the functions stay, with new threads. Lock held."""
        for event, answerer in list(self._answerers.items()):
            if answerer.lanes is not None:
                count = answerer.lanes.count
                self._answerers[event] = self._answerer(event, answerer.function, count, answerer.lane)
        self._early, self._absent, self._counted = {}, set(), set()
        self._late, self._own, self._queued = {}, {}, 0
        self.claims = Claims(self._node)


def own_job(
    node: Node, kind: int, number: int, event: str, payload: Payload, deadline: int, sink: Sink
) -> Job:
    """Return a request of this process to itself."""
    to = node.router.pid if kind == REQUEST else None
    envelope = Envelope(kind, node.router.path, event, node.reply, to=to)
    return Job(None, number, deadline, envelope, numbered(number, deadline, payload), sink)
