"""How a tree ends: every way of starting it, every way of leaving it, from every state.

Each script is a process group of its own. What is asserted each time: the status, an empty stderr
where nothing was wrong, nothing left of the tree, no private directory, all of it in time.
"""

from __future__ import annotations

import os
import signal

import pytest
from matrix import diagonal, slow
from scripts import Script, running

STOP_SECONDS = 3.0  # stopTimeout of scripts.PREAMBLE
SPARE_SECONDS = 1.0  # for the rest, beyond it
START_SECONDS = 20.0  # until a script has come as far as it comes by itself, at the very most
AT_ONCE_SECONDS = 2.0  # on a machine that has other things to do; 0.1 to 0.5 s where it has not

HEARS = """
def work():
    told("never")
    ipem.start()

came = threading.Event()
ipem.on("online", lambda message: message.from_ == ipem.pid or came.set())
told("online")
"""
BEGINS = "child = ipem.worker(work)\n"
WORKER = HEARS + BEGINS
STAYS = "ipem.start()\n"  # the script just ends after it
RUNS = "ipem.run()\n"
KNOWN = "came.wait()\n"  # the child is online
SIGNALS = {"int": signal.SIGINT, "term": signal.SIGTERM}
HOWS = ["script", "module", "package", "directory", "command", "stdin"]


def ready(script: Script) -> None:
    """The top process and one child are online."""
    script.wait_line("online", count=2)


def check(
    script: Script, status: int, err: str = "", within: float = STOP_SECONDS + SPARE_SECONDS
) -> list[str]:
    ended = script.ended(within)
    assert (ended.status, ended.err) == (status, err), f"{ended.out}---\n{ended.err}"
    return ended.lines


# Signals, by the way in which the script was started.


ENDS = {
    "run-int": (RUNS, signal.SIGINT, 130),
    "run-term": (RUNS, signal.SIGTERM, 143),
    "stay-int": (STAYS, signal.SIGINT, -signal.SIGINT),
    "stay-term": (STAYS, signal.SIGTERM, -signal.SIGTERM),
}


@pytest.mark.parametrize(
    ("how", "last", "number", "status"),
    [
        # Each way and each end once and more; slow are the other pairs.
        pytest.param(how, *ENDS[end], id=f"{how}-{end}", marks=[pytest.mark.slow] * (end != wanted))
        for how, wanted in zip(HOWS, ["run-int", *ENDS, "stay-int"], strict=True)
        for end in ENDS
    ],
)
def test_a_signal_ends_an_idle_tree(how, last, number, status):
    with running(WORKER, last, how=how) as script:
        ready(script)
        script.signal_group(number)
        check(script, status, within=AT_ONCE_SECONDS)


@pytest.mark.parametrize(("last", "number"), diagonal({"run": RUNS, "stay": STAYS}, SIGNALS))
def test_a_signal_to_the_top_alone_ends_the_tree(last, number):
    with running(WORKER, last) as script:
        ready(script)
        script.signal(number)
        check(script, 128 + number if last is RUNS else -number, within=AT_ONCE_SECONDS)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_script_that_is_over_but_for_a_thread_of_the_user(number):
    text = """
    import atexit
    atexit.register(say, "the exit hook")
    threading.Thread(target=threading.Event().wait).start()
    """
    with running(text, WORKER, STAYS) as script:
        ready(script)
        script.signal_group(number)
        lines = check(script, -number, within=AT_ONCE_SECONDS)
    assert lines[-1] == "the exit hook"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_start_that_waits_for_a_stranger(number, status):
    text = """
    import socket
    stranger = socket.create_server(("localhost", 0))
    ipem.options(useSocket=True, socket={"port": stranger.getsockname()[1], "authkey": "x" * 16})
    ipem.worker(work)
    held = []
    threading.Thread(target=lambda: (held.append(stranger.accept()), say("it is silent"))).start()
    """
    with running("def work():\n    ipem.start()\n", text, STAYS) as script:
        script.wait_line("it is silent")
        script.signal(number)
        check(script, status, within=AT_ONCE_SECONDS)


FLOOD = """
from ipevents import OutboxFull, SlowPeer

def work():
    ipem.on("down", lambda message, data: None)
    ipem.start()
    say("flooded by", ipem.pid)
    while True:
        ipem.sendToParents("up", b"x" * 500)

# A listener that meets a full outbox is told so, and so is who listens to error: that is in order here.
ipem.on("error", lambda message, error: isinstance(error, (OutboxFull, SlowPeer)) or say(repr(error)))
ipem.on("up", lambda message, data: ipem.sendToChilds("echo", data))
ipem.start()
children = [ipem.worker(work) for _ in range(2)]
"""
POUR = """
while True:
    ipem.sendToChilds("down", b"x" * 500)
"""
ADDRESS = """
while True:
    ipem.sendTo([children[0].pid], "down", b"x" * 500)
"""
ANSWER = """
ipem.on("local", lambda message: [ipem.sendToChilds("down", b"x") for _ in range(3)])
while True:
    ipem.sendToGrandMaster("local")
"""


@pytest.mark.parametrize(
    ("last", "number", "status"),
    [
        slow(RUNS, signal.SIGINT, 130),
        slow(RUNS, signal.SIGTERM, 143),
        slow(STAYS, signal.SIGTERM, -signal.SIGTERM),
        (POUR, signal.SIGINT, -signal.SIGINT),
        slow(POUR, signal.SIGTERM, 143),
        slow(ADDRESS, signal.SIGINT, -signal.SIGINT),
        slow(ANSWER, signal.SIGINT, -signal.SIGINT),
    ],
    ids=[
        "run-int",
        "run-term",
        "stay-term",
        "sending-int",
        "sending-term",
        "addressing-int",
        "answering-int",
    ],
)
def test_a_signal_ends_a_flooded_tree(last, number, status):
    with running(FLOOD, last) as script:
        script.wait_line("flooded", count=2)
        script.signal_group(number)
        lines = check(script, status)
    assert {line.split()[0] for line in lines} == {"flooded"}


@pytest.mark.parametrize(("last", "number"), diagonal({"run": RUNS, "stay": STAYS}, SIGNALS))
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
    assert "offline" in lines
    assert lines.count("online") == 0


HANGS = """
def work():
    ipem.start()
    word = "works"
    while True:
        try:
            say(word)
            time.sleep(1000)  # what the stop interrupts
        except BaseException:
            word = "asked"

ipem.options(stopTimeout=600000)
child = ipem.worker(work)
"""


@pytest.mark.parametrize(("last", "number"), diagonal({"run": RUNS, "stay": STAYS}, SIGNALS))
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
        while True:  # not once for long: a signal just before that would not end it
            time.sleep(0.01)
    except KeyboardInterrupt:
        say("caught")
    """
    with running(WORKER, text) as script:
        script.wait_line("works")
        script.signal_group(signal.SIGINT)
        lines = check(script, 0)
    assert "caught" in lines


# The body's own end.


LEFT = {
    "sys.exit(3)": (3, ""),
    "sys.exit()": (0, ""),
    "sys.exit('no')": (1, "no\n"),
    "raise KeyboardInterrupt": (-signal.SIGINT, ""),
    "os._exit(4)": (4, ""),
}


@pytest.mark.parametrize(
    ("last", "how"),
    [
        *zip(LEFT, HOWS, strict=False),
        ("sys.exit(3)", "stdin"),
        *(slow(last, "script") for last in [*LEFT][1:]),
        *(slow("sys.exit(3)", how) for how in HOWS[1:-1]),
    ],
)
def test_a_body_that_is_left_ends_the_tree(last, how):
    with running(WORKER, STAYS, KNOWN, last, how=how) as script:
        check(script, *LEFT[last], within=START_SECONDS)


def test_a_body_that_is_left_at_once_leaves_no_child():
    with running(WORKER, "os._exit(4)") as script:
        check(script, 4, within=START_SECONDS)


def test_an_uncaught_exception_shows_its_traceback_and_nothing_else():
    with running(WORKER, STAYS + "raise LookupError('mine')\n") as script:
        ended = script.ended(START_SECONDS)
    assert ended.status == 1
    assert ended.err.count("Traceback") == 1
    assert ended.err.splitlines()[-1] == "LookupError: mine"


def test_an_exception_in_a_function_of_the_body_is_one_too():
    with running(WORKER, "def main():\n    ipem.start()\n    int('x')\nmain()\n") as script:
        ended = script.ended(START_SECONDS)
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
        slow("if True:\n    ipem.start()\n"),
        slow("for x in [1]:\n    ipem.start()\n"),
        "try:\n    ipem.start()\nfinally:\n    pass\n",
        slow("with open(os.devnull):\n    ipem.start()\n"),
    ],
)
def test_whatever_the_last_statement_is_the_script_stays(last):
    with running(WORKER, last) as script:
        ready(script)
        script.signal(signal.SIGTERM)
        check(script, -signal.SIGTERM)


def test_a_server_that_cannot_take_clients_after_the_body_says_so(port):
    text = f"""
    import logging
    from ipevents._network.public_socket import PublicSocket

    class Shown(logging.Handler):
        def emit(self, record):
            say(record.getMessage())

    PublicSocket.cannot_serve = lambda socket: True  # as it is on Python 3.12.0 to 3.12.2
    logging.getLogger("ipevents").addHandler(Shown())
    ipem.options(useSocket=True, socket={{"port": {port}}}).start()
    """
    with running(text) as script:
        (line,) = script.wait_line("! this Python")
        assert "end the script with ipem.run()" in line
        script.signal(signal.SIGTERM)
        assert script.ended().status in (143, -signal.SIGTERM)


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
        lines = check(script, 0, within=START_SECONDS)
    assert lines[-1] == "after False 1"


STOP_WHEN_UP = """
@ipem.on("online")
def online(message):
    if message.from_ != ipem.pid:
        ipem.stop()
        say("asked", ipem.stopping)
"""


def test_stop_in_a_listener_ends_run_which_returns_true():
    with running(HEARS, STOP_WHEN_UP, BEGINS, "say('run', ipem.run())\n") as script:
        lines = check(script, 0, within=START_SECONDS)
    assert lines[-2:] == ["asked True", "run True"]


def test_stop_in_a_listener_ends_a_script_that_stays():
    with running(HEARS, STOP_WHEN_UP, BEGINS, STAYS) as script:
        lines = check(script, 0, within=START_SECONDS)
    assert lines[-1] == "asked True"


def test_stop_in_a_listener_of_a_child_is_the_end_of_that_child():
    text = """
    def work():
        ipem.on("go", lambda message: ipem.stop())
        ipem.start()

    child = ipem.worker(work)
    child.send("go")
    say("joined", child.join(), child.exitcode, child.restarts)
    ipem.stop()
    """
    with running(text) as script:
        assert check(script, 0, within=START_SECONDS) == ["joined True 0 0"]


@pytest.mark.parametrize("busy", ["send", "emit", "register", "idle"])
def test_stop_in_a_signal_handler_of_the_user_under_load(busy):
    """The handler interrupts the library wherever that is, many times; only the first counts."""
    text = f"""
    from ipevents import Closed

    def work():
        ipem.on("down", lambda message, data: ipem.sendToParents("up", data))
        ipem.start()

    ipem.start()
    with ipem.expecting("online", where=lambda message: message.from_ != ipem.pid):
        child = ipem.worker(work)
    ipem.on("up", lambda message, data: None)
    ipem.on("here", lambda message: None)
    ipem.on("error", lambda message, error: isinstance(error, Closed) or say(error))
    signal.signal(signal.SIGUSR1, lambda number, frame: ipem.stop())

    def send(number, frame):
        try:
            ipem.emit("here")
            ipem.sendToChilds("down", b"h")
        except Closed:
            pass

    signal.signal(signal.SIGUSR2, send)
    say("go")
    try:
        while True:
            if {busy!r} == "send":
                ipem.sendToChilds("down", b"x")
            elif {busy!r} == "emit":
                ipem.emit("here")
            elif {busy!r} == "register":
                ipem.on("other", print)
                ipem.off("other")
            else:
                ipem.waitFor("never")
            if ipem.stopping:
                break
    except Closed:
        pass
    ipem.stop()
    ipem.run()
    for number in (signal.SIGUSR1, signal.SIGUSR2):  # late ones, which would end an interpreter that takes its
        signal.signal(number, signal.SIG_IGN)  # handlers back
    say("end")
    """
    with running(text) as script:
        script.wait_line("go")
        for _ in range(50):  # they may come within each other, all of them
            script.signal(signal.SIGUSR2)
        for _ in range(20):
            script.signal(signal.SIGUSR1)
        lines = check(script, 0)
    assert lines == ["go", "end"]


def test_stop_in_a_signal_handler_ends_a_script_that_stays():
    with running("signal.signal(signal.SIGUSR1, lambda *_: ipem.stop())\n", WORKER, STAYS) as script:
        ready(script)
        script.signal(signal.SIGUSR1)
        check(script, 0, within=AT_ONCE_SECONDS)


def test_stop_in_a_signal_handler_of_a_child_under_load():
    text = """
    def work():
        signal.signal(signal.SIGUSR1, lambda *_: ipem.stop())
        ipem.start()
        say("works", ipem.pid)
        try:
            while True:
                ipem.sendToParents("up", b"x")
        finally:
            say("left")

    child = ipem.worker(work)
    ipem.on("up", lambda message, data: None)
    say("joined", child.join(), child.exitcode, child.restarts)
    ipem.stop()
    """
    with running(text) as script:
        pid = int(script.word("works"))
        os.kill(pid, signal.SIGUSR1)
        lines = check(script, 0)
    assert lines[1:] == ["left", "joined True 0 0"]


def test_stop_twice_and_from_two_threads_at_once():
    text = """
    ipem.start()
    threads = [threading.Thread(target=ipem.stop) for _ in range(5)]
    for thread in threads: thread.start()
    ipem.stop()
    ipem.stop()
    say("stopped", ipem.stopping, child.alive)
    for thread in threads: thread.join()
    ipem.stop()
    """
    with running(WORKER, text) as script:
        assert check(script, 0, within=START_SECONDS)[-1] == "stopped True False"


def test_stop_with_a_timeout_kills_what_is_not_gone_by_then():
    program = HANGS.replace("say(word)", 'ipem.sendToParents("ready-child")').replace(
        "child = ", 'ipem.start()\nwith ipem.expecting("ready-child"):\n    child = '
    )
    text = """
    begun = time.monotonic()
    ipem.stop(0.5)
    say("stopped", child.alive, time.monotonic() - begun < 1.5)
    """
    with running(program, text) as script:
        ended = script.ended()
    assert (ended.status, ended.lines[-1]) == (0, "stopped False True")


def test_a_listener_that_hangs_delays_a_stop_but_does_not_prevent_it():
    text = """
    def work():
        ipem.start()
        ipem.sendToParents("hang")
        ipem.run()

    @ipem.on("hang")
    def hang(message):
        say("hangs")
        threading.Event().wait()

    ipem.options(stopTimeout=500).start()
    child = ipem.worker(work)
    """
    with running(text, RUNS) as script:
        script.wait_line("hangs")
        script.signal_group(signal.SIGTERM)
        ended = script.ended(0.5 + 2 * SPARE_SECONDS)
    assert ended.status == 143
    assert "a listener keeps it" in ended.err


@pytest.mark.parametrize(
    ("wait", "number"), diagonal({"emit": 'ipem.emit("anything")', "start": "other.start()"}, SIGNALS)
)
def test_a_signal_reaches_who_waits_for_a_listener_that_hangs(wait, number):
    text = """
    from ipevents import Emitter

    def hang(message):
        hangs.set()
        threading.Event().wait()

    hangs = threading.Event()
    other = Emitter().options(useSocket=False)
    emitter = ipem if "ipem" in WAIT else other
    emitter.on("hang", hang).on("anything", print)
    ipem.options(stopTimeout=500).start()
    threading.Thread(target=emitter.emit, args=("hang",), daemon=True).start()
    hangs.wait()
    say("waits")
    exec(WAIT)
    """
    with running(f"WAIT = {wait!r}", text) as script:
        script.wait_line("waits")
        script.signal_group(number)
        status = -number if number == signal.SIGINT else 143
        assert script.ended(0.5 + 2 * SPARE_SECONDS).status == status


# What a child is doing when it is stopped.

DOINGS = {
    "busy": "while True: pass",
    "sleep": "time.sleep(1000)",
    "queue": "import queue; queue.Queue().get()",
    "simple-queue": "import queue; queue.SimpleQueue().get()",
    "lock": "lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "event": "threading.Event().wait()",
    "run": "ipem.run()",
    "waitFor": "ipem.waitFor('never')",
    "expecting": "with ipem.expecting('never'): pass",
    "recv": "import socket; a, b = socket.socketpair(); a.recv(1)",
    "read": "r, w = os.pipe(); os.read(r, 1)",
    "join": "thread = threading.Thread(target=threading.Event().wait, daemon=True); thread.start(); thread.join()",
    "send": "while True: ipem.sendToParents('up', b'x' * 1000)",
    "emit": "while True: ipem.emit('here')",
    "select": "import select; select.select([os.pipe()[0]], [], [])",
    "child-join": "ipem.worker(ipem.run).join()",
}
BUSY = ["busy", "send", "emit"]  # these never wait


@pytest.mark.parametrize(
    "doings",
    [
        [doing for doing in DOINGS if doing not in BUSY],
        BUSY,
        *(slow([doing], id=doing) for doing in DOINGS),
    ],
    ids=lambda doings: "all others" if len(doings) > len(BUSY) else "busy",
)
def test_a_child_leaves_whatever_it_is_doing_and_its_finally_runs(doings):
    works = [
        f"""\
def work_{number}():
    ipem.start()
    try:
        say("works")
        {DOINGS[doing]}
    finally:
        say("finally")

"""
        for number, doing in enumerate(doings)
    ]
    text = f"""
ipem.on('up', lambda message, data: None)
signal.signal(signal.SIGUSR1, lambda *_: ipem.stop())
children = [ipem.worker(globals()[f"work_{{number}}"]) for number in range({len(works)})]
ipem.run()
say("codes", [child.exitcode for child in children])
"""
    with running("".join(works) + text) as script:
        script.wait_line("works", count=len(works))
        script.signal(signal.SIGUSR1)
        lines = check(script, 0)
    ends = ["finally"] * len(works)
    assert lines == ["works"] * len(works) + ends + [f"codes {[0] * len(works)}"]


def test_a_child_whose_exit_takes_time_may_take_it():
    text = """
    def work():
        ipem.start()
        try:
            say("works")
            time.sleep(1000)  # what the stop interrupts
        finally:
            ipem.sendToParents("last", "words")
            say("finally")

    ipem.on("last", lambda message, words: say("last", words))
    child = ipem.worker(work)
    """
    with running(text, RUNS) as script:
        script.wait_line("works")
        script.signal_group(signal.SIGINT)
        lines = check(script, 130)
    assert sorted(lines) == ["finally", "last words", "works"]


# SystemExit out of a listener.


CODES = {"3": ("3", 3, ""), "none": ("", 0, ""), "words": ("'no'", 1, "no\n")}


@pytest.mark.parametrize(("last", "end"), diagonal({"run": RUNS, "stay": STAYS}, CODES))
def test_a_listener_ends_the_top_process_with_its_code(last, end):
    code, status, err = end
    text = f"""
    @ipem.on("online")
    def online(message):
        if message.from_ != ipem.pid:
            sys.exit({code})
    """
    with running(HEARS, text, BEGINS, last) as script:
        check(script, status, err, within=START_SECONDS)


@pytest.mark.parametrize(
    "doing",
    [
        slow("ipem.start()"),
        "ipem.run()",
        "ipem.start(); time.sleep(1000)",
        slow("ipem.start(); ipem.waitFor('never')"),
    ],
)
def test_a_listener_ends_a_child_with_its_code(doing):
    text = f"""
    def work():
        ipem.on("go", lambda message: sys.exit(5))
        {doing}

    child = ipem.worker(work, restart=False)
    child.send("go")
    say("joined", child.join(), child.exitcode)
    ipem.stop()
    """
    with running(text) as script:
        assert check(script, 0, within=START_SECONDS) == ["joined True 5"]


# Signals to others than the top.

MIDDLE = """
def leaf():
    ipem.on("never", print)
    ipem.start()
    ipem.sendToGrandMaster("leaf", ipem.pid)

def middle():
    ipem.start()
    ipem.worker(leaf)
    ipem.run()

ipem.on("offline", lambda message, pid: say("offline", "middle" if pid == child.pid else "leaf", message.exitcode))
ipem.on("leaf", lambda message, pid: say("leaf", pid, *message.pids))
ipem.options(delayRestart=60000)
child = ipem.worker(middle)
"""


def test_sigterm_to_a_middle_process_ends_its_part_of_the_tree():
    with running(MIDDLE, RUNS) as script:
        _, _, leaf, middle, _ = script.wait_line("leaf")[0].split()
        os.kill(int(middle), signal.SIGTERM)
        script.wait_line("offline", count=2)
        assert script.tree()[0] == script.pid
        script.signal(signal.SIGTERM)
        lines = check(script, 143)
    assert lines[1:] == ["offline leaf 0", "offline middle 143"] or lines[1:] == [
        "offline leaf None",
        "offline middle 143",
    ]


def test_sigterm_to_a_leaf_ends_that_one_only():
    text = (
        "ipem.on('offline', lambda message, pid: say('offline', message.exitcode))\nsay('leaf', child.pid)\n"
    )
    with running(WORKER, text, RUNS) as script:
        ready(script)
        os.kill(int(script.word("leaf")), signal.SIGTERM)
        script.wait_line("offline 143")
        script.wait_line("online", count=3)  # its successor
        script.signal(signal.SIGTERM)
        check(script, 143)


@pytest.mark.parametrize("starts", [1, 3])
def test_a_script_with_handlers_of_its_own_ends_with_its_listeners_code_however_often_it_has_started(starts):
    text = f"""
    from ipevents._platform import exits

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: None)
    ipem.on("leave", lambda message: sys.exit(3))
    for n in range({starts}):
        ipem.stop()
        ipem.start()

    def end():
        while not exits._in_hook:  # nothing tells that the body is over
            time.sleep(0.001)
        ipem.emit("leave")

    threading.Thread(target=end, daemon=True).start()
    """
    with running(text) as script:
        check(script, 3)


def test_ctrl_c_reaches_the_children_only_through_the_top():
    text = """
    def work():
        ipem.start()
        try:
            say("works")
            time.sleep(1000)  # what the stop interrupts
        except BaseException as exc:
            say(repr(exc))
            raise

    child = ipem.worker(work)
    """
    with running(text, RUNS) as script:
        script.wait_line("works")
        script.signal_group(signal.SIGINT)
        lines = check(script, 130, within=AT_ONCE_SECONDS)
    assert lines == ["works", "Terminated(0)"]


# Once more.


def test_it_can_be_started_again_after_a_stop():
    text = """
    def work():
        ipem.start()
        ipem.sendToParents("up", 1)

    ipem.on("up", lambda message, n: say("up", n))
    ipem.on("ready", lambda message: say("ready"))
    for n in range(3):
        ipem.start()
        with ipem.expecting("up"):
            child = ipem.worker(work)
        ipem.stop()
        say("stopped", ipem.stopping, threading.active_count(), len(os.listdir("/proc/self/fd")) - base if n else 0)
        if not n:
            base = len(os.listdir("/proc/self/fd"))
    """
    with running(text) as script:
        lines = check(script, 0, within=START_SECONDS)
    assert lines == ["ready", "up 1", "stopped True 1 0"] * 3


def test_with_starts_and_stops():
    text = """
    with ipem:
        came.wait()
        say("in", ipem.stopping)
    say("out", ipem.stopping, child.alive)
    """
    with running(WORKER, text) as script:
        lines = check(script, 0, within=START_SECONDS)
    assert lines[-1] == "out True False"
    assert "in False" in lines


def test_with_stops_also_when_it_is_left_by_an_exception():
    text = """
    try:
        with ipem:
            came.wait()
            1 / 0
    except ZeroDivisionError:
        say("out", child.alive)
    """
    with running(WORKER, text) as script:
        lines = check(script, 0, within=START_SECONDS)
    assert lines[-1] == "out False"


def test_a_repl_just_goes_on_and_ends_with_its_input():
    with running("ipem.start()\nchild = ipem.worker(ipem.run)\nsay('next')\n", how="interactive") as script:
        ended = script.ended(START_SECONDS)
    assert (ended.status, ended.lines[-1]) == (0, "next")


def test_several_emitters_stay_until_the_last_is_stopped():
    text = """
    from ipevents import Emitter
    other = Emitter().options(useSocket=False, stopTimeout=3000)
    other.start()
    ipem.start()
    ipem.on("online", lambda message: message.from_ != ipem.pid and ipem.stop())
    other.on("online", lambda message: message.from_ != other.pid and say("other has", True))
    pids = [other.worker(ipem.run), ipem.worker(ipem.run)]
    """
    with running(text) as script:
        script.wait_line("other has")
        script.signal(signal.SIGTERM)
        check(script, -signal.SIGTERM, within=AT_ONCE_SECONDS)


def test_a_stopped_emitter_does_not_keep_the_script():
    text = """
    from ipevents import Emitter
    for _ in range(2):
        with Emitter().options(useSocket=False) as one:
            pass
    say("end")
    """
    with running(text) as script:
        assert check(script, 0, within=START_SECONDS) == ["end"]


def test_sigterm_while_a_listener_of_emit_runs_ends_the_script():
    text = """
    def listener(message):
        say("runs")
        while True:  # as above
            time.sleep(0.01)

    ipem.on("x", listener)
    ipem.start()
    ipem.emit("x")
    say("goes on")
    """
    with running(text) as script:
        script.wait_line("runs")
        script.signal(signal.SIGTERM)
        ended = script.ended()
    assert ended.status == 143
    assert ended.lines == ["runs"]


def test_a_child_that_is_stopped_while_its_arguments_are_unpickled_ends_with_0():
    text = """
    class Slow:
        def __reduce__(self):
            return slow, ()

    def slow():
        ipem.start()
        threading.Event().wait()

    with ipem:
        with ipem.expecting("online"):
            child = ipem.worker(print, [Slow()], restart=False, stopGrace=50)
        child.stop()
        say(child.exitcode)
    """
    with running(text) as script:
        ended = script.ended()
    assert ended.lines == ["0"], ended
