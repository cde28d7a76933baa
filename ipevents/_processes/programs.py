"""What a child runs: a function, this script again, or another script.

The functions here check what the user gave and turn it into a ``Program``, which is sent to the child;
``execute`` runs it there.
"""

from __future__ import annotations

import functools
import os
import pickle
import types
from collections.abc import Iterable, Mapping, Set
from typing import Any

from .._core.callable_names import described
from .._dispatch import listeners
from .._exceptions import shown
from .._payload import forms, pickled
from .._payload.inheritance import Inheritance
from .._platform.interruptible import runs_program
from . import scripts
from .scripts import CONTAINER, MODULE, SCRIPT, Program

__all__ = ["CONTAINER", "FUNCTION", "MODULE", "SCRIPT", "Program"]

FUNCTION = "function"  # its ``what``: the target, its arguments, both pickled, and what ``__main__`` is to be

MAX_NAME = 256  # characters; it goes through the pipe of the start, see Launch


def arguments(args: object) -> tuple[Any, ...]:
    """Return the positional arguments of a child as a tuple.

    Raises TypeError for what is no sequence of them.

    A str is one argument and not its letters; a set has no order.
    """
    if isinstance(args, Iterable) and not isinstance(args, (str, bytes, bytearray, Mapping, Set)):
        return tuple(args)
    raise TypeError(f"args is a list or tuple of arguments, not {shown(args)}; a single one is args=[...]")


def name(given: object, default: object) -> str:
    """Return the name of a child: the one that was given, otherwise its target's.

    Raises TypeError, ValueError.
    """
    if given is not None and not isinstance(given, str):
        raise TypeError(f"the name of a child is a str, not {shown(given)}")
    if given is not None and len(given) > MAX_NAME:
        raise ValueError(f"the name of a child has at most {MAX_NAME} characters, {shown(given)} has more")
    chosen = given or (default[:MAX_NAME] if isinstance(default, str) else "") or "worker"
    return chosen.encode("utf-8", "backslashreplace").decode()  # it is printed; a file's may hold surrogates


def function(
    target: Any,
    args: tuple[Any, ...],
    kwargs: object = None,
    inherited: Inheritance | None = None,
    *,
    is_pools: bool = False,
) -> Program:
    """Return the call of a function as a program. Target and arguments are pickled now.

    ``is_pools``: its process is a worker of a pool. It gets functions of the script later, so it has the
    script's ``__main__`` also where nothing here refers to that. ``inherited`` collects what a process has to
    inherit at its start. Raises Unpicklable, which names the culprit, and TypeError for what could not be
    called so.
    """
    _check_target(target)
    kwargs = {} if kwargs is None else kwargs
    if not isinstance(kwargs, Mapping):
        raise TypeError(f"kwargs is a dict of arguments by name, not {shown(kwargs)}")
    for key in kwargs:
        if not isinstance(key, str):
            raise TypeError(f"kwargs is a dict of arguments by name, and {shown(key)} is no name")
    from .._payload.main_names import Names  # late: a child that starts nothing does without

    inherited = Inheritance() if inherited is None else inherited
    names = Names(is_marked=is_pools)
    data = pickled.dumps(target, f"the target {described(target)}", names, inherited)
    names.seal()
    call, _ = forms.encode(args, dict(kwargs), names, inherited)
    inherited.keep(target, args, kwargs)
    main = scripts.describe(names.namespace) if names.used or is_pools else None
    return Program(FUNCTION, (data, call, main), ())


def _check_target(target: Any) -> None:
    """Refuse a target that a worker cannot run. Raises TypeError."""
    if not callable(target):
        raise TypeError(
            f"the target of a worker is a function, not {shown(target)}; a script is for fork(path)"
        )
    inner = target
    while isinstance(inner, functools.partial):
        inner = inner.func
    code = getattr(inner, "__code__", None)
    if isinstance(code, types.CodeType) and code.co_flags & listeners.CO_SUSPENDS:
        raise TypeError(
            f"calling the target {described(target)} would run nothing of it: a worker runs a plain "
            "function, no coroutine or generator (asyncio.run() in one runs a coroutine)"
        )


def this_script() -> Program:
    """Return this script, as it was started, as a program.

    Raises WorkerRefused where there is no script to run.
    """
    return scripts.here()


def other_script(path: str | os.PathLike[str], args: tuple[Any, ...]) -> Program:
    """Return another script, or a directory or archive with a ``__main__``, as a program.

    It will have ``sys.argv = [path, *args]``. Raises FileNotFoundError, PermissionError or TypeError where
    that is not to be run.
    """
    return scripts.other(path, tuple(map(_text, args)))


def _text(arg: object) -> str:
    """Return an argument for ``sys.argv`` as a str."""
    return os.fsdecode(arg) if isinstance(arg, (bytes, os.PathLike)) else str(arg)


@runs_program
def execute(program: Program) -> Any:
    """Run a program in this process, in the main thread. Raises whatever it raises.

    Returns what a function has returned, None for a script.
    """
    if program.kind != FUNCTION:
        scripts.run(program)
        return None
    data, call, main = program.what
    if main is not None:
        scripts.install(main)
    target = pickle.loads(data)  # first: the arguments may refer to what this imports or defines
    args, kwargs = forms.decode(call)
    return target(*args, **kwargs)
