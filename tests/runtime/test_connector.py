from __future__ import annotations

import contextlib
import errno
import os
import queue
import select
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from serving import CEILING, CLIENT, KEY, OTHER_KEY, SERVER, Serving, Stranger, be_silent, free_port

from ipevents._core.addresses import Address
from ipevents._core.handshake import Welcomed
from ipevents._exceptions import AddressInUse, AuthenticationFailed, LinkError
from ipevents._runtime import connector as module
from ipevents._runtime import dial as dialling
from ipevents._runtime import socketfile
from ipevents._runtime.connector import Connector, Listening, Waiting, join
from ipevents._runtime.dial import Attempt, Connected, dial
from ipevents._runtime.socketfile import bind, locked
from ipevents._runtime.sockets import listen

STARTERS = 16

pytestmark = pytest.mark.usefixtures("all_is_given_back")
families = pytest.mark.parametrize("family", ["AF_UNIX", "AF_INET"])


@pytest.fixture
def place(request, tmp_path):
    """Where nobody is yet, for ``dial`` and for ``join``."""

    def make(family):
        path, port = str(tmp_path / "s"), free_port()
        address = path if family == "AF_UNIX" else ("localhost", port)
        socket_path = path if family == "AF_UNIX" else None

        def join_there(key=KEY, only_connect=False, deadline_seconds=5.0, me=CLIENT, attempt=None):
            return join(
                socket_path=socket_path,
                host="localhost",
                port=port,
                only_connect=only_connect,
                key=key,
                me=me,
                deadline_seconds=deadline_seconds,
                attempt=attempt,
            )

        return address, join_there

    return make


def serving(joined):
    return Serving(*joined.listeners, socket_file=joined.socket_file)


# join


@families
def test_the_first_listens_and_the_second_connects(place, family):
    _, join_there = place(family)
    first = join_there(me=SERVER)
    assert isinstance(first, Listening)
    with serving(first):
        second = join_there()
        assert isinstance(second, Connected)
        second.connection.close()
    third = join_there()
    assert isinstance(third, Listening)
    with serving(third):
        pass


@families
def test_who_only_connects_waits(place, family, tmp_path):
    _, join_there = place(family)
    assert isinstance(join_there(only_connect=True), Waiting)
    assert os.listdir(tmp_path) == []


@families
def test_joining_a_stranger_or_other_keys_raises(place, family):
    address, join_there = place(family)
    with Stranger(address, family, lambda sock: None), pytest.raises(AddressInUse):
        join_there()
    if family == "AF_UNIX":
        os.unlink(address)
    with Serving(listen(address, family)), pytest.raises(AuthenticationFailed):
        join_there(key=OTHER_KEY)


@families
def test_a_server_that_stops_just_then_is_succeeded(place, family):
    address, join_there = place(family)
    if family == "AF_UNIX":
        with locked(address):
            listener, _file = bind(address)
    else:
        listener = listen(address, family)
    inner = listener._listener._socket

    def stop():
        inner.accept()[0].close()
        inner.shutdown(socket.SHUT_RDWR)
        listener.close()

    # The server closes after it has hung up: who asks again in between is hung up on once more.
    inner.listen(0)
    thread = threading.Thread(target=stop)
    thread.start()
    try:
        joined = join_there()
    except AddressInUse:
        joined = join_there()
    thread.join()
    with serving(joined):
        pass


def test_a_live_servers_file_is_never_touched(place, tmp_path):
    address, join_there = place("AF_UNIX")
    first = join_there()
    before = os.lstat(address)
    with serving(first):
        for _ in range(3):
            join_there().connection.close()
        after = os.lstat(address)
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_port_that_is_bound_but_not_listened_at_is_taken(place, monkeypatch):
    monkeypatch.setattr(module, "RACE_SECONDS", 0.05)
    address, join_there = place("AF_INET")
    with socket.socket() as sock:
        sock.bind(address)
        with pytest.raises(AddressInUse, match=str(address[1])):
            join_there()


def join_at(path="", host="localhost", port=1):
    return join(socket_path=path or None, host=host, port=port, only_connect=False, key=KEY, me=CLIENT)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("n" * 200, "107 are possible"),
        ("missing/s", "the directory .*/missing does not exist"),
        ("file/s", "Not a directory"),
        ("file", "no socket"),
    ],
)
def test_a_path_where_no_socket_can_be_is_named_with_the_reason(tmp_path, name, text):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(LinkError, match=text) as caught:
        join_at(str(tmp_path / name))
    assert str(tmp_path / name) in str(caught.value)
    assert (tmp_path / "file").read_text() == "precious"


def test_an_address_that_is_not_of_this_machine_is_named_with_the_reason(monkeypatch):
    def refuse(*_):
        raise ConnectionRefusedError

    monkeypatch.setattr(dialling, "_connect", refuse)
    with pytest.raises(LinkError, match=r"192\.0\.2\.1:7100 .* Cannot assign requested address"):
        join_at(host="192.0.2.1", port=7100)


PROGRAM = """
import os, sys, threading
from ipevents._core.handshake import Identity
from ipevents._runtime.acceptor import Acceptor
from ipevents._runtime.connector import Listening, join
path, port = sys.argv[1], int(sys.argv[2])
me = Identity(str(os.getpid()), os.getpid(), sys.version_info[:2], 1 << 24)
print("prepared", flush=True)
sys.stdin.readline()
joined = join(socket_path=path or None, host="localhost", port=port, only_connect=False, key=b"k" * 32, me=me,
              deadline_seconds=60.0)
if isinstance(joined, Listening):
    acceptor = Acceptor(*joined.listeners, name="public", me=lambda: me, find_key=lambda key_id: b"k" * 32,
                        admit=lambda identity, key_id, address: identity.pid, socket_file=joined.socket_file,
                        on_accepted=lambda connection, *_: kept.append(connection),
                        on_refused=lambda *refused: print(*refused, flush=True))
    kept = []
    print("listening", os.getpid(), flush=True)
else:
    print("connected", joined.welcomed.server.pid, flush=True)
sys.stdin.readline()
if isinstance(joined, Listening):
    assert acceptor.close(60)
"""


@families
def test_of_sixteen_processes_at_once_one_listens_and_the_others_connect_to_it(place, family, tmp_path):
    address, _ = place(family)
    arguments = [address, "0"] if family == "AF_UNIX" else ["", str(address[1])]
    root = str(Path(__file__).parents[2])
    starters = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": root},
        )
        for _ in range(STARTERS)
    ]
    try:
        assert [starter.stdout.readline() for starter in starters] == ["prepared\n"] * STARTERS
        for starter in starters:
            starter.stdin.write("go\n")
            starter.stdin.flush()
        said = [starter.stdout.readline().split() for starter in starters]
        server = [pid for word, pid in said if word == "listening"]
        assert sorted(said) == sorted([["listening", *server]] + [["connected", *server]] * (STARTERS - 1))
    finally:
        rest = [starter.communicate("end\n", timeout=CEILING)[0] for starter in starters]
    assert rest == [""] * STARTERS
    assert [starter.returncode for starter in starters] == [0] * STARTERS
    assert not (tmp_path / "s").exists()


@families
def test_of_sixteen_threads_at_once_one_listens_with_a_stale_file_in_the_way(place, family):
    address, join_there = place(family)
    if family == "AF_UNIX":
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(address)
    outcomes = queue.Queue()
    gate = threading.Barrier(STARTERS)

    def start():
        gate.wait(CEILING)
        joined = join_there(deadline_seconds=CEILING)
        if isinstance(joined, Listening):
            started.append(serving(joined))
        else:
            joined.connection.close()
        outcomes.put(type(joined))

    started = []
    threads = [threading.Thread(target=start) for _ in range(STARTERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(CEILING)
    for each in started:
        each.acceptor.close(CEILING)
    kinds = [outcomes.get(timeout=0) for _ in threads]
    assert (kinds.count(Listening), kinds.count(Connected)) == (1, STARTERS - 1)


# Breaking it off


class Breaking(Attempt):
    """An attempt that another thread breaks off as soon as ``join`` waits for a step."""

    def __init__(self):
        super().__init__()
        self.threads = []

    def pause(self, seconds):
        self.break_off_soon()
        super().pause(seconds)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for thread in self.threads:
            thread.join(CEILING)

    def break_off_soon(self):
        thread = threading.Thread(target=self.break_off)
        self.threads.append(thread)
        thread.start()


def refused_soon(join_there, attempt):
    with pytest.raises(LinkError, match="broken off"):
        join_there(deadline_seconds=CEILING, attempt=attempt)
    return attempt.is_broken_off


@pytest.fixture
def full(place):
    """A server at an address of which the kernel takes no more connections, as one that is stopped."""
    with contextlib.ExitStack() as stack:

        def make(family):
            address, join_there = place(family)
            server = stack.enter_context(socket.socket(getattr(socket, family)))
            server.bind(address)
            server.listen(0)
            while True:
                waiting = stack.enter_context(socket.socket(getattr(socket, family)))
                waiting.setblocking(False)
                number = waiting.connect_ex(address)
                if number == errno.EAGAIN:
                    return join_there
                if number == errno.EINPROGRESS and not select.select([], [waiting], [], 0.2)[1]:
                    return join_there

        yield make


@families
def test_a_connect_that_the_kernel_does_not_finish_can_be_broken_off(full, family, monkeypatch):
    join_there = full(family)
    with Breaking() as attempt:
        real = dialling._outcome

        def waits(*args):
            attempt.break_off_soon()
            return real(*args)

        monkeypatch.setattr(dialling, "_outcome", waits)
        assert refused_soon(join_there, attempt)


@families
def test_a_connect_that_the_kernel_does_not_finish_is_given_up(full, family, monkeypatch):
    monkeypatch.setattr(dialling, "CONNECT_SECONDS", 0.05)
    with pytest.raises(LinkError, match=os.strerror(errno.ETIMEDOUT)):
        full(family)()


@families
def test_a_handshake_of_join_can_be_broken_off(place, family):
    address, join_there = place(family)
    with (
        Breaking() as attempt,
        Stranger(address, family, lambda sock: (attempt.break_off(), be_silent(sock))),
    ):
        assert refused_soon(join_there, attempt)


def test_a_wait_for_the_lock_of_a_path_can_be_broken_off(place, monkeypatch):
    monkeypatch.setattr(socketfile, "LOCK_SECONDS", CEILING)
    address, join_there = place("AF_UNIX")
    with Breaking() as attempt, locked(address):
        assert refused_soon(join_there, attempt)


def test_a_wait_for_a_port_that_is_bound_but_not_listened_at_can_be_broken_off(place, monkeypatch):
    monkeypatch.setattr(module, "RACE_SECONDS", CEILING)
    address, join_there = place("AF_INET")
    with Breaking() as attempt, socket.socket() as sock:
        sock.bind(address)
        assert refused_soon(join_there, attempt)


@families
def test_a_join_that_was_broken_off_before_does_nothing(place, family, tmp_path):
    address, join_there = place(family)
    attempt = Attempt()
    attempt.break_off()
    with Serving(listen(address, family)) as serving:
        assert refused_soon(join_there, attempt)
        assert serving.refused.empty()
    if family == "AF_UNIX":
        os.unlink(address)
    assert refused_soon(join_there, attempt)
    assert os.listdir(tmp_path) == []


@families
def test_a_server_that_was_broken_off_at_the_last_moment_listens_no_more(place, family, monkeypatch):
    address, join_there = place(family)
    attempt = Attempt()
    real = module.Listening

    def made(*args):
        attempt.break_off()
        return real(*args)

    monkeypatch.setattr(module, "Listening", made)
    assert refused_soon(join_there, attempt)
    monkeypatch.undo()
    assert isinstance(join_there(only_connect=True), Waiting)


# Connector


class Recorder:
    """A connector with a scripted dial: each entry is an exception to raise or a pair to return."""

    def __init__(self, *script, delay_seconds=0.0):
        self.script = list(script)
        self.tries = queue.Queue()
        self.connected = queue.Queue()
        self.failed = queue.Queue()
        self.connector = Connector(
            self.attempt,
            on_connected=lambda *connected: self.connected.put(connected),
            on_failed=self.failed.put,
            delay_seconds=delay_seconds,
        )

    def attempt(self, attempt):
        self.tries.put(attempt)
        entry = self.script.pop(0) if self.script else ConnectionRefusedError()
        if isinstance(entry, Exception):
            raise entry
        return entry

    def __enter__(self):
        return self

    def __exit__(self, *_):
        assert self.connector.close(CEILING)


class Closable:
    closed = False

    def close(self):
        self.closed = True


def pair():
    return Closable(), Welcomed("client", SERVER)


def test_a_connector_does_nothing_before_it_is_begun():
    with Recorder() as recorder:
        assert repr(recorder.connector) == "<Connector idle>"
    assert recorder.tries.empty()


def test_it_tries_until_it_gets_through():
    reached = pair()
    with Recorder(ConnectionRefusedError(), FileNotFoundError(), reached) as recorder:
        recorder.connector.begin(immediately=True)
        assert recorder.connected.get(timeout=CEILING) == reached
        assert recorder.failed.empty()
        assert recorder.tries.qsize() == 3


def test_one_thread_serves_every_episode():
    with Recorder(pair(), pair(), pair()) as recorder:
        thread = recorder.connector._thread
        for _ in range(3):
            recorder.connector.begin()
            recorder.connected.get(timeout=CEILING)
        assert recorder.connector._thread is thread


def test_each_distinct_cause_is_reported_once_an_episode():
    wrong, taken = AuthenticationFailed("a: different keys"), AddressInUse("a: a stranger")
    script = [wrong, taken, ConnectionRefusedError(), wrong, taken, pair(), wrong, pair()]
    with Recorder(*script) as recorder:
        recorder.connector.begin(immediately=True)
        recorder.connected.get(timeout=CEILING)
        assert [recorder.failed.get(timeout=0), recorder.failed.get(timeout=0)] == [wrong, taken]
        assert recorder.failed.empty()
        recorder.connector.begin(immediately=True)
        recorder.connected.get(timeout=CEILING)
        assert recorder.failed.get(timeout=0) is wrong


def test_an_error_of_ours_does_not_end_the_thread(caplog):
    with Recorder(ZeroDivisionError(), pair()) as recorder:
        recorder.connector.begin(immediately=True)
        recorder.connected.get(timeout=CEILING)
        assert isinstance(recorder.failed.get(timeout=0), ZeroDivisionError)
    assert "ZeroDivisionError" in caplog.text


def test_a_callback_that_raises_closes_the_connection(caplog):
    reached = pair()
    with Recorder(reached, pair()) as recorder:
        real = recorder.connector._on_connected
        recorder.connector._on_connected = lambda *_: (recorder.connected.put(None), 1 / 0)
        recorder.connector.begin(immediately=True)
        recorder.connected.get(timeout=CEILING)
        recorder.connector._on_connected = real
        recorder.connector.begin(immediately=True)
        assert recorder.connected.get(timeout=CEILING) is not None
    assert reached[0].closed


def test_the_delay_is_never_shorter_than_its_minimum():
    with Recorder(delay_seconds=0.0) as recorder:
        assert recorder.connector._delay_seconds == module.MIN_DELAY_SECONDS


def test_a_long_delay_can_be_cut_short():
    with Recorder(pair(), delay_seconds=1000.0) as recorder:
        recorder.connector.begin()
        recorder.connector.begin()
        assert recorder.tries.empty()
        recorder.connector.begin(immediately=True)
        recorder.connected.get(timeout=CEILING)


def test_close_interrupts_the_delay_and_may_be_called_twice():
    with Recorder(delay_seconds=1000.0) as recorder:
        recorder.connector.begin()
        assert recorder.connector.close(CEILING)
        assert recorder.connector.close(CEILING)
        recorder.connector.begin(immediately=True)
    assert recorder.tries.empty()
    assert repr(recorder.connector) == "<Connector closed>"


def test_close_from_a_callback_only_requests():
    with Recorder(pair()) as recorder:
        answers = queue.Queue()
        recorder.connector._on_connected = lambda *_: answers.put(recorder.connector.close())
        recorder.connector.begin(immediately=True)
        assert answers.get(timeout=CEILING) is False


def test_close_breaks_off_a_handshake(place):
    address, _ = place("AF_UNIX")
    met = threading.Event()
    with Stranger(address, "AF_UNIX", lambda sock: (met.set(), be_silent(sock))):
        failed = queue.Queue()
        connector = Connector(
            lambda attempt: dial(
                [Address("AF_UNIX", address)],
                key=KEY,
                key_id=b"",
                me=CLIENT,
                deadline_seconds=CEILING,
                attempt=attempt,
            ),
            on_connected=lambda connection, _: connection.close(),
            on_failed=failed.put,
            delay_seconds=0.05,
        )
        connector.begin(immediately=True)
        assert met.wait(CEILING)
        assert connector.close(CEILING / 2)
        assert failed.empty()


def test_a_connection_that_comes_after_close_is_closed():
    reached = pair()
    entered, leave = threading.Event(), threading.Event()
    connected = queue.Queue()

    def attempt(_):
        entered.set()
        leave.wait(CEILING)
        return reached

    connector = Connector(
        attempt, on_connected=lambda *_: connected.put(1), on_failed=connected.put, delay_seconds=1.0
    )
    connector.begin(immediately=True)
    assert entered.wait(CEILING)
    assert connector.close(0.01) is False
    leave.set()
    assert connector.close(CEILING)
    assert reached[0].closed
    assert connected.empty()


@families
def test_it_reconnects_to_a_server_that_came_back(place, family):
    address, join_there = place(family)
    connected = queue.Queue()
    connector = Connector(
        lambda attempt: dial([Address(family, address)], key=KEY, key_id=b"", me=CLIENT, attempt=attempt),
        on_connected=lambda *pair: connected.put(pair),
        on_failed=connected.put,
        delay_seconds=0.05,
    )
    try:
        for _ in range(2):
            connector.begin()
            served = join_there(me=SERVER)
            with serving(served):
                connection, welcomed = connected.get(timeout=CEILING)
                assert welcomed == Welcomed("client", SERVER)
                connection.close()
    finally:
        connector.close(CEILING)
