"""Scripts: which one runs here, which one a child is to run, and how it runs there.

A child runs a script as ``python path`` (or ``python -m name``, ``python folder``, ``python app.pyz``) would:
with that start's ``__main__`` attributes, ``sys.argv`` and first entry of ``sys.path``. The module stays in
``sys.modules``, so that what it defines can be pickled by name.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import sys
import types
from multiprocessing import process
from typing import Any, NamedTuple

from .._exceptions import WorkerRefused, shown
from .._platform.threads import main_ident

SCRIPT = "script"  # a file, run as __main__
MODULE = "module"  # python -m name
CONTAINER = "container"  # a directory or archive with a __main__ in it


class Program(NamedTuple):
    """What a child runs.

    ``what`` is the file, the name of the module, or the directory or archive; for a function see programs.py.
    In the child, ``argv`` becomes ``sys.argv``, ``path`` becomes ``sys.path`` and ``command`` becomes
    ``sys.orig_argv``; only scripts have them.
    """

    kind: str
    what: Any
    argv: tuple[str, ...]
    path: tuple[str, ...] = ()
    command: tuple[str, ...] = ()


# What a child with a function of the script gets to know of ``__main__``, in plain values only: its file,
# its package, the name and origin of its spec, the class of its loader with its arguments; None: it has none.
Main = tuple[str | None, str | None, tuple[str, str | None] | None, tuple[str, ...] | None]


class Known:
    """The globals of a script, and its file: CPython deletes ``__file__`` there when the body has ended."""

    __slots__ = ("file", "is_sure", "namespace")

    def __init__(self, namespace: dict[str, Any], file: str, is_sure: bool = True) -> None:
        self.namespace = namespace
        self.file = file
        self.is_sure = is_sure  # its body was seen on a stack


# Which script runs here


def _body(frame: types.FrameType | None) -> dict[str, Any] | None:
    """Return the globals of the script whose body is on a stack: of the innermost one, if a tool runs it."""
    while frame is not None:
        namespace = frame.f_globals
        if frame.f_code.co_name == "<module>" and namespace.get("__name__") == "__main__":
            return namespace if namespace.get("__file__") else None
        frame = frame.f_back
    return None


def _noted(namespace: dict[str, Any] | None) -> Known | None:
    """Return these globals with the absolute path of their file, None where they are no script's."""
    file = None if namespace is None else namespace.get("__file__")
    if namespace is None or not isinstance(file, str):
        return None
    try:
        return Known(namespace, _absolute(file))
    except OSError:  # the working directory is gone, and a relative path leads nowhere
        return None


def _absolute(path: str) -> str:
    """Make a path absolute as python itself does: ``..`` stays, because it may follow a symbolic link."""
    return path if os.path.isabs(path) else os.path.join(os.getcwd(), path)


_known = _noted(_body(sys._getframe()))  # mostly the script imports this; later its body may have ended


def _script() -> Known | None:
    """Return the script that runs in this process; None where there is none (a REPL, ``-c``) or none is
    known.

    A profiler or tracer that was started with ``-m`` runs the script in globals that are no module's. So this
    looks at the stacks of this thread and of the main thread, then at what was seen at the import, then at
    the module.
    """
    namespace = _body(sys._getframe()) or _body(sys._current_frames().get(main_ident()))
    if _known is not None and (namespace is None or namespace is _known.namespace):
        return _known
    if namespace is not None:
        return _noted(namespace)
    found = _noted(getattr(sys.modules.get("__main__"), "__dict__", None))
    if found is not None:
        found.is_sure = False
    return found


def _kind(script: Known) -> tuple[str, str]:
    """Return how a script was started, and with what: file, module name, or directory or archive."""
    spec = script.namespace.get("__spec__")
    name = getattr(spec, "name", None)
    if not isinstance(name, str):
        return SCRIPT, script.file
    if name != "__main__":
        return MODULE, name.removesuffix(".__main__")
    container, file = os.path.split(script.file)
    # A profiler gives a plain script a spec as well, without a loader.
    if getattr(spec, "loader", None) is not None and file.startswith("__main__."):
        return CONTAINER, container
    return SCRIPT, script.file


def here() -> Program:
    """Return this script as a program. Raises WorkerRefused where there is none, or it is unknown."""
    script = None if hasattr(sys, "ps1") else _script()
    if script is None:
        raise WorkerRefused(
            "worker() without a target runs the script again, and here is none (a REPL, a notebook, -c or "
            "standard input); pass a function: worker(target)"
        )
    kind, what = _kind(script)
    argv = tuple(sys.argv)
    if kind == MODULE and not script.is_sure and not _is_argv0(script.file):
        raise WorkerRefused(
            f"worker() without a target cannot know the script: __main__ is the module {what}, and "
            f"sys.argv[0] is {shown(argv[0] if argv else '')}; pass a function: worker(target)"
        )
    if kind == SCRIPT and (not os.path.isfile(what) or what.startswith(("/dev/", "/proc/"))):
        raise WorkerRefused(
            f"worker() without a target runs the script again, and {shown(what)} cannot be read again; "
            "pass a function: worker(target)"
        )
    return _start(kind, what, argv)


def _is_argv0(file: str) -> bool:
    """Return whether ``python -m`` has set ``sys.argv[0]``, and no tool for the script that it runs."""
    return bool(sys.argv) and os.path.realpath(sys.argv[0]) == os.path.realpath(file)


def other(path: str | os.PathLike[str], args: tuple[str, ...]) -> Program:
    """Return another script, or a directory or archive with a ``__main__``, as a program.

    It will have ``sys.argv = [path, *args]``. Raises FileNotFoundError, PermissionError or TypeError where
    that is not to be run.
    """
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(f"fork() takes the path of a script, not {shown(path)}")
    file = os.fsdecode(path)
    if not os.path.exists(file):
        raise FileNotFoundError(errno.ENOENT, "fork(): there is no script", file)
    if not os.access(file, os.R_OK):
        raise PermissionError(errno.EACCES, "fork(): the script cannot be read", file)
    what = _absolute(file)
    importer = _importer(what)
    if importer is not None and importer.find_spec("__main__") is None:
        where = "directory" if os.path.isdir(file) else "archive"
        raise FileNotFoundError(errno.ENOENT, f"fork(): there is no __main__.py in the {where}", file)
    return _start(SCRIPT if importer is None else CONTAINER, what, (file, *args))


def _start(kind: str, what: str, argv: tuple[str, ...]) -> Program:
    """Return a program of this kind, with the options and the ``sys.path`` that it gets from this process."""
    options = _options()
    command = (*options, *_typed(kind, what, argv)) if options else ()
    return Program(kind, what, argv, _path_for(kind, what), command)


def _typed(kind: str, what: str, argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return what stands on the command line after python and its options."""
    return ("-m", what, *argv[1:]) if kind == MODULE else argv


def _options() -> tuple[str, ...]:
    """Return python and its options from this process's command line; () where they cannot be found."""
    script, argv, command = _script(), tuple(sys.argv), tuple(sys.orig_argv)
    if script is None:
        return command[: command.index("-c")] if argv[:1] == ("-c",) and "-c" in command else ()
    typed = _typed(*_kind(script), argv)
    end = len(command) - len(typed)
    return command[:end] if end > 0 and command[end:] == typed else ()


def _importer(path: str) -> Any:
    """Return what python would import ``__main__`` with from a directory or an archive; None for a script."""
    for hook in sys.path_hooks:
        try:
            return hook(path)
        except ImportError:
            continue
    return None


# sys.path


def _is_safe_path() -> bool:
    """Return whether python puts no directory at the front of ``sys.path`` by itself (``-P``, ``-I``)."""
    return bool(sys.flags.isolated or getattr(sys.flags, "safe_path", False))


def _began_in() -> str:
    """Return the working directory when multiprocessing was imported, mostly that of python's start."""
    return str(process.ORIGINAL_DIR or "")  # type: ignore[attr-defined]  # not in typeshed


def _first_entry(kind: str, what: str) -> str | None:
    """Return the entry that python puts at the beginning of ``sys.path``, None where it puts none."""
    if kind == CONTAINER:
        return what
    if _is_safe_path():
        return None
    return _began_in() if kind == MODULE else os.path.dirname(os.path.realpath(what))


def _path_for(kind: str, what: str) -> tuple[str, ...]:
    """Return ``sys.path`` for a child: as here, with its own script's first entry in the place of ours."""
    script = _script()
    ours = ("" if script is None else _first_entry(*_kind(script))) if not hasattr(sys, "ps1") else ""
    entries = [entry for entry in list[Any](sys.path) if isinstance(entry, str)]
    first = _first_entry(kind, what)
    if kind == MODULE and first not in entries:
        first = None  # where python was started is no longer known
    elif ours in entries:
        entries.remove(ours)
    entries = [entry or _began_in() for entry in entries]
    return tuple(entries if first is None else [first, *entries])


# __main__ in a child

_former: list[Any] = []  # modules that were __main__ before: the interpreter has the first one's globals


def describe(namespace: dict[str, Any] | None) -> Main:
    """Return what a child with a function of the script has to know of ``__main__``, in plain values.

    ``namespace`` is the globals of that function, if known.
    """
    script = _script()
    if namespace is None:
        namespace = (
            script.namespace if script is not None else getattr(sys.modules.get("__main__"), "__dict__", {})
        )
    file = script.file if script is not None and script.namespace is namespace else namespace.get("__file__")
    spec = namespace.get("__spec__")
    name, origin = getattr(spec, "name", None), getattr(spec, "origin", None)
    loader: Any = getattr(spec, "loader", None) or namespace.get("__loader__")
    kind = type(loader).__name__
    made_with: tuple[str, ...] | None = None
    if kind in ("SourceFileLoader", "SourcelessFileLoader"):
        made_with = (kind, str(loader.name), str(loader.path))
    elif kind == "zipimporter":
        made_with = (kind, os.path.join(loader.archive, loader.prefix))
    package = namespace.get("__package__")
    return (
        str(file) if isinstance(file, str) else None,
        package if isinstance(package, str) else None,
        (name, origin if isinstance(origin, str) else None) if isinstance(name, str) else None,
        made_with,
    )


def install(main: Main) -> None:
    """Make a ``__main__`` like the one that ``describe`` has described, but without the script's names."""
    file, package, spec, made_with = main
    module = _new_main()
    if file is not None:
        module.__file__ = file
    module.__package__ = package
    module.__loader__ = loader = _loader(made_with)
    if spec is not None:
        from importlib.machinery import ModuleSpec

        name, origin = spec
        module.__spec__ = ModuleSpec(name, loader, origin=origin)
    _become(module)


def _loader(made_with: tuple[str, ...] | None) -> Any:
    """Make a loader like the one described; it is only used to show lines of source.

    None where there is none.
    """
    if made_with is None:
        return None
    kind, *args = made_with
    if kind == "zipimporter":
        import zipimport

        try:
            return zipimport.zipimporter(*args)
        except ImportError:  # it was there for the starter; it only shows lines here
            return None
    from importlib import machinery

    return getattr(machinery, kind)(*args)


def _new_main() -> types.ModuleType:
    """Return an empty module ``__main__``, with what python puts into a new one."""
    module = types.ModuleType("__main__")
    module.__dict__["__builtins__"] = builtins
    if sys.version_info < (3, 14):
        module.__annotations__ = {}
    return module


def _become(module: types.ModuleType) -> None:
    """Make this module the ``__main__`` of the process. The former one is kept alive."""
    _former.append(sys.modules.get("__main__"))
    # Under the second name multiprocessing's own children send back what the script defines.
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module


# Running one


def run(program: Program) -> None:
    """Run a script as ``__main__`` in this process. Raises whatever it raises."""
    global _known
    kind, what, argv, path, command = program
    sys.argv = list(argv)
    if path:
        sys.path[:] = path
    sys.orig_argv = list(command or (*_own_options(), *_typed(kind, what, argv)))
    module = _new_main()
    if kind == SCRIPT:
        code = _load_file(module, what)
    else:
        code = _load_module(module, what, "__main__" if kind == CONTAINER else what)
        if kind == MODULE and module.__file__:
            sys.argv[:1] = [module.__file__]  # as python does
    _become(module)
    _known = _noted(module.__dict__)
    exec(code, module.__dict__)


def _own_options() -> list[str]:
    """Return python and its options as multiprocessing has started this process."""
    return sys.orig_argv[: sys.orig_argv.index("-c")] if "-c" in sys.orig_argv else sys.orig_argv[:1]


def _load_file(module: types.ModuleType, path: str) -> types.CodeType:
    """Return the code of a script file, source or compiled; set the module's attributes as python does."""
    from importlib import machinery, util

    with io.open_code(path) as file:
        content = file.read()
    module.__file__ = path
    if sys.version_info < (3, 15):
        module.__dict__["__cached__"] = None
    if path.endswith(".pyc") or content[:2] == util.MAGIC_NUMBER[:2]:
        compiled = machinery.SourcelessFileLoader("__main__", path)
        module.__loader__ = compiled
        code = compiled.get_code("__main__")
        assert code is not None
        return code
    module.__loader__ = machinery.SourceFileLoader("__main__", path)
    return compile(content, path, "exec", dont_inherit=True)


def _load_module(module: types.ModuleType, what: str, name: str) -> types.CodeType:
    """Return the code of a module, or of the ``__main__`` in a container.

    Raises ImportError where it has none.

    Sets the module's attributes as python does.
    """
    import importlib.machinery
    import importlib.util

    if name == "__main__":
        # the one in the container, not the one that runs now
        spec = importlib.machinery.PathFinder.find_spec(name, [what])
    else:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{name}.__main__")
    # A loader need not have it; runpy refuses such a module as well.
    get_code = getattr(None if spec is None else spec.loader, "get_code", None)
    code = None if spec is None or get_code is None else get_code(spec.name)
    if spec is None or code is None:
        raise ImportError(f"there is no module {name!r} to run")
    module.__spec__ = spec
    module.__file__ = spec.origin
    if sys.version_info < (3, 15):
        module.__dict__["__cached__"] = spec.cached
    module.__loader__ = spec.loader
    module.__package__ = spec.parent
    return code  # type: ignore[no-any-return]
