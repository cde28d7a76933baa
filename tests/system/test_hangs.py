"""Children that hang: how that is noticed and told, and what does not count as hanging. See README, hangTimeout."""

from __future__ import annotations

import ctypes
import os
import queue
import signal
import threading
import time
from multiprocessing import Pipe

import pytest
from scripts import running, wait_gone, wait_until

from ipevents import Emitter, Hung
from ipevents._processes.sentinels import Sentinels

CEILING = 60.0  # of every wait; reached only in a deadlock
LIMIT = 500  # milliseconds
LIMIT_SECONDS = LIMIT / 1000


class Top:
    """An emitter at the top of a tree, and what it is told."""

    def __init__(self, **options):
        self.errors: queue.Queue = queue.Queue()
        self.ends: queue.Queue = queue.Queue()
        self.onlines: queue.Queue = queue.Queue()
        self.told: queue.Queue = queue.Queue()
        defaults = {"useSocket": False, "stopTimeout": 5000, "delayRestart": 20, "hangTimeout": LIMIT}
        self.emitter = Emitter().options({**defaults, **options})
        self.emitter.on("error", lambda message, error: self.errors.put(error))
        self.emitter.on("offline", lambda message, pid: self.ends.put((pid, message.exitcode)))
        self.emitter.on("online", self._online)
        self.emitter.on("told", lambda message, *args: self.told.put(args))
        self.emitter.start()

    def _online(self, message):
        if message.from_ != self.emitter.pid:
            self.onlines.put(message.from_)

    def worker(self, target, *args, **options):
        child = self.emitter.worker(target, args, **options)
        assert self.onlines.get(timeout=CEILING) == child.pid
        return child

    def hung(self, child, pid):
        """The error about a child that was found hanging, was killed and has been started again."""
        error = self.errors.get(timeout=CEILING)
        assert type(error) is Hung
        assert (error.pid, error.name) == (pid, child.name)
        assert self.ends.get(timeout=CEILING) == (pid, -signal.SIGKILL)
        assert self.onlines.get(timeout=CEILING) == child.pid != pid
        assert self.errors.empty()
        return error


@pytest.fixture
def tops():
    made = []

    def make(**options):
        made.append(Top(**options))
        return made[-1]

    yield make
    for top in made:
        top.emitter.stop()


def listens():
    """A child with a listener that can be made to do several things, and one that answers."""
    from ipevents import ipem

    def sleeps(message, seconds):
        threading.Event().wait(seconds)

    def works(message, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass

    def keeps_the_gil(message, seconds):
        ctypes.PyDLL(None).sleep(seconds)  # unlike CDLL it does not let other threads run

    for function in (sleeps, works, keeps_the_gil):
        ipem.on(function.__name__, function)
    ipem.on("ask", lambda message, *args: message.reply("told", *args))
    ipem.start()


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
@pytest.mark.parametrize("how", ["sleeps", "works"])
def test_a_listener_that_runs_too_long_is_told_with_its_stack_and_its_child_is_replaced(tops, how, method):
    top = tops(startMethod=method)
    child = top.worker(listens)
    pid = child.pid
    began = time.monotonic()
    child.send(how, CEILING)
    error = top.hung(child, pid)
    assert time.monotonic() - began > LIMIT_SECONDS
    assert error.seconds >= LIMIT_SECONDS
    assert how in error.listener
    assert f"{how} (" in str(error)
    first = error.stacks.split("\n\n")[0]
    assert "which runs the listener" in first
    assert f"in {how}" in first
    child.send("ask", 1)
    assert top.told.get(timeout=CEILING) == (1,)


def test_a_child_that_keeps_the_interpreter_to_itself_is_found_without_a_word_of_it(tops):
    top = tops()
    child = top.worker(listens)
    pid = child.pid
    child.send("keeps_the_gil", 100)
    error = top.hung(child, pid)
    assert (error.stacks, error.listener) == ("", "")
    assert "no answer" in str(error)
    assert "C code" in error.why


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_a_stopped_child_is_found_as_soon_as_something_is_to_be_done(tops, busy):
    top = tops()
    child = top.worker(listens)
    child.send("ask", 1)  # so that it has answered, and sleeps
    assert top.told.get(timeout=CEILING) == (1,)
    pid = child.pid
    if busy:
        child.send("works", CEILING)
    os.kill(int(pid), signal.SIGSTOP)
    child.send("ask", 2)
    error = top.hung(child, pid)
    assert "stopped" in error.why


def emits_in_main():
    from ipevents import ipem

    ipem.on("go", lambda message: threading.Event().wait())
    ipem.start()
    if ipem.childsOnline == 0 and os.environ.pop("GO", ""):
        ipem.emit("go")


def has_a_child_that_calls():
    from ipevents import ipem

    def below():
        from ipevents import ipem

        ipem.start()
        ipem.sendToParents("hang")

    ipem.on("hang", lambda message: threading.Event().wait())
    ipem.on("start", lambda message: threading.Thread(target=ipem.worker, args=(below,)).start())
    ipem.start()


def test_the_listener_may_run_for_an_event_of_any_origin(tops):
    top = tops()
    child = top.worker(has_a_child_that_calls, hangTimeout=LIMIT)
    pid = child.pid
    child.send("start")
    below = top.onlines.get(timeout=CEILING)
    error = top.errors.get(timeout=CEILING)
    assert type(error) is Hung
    assert error.pid == pid
    ends = {top.ends.get(timeout=CEILING)[0] for _ in range(2)}
    assert ends == {pid, below}


def test_a_listener_that_emits_in_the_main_thread_is_one_as_well(tops, monkeypatch):
    top = tops()
    monkeypatch.setenv("GO", "1")
    child = top.emitter.worker(emits_in_main)
    monkeypatch.delenv("GO")
    pid = child.pid
    assert top.onlines.get(timeout=CEILING) == pid
    error = top.hung(child, pid)
    assert "<lambda>" in error.listener


def test_many_listeners_that_take_their_time_are_no_hang(tops):
    top = tops()
    child = top.worker(listens)
    pid = child.pid
    for _ in range(12):
        child.send("sleeps", LIMIT_SECONDS / 4)  # in one frame or in several
    child.send("ask", 1)
    assert top.told.get(timeout=CEILING) == (1,)
    assert (child.pid, top.errors.empty()) == (pid, True)


@pytest.mark.parametrize(("option", "own"), [(None, None), (LIMIT, 0), (None, 0), (0, None)])
def test_without_a_limit_a_listener_may_run_for_ever(tops, option, own):
    top = tops(hangTimeout=option)
    child = top.worker(listens, hangTimeout=own)
    pid = child.pid
    child.send("sleeps", 4 * LIMIT_SECONDS)
    child.send("ask", 1)
    assert top.told.get(timeout=CEILING) == (1,)
    assert (child.pid, top.errors.empty()) == (pid, True)


def test_the_limit_of_a_child_is_that_of_its_worker_call(tops):
    top = tops(hangTimeout=None)
    child = top.worker(listens, hangTimeout=LIMIT)
    pid = child.pid
    child.send("sleeps", CEILING)
    top.hung(child, pid)


def test_a_child_in_its_stop_is_not_taken_for_a_hung_one(tops):
    top = tops(stopTimeout=3 * LIMIT)
    child = top.worker(listens)
    child.send("sleeps", CEILING)
    child.stop()
    child.join(CEILING)
    assert top.errors.empty()


def test_while_nothing_is_to_be_done_no_supervisor_wakes(tops, monkeypatch):
    top = tops()
    children = [top.worker(listens) for _ in range(3)]
    for child in children:
        child.send("ask", 1)
        assert top.told.get(timeout=CEILING) == (1,)
    # Acknowledgements are still to come, each followed by a question. So long that takes.
    threading.Event().wait(2 * LIMIT_SECONDS)
    states = top.emitter._life.supervisor.children._states
    wait_until(lambda: all(state.vigil.next_at is None for state in states), "the last answers")
    links = [state.link for state in states]
    wait_until(lambda: not any(link.handled.is_unsaid for link in links), "the last acknowledgements")
    switches: list = []

    def is_quiet():
        before, switches[:] = switches[:], [switches_of(child.pid) for child in children]
        return before == switches

    wait_until(is_quiet, "the children to have read them")
    waits = []
    wait = Sentinels.wait

    def counted(self, *args):
        waits.append(self)
        return wait(self, *args)

    monkeypatch.setattr(Sentinels, "wait", counted)
    threading.Event().wait(4 * LIMIT_SECONDS)  # a time in which nothing is to happen has no other end
    assert waits == []
    assert [switches_of(child.pid) for child in children] == switches


def switches_of(pid):
    """How often the threads of a process have waited for something."""
    found = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status") as file:
            found[task] = next(line for line in file if line.startswith("voluntary"))
    return found


STOPPED_PARENT = """
def work():
    ipem.on("ask", lambda message: message.reply("told"))
    ipem.start()

ipem.on("told", lambda message: say("told", ipem.childsOnline))
ipem.on("error", lambda message, error: say("error", error))

@ipem.on("online")
def online(message):
    if message.from_ != ipem.pid:
        ipem.sendToChilds("ask")
        say("online", message.from_)

ipem.options(hangTimeout=300).start()
ipem.worker(work)

def ask(*_):
    ipem.sendToChilds("ask")
    say("asked")

signal.signal(signal.SIGUSR1, ask)
ipem.run()
"""


def test_time_in_which_the_parent_was_stopped_itself_counts_for_no_child():
    with running(STOPPED_PARENT) as script:
        child = script.word("online")
        script.wait_line("told")
        os.kill(int(child), signal.SIGSTOP)
        script.signal(signal.SIGUSR1)
        script.wait_line("asked")
        script.signal(signal.SIGSTOP)
        threading.Event().wait(1.0)  # the parent is not there to be asked how long
        os.kill(int(child), signal.SIGCONT)
        script.signal(signal.SIGCONT)
        script.wait_line("told", count=2)
        script.signal(signal.SIGTERM)
        ended = script.ended(20.0)
        assert [line.split()[0] for line in ended.lines] == ["online", "told", "asked", "told"]


# The stop goes over the channel at once


def ends_in_order(place):
    from ipevents import ipem

    ipem.on("hang", lambda message: threading.Event().wait())
    ipem.start()
    try:
        ipem.run()
    finally:
        with open(place, "w") as file:
            file.write(str(ipem.stopping))


def test_a_stop_reaches_a_child_whose_listener_hangs(tops, tmp_path):
    top = tops(hangTimeout=None)
    child = top.worker(ends_in_order, str(tmp_path / "ended"))
    pid = child.pid
    child.send("hang")
    wait_until(lambda: top.emitter.stats()["links"][pid]["sent"] == 1, "the event to be sent")
    child.stop()
    child.join(CEILING)
    assert (tmp_path / "ended").read_text() == "True"
    assert wait_gone(pid)


def hears_in_order(place):
    from ipevents import ipem

    def hear(message, number):
        threading.Event().wait(0.001)
        with open(place, "a") as file:
            file.write(f"{number}\n")

    ipem.on("count", hear)
    ipem.start()
    ipem.run()


def test_what_was_sent_before_a_stop_is_heard_all_the_same(tops, tmp_path):
    top = tops(hangTimeout=None)
    child = top.worker(hears_in_order, str(tmp_path / "heard"))
    for number in range(300):
        child.send("count", number)
    child.stop()
    child.join(CEILING)
    heard = (tmp_path / "heard").read_text().split()
    assert heard == [str(number) for number in range(300)]
    assert child.exitcode == 0


def never_online(place):
    from ipevents import Emitter

    try:
        Emitter().options(useSocket=False).start().run()  # another emitter: this one stays without an online
    finally:
        open(place, "w").close()


def test_a_stop_reaches_a_child_with_more_events_than_it_may_hold(tops, tmp_path):
    top = tops(hangTimeout=None)
    child = top.emitter.worker(never_online, (str(tmp_path / "ended"),))
    for number in range(150_000):  # more than it holds, and the rest waits in the outbox
        child.send("count", number)
        if number > 100_000 and top.emitter.stats()["links"].get(child.pid, {}).get("queued", 0) > 10_000:
            break
    child.stop()
    child.join(CEILING)
    assert (tmp_path / "ended").exists()


# What is no hang, and what a stop must not lose


def ends_slowly(how):
    import atexit

    from ipevents import ipem

    def slow():
        threading.Event().wait(3 * LIMIT_SECONDS)

    if how == "hook":
        atexit.register(slow)
    elif how == "thread":
        threading.Thread(target=slow).start()
    elif how == "stopping":
        ipem.on("stopping", lambda message: slow())
    ipem.start()
    ipem.sendToParents("told", how)
    if how == "goes on":
        ipem.stop()
        slow()
    elif how != "listener":
        ipem.removeAllListeners()
        ipem.stop()


@pytest.mark.parametrize("how", ["hook", "thread", "stopping", "goes on"])
def test_a_child_that_ends_by_itself_may_take_its_time(tops, how):
    top = tops()
    child = top.emitter.worker(ends_slowly, (how,), restart=False)
    assert top.told.get(timeout=CEILING) == (how,)
    child.join(CEILING)
    assert top.errors.empty()
    assert child.exitcode == 0


def passes_down():
    from ipevents import ipem

    def leaf():
        from ipevents import ipem

        heard = []
        ipem.on("count", lambda message, number: heard.append(number))
        ipem.on("stopping", lambda message: ipem.sendToGrandMaster("told", len(heard)))
        ipem.start()
        ipem.sendToGrandMaster("told", "up")

    def busy(message):
        threading.Event().wait(LIMIT_SECONDS)

    ipem.on("busy", busy)
    ipem.worker(leaf)
    ipem.start()


def test_what_was_sent_before_a_stop_reaches_the_children_of_a_busy_child_first(tops):
    top = tops(hangTimeout=None, stopTimeout=8000)
    child = top.emitter.worker(passes_down)
    assert top.told.get(timeout=CEILING) == ("up",)
    child.send("busy")
    top.emitter.sendToChilds("busy")
    for number in range(300):
        top.emitter.sendToChilds("count", number)
    child.stop()
    child.join(CEILING)
    assert top.told.get(timeout=CEILING) == (300,)


def hears_slowly(place):
    from ipevents import ipem

    def hear(message, *args):
        with open(place, "a") as file:
            file.write("x")
        threading.Event().wait(0.02)

    ipem.on("evt", hear)
    ipem.options(stopTimeout=500).start()


def test_a_stop_leaves_all_of_its_time_for_what_was_sent_before(tops, tmp_path):
    top = tops(hangTimeout=None)
    child = top.worker(hears_slowly, str(tmp_path / "heard"))
    for _ in range(100):
        child.send("evt")
    child.stop(CEILING)
    assert (tmp_path / "heard").read_text() == "x" * 100
    assert child.exitcode == 0


def test_a_child_that_was_asked_to_stop_ends_with_its_parent_although_a_listener_hangs(tmp_path):
    with running(ORPHANED) as script:
        child = script.word("child")
        script.wait_line("hangs")
        script.signal(signal.SIGUSR1)
        script.wait_line("asked")
        script.signal(signal.SIGKILL)
        began = time.monotonic()
        assert wait_gone(child)
        assert time.monotonic() - began < 3.0
        script.end()


ORPHANED = """
def work():
    def hang(message):
        message.reply("told")
        threading.Event().wait()
    ipem.on("hang", hang)
    ipem.start()

ipem.on("told", lambda message: say("hangs"))

def ask(*_):
    threading.Thread(target=child.stop).start()
    say("asked")

ipem.options(stopTimeout=20000).start()
with ipem.expecting("online", where=lambda message: message.from_ != ipem.pid):
    child = ipem.worker(work)
say("child", child.pid)
signal.signal(signal.SIGUSR1, ask)
child.send("hang")
ipem.run()
"""


def relays_while_it_listens():
    from ipevents import ipem

    def below():
        from ipevents import ipem

        ipem.start()
        while not ipem.stopping:
            ipem.sendToParents("tick")
            threading.Event().wait(0.002)

    ipem.on("tick", lambda message: None)
    ipem.on("sleeps", lambda message, seconds: threading.Event().wait(seconds))
    ipem.on("ask", lambda message: message.reply("told"))
    ipem.worker(below)
    ipem.start()


def test_many_short_listeners_are_no_hang_also_while_others_get_their_turn_in_between(tops):
    top = tops()
    child = top.emitter.worker(relays_while_it_listens)
    for _ in range(2):
        top.onlines.get(timeout=CEILING)
    pid = child.pid
    for _ in range(150):
        child.send("sleeps", 0.02)
    child.send("ask")
    assert top.told.get(timeout=CEILING) == ()
    assert (child.pid, top.errors.empty()) == (pid, True)


def test_as_many_descriptors_as_before_can_be_inherited(tops):
    top = tops(hangTimeout=None)
    pairs = [Pipe() for _ in range(120)]
    ends = [end for pair in pairs for end in pair]
    child = top.emitter.worker(len, (ends,), restart=False)
    assert child.result(CEILING) == 240
    for end in ends:
        end.close()


def inherits():
    from ipevents import ipem

    role = ipem._life.role
    return os.get_inheritable(role.up.channel.fileno())


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_no_program_that_a_child_runs_inherits_its_channel(tops, method):
    top = tops(startMethod=method)
    assert top.emitter.worker(inherits, restart=False).result(CEILING) is False


def hears_slowly_and_looks_soon(place):
    from ipevents._lifecycle import parent_channel

    parent_channel.LOOK = 0.002
    hears_slowly(place)


def test_a_child_that_is_busy_with_what_was_sent_before_is_left_the_time(tops, tmp_path):
    top = tops(hangTimeout=None)
    child = top.worker(hears_slowly_and_looks_soon, str(tmp_path / "heard"))
    for _ in range(50):
        child.send("evt", bytes(100_000))  # in many frames
    child.stop(CEILING)
    assert (tmp_path / "heard").read_text() == "x" * 50
    assert child.exitcode == 0


def test_of_two_stops_the_shorter_one_counts_also_where_a_listener_hangs(tops, tmp_path):
    top = tops(hangTimeout=None, stopTimeout=30_000)
    child = top.worker(ends_in_order, str(tmp_path / "ended"))
    pid = child.pid
    child.send("hang")
    wait_until(lambda: top.emitter.stats()["links"][pid]["sent"] == 1, "the event to be sent")
    first = threading.Thread(target=child.stop, args=(4.0,))
    first.start()
    wait_until(lambda: top.emitter._life.supervisor.children._states[0].stop_sent, "the first stop")
    top.emitter.stop()
    first.join(CEILING)
    assert (tmp_path / "ended").read_text() == "True"
    assert child.exitcode == 0


def has_a_slow_child(place):
    from ipevents import ipem

    def slow():
        from ipevents import ipem

        ipem.sendToGrandMaster("told", "up")
        try:
            threading.Event().wait()
        finally:
            threading.Event().wait(1.5)
            open(place, "w").close()

    ipem.options(stopTimeout=600, stopGrace=0).start()
    ipem.worker(slow)


def test_the_children_of_a_child_have_the_time_of_the_stop_and_not_its_own_stop_timeout(tops, tmp_path):
    top = tops(hangTimeout=None, stopTimeout=30_000)
    child = top.emitter.worker(has_a_slow_child, (str(tmp_path / "ended"),))
    assert top.told.get(timeout=CEILING) == ("up",)
    top.emitter.stop()
    assert (tmp_path / "ended").exists()
    assert child.exitcode == 0


def looks():
    from ipevents import ipem

    def look(message):
        message.reply("told", "looks")
        while not ipem.stopping:
            threading.Event().wait(0.001)

    ipem.on("look", look)
    ipem.start()


def test_a_listener_sees_at_once_that_a_stop_was_asked_for(tops):
    top = tops(hangTimeout=None)
    child = top.worker(looks)
    child.send("look")
    assert top.told.get(timeout=CEILING) == ("looks",)
    began = time.monotonic()
    child.stop(CEILING)
    assert time.monotonic() - began < CEILING / 4
    assert child.exitcode == 0
