"""What the call of a worker refers to of the script: its functions and classes, under their names.

They become attributes of the child's ``__main__``, as they are attributes of ours, so that there too pickle
and multiprocessing find them by name. Only a call brings them: what an event carries changes no ``__main__``.
"""

from __future__ import annotations

import sys
from typing import Any

_MAX_SOURCE = 1024 * 1024  # characters of one file that is on no disk (a notebook's cell)


class Names:
    """Filled while the target, then the arguments of one call are pickled. Used in one thread."""

    def __init__(self) -> None:
        self.namespace: dict[str, Any] | None = None  # the script's globals, once a function of it was met
        self._met: list[Any] = []  # by value, since the last take()
        self._found: dict[str, Any] = {}
        self._by_id: dict[int, tuple[str, Any]] = {}  # the same; holds the objects, so no id is used again
        self._sent: dict[int, tuple[str, Any]] = {}  # what an earlier pickle of this call has brought
        self._files: set[str] = set()
        self._shown: set[str] = set()  # files whose lines travel

    @property
    def used(self) -> bool:
        """Whether the call needs the script's ``__main__`` at all."""
        return self.namespace is not None or bool(self._found)

    def claim(self, namespace: dict[str, Any]) -> bool:
        """Whether these are the script's globals; the first that are called ``__main__`` are.

        Under a profiler or tracer they need not be those of the module of that name.
        """
        if self.namespace is None and namespace.get("__name__") == "__main__":
            self.namespace = namespace
        return namespace is self.namespace

    def note(self, value: Any) -> None:
        """A function or class travels by value."""
        self._met.append(value)

    def note_file(self, filename: str) -> None:
        """The file of a function that travels by value."""
        self._files.add(filename)

    def sent_as(self, value: object) -> str | None:
        """The name under which an earlier pickle of this call has brought a value, if it has."""
        name, sent = self._sent.get(id(value), ("", None))
        return name if name and sent is value else None

    def seal(self) -> None:
        """A pickle is complete: what it brought is not to be brought again."""
        self._sent.update(self._by_id)

    def take(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What was met since the last call: values by name, and lines of files that are on no disk."""
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
        linecache = sys.modules.get("linecache")
        if linecache is None:
            return {}
        found = {}
        for filename in self._files - self._shown:
            entry = linecache.cache.get(filename)
            # Without a time of change it is no copy of a file.
            if entry is not None and len(entry) == 4 and entry[1] is None and entry[0] <= _MAX_SOURCE:
                found[filename] = entry
        self._shown |= self._files
        return found


def _named_as(value: Any, namespace: dict[str, Any]) -> dict[str, Any]:
    """The value under its own name, or what it is in: ``Outer`` for ``Outer.Inner``."""
    top, *inner = str(getattr(value, "__qualname__", "")).split(".")
    there = found = namespace.get(top)
    for name in inner:
        there = getattr(there, "__dict__", {}).get(name)
    return {top: found} if there is value else {}


def _named_in_annotations(value: Any, namespace: dict[str, Any]) -> dict[str, Any]:
    """The script's classes that annotations name as text, for typing.get_type_hints."""
    found = {}
    for text in annotations_of(value).values():
        for name in _names_in(text) if isinstance(text, str) else ():
            named = namespace.get(name)
            if isinstance(named, type) or type(named).__module__ in ("typing", "types"):
                found[name] = named
    return found


def annotations_of(value: Any) -> dict[str, Any]:
    """The annotations of a function, or those of a class itself; as text where they have no value yet."""
    own = getattr(value, "__dict__", {}).get("__annotations__")
    if own is None and (sys.version_info >= (3, 14) or not isinstance(value, type)):
        try:
            own = getattr(value, "__annotations__", None)  # since 3.14 this runs what is written there
        except Exception:  # whatever that raises: mostly a name that only type checkers import
            import annotationlib  # type: ignore[import-not-found,unused-ignore]  # it is there since 3.14

            own = annotationlib.get_annotations(value, format=annotationlib.Format.STRING)
    return own if isinstance(own, dict) else {}


def _names_in(text: str) -> tuple[str, ...]:
    try:
        return compile(text, "", "eval", dont_inherit=True).co_names
    except (SyntaxError, ValueError):
        return ()
