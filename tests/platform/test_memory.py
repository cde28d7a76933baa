"""How much memory this process takes, as Linux says and as the other systems do."""

from __future__ import annotations

import resource

import psutil
import pytest

from ipevents._platform import memory as module
from ipevents._platform.memory import resident_bytes

MANY = 64 << 20


def test_it_is_what_the_system_says():
    found, told = resident_bytes(), psutil.Process().memory_info().rss
    assert abs(found - told) < MANY  # other threads may take some in between


@pytest.mark.parametrize(("platform", "unit"), [("darwin", 1), ("freebsd14", 1024)])
@pytest.mark.parametrize("text", [None, b"", b"1", b"1 x 3"])
def test_where_there_is_no_proc_it_is_the_most_so_far(monkeypatch, tmp_path, platform, unit, text):
    path = tmp_path / "statm"
    if text is not None:
        path.write_bytes(text)

    monkeypatch.setattr(
        module, "open", lambda name, *args, **kwargs: path.open(*args, **kwargs), raising=False
    )
    monkeypatch.setattr(module.sys, "platform", platform)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = resident_bytes()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert before * unit <= found <= after * unit
