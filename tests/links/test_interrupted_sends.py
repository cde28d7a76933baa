"""What a signal handler of the user's may do in the middle of a send: raise, or send itself, anywhere."""

from __future__ import annotations

import threading

import balance
import pytest
from interrupting import LOOKS_AFTER_PYTHON_CALLS, Interruption, Raised
from recorder import Recorder

LARGE = b"x" * (1 << 20)  # travels beside its frame, and no kernel takes it at once


@pytest.fixture(autouse=True)
def _counts_what_it_can(monkeypatch):
    monkeypatch.setattr(balance, "counts_all", not LOOKS_AFTER_PYTHON_CALLS)


@pytest.fixture
def three(port):
    """A server with two clients, in this process."""
    made = [Recorder("mark", "local", port=port) for _ in range(3)]
    server, one, other = made
    server.start()
    one.joined()
    other.joined()
    for client in (one, other):
        server.wait("online", client.pid)
    yield made
    for recorder in reversed(made):
        recorder.emitter.stop()


def send_to_one(server, one, number):
    server.emitter.sendToChild(one.pid, "evt", number)


def send_along_a_route(server, one, number):
    server.emitter.sendTo((one.pid, server.pid), "evt", number)


def send_to_all(server, one, number):
    server.emitter.sendToChilds("evt", number)


def send_much(server, one, number):
    server.emitter.sendToChild(one.pid, "evt", number, LARGE)


def send_what_is_no_plain_value(server, one, number):
    server.emitter.sendToChild(one.pid, "evt", number, [number])


def send_several(server, one, number):
    """The second and third join a frame, or find somebody who writes."""
    for _ in range(3):
        server.emitter.sendToChild(one.pid, "evt", number)


def send_in_a_listener(server, one, number):
    server.emitter.emit("local", number)


WAYS = [
    send_to_one,
    send_along_a_route,
    send_to_all,
    send_much,
    send_what_is_no_plain_value,
    send_several,
    send_in_a_listener,
]


def settled(server, *clients):
    """Wait until everything that was sent has arrived."""
    for client in clients:
        client.forget()
        server.emitter.sendToChild(client.pid, "mark")
        client.wait("mark")


def check_books(server, clients):
    node = server.emitter._node
    stats = server.emitter.stats()
    for client in clients:
        link = stats["links"][client.pid]
        received = client.emitter.stats()["links"][server.pid]["received"]
        assert (link["sent"], link["queued"], link["dropped"]) == (received, 0, {})
    assert not node.lock._is_owned()
    assert not node.dispatcher.floor.lock._is_owned()
    assert node.lock.deferred == {}


def free(lock):
    """Whether another thread gets it."""
    got = []
    thread = threading.Thread(target=lambda: got.append(lock.acquire(timeout=10)) or lock.release())
    thread.start()
    thread.join()
    return got == [True]


def each_place(server, clients, way, act=None):
    """Do it once for each place, interrupted there; yields what was heard in between."""
    place = 0
    while True:
        place += 1
        interruption = Interruption(place, act)
        settled(server, *clients)
        there = interruption.run(lambda: way(server, clients[0], place))  # noqa: B023  # called at once
        numbers = []
        for client in clients:
            server.emitter.sendToChild(client.pid, "mark")
            client.wait("mark", count=2)
            numbers.append([m.args[0] for m in client.heard if m.event == "evt"])
        yield place, interruption, numbers
        if not there:
            assert place > 10, "no places were found"
            return


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_handler_that_raises_in_a_send_costs_no_event_but_perhaps_the_one_being_sent(three, way):
    server, *clients = three
    times = 3 if way is send_several else 1
    if way is send_in_a_listener:
        server.emitter.on("local", lambda message, n: send_to_one(server, clients[0], n))
    sent = server.emitter.stats()["sent"]
    marks = 0
    for place, interruption, numbers in each_place(server, clients, way):
        where = interruption.where
        marks += 4
        assert all(number == place for got in numbers for number in got), where
        for client, got in zip(clients, numbers, strict=True):
            most = times if client is clients[0] or way is send_to_all else 0
            assert len(got) <= most, where
            assert interruption.was_raised or way is send_in_a_listener or len(got) == most, where
        check_books(server, clients)
        assert free(server.emitter._node.lock), where
        assert free(server.emitter._node.dispatcher.floor.lock), where
        events = max(map(len, numbers))
        if not LOOKS_AFTER_PYTHON_CALLS:
            assert server.emitter.stats()["sent"] - sent == marks + events, where
        sent, marks = server.emitter.stats()["sent"], 0
    for client in clients:
        assert client.of("offline") == []


@pytest.mark.parametrize("way", [send_to_one, send_to_all, send_much], ids=lambda way: way.__name__)
def test_a_handler_that_sends_in_the_middle_of_a_send_mixes_nothing_up(three, way):
    server, *clients = three

    def act():
        server.emitter.sendToChild(clients[0].pid, "evt", -1)

    for place, interruption, numbers in each_place(server, clients, way, act):
        expected = {place: 1, -1: 1} if interruption.where else {place: 1}
        assert {number: numbers[0].count(number) for number in numbers[0]} == expected, interruption.where
        check_books(server, clients)


def test_a_handler_that_sends_and_then_raises_mixes_nothing_up(three):
    server, *clients = three

    def act():
        server.emitter.sendToChild(clients[0].pid, "evt", -1)
        raise Raised

    for _place, interruption, numbers in each_place(server, clients, send_to_all, act):
        assert numbers[0].count(-1) == (1 if interruption.where else 0), interruption.where
        check_books(server, clients)
        assert free(server.emitter._node.lock), interruption.where


def test_a_handler_may_raise_what_the_system_and_the_library_raise_too(three):
    server, *clients = three
    for kind in (TimeoutError, BlockingIOError, MemoryError, ValueError):

        def act(kind=kind):
            raise kind from Raised()

        place = 0
        while True:
            place += 1
            settled(server, *clients)
            interruption = Interruption(place, act)
            try:
                there = interruption.run(lambda: send_to_one(server, clients[0], place))  # noqa: B023  # at once
            except kind:
                there = True
            check_books_after_mark(server, clients)
            if not there:
                break
    assert clients[0].of("offline") == []


def check_books_after_mark(server, clients):
    settled(server, *clients)
    check_books(server, clients)
