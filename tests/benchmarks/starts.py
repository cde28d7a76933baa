"""How fast children start: ``starts.py [--children N] [--rounds N] [--only SYSTEM ...]``; a table.

Each system runs in an interpreter of its own, in turn, several rounds; the medians are shown. A child of ours
has a listener and counts when it is online. A bare one is a ``multiprocessing.Process`` that connects back to
a listener of its parent; a pool's worker counts when it has returned the result of its first task.

- first: the first child of the program, with the start of a fork server where there is one
- one: a further one, by itself
- all: N children at once
- memory: PSS of a child of those, in MB (with what all of them need besides, such as a fork server)
"""

from __future__ import annotations

# Only what children need: they import this file, and all else is imported late.
import os
import sys
import time

SINGLES = 5
COLUMNS = ("first", "one", "all", "memory")


def listens():
    """What a child of ours does."""
    from ipevents import ipem

    ipem.on("work", print)
    ipem.start()


def connects(address):
    """What a bare child does."""
    from multiprocessing.connection import Client

    connection = Client(address)
    connection.send(os.getpid())
    connection.recv()


def task(i):
    """What a worker of a pool does."""
    time.sleep(0.001)  # or one of them would do all of it
    return os.getpid()


class Ours:
    """Children of an emitter."""

    def __init__(self, method):
        import threading

        from ipevents import Emitter

        self.emitter = Emitter().options(useSocket=False, startMethod=method, restart=False).start()
        self.arrived = threading.Semaphore(0)
        self.emitter.on("online", self.online)

    def online(self, message):
        if message.from_ != self.emitter.pid:
            self.arrived.release()

    def start(self, count):
        for _ in range(count):
            self.emitter.worker(listens)
        for _ in range(count):
            self.arrived.acquire()

    def end(self):
        self.emitter.stop()


class Bare:
    """Processes of multiprocessing."""

    def __init__(self, method):
        from multiprocessing import get_context
        from multiprocessing.connection import Listener

        self.context = get_context(method)
        self.listener = Listener(family="AF_UNIX", backlog=256)
        self.connections = []

    def start(self, count):
        for _ in range(count):
            self.context.Process(target=connects, args=(self.listener.address,)).start()
        for _ in range(count):
            self.connections.append(self.listener.accept())
            self.connections[-1].recv()

    def end(self):
        for connection in self.connections:
            connection.send(None)


class Pool:
    """Workers of a pool; each call of ``start`` makes another pool."""

    def __init__(self, make):
        self.make = make
        self.pools = []

    def start(self, count):
        self.pools.append(self.make(count))
        found = set()
        while len(found) < count:
            found.update(self.pools[-1].map(task, range(2 * count)))

    def end(self):
        for pool in self.pools:
            pool.shutdown()


def executor(method):
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    return Pool(lambda count: ProcessPoolExecutor(count, get_context(method)))


def loky():
    from loky import ProcessPoolExecutor as LokyExecutor

    return Pool(LokyExecutor)


SYSTEMS = {
    "ipevents": lambda: Ours("forkserver"),
    "ipevents, spawn": lambda: Ours("spawn"),
    "bare, spawn": lambda: Bare("spawn"),
    "bare, forkserver": lambda: Bare("forkserver"),
    "pool, spawn": lambda: executor("spawn"),
    "pool, forkserver": lambda: executor("forkserver"),
    "loky": loky,
}


def timed(call, *args):
    begin = time.perf_counter()
    call(*args)
    return time.perf_counter() - begin


def pss():
    """The memory of all processes below this one, in bytes; shared pages are counted once in all."""
    import psutil

    return sum(child.memory_full_info().pss for child in psutil.Process().children(recursive=True))


def measure(name, children):
    """Print the figures of one system, measured in this process."""
    import json
    import statistics

    system = SYSTEMS[name]()
    first = timed(system.start, 1)
    one = statistics.median(timed(system.start, 1) for _ in range(SINGLES))
    many = timed(system.start, children)
    memory = pss() / (children + SINGLES + 1)
    system.end()
    print(json.dumps({"first": first, "one": one, "all": many, "memory": memory / 1e6}))


def main():
    import argparse
    import json
    import statistics
    import subprocess

    from running import has, number, table

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--children", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=SYSTEMS)
    parser.add_argument("--measure", choices=SYSTEMS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        measure(given.measure, given.children)
        return
    names = given.only or [name for name in SYSTEMS if name != "loky" or has("loky")]
    results = {name: [] for name in names}
    for _ in range(given.rounds):
        for name in names:
            command = [sys.executable, __file__, "--children", str(given.children), "--measure", name]
            results[name].append(json.loads(subprocess.check_output(command)))
    medians = {
        name: [statistics.median(run[column] for run in runs) for column in COLUMNS]
        for name, runs in results.items()
    }
    base = medians.get("bare, spawn", medians[names[0]])
    rows = []
    for name, values in medians.items():
        shown = [*(1000 * seconds for seconds in values[:3]), values[3]]
        ratios = [value / least for value, least in zip(values, base, strict=True)]
        rows.append([name, *(f"{number(v)} ({r:.2f})" for v, r in zip(shown, ratios, strict=True))])
    table(rows, ["", "first, ms", "one, ms", f"{given.children} at once, ms", "MB a child"])


if __name__ == "__main__":
    main()
