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
from ports import free_port
from serving import CEILING, CLIENT, KEY, OTHER_KEY, SERVER, Serving, Stranger, be_silent

from ipevents._core.addresses import Address
from ipevents._exceptions import AddressInUse, AuthenticationFailed, LinkError
from ipevents._transport import dial as dialling
from ipevents._transport import join as module
from ipevents._transport import socket_file
from ipevents._transport.dial import Attempt, Connected
from ipevents._transport.join import Listening, Waiting, join
from ipevents._transport.socket_file import bind, locked
from ipevents._transport.sockets import listen

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


def join_at(path="", host="localhost", port=1, only_connect=False, deadline_seconds=5.0):
    return join(
        socket_path=path or None,
        host=host,
        port=port,
        only_connect=only_connect,
        key=KEY,
        me=CLIENT,
        deadline_seconds=deadline_seconds,
    )


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
    """B14: too long, no directory, no permission."""
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


# Several addresses


FOUR, SIX = "127.0.0.1", "::1"


def sockaddr(host, port):
    return (host, port, 0, 0) if ":" in host else (host, port)


def address_of(host, port):
    return Address("AF_INET6" if ":" in host else "AF_INET", sockaddr(host, port))


@pytest.fixture
def named(monkeypatch):
    """Makes a name of a host that has these addresses."""
    hosts = {}
    real = socket.getaddrinfo

    def look_up(name, port, *args, **kwargs):
        found = hosts.get(name, [name])
        return [item for host in found for item in real(host, port, *args, **kwargs)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)

    def make(*addresses):
        hosts["name"] = addresses
        return "name"

    return make


def serve_at(host, port, **how):
    return Serving(listen(sockaddr(host, port), address_of(host, port).family), **how)


def stranger_at(host, port, behave):
    return Stranger(sockaddr(host, port), address_of(host, port).family, behave)


@pytest.mark.parametrize("order", [(FOUR, SIX), (SIX, FOUR)])
@pytest.mark.parametrize("there", [FOUR, SIX])
def test_a_server_that_listens_at_one_of_several_addresses_is_found(named, order, there):
    port = free_port()
    with serve_at(there, port):
        joined = join_at(host=named(*order), port=port)
        assert isinstance(joined, Connected)
        joined.close()


def link_local():
    """A link-local address of this machine with its interface, if it has any."""
    found = [line.split() for line in Path("/proc/net/if_inet6").read_text().splitlines()]
    for digits, _, _, scope, _, interface in found:
        if scope == "20":
            return f"{socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits))}%{interface}"
    return None


@pytest.mark.parametrize("host", [FOUR, SIX, "localhost", "::", "0.0.0.0", "[::1]", "link-local"])
def test_a_program_finds_the_server_that_has_the_same_host(host):
    port = free_port()
    if host == "link-local":
        host = link_local() or pytest.skip("no interface of this machine has a link-local address")
    first = join_at(host=host, port=port)
    assert isinstance(first, Listening)
    with serving(first):
        second = join_at(host=host, port=port)
        assert isinstance(second, Connected)
        second.close()


@pytest.mark.parametrize(
    ("server", "client"), [("::", FOUR), ("::", SIX), ("::", "0.0.0.0"), ("0.0.0.0", "::"), (FOUR, "::")]
)
def test_a_server_at_all_addresses_is_the_one_at_each_of_them(server, client):
    port = free_port()
    with serving(join_at(host=server, port=port)):
        joined = join_at(host=client, port=port)
        assert isinstance(joined, Connected)
        joined.close()


@pytest.mark.parametrize(
    "behave", [be_silent, lambda sock: sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")]
)
def test_a_stranger_at_one_address_does_not_hide_the_server_at_another(named, behave):
    port = free_port()
    with stranger_at(SIX, port, behave), serve_at(FOUR, port):
        joined = join_at(host=named(SIX, FOUR), port=port, deadline_seconds=0.2)
        assert isinstance(joined, Connected)
        joined.close()


def test_where_a_stranger_has_one_address_no_server_begins_at_the_others(named):
    port = free_port()
    with stranger_at(SIX, port, lambda sock: sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")):
        with pytest.raises(AddressInUse) as caught:
            join_at(host=named(SIX, FOUR), port=port)
        text = str(caught.value)
        assert f"something that is not ipevents answers at [::1]:{port}" in text
        assert f"127.0.0.1:{port}: {os.strerror(errno.ECONNREFUSED)}" in text


def test_an_address_that_does_not_answer_only_delays_the_others(named, monkeypatch):
    monkeypatch.setattr(dialling, "CONNECT_SECONDS", 0.05)
    port = free_port()
    with socket.create_server((SIX, port), family=socket.AF_INET6, backlog=0), contextlib.ExitStack() as full:
        for _ in range(3):  # more than fit
            waiting = full.enter_context(socket.socket(socket.AF_INET6))
            waiting.setblocking(False)
            waiting.connect_ex((SIX, port))
        with serve_at(FOUR, port):
            joined = join_at(host=named(SIX, FOUR), port=port)
            assert isinstance(joined, Connected)
            joined.close()


def test_a_client_of_which_one_server_is_not_reached_and_another_not_there_waits(named, monkeypatch):
    real = dialling._connect

    def unreachable(sock, where, *rest):
        if where[0] == SIX:
            raise OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
        real(sock, where, *rest)

    monkeypatch.setattr(dialling, "_connect", unreachable)
    assert isinstance(join_at(host=named(SIX, FOUR), port=free_port(), only_connect=True), Waiting)


def test_where_no_address_can_be_reached_each_is_named_with_its_reason(named, monkeypatch):
    numbers = {SIX: errno.EHOSTUNREACH, FOUR: errno.ENETUNREACH}

    def unreachable(sock, where, *rest):
        raise OSError(numbers[where[0]], os.strerror(numbers[where[0]]))

    monkeypatch.setattr(dialling, "_connect", unreachable)
    with pytest.raises(LinkError) as caught:
        join_at(host=named(SIX, FOUR), port=7100)
    assert str(caught.value) == (
        f"cannot connect to [::1]:7100: {os.strerror(errno.EHOSTUNREACH)}; 127.0.0.1:7100: "
        f"{os.strerror(errno.ENETUNREACH)} (the loopback interface is down: ip link set lo up)"
    )


def test_a_host_that_cannot_be_looked_up_is_named():
    with pytest.raises(LinkError, match=r"the host 'no-such-host\.invalid' cannot be looked up"):
        join_at(host="no-such-host.invalid")


def test_a_server_gives_its_addresses_back_where_another_program_has_one_of_them(named, monkeypatch):
    port, real, tries = free_port(), module.listen_at_all, []
    with contextlib.ExitStack() as stack:

        def races(addresses):
            if not tries:  # another program begins at one of the addresses, after we asked there
                tries.append(stack.enter_context(serve_at(SIX, port)))
            return real(addresses)

        monkeypatch.setattr(module, "listen_at_all", races)
        joined = join_at(host=named(FOUR, SIX), port=port)
        assert isinstance(joined, Connected)
        joined.close()
        assert isinstance(join_at(host=FOUR, port=port, only_connect=True), Waiting)


def test_a_look_that_takes_longer_than_all_patience_is_not_the_last_one(place, monkeypatch):
    """A connect without an answer takes so long. Meanwhile another program may have bound the port."""
    monkeypatch.setattr(module, "RACE_SECONDS", 0.0)
    address, join_there = place("AF_INET")
    with contextlib.ExitStack() as stack:
        taken = stack.enter_context(socket.socket())
        real = module.listen_at_all

        def races(addresses):
            if taken.getsockname()[1] == 0:
                taken.bind(address)
                return real(addresses)  # it is taken
            taken.close()
            monkeypatch.undo()
            return real(addresses)

        monkeypatch.setattr(module, "listen_at_all", races)
        with serving(join_there()):
            pass


PROGRAM = """
import os, random, socket, sys, threading
from ipevents._core.handshake import Identity
from ipevents._transport.acceptor import Acceptor
from ipevents._transport.join import Listening, join
path, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
real = socket.getaddrinfo
def look_up(name, *args, **kwargs):
    # The last one is reached by no way, and no packet leaves this machine for it.
    hosts = ["127.0.0.1", "::1", "127.0.0.2", "fe80::1%lo"] if name == "name" else [name]
    random.shuffle(hosts)  # two programs need not get the same order
    return [item for host in hosts for item in real(host, *args, **kwargs)]
socket.getaddrinfo = look_up
me = Identity(str(os.getpid()), os.getpid(), sys.version_info[:2], 1 << 24)
print("prepared", flush=True)
sys.stdin.readline()
joined = join(socket_path=path or None, host=host, port=port, only_connect=False, key=b"k" * 32, me=me,
              deadline_seconds=60.0)
if isinstance(joined, Listening):
    acceptor = Acceptor(*joined.listeners, name="public", me=lambda: me, find_key=lambda key_id: b"k" * 32,
                        admit=lambda identity, *_: (identity.pid, 0), socket_file=joined.socket_file,
                        on_accepted=lambda accepted: kept.append(accepted.connection),
                        on_refused=lambda *refused: print(*refused, flush=True))
    kept = []
    print("listening", os.getpid(), flush=True)
else:
    print("connected", joined.welcomed.server.pid, flush=True)
sys.stdin.readline()
if isinstance(joined, Listening):
    assert acceptor.close(60)
"""


@pytest.mark.parametrize(
    "hosts",
    [
        ["AF_UNIX"],
        *(
            pytest.param(hosts, marks=pytest.mark.slow)
            for hosts in (["localhost"], ["name", "::1"], ["name"], ["::"], ["name", "127.0.0.1"])
        ),
    ],
    ids=str,
)
def test_of_sixteen_processes_at_once_one_listens_and_the_others_connect_to_it(hosts, tmp_path):
    """B11: several programs want to be the server."""
    path, port = (str(tmp_path / "s"), "0") if hosts == ["AF_UNIX"] else ("", str(free_port()))
    root = str(Path(__file__).parents[2])
    starters = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, path, hosts[number % len(hosts)], port],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": root},
        )
        for number in range(STARTERS)
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
    monkeypatch.setattr(socket_file, "LOCK_SECONDS", CEILING)
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
