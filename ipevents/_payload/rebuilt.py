"""Functions that rebuild what was pickled by value. Pickles name them.

They are looked up where the pickle is loaded, so both processes must have them. They do without cloudpickle,
which takes 5 ms to import, and the first child of a program would have to wait for that. So the most frequent
values are rebuilt here: functions with their closures, and the modules that they refer to. A class of the
script, for example, is rebuilt by cloudpickle.
"""

from __future__ import annotations

import builtins
import functools
import sys
import types
from collections.abc import Callable
from typing import Any

from .brought import Found, bring


def make_code(parts: tuple[Any, ...], filename: str) -> types.CodeType:
    """Rebuild a code object and give it its file name again."""
    return types.CodeType(*parts).replace(co_filename=filename)


def make_cached(function: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    """Rebuild a function under ``lru_cache``, with an empty cache."""
    return functools.lru_cache(**parameters)(function)


def make_parameters(kind: Any, name: str) -> Any:
    """Rebuild a ``ParamSpec`` or ``TypeVarTuple``."""
    return kind(name)


def make_alias(kind: Any, name: str, value: object, parameters: tuple[Any, ...]) -> Any:
    """Rebuild the alias of a ``type`` statement."""
    return kind(name, value, type_params=parameters)


def main_globals() -> dict[str, Any]:
    """The globals of ``__main__`` in this process."""
    return sys.modules["__main__"].__dict__


def from_main(name: str) -> Any:
    """The attribute of ``__main__`` that an earlier pickle of the same call has brought."""
    return sys.modules["__main__"].__dict__[name]


def first(value: object, brought: object) -> object:
    """Rebuild a ``_Whole``: its value.

    cloudpickle has put a dict where a module has ``builtins``; this puts the module there.
    """
    main_globals()["__builtins__"] = builtins
    return value


def adopt(found: Found, sources: dict[str, Any], brought: object) -> None:
    """Make functions and classes of the script attributes of ``__main__``.

    ``sources`` are lines of files that are on no disk; linecache gets them, for tracebacks.
    """
    bring(found)
    if sources:
        import linecache

        for filename, entry in sources.items():
            linecache.cache.setdefault(filename, entry)


# As cloudpickle does it: arguments and state are those that it makes

STATE = {"__globals__", "__closure__", "_cloudpickle_submodules"}  # beside attributes of the function


def import_module(name: str) -> types.ModuleType:
    """Return a module that a function refers to."""
    __import__(name)
    return sys.modules[name]


def make_cell(*content: object) -> types.CellType:
    """Rebuild a cell of a closure; without content it is empty."""
    return types.CellType(*content)


def make_function(
    code: types.CodeType,
    namespace: dict[str, Any],
    name: str | None,
    defaults: tuple[Any, ...] | None,
    closure: tuple[types.CellType, ...] | None,
) -> types.FunctionType:
    """Rebuild a function. What may refer to it follows with ``set_function``."""
    namespace["__builtins__"] = builtins.__dict__
    return types.FunctionType(code, namespace, name, defaults, closure)


def set_main_function(function: Any, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """As ``set_function``, for a function of the script, whose globals come with their marks."""
    bring(state[1]["__globals__"])
    state[1]["__globals__"] = {}
    set_function(function, state)


def set_function(function: Any, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Give a function its attributes, the globals that it refers to, and the contents of its closure."""
    attributes, more = state
    function.__dict__.update(attributes)
    more.pop("_cloudpickle_submodules")  # imported by now, which is all that they are sent for
    function.__globals__.update(more.pop("__globals__"))
    function.__globals__["__builtins__"] = builtins.__dict__
    for cell, filled in zip(function.__closure__ or (), more.pop("__closure__") or (), strict=True):
        try:
            cell.cell_contents = filled.cell_contents
        except ValueError:  # that one is empty
            continue
    for name, value in more.items():
        setattr(function, name, value)
