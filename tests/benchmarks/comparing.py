"""What asks and works share: every system on every workload in rounds, the ratios, the targets.

A workload's result is its rate, or the seconds that it takes, of which less is better. A ratio is that of our
result to the other's, and the median of the ratios of all rounds.
"""

from __future__ import annotations

import argparse
import statistics
import sys

from running import OURS, call, environment, has, number, progress, table

HEAD = ["workload", "system", "median", "min", "max", "ipevents is", "target", ""]


def parser(text, systems):
    """A parser for the options that all have. ``text``: the docstring of the program."""
    made = argparse.ArgumentParser(description=text, formatter_class=argparse.RawTextHelpFormatter)
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--only", nargs="+", choices=systems, default=list(systems), metavar="SYSTEM")
    return made


def installed(systems, modules):
    """Those of the systems that can run here, after saying which cannot."""
    found = []
    for system in systems:
        module = modules.get(system)
        if module is None or has(module):
            found.append(system)
        else:
            print(f"Without {system}: it is not installed (pip install -e '.[bench]').")
    return found


def measure(commands, rounds, seconds=()):
    """Run the commands of all workloads and systems, in turn; ``seconds``: the workloads that tell these.

    Returns for each workload and system its results, one a round; None for a round in which it failed.
    """
    results = {key: [] for key in commands}
    with environment() as env:
        for turn in range(rounds):
            for (workload, system), found in results.items():
                progress(f"round {turn + 1} of {rounds}: {workload} {system}")
                result = call(commands[workload, system], env)
                key = "seconds" if workload in seconds else "rate"
                found.append(None if result is None else result[key])
    progress("")
    return results


def show(results, targets, seconds=()):
    """Print all of it as a table, and end the program with status 1 if a run failed.

    ``targets``: for a workload and system the least ratio; the most one, if the workload tells seconds.
    """
    table([row(results, targets, seconds, *key) for key in results], HEAD)
    if failed := [" of ".join(key) for key, found in results.items() if None in found]:
        sys.exit(f"No result in every round: {', '.join(failed)}")


def row(results, targets, seconds, workload, system):
    found = [result for result in results[workload, system] if result is not None]
    spread = (statistics.median(found), min(found), max(found)) if found else (None, None, None)
    cells = [workload, system, *map(number, spread)]
    if system == OURS:
        return [*cells, "", "", ""]
    ratio, target = our_ratio(results, workload, system), targets.get((workload, system))
    cells.append("-" if ratio is None else f"{ratio:.2f}x")
    if target is None:
        return [*cells, "", ""]
    most = workload in seconds
    is_met = ratio is not None and (ratio <= target if most else ratio >= target)
    verdict = "not measured" if ratio is None else "met" if is_met else "missed"
    return [*cells, f"at {'most' if most else 'least'} {target:g}x", verdict]


def our_ratio(results, workload, system):
    """The median of the ratios in the rounds that both have finished; None without such a round."""
    pairs = zip(results.get((workload, OURS), ()), results[workload, system], strict=False)
    ratios = [ours / theirs for ours, theirs in pairs if ours and theirs]
    return statistics.median(ratios) if ratios else None
