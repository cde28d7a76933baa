"""Names of children and tokens of starts; with processes that just run see system/test_tree.py."""

from __future__ import annotations

import logging
import re
import threading

import pytest

from ipevents import Emitter
from ipevents._ask.asking import Asking
from ipevents._core.handshake import HUNG_UP, Identity, Refusal
from ipevents._core.restarts import RestartPolicy
from ipevents._core.topology import Up
from ipevents._links.link import Link
from ipevents._node import limited
from ipevents._node.node import Node
from ipevents._platform.threads import Deadline
from ipevents._processes import programs
from ipevents._processes.child_socket import ChildSocket
from ipevents._processes.child_state import ChildState

CEILING_SECONDS = 30.0
OTHER_NAME = re.compile(r"4711-[0-9a-f]{6}")


def ignore(*_: object) -> None:
    pass


class Children:
    """A private socket that is not open, and children that are expected at it."""

    def __init__(self) -> None:
        self.node = Node("1", reply=ignore, on_first_use=ignore, on_exit=ignore)
        self.node.asks = Asking(self.node, lambda: None)
        self.socket = ChildSocket(self.node, incarnation=1, on_attached=ignore)
        self.links: list[Link] = []

    def link(self, name: str) -> Link:
        link = Link(name, self.node.lock, ignore, ignore)
        self.links.append(link)
        return link

    def expected(self) -> ChildState:
        program = programs.function(print, (), {})
        child = ChildState("name", program, True, RestartPolicy(True, 1.0, None), False, "spawn")
        child.link = self.link("name")
        with self.node.lock:
            child.starts_now(0.0)
            self.socket.expect(child)
        return child

    def named(self, pid: str) -> str:
        child = self.expected()
        with self.node.lock:
            self.socket.name(child, pid)
        return child.pid


@pytest.fixture
def children():
    found = Children()
    yield found
    for link in found.links:
        with found.node.lock:
            link.end()
        assert link.join(Deadline(CEILING_SECONDS))


def test_a_child_is_called_by_its_os_pid(children):
    assert children.named("4711") == "4711"
    assert children.node.router.child_pids() == ["4711"]


def is_ours(children):
    children.node.router.rename("4711")


def is_the_parents(children):
    children.node.router.set_parent(children.link("4711"), "4711", Up.OPEN)


def is_a_clients(children):
    children.node.router.add_child(children.link("4711"), "4711")


@pytest.mark.parametrize("taken", [is_ours, is_the_parents, is_a_clients])
def test_a_child_whose_pid_is_taken_gets_another_name(children, taken):
    taken(children)
    before = children.node.router.child_link("4711")
    name = children.named("4711")
    assert OTHER_NAME.fullmatch(name)
    assert children.node.router.child_link(name) is children.links[-1]
    assert children.node.router.child_link("4711") is before


def test_a_child_with_the_os_pid_of_one_that_is_gone_gets_another_name(children):
    assert children.named("4711") == "4711"
    with children.node.lock:
        children.node.router.remove_child(children.links[-1])
    assert OTHER_NAME.fullmatch(children.named("4711"))


def test_a_child_that_is_faster_than_the_thread_that_starts_it_is_named_by_its_handshake(children):
    child = children.expected()
    assert children.socket._admit(Identity("4711", 2, (3, 11), 0), child.key_id, "", None) == ("4711", 0)
    with children.node.lock:
        children.socket.name(child, "4711")
    assert child.pid == "4711"


def test_a_token_is_good_for_one_connection(children):
    child = children.expected()
    assert children.socket._find_key(child.key_id) is not None
    children.socket._admit(Identity("4711", 2, (3, 11), 0), child.key_id, "", None)
    assert children.socket._find_key(child.key_id) is None
    assert isinstance(
        children.socket._admit(Identity("4711", 2, (3, 11), 0), child.key_id, "", None), Refusal
    )


def test_of_a_start_that_failed_behind_its_handshake_nothing_is_left(children):
    child = children.expected()
    children.socket._admit(Identity("4711", 2, (3, 11), 0), child.key_id, "", None)
    with children.node.lock:
        children.socket.forget(child)
    assert children.node.router.child_pids() == []
    assert children.socket._find_key(child.key_id) is None


def test_a_process_takes_the_name_that_its_parent_gave_it(monkeypatch):
    """Its OS pid is taken in this process just before it is named; what is sent to it waits for it."""
    original = ChildSocket.name

    def name(self: ChildSocket, child: ChildState, pid: str) -> None:
        self._node.router.names.add(pid)
        original(self, child, pid)

    monkeypatch.setattr(ChildSocket, "name", name)

    def work() -> None:
        from ipevents import ipem

        ipem.on("ask", lambda message: message.reply("answer", ipem.pid, ipem.parentPid))
        ipem.start()

    emitter = Emitter().options(useSocket=False)
    with emitter:
        with emitter.expecting("answer", CEILING_SECONDS) as got:
            child = emitter.worker(work)
            assert child.process is not None
            os_pid = child.process.pid
            child.send("ask")
        assert re.fullmatch(rf"{os_pid}-[0-9a-f]{{6}}", child.pid)
        assert got.message.args == (child.pid, emitter.pid)
        assert got.message.pids == (child.pid, emitter.pid)
        gone = threading.Event()
        emitter.on("offline", lambda message, pid: pid == child.pid and gone.set())
        child.stop()
        assert gone.wait(CEILING_SECONDS)
        assert child.exitcode == 0


def test_strangers_at_the_socket_for_children_are_counted_and_logged_once_for_each_cause(
    children, caplog, monkeypatch
):
    monkeypatch.setattr(limited, "monotonic", lambda: 100.0)
    caplog.set_level(logging.DEBUG, "ipevents")
    for cause in ["wrong-key", HUNG_UP] * 3:
        children.socket._refused(cause, "")
    text = f"{children.node.place()} refused a connection to the socket for its children"
    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert lines == [("WARNING", f"! {text}: wrong-key"), ("DEBUG", f"! {text}: {HUNG_UP}")]
    assert children.node.refusals.counts == {"wrong-key": 3, HUNG_UP: 3}
