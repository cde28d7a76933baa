"""The trip counter counts files and calls that go up, on made-up lines and on real processes."""

from __future__ import annotations

import sys

import pytest
import trips
from trips import Line

HERE = [
    Line(1, 7, "", "_emitter.py:Emitter.sendTo:1"),
    Line(2, 7, "begin", "sendTo"),
    Line(3, 7, "", "_emitter.py:Emitter.sendTo:1"),
    Line(4, 7, "_emitter.py:Emitter.sendTo:1", "_core/router.py:plan:1"),
    Line(5, 7, "_core/router.py:plan:1", "_node/node.py:Node.emit:1"),
    Line(6, 7, "_core/router.py:plan:1", "_node/node.py:Node.emit:1"),
    Line(7, 8, "_core/router.py:plan:1", "_links/link.py:Link.tell:1"),
    Line(8, 7, "end", "sendTo"),
    Line(9, 7, "", "_options.py:merged:1"),
]
FILES = ["_core/router.py", "_emitter.py", "_node/node.py"]
UP = ["_core/router.py:plan:1 -> _node/node.py:Node.emit:1"]


def test_a_trip_has_the_files_of_its_thread_and_each_pair_that_goes_up_once():
    assert trips.measure([HERE], "sendTo", everywhere=True) == (FILES, UP)


def test_a_trip_of_all_threads_has_those_of_the_other_end_where_it_is_asked_for():
    renamed = [line._replace(callee="worker") if line.callee == "sendTo" else line for line in HERE]
    there = [Line(5, 1, "_core/wire.py:parts:1", "__init__.py:__getattr__:1")]

    here = trips.measure([there, renamed], "worker", everywhere=False)
    in_all = trips.measure([there, renamed], "worker", everywhere=True)

    assert here.files == sorted([*FILES, "_links/link.py"])
    assert set(in_all.files) - set(here.files) == {"__init__.py", "_core/wire.py"}
    assert set(in_all.upward) - set(here.upward) == {"_core/wire.py:parts:1 -> __init__.py:__getattr__:1"}


def test_the_last_trip_counts_and_one_without_an_end_lasts():
    first = [Line(1, 7, "begin", "arrival"), Line(2, 7, "", "_child.py:f:1"), Line(3, 7, "end", "arrival")]
    second = [Line(4, 7, "begin", "arrival"), Line(5, 7, "", "_options.py:f:1")]

    assert trips.window(first + second, "arrival") == (first[0], 3)  # the second is not over
    assert trips.window(first, "arrival") == (first[0], 3)
    assert trips.window(second, "arrival") == (second[0], sys.maxsize)


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    return trips.record(tmp_path_factory.mktemp("calls"))


@pytest.mark.parametrize(
    ("trip", "files", "others"),
    [
        ("sendTo", {"_emitter.py", "_core/outbox.py", "_node/outgoing.py"}, {"_core/restarts.py"}),
        ("arrival", {"_dispatch/dispatcher.py"}, {"_emitter.py", "_processes/supervisor.py"}),
        ("worker", {"_emitter.py", "_processes/supervisor.py"}, {"_network/client.py"}),
        ("restart", {"_core/restarts.py", "_processes/supervisor.py"}, {"_network/client.py"}),
        ("reconnect", {"_network/client.py", "_transport/connector.py"}, {"_core/restarts.py"}),
        ("Ctrl-C", {"_core/state.py", "_processes/supervisor.py"}, {"_network/client.py"}),
    ],
)
def test_a_trip_of_real_processes_touches_its_files_and_not_those_of_others(processes, trip, files, others):
    found = set(trips.measure(processes, trip, everywhere=True).files)

    assert files <= found
    assert not others & found
