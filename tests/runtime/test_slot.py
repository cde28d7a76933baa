from __future__ import annotations

import signal
from types import SimpleNamespace

import pytest

from ipevents import OptionsError, StartFailed, TargetFailed, WorkerRefused
from ipevents._core.messages import FAILED, FINISHED, ONLINE, STOP
from ipevents._core.restarts import GiveUp, NoRestart, RestartPolicy
from ipevents._options import Options, child_options
from ipevents._platform.threads import Deadline
from ipevents._processes import programs
from ipevents._processes.child_state import ADMITTED_SECONDS, Slot


def slot(**options: float) -> Slot:
    program = programs.function(print, (), {})
    return Slot("name", program, True, RestartPolicy(True, 1.0, None), False, "spawn", **options)


def test_each_start_has_a_token_of_its_own():
    one = slot()
    first = (one.key, one.token)
    one.begin()
    assert one.key != first[0]
    assert one.token != first[1]


def test_a_start_that_was_not_attached_is_read_when_it_can_be_no_more():
    one = slot()
    assert one.is_read(100.0)
    one.process, one.exited_at, one.admitted_at = object(), 100.0, 99.5
    assert not one.is_read(100.0)
    assert one.times()[-1] == 99.5 + ADMITTED_SECONDS
    assert one.is_read(99.5 + ADMITTED_SECONDS)


def test_a_start_that_was_attached_is_read_when_its_link_is():
    one = slot()
    one.attached = True
    assert not one.is_read(1e9)
    one.link_read = True
    assert one.is_read(0.0)


def test_a_program_that_is_too_much_for_the_pipe_travels_over_the_link():
    """What goes through the pipe of a start is the same for every program."""
    big = programs.function(print, (b"x" * 1_000_000,), {})
    one = Slot("name", big, True, RestartPolicy(True, 1.0, None), False, "spawn")
    assert one.program_size > 1_000_000


def test_only_its_own_online_is_the_childs_online():
    one = slot()
    one.warn_at = 1.0
    one.heard((ONLINE, ("grandchild", "child")))
    assert (one.online, one.warn_at) == (False, 1.0)
    one.heard((ONLINE, ("child",)))
    assert (one.online, one.warn_at) == (True, None)


def test_what_a_child_says_of_its_end_is_kept_until_the_next_start():
    one = slot()
    one.heard((FAILED, "a traceback", True))
    one.heard((FINISHED,))
    assert (one.failure, one.refused, one.finished) == ("a traceback", True, True)
    one.begin()
    assert (one.failure, one.refused, one.finished) == ("", False, False)


class Signalled:
    """A process that notes its signals."""

    def __init__(self) -> None:
        self.signals: list[int] = []

    def send_signal(self, number: int) -> None:
        self.signals.append(number)


def stopping(slot: Slot) -> Signalled:
    """A process that is told to stop at 0, has a grace of 1 s and is killed at 8."""
    process = slot.process = Signalled()
    slot.term_at, slot.kill_at = 1.0, 8.0
    return process


def test_a_child_that_is_stopped_gets_no_signal_from_its_parent_but_kill():
    one = slot()
    process = stopping(one)
    assert one.times() == [None, None, 8.0]
    for now in (0.5, 1.0, 7.0, 8.0, 9.0):
        one.act(now)
    assert process.signals == [signal.SIGKILL]


def test_a_child_that_goes_on_after_a_stop_of_its_own_gets_term_once():
    one = slot()
    process = stopping(one)
    one.heard((FINISHED, True))
    one.act(1.0)
    assert process.signals == []  # its link is still there: it is told over that
    one.leaves(1.0)
    assert one.times() == [None, 1.0, 8.0]
    for now in (1.0, 2.0, 8.0, 9.0):
        one.act(now)
    assert process.signals == [signal.SIGTERM, signal.SIGKILL]


def test_a_child_that_leaves_by_itself_has_no_limit():
    one = slot()
    one.process = Signalled()
    one.leaves(5.0)
    assert one.times() == [None, None, None]


def test_a_child_that_leaves_by_itself_has_the_limit_that_it_was_given():
    one = slot(leave_timeout=2.0)
    process = one.process = Signalled()
    one.leaves(5.0)
    one.act(6.9)
    assert (one.times()[-1], process.signals) == (7.0, [])
    one.act(7.0)
    assert process.signals == [signal.SIGKILL]


def test_a_child_that_connects_during_its_stop_is_told_how_much_time_is_left_then():
    one = slot()
    told: list[tuple[int, int]] = []
    one.link = SimpleNamespace(tell=told.append)
    one.process = Signalled()
    one.connected()
    assert told == []
    one.tell_stop(Deadline(100.0))
    assert one.kill_at is not None
    one.kill_at -= 90.0  # so much time has passed
    one.connected()
    assert [kind for kind, _ in told] == [STOP, STOP]
    assert told[0][1] == pytest.approx(95_000, abs=1000)
    assert told[1][1] == pytest.approx(9_500, abs=1000)


def test_what_has_ended_gets_no_signal():
    one = slot()
    process = one.process = Signalled()
    one.kill_at, one.exited_at = 10.0, 5.0
    one.act(10.0)
    assert process.signals == []


@pytest.mark.parametrize("policy", ["sometimes", 1.5, [], "True"])
def test_a_policy_that_there_is_not_is_refused(policy):
    with pytest.raises(OptionsError):
        child_options(policy, None, Options())


def test_what_waits_for_an_online_in_vain_is_named_once(caplog):
    one = slot()
    one.process, one.pid, one.warn_at = Signalled(), "4711", 10.0
    one.link = SimpleNamespace(count_waiting=lambda before: 6 - before)
    one.sent_before = 4  # by the starts before
    for now in (9.0, 10.0, 11.0):
        one.act(now)
    (record,) = caplog.records
    assert record.getMessage().startswith("! 2 events for child name (4711) wait: it has not said online yet")


def test_nothing_is_said_where_nothing_waits(caplog):
    one = slot()
    one.process, one.pid, one.warn_at = Signalled(), "4711", 10.0
    one.link = SimpleNamespace(count_waiting=lambda before: 0)
    one.act(10.0)
    assert caplog.records == []


GONE = NoRestart()


@pytest.mark.parametrize(
    ("online", "stopping", "wanted", "failure", "refused", "told"),
    [
        (False, False, False, "", False, [StartFailed]),
        (False, False, False, "trace", False, [StartFailed]),
        (False, False, True, "trace", False, []),
        (False, True, False, "trace", False, []),
        (False, False, False, "trace", True, [StartFailed]),
        (True, False, False, "", False, []),
        (True, False, False, "trace", False, [TargetFailed]),
        (True, False, True, "trace", False, []),
        (True, True, False, "trace", False, []),
        (True, False, False, "trace", True, [WorkerRefused]),
    ],
)
def test_what_is_told_of_an_end(online, stopping, wanted, failure, refused, told):
    one = slot()
    one.pid, one.wanted, one.failure, one.refused = "4711", wanted, failure, refused
    errors = one.failures(online, stopping, GONE)
    assert [type(error) for error in errors] == told
    assert all(str(error).startswith("child name (4711) ") for error in errors)


def test_what_is_given_up_is_told_after_the_failure_that_was_one_too_many():
    one = slot()
    one.pid, one.exitcode = "4711", 3
    first, last = one.failures(False, False, GiveUp(5))
    assert (type(first), first.name, first.pid, first.exitcode) == (StartFailed, "name", "4711", 3)
    assert str(last) == "child name (4711) died young 5 times in a row"
