"""What the benchmark programs share: events, memory, the form of a result. Imports little: children do it."""

from __future__ import annotations

import json
import os
import sys
import time

MEGABYTE = 10**6
BLOB = 1 << 20
BLOB_16K = 1 << 14
FRAMES = 2 << 20  # bytes; more than gather in a frame of ours
ARRAY = 80 * MEGABYTE
WARM_ASKS = 200
FLOODS = 5
MAPS = 3


class Meter:
    """Counts handled events; the rate is that of n - 1 events from the first to the last."""

    def __init__(self, n, on_last=lambda: None):
        self.n, self.count, self.first, self.last = n, 0, 0.0, 0.0
        self.on_last = on_last

    def __call__(self, message, *args):
        count = self.count = self.count + 1
        if count == 1:
            self.first = time.perf_counter()
        if count == self.n:
            self.last = time.perf_counter()
            self.on_last()

    def rate(self):
        assert self.count == self.n, (self.count, self.n)
        return (self.n - 1) / (self.last - self.first)


def median(values):
    """As ``statistics.median``, whose import a starting child would pay for."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def make_blobs(size):
    """As many as it takes that none comes twice in a frame, where the second costs a few bytes only."""
    return [os.urandom(size) for _ in range(FRAMES // size + 2)]


def make_array(size):
    import numpy as np

    return np.arange(size // 8, dtype=np.float64)


def check_array(array, size):
    """It has arrived whole, and it is writable."""
    assert array.nbytes == size
    assert array[-1] == size // 8 - 1
    array[0] = -1.0


# Requests, which are to be answered with the square of their number. Start-up does not count.


def asks(n, ask):
    """The workload ``ask``: one request at a time. ``ask(i)`` returns the answer. Requests per second."""
    for i in range(WARM_ASKS):
        assert ask(i) == i * i
    start = time.perf_counter()
    for i in range(n):
        assert ask(i) == i * i
    return n / (time.perf_counter() - start)


def floods(n, submit, result=lambda pending: pending.result()):
    """The workload ``askflood``: n requests, and then all their answers. Requests per second.

    ``submit(i)`` returns what ``result`` waits for and takes the answer from. It is the median of several
    floods by one process, after a first one that is not counted.
    """
    times = []
    for _ in range(1 + FLOODS):
        start = time.perf_counter()
        pending = [submit(i) for i in range(n)]
        for i, each in enumerate(pending):
            assert result(each) == i * i
        times.append(time.perf_counter() - start)
    return n / median(times[1:])


# Jobs, each of which is to return its number and one more. Start-up does not count, unless it is measured.


def maps(n, run, order=lambda found: found):
    """n jobs in one ``run()``, which returns the list of their results. Jobs per second.

    It is the median of several maps by one process, after a first one that is not counted. ``order`` brings
    results into order that have none, outside of the time.
    """
    times = []
    for _ in range(1 + MAPS):
        start = time.perf_counter()
        found = run()
        times.append(time.perf_counter() - start)
        assert order(found) == list(range(1, n + 1))
    return n / median(times[1:])


def took(seconds):
    """The result of a workload of which the time is told, and not the rate."""
    return {"rate": 1 / seconds, "seconds": round(seconds, 4)}


# Memory of this process, in bytes.


def memory():
    """What it has now; the peak begins anew."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:  # without it the peak is that of the whole life
        pass
    return _status("VmRSS")


def peak(before):
    """How much more it had at most since ``before`` was measured; None where the system does not tell."""
    most = _status("VmHWM")
    return None if most is None or before is None else most - before


def _status(name):
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name + ":"))
    except (OSError, StopIteration):
        return None


# Of other processes.


def pss(pid):
    """Memory of a process, in which a page that k of them share counts as 1/k; None where nobody tells."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return None


def below(root):
    """The pids of all processes below a process."""
    parents = dict(_parents())
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {root}


def _parents():
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        try:
            with open(f"/proc/{int(name)}/stat") as file:
                yield int(name), int(file.read().rpartition(")")[2].split()[1])
        except (OSError, ValueError):  # it has ended, or is no process
            continue


def allow_descriptors(count):
    """Raise the limit of open descriptors, which is 1024 or less in many places, as far as it may be."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


# Programs: [SYSTEM] WORKLOAD N [NAME=VALUE ...]


def run(peer, workloads, arguments):
    """Run what the arguments say and print it as one JSON line."""
    name, n, *more = arguments
    if name not in workloads:
        sys.exit(f"{peer} has no workload {name!r}, only {', '.join(workloads)}")
    further = {key: int(value) for key, value in (pair.split("=") for pair in more)}
    found = workloads[name](int(n), **further)
    result = found if isinstance(found, dict) else {"rate": found}
    result["rate"] = round(result["rate"], 1)
    print(json.dumps({"peer": peer, "workload": name, "n": int(n), **result}), flush=True)
