"""start() and stop() that meet: whoever comes last counts, and nothing is left of the other."""

from __future__ import annotations

import gc
import os
import random
import signal
import socket
import sys
import threading

import pytest
from lives import CEILING_SECONDS, KEY, InThread, state_of, threads

from ipevents import AuthenticationFailed, Closed, Emitter, IPEventsError
from ipevents._core.state import State
from ipevents._dispatch import notices
from ipevents._links import link, writer
from ipevents._platform.threads import start_thread
from ipevents._processes import supervisor
from ipevents._transport import acceptor

INTERLEAVINGS = [100, pytest.param(1000, marks=pytest.mark.slow)]
WHERE_THREADS_START = (acceptor, link, writer, notices, supervisor)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Silent:
    """Somebody who accepts connections at a port and says nothing; ``came`` tells of the first."""

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        self._taken: list[socket.socket] = []
        self.came = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                self._taken.append(self._listener.accept()[0])
            except OSError:
                return
            self.came.set()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for connection in self._taken:
            connection.close()


@pytest.fixture
def silent(port):
    silent = Silent(port)
    yield silent
    silent.close()


# A stop in the middle of a start


@pytest.mark.usefixtures("all_is_given_back")
def test_a_stop_during_the_handshake_breaks_the_start_off(emitter, silent):
    start = InThread(emitter.start)
    assert silent.came.wait(CEILING_SECONDS)
    emitter.stop()
    assert threads() == []
    assert state_of(emitter) is State.CLOSED
    assert start.result() is None
    assert state_of(emitter) is State.CLOSED


@pytest.mark.usefixtures("all_is_given_back")
def test_a_stop_by_a_signal_handler_during_the_handshake_breaks_the_start_off(emitter, silent):
    before = signal.signal(signal.SIGUSR1, lambda *_: emitter.stop())

    def interrupt():
        assert silent.came.wait(CEILING_SECONDS)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    interrupter = InThread(interrupt)
    try:
        emitter.start()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert interrupter.result() is None
    assert state_of(emitter) is State.CLOSED


@pytest.mark.usefixtures("all_is_given_back")
def test_run_returns_where_a_stop_met_its_start(emitter, silent):
    done = []
    run = InThread(lambda: done.append(emitter.run()))
    assert silent.came.wait(CEILING_SECONDS)
    emitter.stop()
    assert run.result() is None
    assert done == [True]


@pytest.mark.usefixtures("all_is_given_back")
def test_run_begins_no_other_life_where_a_stop_came_just_before_its_start(emitter, monkeypatch):
    emitter.options(useSocket=False).start()
    life, start = emitter._life, emitter._life.start

    def late(*args, **kwargs):
        life.exit = SystemExit(3)  # of a listener
        assert InThread(emitter.stop).result() is None
        start(*args, **kwargs)

    monkeypatch.setattr(life, "start", late)
    with pytest.raises(SystemExit) as raised:
        emitter.run(0.0)
    assert raised.value.code == 3
    assert state_of(emitter) is State.CLOSED


@pytest.mark.usefixtures("all_is_given_back")
def test_a_stop_breaks_off_a_start_that_has_opened_threads_for_a_worker_before(emitter, silent):
    emitter._life.open()
    start = InThread(emitter.start)
    assert silent.came.wait(CEILING_SECONDS)
    emitter.stop()
    assert start.result() is None
    assert state_of(emitter) is State.CLOSED


@pytest.mark.usefixtures("all_is_given_back")
def test_a_stop_right_at_the_beginning_of_a_start_ends_it(emitter, monkeypatch):
    opening = emitter._life.opening
    begin = opening._begin_start

    def overtaken(mine):
        begun = begin(mine)
        emitter._life.request_stop(None)
        return begun

    monkeypatch.setattr(opening, "_begin_start", overtaken)
    emitter.start()
    assert state_of(emitter) is State.CLOSED
    assert emitter.run(0.0), "it is stopped, and says so at once"


@pytest.mark.usefixtures("all_is_given_back")
def test_a_stop_waits_for_its_own_life_and_not_for_the_next_one(emitter, monkeypatch):
    life = emitter.options(useSocket=False)._life
    emitter.start()
    ask = life._ask

    def late(seconds):
        """The thread that stops is kept, until another one has stopped and started again."""
        asked = ask(seconds)
        monkeypatch.setattr(life, "_ask", ask)
        assert InThread(emitter.start).result() is None
        return asked

    monkeypatch.setattr(life, "_ask", late)
    emitter.stop()
    assert state_of(emitter) is State.STARTED
    emitter.stop()


@pytest.mark.parametrize("use_socket", [True, False])
@pytest.mark.usefixtures("all_is_given_back")
def test_a_stop_in_a_listener_of_ready_leaves_nothing(emitter, port, use_socket):
    emitter.options(useSocket=use_socket)
    emitter.on("ready", lambda message: emitter.stop())
    emitter.start()
    emitter.stop()
    assert state_of(emitter) is State.CLOSED
    assert not listens(port)


@pytest.mark.usefixtures("all_is_given_back")
def test_a_stop_of_another_thread_while_ready_is_told_leaves_nothing_of_a_client(port):
    server = Emitter().options(socket={"port": port, "host": "127.0.0.1", "authkey": KEY}).start()
    client = Emitter().options(socket={"port": port, "host": "127.0.0.1", "authkey": KEY})
    heard = []

    @client.on("ready")
    def ready(message):
        heard.append(InThread(client.stop).result())
        heard.append(state_of(client))

    client.on("online", lambda message: heard.append("online"))
    client.start()
    assert heard == [None, State.CLOSED]
    assert state_of(client) is State.CLOSED
    server.stop()


def test_a_start_waits_for_the_stop_that_is_going_on_and_counts(emitter):
    emitter.start()
    stopping = threading.Event()
    may_end = threading.Event()

    @emitter.on("slow")
    def slow(message):
        stopping.set()
        assert may_end.wait(CEILING_SECONDS)

    running = InThread(lambda: emitter.emit("slow"))
    assert stopping.wait(CEILING_SECONDS)
    emitter._life.request_stop(None)
    start = InThread(emitter.start)
    may_end.set()
    assert running.result() is None
    assert start.result() is None
    assert state_of(emitter) is State.STARTED
    emitter.stop()


def test_a_start_in_a_listener_cannot_wait_for_the_stop_and_says_so(emitter):
    raised = []

    @emitter.on("again")
    def again(message):
        with emitter._life.opening.building:  # so that the stop cannot be over before the start
            emitter.stop()
            try:
                emitter.start()
            except Closed as exc:
                raised.append(str(exc))

    emitter.start()
    emitter.emit("again")
    emitter.stop()
    assert raised == ["the emitter is stopping; start() can follow when it is stopped"]


def test_a_start_waits_for_the_last_lines_of_a_stop_that_ends_just_when_it_looks(emitter, monkeypatch):
    emitter.start()
    former = emitter._life.supervisor
    stopped = emitter._life.stopped
    may_end = threading.Event()
    close, join, is_set = former.sentinels.close, type(former).join, type(stopped).is_set

    def close_late() -> None:
        may_end.wait()
        close()

    def join_it(self, deadline):
        may_end.set()
        return join(self, deadline)

    monkeypatch.setattr(former.sentinels, "close", close_late)
    monkeypatch.setattr(type(former), "join", join_it)
    emitter._life.request_stop(None)
    assert stopped.wait(CEILING_SECONDS)
    monkeypatch.setattr(type(stopped), "is_set", lambda self: self is not stopped and is_set(self))
    emitter.start()
    was_joined = may_end.is_set()
    may_end.set()
    is_started = state_of(emitter) is State.STARTED
    emitter.stop()
    assert was_joined
    assert is_started


# A start that fails


def refuse(monkeypatch, which):
    """Let the ``which``-th thread of the library from now on be refused."""
    started = []

    def refused(name, run):
        started.append(name)
        if len(started) == which:
            raise RuntimeError("can't start new thread")
        return start_thread(name, run)

    for module in WHERE_THREADS_START:
        monkeypatch.setattr(module, "start_thread", refused)
    return started


@pytest.mark.parametrize("which", range(1, 4))
@pytest.mark.usefixtures("all_is_given_back")
def test_a_start_that_gets_no_thread_leaves_nothing_and_can_be_repeated(emitter, port, monkeypatch, which):
    with monkeypatch.context() as patch:
        started = refuse(patch, which)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            emitter.start()
    assert len(started) == which
    assert threads() == []
    assert state_of(emitter) is State.NEW
    assert not emitter.stopping
    assert not listens(port)
    emitter.start()
    assert listens(port)
    emitter.stop()


@pytest.mark.parametrize("which", range(1, 6))
@pytest.mark.usefixtures("all_is_given_back")
def test_a_client_that_gets_no_thread_leaves_nothing_and_can_be_started_again(port, monkeypatch, which):
    place = {"port": port, "host": "127.0.0.1", "authkey": KEY}
    server = Emitter().options(socket=place).start()
    client = Emitter().options(socket={**place, "onlyConnect": True})
    with monkeypatch.context() as patch:
        started = refuse(patch, 10_000)  # the server's acceptor starts some as well: only ours are refused
        real = started.append
        ours = []

        def note(name):
            real(name)
            if threading.current_thread() is threading.main_thread():
                ours.append(name)
                if len(ours) == which:
                    raise RuntimeError("can't start new thread")

        def refused(name, run):
            note(name)
            return start_thread(name, run)

        for module in WHERE_THREADS_START:
            patch.setattr(module, "start_thread", refused)
        from ipevents._transport import connector

        patch.setattr(connector, "start_thread", refused)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            client.start()
    assert state_of(client) is State.NEW
    client.start()
    assert client.parentPid == server.pid
    client.stop()
    server.stop()


@pytest.mark.usefixtures("all_is_given_back")
def test_a_failed_start_leaves_what_a_worker_has_opened(port):
    place = {"port": port, "host": "127.0.0.1"}
    server = Emitter().options(socket={**place, "authkey": KEY}).start()
    other = Emitter().options(socket={**place, "authkey": "another key than that"})
    other._life.open()
    with pytest.raises(AuthenticationFailed):
        other.start()
    assert state_of(other) is State.OPEN
    other.stop()
    server.stop()


def test_a_process_whose_start_got_no_thread_ends_by_itself(scripted):
    ended = scripted(
        """
        import threading
        original = threading.Thread.start

        def start(self):
            if self.name.startswith("ipevents-supervisor"):
                raise RuntimeError("can't start new thread")
            original(self)

        threading.Thread.start = start
        ipem.start()
        """
    )
    assert ended.status == 1
    assert "can't start new thread" in ended.err


@pytest.fixture
def scripted():
    from scripts import running

    def run(text):
        with running(text) as script:
            return script.ended()

    return run


# Everything at once, on the real thing


class Walk:
    """One random meeting of starts and stops: what each of some threads does, and when."""

    def __init__(self, emitter: Emitter, seed: int) -> None:
        self._emitter = emitter
        self._random = random.Random(seed)
        self.raised: list[BaseException] = []

    def _do(self, what: str) -> None:
        emitter = self._emitter
        try:
            if what == "start":
                emitter.start()
            elif what == "stop":
                emitter.stop()
            elif what == "request":
                emitter._life.request_stop(None)
            elif what == "open":
                emitter._life.open()
            elif what == "listener":
                emitter.emit("please stop")
            elif what == "send":
                emitter.sendToParents("x")
        except IPEventsError as exc:  # Closed, NotStarted: what the caller is told; never anything else
            self.raised.append(exc)

    def go(self) -> None:
        """Several threads at once, a few steps each."""
        plans = [
            [
                self._random.choice(["start", "start", "stop", "stop", "request", "open", "listener", "send"])
                for _ in range(self._random.randint(1, 3))
            ]
            for _ in range(self._random.randint(2, 4))
        ]
        barrier = threading.Barrier(len(plans))

        def run(plan: list[str]) -> None:
            barrier.wait()
            for what in plan:
                self._do(what)

        calls = [InThread(lambda plan=plan: run(plan)) for plan in plans]
        for call in calls:
            assert call.result() is None, plans


@pytest.fixture
def threads_take_turns_all_the_time():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("threads_take_turns_all_the_time")
@pytest.mark.parametrize("interleavings", INTERLEAVINGS)
@pytest.mark.parametrize("kind", ["server", "client", "no socket", "waiting"])
def test_whatever_meets_in_the_end_the_emitter_is_wholly_open_or_wholly_closed(
    kind, interleavings, port, place
):
    path = str(place / "s")
    options = {"socketPath": path, "authkey": KEY}
    server = None
    if kind == "client":
        server = Emitter().options(socket=options).start()
    emitter = Emitter().options(
        useSocket=kind != "no socket",
        socket={**options, "onlyConnect": kind == "waiting", "delayReconnect": 50},
    )
    emitter.on("please stop", lambda message: emitter.stop())
    outside = set(threads())
    gc.collect()  # what tests before this one have left to the collector is not ours
    descriptors = len(os.listdir("/dev/fd"))
    for seed in range(interleavings):
        Walk(emitter, seed).go()
        emitter.start()  # the last one counts: wholly open
        assert state_of(emitter) is State.STARTED, seed
        assert emitter.isGrandMaster is (kind in ("server", "no socket")), seed
        if kind == "server":
            assert os.path.exists(path), seed
        emitter.stop()  # wholly closed
        assert state_of(emitter) is State.CLOSED, seed
        ours = [name for name in set(threads()) - outside if server is None or server.pid not in name]
        if kind != "client":  # the server's threads for its clients come and go
            assert ours == [], seed
            assert len(os.listdir("/dev/fd")) == descriptors, seed
    if server is not None:
        server.stop()
    assert threads() == []
