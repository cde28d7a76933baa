"""The public socket: who serves, who connects, who is kept out, and what an outage leaves behind."""

from __future__ import annotations

import errno
import os
import pickle
import socket
import struct
import threading
from pathlib import Path

import pytest
from matrix import slow
from proxies import Proxy
from recorder import CEILING_SECONDS, fence
from scripts import printed, run, write

from ipevents import (
    AddressInUse,
    AuthenticationFailed,
    HandshakeTimeout,
    LinkError,
    MessageTooLarge,
    Undeliverable,
    UnknownProcess,
)
from ipevents._transport import dial, frame_reader

KEY = b"sixteen bytes or more"


@pytest.fixture(params=["TCP", "AF_UNIX"])
def address(request, port, place):
    """Socket options of one address."""
    return {"port": port} if request.param == "TCP" else {"socketPath": str(place / "socket")}


def connect(address):
    """A connection by a stranger."""
    if "port" in address:
        return socket.create_connection(("127.0.0.1", address["port"]))
    client = socket.socket(socket.AF_UNIX)
    client.connect(address["socketPath"])
    return client


# Who serves, who connects


@pytest.mark.parametrize("order", ["server first", "client first"])
def test_two_scripts_find_each_other_in_any_order(tree, address, order):
    public = {"socket": {"host": "127.0.0.1", "delayReconnect": 50, **address}}
    client = {"socket": {**public["socket"], "onlyConnect": True}}
    if order == "server first":
        tree.top("S", options=public, listen=["evt"])
        tree.top("C", options=public, listen=["evt"])
    else:
        tree.top("C", options=client, listen=["evt"])
        assert tree["C"].do("state")["parentPid"] is None
        assert not tree["C"].do("state")["isGrandMaster"]
        tree.top("S", options=public, listen=["evt"])
    tree.wait_heard("C", "parent")
    tree["C"].call("sendToGrandMaster", "evt", "up")
    tree["S"].call("sendToChilds", "evt", "down")
    tree.fence()
    found = {(item["who"], *item["pids"], *item["args"]) for item in tree.take() if item["event"] == "evt"}
    assert found == {("S", "C", "S", "up"), ("C", "S", "C", "down")}
    assert tree["S"].do("state")["isGrandMaster"]


@pytest.mark.parametrize("address", ["TCP", slow("AF_UNIX")], indirect=True)
def test_of_sixteen_that_start_at_once_exactly_one_is_the_grand_master(tree, address):
    """B11: several programs start at once."""
    public = {"socket": {"host": "127.0.0.1", **address}}
    roles = [f"N{number}" for number in range(16)]
    for role in roles:
        tree.top(role, options=public, start=False)
    for number in [(tree[role], tree[role].begin("call", "start")) for role in roles]:
        number[0].end(number[1])
    states = {role: tree[role].do("state") for role in roles}
    (master,) = [role for role in roles if states[role]["isGrandMaster"]]
    others = [role for role in roles if role != master]
    assert {states[role]["parentPid"] for role in others} == {states[master]["pid"]}
    for role in others:
        tree.wait_heard(role, "parent")
    tree.fence()
    assert tree[master].do("state")["childsOnline"] == 15
    assert len({tree.pid(role) for role in roles}) == 16


def test_a_process_that_only_connects_waits_for_its_server_and_so_does_what_it_sends(recorders, address):
    client = recorders(**address, onlyConnect=True).start()
    assert client.heard == []
    assert not client.emitter.isGrandMaster
    for number in range(3):
        client.emitter.sendToParents("evt", number)
    client.emitter.broadcast("evt", 3)
    server = recorders(**address).start()
    client.wait("parent")
    server.wait("evt", count=4)
    assert server.args("evt") == [0, 1, 2, 3]
    assert [item.event for item in client.heard] == ["ready", "online", "parent"]
    assert [item.event for item in server.heard[:3]] == ["ready", "online", "online"]
    assert {item.from_ for item in server.of("evt")} == {client.pid}


def test_a_server_is_ready_and_online_before_it_hears_of_anybody(recorders, address):
    client = recorders(**address, onlyConnect=True).start()
    client.emitter.sendToParents("job")
    server = recorders(**address)

    def ready(message):
        client.wait("online")  # it gets through while this runs
        server.emitter.on("job", server.hear)

    server.emitter.on("ready", ready)
    server.start()
    server.wait("job")
    heard = [(item.event, item.from_) for item in server.heard]
    assert heard == [
        *((event, server.pid) for event in ("ready", "online")),
        *((event, client.pid) for event in ("online", "job")),
    ]


def test_two_clients_at_one_path_are_two_processes(recorders, place):
    path = {"socketPath": str(place / "socket")}
    server = recorders("mark", **path).start()
    one = recorders("mark", **path, onlyConnect=True).joined()
    two = recorders("mark", **path, onlyConnect=True).joined()
    assert len({server.pid, one.pid, two.pid}) == 3
    fence(server, one, two)
    one.emitter.sendToSiblings("evt", "sibling")
    server.emitter.sendToChild(two.pid, "evt", "child")
    fence(server, one, two)
    assert {(item.pids, item.args[0]) for item in two.of("evt")} == {
        ((one.pid, server.pid, two.pid), "sibling"),
        ((server.pid, two.pid), "child"),
    }
    assert one.of("evt") == server.of("evt") == []


def test_a_client_that_has_another_ones_pid_takes_a_new_one_for_good(recorders, place):
    """B9: a pid that another process has."""
    path = {"socketPath": str(place / "socket")}
    server = recorders("mark", **path).start()
    one = recorders("mark", **path, onlyConnect=True).joined()
    two = recorders("mark", **path, onlyConnect=True)
    with two.emitter._node.lock:  # as in another container
        two.emitter._node.presence.rename(one.pid)
    two.joined()
    assert two.pid.startswith(f"{one.pid}-")
    assert server.emitter.childsOnline == 2
    fence(server, one, two)
    two.emitter.broadcast("evt", "x")
    fence(server, one, two)
    assert [item.pids for item in one.of("evt")] == [(two.pid, server.pid, one.pid)]
    assert server.of("offline") == []


@pytest.mark.parametrize(
    ("server", "host", "name"),
    [("127.0.0.1", "127.0.0.1", "127.0.0.1"), ("::1", "::1", "[::1]"), ("::", "127.0.0.1", "127.0.0.1")],
)
def test_a_client_over_tcp_is_called_by_its_address(recorders, port, server, host, name):
    top = recorders("mark", port=port, host=server, allowRemote=True).start()
    client = recorders("question", "mark", port=port, host=host, onlyConnect=True).joined()
    address, _, number = client.pid.rpartition(":")
    assert (address, number.isdigit()) == (name, True)
    asked(top, client, client).reply("evt", "an answer")
    assert top.wait("evt").from_ == client.pid


def test_a_server_serves_all_addresses_of_its_host_until_its_stop(recorders, port, monkeypatch):
    real = socket.getaddrinfo

    def look_up(name, *args, **kwargs):
        found = ["::1", "127.0.0.1"] if name == "name" else [name]
        return [item for host in found for item in real(host, *args, **kwargs)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    server = recorders("mark", port=port, host="name").start()
    hosts = ("127.0.0.1", "::1", "name")
    clients = [recorders("mark", port=port, host=host).joined() for host in hosts]
    fence(server, *clients)
    assert server.emitter.childsOnline == 3
    assert [client.pid.rpartition(":")[0] for client in clients] == ["127.0.0.1", "[::1]", "[::1]"]
    threads = [thread.name for thread in threading.enumerate() if "acceptor" in thread.name]
    assert threads == ["ipevents-acceptor-socket"]
    for client in clients:
        client.emitter.stop()
    server.emitter.stop()
    for host in hosts[:2]:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, port))


def test_a_client_over_ipv6_keeps_its_name_in_an_outage(recorders, port):
    server = recorders("mark", port=port, host="::1").start()
    client = recorders("mark", port=port, host="::1").joined()
    name = client.pid
    server.emitter.stop()
    client.wait("offline")
    server.start()
    client.wait("parent", count=2)
    fence(server, client)
    assert client.pid == name
    assert server.of("mark")[-1].from_ == name


def test_a_client_finds_its_server_again_wherever_its_host_leads_by_then(recorders, port, monkeypatch):
    hosts = ["127.0.0.1"]
    real = socket.getaddrinfo

    def look_up(name, *args, **kwargs):
        found = hosts if name == "name" else [name]
        return [item for host in found for item in real(host, *args, **kwargs)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    server = recorders("mark", port=port, host="127.0.0.1").start()
    client = recorders("mark", port=port, host="name", onlyConnect=True).joined()
    server.emitter.stop()
    client.wait("offline")
    hosts[:] = ["127.0.0.1", "::1"]
    moved = recorders("mark", port=port, host="::1").start()
    client.wait("parent", count=2)
    fence(moved, client)
    assert client.emitter.parentPid == moved.pid


def test_the_children_of_a_client_are_told_its_new_name(tree, port):
    public = {"socket": {"host": "127.0.0.1", "port": port, "delayReconnect": 50, "onlyConnect": True}}
    tree.top("C", options=public, listen=["evt"])
    tree.child("worker", "C", "D", {"listen": ["evt"]})
    tree.top("S", options={"socket": {**public["socket"], "onlyConnect": False}}, listen=["evt"])
    tree.wait_heard("C", "parent")
    tree.fence()
    pid = tree.pid("C")
    assert tree["D"].do("state")["parentPid"] == pid
    tree.take()
    tree["D"].call("sendTo", [tree.pid("S"), pid], "evt")
    tree.fence()
    assert [(item["who"], item["pids"]) for item in tree.take()] == [("S", ["D", "C", "S"])]


def test_an_emitter_can_be_started_again_after_its_stop(recorders, address):
    server = recorders("mark", **address).start()
    client = recorders("mark", **address).joined()
    server.emitter.stop()
    client.wait("offline")
    server.start()
    client.wait("parent", count=2)
    fence(server, client)
    server.forget()  # the offline that its own stop told, as well
    client.emitter.stop()
    server.wait("offline")
    server.forget()
    client.start()
    server.wait("online", client.pid)
    assert [item.event for item in server.heard] == ["online"]
    fence(server, client)


# An outage


def test_a_client_survives_the_end_of_its_server(tree, address):
    options = {"host": "127.0.0.1", "delayReconnect": 50, **address}
    client = {"socket": {**options, "onlyConnect": True}}
    tree.top("S", options={"socket": options}, listen=["evt"])
    tree.top("C", options=client, listen=["evt"])
    tree.top("E", options=client, listen=["evt"])
    tree.child("worker", "C", "D", {"listen": ["evt"]})
    tree.wait_heard("D", "parent")
    tree.fence()
    before = {role: tree.pid(role) for role in "CDE"}
    tree.take()

    tree.kill("S")
    for role in "CE":
        tree.wait_heard(role, "offline")
    tree.top("S", options={"socket": options}, listen=["evt"])
    for role in "CE":
        tree.wait_heard(role, "parent")
    tree.fence()
    assert {role: tree.pid(role) for role in "CDE"} == before
    found = sorted((item["who"], item["event"], tuple(item["pids"])) for item in tree.take())
    assert found == sorted(
        [
            *((role, event, (role,)) for role in "CE" for event in ("offline", "online")),
            *((role, "parent", ("S@2", role)) for role in "CE"),
            *((("S@2", "online", (*path, "S@2"))) for path in ("C", "E", "DC")),
            ("S@2", "ready", ("S@2",)),
            ("S@2", "online", ("S@2",)),
        ]
    )
    assert tree["S"].do("state")["netmap"] == {before["C"]: {before["D"]: {}}, before["E"]: {}}

    for who, receivers in (("S", "CDE"), ("C", "SDE"), ("D", "SCE"), ("E", "SCD")):
        tree[who].call("broadcast", "evt", who)
        tree.fence()
        heard = sorted(item["who"].partition("@")[0] for item in tree.take())
        assert heard == sorted(receivers), who
    assert tree["D"].do("state")["parentPid"] == before["C"]


def test_a_client_that_shall_not_reconnect_goes_on_alone(recorders, address):
    server = recorders(**address).start()
    client = recorders(**address, reconnect=False).joined()
    server.emitter.stop()
    assert client.wait("offline").args == (server.pid,)
    client.emitter.bubble("evt", 1)
    client.wait("evt")
    client.wait("error")
    assert client.emitter.parentPid is None
    assert not client.emitter.isGrandMaster


def test_each_outage_is_one_error_and_every_loss_is_counted(recorders, address):
    server = recorders(**address).start()
    client = recorders(**address).joined()
    for outage in (1, 2):
        server.emitter.stop()
        client.wait("offline", count=outage)
        for _ in range(5):
            client.emitter.sendToParents("evt")
        client.wait("error", count=outage)
        server.start()
        client.wait("parent", count=outage + 1)
        assert [type(error).__name__ for error in client.args("error")] == ["NotConnected"] * outage
    (link,) = client.emitter.stats()["links"].values()
    assert link["dropped"]["disconnected"] == 10
    assert server.of("evt") == []


def test_a_client_that_comes_back_replaces_its_own_stale_link(recorders, port, second_port):
    """B9: the link of before is its own."""
    server = recorders("mark", port=port, forwarded=True).start()
    other = recorders("mark", port=port, forwarded=True).joined()
    with Proxy(second_port, port, is_unseen=True) as proxy:
        client = recorders("mark", port=second_port, onlyConnect=True, forwarded=True).joined()
        pid = client.pid
        fence(server, other, client)
        server.forget()
        proxy.cut()
        client.wait("parent", count=2)
        assert client.pid == pid
        fence(server, other, client)
        assert [(item.event, *item.args) for item in server.heard if item.event != "mark"] == [
            ("offline", pid),
            ("online",),
        ]
        assert server.emitter.childsOnline == 2
        for sender in (server, other, client):
            sender.emitter.broadcast("evt", sender.pid)
        fence(server, other, client)
        for receiver in (server, other, client):
            assert sorted(receiver.args("evt")) == sorted({server.pid, other.pid, pid} - {receiver.pid})
        client.emitter.stop()


# Answers to those who are gone


def asked(server, client, receiver):
    """Have the client, or the server, ask the other one; returns the question."""
    sender = server if receiver is client else client
    before = len(receiver.of("question"))
    sender.emitter.broadcast("question")
    receiver.wait("question", count=before + 1)
    return receiver.of("question")[-1]


def refused(recorder, message):
    """Answer a message of a process that is gone; returns the error."""
    before = len(recorder.of("error"))
    message.reply("evt", "for that one only")
    recorder.wait("error", count=before + 1)
    return recorder.args("error")[-1]


@pytest.mark.parametrize("family", ["TCP", "AF_UNIX"])
def test_an_answer_to_a_client_that_is_gone_never_reaches_the_next_one_of_its_name(
    recorders, port, second_port, place, monkeypatch, family
):
    real = dial._connect

    def from_one_port(sock, where, *rest):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", second_port))
        real(sock, where, *rest)

    if family == "TCP":
        monkeypatch.setattr(dial, "_connect", from_one_port)
        server = recorders("question", "mark", port=port, host="0.0.0.0", allowRemote=True)
        # By two addresses of the server, or the kernel would keep the port from being used at once.
        options = [{"port": port, "host": host, "onlyConnect": True} for host in ("127.0.0.1", "127.0.0.2")]
    else:
        path = {"socketPath": str(place / "s"), "onlyConnect": True}
        server, options = recorders("question", "mark", **{**path, "onlyConnect": False}), [path, path]
    with monkeypatch.context() as patch:
        patch.setattr(dial, "_connect", real)
        server.start()
    first, second = (recorders("mark", **each) for each in options)
    with second.emitter._node.lock:  # as the system gives an OS pid again
        second.emitter._node.presence.rename(first.pid)
    first.joined()
    name = first.pid
    if family == "TCP":
        assert name == f"127.0.0.1:{second_port}"
    question = asked(server, first, server)
    assert question.from_ == name
    first.emitter.stop()
    server.wait("offline")
    second.joined()
    assert second.pid.startswith(f"{name}-")
    assert isinstance(refused(server, question), UnknownProcess)
    fence(server, second)
    assert second.of("evt") == []
    asked(server, second, server).reply("evt", "for this one")
    second.wait("evt")
    assert second.args("evt") == ["for this one"]


@pytest.mark.parametrize("same_pid", [False, True])
def test_an_answer_to_a_server_that_is_gone_never_reaches_the_next_one(recorders, address, same_pid):
    first, second = recorders("mark", **address), recorders("mark", **address)
    if same_pid:  # as in containers, where every server is process 1
        with second.emitter._node.lock:
            second.emitter._node.presence.rename(first.pid)
    first.start()
    client = recorders("question", "mark", **address, onlyConnect=True).joined()
    question = asked(first, client, client)
    first.emitter.stop()
    client.wait("offline")
    second.start()
    client.wait("parent", count=2)
    assert client.emitter.parentPid != first.pid
    assert isinstance(refused(client, question), UnknownProcess)
    fence(second, client)
    assert second.of("evt") == []
    asked(second, client, client).reply("evt", "for this one")
    second.wait("evt")
    assert second.args("evt") == ["for this one"]


def test_a_client_that_comes_back_to_its_server_is_still_answered(recorders, port, second_port):
    server = recorders("question", "mark", port=port, forwarded=True).start()
    with Proxy(second_port, port, is_unseen=True) as proxy:
        client = recorders("mark", port=second_port, onlyConnect=True, forwarded=True).joined()
        question = asked(server, client, server)
        proxy.cut()
        client.wait("parent", count=2)
        question.reply("evt", "it is the same")
        client.wait("evt")
        client.emitter.stop()


# The address


def test_the_socket_file_of_a_killed_server_is_replaced(tree, place):
    """B12: a socket file without a server."""
    path = place / "socket"
    public = {"socket": {"socketPath": str(path)}}
    tree.top("S", options=public)
    tree.kill("S")
    assert path.is_socket()
    tree.top("S", options=public)
    assert tree["S"].do("state")["isGrandMaster"]
    tree.top("C", options=public)
    tree.wait_heard("C", "parent")


def test_the_socket_file_of_a_living_server_is_left_alone(recorders, place):
    path = place / "socket"
    server = recorders(socketPath=str(path)).start()
    inode = path.stat().st_ino
    client = recorders(socketPath=str(path)).joined()
    assert path.stat().st_ino == inode
    client.emitter.stop()
    assert path.stat().st_ino == inode
    server.emitter.stop()
    assert not path.exists()


def test_a_file_that_is_no_socket_is_left_alone(recorders, place):
    path = place / "socket"
    path.write_text("precious")
    with pytest.raises(LinkError, match=str(path)):
        recorders(socketPath=str(path)).start()
    assert path.read_text() == "precious"


class Stranger:
    """Something else that listens: answers every connection with some bytes, or hangs up, or says nothing."""

    def __init__(self, address, answer):
        if "port" in address:
            self.socket = socket.create_server(("127.0.0.1", address["port"]))
        else:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.bind(address["socketPath"])
            self.socket.listen()
        self.answer = answer
        self.connections = []
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.connections.append(connection)
            if self.answer:
                connection.sendall(self.answer)
            elif self.answer is not None:
                connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.socket.close()
        for connection in self.connections:
            connection.close()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", AddressInUse),
        (b"", AddressInUse),
        (struct.pack("!i", -2) + b"xx", AddressInUse),
        (None, HandshakeTimeout),
    ],
    ids=["http", "hangs up", "negative length", "silent"],
)
def test_a_stranger_at_the_address_is_an_error_that_names_it(recorders, address, answer, expected):
    """B10: the port is in use by something else."""
    with Stranger(address, answer):
        where = str(address.get("port") or address["socketPath"])
        with pytest.raises(expected, match=f"{where}.*choose another socket.port or socketPath"):
            recorders(**address).start()


# Who is kept out


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1"])
@pytest.mark.parametrize("only", [False, True], ids=["server", "client"])
def test_other_machines_have_to_be_allowed(recorders, port, host, only):
    """D11: without that the public socket is for this machine alone."""
    with pytest.raises(LinkError, match=r"'" + host + r"' is .*socket\.allowRemote=True"):
        recorders(port=port, host=host, onlyConnect=only).start()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_without_an_option_nothing_is_listened_at_but_this_machine_alone(recorders, port):
    """D11: other users of the machine need the key, and other machines do not get as far."""
    server = recorders(port=port, host="localhost").start()
    listening = server.emitter._life.public_socket.server._acceptor._sockets.values()
    assert {sock.getsockname()[0] for sock in listening} <= {"127.0.0.1", "::1"}


def test_different_keys_are_refused_at_both_ends_with_the_cause(recorders, address):
    """B21: each end has a key, and another one."""
    server = recorders(**address, authkey=KEY).start()
    with pytest.raises(AuthenticationFailed):
        recorders(**address, authkey=b"another key, as long").start()
    assert "key" in str(server.wait("error").args[0])
    assert server.emitter.stats()["refused"] == {"wrong-key": 1}
    assert server.emitter.childsOnline == 0
    recorders(**address, authkey=KEY).joined()


def test_a_waiting_client_with_another_key_is_told_so(recorders, address):
    client = recorders(**address, authkey=KEY, onlyConnect=True).start()
    recorders(**address, authkey=b"another key, as long").start()
    assert isinstance(client.wait("error").args[0], AuthenticationFailed)
    assert client.emitter.parentPid is None


def test_clients_that_say_nothing_delay_nobody(recorders, address):
    server = recorders(**address).start()
    silent = [connect(address) for _ in range(20)]
    client = recorders(**address).joined()
    assert server.emitter.childsOnline == 1
    assert server.emitter.stats()["refused"] == {}  # they all still wait
    client.emitter.sendToParents("evt")
    server.wait("evt")
    for connection in silent:
        connection.close()


class Bomb:
    """Goes off where it is unpickled."""

    exploded = threading.Event()

    def __reduce__(self):
        return Bomb.explode, ()

    @staticmethod
    def explode():
        Bomb.exploded.set()


def test_no_byte_of_a_stranger_is_unpickled(recorders, address, monkeypatch):
    """D8: nothing is unpickled before the key is proved."""
    opened = []

    def watched(original):
        def call(*args, **kwargs):
            opened.append(args)
            return original(*args, **kwargs)

        return call

    monkeypatch.setattr(pickle, "loads", watched(pickle.loads))
    monkeypatch.setattr(frame_reader, "decode", watched(frame_reader.decode))
    server = recorders(**address).start()
    bomb = pickle.dumps([(5, ("x",), "evt", Bomb(), None)])
    frame = struct.pack("!i", len(bomb)) + bomb
    padded = struct.pack("!i", 400) + bomb.ljust(400, b"\0")
    refused = set()
    for data in (frame, padded, frame * 100, bomb, b"\x80\x05" + bomb):
        with connect(address) as stranger:
            stranger.settimeout(CEILING_SECONDS)
            try:
                stranger.sendall(data)
                stranger.shutdown(socket.SHUT_WR)
                while stranger.recv(4096):
                    pass
            except OSError as error:
                refused.add(error.errno)
    assert refused <= {errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN}  # it hung up on us
    assert opened == []
    assert not Bomb.exploded.is_set()
    assert server.emitter.childsOnline == 0
    recorders(**address).joined()
    assert opened  # the wire is indeed watched


def test_the_key_leaves_the_environment_and_still_opens_the_door(place, port, monkeypatch):
    script = write(
        place / "script.py",
        f"""
        import os
        from ipevents import ipem

        def work():
            ipem.sendToParents("seen", "IPEVENTS_AUTHKEY" in os.environ)

        @ipem.on("seen")
        def seen(message, there):
            print(there, "IPEVENTS_AUTHKEY" in os.environ, flush=True)

        @ipem.on("hello")
        def hello(message):
            print("hello", flush=True)
            ipem.stop()

        ipem.options(socket={{"port": {port}, "host": "127.0.0.1"}}).start()
        with ipem.expecting("offline"):
            ipem.worker(work)
        os.environ["IPEVENTS_AUTHKEY"] = os.environ.pop("KEPT")
        import subprocess, sys
        client = "from ipevents import ipem\\n"
        client += "ipem.options(socket=dict(port={port}, host='127.0.0.1', onlyConnect=True)).start()\\n"
        client += "ipem.sendToGrandMaster('hello')\\nipem.stop()"
        subprocess.run([sys.executable, "-c", client], check=True)
        ipem.run()
        """,
    )
    monkeypatch.setenv("IPEVENTS_AUTHKEY", "a key of the environment")
    monkeypatch.setenv("KEPT", "a key of the environment")
    assert printed(script) == ["False False", "hello"]


def test_a_key_that_is_too_short_is_refused_before_anything_is_opened(place, port, monkeypatch):
    """B21: a key that is short or empty."""
    monkeypatch.setenv("IPEVENTS_AUTHKEY", "short")
    ended = run("-c", f"from ipevents import ipem; ipem.options(socket=dict(port={port})).start()")
    assert ended.returncode == 1
    assert "at least 16 bytes" in ended.stderr
    with pytest.raises(ConnectionRefusedError):
        connect({"port": port})


def test_the_key_file_is_private(recorders, address):
    recorders(**address).start()
    key = Path(os.environ["XDG_STATE_HOME"]) / "ipevents" / "key"
    assert (key.stat().st_mode & 0o777, key.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_an_event_above_the_limit_is_refused_at_the_call_or_reported_to_its_origin(recorders, tree, address):
    limit = 200_000
    server = recorders(**address, maxMessage=limit).start()
    tree.top("C", options={"socket": {"host": "127.0.0.1", **address}}, deaf=["error"])
    tree.wait_heard("C", "parent")
    tree.child("worker", "C", "D", {})
    server.wait("online", str(tree["D"].pid))
    with pytest.raises(Exception, match="MessageTooLarge"):
        tree["C"].call("sendToGrandMaster", "evt", b"x" * (limit + 1))
    tree["D"].call("sendToGrandMaster", "evt", b"x" * (limit + 1))
    tree.wait_heard("D", "error")
    (error,) = [item["args"][0] for item in tree["D"].heard if item["event"] == "error"]
    assert error["kind"] == Undeliverable.__name__
    assert issubclass(MessageTooLarge, ValueError)
    tree["D"].call("sendToGrandMaster", "evt", b"x" * (limit - 1000))
    assert len(server.wait("evt").args[0]) == limit - 1000


def test_the_smaller_limit_of_both_ends_counts(recorders, address):
    limit = 200_000
    server = recorders(**address).start()
    client = recorders(**address, onlyConnect=True, maxMessage=limit).joined()
    server.emitter.sendToChild(client.pid, "evt", b"x" * (limit + 1))
    assert isinstance(server.wait("error").args[0], MessageTooLarge)
    server.emitter.sendToChild(client.pid, "evt", b"x" * (limit - 1000))
    assert len(client.wait("evt").args[0]) == limit - 1000


def test_a_client_too_many_is_refused_with_the_option_at_both_ends_until_there_is_room(recorders, address):
    server = recorders(**address, maxLinks=1).start()
    first = recorders(**address, onlyConnect=True).joined()
    second = recorders(**address, onlyConnect=True)
    with pytest.raises(LinkError, match="1 client already, which is its limit .socket.maxLinks."):
        second.emitter.start()
    assert "was refused: max-links" in str(server.wait("error").args[0])
    assert "socket.maxLinks" in str(server.args("error")[0])
    assert server.emitter.stats()["refused"] == {"max-links": 1}
    first.emitter.stop()
    server.wait("offline", count=1)
    second.joined()
    server.wait("online", second.pid)
