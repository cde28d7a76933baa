"""Children that die, are stopped, hang or fork: what their parent does, and what becomes of them without
it.
"""

from __future__ import annotations

import re
import signal

import pytest
from matrix import diagonal, slow
from scripts import Script, running, wait_gone

AT_ONCE_SECONDS = 2.0  # what takes milliseconds, on a machine that has other things to do
ORPHAN_SECONDS = 1.0 + 1.0  # the library's promise, and the same for the machine


def check(script: Script, status: int = 0, err: str = "", within: float = 4.0) -> list[str]:
    ended = script.ended(within)
    assert (ended.status, ended.err) == (status, err), f"{ended.out}---\n{ended.err}"
    return ended.lines


def lines_of(*texts: str, status: int = 0, err: str = "", files: dict[str, str] | None = None) -> list[str]:
    """What a script that ends by itself says."""
    with running(*texts, files=files) as script:
        return check(script, status, err, within=20.0)


# A child that ends in the way it is told to; the parent tells what it sees and stops after some starts.
ENDS = """
def work(how):
    def go(message):
        if how == "return":
            ipem.removeAllListeners()
        elif how == "exit":
            raise SystemExit(7)
        elif how == "os._exit":
            os._exit(9)
        elif how == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif how == "term":
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            os.kill(os.getpid(), signal.SIGKILL)
    ipem.on("go", go)
    ipem.start()

starts = []

@ipem.on("online")
def online(message):
    if message.from_ == ipem.pid:
        return
    starts.append(message.from_)
    if len(starts) == 3:
        say("restarts", child.restarts, len(set(starts)), child.pid == starts[-1], child.alive)
        ipem.stop()
    else:
        message.reply("go")

@ipem.on("offline")
def offline(message, pid):
    if not ipem.stopping:
        say("offline", pid == starts[-1], message.exitcode, message.exitcode == child.exitcode)
"""


@pytest.mark.parametrize(
    ("how", "code"),
    [("exit", 7), ("os._exit", 9), ("segfault", -signal.SIGSEGV), ("kill", -signal.SIGKILL), ("term", 143)],
)
def test_a_child_is_restarted_after_any_end(how, code):
    err = ""
    with running(
        "import faulthandler; faulthandler.disable()\n",
        ENDS,
        f"child = ipem.worker(work, ({how!r},))\nipem.run()\n",
        python=("-X", "faulthandler=0"),
    ) as script:
        ended = script.ended(20.0)
    assert ended.lines == [f"offline True {code} True"] * 2 + ["restarts 2 2 True True"] or ended.lines == [
        f"offline True {code} True"
    ] * 2 + ["restarts 2 3 True True"]
    assert ended.status == 0
    if how != "segfault":
        assert ended.err == err


def test_it_is_restarted_after_the_delay_and_not_before():
    text = """
    @ipem.on("online")
    def again(message):
        if len(starts) == 2:
            ended = child._state.exited_at  # its offline may be told later
            say("enough", 0.3 <= time.monotonic() - ended)
            ipem.stop()

    child = ipem.worker(work, ("kill",), delayRestart=300)
    ipem.run()
    """
    assert "enough True" in lines_of(ENDS, text)


@pytest.mark.parametrize(
    ("how", "policy", "restarted"),
    [
        # All pairs: core/test_restarts.py.
        ("kill", False, False),
        slow("kill", "on-failure", True),
        ("exit", "on-failure", True),
        slow("stop", "on-failure", False),
        ("stop", True, True),
        slow("zero", True, True),
        ("zero", "on-failure", False),
        slow("zero", False, False),
    ],
)
def test_the_policy_of_a_child_decides(how, policy, restarted):
    text = f"""
    def work(n):
        def go(message):
            if {how!r} == "kill": os.kill(os.getpid(), signal.SIGKILL)
            if {how!r} == "exit": sys.exit(7)
            if {how!r} == "zero": sys.exit(0)
            ipem.stop()
        ipem.on("go", go)
        ipem.start()

    started = threading.Semaphore(0)
    ipem.on("online", lambda message: message.from_ == ipem.pid or started.release())
    child = ipem.worker(work, (1,), restart={policy!r}, delayRestart=0)
    started.acquire()
    child.send("go")
    if {restarted}:
        started.acquire()
        say("restarted", child.join(0), child.restarts)
    else:
        say("ended", child.join(), child.restarts, child.alive)
    ipem.stop()
    """
    assert lines_of(text) == (["restarted False 1"] if restarted else ["ended True 0 False"])


def test_the_policy_may_be_changed_while_it_runs():
    text = """
    def work():
        ipem.on("go", lambda message: os._exit(1))
        ipem.start()

    child = ipem.worker(work)
    say(child.restart)
    child.restart = False
    child.send("go")
    say("ended", child.join(), child.restart, child.exitcode)
    ipem.stop()
    """
    assert lines_of(text) == ["True", "ended True False 1"]


def test_a_child_may_be_given_other_options_than_the_rest():
    text = """
    def work():
        ipem.on("go", lambda message: os._exit(1))
        ipem.start()

    ipem.options(restart=False)
    one, other = ipem.worker(work), ipem.worker(work, restart=True, delayRestart=60000)
    say(one.restart, other.restart)
    with ipem.expecting("offline", where=lambda message, pid: pid == other.pid):
        one.send("go")
        other.send("go")
    say("one", one.join(), "other", other.join(0), ipem.childsOnline)
    ipem.stop()
    """
    assert lines_of(text) == ["False True", "one True other False 0"]


def test_options_set_after_start_hold_for_the_children_started_later():
    text = """
    def work():
        ipem.on("go", lambda message: os._exit(1))
        ipem.start()

    ipem.start()
    online = threading.Semaphore(0)
    ipem.on("online", lambda message: online.release())
    before = ipem.worker(work)
    ipem.options(restart=False)
    after = ipem.worker(work)
    before.send("go")
    after.send("go")
    for _ in range(3): online.acquire()
    say(before.restart, before.restarts, after.restart, after.join(), after.restarts)
    ipem.stop()
    """
    assert lines_of(text) == ["True 1 False True 0"]


def test_a_crash_loop_is_slowed_down():
    """Nothing is between the first four; then 100, 200, 400 ms."""
    text = """
    def work():
        ipem.on("go", lambda message: os._exit(1))
        ipem.start()

    times = []
    done = threading.Event()

    @ipem.on("offline")
    def offline(message, pid):
        times.append(time.monotonic())
        if len(times) == 7:
            done.set()

    ipem.on("online", lambda message: message.from_ == ipem.pid or message.reply("go"))
    child = ipem.worker(work, delayRestart=0)
    done.wait()
    ipem.stop()
    gaps = [b - a for a, b in zip(times, times[1:])]
    say("fifth", gaps[4] >= 0.1, "sixth", gaps[5] >= 0.2)
    """
    assert lines_of(text) == ["fifth True sixth True"]


def test_it_gives_up_after_max_restarts_and_says_so():
    text = """
    def work():
        os._exit(4)

    ipem.options(maxRestarts=3, delayRestart=0)
    ipem.on("error", lambda message, error: say(type(error).__name__, getattr(error, "exitcode", "")))
    child = ipem.worker(work)
    say("ended", child.join(), child.restarts, child.exitcode)
    ipem.stop()
    """
    lines = lines_of(text)
    assert sorted(lines) == ["GaveUp ", *["StartFailed 4"] * 3, "ended True 2 4"]
    assert [line for line in lines if line != "ended True 2 4"][-1] == "GaveUp "


def test_start_failed_carries_the_traceback_of_the_child():
    text = """
    def work():
        raise LookupError("mine")

    ipem.on("error", lambda message, error: say(type(error).__name__, error.pid == child.pid, error.exitcode, error.traceback.splitlines()[-1]))
    child = ipem.worker(work, restart=False)
    child.join()
    ipem.stop()
    """
    with running(text) as script:
        ended = script.ended(20.0)
    assert (ended.status, ended.lines) == (0, ["StartFailed True 1 LookupError: mine"])
    assert ended.err.count("Traceback") == 1  # multiprocessing's own, of the child


@pytest.mark.parametrize("before", ["", "ipem.start()"])
def test_a_failing_worker_shows_one_traceback_that_says_whose_it_is(before):
    text = f"""
    def work():
        {before}
        raise LookupError("mine")

    child = ipem.worker(work, restart=False)
    child.join()
    say(child.pid)
    ipem.stop()
    """
    with running(text) as script:
        ended = script.ended(20.0)
    pid = ended.out.strip()
    lines = ended.err.splitlines()
    assert lines[:2] == [f"Process work ({pid}):", "Traceback (most recent call last):"]
    assert ended.err.count("Traceback") == 1
    assert re.fullmatch(
        rf"! TargetFailed in main\.py \(\d+\): child work \({pid}\) failed, exit code 1: LookupError: mine"
        if before
        else rf"! StartFailed in main\.py \(\d+\): child work \({pid}\) ended before it was online, exit code 1: "
        "LookupError: mine",
        lines[-1],
    )


def test_what_a_program_raises_after_its_online_is_told_to_the_parent_after_its_offline():
    text = """
    def work():
        ipem.start()
        raise LookupError("mine")

    def failed(message, error):
        say(type(error).__name__, error.name, error.pid == child.pid, error.exitcode)
        say(error.traceback.splitlines()[-1], message.child is child, message.failed, message.listener)
        ipem.stop()

    told("offline")
    ipem.on("error", failed)
    ipem.start()
    child = ipem.worker(work, name="resize", restart=False)
    ipem.run()
    """
    with running(text) as script:
        ended = script.ended(20.0)
    assert ended.lines == ["offline", "TargetFailed resize True 1", "LookupError: mine True None None"]
    assert ended.err.count("Traceback") == 1  # of the child


@pytest.mark.parametrize(
    ("kind", "when"),
    diagonal(
        ["asyncio.CancelledError", "KeyboardInterrupt", "BaseException"],
        {"early": ("pass", "StartFailed"), "late": ("ipem.start()", "TargetFailed")},
    ),
)
def test_what_is_no_exception_is_told_to_the_parent_as_well(kind, when):
    before, error = when
    text = f"""
    import asyncio

    def work():
        {before}
        raise {kind}("mine")

    def failed(message, error):
        say(type(error).__name__, error.exitcode, error.traceback.splitlines()[-1])

    ipem.on("error", failed)
    ipem.start()
    child = ipem.worker(work, name="resize", restart=False)
    child.join()
    say(child.pid)
    ipem.stop()
    """
    with running(text) as script:
        ended = script.ended(20.0)
    what, pid = sorted(ended.lines, reverse=True)
    assert re.fullmatch(rf"{error} 1 (asyncio\.exceptions\.)?{kind.rpartition('.')[2]}: mine", what)
    assert ended.err.startswith(f"Process resize ({pid}):\n")


@pytest.mark.parametrize("how", ["sys.exit(3)", "os._exit(4)", "os.kill(os.getpid(), 9)"])
def test_an_end_without_an_exception_is_no_failed_target(how):
    text = f"""
    def work():
        with ipem.expecting("parent", 20.0):
            ipem.start()
        {how}

    ipem.on("error", lambda message, error: say(type(error).__name__))
    child = ipem.worker(work, restart=False)
    child.join()
    ipem.stop()
    """
    with running(text) as script:
        assert script.ended(20.0).lines == []


def test_children_are_named_by_their_targets_whatever_kind_these_are():
    text = """
    import functools

    class Counter:
        def __call__(self):
            pass
        def count(self):
            pass

    class Job:
        def __init__(self):
            pass

    def resize(size):
        pass

    targets = [resize, functools.partial(resize, 1), Counter(), functools.partial(Counter()), Counter().count]
    for target in [*targets, Job, lambda: None, print]:
        say(ipem.worker(target, [2] if target is resize else [], restart=False).name)
    ipem.stop()
    """
    with running(text) as script:
        lines = script.ended(20.0).lines
    assert [line for line in lines if line] == [
        *["resize"] * 2,
        *["Counter"] * 2,
        "count",
        "Job",
        "<lambda>",
        "print",
    ]


def test_a_failing_listener_of_a_worker_is_logged_once_with_the_workers_name():
    text = """
    def work():
        @ipem.on("job")
        def job(message):
            1 / 0

    with ipem:
        for name in ("alice", "bob"):
            with ipem.expecting("online", 20.0):
                child = ipem.worker(work, name=name)
                child.send("job")
            say(name, child.pid)
    """
    with running(text) as script:
        ended = script.ended(20.0)
    pids = dict(line.split() for line in ended.lines)
    for name, pid in pids.items():
        (line,) = [line for line in ended.err.splitlines() if name in line]
        told = rf"of event 'job' from {script.pid} failed in {name} \({pid}\): ZeroDivisionError: division by zero"
        assert re.fullmatch(rf"! listener work\.<locals>\.job \(\S+:\d+\) {told}", line)
    assert ended.err.count("Traceback") == 2


# What has finished.


def test_a_function_that_returned_is_not_restarted():
    text = """
    child = ipem.worker(say, ("once",))
    say("ended", child.join(), child.exitcode, child.restarts, child.alive)
    ipem.stop()
    """
    assert lines_of(text) == ["once", "ended True 0 0 False"]


def test_a_function_that_returned_is_restarted_if_the_child_was_told_so():
    text = """
    def work():
        ipem.sendToParents("up")

    ups = threading.Semaphore(0)
    ipem.on("up", lambda message: ups.release())
    child = ipem.worker(work, restart=True)
    for _ in range(3): ups.acquire()
    say("restarts", child.restarts >= 2)
    ipem.stop()
    """
    assert lines_of(text) == ["restarts True"]


@pytest.mark.parametrize("last", ["", "sys.exit(0)", "sys.exit(3)", "raise SystemExit"])
def test_a_script_that_ended_is_restarted(last):
    files = {
        "other.py": f"import sys\nfrom ipevents import ipem\nipem.sendToParents('up', *sys.argv[1:])\n{last}\n"
    }
    text = """
    ups = threading.Semaphore(0)
    ipem.on("up", lambda message, *args: (say("up", *args), ups.release()))
    child = ipem.fork("other.py", ["a", 1])
    for _ in range(3): ups.acquire()
    ipem.stop()
    """
    assert lines_of(text, files=files)[:3] == ["up a 1"] * 3


def test_a_function_that_exits_is_restarted():
    text = """
    def work():
        ipem.sendToParents("up")
        sys.exit(0)

    ups = threading.Semaphore(0)
    ipem.on("up", lambda message: ups.release())
    child = ipem.worker(work)
    for _ in range(3): ups.acquire()
    ipem.stop()
    say("restarts", child.restarts >= 2)
    """
    assert lines_of(text) == ["restarts True"]


# The handle.


def test_child_stop_is_a_wanted_end():
    text = """
    def work():
        ipem.start()
        try:
            time.sleep(1000)  # what the stop interrupts
        finally:
            say("finally")

    ipem.start()
    with ipem.expecting("online", where=lambda message: message.from_ != ipem.pid):
        child = ipem.worker(work, name="one")
    say(child.name, child.alive, child.exitcode, child.process.is_alive())
    child.stop()
    say("stopped", child.alive, child.exitcode, child.join(0), child.restarts, child.process)
    child.stop(); child.kill()
    ipem.stop()
    """
    assert lines_of(text) == ["one True None True", "finally", "stopped False 0 True 0 None"]


def test_child_kill_is_a_wanted_end():
    text = """
    ipem.start()
    with ipem.expecting("online", where=lambda message: message.from_ != ipem.pid):
        child = ipem.worker(ipem.run)
    child.kill()
    say("killed", child.join(), child.exitcode, child.restarts)
    ipem.stop()
    """
    assert lines_of(text) == ["killed True -9 0"]


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_child_that_waits_for_its_restart_can_be_ended(end):
    text = f"""
    def work():
        ipem.on("go", lambda message: os._exit(1))
        ipem.start()

    child = ipem.worker(work, delayRestart=60000)
    with ipem.expecting("offline"):
        child.send("go")
    child.{end}()
    say("ended", child.join(), child.restarts, child.exitcode)
    ipem.stop()
    """
    assert lines_of(text) == ["ended True 0 1"]


def test_stop_of_a_child_in_a_listener_does_not_wait():
    text = """
    @ipem.on("online")
    def online(message):
        if message.from_ != ipem.pid:
            started.wait()
            child.stop()
            say("asked")

    started = threading.Event()
    child = ipem.worker(ipem.run)
    started.set()
    say("ended", child.join(), child.exitcode)
    ipem.stop()
    """
    assert lines_of(text) == ["asked", "ended True 0"]


def test_a_child_that_hangs_is_killed_by_stop_after_its_time():
    text = """
    def work():
        ipem.start()
        while True:
            try:
                time.sleep(1000)  # what the stop interrupts
            except BaseException:
                pass

    ipem.start()
    with ipem.expecting("online", where=lambda message: message.from_ != ipem.pid):
        child = ipem.worker(work)
    begun = time.monotonic()
    child.stop(0.5)
    say("ended", child.join(), child.exitcode in (1, -9), time.monotonic() - begun < 1.5)
    ipem.stop()
    """
    with running(text) as script:
        ended = script.ended(20.0)
    assert (ended.status, ended.lines) == (0, ["ended True True True"])


def test_send_goes_to_the_process_that_runs_now_or_next():
    text = """
    def work():
        ipem.on("go", lambda message: os._exit(1))
        ipem.on("ask", lambda message, n: message.reply("answer", n))
        ipem.start()

    from ipevents import UnknownProcess
    child = ipem.worker(work, delayRestart=100)
    for n in range(3):
        with ipem.expecting("answer") as got:
            child.send("ask", n)
        say("answer", *got.message.args, got.message.from_ == child.pid)
        before = child.pid
        with ipem.expecting("answer", where=lambda message, n: say("next", n) or n == "last") as got:
            with ipem.expecting("offline"):
                child.send("go")
            child.send("ask", n)
            ipem.sendToChild(child, "ask", "last")
            try:
                ipem.sendToChild(before, "ask", "never")
            except UnknownProcess:
                say("refused")
        say(got.message.from_ == child.pid != before)
    dropped = [ipem.stats()["past"]["dropped"], *(link["dropped"] for link in ipem.stats()["links"].values())]
    say({cause for each in dropped for cause in each}, 3 <= sum(sum(each.values()) for each in dropped) <= 10)
    ipem.stop()
    """
    told = [[f"answer {n} True", "refused", f"next {n}", "next last", "True"] for n in range(3)]
    assert lines_of(text) == [
        *(line for lines in told for line in lines),
        "{'link-cut'} True",
    ]  # each "go" at least, and at most all but the two that the last process has answered


def test_what_waits_for_a_next_process_that_never_comes_online_is_lost_and_counted():
    text = """
    def work():
        if os.path.exists("second"):
            os._exit(2)
        ipem.on("go", lambda message: os._exit(1))

    with ipem:
        with ipem.expecting("online", where=lambda message: message.from_ != ipem.pid):
            child = ipem.worker(work, delayRestart=100)
        open("second", "w").close()
        with ipem.expecting("error") as got:
            with ipem.expecting("offline"):
                child.send("go")
            child.send("x")
            child.send("y")
        child.kill()
        child.join()
        say(type(got.message.args[0]).__name__, got.message.child is child, ipem.stats()["past"]["dropped"])
    """
    assert lines_of(text) == ["StartFailed True {'link-cut': 3}"]  # "go" as well


@pytest.mark.parametrize("how", ["ipem.stop()", "child.stop()", "child.kill(); child.join()"])
def test_what_waits_for_a_restart_that_a_stop_prevents_is_counted(how):
    text = f"""
    def work():
        ipem.on("go", lambda message: os._exit(1))

    child = ipem.worker(work, delayRestart=1000000)
    with ipem.expecting("offline"):
        child.send("go")
    child.send("x")
    {how}
    say(child.alive, child.restarts, ipem.stats()["past"]["dropped"])
    ipem.stop()
    """
    assert lines_of(text) == ["False 0 {'link-cut': 2}"]  # "go" as well


def test_what_was_sent_to_a_child_that_dies_before_its_online_is_lost_and_counted():
    text = """
    def work():
        if not os.path.exists("second"):
            open("second", "w").close()
            open("die").close()  # returns when the parent opens it as well
            os._exit(1)
        ipem.on("ask", lambda message, n: message.reply("answer", n))
        ipem.start()

    errors = []
    ipem.on("error", lambda message, error: errors.append(type(error).__name__))
    ipem.on("answer", lambda message, n: say("answer", n))
    os.mkfifo("die")
    child = ipem.worker(work)
    for n in range(5):
        child.send("ask", n)
    with ipem.expecting("online", where=lambda message: message.from_ != ipem.pid):
        open("die", "w").close()
    with ipem.expecting("answer"):
        child.send("ask", 5)
    past = ipem.stats()["past"]
    say(*errors, sum(past["dropped"].values()), past["dropped"].get("link-cut"))
    ipem.stop()
    """
    lines = lines_of(text)
    assert lines[0] == "answer 5"
    assert lines[1] == "StartFailed 5 5"  # the second number: of which were cut off with the link


# Signals and foreign hands.


def test_a_stopped_child_does_not_hold_up_a_stop():
    text = """
    ipem.options(stopTimeout=700)
    ipem.start()
    with ipem.expecting("online", where=lambda message: message.from_ != ipem.pid):
        child = ipem.worker(ipem.run)
    os.kill(int(child.pid), signal.SIGSTOP)
    while "State:\tT" not in open(f"/proc/{child.pid}/status").read():  # until all its threads stand still
        os.sched_yield()
    begun = time.monotonic()
    ipem.stop()
    say("stopped", child.alive, time.monotonic() - begun < 1.7)
    """
    assert lines_of(text) == ["stopped False True"]


def test_a_child_that_lost_its_link_and_does_not_end_is_ended_by_its_limit_and_started_again():
    text = """
    import contextlib, socket

    def work():
        @ipem.on("cut")
        def cut(message):
            for descriptor in os.listdir("/dev/fd"):
                with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(descriptor))) as found:
                    found.shutdown(socket.SHUT_RDWR)
            os.kill(os.getpid(), signal.SIGSTOP)  # before it notices
        ipem.start()

    ipem.options(leaveTimeout=500).start()
    with ipem.expecting("online"):
        child = ipem.worker(work)
    with ipem.expecting("online"), ipem.expecting("offline") as got:
        child.send("cut")
    say("restarted", got.message.exitcode != 0, child.restarts)
    ipem.stop()
    """
    assert lines_of(text) == ["restarted True 1"]


@pytest.mark.parametrize("how", ["ignored", "stolen"])
def test_the_end_of_a_child_is_noticed_though_somebody_else_reaps_it(how):
    text = f"""
    def work():
        ipem.on("go", lambda message: os._exit(6))
        ipem.start()

    if {how!r} == "ignored":
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    else:
        def steal(number, frame):
            try:
                while os.waitpid(-1, os.WNOHANG)[0]: pass
            except ChildProcessError:
                pass
        signal.signal(signal.SIGCHLD, steal)
    ipem.on("offline", lambda message, pid: say("offline", message.exitcode in (None, 6)))
    child = ipem.worker(work)
    for n in range(2):
        with ipem.expecting("online", where=lambda message: message.from_ != ipem.pid):
            child.send("go")
    say("restarts", child.restarts)
    """
    lines = lines_of(
        text.replace(
            "for n in range(2):",
            "ipem.waitFor('online', where=lambda message: message.from_ != ipem.pid)\n    for n in range(2):",
        ),
        "ipem.removeAllListeners('offline')\nipem.stop()\n",
    )
    assert lines == ["offline True", "offline True", "restarts 2"]


POOL = """
import multiprocessing

def work():
    pool = multiprocessing.get_context("fork").Pool(2)
    pool.map(abs, [1, 2])
    ipem.on("go", lambda message: os.kill(os.getpid(), signal.SIGKILL))
    ipem.start()
    ipem.sendToParents("pids", *[process.pid for process in pool._pool])
    ipem.waitFor("never")
"""


def test_the_death_of_a_child_is_noticed_at_once_though_its_own_forks_live():
    text = """
    import warnings
    warnings.simplefilter("ignore")
    helpers = []
    ipem.on("pids", lambda message, *pids: helpers.extend(pids))
    ipem.start()
    with ipem.expecting("pids"):
        child = ipem.worker(work, restart=False)
    begun = time.monotonic()
    with ipem.expecting("offline"):
        child.send("go")
    say("noticed", time.monotonic() - begun < 1.0, child.join())
    for pid in helpers:
        os.kill(pid, signal.SIGKILL)
    ipem.stop()
    """
    lines = lines_of(POOL, text)
    assert lines == ["noticed True True"]


def test_a_pool_forked_by_the_parent_hides_neither_the_death_of_a_child_nor_its_own():
    text = """
    import multiprocessing
    import warnings
    warnings.simplefilter("ignore")

    def work():
        ipem.on("go", lambda message: os._exit(3))
        ipem.start()

    ipem.start()
    with ipem.expecting("online", where=lambda message: message.from_ != ipem.pid):
        child = ipem.worker(work, delayRestart=0)
    pool = multiprocessing.get_context("fork").Pool(2)
    say(pool.map(abs, [-1, -2]))
    begun = time.monotonic()
    with ipem.expecting("online", where=lambda message: message.from_ != ipem.pid):
        with ipem.expecting("offline"):
            child.send("go")
        say("noticed", time.monotonic() - begun < 1.0)
    pool.terminate()
    ipem.stop()
    """
    assert lines_of(text) == ["[1, 2]", "noticed True"]


# Without a parent.

ORPHANS = {
    "idle": "ipem.run()",
    "busy": "while True: time.monotonic()",
    "hung listener": "ipem.emit('hang')",
    "hung notice": "ipem.worker(os.abort, restart=False); ipem.run()",
    "a thread of its own": "threading.Thread(target=threading.Event().wait).start(); ipem.run()",
    "will not leave": "while True:\n        try: time.sleep(1000)\n        except BaseException: pass",
    "being stopped": "while True:\n        try: time.sleep(1000)\n        except BaseException: ipem.sendToParents('asked')",
}


@pytest.mark.parametrize("doing", ORPHANS)
def test_children_end_soon_after_their_parent_was_killed(doing):
    text = f"""
def leaf():
    ipem.start()
    ipem.sendToGrandMaster("leaf")
    ipem.run()

def work():
    ipem.on("hang", lambda message: threading.Event().wait())
    ipem.on("error", lambda message, error: threading.Event().wait())
    ipem.start()
    with ipem.expecting("online", where=lambda message: message.from_ != ipem.pid):
        child = ipem.worker(leaf)
    ipem.sendToParents("works")
    {ORPHANS[doing]}

ipem.options(stopTimeout=600000)
ready = threading.Semaphore(0)
ipem.on("works", lambda message: ready.release())
ipem.on("leaf", lambda message: ready.release())
child = ipem.worker(work)
ready.acquire(); ready.acquire()
if {doing!r} == "being stopped":
    asked = threading.Event()
    ipem.on("asked", lambda message: asked.set())
    threading.Thread(target=ipem.stop, daemon=True).start()
    asked.wait()
say("ready")
threading.Event().wait()
"""
    with running(text) as script:
        script.wait_line("ready")
        script.signal(signal.SIGKILL)
        assert script.left(ORPHAN_SECONDS) == [], script.stacks()
        assert script.private_directories() == []


def test_children_with_a_pool_end_soon_after_their_parent_was_killed():
    text = """
    ipem.on("pids", lambda message, *pids: say("ready", message.from_))
    child = ipem.worker(work)
    ipem.run()
    """
    with running("import warnings; warnings.simplefilter('ignore')\n", POOL, text) as script:
        worker = script.word("ready")  # the resource tracker lives as long as the pool's processes
        script.signal(signal.SIGKILL)
        assert wait_gone(worker, ORPHAN_SECONDS), script.stacks()


# Forks by the user.


def test_a_forked_process_has_a_disarmed_emitter_and_the_parent_goes_on():
    text = """
    import warnings
    warnings.simplefilter("ignore")
    from ipevents import ForkedError

    def work():
        ipem.on("ask", lambda message, n: message.reply("answer", n))
        ipem.start()

    child = ipem.worker(work)
    with ipem.expecting("answer"):
        child.send("ask", 0)
    pid = os.fork()
    if not pid:
        for call in (
            lambda: ipem.sendToChilds("ask", 1),
            lambda: child.send("ask", 1),
            lambda: ipem.sendTo([child.pid], "ask", 1),
            lambda: ipem.waitFor("answer"),
            lambda: ipem.start(),
            lambda: ipem.worker(work),
        ):
            try:
                call()
                say("nothing was raised")
            except ForkedError:
                pass
        ipem.stop()
        sys.exit(5)
    say("forked", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    with ipem.expecting("answer") as got:
        child.send("ask", 2)
    say("answer", *got.message.args)
    ipem.stop()
    """
    assert lines_of(text) == ["forked 5", "answer 2"]


@pytest.mark.parametrize("where", ["main", "listener"])
def test_listeners_can_be_called_in_a_fork_made_while_one_was_running(where):
    text = f"""
    import warnings
    warnings.simplefilter("ignore")

    def fork():
        pid = os.fork()
        if not pid:
            ipem.on("here", lambda message: say("here"))
            ipem.emit("here")
            os._exit(0)
        say("forked", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    runs, done = threading.Event(), threading.Event()

    @ipem.on("online")
    def online(message):
        if message.from_ != ipem.pid:
            if {where!r} == "listener":
                fork()
            runs.set()
            done.wait()

    child = ipem.worker(ipem.run)
    runs.wait()
    if {where!r} == "main":
        fork()
    done.set()
    ipem.stop()
    """
    assert lines_of(text) == ["here", "forked 0"]


def test_a_fork_that_just_ends_takes_nothing_with_it():
    text = """
    import warnings
    warnings.simplefilter("ignore")
    ipem.start()
    with ipem.expecting("online", where=lambda message: message.from_ != ipem.pid):
        child = ipem.worker(ipem.run)
    pid = os.fork()
    if pid:
        say("forked", os.waitpid(pid, 0)[1], child.alive, len(os.listdir(os.environ["TMPDIR"])) > 0)
        ipem.stop()
    """
    assert lines_of(text) == ["forked 0 True True"]


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_both_start_methods_serve(method):
    text = f"""
    def work(n):
        ipem.on("go", lambda message: os._exit(n))
        ipem.start()

    ipem.options(startMethod={method!r})
    child = ipem.worker(work, (5,))
    for n in range(2):
        with ipem.expecting("online", where=lambda message: message.from_ != ipem.pid):
            if n: child.send("go")
    say("restarts", child.restarts, child.exitcode)
    ipem.stop()
    """
    assert lines_of(text) == ["restarts 1 5"]


def test_the_longest_delay_of_a_restart_holds_up_nobody():
    program = """
        def dies():
            ipem.on("die", lambda message: os._exit(1))

        def answers():
            ipem.on("ping", lambda message: message.reply("pong"))

        ipem.start()
        with ipem.expecting("online", 30, where=lambda message: message.from_ != ipem.pid):
            other = ipem.worker(answers)
        with ipem.expecting("offline", 30):
            waits = ipem.worker(dies, delayRestart=2**31 - 1)
            waits.send("die")
        for _ in range(3):  # the supervisor has begun its long wait, and is rung out of it by each of these
            with ipem.expecting("offline", 30):
                ipem.worker(dies, restart=False).send("die")
        with ipem.expecting("pong", 30):
            other.send("ping")
        say(other.alive, waits.alive, waits.restarts)
        ipem.stop()
        """
    assert lines_of(program) == ["True False 0"]


def test_after_a_listener_has_called_sys_exit_nothing_is_handled_and_what_was_sent_arrives():
    program = """
        def work():
            ipem.on("job", job).on("job", lambda message, number: ipem.sendToParents("second", number))
            ipem.on("offline", lambda message, pid: ipem.sendToParents("told"))
            ipem.on("error", lambda message, exc: ipem.sendToParents("told"))

        def job(message, number):
            for part in range(1000):
                message.reply("part", part)
            sys.exit(5 + number)

        parts = []
        ipem.on("part", lambda message, part: parts.append(part))
        for event in ("second", "told"):
            told(event)
        ipem.start()
        with ipem.expecting("online", 30, where=lambda message: message.from_ != ipem.pid):
            child = ipem.worker(work, restart=False)
        for number in range(200):
            child.send("job", number)
        child.join(30)
        ipem.stop()
        say(child.exitcode, parts == list(range(1000)))
        """
    assert lines_of(program) == ["5 True"]


@pytest.mark.parametrize("call", ["ipem.emit('go')", "ipem.start()"])
def test_a_listener_that_calls_sys_exit_in_the_main_thread_of_a_child_ends_it_with_that_code(call):
    event = "ready" if "start" in call else "go"
    program = f"""
        def work():
            ipem.on("{event}", lambda message: sys.exit(6)).on("online", lambda message: os._exit(1))
            ipem.on("go", lambda message: os._exit(2))
            {call}
            ipem.emit("go")
            ipem.run()

        ipem.on("error", lambda message, exc: None).start()  # it may end before it is online
        child = ipem.worker(work, restart=False)
        child.join(30)
        ipem.stop()
        say(child.exitcode)
        """
    assert lines_of(program) == ["6"]
