from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from ipevents._core.wire import FRAME_BYTES

# What a reader thread does with a frame: some buffers of its size are filled and freed again.
FRAMES = f"""
import resource, threading
from ipevents import ipem

def read(frames):
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for _ in range(frames):
        buffers = [bytearray(b"x") * {FRAME_BYTES} for _ in range(3)]
        del buffers
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before

def run():
    read(3)
    print(read(20))

if {{told}}:
    ipem.options(useSocket=False).start()
thread = threading.Thread(target=run)
thread.start()
thread.join()
ipem.stop()
"""


def faults(told: bool) -> int:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", FRAMES.format(told=told)]
    return int(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that is told something")
def test_freed_memory_is_kept_for_the_next_frame():
    by_default, kept = faults(told=False), faults(told=True)
    assert kept * 10 < by_default, (kept, by_default)
