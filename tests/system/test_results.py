"""What the function of a child returns or raises reaches its parent. See README, Child.result."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import pytest

from ipevents import (
    ChildEnded,
    Closed,
    Emitter,
    RemoteError,
    StartFailed,
    TargetFailed,
    Unpicklable,
    UnreadablePayload,
    WouldDeadlock,
)

CEILING = 60.0  # of every wait; reached only in a deadlock


@pytest.fixture
def top():
    with Emitter().options(useSocket=False, stopTimeout=3000, delayRestart=20) as emitter:
        emitter.on("error", lambda message, error: None)
        yield emitter


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
@pytest.mark.parametrize(
    ("function", "args", "value"),
    [
        (lambda: None, (), None),
        (pow, (2, 10), 1024),
        (lambda n: [n] * 3, ("x",), ["x"] * 3),
        (os.path.join, ["a", "b"], "a/b"),
    ],
)
def test_a_function_returns_its_value(method, function, args, value):
    with Emitter().options(useSocket=False, startMethod=method) as top:
        child = top.worker(function, args, restart=False)
        assert child.result(CEILING) == value
        assert child.join(CEILING)
        assert child.result(0) == value
        assert child.exitcode == 0


def test_large_values_arrive_and_are_the_same_object_each_time(top):
    child = top.worker(bytes, (10_000_000,))
    assert child.result(CEILING) == bytes(10_000_000)
    assert child.result() is child.result()


def test_a_value_comes_although_the_child_stays(top):
    def stays():
        from ipevents import ipem

        ipem.on("evt", print)
        return "early"

    child = top.worker(stays)
    assert child.result(CEILING) == "early"
    assert child.alive


def test_what_it_raises_is_raised_here_with_the_traceback_of_the_child(top):
    def fails():
        {}["a key that is not there"]

    child = top.worker(fails, restart=False)
    with pytest.raises(KeyError, match="a key that is not there") as caught:
        child.result(CEILING)
    cause = caught.value.__cause__
    assert type(cause) is RemoteError
    assert cause.pid == child.pid
    assert "in fails" in cause.traceback
    assert "test_results.py" in cause.traceback


def test_an_exception_that_cannot_be_rebuilt_is_a_remote_error(top):
    class Two(Exception):
        def __init__(self, one, two):
            super().__init__(one)

    def fails():
        raise Two(1, 2)

    with pytest.raises(RemoteError, match="Two in"):
        top.worker(fails, restart=False).result(CEILING)


def test_only_the_last_process_counts_for_what_is_raised_and_any_for_a_value(top, tmp_path):
    place = tmp_path / "tries"

    def third():
        with open(place, "a") as file:
            file.write("x")
        tries = os.path.getsize(place)
        if tries < 3:
            raise ValueError(tries)
        return tries

    child = top.worker(third)
    assert child.result(CEILING) == 3
    assert child.restarts == 2


def test_a_child_that_gives_up_raises_what_its_last_process_raised(top):
    def fails():
        raise ValueError("again")

    top.options(maxRestarts=3)
    child = top.worker(fails)
    with pytest.raises(ValueError, match="again"):
        child.result(CEILING)
    assert child.restarts == 2


@pytest.mark.parametrize(
    ("how", "code"),
    [(lambda: sys.exit(3), 3), (lambda: os._exit(4), 4), (lambda: os.kill(os.getpid(), signal.SIGKILL), -9)],
)
def test_a_child_that_ends_without_a_value_says_how(top, how, code):
    child = top.worker(how, restart=False)
    with pytest.raises(ChildEnded, match=f"exit code {code}") as caught:
        child.result(CEILING)
    assert (caught.value.pid, caught.value.name, caught.value.exitcode) == (child.pid, child.name, code)
    assert isinstance(caught.value.__cause__, StartFailed)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_child_that_is_ended_from_here_has_no_value(top, end):
    with top.expecting("online", CEILING, lambda message: message.from_ != top.pid):
        child = top.worker(_waits)
    getattr(child, end)()
    with pytest.raises(ChildEnded):
        child.result(CEILING)


def _waits():
    from ipevents import ipem

    ipem.start()
    threading.Event().wait()


def test_the_stop_of_the_emitter_ends_a_wait_for_a_value():
    top = Emitter().options(useSocket=False, stopTimeout=1000).start()
    child = top.worker(_waits)
    thread = threading.Thread(target=top.stop)
    thread.start()
    with pytest.raises(ChildEnded):
        child.result(CEILING)
    thread.join(CEILING)


def test_a_value_that_cannot_be_sent_says_so_and_the_child_ends_in_order(top):
    child = top.worker(lambda: threading.Lock(), restart=False)
    assert child.join(CEILING)
    assert child.exitcode == 0
    with pytest.raises(Unpicklable, match="returned"):
        child.result(CEILING)


def test_a_value_that_cannot_be_sent_says_so_at_once_although_the_child_stays(top):
    def stays():
        from ipevents import ipem

        ipem.on("evt", print)
        return threading.Lock()

    child = top.worker(stays)
    with pytest.raises(Unpicklable, match="returned"):
        child.result(CEILING)
    assert child.alive


def test_all_callers_get_the_same_value(top):
    child = top.worker(list, ([1, 2],), restart=False)
    found = []
    threads = [threading.Thread(target=lambda: found.append(child.result(CEILING))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(CEILING)
    assert len(found) == 8
    assert all(value is found[0] for value in found)


class OnlyThere:
    def __reduce__(self):
        return _only_there, (os.getpid(),)


def _only_there(pid):
    if os.getpid() != pid:
        raise LookupError("not here")


def test_a_value_that_cannot_be_read_here_says_so(top):
    child = top.worker(OnlyThere, restart=False)
    for _ in range(2):
        with pytest.raises(UnreadablePayload, match="not here"):
            child.result(CEILING)


def test_it_waits_no_longer_than_it_may(top):
    child = top.worker(_waits)
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"within 0\.1 s"):
        child.result(0.1)
    assert time.monotonic() - began < CEILING / 2
    for wrong in ("1", -1, float("nan")):
        with pytest.raises((TypeError, ValueError)):
            child.result(wrong)


def test_a_script_returns_nothing(top, tmp_path):
    script = tmp_path / "script.py"
    script.write_text("")
    child = top.fork(script, restart=False)
    with pytest.raises(TypeError, match="script"):
        child.result()


def test_in_a_listener_it_returns_what_is_there_and_never_waits(top):
    done = top.worker(pow, (2, 3), restart=False)
    waits = top.worker(_waits)
    assert done.result(CEILING) == 8
    found = []

    def listen(message):
        found.append(done.result())
        try:
            waits.result()
        except WouldDeadlock as error:
            found.append(str(error))

    top.on("evt", listen)
    top.emit("evt")
    assert found[0] == 8
    assert "result()" in found[1]


# A wait for an event ends with the child


def test_a_wait_for_an_event_ends_when_the_child_has_ended_for_good(top):
    def fails():
        raise LookupError("no job")

    child = top.worker(fails, restart=False)
    with pytest.raises(ChildEnded) as caught:
        top.waitFor("done", CEILING, child=child)
    assert isinstance(caught.value.__cause__, StartFailed | TargetFailed)
    assert "no job" in str(caught.value.__cause__)
    with pytest.raises(ChildEnded):  # at once, as it has ended already
        top.waitFor("done", child=child)


def test_a_restart_ends_no_wait(top, tmp_path):
    place = tmp_path / "tries"

    def second():
        from ipevents import ipem

        if not place.exists():
            place.touch()
            os._exit(1)
        ipem.sendToParents("done", 2)

    child = top.worker(second)
    with top.expecting("done", CEILING, child=child) as got:
        pass
    assert got.message.args == (2,)


def test_the_event_counts_that_comes_before_the_end(top):
    def tells():
        from ipevents import ipem

        ipem.sendToParents("done", 1)

    for _ in range(10):
        with top.expecting("done", CEILING) as got:
            child = top.worker(tells, restart=False)
        assert got.message.from_ == child.pid
        with top.expecting("done", CEILING, child=top.worker(tells, restart=False)) as got:
            pass


@pytest.mark.parametrize("event", ["offline", "error"])
def test_what_is_told_of_the_end_of_a_child_comes_before_the_end_of_its_wait(top, event):
    def fails():
        from ipevents import ipem

        ipem.start()
        raise LookupError("no job")

    top.on(event, lambda message, *args: threading.Event().wait(0.05))  # the other ends are told meanwhile
    for _ in range(5):
        with top.expecting(event, CEILING, child=(child := top.worker(fails, restart=False))) as got:
            child.join(CEILING)
        assert got.message.event == event


def test_a_stop_of_the_emitter_is_closed_and_not_the_end_of_a_child():
    top = Emitter().options(useSocket=False, stopTimeout=1000).start()
    child = top.worker(_waits)
    thread = threading.Thread(target=top.stop)
    thread.start()
    with pytest.raises(Closed):
        top.waitFor("done", CEILING, child=child)
    thread.join(CEILING)


@pytest.mark.parametrize("wrong", ["4711", 4711, object()])
def test_the_child_of_a_wait_is_a_child(top, wrong):
    with pytest.raises(TypeError, match="worker"):
        top.waitFor("done", child=wrong)
