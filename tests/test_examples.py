"""Every file in examples/ runs without arguments, prints what it says, and leaves nothing behind."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
from scripts import running

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

# Patterns of whole lines that come in this order, perhaps with others between them.
LINES = {
    "quickstart.py": [
        r"process online (?P<top>\d+) \('(?P=top)',\)",
        r"process online (?P<child>\d+) \('(?P=child)', '(?P=top)'\)",
        r"7 squared is 49 says (?P=child)",
    ],
    "closures.py": [
        r"this script +its ipem is (?P<top>\d+)",
        r"a lambda +42 m +its ipem is \d+, a child of (?P=top)",
        r"a function of the script +12 m .*",
        r"a function of the script +15 m .*",
        r"a closure over factor=10 +70 m .*",
        r"a method bound to 5 marks +9 m .*",
    ],
    "crash_and_restart.py": [
        r"1\. .*",
        r"   online: (?P<first>\d+)",
        r"   offline: (?P=first), exit code -9, noticed by this process",
        r"   online: (?P<second>\d+)",
        r"   the same Child, another process: (?P=first) is now (?P=second), restarts 1",
        r"   offline: (?P=second), exit code 0, noticed by this process",
        r"2\. .*",
        r"   offline: \d+, exit code 1, noticed by this process",
        r"   offline: \d+, exit code 0, noticed by this process",
        r"   ended for good with exit code 0, restarts 1",
        r"3\. .*",
        *[r"   error: StartFailed, exit code 5"] * 3,
        r"   error: GaveUp, child hopeless \(\d+\) died young 3 times in a row",
        r"   ended for good with exit code 5, restarts 2",
    ],
    "ping_pong.py": [
        r"\+ (?P<top>\d+) is online, the grand master",
        r"   \+ (?P<worker>\d+) is online below (?P=top)",
        r" +- \d+ is offline, (exit code (3|-9|0)|went with it)",
        r"The tree at the end:",
        r"(?P=top)",
        r"median ms \(pongs\) +0 hops +1 hops +2 hops.*",
        r"bubble +[\d.]+ \(\d+\) +[\d.]+ \(\d+\).*",
        r"sendToParents +[\d.]+ \(\d+\).*",
        r"sendToChilds +[\d.]+ \(\d+\).*",
        r"sendToSiblings +[\d.]+ \(\d+\).*",
        r"sendToGrandMaster +[\d.]+ \(\d+\) +[\d.]+ \(\d+\).*",
        r"sendToChild +[\d.]+ \(\d+\).*",
        r"sendTo +[\d.]+ \(\d+\).*",
        r"broadcast +[\d.]+ \(\d+\).*",
        r"\d+ pongs; errors, for ways that led to the dead: .*",
    ],
    "two_scripts/run.py": [
        r"server: \S+ is gone",
        r"exit status of clients and server: 0 0 143",
    ],
}
# Run by two_scripts/run.py.
BY_ANOTHER = {"two_scripts/server.py", "two_scripts/client.py"}


def names() -> list[str]:
    return sorted(str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*.py"))


def missing_line(lines: list[str], patterns: list[str]) -> str | None:
    """The first pattern that no line matches after the lines of those before it.

    A group that has a name stands for the same text in the patterns that follow.
    """
    known: dict[str, str] = {}
    rest = iter(lines)
    for pattern in patterns:
        for name, text in known.items():
            pattern = pattern.replace(f"(?P={name})", re.escape(text))
        for line in rest:
            match = re.fullmatch(pattern, line.rstrip())
            if match:
                known |= match.groupdict()
                break
        else:
            return pattern
    return None


def run(name, *args):
    """Run an example, with the files beside it that it may start, and wait until all of it is gone."""
    path = EXAMPLES / name
    beside = {each.name: each.read_text() for each in path.parent.glob("*.py") if path.parent != EXAMPLES}
    with running(path.read_text(), args=args, preamble="", files=beside) as script:
        return script.ended()


def test_every_file_is_tested():
    assert set(names()) == set(LINES) | BY_ANOTHER


@pytest.mark.parametrize("name", sorted(LINES))
def test_an_example_runs_and_ends(name):
    ended = run(name)

    assert (ended.status, ended.err) == (0, "")
    assert missing_line(ended.lines, LINES[name]) is None, ended.out


def test_two_scripts_add_up_what_all_clients_send():
    ended = run("two_scripts/run.py")

    # Not line by line: an unbuffered print writes its text and its end of line one after the other, and three
    # processes write into the same pipe.
    totals = re.findall(r"server: \S+ adds \d+, that makes (\d+)", ended.out)
    assert (len(totals), totals[-1]) == (5, "36")
    assert len(re.findall(r"client \S+: all added", ended.out)) == 2


def test_a_second_server_says_that_there_is_one(port, monkeypatch):
    monkeypatch.setenv("IPEVENTS_AUTHKEY", "the key of these two")
    server = "two_scripts/server.py"
    text = (EXAMPLES / server).read_text()
    with running(text, args=(str(port),), preamble="", python=("-u",)) as first:
        first.wait_line("server: listens")

        second = run(server, str(port))

        assert second.status == 1
        assert second.err == f"another server listens on port {port} already\n"
        first.signal(signal.SIGTERM)
        assert first.ended().status == 143
