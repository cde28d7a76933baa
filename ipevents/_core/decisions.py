"""What is decided about events: deliver here, forward to links, report a failure.

Plan and Decision have slots: every send and every frame reads several of their fields, a slot in 1 ns and a
named tuple's field in 13 (CPython 3.11).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .messages import Envelope, Header


class Report(NamedTuple):
    """The event cannot go on: ``cause`` in words, ``target`` the pid that was wanted (or None).

    ``connected`` is False where only the link upwards is missing just now.
    """

    cause: str
    target: str | None = None
    connected: bool = True


class Plan:
    """Where one event goes from this process. Kept, so never changed; equal if all its parts are.

    ``deliver`` to the listeners here, ``forward`` to these links, ``report`` a failure to the origin,
    ``lost_up``: a part that should go up is lost because the server is away. ``header`` and ``event``:
    for the records of messages that start here; None and "" for those that only pass. ``only``: the link
    of a message that starts here and does nothing but go there.
    """

    __slots__ = ("deliver", "event", "forward", "header", "lost_up", "only", "report")

    def __init__(
        self,
        deliver: bool = False,
        forward: tuple[Any, ...] = (),
        report: Report | None = None,
        lost_up: bool = False,
        header: Header | None = None,
        event: str = "",
        only: Any = None,
    ) -> None:
        self.deliver = deliver
        self.forward = forward
        self.report = report
        self.lost_up = lost_up
        self.header = header
        self.event = event
        self.only = only

    def _fields(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)

    def __eq__(self, other: object) -> bool:
        return self._fields() == other._fields() if isinstance(other, Plan) else NotImplemented

    def __repr__(self) -> str:
        return f"Plan({', '.join(f'{name}={getattr(self, name)!r}' for name in self.__slots__)})"


NOTHING = Plan()


class Decision:
    """What happens to messages that have their header in common; kept, and read for each frame."""

    __slots__ = ("envelope", "forward", "goes_on", "lost_up", "pids", "report", "to")

    def __init__(
        self,
        pids: tuple[str, ...] = (),
        envelope: Envelope | None = None,
        forward: tuple[Any, ...] = (),
        to: Any = None,
        report: Report | None = None,
        lost_up: bool = False,
    ) -> None:
        self.pids = pids  # the path with us at its end
        self.envelope = envelope  # None: not for our listeners
        self.forward = forward
        self.to = to  # the rest of the route behind the next hop
        self.report = report
        self.lost_up = lost_up
        self.goes_on = bool(forward) or report is not None or lost_up  # is not only to be delivered

    def goes_like(self, other: Decision) -> bool:
        """Whether what goes on from here is the same."""
        return (self.forward, self.to, self.report, self.lost_up) == (
            other.forward,
            other.to,
            other.report,
            other.lost_up,
        )
