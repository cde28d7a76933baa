"""The traces of the original, and where and why this library deviates from them.

A spec has the nodes of a tree and the steps: which process calls what, with references to pids and routes. A
trace has, for each step, what every listener was given, sorted; pids are replaced by the names of the nodes,
``W1@2`` for the second life of W1. Both are recordings of the original, and lie beside the project: without
them the differential test is skipped.
"""

from __future__ import annotations

import fnmatch
import json
import re
from pathlib import Path
from typing import Any

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "reference"
SPECS = ("a-flat-all", "b-tree-all", "b-tree-leaves", "c-star-all", "c-star-early", "c-tcp-all")
FIELDS = ("who", "event", "type", "from", "pids", "to", "route", "args")  # local is: type is ""

Record = dict[str, Any]

# Every deviation from the traces, with its reason. (Which, what is expected instead, why.)
#
# Steps, by pattern of their id. "as ID": what the trace has for another step, with the own label;
# "local": the own listeners get it; "undeliverable": the origin gets that error.
STEP_DEVIATIONS = (
    ("*.sendToChild(number)", "as {who}.sendToChild({first})", "a pid may be given as str or int"),
    ("*.sendTo(*, pids as numbers)", "as {who}.sendTo({last})", "a pid may be given as str or int"),
    (
        "*.sendTo(*, pids as numbers, without self)",
        "as {who}.sendTo({last})",
        "a pid may be given as str or int",
    ),
    ("*.sendTo(self)", "local", "sendTo([own pid]) is a local emit"),
    ("*.reply-to-own-bubble", "local", "the reply to a local event is a local emit"),
    ("*.sendTo(broken after *)", "undeliverable", "a route that breaks further on comes back to the origin"),
)
# Whole traces that another one stands for.
TRACE_DEVIATIONS = {
    "c-star-early": (
        "c-star-all",
        "listeners registered before the connection count (README, Coming from node-ipevents)",
    ),
}
# Values in the records.
VALUE_DEVIATIONS = (
    (r"(.*):number", r"\1", "one type for pids everywhere: str"),
    (r"(.*)#2", r"\1", "a client keeps its pid over reconnects"),
)
# Errors: the original's text, our exception.
ERRORS = (
    (r"\.sendToChild\(\) failed: Child with pid .* not found\.", "UnknownProcess"),
    (r"Can not push to (?!S:).*: Process not found\.", "UnknownProcess"),
    (r"Can not push to S: Process not found\.", "NotConnected"),  # the server is known, but away
    (r"\.sendToGrandMaster\(\) failed: process\.send not defined\.", "NotConnected"),
)
# Lifecycle traces: what is not as recorded, by trace. The tests say at each place which of these it is.
LIFE_DEVIATIONS = {
    "attributes": {
        "parent": "parentPid is known from the first moment of the connection, not only after `parent`",
        "refused": "bare worker() in a bare worker is refused by an error of our own",
    },
    "before-ready": {
        "not started": "NotStarted instead of a text",
        "top": "a top process takes what its children send to the grand master, started or not",
        "implied": "the first send implies start(): ready and online come then, and what waited for them",
        "parent": "the parent is known from the first moment: sendTo reaches it, and a broadcast passes",
    },
    "kill-leaf": {"netmap": "without the own pid, and only the dead process is taken out (surprise 14)"},
    "last-words": {"killed": "only a clean exit promises that all arrives; of a SIGKILL a beginning does"},
    "listener-errors": {
        "isolated": "a listener that raises is an error event: parents get the event, the process lives"
    },
    "orphans": {"busy": "every child ends with its parent, also one that something else keeps alive"},
    "second-server": {"race": "of two that start at once on a free port the loser connects"},
    "server-killed": {
        "outage": "one error(NotConnected) tells that what goes up is lost until the server is back",
        "descendant": "what a descendant sends to the grand master in an outage comes back to it",
        "descendants": "on a reconnect a client announces itself, then its descendants",
        "interest": "sent whole at every connect, so events from above arrive again (surprise 2)",
        "echo": "a broadcast never comes back to its origin, nor twice to anyone (surprise 3)",
        "route": "the child of a reconnected client reaches it by its pid (surprise 3)",
        "netmap": "without the own pid, with all that is below",
    },
}


def spec(name: str) -> dict[str, Any]:
    return _load("specs", name)


def trace(name: str) -> dict[str, Any]:
    return _load("traces", name)


def _load(kind: str, name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((SHARED / kind / f"{name}.json").read_text())
    return loaded


def life_step(name: str, step: str) -> dict[str, Any]:
    """A named step of a lifecycle trace."""
    return next(item for item in trace(f"life-{name}")["steps"] if item["step"] == step)


def accidents() -> list[str]:
    steps: list[str] = trace("index")["accidentSteps"]
    return steps


def recorded(records: list[Record]) -> list[str]:
    """What a trace has for a step, as we spell it, in a comparable order."""
    return _sorted([_ours(record) for record in records])


def heard(records: list[Record]) -> list[str]:
    """What was heard, in the same shape."""
    found = []
    for record in records:
        args = [arg["kind"] if isinstance(arg, dict) and "kind" in arg else arg for arg in record["args"]]
        found.append({**{key: record[key] for key in FIELDS}, "args": args})
    return _sorted(found)


def _sorted(records: list[Record]) -> list[str]:
    return sorted(json.dumps({key: record[key] for key in FIELDS}) for record in records)


def _ours(record: Record) -> Record:
    assert record["local"] == (record["type"] == "")
    return {key: _value(record[key]) for key in FIELDS}


def _value(value: Any) -> Any:
    if isinstance(value, list):
        return [_value(item) for item in value]
    if isinstance(value, dict) and set(value) == {"error"}:
        return next((kind for text, kind in ERRORS if re.fullmatch(text, value["error"])), value)
    if isinstance(value, str):
        for pattern, ours, _ in VALUE_DEVIATIONS:
            value = re.sub(f"^{pattern}$", ours, value)
    return value


def expected(name: str, step: dict[str, Any], listens: bool) -> list[str]:
    """What we expect for a step: the trace's list, or what a deviation puts in its place."""
    instead = TRACE_DEVIATIONS.get(name)
    steps = trace(instead[0] if instead else name)["steps"]
    who, label = step["who"], step["args"][-1]
    for pattern, what, _ in reversed(STEP_DEVIATIONS):
        if not fnmatch.fnmatchcase(step["id"], pattern):
            continue
        local = {"who": who, "type": "", "from": who, "pids": [who], "to": None, "route": None}
        if what == "local":
            return _sorted([{**local, "event": "evt", "args": [label]}] if listens else [])
        if what == "undeliverable":
            return _sorted([{**local, "event": "error", "args": ["Undeliverable"]}])
        target = step["args"][0]
        first = target.get("$pidnum")
        last = target.get("$routenum", [None])[0]
        other = what.removeprefix("as ").format(who=who, first=first, last=last)
        records = [{**record, "args": [label]} for record in steps[other]["received"]]
        return recorded(records)
    return recorded(steps[step["id"]]["received"])
