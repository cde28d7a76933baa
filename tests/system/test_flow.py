"""Floods between real processes: the rules in README, Flow, from outside."""

from __future__ import annotations

import contextlib
import itertools
import logging
import queue
import time

import psutil
import pytest

from ipevents import Emitter, OutboxFull

SECONDS = [1.0, pytest.param(10.0, marks=pytest.mark.slow)]  # of mutual flood
AT_MOST_BEFORE = 20_000  # events of a flood before one of another link: 50 ms of a quick machine
WAIT = 60.0  # ceiling of every wait, reached only in a deadlock


@pytest.fixture
def top():
    emitter = Emitter()
    emitter.options(useSocket=False, stopTimeout=5000)
    with emitter:
        yield emitter


def answer_with_two():
    """A child whose listener answers every event with two; when it is told to, it says what it saw."""
    from ipevents import ipem

    handled = 0

    @ipem.on("ball")
    def ball(message, n):
        nonlocal handled
        handled += 1
        for _ in range(2):
            with contextlib.suppress(OutboxFull):
                message.reply("ball", n + 1)

    @ipem.on("count")
    def count(message):
        ipem.sendToParents("counted", handled, psutil.Process().memory_info().rss)


@pytest.mark.parametrize("lasts", SECONDS)
def test_two_processes_that_answer_every_event_with_two_go_on_within_their_limits(top, caplog, lasts):
    caplog.set_level(logging.CRITICAL, "ipevents")  # OutboxFull is caught, dropped answers are not logged
    handled = 0
    seconds: dict[int, int] = {}
    begin = time.monotonic()
    over = queue.SimpleQueue()

    def ball(message, n):
        nonlocal handled
        handled += 1
        now = time.monotonic() - begin
        seconds[int(now)] = seconds.get(int(now), 0) + 1
        if now >= lasts:
            over.put(None)
            return
        for _ in range(2):
            with contextlib.suppress(OutboxFull):
                message.reply("ball", n + 1)

    top.on("ball", ball)
    with top.expecting("online", WAIT, lambda message: message.from_ != top.pid):
        child = top.worker(answer_with_two)
    before = psutil.Process().memory_info().rss
    begin = time.monotonic()
    child.send("ball", 0)
    over.get(timeout=WAIT)
    grown = psutil.Process().memory_info().rss - before
    links = top.stats()["links"]
    top.off("ball")
    # It does not stand still: a wake-up that is lost would cost a second each time. One that is late may, too.
    assert sum(second in seconds for second in range(int(lasts))) >= 0.7 * int(lasts), seconds
    assert links[child.pid]["peak"] <= 100_001
    assert grown < 160 << 20
    child.kill()
    assert child.join(WAIT)


def flood():
    from ipevents import ipem

    ipem.waitFor("go")
    while True:
        ipem.sendToParents("noise", 1, "12345", 1.5)


def tick(count):
    from ipevents import ipem

    answers = queue.SimpleQueue()
    ipem.on("tock", lambda message: answers.put(None))
    ipem.waitFor("go")
    for _ in range(count):
        ipem.sendToParents("tick")
        answers.get(timeout=60)
    ipem.sendToParents("ticked")


def test_a_tick_beside_a_flood_comes_soon(top):
    """By what of the flood goes before it, as the clock also tells what else the machine does."""
    handled = 0
    before: list[int] = []

    def noise(message, *args):
        nonlocal handled
        handled += 1

    def ticked(message):
        before.append(handled)
        message.reply("tock")

    top.on("noise", noise)
    top.on("tick", ticked)
    children = []
    for target, args in ((flood, ()), (tick, (400,))):
        with top.expecting("online", WAIT):
            children.append(top.worker(target, args))
    with top.expecting("noise", WAIT):  # the flood has begun
        children[0].send("go")
    with top.expecting("ticked", WAIT):
        children[1].send("go")
    children[0].kill()
    between = sorted(later - earlier for earlier, later in itertools.pairwise(before))
    assert between[-1] > 0  # there was a flood
    assert between[len(between) * 99 // 100] < AT_MOST_BEFORE


def test_what_a_listener_sends_before_it_blocks_arrives_while_it_blocks(top):
    def block():
        from ipevents import ipem

        released = queue.SimpleQueue()

        @ipem.on("work")
        def work(message):
            message.reply("working")
            released.get(timeout=60)

        # No event can end it: none is delivered while the listener runs.
        ipem.waitFor("never")

    with top.expecting("working", WAIT):
        child = top.worker(block)
        child.send("work")
    child.kill()
    assert child.join(WAIT)


def test_an_application_thread_waits_for_a_peer_that_stops_reading_and_nothing_is_lost(top):
    def reader(total):
        from ipevents import ipem

        count = 0

        @ipem.on("item")
        def item(message, n):
            nonlocal count
            assert n == count
            count += 1
            if count == total:
                ipem.sendToParents("all", count)

    total = 250_000
    with top.expecting("all", WAIT) as got:
        child = top.worker(reader, (total,))
        for n in range(total):
            child.send("item", n)
    assert got.message.args == (total,)
    assert top.stats()["links"][child.pid]["dropped"] == {}
