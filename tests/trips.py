"""How far an event travels through the package: files that it touches, and calls that go back up.

    python tests/trips.py           # the six trips as a table
    python tests/trips.py sendTo    # one of them, with each file and each call that goes up

"Here" is the process where the trip begins, "in all" that one and the other end.

A call goes up where the callee's room is further left than the caller's, see ROOMS in test_architecture.py.
Real processes run the programs in programs/trips/ with a profile hook (sitecustomize.py there), in all
threads of parent and child. What is called while a module is imported does not count. Each pair of caller and
callee counts once, however often one calls the other: so loops and looks at the clock change nothing. Who of
two threads is first still does: the last three figures differ by a few from run to run.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from test_architecture import ROOMS

import ipevents

PROGRAMS = Path(__file__).resolve().parent / "programs" / "trips"
CEILING_SECONDS = 60.0  # of a program, reached only in a deadlock

# A trip, what it is, and whether it is that of one thread only. It begins in the process that is named first.
TRIPS = {
    "sendTo": ("a repeated sendTo, in the thread that sends", True),
    "arrival": ("an arrival, in the reader: from one call of a listener to the next", True),
    "worker": ("parent and child: from worker() to the online of the child", False),
    "restart": ("parent and child: from the death of one child to the online of the next", False),
    "reconnect": ("client and server: from the cut of the connection to the next word of the server", False),
    "Ctrl-C": ("parent and child: from Ctrl-C to the end of both", False),
}


class Line(NamedTuple):
    """A call, or the beginning or end of a trip: then ``caller`` is "begin" or "end", ``callee`` the trip."""

    time: int
    thread: int
    caller: str
    callee: str


class Trip(NamedTuple):
    files: list[str]
    upward: list[str]


def room(place: str) -> str:
    """The room of a file, or of a function as it stands in a line."""
    return place.partition(":")[0].removesuffix(".py").partition("/")[0].replace("__init__", "")


def is_upward(line: Line) -> bool:
    return bool(line.caller) and ROOMS.index(room(line.callee)) < ROOMS.index(room(line.caller))


def window(lines: list[Line], trip: str) -> tuple[Line, int]:
    """The last trip that is over: its beginning, and when it ended. One without an end lasts for ever."""
    last = max(line for line in lines if (line.caller, line.callee) == ("begin", trip))
    ends = [line for line in lines if (line.caller, line.callee) == ("end", trip)]
    if ends and max(ends).time < last.time:  # begun once more, and not ended
        last = max(line for line in lines if line[2:] == ("begin", trip) and line.time < max(ends).time)
    return last, min((line.time for line in ends if line.time > last.time), default=sys.maxsize)


def measure(processes: list[list[Line]], trip: str, *, everywhere: bool) -> Trip:
    """What a trip touches, where it begins or ``everywhere``, given the lines of each process."""
    mine = next(lines for lines in processes if any(line[2:] == ("begin", trip) for line in lines))
    beginning, until = window(mine, trip)
    _, one_thread = TRIPS[trip]
    calls = {
        (line.caller, line.callee): line
        for lines in (processes if everywhere and not one_thread else [mine])
        for line in lines
        if beginning.time < line.time < until
        and line.caller not in ("begin", "end")
        and (not one_thread or line.thread == beginning.thread)
    }
    places = {place for pair in calls for place in pair if place}
    return Trip(
        sorted({place.partition(":")[0] for place in places}),
        sorted(f"{line.caller} -> {line.callee}" for line in calls.values() if is_upward(line)),
    )


def read(folder: Path) -> list[list[Line]]:
    """The lines of each process that has written there."""
    found = []
    for file in folder.glob("*.calls"):
        lines = [text.split("\t") for text in file.read_text().splitlines()]
        found.append([Line(int(time), int(thread), *words) for time, thread, *words in lines])
    return found


def record(folder: Path) -> list[list[Line]]:
    """Run the programs, which write into ``folder``; returns the lines of each process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    environment = {
        **os.environ,
        "IPEVENTS_AUTHKEY": secrets.token_hex(16),
        "IPEVENTS_TRIPS_FOLDER": str(folder),
        "IPEVENTS_TRIPS_PACKAGE": str(Path(ipevents.__file__).parent),
        "PYTHONPATH": os.pathsep.join([str(PROGRAMS), str(Path(ipevents.__file__).parent.parent)]),
    }

    running = []

    def program(*argv: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, str(PROGRAMS / argv[0]), *argv[1:]], env=environment)
        running.append(process)
        return process

    def status(process: subprocess.Popen[bytes]) -> int:
        return process.wait(CEILING_SECONDS)

    try:
        server = program("server.py", port)
        statuses = [status(program("client.py", port))]
        server.terminate()
        statuses += [status(server), status(program("family.py"))]  # one after the other: who calls whom when
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert statuses == [0, 143, 130], statuses
    return read(folder)


def main(names: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="trips-") as folder:
        processes = record(Path(folder))
    for name in names:
        trip = measure(processes, name, everywhere=True)
        print(name, *trip.files, "", *trip.upward, "", sep="\n")
    print("      here     in all\nfiles   up  files   up")
    for name in names or TRIPS:
        here, all_ = (measure(processes, name, everywhere=everywhere) for everywhere in (False, True))
        figures = (len(here.files), len(here.upward), len(all_.files), len(all_.upward))
        print("{:5} {:4}  {:5} {:4}".format(*figures), "", TRIPS[name][0])


if __name__ == "__main__":
    main(sys.argv[1:])
