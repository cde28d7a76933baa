from __future__ import annotations

import threading

import pytest

from ipevents._exceptions import shown
from ipevents._runtime import guards
from ipevents._runtime.guards import foreign, patient, told
from ipevents._runtime.threads import start_thread


class Leaves(BaseException):
    """No Exception."""


def broken(kind):
    class Broken(Exception):
        def __repr__(self):
            raise kind

        __str__ = __repr__

    return Broken()


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


class Odd:
    def __repr__(self):
        return Text("odd")


def in_a_thread(call):
    """What it returns, or the exception that comes out, in a thread of the library."""
    found = []

    def run():
        try:
            found.append(call())
        except BaseException as exc:
            found.append(type(exc))

    start_thread("test", run).join()
    return found[0]


@pytest.mark.parametrize("kind", [ZeroDivisionError, RecursionError, MemoryError])
def test_whatever_a_repr_raises_the_value_is_shown(kind):
    assert shown(broken(kind)).startswith("<Broken object at 0x")
    assert in_a_thread(lambda: told(broken(kind))).startswith("<Broken object at 0x")


@pytest.mark.parametrize("kind", [SystemExit, GeneratorExit, KeyboardInterrupt, Leaves])
def test_what_is_no_exception_goes_on_in_the_main_thread_only(kind):
    with pytest.raises(kind):
        shown(broken(kind))
    with pytest.raises(kind):
        told(broken(kind))
    assert in_a_thread(lambda: told(broken(kind))) == "<a value that cannot be shown>"


def test_a_class_without_a_name_and_a_text_that_is_none_are_shown():
    assert shown(Nameless()).startswith("<Nameless object at 0x")
    assert (shown(Odd()), type(shown(Odd()))) == ("odd", str)


def test_a_long_text_is_cut():
    assert shown("x" * 1000) == f"'{'x' * 76}..."
    assert len(told("x" * 1000, 200)) == 200


def test_what_is_caught_around_foreign_code():
    assert threading.current_thread() is threading.main_thread()
    assert foreign() is Exception
    assert in_a_thread(foreign) is BaseException


def test_a_loop_has_patience_with_faults_that_may_pass(monkeypatch):
    pauses = []
    monkeypatch.setattr(guards.time, "sleep", pauses.append)
    assert [patient(faults) for faults in range(1, 12)] == [True] * 9 + [False] * 2
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (0.01, 1.0)
