"""Each fault and attack of these lists is shown by a test, or stands in the README under Limits.

A test says so by the first words of its docstring: ``B2, B7: nothing of a frame ...``.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from test_readme import section

TESTS = Path(__file__).parent

FAULTS = {
    # Links and transport
    "B1": "a part of a frame, then silence",
    "B2": "an end within a frame",
    "B3": "garbage after the handshake",
    "B4": "a huge or negative length",
    "B5": "half of a TCP connection is left",
    "B6": "a dead peer behind a blocked write",
    "B7": "a reset in the middle of a write",
    "B8": "all clients reconnect at once",
    "B9": "the same process connects twice",
    "B10": "something else at the port",
    "B11": "two servers race for an address",
    "B12": "a socket file without a server",
    "B13": "a socket file that was removed or replaced",
    "B14": "a path where no socket can be",
    "B15": "no descriptor left",
    "B16": "no thread left",
    "B17": "a descriptor that is closed while another thread reads",
    "B18": "a clock that jumps",
    "B19": "a machine that was suspended",
    "B20": "other versions",
    "B21": "a key at one end only, or a short one",
    # Hostile peers and users
    "D1": "silent and slow strangers",
    "D2": "a wrong key",
    "D3": "somebody between the two ends",
    "D4": "a reflected handshake",
    "D5": "a replayed handshake or frame",
    "D6": "a downgrade",
    "D7": "a forged origin, path or route",
    "D8": "pickles of strangers",
    "D9": "other users at a socket path",
    "D10": "links and foreign files in shared directories",
    "D11": "other users at a TCP port, and other machines",
    "D12": "a key that leaks",
    "D13": "a key that is used elsewhere",
    "D14": "a flood of connections",
    "D15": "a flood of event names",
    "D16": "a flood of names, routes and log lines",
    "D17": "nested bombs",
    "D18": "pickles of those who hold the key",
}
# What the README says under Limits of those that the library does nothing about.
IN_LIMITS = {"B13": "A server does not look whether its socket file is still there"}

IDS = re.compile(r"((?:[A-Z]\d+, )*[A-Z]\d+): ")


def shown() -> dict[str, set[str]]:
    """The ids that tests name, and the names of those tests."""
    found: dict[str, set[str]] = {}
    for file in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                ids = IDS.match(ast.get_docstring(node) or "")
                for number in ids[1].split(", ") if ids else ():
                    found.setdefault(number, set()).add(f"{file.name}: {node.name}")
    return found


def test_each_fault_is_shown_by_a_test_or_stands_under_limits():
    assert set(FAULTS) - shown().keys() - IN_LIMITS.keys() == set()


def test_no_test_names_a_fault_that_is_in_no_list():
    named = {number for number in shown() if number[0] in "BD"}
    assert named - FAULTS.keys() == set()


@pytest.mark.parametrize("number", IN_LIMITS)
def test_what_the_library_does_nothing_about_stands_under_limits(number):
    assert IN_LIMITS[number] in " ".join(" ".join(section("Limits")).split())
