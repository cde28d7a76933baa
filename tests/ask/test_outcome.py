"""What an answer means to the process that asked."""

from __future__ import annotations

import pytest

from ipevents._ask.outcome import Question, error_of, unanswered, value_of
from ipevents._core.requests import CANCELLED, LOST, NO_ANSWERER, OVERDUE, RAISED, REFUSED, SPLIT, VALUE
from ipevents._exceptions import (
    AnswererLost,
    Closed,
    NoAnswerer,
    RemoteError,
    RequestError,
    RequestTimeout,
    UnknownProcess,
    UnreadablePayload,
)
from ipevents._payload import forms, outcomes
from ipevents._payload.numbered import numbered

ASKED = Question("resize", "4711", 2.5, 3)


def came(status, *args):
    return value_of(ASKED, "4711", "worker", status, numbered(5, status, args))


def raised(exc):
    payload, _ = outcomes.of_exception(exc, "its traceback", "4711")
    with pytest.raises(BaseException) as caught:  # whatever it is
        value_of(ASKED, "4711", "worker", RAISED, numbered(5, RAISED, payload))
    return caught.value


@pytest.mark.parametrize(
    "value", [None, 5, "text", b"x" * 100, [1, (2,)], {"a": 1}, bytearray(1 << 20)], ids=range(7)
)
def test_a_value_is_returned_in_whatever_form_it_came(value):
    payload, _ = forms.encode((value,), {})
    assert value_of(ASKED, "4711", "", VALUE, numbered(5, VALUE, payload)) == value


@pytest.mark.parametrize("args", [(), (1, 2)])
def test_a_value_that_is_none_or_several_cannot_be_read(args):
    with pytest.raises(UnreadablePayload, match="'resize' from 4711"):
        came(VALUE, *args)


def test_what_was_raised_is_raised_with_the_traceback_as_its_cause():
    error = raised(KeyError("x"))
    assert (type(error), error.args) == (KeyError, ("x",))
    cause = error.__cause__
    assert isinstance(cause, RemoteError)
    assert (cause.traceback, cause.pid, cause.name) == ("its traceback", "4711", "worker")
    assert (cause.event, cause.attempts) == ("resize", 3)


def test_what_cannot_be_rebuilt_is_the_remote_error_itself():
    class Local(Exception):
        def __reduce__(self):
            raise TypeError("no")

    error = raised(Local("text"))
    assert isinstance(error, RemoteError)
    assert (error.typeName.rpartition(".")[2], error.text) == ("Local", "text")


def test_a_keyboard_interrupt_elsewhere_is_none_here():
    error = raised(KeyboardInterrupt())
    assert (type(error), error.typeName) == (RemoteError, "KeyboardInterrupt")


@pytest.mark.parametrize(
    "args", [(), (None,), (None, "type", "text", "trace"), (None, "type", 1, "trace", "pid"), (None,) * 6]
)
def test_what_was_raised_and_makes_no_sense_cannot_be_read(args):
    with pytest.raises(UnreadablePayload):
        came(RAISED, *args)


def test_nobody_answers_there():
    error = error_of(ASKED, "4711", NO_ANSWERER, ("4711 only listens",))
    assert type(error) is NoAnswerer
    assert (error.event, error.pid, error.why, error.attempts) == ("resize", "4711", "4711 only listens", 3)


@pytest.mark.parametrize("begun", [True, False, None])
def test_a_process_that_is_gone_has_its_name_and_exit_code_and_whether_it_had_begun(begun):
    error = error_of(ASKED, "1", LOST, ("4712", "worker", -9, begun))
    assert type(error) is AnswererLost
    assert (error.pid, error.name, error.exitcode, error.begun) == ("4712", "worker", -9, begun)
    assert error.attempts == 3


@pytest.mark.parametrize("begun", [1, 0, "yes", b"", 1.0])
def test_whether_it_had_begun_is_not_known_if_it_is_told_by_anything_but_a_truth(begun):
    error = error_of(ASKED, "1", LOST, ("4712", "", "-9", begun))
    assert (error.begun, error.exitcode) == (None, None)


def test_one_that_was_cancelled_there_was_not_begun():
    error = error_of(ASKED, "4711", CANCELLED, ())
    assert (type(error), error.begun) == (AnswererLost, False)


def test_one_that_was_overdue_there_is_a_timeout_with_the_seconds_that_it_had():
    error = error_of(ASKED, "4711", OVERDUE, ())
    assert (type(error), error.seconds, error.pid) == (RequestTimeout, 2.5, "4711")


def test_one_that_was_refused_says_why():
    error = error_of(ASKED, "4711", REFUSED, ("too much waits",))
    assert type(error) is RequestError
    assert str(error) == "request 'resize' was refused by 4711: too much waits"


@pytest.mark.parametrize("status", [NO_ANSWERER, REFUSED])
@pytest.mark.parametrize("rest", [(), (5,), b"bytes", [b"", []]], ids=range(4))
def test_an_error_without_a_text_says_that(status, rest):
    assert "it says no more" in str(error_of(ASKED, "4711", status, rest))


@pytest.mark.parametrize(
    ("status", "rest"), [(LOST, ()), (LOST, (1, 2, 3)), (LOST, b"x"), (SPLIT, (1,)), (99, ())], ids=range(5)
)
def test_any_other_answer_makes_no_sense(status, rest):
    error = error_of(ASKED, "4711", status, rest)
    assert type(error) is RequestError
    assert "makes no sense" in str(error)


def test_a_process_that_is_not_known_answers_nothing():
    cause = UnknownProcess("resize", "4711", "no such child")
    error = unanswered(ASKED, cause)
    assert (type(error), error.__cause__, error.why) == (NoAnswerer, cause, str(cause))


def test_a_stop_is_no_want_of_an_answerer():
    closed = Closed("stopped")
    assert unanswered(ASKED, closed) is closed
