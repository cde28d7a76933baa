from __future__ import annotations

import contextlib
import errno
import gc
import os
import socket
import stat
from multiprocessing import connection
from pathlib import Path

import pytest
from ports import free_port

from ipevents._core.addresses import Address, spelled
from ipevents._exceptions import LinkError
from ipevents._transport import sockets as module
from ipevents._transport.sockets import advice, listen, listen_at_all, listening_socket, peer_uid, resolve

FOUR, SIX = "127.0.0.1", "::1"
MANY = 300
CEILING = 20.0  # reached only in a deadlock


def at(host, port):
    return Address("AF_INET6", (host, port, 0, 0)) if ":" in host else Address("AF_INET", (host, port))


@pytest.fixture
def listening():
    """Listens at hosts, for as long as the test lasts."""
    made = []

    def start(*hosts, port):
        made.extend(listen_at_all(at(host, port) for host in hosts))
        return [listening_socket(listener).getsockname()[0] for listener in made]

    yield start
    for listener in made:
        listener.close()


def answers(host, port):
    try:
        socket.create_connection((host, port)).close()
    except ConnectionRefusedError:
        return False
    return True


def test_the_user_at_the_other_end_is_told_by_the_kernel():
    here, there = socket.socketpair()
    with here, there:
        assert peer_uid(here) == os.geteuid()


def test_a_listener_removes_no_file_by_itself(tmp_path):
    path = str(tmp_path / "s")
    listener = listen(path, "AF_UNIX")
    listener.close()
    del listener
    gc.collect()
    assert stat.S_ISSOCK(os.lstat(path).st_mode)


def test_a_server_that_accepts_nobody_just_now_lets_hundreds_of_tcp_clients_wait():
    """One that finds no room would try again after a second only."""
    if int(Path("/proc/sys/net/core/somaxconn").read_text()) < MANY:
        pytest.skip("the system allows no such backlog")
    with listen((FOUR, 0), "AF_INET") as listener, contextlib.ExitStack() as clients:
        for _ in range(MANY):
            sock = clients.enter_context(socket.socket())
            sock.settimeout(CEILING)
            sock.connect(listener.address)


# Names


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", [("AF_INET", ("127.0.0.1", 7100))]),
        ("::1", [("AF_INET6", ("::1", 7100, 0, 0))]),
        ("[::1]", [("AF_INET6", ("::1", 7100, 0, 0))]),
        ("fe80::1%lo", [("AF_INET6", ("fe80::1", 7100, 0, socket.if_nametoindex("lo")))]),
    ],
)
def test_an_address_is_looked_up_as_itself(host, expected):
    assert resolve(host, 7100) == expected


def test_a_name_has_all_its_addresses_each_once_in_the_order_of_the_system(monkeypatch):
    found = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 7100, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 7100)),
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 7100, 0, 0)),
        (12345, socket.SOCK_STREAM, 6, "", (1, b"of another family")),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert resolve("name", 7100) == [at("::1", 7100), at("127.0.0.1", 7100)]


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "a" * 70, "1.2.3.4.5", "fe80::1%none", "["])
def test_a_host_that_is_none_is_named(host):
    with pytest.raises(LinkError) as caught:
        resolve(host, 7100)
    assert repr(host) in str(caught.value)
    assert "socket.host is the name or address of a host" in str(caught.value)


# Listening at several addresses


def test_a_server_listens_at_all_addresses_of_its_host(listening):
    port = free_port()
    assert listening(SIX, FOUR, port=port) == [FOUR, SIX]
    assert answers(FOUR, port)
    assert answers(SIX, port)


def test_what_the_machine_has_not_is_left_out(listening):
    assert listening("192.0.2.1", "2001:db8::1", FOUR, port=free_port()) == [FOUR]


def test_a_machine_without_ipv6_listens_at_the_others(listening, monkeypatch):
    real = connection.Listener

    def without(where, family, **how):
        if family == "AF_INET6":
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        return real(where, family, **how)

    monkeypatch.setattr(connection, "Listener", without)
    assert listening(SIX, FOUR, port=free_port()) == [FOUR]


def test_where_no_address_is_this_machines_all_are_named():
    with pytest.raises(LinkError) as caught:
        listen_at_all([at("192.0.2.1", 7100), at("2001:db8::1", 7100)])
    for where in ("192.0.2.1:7100", "[2001:db8::1]:7100"):
        assert f"{where}: {os.strerror(errno.EADDRNOTAVAIL)} (this machine has no" in str(caught.value)


@pytest.mark.parametrize("taken", [FOUR, SIX])
@pytest.mark.usefixtures("all_is_given_back")
def test_where_one_is_taken_none_is_listened_at(taken):
    port = free_port()
    other = {FOUR: SIX, SIX: FOUR}[taken]
    with socket.create_server((taken, port), family=getattr(socket, at(taken, port).family)):
        with pytest.raises(OSError, match=os.strerror(errno.EADDRINUSE)) as caught:
            listen_at_all([at(FOUR, port), at(SIX, port)])
        assert caught.value.errno == errno.EADDRINUSE
        assert spelled(at(taken, port).where) in str(caught.value)
        assert not answers(other, port)


@pytest.mark.usefixtures("all_is_given_back")
def test_where_descriptors_run_out_at_one_of_them_none_is_listened_at(monkeypatch):
    real = connection.Listener

    def scarce(where, family, **how):
        if family == "AF_INET6":
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(where, family, **how)

    monkeypatch.setattr(connection, "Listener", scarce)
    port = free_port()
    with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
        listen_at_all([at(FOUR, port), at(SIX, port)])
    assert not answers(FOUR, port)


def test_the_unspecified_address_of_ipv6_means_ipv4_as_well(listening):
    port = free_port()
    listening("::", port=port)
    assert answers(FOUR, port)
    assert answers(SIX, port)


def test_so_it_does_where_the_system_means_ipv6_alone(listening, monkeypatch):
    real = connection.Listener

    def only_six(where, family, **how):
        if family != "AF_INET6":
            return real(where, family, **how)
        listener = real(("::1", *where[1:]), family, **how)  # as :: with net.ipv6.bindv6only
        monkeypatch.setattr(module, "_is_only_six", lambda _: True)
        return listener

    monkeypatch.setattr(connection, "Listener", only_six)
    port = free_port()
    listening("::", port=port)
    assert answers(FOUR, port)
    assert answers(SIX, port)


# What to do about it


@pytest.mark.parametrize(
    ("number", "where", "part"),
    [
        (errno.EADDRNOTAVAIL, ("192.0.2.1", 7100), "socket.onlyConnect"),
        (errno.EAFNOSUPPORT, ("::1", 7100, 0, 0), "no IPv6"),
        (errno.EADDRNOTAVAIL, ("::1", 7100, 0, 0), "no IPv6"),  # where it is switched off
        (errno.EACCES, ("127.0.0.1", 80), "choose a socket.port from 1024 on"),
        (errno.EINVAL, ("fe80::1", 7100, 0, 0), "fe80::1%eth0"),
        (errno.ENETUNREACH, ("127.0.0.1", 7100), "ip link set lo up"),
        (errno.ENETUNREACH, ("::1", 7100, 0, 0), "ip link set lo up"),
    ],
)
def test_an_error_that_has_a_remedy_names_it(number, where, part):
    assert part in advice(number, where, listens=True)


@pytest.mark.parametrize(
    ("number", "where"),
    [
        (errno.EACCES, ("127.0.0.1", 7100)),
        (errno.EINVAL, ("::1", 7100, 0, 0)),
        (errno.ENETUNREACH, ("192.0.2.1", 7100)),
        (errno.EIO, ("127.0.0.1", 7100)),
        (None, ("127.0.0.1", 7100)),
    ],
)
def test_another_error_gets_no_advice(number, where):
    assert advice(number, where, listens=True) == ""


@pytest.mark.parametrize("number", [errno.EADDRNOTAVAIL, errno.EACCES])
def test_what_concerns_listening_is_no_advice_to_a_client(number):
    assert advice(number, ("127.0.0.1", 80)) == ""
