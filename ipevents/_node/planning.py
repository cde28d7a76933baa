"""Where a message that starts here goes: checked against stage, names and topology, and planned."""

from __future__ import annotations

from typing import Any

from .._core.decisions import Plan, Report
from .._core.messages import (
    LAST_EVENT,
    MAX_PID,
    MAX_ROUTE,
    REQUEST,
    REQUEST_ANY,
    TO_CHILD,
    check_event,
    is_pid,
)
from .._core.state import Stage
from .._exceptions import NotConnected, SendError, UnknownProcess, shown
from .._links.link import Link
from .node_state import NodeState


class NoProcess(Exception):
    """A send by a link found no process there. No caller outside of the library sees it."""


def plan_message(node: NodeState, kind: int, event: str, route: tuple[str, ...] | None) -> Plan:
    """Check a send, and return the plan for it: the links that it goes to. Lock held.

    ``send`` calls this for the first message of its kind, and finds the plan kept in the router after that.
    Raises what is wrong with stage, event or route, or why there is no way to the target.
    """
    if node.stage is not Stage.OPEN:
        node.check_stage(node.dispatcher.runs_here())
    event = check_event(event, sending=True)
    target: Any = route[0] if route and kind in (TO_CHILD, REQUEST, REQUEST_ANY) else None
    if isinstance(target, Link):
        if target not in node.router.neighbours:
            raise NoProcess
    elif route is not None:
        _check_route(route, node.router.names)
    plan = node.router.plan_here(kind, event, route)
    if plan.report is not None:
        raise refusal(event, plan.report, "event" if kind <= LAST_EVENT else "request")
    return plan


def refusal(event: str, report: Report, what: str = "event") -> SendError:
    """Turn a report of the router into the exception that the caller gets."""
    if not report.connected:
        return NotConnected(f"{what} {event!r} was not sent: {report.cause}")
    return UnknownProcess(f"{what} {event!r} was not sent: {report.cause}")


def _check_route(route: tuple[str, ...], own: set[str]) -> None:
    """Refuse a route that no message could take. Raises UnknownProcess or SendError."""
    if not route:
        raise UnknownProcess("sendTo needs at least one pid, the target first: message.pids is the reply")
    hops = len(route) - (route[-1] in own)
    if hops > MAX_ROUTE:
        raise SendError(f"a route has at most {MAX_ROUTE} pids, this one has {hops}")
    if max(map(len, route)) > MAX_PID:
        longest = max(route, key=len)
        raise UnknownProcess(f"no pid has more than {MAX_PID} characters, as {shown(longest)} has")
    for pid in route:
        if not is_pid(pid):
            raise UnknownProcess(
                f"no process has the pid {shown(pid)}: a pid is printable ASCII without spaces"
            )
