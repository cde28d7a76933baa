"""Every benchmark runs, and counts exactly; how fast it is, is not judged here."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from matrix import diagonal, slow

HERE = Path(__file__).resolve().parent
TINY = {
    "oneway": [100],
    "pingpong": [20],
    "chain": [20],
    "fanout": [100, "children=2"],
    "relay": [100],
    "bubble16": [100, "levels=2"],
    "blob": [20],
    "blob16k": [100],
    "array": [2, "size=8000000"],
    "start": [1],
    "online": [3],
    "broadcast200": [20, "children=3"],
    "ask": [20],
    "askflood": [20],
    "ask_by_hand": [20],
    "askflood_by_hand": [20],
}
WORK = {"map1": 20, "mapauto": 100, "mapwork": 20, "poolready": 2, "poolagain": 2}

ALIKE = ("chain", "bubble16", "blob", "blob16k")  # they show what others show, with other sizes


def run(name: str, *arguments: object) -> str:
    command = [sys.executable, str(HERE / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def result(name: str, *arguments: object) -> dict:
    found = json.loads(run(name, *arguments))
    assert found.pop("rate") > 0
    return found


@pytest.mark.parametrize("workload", [slow(name) if name in ALIKE else name for name in TINY])
def test_a_workload_counts_each_event_once(workload):
    if workload == "array":
        pytest.importorskip("numpy")

    found = result("workloads.py", workload, *TINY[workload])

    assert (found["peer"], found["workload"], found["n"]) == ("ipevents", workload, TINY[workload][0])


def test_the_one_way_workload_runs_over_both_kinds_of_socket(port):
    assert result("workloads.py", "oneway_tcp", 100, f"port={port}")["n"] == 100
    assert result("workloads.py", "oneway_unix", 100)["n"] == 100


@pytest.mark.parametrize("workload", [slow("array"), slow("blob16k"), "online", slow("broadcast200")])
def test_the_bare_connection_does_the_same_work(workload):
    if workload == "array":
        pytest.importorskip("numpy")

    found = result("baselines.py", "bare", workload, *TINY[workload])

    assert (found["peer"], found["workload"], found["n"]) == ("bare", workload, TINY[workload][0])


@pytest.mark.parametrize(
    ("system", "workload"), diagonal(["queue", "execnet"], ["oneway", "pingpong", "fanout", "relay"])
)
def test_the_others_do_the_same_work(system, workload):
    if system == "execnet":
        pytest.importorskip("execnet")

    found = result("others.py", system, workload, 100)

    assert (found["peer"], found["workload"], found["n"]) == (system, workload, 100)


@pytest.mark.parametrize(
    ("system", "workload"),
    diagonal(["Pool", "ProcessPoolExecutor", "loky", "pyzmq", "rpyc"], ["ask", "askflood"]),
)
def test_the_others_answer_each_request(system, workload):
    if system in ("loky", "pyzmq", "rpyc"):
        pytest.importorskip("zmq" if system == "pyzmq" else system)

    found = result("askers.py", system, workload, 20)

    assert (found["peer"], found["workload"], found["n"]) == (system, workload, 20)


@pytest.mark.parametrize(
    ("system", "workload"),
    [
        *(("ipevents", workload) for workload in WORK),
        *diagonal(["ProcessPoolExecutor", "Pool", "loky"], list(WORK)),
        *diagonal(["joblib"], ["map1", "mapauto", "mapwork"]),
        ("pyzmq", "map1"),
    ],
)
def test_all_do_the_same_jobs(system, workload):
    if system in ("joblib", "loky", "pyzmq"):
        pytest.importorskip("zmq" if system == "pyzmq" else system)

    found = result("workers.py", system, workload, WORK[workload])

    assert (found["peer"], found["workload"], found["n"]) == (system, workload, WORK[workload])


def test_asks_compares_those_that_are_asked_for():
    lines = run("asks.py", "--rounds", 1, "--requests", 20, "--only", "by hand", "Pool").splitlines()

    assert [line.split()[0] for line in lines] == ["workload", "ask", "ask", "askflood", "askflood"]
    assert [line.endswith("not measured") for line in lines] == [False, True, True, False, True]


def test_works_compares_those_that_are_asked_for():
    lines = run("works.py", "--rounds", 1, "--scale", 0.001, "--only", "Pool").splitlines()

    assert [line.split()[0] for line in lines] == ["workload", *WORK]
    assert [line.endswith("not measured") for line in lines] == [False, True, True, True, False, False]


def test_the_report_compares_and_says_what_is_met(tmp_path):
    run("report.py", "--rounds", 1, "--scale", 0.001, "--only", "oneway", "--out", tmp_path)

    report = json.loads((tmp_path / "report.json").read_text())
    systems = {row["system"] for row in report["results"]}
    assert {"ipevents", "bare", "queue"} <= systems
    assert all(row["met"] in (True, False, None) for row in report["targets"])
    assert report["targets"]


@pytest.mark.parametrize("grown", ["listeners=3", "sent_names=5"])
def test_a_point_of_growing_work_counts_each_event_once(grown):
    assert result("scaling.py", "point", 100, grown)["n"] == 100


def test_the_workloads_use_nothing_private():
    for name in ("workloads.py", "workers.py", "scaling.py"):
        tree = ast.parse((HERE / name).read_text())
        names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not {attr for attr in names if attr.startswith("_") and attr != "__name__"}
        assert not {module for module in modules if module and module.startswith("ipevents.")}


@pytest.mark.slow
def test_two_checkouts_take_turns():
    root = str(HERE.parents[1])
    lines = run("paired.py", root, root, "--rounds", 1).splitlines()
    assert [line.split()[0] for line in lines] == ["pingpong", "oneway", "oneway_tcp"]
    assert all(" speed x " in line for line in lines)


@pytest.mark.slow
def test_all_that_starts_children_is_in_the_table_and_in_the_chart(tmp_path):
    chart = tmp_path / "starts.svg"
    lines = run("starts.py", "--children", 2, "--rounds", 1, "--plot", chart).splitlines()

    names = [
        f"{kind}, {method}"
        for kind in ("bare", "ipevents", "ProcessPoolExecutor")
        for method in ("spawn", "forkserver")
    ]
    if importlib.util.find_spec("loky") is None:
        assert lines.pop(0).startswith("No loky: ")
    else:
        names.append("loky")
    assert [line.split("  ")[0] for line in lines[1:]] == names
    assert all(" - " in line or line.startswith("ipevents") for line in lines[1:])  # starts none again
    texts = [element.text for element in ElementTree.parse(chart).iter() if element.tag.endswith("text")]
    assert set(names) < set(texts)
    assert texts.count("-") == len(names) - 2


def test_starts_compares_those_that_are_asked_for():
    _, line = run("starts.py", "--children", 1, "--rounds", 1, "--only", "bare, forkserver").splitlines()
    assert line.startswith("bare, forkserver")
    assert "(" not in line
