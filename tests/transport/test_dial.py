from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile

import pytest
from interrupting import check_unnoticed
from ports import free_port
from serving import (
    CEILING,
    CLIENT,
    KEY,
    OTHER_KEY,
    SERVER,
    Relay,
    Serving,
    Stranger,
    be_silent,
    drip,
    echo,
)

from ipevents._core.addresses import Address, spelled
from ipevents._core.handshake import Refusal, Welcomed, framed
from ipevents._exceptions import AddressInUse, AuthenticationFailed, HandshakeTimeout, LinkError
from ipevents._transport import dial as module
from ipevents._transport.dial import Attempt, dial
from ipevents._transport.sockets import listen

pytestmark = pytest.mark.usefixtures("all_is_given_back")
families = pytest.mark.parametrize("family", ["AF_UNIX", "AF_INET"])


@pytest.fixture
def place(tmp_path):
    """Where nobody is yet."""
    return lambda family: str(tmp_path / "s") if family == "AF_UNIX" else ("localhost", free_port())


def dial_there(address, family, key=KEY, **options):
    return dial([Address(family, address)], key=key, key_id=b"", me=CLIENT, **options)


@pytest.fixture
def relayed(tmp_path):
    """Makes a server and a relay before it; returns what to dial."""
    with contextlib.ExitStack() as stack:

        def make(near, far, **options):
            port = free_port()
            there = ("127.0.0.1", port) if far == "AF_INET" else str(tmp_path / "server")
            stack.enter_context(Serving(listen(there, far), **options))
            here = ("127.0.0.1", free_port()) if near == "AF_INET" else str(tmp_path / "relay")
            return stack.enter_context(Relay(near, here, far, there)).where

        yield make


@pytest.mark.parametrize(
    ("near", "far"), [("AF_INET", "AF_INET"), ("AF_INET", "AF_UNIX"), ("AF_UNIX", "AF_INET")]
)
def test_nobody_can_stand_between_two_programs_of_one_machine(relayed, near, far):
    with pytest.raises(LinkError, match="socket.forwarded=True"):
        dial_there(relayed(near, far), near)


FOREIGN = """
import os, socket, sys
os.setuid(65534)
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("listens", flush=True)
sock, _ = listener.accept()
print(sock.recv(1000))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may start a process of another user")
def test_a_process_of_another_user_at_a_path_gets_no_byte():
    place = tempfile.mkdtemp(dir="/tmp")
    os.chmod(place, 0o777)
    path = os.path.join(place, "s")
    with subprocess.Popen(
        [sys.executable, "-c", FOREIGN, path], stdout=subprocess.PIPE, text=True
    ) as foreign:
        assert foreign.stdout.readline() == "listens\n"
        with pytest.raises(LinkError, match="another user .uid 65534"):
            dial_there(path, "AF_UNIX")
        assert foreign.stdout.read() == "b''\n"
    shutil.rmtree(place)


def test_whoever_is_another_user_gets_no_byte(place, monkeypatch):
    monkeypatch.setattr(module, "peer_uid", lambda sock: os.geteuid() + 1)
    got = []
    with (
        Stranger(place("AF_UNIX"), "AF_UNIX", lambda sock: got.append(sock.recv(1000))) as stranger,
        pytest.raises(LinkError, match="another user"),
    ):
        dial_there(stranger.sock.getsockname(), "AF_UNIX")
    assert got == [b""]


@pytest.mark.parametrize(("here", "there"), [(True, False), (False, True)])
def test_a_tunnel_has_to_be_known_at_both_ends(relayed, here, there):
    with pytest.raises(LinkError, match="socket.forwarded=True"):
        dial_there(relayed("AF_INET", "AF_INET", forwarded=there), "AF_INET", forwarded=here)


def test_through_a_tunnel_that_both_ends_know_of_they_connect(relayed):
    connection, welcomed, _ = dial_there(
        relayed("AF_INET", "AF_INET", forwarded=True), "AF_INET", forwarded=True
    )
    connection.close()
    assert welcomed.server == SERVER


@pytest.mark.parametrize(
    ("host", "reach"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.1.2.3"), ("::1", "::1"), ("::", "::1")],
)
def test_a_server_at_any_address_is_called_the_same_by_both_ends(host, reach):
    port = free_port()
    more = (0, 0) if ":" in host else ()
    family = "AF_INET6" if more else "AF_INET"
    with Serving(listen((host, port, *more), family)):
        connection, *_ = dial_there((reach, port, *more), family, attempt=Attempt())
        connection.close()


@families
def test_dialling_nobody_says_so(place, family):
    address = place(family)
    with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
        dial_there(address, family)


@families
@pytest.mark.parametrize(
    "behave",
    [
        echo,
        lambda sock: sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        lambda sock: sock.sendall(framed(b"hello")),
        lambda sock: None,
        lambda sock: sock.recv(10),
    ],
    ids=["echo", "http", "frame", "hang-up", "reset"],
)
def test_a_stranger_is_named_by_its_address(place, family, behave):
    address = place(family)
    with Stranger(address, family, behave), pytest.raises(AddressInUse, match=re.escape(spelled(address))):
        dial_there(address, family)


@families
@pytest.mark.parametrize("behave", [be_silent, drip], ids=["silent", "drip"])
def test_a_stranger_that_says_too_little_is_given_up(place, family, behave):
    address = place(family)
    with (
        Stranger(address, family, behave),
        pytest.raises(HandshakeTimeout, match=re.escape(spelled(address))),
    ):
        dial_there(address, family, deadline_seconds=0.1)


@families
def test_different_keys_are_told_apart_from_strangers(place, family):
    address = place(family)
    with Serving(listen(address, family)) as serving:
        with pytest.raises(AuthenticationFailed, match=re.escape(spelled(address))):
            dial_there(address, family, key=OTHER_KEY)
        assert serving.refused.get(timeout=CEILING)[0] == "wrong-key"


def test_no_key_appears_in_an_error_or_repr(place):
    """D12: nor in an error."""
    address = place("AF_UNIX")
    with Serving(listen(address, "AF_UNIX")) as serving:
        with pytest.raises(AuthenticationFailed) as caught:
            dial_there(address, "AF_UNIX", key=OTHER_KEY)
        assert "ooo" not in str(caught.value) + repr(caught.value)
        assert "kkk" not in repr(serving.acceptor)


def test_a_refusal_names_the_address_and_the_reason(place):
    address = place("AF_UNIX")
    verdict = Refusal("stopping", "the server is stopping")
    with Serving(listen(address, "AF_UNIX"), verdict=verdict), pytest.raises(LinkError) as caught:
        dial_there(address, "AF_UNIX")
    assert str(caught.value) == f"{address}: the server is stopping"


@families
def test_the_connection_is_blocking_whatever_the_applications_default_timeout(place, family):
    address = place(family)
    with Serving(listen(address, family)):
        socket.setdefaulttimeout(0.001)
        try:
            connection, welcomed, _ = dial_there(address, family)
        finally:
            socket.setdefaulttimeout(None)
        with connection:
            assert os.get_blocking(connection.fileno())
        assert welcomed == Welcomed("client", SERVER)


def test_a_wrong_identity_closes_the_connection(place):
    address = place("AF_UNIX")
    with Serving(listen(address, "AF_UNIX")), pytest.raises(ValueError, match="pid"):
        dial([Address("AF_UNIX", address)], key=KEY, key_id=b"", me=CLIENT._replace(pid="p" * 65))


def test_a_dial_can_be_broken_off(place):
    address = place("AF_UNIX")
    attempt = Attempt()
    with Stranger(address, "AF_UNIX", lambda sock: (attempt.break_off(), be_silent(sock))):
        with pytest.raises(LinkError):
            dial_there(address, "AF_UNIX", deadline_seconds=CEILING, attempt=attempt)
        with pytest.raises(LinkError):
            dial_there(address, "AF_UNIX", deadline_seconds=CEILING, attempt=attempt)


@families
def test_a_signal_that_no_system_call_has_noticed_ends_a_handshake(place, family):
    address = place(family)
    with Stranger(address, family, be_silent):
        check_unnoticed(lambda: dial_there(address, family, deadline_seconds=CEILING, attempt=Attempt()))


def test_a_signal_that_no_system_call_has_noticed_ends_a_connect():
    with socket.create_server(("localhost", 0), backlog=0) as full, contextlib.ExitStack() as clients:
        for _ in range(3):  # more than fit
            waiting = clients.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        check_unnoticed(lambda: dial_there(full.getsockname(), "AF_INET", attempt=Attempt()))


def test_a_tcp_connection_to_itself_is_nobody(monkeypatch):
    with socket.socket() as meets_itself:
        meets_itself.bind(("localhost", 0))
        meets_itself.connect(meets_itself.getsockname())
        stand_in = socket.socket(fileno=os.dup(meets_itself.fileno()))
        monkeypatch.setattr(module, "connection_to", lambda address: stand_in)
        with pytest.raises(ConnectionRefusedError):
            dial_there(("localhost", meets_itself.getsockname()[1]), "AF_INET")
