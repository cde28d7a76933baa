"""What a child runs: a function, this script again, or another script."""

from __future__ import annotations

import errno
import functools
import io
import os
import pickle
import sys
import types
from collections.abc import Iterable, Mapping, Set
from typing import Any, NamedTuple

from .._core.naming import described
from .._exceptions import WorkerRefused, shown
from . import dispatch, payload
from .inheritance import Inheritance

FUNCTION = "function"
SCRIPT = "script"  # a file, run as __main__
MODULE = "module"  # python -m name
CONTAINER = "container"  # a directory or archive with a __main__ in it

MAX_NAME = 256  # characters; it goes through the pipe of the start, see Launch


class Program(NamedTuple):
    """``what`` is a pickled call for FUNCTION, else the path or the name; ``argv`` becomes sys.argv."""

    kind: str
    what: Any
    argv: tuple[str, ...]
    path: tuple[str, ...] = ()


def arguments(args: object) -> tuple[Any, ...]:
    """The positional arguments of a child. Raises TypeError for what is no row of them.

    A str is one argument and not its letters; a set has no order.
    """
    if isinstance(args, Iterable) and not isinstance(args, (str, bytes, bytearray, Mapping, Set)):
        return tuple(args)
    raise TypeError(f"args is a list or tuple of arguments, not {shown(args)}; a single one is args=[...]")


def name(given: object, default: object) -> str:
    """What a child is called: what it was given, else its target's name. Raises TypeError, ValueError."""
    if given is not None and not isinstance(given, str):
        raise TypeError(f"the name of a child is a str, not {shown(given)}")
    if given is not None and len(given) > MAX_NAME:
        raise ValueError(f"the name of a child has at most {MAX_NAME} characters, {shown(given)} has more")
    chosen = given or (default[:MAX_NAME] if isinstance(default, str) else "") or "worker"
    return chosen.encode("utf-8", "backslashreplace").decode()  # it is printed; a file's may hold surrogates


def function(
    target: Any, args: tuple[Any, ...], kwargs: object = None, inherited: Inheritance | None = None
) -> Program:
    """The call of a function, pickled now; what its process inherits at its start is noted.

    Raises Unpicklable, naming the culprit; TypeError for what could not be called so.
    """
    _check_target(target)
    kwargs = {} if kwargs is None else kwargs
    if not isinstance(kwargs, Mapping):
        raise TypeError(f"kwargs is a dict of arguments by name, not {shown(kwargs)}")
    for key in kwargs:
        if not isinstance(key, str):
            raise TypeError(f"kwargs is a dict of arguments by name, and {shown(key)} is no name")
    inherited = Inheritance() if inherited is None else inherited
    data = payload.dumps(target, f"the target {described(target)}", inherited)
    call, _ = payload.encode(args, dict(kwargs), inherited)
    inherited.keep(target, args, kwargs)
    return Program(FUNCTION, (data, call), ())


def _check_target(target: Any) -> None:
    """Refuse what a worker cannot run. Raises TypeError."""
    if not callable(target):
        raise TypeError(
            f"the target of a worker is a function, not {shown(target)}; a script is for fork(path)"
        )
    inner = target
    while isinstance(inner, functools.partial):
        inner = inner.func
    code = getattr(inner, "__code__", None)
    if isinstance(code, types.CodeType) and code.co_flags & dispatch.CO_SUSPENDS:
        raise TypeError(
            f"calling the target {described(target)} would run nothing of it: a worker runs a plain "
            "function, no coroutine or generator (asyncio.run() in one runs a coroutine)"
        )


def this_script() -> Program:
    """This program again, as it was started. Raises WorkerRefused where there is no script to run."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    argv = tuple(sys.argv)
    if spec is not None:
        name = spec.name
        if name == "__main__":
            return Program(CONTAINER, os.path.abspath(sys.path[0]), argv)
        return Program(MODULE, name.removesuffix(".__main__"), argv)
    path = getattr(main, "__file__", None)
    if path is None and hasattr(main, "__ipevents_program__"):
        path = main.__ipevents_program__
    if path is None or not os.path.exists(path) or hasattr(sys, "ps1"):
        raise WorkerRefused(
            "worker() without a target runs the script again, and here is none (a REPL, a notebook or -c); "
            "pass a function: worker(target)"
        )
    return Program(SCRIPT, os.path.abspath(path), argv)


def other_script(path: str | os.PathLike[str], args: tuple[Any, ...]) -> Program:
    """Another script, or a directory with a ``__main__``, with ``sys.argv = [path, *args]``.

    Raises FileNotFoundError, PermissionError or TypeError where that is not to be run.
    """
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(f"fork() takes the path of a script, not {shown(path)}")
    file = os.fsdecode(path)
    if not os.path.exists(file):
        raise FileNotFoundError(errno.ENOENT, "fork(): there is no script", file)
    if not os.access(file, os.R_OK):
        raise PermissionError(errno.EACCES, "fork(): the script cannot be read", file)
    kind = SCRIPT
    if os.path.isdir(file):
        kind = CONTAINER
        if not any(os.path.exists(os.path.join(file, f"__main__{end}")) for end in (".py", ".pyc")):
            raise FileNotFoundError(errno.ENOENT, "fork(): there is no __main__.py in the directory", file)
    return Program(kind, os.path.abspath(file), (file, *map(_text, args)))


def _text(arg: object) -> str:
    return os.fsdecode(arg) if isinstance(arg, (bytes, os.PathLike)) else str(arg)


def execute(program: Program) -> None:
    """Run it in this process, in the main thread. Raises whatever it raises."""
    if program.kind == FUNCTION:
        data, call = program.what
        args, kwargs = payload.decode(call)
        pickle.loads(data)(*args, **kwargs)
        return
    sys.argv = list(program.argv)
    if program.kind == MODULE:
        _run_module(program.what)
    elif program.kind == CONTAINER:
        sys.path.insert(0, program.what)
        _run_module("__main__")
    else:
        _run_file(program.what)


def _run_file(path: str) -> None:
    folder = os.path.dirname(path)
    if not sys.path or sys.path[0] != folder:
        sys.path.insert(0, folder)
    with io.open_code(path) as file:
        code = compile(file.read(), path, "exec")
    main = types.ModuleType("__main__")
    main.__file__ = path
    main.__dict__["__builtins__"] = __builtins__
    main.__dict__["__ipevents_program__"] = path
    sys.modules["__main__"] = main
    exec(code, main.__dict__)


def _run_module(name: str) -> None:
    """As ``python -m``, but the module stays in sys.modules, so that its classes can be pickled."""
    import importlib.util

    if name == "__main__":
        # the one in the container that sys.path begins with, not the one that runs now
        import importlib.machinery

        spec = importlib.machinery.PathFinder.find_spec("__main__", [sys.path[0]])
    else:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{name}.__main__")
    # A loader need not have it; runpy refuses such a module as well.
    get_code = getattr(None if spec is None else spec.loader, "get_code", None)
    code = None if spec is None or get_code is None else get_code(spec.name)
    if spec is None or code is None:
        raise ImportError(f"there is no module {name!r} to run")
    main = types.ModuleType("__main__")
    main.__spec__ = spec
    main.__file__ = spec.origin
    main.__loader__ = spec.loader
    main.__package__ = spec.parent
    main.__dict__["__builtins__"] = __builtins__
    sys.modules["__main__"] = main
    if spec.origin:
        sys.argv[0] = spec.origin
    exec(code, main.__dict__)
