"""Sessions: connections are cut, and nothing is lost, comes twice, or out of its turn."""

from __future__ import annotations

import collections
import math
import random
import socket
import threading

import pytest
from ports import free_port
from proxies import Proxy
from scripts import wait_until

from ipevents import NotConnected, SendError
from ipevents._core import outbox
from ipevents._links import outlet
from ipevents._links.link import Link
from ipevents._links.outlet import Outlet
from ipevents._network import server as network_server
from ipevents._network.client import Client
from ipevents._node.controls import Controls
from ipevents._platform.threads import Deadline

CEILING = 60.0
SOCKET = {"forwarded": True, "delayReconnect": 20}


class Ledger:
    """What an emitter hears of an event that carries numbers."""

    def __init__(self, emitter, event):
        self.heard = []
        self._changed = threading.Condition()
        emitter.on(event, self._hear)

    def _hear(self, message, number):
        with self._changed:
            self.heard.append(number)
            self._changed.notify_all()

    def wait(self, count):
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.heard) >= count, CEILING), len(self.heard)


@pytest.fixture
def cut(recorders, port, second_port):
    """A server, a proxy before it, and a client."""
    with Proxy(second_port, port) as proxy:

        def make(**options):
            server = recorders("up", port=port, **SOCKET, **options).start()
            client = recorders("down", port=second_port, onlyConnect=True, **SOCKET, **options)
            return server, client, proxy

        yield make


def flood(send, count):
    """Send numbers; returns the thread that does."""

    def run():
        for number in range(count):
            send(number)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize(("cuts", "count"), [(8, 4000), pytest.param(200, 100_000, marks=pytest.mark.slow)])
def test_connections_that_are_cut_anywhere_lose_nothing(cut, cuts, count):
    """B7: a reset in the middle of a write loses nothing."""
    server, client, proxy = cut()
    up, down = Ledger(server.emitter, "count"), Ledger(client.emitter, "count")
    client.joined()
    dice = random.Random(cuts)
    threads = [
        flood(lambda number: client.emitter.sendToParents("count", number), count),
        flood(lambda number: server.emitter.sendToChilds("count", number), count),
    ]
    for number in range(cuts):
        proxy.cut_after(dice.randrange(1, 50 * count // cuts))
        sends = any(thread.is_alive() for thread in threads)
        if not proxy.was_cut.wait(0.5 if sends else 0.0):
            proxy.cut()
        client.wait("online", client.pid, count=number + 2)
    for thread in threads:
        thread.join()
    up.wait(count)
    down.wait(count)
    client.emitter.sendToParents("up")  # comes after all that the server tells of the last connection
    server.wait("up")
    assert up.heard == list(range(count))
    assert down.heard == list(range(count))
    for each in (server, client):
        (link,) = each.emitter.stats()["links"].values()
        assert link["dropped"] == {}
        assert each.of("error") == []
    assert len(client.of("offline")) == cuts
    # One that was cut before the session went on is no news at the server.
    assert 0 < len(server.of("offline")) == len(server.of("online", client.pid)) - 1 <= cuts


@pytest.mark.parametrize("family", ["tcp", "path"])
@pytest.mark.parametrize("who", ["server", "client"])
def test_what_was_sent_before_a_clean_end_is_handled_before_the_offline(recorders, port, place, family, who):
    where = {"port": port} if family == "tcp" else {"socketPath": str(place / "s")}
    server = recorders("count", **where).start()
    client = recorders("count", **where)
    stays, goes = (client, server) if who == "server" else (server, client)
    gate = threading.Event()
    stays.emitter.on("count", lambda message, number: gate.wait(CEILING))
    client.joined()
    pid = goes.pid
    threads = [
        flood(lambda number: client.emitter.sendToParents("count", number), 2000),
        flood(lambda number: server.emitter.sendToChilds("count", number), 2000),
    ]
    stays.wait("count")
    for thread in threads:
        thread.join()
    stop = threading.Thread(target=goes.emitter.stop)
    stop.start()
    goes.wait("stopping")
    gate.set()
    stop.join()
    stays.wait("offline")
    heard = [(item.event, item.args[0]) for item in stays.heard if item.event in ("count", "offline")]
    assert heard == [*(("count", number) for number in range(2000)), ("offline", pid)]


def time_is_over(recorder):
    """Everything happens now that is due at a time, such as the end of a session."""
    node = recorder.emitter._node
    with node.lock:
        due = node.timers.take(math.inf)
    for call in due:
        call()


def outage(proxy, *recorders):
    """Cut the connections, and let none through."""
    proxy.is_down = True
    before = [len(each.of("offline")) for each in recorders]
    proxy.cut()
    for each, count in zip(recorders, before, strict=True):
        each.wait("offline", count=count + 1)


def wait_error(recorder, kind):
    """Wait for an error of this kind. There may be others: of attempts to connect that were hung up."""

    def has_come():
        return any(isinstance(message.args[0], kind) for message in recorder.of("error"))

    with recorder.changed:
        assert recorder.changed.wait_for(has_come, CEILING), recorder.of("error")


def dropped(recorder):
    """What was lost on all links, by cause."""
    stats = recorder.emitter.stats()
    lost = collections.Counter(stats["past"]["dropped"])
    for link in stats["links"].values():
        lost.update(link["dropped"])
    return dict(lost)


def test_sends_in_an_outage_wait_and_arrive_after_the_online(cut):
    server, client, proxy = cut()
    client.joined()
    pid = client.pid
    outage(proxy, server, client)
    for number in range(5):
        client.emitter.sendToGrandMaster("up", number)
        client.emitter.sendTo([server.pid, pid], "up", -number)
        server.emitter.sendToChilds("down", number)
        server.emitter.sendToChild(pid, "down", -number)
    assert server.emitter.childsOnline == 0
    assert client.emitter.parentPid is None
    server.forget()
    client.forget()
    proxy.is_down = False
    server.wait("up", count=10)
    client.wait("down", count=10)
    assert [item.event for item in server.heard] == ["online", *["up"] * 10]
    assert server.heard[0].from_ == pid == client.pid
    heard = [item.event for item in client.heard if item.event not in ("parent", "error")]
    assert heard == ["online", *["down"] * 10]
    client.wait("parent")
    assert server.args("up") == client.args("down") == [0, 0, 1, -1, 2, -2, 3, -3, 4, -4]
    assert (dropped(server), dropped(client)) == ({}, {})
    assert server.emitter.childsOnline == 1
    assert client.emitter.parentPid == server.pid


# A stop in an outage. Where a client waits for days before it connects again, only its stop can do so. (The first
# try is drawn from half of that time.)

PATIENT = {"delayReconnect": 2**31 - 1}


@pytest.fixture
def patient(recorders, port, second_port):
    """As ``cut``, with a client that waits long; and how often that has dialled."""
    with Proxy(second_port, port) as proxy:

        def make(**options):
            server = recorders("up", port=port, **SOCKET).start()
            client = recorders("down", port=second_port, onlyConnect=True, **SOCKET | PATIENT, **options)
            return server, client.joined(), proxy

        yield make


@pytest.fixture
def dials(monkeypatch):
    """A list that grows with every dial of a client that has started."""
    made = []
    real = Client._dial
    monkeypatch.setattr(Client, "_dial", lambda self, attempt: (made.append(attempt), real(self, attempt))[1])
    return made


def test_a_stop_in_an_outage_goes_on_with_the_session_and_ends_cleanly(patient, dials):
    server, client, proxy = patient()
    pid = client.pid
    client.emitter.sendToGrandMaster("up", 0)
    outage(proxy, server, client)
    for number in range(1, 5):
        client.emitter.sendToGrandMaster("up", number)
        server.emitter.sendToChild(pid, "down", number)
    server.forget()
    client.forget()
    proxy.is_down = False
    client.emitter.stop()
    server.wait("offline")
    heard = [item.event if item.event != "up" else item.args[0] for item in server.heard]
    assert heard[0] == "online"
    assert heard[-5:] == [1, 2, 3, 4, "offline"]
    assert [item.event for item in client.heard][:3] == ["stopping", "online", "down"]
    assert client.args("down") == [1, 2, 3, 4]
    assert len(dials) == 1
    stats = client.emitter.stats()["past"]
    assert (stats["acknowledged"], stats["dropped"]) == (5, {})
    assert server.emitter.stats()["links"] == {}
    assert set(dropped(server)) <= {"link-cut"}  # what it was sent in the stop may not have been acknowledged


def test_a_stop_in_an_outage_connects_once_then_counts_what_waits(patient, dials):
    server, client, proxy = patient()
    outage(proxy, server, client)
    for number in range(5):
        client.emitter.sendToGrandMaster("up", number)
    client.emitter.stop()
    assert len(dials) == 1
    assert dropped(client) == {"closed": 5}
    assert server.args("up") == []


def test_a_stop_in_an_outage_does_not_connect_where_nothing_waits(patient, dials):
    server, client, proxy = patient()
    client.emitter.sendToGrandMaster("up", 0)
    server.wait("up")
    link = client.emitter._node.router.parent
    with client.emitter._node.lock:
        assert link.wait_acknowledged(Deadline(CEILING))
    outage(proxy, server, client)
    client.emitter.stop()
    assert dials == []
    assert dropped(client) == {}


def test_a_stop_whose_connect_is_never_answered_ends_in_time(patient, dials):
    server, client, proxy = patient()
    outage(proxy, server, client)
    client.emitter.sendToGrandMaster("up", 0)
    with socket.create_server(("127.0.0.1", 0)) as stranger:  # it accepts, and says nothing
        proxy.server = stranger.getsockname()[1]
        proxy.is_down = False
        client.emitter.stop(0.0)
    assert len(dials) == 1
    assert dropped(client) == {"closed": 1}
    proxy.is_down = True


def test_a_stop_in_an_outage_gives_what_waits_to_another_server(patient, recorders):
    server, client, proxy = patient()
    other = recorders("up", port=free_port(), **SOCKET).start()
    outage(proxy, server, client)
    client.emitter.sendToGrandMaster("up", 1)
    proxy.server = other.emitter._life.options.port
    proxy.is_down = False
    client.emitter.stop()
    other.wait("offline")
    assert [item.event for item in other.heard if item.pids[0] == client.pid] == ["online", "up"]
    assert set(dropped(client)) <= {"link-cut"}


def test_a_connection_that_is_cut_in_a_stop_goes_on_as_well(patient):
    server, client, proxy = patient()
    gate = threading.Event()
    server.emitter.on("up", lambda message, number: gate.wait(CEILING))

    @client.emitter.on("stopping")
    def stopping(message):
        proxy.cut()
        gate.set()

    for number in range(500):
        client.emitter.sendToGrandMaster("up", number)
    server.wait("up")
    client.emitter.stop()
    server.wait("offline", count=2)
    heard = [item.args[0] if item.event == "up" else item.event for item in server.heard]
    assert [item for item in heard if type(item) is int] == list(range(500))
    assert heard[-1] == "offline"
    assert dropped(client) == {}


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 20))])
def test_a_stop_whose_connections_are_cut_anywhere_loses_nothing(patient, seed):
    server, client, proxy = patient()
    dice = random.Random(seed)
    count, gate, over = 1500, threading.Event(), threading.Event()
    server.emitter.on("up", lambda message, number, filling: gate.wait(CEILING))

    def cuts():
        for _ in range(10):
            proxy.cut_after(dice.randrange(1, 6_000_000))
            while not (proxy.was_cut.wait(0.05) or over.is_set()):
                continue

    cutting = threading.Thread(target=cuts)
    client.emitter.on("stopping", lambda message: (cutting.start(), gate.set()))
    for number in range(count):  # more than the kernel takes
        client.emitter.sendToGrandMaster("up", number, bytes(20_000))
    down = flood(lambda number: server.emitter.sendToChild(client.pid, "down", number), 500)
    client.emitter.stop(CEILING)
    over.set()
    cutting.join()
    down.join()
    server.wait("up", count=count)
    assert server.args("up") == list(range(count))
    stats = client.emitter.stats()
    assert stats["sent"] == stats["past"]["acknowledged"] + sum(stats["past"]["dropped"].values())
    # Where the last acknowledgements are cut, what has arrived counts as lost.
    assert set(stats["past"]["dropped"]) <= {"link-cut"}


@pytest.mark.parametrize("who", ["server", "client"])
def test_a_stop_before_a_session_goes_on_waits_for_that_and_ends_cleanly(cut, monkeypatch, who):
    other = {"server": "client", "client": "server"}[who]
    resumes, go = threading.Event(), threading.Event()
    real = Controls._take_resumed

    def slow(self, link, number, outcomes):
        if link.role == other:  # at the one that stops
            resumes.set()
            assert go.wait(CEILING)
        real(self, link, number, outcomes)

    monkeypatch.setattr(Controls, "_take_resumed", slow)
    server, client, proxy = cut()
    client.joined()
    pid = client.pid
    outage(proxy, server, client)
    stops, stays, event = (client, server, "up") if who == "client" else (server, client, "down")
    pids = [server.pid] if who == "client" else [pid]
    stopped = stops.pid
    for number in range(5):
        stops.emitter.sendTo(pids, event, number)
    flush = Link.flush
    monkeypatch.setattr(Link, "flush", lambda self, deadline: (go.set(), flush(self, deadline))[1])
    stays.forget()
    proxy.is_down = False
    assert resumes.wait(CEILING)
    stops.emitter.stop()
    stays.wait("offline")
    heard = [item.args[0] for item in stays.heard if item.event in (event, "offline")]
    assert heard == [0, 1, 2, 3, 4, stopped]
    assert dropped(stops) == {}
    stays.emitter.sendTo([stopped], "no more")  # no session is there that could go on
    wait_error(stays, SendError)


def test_one_that_does_not_read_keeps_a_stop_from_saying_goodbye_to_nobody_else(recorders, port):
    server = recorders("up", port=port).start()
    slow, quick = (recorders("down", port=port, onlyConnect=True, **PATIENT).joined() for _ in range(2))
    gate = threading.Event()
    slow.emitter.on("down", lambda message, data: gate.wait(CEILING))
    try:
        for _ in range(30):  # more than the kernel takes, and no full outbox
            server.emitter.sendToChild(slow.pid, "down", bytes(1_000_000))
        slow.wait("down")
        pid = server.pid
        server.emitter.stop(0.5)
        quick.wait("offline")
        quick.emitter.sendTo([pid], "up")  # would wait for a session that is only cut
        wait_error(quick, NotConnected)
    finally:
        gate.set()


def test_after_resume_within_what_was_kept_is_lost_and_counted(cut):
    server, client, proxy = cut()
    client.joined()
    outage(proxy, server, client)
    for number in range(5):
        client.emitter.sendToGrandMaster("up", number)
        server.emitter.sendToChilds("down", number)
    time_is_over(server)
    time_is_over(client)
    assert dropped(server) == dropped(client) == {"disconnected": 5}
    assert server.emitter.stats()["links"] == {}
    assert server.emitter.netmap == {}
    client.emitter.sendToGrandMaster("up", 5)
    wait_error(client, NotConnected)
    proxy.is_down = False
    client.wait("parent", count=2)
    client.emitter.sendToGrandMaster("up", 6)
    assert server.wait("up").args == (6,)
    server.emitter.sendToChilds("down", 7)
    assert client.wait("down").args == (7,)


@pytest.mark.parametrize("reason", ["resumeWithin", "reconnect"])
def test_without_a_session_a_cut_is_the_end(recorders, port, second_port, reason):
    off = {"resumeWithin": 0} if reason == "resumeWithin" else {"reconnect": False}
    server = recorders(port=port, **SOCKET).start()
    with Proxy(second_port, port) as proxy:
        client = recorders(port=second_port, onlyConnect=True, **SOCKET, **off).joined()
        outage(proxy, server, client)
        client.emitter.sendToGrandMaster("up")
        wait_error(client, NotConnected)
        assert server.emitter.stats()["links"] == {}
        client.emitter.stop()


def test_another_server_is_another_session_and_gets_what_waits(cut, recorders):
    server, client, proxy = cut()
    port = free_port()
    other = recorders("up", port=port, **SOCKET).start()
    client.joined()
    client.emitter.sendToGrandMaster("up", 1)
    server.wait("up")
    outage(proxy, server, client)
    client.emitter.sendToGrandMaster("up", 2)
    proxy.server = port
    proxy.is_down = False
    assert other.wait("up").args == (2,)
    assert client.wait("parent", count=2).args == (other.pid,)
    assert set(dropped(client)) <= {"link-cut"}  # the first may not have been acknowledged
    time_is_over(server)
    assert server.args("up") == [1]
    assert server.emitter.stats()["links"] == {}


def test_beyond_its_bound_a_session_ends_with_the_cut_and_the_books_are_right(cut, monkeypatch):
    monkeypatch.setattr(outlet, "KEPT_BYTES", 1000)
    server, client, proxy = cut()
    gate = threading.Event()
    server.emitter.on("up", lambda message, number: gate.wait(CEILING))
    client.joined()
    for number in range(200):
        client.emitter.sendToGrandMaster("up", number)
        if not number:
            server.wait("up")  # its reader is in the listener, and acknowledges nothing
        with client.emitter._node.lock:  # a frame for each
            assert client.emitter._node.router.parent.flush(Deadline(CEILING))
    proxy.is_down = True
    proxy.cut()
    client.wait("offline")
    gate.set()
    server.wait("offline")
    heard = server.args("up")
    assert heard == list(range(len(heard)))
    proxy.is_down = False
    client.wait("parent", count=2)
    client.emitter.sendToGrandMaster("up", 200)
    server.wait("up", count=len(heard) + 1)
    link = client.emitter.stats()["links"][server.pid]
    lost = link["dropped"].pop("link-cut")
    assert (link["sent"], link["dropped"]) == (201, {})
    assert 200 - lost <= len(heard) <= 200
    assert link["acknowledged"] in (200 - lost, 201 - lost)  # the last one may be told in a moment


PAUSE = 0.005  # between two bursts of a child that talks


def talks(burst):
    """A child that broadcasts numbers from "go" to "quiet", in bursts, and keeps a ledger of what it hears."""
    import threading

    from ipevents import ipem

    heard = {}  # by origin: how many, and the last one
    wrong = []  # what came twice or out of its turn
    quiet = threading.Event()

    @ipem.on("count")
    def hear(message, number):
        count, last = heard.get(message.from_, (0, -1))
        if number <= last:
            wrong.append((message.from_, number, last))
        heard[message.from_] = count + 1, number

    ipem.on("error", lambda message, exc: None)  # of events that are dropped
    ipem.on("quiet", lambda message: quiet.set())
    ipem.on("go", lambda message: threading.Thread(target=talk).start())
    ipem.on("ask", lambda message: message.reply("told", ipem.pid, heard, wrong[:5], ipem.stats()))

    def talk():
        number = 0
        while not quiet.wait(PAUSE):
            for _ in range(burst):
                ipem.broadcast("count", number)
                number += 1
        ipem.sendToGrandMaster("said", ipem.pid, number)

    ipem.run()


CUTS = [
    pytest.param(30, 0.05, 33, {"delayReconnect": 20}, id="short", marks=pytest.mark.slow),
    pytest.param(200, 2.0, 33, {"delayReconnect": 100}, id="long", marks=pytest.mark.full),
    pytest.param(20, 2.0, 100, {}, id="default delays", marks=pytest.mark.full),
]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("cuts", "outage", "burst", "delay"), CUTS)
def test_over_four_hops_nothing_is_lost_but_what_exceeds_the_outboxes(
    recorders, port, second_port, cuts, outage, burst, delay
):
    """Children of a server and of two clients, each with ``burst / PAUSE`` events a second for all others.

    With the default delays more comes in an outage than an outbox holds. Then what is lost is counted.
    """
    options = {"forwarded": True, "delayReconnect": 3000, **delay}
    server = recorders("said", "told", port=port, **options).start()
    dice = random.Random(cuts)
    with Proxy(second_port, port) as proxy:
        clients = [recorders(port=second_port, onlyConnect=True, **options).joined() for _ in range(2)]
        children = []
        for each in (server, *clients):
            with each.emitter.expecting("online", CEILING, lambda message, me=each: message.from_ != me.pid):
                children.append(each.emitter.worker(talks, (burst,)).pid)
        for child in children:
            server.wait("online", child)
        server.emitter.sendToChilds("go")
        for number in range(cuts):
            proxy.cut_after(dice.randrange(1, 100_000))
            assert proxy.was_cut.wait(CEILING)
            proxy.is_down = True
            threading.Event().wait(dice.uniform(0, outage))
            proxy.is_down = False
            for client in clients:
                client.wait("online", client.pid, count=number + 2)
        server.emitter.sendToChilds("quiet")
        server.wait("said", count=3)
        said = dict(message.args for message in server.of("said"))
        processes = [each.emitter.stats for each in (server, *clients)]
        wait_until(lambda: all(is_at_rest(stats()) for stats in processes))
        server.emitter.sendToChilds("ask")
        server.wait("told", count=3)
        told = {pid: rest for pid, *rest in (message.args for message in server.of("told"))}
        assert [wrong for _, wrong, _ in told.values()] == [[], [], []]
        heard = sum(count for each, _, _ in told.values() for count, _ in each.values())
        down = up = 0  # what is lost on its way up has missed two others, on its way down one
        for stats in (*(stats() for stats in processes), *(stats for _, _, stats in told.values())):
            is_child = stats["pid"] in told
            assert set(stats["past"]["dropped"]) == set()
            for pid, link in stats["links"].items():
                assert set(link["dropped"]) <= {"slow-peer", "full"}
                goes_up = is_child or (stats["pid"] != server.pid and pid == server.pid)
                up += goes_up * sum(link["dropped"].values())
                down += (not goes_up) * sum(link["dropped"].values())
        assert heard + 2 * up + down == 2 * sum(said.values())
        if delay:
            assert (up, down) == (0, 0)
        print(f"{sum(said.values())} events, {heard} heard, {up} lost on their way up, {down} down")
        for client in clients:
            client.emitter.stop()


# The session goes on, or it has an end: whatever the other end does, and however long listeners take.


def link_of(recorder):
    """The only link of an emitter."""
    node = recorder.emitter._node
    with node.lock:
        (link,) = node.router.neighbours
    return link


def never_attached(monkeypatch, who):
    """Let one end leave each connection alone with which a session is to go on.

    Returns a list of calls that attach them after all.
    """
    held = []
    kind, name = (Client, "_resume") if who == "client" else (network_server.Server, "_let_in")
    real = getattr(kind, name)

    def leave(self, arrival):
        if arrival.stream.resumes:
            held.append(lambda: real(self, arrival))
        else:
            real(self, arrival)

    monkeypatch.setattr(kind, name, leave)
    return held


@pytest.mark.parametrize("who", ["client", "server"])
def test_a_session_has_an_end_where_the_other_end_connects_and_never_goes_on(cut, monkeypatch, who):
    monkeypatch.setattr(outbox, "OUTBOX_BYTES", 2 << 20)
    server, client, proxy = cut()
    client.joined()
    waits, event = (server, "down") if who == "client" else (client, "up")
    send = waits.emitter.sendToChilds if who == "client" else waits.emitter.sendToParents
    held = never_attached(monkeypatch, who)
    outage(proxy, server, client)
    proxy.is_down = False
    link = link_of(waits)
    wait_until(lambda: held and link.resuming is not None)
    thread = flood(lambda number: send(event, number, bytes(100_000)), 50)
    wait_until(lambda: link._waiters)
    assert thread.is_alive()
    monkeypatch.undo()
    time_is_over(waits)
    thread.join(CEILING)
    assert not thread.is_alive()
    assert set(dropped(waits)) <= {"disconnected", "link-cut", "filtered"}
    held[0]()  # too late
    client.wait("parent", count=2)  # with another session
    server.emitter.sendToChild(client.pid, "down", 51)
    wait_until(lambda: 51 in client.args("down"))
    # Where it is the client that goes on too late, it may find what the server had said before it gave up; or
    # not, where the connection was reset first.
    offlines = len(client.of("offline"))
    assert offlines in ((1, 2) if who == "client" else (1,))
    assert offlines == len(client.of("online", client.pid)) - 1
    wait_until(lambda: is_at_rest(waits.emitter.stats()))


def test_a_slow_listener_of_offline_keeps_no_session_from_going_on(cut):
    """Neither the other end, nor what is sent here meanwhile. What comes is heard after the online."""
    server, client, proxy = cut()
    client.joined()
    pid, begun, gate = client.pid, threading.Event(), threading.Event()
    server.emitter.on("offline", lambda message, pid: (begun.set(), gate.wait(CEILING)))
    server.forget()
    client.forget()
    try:
        proxy.cut()
        assert begun.wait(CEILING)
        client.wait("online", pid)
        assert client.emitter.parentPid == server.pid
        client.emitter.sendToGrandMaster("up", 1)
        server.emitter.sendToChild(pid, "down", 2)
        assert client.wait("down").args == (2,)
        assert server.emitter.childsOnline == 0, "its online was not told yet"
        assert [item.event for item in server.heard] == ["offline"]
    finally:
        gate.set()
    server.wait("up")
    assert [item.event for item in server.heard] == ["offline", "online", "up"]
    assert server.emitter.childsOnline == 1


def test_a_slow_listener_of_a_client_keeps_no_session_from_going_on(cut):
    server, client, proxy = cut()
    client.joined()
    pid, begun, gate = client.pid, threading.Event(), threading.Event()
    client.emitter.on("job", lambda message: (begun.set(), gate.wait(CEILING)))
    job = threading.Thread(target=client.emitter.emit, args=("job",))
    job.start()
    assert begun.wait(CEILING)
    server.forget()
    client.forget()
    try:
        proxy.cut()
        server.wait("online", pid)
        link = link_of(server)
        # The reader tells the online, and the writer thread goes on by itself, perhaps a moment later.
        wait_until(lambda: not link.is_interrupted, "the rules for a peer that takes nothing to hold again")
        client.emitter.sendToGrandMaster("up", 1)
        server.emitter.sendToChild(pid, "down", 2)
        assert server.wait("up").args == (1,)
        assert client.heard == []
    finally:
        gate.set()
    job.join()
    client.wait("down")
    assert [item.event for item in client.heard if item.event != "parent"] == ["offline", "online", "down"]


def test_a_stop_ends_although_the_offline_of_a_session_that_went_on_is_never_told(cut):
    server, client, proxy = cut()
    client.joined()
    begun, gate = threading.Event(), threading.Event()
    server.emitter.on("offline", lambda message, pid: (begun.set(), gate.wait(CEILING)))
    try:
        proxy.cut()
        assert begun.wait(CEILING)
        client.wait("online", client.pid, count=2)
        link = link_of(server)
        client.emitter.sendToGrandMaster("up", 1)
        server.emitter.stop(0.2)
        assert link.join(Deadline(CEILING))
        assert server.args("up") == []
    finally:
        gate.set()


def test_cuts_leave_nothing_behind_that_waits_for_the_end_of_a_session(cut):
    server, client, proxy = cut()
    client.joined()
    for number in range(10):
        proxy.cut()
        client.wait("online", client.pid, count=number + 2)
        server.wait("online", client.pid, count=number + 2)
    for each in (server, client):
        with each.emitter._node.lock:
            assert each.emitter._node.timers.next_at() is None


def is_at_rest(stats):
    """Whether nothing waits, and nothing is to be acknowledged."""
    return not any(link["queued"] or link["unacknowledged"] for link in stats["links"].values())


def test_a_connection_that_is_cut_before_the_session_goes_on_tells_no_second_offline(cut, monkeypatch):
    server, client, proxy = cut()
    client.joined()
    pid = client.pid
    outage(proxy, server, client)
    real, cuts = Outlet.take_resumed, []

    def interrupted(link, number, outcomes):
        if link.role == "client" and not cuts:
            cuts.append(number)
            raise ConnectionResetError
        real(link, number, outcomes)

    monkeypatch.setattr(Outlet, "take_resumed", interrupted)
    server.forget()
    client.emitter.sendToGrandMaster("up", 1)
    proxy.is_down = False
    assert server.wait("up").args == (1,)
    assert cuts
    assert [(item.event, item.from_) for item in server.heard] == [("online", pid), ("up", pid)]


def test_for_all_that_are_absent_no_more_is_kept_than_for_one(recorders, port, second_port, monkeypatch):
    monkeypatch.setattr(network_server, "KEPT_BYTES", 5000)
    server = recorders(port=port, **SOCKET).start()
    gate = threading.Event()
    with Proxy(second_port, port) as proxy:
        clients = [recorders("down", port=second_port, onlyConnect=True, **SOCKET).joined() for _ in range(2)]
        for client in clients:
            client.emitter.on("down", lambda message, data: gate.wait(CEILING))
            server.emitter.sendToChild(client.pid, "down", 0)
            client.wait("down")  # its reader is in the listener, and acknowledges nothing
            server.emitter.sendToChild(client.pid, "down", b"x" * 3000)
            node = server.emitter._node
            with node.lock:
                assert node.router.child_link(client.pid).flush(Deadline(CEILING))
        proxy.is_down = True
        proxy.cut()
        server.wait("offline", count=2)
        gate.set()
        assert len(server.emitter.stats()["links"]) == 1
        assert dropped(server) == {"disconnected": 2}
        proxy.is_down = False
        for client in clients:
            client.wait("parent", count=2)
        assert len(server.emitter.stats()["links"]) == 2
        for client in clients:
            client.emitter.stop()


def test_what_is_kept_for_a_client_that_connects_and_does_not_go_on_counts_as_well(
    recorders, port, monkeypatch
):
    monkeypatch.setattr(network_server, "KEPT_BYTES", 5000)
    server = recorders(port=port, **SOCKET).start()
    clients, gates, links = [], [], []
    for _ in range(2):
        client, gate = recorders("down", port=port, onlyConnect=True, **SOCKET).joined(), threading.Event()
        client.emitter.on("down", lambda message, data, gate=gate: gate.wait(CEILING))
        server.emitter.sendToChild(client.pid, "down", 0)
        client.wait("down")  # its reader is in the listener, and acknowledges nothing
        server.emitter.sendToChild(client.pid, "down", b"x" * 3000)
        node = server.emitter._node
        with node.lock:
            links.append(node.router.child_link(client.pid))
            assert links[-1].flush(Deadline(CEILING))
        clients.append(client)
        gates.append(gate)
    held = never_attached(monkeypatch, "client")
    try:
        links[0].disconnect()
        server.wait("offline", count=1)
        gates[0].set()
        wait_until(lambda: held and links[0].resuming is not None)
        links[1].disconnect()
        server.wait("offline", count=2)
        wait_until(lambda: links[0].ended)
        assert list(server.emitter.stats()["links"]) == [clients[1].pid]
        assert server.emitter._node.timers.next_at() is not None, "the other one may come back"
    finally:
        monkeypatch.undo()
        gates[1].set()
        wait_until(lambda: len(held) >= 1)
        for attach in held:
            attach()
    for client in clients:
        client.emitter.stop()


def test_two_clients_that_flood_each_other_through_the_server_never_stop(recorders, port):
    count = 20_000
    server = recorders(port=port).start()
    clients = [recorders(port=port).joined() for _ in range(2)]
    ledgers = [Ledger(client.emitter, "count") for client in clients]
    threads = []
    for one, other in (clients, clients[::-1]):
        route = [other.pid, server.pid, one.pid]
        threads.append(flood(lambda number, me=one, to=route: me.emitter.sendTo(to, "count", number), count))
    for ledger in ledgers:
        ledger.wait(count)
        assert ledger.heard == list(range(count))
    for thread in threads:
        thread.join()
