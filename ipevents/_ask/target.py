"""Who is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core.messages import REQUEST
from .._exceptions import shown

if TYPE_CHECKING:
    from .._node.backpressure import Restarting
    from .._node.outgoing import Route

MAX_RETRIES = 1_000_000


class Target:
    """Who is asked: a kind of request with its route, see ``Router.plan_here``; or a child.

    ``retries`` is how often a request to any is given to another process although it may have begun.
    """

    __slots__ = ("child", "kind", "retries", "route")

    def __init__(
        self,
        kind: int = REQUEST,
        route: Route | None = None,
        child: Restarting | None = None,
        retries: int = 0,
    ) -> None:
        self.retries = retries
        self.kind = kind
        self.route = route
        self.child = child

    def pid(self) -> str:
        """Return the pid that is asked; "" for several, or for whichever it is."""
        if self.child is not None:
            return self.child.pid
        return str(self.route[0]) if self.route else ""


def retries_of(retry: object) -> int:
    """Return how often a request may be repeated, as it was given. Raises TypeError and ValueError."""
    if not isinstance(retry, int) or isinstance(retry, bool):
        raise TypeError(f"retry is how often a request may be repeated, an int, not {shown(retry)}")
    if not 0 <= retry <= MAX_RETRIES:
        raise ValueError(f"retry is from 0 to {MAX_RETRIES}, not {shown(retry)}")
    return int(retry)
