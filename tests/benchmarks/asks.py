"""Requests with answers, ipevents beside others: rates, ratios, and whether each target is met.

    python tests/benchmarks/asks.py [--rounds R] [--requests N] [--only SYSTEM ...]

- ``ask``: one request at a time, from the main thread to one worker; requests per second
- ``askflood``: N requests to one worker at once, then all results are awaited; requests per second

Each system runs each workload R times, in turn and every time in fresh processes. A ratio is the median of
the ratios of all rounds. Systems that are not installed are left out. The exit status is 1 if a run failed.
"""

from __future__ import annotations

import sys

import comparing
from running import HERE, OURS

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
    parser = comparing.parser(__doc__, SYSTEMS)
    parser.add_argument("--requests", type=int, default=3_000)
    given = parser.parse_args()
    if given.rounds < 1 or given.requests < 1:
        parser.error("there must be a round and a request")
    systems = comparing.installed(given.only, MODULES)
    commands = {
        (workload, system): [*command(workload, system), given.requests]
        for workload in WORKLOADS
        for system in systems
    }
    comparing.show(comparing.measure(commands, given.rounds), TARGETS)


def command(workload, system):
    if system == OURS:
        return [sys.executable, HERE / "workloads.py", workload]
    if system == BY_HAND:
        return [sys.executable, HERE / "workloads.py", f"{workload}_by_hand"]
    return [sys.executable, HERE / "askers.py", system, workload]


if __name__ == "__main__":
    main()
