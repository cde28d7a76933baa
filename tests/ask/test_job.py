"""A request as it is answered: the function is called, and what it comes to is the answer."""

from __future__ import annotations

import pytest
from places import in_thread

from ipevents._ask.job import Job, carry_out, running_here
from ipevents._core.messages import REQUEST, Envelope
from ipevents._core.requests import RAISED, VALUE
from ipevents._exceptions import RemoteError, Unpicklable
from ipevents._payload import forms, outcomes
from ipevents._payload.numbered import numbered, numbers_of, without_numbers

NUMBER = 1 << 62


def made(*args, **kwargs):
    payload, _ = forms.encode(args, kwargs)
    envelope = Envelope(REQUEST, ("1", "2"), "resize", lambda *reply: None, to="2")
    return Job(None, NUMBER, 0, envelope, numbered(NUMBER, 0, payload))


def value(function, *args, **kwargs):
    payload, size = carry_out(made(*args, **kwargs), function, "2")
    assert numbers_of(payload) == (NUMBER, VALUE)
    assert size >= forms.size_of(payload)
    return outcomes.value_of(without_numbers(payload))


def raised(function, *args):
    payload, size = carry_out(made(*args), function, "2")
    assert numbers_of(payload) == (NUMBER, RAISED)
    assert size >= forms.size_of(payload)
    with pytest.raises(BaseException) as caught:  # whatever it is
        outcomes.raise_again(without_numbers(payload))
    return caught.value


def test_the_function_is_called_with_the_message_and_the_arguments():
    def function(message, *args, **kwargs):
        return message.event, message.type, message.pids, message.to, args, kwargs

    assert value(function, 1, [2], key="x") == ("resize", "request", ("1", "2"), "2", (1, [2]), {"key": "x"})
    assert value(function) == ("resize", "request", ("1", "2"), "2", (), {})


@pytest.mark.parametrize("what", [None, 0, "", b"", (), [1], {"a": b"x" * (1 << 20)}], ids=range(7))
def test_what_it_returns_is_the_value(what):
    assert value(lambda message: what) == what


def test_what_it_raises_is_the_answer_with_its_own_lines_only():
    def function(message):
        raise LookupError("mine")

    error = raised(function)
    assert (type(error), error.args) == (LookupError, ("mine",))
    cause = error.__cause__
    assert isinstance(cause, RemoteError)
    assert 'raise LookupError("mine")' in cause.traceback
    assert "carry_out" not in cause.traceback
    assert cause.pid == "2"


@pytest.mark.parametrize("exc", [GeneratorExit(), KeyboardInterrupt()])
def test_what_is_no_exception_is_told_and_not_rebuilt(exc):
    def function(message):
        raise exc

    errors = []
    in_thread(lambda: errors.append(raised(function)))()
    (error,) = errors
    assert (type(error), error.typeName) == (RemoteError, type(exc).__name__)


def test_what_a_signal_handler_has_raised_in_the_main_thread_is_no_answer():
    def function(message):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        carry_out(made(), function, "2")
    assert running_here() is None


def test_wrong_arguments_are_an_error_of_the_caller():
    assert type(raised(lambda message: None, 1, 2)) is TypeError


def test_a_value_that_cannot_be_sent_is_an_error_that_says_so():
    error = raised(lambda message: (each for each in ()))
    assert type(error) is Unpicklable
    assert "what was returned for 'resize' cannot be sent" in str(error)


def test_an_exit_is_no_answer():
    def function(message):
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        carry_out(made(), function, "2")
    assert running_here() is None


def test_arguments_that_cannot_be_read_are_an_error_of_the_answer():
    job = made()
    job.payload = numbered(NUMBER, 0, b"no pickle")
    payload, _ = carry_out(job, lambda message: None, "2")
    assert numbers_of(payload) == (NUMBER, RAISED)


def test_the_job_of_a_thread_is_the_innermost_one():
    inner, outer = made(), made()
    seen = []

    def within(message):
        seen.append(running_here())

    def around(message):
        seen.append(running_here())
        carry_out(inner, within, "2")
        seen.append(running_here())

    carry_out(outer, around, "2")
    assert seen == [outer, inner, outer]
    assert running_here() is None
