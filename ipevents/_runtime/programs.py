"""What a child runs: a function, this script again, or another script."""

from __future__ import annotations

import io
import os
import pickle
import sys
import types
from collections.abc import Mapping
from typing import Any, NamedTuple

from .._exceptions import Unpicklable, WorkerRefused
from . import payload

FUNCTION = "function"
SCRIPT = "script"  # a file, run as __main__
MODULE = "module"  # python -m name
CONTAINER = "container"  # a directory or archive with a __main__ in it


class Program(NamedTuple):
    """``what`` is a pickled call for FUNCTION, else the path or the name; ``argv`` becomes sys.argv."""

    kind: str
    what: Any
    argv: tuple[str, ...]
    path: tuple[str, ...] = ()


def function(target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Program:
    """The call of a function, pickled now. Raises Unpicklable, naming the culprit."""
    if not callable(target):
        raise Unpicklable(f"the target of a worker is a function, not {target!r}; a script is for fork(path)")
    name = getattr(target, "__qualname__", repr(target))
    data = payload.dumps(target, f"the target {name}")
    call, _ = payload.encode(tuple(args), dict(kwargs))
    return Program(FUNCTION, (data, call), ())


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
    """Another script with ``sys.argv = [path, *args]``. Raises FileNotFoundError where there is none."""
    name = os.fspath(path)
    if not os.path.exists(name):
        raise FileNotFoundError(errno_not_found(), "fork(): there is no script", name)
    kind = CONTAINER if os.path.isdir(name) else SCRIPT
    return Program(kind, os.path.abspath(name), (name, *(str(arg) for arg in args)))


def errno_not_found() -> int:
    import errno

    return errno.ENOENT


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
