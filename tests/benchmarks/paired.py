"""Two checkouts of ipevents against each other: ``paired.py BEFORE [AFTER] [--rounds N] [--only NAME]``.

Both run at the same time, each with a child that stays, and take turns of some hundredths of a second in an
order drawn by lot. So they share what the machine does meanwhile, and start-up does not count. Differences of
2 % show, for which whole runs of a second or more differ by too much. Pin it to one core (``taskset -c 1``)
to compare the CPU time alone.

Prints for each workload the median time of an event and the speed of AFTER relative to BEFORE.
"""

from __future__ import annotations

import argparse
import os
import queue
import random
import socket
import statistics
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
EVENTS = {"pingpong": 300, "oneway": 20_000, "oneway_tcp": 20_000}  # in one turn


def flooder():
    """Send as many events as each ``go`` asks for."""
    from ipevents import ipem

    asked = queue.SimpleQueue()
    ipem.on("go", lambda message, n: asked.put(n))
    ipem.start()
    while True:
        for i in range(asked.get()):
            ipem.sendToParents("ping", i, "12345", 1.5)


def client(options):
    """Send as many events as each ``go`` asks for, over the public socket."""
    from ipevents import Emitter

    asked = queue.SimpleQueue()
    emitter = Emitter().options(socket={**options, "onlyConnect": True})
    emitter.on("go", lambda message, n: asked.put(n))
    emitter.start()
    while True:
        for i in range(asked.get()):
            emitter.sendToParents("ping", i, "12345", 1.5)


def ponger():
    """Answer each event."""
    from ipevents import ipem

    ipem.on("ping", lambda message, *args: ipem.sendToParents("pong", *args))
    ipem.run()


def pingpong(ipem):
    """Return a function that runs n events there and back."""
    answers = queue.SimpleQueue()
    ipem.on("pong", lambda message, *args: answers.put(args))
    child = ipem.worker(ponger)

    def run(n):
        for i in range(n):
            child.send("ping", i, "12345", 1.5)
            assert answers.get()[0] == i

    return run


def oneway(ipem):
    """Return a function that runs n events to the parent."""
    child = ipem.worker(flooder)
    return counting(ipem, lambda n: child.send("go", n))


def oneway_tcp(ipem):
    """Return a function that runs n events from a client to its server."""
    from ipevents import Emitter

    with socket.create_server(("localhost", 0)) as free:
        options = {"port": free.getsockname()[1], "authkey": os.urandom(32)}
    server = Emitter().options(socket=options).start()
    ipem.on("stopping", lambda message: server.stop())  # else it keeps this process
    with server.expecting("online", where=lambda message: message.from_ != server.pid):
        ipem.worker(client, (options,))
    return counting(server, lambda n: server.sendToChilds("go", n))


def counting(emitter, ask):
    """Return a function that asks for n events and waits until they have come."""
    done, counted = threading.Event(), [0, 0]

    @emitter.on("ping")
    def ping(message, *args):
        counted[0] += 1
        if counted[0] == counted[1]:
            done.set()

    def run(n):
        counted[:] = 0, n
        done.clear()
        ask(n)
        done.wait()

    return run


def serve(workload):
    """Run a turn for each number of events that comes in by stdin, and print its seconds."""
    from ipevents import ipem

    ipem.options(useSocket=False).start()
    run = globals()[workload](ipem)
    for line in sys.stdin:
        begin = time.perf_counter()
        run(int(line))
        print(time.perf_counter() - begin, flush=True)
    ipem.stop()


def compare(workload, checkouts, rounds):
    """Print what the turns of a workload took in both checkouts."""
    n = EVENTS[workload]
    runs = [
        subprocess.Popen(
            [sys.executable, __file__, "--serve", workload],
            env={**os.environ, "PYTHONPATH": checkout},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for checkout in checkouts
    ]
    times = [[], []]
    for number in range(rounds + 1):
        for which in random.sample((0, 1), 2):
            runs[which].stdin.write(f"{n}\n")
            runs[which].stdin.flush()
            seconds = float(runs[which].stdout.readline())
            if number:  # the first turn starts everything
                times[which].append(seconds / n)
    for run in runs:
        run.communicate()
    ratio = statistics.median(before / after for before, after in zip(*times, strict=True))
    before, after = (statistics.median(each) * 1e6 for each in times)
    print(f"{workload:10} before {before:8.2f} us, after {after:8.2f} us an event; speed x {ratio:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkouts", nargs="*", metavar="CHECKOUT", help="BEFORE, and AFTER if not this one")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--only", choices=EVENTS)
    parser.add_argument("--serve", choices=EVENTS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve)
    elif not 1 <= len(given.checkouts) <= 2:
        parser.error("one or two checkouts are wanted: BEFORE, and AFTER if that is not this one")
    else:
        both = [*given.checkouts, os.path.dirname(os.path.dirname(HERE))][:2]
        for name in [given.only] if given.only else EVENTS:
            compare(name, both, given.rounds)
