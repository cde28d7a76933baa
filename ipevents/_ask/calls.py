"""What ``request``, ``requestAsync`` and ``requestAll`` do, for emitters and children alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .._core.messages import Payload, check_event
from .._exceptions import RequestTimeout, WouldDeadlock
from .._payload import forms
from .._payload.pickled import pickle_call
from .asking import Asking
from .outcome import Question
from .reply import Reply
from .target import Target

if TYPE_CHECKING:
    from .answer import Answer
    from .gathering import Gathering


_checked: dict[str, None] = {}  # names of events that a request can have
_MOST_CHECKED = 1000


_answer_class: type[Answer] | None = None  # imported when it is first used


def _import_answer() -> type[Answer]:
    """Return the class Answer. Late, because concurrent.futures takes its time to import."""
    global _answer_class
    from .answer import Answer

    _answer_class = Answer
    return Answer


def _check(event: object) -> str:
    """Return the plain name of an event. Raises InvalidEvent and ReservedEvent."""
    name = check_event(event, sending=True)
    if len(_checked) >= _MOST_CHECKED:
        _checked.clear()
    _checked[name] = None
    return name


def _encoded(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Payload, int]:
    """Return the payload of the arguments, and its size. Raises Unpicklable."""
    size = forms.plain_size(args, kwargs)
    return pickle_call(args, kwargs) if size is None else (args, size)


def ask(
    asking: Asking,
    target: Target,
    event: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    timeout: float | None,
) -> Any:
    """Ask, wait for the answer in this thread, and return its value."""
    if asking.node.dispatcher.must_not_wait():
        raise WouldDeadlock("request() waits, and no answer is delivered while a listener runs")
    name = event if type(event) is str and event in _checked else _check(event)
    payload, size = _encoded(args, kwargs)
    reply = Reply(lambda: Question(name, target.pid(), timeout, reply.attempts))
    asking.ask(target.kind, name, target.route, payload, size, timeout, reply, target.child, target.retries)
    try:
        if not reply.wait(timeout) and asking.give_up(reply):
            assert timeout is not None
            raise RequestTimeout(name, target.pid(), timeout, reply.attempts)
        reply.wait(None)  # it has come just now, where the time was over
    except BaseException as exc:
        if not isinstance(exc, RequestTimeout):  # Ctrl-C, say: nobody waits any more
            asking.give_up(reply)
        raise
    return reply.value()


def ask_async(
    asking: Asking,
    target: Target,
    event: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    timeout: float | None,
) -> Answer:
    """Ask, and return the Answer."""
    name = event if type(event) is str and event in _checked else _check(event)
    payload, size = _encoded(args, kwargs)
    new_answer = _answer_class or _import_answer()
    answer = new_answer(asking, target, name, timeout)
    asking.ask(target.kind, name, target.route, payload, size, timeout, answer, target.child, target.retries)
    if timeout is not None:
        asking.deadlines.add(answer, timeout)
    return answer


def gather(
    asking: Asking,
    target: Target,
    event: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    timeout: float | None,
) -> Gathering:
    """Ask all, and return an iterator over what they answer."""
    from .gathering import Gathering  # late, as it is rarely used

    name = _check(event)
    payload, size = _encoded(args, kwargs)
    gathering = Gathering(asking, Question(name, "", timeout))
    asking.ask(target.kind, name, target.route, payload, size, timeout, gathering.arrivals)
    return gathering
