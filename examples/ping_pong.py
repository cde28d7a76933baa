"""Every process of a tree pings the others in every direction, while some of them die.

The grand master starts three workers, each of them two more. Everybody pings: up, down, sideways, to
the top, to a child, along a route, to all. Who hears a ping replies along the way it came; who gets
the reply tells the grand master how long that took. Now and then the grand master has some process
end. Everything below it ends as well, and comes back with it. The game is over after some seconds.
"""

import os
import random
import signal
import statistics
import sys
import time
from collections import Counter, defaultdict

from ipevents import ipem

SECONDS = 5.0  # of the whole game
PAUSE = 0.05  # seconds between two rounds of pings
LIFE = 0.7  # seconds between two deaths
DIRECTIONS = (
    "bubble",
    "sendToParents",
    "sendToChilds",
    "sendToSiblings",
    "sendToGrandMaster",
    "sendToChild",
    "sendTo",
    "broadcast",
)

chance = random.Random(2012)
routes = {}  # the way to each process that was heard of


# What every process does


def ping(message, direction, sent):
    routes[message.from_] = message.pids
    message.reply("pong", direction, sent)


def pong(message, direction, sent):
    hops = len(message.pids) - 1
    ipem.sendToGrandMaster("took", direction, hops, time.perf_counter() - sent)


def failed(message, exc):
    routes.clear()  # one of them leads to a process that died; pings will tell new ones
    ipem.sendToGrandMaster("failed", type(exc).__name__)


def die(message, how):
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.exit(3)


def ping_all():
    for direction in DIRECTIONS:
        send, now = getattr(ipem, direction), time.perf_counter()
        if direction == "sendToChild":
            for child in ipem.netmap:
                send(child, "ping", direction, now)
        elif direction == "sendTo":
            if routes:
                send(chance.choice(list(routes.values())), "ping", direction, now)
        else:
            send("ping", direction, now)


def rounds(seconds=None):
    """Take part, until stopped or for some seconds; a step of the loop for each round."""
    ipem.on("ping", ping).on("pong", pong).on("error", failed).on("die", die)
    end = None if seconds is None else time.monotonic() + seconds
    while not ipem.run(timeout=PAUSE):  # True: this process is to end
        if end is not None and time.monotonic() > end:
            return
        ping_all()
        yield


def play():
    for _ in rounds():
        pass


# What only the grand master does


def watch():
    """Listen to what is told of latencies and failures, of comings and goings; returns the tables."""
    times, failures = defaultdict(list), Counter()

    @ipem.on("took")
    def took(message, direction, hops, seconds):
        times[direction, hops].append(seconds * 1000)

    @ipem.on("failed")
    def count(message, name):
        failures[name] += 1

    @ipem.on("online")
    def online(message):
        level = len(message.pids) - 1
        below = f" below {message.pids[1]}" if level else ", the grand master"
        print(f"{'   ' * level}+ {message.from_} is online{below}")

    @ipem.on("offline")
    def offline(message, pid):
        code = "went with it" if message.exitcode is None else f"exit code {message.exitcode}"
        print(f"{'   ' * len(message.pids)}- {pid} is offline, {code}")

    return times, failures


def all_below():
    """The ways to all processes below, as sendTo takes them: target first, next hop last."""
    ways, trees = [], [((), ipem.netmap)]
    for way, tree in trees:
        for pid, below in tree.items():
            ways.append((pid, *way))
            trees.append(((pid, *way), below))
    return ways


def report(times, failures):
    columns = range(max(hops for _, hops in times) + 1)
    print(f"\n{'median ms (pongs)':18}", *(f"{f'{hops} hops':>13}" for hops in columns))
    for direction in DIRECTIONS:
        cells = [times.get((direction, hops)) for hops in columns]
        texts = [f"{statistics.median(some):.2f} ({len(some)})" if some else "" for some in cells]
        print(" ".join([f"{direction:18}", *(f"{text:>13}" for text in texts)]).rstrip())
    what = ", ".join(f"{number} {name}" for name, number in sorted(failures.items())) or "none"
    print(f"\n{sum(map(len, times.values()))} pongs; errors, for ways that led to the dead: {what}")


if ipem.isMaster:
    times, failures = watch()
    ipem.options(useSocket=False, delayRestart=200).start()
    for _ in range(3):
        ipem.worker()  # this script again, with isWorker true
    next_death = time.monotonic() + 2 * LIFE
    for _ in rounds(SECONDS):
        if time.monotonic() > next_death and ipem.netmap:
            next_death = time.monotonic() + LIFE
            ipem.sendTo(chance.choice(all_below()), "die", chance.choice(["exit", "kill"]))
    print("\nThe tree at the end:")
    ipem.printNetmap()
    ipem.removeAllListeners()  # what ends now is no accident
    ipem.stop()
    report(times, failures)
else:
    ipem.options(delayRestart=200)
    for _ in range(2):
        ipem.worker(play)
    play()
