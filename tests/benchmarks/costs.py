"""What ipevents costs before it does anything: import, start, memory of a link, an idle tree.

    python tests/benchmarks/costs.py [--rounds R] [--idle SECONDS] [--links N] [--children N]

Prints a table with each target met or missed. Memory and the idle tree need /proc. What an idle tree does is
counted by strace if that may be used, else by the switches of the threads of its processes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from running import HERE, call, environment, progress, table

IMPORT_MILLISECONDS = 40
START_RATIO = 1.3
LINK_KIB = 100
ONLINE_RATIO = 1.5
SETTLE_SECONDS = 12.0  # 10 s after a start it is looked at once whether the child has said online

IMPORT = """
import time
start = time.perf_counter()
import {module}
print(time.perf_counter() - start)
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--idle", type=float, default=60.0, help="seconds to watch an idle tree")
    parser.add_argument("--links", type=int, default=100, help="children more, to measure the memory of one")
    parser.add_argument("--children", type=int, default=200, help="children that come online at once")
    arguments = parser.parse_args()
    rows = []
    with environment() as env:
        for measured in (
            imports(arguments.rounds, env),
            starts(arguments.rounds, env),
            online(arguments.rounds, arguments.children, env),
            link_memory(arguments.links, env),
            idle(arguments.idle, env),
        ):
            rows += measured
    progress("")
    table(rows, ["what", "target", "measured", ""])


def verdict(is_met):
    return "met" if is_met else "missed"


def imports(rounds, env):
    modules = {"multiprocessing.connection": [], "ipevents": []}
    for turn in range(-1, 4 * rounds):  # the first one compiles
        for module, times in modules.items():
            progress(f"import {module}")
            found = call([sys.executable, "-c", IMPORT.format(module=module)], env)
            if turn >= 0:
                times.append(1000 * found)
    base, ours = map(statistics.median, modules.values())
    limit = f"at most {IMPORT_MILLISECONDS} ms more"
    return [
        ["import multiprocessing.connection", "", f"{base:.1f} ms", ""],
        ["import ipevents", limit, f"{ours - base:+.1f} ms", verdict(ours - base <= IMPORT_MILLISECONDS)],
    ]


def starts(rounds, env):
    commands = {"workloads.py": [], "baselines.py": ["bare"]}
    times = {name: [] for name in commands}
    for _ in range(rounds):
        for name, more in commands.items():
            progress(f"start {name}")
            found = call([sys.executable, HERE / name, *more, "start", 10], env)
            if found is not None:
                times[name].append(1000 / found["rate"])
    ours, base = (statistics.median(found) for found in times.values())
    ratio = ours / base
    return [
        ["bare child connected back", "", f"{base:.0f} ms", ""],
        [
            "worker() to online",
            f"at most {START_RATIO}x that",
            f"{ours:.0f} ms, {ratio:.2f}x",
            verdict(ratio <= START_RATIO),
        ],
    ]


def online(rounds, children, env):
    commands = {"baselines.py": ["bare"], "workloads.py": []}
    times = {name: [] for name in commands}
    for _ in range(rounds):
        for name, more in commands.items():
            progress(f"{children} children {name}")
            found = call([sys.executable, HERE / name, *more, "online", children], env)
            if found is not None:
                times[name].append(children / found["rate"])
    base, ours = (statistics.median(found) for found in times.values())
    return [
        [f"{children} bare children connected back", "", f"{base:.2f} s", ""],
        [
            f"{children} children online",
            f"at most {ONLINE_RATIO}x that",
            f"{ours:.2f} s, {ours / base:.2f}x",
            verdict(ours / base <= ONLINE_RATIO),
        ],
    ]


# Trees that do nothing: they say their pids and wait to be terminated.


def tree(children):
    """The parent: run as ``costs.py tree CHILDREN``."""
    import workloads

    from ipevents import ipem

    ipem.options(useSocket=False).start()
    online = []
    for count in children:
        with ipem.expecting("online", where=lambda message, count=count: heard(online, message, count)):
            for _ in range(count - len(online)):
                ipem.worker(workloads.nothing)
        time.sleep(1)  # what the starts have left to do
        print(
            json.dumps({"rss": resident(os.getpid()), "pids": [os.getpid(), *map(int, online)]}), flush=True
        )
    ipem.run()


def heard(online, message, count):
    online.append(message.from_)
    return len(online) == count


def start_tree(children, env):
    command = [sys.executable, HERE / "costs.py", "tree", *map(str, children)]
    return subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE)


def end_tree(process):
    process.terminate()
    process.communicate()


def resident(pid):
    """KiB of memory."""
    return int(re.search(r"^VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)[1])


def link_memory(links, env):
    what, limit = "memory of a link at the parent", f"at most {LINK_KIB} KiB"
    if not Path("/proc/self/status").exists():
        return [[what, limit, "no /proc here", ""]]
    progress(f"{links + 1} children")
    process = start_tree([1, 1 + links], env)
    one, many = (json.loads(process.stdout.readline())["rss"] for _ in range(2))
    end_tree(process)
    kib = (many - one) / links
    return [[what, limit, f"{kib:.1f} KiB", verdict(kib <= LINK_KIB)]]


# Wake-ups


def idle(seconds, env):
    what, limit = f"parent and child, idle for {seconds:.0f} s", "no wake-ups"
    if not Path("/proc/self/status").exists():
        return [[what, limit, "no /proc here", ""]]
    progress(f"idle for {seconds:.0f} s")
    process = start_tree([1], env)
    pids = json.loads(process.stdout.readline())["pids"]
    time.sleep(SETTLE_SECONDS)  # see there
    tracers = [trace(pid) for pid in pids]
    time.sleep(1)  # the tracer stops each thread once
    before = [switches(pid) for pid in pids]
    used = [cpu(pid) for pid in pids]
    time.sleep(seconds)  # this is what is measured
    woken = [after - first for after, first in zip(map(switches, pids), before, strict=True)]
    ticks = [after - first for after, first in zip(map(cpu, pids), used, strict=True)]
    calls = [finish(tracer) for tracer in tracers]
    end_tree(process)
    measured = f"{woken[0]} and {woken[1]} switches, {sum(ticks)} ticks of CPU"
    rows = [[what, limit, measured, verdict(not any(woken) and not any(ticks))]]
    if None not in calls:
        rows.append(["system calls meanwhile", "none", f"{calls[0]} and {calls[1]}", verdict(not any(calls))])
    return rows


def switches(pid):
    """How often its threads gave the processor up."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        total += sum(map(int, re.findall(r"ctxt_switches:\s+(\d+)", status.read_text())))
    return total


def cpu(pid):
    """Ticks of the clock that it used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def trace(pid):
    """strace on a process, counting; None where there is none."""
    if shutil.which("strace") is None:
        return None
    command = ["strace", "-f", "-qq", "-p", str(pid)]
    return subprocess.Popen(command, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(tracer):
    """How many system calls ended; None where it may not trace. Those it finds blocked are not counted."""
    if tracer is None:
        return None
    if tracer.poll() is None:
        tracer.send_signal(signal.SIGINT)
    _, err = tracer.communicate()
    if "ptrace" in err and "not permitted" in err:
        return None
    return sum(" = " in line or "resumed>" in line for line in err.splitlines())


if __name__ == "__main__":
    if sys.argv[1:2] == ["tree"]:
        tree([int(count) for count in sys.argv[2:]])
    else:
        main()
