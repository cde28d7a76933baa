"""What is kept because working it out takes long, in a bounded memory.

How much there could be is for a peer to choose.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")

_ENTRY_BYTES = 320  # estimates: what an entry costs beside its names, and a name beside its text
_NAME_BYTES = 64


class Bounded(dict[K, V]):
    """A dict that forgets all when what is to be added has no room in ``most`` bytes.

    It is filled by ``keep`` only, and read as any dict, at the same speed.
    """

    __slots__ = ("_left", "_most")

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = self._left = most

    def keep(self, key: K, value: V, size: int) -> None:
        """Keep an entry of so many bytes. There is none for this key yet."""
        if size > self._left:
            self.clear()
        self._left -= size
        self[key] = value

    def clear(self) -> None:
        """Forget all."""
        super().clear()
        self._left = self._most


def size_of(names: Iterable[str]) -> int:
    """Return about how many bytes an entry with these names takes."""
    return _ENTRY_BYTES + sum(len(name) + _NAME_BYTES for name in names)
