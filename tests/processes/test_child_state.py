from __future__ import annotations

import errno
import signal
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import SimpleNamespace

import pytest

from ipevents import LinkError, OptionsError, StartFailed, TargetFailed, WorkerRefused
from ipevents._core.child_states import Contact, Phase
from ipevents._core.messages import FAILED, FINISHED, ONLINE, PROGRAM, STOP, TO_CHILD
from ipevents._core.outbox import Outbox
from ipevents._core.restarts import GiveUp, NoRestart, Restart, RestartPolicy
from ipevents._options import Options, child_options
from ipevents._platform.clock import monotonic
from ipevents._platform.shared_page import SharedPage
from ipevents._platform.threads import Deadline
from ipevents._processes import child_state as module
from ipevents._processes import programs
from ipevents._processes.child_state import ADMITTED_SECONDS, SETTLE_SECONDS, ChildState
from ipevents._transport.stream import Stream


def child(**options: object) -> ChildState:
    program = programs.function(print, (), {})
    return ChildState("name", program, True, RestartPolicy(True, 1.0, None), False, "spawn", **options)


class Signalled:
    """A process that notes its signals."""

    def __init__(self) -> None:
        self.signals: list[int] = []

    def send_signal(self, number: int) -> None:
        self.signals.append(number)


def connection() -> Connection:
    """One whose other end is closed."""
    ours, theirs = Pipe()
    theirs.close()
    return ours


class Told:
    """A link that notes what it is given."""

    def __init__(self) -> None:
        self.sent = 0
        self.is_settled = True
        self.lost_as = ""
        self.outbox = Outbox()
        self.records: list[tuple[int, int]] = []
        self.connections: list[object] = []
        self.tell = self.records.append

    def attach(self, stream: Stream) -> None:
        self.connections.append(stream.socket)
        stream.socket.close()


def starting(**options: object) -> ChildState:
    one = child(**options)
    one.link = Told()
    one.starts_now(0.0)
    return one


def running(**options: object) -> ChildState:
    one = starting(**options)
    one.started(Signalled())
    return one


def connected(**options: object) -> ChildState:
    one = running(**options)
    one.admitted(0.0)
    one.connected(connection())
    return one


def test_each_start_has_a_token_of_its_own():
    one = starting()
    first = (one.key_id, one.token)
    one.goes_next(Restart(1.0), 0.0)
    one.starts_now(1.0)
    assert one.key_id != first[0]
    assert one.token != first[1]


def test_the_page_of_a_process_is_kept_until_the_next_start():
    one = running()
    page = one.page = SharedPage()
    page.begin(0, 4711)
    one.exited(-9, 0.0)
    one.goes_next(Restart(1.0), 0.0)
    assert one.page.begun_last("x") == (0, 4711)
    one.starts_now(1.0)
    assert one.page is None
    assert page.begun_last("x") == (0, 0)


def test_a_start_that_was_not_attached_is_read_when_it_can_be_no_more():
    one = running()
    assert one.is_read(100.0)
    one.admitted(99.5)
    one.exited(0, 100.0)
    assert not one.is_read(100.0)
    assert one.times() == [99.5 + ADMITTED_SECONDS]
    assert one.is_read(99.5 + ADMITTED_SECONDS)


def test_a_start_that_was_attached_is_read_when_its_link_is():
    one = connected()
    one.exited(0, 1.0)
    assert not one.is_read(1e9)
    assert one.times() == []
    one.leaves(2.0)
    assert one.is_read(0.0)


def test_a_start_to_whose_link_a_thread_still_writes_is_not_read_and_looked_at_again_soon():
    one = connected()
    one.exited(0, 1.0)
    one.leaves(2.0)
    one.link.is_settled = False
    before = monotonic()
    assert not one.is_read(1e9)
    (at,) = one.times()
    assert before < at <= monotonic() + SETTLE_SECONDS
    one.link.is_settled = True
    assert one.times() == []


def test_nothing_comes_from_a_start_for_whose_connection_there_is_no_descriptor(monkeypatch):
    """Otherwise the end of its process would never be announced, nor another one started."""

    def refuse(*_):
        raise OSError(errno.EMFILE, "refused")

    one, ours = running(), connection()
    one.admitted(0.0)
    monkeypatch.setattr(module, "Stream", refuse)
    with pytest.raises(OSError, match="refused"):
        one.connected(ours)
    one.exited(1, 1.0)
    assert (ours.closed, one.is_read(1.0)) == (True, True)


def test_a_connection_that_comes_before_the_start_has_returned_waits_for_that():
    one = starting()
    one.admitted(0.0)
    one.connected(connection())
    assert one.link.connections == []
    one.started(Signalled())
    one.attach_early()
    one.attach_early()
    assert len(one.link.connections) == 1


def test_a_program_that_is_too_much_for_the_pipe_travels_over_the_link():
    """What goes through the pipe of a start is the same for every program."""
    big = programs.function(print, (b"x" * 1_000_000,), {})
    one = ChildState("name", big, True, RestartPolicy(True, 1.0, None), False, "spawn")
    assert one.program_size > 1_000_000


def test_the_online_of_a_child_ends_the_wait_for_it():
    one = connected()
    one.warn_at = 1.0
    one.heard((ONLINE, ("child",)))
    assert (one.contact, one.warn_at) == (Contact.ONLINE, None)


@pytest.mark.parametrize("record", [(STOP, 1), (PROGRAM, (), "", None, []), (99, "news")])
def test_what_no_child_says_of_itself_is_ignored(record):
    one = connected()
    before = dict(vars(one))
    one.heard(record)
    assert vars(one) == before


def test_what_a_child_says_of_its_end_is_kept_until_the_next_start():
    one = connected()
    one.heard((FAILED, "a traceback", True))
    one.heard((FINISHED, False))
    assert (one.failure, one.refused, one.finished) == ("a traceback", True, True)
    one.exited(1, 1.0)
    one.goes_next(Restart(0.0), 1.0)
    one.starts_now(1.0)
    assert (one.failure, one.refused, one.finished) == ("", False, False)


def stopping() -> ChildState:
    """Its process is told to stop at 0, has a grace of 1 s and is killed at 8."""
    one = connected()
    one.term_at, one.kill_at = 1.0, 8.0
    return one


def test_a_child_that_is_stopped_gets_no_signal_from_its_parent_but_kill():
    one = stopping()
    assert one.times() == [None, None, 8.0]
    for now in (0.5, 1.0, 7.0, 8.0, 9.0):
        one.act(now)
    assert one.process.signals == [signal.SIGKILL]


def test_a_child_that_goes_on_after_a_stop_of_its_own_gets_term_once():
    one = stopping()
    one.heard((FINISHED, True))
    one.act(1.0)
    assert one.process.signals == []  # its link is still there: it is told over that
    one.leaves(1.0)
    assert one.times() == [None, 1.0, 8.0]
    for now in (1.0, 2.0, 8.0, 9.0):
        one.act(now)
    assert one.process.signals == [signal.SIGTERM, signal.SIGKILL]


def test_a_child_that_leaves_by_itself_has_no_limit():
    one = connected()
    one.leaves(5.0)
    assert one.times() == [None, None, None]


def test_a_child_that_leaves_by_itself_has_the_limit_that_it_was_given():
    one = connected(leave_timeout=2.0)
    one.leaves(5.0)
    one.act(6.9)
    assert (one.times()[-1], one.process.signals) == (7.0, [])
    one.act(7.0)
    assert one.process.signals == [signal.SIGKILL]


def test_a_child_that_connects_during_its_stop_is_told_how_much_time_is_left_then():
    one = running()
    one.admitted(0.0)
    one.send_stop(Deadline(100.0))
    assert one.kill_at is not None
    one.kill_at -= 90.0  # so much time has passed
    one.connected(connection())
    assert [kind for kind, _ in one.link.records] == [STOP, STOP]
    assert one.link.records[0][1] == pytest.approx(95_000, abs=1000)
    assert one.link.records[1][1] == pytest.approx(9_500, abs=1000)


def test_a_child_that_connects_without_a_stop_is_told_nothing():
    assert connected().link.records == []


def test_what_has_ended_gets_no_signal():
    one = running()
    one.exited(0, 5.0)
    one.kill_at = 10.0
    one.act(10.0)
    assert one.process.signals == []


def test_what_waits_for_its_restart_is_ended_at_once_by_a_stop_or_kill():
    for end in (lambda one: one.send_stop(Deadline(8.0)), lambda one: one.kill()):
        one = starting()
        assert one.goes_next(Restart(1e9), 1e9)
        end(one)
        assert one.times() == [one.restart_at]
        assert one.restart_at < 1e9
        assert one.link.records == []


def test_the_last_phase_is_left_by_nothing_and_has_nothing_to_do():
    one = connected()
    one.exited(3, 1.0)
    assert not one.goes_next(GONE, 1.0)
    assert not one.is_over
    one.ends()
    assert (one.phase, one.is_over, one.process, one.times()) == (Phase.ENDED, True, None, [])
    with pytest.raises(RuntimeError, match="START .* ENDED"):
        one.starts_now(2.0)


def put(outbox: Outbox, *numbers: int) -> None:
    for number in numbers:
        outbox.put((TO_CHILD, (), "x", None, [(number,)]), 1)


def programs_and_events(outbox: Outbox) -> list[object]:
    return ["program" if record[0] == PROGRAM else record[-1][0][0] for record in outbox._all()]


def test_what_waits_for_a_process_that_will_not_be_is_counted():
    one = running()
    one.exited(0, 1.0)
    put(one.next_outbox(), 1)
    assert one.waiting() == 1
    assert one.ends() == 1
    assert one.waiting() == 0


def test_what_waits_in_the_outbox_of_the_link_is_counted_there_where_no_process_follows():
    one = starting()
    put(one.next_outbox(), 1, 2)
    assert one.next_outbox() is one.link.outbox
    assert one.waiting() == 2
    assert one.goes_next(Restart(0.0), 0.0)  # the start has failed
    assert one.waiting() == 2
    assert one.ends() == 0
    assert one.link.outbox.events == 2


def test_a_process_gets_its_program_first_and_then_what_was_sent_since_the_last_one_has_ended():
    one = running()
    outbox = one.link.outbox
    assert programs_and_events(outbox) == ["program"]
    outbox.clear()  # it was written
    put(outbox, -1)
    one.exited(0, 1.0)
    put(one.next_outbox(), 1, 2)
    assert programs_and_events(outbox) == [-1], "it was for the process that has ended"
    outbox.clear()  # so it is lost
    assert one.goes_next(Restart(0.0), 1.0)
    assert one.next_outbox() is one.link.outbox is outbox
    put(outbox, 3)
    one.starts_now(1.0)
    assert programs_and_events(outbox) == ["program", 1, 2, 3]
    assert one.waiting() == 3
    one.started(Signalled())
    assert one.waiting() == 0, "a process runs that gets it"


def test_a_frame_that_a_thread_is_about_to_write_stays_with_it_while_the_next_process_is_started():
    one = running()
    outbox = one.link.outbox
    outbox.clear()
    put(outbox, -1)
    records = outbox.take()
    size = outbox.being_written
    one.exited(0, 1.0)
    put(one.next_outbox(), 1)
    assert one.goes_next(Restart(0.0), 1.0)
    assert outbox.taken is records
    assert outbox.being_written == size > 0
    assert programs_and_events(outbox) == ["program", 1]


def test_a_start_that_has_failed_is_tried_again_with_one_program():
    one = starting()
    put(one.next_outbox(), 1)
    assert one.goes_next(Restart(0.0), 0.0)
    put(one.next_outbox(), 2)
    one.starts_now(1.0)
    assert programs_and_events(one.link.outbox) == ["program", 1, 2]


@pytest.mark.parametrize("policy", ["sometimes", 1.5, [], "True"])
def test_a_policy_that_there_is_not_is_refused(policy):
    with pytest.raises(OptionsError):
        child_options(policy, None, Options())


def test_what_waits_for_an_online_in_vain_is_named_once(caplog):
    one = running()
    one.pid, one.warn_at = "4711", 10.0
    one.link = SimpleNamespace(count_waiting=lambda before: 6 - before)
    one.sent_before = 4  # by the starts before
    for now in (9.0, 10.0, 11.0):
        one.act(now)
    (record,) = caplog.records
    assert record.getMessage().startswith("! 2 events for child name (4711) wait: it has not said online yet")


def test_nothing_is_said_where_nothing_waits(caplog):
    one = running()
    one.pid, one.warn_at = "4711", 10.0
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
    one = child()
    one.pid, one.wanted, one.failure, one.refused = "4711", wanted, failure, refused
    errors = one.failures(online, stopping, GONE)
    assert [type(error) for error in errors] == told
    assert all(str(error).startswith("child name (4711) ") for error in errors)


def test_what_is_given_up_is_told_after_the_failure_that_was_one_too_many():
    one = child()
    one.pid, one.exitcode = "4711", 3
    first, last = one.failures(False, False, GiveUp(5))
    assert (type(first), first.name, first.pid, first.exitcode) == (StartFailed, "name", "4711", 3)
    assert str(last) == "child name (4711) died young 5 times in a row"


# Quiet children


def test_what_other_threads_notice_of_a_quiet_child_is_taken_once_and_in_order():
    told = []
    one = running(is_quiet=True, on_online=lambda: told.append("online"), on_failure=told.append)
    one.admitted(0.0)
    one.connected(connection())
    one.heard((ONLINE, ("child",)))
    one.link_failed(error := LinkError("broken"))
    for call in one.take_news():
        call()
    assert told == ["online", error]
    assert one.take_news() == []


def test_where_nobody_wants_to_know_nothing_is_kept():
    one = connected()
    one.heard((ONLINE, ("child",)))
    one.link_failed(LinkError("broken"))
    assert one.take_news() == []


def waiting(**options: bool) -> ChildState:
    one = exited(**options)
    one.goes_next(Restart(1.0), 0.0)
    return one


def exited(**options: bool) -> ChildState:
    one = running(**options)
    one.exited(0, 0.0)
    return one


def killed(**options: bool) -> ChildState:
    one = running(**options)
    one.kill()
    return one


def ended(**options: bool) -> ChildState:
    one = exited(**options)
    one.goes_next(NoRestart(), 0.0)
    one.ends()
    return one


def silent(**options):
    """It runs, and it is still waited for that it says that it is online."""
    child = running(**options)
    child.warn_at = 10.0
    return child


@pytest.mark.parametrize(
    ("make", "online", "is_coming"),
    [
        (child, False, True),
        (starting, False, True),
        (silent, False, True),
        (running, False, False),  # it has said nothing for so long that it counts as one that never will
        (running, True, False),
        (exited, True, True),  # it may be started again, which is not decided yet
        (exited, False, True),
        (waiting, False, True),
        (killed, False, False),
        (killed, True, False),
        (ended, False, False),
    ],
)
def test_a_child_is_coming_until_its_online_or_until_no_other_process_follows(make, online, is_coming):
    assert make().is_coming(online) is is_coming
    assert not make(is_quiet=True).is_coming(online)
