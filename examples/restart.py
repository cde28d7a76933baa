"""A child that is killed is started again, and is the same Child; one that is stopped is not."""

import os
import signal
import time

from ipevents import ipem


def stay():
    """A child stays because it listens to something."""

    @ipem.on("crash")
    def crash(message):
        os.kill(os.getpid(), signal.SIGKILL)


@ipem.on("online")
def online(message):
    if message.from_ != ipem.pid:
        print(f"online: {message.from_}")


@ipem.on("offline")
def offline(message, pid):
    print(f"offline: {pid}, exit code {message.exitcode}")


with ipem.options(useSocket=False, delayRestart=300):
    with ipem.expecting("online", timeout=60):
        child = ipem.worker(stay)
    first = child.pid
    sent = time.monotonic()
    with ipem.expecting("online", timeout=60):
        child.send("crash")
    assert time.monotonic() - sent > 0.3
    print(f"the same Child, another process: {first} is now {child.pid}, restarts {child.restarts}")
    with ipem.expecting("offline", timeout=60):
        child.stop()  # a wanted end: no restart
    print(f"ended for good: {child.join(60)}")
