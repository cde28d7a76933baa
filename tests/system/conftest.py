"""Fixtures of the tests that ask children: emitters at the top, and lines to what runs in a child."""

from __future__ import annotations

import pytest
from lines import Line

from ipevents import Emitter
from ipevents._dispatch.floor import Floor


@pytest.fixture
def tops():
    """Makes and starts emitters that are stopped afterwards; as many as a test wants."""
    made = []

    def make(**options):
        defaults = {"useSocket": False, "stopTimeout": 5000, "delayRestart": 20}
        emitter = Emitter().options({**defaults, **options})
        emitter._node.dispatcher.floor = Floor()  # it stands for a process
        made.append(emitter)
        return emitter.start()

    yield make
    for emitter in made:
        emitter.stop()


@pytest.fixture
def top(tops):
    return tops()


@pytest.fixture
def lines():
    """Makes lines, see lines.py."""
    made = []

    def make():
        made.append(Line())
        return made[-1]

    yield make
    for line in made:
        line.close()


@pytest.fixture
def line(lines):
    return lines()
