"""Requests whose processes are killed: every Answer ends, and says truly whether the request was begun."""

from __future__ import annotations

import os
import queue
import random
import signal
import threading

import pytest
from lines import CEILING, holds, started
from scripts import running, wait_gone, wait_until

from ipevents import AnswererLost, ChildEnded, NoAnswerer
from ipevents._core import restarts

BEGUN_IS_KNOWN = True  # of direct children: by the page of memory that each shares with its parent
KILLED = -signal.SIGKILL
WINDOW = 40  # requests that are open at a time, under kills at random moments


@pytest.fixture
def tops(tops):
    """The same, where children that die are expected."""

    def make(**options):
        emitter = tops(**options)
        emitter.on("error", lambda message, error: None)
        return emitter

    return make


@pytest.fixture
def fast_restarts(tops, monkeypatch):
    """A top whose children are started again without a delay that grows from one early death to the next."""
    monkeypatch.setattr(restarts, "YOUNG_SECONDS", 0.0)
    return tops(delayRestart=10)


def kill(pid):
    os.kill(int(pid), signal.SIGKILL)


def lost(answer, child, pid, begun, code=KILLED):
    """Wait for the end of an Answer: its process is lost. ``begun`` is all that its error may say."""
    exc = answer.exception(CEILING)
    assert type(exc) is AnswererLost, exc
    assert (exc.pid, exc.name, exc.exitcode) == (pid, child.name, code)
    assert exc.begun in begun
    for word in (repr(exc.event), pid, child.name, f"exit code {code}"):
        assert word in str(exc)
    return exc


# One answerer, killed at each stage of a request


def test_what_was_sent_to_a_child_that_is_killed_before_its_online_was_not_begun(top, line):
    def child(line):
        from ipevents import ipem

        ipem.answer("job", lambda message, number: line.send(number))
        line.send("up")
        line.recv()

    child = top.worker(child, (line.there,), restart=False, name="early")
    answers = [child.requestAsync("job", number) for number in range(5)]
    assert line.next() == "up"
    answers += [child.requestAsync("job", number) for number in range(5)]
    pid = child.pid
    kill(pid)
    for answer in answers:
        lost(answer, child, pid, [False])
    assert line.is_empty()


def test_of_the_requests_of_a_killed_child_those_that_waited_for_a_thread_were_not_begun(top, line):
    child = started(top, holds, line.there, 1, restart=False, name="holder")
    pid = child.pid
    running, *queued = [child.requestAsync("held", number) for number in range(10)]
    assert line.next() == 0
    assert child.request("echo", 1) == 1  # so all others have come
    kill(pid)
    lost(running, child, pid, [True])
    for answer in queued:
        lost(answer, child, pid, [False])
    assert line.is_empty()
    with pytest.raises(NoAnswerer):
        child.request("held", 1)
    assert top.stats()["requests"]["lost"] == 10


def test_of_the_requests_of_a_killed_child_without_threads_only_the_one_that_ran_was_begun(top, line):
    child = started(top, holds, line.there, 0, restart=False)
    pid = child.pid
    running, *queued = [child.requestAsync("held", number) for number in range(10)]
    assert line.next() == 0
    kill(pid)
    lost(running, child, pid, [True])
    for answer in queued:
        lost(answer, child, pid, [False])


def test_several_threads_of_a_killed_child_have_begun_as_many(top, line):
    child = started(top, holds, line.there, 3, restart=False)
    pid = child.pid
    answers = [child.requestAsync("held", number) for number in range(10)]
    begun = {line.next() for _ in range(3)}
    assert begun == {0, 1, 2}
    kill(pid)
    for number, answer in enumerate(answers):
        lost(answer, child, pid, [number < 3])


def test_a_thread_that_is_slow_to_begin_does_not_hide_what_another_one_has_begun(top, line):
    def child(line):
        import threading

        from ipevents import ipem

        answering = ipem._answering
        is_dropped = answering._is_dropped
        second = threading.Event()

        def waits(job):  # the first request was taken by a thread, and the second one overtakes it
            if job.payload[-1] == 1:
                second.wait()
            return is_dropped(job)

        answering._is_dropped = waits

        @ipem.answer("held", threads=2)
        def held(message, what):
            if what == 2:
                second.set()
            line.send(what)
            line.recv()

    child = started(top, child, line.there, restart=False)
    pid = child.pid
    answers = [child.requestAsync("held", number) for number in (1, 2)]
    assert {line.next(), line.next()} == {1, 2}
    kill(pid)
    for answer in answers:
        lost(answer, child, pid, [True])


def test_an_answer_that_is_not_written_before_the_kill_is_lost_and_was_begun(top):
    def child():
        import os
        import signal

        from ipevents import ipem

        ipem.answer("quick", lambda message: 1)
        ipem.answer("kill", lambda message: os.kill(os.getpid(), signal.SIGKILL))

    child = started(top, child, restart=False)
    pid = child.pid
    quick, killing, never = [child.requestAsync(event) for event in ("quick", "kill", "quick")]
    if quick.exception(CEILING) is not None:  # both came in one frame
        lost(quick, child, pid, [True])
    lost(killing, child, pid, [True])
    lost(never, child, pid, [False])


@pytest.mark.parametrize("size", [10, 50_000_000])
def test_an_answer_counts_if_all_of_it_was_written_before_the_kill(top, line, size):
    """The parent's listener keeps the link from being read; a large answer does not fit into the socket."""

    def child(line, size):
        from scripts import wait_until

        from ipevents import ipem

        def is_written():
            return all(not link["queued"] for link in ipem.stats()["links"].values())

        @ipem.answer("job", threads=1)
        def job(message, what):
            if what == "next":
                if size < 1000:
                    wait_until(is_written)
                line.send("next")
                line.recv()
            return bytes(size)

        ipem.on("go", lambda message: ipem.sendToParents("hang"))

    hangs, gate = threading.Event(), threading.Event()

    @top.on("hang")
    def hang(message):
        hangs.set()
        assert gate.wait(CEILING)

    child = started(top, child, line.there, size, restart=False)
    pid = child.pid
    child.send("go")
    try:
        assert hangs.wait(CEILING)
        first = child.requestAsync("job", "first")
        other = child.requestAsync("job", "next" if size < 1000 else "second")
        if size < 1000:
            assert line.next() == "next"
        else:
            wait_until(first.running)
        kill(pid)
        assert wait_gone(pid)
    finally:
        gate.set()
    if size < 1000:
        assert first.result(CEILING) == bytes(size)
        lost(other, child, pid, [True])
    else:
        lost(first, child, pid, [True])
        lost(other, child, pid, [True, False])


def test_a_request_that_is_made_before_the_restart_is_answered_by_the_next_process(tops, line):
    top = tops(delayRestart=300)
    child = started(top, holds, line.there, 1)
    pid = child.pid
    answer = child.requestAsync("held", 1)
    assert line.next() == 1
    with top.expecting("offline", CEILING):
        kill(pid)
    lost(answer, child, pid, [True])
    following = child.requestAsync("echo", 2)
    blocked = child.request("echo", 3)
    assert (following.result(CEILING), blocked) == (2, 3)
    assert following.pid == child.pid != pid


def test_a_request_for_the_next_process_ends_when_the_child_is_stopped_before(tops, line):
    top = tops(delayRestart=60_000)
    child = started(top, holds, line.there, 1)
    pid = child.pid
    with top.expecting("offline", CEILING):
        kill(pid)
    answer = child.requestAsync("echo", 1)
    child.stop()
    exc = answer.exception(CEILING)
    assert type(exc) is AnswererLost
    assert exc.begun is False


def test_a_client_over_a_path_that_is_killed_is_lost_at_once(recorders, place):
    where = {"socketPath": str(place / "s"), "authkey": "the key of this test"}
    server = recorders("begun", **where).start()
    text = f"""
    ipem.options(useSocket=True, socket={{**{where!r}, "onlyConnect": True}})

    @ipem.answer("held", threads=1)
    def held(message):
        ipem.sendToParents("begun")
        threading.Event().wait()

    ipem.run()
    """
    with running(text) as script:
        pid = server.wait("online", str(script.pid)).from_
        answers = [server.emitter.requestAsync(pid, "held") for _ in range(3)]
        server.wait("begun")
        script.signal(signal.SIGKILL)
        for answer in answers:
            exc = answer.exception(CEILING)
            assert (type(exc), exc.pid, exc.begun) == (AnswererLost, pid, None)


# A process between


def passes(target, *args):
    """A child that has a child of its own."""
    from ipevents import ipem

    ipem.worker(target, args, name="leaf")


def deep(line):
    """The child of that one."""
    from lines import holds

    from ipevents import ipem

    holds(line, 1)
    ipem.sendToGrandMaster("here")


def test_what_is_behind_a_killed_process_is_lost_and_nobody_knows_whether_it_was_begun(top, line):
    with top.expecting("here", CEILING) as here:
        middle = top.worker(passes, (deep, line.there), restart=False, name="middle")
    route, pid = here.message.pids, middle.pid
    answers = [top.requestAsync(route, "held", number) for number in range(10)]
    assert line.next() == 0
    found = top.requestAll("held", 10)
    assert top.request(route, "echo", 1) == 1
    kill(pid)
    for answer in answers:
        lost(answer, middle, pid, [None])
    ((lost_pid, exc),) = found
    assert (lost_pid, type(exc), exc.begun) == (pid, AnswererLost, None)
    leaf = int(route[0])
    line.tell(None)
    assert wait_gone(leaf)


def test_of_its_own_requests_a_killed_process_between_tells_what_was_begun(top, line):
    """What it passes on is not taken for what it does itself."""

    def between(line):
        from ipevents import ipem

        ipem.answer("held", lambda message, what: line.send(what) or line.recv(), threads=1)
        ipem.worker(deep, (line,), name="leaf")

    with top.expecting("here", CEILING) as here:
        middle = top.worker(between, (line.there,), restart=False, name="middle")
    route, pid = here.message.pids, middle.pid
    first, second = middle.requestAsync("held", "own"), middle.requestAsync("held", "never")
    assert line.next() == "own"
    assert top.request(route, "echo", 1) == 1
    beyond = top.requestAsync(route, "held", "beyond")
    assert line.next() == "beyond"
    assert not beyond.running()
    assert first.running()
    kill(pid)
    lost(first, middle, pid, [True])
    lost(second, middle, pid, [False])
    lost(beyond, middle, pid, [None])
    line.tell(None)
    assert wait_gone(route[0])


# The process that asks


def asks(count):
    """A child that asks the grand master, and stays."""
    from ipevents import ipem

    @ipem.on("ask")
    def ask(message):
        ipem.kept = [ipem.requestGrandMasterAsync("job", number) for number in range(count)]


@pytest.mark.parametrize("where", ["child", "grandchild", "router"])
def test_of_an_asker_that_is_killed_what_runs_sees_it_and_what_waits_is_never_begun(top, where):
    begun = queue.SimpleQueue()
    seen = threading.Event()

    @top.answer("job", threads=1)
    def job(message, number):
        begun.put((message.from_, number))
        wait_until(top.cancelled)
        seen.set()

    onlines = queue.SimpleQueue()
    top.on("online", lambda message: onlines.put(message.pids))
    if where == "child":
        top.worker(asks, (5,), restart=False)
    else:
        top.worker(passes, (asks, 5), restart=False)
    length = 2 if where == "child" else 3
    while len(route := onlines.get(timeout=CEILING)) < length:
        continue
    top.sendTo(route, "ask")
    assert begun.get(timeout=CEILING) == (route[0], 0)
    wait_until(lambda: top._answering._answerers["job"].lanes.waiting() == 4)
    kill(route[1] if where == "router" else route[0])
    assert seen.wait(CEILING)
    top.unanswer("job")
    top.answer("job", lambda message, number: number, threads=1)
    assert top.request(top.pid, "job", 7) == 7  # nothing else waited
    assert begun.empty()


# Kills at random moments


def counts(path, threads):
    """A child that writes the number of each job to a file before it does anything else."""
    import os

    from ipevents import ipem

    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    @ipem.answer("job", threads=threads)
    def job(message, number):
        os.write(file, b"%d\n" % number)
        return number

    ipem.sendToGrandMaster("here")


class Stream:
    """Requests with numbers, of which WINDOW are open at a time, and what they came to."""

    def __init__(self, path):
        self.path = path
        self.answers = []
        self._ended = 0  # so many are known to have
        self._done = queue.SimpleQueue()

    def fill(self, ask):
        """Ask until so many are open."""
        while sum(not answer.done() for answer in self.answers[-2 * WINDOW :]) < WINDOW:
            self.more(ask)

    def more(self, ask):
        answer = ask(len(self.answers))
        self.answers.append(answer)
        answer.add_done_callback(lambda answer: self._done.put(answer))

    def answered(self, ask, count, *, not_by=""):
        """Go on until so many were answered by another process than this one; returns the last one's pid."""
        while count:
            answer = self._done.get(timeout=CEILING)
            self.more(ask)
            if answer.exception() is None and answer.pid != not_by:
                count -= 1
        return answer.pid

    def wait(self):
        """Wait until all have ended."""
        for answer in self.answers[self._ended :]:
            answer.exception(CEILING)
        self._ended = len(self.answers)

    def check(self):
        """Compare all that they came to with what was begun. Returns what was said of those that are lost."""
        self.wait()
        begun = list(map(int, self.path.read_text().split()))
        assert len(set(begun)) == len(begun), "begun twice"
        begun = set(begun)
        said = {True: 0, False: 0, None: 0}
        for number, answer in enumerate(self.answers):
            exc = answer.exception()
            if exc is None:
                assert answer.result() == number
                assert number in begun
                continue
            assert type(exc) is AnswererLost, exc
            said[exc.begun] += 1
            assert exc.exitcode == KILLED
            assert exc.begun is not False or number not in begun, f"{number} was begun"
        return said


KILLS = [
    10,
    pytest.param(40, marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
    pytest.param(1000, marks=[pytest.mark.full, pytest.mark.timeout(3600)]),
]


@pytest.mark.parametrize("threads", [0, 1, 4])
@pytest.mark.parametrize("kills", KILLS)
def test_under_kills_at_random_moments_each_answer_ends_and_what_was_not_begun_is_certain(
    fast_restarts, tmp_path, kills, threads
):
    top = fast_restarts
    dice = random.Random(kills + threads)
    stream = Stream(tmp_path / "begun")
    child = top.worker(counts, (str(stream.path), threads))

    def ask(number):
        return child.requestAsync("job", number)

    pid = ""
    for _ in range(kills):
        stream.fill(ask)
        pid = stream.answered(ask, dice.randrange(1, 3 * WINDOW), not_by=pid)
        kill(pid)
    said = stream.check()
    assert sum(said.values()) > 0
    if BEGUN_IS_KNOWN:
        assert said[None] == 0
        assert said[False] > 0
    else:
        assert said[False] == said[True] == 0
    assert top.stats()["requests"]["open"] == 0


@pytest.mark.parametrize("threads", [0, 4])
@pytest.mark.parametrize("kills", KILLS)
def test_under_kills_of_a_process_between_each_answer_ends_and_none_is_said_not_to_have_begun_wrongly(
    fast_restarts, tmp_path, kills, threads
):
    top = fast_restarts
    dice = random.Random(kills + threads)
    stream = Stream(tmp_path / "begun")
    routes = queue.SimpleQueue()
    top.on("here", lambda message: routes.put(message.pids))
    top.worker(passes, (counts, str(stream.path), threads), name="middle")
    lost = 0
    for _ in range(kills):
        route = routes.get(timeout=CEILING)

        def ask(number, route=route):
            return top.requestAsync(route, "job", number)

        stream.fill(ask)
        stream.answered(ask, dice.randrange(1, 3 * WINDOW))
        kill(route[1])
        stream.wait()
        lost += stream.answers[-1].exception() is not None
    said = stream.check()
    assert lost > 0
    assert said[True] == said[False] == 0
    assert top.stats()["requests"]["open"] == 0


@pytest.mark.parametrize("kills", KILLS)
def test_under_kills_of_an_asker_at_random_moments_the_answerer_answers_all_others(fast_restarts, kills):
    """The killed one asks the grand master in a stream, which goes on asking another child."""

    def floods():
        import threading

        from ipevents import ipem

        def flood():
            number = 0
            while not ipem.stopping:
                ipem.requestGrandMaster("job", number)
                number += 1

        for _ in range(3):
            threading.Thread(target=flood, daemon=True).start()
        ipem.on("evt", print)

    top = fast_restarts
    dice = random.Random(kills)
    came = queue.SimpleQueue()

    @top.answer("job", threads=2)
    def job(message, number):
        came.put(message.from_)
        return number

    other = started(top, holds, None, 0)
    top.worker(floods)
    pid = ""
    for number in range(kills):
        left = dice.randrange(1, 3 * WINDOW)
        while left:
            origin = came.get(timeout=CEILING)
            left -= origin != pid
        pid = origin
        kill(pid)
        assert other.request("echo", number, timeout=CEILING) == number
    wait_until(lambda: top._answering._queued == 0 or not came.empty())
    assert top.stats()["requests"]["open"] == 0


def test_a_killed_child_ends_its_result_and_its_requests_alike(top, line):
    child = started(top, holds, line.there, 1, restart=False)
    answer = child.requestAsync("held", 1)
    assert line.next() == 1
    pid = child.pid
    child.kill()
    lost(answer, child, pid, [True])
    assert child.join(CEILING)
    child.result(CEILING)
    with pytest.raises((AnswererLost, NoAnswerer, ChildEnded)):
        child.request("held", 2)
