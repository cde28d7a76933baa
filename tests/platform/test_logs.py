from __future__ import annotations

import logging
import subprocess
import sys
import traceback
from functools import partial

import pytest

from ipevents._platform.logs import Log, traceback_of
from ipevents._platform.threads import start_thread


@pytest.fixture(autouse=True)
def _everything(caplog):
    caplog.set_level(logging.DEBUG, "ipevents")


@pytest.mark.parametrize("level", ["debug", "warning", "error"])
def test_a_line_comes_from_its_logger_and_from_the_place_that_says_it(caplog, level):
    getattr(Log("ipevents.test"), level)("= %s is %s", "it", 1)

    (record,) = caplog.records
    assert record.getMessage() == "= it is 1"
    assert (record.name, record.levelname) == ("ipevents.test", level.upper())
    assert (record.pathname, record.exc_info) == (__file__, None)


def test_an_exception_brings_its_traceback(caplog):
    try:
        raise ZeroDivisionError
    except ZeroDivisionError as exc:
        raised = exc
        Log("ipevents.test").exception("! %s", "it")
    Log("ipevents.test").error("! %s", "it", exc_info=raised)

    assert [record.exc_info[1] for record in caplog.records] == [raised, raised]
    assert {(record.levelname, record.pathname) for record in caplog.records} == {("ERROR", __file__)}


def run(code: str) -> tuple[str, str]:
    start = "import sys; from ipevents._platform.logs import Log; log = Log('ipevents.test'); "
    done = subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    return done.stdout.strip(), done.stderr.strip()


def test_a_debug_line_that_nobody_can_want_imports_nothing():
    assert run("log.debug('= it'); print('logging' in sys.modules)") == ("False", "")


def test_a_debug_line_is_seen_by_who_wants_it():
    code = "import logging; logging.basicConfig(level=logging.DEBUG); log.debug('= %s', 'it')"
    assert run(code) == ("", "DEBUG:ipevents.test:= it")


def test_a_warning_is_shown_on_stderr_as_logging_does():
    assert run("log.warning('! %s', 'it')") == ("", "! it")


FULL = """
import os, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
opened = [os.dup(0) for _ in range(64 - os.open('/dev/null', os.O_RDONLY) - 1)]
"""


def test_with_no_descriptor_left_it_is_said_all_the_same():
    code = f"""
import sys
from ipevents._platform.logs import Log, traceback_of
exec({FULL!r})
try:
    os.dup(0)
except OSError as exc:
    Log('ipevents.test').exception('! no %s', 'descriptor')
    print(traceback_of(exc), end='')
print('logging' in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr == "! no descriptor (OSError(24, 'Too many open files'))\n"
    assert done.stdout == "OSError(24, 'Too many open files')\nFalse\n"


def test_the_traceback_of_an_exception_is_the_usual_text():
    try:
        raise ZeroDivisionError("it")
    except ZeroDivisionError as exc:
        ours, usual = traceback_of(exc), traceback.format_exc()
    assert ours == usual


# One line of a bounded length, whatever a peer has put into it


def test_no_value_forges_a_line_and_none_makes_it_longer_than_a_kibibyte(caplog):
    forged = "x\n! all is well \x1b[2J"
    Log("ipevents.test").warning("! %s and %s of %r", forged, ValueError(forged), forged)
    Log("ipevents.test").error("! %s: %s (3 more)", "name", "x" * 5000)
    first, second = (record.getMessage() for record in caplog.records)
    escaped = r"x\n! all is well \x1b[2J"
    assert first == f"! {escaped} and {escaped} of '{escaped}'"
    assert len(second.encode()) <= 1024
    assert second.startswith("! name: xxx")
    assert second.endswith("x... (4326 more characters) (3 more)")


def test_many_long_values_make_no_longer_line(caplog):
    Log("ipevents.test").warning("! %s %r %s", *(["\N{GRINNING FACE}" * 1000] * 3))
    (record,) = caplog.records
    assert len(record.getMessage().encode()) <= 1024
    assert " more characters)" in record.getMessage()[-30:]


def test_a_line_with_a_percent_sign_is_said_as_it_is(caplog):
    Log("ipevents.test").warning("! %s", "50%s")
    assert caplog.records[-1].getMessage() == "! 50%s"


def test_without_logging_it_is_one_line_as_well():
    code = f"""
import sys
from ipevents._platform.logs import Log
exec({FULL!r})
Log('ipevents.test').warning('! %s', 'a\\nb' + 'x' * 5000)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.startswith("! a\\nbxxx")
    assert len(done.stderr) <= 1025
    assert done.stderr.count("\n") == 1


def test_what_is_not_wanted_is_not_even_made_into_text(caplog):
    caplog.set_level(logging.ERROR, "ipevents")
    asked = []

    class Value:
        def __str__(self):
            asked.append(self)
            return "text"

    Log("ipevents.test").warning("! %s", Value())
    assert asked == []


# Whatever the application's filters, handlers and values raise


class Broken:
    def __repr__(self):
        raise ZeroDivisionError

    __str__ = __repr__


def raising(kind):
    def handle(*args):
        raise kind("the application's mistake")

    return handle


@pytest.fixture
def logger():
    """The one that Log("ipevents.test") says it to, without what a test adds."""
    logger = logging.getLogger("ipevents.test")
    handlers, filters = list(logger.handlers), list(logger.filters)
    yield logger
    logger.handlers[:], logger.filters[:] = handlers, filters


@pytest.mark.parametrize("where", ["filter", "handler"])
@pytest.mark.parametrize("kind", [AttributeError, SystemExit, MemoryError])
def test_a_filter_or_handler_that_raises_ends_nothing_and_the_line_goes_to_stderr(
    logger, capsys, where, kind
):
    if where == "filter":
        logger.addFilter(raising(kind))
    else:
        handler = logging.Handler()
        handler.emit = raising(kind)
        logger.addHandler(handler)

    say = partial(Log("ipevents.test").error, "! %s", "it", exc_info=ValueError("it"))
    thread = start_thread("test", say)
    thread.join()

    assert capsys.readouterr().err.splitlines()[-2:] == [
        "! it (ValueError('it'))",
        f'! logging that failed ({kind.__name__}("the application\'s mistake"))',
    ]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_in_the_main_thread_what_ends_the_program_goes_through(logger, kind):
    logger.addFilter(raising(kind))
    with pytest.raises(kind):
        Log("ipevents.test").error("! it")


def test_a_value_that_cannot_be_shown_costs_no_line(caplog):
    Log("ipevents.test").error("! %s of %r, %s", Broken(), Broken(), 1)
    assert caplog.records[-1].getMessage().startswith("! <Broken object at 0x")
    assert caplog.records[-1].getMessage().endswith(", 1")


def test_a_stderr_that_is_broken_ends_nothing(logger, monkeypatch):
    logger.addFilter(raising(ValueError))
    for stderr in (None, Broken()):
        monkeypatch.setattr(sys, "stderr", stderr)
        Log("ipevents.test").error("! it")


def test_the_traceback_of_an_exception_that_cannot_be_shown_is_still_a_text():
    class Odd(Exception):
        def __repr__(self):
            raise ZeroDivisionError

        __str__ = __repr__

    assert "Odd" in traceback_of(Odd())
