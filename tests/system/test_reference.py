"""The differential test: the same trees and calls as in the original's traces, in real processes."""

from __future__ import annotations

import fnmatch
import json
from typing import Any

import pytest
import reference
from directed import Peer, Tree

pytestmark = pytest.mark.skipif(
    not reference.SHARED.is_dir(), reason=f"the original's traces are not at {reference.SHARED}"
)

VIA = {"top": "top", "socket": "top", "worker": "worker", "fork": "fork"}
STATE = ("parentPid", "childsOnline", "isGrandMaster", "isMaster", "isWorker")


def grow(tree: Tree, spec: dict[str, Any], port: int) -> dict[str, list[str]]:
    """Start a spec's processes, one after the other; returns what each start let everybody hear."""
    boot = {}
    for node in spec["nodes"]:
        options = json.loads(json.dumps(node["options"]).replace('"$PORT"', str(port)))
        plan = {"options": options, "listen": node["listen"], "listenWhen": node["listenWhen"]}
        role, via = node["role"], VIA[node["via"]]
        if via == "top":
            tree.top(role, **plan)
        else:
            tree.child(via, node["parent"], role, plan)
        tree.wait_heard(role, "parent" if node["parent"] else "online")
        tree.fence()
        boot[role] = reference.heard(tree.take())
    return boot


def argument(tree: Tree, who: Peer, value: Any) -> Any:
    """A reference in a step's arguments, resolved."""
    if not isinstance(value, dict):
        return value
    if "$pid" in value:
        return tree.pid(value["$pid"])
    if "$pidnum" in value:
        return int(tree.pid(value["$pidnum"]))
    if "$route" in value:
        return [tree.pid(role) if role in tree.peers else role for role in value["$route"]]
    if "$routenum" in value:
        return [int(tree.pid(role)) for role in value["$routenum"]]
    if "$pidsOf" in value:
        found = [item["pids"] for item in who.ever if item["args"][:1] == [value["$pidsOf"]]]
        return found[-1] if found else None
    return value


@pytest.mark.parametrize("name", reference.SPECS)
def test_every_process_receives_what_it_did_in_the_original(tree, port, name):
    spec = reference.spec(name)
    trace = reference.trace(name)
    listens = {node["role"] for node in spec["nodes"] if "evt" in node["listen"]}
    differing = {}
    for role, heard in grow(tree, spec, port).items():
        wanted = reference.recorded(trace["boot"][role]["received"])
        if heard != wanted:
            differing[f"boot of {role}"] = (heard, wanted)

    for step in spec["steps"]:
        who = tree[step["who"]]
        args = [argument(tree, who, value) for value in step["args"]]
        if args[0] is not None:  # else notReceived in the trace, too
            who.call(step["fn"], *args)
        tree.fence()
        heard = reference.heard(tree.take())
        wanted = reference.expected(name, step, step["who"] in listens)
        if heard != wanted:
            differing[step["id"]] = (heard, wanted)
    assert differing == {}, f"{len(differing)} differ: {list(differing)}"

    for role, recorded in trace["attributes"].items():
        state = tree[role].do("state")
        state["parentPid"] = tree.name(state["parentPid"])
        assert {key: state[key] for key in STATE} == {key: recorded[key] for key in STATE}


def test_every_accident_of_the_original_has_its_deviation():
    assert sorted(reference.accidents()) == sorted(pattern for pattern, _, _ in reference.STEP_DEVIATIONS)
    for name in reference.SPECS:
        for step in reference.spec(name)["steps"]:
            if any(fnmatch.fnmatchcase(step["id"], pattern) for pattern in reference.accidents()):
                assert reference.expected(name, step, True)
