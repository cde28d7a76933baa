"""A request that this process is to answer, and the thread that does so."""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Callable
from types import CodeType, TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from .._core.messages import Envelope, Message, Payload
from .._core.requests import RAISED, VALUE
from .._exceptions import IPEventsError, Unpicklable
from .._links.link import Link
from .._payload import forms, outcomes
from .._payload.numbered import NUMBERS_BYTES, numbered, without_numbers
from .._platform.logs import Log, traceback_of
from .._platform.signal_exceptions import interrupts_main

if TYPE_CHECKING:
    from .._core.crew import Work

SHORT_SECONDS = 0.001  # answers of jobs that take less are written together (README, Asking)

log = Log("ipevents.life")

Outcome = tuple[Payload, int]  # with its numbers, and its size


class Sink(Protocol):
    """What waits for the answers to one request in the process that asked.

    ``places`` are the links that the request went down, with its numbers there. ``left`` counts the links
    from which answers are still to come. Both are changed under the state lock. If ``is_many`` is true there
    may be several answers, and ``came`` is called under the state lock, so that the last one is the last.
    """

    is_many: bool
    cause: BaseException | None  # what was reported of the child that is lost
    places: tuple[tuple[Any, int], ...]  # links, or a crew in place of one, with the number there
    left: int
    work: Work | None  # what is asked of any

    def came(self, pid: str, name: str, status: int, payload: Payload, is_last: bool) -> None:
        """Take an answer. The caller holds no lock, see the class."""

    def failed(self, exc: IPEventsError) -> None:
        """Take an error in place of all answers that were still to come. The caller holds no lock."""

    def expired(self) -> None:
        """Note that the time is over. In the supervisor's thread; must not block."""


class Job:
    """One request. ``link`` is the one that it came by, None if this process asks itself, by ``sink``."""

    __slots__ = (
        "deadline",
        "envelope",
        "is_cancelled",
        "is_gone",
        "link",
        "number",
        "outer",
        "payload",
        "sink",
    )

    def __init__(
        self,
        link: Link | None,
        number: int,
        deadline: int,
        envelope: Envelope,
        payload: Payload,
        sink: Sink | None = None,
    ) -> None:
        self.link = link
        self.number = number
        self.deadline = deadline  # CLOCK_MONOTONIC in milliseconds, 0 for none
        self.envelope = envelope
        self.payload = payload
        self.sink = sink
        self.is_cancelled = False
        self.is_gone = False  # the process that asked is; another one may be at the link; state lock
        self.outer: Job | None = None  # that the same thread answers, and in it has asked this process


_NO_KWARGS: dict[str, Any] = {}
_running: dict[int, Job] = {}  # by thread: the innermost


def running_here() -> Job | None:
    """Return the job that the calling thread answers."""
    return _running.get(get_ident())


def tell(call: Callable[..., object], *args: Any) -> None:
    """Call a method of a sink, which may call code of the user: one that raises keeps no other from its turn.

    Raises only what a signal handler has raised in the main thread.
    """
    try:
        call(*args)
    except BaseException as exc:  # of a callback
        if interrupts_main(exc):
            raise
        log.exception("! a callback of an Answer failed")


def mark_running(is_meant: Callable[[Job], bool]) -> list[Job]:
    """Note of jobs that run that nobody waits for their answers. Returns those that are meant."""
    found = []
    for inner in list(_running.values()):
        job: Job | None = inner
        while job is not None:
            if is_meant(job):
                job.is_cancelled = True
                found.append(job)
            job = job.outer
    return found


def carry_out(job: Job, function: Callable[..., Any], pid: str) -> Outcome:
    """Call the function for a request, and return the answer: what it returned, or what it raised.

    Raises SystemExit, and what a signal handler has raised in the main thread: neither is an answer.
    """
    ident = get_ident()
    outer = job.outer = _running.get(ident)
    payload = job.payload
    try:
        _running[ident] = job
        if type(payload) is tuple:
            args = payload[2:]
            value = function(Message(job.envelope, args), *args)
        else:
            args, kwargs = forms.decode(without_numbers(payload))
            value = function(Message(job.envelope, args, kwargs), *args, **kwargs)
        size = forms.plain_size((value,), _NO_KWARGS)
        return (
            of_value(job, value, pid) if size is None else ((job.number, VALUE, value), size + NUMBERS_BYTES)
        )
    except BaseException as exc:  # the user's code may raise anything
        if interrupts_main(exc) or issubclass(type(exc), SystemExit):
            raise
        return of_exception(job, exc, pid)
    finally:
        if outer is None:
            del _running[ident]
        else:
            _running[ident] = outer


def users_trace(exc: BaseException) -> TracebackType | None:
    """Leave only code of the user in the traceback of what a function has raised, and return that."""
    trace = exc.__traceback__
    while trace is not None and trace.tb_next is not None and trace.tb_frame.f_code in not_shown:
        trace = trace.tb_next
    exc.__traceback__ = trace
    return trace


def of_value(job: Job, value: object, pid: str) -> Outcome:
    """Return the answer that has this value, or says why that cannot be sent."""
    try:
        payload, size = outcomes.of_value(value)
    except Unpicklable as exc:
        why = str(exc).removeprefix("argument 1, ")
        text = f"what was returned for {job.envelope.event!r} cannot be sent: {why}"
        return of_exception(job, Unpicklable(text), pid)
    return numbered(job.number, VALUE, payload), size + NUMBERS_BYTES


def of_exception(job: Job, exc: BaseException, pid: str) -> Outcome:
    """Return the answer that tells what was raised."""
    trace = users_trace(exc)
    text = "" if trace is None else traceback_of(exc)
    payload, size = outcomes.of_exception(exc, text, pid)
    return numbered(job.number, RAISED, payload), size + NUMBERS_BYTES


not_shown: set[CodeType] = {
    carry_out.__code__
}  # frames of the library between a job and the function of the user
