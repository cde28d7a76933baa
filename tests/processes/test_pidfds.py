from __future__ import annotations

import contextlib
import errno
import os
import select
import subprocess
import sys

import pytest
from interrupting import Interruption

from ipevents._processes.pidfds import Gone, Held, open_pidfd

CEILING_SECONDS = 30.0


def test_a_pidfd_tells_the_end_of_any_process():
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        held = open_pidfd(process.pid)
        assert held is not None
        assert select.select([held.number], [], [], CEILING_SECONDS)[0]
        held.close()
    with pytest.raises(Gone):
        open_pidfd(process.pid)


def test_where_the_system_has_none_that_is_told_by_none(monkeypatch):
    monkeypatch.delattr(os, "pidfd_open")
    assert open_pidfd(os.getpid()) is None


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_where_a_sandbox_refuses_them_there_are_none(monkeypatch, number):
    def refuse(pid: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pidfd_open", refuse)
    assert open_pidfd(os.getpid()) is None


class OfTheUser(ProcessLookupError):
    """As of an ``os.kill`` in a handler of SIGCHLD."""


def test_a_handler_that_raises_loses_no_descriptor_and_its_exception_is_passed_on():
    def raise_it() -> None:
        raise OfTheUser

    before = os.listdir("/proc/self/fd")
    place, where = 1, "somewhere"
    while where:
        interruption = Interruption(place, raise_it, after_python_calls=False)
        with contextlib.suppress(OfTheUser):
            assert not interruption.run(lambda: open_pidfd(os.getpid())), interruption.where
        where = interruption.where
        assert os.listdir("/proc/self/fd") == before, where
        place += 1
    assert place > 3


def test_what_is_held_is_closed_once_and_with_the_object():
    reader, writer = os.pipe()
    held = Held(writer)
    held.close()
    held.close()
    assert os.read(reader, 1) == b""
    number = os.dup(reader)
    held = Held(number)
    assert held.number == number
    del held
    with pytest.raises(OSError):
        os.fstat(number)
    os.close(reader)
