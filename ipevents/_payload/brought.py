"""What pickles have brought into the ``__main__`` of this process, and which of it holds.

Functions of the script have the globals of ``__main__`` here, as they have where they come from. Each brings
the values of those that it refers to. A process that gets one function after the other, as a worker of a pool
does, gets the same names again and again, with values that may have changed meanwhile. Three rules say what
a name stands for:

- What the program of this process has bound itself is its own, and nothing that is brought replaces it. So an
  initializer may set ``model``, which is None in the script, and later functions find what it has set.
- What is brought has a mark, by which it is known whether it is the same as before. If it is, the object that
  is there stays, with all that the program has put into it. Code has no mark (None) and is replaced.
- Otherwise the function that is called next is right: see ``Brought.again``.

Only what is pickled with ``Names`` brings anything: the call of a worker, and what a pool sends to it. Both
are loaded in the main thread, one after the other, so there is no lock.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Mapping
from typing import Any

__all__ = ["Brought", "bring", "loads"]

Found = Mapping[str, "tuple[bytes | None, Any]"]  # by name: the mark, and the value

_MISSING = object()

_namespace: dict[str, Any] | None = None  # the ``__main__`` that the following is about
_holding: dict[str, tuple[bytes | None, Any]] = {}  # what was brought last
_changes = 0  # how often a name was given another value here
_loading: dict[str, tuple[bytes | None, Any]] | None = None  # by the pickle that is being loaded


class Brought:
    """What one pickle has brought. It keeps these values alive."""

    __slots__ = ("_changes", "_found")

    def __init__(self, found: Found) -> None:
        self._found = found
        self._changes = _changes

    def again(self) -> None:
        """Bring it again, if other pickles have brought something else since."""
        if self._changes != _changes:
            bring(self._found)
            self._changes = _changes


def loads(data: bytes) -> tuple[Any, Brought | None]:
    """Load a pickle. Returns its value and what it has brought, None if that is nothing.

    Raises whatever the code of its classes raises.
    """
    global _loading
    outer, _loading = _loading, {}
    try:
        value = pickle.loads(data)
        return value, Brought(_loading) if _loading else None
    finally:
        _loading = outer


def bring(found: Found) -> None:
    """Give names in ``__main__`` these values, where the rules above allow it."""
    global _changes
    namespace = _main()
    for name, (mark, value) in found.items():
        former_mark, former = _holding.get(name, (None, _MISSING))
        present = namespace.get(name, _MISSING)
        if present is _MISSING or present is former or (former is _MISSING and _is_of_python(name)):
            if mark is not None and mark == former_mark:
                value = former
            if value is not present:
                namespace[name] = value
                _changes += 1
            _holding[name] = mark, value
            if _loading is not None:
                _loading[name] = mark, value


def _main() -> dict[str, Any]:
    """Return the globals of ``__main__``. Another ``__main__`` than before has nothing that was brought."""
    global _namespace
    namespace = sys.modules["__main__"].__dict__
    if namespace is not _namespace:
        _namespace = namespace
        _holding.clear()
    return namespace


def _is_of_python(name: str) -> bool:
    """Return whether each ``__main__`` has such a name from its beginning, ``__file__`` for example."""
    return name.startswith("__") and name.endswith("__")
