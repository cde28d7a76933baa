"""The exceptions: one tree, each with its text and its attributes."""

from __future__ import annotations

import builtins
import copy
import inspect
import pickle
import re
import tracemalloc
import types

import pytest

import ipevents
from ipevents import IPEventsError, _exceptions
from ipevents._exceptions import shown

EXCEPTIONS = {
    name: value
    for name, value in vars(_exceptions).items()
    if isinstance(value, type) and issubclass(value, BaseException)
}


def test_every_exception_is_exported():
    assert set(_exceptions.__all__) == set(EXCEPTIONS)
    assert set(EXCEPTIONS) <= set(ipevents.__all__)


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_every_exception_is_one_of_ours_and_explained(name):
    assert issubclass(EXCEPTIONS[name], IPEventsError)
    assert EXCEPTIONS[name].__doc__


def drawn() -> dict[str, tuple[str, str | None]]:
    """The tree in the docstring: name to the name above it, and the builtin in brackets."""
    found: dict[str, tuple[str, str | None]] = {}
    above: list[str] = []
    for line in (_exceptions.__doc__ or "").splitlines():
        match = re.match(r"    ([│├└─ ]*)(\w+)(?: \((\w+)\))?", line)
        if match is None or match[2] not in EXCEPTIONS:
            continue
        depth = len(match[1]) // 4
        above[depth:] = [match[2]]
        found[match[2]] = (above[depth - 1] if depth else "Exception", match[3])
    return found


def test_the_tree_in_the_docstring_is_the_tree():
    real = {}
    for name, exception in EXCEPTIONS.items():
        first, *rest = (base.__name__ for base in exception.__bases__)
        assert all(hasattr(builtins, base) for base in rest)
        real[name] = (first, rest[0] if rest else None)
    assert drawn() == real


NOT_TEXTS = {"begun": True, "seconds": 1.5, "attempts": 2}  # by parameter: what the text needs as it is


def made(cls: type[BaseException]) -> BaseException:
    """An exception with something else in every attribute; with a text where it has none."""
    if not isinstance(cls.__init__, types.FunctionType):
        return cls("a text")
    names = list(inspect.signature(cls.__init__).parameters)[1:]
    return cls(*(NOT_TEXTS.get(name, f"its {name}") for name in names))


@pytest.mark.parametrize("copied", [lambda exc: pickle.loads(pickle.dumps(exc)), copy.copy, copy.deepcopy])
@pytest.mark.parametrize("name", EXCEPTIONS)
def test_an_exception_survives_a_pickle_and_a_copy_with_all_its_attributes(name, copied):
    exception = made(EXCEPTIONS[name])
    exception.added = "by the user"  # type: ignore[attr-defined]

    read = copied(exception)

    assert type(read) is type(exception)
    assert (str(read), read.args, vars(read)) == (str(exception), exception.args, vars(exception))


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_an_attribute_that_an_exception_is_made_with_is_one_that_it_has(name):
    exception = made(EXCEPTIONS[name])
    if exception.args != ("a text",):
        assert exception.args == tuple(vars(exception).values())


@pytest.mark.parametrize(
    ("traceback", "words"),
    [
        ("", ""),
        ("LookupError: mine\n", ": LookupError: mine"),
        ("Traceback:\n  File x\n    code\n    ^^^\nLookupError: a\nb\na note\n", ": LookupError: a"),
    ],
)
def test_a_failed_start_says_what_was_raised_and_not_where(traceback, words):
    error = ipevents.StartFailed("1", 3, traceback, name="resize")
    assert str(error) == f"child resize (1) ended before it was online, exit code 3{words}"
    assert error.traceback == traceback
    later = ipevents.TargetFailed("1", 3, traceback, "resize")
    assert str(later) == f"child resize (1) failed, exit code 3{words}"
    assert later.traceback == traceback


@pytest.mark.parametrize(
    ("begun", "words"),
    [(True, "it was begun"), (False, "it was not begun"), (None, "it may have been begun")],
)
def test_a_request_that_was_lost_says_who_is_gone_and_whether_it_was_begun(begun, words):
    error = ipevents.AnswererLost("resize", "4711", "worker", -9, begun)
    assert str(error) == (
        f"request 'resize' is not answered, {words}: child worker (4711) is gone, exit code -9"
    )
    again = ipevents.AnswererLost("resize", "4711", begun=begun, attempts=3)
    assert str(again) == (
        f"request 'resize' is not answered, {words}: process 4711 is gone; given out 3 times"
    )


def test_a_request_without_an_answerer_says_why_in_printable_characters():
    error = ipevents.NoAnswerer("resize", "4711", "\x1b[31m4711 only listens")
    assert str(error) == r"request 'resize' has no answerer: \x1b[31m4711 only listens"
    assert isinstance(error, LookupError)
    assert (error.event, error.pid, error.attempts) == ("resize", "4711", 1)


@pytest.mark.parametrize(("pid", "words"), [("4711", " of 4711"), ("", "")])
def test_a_timeout_says_of_whom_there_was_no_answer(pid, words):
    error = ipevents.RequestTimeout("resize", pid, 0.25)
    assert str(error) == f"request 'resize': no answer{words} within 0.25 s"
    assert isinstance(error, TimeoutError)
    assert (error.errno, error.strerror, error.filename) == (None, None, None)  # it is none of the system's


def test_what_was_raised_elsewhere_says_where_and_in_which_request():
    error = ipevents.RemoteError("mine.Odd", "text", "its traceback", "4711", "worker", "resize")
    assert str(error) == "mine.Odd in child worker (4711), asked for 'resize': text\nits traceback"
    assert str(ipevents.RemoteError("mine.Odd", "text", "", "4711")) == "mine.Odd in 4711: text\n"


def test_what_a_child_has_said_is_shown_in_printable_characters():
    raised = ipevents.StartFailed("1", 3, "Traceback:\n  File x\nLookupError: \x1b[31m\ud800\n")
    assert str(raised) == r"child 1 ended before it was online, exit code 3: LookupError: \x1b[31m\ud800"
    assert str(ipevents.StartFailed("1", None, why="a\nb")).endswith(r"again: a\nb")


def test_a_start_that_the_system_refused_says_why():
    error = ipevents.StartFailed("1", None, why="OSError: no more", name="resize")
    assert str(error) == "child resize (1) could not be started again: OSError: no more"


@pytest.mark.parametrize(
    "value",
    [
        "x" * 100,
        b"\0" * 100,
        (1,) * 100,
        ["long", "x" * 100, b"x"],
        ([("x" * 1000,)] * 50,),
        ("short",),
        [],
        {"x" * 100: 1},
        1 << 400,
    ],
    ids=range(9),
)
def test_what_is_shown_is_the_beginning_of_the_repr(value):
    text = repr(value)
    assert shown(value) == (text if len(text) <= 80 else text[:77] + "...")


def test_a_long_value_is_shown_without_its_whole_repr():
    value = (bytes(1 << 24), ["x" * (1 << 24)])
    tracemalloc.start()
    assert len(shown(value)) == 80
    assert tracemalloc.get_traced_memory()[1] < 1 << 16
    tracemalloc.stop()
