"""A client and its server in one process; with processes see system/test_sockets.py."""

from __future__ import annotations

import queue
import threading

import pytest

from ipevents import Emitter, Message
from ipevents._core.messages import MAX_INTEREST, TO_PARENTS
from ipevents._dispatch.floor import Floor
from ipevents._links.link import Link
from ipevents._platform.threads import Deadline

CEILING_SECONDS = 30.0


def ignore(*_: object) -> None:
    pass


@pytest.fixture
def pair(place):
    """A server, and a client that is not started."""
    options = {"socketPath": str(place / "s"), "maxMessage": 1024}
    server, client = (Emitter().options(socket=options) for _ in range(2))
    server.start()
    yield server, client
    client.stop()
    server.stop()


def ask(emitter: Emitter, pids: tuple[str, ...]) -> tuple[object, ...]:
    with emitter.expecting("answer", CEILING_SECONDS) as got:
        emitter.sendTo(pids, "ask")
    return got.message.args


def test_a_client_knows_its_server_from_its_start_on(pair):
    server, client = pair
    with server.expecting("online", CEILING_SECONDS):  # the server knows its client a little later
        client.start()
        assert client.parentPid == server.pid
    assert ask_back(server, client) == client.pid


def ask_back(server: Emitter, client: Emitter) -> str:
    """Have the server send something to its client, the client reply; returns whom the server heard."""
    client.on("question", lambda message: message.reply("answer"))
    with server.expecting("answer", CEILING_SECONDS) as got:
        server.sendToChild(client.pid, "question")
    return got.message.from_


def test_a_server_with_the_name_of_a_child_of_the_client_can_be_told_from_it(pair):
    server, client = pair
    life, node = client._life, client._node
    life.open()
    link = Link(server.pid, node.lock, ignore, ignore)  # a child, as far as the client can tell
    with node.lock:
        node.router.add_child(link, server.pid)
    try:
        with client.expecting("parent", CEILING_SECONDS) as told:
            client.start()
        assert client.parentPid == told.message.args[0] == f"{server.pid}-parent"
        assert ask_back(server, client) == client.pid
        server.on("ask", lambda message: message.reply("answer", "the server"))
        assert ask(client, (client.parentPid,)) == ("the server",)
        assert link.outbox.count == 0
    finally:
        with node.lock:
            node.router.remove_child(link)
            link.end()
        assert link.join(Deadline(CEILING_SECONDS))


def test_a_client_with_the_name_of_its_server_takes_another_one(place):
    server, client = (Emitter().options(socket={"socketPath": str(place / "s")}) for _ in range(2))
    client._node.router.rename(server.pid)  # as in two containers that share a directory
    with server, client:
        assert client.pid.startswith(f"{server.pid}-")
        server.on("ask", lambda message: message.reply("answer", "the server"))
        assert ask(client, (server.pid,)) == ("the server",)


@pytest.mark.parametrize(("count", "are_kept"), [(MAX_INTEREST, True), (200_000, False)])
def test_a_client_that_listens_to_very_many_events_gets_through(pair, monkeypatch, count, are_kept):
    server, client = pair
    names = [f"{number:0250}" for number in range(count)]  # more than a frame may have here
    monkeypatch.setattr(client._node.dispatcher, "wanted", lambda: names)
    errors = []
    server.on("error", lambda message, error: errors.append(error))
    with server.expecting("online", CEILING_SECONDS):
        client.start()
    router = server._node.router
    (link,) = router.child_links()
    assert router.interest.of(link) == (set(names) if are_kept else set())
    assert router.interest.wants_everything(link) is not are_kept
    assert errors == []


@pytest.fixture
def waiting(place):
    """A client whose server never comes."""
    client = Emitter().options(socket={"socketPath": str(place / "s"), "onlyConnect": True}).start()
    yield client
    client.stop()


def test_what_a_server_never_came_to_take_is_counted_by_the_stop(waiting):
    for number in range(3):
        waiting.sendToParents("x", number)
    assert waiting.stats()["links"]["server"]["queued"] == 3
    waiting.stop()
    stats = waiting.stats()
    assert (stats["sent"], stats["links"], stats["past"]["dropped"]) == (3, {}, {"closed": 3})


def test_what_waited_of_a_process_that_is_gone_by_then_ends_no_connection(pair):
    server, client = pair
    server.stop()
    client.options(socket={"onlyConnect": True, "delayReconnect": 10}).start()
    client.sendToParents("x", 1)
    node = client._node
    link = Link("leaf", node.lock, ignore, ignore)
    with node.lock:
        parent = node.router.parent
        node.router.add_child(link, "leaf")
        parent.outbox.put((TO_PARENTS, node.router.online(link, ("leaf",)), "x", None, [(2,)]), 1)
        parent.forwarded += 1
        node.router.remove_child(link)
        link.end()
    client.sendToParents("x", 3)
    heard: queue.Queue[int] = queue.Queue()
    server.on("x", lambda message, number: heard.put(number)).start()
    assert [heard.get(timeout=CEILING_SECONDS) for _ in range(2)] == [1, 3]
    assert server.childsOnline == 1
    assert parent.dropped == {"disconnected": 1}
    assert link.join(Deadline(CEILING_SECONDS))


def test_what_was_lost_before_a_stop_is_still_told_after_the_next_start(waiting):
    waiting.sendToParents("x")
    waiting.stop()
    waiting.start()
    waiting.broadcast("x")
    waiting.stop()
    assert waiting.stats()["past"]["dropped"] == {"closed": 2}


def test_what_a_server_took_is_still_told_after_the_stop(pair):
    server, client = pair
    with server.expecting("x", CEILING_SECONDS):
        client.start()
        client.sendToParents("x")
    assert client.parentPid == server.pid
    client.stop()
    past = client.stats()["past"]
    assert (past["sent"], past["dropped"], client.parentPid) == (1, {}, None)


@pytest.mark.parametrize("is_again", [False, True], ids=["stopped", "started again"])
def test_a_late_connection_is_not_served_when_ready_has_lasted_longer_than_the_stop(place, is_again):
    path = str(place / "s")
    client = Emitter().options(socket={"socketPath": path, "onlyConnect": True, "delayReconnect": 50})
    client._node.dispatcher.floor = Floor()  # it stands for a process
    server = Emitter().options(socket={"socketPath": path})
    heard: list[str] = []
    begun, goes_on = threading.Event(), threading.Event()

    def ready(message: Message) -> None:
        begun.set()
        goes_on.wait(CEILING_SECONDS)

    client.once("ready", ready)
    for event in ("online", "error"):
        client.on(event, lambda message, *args: heard.append(message.event))
    client.start()
    server.start()
    try:
        assert begun.wait(CEILING_SECONDS)
        (notices,) = (t for t in threading.enumerate() if t.name == f"ipevents-notices-{client.pid}")
        client.stop(0.0)
        client.options(useSocket=False)
        starter = threading.Thread(target=client.start if is_again else ignore)  # it waits for that listener
        starter.start()
        goes_on.set()
        notices.join(CEILING_SECONDS)
        starter.join(CEILING_SECONDS)
        assert heard == ["online"] * is_again
        assert client.stats()["links"] == {}
    finally:
        client.stop()
        server.stop()
