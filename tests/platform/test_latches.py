from __future__ import annotations

import os
import select
import signal
import socket
import threading

import pytest
from interrupting import Interruption, check_unnoticed

from ipevents._platform.latches import Latch, Wakeup, acquire_from_user, wait_ready
from ipevents._platform.threads import Deadline, join_thread, main_ident, start_thread


def test_a_latch_that_is_set_lets_everybody_through_at_once():
    latch = Latch()
    assert not latch.is_set()
    latch.set()
    latch.set()
    assert latch.is_set()
    assert [latch.wait(), latch.wait(0), latch.wait(-1)] == [True, True, True]


@pytest.mark.parametrize("timeout", [0, 0.001, -1])
def test_a_wait_for_a_latch_ends_with_its_time(timeout):
    latch = Latch()
    assert not latch.wait(timeout)
    assert not latch.wait(timeout)
    latch.set()
    assert latch.wait(timeout)


def test_a_latch_lets_many_waiters_go():
    latch = Latch()
    threads = [threading.Thread(target=latch.wait) for _ in range(20)]
    for thread in threads:
        thread.start()
    setters = [threading.Thread(target=latch.set) for _ in range(3)]
    for thread in setters:
        thread.start()
    for thread in threads + setters:
        thread.join(20.0)
    assert not any(thread.is_alive() for thread in threads)


def test_a_signal_handler_can_set_the_latch_that_it_interrupts():
    latch = Latch()
    previous = signal.signal(signal.SIGUSR1, lambda number, frame: latch.set())
    try:
        threading.Thread(target=signal.pthread_kill, args=(main_ident(), signal.SIGUSR1)).start()
        assert latch.wait(20.0)
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_a_signal_handler_can_raise_out_of_a_wait_and_the_latch_stays_usable():
    latch = Latch()

    def fail(number: int, frame: object) -> None:
        raise LookupError

    previous = signal.signal(signal.SIGUSR1, fail)
    try:
        sender = threading.Thread(target=signal.pthread_kill, args=(main_ident(), signal.SIGUSR1))
        with pytest.raises(LookupError):  # noqa: PT012  it comes wherever the thread is by then
            sender.start()
            latch.wait()
        sender.join()
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert not latch.wait(0)
    latch.set()
    assert latch.wait()


def test_a_signal_handler_can_raise_out_of_a_wait_for_a_lock_and_the_lock_is_not_held():
    class Raised(Exception):
        pass

    def handler(number: int, frame: object) -> None:
        raise Raised

    def hold() -> None:
        with lock:
            held.set()
            free.wait()

    lock, held, free = threading.RLock(), Latch(), Latch()
    holder = start_thread("holder", hold)
    held.wait()
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(Raised):  # noqa: PT012  it comes wherever the thread is by then
            start_thread("kill", lambda: signal.pthread_kill(main_ident(), signal.SIGUSR1))
            acquire_from_user(lock)
    finally:
        signal.signal(signal.SIGUSR1, before)
        free.set()
    assert join_thread(holder, Deadline(10.0))
    acquire_from_user(lock)  # what nobody holds is there for who wants it
    lock.release()


def test_a_wakeup_is_readable_from_a_ring_until_it_is_cleared():
    wakeup = Wakeup()
    try:
        wakeup.ring()
        assert os.read(wakeup.fileno(), 1) == Wakeup.RING
        for _ in range(100_000):  # more than a pipe holds
            wakeup.ring()
        wakeup.clear()
        with pytest.raises(BlockingIOError):
            os.read(wakeup.fileno(), 1)
    finally:
        wakeup.close()


def test_a_closed_wakeup_rings_at_nobody():
    wakeup = Wakeup()
    wakeup.close()
    reader, writer = os.pipe()  # gets the numbers that were given back
    try:
        wakeup.ring()
        wakeup.close()
        os.set_blocking(reader, False)
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)
    finally:
        os.close(reader)
        os.close(writer)


def test_a_wakeup_is_abandoned_though_somebody_was_ringing():
    wakeup = Wakeup()
    held, done = threading.Event(), threading.Event()

    def ring() -> None:
        with wakeup._lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=ring)
    thread.start()
    held.wait()
    wakeup.abandon()
    done.set()
    thread.join()
    wakeup.ring()


def rings(wakeup: Wakeup) -> int:
    return len(wakeup.clear())


def test_a_ring_waits_for_no_lock_and_is_not_lost():
    wakeup = Wakeup()
    try:
        assert wakeup._lock.acquire()  # as another thread in the middle of its ring
        thread = threading.Thread(target=wakeup.ring)
        thread.start()
        thread.join(20.0)
        assert not thread.is_alive()
        assert rings(wakeup) == 0
        wakeup._lock.release()
        wakeup.ring()
        assert rings(wakeup) >= 1
    finally:
        wakeup.close()


def test_who_rings_looks_again_for_a_ring_that_came_meanwhile(monkeypatch):
    wakeup = Wakeup()
    write, others = wakeup._write, []

    def interrupted() -> None:
        write()
        if not others:
            others.append(threading.Thread(target=wakeup.ring))
            others[0].start()
            others[0].join(20.0)  # it has found the lock taken, and gone on

    monkeypatch.setattr(wakeup, "_write", interrupted)
    wakeup.ring()
    assert not others[0].is_alive()
    assert rings(wakeup) == 2
    wakeup.close()


def test_a_handler_that_raises_in_a_ring_leaves_it_rung_and_the_lock_free():
    place = 0
    while True:
        place += 1
        wakeup = Wakeup()
        interruption = Interruption(place)
        there = interruption.run(wakeup.ring)
        assert rings(wakeup) or interruption.where.startswith(("Wakeup.ring", "ring")), interruption.where
        got: list[bool] = []
        thread = threading.Thread(target=lambda: got.append(wakeup._lock.acquire(timeout=20.0)))  # noqa: B023
        thread.start()
        thread.join()
        assert got == [True], interruption.where
        wakeup.abandon()
        if not there:
            break
    assert place > 5


# A signal that came just before the system call in which the main thread blocks


def wait_for_a_latch():
    Latch().wait(20.0)


def wait_for_a_lock():
    lock, held, may_end = threading.RLock(), threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            may_end.wait(20.0)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(20.0)
    try:
        acquire_from_user(lock)
    finally:
        may_end.set()
        holder.join()


def wait_for_a_socket():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wait_ready(ours, select.POLLIN, 20.0)


@pytest.mark.parametrize("wait", [wait_for_a_latch, wait_for_a_lock, wait_for_a_socket])
def test_a_signal_that_the_system_call_has_not_noticed_ends_the_wait(wait):
    check_unnoticed(wait)


@pytest.mark.parametrize("in_main", [True, False])
def test_a_wait_for_a_socket_ends_when_it_is_ready_or_the_time_is_over(in_main):
    ours, theirs = socket.socketpair()
    found = []

    def wait():
        found.append(wait_ready(ours, select.POLLIN, 0.001))
        theirs.send(b"x")
        found.append(wait_ready(ours, select.POLLIN, 20.0))
        theirs.close()
        found.append(wait_ready(ours, select.POLLOUT, None))

    with ours, theirs:
        if in_main:
            wait()
        else:
            thread = threading.Thread(target=wait)
            thread.start()
            thread.join()
    assert found == [False, True, True]
