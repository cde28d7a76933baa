from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from ipevents._processes.pidfds import open_pidfd
from ipevents._processes.sentinels import Sentinels

CEILING_SECONDS = 20.0


@pytest.fixture
def watch():
    watch = Sentinels()
    yield watch
    watch.close()


class Watched:
    """A child as far as a Sentinels looks at it; it ends when its input does."""

    def __init__(self) -> None:
        self.popen = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        self.process = self
        held = open_pidfd(self.popen.pid)
        assert held is not None
        self.held = held

    def fileno(self) -> int:
        return self.held.number

    def end(self) -> None:
        self.popen.kill()


@pytest.fixture
def children():
    found = [Watched(), Watched()]
    yield found
    for child in found:
        child.end()
        child.popen.communicate()
        child.held.close()


def test_the_end_of_a_child_is_told_once(watch, children):
    one, other = children
    one.end()
    assert watch.wait([one, other], CEILING_SECONDS) == ([one], False, [])
    assert watch.wait([other], 0.0) == ([], False, [])


def test_the_end_of_the_parent_is_told_once(watch, children):
    one, other = children
    assert watch.add_parent(one.popen.pid)
    assert not watch.parent_is_gone(0.0)
    one.end()
    assert watch.wait([other], CEILING_SECONDS) == ([], True, [])
    assert watch.wait([other], 0.0) == ([], False, [])
    assert watch.parent_is_gone(0.0)


def test_a_ring_ends_the_wait_from_any_thread(watch):
    ringer = threading.Thread(target=watch.ring)
    ringer.start()
    assert watch.wait([], None) == ([], False, [])
    ringer.join()


@pytest.mark.parametrize(
    "seconds", [0.0, -1.0, 5e-324, (2**31 - 1) / 1000, 2.0**31, 1e300, float("inf"), None]
)
def test_any_number_of_seconds_can_be_waited_for(watch, seconds):
    watch.ring()
    assert watch.wait([], seconds) == ([], False, [])


def test_without_a_parent_none_is_gone(watch):
    assert not watch.parent_is_gone(0.0)


def test_a_fork_after_the_close_closes_no_descriptor_that_is_another_files_by_then():
    watch = Sentinels()
    assert watch.add_parent(os.getppid())
    number = watch._parent.number
    watch.close()
    others = [os.open(os.devnull, os.O_RDONLY) for _ in range(5)]
    assert number in others  # the system gives the lowest number that is free
    watch.abandon()
    for descriptor in others:
        os.close(descriptor)
