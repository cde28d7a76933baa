"""The differential test: the same trees and calls as in the original's traces, in real processes."""

from __future__ import annotations

import fnmatch
import json
from typing import Any

import pytest
import reference
from directed import Peer, Raised, Tree
from matrix import slow

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


# Slow are those that differ from another one only in who listens.
@pytest.mark.parametrize(
    "name", [slow(name) if name == "b-tree-leaves" else name for name in reference.SPECS]
)
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


# The lifecycle traces, as far as they are contract.

TOP = {"useSocket": False}


def recorded(name: str, step: str, *, but: tuple[str, ...] = ()) -> list[str]:
    """What a lifecycle trace has for a step, less what a deviation names in ``but``: "role event"."""
    found = reference.life_step(name, step)["received"]
    return reference.recorded([item for item in found if f"{item['who']} {item['event']}" not in but])


def facts(name: str, step: str) -> dict[str, Any]:
    found: dict[str, Any] = reference.life_step(name, step)["facts"]
    return found


def heard(tree: Tree, *roles: str) -> list[str]:
    """All that was heard since the last look, after a fence."""
    tree.fence(*roles)
    return reference.heard(tree.take())


def plus(records: list[str], *more: tuple[Any, ...]) -> list[str]:
    """A list with further records, each given by its fields in order."""
    added = [json.dumps(dict(zip(reference.FIELDS, fields, strict=True))) for fields in more]
    return sorted([*records, *added])


def state(tree: Tree, role: str) -> dict[str, Any]:
    found = tree[role].do("state")
    return {**found, "parentPid": tree.name(found["parentPid"]), "pid": tree.name(found["pid"])}


def assert_state(tree: Tree, role: str, fact: dict[str, Any]) -> None:
    found = state(tree, role)
    assert {key: found[key] for key in STATE} == {key: fact[key] for key in STATE}


def public(port: int, **more: Any) -> dict[str, Any]:
    """Options of a process that uses the public socket."""
    return {"restart": False, "socket": {"host": "127.0.0.1", "port": port, "delayReconnect": 100, **more}}


def test_life_attributes(tree, port):
    def grown(role: str, step: str) -> None:
        fact = facts("attributes", step)
        if "beforeStart" in fact:
            before = state(tree, role)
            assert {key: before[key] for key in STATE if key != "parentPid"} == {
                key: fact["beforeStart"][key] for key in STATE if key != "parentPid"
            }  # deviation "parent"
        tree[role].call("start")
        tree.wait_heard(role, "online" if role == "GM" else "parent")
        tree.fence(*[name for name in tree.peers if name not in waiting])
        assert reference.heard(tree.take()) == recorded("attributes", step)
        assert_state(tree, role, fact["afterReady"])

    waiting: set[str] = set()
    later = {"start": False}
    tree.top("GM", options=public(port), **later)
    grown("GM", "GM as socket server")
    for via, parent, role, step in (
        ("worker", "GM", "W1", "cluster worker"),
        ("fork", "GM", "F1", "forked child"),
        ("fork", "W1", "W1a", "forked child of a cluster worker"),
        ("worker", "F1", "F1w", "cluster worker of a forked child"),
    ):
        child = tree.child(via, parent, role, later)
        assert tree.pid(role) == str(child.pid)
        grown(role, step)
    client = tree.top("C", options=public(port, onlyConnect=True), **later)
    assert tree.pid("C") == str(client.pid)
    grown("C", "TCP client")
    assert tree.pid("C").startswith("127.0.0.1:")

    with pytest.raises(Raised, match="WorkerRefused"):  # deviation "refused"
        tree["W1"].do("worker", "W1b")
    tree["C"].call("start")
    assert heard(tree) == recorded("attributes", "start() a second time")


def test_life_before_ready(tree):
    tree.top("GM", options=TOP, listen=["evt"], start=False)
    tree["GM"].call("sendToGrandMaster", "evt", "x")
    tree.wait_heard("GM", "error")
    error = ("GM", "error", "", "GM", ["GM"], None, None, ["NotStarted"])
    assert reference.heard(tree.take()) == plus([], error)  # deviation "not started"

    tree.child("worker", "GM", "W1", {})
    tree.wait_heard("W1", "parent")
    assert heard(tree) == recorded("before-ready", "a worker of a master that was not started")
    assert_state(tree, "W1", facts("before-ready", "a worker of a master that was not started")["W1"])

    tree["W1"].call("sendToGrandMaster", "evt", "x")
    up = ("GM", "evt", "toGM", "W1", ["W1", "GM"], None, None, ["x"])
    assert heard(tree) == plus([], up)  # deviation "top"

    tree.child("worker", "GM", "W2", {"listen": ["evt"], "start": False})
    tree["GM"].call("sendToChilds", "evt", "y")
    tree.fence("GM", "W1")
    assert tree.take() == []
    tree["W2"].call("broadcast", "evt", "z")
    tree.wait_heard("W2", "parent")
    wanted = recorded("before-ready", "GM: sendToChilds")
    wanted += recorded("before-ready", "the unstarted worker: broadcast")
    wanted += [
        line.replace('"W1', '"W2')
        for line in recorded("before-ready", "a worker of a master that was not started")
    ]
    assert heard(tree) == sorted(wanted)  # deviation "implied"

    tree["W2"].call("sendTo", [tree.pid("GM")], "evt", "w")
    up = ("GM", "evt", "sendTo", "W2", ["W2", "GM"], "GM", [], ["w"])
    assert heard(tree) == plus([], up)  # deviation "parent"

    tree.child("fork", "W2", "W2a", {})
    tree.wait_heard("W2a", "parent")
    assert heard(tree) == recorded("before-ready", "a child of the unstarted worker")
    tree["W2a"].call("broadcast", "evt", "v")
    step = "child of the unstarted worker: broadcast (its parent has parentPid null)"
    up = ("GM", "evt", "broadcast", "W2a", ["W2a", "W2", "GM"], None, None, ["v"])
    assert heard(tree) == plus(recorded("before-ready", step), up)  # deviation "parent"


def test_life_exit_codes(tree):
    tree.top("GM", options={**TOP, "delayRestart": 400})
    for via, role in (("worker", "W1"), ("fork", "F1")):
        tree.child(via, "GM", role, {})
        tree.wait_heard(role, "parent")
    boot = [line.replace("W1@2", "W1") for line in recorded("exit-codes", "booted")]
    assert heard(tree) == boot
    for role, code, life in (("W1", 0, 2), ("W1", 3, 3), ("F1", 0, 2)):
        pid = tree.pid(role)
        tree[role].do("exit_with", code)
        tree.wait_heard("GM", "offline", pid)
        found = tree.take()
        assert [item["exitcode"] for item in found] == [code]
        assert reference.heard(found) == recorded("exit-codes", f"{role} exits with code {code}")
        assert state(tree, "GM")["childsOnline"] == 1
        tree.prepared(role, life)
        tree.wait_heard(role, "parent")
        assert heard(tree) == recorded("exit-codes", f"{role} after code {code}")
        assert state(tree, "GM")["childsOnline"] == 2


def test_life_interest_race(tree):
    send = {"online": ("sendToChilds", "evt", "sent in the online handler")}
    tree.top("GM", options=TOP, then=send)
    for role, plan, step in (
        ("W1", {"listen": ["evt"]}, "GM sends inside its online handler; W1 registered before start()"),
        ("W2", {"listen": ["evt"], "listenWhen": "ready"}, "the same; W2 registers inside its ready handler"),
        ("W3", {}, "the same; W3 registers after its online was sent"),
    ):
        tree.child("worker", "GM", role, plan)
        tree.wait_heard(role, "parent")
        tree.wait_heard("GM", "online")
        if role == "W3":
            tree.wait(lambda: tree.names[tree["GM"].heard[-1]["from"]] == "W3", "the online of W3")
            tree["W3"].do("listen", "evt")
        assert heard(tree) == recorded("interest-race", step)


def test_life_kill_leaf(tree):
    tree.top("GM", options=TOP)
    tree.child("worker", "GM", "W1", {"options": {"delayRestart": 400}})
    for role in ("W1a", "W1b"):
        tree.child("fork", "W1", role, {})
        tree.wait_heard(role, "parent")
    assert heard(tree) == recorded("kill-leaf", "booted")
    below = {str(tree[role].pid): {} for role in ("W1a", "W1b")}
    assert state(tree, "GM")["netmap"] == {str(tree["W1"].pid): below}  # deviation "netmap"

    dead = str(tree["W1a"].pid)
    tree.kill("W1a")
    for role in ("GM", "W1"):
        tree.wait_heard(role, "offline", dead)
    assert reference.heard(tree.take()) == recorded("kill-leaf", "kill -9 W1a")
    del below[dead]
    assert state(tree, "GM")["netmap"] == {str(tree["W1"].pid): below}

    tree.prepared("W1a", 2)
    tree.wait_heard("W1a", "parent")
    assert heard(tree) == recorded("kill-leaf", "restarted")


@pytest.mark.parametrize("via", ["fork", "worker"])
@pytest.mark.parametrize("end", ["exit", "kill"])
def test_life_last_words(tree, via, end):
    tree.top("GM", options={**TOP, "restart": False}, listen=["evt"])
    child = tree.child(via, "GM", "X", {})
    tree.fence()
    tree.take()
    child.do("last_words", 200, end)
    tree.wait_heard("GM", "offline")
    *events, last = tree.take()
    assert last["event"] == "offline"
    numbers = [item["args"][0] for item in events]
    if end == "exit":
        assert numbers == list(range(200))
    else:  # deviation "killed"
        assert numbers == list(range(len(numbers)))


def test_life_listener_errors(tree):
    tree.top("GM", options=TOP, listen=["evt"])
    tree.child("worker", "GM", "W1", {"deaf": ["error", "online", "offline"]})
    tree.wait_heard("W1", "parent")
    assert heard(tree) == recorded("listener-errors", "booted (W1 without an error listener)")
    with pytest.raises(Raised, match="UnknownProcess"):
        tree["W1"].call("sendToChild", "nobody", "evt")
    assert heard(tree) == []

    tree["W1"].do("listen_and_raise", "evt")
    tree["W1"].do("listen", "evt", "other")
    tree["W1"].call("bubble", "evt", "b")
    own = ("W1", "evt", "", "W1", ["W1"], None, None, ["b"])
    up = ("GM", "evt", "toParents", "W1", ["W1", "GM"], None, None, ["b"])
    assert heard(tree) == plus([], own, up)  # deviation "isolated"
    tree["GM"].call("sendToChilds", "evt", "c")
    tree["GM"].call("sendToChilds", "other", "d")
    down = [
        ("W1", name, "toChilds", "GM", ["GM", "W1"], None, None, [arg])
        for name, arg in (("evt", "c"), ("other", "d"))
    ]
    assert heard(tree) == plus([], *down)
    assert not tree["W1"].gone


def test_life_no_restart(tree):
    tree.top("GM", options={**TOP, "restart": False})
    tree.child("fork", "GM", "F1", {})
    tree.child("worker", "GM", "W1", {})
    tree.child("fork", "GM", "F2", {}, restart=True, delayRestart=200)
    assert heard(tree) == recorded("no-restart", "booted")

    dead = [str(tree[role].pid) for role in ("F1", "W1")]
    for role in ("F1", "W1"):
        tree.kill(role)
    for pid in dead:
        tree.wait_heard("GM", "offline", pid)
    assert heard(tree, "GM", "F2") == recorded("no-restart", "restart:false, killed")
    assert state(tree, "GM")["childsOnline"] == 1

    for life, step in (
        (2, "per-child delayRestart 700"),
        (3, "options({restart:false}) set after fork, then killed again"),
    ):
        tree.kill("F2")
        tree.prepared("F2", life)
        tree.wait_heard("F2", "parent")
        assert heard(tree, "GM", "F2") == recorded("no-restart", step)
        tree["GM"].call("options", restart=False)
    assert (tree.lives("F1"), tree.lives("W1")) == (1, 1)


def test_life_orphans(tree):
    tree.top("GM", options=TOP)
    for via, role in (("worker", "W1"), ("fork", "F1"), ("fork", "F2")):
        tree.child(via, "GM", role, {})
        tree.wait_heard(role, "parent")
    assert heard(tree) == recorded("orphans", "booted")
    tree["F2"].do("hold_fast")
    tree.kill("GM")
    tree.wait(lambda: all(peer.gone for peer in tree.all), "the end of all")  # deviation "busy"


def test_life_reconnect_timing(tree, port):
    tree.top("C", options=public(port, onlyConnect=True))
    assert tree.take() == []
    assert_state(tree, "C", facts("reconnect-timing", "onlyConnect client, no server yet")["state"])
    tree.top("S", options=public(port))
    tree.wait_heard("C", "parent")
    assert heard(tree) == recorded("reconnect-timing", "server appears")
    assert_state(tree, "C", facts("reconnect-timing", "server appears")["C"])

    pid = tree.pid("C")
    tree["S"].do("drop_connections")
    tree.wait_heard("C", "parent")
    wanted = recorded("reconnect-timing", "server drops the connection")
    wanted += recorded("reconnect-timing", "after delayReconnect")
    assert heard(tree) == sorted(wanted)
    assert_state(tree, "C", facts("reconnect-timing", "after delayReconnect")["C"])
    assert tree.pid("C") == pid


def test_life_second_server(tree, port):
    tree.top("S", options=public(port))
    tree.top("T", options=public(port))
    tree.wait_heard("T", "parent")
    step = "a second process with the same options (onlyConnect:false)"
    assert heard(tree) == recorded("second-server", step)
    assert_state(tree, "T", facts("second-server", step)["T"])

    tree.kill("S")
    tree.wait_heard("T", "offline")
    tree["T"].do("settle")
    step = "first server killed, 1300 ms later (delayReconnect 300)"
    assert reference.heard(tree.take()) == recorded("second-server", step)
    assert_state(tree, "T", facts("second-server", step)["T"])


def test_life_server_killed(tree, port):
    def did(who: str, function: str, *args: Any) -> list[str]:
        tree[who].call(function, *args)
        return heard(tree)

    def did_alone(who: str, function: str, *args: Any) -> list[str]:
        tree[who].call(function, *args)
        tree.fence_pair("C", "CF")
        return reference.heard(tree.take())

    def step(text: str) -> list[str]:
        return recorded("server-killed", text)

    tree.top("S", options=public(port), listen=["evt"])
    tree.top("C", options=public(port, onlyConnect=True, resumeWithin=0), listen=["evt"])
    tree.child("fork", "C", "CF", {"listen": ["evt"]})
    tree.wait_heard("CF", "parent")
    assert heard(tree) == step("booted")
    pid = tree.pid("C")

    tree.kill("S")
    tree.wait_heard("C", "offline")
    assert reference.heard(tree.take()) == step("server killed -9")
    assert_state(tree, "C", facts("server-killed", "server killed -9")["C"])
    assert state(tree, "C")["netmap"] == {str(tree["CF"].pid): {}}  # deviation "netmap"

    once = ("C", "error", "", "C", ["C"], None, None, ["NotConnected"])
    found = did_alone("C", "sendToParents", "evt", "x")
    assert found == plus(step("disconnected client calls sendToParents"), once)  # deviation "outage"
    server = tree.names_to_pids()["S"]
    for function, args in (
        ("sendToGrandMaster", ()),
        ("sendToSiblings", ()),
        ("broadcast", ()),
        ("sendTo", ([server],)),
        ("bubble", ()),
    ):
        found = did_alone("C", function, *args, "evt", "x")
        assert found == step(f"disconnected client calls {function}"), function
    error = ("CF", "error", "", "CF", ["CF"], None, None, ["Undeliverable"])
    assert did_alone("CF", "sendToGrandMaster", "evt", "x") == plus([], error)  # deviation "descendant"

    tree.top("S", options=public(port), listen=["evt"])
    tree.wait_heard("C", "parent")
    known = ("S@2", "online", "toParents", "CF", ["CF", "C", "S@2"], None, None, [])
    assert heard(tree) == plus(step("server restarted on the same port"), known)  # deviation "descendants"
    assert tree.pid("C") == pid

    for function, kind in (("sendToChilds", "toChilds"), ("broadcast", "broadcast")):  # deviation "interest"
        down = [
            (role, "evt", kind, "S@2", ["S@2", *path], None, None, ["down"])
            for role, path in (("C", ["C"]), ("CF", ["C", "CF"]))
        ]
        assert did("S", function, "evt", "down") == plus([], *down)
    found = did("C", "broadcast", "evt", "bc")
    text = "client: broadcast after the reconnect (its child still has the old parentPid)"
    wanted = [line for line in step(text) if '["C", "CF", "C' not in line]
    assert found == wanted  # deviation "echo"
    assert did("C", "sendToChilds", "evt", "q") == step("client: sendToChilds after the reconnect")
    reply = ("C", "evt", "sendTo", "CF", ["CF", "C"], "C", [], ["r"])
    assert did("CF", "sendTo", [pid], "evt", "r") == plus([], reply)  # deviation "route"
    assert did("CF", "broadcast", "evt", "bc-cf") == step("child of the client: broadcast")
    tree["C"].call("sendToParents", "evt", "up")
    tree.wait_heard("S", "evt")
    pids = tree["S"].ever[-1]["pids"]
    assert did("S", "sendTo", pids, "evt", "reply2") == step("client sends up, server replies")
    assert state(tree, "S")["netmap"] == {pid: {str(tree["CF"].pid): {}}}  # deviation "netmap"
