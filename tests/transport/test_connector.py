from __future__ import annotations

import contextlib
import queue
import threading

import pytest
from ports import free_port
from scripts import wait_until
from serving import CEILING, CLIENT, KEY, SERVER, Serving, Stranger, be_silent

from ipevents._core.addresses import Address
from ipevents._core.handshake import Welcomed
from ipevents._exceptions import AddressInUse, AuthenticationFailed
from ipevents._platform.clock import monotonic
from ipevents._platform.threads import Deadline
from ipevents._transport import connector as module
from ipevents._transport.connector import Connector
from ipevents._transport.dial import Connected, dial
from ipevents._transport.socket_file import bind
from ipevents._transport.sockets import listen

pytestmark = pytest.mark.usefixtures("all_is_given_back")


class Recorder:
    """A connector with a scripted dial: each entry is an exception to raise or a pair to return."""

    def __init__(self, *script, delay_seconds=0.0, chance=lambda: 0.99):
        self.script = list(script)
        self.tries = queue.Queue()
        self.connected = queue.Queue()
        self.failed = queue.Queue()
        self.connector = Connector(
            self.attempt,
            on_connected=self.connected.put,
            on_failed=self.failed.put,
            delay_seconds=delay_seconds,
            chance=chance,
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
    return Connected(Closable(), Welcomed("client", SERVER), None)


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


def test_a_server_that_hangs_up_because_it_ends_is_not_reported_but_a_stranger_is():
    hung_up = AddressInUse("a: hung up")
    hung_up.__cause__ = ConnectionResetError()  # as dial() raises it
    script = [hung_up, ConnectionRefusedError(), pair(), hung_up, pair(), hung_up, hung_up, hung_up, pair()]
    with Recorder(*script) as recorder:
        for _ in range(2):
            recorder.connector.begin(immediately=True)
            recorder.connected.get(timeout=CEILING)
        assert recorder.failed.empty()
        recorder.connector.begin(immediately=True)
        recorder.connected.get(timeout=CEILING)
        assert recorder.failed.get(timeout=0) is hung_up
        assert recorder.failed.empty()


def test_an_error_of_ours_does_not_end_the_thread(caplog):
    with Recorder(ZeroDivisionError(), pair()) as recorder:
        recorder.connector.begin(immediately=True)
        recorder.connected.get(timeout=CEILING)
        assert isinstance(recorder.failed.get(timeout=0), ZeroDivisionError)
    assert "ZeroDivisionError" in caplog.text


# The last try


def test_the_last_try_is_made_at_once_and_has_been_handed_over_when_finish_returns():
    reached = pair()
    with Recorder(reached, delay_seconds=1000.0) as recorder:
        recorder.connector.begin()
        recorder.connector.finish(Deadline(CEILING))
        assert recorder.connected.get(timeout=0) == reached


def test_a_last_connection_that_is_cut_at_once_is_waited_for_no_longer():
    with Recorder(pair(), delay_seconds=1000.0) as recorder:
        recorder.connector._on_connected = lambda connected: recorder.connector.begin()  # after the cut
        recorder.connector.begin()
        before = monotonic()
        recorder.connector.finish(Deadline(CEILING))
        assert monotonic() - before < CEILING
        assert recorder.tries.qsize() == 1


def test_on_a_last_try_that_fails_no_other_one_follows():
    wrong = AuthenticationFailed("a: different keys")
    with Recorder(wrong, delay_seconds=1000.0) as recorder:
        recorder.connector.begin()
        recorder.connector.finish(Deadline(CEILING))
        assert recorder.failed.get(timeout=0) is wrong
        assert (recorder.tries.qsize(), repr(recorder.connector)) == (1, "<Connector idle>")


def test_between_two_episodes_there_is_no_last_try():
    with Recorder() as recorder:
        recorder.connector.finish(Deadline(CEILING))
        assert recorder.tries.empty()


@pytest.mark.parametrize("then", ["fails", "succeeds", "is broken off", "lasts too long"])
def test_a_dial_that_goes_on_is_the_last_one(then):
    goes_on, go = threading.Event(), threading.Event()

    def attempt(attempt):
        goes_on.set()
        assert go.wait(CEILING)
        return script.pop(0)

    script = [pair(), pair()] if then == "succeeds" else []
    with Recorder() as recorder:
        connector = recorder.connector
        connector._dial = attempt
        connector.begin(immediately=True)
        assert goes_on.wait(CEILING)
        finish = threading.Thread(
            target=connector.finish, args=(Deadline(0.0 if then == "lasts too long" else CEILING),)
        )
        finish.start()
        if then == "is broken off":
            connector.begin_close()
        if then in ("fails", "succeeds"):
            wait_until(lambda: connector._is_last)
            go.set()
        finish.join(CEILING)
        assert not finish.is_alive()
        assert recorder.connected.qsize() == (then == "succeeds")
        go.set()
    assert len(script) == (then == "succeeds")


@pytest.mark.parametrize("error", [OSError, MemoryError])
def test_where_nothing_can_be_made_of_a_connection_it_makes_another_one(error):
    """No descriptor is left for a moment, say."""
    first, second = pair(), pair()
    with Recorder(first, second) as recorder:
        real = recorder.connected.put
        errors = [error]

        def connected(found):
            if errors:
                raise errors.pop()
            real(found)

        recorder.connector._on_connected = connected
        recorder.connector.begin(immediately=True)
        assert recorder.connected.get(timeout=CEILING) is second
    assert (first.connection.closed, second.connection.closed) == (True, False)
    assert recorder.failed.empty()


def test_the_last_try_is_the_last_one_also_where_nothing_can_be_made_of_its_connection():
    with Recorder(pair(), pair(), delay_seconds=1e6) as recorder:
        recorder.connector._on_connected = lambda *_: 1 / 0
        recorder.connector.begin()
        recorder.connector.finish(Deadline(CEILING))
        assert repr(recorder.connector) == "<Connector idle>"
    assert recorder.tries.qsize() == 1


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
    assert reached.connection.closed


def test_the_delay_is_never_shorter_than_its_minimum():
    with Recorder(delay_seconds=0.0) as recorder:
        assert recorder.connector._delay_seconds == module.MIN_DELAY_SECONDS


@pytest.mark.parametrize(
    ("chance", "first", "next_one"), [(0.0, 0.0, 0.7), (0.5, 0.25, 1.0), (0.75, 0.375, 1.15)]
)
def test_the_waits_are_drawn_anew_for_each_try(monkeypatch, chance, first, next_one):
    """In the thread of the test: the connector's own has ended."""
    now = 1000.0
    with Recorder(delay_seconds=100.0, chance=lambda: chance) as recorder:
        connector = recorder.connector
        assert connector.close(CEILING)
        connector._closing = False
        monkeypatch.setattr(module, "monotonic", lambda: now)
        connector.begin()
        assert connector._due == pytest.approx(now + 100.0 * first)
        connector._failed(ConnectionRefusedError())
        assert connector._due == pytest.approx(now + 100.0 * next_one)
        connector.begin(immediately=True)
        assert connector._due == now


def test_what_is_drawn_lies_between_0_and_1_and_differs():
    drawn = [module.any_chance() for _ in range(100)]
    assert all(0 <= each < 1 for each in drawn)
    assert len(set(drawn)) > 90


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


def test_close_breaks_off_a_handshake(tmp_path):
    address = str(tmp_path / "s")
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
            on_connected=lambda connected: connected.close(),
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
    assert reached.connection.closed
    assert connected.empty()


@contextlib.contextmanager
def server_at(address, family):
    listener, file = bind(address) if family == "AF_UNIX" else (listen(address, family), None)
    with Serving(listener, socket_file=file, verdict="client"):
        yield


@pytest.mark.parametrize("family", ["AF_UNIX", "AF_INET"])
def test_it_reconnects_to_a_server_that_came_back(tmp_path, family):
    address = str(tmp_path / "s") if family == "AF_UNIX" else ("localhost", free_port())
    connected = queue.Queue()
    connector = Connector(
        lambda attempt: dial([Address(family, address)], key=KEY, key_id=b"", me=CLIENT, attempt=attempt),
        on_connected=connected.put,
        on_failed=connected.put,
        delay_seconds=0.05,
    )
    try:
        for _ in range(2):
            connector.begin()
            with server_at(address, family):
                connection, welcomed, _ = connected.get(timeout=CEILING)
                assert welcomed == Welcomed("client", SERVER)
                connection.close()
    finally:
        connector.close(CEILING)


def test_a_fault_before_a_try_ends_no_connector(monkeypatch):
    faults = [MemoryError(), MemoryError()]

    def fail(*_):
        if faults:
            raise faults.pop()
        return object()

    monkeypatch.setattr(module, "Attempt", fail)
    with Recorder(pair()) as recorder:
        recorder.connector.begin()
        recorder.connected.get(timeout=CEILING)
    assert faults == []
