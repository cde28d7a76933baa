"""What dies takes along all that is below it; and what is started again starts it all again."""

import os
import queue
import signal

from ipevents import ipem

onlines, offlines = queue.SimpleQueue(), queue.SimpleQueue()


def leaf():
    ipem.start()  # a child that has called it stays


def branch():
    for _ in range(2):
        ipem.worker(leaf)


@ipem.on("online")
def online(message):
    print("   " * (len(message.pids) - 1) + f"+ {message.from_}")
    onlines.put(message.from_)


@ipem.on("offline")
def offline(message, pid):
    code = "" if message.exitcode is None else f", exit code {message.exitcode}"  # of its own child only
    print(f"- {pid}{code}")
    offlines.put(pid)


with ipem.options(useSocket=False, delayRestart=100):
    child = ipem.worker(branch)
    before = {onlines.get(timeout=60) for _ in range(4)}
    os.kill(int(child.pid), signal.SIGKILL)
    assert before == {ipem.pid, *(offlines.get(timeout=60) for _ in range(3))}
    print("here again:", *[onlines.get(timeout=60) for _ in range(3)])
    ipem.removeAllListeners()  # what ends now is no accident
