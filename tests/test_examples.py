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
        r"a lambda +42 m +in \d+, a child of (?P<top>\d+)",
        r"a function of the script +12 m +in \d+, a child of (?P=top)",
        r"a function of the script +15 m .*",
        r"a closure over factor=10 +70 m .*",
        r"a method bound to 5 marks +9 m .*",
    ],
    "restart.py": [
        r"online: (?P<first>\d+)",
        r"offline: (?P=first), exit code -9",
        r"online: (?P<second>\d+)",
        r"the same Child, another process: (?P=first) is now (?P=second), restarts 1",
        r"offline: (?P=second), exit code 0",
        r"ended for good: True",
    ],
    "restart_on_failure.py": [
        r"offline: \d+, exit code 1",
        r"offline: \d+, exit code 0",
        r"ended for good with exit code 0, restarts 1",
    ],
    "give_up.py": [
        *[r"StartFailed: hopeless ended with exit code 5"] * 3,
        r"GaveUp: child hopeless \(\d+\) died young 3 times in a row",
        r"ended for good with exit code 5, restarts 2",
    ],
    "lost_event.py": [
        r"1\. Was it refused here\? event 'jobs' was not sent: \d+ has no child with the pid '1'",
        r"2\. Did it leave\? sent 3, queued 0, dropped {}",
        r"3\. Did anybody listen\? received 3, unheard 1",
        r"4\. Did the listener fail\? jobs\(0,\): ZeroDivisionError\(.*\)",
    ],
    "ask.py": [
        r"one answer: 0\.25",
        r"many: \[3\.0, 3\.0, 6\.0, 6\.0\]",
        r"of all: \[3\.0, 3\.0\]",
        r"ZeroDivisionError: division by zero",
        r"NoAnswerer: request 'multiply' has no answerer: one \((?P<pid>\d+)\) does not answer 'multiply'",
        r"RequestTimeout: request 'wait': no answer of (?P=pid) within 0\.5 s",
        r"AnswererLost: request 'crash' is not answered, it was begun: child one \((?P=pid)\) is gone, .*",
        r"the next process answers: 4\.0",
    ],
    "job_farm.py": [
        r"\[ {40}\] 1 of 200",
        r"\[#{20} {20}\] 100 of 200",
        r"\[#{40}\] 200 of 200",
        r"all are right, and \d+ workers were killed",
    ],
    "ping_pong.py": [
        r"bubble +17 pongs, median [\d.]+ ms",
        r"sendToParents +10 pongs, median [\d.]+ ms",
        r"sendToChilds +10 pongs, median [\d.]+ ms",
        r"sendToSiblings +6 pongs, median [\d.]+ ms",
        r"sendToGrandMaster +7 pongs, median [\d.]+ ms",
        r"broadcast +42 pongs, median [\d.]+ ms",
    ],
    "subtree.py": [
        r"\+ (?P<top>\d+)",
        r"   \+ (?P<child>\d+)",
        *[r"      \+ \d+"] * 2,
        *[r"- \d+"] * 2,
        r"- (?P=child), exit code -9",
        r"   \+ (?P<next>\d+)",
        *[r"      \+ \d+"] * 2,
        r"here again: (?P=next) \d+ \d+",
    ],
    "two_scripts/run.py": [
        r"server: \S+ is gone",
        r"exit status of clients and server: 0 0 143",
    ],
}
MAX_LINES = 40
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


@pytest.mark.parametrize("name", names())
def test_an_example_is_short_enough_to_be_read(name):
    assert len((EXAMPLES / name).read_text().splitlines()) <= MAX_LINES


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
