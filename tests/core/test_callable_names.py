"""What callables are called in texts: each kind of them, and what misbehaves when it is asked."""

from __future__ import annotations

import functools

import pytest

from ipevents._core.callable_names import described, failure, short_name

FILE = __file__.rpartition("/")[2]
HERE = __name__


def job(message):
    """A listener."""


def decorated(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)

    return wrapper


class Counter:
    def job(self, message):
        """A listener."""

    def __call__(self, message):
        """A listener as well."""

    @classmethod
    def made(cls):
        """A listener of the class."""


class Heir(Counter):
    """Has its methods from elsewhere."""


class Broken:
    """Whatever it is asked for raises."""

    def __getattribute__(self, name):
        raise SystemExit(name)

    def __repr__(self):
        raise LookupError

    def __call__(self, message):
        """A listener."""


class Endless:
    """Answers for every attribute, with another one like itself."""

    def __getattr__(self, name):
        return Endless()

    def __call__(self, message):
        """A listener."""


class Numbered:
    def __init__(self):
        self.__name__ = self.__qualname__ = self.__module__ = b"bytes"

    def __call__(self, message):
        """A listener."""


class Titled(str):
    def __str__(self):
        raise LookupError


class Hidden(type):
    def __getattribute__(cls, name):
        return 7 if name in ("__name__", "__qualname__") else super().__getattribute__(name)


def line_of(function):
    return function.__code__.co_firstlineno


def at(function):
    return f"({FILE}:{line_of(function)})"


wrapped = decorated(job)
nested = functools.partial(functools.partial(Counter().job, 1), 2)
shown_lambda = lambda message: None  # noqa: E731  # it is one that is meant


@pytest.mark.parametrize(
    ("value", "short", "long"),
    [
        (job, "job", f"{HERE}.job {at(job)}"),
        (wrapped, "job", f"{HERE}.job {at(job)}"),
        (shown_lambda, "<lambda>", f"{HERE}.<lambda> {at(shown_lambda)}"),
        (Counter().job, "job", f"{HERE}.Counter.job {at(Counter.job)}"),
        (Heir().job, "job", f"{HERE}.Counter.job {at(Counter.job)}"),
        (Counter.made, "made", f"{HERE}.Counter.made {at(Counter.made)}"),
        (Counter(), "Counter", f"{HERE}.Counter object {at(Counter.__call__)}"),
        (Counter, "Counter", f"{HERE}.Counter"),
        (functools.partial(job, 1), "job", f"partial of {HERE}.job {at(job)}"),
        (nested, "job", f"partial of {HERE}.Counter.job {at(Counter.job)}"),
        (functools.lru_cache(job), "job", f"{HERE}.job {at(job)}"),
        (print, "print", "print"),
        ([].append, "append", "list.append"),
        (functools.reduce, "reduce", "_functools.reduce"),
        (Numbered(), "Numbered", f"{HERE}.Numbered object {at(Numbered.__call__)}"),
    ],
)
def test_a_callable_is_named_by_its_function_and_where_that_is_written(value, short, long):
    assert (short_name(value), described(value)) == (short, long)


def test_a_partial_of_an_object_is_named_by_the_class_of_the_object():
    value = functools.partial(Counter(), 1)
    assert short_name(value) == "Counter"
    assert described(value) == f"partial of {HERE}.Counter object {at(Counter.__call__)}"


@pytest.mark.parametrize(
    ("exc", "line"),
    [
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (KeyError(), "KeyError"),
        (ValueError("one\ntwo"), "ValueError: one"),
    ],
)
def test_an_exception_is_one_line(exc, line):
    assert failure(exc) == line


def test_an_exception_that_has_no_text_is_one_line_too():
    class Mute(Exception):
        def __str__(self):
            raise SystemExit

    assert failure(Mute()) == "Mute: (its text cannot be had)"


def test_what_raises_whatever_it_is_asked_for_is_named_all_the_same():
    assert (short_name(Broken()), described(Broken())) == (
        "Broken",
        f"{HERE}.Broken object {at(Broken.__call__)}",
    )


def test_what_answers_for_every_attribute_is_named_all_the_same():
    assert short_name(Endless()) == "Endless"
    assert described(Endless()) == f"{HERE}.Endless object {at(Endless.__call__)}"


def test_what_the_script_defines_is_named_without_its_module():
    function = functools.wraps(job)(lambda message: None)
    function.__module__ = "__main__"
    assert described(function) == f"job {at(job)}"


def test_a_partial_that_was_given_a_name_has_it():
    named = functools.partial(job)
    named.__name__ = "resize"  # type: ignore[attr-defined]
    assert short_name(named) == "resize"


def test_a_name_of_a_kind_of_its_own_becomes_a_plain_one():
    def function(message):
        """A listener."""

    function.__name__ = Titled("titled")
    assert type(short_name(function)) is str


def test_a_class_that_hides_its_name_is_shown():
    value = Hidden("Secret", (), {"__call__": job})()
    assert described(value).startswith("<")


def test_a_very_long_name_is_cut():
    def function(message):
        """A listener."""

    function.__qualname__ = "x" * 10_000
    assert len(described(function)) < 300


def test_ctrl_c_while_a_name_is_looked_for_is_not_swallowed():
    class Interrupted:
        def __getattr__(self, name):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        described(Interrupted())
