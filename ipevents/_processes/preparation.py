"""What multiprocessing does at the start of one of our children, changed in three ways.

- SIGINT is blocked until the child is ready for it: a Ctrl-C in a terminal goes to all processes.
- The child is told nothing about the main module, so it does not import it.
- The interpreter of the child gets all options of this one.

``multiprocessing.spawn`` has no hooks for the last two, so two of its functions are replaced, once. They do
what they did before in all starts but ours. ``_patch_lock`` is held for that only.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from multiprocessing import process
from typing import Any

from .._exceptions import WorkerRefused

UNKNOWN_EXITCODE = 255  # of a process; multiprocessing uses the same where it does not know the code

_ours = threading.local()
_patch_lock = threading.Lock()


def check_interpreter() -> None:
    """Refuse to start a child if there is no interpreter for it: multiprocessing would not notice.

    Raises WorkerRefused.
    """
    from multiprocessing import spawn

    found = spawn.get_executable()
    path = os.fsdecode(found) if found else ""
    if not os.path.isfile(path) or not os.access(path, os.X_OK):
        raise WorkerRefused(
            f"there is no Python interpreter to run a child: sys.executable is {path!r} for multiprocessing; "
            "multiprocessing.set_executable(path) names another one"
        )


@contextlib.contextmanager
def own_start() -> Iterator[None]:
    """Mark what this thread starts as ours: it gets the options of this interpreter, and no main module."""
    _patch_preparation()
    _ours.starting = True
    try:
        yield
    finally:
        _ours.starting = False


@contextlib.contextmanager
def quiet_start() -> Iterator[None]:
    """Block SIGINT during a start of ours."""
    from multiprocessing import resource_tracker  # late: a process without children does without

    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        with own_start():  # its end comes first: with the last line here a handler may run, and raise
            # It would inherit a blocked SIGINT. It leaves SIGINT and SIGTERM unblocked here, whatever they
            # were.
            resource_tracker.ensure_running()
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def is_starting() -> bool:
    """Return whether this thread is within ``own_start``."""
    return getattr(_ours, "starting", False)


def _patch_preparation() -> None:
    """Replace what multiprocessing sends to a new process, once; it has an effect on our own starts only.

    Our children get nothing about the main module. So a child does not import it, and a script needs no ``if
    __name__ == "__main__"`` guard. multiprocessing itself would look at the main module in any case, and fail
    where that has no ``__spec__`` (under pdb before Python 3.13) or is gone.
    """
    with _patch_lock:
        from multiprocessing import spawn

        original, command = spawn.get_preparation_data, spawn.get_command_line
        if getattr(original, "_is_ipevents", False):
            return

        def get_preparation_data(name: str) -> dict[str, Any]:
            return _preparation_data(name) if is_starting() else original(name)

        def get_command_line(**kwds: Any) -> list[str]:
            line = command(**kwds)
            if is_starting() and not getattr(sys, "frozen", False):
                words = list(map(os.fsdecode, line))  # python is bytes, which are not to be compared (-bb)
                line[1:1] = missing_options(words, sys._xoptions, sys.orig_argv)
            return line

        get_preparation_data._is_ipevents = True  # type: ignore[attr-defined]  # a mark for the test above
        spawn.get_preparation_data = get_preparation_data
        spawn.get_command_line = get_command_line


def _preparation_data(name: str) -> dict[str, Any]:
    """Return what multiprocessing sends to a new process, but nothing of the main module."""
    from multiprocessing import spawn, util

    private: Any = spawn  # not in typeshed, nor what follows
    private._check_not_importing_main()
    private = util
    began_in = process.ORIGINAL_DIR  # type: ignore[attr-defined]
    current = process.current_process()
    data = {
        "name": name,
        "log_to_stderr": private._log_to_stderr,
        "authkey": current.authkey,
        "sys_path": [began_in if entry == "" else entry for entry in sys.path],
        "sys_argv": sys.argv,
        "orig_dir": began_in,
        "dir": os.getcwd(),
        "start_method": multiprocessing.get_start_method(allow_none=True),
    }
    if private._logger is not None:
        data["log_level"] = private._logger.getEffectiveLevel()
    return data


def missing_options(line: list[str], given: Mapping[str, str | bool], typed: list[str]) -> list[str]:
    """Return the ``-X`` options and the ``-u`` of this interpreter that the command line ``line`` lacks.

    ``line`` is for another interpreter, ``typed`` is the command line of this one, ``given`` has its ``-X``
    options. multiprocessing passes on all ``-X`` options in the newest Pythons only, in others those of a
    short list, and never ``-u``.
    """
    there = {after.partition("=")[0] for option, after in zip(line, line[1:], strict=False) if option == "-X"}
    found = []
    for name, value in given.items():
        if name not in there:
            found += ["-X", name if value is True else f"{name}={value}"]
    return ["-u", *found] if _is_unbuffered(typed) else found


def _is_unbuffered(typed: list[str]) -> bool:
    """Return whether ``-u`` is among the options of a command line, before the script, ``-c`` or ``-m``."""
    words = iter(typed[1:])
    for word in words:
        if not word.startswith("-") or word in ("-", "--"):
            return False
        if word.startswith("--"):  # --check-hash-based-pycs always
            next(words, None)
            continue
        for at, letter in enumerate(word[1:], 2):
            if letter in "ucm":
                return letter == "u"
            if letter in "WX":  # with a value: the rest of the word, else the next one
                if at == len(word):
                    next(words, None)
                break
    return False
