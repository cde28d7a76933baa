from __future__ import annotations

import contextlib
import pickle
import sys

import pytest

from ipevents._core.stopping import Raised
from ipevents._platform import signal_exceptions


@pytest.fixture(autouse=True)
def _nothing_raised(monkeypatch):
    monkeypatch.setattr(signal_exceptions, "_raised", None)


def raise_one(code: int = 0) -> None:
    raise signal_exceptions.terminated(code)


def test_an_exception_is_alive_until_the_program_has_swallowed_it():
    seen = [signal_exceptions.raised()]
    try:
        try:
            raise_one()
        finally:
            seen.append(signal_exceptions.raised())
    except SystemExit:
        seen.append(signal_exceptions.raised())
    seen.append(signal_exceptions.raised())
    assert seen == [Raised.NEVER, Raised.ALIVE, Raised.ALIVE, Raised.DEAD]


def test_an_exception_that_a_finalizer_swallowed_is_dead(monkeypatch):
    class Finalized:
        def __del__(self):
            raise_one()

    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)
    Finalized()
    assert signal_exceptions.raised() is Raised.DEAD


def test_an_exception_that_became_the_context_of_another_is_alive_with_that():
    try:
        try:
            raise_one()
        except SystemExit:
            raise KeyError from None
    except KeyError:
        assert signal_exceptions.raised() is Raised.ALIVE
    assert signal_exceptions.raised() is Raised.DEAD


def test_it_is_a_system_exit_with_a_code_also_elsewhere():
    with pytest.raises(SystemExit) as caught:
        raise_one(143)
    copied = pickle.loads(pickle.dumps(caught.value))
    assert (caught.value.code, copied.code, type(copied)) == (143, 143, signal_exceptions.Terminated)


@pytest.mark.parametrize("make", [KeyboardInterrupt, lambda: SystemExit(143)])
def test_what_a_signal_raised_is_at_work_while_it_is_handled_and_not_after(make):
    seen = []

    def look() -> None:
        seen.append(signal_exceptions.is_at_work())

    @contextlib.contextmanager
    def manager():
        try:
            yield
        finally:
            look()

    look()
    with contextlib.suppress(BaseException), contextlib.ExitStack() as stack:
        stack.callback(look)
        with manager():
            raise signal_exceptions.marked(make())
    try:
        try:
            raise signal_exceptions.marked(make())
        finally:
            try:
                raise KeyError
            except KeyError:
                look()
    except BaseException:
        look()
    look()
    assert seen == [False, True, True, True, True, False]


def test_other_exceptions_are_not_at_work():
    seen = []
    for exc in (KeyboardInterrupt(), SystemExit(1), KeyError("x")):
        try:
            raise exc
        except BaseException:
            seen.append(signal_exceptions.is_at_work())
    assert seen == [False] * 3


def test_a_circle_of_exceptions_is_looked_through_once():
    one, other = KeyError(1), KeyError(2)
    one.__context__, other.__context__ = other, one
    try:
        raise one
    except KeyError:
        assert not signal_exceptions.is_at_work()
