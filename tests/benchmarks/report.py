"""ipevents beside what else there is, on the same work: medians, ratios, and whether each target is met.

    python tests/benchmarks/report.py [--rounds R] [--scale S] [--only WORKLOAD,...] [--out FOLDER]

Each system runs each workload R times, in turn: only ratios of one run on one machine mean anything. Writes
``report.json`` and ``report.png``. Needs pyzmq and numpy for what concerns them, matplotlib for the plot.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import NamedTuple

from running import HERE, OURS, call, environment, has, number, progress, pyplot, table

# Events, and the unit of the rate.
WORKLOADS = {
    "oneway": (100_000, "events/s"),
    "pingpong": (5_000, "round trips/s"),
    "chain": (5_000, "round trips/s"),
    "fanout": (25_000, "deliveries/s"),
    "relay": (50_000, "events/s"),
    "bubble16": (20_000, "events/s"),
    "blob": (1_000, "MB/s"),
    "blob16k": (20_000, "MB/s"),
    "array": (10, "MB/s"),
    "start": (10, "starts/s"),
    "online": (200, "children/s"),
    "broadcast200": (1_000, "deliveries/s"),
    "oneway_tcp": (100_000, "events/s"),
    "oneway_unix": (100_000, "events/s"),
}
# However small the scale; else 500.
LEAST = {"array": 3, "start": 3, "online": 10, "broadcast200": 20, "blob": 50}
# Nobody else has these: in the plot they stand beside the workload that they are like.
OWN = {"chain": "pingpong", "bubble16": "oneway", "oneway_tcp": "oneway", "oneway_unix": "oneway"}
# The programs that run the others, what they need, and what they can.
COMMON = {"oneway", "pingpong", "fanout", "relay"}
LARGE = {"blob", "blob16k", "array"}
SYSTEMS = {
    "bare": ("baselines.py", None, set(WORKLOADS) - set(OWN)),
    "bare_raw": ("baselines.py", None, LARGE),
    "pyzmq": ("baselines.py", "zmq", set(WORKLOADS) - set(OWN)),
    "pyzmq_raw": ("baselines.py", "zmq", LARGE),
    "queue": ("others.py", None, COMMON),
    "execnet": ("others.py", "execnet", COMMON),
}


class Target(NamedTuple):
    """``workload`` of ours against ``other`` of ``system``: the least, or the most, ratio of the medians."""

    workload: str
    system: str
    bound: float
    other: str = ""  # the same workload
    key: str = "rate"
    most: bool = False
    inverse: bool = False  # a ratio of times, of which the rates tell

    def ratio(self, medians):
        ours = medians.get((self.workload, OURS), {}).get(self.key)
        theirs = medians.get((self.other or self.workload, self.system), {}).get(self.key)
        if not ours or not theirs:
            return None
        return theirs / ours if self.inverse else ours / theirs

    def met(self, ratio):
        return ratio <= self.bound if self.most else ratio >= self.bound

    def __str__(self):
        what = {"rate": "time" if self.inverse else "rate", "online_seconds": "time to all online"}[self.key]
        return f"{what}, {'at most' if self.most else 'at least'} {self.bound:g}x"


TARGETS = (
    Target("oneway", "bare", 4),
    Target("oneway", "pyzmq", 1.6),
    Target("fanout", "bare", 5),
    Target("fanout", "pyzmq", 1.5),
    Target("relay", "bare", 5),
    Target("relay", "pyzmq", 1.4),
    Target("pingpong", "bare", 0.5),
    Target("pingpong", "pyzmq", 1),
    Target("chain", "bare", 0.75, "pingpong"),
    Target("chain", "pyzmq", 1.5, "pingpong"),
    Target("blob", "bare", 0.9),
    Target("blob", "pyzmq", 1),
    Target("blob16k", "bare", 0.9),
    Target("blob16k", "pyzmq", 1),
    Target("array", "bare", 0.9),
    Target("array", "pyzmq", 1),
    Target("start", "bare", 1.3, most=True, inverse=True),
    Target("online", "bare", 1.5, most=True, inverse=True),
    Target("broadcast200", "bare", 1.5, key="online_seconds", most=True),  # children that listen as well
    Target("oneway_tcp", OURS, 0.75, "oneway_unix"),
)
# What the first array may cost at each end, in arrays: the sender has the object and one copy.
COPIES = {"sender": 2, "receiver": 1}
SLACK = 1.02  # buffers of the kernel's size, the allocator's pages


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of events")
    parser.add_argument("--only", help="workloads, with commas between them")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of report.json and report.png")
    arguments = parser.parse_args()
    names = list(WORKLOADS) if arguments.only is None else arguments.only.split(",")
    unknown = [name for name in names if name not in WORKLOADS]
    if unknown:
        parser.error(f"no workload {', '.join(unknown)}; there are {', '.join(WORKLOADS)}")
    compared = {target.other for target in TARGETS if target.workload in names}
    names = [name for name in WORKLOADS if name in names or name in compared]
    if "array" in names and not has("numpy"):
        print("Without array: numpy is not installed (pip install -e '.[bench]').")
        names.remove("array")

    if arguments.scale < 1:
        print("Fewer events than usual: that flatters whoever gathers them, here ipevents.")
    systems = commands()
    results = measure(names, systems, arguments.rounds, arguments.scale)
    medians = {key: middle(runs) for key, runs in results.items()}
    print_rates(results)
    verdicts = judge(results, medians, names, arguments.rounds)
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_json(arguments, results, verdicts)
    plot(arguments.out, results)


# Running


def commands():
    """For each system a function that returns the command for a workload, None if it has it not."""
    python = sys.executable
    systems = {OURS: lambda workload: [python, HERE / "workloads.py", workload]}
    for name, (program, module, can) in SYSTEMS.items():
        if module is not None and not has(module):
            print(f"Without {name}: {module} is not installed (pip install -e '.[bench]').")
            continue

        def command(workload, name=name, program=program, can=can):
            return [python, HERE / program, name, workload] if workload in can else None

        systems[name] = command
    return systems


def measure(names, systems, rounds, scale):
    """Every result, a list for each workload and system."""
    turns = [
        (workload, name, found)
        for workload in names
        for name, of in systems.items()
        if (found := of(workload)) is not None
    ]
    results = {(workload, name): [] for workload, name, _ in turns}
    with environment() as env:
        for turn in range(rounds):
            for workload, name, command in turns:
                progress(f"round {turn + 1} of {rounds}: {workload} {name}")
                count = max(LEAST.get(workload, 500), round(WORKLOADS[workload][0] * scale))
                found = call([*command, count], env)
                if found is not None and found.get("rate") is not None:
                    results[workload, name].append(found)
    progress("")
    return {key: runs for key, runs in results.items() if runs}


def middle(runs):
    """The medians of all that is a number in the results of a workload and system."""
    keys = [key for key in runs[0] if key not in ("peer", "workload", "n")]
    return {
        key: statistics.median(values)
        for key in keys
        if (values := [run[key] for run in runs if run[key] is not None])
    }


# Showing


def print_rates(results):
    rows = []
    for (workload, system), runs in results.items():
        rates = [run["rate"] for run in runs]
        ours = results.get((workload, OURS))
        ratio = (
            "" if system == OURS or not ours else f"{middle(ours)['rate'] / statistics.median(rates):.2f}x"
        )
        spread = [number(statistics.median(rates)), number(min(rates)), number(max(rates))]
        rows.append([workload, system, *spread, WORKLOADS[workload][1], ratio])
    table(rows, ["workload", "system", "median", "min", "max", "", "ipevents is"])


def judge(results, medians, names, rounds):
    """Print each target and what was reached; return them as plain dicts, ``met`` None if not measured."""
    verdicts = []
    for target in TARGETS:
        if target.workload in names:
            ratio = target.ratio(medians)
            what = f"{target} {target.system} {target.other}".strip()
            reached = ("-", None) if ratio is None else (f"{ratio:.2f}x", target.met(ratio))
            verdicts.append((target.workload, what, *reached))
    array = medians.get(("array", OURS), {})
    for end, copies in COPIES.items():
        if end in array:
            most = array[end] / array["size"]
            what = f"peak memory of the {end}, at most {copies}x the array"
            verdicts.append(("array", what, f"{most:.2f}x", most <= copies * SLACK))
    for name in names:  # a run in which an event is lost or comes twice fails
        exact = len(results.get((name, OURS), []))
        verdicts.append((name, "every event exactly once", f"{exact} of {rounds} runs", exact == rounds))
    print()
    words = {True: "met", False: "missed", None: "not measured"}
    table([[*row[:3], words[row[3]]] for row in verdicts], ["workload", "target", "reached", ""])
    return [dict(zip(("workload", "target", "reached", "met"), row, strict=True)) for row in verdicts]


def write_json(arguments, results, verdicts):
    path = arguments.out / "report.json"
    content = {
        "rounds": arguments.rounds,
        "scale": arguments.scale,
        "python": sys.version.split()[0],
        "results": [
            {"workload": workload, "system": system, "unit": WORKLOADS[workload][1], "runs": runs}
            for (workload, system), runs in results.items()
        ],
        "targets": verdicts,
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"\n{path}")


def plot(folder, results):
    plt = pyplot()
    if plt is None or not results:
        return
    from matplotlib.ticker import EngFormatter, MaxNLocator

    panels = {}
    for workload, system in results:
        panels.setdefault(OWN.get(workload, workload), []).append((workload, system))
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4.2 * columns, 3.2 * rows), squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    short = EngFormatter(sep="", places=1)
    for axis, (panel, keys) in zip(axes.flat, panels.items(), strict=False):
        ours = results.get((panel, OURS))
        ours = middle(ours)["rate"] if ours else None
        for key in keys:
            workload, system = key
            rates = [run["rate"] for run in results[key]]
            median = statistics.median(rates)
            axis.barh(
                system if workload == panel else workload,
                median,
                xerr=[[median - min(rates)], [max(rates) - median]],
                capsize=3,
                color="C0" if system == OURS else "C7",
            )
            text = short(median) + (f"  {median / ours:.2f}x" if ours and key != (panel, OURS) else "")
            axis.annotate(
                text,
                (max(rates), len(axis.patches) - 1),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
            )
        axis.invert_yaxis()
        axis.set_xlim(0, 1.6 * axis.dataLim.xmax)  # room for the texts
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.set_title(panel)
        axis.set_xlabel(WORKLOADS[panel][1])
    figure.suptitle(
        "Medians, with the least and the most of all rounds, and as multiples of ipevents; more is better"
    )
    figure.tight_layout()
    path = folder / "report.png"
    figure.savefig(path, dpi=100)
    plt.close(figure)
    print(path)


if __name__ == "__main__":
    main()
