"""``Pool``: worker processes that call functions, as an executor of ``concurrent.futures``.

The workers are quiet children. Each answers requests of an event that only this pool uses, and to which it
sends all its jobs as requests to any: so what waits, who gets it, and what becomes of the jobs of a worker
that dies is decided as for ``requestAny`` (sharing.py, ``_core/crew.py``). Their end of it is in
pool_worker.py.

The state lock guards the fields that change. ``_on_failure``, ``_on_online`` and ``_on_end`` run in the
supervisor's thread, ``_forget`` and ``_stop_if_done`` also in those that bring answers; none of them waits.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sized
from concurrent.futures import Executor
from functools import partial
from typing import Any, Protocol

from .._core.callable_names import short_name
from .._core.chunks import Chunks
from .._core.crew import Crew, Work
from .._core.known_functions import KnownFunctions
from .._core.messages import REQUEST_ANY, TO_CHILD, Payload
from .._core.state import Stage
from .._exceptions import Closed, IPEventsError, PoolFailed, StartFailed, TargetFailed
from .._links.link import Link
from .._options import seconds
from .._payload import forms
from .._payload.main_names import Names
from .._payload.numbered import NUMBERS_BYTES
from .._payload.pickled import pickle_call
from .._platform.latches import Latch
from .answer import Answer
from .asking import Asking
from .bench import MANY
from .functions import Functions, SentFunction
from .mapping import Mapping, number_of_items
from .target import Target, retries_of

MOST_WORKERS = 1000
FAILED_STARTS = 3  # in a row, of all workers together, after which a pool has failed (README, Sharing work)

_TARGET = Target(REQUEST_ANY)
_NO_KWARGS: dict[str, Any] = {}


Worker = Any  # what ``Staff.start`` returns


class Staff(Protocol):
    """What starts and stops the workers; the emitter has it."""

    def start(self, name: str, pool: weakref.ref[Pool]) -> Worker: ...
    def stop(self, worker: Worker) -> None: ...
    def ended(self, worker: Worker) -> Latch: ...
    def is_reliable(self, worker: Worker) -> None: ...


class Shipment:
    """A function on its way to the workers of a pool: each gets it before the first job that calls it."""

    __slots__ = ("_asking", "_crew", "_sent")

    def __init__(self, asking: Asking, crew: Crew, sent: SentFunction) -> None:
        self._asking = asking
        self._crew = crew
        self._sent = sent

    def send(self, link: Link) -> None:
        """Put the function for a worker that has not got it. State lock held."""
        key, code = self._sent
        known = self._crew.known.get(link)
        if known is None:
            known = self._crew.known[link] = KnownFunctions()
        is_needed, forget = known.needs(key, len(code))
        if is_needed:
            node = self._asking.node
            payload, size = forms.encode((key, code, *forget), {})
            link.outbox.put_message(node.router.header(TO_CHILD), self._crew.event, payload, size)
            node.outgoing.sent += 1


class Pool(Executor):
    """Worker processes that call functions: an executor as those of ``concurrent.futures``.

    Made by ``Emitter.pool``. It may be used from any thread, in a worker too. As a context manager it waits
    at the end until all jobs are done, and then ends the workers.

    A worker that dies costs the job that it worked on, which has AnswererLost, and is replaced; with
    ``retry``, another one does that job. Jobs that it had not begun are done by others.
    """

    def __init__(
        self, asking: Asking, staff: Staff, event: str, count: int, name: str, *, has_initializer: bool
    ) -> None:
        self._has_initializer = has_initializer
        self._asking = asking
        self._node = asking.node
        self._staff = staff
        self._functions = Functions()
        self._event = event
        self._crew = Crew(self._event)
        self._crew.is_open = True
        self._count = count
        self._is_shut = False
        self._are_stopped = False  # the workers were asked to end
        self._failed: PoolFailed | None = None
        self._failures = 0  # of starts, in a row
        self._answers: set[Answer] = set()  # that are open
        self._mappings: weakref.WeakSet[Mapping] = weakref.WeakSet()
        self._workers: list[Worker] = []
        self._ended = 0  # workers that have ended for good
        with self._node.lock:
            asking.sharing.crews[self._event] = self._crew
        try:
            myself = weakref.ref(self)
            for number in range(1, count + 1):
                self._workers.append(staff.start(f"{name}-{number}", myself))
        except BaseException:
            self.shutdown(wait=False)
            self._close(lambda: Closed("the pool could not be started"))
            raise

    @property
    def pids(self) -> list[int]:
        """The OS pids of the workers that can take jobs now: one that is starting is not among them."""
        with self._node.lock:
            links: list[Any] = list(self._asking.sharing.members(self._event))
            return [int(link.name.partition(".")[0]) for link in links]

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Answer:
        """Have a worker call ``fn(*args, **kwargs)``, and return its Answer, a Future, at once.

        The function and its arguments are pickled by this call, by value if necessary. The Answer has the
        value, or what the function raised, with a RemoteError as its cause; AnswererLost if the worker died;
        PoolFailed; Closed when the emitter stops. Its ``cancel()`` works as for ``requestAsync``.

        Blocks only where 100,000 jobs, or 64 MiB, wait already; in a listener that is OutboxFull. Raises
        Unpicklable, MessageTooLarge, TypeError for what cannot be called, PoolFailed, RuntimeError after
        ``shutdown``, Closed.
        """
        sent = self._functions.of(fn)
        payload, size = _encoded((sent.key, *args), kwargs)
        answer = Answer(self._asking, _TARGET, short_name(fn), None)
        work = Work(self._event, payload, size + NUMBERS_BYTES)
        work.code, work.code_bytes = Shipment(self._asking, self._crew, sent), len(sent.code)
        try:
            with self._node.lock:
                self._check_open()
                self._answers.add(answer)
            answer.add_done_callback(self._forget)
            self._asking.put(work, answer)
        except BaseException:  # of a signal handler as well: nobody has the answer then
            self._asking.give_up(answer)
            self._forget(answer)
            raise
        return answer

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        ordered: bool = True,
        retry: int = 0,
    ) -> Mapping:
        """Have workers call ``fn`` with each item, and return an iterator over the results.

        Several iterables give one argument each, until the shortest ends. They are read only as far ahead as
        the workers can do soon, by this call and by the iterator; ``buffersize`` is the most items of which
        the results were not taken yet. So they may be endless, and what is not iterated over is not done.
        ``ordered=False`` gives results as they come.

        A job has ``chunksize`` items; None makes jobs of about 5 ms, by what was measured. What the function
        raises for an item is raised in place of its result, and the iterator can go on after it; to leave it
        gives up the rest. A worker that dies costs the items of its job: each has AnswererLost, unless
        another worker does that job; that happens at most ``retry`` times to one that may have begun, whose
        items may then be done more than once.

        The iterator blocks until the next result is there, for at most ``timeout`` seconds since the call in
        all (None: no limit), then raises RequestTimeout, and ends. Raises as ``submit``; TypeError and
        ValueError for a wrong number; WouldDeadlock in a listener where it would wait.
        """
        size = number_of_items(chunksize, "chunksize")
        most = number_of_items(buffersize, "buffersize")
        sent = self._functions.of(fn)
        shipment = Shipment(self._asking, self._crew, sent)
        is_chunked = size != 1
        many = MANY + sent.key
        retries = retries_of(retry)

        def make(items: list[tuple[Any, ...]]) -> Work:
            args = (many, items) if is_chunked else (sent.key, *items[0])
            payload, length = _encoded(args, _NO_KWARGS)
            work = Work(self._event, payload, length + NUMBERS_BYTES, retries=retries)
            work.code = shipment
            return work

        mapping = Mapping(
            self._asking,
            zip(*iterables, strict=False),
            self._event,
            make,
            short_name(fn),
            check=self._check,
            size=size,
            is_chunked=is_chunked,
            chunks=Chunks(self._count, _length(iterables)),
            capacity=self._capacity,
            ordered=ordered,
            buffersize=most,
            timeout=seconds(timeout),
            on_end=self._map_ended,
        )
        with self._node.lock:
            if not mapping.is_over:
                self._mappings.add(mapping)
        if self._is_shut:  # just now
            self._stop_if_done()
        return mapping

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more jobs; end the workers when all are done. May be called again.

        A map that has not read all of its input reads no more: its iterator gives what was begun, and then
        raises RuntimeError. With ``cancel_futures`` jobs that have not begun are cancelled. Blocks until the
        workers have ended, unless ``wait`` is false, or in a listener.
        """
        if self._node.stage is Stage.FORKED:
            return  # its workers are those of the process that was forked
        with self._node.lock:
            self._is_shut = True
            self._crew.on_change = self._stop_if_done
            answers, mappings = list(self._answers), list(self._mappings)
        if cancel_futures:
            for answer in answers:
                answer.cancel()
            for mapping in mappings:
                mapping.cancel()
        self._stop_if_done()
        if wait and not self._node.dispatcher.must_not_wait():
            for worker in self._workers:
                self._staff.ended(worker).wait()

    # Jobs

    def _check(self) -> None:
        """Raise why no job is taken any more."""
        with self._node.lock:
            self._check_open()

    def _check_open(self) -> None:
        """Do that with the state lock held."""
        if self._failed is not None or self._is_shut:
            raise self._refusal()
        if self._asking.sharing.crews.get(self._event) is not self._crew:
            raise Closed(f"the pool has ended when {self._node.place()} was stopped")

    def _capacity(self) -> int:
        """Return how many jobs of a map may be open: two for each worker before these are online."""
        return max(2 * self._count, self._crew.takes_soon())

    def _forget(self, answer: Any) -> None:
        """Note that a job is over."""
        with self._node.lock:
            self._answers.discard(answer)
        if self._is_shut:
            self._stop_if_done()

    def _map_ended(self) -> None:
        """Note that a map is over, and nothing of it is open."""
        if self._is_shut:
            notices = self._node.notices
            if notices is not None:
                notices.put(self._stop_if_done)

    # Workers

    def _stop_if_done(self) -> None:
        """End the workers if there is nothing to do any more, and nothing will come."""
        with self._node.lock:
            if not self._is_shut or self._answers or self._are_stopped:
                return
            for _, _, asked in self._asking.requests.each():
                # An Answer that is not in the set was cancelled, and its request goes next. Of one that
                # nobody waits for any more the job may still run.
                if asked.event == self._event and not isinstance(asked.back, Answer):
                    return
            self._are_stopped = True
            self._crew.refuses = self._refusal
        for worker in self._workers:
            self._staff.stop(worker)

    def _on_online(self, worker: Worker) -> None:
        """Note that a worker is ready. In the supervisor's thread."""
        self._failures = 0
        self._staff.is_reliable(worker)

    def _on_failure(self, error: IPEventsError) -> None:
        """Note that a worker has failed. In the supervisor's thread."""
        # One that is killed while it starts says nothing of the next one, unless there is an initializer.
        was_killed = isinstance(error, StartFailed) and error.exitcode is not None and not error.traceback
        if not isinstance(error, StartFailed | TargetFailed) or (was_killed and not self._has_initializer):
            return
        self._failures += 1
        if self._failures >= FAILED_STARTS:
            self._fail(error)

    def _on_end(self) -> None:
        """Note that a worker has ended for good. In the supervisor's thread."""
        self._ended += 1
        if self._ended < self._count:
            return
        if not self._is_shut:
            self._fail(None)
        self._close(self._refusal)

    def _refusal(self) -> Exception:
        """Return why no job is taken any more."""
        if self._failed is not None:
            return _copy(self._failed)
        return RuntimeError("the pool was shut down, and takes no more jobs")

    def _close(self, make: Callable[[], Exception]) -> None:
        """Take no more requests for the workers, which have ended, and end those that are left."""
        with self._node.lock:
            self._crew.is_open = False
            self._crew.refuses = make
        self._asking.fail_all(self._event, lambda: Closed("the pool has ended"))
        with self._node.lock:
            self._asking.requests.gone(self._crew)
            self._asking.sharing.crews.pop(self._event, None)

    def _fail(self, cause: IPEventsError | None) -> None:
        """End all jobs: no worker can be started."""
        failed = PoolFailed("the pool has failed: its workers do not start, or do not stay")
        failed.__cause__ = cause
        with self._node.lock:
            if self._failed is not None or self._node.stage is not Stage.OPEN:
                return  # at a stop the workers end as well, and the jobs have Closed
            self._failed = failed
            self._is_shut = True
            self._crew.refuses = self._refusal
        self._asking.fail_all(self._event, lambda: _copy(failed))
        self._stop_if_done()

    def __del__(self) -> None:
        if getattr(self, "_are_stopped", True) or self._node.notices is None:
            return
        self._node.notices.put(partial(_stop, self._asking, self._crew, self._staff, self._workers))

    def __repr__(self) -> str:
        state = "failed" if self._failed is not None else "shut down" if self._is_shut else "open"
        return f"<Pool of {self._count} workers, {state}>"


def _encoded(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Payload, int]:
    """Return the payload of a job, which may refer to what the script defines, and its size."""
    size = forms.plain_size(args, kwargs)
    return pickle_call(args, kwargs, None, Names(is_marked=True)) if size is None else (args, size)


def _stop(asking: Asking, crew: Crew, staff: Staff, workers: list[Worker]) -> None:
    """End the workers of a pool that is gone. In the notices thread."""
    with asking.node.lock:
        crew.is_open = False
        asking.requests.gone(crew)
        asking.sharing.crews.pop(crew.event, None)
    for worker in workers:
        staff.stop(worker)


def _copy(failed: PoolFailed) -> PoolFailed:
    """Return the same error once more, to be raised by itself."""
    error = PoolFailed(*failed.args)
    error.__cause__ = failed.__cause__
    return error


def _length(iterables: tuple[Iterable[Any], ...]) -> int | None:
    """Return how many items these have in common, None if they do not all say so."""
    lengths = [len(iterable) for iterable in iterables if isinstance(iterable, Sized)]
    return min(lengths) if lengths and len(lengths) == len(iterables) else None
