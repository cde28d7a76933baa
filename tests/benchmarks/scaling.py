"""What happens to the rate as work grows: listeners, event names, children, payload, depth.

    python tests/benchmarks/scaling.py [--rounds R] [--scale S] [--only SERIES,...] [--out FOLDER]

Each point is a program of its own, ``scaling.py point N [NAME=VALUE ...]``; they take turns.
Prints a table and writes ``scaling.json`` and a ``scaling_SERIES.png`` each.

The cost of an event is the time for one, here as a multiple of that at the first point. "Growth" and "step"
are how much more it is than at the first point and at the one before, divided by how much more there is of
what grows: 1 is linear, and what is no more than that is as it should be.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import NamedTuple

from running import call, environment, number, progress, pyplot, table

HERE = Path(__file__).resolve().parent
SLACK = 1.1  # worse than linear is what grows more than that
NAMES_BOUND = 0.9  # the rate with many names against that with one


class Series(NamedTuple):
    """``name`` takes the values; ``count`` events are sent at the first one, and ``least`` at least."""

    name: str
    values: tuple[int, ...]
    count: int
    title: str


SERIES = (
    Series("listeners", (1, 10, 100), 50_000, "listeners of the event"),
    Series("names", (1, 10, 100, 1_000), 50_000, "event names that are listened to, one is sent"),
    Series("sent_names", (1, 10, 100, 1_000), 50_000, "event names that are sent in turn"),
    Series("children", (1, 10, 100), 50_000, "children that send at once"),
    Series("size", tuple(16 << shift for shift in range(0, 21, 4)), 50_000, "bytes of payload"),
    Series("depth", (1, 2, 4, 8, 16), 50_000, "levels up to the top"),
)
MOST_BYTES = 1 << 30  # of all payloads of a point
FEWEST = 50


# The program of one point. Children import this module, so what only the parent needs is imported late.


def flood(n, name_count, size):
    import measuring

    from ipevents import ipem

    payloads = [(blob,) for blob in measuring.make_blobs(size)] if size else [("12345", 1.5)]
    names = [f"ping{i}" for i in range(name_count)]
    with ipem.expecting("go"):
        pass
    with ipem.expecting("end"):
        for i in range(n):
            ipem.sendToParents(names[i % name_count], i, *payloads[i % len(payloads)])


def point(n, listeners=1, names=1, sent_names=1, children=1, size=0, depth=1):
    """Events that arrive at the top, per second; ``n`` of them, from all children together."""
    import measuring
    import workloads

    from ipevents import ipem

    share = n // children
    meter = measuring.Meter(share * children, lambda: ipem.emit("metered"))
    for i in range(max(names, sent_names)):
        ipem.on(f"ping{i}", meter)
    others = [0]

    def other(message, *args):
        others[0] += 1

    for _ in range(listeners - 1):
        ipem.on("ping0", other)
    leaves = []

    def is_last(message):
        if len(message.pids) == depth + 1:
            leaves.append(message)
        return len(leaves) == children

    with ipem.expecting("online", where=is_last):
        for _ in range(children):
            ipem.worker(workloads.level, (depth - 1, flood, (share, sent_names, size)))
    with ipem.expecting("metered"):
        ipem.sendToChilds("go")
    for leaf in leaves:
        leaf.reply("end")
    ipem.stop()
    assert others[0] == meter.n * (listeners - 1), others
    return meter.rate()


# Running all of them


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of events")
    parser.add_argument("--only", help=f"of {', '.join(series.name for series in SERIES)}, with commas")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of the JSON and the plots")
    arguments = parser.parse_args()
    known = [series.name for series in SERIES]
    wanted = known if arguments.only is None else arguments.only.split(",")
    unknown = [name for name in wanted if name not in known]
    if unknown:
        parser.error(f"no series {', '.join(unknown)}; there are {', '.join(known)}")
    chosen = [series for series in SERIES if series.name in wanted]
    arguments.out.mkdir(parents=True, exist_ok=True)
    found = {series.name: measure(series, arguments.rounds, arguments.scale) for series in chosen}
    path = arguments.out / "scaling.json"
    path.write_text(json.dumps({"rounds": arguments.rounds, "rates": found}, indent=1) + "\n")
    table([row for series in chosen for row in judged(series, found[series.name])], HEAD)
    print(f"\n{path}")
    plt = pyplot()
    for series in chosen:
        if plt is not None and found[series.name]:
            plot(plt, series, found[series.name], arguments.out)


def measure(series, rounds, scale):
    """The rates of each value, as many as rounds."""
    rates = {value: [] for value in series.values}
    with environment() as env:
        for turn in range(rounds):
            for value in series.values:
                progress(f"{series.name} {value}, round {turn + 1} of {rounds}")
                count = events(series, value, scale)
                command = [sys.executable, HERE / "scaling.py", "point", count, f"{series.name}={value}"]
                result = call(command, env)
                if result is not None:
                    rates[value].append(result["rate"])
    progress("")
    return {value: found for value, found in rates.items() if found}


def events(series, value, scale):
    count = series.count * scale
    if series.name == "size":
        count = min(count, MOST_BYTES * scale / value)
    return max(FEWEST, 10 * value if series.name == "children" else 0, round(count))


HEAD = ["series", "value", "median/s", "min/s", "max/s", "cost", "growth", "step", ""]


def judged(series, rates):
    """The rows of the table of one series."""
    rows = []
    first = before = None
    for value, found in rates.items():
        median = statistics.median(found)
        first = first or (value, median)
        before = before or first
        cost = first[1] / median
        growth = cost / (value / first[0])
        step = (before[1] / median) / (value / before[0])
        before = (value, median)
        if value == first[0]:
            verdict = ""
        elif series.name.endswith("names"):
            verdict = ("within" if 1 / cost >= NAMES_BOUND else "not within") + " 10 % of one"
        else:
            verdict = "linear or better" if max(growth, step) <= SLACK else "worse than linear"
        spread = [number(median), number(min(found)), number(max(found))]
        rows.append([series.name, value, *spread, f"{cost:.2f}x", f"{growth:.2f}", f"{step:.2f}", verdict])
    return rows


def plot(plt, series, rates, folder):
    from matplotlib.ticker import EngFormatter, NullFormatter, NullLocator

    figure, axis = plt.subplots(figsize=(6.4, 4.4))
    values = list(rates)
    medians = [statistics.median(found) for found in rates.values()]
    low = [median - min(found) for median, found in zip(medians, rates.values(), strict=True)]
    tops = [max(found) for found in rates.values()]
    high = [top - median for median, top in zip(medians, tops, strict=True)]
    axis.errorbar(values, medians, yerr=[low, high], marker="o", capsize=3, label="median, least and most")
    axis.set_xscale("log")
    if series.name.endswith("names"):
        bound = [NAMES_BOUND * medians[0]] * len(values)
        axis.plot(values, bound, "--", color="gray", label="10 % less than with one")
        axis.set_ylim(0, 1.15 * max(tops))  # room for the texts
    else:
        linear = [medians[0] * values[0] / value for value in values]
        axis.plot(values, linear, "--", color="gray", label="if the cost grew linearly")
        axis.set_yscale("log")
        axis.set_ylim(top=3 * max(tops))
    short = EngFormatter(sep="", places=1)
    for value, median, top in zip(values, medians, tops, strict=True):
        axis.annotate(short(median), (value, top), xytext=(0, 6), textcoords="offset points", ha="center")
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xticks(values, [spelled(value) if series.name == "size" else f"{value:,}" for value in values])
    axis.yaxis.set_major_formatter(EngFormatter(sep=""))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.margins(x=0.08)
    axis.set_xlabel(series.title)
    axis.set_ylabel("events/s, all senders together")
    axis.set_title(f"One way to the top: {series.name.replace('_', ' ')}")
    axis.legend(loc="lower left")
    figure.tight_layout()
    path = folder / f"scaling_{series.name}.png"
    figure.savefig(path, dpi=100)
    plt.close(figure)
    print(path)


def spelled(size):
    for unit in ("B", "KiB"):
        if size < 1024:
            return f"{size} {unit}"
        size //= 1024
    return f"{size} MiB"


if __name__ == "__main__":
    if sys.argv[1:2] == ["point"]:
        import measuring
        import scaling  # as a module's, its functions travel to the children by name

        from ipevents import ipem

        ipem.options(useSocket=False).start()
        measuring.run("ipevents", {"point": scaling.point}, sys.argv[1:])
    else:
        main()
