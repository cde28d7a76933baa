"""What tests of requests send and receive over a link that is only a socket."""

from __future__ import annotations

import threading

from places import CEILING

from ipevents._core.messages import ANSWER, REQUEST, REQUEST_ALL, REQUEST_ANY, REQUEST_GRAND_MASTER
from ipevents._core.requests import VALUE
from ipevents._payload.numbered import numbers_of


def settled(place, child):
    """Wait until all that the child has sent is handled."""
    heard = threading.Event()
    place.on("settled", lambda message: heard.set())
    child.send((1, (child.pid,), "settled", None, [()]))
    assert heard.wait(CEILING)


def answer(child, number, *args, status=VALUE, event="x", path=None):
    child.send((ANSWER, path or (child.pid,), event, None, [(number, status, *args)]))


def asked(child):
    """The next request that comes to this socket: its number and deadline."""
    kind, payload = child.next_payload()
    assert kind in (REQUEST, REQUEST_GRAND_MASTER, REQUEST_ALL, REQUEST_ANY)
    return numbers_of(payload)


def answered(child):
    """The next answer that comes to this socket: number, status, rest."""
    kind, payload = child.next_payload()
    assert kind == ANSWER
    return payload[0], payload[1], payload[2:]


def passed(one, *payloads):
    """Send requests through the process between, for the other child."""
    one.send((REQUEST, ("one",), "x", ("other", ("other",)), list(payloads)))


def request(*payloads, kind=REQUEST, event="x", pid="raw"):
    return (kind, (pid,), event, None, list(payloads))


def answers(child, count):
    """The next answers: number, status, and the rest."""
    found = [child.next_payload() for _ in range(count)]
    assert {kind for kind, _ in found} == {ANSWER}
    return [(payload[0], payload[1], payload[2:]) for _, payload in found]
