"""What foreign code raises in the middle of the library: in a repr, in logging, in a finalizer."""

from __future__ import annotations

import logging
import threading
import weakref

import pytest

from ipevents import Emitter, UnreadablePayload
from ipevents._exceptions import shown
from ipevents._platform import guards, latches
from ipevents._platform.guards import foreign, forget_values, patient, told
from ipevents._platform.latches import Wakeup
from ipevents._platform.logs import Log, traceback_of

CEILING_SECONDS = 30.0


class Raises:
    """An object whose repr raises what it was given."""

    def __init__(self, exc):
        self.exc = exc

    def __repr__(self):
        raise self.exc

    __str__ = __repr__


class Leaves(BaseException):
    """No Exception."""


EXCEPTIONS = [ZeroDivisionError(), MemoryError(), RecursionError()]
LEAVING = [SystemExit(3), GeneratorExit(), KeyboardInterrupt(), Leaves()]


def in_thread(call):
    """Run a call in a thread of its own; returns what it returned or raised."""
    found = []

    def run():
        try:
            found.append(call())
        except BaseException as exc:  # whatever it is, the test looks at it
            found.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(CEILING_SECONDS)
    return found[0]


@pytest.mark.parametrize("exc", EXCEPTIONS, ids=lambda exc: type(exc).__name__)
def test_a_value_is_shown_whatever_its_repr_raises(exc):
    assert shown(Raises(exc)).startswith("<Raises object at 0x")


@pytest.mark.parametrize("exc", LEAVING, ids=lambda exc: type(exc).__name__)
def test_what_is_no_exception_goes_up_to_the_code_that_called_in_the_main_thread_only(exc):
    """There a signal handler may have raised it, to end the program."""
    with pytest.raises(type(exc)):
        told(Raises(exc))
    assert in_thread(lambda: told(Raises(exc))) == "<a value that cannot be shown>"
    assert foreign() is Exception
    assert in_thread(foreign) is BaseException


class Meta(type):
    @property
    def __name__(cls):
        raise ZeroDivisionError


class Nameless(metaclass=Meta):
    def __repr__(self):
        raise ZeroDivisionError


class Text(str):
    __slots__ = ()

    def __str__(self):
        raise ZeroDivisionError

    __len__ = __getitem__ = __format__ = __str__


class Textual:
    def __repr__(self):
        return Text("odd")


def test_a_class_without_a_name_and_a_text_that_is_none_are_shown():
    assert shown(Nameless()).startswith("<Nameless object at 0x")
    assert (shown(Textual()), type(shown(Textual()))) == ("odd", str)


def test_a_long_text_is_cut():
    assert shown("x" * 1000) == f"'{'x' * 76}..."
    assert len(told("x" * 1000, 200)) == 200


class Odd(Exception):
    def __repr__(self):
        raise ZeroDivisionError

    __str__ = __repr__


def test_a_traceback_is_made_of_an_exception_that_cannot_be_shown():
    with pytest.raises(Odd) as caught:
        raise Odd
    assert "Odd" in traceback_of(caught.value)


@pytest.mark.parametrize("exc", EXCEPTIONS, ids=lambda exc: type(exc).__name__)
@pytest.mark.parametrize("level", ["debug", "warning", "error", "exception"])
def test_a_logging_filter_that_raises_costs_its_record_and_no_more(exc, level, capfd):
    class Filter(logging.Filter):
        def filter(self, record):
            raise exc

    logger = logging.getLogger("ipevents.test_guards")
    before, hurdle = logger.level, Filter()
    logger.setLevel(logging.DEBUG)
    logger.addFilter(hurdle)
    try:
        in_library = in_thread(lambda: getattr(Log("ipevents.test_guards"), level)("%s", "text"))
    finally:
        logger.removeFilter(hurdle)
        logger.setLevel(before)
    assert in_library is None


def test_a_fault_in_a_row_is_borne_some_times_and_then_given_up(monkeypatch):
    pauses = []
    monkeypatch.setattr(guards, "sleep", pauses.append)
    assert [patient(fault) for fault in range(1, guards.FAULTS + 1)] == [True] * (guards.FAULTS - 1) + [False]
    assert pauses == sorted(pauses)
    assert pauses[-1] <= 1.0


def test_what_a_test_puts_into_time_sleep_is_not_the_librarys(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: 1 / 0)
    assert guards.patient(1)


def test_a_ring_waits_for_no_other_ring(monkeypatch):
    """A collected receiver may ring in the middle of a ring, in any thread that holds any lock."""
    wakeup = Wakeup()
    write = latches.os.write
    inner = []

    def write_slowly(descriptor, data):
        monkeypatch.setattr(latches.os, "write", write)
        inner.append(in_thread(wakeup.ring))
        return write(descriptor, data)

    monkeypatch.setattr(latches.os, "write", write_slowly)
    wakeup.ring()
    assert inner == [None]
    assert wakeup.clear()
    wakeup.close()


class Unreadable:
    def __init__(self, exc=None):
        pass

    def __reduce__(self):
        return explode, ()


def explode():
    raise Odd


def test_an_event_whose_unpickling_raises_what_cannot_be_shown_is_lost_alone():
    def work():
        ipem.sendToParents("x", Unreadable())
        ipem.sendToParents("y")

    from ipevents import ipem

    emitter = Emitter().options(useSocket=False, restart=False)
    errors = []
    emitter.on("x", lambda message, value: errors.append("delivered"))
    emitter.on("error", lambda message, exc: errors.append(exc))
    with emitter, emitter.expecting("y", CEILING_SECONDS):
        emitter.worker(work)
    assert [type(exc) for exc in errors] == [UnreadablePayload]
    assert emitter.stats()["unreadable"] == 1


class Value:
    """Something that a weak reference can tell the end of."""


def test_an_exception_keeps_its_lines_and_lets_the_values_of_its_frames_go():
    held = []

    def fail():
        value = Value()
        held.append(weakref.ref(value))
        raise ValueError("an error")

    with pytest.raises(ValueError, match="an error") as caught:
        fail()
    assert held[0]() is not None
    forget_values(caught.value)
    assert held[0]() is None
    assert "value = Value()" not in traceback_of(caught.value)
    assert 'raise ValueError("an error")' in traceback_of(caught.value)


def test_a_frame_that_still_runs_keeps_its_values():
    value = Value()
    try:
        raise ValueError("an error")
    except ValueError as exc:
        forget_values(exc)
    assert isinstance(value, Value)
