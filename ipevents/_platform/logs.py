"""Loggers and tracebacks that import ``logging`` and ``traceback`` only when there is something to report.

Importing the two takes a tenth of the time in which a child starts.

A report must not fail for the very reason that it reports. If no descriptor is left to import ``logging``,
the line goes to stderr without it. Nor does a report end the thread that makes it: filters, handlers and
formatters belong to the application, and so do many of the values shown. Whatever they raise, the line goes
to stderr instead.

Each report is one line of at most 1 KiB, whatever a peer has put into it. (The traceback of an exception
follows it.)
"""

from __future__ import annotations

import sys
from typing import Any

from .._core.log_lines import one_line
from .guards import foreign, told

__all__ = ["Log", "traceback_of"]


class Log:
    """``logging.getLogger(name)`` for a module that logs little. Any thread; the caller holds no lock."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def debug(self, text: str, *args: object) -> None:
        """Log a debug line, if the program has imported ``logging``, as it must to set that level."""
        if "logging" in sys.modules:
            self._say("DEBUG", text, args)

    def info(self, text: str, *args: object) -> None:
        """Log a line of information, if the program has imported ``logging``, as for ``debug``."""
        if "logging" in sys.modules:
            self._say("INFO", text, args)

    def warning(self, text: str, *args: object) -> None:
        self._say("WARNING", text, args)

    def error(self, text: str, *args: object, exc_info: BaseException | None = None) -> None:
        self._say("ERROR", text, args, exc_info)

    def exception(self, text: str, *args: object) -> None:
        """Log an error together with the exception that is being handled."""
        self._say("ERROR", text, args, sys.exc_info()[1])

    def _say(self, level: str, text: str, args: tuple[Any, ...], exc: BaseException | None = None) -> None:
        """Log through ``logging``; print to stderr where that fails."""
        args = tuple(arg if type(arg) in _NUMBERS else _Shown(arg) for arg in args)
        try:
            import logging
        except foreign():  # no descriptor, no memory, a warning that is an error
            _print(text, args, exc)
            return
        try:
            logger = logging.getLogger(self._name)
            number = getattr(logging, level)
            if logger.isEnabledFor(number):
                # The caller of debug(), warning() ...
                logger.log(number, one_line(text % args), exc_info=exc, stacklevel=3)
        except foreign() as failure:  # the application's filters and handlers
            _print(text, args, exc)
            _print("! logging that failed", (), failure)


def traceback_of(exc: BaseException) -> str:
    """The traceback of an exception as text, ended by a line break."""
    try:
        import traceback

        return "".join(traceback.format_exception(exc))
    except foreign():  # no descriptor, no memory, an exception that cannot be shown
        return f"{told(exc)}\n"


_NUMBERS = frozenset({int, float})


class _Shown:
    """A value in a log line, whatever its ``repr`` and ``str`` raise, in one line and cut to its part of it.

    Its text is made when the line is formatted, so not at all if the line is not wanted.
    """

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value

    def __repr__(self) -> str:
        return one_line(told(self.value, _LONGEST), _LONGEST)

    def __str__(self) -> str:
        try:
            return one_line(str.__str__(str(self.value)), _LONGEST)
        except foreign():  # the value's own code
            return repr(self)


_LONGEST = 700  # bytes of one value in a log line; the rest of the line stays


def _print(text: str, args: tuple[Any, ...], exc: BaseException | None) -> None:
    """Write a line to stderr without ``logging``; ignore every failure, as no place is left to report it."""
    why = "" if exc is None else f" ({told(exc)})"
    try:
        if sys.stderr is not None:
            print(one_line(f"{text % args}{why}"), file=sys.stderr)
    except foreign():  # a stderr that is closed or broken: no place is left to report it
        return
