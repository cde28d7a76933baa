"""What the writer thread of a link does for the threads that send. Two whole links: test_link.py."""

from __future__ import annotations

import queue
import threading

from sending import CEILING

from ipevents._core.link_state import Right, Summons
from ipevents._core.messages import PARENT
from ipevents._links.writer import LINGER_ROUNDS, LINGER_SECONDS
from ipevents._platform.threads import Deadline


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
