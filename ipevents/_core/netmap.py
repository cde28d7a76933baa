"""What this process knows of the tree below it.

A process is found by its path and not by its pid alone. Only direct neighbours must have different pids
(README, Guarantees); in two branches the same pid may occur, in two containers for example. A path is as
records carry it: the process itself first, the direct neighbour of this process last.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class _Node:
    """One process below, with its children by pid."""

    __slots__ = ("children", "is_quiet", "online")

    def __init__(self) -> None:
        self.online = False
        self.is_quiet = False  # no listener is told that it is online, or gone
        self.children: dict[str, _Node] = {}


class Netmap:
    """The processes below this one, and which of them are online."""

    def __init__(self) -> None:
        self._root = _Node()

    def add(self, path: tuple[str, ...]) -> None:
        """Add the processes on a path that are not known yet. Those are not online."""
        node = self._root
        for pid in reversed(path):
            node = node.children.setdefault(pid, _Node())

    def online(self, path: tuple[str, ...], *, is_quiet: bool = False) -> None:
        """Note that ``path[0]`` has announced that it is online. Of a quiet one no listener is told."""
        self.add(path)
        node = self._find(path)
        assert node is not None
        node.online = True
        node.is_quiet = is_quiet

    def knows(self, path: tuple[str, ...]) -> bool:
        """Return whether a process with this path is known, online or not."""
        return self._find(path) is not None

    def is_online(self, path: tuple[str, ...]) -> bool:
        """Return whether the process with this path has announced that it is online."""
        node = self._find(path)
        return node is not None and node.online

    def is_quiet(self, path: tuple[str, ...]) -> bool:
        """Return whether the process with this path is online and a quiet one."""
        node = self._find(path)
        return node is not None and node.is_quiet

    def has_below(self, path: tuple[str, ...]) -> bool:
        """Return whether processes are known below the one with this path."""
        node = self._find(path)
        return node is not None and bool(node.children)

    def remove(self, path: tuple[str, ...]) -> list[tuple[str, ...]]:
        """Remove the process ``path[0]`` and all below it.

        Returns the paths of those that were online, the deepest first and ``path`` itself last.
        """
        above = self._find(path[1:]) if len(path) > 1 else self._root
        node = above.children.pop(path[0], None) if above is not None else None
        if node is None:
            return []
        gone = list(_top_down(path, node))
        if node.online:
            gone.append(path)
        return sorted(gone, key=len, reverse=True)

    def announced(self, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
        """Return the paths of all that are online, top down: what is announced to a new server.

        With a path, those of the process ``path[0]`` and all below it.
        """
        node = self._find(path)
        if node is None:
            return []
        return ([path] if node.online else []) + list(_top_down(path, node))

    def as_dict(self) -> dict[str, Any]:
        """Return the tree as nested dicts: each pid with a dict of what is below it."""
        return _nested(self._root)

    def _find(self, path: tuple[str, ...]) -> _Node | None:
        """Return the process with this path, or None."""
        node = self._root
        for pid in reversed(path):
            child = node.children.get(pid)
            if child is None:
                return None
            node = child
        return node


def _top_down(path: tuple[str, ...], node: _Node) -> Iterator[tuple[str, ...]]:
    """Yield the paths of all processes below ``node`` that are online, each before those below it."""
    for pid, child in node.children.items():
        below = (pid, *path)
        if child.online:
            yield below
        yield from _top_down(below, child)


def _nested(node: _Node) -> dict[str, Any]:
    return {pid: _nested(child) for pid, child in node.children.items()}
