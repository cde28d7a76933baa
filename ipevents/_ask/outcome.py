"""What an answer means to the process that asked: a value, or the exception to raise."""

from __future__ import annotations

from typing import Any

from .._core.messages import Payload
from .._core.requests import CANCELLED, LOST, NO_ANSWERER, OVERDUE, RAISED, REFUSED, VALUE
from .._exceptions import (
    AnswererLost,
    IPEventsError,
    NoAnswerer,
    RequestError,
    RequestTimeout,
    SendError,
    UnreadablePayload,
    shown,
)
from .._payload import forms, outcomes
from .._payload.numbered import without_numbers
from .._platform.guards import told
from .._platform.signal_exceptions import interrupts_main


class Question:
    """What was asked of whom, for the texts of errors. A NamedTuple would take longer to import."""

    __slots__ = ("attempts", "event", "pid", "seconds")

    def __init__(self, event: str, pid: str, seconds: float | None, attempts: int = 1) -> None:
        self.event = event
        self.pid = pid  # of the process that was asked; "" for several, or for whichever it is
        self.seconds = seconds  # the time that it has
        self.attempts = attempts


def value_of(
    asked: Question, pid: str, name: str, status: int, payload: Payload, cause: BaseException | None = None
) -> Any:
    """Return the value that came as an answer, or raise what it says.

    ``pid`` and ``name`` are of the process that has answered. ``cause`` is that of the error for a process
    that is lost. Runs unpickling code of the value's classes, so the caller holds no lock.
    """
    if status == VALUE and type(payload) is tuple and len(payload) == 3:
        return payload[2]
    rest = without_numbers(payload)
    if status == VALUE:
        try:
            args, _ = forms.decode(rest)
        except BaseException as exc:  # code of the value's classes may raise a SystemExit, for example
            if interrupts_main(exc):
                raise
            why = told(exc.__cause__ or exc)
            text = f"the answer to {asked.event!r} from {pid} cannot be unpickled: {why}"
            raise UnreadablePayload(text) from exc
        if len(args) != 1:
            raise UnreadablePayload(f"the answer to {asked.event!r} from {pid} came as {shown(args)}")
        return args[0]
    if status == RAISED:
        outcomes.raise_again(rest, name, asked.event, asked.attempts)
    error = error_of(asked, pid, status, rest)
    error.__cause__ = cause if status == LOST else None
    raise error


def error_of(asked: Question, pid: str, status: int, rest: Payload) -> RequestError:
    """Return the error that an answer without a value stands for."""
    event, attempts = asked.event, asked.attempts
    if status == LOST and type(rest) is tuple and len(rest) == 4:
        gone, name, code, begun = rest
        return AnswererLost(
            event,
            str(gone),
            str(name),
            code if type(code) is int else None,
            begun if type(begun) is bool else None,
            attempts,
        )
    why = rest[0] if type(rest) is tuple and rest and type(rest[0]) is str else "it says no more"
    if status == NO_ANSWERER:
        return NoAnswerer(event, pid, why, attempts)
    if status == OVERDUE:
        return RequestTimeout(event, pid, asked.seconds or 0.0, attempts)
    if status == CANCELLED:
        return AnswererLost(event, pid, "", None, False, attempts)
    if status == REFUSED:
        return RequestError(f"request {event!r} was refused by {pid}: {why}")
    return RequestError(f"request {event!r} was answered by {pid} in a way that makes no sense")


def unanswered(asked: Question, exc: IPEventsError) -> IPEventsError:
    """Return the error for a request that could not be sent, or that a stop has ended."""
    if not isinstance(exc, SendError):
        return exc
    error = NoAnswerer(asked.event, asked.pid, str(exc), asked.attempts)
    error.__cause__ = exc
    return error
