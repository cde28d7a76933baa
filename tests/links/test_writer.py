"""What the writer thread of a link does for the threads that send. Two whole links: test_link.py."""

from __future__ import annotations

import queue
import sys
import threading

import pytest
from cables import cut, tcp_pair
from sending import CEILING, Sending

from ipevents._core.link_state import Right, Summons
from ipevents._core.messages import PARENT
from ipevents._exceptions import SilentPeer
from ipevents._links.writer import LINGER_ROUNDS, LINGER_SECONDS
from ipevents._platform.clock import monotonic
from ipevents._platform.threads import Deadline
from ipevents._transport.stream import Stream


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


class Sleeps:
    """Stands for the lock on which the writer thread sleeps, and notes for how long it means to."""

    def __init__(self, lock):
        self._lock = lock
        self.seen = queue.SimpleQueue()
        self.release = lock.release

    def acquire(self, *, timeout):
        self.seen.put(timeout)
        return self._lock.acquire(timeout=timeout)


def test_the_writer_thread_does_not_look_again_by_itself_after_a_prompt(sending):
    link = sending.link
    with sending.lock:
        sleeps = link._wakeup = Sleeps(link._wakeup)
        link.tell((PARENT, "2"))
    assert sending.peer.recv(1 << 16)
    with sending.lock:
        link.end()
    assert link.join(Deadline(CEILING))
    assert {sleeps.seen.get() for _ in range(sleeps.seen.qsize())} == {-1}


def test_the_writer_thread_looks_again_by_itself_after_a_call_until_it_has_found_nothing_for_a_while(sending):
    link = sending.link
    with sending.lock:
        sleeps = link._wakeup = Sleeps(link._wakeup)
        link.defer()
    looks = [sleeps.seen.get(timeout=CEILING) for _ in range(LINGER_ROUNDS + 1)]
    if looks[0] == -1:  # it had not fallen asleep yet
        looks = [*looks[1:], sleeps.seen.get(timeout=CEILING)]
    assert looks == [LINGER_SECONDS] * LINGER_ROUNDS + [-1]


# Whether the peer is dead


@pytest.fixture
def distant():
    """A link over TCP whose peer reads what the test lets it, and which looks every 0.125 s."""
    made = Sending(*tcp_pair(receive_bytes=8192), dead_after=1.0)
    yield made
    made.close()


def looks(monkeypatch):
    """Let each look be put into a queue, with what it has found."""
    found = queue.Queue()
    real = Stream.look

    def look(stream, now):
        alive = real(stream, now)
        found.put((alive, stream.is_watched))
        return alive

    monkeypatch.setattr(Stream, "look", look)
    return found


def send(sending, size):
    with sending.lock:
        sending.put((b"x" * size,))
        records = sending.link.claim_now()
    sending.link.write_now(records)


def test_what_a_sending_thread_has_written_is_looked_at_until_the_peer_has_it(distant, monkeypatch):
    """The writer thread has nothing to write, and sleeps."""
    found = looks(monkeypatch)
    send(distant, 100_000)
    distant.written()
    assert [found.get(timeout=CEILING) for _ in range(3)] == [(True, True)] * 3
    while found.get(timeout=CEILING)[1]:
        distant.peer.recv(1 << 16)
    stream = distant.link.stream
    assert stream.look_at <= monotonic()  # what is written from now on is looked at again
    send(distant, 10)
    assert stream.is_watched
    assert found.get(timeout=CEILING) == (True, False)
    assert found.empty()


def test_a_blocked_writer_looks_and_lives_on_for_as_long_as_the_peer_answers(distant, monkeypatch):
    """B6: a peer that only does not read is not dead."""
    found = looks(monkeypatch)
    size = 1 << 24
    send(distant, size)
    progress = distant.link.progress
    for _ in range(16):  # two times as long as a dead peer would last
        assert found.get(timeout=CEILING) == (True, True)
    assert distant.link.progress < progress + 1.0  # a look is no progress
    while size > 0:
        size -= len(distant.peer.recv(1 << 20))
    distant.written()
    assert not distant.link.stream.failed


@pytest.mark.skipif(sys.platform != "linux", reason="no such filters")
@pytest.mark.parametrize("size", [10, 1 << 24], ids=["asleep", "blocked"])
def test_a_dead_peer_ends_the_connection_whatever_the_writer_does(distant, size):
    stream = distant.link.stream
    cut(distant.peer, stream.socket)
    send(distant, size)
    error = distant.errors.get(timeout=CEILING)
    assert type(error) is SilentPeer
    assert stream.is_silent
    assert stream.failed
    assert not stream.is_watched


def test_a_connection_that_has_failed_is_looked_at_no_more(distant):
    link = distant.link
    send(distant, 10)
    with distant.lock:
        link.stream.failed = True
        link._look(link.stream)
        assert (link.stream.is_watched, link.stream.look_at) == (False, float("inf"))


def test_a_link_that_is_no_tcp_is_never_looked_at(sending, monkeypatch):
    found = looks(monkeypatch)
    send(sending, 10)
    assert sending.peer.recv(1 << 16)
    sending.written()
    assert not sending.link.stream.is_watched
    assert found.empty()
