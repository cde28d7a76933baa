"""What the router may ask for: deliver here, forward to links, report a failure."""

from __future__ import annotations

from typing import Any, NamedTuple

from .messages import Header


class Report(NamedTuple):
    """The event cannot go on: ``cause`` in words, ``target`` the pid that was wanted (or None).

    ``connected`` is False where only the link upwards is missing just now.
    """

    cause: str
    target: str | None = None
    connected: bool = True


class Plan:
    """Where one event goes from this process. Immutable by convention; equal if all its parts are.

    ``deliver`` to the listeners here, ``forward`` to these links, ``report`` a failure to the origin,
    ``lost_up``: a part that should go up is lost because the server is away. ``header`` and ``event``:
    for the records of messages that start here; None and "" for those that only pass. ``only``: the link
    of a message that starts here and does nothing but go there.

    With slots, which every send reads several of: a quarter of the time that the fields of a tuple take.
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

    def __hash__(self) -> int:
        return hash(self._fields())

    def __repr__(self) -> str:
        return f"Plan({', '.join(f'{name}={getattr(self, name)!r}' for name in self.__slots__)})"


NOTHING = Plan()
