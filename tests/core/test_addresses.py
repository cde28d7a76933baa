from __future__ import annotations

from itertools import permutations

import pytest

from ipevents._core.addresses import Address, listening_order, on_loopback, remote, spelled, to_connect

FOUR = Address("AF_INET", ("127.0.0.1", 7100))
OTHER = Address("AF_INET", ("192.0.2.1", 7100))
SIX = Address("AF_INET6", ("::1", 7100, 0, 0))
LINK = Address("AF_INET6", ("fe80::1", 7100, 0, 2))
ALL_FOUR = Address("AF_INET", ("0.0.0.0", 7100))
ALL = Address("AF_INET6", ("::", 7100, 0, 0))


def test_what_is_of_this_machine_alone_is_a_loopback_address():
    alone = [
        Address("AF_INET", ("127.0.0.1", 1)),
        Address("AF_INET", ("127.1.2.3", 1)),
        Address("AF_INET6", ("::1", 1, 0, 0)),
        Address("AF_INET6", ("::ffff:127.0.0.1", 1, 0, 0)),
    ]
    others = [
        ALL_FOUR,
        Address("AF_INET6", ("::", 1, 0, 0)),
        Address("AF_INET", ("192.0.2.1", 1)),
        Address("AF_INET6", ("fe80::1", 1, 0, 2)),
    ]
    assert remote([*alone, *others]) == others


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ("/run/app.sock", "/run/app.sock"),
        (("localhost", 7100), "localhost:7100"),
        (FOUR.where, "127.0.0.1:7100"),
        (SIX.where, "[::1]:7100"),
        (("::1", 7100), "[::1]:7100"),
        (LINK.where, "[fe80::1%2]:7100"),
        (("fe80::1%lo", 7100, 0, 1), "[fe80::1%lo]:7100"),
        (("::ffff:127.0.0.1", 7100, 0, 0), "127.0.0.1:7100"),
        (("::ffff:1", 7100, 0, 0), "[::ffff:1]:7100"),
    ],
)
def test_an_address_is_spelled_so_that_its_port_can_be_told(where, text):
    assert spelled(where) == text


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("/run/app.sock", b""),
        (("127.0.0.1", 7100), b"127.0.0.1:7100"),
        (("127.3.2.1", 7100), b"127.3.2.1:7100"),
        (("::1", 7100, 0, 0), b"[::1]:7100"),
        (("::ffff:127.0.0.1", 7100, 5, 0), b"127.0.0.1:7100"),
        (("192.0.2.127", 7100), b""),
        (("fe80::1", 7100, 0, 2), b""),
        (("::ffff:192.0.2.1", 7100, 0, 0), b""),
    ],
)
def test_a_handshake_says_only_addresses_of_this_machine_alone(where, said):
    assert on_loopback(where) == said


def test_all_programs_listen_in_the_same_order_whatever_the_resolver_says():
    orders = {tuple(listening_order(order)) for order in permutations([FOUR, OTHER, SIX, LINK])}
    assert orders == {(FOUR, OTHER, SIX, LINK)}
    assert listening_order([FOUR, FOUR]) == [FOUR]


def test_a_client_keeps_the_order_of_the_resolver():
    assert to_connect([LINK, SIX, OTHER, FOUR]) == [LINK, SIX, OTHER, FOUR]


def test_a_server_at_all_addresses_is_looked_for_at_the_machines_own():
    assert to_connect([ALL_FOUR]) == [FOUR]
    assert to_connect([ALL]) == [SIX, FOUR]
    assert to_connect([ALL, ALL_FOUR, FOUR]) == [SIX, FOUR]
