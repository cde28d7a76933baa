"""What a call in another process came to, on its way: values, and exceptions of any kind."""

from __future__ import annotations

import pickle
import sys

import pytest

from ipevents import RemoteError, Unpicklable
from ipevents._payload.outcomes import of_exception, of_value, raise_again, value_of

TRACE = "Traceback (most recent call last):\n  somewhere"


class TwoArguments(Exception):
    def __init__(self, one, two):
        super().__init__(one)
        self.two = two


class Kept(Exception):
    def __init__(self, one, two):
        super().__init__(one, two)
        self.extra = [one, two]


class NoPickle(Exception):
    def __reduce__(self):
        raise LookupError("never")


class NoRead(Exception):
    def __reduce__(self):
        return _raise, ()


class EndsAll(Exception):
    def __reduce__(self):
        raise SystemExit(0)


class OtherRead(Exception):
    def __reduce__(self):
        return str, ("no exception",)


class NoText(Exception):
    def __str__(self):
        raise LookupError("no text")


class Locked(Exception):
    def __init__(self):
        super().__init__("locked")
        self.lock = __import__("threading").Lock()


class NoException(BaseException):
    pass


def _raise():
    raise LookupError("not here")


def travelled(exc):
    """What comes of an exception at the other end."""
    payload, size = of_exception(exc, TRACE, "4711")
    assert size > 0
    with pytest.raises(BaseException) as caught:  # noqa: PT011  # any
        raise_again(payload)
    return caught.value


@pytest.mark.parametrize("value", [None, 5, "x", (1, 2), {"a": [1]}, b"x" * 1_000_000, bytearray(300_000)])
def test_a_value_arrives_as_it_is(value):
    payload, _ = of_value(value)
    read = value_of(payload)
    assert (type(read), read) == (type(value), value)


def test_a_value_that_cannot_be_sent_is_refused():
    with pytest.raises(Unpicklable):
        of_value(x for x in ())


@pytest.mark.parametrize(
    "exc",
    [ValueError("x"), KeyError("x"), OSError(2, "no", "file"), Kept(1, 2),
     UnicodeDecodeError("utf-8", b"", 0, 1, "x"), RecursionError("deep")],
)  # fmt: skip
def test_an_exception_arrives_with_its_type_and_a_remote_error_as_its_cause(exc):
    read = travelled(exc)
    assert type(read) is type(exc)
    assert (read.args, str(read)) == (exc.args, str(exc))
    assert vars(read) == vars(exc)
    cause = read.__cause__
    assert type(cause) is RemoteError
    assert (cause.typeName.rpartition(".")[2], cause.text) == (type(exc).__name__, str(exc))
    assert (cause.traceback, cause.pid) == (TRACE, "4711")
    assert TRACE in str(cause)


@pytest.mark.parametrize("exc", [TwoArguments(1, 2), NoPickle("x"), NoRead("x"), OtherRead("x"), Locked()])
def test_what_cannot_be_rebuilt_is_a_remote_error(exc):
    read = travelled(exc)
    assert type(read) is RemoteError
    assert read.typeName.endswith(f"test_outcomes.{type(exc).__name__}")
    assert (read.text, read.traceback, read.pid, read.__cause__) == (str(exc), TRACE, "4711", None)


@pytest.mark.parametrize("exc", [KeyboardInterrupt(), NoException("x"), SystemExit(3), GeneratorExit()])
def test_what_is_no_exception_there_is_a_remote_error_here(exc):
    read = travelled(exc)
    assert type(read) is RemoteError
    assert read.typeName.endswith(type(exc).__name__)


def test_an_exception_whose_pickling_ends_the_process_is_a_remote_error():
    read = travelled(EndsAll("x"))
    assert (type(read), read.text) == (RemoteError, "x")


def test_a_value_that_fits_into_no_frame_is_refused(monkeypatch):
    monkeypatch.setattr("ipevents._payload.outcomes.MAX_FRAME_BYTES", (1 << 20) + 1000)
    of_value({"k": b"x" * 800})
    of_value(bytes(10_000_000))  # beside the frame
    with pytest.raises(Unpicklable, match="bytes"):
        of_value({"k": b"x" * 2000})


def test_why_a_value_could_not_be_sent_is_raised_in_its_place():
    payload, _ = of_exception(Unpicklable("never"), TRACE, "4711")
    with pytest.raises(Unpicklable, match="never"):
        value_of(payload)


def test_a_text_that_cannot_be_made_is_replaced():
    read = travelled(NoText("x"))
    assert type(read) is NoText
    assert "NoText" in read.__cause__.text


def test_an_exception_whose_class_is_gone_here_is_a_remote_error(monkeypatch):
    payload, _ = of_exception(Kept(1, 2), TRACE, "4711")
    monkeypatch.delattr(sys.modules[__name__], "Kept")
    with pytest.raises(RemoteError, match="Kept"):
        raise_again(payload)


def test_a_class_that_was_made_in_a_function_travels_by_value():
    class Local(Exception):
        pass

    read = travelled(Local("x"))
    assert (type(read).__name__, read.args) == ("Local", ("x",))


def test_a_builtin_is_named_without_its_module():
    assert travelled(ValueError("x")).__cause__.typeName == "ValueError"


def test_a_remote_error_can_be_pickled():
    error = travelled(NoPickle("x"))
    assert vars(pickle.loads(pickle.dumps(error))) == vars(error)
