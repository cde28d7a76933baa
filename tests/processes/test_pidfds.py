from __future__ import annotations

import os
import select
import subprocess
import sys

import pytest

from ipevents._processes.pidfds import open_pidfd

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
