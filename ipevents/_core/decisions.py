"""What is decided about events: deliver them here, forward them to links, report a failure.

``Router`` makes a Plan, ``Forwarder`` turns the plan for what arrives into a Decision. Both are classes with
slots because every send and every frame reads several of their fields: a slot takes 1 ns, a field of a named
tuple 13 ns (CPython 3.11).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .messages import Envelope, Header


class Report(NamedTuple):
    """Why an event cannot go on: ``cause`` in words, ``target`` the pid that was wanted (or None).

    ``connected`` is False if only the connection to the server is missing, which may come back.
    """

    cause: str
    target: str | None = None
    connected: bool = True


class Plan:
    """Where one event goes from this process. Plans are kept and shared, so no field is ever changed.

    ``deliver``: it is for the listeners here. ``forward``: the links that it goes to. ``report``: the failure
    that its origin gets to know. ``lost_up``: it should go up as well, and is lost there because the server
    is away. ``header`` and ``event`` begin the records of messages that start here; they are None and "" for
    messages that only pass. ``only``: the one link that a message from here goes to, if nothing else happens
    to it; a send looks at this first.

    Two plans are equal if all their fields are.
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
    """What happens to messages that arrive over one link and have kind, path, event and route in common.

    Kept at the link until the topology changes, and read for each frame.
    """

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
        self.pids = pids  # the path with this process at its end
        self.envelope = envelope  # for our listeners; None: the messages are not for them
        self.forward = forward
        self.to = to  # the rest of the route, for the next hop
        self.report = report
        self.lost_up = lost_up
        self.goes_on = bool(forward) or report is not None or lost_up  # more has to be done than to deliver

    def goes_like(self, other: Decision) -> bool:
        """Return whether both send the same on from here; what is delivered here may differ."""
        return (self.forward, self.to, self.report, self.lost_up) == (
            other.forward,
            other.to,
            other.report,
            other.lost_up,
        )
