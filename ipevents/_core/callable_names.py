"""The names of functions, methods and other callables in texts for people.

Targets and listeners are objects of the user: an attribute may be missing, have any type, or raise. None of
that makes a function here fail. A callable without a name is shown by its class.
"""

from __future__ import annotations

from functools import partial
from types import CodeType
from typing import Any

from .._exceptions import shown

_DEPTH = 16  # steps through partials and wrapped functions; an object may have every attribute, without end
_LONGEST = 200  # characters of a name in a text


def short_name(value: object) -> str:
    """Return the bare name of a callable: a partial has that of its function, an object that of its class."""
    inner = _within_partials(value)
    return _text(value, "__name__") or _text(inner, "__name__") or type(inner).__name__


def described(value: object) -> str:
    """Return module, qualified name and place of a callable: ``tasks.Resizer.job (tasks.py:12)``.

    Without the module if it belongs to the script itself (``__main__``), and without the place if it is not
    written in Python.
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
    """Return an exception as one line: its type and the first line of its text."""
    try:
        text = next(iter(str(exc).splitlines()), "")
    except KeyboardInterrupt:
        raise
    except BaseException:  # the text is made by code of the user, which may raise anything
        text = "(its text cannot be had)"
    name = type(exc).__name__
    return f"{name}: {text}" if text else name


def _qualified_name(value: object) -> str:
    """Return the ``__qualname__``, or else the ``__name__``, or ""."""
    return _text(value, "__qualname__") or _text(value, "__name__")


def _within_partials(value: Any) -> Any:
    """Return the function that a partial calls in the end; any other value as it is."""
    for _ in range(_DEPTH):
        if not _is(value, partial):
            break
        value = value.func
    return value


def _place(value: object) -> str:
    """Return ``file.py:12`` for a callable that is written in Python, otherwise "".

    For a decorated function it is the place of the function inside, if the decorator has set ``__wrapped__``.
    """
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
    """Return whether a value's type is ``kind`` or derived from it.

    Unlike isinstance it does not read ``__class__``, which an object may answer with anything.
    """
    return issubclass(type(value), kind)


def _text(value: object, attribute: str) -> str:
    """Return an attribute if it is a str, otherwise ""."""
    found = _attribute(value, attribute)
    return str.__str__(found) if _is(found, str) else ""


def _attribute(value: object, name: str) -> Any:
    """Return an attribute, or None if there is none or its code raises."""
    try:
        return getattr(value, name, None)
    except KeyboardInterrupt:
        raise
    except BaseException:  # attributes may be code of the user, which may raise anything
        return None
