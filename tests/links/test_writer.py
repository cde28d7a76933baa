"""Which thread writes to a link, step by step: outlet.py and writer.py. Two whole links: test_link.py."""

from __future__ import annotations

import socket
import threading

import pytest
from watched import WatchedLink

from ipevents._core.decisions import Plan
from ipevents._core.link_state import Right, Summons
from ipevents._core.messages import BROADCAST, PARENT
from ipevents._platform.threads import Deadline
from ipevents._transport.stream import Stream

CEILING = 10.0  # reached only in a deadlock
PLAN = Plan(header=(BROADCAST, ("1",), None), event="evt")


class Sending:
    """A link, and the socket that its peer would have."""

    def __init__(self):
        self.lock = threading.RLock()
        self.link = WatchedLink("1", self.lock, lambda *args: None, lambda *args: None)
        ours, self.peer = socket.socketpair()
        self.peer.settimeout(CEILING)
        with self.lock:
            self.link.attach(Stream(_Connection(ours), None))

    def put(self, payload=()):
        """State lock held."""
        assert self.link.outbox.offer(PLAN, payload, 10)

    def written(self):
        """Wait until the kernel has everything."""
        with self.lock:
            assert self.link.flush(Deadline(CEILING))
            assert self.link._right is Right.FREE

    def close(self):
        self.peer.close()
        with self.lock:
            self.link.end()
        assert self.link.join(Deadline(CEILING))
        assert self.link.refused == set()


class _Connection:
    """As much of a multiprocessing.connection.Connection as a session takes over."""

    def __init__(self, sock):
        self._sock = sock
        self.fileno = sock.fileno
        self.close = sock.close


@pytest.fixture
def sending():
    made = Sending()
    yield made
    made.close()


def test_a_claim_is_used_and_given_back(sending):
    link = sending.link
    with sending.lock:
        sending.put()
        records = link.claim()
        assert link._right is Right.CLAIMED
        assert link.attended
        assert link.is_written_by(threading.get_ident())
        assert link.claim_now() is None
    link.write_now(records)
    assert link._right is Right.FREE
    assert not link.is_written_by(threading.get_ident())
    assert not link.attended
    assert sending.peer.recv(1 << 16)


def test_there_is_nothing_to_claim_where_nothing_waits(sending):
    with sending.lock:
        assert sending.link.claim() is None
        assert sending.link._right is Right.FREE
        assert not sending.link.attended


def test_a_claim_that_is_not_used_is_written_by_the_writer_thread(sending):
    link = sending.link
    with sending.lock:
        sending.put()
        records = link.claim()
    link.give_back()
    link.write_now(records)  # too late: it does nothing
    assert sending.peer.recv(1 << 16)
    sending.written()
    assert link.sent == 1
    assert (Right.CLAIMED, Right.LEFT) in link.seen
    assert (Right.LEFT, Right.WRITING) in link.seen


def test_what_the_kernel_does_not_take_is_left_to_the_writer_thread(sending):
    link = sending.link
    with sending.lock:
        sending.put((b"x" * (1 << 22),))
        records = link.claim()
    link.write_now(records)
    assert not link.is_written_by(threading.get_ident())
    assert link.attended
    size = 0
    while size < 1 << 22:
        size += len(sending.peer.recv(1 << 20))
    sending.written()
    assert (Right.WRITING, Right.LEFT) in link.seen


def test_a_frame_is_lost_with_the_link_and_counted(sending):
    link = sending.link
    with sending.lock:
        sending.put()
        assert link.claim() is not None
        link.end()
    link.give_back()
    assert link.join(Deadline(CEILING))
    assert (link.sent, link.dropped, link._right) == (1, {"link-cut": 1}, Right.FREE)


def test_the_writer_thread_is_woken_once_for_several_prompts(sending):
    link = sending.link
    with sending.lock:
        link.defer()
        link.tell((PARENT, "2"))
        link.prompt()
        assert link._summons is Summons.PROMPTED
        assert link.attended
    assert sending.peer.recv(1 << 16)
    sending.written()
    assert (Summons.PROMPTED, Summons.LINGERS) in link.seen


def test_what_a_listener_put_calls_the_writer_thread_and_is_claimed_at_the_end_of_the_batch(sending):
    link = sending.link
    with sending.lock:
        sending.put()
        link.defer()
        assert link._summons in (Summons.CALLED, Summons.LINGERS)
        assert not link.attended
        records = link.claim_now()
    link.write_now(records)
    assert sending.peer.recv(1 << 16)
