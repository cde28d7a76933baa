"""The standard streams of a process that was started without some of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

LOOK = """
import json, os, sys
from ipevents._platform import streams

report = int(sys.argv[2])
for number in json.loads(sys.argv[1]):
    os.close(number)
before = set(os.listdir("/dev/fd"))
{act}
streams.occupy()
streams.occupy()  # once more changes nothing
links = [f"/proc/self/fd/{{number}}" for number in range(3)]
places = [os.readlink(link) if os.path.lexists(link) else "" for link in links]
inheritable = [bool(place) and os.get_inheritable(number) for number, place in enumerate(places)]
said = json.dumps([places, inheritable, len(os.listdir("/dev/fd")) - len(before)])
os.write(report, said.encode())
"""


def after_occupying(closed, act=""):
    """Where 0, 1 and 2 lead, whether programs inherit them, and how many descriptors were opened."""
    read, write = os.pipe()
    with open(read, "rb") as said:
        done = subprocess.Popen(
            [sys.executable, "-c", LOOK.format(act=act), json.dumps(closed), str(write)],
            pass_fds=[write],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        os.close(write)
        found = said.read()
        out, err = done.communicate()
    assert (done.returncode, out, err) == (0, b"", b"")
    return json.loads(found)


@pytest.mark.parametrize("closed", [[], [0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]], ids=str)
def test_only_those_that_are_closed_lead_nowhere_and_programs_inherit_them(closed):
    places, inheritable, opened = after_occupying(closed)
    assert [place == os.devnull for place in places] == [number in closed for number in range(3)]
    assert inheritable == [True] * 3
    assert opened == len(closed)


def test_a_number_that_another_thread_has_taken_meanwhile_stays_that_threads():
    act = """
real = os.open

def overtaken(*args):
    os.open = real
    real("/", os.O_RDONLY)  # gets the number
    return real(*args)

os.open = overtaken
"""
    places, inheritable, opened = after_occupying([1], act)
    assert (places[1], inheritable[1]) == ("/", False)
    assert opened == 1, "and ours was closed"


def test_where_nothing_can_be_opened_they_stay_closed():
    act = """
def refused(*args):
    raise OSError("no descriptor")

os.open = refused
"""
    places, _, opened = after_occupying([0, 2], act)
    assert (places[0], places[2], opened) == ("", "", 0)
    assert places[1].startswith("pipe:")
