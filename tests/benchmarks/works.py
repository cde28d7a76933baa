"""Work shared out to two processes, ipevents beside others: results, ratios, whether each target is met.

    python tests/benchmarks/works.py [--rounds R] [--scale S] [--only SYSTEM ...]

- ``map1``: a map of 10,000 jobs that add one to a number, each given out by itself; jobs per second
- ``mapauto``: 1,000,000 of them, in chunks as the system chooses them, or 1,000 jobs a chunk; jobs per second
- ``mapwork``: 400 jobs that take 5 ms, as the system shares out its jobs by itself; jobs per second
- ``poolready``: from the call that makes the first pool of a program until each of its workers has answered
  a job; seconds
- ``poolagain``: the same of a second pool, when the first one is gone; seconds

A job of ``mapwork`` sleeps, and does not compute. So it takes as long however many cores there are, and
whatever else they do: what is left of 400 a second is lost while a worker has no job. What sharing out
costs the cores is seen in ``map1``.

Each system runs each workload R times, in turn and every time in fresh processes. A ratio is the median of
the ratios of all rounds. Systems that are not installed are left out. The exit status is 1 if a run failed.
"""

from __future__ import annotations

import sys

import comparing
from running import HERE, OURS

# How many jobs, of which there are --scale times as many; or how many workers, of which there are as many.
JOBS = {"map1": 10_000, "mapauto": 1_000_000, "mapwork": 400}
STARTS = {"poolready": 2, "poolagain": 2}
LEAST = 20  # jobs, however small the scale
# What each of the others has to be installed for it, and what it has not got.
MODULES = {"ProcessPoolExecutor": None, "Pool": None, "loky": "loky", "joblib": "joblib", "pyzmq": "zmq"}
LACKS = {"joblib": {*STARTS}, "pyzmq": {"mapauto", "mapwork", *STARTS}}
SYSTEMS = (OURS, *MODULES)
# What is the same speed, as far as can be measured.
AS_FAST = 0.98
# The least ratio of our rate to the other's, the most one of our seconds to the other's.
TARGETS = {
    ("map1", "ProcessPoolExecutor"): 12,
    ("map1", "Pool"): 2.5,
    ("map1", "pyzmq"): 0.6,
    ("mapauto", "Pool"): 0.5,
    ("mapwork", "ProcessPoolExecutor"): AS_FAST,
    ("mapwork", "Pool"): AS_FAST,
    ("poolready", "ProcessPoolExecutor"): 0.5,
}


def main():
    parser = comparing.parser(__doc__, SYSTEMS)
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of jobs")
    given = parser.parse_args()
    if given.rounds < 1 or given.scale <= 0:
        parser.error("there must be a round, and jobs")
    systems = comparing.installed(given.only, MODULES)
    numbers = {name: max(LEAST, round(jobs * given.scale)) for name, jobs in JOBS.items()} | STARTS
    commands = {
        (workload, system): [sys.executable, HERE / "workers.py", system, workload, count]
        for workload, count in numbers.items()
        for system in systems
        if workload not in LACKS.get(system, ())
    }
    comparing.show(comparing.measure(commands, given.rounds, STARTS), TARGETS, STARTS)


if __name__ == "__main__":
    main()
