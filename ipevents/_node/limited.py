"""Notices that others can provoke as often as they like: told no faster than once a second and kind.

The first one of a kind is told at once. While one waits in the notices thread no other one of its kind does,
and there are at most ``MAX_KINDS`` kinds. So what waits is bounded, also before an ``offline``. The next one
says how many there were meanwhile.

Locks: the state lock guards everything here. ``note`` may be called in any thread, under the state lock or
without it; the listeners of ``error`` run in the notices thread.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from .._core.repeats import MAX_KINDS, Repeats, more
from .._dispatch.notices import Notices
from .._platform.clock import monotonic
from .node_state import NodeState

REPEAT_SECONDS = 1.0  # from one notice of a kind to the next


class Limited:
    """The notices of one node that others provoke, at most ``most`` kinds of them in REPEAT_SECONDS."""

    def __init__(self, node: NodeState, most: int = MAX_KINDS) -> None:
        self._node = node
        self._repeats = Repeats(most, strict=True)
        self._notices: Notices | None = None  # the thread in which notices wait

    def note(self, kind: Hashable, tell: Callable[[str], None]) -> None:
        """Have ``tell(more)`` called in the notices thread, unless it is too soon for that. Never blocks.

        ``more`` is the end of a text, which says how many others were not told.
        """
        node = self._node
        with node.lock:
            if node.notices is not self._notices:  # another life: what waited for the last one is gone
                self._notices = node.notices
                self._repeats.nothing_waits()
            if not self._repeats.comes(kind, monotonic(), REPEAT_SECONDS):
                return

        def notice() -> None:
            tell(self._told(kind))

        notices = node.notices
        if notices is not None:
            notices.put(notice)
        elif node.inside():
            node.defer(notice)
        else:
            notice()

    def is_due(self, kind: Hashable) -> str | None:
        """Return the end of the text of a notice that is told here and now; None if it is too soon for it."""
        with self._node.lock:
            is_due = self._repeats.comes(kind, monotonic(), REPEAT_SECONDS)
            return self._told(kind) if is_due else None

    def _told(self, kind: Hashable) -> str:
        """Note that a notice is told now. Returns the end of its text."""
        with self._node.lock:
            hidden = self._repeats.told(kind, monotonic())
            return more(hidden, others=self._repeats.take_others())
