from __future__ import annotations

import errno
import os
import queue
import socket
import threading
from multiprocessing.connection import Client

import pytest

from ipevents._core.addresses import Address
from ipevents._core.handshake import (
    FOREIGN_USER,
    GARBLED,
    HUNG_UP,
    TIMEOUT,
    WRONG_KEY,
    ClientHandshake,
    Identity,
    Refusal,
    framed,
)
from ipevents._exceptions import AddressInUse, AuthenticationFailed, LinkError
from ipevents._transport import acceptor as module
from ipevents._transport.acceptor import Acceptor
from ipevents._transport.dial import dial
from ipevents._transport.socket_file import SocketFile
from ipevents._transport.sockets import listen

CEILING = 30.0  # reached only in a deadlock
KEY = b"k" * 32
SERVER = Identity("server", 1, (3, 11), 1 << 24)
CLIENT = Identity("client", 2, (3, 11), 1 << 24)


class Host:
    """An acceptor whose callbacks are recorded."""

    def __init__(self, address, family, *, verdict="client", **options):
        self.family = family
        self.listener = listen(address, family)
        self.address = self.listener.address
        self.listening_socket = self.listener._listener._socket
        self.accepted = queue.Queue()
        self.refused = queue.Queue()
        self.admitted = []
        self.verdict = verdict
        self.acceptor = Acceptor(
            self.listener,
            name="test",
            me=lambda: SERVER,
            find_key={b"": KEY}.get,
            admit=self.admit,
            on_accepted=self.accepted.put,
            on_refused=lambda *refused: self.refused.put(refused),
            **options,
        )

    def admit(self, identity, key_id, address, session):
        self.admitted.append((identity, key_id, address))
        return (self.verdict, 0) if isinstance(self.verdict, str) else self.verdict

    def dial(self, key=KEY, **options):
        return dial([Address(self.family, self.address)], key=key, key_id=b"", me=CLIENT, **options)

    def raw(self):
        sock = socket.socket(getattr(socket, self.family))
        sock.settimeout(CEILING)
        sock.connect(self.address)
        return sock

    def close(self):
        assert self.acceptor.close(CEILING)
        while not self.accepted.empty():
            self.accepted.get()[0].close()


def acceptor_threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ipevents-")]


@pytest.fixture
def host(request, tmp_path):
    hosts = []

    def make(family="AF_UNIX", **options):
        address = str(tmp_path / "s") if family == "AF_UNIX" else ("localhost", 0)
        hosts.append(Host(address, family, **options))
        return hosts[-1]

    yield make
    for made in hosts:
        made.close()
    assert acceptor_threads() == []


families = pytest.mark.parametrize("family", ["AF_UNIX", "AF_INET"])


@families
def test_a_client_is_accepted_and_both_directions_work(host, family):
    server = host(family)
    with server.dial().connection as near:
        far, identity, pid, key_id, _ = server.accepted.get(timeout=CEILING)
        assert (identity, pid, key_id) == (CLIENT, "client", b"")
        near.send_bytes(b"there")
        assert far.recv_bytes() == b"there"
        far.send_bytes(b"back")
        assert near.recv_bytes() == b"back"
        far.close()


@families
def test_the_accepted_connection_is_blocking_whatever_the_applications_default_timeout(host, family):
    socket.setdefaulttimeout(0.01)
    try:
        server = host(family)
        near = server.dial().connection
        far = server.accepted.get(timeout=CEILING)[0]
    finally:
        socket.setdefaulttimeout(None)
    with near, far:
        assert os.get_blocking(near.fileno())
        assert os.get_blocking(far.fileno())


def test_tcp_links_do_not_wait_to_fill_packets(host):
    server = host("AF_INET")
    with server.dial().connection as near, server.accepted.get(timeout=CEILING)[0] as far:
        for connection in (near, far):
            with socket.socket(fileno=os.dup(connection.fileno())) as sock:
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_tcp_client_is_known_by_the_address_of_its_own_end(host):
    server = host("AF_INET")
    with server.dial().connection as near:
        server.accepted.get(timeout=CEILING)[0].close()
        with socket.socket(fileno=os.dup(near.fileno())) as sock:
            own = "{}:{}".format(*sock.getsockname())
    assert server.admitted == [(CLIENT, b"", own)]


def test_what_follows_the_proof_is_left_to_the_link(host):
    server = host()
    sock = server.raw()
    client = ClientHandshake(KEY, b"", CLIENT, b"n" * 32)
    sock.sendall(framed(client.hello()))
    challenge = sock.recv(4096)[4:]
    sock.sendall(framed(client.receive(challenge)) + framed(b"first") + framed(b"second"))
    with server.accepted.get(timeout=CEILING)[0] as far:
        assert [far.recv_bytes(), far.recv_bytes()] == [b"first", b"second"]
    sock.close()


@families
def test_a_silent_client_delays_nobody(host, family):
    """D1: who connects and says nothing."""
    server = host(family)
    silent = [server.raw() for _ in range(20)]
    server.dial().connection.close()
    server.accepted.get(timeout=CEILING)[0].close()
    for sock in silent:
        sock.close()


def test_a_client_that_drips_is_cut_off_by_one_deadline(host, monkeypatch):
    """B1, D1: a handshake has one deadline, and a byte now and then does not put it off."""
    monkeypatch.setattr(module, "HANDSHAKE_SECONDS", 0.2)
    server = host()
    with server.raw() as sock:
        sock.sendall(b"\0")
        assert sock.recv(1) == b""
    assert server.refused.get(timeout=CEILING) == (TIMEOUT, "")


def test_the_oldest_pending_client_goes_when_there_are_too_many(host):
    """D1: no honest client is that slow."""
    server = host(max_pending=2)
    first, second, third = server.raw(), server.raw(), server.raw()
    assert first.recv(1) == b""
    assert server.refused.get(timeout=CEILING) == ("evicted", "")
    server.dial().connection.close()
    assert second.recv(1) == b""
    for sock in (first, second, third):
        sock.close()


@families
@pytest.mark.parametrize(("most", "pending"), [(64, [0, 50]), (20, [0, 20, 40, 50])])
def test_many_connections_are_accepted_before_the_handshakes_go_on(host, family, monkeypatch, most, pending):
    """D14: the backlog is emptied by many in each round, and no handshake waits for all of them."""
    monkeypatch.setattr(module, "ACCEPTS_IN_A_ROUND", most)
    after_rounds = queue.Queue()
    real = Acceptor._round

    def counted(self):
        real(self)
        after_rounds.put(len(self._pending))

    monkeypatch.setattr(Acceptor, "_round", counted)
    server = host(family)
    held, go = threading.Event(), threading.Event()
    monkeypatch.setattr(server.acceptor, "_on_refused", lambda *_: (held.set(), go.wait(CEILING)))
    with server.raw() as stranger:
        stranger.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert held.wait(CEILING)
        while not after_rounds.empty():
            after_rounds.get()
        clients = [server.raw() for _ in range(50)]
        go.set()
    assert [after_rounds.get(timeout=CEILING) for _ in pending] == pending
    for sock in clients:
        sock.close()


@families
def test_a_wrong_key_is_noticed_at_both_ends(host, family):
    """D2: a wrong key."""
    server = host(family)
    with pytest.raises(AuthenticationFailed):
        server.dial(key=b"w" * 32)
    assert server.refused.get(timeout=CEILING)[0] == WRONG_KEY
    assert server.accepted.empty()


@pytest.mark.parametrize(
    ("sent", "cause"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", GARBLED),
        (b"\xff\xff\xff\xff" + b"\0" * 8, GARBLED),
        (b"\0\0\0\0", GARBLED),
        (framed(b"x" * 100), GARBLED),
        (b"\0\0", HUNG_UP),
        (b"", HUNG_UP),
    ],
)
def test_who_does_not_speak_the_protocol_is_counted_and_the_rest_go_on(host, sent, cause):
    server = host()
    with server.raw() as sock:
        sock.sendall(sent)
        sock.shutdown(socket.SHUT_WR)
        try:
            assert sock.recv(1) == b""
        except ConnectionResetError:
            pass  # closed before it had read everything
    assert server.refused.get(timeout=CEILING) == (cause, "")
    server.dial().connection.close()


def test_a_client_that_is_not_admitted_learns_why(host):
    server = host(verdict=Refusal("stopping", "the server is stopping"))
    with pytest.raises(LinkError, match="the server is stopping"):
        server.dial()
    assert server.refused.get(timeout=CEILING) == ("stopping", "")


def test_another_user_is_cut_off_before_a_byte_is_read(host, monkeypatch):
    """D9: another user at a socket path."""
    monkeypatch.setattr(module, "peer_uid", lambda sock: os.geteuid() + 1)
    server = host()
    with pytest.raises(AddressInUse):
        server.dial()
    assert server.refused.get(timeout=CEILING) == (FOREIGN_USER, "")


def test_a_callback_that_raises_costs_one_connection_only(host, caplog):
    server = host()
    healthy = server.admit
    server.acceptor._admit = lambda *_: 1 / 0
    with pytest.raises(LinkError):
        server.dial()
    server.acceptor._admit = healthy
    server.dial().connection.close()
    assert "ZeroDivisionError" in caplog.text


@families
def test_close_ends_the_thread_and_refuses_further_connects(host, family):
    server = host(family)
    pending = server.raw()
    pending.sendall(framed(ClientHandshake(KEY, b"", CLIENT, b"n" * 32).hello()))
    assert pending.recv(4096)  # challenged: it is in its handshake, no longer in the backlog
    assert server.acceptor.close(CEILING)
    assert acceptor_threads() == []
    assert pending.recv(1) == b""
    pending.close()
    with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
        Client(server.address, family)


def test_close_may_be_called_twice_and_at_once(host):
    server = host()
    threads = [threading.Thread(target=server.acceptor.close) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.acceptor.close()


def test_close_from_a_callback_only_requests(host):
    server = host()
    requested = queue.Queue()
    server.acceptor._on_accepted = lambda accepted: (
        accepted.connection.close(),
        requested.put(server.acceptor.close()),
    )
    server.dial().connection.close()
    assert requested.get(timeout=CEILING) is False
    assert server.acceptor.close(CEILING)


@families
def test_at_the_descriptor_limit_accepting_pauses_and_comes_back(host, family, monkeypatch, caplog):
    """B15: no descriptor is left."""
    paused = threading.Event()
    full = [True]
    tries = []
    server = host(family)
    ((number, real),) = server.acceptor._sockets.items()

    class Full:
        def __getattr__(self, name):
            return getattr(real, name)

        def accept(self):
            if full:
                tries.append(1)
                if len(tries) == 3:
                    paused.set()
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return real.accept()

    server.acceptor._sockets[number] = Full()
    early = server.raw()
    assert paused.wait(CEILING)
    full.clear()
    server.dial().connection.close()
    early.close()
    assert len(tries) < 10
    assert caplog.text.count("cannot accept connections just now") == 1
    assert caplog.text.count("accepts connections again") == 1


@families
def test_close_interrupts_a_pause(host, family, monkeypatch):
    monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 1000.0)
    monkeypatch.setattr(module, "LONGEST_PAUSE_SECONDS", 1000.0)
    server = host(family)
    paused = threading.Event()
    real_pause = Acceptor._pause
    monkeypatch.setattr(Acceptor, "_pause", lambda self, error: (real_pause(self, error), paused.set()))
    server.acceptor._pause_seconds = 1000.0
    ((number, real),) = server.acceptor._sockets.items()

    class Full:
        def __getattr__(self, name):
            return getattr(real, name)

        def accept(self):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    server.acceptor._sockets[number] = Full()
    with server.raw():
        assert paused.wait(CEILING)
        assert server.acceptor.close(CEILING)


# Python 3.12 and later may warn of forks beside threads: this one is what is tested; its child only closes.
@pytest.mark.filterwarnings("ignore:.*is multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_closes_its_copies_and_the_parent_goes_on(host):
    server = host()
    with server.raw():
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                before = server.listening_socket.fileno()
                server.acceptor.abandon()
                try:
                    os.fstat(before)
                except OSError:
                    os.write(writer, b"closed")
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        os.close(writer)
        assert os.read(reader, 10) == b"closed"
        os.close(reader)
        server.dial().connection.close()
        assert os.path.exists(server.address)


def test_an_acceptor_removes_its_own_file_at_its_end(host, tmp_path):
    path = str(tmp_path / "s")
    server = host()
    server.acceptor._socket_file = SocketFile.at(path)
    server.close()
    assert not os.path.exists(path)


def test_a_file_that_took_the_place_of_ours_stays(host, tmp_path):
    """B13: somebody has replaced the socket file."""
    path = str(tmp_path / "s")
    server = host()
    server.acceptor._socket_file = SocketFile.at(path)
    os.unlink(path)
    with open(path, "w"):
        pass
    server.close()
    assert os.path.exists(path)


def test_no_handshake_leaves_a_descriptor(host):
    server = host("AF_INET")
    server.dial().connection.close()
    server.accepted.get(timeout=CEILING)[0].close()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(AuthenticationFailed):
            server.dial(key=b"w" * 32)
        server.refused.get(timeout=CEILING)
        server.dial().connection.close()
        server.accepted.get(timeout=CEILING)[0].close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_fault_of_one_round_ends_no_acceptor(host, monkeypatch):
    server = host()
    faults = [MemoryError(), OSError(errno.ENOMEM, "no memory")]
    expire = Acceptor._expire

    def fail(self, now):
        if faults:
            raise faults.pop()
        expire(self, now)

    monkeypatch.setattr(Acceptor, "_expire", fail)
    for _ in range(4):
        server.dial().connection.close()
        server.accepted.get(timeout=CEILING)[0].close()
    assert faults == []
