"""Children that crash: who is told what, when they are started again, and when not any more."""

import os
import signal
import sys
import time

from ipevents import GaveUp, StartFailed, ipem


def obedient():
    """A child that stays, because it listens, and ends in the way that it is told."""

    @ipem.on("exit")
    def leave(message, code):
        sys.exit(code)

    @ipem.on("crash")
    def crash(message):
        os.kill(os.getpid(), signal.SIGKILL)


def hopeless():
    """A child that ends before it is online."""
    sys.exit(5)


def say(text):
    print(text.replace(ipem.pid, "this process"))


@ipem.on("online")
def online(message):
    if message.from_ != ipem.pid:
        say(f"   online: {message.from_}")


@ipem.on("offline")
def offline(message, pid):
    say(f"   offline: {pid}, exit code {message.exitcode}, noticed by {message.from_}")


@ipem.on("error")
def error(message, exc):
    if isinstance(exc, StartFailed):
        say(f"   error: StartFailed, exit code {exc.exitcode}")
    else:
        say(f"   error: {type(exc).__name__}, {exc}")


with ipem.options(useSocket=False, delayRestart=300, maxRestarts=3):
    say("1. A child is killed, and started again after delayRestart:")
    with ipem.expecting("online", timeout=60):
        child = ipem.worker(obedient)
    first = child.pid
    sent = time.monotonic()
    with ipem.expecting("online", timeout=60):
        child.send("crash")
    assert time.monotonic() - sent > 0.3
    say(f"   the same Child, another process: {first} is now {child.pid}, restarts {child.restarts}")
    with ipem.expecting("offline", timeout=60):
        child.stop()  # a wanted end: no restart

    say('2. restart="on-failure": exit code 1 is a failure, 0 is an end:')
    with ipem.expecting("online", timeout=60):
        child = ipem.worker(obedient, restart="on-failure", delayRestart=100)
    with ipem.expecting("online", timeout=60):
        child.send("exit", 1)
    with ipem.expecting("offline", timeout=60):
        child.send("exit", 0)
    child.join(60)
    say(f"   ended for good with exit code {child.exitcode}, restarts {child.restarts}")

    say("3. A child that ends before it is online, with maxRestarts=3:")
    with ipem.expecting("error", timeout=60, where=lambda message, exc: isinstance(exc, GaveUp)):
        child = ipem.worker(hopeless, delayRestart=100)
    child.join(60)
    say(f"   ended for good with exit code {child.exitcode}, restarts {child.restarts}")
