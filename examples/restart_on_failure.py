"""restart="on-failure": exit code 0 is an end, any other one a failure, and the child is started again."""

import sys

from ipevents import ipem


def obedient():
    @ipem.on("exit")
    def leave(message, code):
        sys.exit(code)  # out of a listener it ends the process


@ipem.on("offline")
def offline(message, pid):
    print(f"offline: {pid}, exit code {message.exitcode}")


with ipem.options(useSocket=False):
    with ipem.expecting("online", timeout=60):
        child = ipem.worker(obedient, restart="on-failure", delayRestart=100)
    with ipem.expecting("online", timeout=60):  # of the next process
        child.send("exit", 1)
    with ipem.expecting("offline", timeout=60):
        child.send("exit", 0)
    child.join(60)
    print(f"ended for good with exit code {child.exitcode}, restarts {child.restarts}")
