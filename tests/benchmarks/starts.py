"""How fast children start: ``starts.py [--children N] [--rounds N] [--only SYSTEM ...] [--plot FILE.svg]``

Each system runs in an interpreter of its own, in turn, several rounds; the medians are shown, and in brackets
their ratios to the bare spawned process. A child of ours has a listener and counts when it is online. A bare
one is a ``multiprocessing.Process``, and counts when it has connected back to its parent and said its pid; a
pool's worker does that in its first task. loky is left out where it is not installed.

- first: the first child of the program, with the start of a fork server where there is one
- one: a further one, by itself
- again: from the KILL of a child to the ``online`` of the next one, with ``delayRestart=0``; only ours start
  again what has died, so the ratio is to "one" of the bare process
- at once: N children at the same time
- MB a child: PSS of one of those N (a page that k processes share counts as 1/k)
- MB in all: PSS of those N and of what they need besides, such as a fork server; not of the program itself

Options:

- ``--children``: N, 40 by default; 200 work as well (the limit of descriptors is raised for that)
- ``--rounds``: of all systems, 5 by default
- ``--only``: these systems; no ratios if the bare spawned process is not among them
- ``--plot``: a bar chart of the medians, too
"""

from __future__ import annotations

# Only what children need: they import this file, and all else is imported late.
import os
import sys
import time

SINGLES = 5
BASE = "bare, spawn"
COLUMNS = ("first", "one", "again", "all", "child", "total")
BACKLOG = 1024  # connections that wait; the system may allow less, then the others wait to connect


def listens():
    """What a child of ours does."""
    from ipevents import ipem

    @ipem.on("work")
    def work(message):
        pass

    ipem.start()


def connects(address):
    """What any other child does."""
    from multiprocessing.connection import Client

    with Client(address) as connection:
        connection.send(os.getpid())
        connection.recv()


class Ours:
    """Children of an emitter."""

    def __init__(self, method):
        import queue

        from ipevents import Emitter

        self.emitter = Emitter().options(useSocket=False, startMethod=method, restart=True, delayRestart=0)
        self.emitter.start()
        self.arrived = queue.SimpleQueue()
        self.emitter.on("online", self.online)

    def online(self, message):
        if message.from_ != self.emitter.pid:
            self.arrived.put(int(message.from_))

    def start(self, count):
        for _ in range(count):
            self.emitter.worker(listens)
        return [self.arrived.get() for _ in range(count)]

    def again(self, pid):
        import signal

        os.kill(pid, signal.SIGKILL)
        return self.arrived.get()

    def end(self):
        self.emitter.stop()


class Callers:
    """Children that connect back, and stay until they are told to end."""

    def __init__(self):
        from multiprocessing.connection import Listener

        self.listener = Listener(family="AF_UNIX", backlog=BACKLOG)
        self.connections = []

    def start(self, count):
        self.launch(count)
        return [self.accept() for _ in range(count)]

    def accept(self):
        self.connections.append(self.listener.accept())
        return self.connections[-1].recv()

    def end(self):
        for connection in self.connections:
            connection.send(None)


class Bare(Callers):
    """Processes of multiprocessing."""

    def __init__(self, method):
        from multiprocessing import get_context

        super().__init__()
        self.context = get_context(method)

    def launch(self, count):
        for _ in range(count):
            self.context.Process(target=connects, args=(self.listener.address,)).start()


class Pool(Callers):
    """Workers of a pool, as many as tasks; each call of ``start`` makes another pool."""

    def __init__(self, make):
        super().__init__()
        self.make = make
        self.pools = []

    def launch(self, count):
        self.pools.append(self.make(count))
        for _ in range(count):
            self.pools[-1].submit(connects, self.listener.address)

    def end(self):
        super().end()
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
    "bare, spawn": lambda: Bare("spawn"),
    "bare, forkserver": lambda: Bare("forkserver"),
    "ipevents, spawn": lambda: Ours("spawn"),
    "ipevents, forkserver": lambda: Ours("forkserver"),
    "ProcessPoolExecutor, spawn": lambda: executor("spawn"),
    "ProcessPoolExecutor, forkserver": lambda: executor("forkserver"),
    "loky": loky,
}


def measure(name, children):
    """Return the figures of one system, measured in this process; only the first one for no children."""
    from measuring import allow_descriptors, below, median

    allow_descriptors(256 + 16 * children)
    system = SYSTEMS[name]()
    first, earlier = timed(system.start, 1)
    found = {"first": first}
    if children:
        singles = [timed(system.start, 1) for _ in range(SINGLES)]
        found["one"] = median(seconds for seconds, _ in singles)
        earlier += [pid for _, (pid,) in singles]
        if hasattr(system, "again"):
            agains = [timed(system.again, pid) for pid in earlier[1:]]
            found["again"] = median(seconds for seconds, _ in agains)
            earlier += [pid for _, pid in agains]
        found["all"], pids = timed(system.start, children)
        found = {column: 1000 * seconds for column, seconds in found.items()}
        found.update(memory(pids, below(os.getpid()) - set(earlier)))
    system.end()
    return found


def memory(children, processes):
    """Median of the children and sum of the processes, in MB; nothing where the system does not tell."""
    from measuring import MEGABYTE, median, pss

    sizes = {pid: size / MEGABYTE for pid in processes if (size := pss(pid))}
    return {"child": median(sizes[pid] for pid in children), "total": sum(sizes.values())} if sizes else {}


def timed(call, *args):
    begin = time.perf_counter()
    result = call(*args)
    return time.perf_counter() - begin, result


def run(names, children, rounds):
    """Return the medians of each system that did not fail."""
    from measuring import median
    from running import call, environment, progress

    runs = {name: [] for name in names}
    with environment() as env:
        for turn in range(-1, rounds):  # the first one compiles
            for name in names:
                progress(name)
                number = children if turn >= 0 else 0
                found = call([sys.executable, __file__, "--measure", name, "--children", number], env)
                if found is not None and turn >= 0:
                    runs[name].append(found)
    progress("")
    return {
        name: {column: median(one[column] for one in found) for column in COLUMNS if column in found[0]}
        for name, found in runs.items()
        if found
    }


def cell(values, base, column):
    """A value with its ratio to that of the base, where there is one."""
    from running import number

    value, least = values.get(column), base.get("one" if column == "again" else column)
    return number(value) if not value or not least else f"{number(value)} ({value / least:.2f})"


def main():
    import json

    from running import has, table

    given = arguments()
    if given.measure:
        print(json.dumps(measure(given.measure, given.children)))
        return
    names = given.only or list(SYSTEMS)
    if "loky" in names and not has("loky"):
        print("No loky: it is not installed (pip install -e '.[bench]').")
        names.remove("loky")
    medians = run(names, given.children, given.rounds)
    base = medians.get(BASE, {})
    head = ["first, ms", "one, ms", "again, ms", f"{given.children} at once, ms", "MB a child", "MB in all"]
    rows = [[name, *(cell(values, base, column) for column in COLUMNS)] for name, values in medians.items()]
    table(rows, ["", *head], left=1)
    if given.plot:
        import bars

        values = {name: [found.get(column) for column in COLUMNS] for name, found in medians.items()}
        title = "How fast children start, and their memory: less is better; each group has a scale of its own"
        bars.write(given.plot, title, head, values)


def arguments():
    import argparse

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--children", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=SYSTEMS)
    parser.add_argument("--plot", metavar="FILE.svg")
    parser.add_argument("--measure", choices=SYSTEMS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.rounds < 1 or (given.children < 1 and not given.measure):
        parser.error("there must be a child and a round")
    return given


if __name__ == "__main__":
    main()
