"""Requests with answers, ipevents beside others: rates, ratios, and whether each target is met.

    python tests/benchmarks/asks.py [--rounds R] [--requests N] [--only SYSTEM ...]

- ``ask``: one request at a time, from the main thread to one worker; requests per second
- ``askflood``: N requests to one worker at once, then all results are awaited; requests per second

Each system runs each workload R times, in turn and every time in fresh processes. A ratio is the median of
the ratios of all rounds. Systems that are not installed are left out. The exit status is 1 if a run failed.
"""

from __future__ import annotations

import argparse
import statistics
import sys

from running import HERE, OURS, call, environment, has, number, progress, table

WORKLOADS = ("ask", "askflood")
BY_HAND = "by hand"  # a Future that a listener sets, on the public API
# What each of the others has to be installed for it.
MODULES = {"Pool": None, "ProcessPoolExecutor": None, "loky": "loky", "pyzmq": "zmq", "rpyc": "rpyc"}
SYSTEMS = (OURS, BY_HAND, *MODULES)
# The least ratio of our rate to the other's.
TARGETS = {
    ("ask", "ProcessPoolExecutor"): 2,
    ("ask", "Pool"): 1,
    ("ask", "pyzmq"): 0.6,
    ("ask", BY_HAND): 1,
    ("askflood", "ProcessPoolExecutor"): 12,
    ("askflood", "Pool"): 3,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=3_000)
    parser.add_argument("--only", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), metavar="SYSTEM")
    given = parser.parse_args()
    if given.rounds < 1 or given.requests < 1:
        parser.error("there must be a round and a request")
    rates = measure(installed(given.only), given.rounds, given.requests)
    head = ["workload", "system", "median", "min", "max", "ipevents is", "target", ""]
    table([row(rates, workload, system) for workload, system in rates], head)
    if failed := [" of ".join(key) for key, found in rates.items() if None in found]:
        sys.exit(f"No result in every round: {', '.join(failed)}")


def installed(systems):
    """Those of the systems that can run here, after saying which cannot."""
    found = []
    for system in systems:
        module = MODULES.get(system)
        if module is None or has(module):
            found.append(system)
        else:
            print(f"Without {system}: it is not installed (pip install -e '.[bench]').")
    return found


def command(workload, system):
    if system == OURS:
        return [sys.executable, HERE / "workloads.py", workload]
    if system == BY_HAND:
        return [sys.executable, HERE / "workloads.py", f"{workload}_by_hand"]
    return [sys.executable, HERE / "askers.py", system, workload]


def measure(systems, rounds, requests):
    """For each workload and system its rates, one a round; None for a round in which it failed."""
    rates = {(workload, system): [] for workload in WORKLOADS for system in systems}
    with environment() as env:
        for turn in range(rounds):
            for (workload, system), found in rates.items():
                progress(f"round {turn + 1} of {rounds}: {workload} {system}")
                result = call([*command(workload, system), requests], env)
                found.append(None if result is None else result["rate"])
    progress("")
    return rates


def row(rates, workload, system):
    found = [rate for rate in rates[workload, system] if rate is not None]
    spread = (statistics.median(found), min(found), max(found)) if found else (None, None, None)
    cells = [workload, system, *map(number, spread)]
    if system == OURS:
        return [*cells, "", "", ""]
    ratio, target = our_ratio(rates, workload, system), TARGETS.get((workload, system))
    cells.append("-" if ratio is None else f"{ratio:.2f}x")
    if target is None:
        return [*cells, "", ""]
    verdict = "not measured" if ratio is None else "met" if ratio >= target else "missed"
    return [*cells, f"at least {target:g}x", verdict]


def our_ratio(rates, workload, system):
    """The median of the ratios in the rounds that both have finished; None without such a round."""
    pairs = zip(rates.get((workload, OURS), ()), rates[workload, system], strict=False)
    ratios = [ours / theirs for ours, theirs in pairs if ours and theirs]
    return statistics.median(ratios) if ratios else None


if __name__ == "__main__":
    main()
