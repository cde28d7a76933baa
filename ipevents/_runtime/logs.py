"""Loggers and tracebacks that import ``logging`` and ``traceback`` when there is something to say.

The two are a tenth of the time in which a child starts. What is said when no descriptor is left to import
them with goes to stderr without them: a report must not fail for the reason that it reports.
"""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["Log", "traceback_of"]


class Log:
    """``logging.getLogger(name)`` for those who say little. Any thread; the caller holds no lock."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def debug(self, text: str, *args: object) -> None:
        # Who wants debug lines has set a level, and imported logging for that.
        if "logging" in sys.modules:
            self._say("debug", text, args)

    def warning(self, text: str, *args: object) -> None:
        self._say("warning", text, args)

    def error(self, text: str, *args: object, exc_info: BaseException | None = None) -> None:
        self._say("error", text, args, exc_info)

    def exception(self, text: str, *args: object) -> None:
        """An error, with the exception that is being handled."""
        self._say("error", text, args, sys.exc_info()[1])

    def _say(self, level: str, text: str, args: tuple[Any, ...], exc: BaseException | None = None) -> None:
        try:
            import logging
        except (ImportError, OSError):
            why = "" if exc is None else f" ({exc!r})"
            if sys.stderr is not None:
                print(f"{text % args}{why}", file=sys.stderr)
            return
        say = getattr(logging.getLogger(self._name), level)
        say(text, *args, exc_info=exc, stacklevel=3)  # who called debug(), warning() ...


def traceback_of(exc: BaseException) -> str:
    """The traceback of an exception as text, ended by a line break."""
    try:
        import traceback
    except (ImportError, OSError):
        return f"{exc!r}\n"
    return "".join(traceback.format_exception(exc))
