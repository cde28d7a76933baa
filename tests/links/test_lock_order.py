"""Whoever holds the state lock waits for no other lock, so a finalizer may wait for the state lock anywhere.

A thread of the library is held at each place of what it does, as the collector may hold it there to run a
finalizer. Meanwhile another thread does, under the state lock, whatever the library does under it. If it
waited for a lock that the first one holds, and the finalizer for the state lock, both would wait for ever.
"""

from __future__ import annotations

import gc
import queue
import threading

import pytest
from interrupting import Interruption
from recorder import Recorder

from ipevents._platform.latches import Latch, Wakeup
from ipevents._platform.logs import Log
from ipevents._platform.threads import Deadline, start_thread
from ipevents._transport.connector import Connector
from ipevents._transport.dial import Attempt

CEILING = 20.0


class Helper:
    """A thread that does things under the state lock of a node when it is asked to."""

    def __init__(self, node, do):
        self._asked: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._node, self._do = node, do
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while self._asked.get():
            with self._node.lock:
                self._do()
            self._done.put(True)

    def ask(self):
        if not self._node.lock._is_owned():  # else the finalizer does not wait either
            self._asked.put(True)
            self._done.get(timeout=CEILING)

    def end(self):
        self._asked.put(False)
        self._thread.join(CEILING)


@pytest.fixture
def pair(port):
    server, client = Recorder("mark", port=port).start(), Recorder("mark", port=port)
    client.joined()
    server.wait("online", client.pid)
    yield server.emitter, client.emitter
    client.emitter.stop()
    server.emitter.stop()


def what_is_done_under_the_lock(emitter):
    """Everything that wakes somebody."""
    node, supervisor = emitter._node, emitter._life.supervisor
    (link,) = node.router.neighbours

    def do():
        Latch().set()
        supervisor.sentinels.ring()
        link.prompt()
        link.wake_waiters()
        node.events.notify(int)
        node.incoming.held.online_said.set()

    return do


def connector():
    def refused(attempt):
        raise ConnectionRefusedError

    return Connector(refused, on_connected=lambda *_: None, on_failed=lambda *_: None, delay_seconds=1000.0)


def actions(server, client):
    made = [connector(), connector()]
    attempt = Attempt()
    closing = Wakeup()
    (link,) = server._node.router.neighbours
    yield "a latch", Latch().set
    yield "a ring", server._life.supervisor.sentinels.ring
    yield "the end of a wakeup", closing.close
    yield "begin to connect", made[0].begin
    yield "connect no more", made[1].begin_close
    yield "break off", attempt.break_off
    yield "accept no more", server._life.public_socket.server._acceptor.begin_close
    yield "a log line", lambda: Log("ipevents.test").debug("= %s", "it")
    yield "a notice", lambda: server._node.events.notify(int)
    yield "a send", lambda: server.sendToChild(link.name, "mark")
    yield "an emit", lambda: server.emit("mark")
    yield "a listener", lambda: server.off("mark", int).on("mark", str).off("mark", str)
    yield "the end of listening", lambda: client._life.public_socket.client._connector.begin_close()
    for one in made:
        one.close(CEILING)


def test_a_finalizer_may_wait_for_the_state_lock_wherever_it_runs(pair):
    server, client = pair
    helper = Helper(server._node, what_is_done_under_the_lock(server))
    failed: list[str] = []
    over = Latch()

    def run():
        try:
            for name, action in actions(server, client):
                place = 0
                there = True
                while there:
                    place += 1
                    interruption = Interruption(place, helper.ask)
                    try:
                        there = interruption.run(action)
                    except queue.Empty:
                        failed.append(f"{name}: {interruption.where}")
                        return
        finally:
            over.set()

    start_thread("interrupted", run)
    over.wait(4 * CEILING)  # in the main thread, so that each latch rings for it
    helper.end()
    assert failed == []
    assert over.is_set()


def test_a_receiver_may_be_collected_in_the_middle_of_a_ring(pair):
    """The same with a collection and what the library does then."""
    server, _ = pair
    node = server._node

    class Receiver:
        def heard(self, message):
            pass

    signal = server.signal("collected")
    collected = threading.Event()
    holds, goes_on = threading.Event(), threading.Event()

    def collect():
        holds.set()
        goes_on.wait(CEILING)
        gc.collect()
        collected.set()

    def ring():
        interruption = Interruption(3, collect)
        interruption.run(server._life.supervisor.sentinels.ring)

    def hold():
        holds.wait(CEILING)
        with node.lock:
            goes_on.set()
            server._life.supervisor.sentinels.ring()

    gc.disable()
    try:
        receiver = Receiver()
        receiver.me = receiver
        signal.connect(receiver.heard)
        del receiver
        threads = [start_thread("rings", ring), start_thread("holds", hold)]
        for thread in threads:
            thread.join(Deadline(CEILING).left())
        assert [thread.is_alive() for thread in threads] == [False, False]
    finally:
        gc.enable()
    assert collected.is_set()
    assert server.listenerCount("collected") == 0
