"""Quiet children in trees of real processes: nobody hears that they come and go, and all else is as ever."""

from __future__ import annotations

import collections
import os
import signal
import threading

import pytest
from lines import CEILING
from proxies import Proxy
from quiet import Owner, quiet_worker

SOCKET = {"forwarded": True, "delayReconnect": 20}
METHODS = ["forkserver", "spawn"]


def member(role):
    """A process of the tree: tells the grand master where it is, and who it hears come and go.

    It answers "echo" and "look", and starts and kills children as it is told.
    """
    from quiet import quiet_worker

    from ipevents import ipem

    children = {}

    def heard(message, *gone):
        ipem.sendToGrandMaster("heard", role, message.event, *(gone or (message.from_,)))

    @ipem.on("begin")
    def begin(message, name):
        if name == "quiet":
            children[name] = quiet_worker(ipem, member, name)
        else:
            children[name] = ipem.worker(member, (name,), restart=False)

    @ipem.on("again")
    def here(message):
        ipem.sendToGrandMaster("here", role)

    ipem.on("online", heard).on("offline", heard)
    ipem.on("kill", lambda message, name: children[name].kill())
    ipem.answer("echo", lambda message, what: what)
    ipem.answer("look", lambda message: (ipem.netmap, ipem.childsOnline))
    here(None)


class Family:
    """What a grand master hears of its tree, and what that says."""

    def __init__(self, top):
        self.top = top
        self.heard = collections.defaultdict(list)  # by who has heard it: the event, and of which pid
        self.routes = {}  # by role
        self._changed = threading.Condition()
        top.on("online", lambda message: self._hear("top", "online", message.from_))
        top.on("offline", lambda message, gone: self._hear("top", "offline", gone))
        top.on("heard", lambda message, role, event, pid: self._hear(role, event, pid))
        top.on("here", self._is_here)

    def _hear(self, role, event, pid):
        with self._changed:
            self.heard[role].append((event, pid))
            self._changed.notify_all()

    def _is_here(self, message, role):
        with self._changed:
            self.routes[role] = message.pids
            self._changed.notify_all()

    def begin(self, *line):
        """Start the last of these roles as a child of the one before it, and wait until it is here."""
        *_, parent, role = line
        if parent == "top":
            self.top.worker(member, (role,))
        else:
            self.top.sendTo(self.routes[parent], "begin", role)
        self.wait(lambda: role in self.routes)
        assert len(self.routes[role]) == len(line)

    def wait(self, has_come):
        with self._changed:
            assert self._changed.wait_for(has_come, CEILING), (self.heard, self.routes)

    def wait_gone(self, role, *by):
        gone = ("offline", self.pid(role))
        self.wait(lambda: all(gone in self.heard[other] for other in by))

    def pid(self, role):
        return self.routes[role][0]

    def of(self, role):
        """What this one has heard, of which role."""
        names = {route[0]: name for name, route in self.routes.items()}
        with self._changed:
            return [(event, names.get(pid, pid)) for event, pid in self.heard[role]]


@pytest.fixture
def family(tops, request):
    """A top with a middle, that with a quiet child and a plain one, and a leaf below the quiet one."""
    made = Family(tops(startMethod=getattr(request, "param", "forkserver")))
    made.begin("top", "middle")
    made.begin("top", "middle", "quiet")
    made.begin("top", "middle", "quiet", "leaf")
    made.begin("top", "middle", "plain")
    return made


@pytest.mark.parametrize("family", METHODS, indirect=True)
def test_nobody_in_the_tree_hears_that_a_quiet_process_is_online_and_all_others_are_heard(family):
    assert family.of("top") == [("online", role) for role in ("middle", "leaf", "plain")]
    assert family.of("middle") == [("online", role) for role in ("middle", "leaf", "plain")]
    assert family.of("quiet") == [("online", "leaf")], "not of itself either"
    assert family.of("leaf") == [("online", "leaf")]


def test_a_quiet_process_is_in_every_map_and_is_reached_from_everywhere(family):
    top, pid = family.top, family.pid
    below = {pid("quiet"): {pid("leaf"): {}}, pid("plain"): {}}
    assert top.netmap == {pid("middle"): below}
    assert top.request(family.routes["middle"], "look") == (below, 1)
    assert top.request(family.routes["quiet"], "look") == ({pid("leaf"): {}}, 1)
    assert top.request(family.routes["quiet"], "echo", 5) == 5
    assert top.answerersBelow("echo") == 4
    assert sorted(found for _, found in top.requestAll("echo", 7)) == [7] * 4


@pytest.mark.parametrize("who", ["quiet", "middle"])
def test_nobody_hears_that_a_quiet_process_is_gone_and_all_others_are_heard(family, who):
    if who == "quiet":
        family.top.sendTo(family.routes["middle"], "kill", "quiet")
        family.wait_gone("leaf", "top", "middle")
        family.top.sendTo(family.routes["middle"], "kill", "plain")
        family.wait_gone("plain", "top", "middle")
        assert family.of("middle")[-2:] == [("offline", "leaf"), ("offline", "plain")]
        assert family.of("top")[-2:] == [("offline", "leaf"), ("offline", "plain")]
        assert family.top.netmap == {family.pid("middle"): {}}
    else:
        os.kill(int(family.pid("middle")), signal.SIGKILL)
        family.wait_gone("middle", "top")
        gone = [role for event, role in family.of("top") if event == "offline"]
        assert (sorted(gone[:2]), gone[2:]) == (["leaf", "plain"], ["middle"])
    assert all("quiet" not in [who for _, who in family.of(role)] for role in ("top", "middle", "leaf"))


def test_a_quiet_child_that_is_killed_is_started_again_in_silence(tops):
    top, owner = tops(), Owner()
    family, errors = Family(top), []
    top.on("error", lambda message, error: errors.append(error))
    child = quiet_worker(top, member, "quiet", restart=True, **owner.hooks())
    family.wait(lambda: "quiet" in family.routes)
    first = child.pid
    os.kill(int(first), signal.SIGKILL)
    family.wait(lambda: family.pid("quiet") != first)
    assert child.request("echo", 5) == 5
    assert top.netmap == {child.pid: {}}
    assert (top.childsOnline, child.restarts) == (0, 1)
    child.stop()
    owner.wait("end")
    family.begin("top", "plain")
    assert owner.told == ["online", "online", "end"]
    assert family.of("top") == [("online", "plain")]
    assert errors == []


@pytest.mark.parametrize("within", [30_000, 0], ids=["the session goes on", "another one begins"])
def test_of_a_client_that_is_cut_and_comes_back_the_quiet_child_is_not_heard(
    recorders, port, second_port, within
):
    with Proxy(second_port, port) as proxy:
        server = recorders("here", port=port, resumeWithin=within, **SOCKET).start()
        client = recorders("here", port=second_port, onlyConnect=True, resumeWithin=within, **SOCKET)
        client.joined()
        quiet = quiet_worker(client.emitter, member, "quiet")
        server.wait("here", quiet.pid)
        plain = client.emitter.worker(member, ("plain",))
        server.wait("here", plain.pid)
        assert server.emitter.request([quiet.pid, client.pid], "echo", 1) == 1
        for count in (2, 3):
            proxy.cut()
            server.wait("online", plain.pid, count=count)
            client.wait("online", client.pid, count=count)
            client.emitter.sendToChilds("again")
            server.wait("here", quiet.pid, count=count)
            assert server.emitter.request([quiet.pid, client.pid], "echo", count) == count
            assert server.emitter.netmap == {client.pid: {quiet.pid: {}, plain.pid: {}}}
            assert server.emitter.childsOnline == 1
        for child in (quiet, plain):
            child.kill()
            assert child.join(CEILING)
        server.wait("offline", count=5)
        client.wait("offline", count=3)
        came = collections.Counter(message.from_ for message in server.of("online"))
        assert came == {server.pid: 1, client.pid: 3, plain.pid: 3}
        assert collections.Counter(server.args("offline")) == {client.pid: 2, plain.pid: 3}
        came = collections.Counter(message.from_ for message in client.of("online"))
        assert came == {client.pid: 3, plain.pid: 1}
        assert client.args("offline") == [server.pid, server.pid, plain.pid]
        assert server.of("error") == []


def test_the_server_hears_nothing_of_a_quiet_child_that_was_there_before_it(recorders, port):
    client = recorders("here", port=port, onlyConnect=True, **SOCKET).start()
    quiet = quiet_worker(client.emitter, member, "quiet")
    plain = client.emitter.worker(member, ("plain",))
    client.wait("online", plain.pid)
    server = recorders("here", port=port, **SOCKET).start()
    server.wait("online", plain.pid)
    server.wait("here", quiet.pid)
    assert server.emitter.netmap == {client.pid: {quiet.pid: {}, plain.pid: {}}}
    assert [message.from_ for message in server.of("online")] == [server.pid, client.pid, plain.pid]
