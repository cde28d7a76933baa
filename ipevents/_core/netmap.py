"""What this process knows of the tree below it.

Nodes are found by their path, not by their pid alone: two containers may use the same pid in two
branches, and only direct neighbours have to differ (README, Guarantees).
Paths are as records carry them: origin first, the direct neighbour last.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class _Node:
    __slots__ = ("children", "online")

    def __init__(self) -> None:
        self.online = False
        self.children: dict[str, _Node] = {}


class Netmap:
    """A tree of pids below this process."""

    def __init__(self) -> None:
        self._root = _Node()

    def add(self, path: tuple[str, ...]) -> None:
        """Note the neighbour ``path[-1]`` and those below it on the path; none of them is online yet."""
        node = self._root
        for pid in reversed(path):
            node = node.children.setdefault(pid, _Node())

    def online(self, path: tuple[str, ...]) -> None:
        """``path[0]`` said that it is online."""
        self.add(path)
        node = self._find(path)
        assert node is not None
        node.online = True

    def knows(self, path: tuple[str, ...]) -> bool:
        return self._find(path) is not None

    def remove(self, path: tuple[str, ...]) -> list[tuple[str, ...]]:
        """Take the process ``path[0]`` and all below it out.

        Returns the paths of those that were online, deepest first, ``path`` itself last.
        """
        above = self._find(path[1:]) if len(path) > 1 else self._root
        node = above.children.pop(path[0], None) if above is not None else None
        if node is None:
            return []
        gone = list(_top_down(path, node))
        if node.online:
            gone.append(path)
        return sorted(gone, key=len, reverse=True)

    def announced(self) -> list[tuple[str, ...]]:
        """The paths of all that are online, top down: what a new server has to be told."""
        return list(_top_down((), self._root))

    def as_dict(self) -> dict[str, Any]:
        """The tree as nested dicts: pid to what is below it."""
        return _nested(self._root)

    def _find(self, path: tuple[str, ...]) -> _Node | None:
        node = self._root
        for pid in reversed(path):
            child = node.children.get(pid)
            if child is None:
                return None
            node = child
        return node


def _top_down(path: tuple[str, ...], node: _Node) -> Iterator[tuple[str, ...]]:
    for pid, child in node.children.items():
        below = (pid, *path)
        if child.online:
            yield below
        yield from _top_down(below, child)


def _nested(node: _Node) -> dict[str, Any]:
    return {pid: _nested(child) for pid, child in node.children.items()}
