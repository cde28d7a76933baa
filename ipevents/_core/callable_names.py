"""What functions, methods and other callables are called in texts for people.

Targets and listeners are the user's own objects: an attribute may be missing, of any type, or raise. Nothing
here fails for that; what has no name is shown by its class.
"""

from __future__ import annotations

from functools import partial
from types import CodeType
from typing import Any

from .._exceptions import shown

_DEPTH = 16  # partials and wrapped functions are followed so far; some objects answer for any attribute
_LONGEST = 200  # characters of a name in a text


def short_name(value: object) -> str:
    """The bare name of a callable: of a partial that of its function, of an object that of its class."""
    inner = _within_partials(value)
    return _text(value, "__name__") or _text(inner, "__name__") or type(inner).__name__


def described(value: object) -> str:
    """A callable as a text names it: module, qualified name, and the place where it is written.

    ``tasks.Resizer.job (tasks.py:12)``; without the module for what belongs to the script itself.
    """
    inner = _within_partials(value)
    named: object = inner
    name = _qualified_name(inner)
    if not name:
        named = type(inner)
        name = _qualified_name(named)
        if not name:  # a class whose metaclass hides its name
            return shown(value)
        name += " object"
    module = _text(named, "__module__")
    if module and module not in ("__main__", "builtins"):
        name = f"{module}.{name}"
    if inner is not value:
        name = f"partial of {name}"
    if len(name) > _LONGEST:
        name = f"{name[: _LONGEST - 3]}..."
    place = _place(inner)
    return f"{name} ({place})" if place else name


def failure(exc: BaseException) -> str:
    """An exception in one line: its type and the first line of its text."""
    try:
        text = next(iter(str(exc).splitlines()), "")
    except KeyboardInterrupt:
        raise
    except BaseException:  # the exception's own code makes its text, and raises what it likes
        text = "(its text cannot be had)"
    name = type(exc).__name__
    return f"{name}: {text}" if text else name


def _qualified_name(value: object) -> str:
    return _text(value, "__qualname__") or _text(value, "__name__")


def _within_partials(value: Any) -> Any:
    """The function that a partial calls in the end; everything else as it is."""
    for _ in range(_DEPTH):
        if not _is(value, partial):
            break
        value = value.func
    return value


def _place(value: object) -> str:
    """``file.py:12`` of what is written in Python, else ``""``; the function that a decorator has wrapped."""
    for _ in range(_DEPTH):
        wrapped = _attribute(value, "__wrapped__")
        if wrapped is None:
            break
        value = wrapped
    code = _attribute(_within_partials(value), "__code__")
    if not _is(code, CodeType) and not _is(value, type):
        code = _attribute(_attribute(type(value), "__call__"), "__code__")
    if not _is(code, CodeType):
        return ""
    return f"{code.co_filename.rpartition('/')[2]}:{code.co_firstlineno}"


def _is(value: object, kind: type) -> bool:
    """As isinstance, which asks the value itself for its class."""
    return issubclass(type(value), kind)


def _text(value: object, attribute: str) -> str:
    """An attribute that is a text; ``""`` for everything else."""
    found = _attribute(value, attribute)
    return str.__str__(found) if _is(found, str) else ""


def _attribute(value: object, name: str) -> Any:
    try:
        return getattr(value, name, None)
    except KeyboardInterrupt:
        raise
    except BaseException:  # the user's own code answers for attributes, and raises what it likes
        return None
