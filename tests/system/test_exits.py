"""How a tree ends: every way of starting it, every way of leaving it, from every state.

Each script is a process group of its own. What is asserted each time: the status, an empty stderr
where nothing was wrong, nothing left of the tree, no private directory, all of it in time.
"""

from __future__ import annotations

import signal
import time

import pytest
from scripts import Script, running

STOP_SECONDS = 3.0  # stopTimeout of scripts.PREAMBLE
SPARE_SECONDS = 1.0  # for the rest, beyond it
AT_ONCE_SECONDS = 2.0  # on a machine that has other things to do; 0.1 to 0.5 s where it has not

WORKER = """
def work():
    told("never")
    ipem.start()

came = threading.Event()
ipem.on("online", lambda message: message.from_ == ipem.pid or came.set())
told("online")
child = ipem.worker(work)
"""
STAYS = "ipem.start()\n"  # the script just ends after it
RUNS = "ipem.run()\n"
KNOWN = "came.wait()\n"  # the child is online
HOWS = ["script", "module", "package", "directory", "command", "stdin"]


def ready(script: Script) -> None:
    """The top process and one child are online."""
    script.wait_line("online", count=2)


def check(
    script: Script, status: int, err: str = "", within: float = STOP_SECONDS + SPARE_SECONDS
) -> list[str]:
    ended = script.ended(within)
    assert (ended.status, ended.err) == (status, err), ended.out
    return ended.lines


# Signals, by the way in which the script was started.


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(
    ("last", "number", "status"),
    [
        (RUNS, signal.SIGINT, 130),
        (RUNS, signal.SIGTERM, 143),
        (STAYS, signal.SIGINT, -signal.SIGINT),
        (STAYS, signal.SIGTERM, -signal.SIGTERM),
    ],
    ids=["run-int", "run-term", "stay-int", "stay-term"],
)
def test_a_signal_ends_an_idle_tree(how, last, number, status):
    with running(WORKER, last, how=how) as script:
        ready(script)
        script.signal_group(number)
        check(script, status, within=AT_ONCE_SECONDS)


@pytest.mark.parametrize("last", [RUNS, STAYS], ids=["run", "stay"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_top_alone_ends_the_tree(last, number):
    with running(WORKER, last) as script:
        ready(script)
        script.signal(number)
        check(script, 128 + number if last is RUNS else -number, within=AT_ONCE_SECONDS)


FLOOD = """
def work():
    ipem.on("down", lambda message, data: None)
    ipem.start()
    say("flooded by", ipem.pid)
    while True:
        ipem.sendToParents("up", b"x" * 500)

ipem.on("up", lambda message, data: ipem.sendToChilds("echo", data))
ipem.start()
children = [ipem.worker(work) for _ in range(2)]
"""
POUR = """
while True:
    ipem.sendToChilds("down", b"x" * 500)
"""


@pytest.mark.parametrize(
    ("last", "number", "status"),
    [
        (RUNS, signal.SIGINT, 130),
        (RUNS, signal.SIGTERM, 143),
        (STAYS, signal.SIGTERM, -signal.SIGTERM),
        (POUR, signal.SIGINT, -signal.SIGINT),
        (POUR, signal.SIGTERM, 143),
    ],
    ids=["run-int", "run-term", "stay-term", "sending-int", "sending-term"],
)
def test_a_signal_ends_a_flooded_tree(last, number, status):
    with running(FLOOD, last) as script:
        script.wait_line("flooded", count=2)
        script.signal_group(number)
        check(script, status)


@pytest.mark.parametrize("last", [RUNS, STAYS], ids=["run", "stay"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_a_restart_delay_starts_nothing_any_more(last, number):
    text = """
    def work():
        ipem.on("go", lambda message: os._exit(5))
        ipem.start()

    told("offline")
    ipem.options(delayRestart=60000)
    child = ipem.worker(work)
    child.send("go")
    """
    with running(text, last) as script:
        script.wait_line("offline")
        script.signal_group(number)
        lines = check(script, 128 + number if last is RUNS else -number, within=AT_ONCE_SECONDS)
    assert lines == ["offline"]


HANGS = """
def work():
    ipem.start()
    say("works")
    while True:
        try:
            time.sleep(1000)
        except BaseException:
            say("asked")

ipem.options(stopTimeout=600000)
child = ipem.worker(work)
"""


@pytest.mark.parametrize("last", [RUNS, STAYS], ids=["run", "stay"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_kills_and_ends_at_once(last, number):
    with running(HANGS, last) as script:
        script.wait_line("works")
        script.signal_group(signal.SIGINT)
        script.wait_line("asked")
        script.signal_group(number)
        check(script, -number, within=AT_ONCE_SECONDS)


def test_a_child_that_will_not_end_is_killed_in_time():
    with running(HANGS.replace("600000", "1000"), RUNS) as script:
        script.wait_line("works")
        script.signal_group(signal.SIGINT)
        ended = script.ended(1.0 + SPARE_SECONDS)
    assert ended.status == 130
    assert "does not end" in ended.err


def test_ctrl_c_in_the_body_is_an_ordinary_keyboard_interrupt():
    text = """
    try:
        ipem.start()
        say("works")
        time.sleep(1000)
    except KeyboardInterrupt:
        say("caught")
    """
    with running(WORKER, text) as script:
        script.wait_line("works")
        script.signal_group(signal.SIGINT)
        lines = check(script, 0)
    assert "caught" in lines


# The body's own end.


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(
    ("last", "status", "err"),
    [
        ("sys.exit(3)", 3, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit('no')", 1, "no\n"),
        ("raise KeyboardInterrupt", -signal.SIGINT, ""),
        ("os._exit(4)", 4, ""),
    ],
)
def test_a_body_that_is_left_ends_the_tree(how, last, status, err):
    if how in ("package", "directory", "stdin") and status not in (0, 3):
        pytest.skip("one of a kind is enough here")
    with running(WORKER, STAYS, KNOWN, last, how=how) as script:
        check(script, status, err, within=AT_ONCE_SECONDS)


def test_a_body_that_is_left_at_once_leaves_no_child():
    with running(WORKER, "os._exit(4)") as script:
        check(script, 4, within=AT_ONCE_SECONDS)


def test_an_uncaught_exception_shows_its_traceback_and_nothing_else():
    with running(WORKER, STAYS + "raise LookupError('mine')\n") as script:
        ended = script.ended(AT_ONCE_SECONDS)
    assert ended.status == 1
    assert ended.err.count("Traceback") == 1
    assert ended.err.splitlines()[-1] == "LookupError: mine"


def test_an_exception_in_a_function_of_the_body_is_one_too():
    with running(WORKER, "def main():\n    ipem.start()\n    int('x')\nmain()\n") as script:
        ended = script.ended(AT_ONCE_SECONDS)
    assert ended.status == 1
    assert ended.err.count("Traceback") == 1


def test_a_body_in_a_function_stays_as_well():
    with running(WORKER, "def main():\n    ipem.start()\nmain()\n") as script:
        ready(script)
        script.signal(signal.SIGTERM)
        check(script, -signal.SIGTERM)


@pytest.mark.parametrize(
    "last",
    [
        "if True:\n    ipem.start()\n",
        "for x in [1]:\n    ipem.start()\n",
        "try:\n    ipem.start()\nfinally:\n    pass\n",
        "with open(os.devnull):\n    ipem.start()\n",
    ],
)
def test_whatever_the_last_statement_is_the_script_stays(last):
    with running(WORKER, last) as script:
        ready(script)
        script.signal(signal.SIGTERM)
        check(script, -signal.SIGTERM)


def test_exit_hooks_of_the_script_run_whatever_ends_it():
    text = (
        "import atexit\natexit.register(say, 'early')\n" + WORKER + STAYS + "atexit.register(say, 'late')\n"
    )
    with running(text) as script:
        ready(script)
        script.signal(signal.SIGTERM)
        lines = check(script, -signal.SIGTERM)
    assert [line for line in lines if line != "online"] == ["late", "early"]


# stop(), from wherever.


def test_stop_in_the_main_thread_ends_the_tree_and_the_script_goes_on():
    with running(
        WORKER, STAYS + "ipem.stop()\nsay('after', child.alive, threading.active_count())\n"
    ) as script:
        lines = check(script, 0)
    assert lines[-1] == "after False 1"
