"""The functions and classes of the script that the call of a worker refers to, by their names.

They become attributes of the child's ``__main__``, as they are attributes of ours, so that pickle and
multiprocessing find them by name there as well. Only the call of a worker brings them; an event never changes
the ``__main__`` of the process that receives it.
"""

from __future__ import annotations

import sys
from typing import Any

_MAX_SOURCE = 1024 * 1024  # most characters of a file that is on no disk (a notebook's cell)


class Names:
    """What one call brings of the script.

    Filled while its target and then its arguments are pickled, in one thread. ``is_marked``: its process gets
    other calls as well, a worker of a pool, so that all is pickled a second time for the marks of brought.py.
    """

    def __init__(self, *, is_marked: bool = False) -> None:
        self.is_marked = is_marked
        self.namespace: dict[str, Any] | None = None  # the script's globals, once they were met
        self._met: list[Any] = []  # functions and classes sent by value since the last take()
        self._found: dict[str, Any] = {}
        self._by_id: dict[int, tuple[str, Any]] = {}  # the same; holds the objects, so no id is reused
        self._sent: dict[int, tuple[str, Any]] = {}  # by id: what an earlier pickle of this call has brought
        self._files: set[str] = set()
        self._shown: set[str] = set()  # files that were looked at for lines to send

    @property
    def used(self) -> bool:
        """Whether the call needs the script's ``__main__`` at all."""
        return self.namespace is not None or bool(self._found)

    def claim(self, namespace: dict[str, Any]) -> bool:
        """Whether these are the script's globals; the first ones that are called ``__main__`` are.

        Under a profiler or tracer they need not be those of the module of that name.
        """
        if self.namespace is None and namespace.get("__name__") == "__main__":
            self.namespace = namespace
        return namespace is self.namespace

    def note(self, value: Any) -> None:
        """Note that a function or class is sent by value."""
        self._met.append(value)

    def note_file(self, filename: str) -> None:
        """Note the file of a function that is sent by value."""
        self._files.add(filename)

    def sent_as(self, value: object) -> str | None:
        """The name under which an earlier pickle of this call has brought a value; None if none has."""
        name, sent = self._sent.get(id(value), ("", None))
        return name if name and sent is value else None

    def seal(self) -> None:
        """Note that a pickle is complete; a later one of this call need not bring the same again."""
        self._sent.update(self._by_id)

    def take(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What was noted since the last call: values by name, and the lines of files that are on no disk."""
        namespace = self.namespace
        if namespace is None:
            namespace = getattr(sys.modules.get("__main__"), "__dict__", {})
        new: dict[str, Any] = {}
        met, self._met = self._met, []
        for value in met:
            if getattr(value, "__module__", None) != "__main__":
                continue
            new |= _named_as(value, namespace)
            new |= _named_in_annotations(value, namespace)
        new = {name: value for name, value in new.items() if name not in self._found}
        self._found |= new
        self._by_id |= {id(value): (name, value) for name, value in new.items()}
        return new, self._sources()

    def _sources(self) -> dict[str, Any]:
        """linecache's entries for noted files that are on no disk, each once."""
        linecache = sys.modules.get("linecache")
        if linecache is None:
            return {}
        found = {}
        for filename in self._files - self._shown:
            entry = linecache.cache.get(filename)
            # An entry without a time of change is no copy of a file on disk.
            if entry is not None and len(entry) == 4 and entry[1] is None and entry[0] <= _MAX_SOURCE:
                found[filename] = entry
        self._shown |= self._files
        return found


def _named_as(value: Any, namespace: dict[str, Any]) -> dict[str, Any]:
    """The value under its own name, or the object that contains it: ``Outer`` for ``Outer.Inner``."""
    top, *inner = str(getattr(value, "__qualname__", "")).split(".")
    there = found = namespace.get(top)
    for name in inner:
        there = getattr(there, "__dict__", {}).get(name)
    return {top: found} if there is value else {}


def _named_in_annotations(value: Any, namespace: dict[str, Any]) -> dict[str, Any]:
    """The script's classes that annotations name as text; ``typing.get_type_hints`` looks for them."""
    found = {}
    for text in annotations_of(value).values():
        for name in _names_in(text) if isinstance(text, str) else ():
            named = namespace.get(name)
            if isinstance(named, type) or type(named).__module__ in ("typing", "types"):
                found[name] = named
    return found


def annotations_of(value: Any) -> dict[str, Any]:
    """The annotations of a function, or a class's own; as text where their values cannot be computed."""
    own = getattr(value, "__dict__", {}).get("__annotations__")
    if own is None and (sys.version_info >= (3, 14) or not isinstance(value, type)):
        try:
            own = getattr(value, "__annotations__", None)  # since 3.14 this runs the expressions
        except Exception:  # whatever they raise, mostly NameError: only type checkers import the name
            import annotationlib  # type: ignore[import-not-found,unused-ignore]  # exists since 3.14

            own = annotationlib.get_annotations(value, format=annotationlib.Format.STRING)
    return own if isinstance(own, dict) else {}


def _names_in(text: str) -> tuple[str, ...]:
    """The names that an expression uses; none if it cannot be compiled."""
    try:
        return compile(text, "", "eval", dont_inherit=True).co_names
    except (SyntaxError, ValueError):
        return ()
