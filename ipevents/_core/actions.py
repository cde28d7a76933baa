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


class Plan(NamedTuple):
    """Where one event goes from this process.

    ``deliver`` to the listeners here, ``forward`` to these links, ``report`` a failure to the origin,
    ``lost_up``: a part that should go up is lost because the server is away. ``header`` and ``event``:
    for the records of messages that start here; None and "" for those that only pass.
    """

    deliver: bool = False
    forward: tuple[Any, ...] = ()
    report: Report | None = None
    lost_up: bool = False
    header: Header | None = None
    event: str = ""


NOTHING = Plan()
