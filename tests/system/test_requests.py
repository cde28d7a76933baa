"""Requests between real processes: values, errors, time limits, stops, and the standard library around them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import os
import signal
import threading
import time
from concurrent.futures import as_completed, wait
from pathlib import Path

import numpy
import pytest
from lines import CEILING, fenced, holds, started
from proxies import Proxy
from scripts import running, wait_until

from ipevents import (
    AnswererLost,
    Closed,
    NoAnswerer,
    RemoteError,
    RequestTimeout,
    WouldDeadlock,
)

METHODS = ["forkserver", "spawn"]


def answers(event="job", threads=0):
    """A child that answers one event by its arguments, and says to the grand master where it is."""
    from ipevents import ipem

    @ipem.answer(event, threads=threads)
    def given(message, *args, **kwargs):
        return (args[0] if args else None) if not kwargs else (args, kwargs)

    ipem.sendToGrandMaster("here")


def passes(target, *args):
    """A child that has a child of its own."""
    from ipevents import ipem

    ipem.worker(target, args)


def asks():
    """A child that asks the grand master for whoever asks it."""
    from ipevents import ipem

    @ipem.answer("for me", threads=2)
    def ask(message, *args, **kwargs):
        return ipem.requestGrandMaster("job", *args, **kwargs)

    ipem.sendToGrandMaster("here")


def given(message, *args, **kwargs):
    return (args[0] if args else None) if not kwargs else (args, kwargs)


def route_to(top, target, *args):
    """Start a child with a child of its own; returns the route to that."""
    with top.expecting("here", CEILING) as here:
        top.worker(passes, (target, *args))
    return here.message.pids


# Values

WAYS = ["child", "pid", "grandchild", "grand master", "tcp", "path", "tcp up", "path up"]


@pytest.fixture
def ways(tops, recorders, port, place):
    """Ask "job" of another process: returns ``ask(*args, **kwargs)``."""

    def make(way, **options):
        if way in ("child", "pid"):
            top = tops(**options)
            child = started(top, answers)
            target = child if way == "child" else child.pid
            return lambda *args, **kwargs: top.request(target, "job", *args, **kwargs)
        if way == "grandchild":
            top = tops(**options)
            route = route_to(top, answers)
            assert len(route) == 3
            return lambda *args, **kwargs: top.request(route, "job", *args, **kwargs)
        if way == "grand master":
            top = tops(**options)
            top.answer("job", given)
            route = route_to(top, asks)
            return lambda *args, **kwargs: top.request(route, "for me", *args, **kwargs)
        where = {"port": port} if way.startswith("tcp") else {"socketPath": str(place / "s")}
        server = recorders(**where, maxMessage=1 << 25)
        client = recorders(**where, maxMessage=1 << 25)
        asked = server if way.endswith("up") else client
        asked.emitter.answer("job", given)
        server.start()
        client.joined()
        if way.endswith("up"):
            return lambda *args, **kwargs: client.emitter.requestGrandMaster("job", *args, **kwargs)
        return lambda *args, **kwargs: server.emitter.request(client.pid, "job", *args, **kwargs)

    return make


@pytest.mark.parametrize("way", WAYS)
def test_an_answer_is_what_the_function_has_returned_over_every_way(ways, way):
    ask = ways(way)
    assert ask() is None
    assert ask(None) is None
    assert ask({"a": [1, 2.5, "x"]}) == {"a": [1, 2.5, "x"]}
    assert ask(1, event="e", target="t") == ((1,), {"event": "e", "target": "t"})
    assert ask({1, 2}) == {1, 2}
    array = numpy.arange(1_250_000)
    assert numpy.array_equal(ask(array), array)


@pytest.mark.parametrize("way", ["child", "grandchild", "grand master"])
def test_an_answer_comes_from_processes_that_were_spawned(ways, way):
    assert ways(way, startMethod="spawn")(7) == 7


def test_a_request_to_oneself_is_answered_here(top):
    top.answer("job", given)
    assert top.request(top.pid, "job", 3) == 3
    assert top.requestGrandMaster("job", 4) == 4


# Exceptions


def raises():
    """A child that raises what it is asked for."""
    import os

    import raised

    from ipevents import ipem

    class Local(Exception):
        pass

    def deeper(number):
        return deeper(number + 1)

    @ipem.answer("fail")
    def fail(message, how):
        if how == "recursion":
            deeper(0)
        if how == "lambda":
            raise ValueError(lambda: None, threading.Lock())
        made = {
            "builtin": lambda: KeyError("k"),
            "own": lambda: raised.Own("o", 1),
            "two": lambda: raised.Two(1, 2),
            "told": lambda: raised.Told(1, 2),
            "broken": lambda: raised.Broken("b"),
            "breaking": lambda: raised.Breaking(str(os.getpid())),
            "base": lambda: raised.Base("c"),
            "interrupt": lambda: KeyboardInterrupt("i"),
            "local": lambda: Local("l"),
        }
        raise made[how]()

    import threading

    ipem.answer("echo", lambda message, what: what)


@pytest.mark.parametrize(
    ("how", "kind", "args"),
    [
        ("builtin", "KeyError", ("k",)),
        ("own", "Own", ("o", 1)),
        ("told", "Told", ("1 and 2",)),
        ("recursion", "RecursionError", None),
    ],
)
def test_an_exception_comes_as_it_was_raised_and_its_cause_says_where(top, how, kind, args):
    child = top.worker(raises, name="raiser")
    with pytest.raises(Exception) as caught:  # noqa: PT011  # its type is looked at
        child.request("fail", how)
    exc = caught.value
    assert type(exc).__name__ == kind
    assert args in (None, exc.args)
    check_remote(exc.__cause__, child, kind)
    assert child.request("echo", 1) == 1


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ("two", "Two"),
        ("broken", "Broken"),
        ("breaking", "Breaking"),
        ("lambda", "ValueError"),
        ("base", "Base"),
        ("interrupt", "KeyboardInterrupt"),
    ],
)
def test_an_exception_that_cannot_be_raised_here_is_a_remote_error(top, how, kind):
    child = top.worker(raises, name="raiser")
    with pytest.raises(RemoteError) as caught:
        child.request("fail", how)
    check_remote(caught.value, child, kind)
    assert child.request("echo", 1) == 1


def check_remote(remote, child, kind):
    """It names the process, the event and the line that has raised, and no line of the library."""
    assert type(remote) is RemoteError
    assert remote.typeName.rpartition(".")[2] == kind
    assert (remote.pid, remote.name, remote.event) == (child.pid, "raiser", "fail")
    assert "raiser" in str(remote)
    assert "'fail'" in str(remote)
    assert "in fail\n" in remote.traceback
    assert "test_requests.py" in remote.traceback
    assert f"{os.sep}ipevents{os.sep}_" not in remote.traceback


def test_a_value_that_cannot_be_sent_is_an_error_of_the_request(top):
    def child():
        import threading

        from ipevents import ipem

        ipem.answer("lock", lambda message: threading.Lock())
        ipem.answer("echo", lambda message, what: what)

    child = top.worker(child)
    with pytest.raises(Exception, match="cannot be sent") as caught:
        child.request("lock")
    assert type(caught.value).__name__ == "Unpicklable"
    assert child.request("echo", 1) == 1


# Nobody answers


def listens():
    """A child that only listens."""
    from ipevents import ipem

    ipem.on("job", print)
    ipem.on("only heard", print)
    ipem.answer("other", print)
    ipem.sendToGrandMaster("here")


@pytest.mark.parametrize("where", ["child", "grandchild", "middle", "first", "client"])
def test_nobody_who_answers_is_told_at_once(top, recorders, port, where):
    asker = top
    if where == "child":
        target, why = started(top, listens), "only listens to 'job'"
    elif where == "grandchild":
        target, why = route_to(top, listens), "only listens to 'job'"
    elif where == "middle":
        route = route_to(top, answers)
        target, why = ("999999", *route[1:]), "999999"
    elif where == "first":
        target, why = "999999", "999999"
    else:
        server = recorders(port=port).start()
        client = recorders("job", port=port).joined()
        asker, target, why = server.emitter, client.pid, "only listens to 'job'"
    with pytest.raises(NoAnswerer) as caught:
        asker.request(target, "job")
    assert caught.value.event == "job"
    assert why in caught.value.why
    assert why in str(caught.value)
    answer = asker.requestAsync(target, "nothing")
    with pytest.raises(NoAnswerer) as caught:
        answer.result(CEILING)
    assert "only listens" not in str(caught.value)


def test_an_unknown_pid_in_the_middle_of_a_route_is_told_at_once(top):
    route = route_to(top, answers)
    with pytest.raises(NoAnswerer, match="999999"):
        top.request((route[0], "999999", route[1], route[2]), "job")
    with pytest.raises(NoAnswerer, match="999999"):
        top.request((route[0], "999999", route[2]), "job")


def test_what_is_not_answered_any_more_says_so(top):
    def child():
        from ipevents import ipem

        ipem.answer("job", given, threads=1)

        @ipem.answer("over")
        def over(message):
            ipem.unanswer("job")

    child = top.worker(child)
    assert child.request("job", 1) == 1
    assert top.answerersBelow("job") == 1
    child.request("over")
    with pytest.raises(NoAnswerer, match="does not answer 'job'"):
        child.request("job", 1)
    wait_until(lambda: top.answerersBelow("job") == 0)


def test_what_waits_for_a_thread_when_it_is_not_answered_any_more_says_so(top, line):
    def child(line):
        from ipevents import ipem

        @ipem.answer("held", threads=1)
        def held(message, what):
            line.send(what)
            return line.recv()

        ipem.answer("over", lambda message: ipem.unanswer("held") and None)

    child = top.worker(child, (line.there,))
    first = child.requestAsync("held", 1)
    second = child.requestAsync("held", 2)
    assert line.next() == 1
    child.request("over")
    with pytest.raises(NoAnswerer, match="not answered any more"):
        second.result(CEILING)
    line.tell("done")
    assert first.result(CEILING) == "done"
    assert line.is_empty()


def test_a_child_that_ends_before_its_online_never_begins_what_waits_for_it(top, line):
    def child(line):
        import os

        line.recv()
        os._exit(3)

    child = top.worker(child, (line.there,), restart=False, name="brief")
    answer = child.requestAsync("job")
    line.tell("end")
    with pytest.raises(AnswererLost) as caught:
        answer.result(CEILING)
    assert caught.value.begun is False
    assert (caught.value.event, caught.value.name, caught.value.exitcode) == ("job", "brief", 3)
    with pytest.raises(NoAnswerer):
        child.request("job")


# Time limits


def expire(asker, monkeypatch):
    """Let the time of all requests of this process be over, once they have begun."""
    later = time.monotonic() + 10 * CEILING
    with monkeypatch.context() as patch:
        patch.setattr("ipevents._ask.deadlines.monotonic", lambda: later)
        asker._life.asks.deadlines._look()


def test_an_answer_that_is_late_is_counted_and_the_next_request_is_answered(top, line, monkeypatch):
    child = started(top, holds, line.there, 1)
    answer = child.requestAsync("held", 1, timeout=CEILING)
    assert line.next() == 1
    expire(top, monkeypatch)
    with pytest.raises(RequestTimeout) as caught:
        answer.result(CEILING)
    assert isinstance(caught.value, TimeoutError)
    assert (caught.value.event, caught.value.pid, caught.value.seconds) == ("held", child.pid, CEILING)
    line.tell("too late")
    waiting = child.requestAsync("held", 2)
    assert line.next() == 2
    line.tell("in time")
    assert waiting.result(CEILING) == "in time"
    requests = top.stats()["requests"]
    assert (requests["late"], requests["open"]) == (1, 0)


def test_a_blocking_request_ends_with_its_time(top, line):
    child = started(top, holds, line.there, 1)
    with pytest.raises(RequestTimeout):
        child.request("held", 1, timeout=0.05)
    assert child.request("echo", "next", timeout=CEILING) == "next"
    line.tell(None)  # where it has begun


@pytest.mark.parametrize("threads", [0, 1])
@pytest.mark.parametrize("way", ["timeout", "cancel"])
def test_what_nobody_waits_for_any_more_is_never_begun(top, line, threads, way):
    child = started(top, holds, line.there, threads)
    fence = fenced(child, line)
    first = child.requestAsync("held", 1)
    assert line.next() == 1
    second = child.requestAsync("held", 2, timeout=0.05 if way == "timeout" else None)
    if way == "timeout":
        with pytest.raises(RequestTimeout):
            second.result(CEILING)
    else:
        assert second.cancel()
        fence()
    line.tell("one")
    assert first.result(CEILING) == "one"
    third = child.requestAsync("held", 3)
    assert line.next() == 3
    line.tell("three")
    assert third.result(CEILING) == "three"


@pytest.mark.parametrize("where", ["child", "grandchild", "client"])
@pytest.mark.parametrize("way", ["timeout", "cancel"])
def test_what_runs_sees_that_nobody_waits_any_more(top, line, recorders, port, monkeypatch, where, way):
    def looks(line):
        from scripts import wait_until

        from ipevents import ipem

        @ipem.answer("job", threads=1)
        def job(message):
            line.send(ipem.cancelled())
            wait_until(ipem.cancelled)
            line.send("seen")

        ipem.sendToGrandMaster("here")

    asker = top
    if where == "child":
        target = started(top, looks, line.there)
    elif where == "grandchild":
        target = route_to(top, looks, line.there)
    else:
        server = recorders(port=port).start()
        client = recorders(port=port)

        @client.emitter.answer("job", threads=1)
        def job(message):
            line.there.send(client.emitter.cancelled())
            wait_until(client.emitter.cancelled)
            line.there.send("seen")

        client.joined()
        asker, target = server.emitter, client.pid
    answer = asker.requestAsync(target, "job", timeout=CEILING if way == "timeout" else None)
    assert line.next() is False
    if way == "timeout":
        expire(asker, monkeypatch)
        with pytest.raises(RequestTimeout):
            answer.result(CEILING)
    else:
        answer.cancel()
    assert line.next() == "seen"
    assert not top.cancelled()


# All


def test_all_that_answer_are_asked_and_one_that_dies_is_lost(top, lines):
    pipes = {}
    for _ in range(3):
        line = lines()
        child = started(top, holds, line.there, 1, restart=False)
        pipes[child.pid] = line
    started(top, listens)
    found = top.requestAll("held", 1)
    for line in pipes.values():
        assert line.next() == 1
    first, second, third = pipes
    pipes[first].tell("a")
    assert next(found) == (first, "a")
    os.kill(int(second), signal.SIGKILL)
    pid, lost = next(found)
    assert (pid, type(lost), lost.exitcode) == (second, AnswererLost, -signal.SIGKILL)
    pipes[third].tell("c")
    assert list(found) == [(third, "c")]


def test_all_over_three_levels_are_asked_from_above_below_and_beside(top):
    def deep():
        from ipevents import ipem

        ipem.answer("who", lambda message: ipem.pid)
        ipem.answer("all", lambda message: sorted(ipem.requestAll("who")), threads=1)
        ipem.sendToGrandMaster("here")

    def broad():
        from ipevents import ipem

        ipem.answer("who", lambda message: ipem.pid)
        ipem.answer("all", lambda message: sorted(ipem.requestAll("who")), threads=1)
        for _ in range(2):
            ipem.worker(deep)

    top.answer("who", lambda message: top.pid)
    routes = []
    top.on("here", lambda message: routes.append(message.pids))
    children = [top.worker(broad) for _ in range(2)]
    wait_until(lambda: len(routes) == 4 and top.answerersBelow("who") == 6)
    everybody = {top.pid, *(child.pid for child in children), *(route[0] for route in routes)}
    assert dict(top.requestAll("who")) == {pid: pid for pid in everybody - {top.pid}}
    for target in (children[0], routes[0], routes[-1]):
        pid = target[0] if isinstance(target, tuple) else target.pid
        assert top.request(target, "all") == sorted((each, each) for each in everybody - {pid})
    assert list(top.requestAll("nobody")) == []


def test_one_that_joins_after_the_question_is_not_asked_and_the_next_question_asks_it(top, lines):
    first, second = lines(), lines()
    child = started(top, holds, first.there, 1)
    found = top.requestAll("held", 1)
    assert first.next() == 1
    joins = started(top, holds, second.there, 1)
    first.tell("a")
    assert list(found) == [(child.pid, "a")]
    found = top.requestAll("held", 2)
    first.tell("b")
    second.tell("c")
    assert sorted(found) == sorted([(child.pid, "b"), (joins.pid, "c")])
    assert (first.next(), second.next()) == (2, 2)


def test_of_all_those_that_answer_in_time_come_and_then_the_time_is_over(top):
    children = [started(top, answers) for _ in range(3)]
    stopped = children.pop()
    os.kill(int(stopped.pid), signal.SIGSTOP)
    tasks = Path("/proc", stopped.pid, "task")
    wait_until(lambda: all(") T" in (task / "stat").read_text() for task in tasks.iterdir()))
    try:
        found = top.requestAll("job", 1, timeout=2.0)
        assert sorted([next(found), next(found)]) == sorted((child.pid, 1) for child in children)
        with pytest.raises(RequestTimeout):
            next(found)
        assert list(found) == []
    finally:
        os.kill(int(stopped.pid), signal.SIGCONT)
    assert stopped.request("job", 2) == 2


def test_a_question_to_all_that_is_closed_early_is_never_begun(top, line):
    child = started(top, holds, line.there, 1)
    fence = fenced(child, line)
    first = child.requestAsync("held", 1)
    assert line.next() == 1
    found = top.requestAll("held", 2)
    found.close()
    fence()
    line.tell("one")
    assert first.result(CEILING) == "one"
    third = child.requestAsync("held", 3)
    assert line.next() == 3
    line.tell("three")
    assert third.result(CEILING) == "three"


# Both sides ask each other


def both():
    from ipevents import ipem

    @ipem.on("listen")
    def listen(message):
        try:
            ipem.requestGrandMaster("back", 1)
        except Exception as exc:
            ipem.sendToGrandMaster("refused", type(exc).__name__)

    @ipem.answer("plain")
    def plain(message):
        return ipem.requestGrandMaster("back", 1)

    @ipem.answer("waits")
    def waits(message):
        return ipem.requestGrandMasterAsync("back", 1).result()

    @ipem.answer("all")
    def gathers(message):
        return list(ipem.requestAll("back", 1))

    @ipem.answer("threads", threads=2)
    def threads(message, depth):
        return ipem.requestGrandMaster("back", depth - 1) if depth else "bottom"


def test_a_wait_in_a_listener_is_refused_and_in_threads_it_works(top):
    child = started(top, both)

    @top.answer("back", threads=8)
    def back(message, depth):
        return child.request("threads", depth - 1) if depth else "bottom"

    with top.expecting("refused", CEILING) as refused:
        child.send("listen")
    assert refused.message.args == ("WouldDeadlock",)
    for event in ("plain", "waits", "all"):
        with pytest.raises(WouldDeadlock):
            child.request(event)
    assert child.request("threads", 0) == "bottom"
    assert child.request("threads", 3) == "bottom"


@pytest.mark.parametrize("where", ["listener", "answer", "callback"])
def test_a_wait_where_no_answer_can_be_delivered_is_refused(top, line, where):
    child = started(top, holds, line.there, 1)
    raised = []

    def waits(*_):
        answer = child.requestAsync("held", 2)
        for call in (answer.result, answer.exception, lambda: child.request("echo", 1)):
            try:
                call()
            except Exception as exc:
                raised.append(type(exc))
        answer.cancel()
        done.set()

    done = threading.Event()
    if where == "listener":
        top.on("evt", waits)
        top.emit("evt")
    elif where == "answer":
        top.answer("evt", waits)
        top.request(top.pid, "evt")
    else:
        child.requestAsync("held", 1).add_done_callback(waits)
        assert line.next() == 1
        line.tell("one")
    assert done.wait(CEILING)
    assert raised == [WouldDeadlock] * 3
    assert child.request("echo", 1) == 1


def test_a_result_that_is_there_may_be_read_in_a_listener_and_in_a_callback(top):
    child = started(top, answers)
    answer = child.requestAsync("job", 5)
    assert answer.result(CEILING) == 5
    found = []
    top.on("evt", lambda message: found.append(answer.result()))
    top.emit("evt")
    done = threading.Event()

    def callback(future):
        found.append(future.result())
        done.set()

    child.requestAsync("job", 6).add_done_callback(callback)
    assert done.wait(CEILING)
    assert found == [5, 6]


# Listeners that hang


def test_a_listener_that_hangs_holds_up_only_the_answers_of_its_own_link(top):
    def child():
        from ipevents import ipem

        ipem.answer("job", given)
        ipem.on("go", lambda message: ipem.sendToParents("hang"))

    one, other = started(top, child), started(top, child)
    hangs, gate = threading.Event(), threading.Event()

    @top.on("hang")
    def hang(message):
        hangs.set()
        assert gate.wait(CEILING)

    try:
        one.send("go")
        assert hangs.wait(CEILING)
        behind = one.requestAsync("job", 1)
        for number in range(10):
            assert other.request("job", number) == number
        assert not behind.done()
    finally:
        gate.set()
    assert behind.result(CEILING) == 1


def test_a_cancel_reaches_a_child_whose_listener_hangs(top, line):
    def child(line):
        from scripts import wait_until

        from ipevents import ipem

        @ipem.on("hang")
        def hang(message):
            line.send("hangs")
            line.recv()

        @ipem.answer("job", threads=1)
        def job(message):
            line.send("begun")
            wait_until(ipem.cancelled)
            line.send("seen")

    child = started(top, child, line.there)
    answer = child.requestAsync("job")
    assert line.next() == "begun"
    child.send("hang")
    assert line.next() == "hangs"
    answer.cancel()
    assert line.next() == "seen"
    line.tell("go on")


# The standard library around it


def test_a_coroutine_waits_for_answers_in_all_ways(top):
    child = started(top, answers)

    async def main():
        loop = asyncio.get_running_loop()
        assert await child.requestAsync("job", 1) == 1
        assert await asyncio.wrap_future(child.requestAsync("job", 2)) == 2
        assert await loop.run_in_executor(None, child.request, "job", 3) == 3
        several = [child.requestAsync("job", number) for number in range(50)]
        assert await asyncio.gather(*map(asyncio.wrap_future, several)) == list(range(50))
        with pytest.raises(NoAnswerer):
            await child.requestAsync("nothing")

    asyncio.run(main())


def test_a_task_that_is_cancelled_cancels_its_request(top, line):
    child = started(top, holds, line.there, 1)
    fence = fenced(child, line)
    first = child.requestAsync("held", 1)
    assert line.next() == 1
    second = child.requestAsync("held", 2)

    async def main():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(second, 0.05)

    asyncio.run(main())
    assert second.cancelled()
    fence()
    line.tell("one")
    assert first.result(CEILING) == "one"
    third = child.requestAsync("held", 3)
    assert line.next() == 3
    line.tell("three")
    assert third.result(CEILING) == "three"


def test_the_functions_of_concurrent_futures_take_answers(top, line):
    child = started(top, holds, line.there, 1)
    held = child.requestAsync("held", 1)
    quick = [child.requestAsync("echo", number) for number in range(20)]
    assert {each.result() for each in as_completed(quick, CEILING)} == set(range(20))
    done, pending = wait([held, *quick], CEILING, concurrent.futures.FIRST_COMPLETED)
    assert (held in pending, len(done)) == (True, 20)
    with pytest.raises(TimeoutError if hasattr(asyncio, "timeout") else concurrent.futures.TimeoutError):
        held.result(0)
    assert line.next() == 1
    line.tell("one")
    assert wait([held], CEILING).done == {held}
    assert held.exception() is None
    failing = child.requestAsync("nothing")
    assert type(failing.exception(CEILING)) is NoAnswerer


def test_a_cancelled_answer_is_one_of_the_standard_library(top, line):
    child = started(top, holds, line.there, 1)
    first, second = child.requestAsync("held", 1), child.requestAsync("held", 2)
    assert line.next() == 1
    called = []
    second.add_done_callback(called.append)
    assert second.cancel()
    assert called == [second]
    assert second.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        second.result()
    assert wait([second], 0).done == {second}
    line.tell("one")
    assert first.result(CEILING) == "one"
    assert not first.cancel()
    assert "finished" in repr(first)


def test_a_callback_that_raises_harms_nothing(top, caplog):
    child = started(top, answers)
    answer = child.requestAsync("job", 1)
    answer.add_done_callback(lambda future: 1 / 0)
    assert answer.result(CEILING) == 1
    assert child.request("job", 2) == 2


# Stops


def test_a_stop_ends_all_that_is_open_with_closed_and_the_next_life_asks_again(top, line):
    def child(line):
        import threading

        from ipevents import ipem

        gate = threading.Event()
        ipem.on("stopping", lambda message: gate.set())

        @ipem.answer("held", threads=2)
        def held(message, what):
            line.send(what)
            gate.wait()

    child = started(top, child, line.there)
    open_ = [child.requestAsync("held", number) for number in range(1000)]
    assert {line.next(), line.next()} == {0, 1}
    top.stop()
    kinds = [type(each.exception(0)) for each in open_]
    assert kinds == [Closed] * 1000
    with pytest.raises(Closed):
        child.request("echo")
    top.start()
    again = started(top, answers)
    assert again.request("job", 1) == 1
    assert top.stats()["requests"]["open"] == 0


def test_a_request_that_waits_in_another_thread_ends_with_the_stop(top, line):
    child = started(top, holds, line.there, 1)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        future = pool.submit(child.request, "held", 1)
        assert line.next() == 1
        top.on("stopping", lambda message: line.tell("released"))
        top.stop()
        assert future.exception(CEILING) is None or type(future.exception()) is Closed


def test_a_child_that_stops_answers_what_runs_and_loses_what_waits(top, line):
    def child(line):
        from ipevents import ipem

        @ipem.answer("held", threads=1)
        def held(message, what):
            line.send(what)
            return line.recv()

        ipem.on("end", lambda message: ipem.stop())
        ipem.on("stopping", lambda message: line.send("stopping"))

    child = started(top, child, line.there, restart=False)
    first = child.requestAsync("held", 1)
    others = [child.requestAsync("held", number) for number in range(2, 6)]
    assert line.next() == 1
    child.send("end")
    assert line.next() == "stopping"
    line.tell("finished")
    assert first.result(CEILING) == "finished"
    for other in others:
        lost = other.exception(CEILING)
        assert (type(lost), lost.begun, lost.pid) == (AnswererLost, False, child.pid)
    assert child.join(CEILING)
    assert line.is_empty()


def test_nobody_knows_what_a_grandchild_has_begun_when_the_process_between_is_killed(top, line):
    def below(line):
        from ipevents import ipem

        holds(line, 1)
        ipem.sendToGrandMaster("here")

    route = route_to(top, below, line.there)
    answer = top.requestAsync(route, "held", 1)
    assert line.next() == 1  # it runs

    os.kill(int(route[1]), signal.SIGKILL)

    lost = answer.exception(CEILING)
    assert (type(lost), lost.pid, lost.exitcode, lost.begun) == (AnswererLost, route[1], -9, None)


def test_a_system_exit_in_an_answer_ends_the_process_and_the_request_is_lost(top):
    def exits():
        import sys

        from ipevents import ipem

        ipem.answer("exit", lambda message: sys.exit(5))
        ipem.answer("threads", lambda message: sys.exit(6), threads=1)

    for event, code in (("exit", 5), ("threads", 6)):
        child = started(top, exits, restart=False)
        with pytest.raises(AnswererLost) as caught:
            child.request(event, timeout=CEILING)
        assert caught.value.exitcode == code
        assert caught.value.begun is not False


# Forks, signals: in scripts


def test_a_process_that_is_forked_can_ask_nothing():
    text = """
    from ipevents import ForkedError

    def held():
        from ipevents import ipem
        gate = threading.Event()
        ipem.on("go", lambda message: gate.set())
        ipem.answer("held", lambda message: gate.wait() and 7, threads=1)

    def kind(call):
        try:
            return call()
        except Exception as exc:
            return type(exc).__name__

    if __name__ == "__main__":
        ipem.start()
        child = ipem.worker(held)
        answer = child.requestAsync("held")
        calls = [
            lambda: child.request("held"),
            lambda: child.requestAsync("held"),
            lambda: ipem.request(child.pid, "held"),
            lambda: ipem.requestGrandMaster("held"),
            lambda: list(ipem.requestAll("held")),
            answer.result,
            answer.exception,
        ]
        pid = os.fork()
        if not pid:
            say("forked", *[kind(call) for call in calls])
            os._exit(0)
        os.waitpid(pid, 0)
        child.send("go")
        say("answer", answer.result(30))
        ipem.stop()
    """
    with running(text) as script:
        ended = script.ended()
    assert ended.lines == ["forked" + " ForkedError" * 7, "answer 7"], ended.err
    assert ended.status == 0


@pytest.mark.parametrize(
    "wait",
    [
        'child.request("held")',
        "asked().result()",
        "asked().result(30)",
        "asked().exception()",
        'list(ipem.requestAll("held"))',
    ],
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1])
def test_a_signal_ends_each_wait_for_an_answer_and_leaves_the_library_usable(number, wait):
    text = """
    class Poked(Exception):
        pass

    def poke(number, frame):
        raise Poked

    def held():
        from scripts import wait_until
        from ipevents import ipem

        @ipem.answer("held", threads=1)
        def held(message):
            ipem.sendToParents("begun")
            wait_until(ipem.cancelled)
            ipem.sendToParents("seen")

        ipem.answer("echo", lambda message, what: what)

    if __name__ == "__main__":
        signal.signal(signal.SIGUSR1, poke)
        seen = threading.Event()
        told("begun")
        ipem.on("seen", lambda message: seen.set())
        ipem.start()
        with ipem.expecting("online"):
            child = ipem.worker(held)

        def asked():
            global answer
            answer = child.requestAsync("held")
            return answer

        for _ in range(2):
            seen.clear()
            answer = None
            try:
                WAIT
            except (KeyboardInterrupt, Poked) as exc:
                if answer is not None:
                    answer.cancel()
                say("ended", type(exc).__name__, child.request("echo", 7), seen.wait(30))
            if answer is not None:
                answer.exception(30) if not answer.cancelled() else None
        say("open", ipem.stats()["requests"]["open"])
        ipem.stop()
    """.replace("WAIT", wait)
    import sys

    with running(f"sys.path[:0] = {sys.path!r}\n", text) as script:
        for count in (1, 2):
            script.wait_line("begun", count=count)
            script.signal(number)
            script.wait_line("ended", count=count)
        ended = script.ended()
    kind = "KeyboardInterrupt" if number == signal.SIGINT else "Poked"
    lines = [line for line in ended.lines if line != "begun"]
    assert lines == [f"ended {kind} 7 True"] * 2 + ["open 0"], ended.err
    assert ended.status == 0


@pytest.mark.parametrize("rounds", [100, pytest.param(3000, marks=pytest.mark.slow)])
def test_a_handler_that_raises_anywhere_in_a_request_leaves_the_library_usable(rounds):
    text = f"""
    ROUNDS = {rounds}

    class Poked(Exception):
        pass

    is_asking = False

    def poke(number, frame):
        global is_asking
        if is_asking:
            is_asking = False
            raise Poked

    def echo():
        from ipevents import ipem
        ipem.answer("echo", lambda message, what: what)

    if __name__ == "__main__":
        signal.signal(signal.SIGUSR1, poke)
        ipem.start()
        child = ipem.worker(echo)
        child.request("echo", 0)
        goes_on, due = True, threading.Semaphore(0)

        def pokes():
            while True:
                due.acquire()
                if not goes_on:
                    return
                os.kill(os.getpid(), signal.SIGUSR1)

        poker = threading.Thread(target=pokes)
        poker.start()
        poked = 0
        for number in range(ROUNDS):
            due.release()
            try:
                is_asking = True
                assert child.request("echo", number) == number
                is_asking = False
            except Poked:
                poked += 1
        goes_on = False
        due.release()
        poker.join()
        say("poked", poked > 0)
        say("answers", child.request("echo", "x", timeout=30), child.requestAsync("echo", "y").result(30))
        say("open", ipem.stats()["requests"]["open"])
        ipem.stop()
    """
    with running(text) as script:
        ended = script.ended(90.0)
    assert ended.lines == ["poked True", "answers x y", "open 0"], ended.err
    assert ended.status == 0


# Clients over TCP whose connection is cut


@pytest.fixture
def cut(recorders, port, second_port):
    """A server, a client behind a proxy, and an answering function there that waits."""
    with Proxy(second_port, port) as proxy:

        def make(**options):
            socket = {"forwarded": True, "delayReconnect": 20, **options}
            server = recorders(port=port, **socket).start()
            client = recorders(port=second_port, onlyConnect=True, **socket)
            begun, gate = threading.Event(), threading.Event()

            @client.emitter.answer("held", threads=1)
            def held(message, what):
                begun.set()
                assert gate.wait(CEILING)
                return what

            client.emitter.answer("echo", given)
            server.emitter.answer("echo", given)
            client.joined()
            return server, client, proxy, begun, gate

        yield make


def outage(proxy, *recorders):
    """Cut the connections, and let none through."""
    proxy.is_down = True
    before = [len(each.of("offline")) for each in recorders]
    proxy.cut()
    for each, count in zip(recorders, before, strict=True):
        each.wait("offline", count=count + 1)


@pytest.mark.parametrize("when", ["meanwhile", "afterwards"])
def test_a_request_stays_open_over_a_cut_and_is_answered(cut, when):
    server, client, proxy, begun, gate = cut()
    answer = server.emitter.requestAsync(client.pid, "held", 7)
    assert begun.wait(CEILING)
    outage(proxy, server, client)
    assert not answer.done()
    unsent = server.emitter.requestAsync(client.pid, "echo", 8)
    up = client.emitter.requestGrandMasterAsync("echo", 9)
    if when == "meanwhile":
        gate.set()
    proxy.is_down = False
    client.wait("online", client.pid, count=2)
    gate.set()
    assert answer.result(CEILING) == 7
    assert unsent.result(CEILING) == 8
    assert up.result(CEILING) == 9


def test_a_request_to_a_client_that_does_not_come_back_is_lost_and_nobody_knows_whether_it_began(cut):
    server, client, proxy, begun, gate = cut(resumeWithin=300)
    answer = server.emitter.requestAsync(client.pid, "held", 7)
    assert begun.wait(CEILING)
    outage(proxy, server, client)
    with pytest.raises(AnswererLost) as caught:
        answer.result(CEILING)
    assert (caught.value.pid, caught.value.begun, caught.value.exitcode) == (client.pid, None, None)
    gate.set()


@pytest.mark.parametrize("family", ["tcp", "path"])
def test_a_client_that_says_goodbye_is_lost_at_once(recorders, port, place, family):
    where = {"port": port} if family == "tcp" else {"socketPath": str(place / "s")}
    server = recorders(**where).start()
    client = recorders(**where)
    begun, gate = threading.Event(), threading.Event()

    @client.emitter.answer("held", threads=1)
    def held(message, what):
        begun.set()
        gate.wait(CEILING)
        return what

    client.joined()
    first = server.emitter.requestAsync(client.pid, "held", 1)
    second = server.emitter.requestAsync(client.pid, "held", 2)
    assert begun.wait(CEILING)
    client.emitter.on("stopping", lambda message: gate.set())
    client.emitter.stop()
    assert first.result(CEILING) == 1
    assert type(second.exception(CEILING)) is AnswererLost


def test_answers_that_nobody_holds_any_more_are_still_counted_as_answered(top):
    child = started(top, answers)
    for number in range(10):
        child.requestAsync("job", number)
    gc.collect()
    assert child.request("job", "last") == "last"
    requests = top.stats()["requests"]
    assert (requests["requests"], requests["answered"], requests["open"]) == (11, 11, 0)
    with contextlib.suppress(NoAnswerer):
        child.request("nothing")
