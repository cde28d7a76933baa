"""A child that cannot start: it dies before it is online, and is given up after maxRestarts such deaths."""

import sys

from ipevents import GaveUp, StartFailed, ipem


def hopeless():
    sys.exit(5)


@ipem.on("error")
def error(message, exc):
    if isinstance(exc, StartFailed):
        print(f"StartFailed: {exc.name} ended with exit code {exc.exitcode}")
    else:
        print(f"{type(exc).__name__}: {exc}")


with ipem.options(useSocket=False, maxRestarts=3):
    with ipem.expecting("error", timeout=60, where=lambda message, exc: isinstance(exc, GaveUp)):
        child = ipem.worker(hopeless, delayRestart=100)
    child.join(60)
    print(f"ended for good with exit code {child.exitcode}, restarts {child.restarts}")
