"""How a child is stopped: what its program can do about it, which signals it gets, and what it may finish."""

from __future__ import annotations

import itertools
import signal

import pytest
from matrix import diagonal, slow
from scripts import running, wait_gone

AT_ONCE_SECONDS = 2.0  # beyond a grace; on a machine that has other things to do
ORPHAN_SECONDS = 1.0 + 1.0  # the library's promise, and the same for the machine


def lines_of(*texts: str, err: str = "") -> list[str]:
    """What a script that ends by itself says."""
    with running(*texts) as script:
        ended = script.ended(20.0)
    assert (ended.status, ended.err) == (0, err), f"{ended.out}---\n{ended.err}"
    return ended.lines


# A child that tells what it does, and a parent that stops it when it is up; `stop()` tells how that went, and by
# the clock only what no load can change: that it was not before its time. Not after it: at the deadline comes a KILL.
STOPS = """
ipem.options(stopTimeout=6000)  # a grace is at most a third of it
ipem.on("said", lambda message, *words: say(*words))
tell = lambda *words: ipem.sendToParents("said", *words)

def stop(child, timeout=None, after=0.0):
    begun = time.monotonic()
    child.stop(timeout)
    say("stopped", child.exitcode, *["too early"] * (time.monotonic() - begun < after))

def when_up(work, *args, **options):
    with ipem.expecting("up"):
        return ipem.worker(work, args, **options)
"""


# Signals.


@pytest.mark.parametrize("how", ["SIG_IGN", "SIG_DFL", "handler"])
def test_sigint_is_the_users_in_a_worker(how):
    text = f"""
    def work(how):
        calls = []
        handler = getattr(signal, how, lambda *_: calls.append("called"))
        signal.signal(signal.SIGINT, handler)
        try:
            ipem.sendToParents("up")
            time.sleep(1000)  # what the stop interrupts
        finally:
            tell("finally", *calls, signal.getsignal(signal.SIGINT) == handler)

    ipem.start()
    stop(when_up(work, {how!r}), after=1.0)
    ipem.stop()
    """
    assert lines_of(STOPS, text) == ["finally True", "stopped 0"]


def test_a_handler_for_sigterm_is_called_once():
    text = """
    def work():
        calls = []
        signal.signal(signal.SIGTERM, lambda *_: calls.append(ipem.stopping))
        ipem.sendToParents("up")
        while not calls:
            time.sleep(0.01)
        threading.Event().wait(0.5)  # in which nothing more comes
        tell("called", *calls)
        sys.exit(7)

    ipem.start()
    stop(when_up(work, stopGrace=0))
    ipem.stop()
    """
    assert lines_of(STOPS, text)[0] == "called True"


def test_asyncio_with_signal_handlers_ends_as_under_any_supervisor():
    text = """
    async def serve():
        import asyncio
        calls = []
        asked = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, lambda number=number: (calls.append(int(number)), asked.set()))
        ipem.sendToParents("up")
        await asked.wait()
        await asyncio.sleep(0.5)  # the requests in flight
        tell("served", *calls)

    def work():
        import asyncio
        asyncio.run(serve())

    ipem.start()
    stop(when_up(work, stopGrace=100), after=0.6)
    ipem.stop()
    """
    assert lines_of(STOPS, text) == [f"served {int(signal.SIGTERM)}", "stopped 0"]


def test_asyncio_without_signal_handlers_is_unwound():
    text = """
    async def serve():
        import asyncio
        try:
            ipem.sendToParents("up")
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(0.3)
            tell("unwound")

    def work():
        import asyncio
        asyncio.run(serve())

    ipem.options(stopGrace=60000, stopTimeout=180000).start()  # not for this child
    stop(when_up(work, stopGrace=0), after=0.3)
    ipem.stop()
    """
    assert lines_of(STOPS, text) == ["unwound", "stopped 0"]


def test_with_the_default_action_the_signal_comes_after_children_and_what_is_queued():
    text = """
    def leaf():
        ipem.start()
        try:
            ipem.sendToParents("leaf")
            time.sleep(1000)  # what the stop interrupts
        finally:
            threading.Event().wait(0.3)
            ipem.sendToGrandMaster("said", "leaf")

    def work():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        ipem.on("stopping", lambda message: tell("stopping"))
        with ipem.expecting("leaf"):
            ipem.worker(leaf)
        ipem.sendToParents("up")
        while True:
            time.sleep(1000)

    ipem.start()
    stop(when_up(work, stopGrace=0))
    ipem.stop()
    """
    lines = lines_of(STOPS, text)
    assert sorted(lines[:2]) == ["leaf", "stopping"]
    assert lines[2] == "stopped -15"


def test_a_program_that_ignores_sigterm_has_until_the_deadline():
    text = """
    def work(seconds):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        ipem.sendToParents("up")
        for _ in range(seconds * 10):
            time.sleep(0.1)
        tell("done")

    ipem.start()
    stop(when_up(work, 2, stopGrace=0), 6.0)
    """
    assert lines_of(STOPS, text, "ipem.stop()\n") == ["done", "stopped 0"]


@pytest.mark.parametrize(("how", "method"), diagonal(["ignored", "blocked"], ["spawn", "forkserver"]))
def test_a_child_inherits_no_sigterm_that_its_starter_ignores_or_blocks(how, method):
    text = f"""
    def work():
        try:
            ipem.sendToParents("up")
            time.sleep(1000)
        finally:
            tell("finally", signal.pthread_sigmask(signal.SIG_BLOCK, []))

    if {how!r} == "ignored":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
    ipem.options(startMethod={method!r}).start()
    stop(when_up(work, stopGrace=0), 20.0)
    kept = signal.getsignal(signal.SIGTERM) == signal.SIG_IGN or signal.pthread_sigmask(signal.SIG_BLOCK, [])
    say("kept", bool(kept))
    """
    lines = lines_of(STOPS, text, "ipem.stop()\n")
    assert lines == ["finally set()", "stopped 0", "kept True"]


def test_a_sigterm_from_outside_during_a_stop_is_that_of_the_stop():
    text = """
    def work():
        ipem.on("stopping", lambda message: os.kill(os.getpid(), signal.SIGTERM))
        try:
            ipem.sendToParents("up")
            time.sleep(1000)  # what the signal interrupts
        finally:
            threading.Event().wait(2.0)  # longer than the grace
            tell("finally")

    ipem.start()
    stop(when_up(work), after=2.0)
    ipem.stop()
    """
    assert lines_of(STOPS, text) == ["finally", "stopped 0"]


def test_a_stop_leaves_alone_what_a_sigterm_before_it_unwinds():
    text = """
    def work():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1000)
        finally:
            ipem.sendToParents("up")
            threading.Event().wait(1.0)
            tell("finally")

    ipem.start()
    stop(when_up(work, stopGrace=0))
    ipem.stop()
    """
    assert lines_of(STOPS, text) == ["finally", "stopped 143"]


SWALLOWS = {
    "a finalizer": """
        class Finalized:
            def __del__(self):
                ipem.sendToParents("up")
                time.sleep(1000)
        Finalized()
    """,
    "a callback of C code": """
        import ctypes
        def call():
            ipem.sendToParents("up")
            time.sleep(1000)
        ctypes.CFUNCTYPE(None)(call)()
    """,
    "a bare except": """
        try:
            ipem.sendToParents("up")
            time.sleep(1000)
        except:
            pass
    """,
}


@pytest.mark.parametrize("swallower", SWALLOWS)
def test_a_stop_that_was_swallowed_is_repeated(swallower):
    text = f"""
    def work():
        sys.unraisablehook = lambda unraisable: None
        try:
            swallow()
            tell("swallowed")
            time.sleep(1000)
        finally:
            tell("finally")

    def swallow():
    {SWALLOWS[swallower]}

    ipem.options(stopGrace=60000, stopTimeout=180000).start()  # not for this child
    stop(when_up(work, stopGrace=0))
    ipem.stop()
    """
    assert lines_of(STOPS, text) == ["swallowed", "finally", "stopped 0"]


@pytest.mark.parametrize("how", ["emit", "start"])
def test_a_stop_goes_up_through_a_listener_that_the_program_itself_runs(how):
    text = """
    def work(how):
        ipem.on("ready" if how == "start" else "here", listen)
        try:
            ipem.start() if how == "start" else ipem.emit("here")
            say("goes on")
            time.sleep(1000)
        finally:
            say("finally")

    def listen(message):
        os.close(os.open("here", os.O_WRONLY))  # returns when the parent opens it as well
        time.sleep(1000)

    os.mkfifo("here")
    ipem.options(stopGrace=60000, stopTimeout=180000).start()  # not for this child
    child = ipem.worker(work, [HOW], stopGrace=0)
    os.close(os.open("here", os.O_RDONLY))
    stop(child)
    ipem.stop()
    """.replace("HOW", repr(how))
    assert lines_of(STOPS, text)[-2:] == ["finally", "stopped 0"]


@pytest.mark.parametrize(
    "waits",
    [
        "Emitter().options(socket=dict(port=port, host='127.0.0.1', authkey='k' * 16, onlyConnect=True)).start()",
        "Emitter().options(useSocket=False).start().waitFor('never')",
        "Emitter().options(useSocket=False).start().worker(signal.pause).join()",
    ],
    ids=["connects", "waits for an event", "waits for a child"],
)
def test_a_stop_ends_a_wait_for_another_emitter(waits):
    text = f"""
    import socket
    from ipevents import Emitter

    def work(port):
        ipem.start()
        try:
            ipem.sendToParents("up")
            {waits}
        finally:
            tell("finally")

    silent = socket.create_server(("127.0.0.1", 0))
    ipem.start()
    stop(when_up(work, silent.getsockname()[1], stopGrace=100))
    ipem.stop()
    """
    assert lines_of(STOPS, text) == ["finally", "stopped 0"]


def test_another_emitter_in_a_worker_ends_with_it_and_leaves_nothing():
    text = """
    from ipevents import Emitter

    def work():
        other = Emitter().options(useSocket=False).start()
        other.on("said", lambda message: say("said"))
        other.worker(say_it, restart=False)

    def say_it():
        ipem.sendToParents("said")

    ipem.start()
    child = ipem.worker(work, restart=False)
    say("joined", child.join(), child.exitcode)
    ipem.stop()
    """
    assert lines_of(STOPS, text) == ["said", "joined True 0"]  # and no private directory


@pytest.mark.parametrize("cleanup", ["finally", "except BaseException", "with"])
def test_a_cleanup_at_work_is_not_interrupted_again(cleanup):
    text = f"""
    import contextlib

    def work():
        if {cleanup!r} == "with":
            with contextlib.ExitStack() as stack:
                stack.callback(clean_up)
                wait()
        elif {cleanup!r} == "finally":
            try:
                wait()
            finally:
                clean_up()
        else:
            try:
                wait()
            except BaseException:
                clean_up()

    def wait():
        ipem.sendToParents("up")
        time.sleep(1000)

    def clean_up():
        import gc
        for _ in range(20):
            threading.Event().wait(0.05)
            gc.collect()
        tell("clean")

    ipem.start()
    stop(when_up(work, stopGrace=0), after=1.0)
    ipem.stop()
    """
    assert lines_of(STOPS, text) == ["clean", "stopped 0"]


def test_a_short_stop_ends_a_child_gracefully_as_well():
    text = """
    def work():
        try:
            ipem.sendToParents("up")
            time.sleep(1000)
        finally:
            tell("finally")

    ipem.start()
    stop(when_up(work), 0.5)
    ipem.stop()
    """
    lines = lines_of(STOPS, text)
    assert lines[0] == "finally"
    assert lines[1] == "stopped 0"


def test_a_process_that_the_program_waits_for_is_ended_with_it():
    text = """
    def work():
        import subprocess
        try:
            subprocess.run(["sh", "-c", "true > runs; exec sleep 1000"])
        finally:
            tell("finally")

    os.mkfifo("runs")
    ipem.start()
    child = ipem.worker(work)
    open("runs").close()
    stop(child, after=1.0)
    ipem.stop()
    """
    assert lines_of(STOPS, text) == ["finally", "stopped 0"]


# A program that notices the stop.


def test_a_loop_that_looks_at_stopping_ends_by_itself():
    text = """
    def work():
        ipem.sendToParents("up")
        while not ipem.stopping:
            begun = True
            threading.Event().wait(0.3)
            begun = False
        tell("left in order", not begun)

    ipem.start()
    stop(when_up(work))
    ipem.stop()
    """
    assert lines_of(STOPS, text)[0] == "left in order True"


def test_every_level_of_a_tree_has_its_grace_at_the_same_time():
    text = """
    def work(levels):
        if levels:
            with ipem.expecting("below"):
                ipem.worker(work, [levels - 1])
        ipem.sendToParents("up" if levels == 2 else "below")
        while not ipem.stopping:
            threading.Event().wait(0.05)
        open(f"stopping {levels}", "w").close()
        while not all(os.path.exists(f"stopping {level}") for level in range(3)):
            threading.Event().wait(0.05)  # none leaves before all know
        ipem.sendToGrandMaster("said", "left", levels)

    ipem.options(stopGrace=5000, stopTimeout=15000).start()
    when_up(work, 2)
    ipem.stop()
    """
    assert sorted(lines_of(STOPS, text)) == ["left 0", "left 1", "left 2"]


def test_the_event_stopping_comes_in_the_child_and_at_the_top_and_what_it_sends_arrives():
    text = """
    def work():
        @ipem.on("stopping")
        def stopping(message):
            tell("child", message.from_ == ipem.pid, ipem.stopping)
        ipem.start()
        ipem.sendToParents("up")

    ipem.on("stopping", lambda message: say("top", ipem.stopping))
    for _ in range(2):
        ipem.start()
        when_up(work)
        ipem.stop()
    """
    lines = lines_of(STOPS, text)
    assert sorted(lines[:2]) == sorted(lines[2:]) == ["child True True", "top True"]


def test_a_listener_of_stopping_can_wind_a_program_down():
    text = """
    def work():
        quit = threading.Event()
        ipem.on("stopping", lambda message: quit.set())
        ipem.sendToParents("up")
        quit.wait()
        tell("wound down")

    ipem.start()
    stop(when_up(work))
    ipem.stop()
    """
    lines = lines_of(STOPS, text)
    assert lines[0] == "wound down"
    assert lines[1] == "stopped 0"


def test_a_program_that_waits_for_stopping_winds_itself_down():
    text = """
    def work():
        with ipem.expecting("stopping") as got:
            ipem.sendToParents("up")
        tell("wound down", got.message.event, ipem.stopping)

    ipem.start()
    stop(when_up(work))
    ipem.stop()
    """
    lines = lines_of(STOPS, text)
    assert lines[0] == "wound down stopping True"
    assert lines[1] == "stopped 0"


# What waits for an online.

WORKS = {
    "listens": "ipem.on('job', job)",
    "starts": "ipem.on('job', job); ipem.start()",
    "runs": "ipem.on('job', job); ipem.run()",
    "waits": "ipem.on('job', job); ipem.waitFor('never')",
    "with": "ipem.on('job', job)\n    with ipem: pass",
    "later": "threading.Event().wait(0.3); ipem.on('job', job); ipem.start(); time.sleep(1000)",
}


STOPPERS = ["child.stop()", "ipem.stop()", "threading.Thread(target=ipem.stop).start()"]


@pytest.mark.parametrize(
    ("stop", "work"),
    [
        # Each of both with one of the other; slow are the other pairs.
        pytest.param(stop, work, marks=[pytest.mark.slow] * (stop != usual))
        for work, usual in zip(WORKS, itertools.cycle(STOPPERS), strict=False)
        for stop in STOPPERS
    ],
)
def test_a_stop_hands_over_what_waits_for_an_online(work, stop):
    text = f"""\
def job(message, number):
    message.reply("done", number)

def work():
    {WORKS[work]}

done = []
ipem.on("done", lambda message, number: done.append(number))
ipem.start()
child = ipem.worker(work)
for number in range(10):
    child.send("job", number)
{stop}
ipem.stop()
ipem.run()
say(done == list(range(10)), child.exitcode, child.restarts)
"""
    assert lines_of(text) == ["True 0 0"]


@pytest.mark.parametrize("stop", ["child.stop()", "ipem.stop()"])
def test_what_a_stop_cannot_hand_over_is_counted_and_named(stop):
    text = f"""
    def work():
        time.sleep(1000)  # longer than the grace

    ipem.options(stopGrace=0).start()
    child = ipem.worker(work)
    for number in range(10):
        child.send("job", number)
    {stop}
    ipem.stop()
    say(ipem.stats()["past"]["dropped"], child.exitcode)
    """
    with running(text) as script:
        ended = script.ended(20.0)
    assert (ended.status, ended.lines) == (0, ["{'stopped': 10} 0"])
    assert "10 events for child" in ended.err
    assert "it was stopped before its online" in ended.err


def test_a_stop_while_start_runs_the_listeners_of_ready_hands_over_what_waits():
    text = """
    def work():
        ipem.on("job", lambda message: message.reply("said", "done"))

        @ipem.on("ready")
        def ready(message):
            os.close(os.open("here", os.O_WRONLY))  # returns when the parent opens it as well
            threading.Event().wait(0.3)

        ipem.start()

    os.mkfifo("here")
    ipem.start()
    child = ipem.worker(work)
    child.send("job")
    os.close(os.open("here", os.O_RDONLY))
    stop(child)
    ipem.stop()
    """
    assert lines_of(STOPS, text)[0] == "done"


# A child that leaves by itself.

LEAVES = {
    "an exit hook": "import atexit; atexit.register(slow)",
    "an exit hook after stop": "import atexit; atexit.register(slow); ipem.stop()",
    "code after stop": "ipem.stop(); slow()",
    "code after with": "with ipem: pass\n    slow()",
    "a thread after stop": "threading.Thread(target=slow).start(); ipem.stop()",
}
ORPHANS_LEAVE = ["an exit hook", "a thread after stop"]
LEAVING = """
import sys, threading, time

def slow():
    try:
        with open("leaves", "w"):  # returns when the parent opens it as well
            pass
        time.sleep(SLOW)
        sys.stdout.write("done\\n")  # at once, beside other processes
        sys.stdout.flush()
    except BaseException as exc:
        print(repr(exc), flush=True)
        raise
"""


def test_a_child_that_leaves_by_itself_has_as_long_as_it_needs():
    works = [
        f"def work_{number}():\n    ipem.sendToParents('up')\n    {leave}\n"
        for number, leave in enumerate(LEAVES.values())
    ]
    text = """
os.mkfifo("leaves")
ipem.start()
children = [ipem.worker(work, restart=False) for name, work in list(globals().items()) if name.startswith("work_")]
reader = open("leaves")  # for all, as it stays open
for child in children:
    say("ended", child.join(), child.exitcode)
ipem.stop()
"""
    found = lines_of(LEAVING.replace("SLOW", "4.5"), *works, text)
    assert sorted(found) == ["done"] * len(LEAVES) + ["ended True 0"] * len(LEAVES)


def test_a_child_that_leaves_has_the_limit_of_its_option():
    text = """
    def work():
        ipem.start()
        import atexit
        atexit.register(slow)
        ipem.removeAllListeners()
        ipem.stop()

    os.mkfifo("leaves")
    ipem.options(leaveTimeout=100).start()
    child = ipem.worker(work, restart=False)
    open("leaves").close()
    say("ended", child.join(), child.exitcode)
    ipem.stop()
    """
    assert lines_of(LEAVING.replace("SLOW", "1000"), text) == ["ended True -9"]


def test_code_after_a_stop_of_its_own_gets_sigterm_when_the_parent_stops():
    text = """
    def work():
        with ipem:
            pass
        slow()

    os.mkfifo("leaves")
    ipem.options(stopTimeout=10000).start()
    child = ipem.worker(work, restart=False)
    open("leaves").close()
    ipem.stop()
    say("stopped", child.exitcode)
    """
    assert lines_of(LEAVING.replace("SLOW", "1000"), text) == ["Terminated(0)", "stopped 0"]


@pytest.mark.parametrize("how", [how if how in ORPHANS_LEAVE else slow(how) for how in LEAVES])
def test_a_child_that_leaves_ends_soon_after_its_parent_was_killed(how):
    text = f"""
def work():
    ipem.sendToParents("up")
    say("works", ipem.pid)
    {LEAVES[how]}

os.mkfifo("leaves")
ipem.start()
child = ipem.worker(work, restart=False)
open("leaves").close()
say("leaves")
threading.Event().wait()
"""
    with running(LEAVING.replace("SLOW", "1000"), text) as script:
        script.wait_line("leaves")
        script.signal(signal.SIGKILL)
        assert wait_gone(script.word("works"), ORPHAN_SECONDS), script.stacks()


# The second signal.

CHILD = """
def work():
    ipem.start()
    say("works")

child = ipem.worker(work)
ipem.start()
"""


PAIRS = {  # of a first and a second one
    "int-int": (signal.SIGINT, signal.SIGINT),
    "int-term": (signal.SIGINT, signal.SIGTERM),
    "term-int": (signal.SIGTERM, signal.SIGINT),
    "term-term": (signal.SIGTERM, signal.SIGTERM),
}
CLEANUPS = {
    "finally": "try:\n    wait()\nfinally:\n    clean_up()\n",
    "except": "try:\n    wait()\nexcept BaseException:\n    clean_up()\n",
    "exit hook": "import atexit; atexit.register(clean_up)\nwait()\n",
}


@pytest.mark.parametrize(("cleanup", "signals"), diagonal(CLEANUPS, PAIRS))
def test_the_second_signal_ends_at_once_also_before_the_stop(signals, cleanup):
    first, second = signals
    text = """
    def sleep():
        while True:  # not once for long: a signal just before that would not end it
            time.sleep(0.01)

    def wait():
        say("waits")
        sleep()

    def clean_up():
        say("cleans up")
        sleep()
    """
    with running(CHILD, text, cleanup) as script:
        script.wait_line("works")
        script.wait_line("waits")
        script.signal(first)
        script.wait_line("cleans up")
        script.signal(second)
        ended = script.ended(AT_ONCE_SECONDS)
    assert (ended.status, ended.err) == (-second, "")


def test_a_program_that_has_caught_ctrl_c_and_goes_on_may_be_interrupted_again():
    text = """
    for n in range(3):
        try:
            say("waits", n)
            for _ in iter(int, 1):
                time.sleep(0.01)
        except KeyboardInterrupt:
            pass
    say("goes on", child.alive)
    ipem.stop()
    """
    with running(CHILD, text) as script:
        script.wait_line("works")
        for n in range(3):
            script.wait_line(f"waits {n}")
            script.signal_group(signal.SIGINT)
        ended = script.ended()
    assert (ended.status, ended.err, ended.lines[-1]) == (0, "", "goes on True")
