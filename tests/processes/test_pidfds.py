from __future__ import annotations

import os
import select
import subprocess
import sys

import pytest

from ipevents._processes.pidfds import Held, open_pidfd

CEILING_SECONDS = 30.0


def test_a_pidfd_tells_the_end_of_any_process():
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        descriptor = open_pidfd(process.pid)
        assert descriptor is not None
        assert select.select([descriptor], [], [], CEILING_SECONDS)[0]
        os.close(descriptor)
    with pytest.raises(ProcessLookupError):
        open_pidfd(process.pid)


def test_where_the_system_has_none_that_is_told_by_none(monkeypatch):
    monkeypatch.delattr(os, "pidfd_open")
    assert open_pidfd(os.getpid()) is None


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
